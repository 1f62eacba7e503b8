#!/bin/sh
# run.sh BUILD SECONDS [CORES] - runs every fuzz target of the build directory for that long, CORES at a time, starting
# from tests/fuzz/corpus/<target>/ where there is one. Fails if one of them found something; the input that did it and the log
# stay in BUILD/fuzz/.
set -eu
build=${1:?build directory}
seconds=${2:?seconds per target}
cores=${3:-$(nproc)}
work=$build/fuzz
mkdir -p "$work"

fuzz_one() {
    name=$(basename "$1")
    seeds=tests/fuzz/corpus/$name
    mkdir -p "$work/$name"
    [ -d "$seeds" ] || seeds=
    # 64 KiB of input and 2 GiB of memory: a parser that needs more for so little is a finding.
    if "$1" -max_total_time="$seconds" -max_len=65536 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0 \
        -artifact_prefix="$work/$name-" "$work/$name" $seeds >"$work/$name.log" 2>&1 </dev/null; then
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$work/$name.log")
        echo "$name: nothing found in ${runs:-?} runs, $seconds s"
    else
        echo "$name: FOUND, see $work/$name.log"
        tail -n 40 "$work/$name.log"
        touch "$work/found"
    fi
}

rm -f "$work/found"
set -- "$build"/tests/fuzz/fuzz_*
[ -x "$1" ] || { echo "no fuzz targets in $build" >&2; exit 1; }
running=0
for target; do
    fuzz_one "$target" &
    running=$((running + 1))
    if [ "$running" -ge "$cores" ]; then
        wait
        running=0
    fi
done
wait
[ ! -e "$work/found" ]
