# runs.sh - for campaigns: two runs of a second each, one on text and one on pictures, that are killed, damaged and gone on with.
# $CAB runs the tool, $TMP is an empty directory. Kinds of runs: $KINDS, without pictures where there is no python3.
set -eu
CAB=${CAB:?CAB names the tool}
TMP=$(mktemp -d)
trap 'rm -rf "$TMP"' EXIT
KINDS=text

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

head -c 30000 examples/tales/train.txt >"$TMP/train.txt"
head -c 2000 examples/tales/val.txt >"$TMP/val.txt"
cat >"$TMP/text.yaml" <<EOF
method: cab
threads: 1
precision: fp32
teacher: {path: examples/tales/teacher}
student: {n_layer: 1, d_model: 32, n_head: 4, d_state: 8, d_mlp: 32}
data: {train: [$TMP/train.txt], eval: [$TMP/val.txt], seq_len: 32, cache: $TMP/cache}
train: {batch: 2, tokens: 1920, ema: 0.9, eval_every: 11, checkpoint_every: 1}
EOF
if python3 tests/campaigns/make_images.py "$TMP" 2>/dev/null; then
    KINDS='text images'
    cat >"$TMP/images.yaml" <<EOF
method: cab
threads: 1
precision: fp32
teacher: {path: $TMP/vit}
student: {architecture: vim, n_layer: 1}
data: {train: [$TMP/train], eval: [$TMP/val], image_cache: file, cache: $TMP/cache}
train: {batch: 8, tokens: 240, ema: 0.9, eval_every: 11, checkpoint_every: 1}
augment: {preset: basic}
EOF
else
    echo 'no pictures: python3 is not here' >&2
fi

# start KIND OUT - begins or goes on; the recipe's form and that of --resume take turns.
turn=0
start() {
    turn=$((turn + 1))
    if [ $((turn % 2)) -eq 0 ] && [ -e "$2/recipe.yaml" ]; then
        set -- --resume "$2"
    else
        set -- "$TMP/$1.yaml" --out "$2" --resume
    fi
    exec "$CAB" distill -q "$@"
}

# random N - a number below N.
random() {
    echo $(($(od -An -N4 -tu4 /dev/urandom) % $1))
}

bits() { # OUT
    cksum <"$1/student/model.safetensors"
}
