#!/bin/bash
# The manual pages say what the help texts say: each command that is built has its section and its line in the
# synopsis, with the same arguments and options, and no page names an option that does not exist. The formatters that
# are here find nothing to complain about.
set -eu
pages=$(cd "$(dirname "$0")/../../docs/man" && pwd)
. "$(dirname "$0")/../protocol/cli_common.sh"

options() {
    grep -oE -- '--[a-z][a-z-]*' | sort -u || true
}

# Without marks, and without examples, in which programs of others have options too.
plain() { # PAGE
    awk '/^```/ { example = !example; next } !example' "$1" | sed 's/\\\([*_\\]\)/\1/g; s/[*_]//g'
}

# The synopsis, one command a line.
synopsis() { # PAGE
    plain "$1" | awk '/^# / { here = /^# SYNOPSIS/; next }
        here && NF { more = !sub(/\+\+$/, ""); printf "%s%s", $0, more ? " " : "\n" } END { print "" }' |
        sed 's/ *$//'
}

section() { # PAGE HEADING
    plain "$1" | awk -v heading="$2" '/^##? / { here = ($0 == heading); next } here'
}

same_options() { # WHAT THE-PAGE'S THE-HELP'S
    local here
    here=$(diff <(printf '%s\n' "$2") <(printf '%s\n' "$3")) || die "$1: < the page's options, > the help's: $here"
}

# A page's section on a command, or the options of a command without a noun.
check_command() { # PAGE TEXT WORD...
    local page=$1 text=$2 usage
    shift 2
    ok tarn "$@" --help
    [ -n "$text" ] || die "${page##*/} lacks '$*'"
    usage=$(sed -n '1s/^Usage: //p' <<<"$out")
    usages+=("$usage")
    synopsis "$page" | grep -qxF -- "$usage" || die "the synopsis of ${page##*/} lacks '$usage'"
    same_options "$*" "$(options <<<"$text")" "$(sed 1d <<<"$out" | options)"
    all_options+=$'\n'$(options <<<"$out")
}

all_options=$'--help\n--version' usages=()
ok tarn --help
commands=$(sed -n '/not built yet/d; s/^  \([a-z]\+\( [a-z]\+\)\?\)  .*/\1/p' <<<"$out" | grep -v '^tarn')
[ "$(wc -l <<<"$commands")" -ge 25 ] || die "tarn --help lists too little: $commands"
while read -r noun verb; do
    page=$pages/tarn-$noun.1.scd
    [ -e "$page" ] || die "there is no page for '$noun'"
    if [ -n "$verb" ]; then
        check_command "$page" "$(section "$page" "## $verb")" "$noun" "$verb"
    else
        check_command "$page" "$(section "$page" "# OPTIONS")" "$noun"
    fi
done <<<"$commands"

# What is described is there: a section for a verb that is not built, an option that does not exist.
for page in "$pages"/*.1.scd; do
    name=${page##*/}
    noun=${name#tarn-}
    noun=${noun%.1.scd}
    while read -r verb; do
        grep -qx "$noun $verb" <<<"$commands" || die "$name describes '$noun $verb', which is not built"
    done < <(sed -n 's/^## //p' "$page")
    [ "$noun" = tarn ] || while read -r usage; do
        printf '%s\n' "${usages[@]}" | grep -qxF -- "$usage" || die "the synopsis of $name has '$usage'"
    done < <(synopsis "$page" | grep .)
    for option in $(plain "$page" | awk '/^# / { here = !/^# SYNOPSIS/ } here' | options); do
        grep -qxF -- "$option" <<<"$all_options" || die "$name names an option that is not there: $option"
    done
done

# A page on a file has all its keys, and no others. In the schema they stand behind what kind they are.
page=$pages/tarn-vm-file.5.scd schema=$pages/../../vm/file_schema.c
keys=$(sed -nE 's/^ +[A-Z_]+\("([a-z-]+)",.*/\1/p' "$schema" | sort -u)
[ "$(wc -l <<<"$keys")" -ge 30 ] || die "$schema has too few keys: $keys"
described=$(awk '/^```/ { example = !example } !example' "$page" | grep -E '^\*[a-z-]+\*(:| is a list| gives)' |
    grep -oE '\*[a-z-]+\*(:| is a list| gives)' | sed 's/^\*//; s/\*.*//' | sort -u)
[ "$described" = "$keys" ] ||
    die "keys: < the page's, > the schema's: $(diff <(echo "$described") <(echo "$keys"))"

for page in "$pages"/*.scd; do
    for other in $(grep -oE '\*tarn-[a-z-]+\*\([1-8]\)' "$page" | sed 's/[*]//g; s/(\(.\))/.\1/'); do
        [ -e "$pages/$other.scd" ] || die "${page##*/} refers to $other, which is not there"
    done
done

command -v scdoc >/dev/null || skip "no scdoc here: the pages were compared, and not built"
for page in "$pages"/*.scd; do
    built=$(basename "$page" .scd)
    scdoc <"$page" >"$built" || die "scdoc refuses $page"
    if command -v mandoc >/dev/null; then
        # Of empty paragraphs scdoc makes many.
        found=$(mandoc -T lint -W warning "$built" | grep -v 'skipping paragraph macro' || true)
        [ -z "$found" ] || die "mandoc: $found"
    fi
    if command -v groff >/dev/null; then
        found=$(groff -ww -K utf8 -T utf8 -t -mandoc "$built" 2>&1 >/dev/null)
        [ -z "$found" ] || die "groff: $found"
    fi
done
echo "manual pages: passed"
