#!/bin/bash
# A guest that does to the machine what no driver does (tests/vmm/hostile_guest.c): the VMM serves it to its power-off, or
# ends it with a sentence, and its own memory does not grow. Here where there is a /dev/kvm, else in the lab's machine.
#
# HOSTILE_ACTS, HOSTILE_SEEDS: how much of it.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

cat >"$work/hostile" <<'EOS'
#!/bin/sh
# usage: hostile VMM GUEST ACTS SEEDS
log=$(mktemp) vmm_log=$(mktemp)
fail() {
        echo "hostile: '$words': $1"
        tail -c 2000 "$log" "$vmm_log"
        exit 1
}
# The VMM's own memory, not the guest's, is looked at while it runs; one that has ended has none.
most=0
run() { # SECONDS WORDS
        words=$2
        "$vmm" --once --memory 64 --kernel "$guest" --cmdline "$2" </dev/null >"$log" 2>"$vmm_log" &
        left=$(($1 * 5))
        while sleep 0.2 && now=$(sed -n 's/^RssAnon:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$!/status" 2>/dev/null) && [ -n "$now" ]; do
                [ "$now" -le $most ] || most=$now
                left=$((left - 1))
                [ $left -gt 0 ] || kill $!
        done
        status=0
        wait $! || status=$?
        [ $left -gt 0 ] || status=late
        grep -a -q -e 'ERROR: ' -e 'runtime error' -e 'ssertion' "$vmm_log" && fail 'the VMM made a mistake'
        grep -a -q '^hostile: begins' "$log" || fail 'the guest did not begin'
}
vmm=$1 guest=$2 acts=$3
for seed in ports $4; do
        run 300 "$([ $seed = ports ] || echo seed=)$seed acts=$acts"
        # What this guest does is the same each time, and what the processor does not let it do it says. Where it is reset
        # without a word, the emulator has failed it (README.md): what is the VMM's doing shows again.
        if ! grep -a -q -e '^hostile: done' -e '^hostile: exception' "$log" && [ "$status" = 3 ]; then
                echo "hostile: '$words': reset without a word; once more"
                run 300 "$words"
        fi
        grep -a -q '^hostile: done' "$log" || fail "the guest did not come to its end, status $status"
        [ $status = 0 ] || fail "the guest switched itself off, and the VMM ended with status $status"
done
# Whatever becomes of the guest: powered off, reset, failed, or stopped for good; but never of the VMM.
for seed in $4; do
        run 20 "wild seed=$seed acts=$acts"
        case $status in
        0 | 3 | late) ;;
        1) grep -a -q '^vmm_run: ' "$vmm_log" || fail 'the VMM ended without a word' ;;
        *) fail "the VMM ended with status $status" ;;
        esac
        echo "hostile: '$words': status $status"
done
echo "hostile: the VMM's own memory: at most $most KiB"
[ "$most" -lt "${HOSTILE_KIB:-16384}" ] || fail 'that is too much'
EOS
chmod +x "$work/hostile"
acts=${HOSTILE_ACTS-400} seeds=${HOSTILE_SEEDS-1 2 3 4}
if [ "$("$lab/../../scripts/accelerator")" = kvm ]; then
        "$work/hostile" "$VMM_RUN" "$HOSTILE_GUEST" "$acts" "$seeds" || fail 'the machine did not bear it'
        exit
fi
lab --kvm --program "$VMM_RUN" --file "$HOSTILE_GUEST=lab/hostile_guest" --file "$work/hostile=lab/bin/hostile" --timeout 700 \
        -- hostile "$(basename "$VMM_RUN")" /lab/hostile_guest "$acts" "$seeds" || fail 'the machine did not bear it'
