#!/bin/bash
# OVA and OVF: machines as VirtualBox and VMware pack them, imported; machines exported, and what other programs find in
# the archives; and that nothing is left of what fails. TARN has a VMM without a guest (tests/vm).
set -eu
. "$(dirname "$0")/common.sh"
. "$here/../vm/machines.sh"
type xmllint >/dev/null 2>&1 || skip "there is no xmllint"

stream_uri=http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized

# The parts of a descriptor as VirtualBox 7 writes it, with what nobody needs here.
virtualbox() { # NAME FIRMWARE
    cat <<X
<?xml version="1.0"?>
<Envelope ovf:version="1.0" xml:lang="en-US" xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData" xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:vbox="http://www.virtualbox.org/ovf/machine">
  <References>
    <File ovf:id="file1" ovf:href="$1-disk001.vmdk"/>
    <File ovf:id="file2" ovf:href="$1-disk002.vmdk"/>
  </References>
  <DiskSection>
    <Info>List of the virtual disks used in the package</Info>
    <Disk ovf:capacity="$((40 << 20))" ovf:diskId="vmdisk1" ovf:fileRef="file1" ovf:format="$stream_uri" vbox:uuid="5e9a2f6e-0000-4000-8000-000000000001"/>
    <Disk ovf:capacity="$((5 << 20))" ovf:diskId="vmdisk2" ovf:fileRef="file2" ovf:format="$stream_uri" vbox:uuid="5e9a2f6e-0000-4000-8000-000000000002"/>
  </DiskSection>
  <NetworkSection>
    <Info>Logical networks used in the package</Info>
    <Network ovf:name="NAT"><Description>Logical network used by this appliance.</Description></Network>
  </NetworkSection>
  <VirtualSystem ovf:id="$1">
    <Info>A virtual machine</Info>
    <OperatingSystemSection ovf:id="96">
      <Info>The kind of installed guest operating system</Info>
      <Description>Debian_64</Description>
      <vbox:OSType ovf:required="false">Debian_64</vbox:OSType>
    </OperatingSystemSection>
    <VirtualHardwareSection>
      <Info>Virtual hardware requirements for a virtual machine</Info>
      <System>
        <vssd:ElementName>Virtual Hardware Family</vssd:ElementName>
        <vssd:InstanceID>0</vssd:InstanceID>
        <vssd:VirtualSystemIdentifier>$1</vssd:VirtualSystemIdentifier>
        <vssd:VirtualSystemType>virtualbox-2.2</vssd:VirtualSystemType>
      </System>
      <Item>
        <rasd:Caption>3 virtual CPU</rasd:Caption>
        <rasd:Description>Number of virtual CPUs</rasd:Description>
        <rasd:InstanceID>1</rasd:InstanceID>
        <rasd:ResourceType>3</rasd:ResourceType>
        <rasd:VirtualQuantity>3</rasd:VirtualQuantity>
      </Item>
      <Item>
        <rasd:AllocationUnits>MegaBytes</rasd:AllocationUnits>
        <rasd:InstanceID>2</rasd:InstanceID>
        <rasd:ResourceType>4</rasd:ResourceType>
        <rasd:VirtualQuantity>129</rasd:VirtualQuantity>
      </Item>
      <Item>
        <rasd:Address>0</rasd:Address>
        <rasd:Caption>ideController0</rasd:Caption>
        <rasd:InstanceID>3</rasd:InstanceID>
        <rasd:ResourceSubType>PIIX4</rasd:ResourceSubType>
        <rasd:ResourceType>5</rasd:ResourceType>
      </Item>
      <Item>
        <rasd:Address>0</rasd:Address>
        <rasd:Caption>sataController0</rasd:Caption>
        <rasd:InstanceID>5</rasd:InstanceID>
        <rasd:ResourceSubType>AHCI</rasd:ResourceSubType>
        <rasd:ResourceType>20</rasd:ResourceType>
      </Item>
      <Item>
        <rasd:AddressOnParent>1</rasd:AddressOnParent>
        <rasd:Caption>disk2</rasd:Caption>
        <rasd:HostResource>/disk/vmdisk2</rasd:HostResource>
        <rasd:InstanceID>7</rasd:InstanceID>
        <rasd:Parent>5</rasd:Parent>
        <rasd:ResourceType>17</rasd:ResourceType>
      </Item>
      <Item>
        <rasd:AddressOnParent>0</rasd:AddressOnParent>
        <rasd:Caption>disk1</rasd:Caption>
        <rasd:HostResource>/disk/vmdisk1</rasd:HostResource>
        <rasd:InstanceID>6</rasd:InstanceID>
        <rasd:Parent>5</rasd:Parent>
        <rasd:ResourceType>17</rasd:ResourceType>
      </Item>
      <Item>
        <rasd:AddressOnParent>0</rasd:AddressOnParent>
        <rasd:AutomaticAllocation>true</rasd:AutomaticAllocation>
        <rasd:Caption>cdrom1</rasd:Caption>
        <rasd:InstanceID>8</rasd:InstanceID>
        <rasd:Parent>3</rasd:Parent>
        <rasd:ResourceType>15</rasd:ResourceType>
      </Item>
      <Item>
        <rasd:Address>080027A1B2C3</rasd:Address>
        <rasd:AutomaticAllocation>true</rasd:AutomaticAllocation>
        <rasd:Caption>Ethernet adapter on 'NAT'</rasd:Caption>
        <rasd:Connection>NAT</rasd:Connection>
        <rasd:InstanceID>9</rasd:InstanceID>
        <rasd:ResourceSubType>E1000</rasd:ResourceSubType>
        <rasd:ResourceType>10</rasd:ResourceType>
      </Item>
    </VirtualHardwareSection>
    <vbox:Machine ovf:required="false" version="1.19-linux" uuid="{5e9a2f6e-0000-4000-8000-000000000003}" name="$1" OSType="Debian_64">
      <ovf:Info>Complete VirtualBox machine configuration in VirtualBox format</ovf:Info>
      <Hardware><CPU count="3"/><Memory RAMSize="129"/><Firmware type="$2"/></Hardware>
    </vbox:Machine>
  </VirtualSystem>
</Envelope>
X
}

