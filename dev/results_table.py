#!/usr/bin/env python3
"""results_table.py - the runs of results.sh as a Markdown table: mean over seeds (standard deviation of the perplexity).

    python3 dev/results_table.py [DIRECTORY]     default: runs/results
"""
import glob
import json
import os
import statistics
import sys

METHODS = ["vanilla", "soft", "cab-published", "cab", "weight-reuse", "cab-best"]


def load(directory):
    runs = {}
    for path in glob.glob(os.path.join(directory, "*", "*", "result.json")):
        fraction = float(os.path.basename(os.path.dirname(os.path.dirname(path))).split("-")[0])
        method = os.path.basename(os.path.dirname(path))
        runs.setdefault((method, fraction), []).append(json.load(open(path)))
    return runs


def cell(runs):
    if not runs:
        return "-"
    mean = lambda key: statistics.mean(r[key] for r in runs)
    spread = statistics.stdev(r["perplexity"] for r in runs) if len(runs) > 1 else 0
    return f"{mean('perplexity'):.2f} ({spread:.2f}) / {mean('kl'):.3f} / {mean('agreement'):.3f}"


def main():
    runs = load(sys.argv[1] if len(sys.argv) > 1 else "runs/results")
    fractions = sorted({f for _, f in runs})
    print("| method | " + " | ".join(f"{100 * f:g} %" for f in fractions) + " |")
    print("|---" * (len(fractions) + 1) + "|")
    for method in METHODS:
        print(f"| {method} | " + " | ".join(cell(runs.get((method, f), [])) for f in fractions) + " |")
    seeds = {(m, f): len(r) for (m, f), r in runs.items()}
    print(f"\nSeeds per cell: {min(seeds.values())} to {max(seeds.values())}.")


if __name__ == "__main__":
    main()
