#!/bin/sh
# ranks.sh N - distils the tales as N ranks, one for each GPU, and holds every run against one process on one GPU: losses to rounding, the
# same bits twice, the optimizer divided, the memory that it takes, a rank that is killed, the checkpoint on one rank. From the root of the
# repository, after sh cmake/gpu.sh build. CAB: the tool; DEVICE: cpu for a try without GPUs. NCCL_NVLS_ENABLE=0 is kept.
set -eu
n=${1:?number of ranks}
CAB=${CAB:-build/cuda/cab}
DEVICE=${DEVICE:-cuda}
TMP=$(mktemp -d)
trap 'rm -rf "$TMP"' EXIT
export NCCL_NVLS_ENABLE=0 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

cat >"$TMP/recipe.yaml" <<END
method: cab-published
device: $DEVICE
precision: ${PRECISION:-fp32}
teacher: {path: examples/tales/teacher}
data: {train: [examples/tales/train.txt], eval: [examples/tales/val.txt], seq_len: ${LENGTH:-128}, cache: $TMP/cache}
train: {batch: 24, micro_batch: 12, tokens: ${TOKENS:-368640}, ema: 0.9, eps: 1e-4, eval_every: 50, checkpoint_every: 20, timeout: 60}
END

# start RANKS OUT ARGUMENT... - RANKS 0: one process, which knows of no others.
start() {
    ranks=$1 out=$2
    shift 2
    if [ "$ranks" -eq 0 ]; then
        "$CAB" distill "$TMP/recipe.yaml" --out "$TMP/$out" "$@"
    elif command -v mpirun >/dev/null 2>&1; then
        mpirun --bind-to none --oversubscribe -n "$ranks" "$CAB" distill "$TMP/recipe.yaml" --out "$TMP/$out" "$@"
    else # what torchrun does, by hand
        for rank in $(seq $((ranks - 1))); do
            RANK=$rank WORLD_SIZE=$ranks MASTER_ADDR=127.0.0.1 MASTER_PORT=28199 "$CAB" distill "$TMP/recipe.yaml" --out "$TMP/$out" "$@" &
        done
        RANK=0 WORLD_SIZE=$ranks MASTER_ADDR=127.0.0.1 MASTER_PORT=28199 "$CAB" distill "$TMP/recipe.yaml" --out "$TMP/$out" "$@"
        wait
    fi
}

run() {
    start "$@" >"$TMP/$2.out" 2>"$TMP/$2.err" || { echo "FAILED: $*"; tail -5 "$TMP/$2.err"; exit 1; }
}

bits() {
    cksum <"$TMP/$1/student/model.safetensors"
}

# The largest relative difference of losses between two runs, and their last losses.
compare() {
    for r in "$1" "$2"; do
        grep '"lr"' "$TMP/$r/log.jsonl" | grep -o '"loss":[0-9.e-]*' | cut -d: -f2 >"$TMP/$r.losses"
    done
    paste "$TMP/$1.losses" "$TMP/$2.losses" | awk -v a="$1" -v b="$2" '
        { d = ($1 - $2) / $1; d = d < 0 ? -d : d; most = d > most ? d : most; x = $1; y = $2 }
        END { printf "%-10s and %-10s: %d steps, losses differ by %.1e at most, at the end %s and %s\n", a, b, NR, most, x, y
              exit NR == 0 || most > 1e-3 }'
}

run 0 alone
run "$n" ranks
compare alone ranks
run "$n" again
[ "$(bits ranks)" = "$(bits again)" ] || { echo "FAILED: two runs of $n ranks differ"; exit 1; }
echo "two runs of $n ranks have the same bits"
run "$n" divided --set train.shard=optimizer
compare alone divided
run "$n" divided2 --set train.shard=optimizer
[ "$(bits divided)" = "$(bits divided2)" ] || { echo "FAILED: two runs with a divided optimizer differ"; exit 1; }
grep -h '^  optimizer' "$TMP/alone.err" "$TMP/divided.err"
for r in alone ranks divided; do
    grep -o '"tokens_per_second": *[0-9.]*' "$TMP/$r/result.json" | sed "s/^/$r /"
done
if [ "$n" -gt 1 ]; then
    (start "$n" killed --set train.shard=optimizer --set train.timeout=10) >"$TMP/killed.out" 2>"$TMP/killed.err" &
    launcher=$!
    while ! [ -s "$TMP/killed/log.jsonl" ] || [ "$(wc -l <"$TMP/killed/log.jsonl")" -lt 25 ]; do sleep 0.1; done
    victim=
    for environ in /proc/[0-9]*/environ; do
        if { tr '\0' '\n' <"$environ"; } 2>/dev/null | grep -qxE '(OMPI_COMM_WORLD_RANK|RANK)=1'; then
            pid=${environ#/proc/}
            [ "$(tr '\0' ' ' <"/proc/${pid%/environ}/cmdline" | grep -c 'killed')" -eq 0 ] || victim=${pid%/environ}
        fi
    done
    began=$(date +%s)
    kill -KILL "$victim"
    wait "$launcher" && { echo 'FAILED: a run ends well without a rank'; exit 1; }
    echo "killed rank 1: all ended after $(($(date +%s) - began)) s; $(grep -m 1 -E 'signal 9|Killed|is gone|no answer' "$TMP/killed.err")"
    run 1 killed --resume --set train.shard=none
    compare alone killed
fi
echo "ranks.sh $n: all is well"
