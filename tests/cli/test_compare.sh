# test_compare.sh - cab compare: its table, its files, and what it refuses.
. tests/cli/common.sh

teacher=examples/tales/teacher
data=examples/tales/val.txt
try() { # try CODE OPTIONS...: the teacher against itself
    code=$1
    shift
    expect "$code" "$CAB" compare --cache "$TMP/cache" -q -l 64 -n 3 "$teacher" "$teacher" "$@"
}

try 0 --data "$data"
says out 'layer  teacher      min       q1   median       q3      max     mean'
[ "$(wc -l <"$TMP/out")" -eq 6 ] || fail "the table has $(wc -l <"$TMP/out") lines, expected 6"
[ "$(grep -c ' 1\.0000   1\.0000   1\.0000   1\.0000   1\.0000   1\.0000$' "$TMP/out")" -eq 5 ] || fail 'a teacher is not like itself'
silent err

try 0 --data "$data" -o "$TMP/one.json" --json --text 'Once upon a time'
says out '"samples":3'
[ "$(wc -l <"$TMP/out")" -eq 1 ] || fail 'the JSON object is not one line'
grep -qF '"tokens"' "$TMP/one.json" || fail 'the file has no drawing'
try 0 --data "$data" -o "$TMP/page.html"
grep -qF 'What they look at' "$TMP/page.html" || fail 'the page has no drawings'
! grep -qE '<script|<link|@import|https?://' "$TMP/page.html" || grep -q 'www.w3.org' "$TMP/page.html" || fail 'the page asks for something from outside'
expect 0 "$CAB" report "$TMP/one.json" -o "$TMP/two.html"
silent out
grep -qF '1 comparison, teacher' "$TMP/two.html" || fail 'the report has no comparison'

try 2
says err 'give --data=FILE'
try 2 --data "$data" -o "$TMP/page.txt"
says err 'ends in .json or .html'
try 2 --data "$data" -n 0
try 2 --data "$data" --images cat.jpg
says err 'a model of text'
try 3 --data "$TMP/nowhere.txt"
says err nowhere.txt
try 7 --data "$data" -l 100000
says err 'takes at most 256 tokens'
expect 2 "$CAB" compare "$teacher" --data "$data"
expect 3 "$CAB" compare "$teacher" "$TMP/nothing" --data "$data"
mkdir "$TMP/broken"
echo '{"model_type": "vim"' >"$TMP/broken/config.json"
expect 4 "$CAB" compare "$teacher" "$TMP/broken" --data "$data"
try 3 --data "$data" -o "$TMP/nowhere/x.html"

# images: bad ones are refused, or skipped where that is asked for
vit=../shared/teachers/vit-tiny
if [ -d "$vit" ]; then
    mkdir -p "$TMP/set/a" "$TMP/set/b"
    cp "$(ls "$vit"/images/*.jpg "$vit"/images/*.JPEG "$vit"/images/*.jpeg 2>/dev/null | head -1)" "$TMP/set/a/good.jpg"
    head -c 1000 "$TMP/set/a/good.jpg" >"$TMP/set/b/cut.jpg"
    expect 4 "$CAB" compare -q "$vit" "$vit" --data "$TMP/set"
    says err cut.jpg
    expect 0 "$CAB" compare -q "$vit" "$vit" --data "$TMP/set" --on-error skip -m 1 -o "$TMP/maps.html"
    says out ' 1.0000'
    expect 4 "$CAB" compare -q "$vit" "$vit" --data "$TMP/set/a" --images "$TMP/set/b/cut.jpg" -n 1
    expect 2 "$CAB" compare -q "$vit" "$teacher" --data "$TMP/set"
    says err 'a model of text'
fi
