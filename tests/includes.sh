#!/bin/sh
# includes.sh - holds the sources to the plan of the house (docs/design.md), from the root of the repository:
#   a folder of src/ includes only itself and the folders before it in the order below,
#   a function, in C++ one of a struct too, has at most 60 lines from brace to brace, a file at most 900.
# Prints each place that does not, and fails if there is one.
set -u
order="base tensor ops nn io data models distill train report cli"

files=$(find src include tests bench examples \( -name '*.c' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' -o -name '*.cpp' \) | sort)
[ -n "$files" ] || { echo "includes.sh: no sources here: run it in the root of the repository" >&2; exit 1; }

# shellcheck disable=SC2086  # one argument per file
awk -v order="$order" '
    BEGIN { n = split(order, room, " "); for (i = 1; i <= n; i++) rank[room[i]] = i }
    function complain(line, text) { printf "%s:%d: %s\n", FILENAME, line, text; bad++ }
    FNR == 1 {
        seen++
        open = 0
        head = ""
        split(FILENAME, part, "/")
        here = part[1] == "src" ? part[2] : ""
        if (here != "" && !(here in rank))
            complain(1, "src/" here "/ is not in the order of tests/includes.sh")
    }
    here != "" && /^[ \t]*#[ \t]*include[ \t]*"/ {
        split($0, quoted, "\"")
        if (split(quoted[2], path, "/") < 2 || !(path[1] in rank))
            complain(FNR, "\"" quoted[2] "\": write the path from src/, as in \"base/error.h\"")
        else if (rank[path[1]] > rank[here])
            complain(FNR, here "/ comes before " path[1] "/ and must not include \"" quoted[2] "\"")
    }
    # A function opens with a brace that stands alone, at the margin or, in a struct or namespace of C++, further in; what opens is a
    # function if its head, the text since the last statement, ends with the parenthesis of its parameters.
    /^ *\{$/ && !open && head ~ /\)( const)?$/ {
        open = FNR
        margin = index($0, "{")
    }
    /^ *\}/ && open && index($0, "}") == margin {
        if (FNR - open + 1 > 60)
            complain(open, "a function of " FNR - open + 1 " lines, at most 60")
        open = 0
    }
    !/^ *(#|\/\*|\*)/ {
        line = $0
        sub(/ *(\/\*.*|\/\/.*)$/, "", line)
        head = line == "" ? head : line
    }
    FNR == 901 { complain(FNR, "a file of more than 900 lines") }
    END { printf "%d files, %d places to mend\n", seen, bad; exit bad > 0 }
' $files
