# test_distill.sh - cab distill and what follows it, on the bundled teacher with a few steps.
. tests/cli/common.sh

head -c 30000 examples/tales/train.txt >"$TMP/train.txt"
head -c 4000 examples/tales/val.txt >"$TMP/val.txt"
cat >"$TMP/small.yaml" <<EOF
method: soft
teacher: {path: examples/tales/teacher}
data:
  train: [$TMP/train.txt]
  eval: [$TMP/val.txt]
  seq_len: 32
  cache: $TMP/cache
threads: 1
train: {tokens: 768, batch: 4, eval_every: 3}
EOF

# the plan
expect 0 "$CAB" distill "$TMP/small.yaml" --out "$TMP/plan" --dry-run --set stages[0].align=2 --fraction 0.5
says out '6 steps of 128 tokens'
says out 'align 2'
says out '50 % of the documents'
grep -q '^memory  *[0-9.]* MiB$' "$TMP/out" || fail "no memory: $(cat "$TMP/out")"
grep -q '^time  *about .*s: .*s for 6 steps (measured over 3), .*s for evaluations' "$TMP/out" || fail "no time: $(cat "$TMP/out")"
says err 'plan of stage "distil"'
[ ! -e "$TMP/plan" ] || fail '--dry-run made the directory'

# it fails where the run would
expect 3 "$CAB" distill "$TMP/small.yaml" --out "$TMP/plan" --dry-run --teacher "$TMP/nowhere"
says out 'train on'
says err "$TMP/nowhere"
expect 7 "$CAB" distill "$TMP/small.yaml" --out "$TMP/plan" --dry-run --set data.seq_len=4096
says err 'takes at most 256 tokens'
expect 3 "$CAB" distill "$TMP/small.yaml" --out "$TMP/train.txt/plan" --dry-run
says err "$TMP/train.txt/plan: $TMP/train.txt is no directory"
expect 0 "$CAB" distill "$TMP/small.yaml" --out "$TMP/deep/er/plan" --dry-run --set data.cache= --method cab-published
[ "$(grep -c '^plan of stage' "$TMP/err")" -eq 2 ] || fail "not two stages: $(cat "$TMP/err")"
[ ! -e "$TMP/deep/er/plan" ] || fail '--dry-run made a directory for its cache'

# lengths in passes, and images
expect 0 "$CAB" distill "$TMP/small.yaml" --out "$TMP/plan" --dry-run --passes 1.5
says out '1.5 passes over the data'
expect 2 "$CAB" distill "$TMP/small.yaml" --out "$TMP/plan" --dry-run --passes 1.5 --tokens 100
says err 'train.tokens and train.passes exclude each other'
expect 3 "$CAB" distill recipes/vit-tiny-vim-tiny.yaml --dry-run --classes other.tsv
says out '300 passes over the data, learning rate 6.25e-05'
says out '10 % of every class'
expect 3 "$CAB" distill recipes/vit-tiny-vim-tiny.yaml --dry-run --tokens 6400
says out '100 steps of 64 images'
expect 4 "$CAB" distill recipes/tales-gpt2.yaml --out "$TMP/x" --train docs/images
says err "docs/images: holds images; expected .txt"

# several files behind one flag, before the recipe and without one
cp "$TMP/train.txt" "$TMP/more.txt"
expect 0 "$CAB" distill --train "$TMP/train.txt" "$TMP/more.txt" "$TMP/small.yaml" --out "$TMP/plan" --dry-run
says out "$TMP/more.txt"
says out '6 steps of 128 tokens'
expect 0 "$CAB" distill --train "$TMP/train.txt" "$TMP/more.txt" --eval "$TMP/val.txt" --teacher examples/tales/teacher --tokens 2048 \
    --fraction 1 --set data.cache="$TMP/cache" --out "$TMP/plan" --dry-run
says out "$TMP/more.txt"
says out '100 % of'
expect 0 "$CAB" distill --train "$TMP/train.txt" tales-gpt2 --out "$TMP/plan" --dry-run --tokens 2048
says out 'cab-best'
! grep -q 'train on.*tales-gpt2' "$TMP/out" || fail 'a recipe was taken for data'
expect 3 "$CAB" distill --train "$TMP/train.txt" nosuch --dry-run
says err 'no file and no recipe "nosuch"'

