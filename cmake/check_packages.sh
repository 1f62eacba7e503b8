#!/bin/sh
# check_packages.sh DIRECTORY - the newest .deb and tarball there hold the tool, which runs, and no trace of where it was built.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The directory as an absolute path: of a checkout in /src, "../../src/base" is no trace.
pattern="(^|[^[:alnum:]._/-])$(printf '%s/' "$here" | sed 's/[][\\.*^$+?(){}|]/\\&/g')"

check() { # check NAME ROOT
    traces=$(LC_ALL=C grep -rlaE "$pattern" "$2" || true)
    [ -z "$traces" ] || { echo "$1: these files say where they were built:" $traces >&2; exit 1; }
    echo "$1: $(du -h "$1" | cut -f 1), $("$(find "$2" -path '*bin/cab')" version -q), no build paths"
}

deb=$(ls -t "$1"/cab_*.deb | head -n 1)
tarball=$(ls -t "$1"/cab-*.tar.gz | head -n 1)
mkdir "$work/deb" "$work/tarball"
dpkg-deb -x "$deb" "$work/deb"
check "$deb" "$work/deb"
tar -xzf "$tarball" -C "$work/tarball"
check "$tarball" "$work/tarball"
! ldd "$(find "$work/tarball" -path '*bin/cab')" | grep -vE 'linux-vdso|ld-linux|libc\.so|libm\.so|libpthread|libdl|not a dynamic' ||
    { echo "$tarball: its program needs more than the C library" >&2; exit 1; }
