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

# data as it lies
mkdir -p "$TMP/corpus/deep" "$TMP/mixed" "$TMP/tables"
cp "$TMP/a.txt" "$TMP/corpus/1.txt"
printf 'Lily saw a dog.\n' >"$TMP/corpus/deep/2.txt"
printf '# Notes\n' >"$TMP/mixed/README.md"
cp "$TMP/a.txt" "$TMP/mixed/"
printf 'PAR1....PAR1' >"$TMP/tables/part-0.parquet"
tokens() { # tokens ARGUMENT...
    expect 0 "$CAB" eval "$@" --cache "$TMP/cache" -q --json
    sed -n 's/.*"documents": \([0-9]*\).*/\1/p' "$TMP/out"
}
[ "$(tokens "$TMP/model" --data "$TMP/corpus")" = 2 ] || fail 'a folder is its files'
[ "$(tokens "$TMP/model" --data "$TMP/corp*/*.txt")" = 1 ] || fail 'a pattern is what it matches'
[ "$(tokens "$TMP/model" --data "$TMP/a.txt" "$TMP/corpus/1.txt" "$TMP/corpus/deep/2.txt")" = 3 ] || fail 'files behind --data'
[ "$(tokens --data "$TMP/a.txt" "$TMP/corpus/deep/2.txt" "$TMP/model")" = 2 ] || fail 'files before the model'
expect 4 "$CAB" eval "$TMP/model" --data "$TMP/mixed" --cache "$TMP/cache"
says err "/mixed: holds .md and .txt files; say which are meant by a pattern"
for table in "$TMP/tables" "$TMP/tables/part-0.parquet"; do
    expect 5 "$CAB" eval "$TMP/model" --data "$table" --cache "$TMP/cache"
    says err 'part-0.parquet: is a parquet file; convert it (with pandas and pyarrow): python3 -c "import sys, pandas; '
    says err "lines=True)\" $TMP/tables/part-0.parquet $TMP/tables/part-0.jsonl"
done
cp "$TMP/tables/part-0.parquet" "$TMP/named.txt"
expect 5 "$CAB" eval "$TMP/model" --data "$TMP/named.txt" --cache "$TMP/cache"
says err 'is a parquet file'
expect 3 "$CAB" eval "$TMP/model" --data "$TMP/none*.txt" --cache "$TMP/cache"
says err 'no such file, and no file that it would match'
printf 'id,body\n1,Lily saw a dog.\n' >"$TMP/t.csv"
expect 4 "$CAB" eval "$TMP/model" --data "$TMP/t.csv" --cache "$TMP/cache"
says err 'no column "text" (text_field chooses it); its columns: id, body'
[ "$(tokens "$TMP/model" --data "$TMP/t.csv" --text-field body)" = 1 ] || fail 'a column of a table'

# weights so large that nothing finite comes out: an error with its code, not a line left out
cp "$model/model.safetensors" "$TMP/model/model.safetensors"
chmod u+w "$TMP/model/model.safetensors"
size=$(wc -c <"$TMP/model/model.safetensors")
head -c 65536 /dev/zero | tr '\0' '\177' |
    dd of="$TMP/model/model.safetensors" bs=4096 seek=$((size / 4096 - 16)) conv=notrunc 2>/dev/null
expect 8 "$CAB" eval "$TMP/model" --data "$TMP/a.txt" --cache "$TMP/cache" -q
says err 'model: the cross-entropy of a batch after 0 tokens is '
silent out

# bytes that no recipe can hold
expect 2 "$CAB" distill recipes/tales-gpt2.yaml --dry-run --out "$(printf 'a\377')"
says err 'out: found "a\xff", which is not UTF-8: byte 0xFF'

# names of tensors are shown, not obeyed
mkdir "$TMP/names"
printf '{"model_type": "gpt2"}' >"$TMP/names/config.json"
header='{"a\u001b[31mred": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}} '
printf "$(printf '\\%03o' ${#header})\\0\\0\\0\\0\\0\\0\\0%s\\0\\0\\0\\0" "$header" >"$TMP/names/model.safetensors"
expect 0 "$CAB" inspect --tensors "$TMP/names"
says out 'a\x1b[31mred'
! grep -q "$(printf '\033')" "$TMP/out" || fail 'an escape reached the output'

# the same of prompts, where a terminal shows them; files and pipes get the text itself
escape=$(printf 'A\033[31mred')
if on_terminal "'$CAB' generate $model -p '$escape' -n 1 -t 0 -q --threads 1"; then
    says out 'A\x1b[31mred'
    ! grep -q "$(printf '\033')" "$TMP/out" || fail 'an escape reached the terminal'
fi
expect 0 "$CAB" generate $model -p "$escape" -n 1 -t 0 -q --threads 1
says out "$escape"