# flags that are keys, and a recipe by its name
expect 0 "$CAB" distill tales-gpt2 --dry-run --lr 0.004 --threads 1 --device cpu --tokens 0.5M
says out 'learning rate 0.004'
expect 2 "$CAB" distill tales-gpt2 --dry-run --device gpu
says err 'device: found "gpu", expected cpu, cuda or cuda:N'
expect 2 "$CAB" distill tales-gpt2 --dry-run --lr fast
says err 'train.lr: found "fast"'

# what is refused before anything is run
expect 2 "$CAB" distill "$TMP/small.yaml"
says err 'out is missing'
expect 2 "$CAB" distill "$TMP/small.yaml" -o "$TMP/x" --method soft --methods soft,cab
says err 'exclude each other'
expect 2 "$CAB" distill "$TMP/small.yaml" -o "$TMP/x" --methods soft,vanila
says err 'did you mean "vanilla"?'
expect 2 "$CAB" distill "$TMP/small.yaml" -o "$TMP/x" --methods soft,soft
says err 'named twice'
expect 2 "$CAB" distill "$TMP/small.yaml" -o "$TMP/x" --resume --overwrite
expect 2 "$CAB" distill "$TMP/small.yaml" -o "$TMP/x" --set train.lr
expect 2 "$CAB" distill "$TMP/small.yaml" -o "$TMP/x" --set train.rl=3
says err 'did you mean "train.lr"?'
[ ! -e "$TMP/x" ] || fail 'a refused command made a directory'
expect 3 "$CAB" distill "$TMP/small.yaml" -o "$TMP/x" --teacher "$TMP/nowhere"
says err "$TMP/nowhere"

expect 0 "$CAB" distill "$TMP/small.yaml" -o "$TMP/x" --overwrite --quiet
rm -r "$TMP/x"

# one run, by flags alone and by a recipe
expect 0 "$CAB" distill "$TMP/small.yaml" --out "$TMP/one"
says err 'step 3 of 6: perplexity '
says err 'step 6 of 6: perplexity '
says err "student  $TMP/one/student"
says err "next     cab generate $TMP/one --prompt"
! grep -q 'worse than chance' "$TMP/err" || fail 'a student called worse than chance that is not'
expect 0 "$CAB" distill "$TMP/small.yaml" --out "$TMP/one" --overwrite --quiet
says out 'run '
says out 'one '
says out 'teacher '
for share in loader host device; do
    grep -A 4 '"time":' "$TMP/one/result.json" | grep -q "\"$share\": [0-9.e-]*" || fail "result.json: no share of $share: $(cat "$TMP/one/result.json")"
done
for file in recipe.yaml log.jsonl result.json student/config.json student/model.safetensors; do
    [ -s "$TMP/one/$file" ] || fail "$file is missing from the run"
done
[ "$(grep -c '"stage"' "$TMP/one/log.jsonl")" -eq 6 ] || fail 'the log has not one line per step'
expect 0 "$CAB" recipe validate "$TMP/one/recipe.yaml"
expect 2 "$CAB" distill "$TMP/small.yaml" --out "$TMP/one"
says err 'holds a run already; --resume goes on with it, --overwrite starts anew'
expect 0 "$CAB" distill "$TMP/small.yaml" --out "$TMP/one" --resume
says err 'this run has ended'
cp "$TMP/one/student/model.safetensors" "$TMP/before"
expect 0 "$CAB" distill "$TMP/small.yaml" --out "$TMP/one" --overwrite
cmp -s "$TMP/before" "$TMP/one/student/model.safetensors" || fail 'the same run gave another student'

# one that knows nothing yet is called what it is
expect 0 "$CAB" distill "$TMP/small.yaml" --out "$TMP/chance" --method vanilla --lr 1e-9 --tokens 128
says err 'warning: the student is worse than chance: perplexity '
expect 0 "$CAB" eval "$TMP/chance" --data "$TMP/val.txt" --cache "$TMP/cache" --threads 1 --seq-len 64
says err "warning: $TMP/chance/student is worse than chance: perplexity "

