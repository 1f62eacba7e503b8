# common.sh - for tests of the tool: $CAB runs it, $TMP is an empty directory, check fails with the words it is given.
set -eu
CAB=${CAB:?CAB names the tool}
TMP=$(mktemp -d)
trap 'rm -rf "$TMP"' EXIT

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# expect CODE COMMAND... - runs it; stdout and stderr are left in $TMP/out and $TMP/err.
expect() {
    wanted=$1
    shift
    got=0
    "$@" >"$TMP/out" 2>"$TMP/err" </dev/null || got=$?
    [ "$got" -eq "$wanted" ] || fail "$*: exit code $got, expected $wanted: $(cat "$TMP/err")"
}

# says FILE TEXT - the file (out or err) holds the text, literally.
says() {
    grep -qF -- "$2" "$TMP/$1" || fail "$1 does not say \"$2\": $(cat "$TMP/$1")"
}

# on_terminal COMMAND - runs the words of a shell with a terminal as stdout; what it shows is left in $TMP/out. false: there is no
# script(1) of util-linux here.
on_terminal() {
    script --version 2>/dev/null | grep -q util-linux || return 1
    script -qec "$1" /dev/null >"$TMP/out" 2>/dev/null </dev/null || fail "$1: $(cat "$TMP/out")"
}

silent() {
    [ ! -s "$TMP/$1" ] || fail "$1 is not empty: $(cat "$TMP/$1")"
}
