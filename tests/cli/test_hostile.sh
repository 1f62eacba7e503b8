# test_hostile.sh - what stands where a file is expected and is none, and numbers that no machine has: one line, at once.
. "$(dirname "$0")/common.sh"

model=examples/tales/teacher
cp -r "$model" "$TMP/model"
printf 'Once upon a time there was a cat.\n' >"$TMP/a.txt"

# a FIFO that nobody writes to: opening it would wait for ever
refuses() { # refuses FILE COMMAND...: names FILE
    file=$1
    shift
    code=0
    timeout 20 "$CAB" "$@" >"$TMP/out" 2>"$TMP/err" || code=$?
    [ "$code" -ne 124 ] || fail "$* waits for $file"
    [ "$code" -ne 0 ] || fail "$* takes $file"
    says err "$file"
    says err 'expected a regular file'
    [ "$(wc -l <"$TMP/err")" -eq 1 ] || fail "more than a line: $(cat "$TMP/err")"
}
for name in config.json tokenizer.json; do
    rm "$TMP/model/$name"
    mkfifo "$TMP/model/$name"
    refuses "$name" eval "$TMP/model" --data "$TMP/a.txt" --cache "$TMP/cache"
    rm "$TMP/model/$name"
    cp "$model/$name" "$TMP/model/$name"
done
mkfifo "$TMP/pipe.txt" "$TMP/pipe.yaml"
refuses pipe.txt eval "$TMP/model" --data "$TMP/pipe.txt" --cache "$TMP/cache"
refuses pipe.yaml recipe validate "$TMP/pipe.yaml"
for name in log.jsonl result.json compare.json predictions.json recipe.yaml; do
    rm -rf "$TMP/run"
    mkdir -p "$TMP/run"
    printf '{"step":1,"loss":1.0}\n' >"$TMP/run/log.jsonl"
    rm -f "$TMP/run/$name"
    mkfifo "$TMP/run/$name"
    code=0
    timeout 20 "$CAB" report "$TMP/run" -o "$TMP/page.html" >"$TMP/out" 2>"$TMP/err" || code=$?
    [ "$code" -ne 124 ] || fail "report waits for $name"
    says err "$name"
    says err 'expected a regular file'
done

# more threads than processors
expect 0 "$CAB" eval "$TMP/model" --data "$TMP/a.txt" --cache "$TMP/cache" -q --json
OMP_NUM_THREADS=200000 "$CAB" eval "$TMP/model" --data "$TMP/a.txt" --cache "$TMP/cache" -q --json >"$TMP/many" 2>"$TMP/err" ||
    fail "200000 threads: $(cat "$TMP/err")"
says err 'OMP_NUM_THREADS asks for 200000 threads, but this process has'
[ "$(wc -l <"$TMP/err")" -eq 1 ] || fail "more than a line: $(cat "$TMP/err")"
grep -o '"loss": [0-9.]*' "$TMP/out" >"$TMP/one" && grep -o '"loss": [0-9.]*' "$TMP/many" | cmp -s - "$TMP/one" ||
    fail "another loss: $(cat "$TMP/many")"
