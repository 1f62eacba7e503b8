#!/bin/sh
# lint.sh BUILD - are the sources formatted, and what does clang-tidy say of those in BUILD/compile_commands.json?
# lint.sh --format - formats them in place.
# lint.sh --check - only: are they formatted?
#
# Other versions of clang-format break lines elsewhere: only the one below counts.
set -eu
version=14
sources=$(find src include tests bench examples \( -name '*.c' -o -name '*.h' \) | sort)

formatter=clang-format-$version
command -v "$formatter" >/dev/null 2>&1 || formatter=clang-format
found=$($formatter --version | sed 's/.*version \([0-9]*\).*/\1/')

if [ "${1-}" = --format ]; then
    [ "$found" = "$version" ] || { echo "clang-format $found is here, the sources follow $version" >&2; exit 1; }
    # shellcheck disable=SC2086  # one argument per file
    exec "$formatter" -i $sources
fi

build=${1:?build directory, --format or --check}
failed=0
if [ "$found" = "$version" ]; then
    # shellcheck disable=SC2086
    "$formatter" --dry-run -Werror $sources || failed=1
else
    echo "clang-format $found is here, the sources follow $version: format not checked" >&2
fi

[ "$build" = --check ] && exit $failed

# Files on stdin, two at a time. stderr holds only counts of what was suppressed, and the compiler's own errors, which
# stdout repeats.
tidy() {
    xargs -P "$(nproc)" -n 2 clang-tidy --quiet -p "$build" "$@" 2>/dev/null || failed=1
}

# What is for GPUs is not in this build.
find src -name '*.c' ! -path 'src/ops/cpu/*' ! -path 'src/ops/cuda/*' | sort >"$build/lint-files"
tidy <"$build/lint-files"
# Kernels without the path-sensitive analyser, which spends half the time here on loops over floats.
find src/ops/cpu -name '*.c' | sort >"$build/lint-files"
tidy --checks=-clang-analyzer-* <"$build/lint-files"
exit $failed
