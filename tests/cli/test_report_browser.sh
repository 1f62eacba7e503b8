# test_report_browser.sh - the report in a real browser, where one is installed: no error, charts that answer, nothing wider than
# the window at 1280 and 400 pixels, printed to PDF.
. tests/cli/common.sh

browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)
[ -n "$browser" ] || { echo 'skipped: no Chromium to open the page in'; exit 0; }
HOME=$TMP # its profile
export HOME

# open ARGUMENTS... - the browser without a window; what scripts complain about goes to $TMP/complaints.
open() {
    timeout 280 "$browser" --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --enable-logging=stderr \
        --virtual-time-budget=5000 "$@" >"$TMP/dom" 2>"$TMP/log" || fail "the browser ended with $?: $(tail -n 3 "$TMP/log")"
    ! grep CONSOLE "$TMP/log" >"$TMP/complaints" || fail "the page complains: $(cat "$TMP/complaints")"
}

for name in soft 'a run <b>of</b> a long name that has to be broken somewhere_or_it_will_not_fit_on_a_telephone'; do
    run="$TMP/runs/$name"
    mkdir -p "$run"
    for step in $(seq 1 60); do
        echo "{\"step\":$step,\"tokens\":${step}000,\"ce\":$((900 / step)),\"kl\":$((90 / step + 1)).5,\"lr\":0.001,\"seconds\":$step}"
        [ $((step % 10)) -ne 0 ] ||
            echo "{\"eval\":true,\"step\":$step,\"tokens\":${step}000,\"perplexity\":$((3000 / step)),\"kl\":0.5,\"agreement\":0.5}"
    done >"$run/log.jsonl"
    echo '{"method":"soft","perplexity":50,"kl":0.5,"agreement":0.51,"teacher_perplexity":6.5,"tokens_per_second":1234,"seconds":60,
           "peak_memory":104857600,"tokens":60000,"parameters":1000000,"fraction":0.05,"sample":"Once."}' >"$run/result.json"
done
expect 0 "$CAB" report "$TMP/runs" -o "$TMP/page.html"

# The page, and a script after its own that points at every chart, turns every switch, and measures.
cat "$TMP/page.html" - >"$TMP/probed.html" <<'END'
<script>
const probe = {wide: document.documentElement.scrollWidth - document.documentElement.clientWidth, live: document.querySelectorAll('.live').length,
               charts: document.querySelectorAll('figure.chart').length, values: 0, moved: 0};
for (const figure of document.querySelectorAll('.live')) {
  const canvas = figure.querySelector('.plot canvas:last-of-type'), box = canvas.getBoundingClientRect();
  canvas.dispatchEvent(new MouseEvent('mousemove', {clientX: box.left + box.width / 2, clientY: box.top + 50, bubbles: true}));
  probe.values += figure.querySelectorAll('.values b').length > 0;
  const picture = () => [...figure.querySelectorAll('.plot canvas')].map((c) => c.toDataURL()).join();
  const before = picture(), log = figure.querySelector('input');
  log.checked = !log.checked;
  log.dispatchEvent(new Event('change'));
  probe.moved += picture() !== before;
}
document.documentElement.dataset.probe = JSON.stringify(probe).replaceAll('"', '');
</script>
END
for width in 1280 400; do
    open --window-size=$width,900 --dump-dom "file://$TMP/probed.html"
    found=$(sed -n 's/.*data-probe="\([^"]*\)".*/\1/p' "$TMP/dom")
    charts=6
    live=$charts
    [ "$("$CAB" version | sed -n 's/^charts  *//p')" = dygraphs ] || live=0
    # every chart is alive, says values, and looks another way on another axis
    [ "$found" = "{wide:0,live:$live,charts:$charts,values:$live,moved:$live}" ] || fail "at $width pixels: $found"
done

open --print-to-pdf="$TMP/page.pdf" "file://$TMP/page.html"
[ "$(head -c 5 "$TMP/page.pdf")" = %PDF- ] || fail 'the page is not printed'
if command -v pdftotext >/dev/null; then
    pdftotext -layout "$TMP/page.pdf" "$TMP/page.txt"
    for words in Parameters 'Validation perplexity' 'Learning rate' 'log scale' 'What the students write'; do
        grep -qF "$words" "$TMP/page.txt" || fail "on paper there is no \"$words\""
    done
fi
