#!/bin/bash
# A real Linux by its other entry (PVH, of the ELF file that is packed in Debian's kernel), in a guest whose devices interrupt it
# by INTx, as there is no MSI: its disk, a volume, is written and read back.
. "$(dirname "$(readlink -f "$0")")/lib.sh"
need_tools bsdcat python3

kernel=$("$lab/kernel") || exit $?
# Linux, Documentation/arch/x86/boot.rst: setup_sects, payload_offset, payload_length; the length that it unpacks to comes last.
python3 - "$kernel/vmlinuz" >"$work/payload" <<'EOS'
import struct, sys
with open(sys.argv[1], 'rb') as f:
    image = f.read()
offset, length = struct.unpack_from('<II', image, 0x248)
begin = ((image[0x1f1] or 4) + 1) * 512 + offset
sys.stdout.buffer.write(image[begin:begin + length - 4])
EOS
bsdcat "$work/payload" >"$work/vmlinux" || fail "Debian's kernel is packed in a way that bsdcat does not know"
make_nested_guest sh -c 'grep -c IO-APIC.*virtio /proc/interrupts | sed "s/^/guest: by INTx: /"
        grep -c MSI.*virtio /proc/interrupts | sed "s/^/guest: by MSI: /"
        dd if=/dev/urandom of=/data bs=1M count=4 2>/dev/null
        dd if=/data of=/dev/vda bs=64k oflag=direct 2>/dev/null
        dd if=/dev/vda of=/back bs=64k count=64 iflag=direct 2>/dev/null
        cmp /data /back && echo "guest: as it was written"'
cat >"$work/boot" <<'EOS'
export TARN_STATE_DIR=/run/tarn TARN_RUNTIME_DIR=/run/tarn
mkdir /run/tarn
cd /tmp
tarn pool create tank d0 --file-size 100M && tarn volume create tank/web 8M || exit 1
tarn serve tank --nbd unix:/run/tarn/nbd --vhost-user /run/tarn &
until [ -S /run/tarn/web.sock ]; do sleep 0.1; done
"$1" --kernel /lab/vmlinux --initrd /lab/guest/initramfs --cmdline 'console=ttyS0 panic=-1 quiet loglevel=5 pci=nomsi' \
        --disk /run/tarn/web.sock --cpus 2 --memory 256
EOS
lab --kvm --timeout 200 "${nested_arguments[@]}" --program "$tarn" --program "$VMM_RUN" --file "$work/vmlinux=lab/vmlinux" \
        --file "$work/boot=lab/boot" -- sh /lab/boot "$(basename "$VMM_RUN")" >"$work/console" ||
        fail "it does not boot: $(tail -5 "$work/console")"
tr -d '\r' <"$work/console" >"$work/told"
grep -qx 'guest: by INTx: [1-9]' "$work/told" && grep -qx 'guest: by MSI: 0' "$work/told" ||
        fail "its devices do not interrupt by INTx: $(grep 'guest: by' "$work/told")"
grep -qx 'guest: as it was written' "$work/told" || fail "the disk does not hold what was written"
"$lab/kernel-warnings" "$work/console" || fail "the guest's kernel warns"
