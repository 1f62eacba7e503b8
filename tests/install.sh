#!/bin/sh
# install.sh BUILD - installs the build into an empty prefix, then uses it as a stranger would: examples/embed.c is built
# against the installed libraries, shared by pkg-config, static and shared by CMake's find_package, and distils, saves and
# generates. Then it is moved, used again, and uninstalled to the last file.
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
libraries=$(dirname "$(find "$prefix" -name libcab.so)")
LD_LIBRARY_PATH=$libraries ldd "$work/by-pkg-config" | grep -q 'libcab\.so\.0' ||
    { echo "install.sh: pkg-config did not choose the shared library" >&2; exit 1; }
# What cab.h does not declare is nobody's to call.
nm -D --defined-only "$libraries/libcab.so" | sed 's/.* //' | grep '^[a-z]' | sort >"$work/exported"
while read -r name; do
    grep -q "\b$name(" include/cab.h || { echo "install.sh: libcab.so exports $name, which cab.h does not declare" >&2; exit 1; }
done <"$work/exported"
case $(pkg-config --static --libs cab) in
*-lcab*-ljson-c*) ;;
*) echo "install.sh: cab.pc does not say what libcab.a needs" >&2; exit 1 ;;
esac
grep -qx cab_distill "$work/exported" || { echo "install.sh: libcab.so does not export cab_distill" >&2; exit 1; }

cat >"$work/embed/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.25)
project(embed LANGUAGES C)
find_package(cab 0.1 REQUIRED)
add_executable(embed "$PWD/examples/embed.c")
target_link_libraries(embed PRIVATE cab::cab)
add_executable(embed_shared "$PWD/examples/embed.c")
target_link_libraries(embed_shared PRIVATE cab::shared)
END
cmake -S "$work/embed" -B "$work/by-cmake" -DCMAKE_PREFIX_PATH="$prefix" >"$work/cmake.log"
cmake --build "$work/by-cmake" >>"$work/cmake.log"

LD_LIBRARY_PATH=$libraries "$work/by-pkg-config" "$work/run" 4096 2>"$work/run.log"
[ -s "$work/run/saved/model.safetensors" ] || { echo "install.sh: embed saved no model" >&2; exit 1; }
"$prefix/bin/cab" generate "$work/run/saved" --prompt "Once" --max-tokens 5
[ -x "$work/by-cmake/embed" ] && [ -x "$work/by-cmake/embed_shared" ]

# cab.pc and the CMake package say where they lie, not where they were first put.
mv "$prefix" "$work/moved"
case $(PKG_CONFIG_PATH=$(dirname "$(find "$work/moved" -name cab.pc)") pkg-config --cflags cab) in
*moved*) ;;
*) echo "install.sh: cab.pc does not move" >&2; exit 1 ;;
esac
mv "$work/moved" "$prefix"

mkdir -p "$prefix/share/man/man1"
echo "of another program" >"$prefix/share/man/man1/other.1"
cmake -D PREFIX="$prefix" -P cmake/uninstall.cmake >"$work/uninstall.log"
left=$(find "$prefix" -type f -o -type l -o -name cab)
[ "$left" = "$prefix/share/man/man1/other.1" ] || { echo "install.sh: after uninstall there is still: $left" >&2; exit 1; }
! cmake -D PREFIX="$prefix" -P cmake/uninstall.cmake 2>"$work/uninstall.log" ||
    { echo "install.sh: what is not there was uninstalled" >&2; exit 1; }
