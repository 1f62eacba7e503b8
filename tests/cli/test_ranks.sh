#!/bin/sh
# test_ranks.sh - cab distill as 1, 2 and 3 ranks: what one process gives with the same batch, the same bits every time, the optimizer
# divided, another number of ranks after an interruption, a rank that dies, one that hangs. Without MPI only what torchrun's variables say.
. tests/cli/common.sh

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_plm_rsh_agent=false
export OMP_NUM_THREADS=1

head -c 30000 examples/tales/train.txt >"$TMP/train.txt"
head -c 2000 examples/tales/val.txt >"$TMP/val.txt"
cat >"$TMP/text.yaml" <<END
method: cab-published
threads: 1
precision: fp32
teacher: {path: examples/tales/teacher}
student: {n_layer: 1, d_model: 32, n_head: 4, d_state: 8, d_mlp: 32}
data: {train: [$TMP/train.txt], eval: [$TMP/val.txt], seq_len: 32, cache: $TMP/cache}
train: {batch: 12, micro_batch: 6, tokens: 3072, ema: 0.9, eps: 1e-4, eval_every: 3, checkpoint_every: 2, timeout: 60}
END

# one OUT ARGUMENT... - a run of one process.
one() {
    out=$1
    shift
    expect 0 "$CAB" distill -q "$@" --out "$TMP/$out"
}

bits() {
    cksum <"$TMP/$1/student/model.safetensors"
}

# near OUT OUT - the logs of two runs say the same, but for rounding: losses and norms to 1e-5. With a small eps AdamW would make steps
# of lr out of gradients that are nothing but rounding.
near() {
    for run in "$1" "$2"; do
        tr ',' '\n' <"$TMP/$run/log.jsonl" | grep -E '"(step|loss|ce|kl|align|layer|grad_norm|agreement|top1)"' | tr -d '{}" ' >"$TMP/$run.figures"
    done
    [ -s "$TMP/$1.figures" ] || fail "$1: no figures in its log"
    paste -d: "$TMP/$1.figures" "$TMP/$2.figures" | awk -F: '
        { d = $2 - $4; d = d < 0 ? -d : d; m = $2 < 0 ? -$2 : $2
          if ($1 != $3 || d > 1e-5 * (m > 1e-3 ? m : 1e-3)) { print; bad = 1 } }
        END { exit bad }' >"$TMP/differences" || fail "$1 and $2 differ: $(head -5 "$TMP/differences")"
}

# ---- torchrun's variables, which need no MPI ------------------------------------------------------------------------------

one alone "$TMP/text.yaml"
RANK=0 WORLD_SIZE=1 expect 0 "$CAB" distill -q "$TMP/text.yaml" --out "$TMP/single"
[ "$(bits single)" = "$(bits alone)" ] || fail 'one rank gives other bits than none'
RANK=0 WORLD_SIZE=2 expect 2 "$CAB" distill "$TMP/text.yaml" --out "$TMP/nowhere"
says err 'MASTER_ADDR is ""'
RANK=1 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=28177 "$CAB" distill "$TMP/text.yaml" --out "$TMP/tcp" 2>"$TMP/err1" &
RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=28177 expect 5 "$CAB" distill "$TMP/text.yaml" --out "$TMP/tcp"
says err 'train on GPUs (device: cuda); on processors start them by mpirun or srun'
wait

# MPI keeps memory until the process ends, and its threads are not instrumented; tests/base/test_communicator.c runs under sanitizers.
if [ -n "${CAB_TEST_SANITIZED-}" ]; then
    echo 'sanitizers do not see into MPI: no run of several ranks'
    exit 0
fi
if ! command -v mpirun >/dev/null 2>&1 || ! "$CAB" version | grep -q '^ranks .*MPI'; then
    echo 'MPI is not here: no run of several ranks'
    exit 0
fi

# ---- mpirun ---------------------------------------------------------------------------------------------------------------

# ranks N CODE OUT ARGUMENT... - a run of N ranks.
ranks() {
    n=$1 code=$2 out=$3
    shift 3
    expect "$code" mpirun --oversubscribe --bind-to none -n "$n" "$CAB" distill "$@" --out "$TMP/$out"
}

ranks 1 0 one "$TMP/text.yaml"
[ "$(bits one)" = "$(bits alone)" ] || fail 'mpirun -n 1 gives other bits than no mpirun'
for n in 2 3; do
    ranks $n 0 "n$n" "$TMP/text.yaml"
    near alone "n$n"
    ranks $n 0 "shard$n" "$TMP/text.yaml" --set train.shard=optimizer
    near alone "shard$n"
    sed -n 's/^  optimizer *//p' "$TMP/err" >"$TMP/optimizer$n"
done
ranks 3 0 again "$TMP/text.yaml"
[ "$(bits again)" = "$(bits n3)" ] || fail 'three ranks twice give other bits'
[ "$(grep -c '^run ' "$TMP/out")" -eq 1 ] || fail "the table is not there once: $(cat "$TMP/out")"

# moments: 2 * 4 bytes of each parameter that trains, of one rank and of three
one plan "$TMP/text.yaml" && "$CAB" distill "$TMP/text.yaml" --out "$TMP/plan" --overwrite 2>&1 | sed -n 's/^  optimizer *//p' >"$TMP/optimizer1"
paste "$TMP/optimizer1" "$TMP/optimizer3" | awk '
    { n++; share = $3 / $1; if ($2 != $4 || share > 0.345 || share < 0.32) { print; bad = 1 } }
    END { exit bad || n != 2 }' >"$TMP/shares" || fail "a third of the optimizer: $(cat "$TMP/shares" "$TMP/optimizer1" "$TMP/optimizer3")"

