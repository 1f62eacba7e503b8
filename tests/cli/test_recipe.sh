# test_recipe.sh - cab recipe: the shipped recipes are valid, mistakes name file and line, docs/recipes.md is up to date.
. tests/cli/common.sh

expect 0 "$CAB" recipe validate recipes/*.yaml
for recipe in recipes/*.yaml; do
    says out "$recipe: valid"
    for word in Reproduces Costs Command; do
        grep -q "^# $word " "$recipe" || fail "$recipe has no line \"$word\""
    done
done

printf 'seed: 3\n\ntrain:\n  # how fast\n  learning_rat: 3\n  lrr: 3\n' >"$TMP/typo.yaml"
expect 4 "$CAB" recipe validate "$TMP/typo.yaml"
says err "cab recipe: $TMP/typo.yaml:5: unknown key \"train.learning_rat\""
sed -i /learning/d "$TMP/typo.yaml"
expect 4 "$CAB" recipe validate "$TMP/typo.yaml"
says err "$TMP/typo.yaml:5: unknown key \"train.lrr\"; did you mean \"train.lr\"?"
[ "$(wc -l <"$TMP/err")" -eq 1 ] || fail 'more than one line for one mistake'
# all of them, over lists, groups and several files; then what is missing from files whose keys are right
cat >"$TMP/many.yaml" <<END
methd: soft
teacher:
  pth: x
  path: t
train:
  lr: fast
  batchs:
    - 1
    - 2
  batch: 0
  tokens: 10q
stages:
  - name: a
    ce: -3
    kl: 1
bridge: {hiden: 3, n_layer: 9}
seed: 5
END
expect 4 "$CAB" recipe validate "$TMP/many.yaml" "$TMP/typo.yaml"
for place in '1: unknown key "methd"' '3: unknown key "teacher.pth"' '6: train.lr' '7: unknown key "train.batchs"' '10: train.batch' \
    '11: train.tokens' '14: stages[0].ce'; do
    says err "cab recipe: $TMP/many.yaml:$place"
done
says err "cab recipe: $TMP/many.yaml:16: "
says err "cab recipe: $TMP/typo.yaml:5: "
printf 'method: soft\ntrain: {tokens: 100}\ndevice: gpu\n' >"$TMP/bare.yaml"
expect 2 "$CAB" recipe validate "$TMP/bare.yaml"
for key in teacher.path data.train data.eval 'out is' device; do
    says err "cab recipe: $TMP/bare.yaml: $key"
done
[ "$(wc -l <"$TMP/err")" -eq 5 ] || fail "not five mistakes: $(cat "$TMP/err")"
printf 'train:\n  lr: quick\n' >"$TMP/value.yaml"
expect 4 "$CAB" recipe validate "$TMP/value.yaml"
says err "value.yaml:2: train.lr: found \"quick\", expected a number from 0 to 10"
# what is not on this machine is told: a pattern is here when it matches
printf 'method: soft\nout: x\nteacher: {path: examples/tales/teacher}\ndata: {train: ["examples/tales/t*.txt"], eval: ["no/*.txt"]}\ntrain: {tokens: 100}\n' >"$TMP/glob.yaml"
expect 0 "$CAB" recipe validate "$TMP/glob.yaml"
says out 'not here: data.eval no/*.txt'
! grep -q data.train "$TMP/out" || fail "a pattern that matches is not here: $(cat "$TMP/out")"
expect 3 "$CAB" recipe validate "$TMP/absent.yaml"
says err absent.yaml
expect 2 "$CAB" recipe validate recipes/tales-gpt2.yaml --set train.tokens=0
says err 'recipes/tales-gpt2.yaml: stages[0] "distil" has no length'
expect 2 "$CAB" recipe validate recipes/tales-gpt2.yaml --set train.tokens
says err '--set: found "train.tokens", expected KEY=VALUE'
expect 2 "$CAB" recipe check recipes/tales-gpt2.yaml
says err 'no action "check"; expected list, show, new, validate or keys'

# 10k, 1M, 2G in recipes, in --set and in flags
printf 'method: soft\nteacher: {path: t}\ndata: {train: [a.txt], eval: [b.txt]}\ntrain: {tokens: 1.5M}\nout: o\n' >"$TMP/letters.yaml"
expect 0 "$CAB" recipe validate "$TMP/letters.yaml"
expect 0 "$CAB" recipe validate "$TMP/letters.yaml" --set train.tokens=2G --set train.warmup=0.0001k
expect 2 "$CAB" recipe validate "$TMP/letters.yaml" --set train.tokens=2Gi
says err 'train.tokens: found "2Gi", expected a whole number'

# by name: ./recipes, $CAB_RECIPES, the prefix of the program
expect 0 "$CAB" recipe list -q
[ "$(cat "$TMP/out")" = "$(ls recipes/*.yaml | sed 's/.*\///; s/\.yaml$//')" ] || fail "list: $(cat "$TMP/out")"
expect 0 "$CAB" recipe list
says out 'tales-gpt2            The demo: a GPT-2 of 957 k parameters'
! grep -qF '\n' "$TMP/out" || fail "list: $(cat "$TMP/out")"
says out 'DeiT-Base (86 M parameters) becomes Vim-Tiny (7 M): a'
! grep -q 'The paper has none' "$TMP/out" || fail "list: more than a sentence: $(cat "$TMP/out")"
expect 0 "$CAB" recipe show tales-gpt2
cmp -s "$TMP/out" recipes/tales-gpt2.yaml || fail 'show prints something else'
expect 0 "$CAB" recipe new tales-gpt2
says out '# From the recipe tales-gpt2 of cab'
! grep -q Reproduces "$TMP/out" || fail 'new keeps what the original reproduces'
cp "$TMP/out" "$TMP/mine.yaml"
expect 0 "$CAB" recipe validate "$TMP/mine.yaml" tales-gpt2
says out 'recipes/tales-gpt2.yaml: valid'
mkdir -p "$TMP/there/bin" "$TMP/there/share/cab/recipes" "$TMP/one" "$TMP/two" "$TMP/elsewhere"
cp "$CAB" "$TMP/there/bin/cab"
cp "$TMP/letters.yaml" "$TMP/there/share/cab/recipes/installed.yaml"
cp "$TMP/letters.yaml" "$TMP/two/both.yaml"
cp "$TMP/mine.yaml" "$TMP/one/both.yaml"
cp "$TMP/mine.yaml" "$TMP/two/second.yaml"
(
    cd "$TMP/elsewhere"
    export CAB_RECIPES="$TMP/one:$TMP/two"
    expect 0 "$TMP/there/bin/cab" recipe list -q
    [ "$(tr '\n' ' ' <"$TMP/out")" = 'both second installed ' ] || fail "list elsewhere: $(cat "$TMP/out")"
    expect 0 "$TMP/there/bin/cab" recipe show both
    cmp -s "$TMP/out" "$TMP/mine.yaml" || fail 'the second directory went first'
    expect 3 "$TMP/there/bin/cab" recipe show instaled
    says err 'no file and no recipe "instaled"; did you mean "installed"?'
    expect 3 "$TMP/there/bin/cab" distill qqqqqqqq
    says err 'cab recipe list has those'
)
expect 2 "$CAB" recipe show
says err 'show: name a recipe'
expect 2 "$CAB" recipe new a b
says err 'too many arguments: "b"'

printf 'method: soft\nout: x\nseed: \377\n' >"$TMP/bytes.yaml"
expect 4 "$CAB" recipe validate "$TMP/bytes.yaml"
says err 'bytes.yaml:3: invalid leading UTF-8 octet'
printf -- '---\nseed: 3\n' | cat recipes/tales-gpt2.yaml - >"$TMP/two.yaml"
expect 4 "$CAB" recipe validate "$TMP/two.yaml"
says err 'a second document begins, expected one recipe'
expect 0 "$CAB" recipe validate recipes/tales-gpt2.yaml -s teacher.path=/nowhere
says out 'not here: teacher.path /nowhere'
expect 2 "$CAB" recipe validate recipes/tales-gpt2.yaml -s data.train=,
says err 'data.train[0]: the name is empty'

expect 0 "$CAB" recipe keys -q
[ "$(grep -cx 'train.weight_decay\|seed\|stages\[N\].ce' "$TMP/out")" -eq 3 ] || fail "keys -q: $(cat "$TMP/out")"
expect 0 "$CAB" recipe keys
says out train.weight_decay
expect 0 "$CAB" recipe keys --markdown
sed -n '/^### Top level/,$p' docs/recipes.md >"$TMP/doc"
sed 1d "$TMP/out" | cmp -s - "$TMP/doc" || fail 'docs/recipes.md is out of date: replace its keys by cab recipe keys --markdown'
# the example that the page calls complete is one
sed -n '/^method: cab-best/,/^```/p' docs/recipes.md | sed '/^```/d' >"$TMP/example.yaml"
expect 0 "$CAB" recipe validate "$TMP/example.yaml"
