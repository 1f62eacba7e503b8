#!/bin/sh
# kill.sh N - kills runs on text and on pictures N times at random moments; each time the run goes on, and in the end its student has the bits of
# an unbroken run. CAB names the tool.
N=${1:?number of kills}
. tests/campaigns/runs.sh

# unbroken KIND - its bits in $expected and how many milliseconds it takes in $span.
unbroken() {
    (start "$1" "$TMP/unbroken") >/dev/null 2>"$TMP/err" || fail "$1: the unbroken run: $(cat "$TMP/err")"
    expected=$(bits "$TMP/unbroken")
    rm -r "$TMP/cache" "$TMP/unbroken"
    began=$(date +%s%N)
    (start "$1" "$TMP/unbroken") >/dev/null 2>"$TMP/err" || fail "$1: the unbroken run: $(cat "$TMP/err")"
    span=$((($(date +%s%N) - began) / 1000000))
    [ "$(bits "$TMP/unbroken")" = "$expected" ] || fail "$1: two unbroken runs differ"
    rm -r "$TMP/unbroken"
}

# whole KIND - the run that has just ended has lost nothing, and left nothing.
whole() {
    ended=$((ended + 1))
    [ "$(bits "$TMP/out")" = "$expected" ] || fail "$1: after $killed kills another student: $(ls -l "$TMP/out" "$TMP/out/student")"
    [ -s "$TMP/out/result.json" ] && [ ! -e "$TMP/out/checkpoint.safetensors" ] || fail "$1: not finished: $(ls "$TMP/out")"
    [ -z "$(find "$TMP/out" "$TMP/cache" -name '*.cab-tmp-*')" ] || fail "$1: left: $(find "$TMP/out" "$TMP/cache" -name '*.cab-tmp-*')"
    rm -r "$TMP/out" "$TMP/cache"
}

campaign() { # KIND KILLS
    killed=0 ended=0
    unbroken "$1"
    while [ $killed -lt "$2" ]; do
        (start "$1" "$TMP/out") >/dev/null 2>"$TMP/err" &
        pid=$!
        wait_ms=$(random $((span + span / 4)))
        sleep "$((wait_ms / 1000)).$(printf %03d $((wait_ms % 1000)))"
        kill -KILL $pid 2>/dev/null || true
        code=0
        wait $pid 2>/dev/null || code=$?
        case $code in
        137) killed=$((killed + 1)) ;;
        0) whole "$1" ;;
        *) fail "$1: after $killed kills the run ended with $code: $(cat "$TMP/err")" ;;
        esac
    done
    if ! [ -e "$TMP/out/result.json" ]; then # killed after its end, it is whole already
        (start "$1" "$TMP/out") >/dev/null 2>"$TMP/err" || fail "$1: going on at last: $(cat "$TMP/err")"
    fi
    (start "$1" "$TMP/out") >/dev/null 2>"$TMP/err" || fail "$1: an ended run: $(cat "$TMP/err")"
    whole "$1"
    echo "$1: $killed kills, $ended runs ended, each with the bits of an unbroken one"
}

set -- $KINDS
for kind; do
    campaign "$kind" $((N / $#))
done