# the student can be used, by its directory or by its run's
expect 0 "$CAB" inspect "$TMP/one/student"
says out student
expect 0 "$CAB" inspect "$TMP/one"
says out student
expect 0 "$CAB" generate "$TMP/one" -p 'Once' -n 2 -q --threads 1
expect 0 "$CAB" compare examples/tales/teacher "$TMP/one" --data "$TMP/val.txt" -n 1 --seq-len 16 --cache "$TMP/cache" --threads 1
expect 0 "$CAB" bench decode --student "$TMP/one" --batch 1 --length 0 -n 1 --threads 1
mkdir "$TMP/begun"
: >"$TMP/begun/log.jsonl"
expect 3 "$CAB" generate "$TMP/begun"
says err "$TMP/begun: a run without a student yet; cab distill --resume goes on with it"
expect 0 "$CAB" generate "$TMP/one/student" --prompt 'Once upon' --max-tokens 5 --threads 1 --temperature 0
says out 'Once upon'
expect 0 "$CAB" generate "$TMP/one/student" --prompt 'Once upon' --max-tokens 5 --threads 1 --no-echo
! grep -q 'Once upon' "$TMP/out" || fail '--no-echo prints the prompt'
expect 0 "$CAB" generate "$TMP/one/student" -p 'Once, ' -p 'Tom' --samples 3 --max-tokens 5 --threads 1
[ "$(grep -c '^Once, ' "$TMP/out")" -eq 3 ] && [ "$(grep -c '^Tom' "$TMP/out")" -eq 3 ] || fail "not six texts: $(cat "$TMP/out")"
expect 0 "$CAB" bench decode --student "$TMP/one/student" --teacher examples/tales/teacher --batch 1,2 --length 0,400 -n 2 --threads 1
[ "$(grep -c '%$' "$TMP/out")" -eq 6 ] || fail "not six rows: $(cat "$TMP/out")"
expect 2 "$CAB" bench decode --batch 1
says err 'neither a teacher nor a student'
expect 2 "$CAB" bench decode --student "$TMP/one/student" --batch 1,x
says err '--batch: found "x"'
expect 2 "$CAB" bench step --teacher examples/tales/teacher --batch 1,2
says err '--batch: expected one number'
expect 0 "$CAB" bench step --teacher examples/tales/teacher --batch 1 --seq-len 4 --threads 1
# timed one after the other, so a busy machine can make either the longer
awk '$1 == "step" { found = $2 > 0 && $5 > 0 } END { exit !found }' "$TMP/out" || fail "no time of a step and its update: $(sed -n 2p "$TMP/out")"
# a pass of text beside its products alone: of four blocks, and the head
expect 0 "$CAB" bench forward --teacher examples/tales/teacher --batch 2 -n 1 --threads 1
says out 'gpt2 (1.0 M), batch 2 x 256 tokens'
for product in '512 x 384 x 128 + b  *4' '512 x 128 x 128 + b  *4' '512 x 512 x 128 + b  *4' '512 x 128 x 512 + b  *4' '512 x 1024 x 128  *1'; do
    grep -q "^  $product " "$TMP/out" || fail "cab bench forward: no $product in $(cat "$TMP/out")"
done
[ "$(grep -c ' x ' "$TMP/out")" -eq 6 ] || fail "cab bench forward: $(cat "$TMP/out")"
awk '$1 == "these" {alone = $3} $1 == "forward" {all = $2; share = $6}
    END {exit !(alone > 0 && all > 0 && (share - 100 * alone / all) ^ 2 < 0.01)}' "$TMP/out" || fail "cab bench forward: $(cat "$TMP/out")"
expect 2 "$CAB" bench decode --teacher examples/tales/teacher --precision as-is
says err '--precision as-is is for bench forward'
expect 5 "$CAB" bench forward --teacher examples/tales/teacher --precision as-is
says err 'precision as-is: no matrix is quantised'
expect 2 "$CAB" bench fly
says err 'expected run, step, decode or forward'
expect 0 "$CAB" bench run "$TMP/small.yaml" --set train.tokens=2560 --set out="$TMP/timed" -n 2
for line in 'end to end  *[0-9]* tokens/s' 'step alone  *[0-9]* tokens/s' 'time  *loader [0-9.]* %, host [0-9.]* %, device [0-9.]* %' 'first step  *[0-9.]* s after'; do
    grep -q "^$line" "$TMP/out" || fail "cab bench run: no $line in $(cat "$TMP/out")"