# a batch that does not divide
ranks 2 7 odd "$TMP/text.yaml" --set train.batch=9 --set train.micro_batch=3
says err 'train.micro_batch 3 does not divide among 2 ranks'
ranks 2 2 dry "$TMP/text.yaml" --dry-run
says err '--dry-run is for one process, this is one of 2'

# the layer-wise error
cat >"$TMP/layers.yaml" <<END
threads: 1
precision: fp32
teacher: {path: examples/tales/teacher}
student: {n_layer: 2}
data: {train: [$TMP/train.txt], eval: [$TMP/val.txt], seq_len: 32, cache: $TMP/cache}
train: {batch: 6, eps: 1e-4, eval_every: 100}
stages: [{name: layers, steps: 3, layer: 1}]
END
one layers "$TMP/layers.yaml"
ranks 2 0 layers2 "$TMP/layers.yaml"
near layers layers2

# the matrix error
sed 's/name: layers, steps: 3, layer: 1/name: matrix, steps: 3, matrix: 1/' "$TMP/layers.yaml" >"$TMP/matrix.yaml"
one matrix "$TMP/matrix.yaml"
ranks 2 0 matrix2 "$TMP/matrix.yaml"
near matrix matrix2

# pictures are mixed with those of the same rank
if python3 tests/campaigns/make_images.py "$TMP" 2>/dev/null; then
    cat >"$TMP/images.yaml" <<END
threads: 1
precision: fp32
teacher: {path: $TMP/vit}
student: {architecture: vim, n_layer: 1}
data: {train: [$TMP/train], eval: [$TMP/val], cache: $TMP/cache}
train: {batch: 12, micro_batch: 6, tokens: 60, ema: 0.9, eps: 1e-4, eval_every: 2, lr: 1e-3}
augment: {preset: deit}
stages: [{name: joint, kl: 1, ce: 1, align: 1}]
END
    one images "$TMP/images.yaml"
    ranks 3 0 images3 "$TMP/images.yaml" --set train.shard=optimizer
    near images images3
    ranks 2 7 images2 "$TMP/images.yaml"
    says err 'an odd number: mixup and cutmix need pairs'
else
    echo 'no pictures: python3 is not here'
fi

# ---- ranks that end -------------------------------------------------------------------------------------------------------

# process RANK - the process of a rank that $launcher has started.
process() {
    for stat in /proc/[0-9]*/stat; do
        [ "$(cut -d' ' -f4 "$stat" 2>/dev/null)" = "$launcher" ] || continue
        pid=${stat#/proc/}
        pid=${pid%/stat}
        ! tr '\0' '\n' <"/proc/$pid/environ" 2>/dev/null | grep -qx "OMPI_COMM_WORLD_RANK=$1" || echo "$pid"
    done
}

# started OUT ARGUMENT... - begins a run of three ranks, and waits for its second checkpoint.
started() {
    out=$1
    shift
    mpirun --oversubscribe --bind-to none -n 3 "$CAB" distill "$TMP/text.yaml" --out "$TMP/$out" "$@" >"$TMP/out" 2>"$TMP/err" </dev/null &
    launcher=$!
    for _ in $(seq 200); do
        [ ! -s "$TMP/$out/log.jsonl" ] || [ "$(wc -l <"$TMP/$out/log.jsonl")" -lt 6 ] || break
        sleep 0.1
    done
    victim=$(process 1)
    [ -n "$victim" ] || fail "no rank 1 of $launcher: $(cat "$TMP/err")"
}

# ended WHAT - the launcher ends within 20 seconds, with a failure.
ended() {
    for _ in $(seq 200); do
        kill -0 "$launcher" 2>/dev/null || break
        sleep 0.1
    done
    ! kill -0 "$launcher" 2>/dev/null || fail "$1: still running after 20 s"
    ! wait "$launcher" || fail "$1: ended well"
}

sed -i 's/tokens: 3072,/tokens: 23040,/; s/eval_every: 3,/eval_every: 50,/' "$TMP/text.yaml"
one unbroken "$TMP/text.yaml"
started killed --set train.shard=optimizer
kill -KILL "$victim"
ended 'a rank was killed'
grep -qE 'rank 1 .*(signal 9|Killed)' "$TMP/err" || fail "nobody names the killed rank: $(cat "$TMP/err")"

# the checkpoint of three ranks with a divided optimizer goes on with two ranks and with one process
cp -r "$TMP/killed" "$TMP/alone-on"
ranks 2 0 killed --resume "$TMP/text.yaml" --set train.shard=optimizer
says err 'the run had 3 ranks and goes on with 2'
near unbroken killed
one alone-on --resume "$TMP/text.yaml"
near unbroken alone-on

started hung --set train.timeout=2
kill -STOP "$victim"
ended 'a rank hung'
grep -q 'rank 1 of 3 (.*process '"$victim"'): no answer for 2 s (train.timeout)' "$TMP/err" || fail "nobody names the rank that hung: $(cat "$TMP/err")"
grep -q 'the last good checkpoint is .*hung/checkpoint.safetensors (step [0-9]*[02468])' "$TMP/err" || fail "no checkpoint is named: $(cat "$TMP/err")"
kill -KILL "$victim" 2>/dev/null || true
