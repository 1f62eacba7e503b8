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
printf 'train:\n  lr: quick\n' >"$TMP/value.yaml"
expect 4 "$CAB" recipe validate "$TMP/value.yaml"
says err "value.yaml:2: train.lr: found \"quick\", expected a number from 0 to 10"
expect 3 "$CAB" recipe validate "$TMP/absent.yaml"
says err absent.yaml
expect 2 "$CAB" recipe validate recipes/tales-gpt2.yaml --set train.tokens=0
says err 'recipes/tales-gpt2.yaml: stages[0] "distil" has no length'
expect 2 "$CAB" recipe validate recipes/tales-gpt2.yaml --set train.tokens
says err '--set: found "train.tokens", expected KEY=VALUE'
expect 2 "$CAB" recipe check recipes/tales-gpt2.yaml
says err 'no action "check"; expected validate or keys'

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

expect 0 "$CAB" recipe keys
says out train.weight_decay
expect 0 "$CAB" recipe keys --markdown
sed -n '/^### Top level/,$p' docs/recipes.md >"$TMP/doc"
sed 1d "$TMP/out" | cmp -s - "$TMP/doc" || fail 'docs/recipes.md is out of date: replace its keys by cab recipe keys --markdown'
# the example that the page calls complete is one
sed -n '/^method: cab-best/,/^```/p' docs/recipes.md | sed '/^```/d' >"$TMP/example.yaml"
expect 0 "$CAB" recipe validate "$TMP/example.yaml"
