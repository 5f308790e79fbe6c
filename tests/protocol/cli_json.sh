#!/bin/bash
# The shapes of --json are a contract (docs/control.md): exactly these fields, of these types, served or not.
set -eu
. "$(dirname "$0")/cli_common.sh"

# shape PATH FIELDS: the fields of an object in $out, "name:type", sorted; s text, i number, b, o object, a array, n null
shape() {
    same "$(printf '%s' "$out" | $python -I -S -c '
import json, sys
kinds = {str: "s", int: "i", bool: "b", dict: "o", list: "a", type(None): "n"}
value = eval("d" + sys.argv[1], {"d": json.load(sys.stdin)})
print(" ".join(sorted(k + ":" + kinds[type(v)] for k, v in value.items())))' "$1")" \
        "$(tr -s '[:space:]' '\n' <<<"$2" | grep . | LC_ALL=C sort | paste -sd' ')" "shape of $1"
}

root="created:s freed_if_deleted:i name:s pool:s referenced:i size:i uuid:s volume:s"
ok tarn pool create tank d0 d1 --file-size 128M
head -c 1M /dev/urandom >one.raw
ok tarn image import one.raw tank/web
ok tarn snapshot create tank/web@s
ok tarn volume clone tank/web@s tank/copy
serve tank

ok tarn pool list --json
shape "" "pools:a"
shape "['pools'][0]" "free:i members:i name:s provisioned:i size:i state:s used:i uuid:s volumes:i"
ok tarn pool status --json
shape "" "pools:a"
ok tarn pool status --json tank
by=$([ "$MODE" = served ] && echo o || echo n)
shape "" "checksum_errors:i epoch:i failed:n free:i freeing:i generation:i layout:s log:o members:a metadata_used:i
    name:s provisioned:i readonly:b repaired_errors:i server:$by size:i slab:i snapshots:i stripe:i used:i uuid:s
    volumes:i"
shape "['log']" "size:i used:i"
shape "['members'][0]" "data:i discard_bytes:i discards:i errors:i flushes:i free:i metadata:i path:s read_bytes:i
    reads:i size:i unassigned:i used:i uuid:s write_bytes:i writes:i"
[ "$MODE" = direct ] || shape "['server']" "clients:a control:s machines:a nbd:a pid:i"
ok tarn pool check --json tank
shape "" "findings:a n_findings:i"
ok tarn volume list --json
shape "" "volumes:a"
shape "['volumes'][0]" "$root parent:s snapshots:i users:i"
shape "['volumes'][1]" "$root parent:s snapshots:i users:i"
ok tarn volume show --json tank/copy
shape "" "$root attached:a parent:s properties:o snapshots:a used_by:s users:i"
shape "['properties']" "bandwidth:s bandwidth-burst:s compression:s discard:s iops:s iops-burst:s on-full:s"
ok tarn snapshot list --json
shape "" "snapshots:a"
shape "['snapshots'][0]" "$root children:i clones:a parent:n snapshot:s"
same "$(json "['snapshots'][0]['clones']")" '["tank/copy"]'
ok tarn snapshot diff --json tank/web tank/web@s
shape "" "a:s b:s changed_bytes:i ranges:a"
ok tarn volume create tank/empty 2M
ok tarn snapshot diff --json tank/web tank/empty
shape "['ranges'][0]" "length:i offset:i"
ok tarn image info --json one.raw
shape "" "allocated:i backing_file:n backing_format:n bitmaps:a cluster_size:n compression:n corrupt:b data_file:n dirty:b file:s file_size:i format:s guessed:b snapshots:a supported:b variant:n version:n virtual_size:i"
cat >m.ovf <<'X'
<Envelope><DiskSection><Disk diskId="d" capacity="1048576"/></DiskSection><VirtualSystem id="m"><VirtualHardwareSection>
<Item><ResourceType>3</ResourceType><VirtualQuantity>2</VirtualQuantity></Item>
<Item><ResourceType>4</ResourceType><VirtualQuantity>256</VirtualQuantity></Item>
<Item><ResourceType>17</ResourceType><HostResource>ovf:/disk/d</HostResource></Item>
<Item><ResourceType>10</ResourceType><Connection>NAT</Connection></Item>
</VirtualHardwareSection></VirtualSystem></Envelope>
X
ok tarn image info --json m.ovf
shape "" "allocated:i file:s file_size:i format:s guessed:b machine:o supported:b virtual_size:n"
shape "['machine']" "cpus:i disks:a firmware:s memory:i name:s networks:a"
shape "['machine']['disks'][0]" "capacity:i controller:s file:n format:n"
shape "['machine']['networks'][0]" "mac:n network:s type:n"
gzip -c one.raw >a.gz
ok tarn image info --json a.gz
shape "" "allocated:i file:s file_size:i format:s guessed:b supported:b virtual_size:n"
unserve

# a pool that cannot be opened is listed with the reason; what stands on stdout is JSON also then
mkdir aside
mv d1 aside/d1
ok tarn pool list --json
shape "['pools'][0]" "error:s members:i name:s state:s"
for command in 'pool status' 'volume list' 'snapshot list'; do
    # shellcheck disable=SC2086
    fails 1 "member 1 .*missing" tarn $command --json
    printf '%s' "$out" | $python -I -S -c 'import json, sys; json.load(sys.stdin)' || die "$command --json: no JSON"
done
echo "json ($MODE): passed"
