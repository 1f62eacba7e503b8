#!/bin/sh
# install.sh BUILD - installs the build into an empty prefix, then uses it as a stranger would: examples/embed.c is built
# against the installed library once by pkg-config and once by CMake's find_package, and distils, saves and generates.
set -eu
build=$(cd "$1" && pwd)
work=$build/install-test
prefix=$work/prefix
rm -rf "$work"
mkdir -p "$work/embed"

cmake --install "$build" --prefix "$prefix" >"$work/install.log"
for file in bin/cab include/cab.h share/man/man1/cab.1 share/man/man1/cab-distill.1 \
    share/bash-completion/completions/cab share/zsh/site-functions/_cab share/fish/vendor_completions.d/cab.fish; do
    [ -s "$prefix/$file" ] || { echo "install.sh: $file was not installed" >&2; exit 1; }
done
"$prefix/bin/cab" version >/dev/null

PKG_CONFIG_PATH=$(dirname "$(find "$prefix" -name cab.pc)")
export PKG_CONFIG_PATH
# shellcheck disable=SC2046  # the flags are words
cc -std=c17 -Wall -Wextra -Werror examples/embed.c $(pkg-config --cflags --libs cab) -o "$work/by-pkg-config"

cat >"$work/embed/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.25)
project(embed LANGUAGES C)
find_package(cab 0.1 REQUIRED)
add_executable(embed "$PWD/examples/embed.c")
target_link_libraries(embed PRIVATE cab::cab)
END
cmake -S "$work/embed" -B "$work/by-cmake" -DCMAKE_PREFIX_PATH="$prefix" >"$work/cmake.log"
cmake --build "$work/by-cmake" >>"$work/cmake.log"

"$work/by-pkg-config" "$work/run" 4096 2>"$work/run.log"
[ -s "$work/run/saved/model.safetensors" ] || { echo "install.sh: embed saved no model" >&2; exit 1; }
"$prefix/bin/cab" generate "$work/run/saved" --prompt "Once" --max-tokens 5
[ -x "$work/by-cmake/embed" ]
