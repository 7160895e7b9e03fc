#!/usr/bin/env bash
# Runs the `console` blocks of the tutorials and compares what they print with what the pages say.
#
#   docs/tutorials/check.sh                 all tutorials
#   docs/tutorials/check.sh first-hour-node one of them
#
# In a block `$ ` begins a command and `> ` continues it; the lines below are expected, in this order, other lines may
# stand between; `…` stands for any text. A command may fail only where the page prints its exit status. Each page runs in
# one shell, with a state directory of its own; what it starts is stopped at the end. Bounded: 10 minutes for each page.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD

# Says the first of 20 consecutive free ports; the pages say 18080, which another mesh on this machine may have.
free_ports() {
    local base port
    for base in 18080 28080 38080 48080; do
        for port in $(seq "$base" $((base + 19))); do
            if (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then continue 2; fi
        done
        echo "$base"
        return
    done
    echo "no 20 free ports near 18080" >&2
    return 1
}

# One command: run it in this shell, hold its output against the expected lines.
step() {
    local command=$1 page=$2 status=0 text at=1 expected line count
    shift 2
    echo "  \$ ${command%%$'\n'*}"
    set +e
    eval "$command" >"$scratch/output" 2>&1
    status=$?
    set -e
    if [ "$status" -ne 0 ]; then
        echo "$page: exit status $status from: $command" >&2
        cat "$scratch/output" >&2
        return 1
    fi
    mapfile -t text < <(tr -d "\r" <"$scratch/output")
    count=${#text[@]}
    at=0
    for expected in "$@"; do
        while :; do
            if [ "$at" -ge "$count" ]; then
                echo "$page: no line like: $expected" >&2
                echo "in the output of: $command" >&2
                cat "$scratch/output" >&2
                return 1
            fi
            line=${text[at]}
            at=$((at + 1))
            if matches "$line" "$expected"; then break; fi
        done
    done
}

# Whether a line is as expected: every part between two `…` stands in it, in this order.
matches() {
    local pattern="" rest=$2
    while [[ $rest == *…* ]]; do
        pattern+="$(printf '%q' "${rest%%…*}")*"
        rest=${rest#*…}
    done
    pattern+="$(printf '%q' "$rest")"
    # `printf %q` writes nothing as ''.
    pattern=${pattern//\'\'/}
    # shellcheck disable=SC2053 # the right side is a pattern
    eval "[[ \$1 == $pattern ]]"
}

run_page() {
    local page=$1 inside=0 command="" expected=() line
    echo "== $page"
    while IFS= read -r line || [ -n "$line" ]; do
        if [ "$inside" = 0 ]; then
            if [ "$line" = '```console' ]; then inside=1; fi
            continue
        fi
        case "$line" in
            '$ '* | '```')
                if [ -n "$command" ]; then step "$command" "$page" "${expected[@]}"; fi
                command="" expected=()
                if [ "$line" = '```' ]; then inside=0; else command=${line#'$ '}; fi
                ;;
            '> '*) command+=$'\n'${line#'> '} ;;
            *) expected+=("$line") ;;
        esac
    done < <(sed "s/^\\\$ rajut up/& --first-port $first/; s/127\\.0\\.0\\.1:180\\([89][0-9]\\)/127.0.0.1:$((first / 100))\\1/g" "$page")
}

if [ "${1-}" != --bounded ]; then
    pages=("$@")
    if [ "${#pages[@]}" = 0 ]; then pages=(first-hour-operator first-hour-node); fi
    for page in "${pages[@]}"; do
        timeout --kill-after=30 600 bash "$0" --bounded "docs/tutorials/$page.md"
    done
    echo "tutorials: ${#pages[@]} of ${#pages[@]} as written"
    exit
fi

scratch=$(mktemp -d)
export RAJUT_STATE_DIR="$scratch/state"
stop() {
    status=$?
    cd "$root"
    target/release/rajut down >/dev/null 2>&1 || true
    rm -rf "$scratch" /tmp/rajut-half.yaml /tmp/rajut-wrong.yaml
    exit "$status"
}
trap stop EXIT
trap 'exit 1' INT TERM
first=$(free_ports)
run_page "$2"
