# test_resume.sh - going on with a run: from anywhere, after it was moved, with other keys that do not matter; refused where an input, or a key
# that does matter, has changed.
case $CAB in /*) ;; *) CAB=$PWD/$CAB ;; esac
. tests/cli/common.sh

mkdir "$TMP/project"
head -c 30000 examples/tales/train.txt >"$TMP/project/train.txt"
head -c 3000 examples/tales/val.txt >"$TMP/project/val.txt"
cp -r examples/tales/teacher "$TMP/project/teacher"
cat >"$TMP/project/r.yaml" <<EOF
method: cab
threads: 1
precision: fp32
teacher: {path: teacher}
student: {n_layer: 1, d_model: 32, n_head: 4, d_state: 8, d_mlp: 32}
data: {train: [train.txt], eval: [./val.txt], seq_len: 32}
train: {batch: 2, tokens: 9600, eval_every: 100000}
EOF
cd "$TMP/project"

student() {
    cksum <"$1/student/model.safetensors"
}

# refused RUN TEXT FLAGS... - going on with the run is refused, and leaves it as it is.
refused() {
    run=$1 text=$2
    shift 2
    before=$(cat "$run"/checkpoint.safetensors "$run"/recipe.yaml "$run"/log.jsonl | cksum)
    expect 2 "$CAB" distill --resume "$run" "$@"
    says err "$text"
    [ "$before" = "$(cat "$run"/checkpoint.safetensors "$run"/recipe.yaml "$run"/log.jsonl | cksum)" ] ||
        fail "$text: the run was changed"
}

expect 0 "$CAB" distill r.yaml --out whole -q
expected=$(student whole)

# the command that an interruption prints works anywhere; a copy goes on too, and a moved one
"$CAB" distill r.yaml --out 'my run' -q >"$TMP/out" 2>"$TMP/err" &
pid=$!
until grep -qs '"step":3,' 'my run/log.jsonl' || ! kill -0 $pid 2>/dev/null; do sleep 0.02; done
kill -USR1 $pid
code=0
wait $pid || code=$?
[ "$code" -eq 130 ] || fail "an interrupted run ends with $code: $(cat "$TMP/err")"
says err "to go on from there: cab distill --resume 'my run'"
cp -r 'my run' "$TMP/copy"
cp -r 'my run' kept
mv 'my run' "$TMP/moved"
cd /
expect 0 "$CAB" distill --resume "$TMP/moved" -q
expect 0 "$CAB" distill "$TMP/copy" --resume -q --set train.log_every=5 --set train.eval_every=7 \
    --set train.checkpoint_every=9 --set data.cache="$TMP/elsewhere" --set train.recompute=true
cd "$TMP/project"
[ "$(student "$TMP/moved")" = "$expected" ] || fail 'a moved run ended with other bits'
[ "$(student "$TMP/copy")" = "$expected" ] || fail 'a copied run ended with other bits'
expect 2 "$CAB" distill whole
says err 'whole: is a directory, expected a recipe; --resume goes on with the run in it'
expect 2 "$CAB" distill --resume teacher
says err 'teacher: holds no run: there is no recipe.yaml in it'

# by the recipe, however its directory is written
for out in ./again again/ "$PWD/again"; do
    rm -rf again && cp -r kept again
    expect 0 "$CAB" distill r.yaml --resume -q --out "$out"
    [ "$(student again)" = "$expected" ] || fail "--out $out: other bits"
done

# another number of threads is told
rm -rf again && cp -r kept again
expect 0 "$CAB" distill --resume again -q --set threads=2
says err 'the run had 1 threads and goes on with 2'

# keys that matter: the first is named, with both values
refused kept 'seed was "1" there and is "2" now' --seed 2
refused kept 'train.tokens was "9600" there and is "6400" now' --tokens 6400
refused kept 'stages[0].kl was "1" there and is "3" now' --set 'stages[0].kl=3'
refused kept 'student.d_mlp was "32" there and is "33" now' --set student.d_mlp=33

# inputs: moved is fine, changed is not
mkdir data && cp train.txt data/other-name.txt
rm -rf again && cp -r kept again
mv train.txt train.away
expect 0 "$CAB" distill --resume again -q --train data/other-name.txt
[ "$(student again)" = "$expected" ] || fail 'moved data: other bits'
mv train.away train.txt
changed() { # FILE INPUT EDIT... - the edit makes $TMP/edited of FILE
    cp "$1" "$TMP/before"
    file=$1 input=$2
    shift 2
    "$@" <"$TMP/before" >"$file"
    ! cmp -s "$TMP/before" "$file" || fail "$file was not edited"
    refused kept "the run began with another $input"
    cp "$TMP/before" "$file"
}
flip_middle() { # one byte of the standard input, and the rest as it is
    head -c 1000000
    head -c 1 | tr '\000-\377' '\001-\377\000'
    cat
}
changed train.txt 'data.train[0]' sed '1s/e/E/'
changed val.txt 'data.eval[0]' sed '1s/e/E/'
changed teacher/tokenizer.json teacher.path/tokenizer.json sed '$s/$/ /'
changed teacher/config.json teacher.path/config.json sed '1s/{/{ /'
changed teacher/model.safetensors teacher.path/model.safetensors flip_middle
refused kept 'the run began without data.train[1]' --train train.txt --train val.txt
touch train.txt teacher/model.safetensors
expect 0 "$CAB" distill --resume kept -q
[ "$(student kept)" = "$expected" ] || fail 'touched inputs: other bits'
