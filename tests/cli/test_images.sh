# test_images.sh - cab eval, classify and subset on images: what they print, and what they say of bad input.
. tests/cli/common.sh

corpus=tests/corpora/images

# A ViT of three classes whose logits are 0, 1 and 2 whatever it sees: all weights are zero but the classifier's bias.
header= bytes=0
tensor() { # NAME SHAPE ELEMENTS
    header="$header\"$1\": {\"dtype\": \"F32\", \"shape\": [$2], \"data_offsets\": [$bytes, $((bytes + 4 * $3))]}, "
    bytes=$((bytes + 4 * $3))
}
little_endian() { # a number of 8 bytes
    n=$1
    for _ in 1 2 3 4 5 6 7 8; do
        printf "\\$(printf %03o $((n % 256)))"
        n=$((n / 256))
    done
}
model() { # DIRECTORY
    mkdir -p "$1"
    echo '{"architecture": "vit_tiny_patch4_8", "pretrained_cfg": {"crop_pct": 1.0, "interpolation": "bicubic",
           "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}' >"$1/config.json"
    header= bytes=0
    tensor cls_token 1,1,3 3
    tensor pos_embed 1,5,3 15
    tensor patch_embed.proj.weight 3,3,4,4 144
    tensor patch_embed.proj.bias 3 3
    for name in norm1.weight norm1.bias norm2.weight norm2.bias attn.proj.bias mlp.fc2.bias; do
        tensor blocks.0.$name 3 3
    done
    tensor blocks.0.attn.qkv.weight 9,3 27
    tensor blocks.0.attn.qkv.bias 9 9
    tensor blocks.0.attn.proj.weight 3,3 9
    tensor blocks.0.mlp.fc1.weight 6,3 18
    tensor blocks.0.mlp.fc1.bias 6 6
    tensor blocks.0.mlp.fc2.weight 3,6 18
    tensor norm.weight 3 3
    tensor norm.bias 3 3
    tensor head.weight 3,3 9
    zeros=$bytes
    tensor head.bias 3 3
    header="{${header%, }}"
    {
        little_endian ${#header}
        printf %s "$header"
        head -c "$zeros" /dev/zero
        printf '\000\000\000\000\000\000\200\077\000\000\000\100'
    } >"$1/model.safetensors"
}
model "$TMP/vit"
expect 0 "$CAB" inspect "$TMP/vit"
says out teacher

# two ants, one bee, three cats; the model always says cat
data() { # DIRECTORY
    mkdir -p "$1/ant" "$1/bee" "$1/cat"
    cp $corpus/turned1.png $corpus/turned2.png "$1/ant"
    cp $corpus/base.jpg "$1/bee"
    cp $corpus/gray.png $corpus/cmyk.jpg $corpus/palette8.png "$1/cat"
}
data "$TMP/data"

# ---- eval -----------------------------------------------------------------------------------------------------------

expect 0 "$CAB" eval "$TMP/vit" --data "$TMP/data"
says out 'top-1                                 50.00 %'
says out 'top-5                                 100.00 %'
says out 'loss, nats per image                  1.2409' # 0.4076 of a cat, 1 more of a bee, 2 more of an ant
says out 'images                                6'
says out '   2 of 2     ant'
silent err
expect 0 "$CAB" eval "$TMP/vit" --data "$TMP/data" --teacher "$TMP/vit" --json --per-class --batch 4 --confusions 1
says out '"top1": 0.5,'
says out '"kl": 0,'
says out '"agreement": 1,'
says out '"confusions": [ { "class": "ant", "predicted": "cat", "images": 2, "of": 2 } ]'
says out '{ "class": "cat", "images": 3, "top1": 1, "top5": 1 }'
expect 0 "$CAB" eval "$TMP/vit" --data "$TMP/data" -p
[ "$(grep -c '^\(ant\|bee\|cat\) .*%$' "$TMP/out")" -eq 3 ] || fail "not a line for every class: $(cat "$TMP/out")"

# of the model's three classes the data may have two; a map says which
rm -r "$TMP/data/bee"
expect 4 "$CAB" eval "$TMP/vit" --data "$TMP/data"
says err 'tells 3 classes apart, the data has 2; a class map (--classes)'
printf 'label\tname\tindex\twords\n0\tant\t2\tants\n1\tcat\t0\tcats, felines\n' >"$TMP/two.tsv"
expect 0 "$CAB" eval "$TMP/vit" --data "$TMP/data" --classes "$TMP/two.tsv"
says out 'top-1                                 40.00 %'
says out 'cat cats'
printf '0\tant\t2\tants\n1\tcat\t3\tcats\n' >"$TMP/wrong.tsv"
expect 4 "$CAB" eval "$TMP/vit" --data "$TMP/data" --classes "$TMP/wrong.tsv"
says err 'class "cat"'
rm -r "$TMP/data"
data "$TMP/data"
# the model's own classes.tsv matches by name
printf '0\tcat\t0\n1\tbee\t1\n2\tant\t2\n' >"$TMP/vit/classes.tsv"
expect 0 "$CAB" eval "$TMP/vit" --data "$TMP/data"
says out 'top-1                                 33.33 %'
rm "$TMP/vit/classes.tsv"

# where nothing says how pictures are prepared, one warning says what is assumed; sizes that disagree are refused
cp "$TMP/vit/config.json" "$TMP/config.json"
echo '{"architecture": "vit_tiny_patch4_8", "pretrained_cfg": {"crop_pct": 1.0}}' >"$TMP/vit/config.json"
expect 0 "$CAB" classify "$TMP/vit" $corpus/base.jpg
says err "timm's defaults are assumed for what is not stated: \"interpolation\", \"mean\", \"std\""
[ "$(wc -l <"$TMP/err")" -eq 1 ] || fail "more than one warning: $(cat "$TMP/err")"
cp "$TMP/config.json" "$TMP/vit/config.json"
echo '{"size": 8, "do_resize": false}' >"$TMP/vit/preprocessor_config.json"
expect 7 "$CAB" classify "$TMP/vit" $corpus/base.jpg
says err 'base.jpg: an image of 61 x 47 pixels, expected 8 x 8: the model'
expect 7 "$CAB" eval "$TMP/vit" --data "$TMP/data"
says err 'expected 8 x 8: the model'
says err "$TMP/data/"
rm "$TMP/vit/preprocessor_config.json"

# what does not fit together
head -c 4000 examples/tales/val.txt >"$TMP/val.txt"
expect 2 "$CAB" eval "$TMP/vit" --data "$TMP/val.txt"
says err 'val.txt: a file of text'
expect 2 "$CAB" eval "$TMP/vit" --data "$TMP/data" --per-document
says err '--per-document does not go with'
expect 4 "$CAB" eval examples/tales/teacher --data "$TMP/data" --cache "$TMP/cache"
says err 'holds images'
expect 2 "$CAB" eval examples/tales/teacher --data "$TMP/val.txt" --classes "$TMP/two.tsv"
says err '--classes does not go with'
expect 2 "$CAB" eval "$TMP/vit" --data "$TMP/data" --image-size 9
says err 'not a multiple of the patches'
expect 0 "$CAB" eval "$TMP/vit" --data "$TMP/data" --image-size 12

# ---- bad input ------------------------------------------------------------------------------------------------------

# bad FILE WORDS - in the folder of bees, FILE stops an evaluation with one line that names it, and is counted when skipped
bad() {
    cp "$corpus/$1" "$TMP/data/bee/x-$1"
    expect 4 "$CAB" eval "$TMP/vit" --data "$TMP/data"
    says err "x-$1"
    says err "$2"
    [ "$(wc -l <"$TMP/err")" -eq 1 ] || fail "more than a line about $1: $(cat "$TMP/err")"
    silent out
    expect 0 "$CAB" eval "$TMP/vit" --data "$TMP/data" --on-error skip --json
    says out '"images": 6, "skipped": 1,'
    says err "x-$1"
    expect 4 "$CAB" classify "$TMP/vit" "$TMP/data/bee/x-$1"
    says err "x-$1"
    silent out
    expect 0 "$CAB" classify "$TMP/vit" "$TMP/data/bee" --on-error skip
    says out 'base.jpg'
    says err 'skipped: '
    says err '1 images classified, 1 skipped'
    rm "$TMP/data/bee/x-$1"
}
bad cut.jpg 'truncated'
bad cut.png ''
bad empty.jpg ''
bad text.jpg 'neither a JPEG nor a PNG'
bad gif.jpg 'is a GIF file'
bad bomb.jpg 'pixels; expected'
bad bomb.png 'pixels; expected'
bad header-only.jpg ''
# a PNG called .jpg is a picture
cp $corpus/png-inside.jpg "$TMP/data/bee"
expect 0 "$CAB" eval "$TMP/vit" --data "$TMP/data" --json
says out '"images": 7,'
rm "$TMP/data/bee/png-inside.jpg"

ln -s nowhere "$TMP/data/bee/gone.jpg"
expect 3 "$CAB" eval "$TMP/vit" --data "$TMP/data"
says err 'bee/gone.jpg: cannot read'
expect 0 "$CAB" eval "$TMP/vit" --data "$TMP/data" --on-error skip --json
says out '"images": 6, "skipped": 1,'
rm "$TMP/data/bee/gone.jpg"
if [ "$(id -u)" -ne 0 ]; then
    chmod 000 "$TMP/data/bee/base.jpg"
    expect 3 "$CAB" eval "$TMP/vit" --data "$TMP/data"
    says err 'base.jpg'
    expect 3 "$CAB" classify "$TMP/vit" "$TMP/data/bee/base.jpg"
    chmod 644 "$TMP/data/bee/base.jpg"
fi

# classes without an image, and unknown ones
mkdir "$TMP/data/dog"
expect 4 "$CAB" eval "$TMP/vit" --data "$TMP/data"
says err 'the class "dog" has no image'
rmdir "$TMP/data/dog"
expect 4 "$CAB" eval "$TMP/vit" --data "$TMP/data" --classes "$TMP/two.tsv"
says err 'the class "bee" is not among the 2 given'
expect 0 "$CAB" eval "$TMP/vit" --data "$TMP/data" --classes "$TMP/two.tsv" --on-error skip --json
says out '"images": 5, "skipped": 1,'
mkdir "$TMP/empty"
expect 4 "$CAB" eval "$TMP/vit" --data "$TMP/empty"
says err 'no image found'
expect 4 "$CAB" subset "$TMP/empty" -o "$TMP/list.csv"
expect 4 "$CAB" classify "$TMP/vit" "$TMP/empty"
says err "$TMP/empty: no image found"
expect 3 "$CAB" eval "$TMP/vit" --data "$TMP/nowhere"
[ ! -e "$TMP/list.csv" ] || fail 'a failed subset wrote a list'

# archives, whole and cut short
(cd "$TMP/data" && tar cf ../data.tar ant bee cat)
expect 0 "$CAB" eval "$TMP/vit" --data "$TMP/data.tar" --json
says out '"top1": 0.5,'
head -c 4000 "$TMP/data.tar" >"$TMP/cut.tar"
expect 4 "$CAB" eval "$TMP/vit" --data "$TMP/cut.tar"
says err "$TMP/cut.tar"
expect 4 "$CAB" subset "$TMP/cut.tar" -o "$TMP/list.csv" --on-error skip
says err 'it can be skipped only where the classes are given'

# ---- classify -------------------------------------------------------------------------------------------------------

expect 0 "$CAB" classify "$TMP/vit" "$TMP/data/bee/base.jpg"
printf '%s\n   66.52 %%  class 2\n   24.47 %%  class 1\n    9.00 %%  class 0\n' "$TMP/data/bee/base.jpg" >"$TMP/expected"
cmp -s "$TMP/out" "$TMP/expected" || fail "cab classify prints: $(cat "$TMP/out")"
silent err
expect 0 "$CAB" classify "$TMP/vit" "$TMP/data/bee/base.jpg" --classes "$TMP/two.tsv"
says out '66.52 %  ants (ant)'
says out '9.00 %  cats, felines (cat)'
# what would be printed as 0.00 % is not printed: the last logit is 20
cp -r "$TMP/vit" "$TMP/sure"
printf '\000\000\240\101' |
    dd of="$TMP/sure/model.safetensors" bs=1 seek=$(($(wc -c <"$TMP/sure/model.safetensors") - 4)) conv=notrunc 2>"$TMP/err"
expect 0 "$CAB" classify "$TMP/sure" "$TMP/data/bee/base.jpg"
[ "$(sed 1d "$TMP/out")" = '  100.00 %  class 2' ] || fail "a sure model: $(cat "$TMP/out")"
printf 'ant\nbee\ncat\n' >"$TMP/names.txt"
expect 0 "$CAB" classify "$TMP/vit" "$TMP/data" --json --top 1 --classes "$TMP/names.txt"
[ "$(grep -c '"name": "cat"' "$TMP/out")" -eq 6 ] || fail "not a line for every image: $(cat "$TMP/out")"
head -n 1 "$TMP/out" >"$TMP/first"
grep -qF "data/ant/turned1.png" "$TMP/first" || fail 'images of a folder are not in the order of their names'
expect 0 "$CAB" classify "$TMP/vit" "$TMP/data/*/*.png" -k 1
[ "$(grep -c 'png$' "$TMP/out")" -eq 4 ] || fail "a pattern found: $(cat "$TMP/out")"
expect 3 "$CAB" classify "$TMP/vit" "$TMP/data/*.gif"
says err 'no such file, and no file that it would match'
expect 3 "$CAB" classify "$TMP/vit" "$TMP/data/bee/base.jpg" "$TMP/nowhere.jpg"
says err 'nowhere.jpg: no such file'
silent out
expect 0 "$CAB" classify "$TMP/vit" "$TMP/data/bee/base.jpg" "$TMP/nowhere.jpg" --on-error skip
says err 'skipped: '
expect 4 "$CAB" classify "$TMP/vit" "$TMP/nowhere.jpg" --on-error skip
says err 'none of the images could be read; 1 skipped'
expect 2 "$CAB" classify examples/tales/teacher "$TMP/data"
says err 'a model of text'
expect 2 "$CAB" classify "$TMP/vit"
printf 'ant\nbee\n' >"$TMP/names.txt"
expect 4 "$CAB" classify "$TMP/vit" "$TMP/data" --classes "$TMP/names.txt"
says err '2 names of classes; the model has 3'

# ---- subset ---------------------------------------------------------------------------------------------------------

mkdir "$TMP/many"
for class in x y; do
    mkdir "$TMP/many/$class"
    for i in 01 02 03 04 05 06 07 08 09 10 11 12 13 14 15 16 17 18 19 20; do
        cp $corpus/turned1.png "$TMP/many/$class/$i.png"
    done
done
for share in '0.01 1' '0.05 1' '0.1 2' '0.2 4'; do
    expect 0 "$CAB" subset "$TMP/many" --fraction "${share% *}" --seed 1 --out "$TMP/list-${share% *}.csv"
    says out "$((2 * ${share#* })) images of 2 classes"
    for class in x y; do
        [ "$(grep -c ",$class\$" "$TMP/list-${share% *}.csv")" -eq "${share#* }" ] || fail "not ${share#* } of class $class"
    done
done
grep -vFxf "$TMP/list-0.2.csv" "$TMP/list-0.1.csv" >"$TMP/out" && fail 'a smaller share is no part of a larger one'
expect 0 "$CAB" subset "$TMP/many" -f 0.2 -s 1 -o "$TMP/again.csv"
cmp -s "$TMP/list-0.2.csv" "$TMP/again.csv" || fail 'the same seed gave another subset'
expect 0 "$CAB" subset "$TMP/many" -f 0.2 -s 2 -o "$TMP/again.csv"
! cmp -s "$TMP/list-0.2.csv" "$TMP/again.csv" || fail 'another seed gave the same subset'
grep -q '^many/x/[0-9]*\.png,x$' "$TMP/list-0.1.csv" || fail "paths in a list: $(cat "$TMP/list-0.1.csv")"
# lists are data, out of archives too
expect 0 "$CAB" subset "$TMP/data.tar" -f 1 -o "$TMP/list.csv"
expect 0 "$CAB" eval "$TMP/vit" --data "$TMP/list.csv" --json
says out '"top1": 0.5,'
expect 2 "$CAB" subset "$TMP/many"
says err '--out: found ""'
expect 2 "$CAB" subset "$TMP/many" -o "$TMP/list.txt"
expect 2 "$CAB" subset "$TMP/many" -o "$TMP/list.csv" -f 0
says err '--fraction: found 0'
expect 2 "$CAB" subset "$TMP/many" -o "$TMP/list.csv" -f 1.5
expect 3 "$CAB" subset "$TMP/many" -o "$TMP/nowhere/list.csv"

# ---- a real teacher on real images ----------------------------------------------------------------------------------

real=../shared/data/tiny-imagenet
if [ ! -e "$real/val.tar.xz" ] || [ ! -e ../shared/teachers/vit-tiny ]; then
    echo 'Tiny-ImageNet or vit-tiny is not here: skipped'
    exit 0
fi
expect 0 "$CAB" subset "$real/val.tar.xz" --fraction 0.02 --seed 1 --out "$TMP/list.csv" --classes "$real/classes.tsv"
says out '200 images of 200 classes'
expect 0 "$CAB" eval ../shared/teachers/vit-tiny --data "$TMP/list.csv" --classes "$real/classes.tsv" --json
top1=$(sed 's/.*"top1": \([0-9.]*\),.*/\1/' "$TMP/out")
awk "BEGIN { exit !($top1 >= 0.60 && $top1 <= 0.62) }" || fail "vit-tiny's top-1 on 200 images is $top1, expected 0.61"

# ---- a terminal, a file ---------------------------------------------------------------------------------------------

picture="$TMP/data/bee/$(printf 'a\033[31m.jpg')"
cp "$TMP/data/bee/base.jpg" "$picture"
expect 0 "$CAB" classify "$TMP/vit" "$picture" -q
cp "$TMP/out" "$TMP/first"
says out "$picture"
expect 0 "$CAB" classify "$TMP/vit" "$picture" -q --out "$TMP/shares"
silent out
cmp -s "$TMP/shares" "$TMP/first" || fail "--out: $(cat "$TMP/shares")"
printf 'ant\n\033[31mbee\ncat\n' >"$TMP/names.txt"
if on_terminal "'$CAB' classify '$TMP/vit' '$picture' -q --classes '$TMP/names.txt'"; then
    says out 'a\x1b[31m.jpg'
    says out '  \x1b[31mbee'
    ! grep -q "$(printf '\033')" "$TMP/out" || fail 'an escape reached the terminal'
fi
rm "$picture"
