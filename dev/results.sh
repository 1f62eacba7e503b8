#!/bin/sh
# results.sh - the runs behind the tables of docs/results.md: every method, three seeds, three shares of the corpus.
#
#   sh dev/results.sh [DIRECTORY] [FRACTIONS] [SEEDS]     default: runs/results "0.05 0.2 1" "1 2 3"
#
# Finished runs are kept, so that it can be stopped and started again. Then: python3 dev/results_table.py DIRECTORY
set -eu
cd "$(dirname -- "$0")/.."
out=${1:-runs/results}
cab=${CAB:-build/release/cab}
for fraction in ${2:-0.05 0.2 1}; do
    for seed in ${3:-1 2 3}; do
        "$cab" distill recipes/tales-gpt2.yaml --methods vanilla,soft,cab-published,cab,weight-reuse,cab-best \
            --fraction "$fraction" --seed "$seed" --out "$out/$fraction-$seed" --resume --quiet
    done
done
