#!/bin/bash
# Help, wrong usage, and what is not built yet.
set -eu
. "$(dirname "$0")/cli_common.sh"

ok tarn --version
grep -Eq '^tarn [0-9]+\.[0-9]+' <<<"$out" || die "no version: $out"
ok tarn --help
for word in 'pool create' 'volume list' 'snapshot restore' 'image import' serve; do
    grep -q "$word" <<<"$out" || die "--help lacks '$word'"
done
for noun in pool volume snapshot image vm; do
    ok tarn $noun --help
    for verb in $(sed -n "s/^  $noun \([a-z]*\) .*/\1/p" <<<"$out"); do
        ok tarn $noun "$verb" --help
        grep -q "^Usage: tarn $noun $verb" <<<"$out" || die "$noun $verb --help lacks the usage"
    done
done
ok tarn serve --help
grep -q "^Usage: tarn serve" <<<"$out" || die "serve --help lacks the usage"

fails 2 . tarn
fails 2 "no such command" tarn frobnicate
fails 2 . tarn pool
fails 2 "no such command" tarn pool frobnicate
fails 2 "more arguments" tarn pool create
fails 2 "more arguments" tarn volume create tank/x
fails 2 "too many" tarn volume create tank/x 1M 2M
fails 2 "no option '--frob'" tarn pool status --frob
fails 2 "needs a value" tarn pool create tank d0 --file-size
fails 2 . tarn serve

for words in 'pool remove tank d0' 'pool replace tank a b' 'pool grow tank a' 'pool scrub tank'; do
    # shellcheck disable=SC2086
    fails 1 "not built yet" tarn $words
done
fails 1 "not built yet" tarn pool create tank d0 --file-size 64M --layout mirror
fails 1 "no layout" tarn pool create tank d0 --file-size 64M --layout circle
[ ! -e d0 ] || die "a refused create has left a file"

# what a terminal would obey, or is no text, is shown escaped, in one line
fails 1 'UTF-8.*' tarn volume create $'tank/a\xffb' 1M
grep -qF "'tank/a\\xffb' is not UTF-8 text" err || die "no text: $(cat err)"
fails 1 "not UTF-8" tarn volume set tank/web $'iops=\xff'
mkdir $'f\xff' && ln -s $'f\xff' folder && head -c 1M /dev/zero >folder/x.raw
fails 1 "UTF-8 text, which a pool cannot remember" tarn volume create tank/b --base folder/x.raw --format raw
fails 1 "not UTF-8" tarn image export tank/web $'o\xff'
fails 1 "not UTF-8" tarn image import $'n\xff' tank/web
fails 1 "not UTF-8" tarn image info $'n\xff'
fails 1 "not UTF-8" tarn image convert $'n\xfc' n.raw
fails 1 "not UTF-8" tarn pool create tank d0 --file-size $'\xff'
fails 2 'no such command' tarn $'po\e[1m\nol'
grep -qF "'po\\x1b[1m\\x0aol'" err || die "a terminal would obey: $(cat err)"
echo "usage: passed"
