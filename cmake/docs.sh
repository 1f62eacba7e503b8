#!/bin/sh
# docs.sh CAB DIRECTORY - has the tool write its manual pages (DIRECTORY/man1) and its completions.
set -eu
cab=$1
directory=$2
mkdir -p "$directory/man1"
"$cab" man >"$directory/man1/cab.1"
# The commands are the indented words of the help text's list.
"$cab" --help | sed -n '/^[Cc]ommands/,/^[^ ]*$/s/^  *\([a-z][a-z-]*\)  .*/\1/p' | while read -r command; do
    "$cab" man "$command" >"$directory/man1/cab-$command.1" </dev/null
done
"$cab" completion bash >"$directory/cab.bash"
"$cab" completion zsh >"$directory/_cab"
"$cab" completion fish >"$directory/cab.fish"
