#!/bin/sh
# packages.sh GROUP... - sees to it that the packages of these groups (cmake/packages.txt) are installed.
#
# Silent when they are. Otherwise lists what is missing and installs it as root or through sudo; where neither is
# possible, prints the one line to run and fails. On a system without dpkg it only says what is needed.
# packages.sh --list GROUP... prints the names and does nothing.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)

entries() { # one line of alternative names per needed package
    for group; do
        sed -n "s/^$group  *//p" "$here/packages.txt"
    done
}

installed() {
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

known() {
    [ -n "$(apt-cache --quiet=2 --names-only search "^$1\$" 2>/dev/null)" ]
}

# Those of the given groups that are not installed, by the name this distribution has for them.
missing() {
    entries "$@" | while read -r names; do
        chosen=
        for name in $names; do
            if installed "$name"; then
                continue 2
            fi
            if [ -z "$chosen" ] && known "$name"; then
                chosen=$name
            fi
        done
        echo "${chosen:-${names%% *}}"
    done
}

if [ "${1-}" = --list ]; then
    shift
    entries "$@" | sed 's/ .*//'
    exit 0
fi
if ! command -v dpkg-query >/dev/null 2>&1; then
    echo "not a Debian system: the build needs the equivalents of" $(entries "$@" | sed 's/ .*//') >&2
    exit 0
fi

wanted=$(missing "$@")
[ -n "$wanted" ] || exit 0
if [ "$(id -u)" = 0 ]; then
    as_root=
elif command -v sudo >/dev/null 2>&1 && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
    as_root=sudo
else
    echo "These packages are missing. As root, run" >&2
    echo "    apt-get update && apt-get install -y --no-install-recommends" $wanted >&2
    exit 1
fi
echo "Installing" $wanted
# A new machine has no package lists, and the name of a package can only be looked up in them.
$as_root apt-get -q update >/dev/null
wanted=$(missing "$@")
$as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends -o Dpkg::Use-Pty=0 $wanted \
    </dev/null >/dev/null
