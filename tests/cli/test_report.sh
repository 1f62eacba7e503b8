# test_report.sh - cab report over runs made by hand: hostile strings, damaged and missing files.
. tests/cli/common.sh

good="$TMP/runs/good"
bad="$TMP/runs/<img src=x onerror=alert(1)>"
mkdir -p "$good" "$bad"
for step in 10 20 30; do
    echo "{\"step\":$step,\"tokens\":${step}000,\"stage\":\"s\",\"loss\":3.5,\"ce\":2.5,\"kl\":1.0,\"lr\":0.001,\"tokens_per_s\":500,\"seconds\":$step}"
    echo "{\"eval\":true,\"step\":$step,\"tokens\":${step}000,\"loss\":2.0,\"perplexity\":$((100 - step)),\"kl\":0.5,\"agreement\":0.5}"
done >"$good/log.jsonl"
cat >"$good/result.json" <<EOF
{"method":"soft","teacher":"</p><script>alert(2)</script>","student":"s","loss":2.0,"perplexity":7.389,"kl":0.5,
 "agreement":0.51,"teacher_perplexity":6.5,"tokens_per_second":1234,"seconds":60,"peak_memory":104857600,"tokens":30000,
 "steps":30,"parameters":1000000,"fraction":0.05,"seed":1,"sample":"<script>alert(3)</script> & \"more\" \u0007"}
EOF
echo 'method: soft # </pre><script>alert(4)</script>' >"$good/recipe.yaml"
{
    head -n 3 "$good/log.jsonl"
    echo 'not json </script>'
    echo '{"step":"seven","tokens":1}'
    echo '[1,2]'
    echo '{"step":20,"tokens":20000,"ce":NaN,"kl":1e999,"align":-Infinity}'
    printf '{"step":30,"tok'
} >"$bad/log.jsonl"

expect 0 "$CAB" report "$TMP/runs" -o "$TMP/report.html" --title '<script>alert(5)</script>'
says out 'good '
says out '     7.39    0.5000     0.5100      1234      60.0       100'
says out unfinished
says out 'teacher '
says err 'cannot be read'
[ "$(wc -l <"$TMP/out")" -eq 4 ] || fail "the table has $(wc -l <"$TMP/out") lines, expected 4"
page="$TMP/report.html"
! grep -q '<script>alert' "$page" || fail 'a script reached the page'
! grep -q '<img' "$page" || fail 'a tag in a name reached the page'
! grep -v '^!function' "$page" | grep -qE 'src=["'\''h]|url\(|@import|<link|<iframe|sourceMapping' || fail 'the page asks for something from outside'
grep -qF "default-src 'none'" "$page" || fail 'the page may load something'
[ "$(grep -o 'https\{0,1\}://[a-z0-9.]*' "$page" | grep -cv 'github.com')" -eq 0 ] || fail 'the page has links' # to the library's licence
grep -qF '&lt;script&gt;alert(3)&lt;/script&gt; &amp; &quot;more&quot;' "$page" || fail 'the sample is not shown'
grep -qF '&lt;img src=x onerror=alert(1)&gt;' "$page" || fail 'the name is not shown'
grep -qF '4 lines of the log could not be read' "$page" || fail 'damaged lines are not counted'
tail -n 1 "$page" | grep -qF '</body></html>' || fail 'the page is cut short'
[ "$(grep -c 'class="still"' "$page")" -ge 5 ] || fail 'charts are missing'
if command -v xmllint >/dev/null; then
    sed '/<\/main>/,$d' "$page" >"$TMP/body.html" # without the scripts, which xmllint takes for HTML
    xmllint --html --noout "$TMP/body.html" 2>&1 | grep ' error : ' | grep -vE 'Tag (main|svg|figure|footer|g|path|rect|defs|use|circle|text|title|desc|filter|fe[A-Za-z]*|details|summary) invalid' &&
        fail 'the page is not well formed'
fi

# a page that follows runs says so to the browser, and stands still once they have ended
expect 0 "$CAB" report "$good" -o "$TMP/plain.html"
! grep -qF 'http-equiv="refresh"' "$TMP/plain.html" || fail 'a page that does not follow a run is loaded again'
"$CAB" report --watch "$TMP/runs" -o "$TMP/live.html" >/dev/null 2>&1 &
watcher=$!
for _ in 1 2 3 4 5 6 7 8 9 10; do
    [ ! -e "$TMP/live.html" ] || break
    sleep 1
done
cp "$TMP/live.html" "$TMP/first.html"
grep -qF 'http-equiv="refresh" content="5"' "$TMP/first.html" || fail 'the page of a run that goes on is not loaded again'
echo '{"eval":true,"step":40,"tokens":40000,"loss":2.0,"perplexity":55.5,"kl":0.5,"agreement":0.5}' >"$bad/log.jsonl"
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
    ! grep -qF '>55.50<' "$TMP/live.html" || break
    sleep 1
done
kill "$watcher"
grep -qF '>55.50<' "$TMP/live.html" || fail 'the page does not follow'
expect 2 "$CAB" report --watch --table "$good"
expect 0 "$CAB" report "$good" --out "$TMP/named.html"
[ -s "$TMP/named.html" ] || fail '--out wrote no page'

mkdir "$TMP/empty"
expect 0 "$CAB" report --table "$good"
silent err
[ ! -e report.html ] || fail '--table wrote a page'
expect 0 "$CAB" report "$TMP/runs/good/" -o "$TMP/slash.html"
says out 'good '
echo '{"loss": [' >"$bad/result.json"
expect 0 "$CAB" report -t "$TMP/runs"
says err result.json
rm "$good/log.jsonl" "$good/recipe.yaml"
expect 0 "$CAB" report "$good" -o "$TMP/bare.html"
expect 3 "$CAB" report "$TMP/empty" -o "$TMP/none.html"
says err 'holds no run'
expect 3 "$CAB" report "$TMP/nowhere"
expect 3 "$CAB" report "$good" -o "$TMP/nowhere/report.html"
