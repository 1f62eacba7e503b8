# test_distill_images.sh - cab distill on pictures and what follows it: two classes, the pretrained ViT-Tiny.
. tests/cli/common.sh

teacher=../shared/teachers/vit-tiny
images=../shared/data/tiny-imagenet
if [ ! -d "$teacher" ] || [ ! -f "$images/val.tar.xz" ]; then
    echo "skipped: $teacher and $images are not here"
    exit 0
fi

tar -xJf "$images/val.tar.xz" -C "$TMP" val/n01443537 val/n02056570
printf '0\tn01443537\t1\tgoldfish\n1\tn02056570\t145\tking penguin\n' >"$TMP/classes.tsv"
small() {
    "$CAB" distill recipes/vit-tiny-vim-6.yaml --teacher "$teacher" --train "$TMP/val" --eval "$TMP/val" \
        --classes "$TMP/classes.tsv" --passes 1 --quiet --set student.n_layer=1 --set data.image_size=32 "$@"
}

# two methods, their table and their page
expect 0 small --methods soft,cab --out "$TMP/runs"
says out 'soft'
says out 'top-1'
[ -s "$TMP/runs/report.html" ] || fail 'no report of the comparison'
for file in recipe.yaml log.jsonl result.json student/config.json student/classes.tsv student/preprocessor_config.json; do
    [ -s "$TMP/runs/cab/$file" ] || fail "$file is missing from the run"
done
grep -q '"top1":' "$TMP/runs/cab/log.jsonl" || fail 'the log has no top-1'
grep -q '"images": ' "$TMP/runs/cab/result.json" || fail 'the result has no images'
expect 0 "$CAB" recipe validate "$TMP/runs/cab/recipe.yaml"

# the student can be evaluated as it lies there
expect 0 "$CAB" eval "$TMP/runs/cab/student" --data "$TMP/val" --quiet
says out 'top-1'

# text and images do not meet
expect 5 small --out "$TMP/x" --set student.architecture=phi-mamba --set data.classes= --set data.image_size=0 \
    --set data.image_cache=none
says err 'reads images; student.architecture must be in-place'
expect 5 small --out "$TMP/x" --train examples/tales/train.txt
says err 'expected a folder of classes, an archive of one, or a .csv list'
[ ! -e "$TMP/x" ] || fail 'a refused run left a directory'

# a forward pass, size by size
expect 0 "$CAB" bench forward --student "$TMP/runs/cab" --student-config bench/configs/vit-tiny-in-place.json --image-size 16,48 \
    --batch 2 -n 1 --threads 1
[ "$(grep -c '^ *\(16\|48\) ' "$TMP/out")" -eq 4 ] || fail "bench forward: $(cat "$TMP/out")"
expect 2 "$CAB" bench forward --batch 2
says err 'give a model'
