# test_export.sh - cab export: what it says, what it refuses, and that nothing is left of what failed.
. tests/cli/common.sh

# the demo's teacher is a GPT-2: refused, with those that are written
expect 5 "$CAB" export examples/tales/teacher -o "$TMP/a.gguf"
says err 'examples/tales/teacher/config.json: model_type "gpt2" cannot be written as GGUF; those that can: llama, mistral,'
expect 2 "$CAB" export examples/tales/teacher
says err '--out: found "", expected the name of a file to write, model.gguf'
expect 2 "$CAB" export examples/tales/teacher -o "$TMP/a.gguf" --type q5_k
says err 'q4_0'
expect 3 "$CAB" export examples/tales/teacher -o "$TMP/nowhere/a.gguf"
says err "$TMP/nowhere"
expect 3 "$CAB" export "$TMP/nowhere" -o "$TMP/a.gguf"
says err 'no such directory'
[ -z "$(ls "$TMP" | grep gguf)" ] || fail "left behind: $(ls "$TMP")"

books=../shared/teachers/books-llama
if [ ! -d $books ]; then
    echo "skipped: $books is not there"
    exit 0
fi
# every type opens here and writes much the same text; a smaller one is a smaller file
last=1000000000
for type in f32 bf16 q8_0 q4_0; do
    expect 0 "$CAB" export $books -o "$TMP/books.gguf" --type $type
    grep -q "^$TMP/books.gguf: 56 tensors, $type, [0-9.]* MB\$" "$TMP/out" || fail "$(cat "$TMP/out")"
    silent err
    size=$(wc -c <"$TMP/books.gguf")
    [ "$size" -lt "$last" ] || fail "$type is not smaller: $size, $last"
    last=$size
    expect 0 "$CAB" eval "$TMP/books.gguf" --data ../shared/data/tales/val.txt -n 1024 --json -q --threads 1 --cache "$TMP/cache"
    sed -n 's/.*"loss": \([0-9.]*\).*/'"$type"' \1/p' "$TMP/out" >>"$TMP/losses"
done
expect 0 "$CAB" eval $books --data ../shared/data/tales/val.txt -n 1024 --json -q --threads 1 --cache "$TMP/cache"
sed -n 's/.*"loss": \([0-9.]*\).*/model \1/p' "$TMP/out" >>"$TMP/losses"
awk '{loss[$1] = $2} END {
    m = loss["model"]
    exit !(NR == 5 && loss["f32"] == m && loss["bf16"] == m && (loss["q8_0"] - m) ^ 2 < 0.01 ^ 2 && (loss["q4_0"] - m) ^ 2 < 0.2 ^ 2)
}' "$TMP/losses" || fail "losses: $(cat "$TMP/losses")"

# half a tensor, and a full disk: the old file stands
cp "$TMP/books.gguf" "$TMP/old"
mkdir "$TMP/cut"
cp $books/*.json "$TMP/cut"
head -c 20000000 $books/model.safetensors >"$TMP/cut/model.safetensors"
expect 4 "$CAB" export "$TMP/cut" -o "$TMP/books.gguf"
says err 'model.safetensors'
(ulimit -f 2048 && expect 3 "$CAB" export $books -o "$TMP/books.gguf") || fail 'a limit on file sizes'
says err "$TMP/books.gguf"
cmp -s "$TMP/books.gguf" "$TMP/old" || fail 'a failure changed the file'
[ "$(ls -a "$TMP" | grep -c books)" -eq 1 ] || fail "left behind: $(ls -a "$TMP")"