# As VMware's ovftool writes it. Of its disks the first is FILE; the second, where there is EMPTY, has none.
vmware() { # NAME FILE [EMPTY]
    cat <<X
<?xml version="1.0" encoding="UTF-8"?>
<!--Generated by VMware ovftool 4.6.2, UTC time: 2024-02-03T10:20:30Z-->
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:cim="http://schemas.dmtf.org/wbem/wscim/1/common" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData" xmlns:vmw="http://www.vmware.com/schema/ovf" xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
  <References>
    <File ovf:href="$2" ovf:id="file1" ovf:size="7"${compression:+ ovf:compression=\"$compression\"}/>
  </References>
  <DiskSection>
    <Info>Virtual disk information</Info>
    <Disk ovf:capacity="48" ovf:capacityAllocationUnits="byte * 2^20" ovf:diskId="vmdisk1" ovf:fileRef="file1" ovf:format="$stream_uri" ovf:populatedSize="1048576"/>
    ${3:+<Disk ovf:capacity=\"16\" ovf:capacityAllocationUnits=\"byte * 2^20\" ovf:diskId=\"vmdisk2\" ovf:format=\"$stream_uri\"/>}
  </DiskSection>
  <NetworkSection>
    <Info>The list of logical networks</Info>
    <Network ovf:name="VM Network"><Description>The VM Network network</Description></Network>
  </NetworkSection>
  <VirtualSystem ovf:id="vm">
    <Info>A Virtual system</Info>
    <Name>$1</Name>
    <OperatingSystemSection ovf:id="96" vmw:osType="debian11_64Guest"><Info>The operating system installed</Info></OperatingSystemSection>
    <VirtualHardwareSection>
      <Info>Virtual hardware requirements</Info>
      <System>
        <vssd:ElementName>Virtual Hardware Family</vssd:ElementName>
        <vssd:InstanceID>0</vssd:InstanceID>
        <vssd:VirtualSystemType>vmx-19</vssd:VirtualSystemType>
      </System>
      <Item>
        <rasd:AllocationUnits>hertz * 10^6</rasd:AllocationUnits>
        <rasd:ElementName>96 virtual CPU(s)</rasd:ElementName>
        <rasd:InstanceID>1</rasd:InstanceID>
        <rasd:ResourceType>3</rasd:ResourceType>
        <rasd:VirtualQuantity>96</rasd:VirtualQuantity>
        <vmw:CoresPerSocket ovf:required="false">1</vmw:CoresPerSocket>
      </Item>
      <Item>
        <rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits>
        <rasd:InstanceID>2</rasd:InstanceID>
        <rasd:ResourceType>4</rasd:ResourceType>
        <rasd:VirtualQuantity>2048</rasd:VirtualQuantity>
      </Item>
      <Item>
        <rasd:Address>0</rasd:Address>
        <rasd:ElementName>SCSI Controller 0</rasd:ElementName>
        <rasd:InstanceID>3</rasd:InstanceID>
        <rasd:ResourceSubType>VirtualSCSI</rasd:ResourceSubType>
        <rasd:ResourceType>6</rasd:ResourceType>
        <vmw:Config ovf:required="false" vmw:key="slotInfo.pciSlotNumber" vmw:value="160"/>
      </Item>
      <Item>
        <rasd:AddressOnParent>0</rasd:AddressOnParent>
        <rasd:ElementName>Hard Disk 1</rasd:ElementName>
        <rasd:HostResource>ovf:/disk/vmdisk1</rasd:HostResource>
        <rasd:InstanceID>4</rasd:InstanceID>
        <rasd:Parent>3</rasd:Parent>
        <rasd:ResourceType>17</rasd:ResourceType>
      </Item>
      ${3:+<Item><rasd:AddressOnParent>1</rasd:AddressOnParent><rasd:HostResource>ovf:/disk/vmdisk2</rasd:HostResource><rasd:InstanceID>5</rasd:InstanceID><rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>}
      <Item ovf:required="false">
        <rasd:ElementName>Video card</rasd:ElementName>
        <rasd:InstanceID>6</rasd:InstanceID>
        <rasd:ResourceType>24</rasd:ResourceType>
      </Item>
      <vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="efi"/>
    </VirtualHardwareSection>
    <AnnotationSection><Info>A human-readable annotation</Info><Annotation>made by hand</Annotation></AnnotationSection>
  </VirtualSystem>
</Envelope>
X
}

pack() { # ARCHIVE FILE...: with its manifest behind the descriptor
    local archive=$1 descriptor=$2
    sha256sum "${@:2}" | sed 's/^\([0-9a-f]*\)  \(.*\)$/SHA256(\2)= \1/' >"${descriptor%.ovf}.mf"
    rm -f "$archive"
    tar --format=ustar -cf "$archive" "$descriptor" "${descriptor%.ovf}.mf" "${@:3}"
}

has_disk() { # VOLUME RAW: a volume holds what a raw image holds
    rm -f have.raw
    ok tarn image export "$1" have.raw
    same_content "$2" raw have.raw raw
}

nothing_left() { # VM-FILE...
    ok tarn volume list tank --json
    same "$(json "['volumes']")" "[]" "what is left in the pool"
    for file; do
        [ ! -e "$file" ] || die "'$file' is left"
    done
    same "$(compgen -G '*exporting*' || true)" "" "what is left beside it"
}

ok tarn pool create tank d0 --file-size 512M
disk one.raw sparse
disk two.raw odd
truncate -s 5M two.raw
ok qemu-img convert -f raw -O vmdk -o subformat=streamOptimized one.raw web-disk001.vmdk
ok qemu-img convert -f raw -O vmdk -o subformat=streamOptimized two.raw web-disk002.vmdk

# ---- as VirtualBox packs it ----
virtualbox web BIOS >web.ovf
xmllint --noout web.ovf
pack web.ova web.ovf web-disk001.vmdk web-disk002.vmdk
ok tarn image info web.ova
for line in '^format +ova ' '^machine +web$' '^processors +3$' '^memory +129' '^firmware +BIOS$' \
    '^ +2 +5.0 MiB +sata +web-disk002.vmdk' '^NAT +E1000 +080027A1B2C3'; do
    grep -Eq "$line" <<<"$out" || die "info lacks '$line': $out"
done
ok tarn image info --json web.ova
same "$(json "['format']") $(json "['machine']['cpus']") $(json "['machine']['memory']") $(json "['machine']['firmware']")" \
    "ova 3 $((129 << 20)) bios"
same "$(json "['machine']['disks'][0]['file']") $(json "['machine']['disks'][0]['capacity']")" "web-disk001.vmdk $((40 << 20))"
same "$(json "['file_size']")" "$(stat -c %s web.ova)"

for mode in direct served; do
    [ $mode = direct ] || serve_now tank
    ok tarn image import web.ova tank --vm-file "$mode.yaml"
    grep -q "machine 'web', with 2 volumes: tank/web-1 tank/web-2" <<<"$out" || die "$out"
    grep -q "'tarn vm run $mode.yaml'" <<<"$out" || die "$out"
    same "$(cat err)" "" "notes"
    has_disk tank/web-1 one.raw
    has_disk tank/web-2 two.raw
    same "$(sed 's/^ *- */ - /; s/: */: /' "$mode.yaml" | tr -d '"' | grep -cE '^(name: web|cpus: 3|memory: 130M| - volume: tank/web-[12]| +mac: 08:00:27:a1:b2:c3)$')" 6 \
        "lines of $(cat "$mode.yaml")"
    # nothing is overwritten, and nothing begun
    fails 1 "volume 'tank/web-1' exists" tarn image import web.ova tank --vm-file other.yaml
    fails 1 "'$mode.yaml' exists" tarn image import web.ova tank/other --vm-file "$mode.yaml"
    [ ! -e other.yaml ] || die "there is a VM file"
    ok tarn volume list tank --json
    same "$(json "['volumes'].__len__()")" 2
    for i in 1 2; do
        ok tarn volume delete "tank/web-$i" --yes
    done
    [ $mode = direct ] || serve_end
done
nothing_left

# ---- as VMware packs it: an empty disk, EFI, more than there can be; by SHA-1, in GNU's tar ----
mkdir vmware
cd vmware
cp ../web-disk001.vmdk 'My VM-disk1.vmdk'
vmware 'My VM (1)' 'My VM-disk1.vmdk' empty >'My VM.ovf'
for file in 'My VM.ovf' 'My VM-disk1.vmdk'; do
    printf 'SHA1(%s)= %s\n' "$file" "$(sha1sum <"$file" | cut -d' ' -f1)"
done >'My VM.mf'
bsdtar --format=pax --no-read-sparse -cf ../vmware.ova 'My VM.ovf' 'My VM.mf' 'My VM-disk1.vmdk'
cd ..
ok tarn image import vmware.ova tank --verify
grep -q "volumes: tank/My-VM-1-1 tank/My-VM-1-2" <<<"$out" || die "$out"
grep -q "^note: it had 96 processors, and has 64 now" err && grep -q "^note: it had EFI: 'firmware:' in 'My-VM-1.yaml'" err ||
    die "notes: $(cat err)"
grep -q "^# It had EFI" My-VM-1.yaml && grep -q '^memory: .*2G' My-VM-1.yaml && grep -q '^cpus: .*64' My-VM-1.yaml ||
    die "$(cat My-VM-1.yaml)"
has_disk tank/My-VM-1-1 one.raw
ok tarn volume show --json tank/My-VM-1-1
same "$(json "['size']")" $((48 << 20)) "the size that the descriptor says"
truncate -s 16M empty.raw
has_disk tank/My-VM-1-2 empty.raw
# names that the user gives
for mode in direct served; do
    [ $mode = direct ] || serve_now tank
    compression='' vmware web 'My VM-disk1.vmdk' >vmware/one.ovf
    (cd vmware && pack ../one.ova one.ovf 'My VM-disk1.vmdk')
    ok tarn image import one.ova tank/front --name "shop-$mode"
    grep -q "machine 'shop-$mode', with 1 volume: tank/front$" <<<"$out" || die "$out"
    grep -q "^name: .*shop-$mode" "shop-$mode.yaml" || die "$(cat "shop-$mode.yaml")"
    ok tarn volume delete tank/front --yes
    [ $mode = direct ] || serve_end
done

# ---- an OVF and its disks beside it ----
mkdir beside
cp web.ovf web.mf web-disk00?.vmdk beside
ok tarn image info beside/web.ovf
grep -Eq '^format +ovf ' <<<"$out" || die "$out"
ok tarn image import beside/web.ovf tank/lone
has_disk tank/lone-1 one.raw
has_disk tank/lone-2 two.raw
rm beside/web.mf
ok tarn image import beside/web.ovf tank/bare
grep -q "^note: 'beside/web.ovf' has no manifest" err || die "$(cat err)"
has_disk tank/bare-2 two.raw
ok tarn pool check tank --data
for volume in My-VM-1-1 My-VM-1-2 lone-1 lone-2 bare-1 bare-2; do
    ok tarn volume delete tank/$volume --yes
done
rm -f ./*.yaml
nothing_left

# what it names is no permission
mkdir elsewhere
mv beside/web-disk002.vmdk elsewhere
ln -s ../elsewhere/web-disk002.vmdk beside/web-disk002.vmdk
fails 1 "lies outside of its folder" tarn image import beside/web.ovf tank
nothing_left web.yaml
ok tarn image import beside/web.ovf tank --allow elsewhere
for i in 1 2; do
    ok tarn volume delete tank/web-$i --yes
done
rm web.yaml beside/web-disk002.vmdk
fails 1 "cannot open 'web-disk002.vmdk', which 'beside/web.ovf' names" tarn image import beside/web.ovf tank
vmware web ../web-disk001.vmdk >beside/up.ovf
fails 1 "'../web-disk001.vmdk' .*lies outside of its folder" tarn image import beside/up.ovf tank
vmware web json:x >beside/up.ovf
fails 1 "protocol's address" tarn image import beside/up.ovf tank
nothing_left web.yaml

# ---- damaged ones ----
bad() { # PATTERN: import of bad.ova, directly and by a server
    local mode
    for mode in direct served; do
        [ $mode = direct ] || serve_now tank
        fails 1 "$1" tarn image import bad.ova tank
        nothing_left web.yaml
        [ $mode = direct ] || serve_end
    done
}
cp web.ova bad.ova
at=$(($(stat -c %s bad.ova) - 40000)) # in the second disk
printf '!' | dd of=bad.ova bs=1 seek=$at conv=notrunc status=none
cmp -s web.ova bad.ova && printf '?' | dd of=bad.ova bs=1 seek=$at conv=notrunc status=none
bad "web-disk002.vmdk\)' is damaged: its digest is not the manifest's"
tar --format=ustar -cf bad.ova web.ovf web-disk001.vmdk
bad "has a disk in 'web-disk002.vmdk', which is not in the archive"
cp web.ova bad.ova
truncate -s -20K bad.ova
bad "not whole"
tar --format=ustar -cf bad.ova web-disk001.vmdk
bad "there is no .ovf in it"
cp web.ovf up.ovf
vmware web ../web-disk001.vmdk >web.ovf
tar --format=ustar -cf bad.ova web.ovf web-disk001.vmdk
bad "has a disk in '../web-disk001.vmdk', which is not in the archive"
# the second disk fails, where the first one is in the pool: a grain that cannot be unpacked, without a manifest
cp up.ovf web.ovf
mkdir broken
cp web-disk001.vmdk broken
$python -I -S - web-disk002.vmdk broken/web-disk002.vmdk <<'P'
import struct, sys
d = bytearray(open(sys.argv[1], "rb").read())
at = 128 * 512  # behind header and descriptor: the first grain
lba, size = struct.unpack_from("<QI", d, at)
assert 0 < size < 65536
for i in range(at + 20, at + 12 + size):
    d[i] ^= 0x5a
open(sys.argv[2], "wb").write(d)
P
tar --format=ustar -cf bad.ova web.ovf -C broken web-disk001.vmdk web-disk002.vmdk
for mode in direct served; do
    [ $mode = direct ] || serve_now tank
    status=0
    tarn image import bad.ova tank >out 2>err || status=$?
    same "$status" 1
    grep -q "^note: 'bad.ova' has no manifest" err && grep -q "^tarn: .*web-disk002.vmdk" err || die "$(cat err)"
    nothing_left web.yaml
    [ $mode = direct ] || serve_end
done
# in other ways than it may be
gzip -kf web-disk001.vmdk
compression=gzip vmware web web-disk001.vmdk.gz >web.ovf
tar --format=ustar -cf bad.ova web.ovf web-disk001.vmdk.gz
bad "'web-disk001.vmdk.gz' is compressed as a whole"
vmware web web-disk001.vmdk.gz >web.ovf
tar --format=ustar -cf bad.ova web.ovf web-disk001.vmdk.gz
bad "web-disk001.vmdk.gz\)' is a compressed file"
gzip -c web.ova >zipped.ova
fails 1 "is a compressed file" tarn image import zipped.ova tank/x
cp up.ovf web.ovf

# a name as Windows writes it, in the way that URIs have for it
cp web-disk001.vmdk $'w\xfcb.vmdk'
vmware web w%FCb.vmdk >web.ovf
tar --format=ustar -cf latin.ova web.ovf $'w\xfcb.vmdk'
ok tarn image info latin.ova
for mode in direct served; do
    [ $mode = direct ] || serve_now tank
    ok tarn image import latin.ova tank
    has_disk tank/web one.raw
    ok tarn volume delete tank/web --yes
    rm web.yaml
    [ $mode = direct ] || serve_end
done

# in pieces: the machine can be looked at
vmware web pieces.vmdk | sed 's/ovf:size="7"/& ovf:chunkSize="65536"/' >web.ovf
split -b 64K -d -a 9 web-disk001.vmdk pieces.vmdk.
tar --format=ustar -cf bad.ova web.ovf pieces.vmdk.*
ok tarn image info bad.ova
grep -q 'pieces.vmdk$' <<<"$out" || die "$out"
bad "'pieces.vmdk' is in several pieces"

# one file for two disks is two volumes
sed 's/ovf:fileRef="file2"/ovf:fileRef="file1"/' up.ovf >web.ovf
tar --format=ustar -cf twice.ova web.ovf web-disk001.vmdk
ok tarn image import twice.ova tank
has_disk tank/web-1 one.raw
has_disk tank/web-2 one.raw
for i in 1 2; do
    ok tarn volume delete tank/web-$i --yes
done
rm web.yaml
cp up.ovf web.ovf

# ---- words ----
fails 1 "which --size is not for" tarn image import web.ova tank --size 1G
fails 1 "'one.raw' is no OVA or OVF, which --name is for" tarn image import one.raw tank/x --name x
fails 1 "no name for a machine" tarn image import web.ova tank --name a/b
fails 1 "no name for a volume" tarn image import web.ova 'tank/a b'
fails 1 "there is no pool 'nix'|'nix'" tarn image import web.ova nix
fails 1 "is a tar archive" tarn image convert web.ova new.raw
ok tarn image convert web.ova new.raw --from-format raw
cmp web.ova new.raw
nothing_left web.yaml

# ---- stopped on the way ----
head -c 192M /dev/urandom >large.img
vmware web large.img >web.ovf
tar --format=ustar -cf large.ova web.ovf large.img
for mode in direct served; do
    [ $mode = direct ] || serve_now tank
    for signal in INT TERM; do
        # as a shell without job control would have SIGINT ignored
        env --default-signal="$signal" "$TARN" image import large.ova tank >out 2>err </dev/null &
        pid=$!
        sleep "0.$((RANDOM % 4))"
        kill -$signal $pid 2>/dev/null || true
        status=0
        wait $pid || status=$?
        if [ "$status" = 0 ]; then # it was faster
            ok tarn volume delete tank/web --yes
            rm web.yaml
        fi
        nothing_left web.yaml
    done
    [ $mode = direct ] || serve_end
done
rm large.img large.ova
cp up.ovf web.ovf

# ---- out again: what other programs find in it, and a second way in ----
exported() { # FILE NAME RAW...: an OVA of a machine with these disks
    local file=$1 name=$2 i=0 raw
    shift 2
    rm -rf x
    mkdir x
    tar -xf "$file" -C x
    same "$(tar -tf "$file" | head -n 2 | xargs)" "$name.ovf $name.mf" "the first members"
    xmllint --noout "x/$name.ovf"
    ok $python -I -S "$here/ovf_order.py" "x/$name.ovf"
    (cd x && sed 's/^SHA256(\(.*\))= \(.*\)$/\2  \1/' "$name.mf" | sha256sum --quiet --strict -c) || die "the manifest is wrong"
    same "$(wc -l <"x/$name.mf")" "$(($# + 1))" "digests"
    for raw; do
        i=$((i + 1))
        same_content "$raw" raw "x/$name-disk$i.vmdk" vmdk
        grep -aq 'createType="streamOptimized"' "x/$name-disk$i.vmdk" || die "disk $i is not stream-optimized"
    done
    same "$(xmllint --xpath 'count(//*[local-name()="Disk"])' "x/$name.ovf")" "$#" "disks"
}

echo kernel >kernel
ok tarn image import web.ova tank
sed -i '1i kernel: kernel' web.yaml # which the VMM that has no guest takes
sed -i '/^network/,$d' web.yaml     # there may be no passt
FAKE_VMM_NO_KVM=1 fails 1 "there is no /dev/kvm" tarn vm start web.yaml # but it is known from now on
fails 1 "there is no machine 'nix'" tarn vm export nix nix.ova
fails 2 "more arguments" tarn vm export web
ok tarn vm export web stopped.ova
grep -q "^note: 'web' boots a kernel" err || die "$(cat err)"
grep -q "exported 'web' to 'stopped.ova', 2 disks, " <<<"$out" || die "$out"
exported stopped.ova web one.raw two.raw
same "$(xmllint --xpath 'string(//*[local-name()="Item"][*[local-name()="ResourceType"]=3]/*[local-name()="VirtualQuantity"])' x/web.ovf)" 3 cpus
same "$(xmllint --xpath 'string(//*[local-name()="Item"][*[local-name()="ResourceType"]=4]/*[local-name()="VirtualQuantity"])' x/web.ovf)" 130 MiB
fails 1 "'stopped.ova' exists" tarn vm export web stopped.ova
ok tarn vm export web stopped.ova --force

no_snapshots() {
    ok tarn snapshot list tank --json
    same "$(json "['snapshots']")" "[]" "snapshots that are left"
    ok tarn vm show web --json
    same "$(json "['snapshots']")" "[]" "snapshots of the machine that are left"
    same "$(compgen -G '*exporting*' || true)" "" "what is left beside it"
}
no_snapshots

# cards on one network and on another, and EFI: a machine is known, and exported, though it cannot be started
ok tarn image import two.raw tank/cards --format raw
printf '%40s_FVH' '' >efi.fd
cat >cards.yaml <<'X'
name: cards
firmware: efi.fd
disks:
  - volume: tank/cards
network:
  - {type: tap, tap: never1, mac: "52:54:00:12:34:56"}
  - {type: user}
  - {type: tap, tap: never2}
X
FAKE_VMM_NO_KVM=1 fails 1 "there is no interface 'never1'" tarn vm start cards.yaml
ok tarn vm export cards cards.ova
exported cards.ova cards two.raw
same "$(xmllint --xpath 'count(//*[local-name()="Network"])' x/cards.ovf)" 2 "networks, each once"
same "$(xmllint --xpath 'count(//*[local-name()="Item"][*[local-name()="ResourceType"]=10])' x/cards.ovf)" 3 cards
same "$(xmllint --xpath 'count(//*[local-name()="Config"])' x/cards.ovf)" 1 "what says that it is EFI"

# one that runs, with a disk that it only reads, and one that it has got meanwhile
ok tarn snapshot create tank/web-2@base
ok tarn vm attach web tank/web-2@base
ok tarn vm start web
ok tarn image import two.raw tank/more --format raw
ok tarn vm attach web tank/more
ok tarn vm export web running.ova
exported running.ova web one.raw two.raw two.raw two.raw
for line in paused resumed; do
    has_said web "^$line" || die "the guest was not $line for it"
done
same "$(state web)" running
ok tarn vm stop web --force
ok tarn vm detach web tank/web-2@base
ok tarn vm detach web tank/more
ok tarn snapshot delete tank/web-2@base --yes
no_snapshots

# and in again
ok tarn image import running.ova tank/again
has_disk tank/again-1 one.raw
has_disk tank/again-4 two.raw
for i in 1 2 3 4; do
    ok tarn volume delete tank/again-$i --yes
done

# what fails or is stopped leaves nothing
fails 1 . tarn vm export web nix/web.ova
no_snapshots
for signal in INT TERM INT; do
    env --default-signal="$signal" "$TARN" vm export web never.ova >out 2>err </dev/null &
    pid=$!
    sleep "0.$((RANDOM % 4))"
    kill -$signal $pid 2>/dev/null || true
    status=0
    wait $pid || status=$?
    [ "$status" = 0 ] || [ ! -e never.ova ] || die "a part of it is there"
    rm -f never.ova
    no_snapshots
done
status=0
(ulimit -f 64; trap '' XFSZ; tarn vm export web never.ova) >out 2>err || status=$?
same "$status" 1 "export without space: $(cat err)"
[ ! -e never.ova ] || die "a part of it is there"
no_snapshots

echo "ova: passed"
