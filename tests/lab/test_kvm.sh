#!/bin/bash
# The lab as a host of guests: its /dev/kvm works, so QEMU boots guests of it to their init, as any user; and passt, which
# locks itself up, gives one of them its network.
. "$(dirname "$(readlink -f "$0")")/lib.sh"
need_tools passt

cat >"$work/network" <<'NETWORK'
set -e
udhcpc -i eth0 -n -q -t 5
ip -o address show eth0 | grep -F ' 192.0.2.2/24 '
[ "$(wget -q -O - http://192.0.2.1/told)" = 'it is told' ]
NETWORK
make_nested_guest --file "$work/network=network" grep -q hypervisor /proc/cpuinfo

cat >"$work/host" <<'HOST'
set -e
echo "up after $(cut -d' ' -f1 /proc/uptime) s"
nested-boot microvm,acpi=on,rtc=on 1 ''
su user -c 'nested-boot q35 2 "sh -c \"[ \$(nproc) = 2 ]\""'

# passt serves a machine that has a way out. Its gateway is, to the guest, the machine itself.
ip link add out type dummy
ip address add 192.0.2.2/24 dev out
ip link set out up
ip route add default via 192.0.2.1
mkdir /tmp/served
echo 'it is told' >/tmp/served/told
httpd -p 127.0.0.1:80 -h /tmp/served
timeout 10 passt --one-off --socket /tmp/passt.sock --pid /tmp/passt.pid >/tmp/passt.log 2>&1 || {
        cat /tmp/passt.log
        exit 1
}
grep -q '^Uid:.65534' "/proc/$(cat /tmp/passt.pid)/status"
nested-boot q35 1 'sh -e /network' -netdev stream,id=net,server=off,addr.type=unix,addr.path=/tmp/passt.sock \
        -device virtio-net-pci,netdev=net,romfile=
HOST
lab --kvm "${nested_arguments[@]}" "${nested_qemu_arguments[@]}" --program passt --file "$work/host=host" \
        --file "$lab/nested-boot=lab/bin/nested-boot" --timeout 240 -- sh /host || fail "no guest boots in the lab's machine"
