# Sourced by the lab's tests: a folder to work in, a pool's server, and guests.
# TARN names the binary. What a test starts, it ends by pid.
set -eu
lab=$(dirname "$(readlink -f "$0")")
tarn=${TARN:?names the tarn binary}
work=$(mktemp -d "${TMPDIR:-/var/tmp}/tarn-lab-test.XXXXXX")
export TARN_STATE_DIR=$work/state TARN_RUNTIME_DIR=$work
server='' guest='' other='' rested=()

# shellcheck disable=SC2317  # called by the traps
clean_up() {
        for process in $guest $other $server; do
                kill "$process" 2>/dev/null || true
        done
        wait
        rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 143' TERM INT HUP

fail() {
        printf 'FAIL: %s\n' "$1" >&2
        [ ! -e "$work/server-log" ] || tail -5 "$work/server-log" >&2
        exit 1
}

# Waits up to SECONDS until COMMAND succeeds.
wait_until() { # SECONDS COMMAND...
        local end=$((SECONDS + $1))
        shift
        while ! "$@"; do
                [ $SECONDS -lt $end ] || return 1
                sleep 0.05
        done
}

# Serves POOL at $work/nbd.
start_server() { # POOL
        rm -f "$work/nbd"
        "$tarn" serve "$1" --nbd "unix:$work/nbd" &
        server=$!
        wait_until 60 server_is_up || fail "the server does not serve"
}

# Serves POOL's volumes at $work/vhost/VOLUME.sock.
start_vhost_server() { # POOL
        mkdir -p "$work/vhost"
        rm -f "$work/nbd" "$work"/vhost/*.sock
        "$tarn" serve "$1" --nbd "unix:$work/nbd" --vhost-user "$work/vhost" >>"$work/server-log" 2>&1 &
        server=$!
        wait_until 60 server_is_up || fail "the server does not serve"
}

server_is_up() {
        kill -0 "$server" 2>/dev/null || fail "the server ended at its start"
        [ -S "$work/nbd" ]
}

# Another server in the place of the one that serves POOL; what its front ends had to wait goes into $rested.
take_over() { # POOL
        local old=$server log=$work/taken-log status=0
        : >"$log" # what the last one said is not to be taken for this one's word
        "$tarn" serve "$1" --takeover >>"$log" 2>&1 &
        server=$! other=$old
        wait_until 60 has_taken_over "$log" || fail "the new server does not serve: $(cat "$log")"
        wait "$old" || status=$?
        other=
        [ $status = 0 ] || fail "the old server's exit status is $status"
        rested+=("$(sed -n "s/.*taken over from process $old; front ends rested for \([0-9]*\) ms.*/\1/p" "$log")")
        [ -n "${rested[-1]}" ] || fail "the new server does not say from whom it has taken over: $(cat "$log")"
}

has_taken_over() { # LOG
        kill -0 "$server" 2>/dev/null || fail "the new server ended: $(cat "$1")"
        grep -q '^  control' "$1"
}

kill_server() {
        kill -9 "$server"
        wait "$server" 2>/dev/null || true
        server=
}

stop_server() {
        local status=0
        kill "$server"
        wait "$server" || status=$?
        server=
        [ $status = 0 ] || fail "the server's exit status is $status"
}

# Programs of this machine that a guest is to have.
need_tools() {
        local tool
        for tool in "$@"; do
                PATH=$PATH:/sbin:/usr/sbin command -v "$tool" >/dev/null || {
                        printf 'SKIP: no %s on this machine\n' "$tool" >&2
                        exit 77
                }
        done
}

# tests/lab/run; a machine that cannot run it skips the test.
lab() {
        local status=0
        "$lab/run" "$@" || status=$?
        [ $status != 77 ] || exit 77
        return $status
}

# The same in the background, with output in $work/output.
start_guest() {
        "$lab/run" "$@" >"$work/output" 2>"$work/guest-errors" &
        guest=$!
}

end_guest() {
        kill "$guest" 2>/dev/null || true
        wait "$guest" 2>/dev/null || true
        guest=
}

# What tests/lab/stamps needs, and how far it has come.
stamps_arguments=(--program mke2fs --program e2fsck --program sync --file "$lab/stamps=lab/stamps")

newest_stamp() { # [NAME]
        sed -n "s/^${1:-stamp} \\([0-9]*\\)\\r\\?\$/\\1/p" "$work/output" | tail -1
}

wait_for_stamp() { # NUMBER [NAME]
        wait_until 240 stamp_is_there "$@" || fail "the guest is too slow"
}

stamp_is_there() {
        local newest
        kill -0 "$guest" 2>/dev/null || guest_has_ended
        newest=$(newest_stamp "${2-}")
        [ "${newest:-0}" -ge "$1" ]
}

