#!/bin/bash
# clients_tls.sh TOOL - clients that people use, over TLS, by certificate and by pre-shared key, right and wrong:
# nbdinfo, nbdcopy, nbdsh, qemu-img, qemu-io. Exit status 77: the tool is not here.
set -eu
tool=$1
here=$(dirname "$(readlink -f "$0")")
. "$here/cli_common.sh"
. "$here/tls_common.sh"
command -v "$tool" >/dev/null || skip "$tool is not installed"

authority ca
authority other
certificate server ca tls_www_server
certificate client ca tls_www_client
certificate expired ca tls_www_client 'activation_date = "2020-01-01 00:00:00"' 'expiration_date = "2020-02-01 00:00:00"'
certificate stranger other tls_www_client
client_folder right ca client
client_folder none ca
client_folder expired.d ca expired
client_folder stranger.d ca stranger
client_folder wrong-ca other client # which does not know the server's CA
key alice
mkdir keys wrong-keys
cp keys.psk keys/keys.psk
key alice wrong-keys/keys.psk
key mallory keys/other.psk

ok tarn pool create tank d1 --file-size 256M
ok tarn volume create tank/vol 64M
ok tarn snapshot create tank/vol@snap
serve_now tank --nbd tcp:127.0.0.1:0 --nbd unix:nbd.sock --tls require --tls-cert server.pem --tls-key server.key \
    --tls-ca ca.pem --tls-verify-peer --tls-psk keys.psk
port=$(grep -o 'nbd://127.0.0.1:[0-9]*' serve.tank.log | grep -o '[0-9]*$')
by_certificate() { echo "nbds://127.0.0.1:$port/tank/vol?tls-certificates=$work/$1"; }
by_key() { echo "nbds+unix://${2:-alice}@/tank/vol?socket=$work/nbd.sock&tls-psk-file=$work/$1"; }

good() {
    timeout -k 5 60 "$@" >out 2>err </dev/null || die "'$*' failed: $(cat out err)"
}
bad() {
    ! timeout -k 5 60 "$@" >out 2>err </dev/null || die "'$*' was served: $(cat out)"
    [ "$(wc -c <err)" -gt 0 ] || die "'$*' says nothing"
}

# everything that must not get in, for COMMAND... with the URI behind it
refused_uris() {
    bad "$@" "nbd://127.0.0.1:$port/tank/vol"
    bad "$@" "nbd+unix:///tank/vol?socket=$work/nbd.sock"
    for folder in none expired.d stranger.d wrong-ca; do
        bad "$@" "$(by_certificate "$folder")"
    done
    bad "$@" "$(by_key wrong-keys/keys.psk)"
    bad "$@" "$(by_key keys/other.psk mallory)"
}

run_nbdinfo() {
    for uri in "$(by_certificate right)" "$(by_key keys/keys.psk)"; do
        good nbdinfo --size "$uri"
        same "$(cat out)" 67108864
        good nbdinfo "$uri"
        grep -q 'with TLS' out || die "nbdinfo sees no TLS: $(cat out)"
        good nbdinfo --list "$uri"
        grep -q 'export="tank/vol@snap"' out || die "nbdinfo does not list the snapshot: $(cat out)"
        good nbdinfo --map "$uri"
    done
    refused_uris nbdinfo --size
}

run_nbdcopy() {
    head -c 64M /dev/urandom >random
    for uri in "$(by_certificate right)" "$(by_key keys/keys.psk)"; do
        for connections in 1 4; do
            good nbdcopy "--connections=$connections" random "$uri"
            rm -f back
            good nbdcopy "--connections=$connections" "$uri" back
            cmp random back || die "what was copied is not the same"
        done
    done
}

run_nbdsh() {
    PATH=/usr/bin:$PATH # Debian's module is for Debian's python3
    python3 -c 'import nbd' 2>/dev/null || skip "python3 has no module nbd"
    for uri in "$(by_certificate right)" "$(by_key keys/keys.psk)"; do
        good nbdsh -c "h.set_uri_allow_local_file(True); h.connect_uri('$uri')" -c '
import nbd
assert h.get_tls_negotiated()
data = bytes(range(256)) * 3000
h.pwrite(data, 12345, nbd.CMD_FLAG_FUA)
assert h.pread(len(data), 12345) == data
h.zero(100000, 13000)
h.flush()
assert h.pread(100000, 13000) == bytes(100000)
h.set_strict_mode(0)
for i in range(3): # a write past the end is refused, and the stream stays in step
    try:
        h.pwrite(bytes(4 << 20), (64 << 20) - 100)
        raise SystemExit("a write past the end was served")
    except nbd.Error as error:
        assert error.errno == "ENOSPC", error
    assert h.pread(345, 12345) == data[:345]
cookies = [h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray([i]) * 5000), i * 7777) for i in range(100)]
while cookies:
    h.poll(-1)
    cookies = [c for c in cookies if not h.aio_command_completed(c)]
for i in range(100):
    assert h.pread(5000, i * 7777) == bytes([i]) * 5000
h.shutdown()'
    done
    # what may go on without TLS may not here
    bad nbdsh -c "h.set_tls(nbd.TLS_DISABLE); h.connect_uri('nbd://127.0.0.1:$port/tank/vol')"
}

# as QEMU has it: OBJECT of credentials, then options of the driver
qemu_certificate() { echo "tls-creds-x509,id=tls,endpoint=client,dir=$work/$1"; }
qemu_key() { echo "tls-creds-psk,id=tls,endpoint=client,dir=$work/$1,username=alice"; }
image="driver=nbd,host=127.0.0.1,port=PORT,export=tank/vol,tls-creds=tls,tls-hostname=localhost"

run_qemu-img() {
    image=${image/PORT/$port}
    head -c 20M /dev/urandom >random
    truncate -s 64M random
    for object in "$(qemu_certificate right)" "$(qemu_key keys)"; do
        good qemu-img info --object "$object" --image-opts "$image"
        good qemu-img convert --object "$object" -n -f raw --target-image-opts random "$image"
        good qemu-img compare --object "$object" --image-opts driver=file,filename=random "$image"
        good qemu-img map --object "$object" --output=json --image-opts "$image"
    done
    for folder in none expired.d stranger.d wrong-ca; do
        bad qemu-img info --object "$(qemu_certificate $folder)" --image-opts "$image"
    done
    bad qemu-img info --object "$(qemu_key wrong-keys)" --image-opts "$image"
    bad qemu-img info "nbd://127.0.0.1:$port/tank/vol"
}

run_qemu-io() {
    image=${image/PORT/$port}
    for object in "$(qemu_certificate right)" "$(qemu_key keys)"; do
        good qemu-io --object "$object" --image-opts "$image" -c 'write -P 5 1000 5000' -c 'read -P 5 1000 5000' \
            -c 'write -P 7 0 4M' -c 'write -z 100 1M' -c 'read -P 0 100 1M' -c 'discard 1M 1M' -c flush \
            -c 'write -f -P 9 1M 64k' -c 'read -P 9 1M 64k' -c 'aio_write -P 1 0 1M' -c 'aio_write -P 2 1M 1M' \
            -c 'aio_write -P 3 2M 1M' -c aio_flush -c 'read -P 1 0 1M' -c 'read -P 2 1M 1M' -c 'read -P 3 2M 1M'
        ! grep -qiE 'fail|error|differ' out err || die "qemu-io says: $(cat out err)"
    done
}

"run_$tool"
# it serves on, and ends politely
good nbdinfo --size "$(by_key keys/keys.psk)"
serve_end
echo "$tool over TLS: passed"
