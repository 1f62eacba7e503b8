#!/bin/sh
# flip.sh N - flips N random bits, one at a time, in checkpoints, caches and exported students. Each flip is noticed (an error, or a warning and
# the bits of an unbroken run), or does no harm: the bits of an unbroken run. CAB names the tool.
N=${1:?number of flips}
. tests/campaigns/runs.sh

# flip FILE - one random bit.
flip() {
    size=$(wc -c <"$1")
    at=$(random "$size")
    bit=$(random 8)
    old=$(dd if="$1" bs=1 skip="$at" count=1 2>/dev/null | od -An -tu1)
    printf "\\$(printf %03o $((old ^ (1 << bit))))" | dd of="$1" bs=1 seek="$at" conv=notrunc 2>/dev/null
    place="bit $bit of byte $at of $size in $(basename "$1")"
}

# A run of each kind that stands in the middle, with its caches, and one that has ended.
for kind in $KINDS; do
    (start $kind "$TMP/$kind-whole") >/dev/null 2>"$TMP/err" || fail "$kind: $(cat "$TMP/err")"
    (start $kind "$TMP/$kind-half") >/dev/null 2>&1 &
    pid=$!
    until grep -qs '"step":9,' "$TMP/$kind-half/log.jsonl" || ! kill -0 $pid 2>/dev/null; do sleep 0.01; done
    kill -TERM $pid 2>/dev/null || fail "$kind: ended before it could be stopped"
    wait $pid || true
    [ -s "$TMP/$kind-half/checkpoint.safetensors" ] || fail "$kind: no checkpoint"
done
mv "$TMP/cache" "$TMP/cache.sound"

# goes_on KIND TARGET - with one bit of the target flipped.
goes_on() {
    rm -rf "$TMP/out" "$TMP/cache"
    cp -r "$TMP/$1-half" "$TMP/out"
    cp -r "$TMP/cache.sound" "$TMP/cache"
    flip "$TMP/$2"
    code=0
    (start "$1" "$TMP/out") >/dev/null 2>"$TMP/err" || code=$?
    if [ $code -eq 4 ] && grep -qF "$(basename "$2")" "$TMP/err"; then
        noticed=$((noticed + 1))
        return
    fi
    [ $code -eq 0 ] || fail "$place: exit code $code: $(cat "$TMP/err")"
    [ "$(bits "$TMP/out")" = "$(bits "$TMP/$1-whole")" ] || fail "$place: another student: $(cat "$TMP/err")"
    if grep -q "^warning: .*$(basename "$2")" "$TMP/err"; then
        noticed=$((noticed + 1))
    else
        harmless=$((harmless + 1))
        echo "harmless: $place"
    fi
}

# A student with one bit flipped is refused, or is the same student.
reads() {
    rm -rf "$TMP/out"
    cp -r "$TMP/text-whole/student" "$TMP/out"
    flip "$TMP/out/model.safetensors"
    if "$CAB" inspect "$TMP/out" >/dev/null 2>"$TMP/err"; then
        harmless=$((harmless + 1))
        echo "harmless: $place"
        [ "$(tail -c 20000 "$TMP/out/model.safetensors" | cksum)" = "$(tail -c 20000 "$TMP/text-whole/student/model.safetensors" | cksum)" ] ||
            fail "$place: another student is read"
    else
        grep -q 'model.safetensors' "$TMP/err" || fail "$place: $(cat "$TMP/err")"
        noticed=$((noticed + 1))
    fi
}

noticed=0 harmless=0 done=0
while [ $done -lt "$N" ]; do
    for kind in $KINDS; do
        cache=$(cd "$TMP/cache.sound" && ls | case $kind in text) grep '\.tok$' ;; *) grep '^images-' ;; esac | sed -n "$((done / 4 % 2 + 1))p")
        [ $done -ge "$N" ] || { goes_on $kind out/checkpoint.safetensors && done=$((done + 1)); }
        [ $done -ge "$N" ] || { goes_on $kind "cache/$cache" && done=$((done + 1)); }
    done
    [ $done -ge "$N" ] || { reads && done=$((done + 1)); }
done
echo "$done flips: $noticed noticed, $harmless harmless, the student's bits always those of an unbroken run"
