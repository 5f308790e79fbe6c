#!/bin/bash
# The disk for cloud-init is one to a real kernel: with the names of Rock Ridge, and with those of Joliet.
. "$(dirname "$(readlink -f "$0")")/lib.sh"

cat >"$work/web.yaml" <<'END'
name: web
disks:
  - volume: tank/web
seed:
  hostname: web.example.org
  ssh-keys:
    - ssh-ed25519 AAAA me
  network-config: net
END
head -c 5000 /dev/zero | tr '\0' n >"$work/net"
"$MAKE_SEED" "$work/web.yaml" "$work/seed.iso"
cat >"$work/look" <<'END'
set -e
mkdir -p /m
for options in ro ro,norock; do
        mount -t iso9660 -o "$options" /dev/vda /m
        echo "$(ls /m)" $(wc -c </m/network-config) $(tr -d n </m/network-config | wc -c)
        cat /m/meta-data /m/user-data
        umount /m
done
END
one='meta-data
network-config
user-data 5000 0
instance-id: "instance"
local-hostname: "web.example.org"
#cloud-config
hostname: "web.example.org"
ssh_authorized_keys:
  - "ssh-ed25519 AAAA me"'
lab --module isofs --file "$work/look=lab/look" --disk "$work/seed.iso" --timeout 120 -- sh /lab/look >"$work/seen"
diff "$work/seen" <(printf '%s\n%s\n' "$one" "$one")
echo "vm_seed: passed"
