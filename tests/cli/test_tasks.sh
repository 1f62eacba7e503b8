# test_tasks.sh - cab eval --task: a table, JSON, a teacher beside the model, items logged; mistakes in one line.
. "$(dirname "$0")/common.sh"
teacher=examples/tales/teacher
mkdir "$TMP/data"
head -c 8000 examples/tales/val.txt >"$TMP/val.txt"
for i in 1 2 3 4 5 6; do
    echo "{\"q\": \"Once upon a time there was a little\", \"x\": \"girl\", \"y\": \"of of of\", \"label\": $((i > 5))}"
done >"$TMP/data/quiz.jsonl"
cat >"$TMP/quiz.yaml" <<'EOF'
data: [quiz.jsonl]
context: "{q}"
choices: [" {x}", " {y}"]
EOF

expect 0 "$CAB" eval $teacher --task "$TMP/quiz.yaml" --data "$TMP/data" --precision fp32 -q
says out '      6   83.33 +- 16.67   83.33 +- 16.67'
expect 0 "$CAB" eval $teacher --task "$TMP/quiz.yaml",recall --data "$TMP/data" --items 2 --teacher $teacher --json -q \
    --log-items "$TMP/items.jsonl"
says out '"tasks": [ { "task": "quiz", "items": 2, "accuracy": 1, "accuracy_error": 0,'
says out '"task": "recall, 16 pairs", "items": 2,'
says out '"task": "induction, 64 tokens", "items": 2,'
says out '"teacher": { "items": 2, "accuracy": 1,'
[ "$(wc -l <"$TMP/items.jsonl")" -eq 24 ] || fail "items: $(cat "$TMP/items.jsonl")"
grep -q '"task": "quiz", "item": 1, "label": 0, "chosen": 0, "logp": \[-' "$TMP/items.jsonl" || fail 'items: quiz'
grep -v '"task": "quiz"' "$TMP/items.jsonl" | sort | uniq -d | grep -c . | grep -qx 10 || fail 'the same model, other numbers'

# tasks are found as recipes are; those that ship are valid and name their data
for task in recipes/tasks/*.yaml; do
    name=$(basename "$task" .yaml)
    expect 3 "$CAB" eval $teacher --task "$name" --data "$TMP/data" -q
    says err "task \"$name\": no "
done
expect 3 "$CAB" eval $teacher --task lambda -q
says err 'no file and no task "lambda"; did you mean "lambada"?'
expect 3 "$CAB" eval $teacher --task xyzzyxyzzy -q
says err 'there are csqa, lambada, piqa, qasc, siqa, recall'
mkdir -p "$TMP/mine/tasks"
cp "$TMP/quiz.yaml" "$TMP/mine/tasks/mine.yaml"
expect 0 env CAB_RECIPES="$TMP/mine" "$CAB" eval $teacher --task mine --data "$TMP/data" --items 1 -q

# in a run: with every evaluation and at the end, the teacher beside the student; asked otherwise after an interruption
expect 0 "$CAB" distill tales-gpt2 -o "$TMP/run" -q --set train.tokens=8192 --set train.eval_every=2 --set train.batch=8 \
    --set data.seq_len=128 --set eval.tasks="recall,$TMP/mine/tasks/mine.yaml" --set eval.data="$TMP/data" --set eval.items=2 \
    --set data.eval="$TMP/val.txt" --set data.cache="$TMP/cache"
grep '"eval":true' "$TMP/run/log.jsonl" >"$TMP/out"
[ "$(grep -c '"tasks":\[{"task":"recall, 4 pairs","items":2,' "$TMP/out")" -eq 3 ] || fail "log: $(cat "$TMP/out")"
says out '"tasks":[{"task":"recall, 4 pairs","items":100,'
says out '{"task":"mine","items":6,'
says out '"teacher":{"items":6,"accuracy":0.833333333,'
grep -q '"task": "mine"' "$TMP/run/result.json" || fail 'result.json has no tasks'
grep -q "$TMP/mine/tasks/mine.yaml" "$TMP/run/recipe.yaml" || fail 'recipe.yaml'
grep -q '^ *tasks: \[recall, /' "$TMP/run/recipe.yaml" || fail "recipe.yaml: $(grep -A4 tasks: "$TMP/run/recipe.yaml")"
expect 3 "$CAB" distill tales-gpt2 -o "$TMP/other" -q --set eval.tasks=recal
says err 'did you mean "recall"?'
expect 2 "$CAB" recipe validate vit-tiny-vim-tiny --set eval.tasks=recall
says err 'eval.tasks are of text, the student reads images'

# what it writes by itself, its teacher's own beside it; past 10,000 tokens, under sanitizers fewer
long=10100
[ -z "${CAB_TEST_SANITIZED-}" ] || long=300
expect 0 "$CAB" eval "$TMP/run" --task generation --items 1 -n $long --teacher $teacher -q
[ -n "${CAB_TEST_SANITIZED-}" ] || [ "$(grep -c '^model ' "$TMP/out")" -eq 2 ] || fail "generation: $(cat "$TMP/out")"
[ "$(grep -c '^teacher ' "$TMP/out")" -eq 1 ] || fail "generation: $(cat "$TMP/out")"
expect 0 "$CAB" eval "$TMP/run" --task generation --items 2 -n 20 --json -q
says out '"generation": [ { "first": 0, "texts": 2, "tokens": 40, "perplexity": '
expect 2 "$CAB" eval "$TMP/run" --task recall --seed 3
says err '--seed goes with --task generation'

# mistakes
expect 2 "$CAB" eval $teacher --task quiz, --data "$TMP/data" --seq-len 4
says err '--seq-len does not go with --task'
expect 2 "$CAB" eval $teacher --data examples/tales/val.txt --items 4
says err '--items goes with --task'
expect 2 "$CAB" eval $teacher --task piqa
says err 'task "piqa" needs a folder that holds piqa_dev.jsonl: --data=DIR'
echo 'label: 3' >"$TMP/quiz2.yaml"
expect 4 "$CAB" eval $teacher --task "$TMP/quiz2.yaml"
says err "$TMP/quiz2.yaml: data is missing"
echo '{"q": "a", "x": "b", "y": "c"}' >"$TMP/data/quiz.jsonl"
expect 4 "$CAB" eval $teacher --task "$TMP/quiz.yaml" --data "$TMP/data" --log-items "$TMP/new.jsonl"
says err "$TMP/data/quiz.jsonl: line 1: there is no \"label\""
[ ! -e "$TMP/new.jsonl" ] || fail 'half a file of items'
[ "$(grep -c . "$TMP/err")" -eq 1 ] || fail "more than a line: $(cat "$TMP/err")"
