# test_generate.sh - cab generate: prompts from everywhere, stop texts, JSON, seeds, turns.
. tests/cli/common.sh
teacher=examples/tales/teacher

# without a seed one is drawn and said; with it the text comes again
expect 0 "$CAB" generate $teacher -p 'Once upon a time' -n 12 --threads 1
seed=$(sed -n 's/^seed \([0-9]*\) .*/\1/p' "$TMP/err")
[ -n "$seed" ] || fail "no seed is said: $(cat "$TMP/err")"
says err ' tokens/s'
cp "$TMP/out" "$TMP/first"
expect 0 "$CAB" generate $teacher -p 'Once upon a time' -n 12 --threads 1 --seed "$seed" -q
silent err
cmp -s "$TMP/out" "$TMP/first" || fail "seed $seed gave another text: $(cat "$TMP/first" "$TMP/out")"
expect 0 "$CAB" generate $teacher -p 'Once upon a time' -n 12 --threads 1
! grep -q "^seed $seed " "$TMP/err" || fail "seed $seed was drawn twice"
expect 0 "$CAB" generate $teacher -p 'Once' -n 3 --temperature 0 --threads 1
! grep -q '^seed' "$TMP/err" || fail 'a seed where nothing is drawn'

# a pipe, a file, - and an empty /dev/null; a line end at the end is none of the prompt's
expect 0 "$CAB" generate $teacher -p 'Tom ran' -n 8 -t 0 -q --threads 1
cp "$TMP/out" "$TMP/first"
printf 'Tom ran\r\n' >"$TMP/prompt.txt"
expect 0 "$CAB" generate $teacher -f "$TMP/prompt.txt" -n 8 -t 0 -q --threads 1
cmp -s "$TMP/out" "$TMP/first" || fail "-f FILE: $(cat "$TMP/out")"
printf 'Tom ran\n' | "$CAB" generate $teacher -n 8 -t 0 -q --threads 1 >"$TMP/out"
cmp -s "$TMP/out" "$TMP/first" || fail "a pipe: $(cat "$TMP/out")"
printf '\357\273\277Tom ran' | "$CAB" generate $teacher -f - -n 8 -t 0 -q --threads 1 >"$TMP/out"
cmp -s "$TMP/out" "$TMP/first" || fail "-f -: $(cat "$TMP/out")"
expect 0 "$CAB" generate $teacher -n 3 -q --threads 1 --seed 1
! grep -q 'Tom' "$TMP/out" || fail 'a prompt from nowhere'
printf 'Tom\0ran' >"$TMP/zero.txt"
expect 4 "$CAB" generate $teacher -f "$TMP/zero.txt"
says err "zero.txt: byte 3 is 0, expected text"
expect 3 "$CAB" generate $teacher -f "$TMP/absent.txt"
says err 'absent.txt'

# JSON: an object a line and text; a stop text ends it
expect 0 "$CAB" generate $teacher -p 'Once' -p 'Tom' -N 2 -n 30 --json --seed 5 --stop '.' --stop 'zebra' -q --threads 1
[ "$(grep -c '^{ "prompt": ".*", "text": ".*", "prompt_tokens": [0-9]*, "tokens": [0-9]*, "seed": 5, "sample": [01], "stop": ".*", "tokens_per_second": [0-9.]* }$' "$TMP/out")" -eq 4 ] ||
    fail "not four objects: $(cat "$TMP/out")"
says out '"stop": "stop"'
! sed 's/"tokens_per_second".*//' "$TMP/out" | grep -qF . || fail 'a stop text was printed'
expect 0 "$CAB" generate $teacher -p 'Once' -n 4 --json --seed 5 -q --threads 1
says out '"tokens": 4, '
says out '"stop": "length"'
expect 0 "$CAB" generate $teacher -p 'Once' -n 1000 --ignore-end --json --seed 5 --threads 1
says out '"stop": "context"'
says err "warning: $teacher: stopped: the context of 256 tokens is full"

