# test_export.sh - cab export: what it says, what it refuses, and that nothing is left of what failed.
. tests/cli/common.sh

# the demo's teacher is a GPT-2: refused, with those that are written
expect 5 "$CAB" export examples/tales/teacher -o "$TMP/a.gguf"
says err 'examples/tales/teacher/config.json: model_type "gpt2" cannot be written as GGUF; those that can: llama, mistral,'
expect 2 "$CAB" export examples/tales/teacher
says err 'expected either --out FILE.gguf or --to DIR'
expect 2 "$CAB" export examples/tales/teacher -o "$TMP/a.bin"
says err '--out: found "'"$TMP"'/a.bin", expected the name of a file to write, model.gguf'
expect 2 "$CAB" export examples/tales/teacher --to "$TMP/a" --type q8_0
says err 'directories hold F32, F16 or BF16, not Q8_0'
expect 2 "$CAB" export examples/tales/teacher --to examples/tales/../tales/teacher
says err 'is the model itself'

mkdir "$TMP/vit"
printf '{"model_type": "vit", "image_size": 32, "patch_size": 16, "hidden_size": 12, "num_attention_heads": 3, "num_hidden_layers": 1, "intermediate_size": 24, "num_labels": 3}' >"$TMP/vit/config.json"
cp examples/tales/teacher/model.safetensors "$TMP/vit"
expect 5 "$CAB" export "$TMP/vit" --to "$TMP/images"
says err 'a model of images; supported are models of text'
[ ! -e "$TMP/images" ] || fail 'a directory was made'

# a directory from a directory writes the same text
expect 0 "$CAB" export examples/tales/teacher --to "$TMP/copy" --type bf16
expect 0 "$CAB" generate examples/tales/teacher -p 'Tom ran' -n 20 -t 0 -q --threads 1
cp "$TMP/out" "$TMP/first"
expect 0 "$CAB" generate "$TMP/copy" -p 'Tom ran' -n 20 -t 0 -q --threads 1
cmp -s "$TMP/out" "$TMP/first" || fail "the copy writes: $(cat "$TMP/out")"
expect 2 "$CAB" export examples/tales/teacher -o "$TMP/a.gguf" --layout falcon-h1
says err '--layout goes with --to DIR'
expect 5 "$CAB" export examples/tales/teacher --to "$TMP/a" --layout falcon-h1
says err 'architecture "gpt2" has no state-space mixers to write in another layout'
expect 2 "$CAB" export examples/tales/teacher -o "$TMP/a.gguf" --type q5_k
says err 'q4_0'
expect 3 "$CAB" export examples/tales/teacher -o "$TMP/nowhere/a.gguf"
says err "$TMP/nowhere"
expect 3 "$CAB" export "$TMP/nowhere" -o "$TMP/a.gguf"
says err 'no such directory'
[ -z "$(ls "$TMP" | grep 'gguf\|^a')" ] || fail "left behind: $(ls "$TMP")"

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
    [ $type = bf16 ] || continue
    expect 5 "$CAB" eval "$TMP/books.gguf" --data ../shared/data/tales/val.txt -n 1024 -q --threads 1 --precision as-is
    says err "$TMP/books.gguf: precision as-is: no matrix is quantised"
done
# the last of them, its matrices expanded only where they are multiplied: scored, and written with
expect 0 "$CAB" eval "$TMP/books.gguf" --data ../shared/data/tales/val.txt -n 1024 --json -q --threads 1 --cache "$TMP/cache" --precision as-is
sed -n 's/.*"loss": \([0-9.]*\).*/as-is \1/p' "$TMP/out" >>"$TMP/losses"
expect 0 "$CAB" bench forward --teacher "$TMP/books.gguf" --batch 1 --seq-len 32 -n 1 --threads 1 --precision as-is
says out 'matrices as they are'
expect 0 "$CAB" generate "$TMP/books.gguf" -p 'It was' -n 8 -t 0 -q --threads 1 --precision fp32
cp "$TMP/out" "$TMP/first"
expect 0 "$CAB" generate "$TMP/books.gguf" -p 'It was' -n 8 -t 0 -q --threads 1 --precision as-is
cmp -s "$TMP/out" "$TMP/first" || fail "as-is: $(cat "$TMP/out")"
expect 0 "$CAB" eval $books --data ../shared/data/tales/val.txt -n 1024 --json -q --threads 1 --cache "$TMP/cache"
sed -n 's/.*"loss": \([0-9.]*\).*/model \1/p' "$TMP/out" >>"$TMP/losses"
awk '{loss[$1] = $2} END {
    m = loss["model"]
    exit !(NR == 6 && (loss["as-is"] - loss["q4_0"]) ^ 2 < 0.002 ^ 2 && loss["f32"] == m && loss["bf16"] == m && (loss["q8_0"] - m) ^ 2 < 0.01 ^ 2 && (loss["q4_0"] - m) ^ 2 < 0.2 ^ 2)
}' "$TMP/losses" || fail "losses: $(cat "$TMP/losses")"

# a run means its student
mkdir "$TMP/run"
cp -r $books "$TMP/run/student"
expect 0 "$CAB" export "$TMP/run" -o "$TMP/run.gguf" --type bf16
says out "$TMP/run.gguf: 56 tensors, bf16"
rm -rf "$TMP/run" "$TMP/run.gguf"

# and back to a directory: names, rows and tokenizer as they were
expect 0 "$CAB" export $books -o "$TMP/exact.gguf" --type f32
expect 0 "$CAB" export "$TMP/exact.gguf" --to "$TMP/back" --type bf16
expect 0 "$CAB" generate $books -p 'It was' -n 30 -t 0 -q --threads 1
cp "$TMP/out" "$TMP/first"
expect 0 "$CAB" generate "$TMP/back" -p 'It was' -n 30 -t 0 -q --threads 1
cmp -s "$TMP/out" "$TMP/first" || fail "by way of GGUF: $(cat "$TMP/out")"
rm -r "$TMP/back" "$TMP/exact.gguf"

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
