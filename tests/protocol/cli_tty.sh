#!/bin/bash
# On a terminal: questions before something is destroyed, and a progress bar; without one neither.
set -eu -o pipefail
. "$(dirname "$0")/cli_common.sh"
command -v script >/dev/null || skip "script (bsdutils) is not installed"

# on_tty ANSWER COMMAND...: with a terminal for stdin, stdout and stderr; what it shows is in $out, its status in $got
on_tty() {
    local answer=$1
    shift
    got=0
    out=$(printf '%s\n' "$answer" | timeout -k 5 120 script -qec "$(printf '%q ' "$TARN" "$@")" /dev/null | tr -d '\r') || got=$?
}
asks() { # PATTERN COMMAND...: it asks; a no, and anything that is no yes, changes nothing
    local pattern=$1 answer
    shift
    for answer in n '' maybe; do
        on_tty "$answer" "$@"
        same "$got" 1 "status after '$answer' to '$*'"
        grep -q "$pattern.*\[y/N\]" <<<"$out" || die "'$*' does not ask: $out"
        grep -q '^\(.*\] \)\?tarn: nothing was changed$' <<<"$out" || die "'$*' does not say that nothing was changed: $out"
    done
    on_tty yes "$@"
    same "$got" 0 "status after 'yes' to '$*': $out"
}

ok tarn pool create tank d0 d1 --file-size 128M
head -c 20M /dev/urandom >one.raw
on_tty '' image import one.raw tank/web
same "$got" 0 "$out"
grep -q 'importing \[.*%' <<<"$out" || die "an import shows no bar on a terminal: $out"
tarn image import one.raw tank/two >out 2>err
! grep -q 'importing' out err || die "a bar is shown where there is no terminal: $(cat err)"
for mode in direct served; do
    [ $mode = direct ] || serve_now tank
    on_tty '' image import one.raw tank/verified --verify
    same "$got" 0 "$out"
    grep -q 'importing \[.*verifying \[.*%' <<<"$out" || die "the bar of an import does not say that it verifies ($mode): $out"
    ok tarn volume delete tank/verified --yes
    [ $mode = direct ] || serve_end
done
on_tty '' image convert one.raw two.raw --verify
same "$got" 0 "$out"
grep -q 'converting \[.*verifying \[.*%' <<<"$out" || die "the bar of a conversion does not say that it verifies: $out"
tarn snapshot create tank/web@s tank/two@s >/dev/null

asks "shrink 'tank/web' from 20.0 MiB to 20.0 MiB? The 512 bytes" volume resize tank/web $(((20 << 20) - 512))
asks "shrink 'tank/web' from 20.0 MiB to 10.0 MiB" volume resize tank/web 10M
asks "restore 'tank/web@s' and lose" snapshot restore --discard-current tank/web@s
asks "delete snapshot 'tank/web@s'" snapshot delete tank/web@s
asks "delete volume 'tank/web'" volume delete tank/web
asks "delete volume 'tank/two' and its 1 snapshot?" volume delete --snapshots tank/two
# --yes does not ask, nor does what would be refused
tarn volume create tank/three 1M >/dev/null
on_tty n volume delete --yes tank/three
same "$got" 0 "$out"
on_tty y volume delete tank/nix
same "$got" 1 "$out"
! grep -q 'y/N' <<<"$out" || die "it is asked about a volume that is not there: $out"
on_tty y snapshot delete tank/nix@s
! grep -q 'y/N' <<<"$out" || die "it is asked about a snapshot that is not there: $out"
asks "destroy pool 'tank'" pool destroy tank
echo "tty: passed"
