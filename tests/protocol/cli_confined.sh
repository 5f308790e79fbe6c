#!/bin/bash
# A server that serves has given up what it does not need: in each of its threads, by /proc. What it still needs by a path
# it has. (What it cannot do any more: tests/unit/test_confine.c.)
set -eu
here=$(dirname "$(readlink -f "$0")")
. "$here/cli_common.sh"
. "$here/takeover_common.sh"
[[ ${SANITIZER:-none} != *thread* ]] || skip "nothing is confined in builds with ThreadSanitizer"
root=$([ "$(id -u)" != 0 ] || echo yes)

# io_uring's own workers are the kernel's. A thread may end meanwhile.
each_thread() { # NAME VALUE: of /proc/PID/task/THREAD/status
    local task status n=0
    for task in /proc/"$server"/task/*; do
        status=$(cat "$task/status" 2>/dev/null) || continue
        ! grep -q '^Name:[[:space:]]*iou-' <<<"$status" || continue
        same "$(awk -v name="$1:" '$1 == name { print $2 }' <<<"$status")" "$2" "$1 of $status"
        n=$((n + 1))
    done
    [ "$n" -ge 1 ] || die "the server has no thread"
}
confined() { # [CAPABILITIES]
    local name caps=${1:-0000000000000000}
    each_thread NoNewPrivs 1
    # Builds with a sanitizer have no filter.
    [[ ${SANITIZER:-none} = *address* ]] || each_thread Seccomp 2
    for name in CapInh CapAmb; do each_thread $name 0000000000000000; done
    for name in CapPrm CapEff ${root:+CapBnd}; do each_thread $name "$caps"; done
    ! grep -q 'more privileges' "$work"/*.log || die "the server says that it is not confined"
}
wait_for_socket() { # [!] PATH
    local not=
    [ "$1" != ! ] || { not=yes && shift; }
    for _ in $(seq 600); do
        if [ -S "$1" ]; then [ -n "$not" ] || return 0; else [ -z "$not" ] || return 0; fi
        sleep 0.05
    done
    die "'$1' ${not:+stays}${not:-does not come}"
}

# ---- by threads, on both back ends ----
ok tarn pool create tank d0 --file-size 256M
ok tarn volume create tank/web 32M
for back_end in uring threads; do
    TARN_LOOP=$back_end serve_now tank --threads 3
    ok tarn volume list tank
    confined
    serve_end
done

# ---- what it needs by a path: state, sockets ----
group=$(id -G | tr ' ' '\n' | tail -1)
[ -z "$root" ] || group=$(getent group | awk -F: '$3 > 0 { print $1; exit }')
[ ! -e /usr/share/zoneinfo/Asia/Kolkata ] || export TZ=Asia/Kolkata
serve_now tank --vhost-user vhost --group "$group" --nbd "unix:$work/tank.nbd"
confined
for volume in web; do wait_for_socket vhost/$volume.sock; done
ok tarn volume create tank/new 16M
wait_for_socket vhost/new.sock
same "$(stat -c '%G %a' vhost/new.sock)" "$(stat -c '%G %a' vhost/web.sock)" "group of a socket that is made later"
ok tarn volume rename tank/new newer
wait_for_socket vhost/newer.sock
ok tarn volume delete --yes tank/newer
wait_for_socket ! vhost/newer.sock
ok tarn volume attach tank/web --vhost-user "$work/web.sock" --group "$group"
grep -q web.sock state/tank.json || die "the attachment is not remembered"
ok tarn pool add tank d1 --file-size 128M
grep -q '/d1"' state/tank.json || die "the new member's place is not written down"
ok tarn snapshot create tank/web@s
ok tarn snapshot restore --yes tank/web@s
ok tarn snapshot list tank/web
# Local time is read from a file, or would be UTC.
grep -q "before-restore-$(date +%Y%m%d-%H)" <<<"$out" || die "the time is not the local one: $out"
head -c 1M /dev/urandom >image
ok tarn image import image tank/copy
ok tarn image export tank/copy back
cmp image back

# ---- the next server, by a takeover and by a new start, with sockets of the state file ----
take_over tank
confined
ok tarn volume create tank/later 16M
wait_for_socket vhost/later.sock
serve_end
wait_for_socket ! vhost/later.sock
wait_for_socket ! vhost/web.sock
wait_for_socket ! tank.nbd
wait_for_socket ! run/tank.control
rm web.sock
serve_now tank
wait_for_socket web.sock
confined
serve_end
wait_for_socket ! web.sock

# ---- keys, which are replaced as certificates are: by symbolic links that lead elsewhere ----
mkdir live archive
printf 'alice:%064d\n' 1 >archive/keys1.psk
printf 'bob:%064d\n' 2 >archive/keys2.psk
chmod 600 archive/*.psk
ln -s ../archive/keys1.psk live/keys.psk
serve_now tank --tls-psk live/keys.psk --nbd "unix:$work/tls.nbd"
confined
ln -s ../archive/keys2.psk live/next
mv -T live/next live/keys.psk
kill -HUP "$server"
for _ in $(seq 600); do
    ! grep -q 'read anew' serve.tank.log || break
    sleep 0.05
done
grep -q 'read anew' serve.tank.log || die "new keys are not read: $(cat serve.tank.log)"
serve_end

[ -n "$root" ] || exit 0

# ---- whole disks: one is added; one that is mounted is not, also where a client does not look by itself ----
add_blindly() { # DISK
    $python - "$1" <<'EOF'
import array, os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect("run/tank.control")
fd = os.open(sys.argv[1], os.O_RDWR)
s.sendmsg([b'{"command": "pool-add", "pool": "tank", "paths": ["%s"]}\n' % sys.argv[1].encode()],
          [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
print(s.makefile().readline())
EOF
}
truncate -s 128M disk
truncate -s 128M mounted
if loop=$(losetup --find --show disk 2>/dev/null); then
    loops+=("$loop")
    serve_now tank
    confined
    ok tarn pool add tank "$loop"
    loop=$(losetup --find --show mounted)
    loops+=("$loop")
    mkdir mnt
    mke2fs -q "$loop"
    if mount "$loop" mnt 2>/dev/null; then
        out=$(add_blindly "$loop" 2>&1) || true
        umount mnt
        grep -q 'is mounted on' <<<"$out" || die "the server takes a disk that is mounted: $out"
    fi
    serve_end
fi

# ---- another user's folder takes a capability: CAP_DAC_OVERRIDE, bit 1 ----
chown -R 65534 state
serve_now tank
confined 0000000000000002
ok tarn volume attach tank/later --vhost-user "$work/later.sock"
grep -q later.sock state/tank.json || die "the attachment is not remembered"
serve_end
