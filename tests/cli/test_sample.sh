# test_sample.sh - cab sample: a corpus of JSON lines; killed and gone on with; answers and both turns; mistakes in one line.
. "$(dirname "$0")/common.sh"
teacher=examples/tales/teacher

# the same texts in one go, in two, and behind half a line that a kill has left
expect 0 "$CAB" sample $teacher --count 10 --batch 4 -n 24 --precision fp32 --out "$TMP/a.jsonl" -q
[ "$(wc -l <"$TMP/a.jsonl")" -eq 10 ] || fail "lines: $(cat "$TMP/a.jsonl")"
[ "$(sed 's/","sample.*//' "$TMP/a.jsonl" | sort -u | wc -l)" -eq 10 ] || fail 'the same text twice'
grep -q '^{"text":".*","sample":9,"seed":1,"stop":"\(length\|end\)"}$' "$TMP/a.jsonl" || fail "$(tail -1 "$TMP/a.jsonl")"
expect 0 "$CAB" sample $teacher --count 4 --batch 4 -n 24 --precision fp32 --out "$TMP/b.jsonl" -q
printf '{ "text": "half a li' >>"$TMP/b.jsonl"
expect 0 "$CAB" sample $teacher --count 10 --batch 4 -n 24 --precision fp32 --out "$TMP/b.jsonl"
says err '4 texts were there, 6 written'
cmp -s "$TMP/a.jsonl" "$TMP/b.jsonl" || fail "gone on with, other texts: $(diff "$TMP/a.jsonl" "$TMP/b.jsonl")"
expect 0 "$CAB" sample $teacher --count 10 --out "$TMP/a.jsonl"
says err '10 texts were there, 0 written'

# killed in the middle
"$CAB" sample $teacher --count 4000 --batch 2 -n 24 --precision fp32 --out "$TMP/k.jsonl" -q &
process=$!
tries=0
while [ ! -s "$TMP/k.jsonl" ] && [ $tries -lt 300 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
kill -9 $process
wait $process || true
lines=$(wc -l <"$TMP/k.jsonl")
[ "$lines" -ge 2 ] || fail 'nothing was written before the kill'
expect 0 "$CAB" sample $teacher --count $((lines + 4)) --batch 2 -n 24 --precision fp32 --out "$TMP/k.jsonl" -q
grep -o '"sample":[0-9]*' "$TMP/k.jsonl" | cut -d: -f2 >"$TMP/numbers"
seq 0 $((lines + 3)) | cmp -s - "$TMP/numbers" || fail "numbers: $(tr '\n' ' ' <"$TMP/numbers")"

# it is a corpus: prompts in front, every second round another text; read by a run
printf 'Lily saw\nTom ran\n\nMom said\n' >"$TMP/prompts.txt"
expect 0 "$CAB" sample $teacher --count 7 --prompts "$TMP/prompts.txt" --batch 8 -n 16 --out "$TMP/p.jsonl" -q
[ "$(grep -c '"text":"Lily saw' "$TMP/p.jsonl")" -eq 3 ] || fail "prompts: $(cat "$TMP/p.jsonl")"
[ "$(grep -o '"text":"Lily saw.*","sample"' "$TMP/p.jsonl" | sort -u | wc -l)" -eq 3 ] || fail 'a prompt, the same text again'
expect 0 "$CAB" eval $teacher --data "$TMP/a.jsonl" --cache "$TMP/cache" -q

# a model with a template answers, and asks as well
mkdir "$TMP/chat"
cp $teacher/* "$TMP/chat"
cat >"$TMP/chat/chat_template.jinja" <<'EOF'
{% for message in messages %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}
EOF
if "$CAB" generate "$TMP/chat" --chat -p hello -n 4 --seed 1 -q >/dev/null 2>"$TMP/err"; then
    expect 0 "$CAB" sample "$TMP/chat" --kind answers --prompts "$TMP/prompts.txt" --count 3 -n 16 --out "$TMP/q.jsonl" -q
    grep -q '{"messages":\[{"role":"user","content":"Tom ran"},{"role":"assistant","content":"' "$TMP/q.jsonl" ||
        fail "answers: $(cat "$TMP/q.jsonl")"
    expect 0 "$CAB" sample "$TMP/chat" --kind turns --count 6 -n 16 --out "$TMP/t.jsonl" -q
    [ "$(grep -o '"role":"user","content":"[^"]*' "$TMP/t.jsonl" | sort -u | wc -l)" -ge 5 ] || fail "turns: $(cat "$TMP/t.jsonl")"
    ! grep -q 'im_start' "$TMP/t.jsonl" || fail "a turn holds the template: $(cat "$TMP/t.jsonl")"
else
    fail "the template is not known: $(cat "$TMP/err")"
fi

# mistakes
expect 2 "$CAB" sample $teacher --count 3
says err 'where to? give --out=FILE'
expect 4 "$CAB" sample $teacher --count 20 --seed 2 --out "$TMP/a.jsonl" -q
says err "$TMP/a.jsonl: line 10 is sample 9 of seed 1, expected 9 of 2"
echo 'a text of mine' >"$TMP/mine.txt"
expect 4 "$CAB" sample $teacher --out "$TMP/mine.txt" -q
[ "$(cat "$TMP/mine.txt")" = 'a text of mine' ] || fail 'a file of somebody else was changed'
printf 'no line end' >"$TMP/mine.txt"
expect 4 "$CAB" sample $teacher --out "$TMP/mine.txt" -q
[ "$(cat "$TMP/mine.txt")" = 'no line end' ] || fail 'a file of somebody else was cut'
expect 2 "$CAB" sample $teacher --kind answers --out "$TMP/n.jsonl" -q
says err 'answers need prompts'
expect 5 "$CAB" sample $teacher --kind turns --out "$TMP/n.jsonl" -q
expect 3 "$CAB" sample $teacher --out "$TMP" -q
printf '\n\n' >"$TMP/empty.txt"
expect 4 "$CAB" sample $teacher --prompts "$TMP/empty.txt" --out "$TMP/n.jsonl" -q
says err 'holds no prompt'
[ ! -s "$TMP/n.jsonl" ] || fail 'a refused command wrote something'
