#!/bin/bash
# The lab itself: it returns what the command printed and its exit status, and takes a kernel's
# warning and a command that does not end for failures.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

status=0
output=$(lab -- sh -c 'echo "it'\''s $(uname -s)"; ls -d /dev/vd* 2>/dev/null; exit 7') || status=$?
[ $status = 7 ] || fail "the command's exit status came back as $status"
[ "$output" = "it's Linux" ] || fail "the command's output came back as '$output'"

truncate -s 8M "$work/disk"
printf 'content' | dd of="$work/disk" conv=notrunc status=none
output=$(lab --disk "$work/disk" -- head -c 7 /dev/vda)
[ "$output" = content ] || fail "the disk reads as '$output'"

status=0
lab -- sh -c 'echo c >/proc/sysrq-trigger' 2>"$work/errors" || status=$?
[ $status = 123 ] || fail "a kernel panic gave status $status"
grep -q 'Kernel panic' "$work/errors" || fail "the kernel's messages were not shown"

status=0
lab --timeout 8 -- sleep 1000 2>"$work/errors" || status=$?
[ $status = 124 ] || fail "a command that does not end gave status $status"

# The list of warnings that are harmless: they are passed over, others are not, and no entry goes without a reason.
console='[    0.1] quiet
[    0.2] WARNING: CPU: 0 at somewhere
[    0.3] its trace'
warns() { # STATUS CONSOLE LIST
        local status=0
        printf '%s\n' "$2" >"$work/console"
        printf '%s\n' "$3" >"$work/allow"
        KERNEL_ALLOW=$work/allow "$lab/kernel-warnings" "$work/console" >"$work/warnings" || status=$?
        [ $status = "$1" ] || fail "kernel-warnings gave status $status, not $1, with the list '$3'"
}
warns 1 "$console" ''
[ "$(cat "$work/warnings")" = "$(printf '%s\n' "$console" | tail -2)" ] || fail "the warning was not shown"
warns 0 "$console" '# It is harmless.
WARNING: CPU: [0-9]+ at somewhere'
warns 1 "$console
[    0.4] Oops: 0002" '# It is harmless.
WARNING: CPU: [0-9]+ at somewhere'
warns 2 "$console" 'WARNING: CPU: [0-9]+ at somewhere'
warns 2 "$console" '# Of another one.
elsewhere

WARNING: CPU: [0-9]+ at somewhere'
