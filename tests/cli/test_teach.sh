# test_teach.sh - a teacher's cache: made by cab teach or by a run, read by later ones with the same bits; what does not fit it is told.
. "$(dirname "$0")/common.sh"
head -c 8000 examples/tales/val.txt >"$TMP/val.txt"
run() { # run OUT CACHE WORDS KEY=VALUE... - a short run of the tales, 16 steps over 16 windows
    out=$1 cache=$2 words=$3
    shift 3
    "$CAB" distill tales-gpt2 -o "$TMP/$out" -q --set train.tokens=16384 --set train.batch=8 --set data.seq_len=128 \
        --set data.fraction=0.005 --set data.eval="$TMP/val.txt" --set data.cache="$TMP/tokens" --set teacher.cache="$cache" \
        --set teacher.cache_words="$words" "$@"
}
first_kl() {
    sed -n '1s/.*"kl":\([0-9.]*\).*/\1/p' "$TMP/$1/log.jsonl"
}

# the first run makes it; another one, and cab teach, find it there and leave it as it is
expect 0 run one "$TMP/cache" 64
cp "$TMP/cache" "$TMP/copy"
expect 0 run two "$TMP/cache" 64
cmp -s "$TMP/one/student/model.safetensors" "$TMP/two/student/model.safetensors" || fail 'read from the cache, other bits'
expect 0 "$CAB" teach tales-gpt2 --cache "$TMP/cache" -q --set train.batch=8 --set data.seq_len=128 \
    --set data.fraction=0.005 --set data.cache="$TMP/tokens"
cmp -s "$TMP/cache" "$TMP/copy" || fail 'cab teach wrote what was there'
expect 0 "$CAB" teach tales-gpt2 --cache "$TMP/alone" -q --set train.batch=5 --set data.seq_len=128 \
    --set data.fraction=0.005 --set data.cache="$TMP/tokens"
[ "$(wc -c <"$TMP/alone")" -eq "$(wc -c <"$TMP/cache")" ] || fail 'cab teach writes another file'

# KL with some words is below that with all, whose student comes closer
expect 0 run all "$TMP/words" 1024
awk -v few="$(first_kl one)" -v all="$(first_kl all)" 'BEGIN { exit !(few > 0 && few <= all && few > 0.5 * all) }' ||
    fail "KL of the first step: $(first_kl one) of 64 words, $(first_kl all) of all"

final_kl() {
    sed -n 's/^ *"kl": \([0-9.]*\),*$/\1/p' "$TMP/$1/result.json"
}
awk -v few="$(final_kl one)" -v all="$(final_kl all)" 'BEGIN { exit !(all > 0 && all < few) }' ||
    fail "KL at the end: $(final_kl one) by 64 words, $(final_kl all) by all"

# stopped by a kill, the cache goes on too
cp "$TMP/cache" "$TMP/half"
dd if=/dev/zero of="$TMP/half" bs=1 seek=72 count=8 conv=notrunc 2>/dev/null
expect 0 run three "$TMP/half" 64
cmp -s "$TMP/half" "$TMP/cache" || fail 'a window that was not there was written otherwise'

# mistakes
expect 4 run four "$TMP/cache" 32
says err "$TMP/cache: of words a token: 64, expected 32"
cp "$TMP/cache" "$TMP/damaged"
printf 'x' | dd of="$TMP/damaged" bs=1 seek=70000 conv=notrunc 2>/dev/null
expect 4 run five "$TMP/damaged" 64
says err 'is damaged; remove the file'
expect 2 run six "$TMP/new" 64 --set method=vanilla
says err 'teacher.cache: no stage could read it'
expect 2 "$CAB" teach tales-gpt2
says err 'where to? give --cache=FILE'
