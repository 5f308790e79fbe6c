#!/bin/bash
# The service in a Debian machine of its own: ready when it serves, started again when it is killed, and after a reboot,
# at which the disks have other names, the pool is found by uuid and served again. A vhost-user front end finds its socket
# there both times. A reload may be a takeover, under a load that does not notice. What it needs of the build: machine.sh.
set -eu
scripts=$(cd "$(dirname "$0")/../../scripts" && pwd)
. "$scripts/../tests/packaging/machine.sh"

truncate -s 256M disk1 disk2 disk3
boot_and_install "$work/disk1" "$work/disk2"
in_guest 'tarn pool create tank /dev/vdc /dev/vdd && tarn volume create tank/web 64M'
# Ready means: it serves.
in_guest 'systemctl enable --now tarn@tank'
in_guest 'test -S /run/tarn/tank.nbd && tarn pool status tank'
grep -q 'by process' <<<"$out" || die "nobody serves: $out"
in_guest 'systemctl show -P StatusText tarn@tank'
[ -n "$out" ] || die "the service says nothing of itself"
in_guest 'before=$(systemctl show -P MainPID tarn@tank); systemctl reload tarn@tank && tarn volume list tank &&
    systemctl is-active tarn@tank && [ $before = $(systemctl show -P MainPID tarn@tank) ]'

# Killed, it is there again.
killed='before=$(systemctl show -P MainPID tarn@tank); systemctl kill -s KILL tarn@tank
    for i in $(seq 900); do
        now=$(systemctl show -P MainPID tarn@tank)
        if systemctl is-active -q tarn@tank && [ $now != 0 ] && [ $now != $before ]; then exit=0; break; fi
        exit=1; sleep 0.2
    done; test $exit = 0'
in_guest "$killed"
in_guest 'tarn volume show tank/web && tarn snapshot create tank/web@after'

# It may map a guest's memory.
front_end='vhostload --socket /run/tarn/web.sock --op randrw --once --length 4M --queues 2 --verify --stamps /root/stamps --end-flush'
in_guest 'tarn volume attach tank/web --vhost-user /run/tarn/web.sock && test -S /run/tarn/web.sock'
in_guest "$front_end"

# Options come from the pool's file.
in_guest 'mkdir -p /etc/tarn && echo TARN_SERVE_OPTIONS=\"--nbd tcp:127.0.0.1:10809 --nbd unix:/run/tarn/tank.nbd\" >/etc/tarn/tank.conf &&
    echo TARN_RELOAD=takeover >>/etc/tarn/tank.conf && sync'
power_off

# Another disk where the first one was, and the two in the other order.
boot "$work/tree.img" "$work/disk3" "$work/disk2" "$work/disk1"
in_guest_until 'systemctl is-active -q tarn@tank'
in_guest 'tarn pool status tank'
for text in 'by process' 'nbd://127.0.0.1:10809' /dev/vdd /dev/vde; do
    grep -q "$text" <<<"$out" || die "after the reboot lacks '$text': $out"
done
in_guest "$front_end"
in_guest 'tarn snapshot list tank && systemctl is-failed -q tarn@tank || true'
grep -q 'tank/web@after' <<<"$out" || die "the snapshot is gone: $out"

# A new server in the old one's place is the service's as the old one was: its main process, in its group and with its
# limits, followed by another when it is killed.
load='vhostload --socket /run/tarn/web.sock --offset 8M --length 4M --queues 2 --verify --stamps /root/load-stamps'
in_guest "$load --op randrw --seconds 3600 >/root/load.log 2>&1 & echo \$! >/root/load
    for i in \$(seq 900); do [ ! -e /root/load-stamps ] || break; sleep 0.2; done; test -e /root/load-stamps"
for _ in 1 2; do
    in_guest 'before=$(systemctl show -P MainPID tarn@tank) && grep -E "NoNewPrivs|CapBnd|Seccomp:" /proc/$before/status >/root/before &&
        cat /proc/$before/cgroup /proc/$before/oom_score_adj /proc/$before/limits >>/root/before && systemctl reload tarn@tank &&
        now=$(systemctl show -P MainPID tarn@tank) && [ $now != $before ] && [ ! -e /proc/$before ] &&
        grep -E "NoNewPrivs|CapBnd|Seccomp:" /proc/$now/status >/root/now &&
        cat /proc/$now/cgroup /proc/$now/oom_score_adj /proc/$now/limits >>/root/now && diff /root/before /root/now &&
        systemctl is-active tarn@tank && tarn pool status tank | grep -q "by process $now" && kill -0 $(cat /root/load) &&
        journalctl -b -u tarn@tank | grep -e "not our child" -e "taken over from process $before"'
    ! grep -q 'not our child' <<<"$out" || die "systemd does not watch it: $out"
done
in_guest "kill \$(cat /root/load) && for i in \$(seq 900); do [ -e /proc/\$(cat /root/load) ] || break; sleep 0.2; done; cat /root/load.log
    $load --op read --once --after-crash"
in_guest "$killed"
in_guest 'systemctl reload tarn@tank && systemctl restart tarn@tank && tarn pool status tank && systemctl show -P NRestarts tarn@tank'
# Nothing that it does is forbidden to it.
in_guest 'journalctl -b -u tarn@tank'
! grep -qiE 'not permitted|denied|read-only file system' <<<"$out" || die "the service is kept from something: $out"

# Started by its first client.
in_guest 'systemctl disable --now tarn@tank && rm /etc/tarn/tank.conf && systemctl enable --now tarn@tank.socket'
in_guest 'systemctl is-active tarn@tank || true'
same "${out##*$'\n'}" inactive "the service before its first client"
in_guest 'perl -MIO::Socket::UNIX -e '\''alarm 300; $s = IO::Socket::UNIX->new("/run/tarn/tank.nbd"); sysread $s, $b, 8; print "$b\n"'\'
same "$out" NBDMAGIC "what the first client reads"
in_guest 'systemctl is-active tarn@tank && systemctl stop tarn@tank && test -S /run/tarn/tank.nbd && systemctl is-active tarn@tank.socket'
power_off
echo "service: passed"