done
[ ! -e "$TMP/timed" ] || fail 'cab bench run left a run'
expect 2 "$CAB" bench run "$TMP/small.yaml" --set out="$TMP/timed" -n 100
says err 'the last stage has 6 steps, timing 100 takes 109'
expect 2 "$CAB" bench run
expect 2 "$CAB" bench step recipes/tales-gpt2.yaml
expect 0 "$CAB" eval "$TMP/one" --data "$TMP/val.txt" --teacher examples/tales/teacher --cache "$TMP/cache" --threads 1 --json --seq-len 64
says out '"kl": '
says out '"perplexity": '
expect 2 "$CAB" eval "$TMP/one/student"
says err 'give --data=FILE'

# several methods, each in its directory; then once more with one of them missing
expect 0 "$CAB" distill "$TMP/small.yaml" --methods vanilla,cab-best --out "$TMP/several" --quiet
[ "$(awk '{print $1}' "$TMP/out" | tr '\n' ' ')" = 'run teacher vanilla cab-best ' ] || fail "wrong rows: $(cat "$TMP/out")"
grep -qF '</html>' "$TMP/several/report.html" || fail 'no report'
expect 2 "$CAB" distill "$TMP/small.yaml" --methods vanilla,cab-best --out "$TMP/several"
says err 'holds a run already'
rm -r "$TMP/several/cab-best"
expect 0 "$CAB" distill "$TMP/small.yaml" --methods vanilla,cab-best --out "$TMP/several" --resume
says err 'vanilla has ended already'
[ -s "$TMP/several/cab-best/result.json" ] || fail '--resume left out a method'

# a run that cannot begin leaves the one it was to replace
expect 7 "$CAB" distill "$TMP/one/recipe.yaml" --out "$TMP/one" --overwrite --set data.seq_len=4096
says err 'takes at most 256 tokens'
for file in recipe.yaml log.jsonl result.json; do
    [ -s "$TMP/one/$file" ] || fail "$file went with a run that did not begin"
done
printf '{}' >"$TMP/one/compare.json"
expect 0 "$CAB" distill "$TMP/small.yaml" --out "$TMP/one" --overwrite
[ ! -e "$TMP/one/compare.json" ] || fail 'the new run has the old comparison'
expect 0 "$CAB" distill "$TMP/small.yaml" --methods vanilla,cab-best --out "$TMP/several" --overwrite
[ -s "$TMP/several/cab-best/result.json" ] || fail '--overwrite left out a method'
expect 2 "$CAB" distill "$TMP/small.yaml" --out ''
says err '--out: the value is empty'

mkdir "$TMP/taken" && : >"$TMP/taken/student"
expect 3 "$CAB" distill "$TMP/small.yaml" --out "$TMP/taken"
says err 'taken/student: is no directory'
[ ! -e "$TMP/taken/recipe.yaml" ] || fail 'a run that cannot end has begun'

# messages go nowhere where there is nowhere, not into files of the run
"$CAB" distill "$TMP/small.yaml" --out "$TMP/silent" 2>&- >/dev/null || fail 'no messages, no run'
[ "$(grep -vc '^{' "$TMP/silent/log.jsonl")" -eq 0 ] || fail "messages in the log: $(cat "$TMP/silent/log.jsonl")"

code=0
"$CAB" version >&- 2>"$TMP/err" || code=$?
[ "$code" -eq 3 ] || fail "results that go nowhere end with $code, expected 3"
says err 'stdout: cannot be written'

# an evaluation ends after so many tokens, whatever the batch
for batch in 0 1 3; do
    expect 0 "$CAB" eval "$TMP/one/student" --data "$TMP/val.txt" --cache "$TMP/cache" --threads 1 --json --seq-len 64 -n 100 -b $batch
    says out '"tokens": 100,'
    grep -o '"loss": [0-9]*\.[0-9]\{3\}' "$TMP/out" >"$TMP/loss-$batch"
    cmp -s "$TMP/loss-0" "$TMP/loss-$batch" || fail "another loss in batches of $batch: $(cat "$TMP/loss-0" "$TMP/loss-$batch")"
done
expect 3 "$CAB" compare examples/tales/teacher "$TMP/one/student" --data "$TMP/val.txt" --cache "$TMP/cache" -o "$TMP/none/c.json"
says err 'none/c.json: cannot create'
[ ! -s "$TMP/out" ] || fail 'compared before it looked where to write'

