# test_help.sh - help, manual pages, completion; mistakes in commands and options.
. tests/cli/common.sh

commands='distill eval generate classify subset inspect compare report bench recipe version help'

expect 2 "$CAB"
says err 'Usage: cab COMMAND'
silent out
for words in --help -h help; do
    expect 0 "$CAB" $words
    silent err
    for command in $commands; do
        says out "  $command "
    done
done

[ "$(awk 'length > 80' "$TMP/out" | wc -l)" -eq 0 ] || fail "cab help has lines of more than 80 columns: $(cat "$TMP/out")"
# a narrow terminal
for words in help 'help distill' 'recipe list'; do
    if on_terminal "stty cols 40; '$CAB' $words"; then
        [ "$(sed '/^Examples:/,$d; /Usage:/d; /recipes\//d' "$TMP/out" | tr -d '\r' | awk 'length > 40' | wc -l)" -eq 0 ] ||
            fail "cab $words on 40 columns: $(cat "$TMP/out")"
    fi
done
for command in $commands; do
    expect 0 "$CAB" "$command" --help
    says out "Usage: cab $command "
    says out 'Options:'
    says out 'Examples:'
    silent err
    [ "$(awk 'length > 100' "$TMP/out" | wc -l)" -eq 0 ] || fail "$command --help has lines of more than 100 columns"
    cp "$TMP/out" "$TMP/long"
    expect 0 "$CAB" help "$command"
    cmp -s "$TMP/out" "$TMP/long" || fail "cab help $command differs from cab $command --help"
    expect 0 "$CAB" man "$command"
    says out '.SH SYNOPSIS'
    says out '.SH EXIT STATUS'
    # the manual has every option of the help text
    cp "$TMP/out" "$TMP/page"
    sed -n 's/^ \{2,6\}\(-., \)\{0,1\}--\([a-z-]*\).*/\2/p' "$TMP/long" | while read -r flag; do
        roff=$(printf '%s' "--$flag" | sed 's/-/\\-/g')
        grep -qF -- "$roff" "$TMP/page" || fail "the manual of $command lacks --$flag"
    done
    if command -v groff >/dev/null; then
        groff -man -ww -z "$TMP/page" 2>"$TMP/err" || fail "groff refuses the manual of $command"
        silent err
    fi
done

# the manual keeps quotes, where the text is a macro's argument and where it is not
expect 0 "$CAB" man generate
says out '\-\-prompt \(dqOnce upon a time\(dq'
says out '\-\-stop \(aqThe end\(aq'
if command -v groff >/dev/null; then
    groff -man -Tutf8 -P-cbou "$TMP/out" >"$TMP/rendered"
    grep -qF -- '--prompt "Once upon a time"' "$TMP/rendered" || fail "quotes are lost: $(grep -F -- --prompt "$TMP/rendered")"
    grep -qF -- "--stop 'The end'" "$TMP/rendered" || fail 'single quotes become other characters'
fi
expect 0 "$CAB" man
says out 'cab\-distill'

for shell in bash zsh fish; do
    expect 0 "$CAB" completion $shell
    says out overwrite
    says out weight_decay
    says out 'recipe list -q'
    if command -v $shell >/dev/null; then
        cp "$TMP/out" "$TMP/script"
        $shell -n "$TMP/script" || fail "$shell refuses its completion"
    fi
done
if command -v bash >/dev/null; then
    "$CAB" completion bash >"$TMP/complete.bash"
    answer=$(bash -c '. "$1"; COMP_WORDS=(cab distill --method ve); COMP_CWORD=3; COMP_WORDS[3]=van; _cab; echo "${COMPREPLY[*]}"' - "$TMP/complete.bash")
    [ "$answer" = vanilla ] || fail "bash completes --method van to \"$answer\""
    answer=$(bash -c '. "$1"; COMP_WORDS=(cab dist); COMP_CWORD=1; _cab; echo "${COMPREPLY[*]}"' - "$TMP/complete.bash")
    [ "$answer" = distill ] || fail "bash completes dist to \"$answer\""
    answer=$(bash -c '. "$1"; COMP_WORDS=(cab eval --per-d); COMP_CWORD=2; _cab; echo "${COMPREPLY[*]}"' - "$TMP/complete.bash")
    [ "$answer" = --per-document ] || fail "bash completes --per-d to \"$answer\""
    # words as bash cuts them, the last is completed; what they become, then a bar
    cp "$CAB" "$TMP/cab"
    while IFS='|' read -r words wanted; do
        answer=$(bash -c 'compopt() { :; }; . "$1"; COMP_WORDS=($2); [ "${2% }" = "$2" ] || COMP_WORDS+=(""); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
            _cab; echo "${COMPREPLY[*]}"' - "$TMP/complete.bash" "$words")
        [ "$answer" = "$wanted" ] || fail "bash completes \"$words\" to \"$answer\", expected \"$wanted\""
    done <<END
cab distill --set train.weight_d|train.weight_decay=
cab distill -s student.arch|student.architecture=
cab distill --set student.architecture = v|vim
cab distill --set init.fold = |true false
cab distill --set init.fold =|true false
cab distill --set stages[1].al|stages[1].align= stages[1].align_end=
cab distill --methods van|vanilla
cab distill --methods = vanilla,so|vanilla,soft
cab distill --methods vanilla,cab-b|vanilla,cab-best
cab distill --device c|cpu cuda
cab generate --precision = b|bf16
$TMP/cab distill tales-g|tales-gpt2
$TMP/cab recipe show phi-|phi-1.5
cab generate examples/tal|examples/tales
END
fi
expect 2 "$CAB" completion tcsh
says err 'expected bash, zsh or fish'

expect 2 "$CAB" distil
says err 'cab: no command "distil"; did you mean "distill"?'
expect 2 "$CAB" qqqqqqqqq
says err 'no command "qqqqqqqqq"; cab --help lists them'
expect 2 "$CAB" "$(printf 'x\033[31m')"
says err 'no command "x\x1b[31m"'
expect 2 "$CAB" distill --metod soft
says err 'cab distill: unknown option --metod; did you mean --method?'
expect 2 "$CAB" generate model --max_tokens 3
says err 'unknown option --max_tokens; did you mean --max-tokens?'
expect 2 "$CAB" eval model -x
says err 'unknown option -x; cab eval --help lists them'
expect 2 "$CAB" generate
says err 'an argument is missing; expected: cab generate [OPTION]... MODEL'
expect 2 "$CAB" inspect a b
says err 'too many arguments: "b"; expected: cab inspect [OPTION]... MODEL'
expect 2 "$CAB" generate model --max-tokens
says err '--max-tokens=N: the value is missing'
expect 2 "$CAB" generate model --max-tokens=many
says err '--max-tokens: found "many", expected a whole number, 1 or more'
expect 2 "$CAB" generate model --precision=fp8
says err 'did you mean "fp32"?'
expect 2 "$CAB" inspect model --json=yes
says err '--json takes no value'
expect 2 "$CAB" distill --method sofd
says err 'did you mean "soft"?'
expect 3 "$CAB" inspect -tj -- --nowhere
says err -- --nowhere

expect 0 "$CAB" version
says out 'cab 0.'
expect 0 "$CAB" version -q
cp "$TMP/out" "$TMP/version"
expect 0 "$CAB" --version
says out "cab $(cat "$TMP/version")"
if [ -w /dev/full ]; then
    code=0
    "$CAB" --help >/dev/full 2>"$TMP/err" || code=$?
    [ "$code" -eq 3 ] || fail "a full disk gives exit code $code"
    says err 'stdout: cannot be written'
fi