guest_has_ended() {
        local status=0
        wait "$guest" || status=$?
        cat "$work/output" "$work/guest-errors" >&2
        [ $status != 77 ] || exit 77
        fail "the guest ended with status $status"
}

# What tests/lab/guest-pool needs.
pool_arguments=(--program "$tarn" --program nbd-client --file "$lab/guest-pool=lab/guest-pool")

# How a guest is told to end: what it looks at is a volume of the pool's, written over NBD.
make_told() { # POOL
        "$tarn" volume create "$1/told" 1M
}
told_disk="vhost-user:$work/vhost/told.sock"
tell() { # POOL
        timeout -k 5 60 qemu-io -f raw -c 'write -q -P 0x65 0 512' -c flush "nbd+unix:///$1/told?socket=$work/nbd" ||
                fail "the guest cannot be told to end"
}

# What tests/lab/verify needs: volumes at $work/vhost of one queue and of four, with split rings and with packed ones.
make_fio_volumes() { # POOL
        local number
        for number in 1 2 3 4; do
                "$tarn" volume create "$1/fio$number" 64M
        done
}
fio_arguments=(--cpus 4 --program fio --file "$lab/verify=lab/verify" --file "$lab/verify.fio=lab/verify.fio"
        --disk "vhost-user:$work/vhost/fio1.sock,num-queues=1" --disk "vhost-user:$work/vhost/fio2.sock,num-queues=4"
        --disk "vhost-user:$work/vhost/fio3.sock,num-queues=1,packed=on"
        --disk "vhost-user:$work/vhost/fio4.sock,num-queues=4,packed=on")
limit_fio_volumes() { # POOL IOPS
        local number
        for number in 1 2 3 4; do
                "$tarn" volume set "$1/fio$number" "iops=$2"
        done
}

# Serves a new POOL whose volumes a guest writes to and verifies until it is told to end, for 320 seconds and SECONDS at most.
# A server that is faster than its guest has nothing to lose when it ends. Requests that wait for a limit are under way in
# it: below what the slowest machine does there are always some, and flushes, which do not wait, overtake them.
start_limited_fio() { # POOL SECONDS
        "$tarn" pool create "$1" "$work/disk" --file-size 1G
        make_fio_volumes "$1"
        make_told "$1"
        limit_fio_volumes "$1" 10
        start_vhost_server "$1"
        start_guest "${fio_arguments[@]}" --disk "$told_disk" --timeout $((320 + $2)) -- sh /lab/verify /dev/vde
}

# In the last second each volume of POOL tank has answered requests, and had so many more under way.
every_volume_works() { # DEPTH
        local report
        kill -0 "$guest" 2>/dev/null || guest_has_ended
        report=$(timeout -k 5 20 "$tarn" stat tank --interval 1 --count 2 --json | tail -1)
        /usr/bin/python3 -I -S -c '
import json, sys
volumes = [v for v in json.loads(sys.argv[1] or "{}").get("volumes", []) if "fio" in v["name"]]
least = int(sys.argv[2])
sys.exit(len(volumes) < 4 or any(v["reads"] + v["writes"] == 0 or v["depth"] < least for v in volumes))' "$report" "$1"
}

# The guest is told to end, and has verified everything; the server stops, and the pool is sound.
end_of_fio() { # POOL
        local status=0
        tell "$1"
        wait "$guest" || status=$?
        guest=
        [ $status = 0 ] && grep -q '^verified in' "$work/output" || {
                cat "$work/output" "$work/guest-errors" >&2
                fail "the guest ended with status $status"
        }
        tail -1 "$work/output"
        stop_server
        "$tarn" pool check "$1" --data
}

# A guest in the lab's machine: makes $nested_arguments of tests/lab/run, which bring its kernel and its initramfs as
# /lab/guest/vmlinuz and /lab/guest/initramfs. The words are guest-initramfs's.
make_nested_guest() { # [OPTION]... [COMMAND...]
        local kernel status=0 options=()
        while [[ ${1-} = --* ]]; do
                options+=("$1" "$2")
                shift 2
        done
        kernel=$("$lab/kernel") && "$lab/guest-initramfs" "${options[@]}" "$work/guest-initramfs" "$@" || status=$?
        [ $status != 77 ] || exit 77
        [ $status = 0 ] || fail "no initramfs can be made for the nested guest"
        nested_arguments=(--file "$kernel/vmlinuz=lab/guest/vmlinuz"
                --file "$work/guest-initramfs=lab/guest/initramfs")
}

# QEMU as a program of the lab's machine, with the firmware that q35 and microvm start: beside it, where it looks for it.
nested_qemu_arguments=(--program qemu-system-x86_64)
for file in /usr/share/seabios/bios-256k.bin /usr/share/seabios/bios-microvm.bin /usr/share/qemu/linuxboot_dma.bin \
        /usr/share/qemu/kvmvapic.bin; do
        nested_qemu_arguments+=(--file "$file=lab${file#/usr}")
done
unset file
