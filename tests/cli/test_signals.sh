# test_signals.sh - signals: those that announce an end make a run save and stop, those of limits and faults become one line.
. tests/cli/common.sh

head -c 60000 examples/tales/train.txt >"$TMP/train.txt"
head -c 4000 examples/tales/val.txt >"$TMP/val.txt"
cat >"$TMP/small.yaml" <<END
method: cab-best
threads: 1
precision: fp32
teacher: {path: examples/tales/teacher}
student: {n_layer: 1, d_model: 32, n_head: 4, d_state: 8, d_mlp: 32}
data: {train: [$TMP/train.txt], eval: [$TMP/val.txt], seq_len: 32, cache: $TMP/cache}
train: {batch: 2, tokens: 1024000, eval_every: 100000}
init: {weights: scratch, fold: false}
END

# start OUT FLAGS... - a run in the background that has trained a little; its number in $pid.
start() {
    out=$1
    shift
    "$CAB" distill "$TMP/small.yaml" --out "$out" "$@" >"$TMP/out" 2>"$TMP/err" &
    pid=$!
    until grep -qs '"step":3,' "$out/log.jsonl" "$out/soft/log.jsonl"; do
        kill -0 $pid 2>/dev/null || fail "the run ended early: $(cat "$TMP/err")"
        sleep 0.05
    done
}

# ended CODE - waits for it.
ended() {
    code=0
    wait $pid || code=$?
    [ "$code" -eq "$1" ] || fail "$out: exit code $code, expected $1: $(cat "$TMP/err")"
}

for signal in USR1 USR2 XCPU TERM HUP; do
    start "$TMP/$signal"
    kill -$signal $pid
    [ $signal = TERM ] || [ $signal = HUP ] || kill -$signal $pid # batch systems may say it twice
    ended 130
    says err 'interrupted at step'
    [ -s "$TMP/$signal/checkpoint.safetensors" ] || fail "no checkpoint after SIG$signal"
done
start "$TMP/several" --methods soft,vanilla
kill -USR1 $pid
ended 130
[ -s "$TMP/several/soft/checkpoint.safetensors" ] || fail 'no checkpoint after SIGUSR1 to a comparison'
[ ! -e "$TMP/several/vanilla" ] || fail 'a comparison went on after SIGUSR1'

# a limit on file sizes is an error with its reason, and nothing half-written stays
limited() { sh -c 'ulimit -f 8; exec "$@"' sh "$CAB" "$@"; }
if limited version >/dev/null 2>&1; then
    expect 3 limited distill "$TMP/small.yaml" --out "$TMP/limited" --set train.tokens=1024
    says err 'cannot write: File too large'
    [ -z "$(find "$TMP/limited" -name '*cab-tmp*')" ] || fail 'a write beyond the limit left its temporary file'
else
    echo "skipped: a program of ThreadSanitizer does not start under a limit on file sizes, as it writes a file itself"
fi

# what a kill leaves goes with the next run
start "$TMP/left"
kill -KILL $pid
wait $pid 2>/dev/null || true
for file in left/checkpoint.safetensors left/recipe.yaml cache/x.tok; do
    : >"$TMP/$file.cab-tmp-0123456789abcdef"
done
expect 0 "$CAB" distill "$TMP/small.yaml" --out "$TMP/left" --overwrite --set train.tokens=1024
[ -z "$(find "$TMP/left" "$TMP/cache" -name '*cab-tmp*')" ] || fail 'temporaries of a dead process stay'

# data that is cut short while it is mapped
head -c 2097152 /dev/zero | tr '\0' '\1' >"$TMP/data.bin" # token 257, a million times
# The process ends in the handler of the fault, where no thread is joined: ThreadSanitizer would call that a leak.
before_cut=${TSAN_OPTIONS-}
export TSAN_OPTIONS="$before_cut report_thread_leaks=0"
start "$TMP/cut" --set "data.train=$TMP/data.bin" --set train.checkpoint_every=1
cp "$TMP/cut/checkpoint.safetensors" "$TMP/before"
: >"$TMP/data.bin"
ended 3
says err 'data.bin: became shorter'
[ -s "$TMP/cut/checkpoint.safetensors" ] || fail 'a fault cost the checkpoint'
export TSAN_OPTIONS="$before_cut"