# --out: the same text, in a file that is whole or what it was
expect 0 "$CAB" generate $teacher -p 'Tom ran' -n 8 -t 0 -q --threads 1
cp "$TMP/out" "$TMP/first"
expect 0 "$CAB" generate $teacher -p 'Tom ran' -n 8 -t 0 -q --threads 1 --out "$TMP/text"
silent out
cmp -s "$TMP/text" "$TMP/first" || fail "--out: $(cat "$TMP/text")"
expect 7 "$CAB" generate $teacher -f examples/tales/val.txt -q --threads 1 --out "$TMP/text"
cmp -s "$TMP/text" "$TMP/first" || fail "a failure changed the file of --out: $(cat "$TMP/text")"
[ "$(ls -a "$TMP" | grep -c text)" -eq 1 ] || fail "left behind: $(ls -a "$TMP")"
expect 3 "$CAB" generate $teacher -p 'Tom ran' -q --threads 1 --out "$TMP/nowhere/text"
says err "$TMP/nowhere"
expect 2 "$CAB" generate $teacher -i --out "$TMP/text"
says err '--interactive excludes'
expect 0 "$CAB" eval $teacher --data examples/tales/val.txt -n 500 --json -q --threads 1 --cache "$TMP/cache" -o "$TMP/eval.json"
silent out
grep -q '^{"loss": [0-9.]*, .*}$' "$TMP/eval.json" || fail "cab eval --out: $(cat "$TMP/eval.json")"
expect 0 "$CAB" bench step --teacher $teacher --batch 1 --seq-len 16 -n 1 --threads 1 --out "$TMP/bench"
silent out
grep -q '^  step [0-9.]* ms' "$TMP/bench" || fail "cab bench --out: $(cat "$TMP/bench")"
expect 2 "$CAB" generate $teacher --stop '' -p Once
says err '--stop'

# less likely tokens are left out; what has been said is penalised
expect 0 "$CAB" generate $teacher -p 'Once' -n 20 -t 0 -q --threads 1
cp "$TMP/out" "$TMP/first"
expect 0 "$CAB" generate $teacher -p 'Once' -n 20 -t 3 --top-p 1 --min-p 1 -q --threads 1
cmp -s "$TMP/out" "$TMP/first" || fail '--min-p 1 leaves more than the likeliest token'
expect 0 "$CAB" generate $teacher -p 'Once' -n 20 -t 0 --repeat-penalty 5 -q --threads 1
! cmp -s "$TMP/out" "$TMP/first" || fail '--repeat-penalty changed nothing'
expect 2 "$CAB" generate $teacher --min-p 2
says err 'expected a number from 0 to 1'

# turns: a line each, of one text
printf 'Once upon a time\nThen Tom\n' | "$CAB" generate $teacher -i -n 9 -t 0 -q --threads 1 >"$TMP/turns"
[ "$(wc -l <"$TMP/turns")" -eq 2 ] || fail "not two turns: $(cat "$TMP/turns")"
printf 'Once upon a time%s\nThen Tom' "$(sed -n 1p "$TMP/turns")" >"$TMP/prompt.txt"
expect 0 "$CAB" generate $teacher -f "$TMP/prompt.txt" --no-echo -n 9 -t 0 -q --threads 1
[ "$(cat "$TMP/out")" = "$(sed -n 2p "$TMP/turns")" ] || fail "turns: $(cat "$TMP/turns"), at once: $(cat "$TMP/out")"
# a conversation: a line is what the user says, an empty one nothing; the second answer knows the first
mkdir "$TMP/chat"
cp $teacher/* "$TMP/chat"
cat >"$TMP/chat/chat_template.jinja" <<'EOF'
{% for message in messages %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}
EOF
printf 'Once upon a time\n\nAnd then?\n' | "$CAB" generate "$TMP/chat" --chat -i -n 9 -t 0 -q --threads 1 >"$TMP/turns"
"$CAB" generate "$TMP/chat" --chat -p 'Once upon a time' -n 9 -t 0 -q --threads 1 >"$TMP/first"
{
    printf '<|im_start|>user\nOnce upon a time<|im_end|>\n<|im_start|>assistant\n'
    head -c -1 "$TMP/first"
    printf '<|im_end|>\n<|im_start|>user\nAnd then?<|im_end|>\n<|im_start|>assistant\n\n' # the last end of a line is the file's
} >"$TMP/prompt.txt"
"$CAB" generate $teacher -f "$TMP/prompt.txt" --no-echo -n 9 -t 0 -q --threads 1 >"$TMP/second"
cat "$TMP/first" "$TMP/second" | cmp -s - "$TMP/turns" || fail "conversation: $(cat "$TMP/turns"), at once: $(cat "$TMP/first" "$TMP/second")"
printf 'Hello\n' | "$CAB" generate $teacher --chat -i -q >"$TMP/out" 2>"$TMP/err" && fail 'no template, and an answer'
says err 'it has no chat template'
expect 2 "$CAB" generate $teacher -i -p Once
says err '--interactive excludes'