# without a token that begins a text there is no sample, but a student
cp -r examples/tales/teacher "$TMP/odd"
sed 's/<|endoftext|>/[X]/g' examples/tales/teacher/tokenizer.json >"$TMP/odd/tokenizer.json"
sed 's/\("[be]os_token_id"\): 0/\1: null/' examples/tales/teacher/config.json >"$TMP/odd/config.json"
rm -f "$TMP/odd/generation_config.json"
expect 0 "$CAB" distill "$TMP/small.yaml" --teacher "$TMP/odd" --out "$TMP/odd-run"
says err 'no sample of the student'
[ -s "$TMP/odd-run/result.json" ] || fail 'a sample that could not be had cost the run'

# what config.json says is carried: the student stops where the teacher does
sed 's/"eos_token_id": 0/"eos_token_id": [0, 5]/' examples/tales/teacher/config.json >"$TMP/odd/config.json"
expect 0 "$CAB" distill "$TMP/small.yaml" --teacher "$TMP/odd" --out "$TMP/odd-list"
tr -d ' \n' <"$TMP/odd-list/student/generation_config.json" >"$TMP/out"
says out '"eos_token_id":[0,5]'

# a budget of memory trades time for it, and no bit of the result
expect 0 "$CAB" distill "$TMP/small.yaml" --out "$TMP/tight" --set train.memory=22MiB
says err 'layers are recomputed'
cmp "$TMP/tight/student/model.safetensors" "$TMP/one/student/model.safetensors" ||
    fail 'recomputed layers give another student'
expect 2 "$CAB" distill "$TMP/small.yaml" --out "$TMP/bad" --set train.memory=lots
says err 'train.memory: found "lots"'

# an interruption saves the state; the resumed run ends with the bits of an unbroken one
interrupt() { # METHOD-FLAGS...
    "$CAB" distill "$TMP/small.yaml" --set train.tokens=10240 --out "$TMP/stopped" "$@" >"$TMP/out" 2>"$TMP/err" &
    pid=$!
    until grep -qs '"step":3,' "$TMP/stopped/log.jsonl" "$TMP/stopped/soft/log.jsonl" || ! kill -0 $pid 2>/dev/null; do
        sleep 0.05
    done
    kill -TERM $pid
    code=0
    wait $pid || code=$?
    [ "$code" -eq 130 ] || fail "an interrupted run ends with $code, expected 130: $(cat "$TMP/err")"
}
"$CAB" distill "$TMP/small.yaml" --set train.tokens=102400 --out "$TMP/held" >/dev/null 2>&1 &
held=$!
until grep -qs '"step":3,' "$TMP/held/log.jsonl"; do sleep 0.05; done
expect 2 "$CAB" distill "$TMP/small.yaml" --set train.tokens=102400 --out "$TMP/held" --resume
says err 'another process is at work on the run there'
kill -TERM $held
wait $held || true
[ -s "$TMP/held/checkpoint.safetensors" ] && [ -s "$TMP/held/recipe.yaml" ] || fail 'a second process spoiled the run'

interrupt
[ -s "$TMP/stopped/checkpoint.safetensors" ] || fail 'no checkpoint after an interruption'
expect 0 "$CAB" distill "$TMP/small.yaml" --set train.tokens=10240 --out "$TMP/stopped" --resume
expect 0 "$CAB" distill "$TMP/small.yaml" --set train.tokens=10240 --out "$TMP/unbroken"
cmp "$TMP/stopped/student/model.safetensors" "$TMP/unbroken/student/model.safetensors" ||
    fail 'a resumed run differs from an unbroken one'
[ "$(grep -c '"stage"' "$TMP/stopped/log.jsonl")" -eq "$(grep -c '"stage"' "$TMP/unbroken/log.jsonl")" ] ||
    fail 'the log of a resumed run has another length'
rm -r "$TMP/stopped"
interrupt --methods soft,cab
[ -s "$TMP/stopped/soft/checkpoint.safetensors" ] || fail 'no checkpoint after interrupting a comparison'
[ ! -e "$TMP/stopped/cab" ] || fail 'an interrupted comparison went on with the next method'
