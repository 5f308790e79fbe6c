#!/bin/bash
# clients.sh TOOL - the NBD clients that people use, against a server started here: nbdinfo, nbdcopy, nbdsh,
# qemu-img, qemu-io, fio; or a test of ours, test_nbd_overlap or test_nbd_hostile, by its path. The server is `tarn serve` over a new pool where TARN names the binary, otherwise the
# one of NBD_FAKE_SERVER over a volume in memory. Exit status 77: the tool is not here.
set -eu

tool=$1
case $tool in
*/*) tool=$(realpath "$tool") ;;
esac
dir=$(mktemp -d)
server=
failed=0

cleanup() {
	exec 7>&- # the one of NBD_FAKE_SERVER ends at the end of its input
	if [ -n "$server" ]; then
		[ -z "${TARN:-}" ] || kill -TERM "$server" 2>/dev/null || true
		wait "$server" 2>/dev/null || true
	fi
	rm -rf "$dir"
}
trap cleanup EXIT

skip() {
	echo "SKIP: $1"
	exit 77
}

# check NAME COMMAND... - the command succeeds
check() {
	local name=$1
	shift
	if "$@" >"$dir/out" 2>&1; then
		echo "ok   $name"
	else
		echo "FAIL $name: $*"
		sed 's/^/     /' "$dir/out"
		failed=1
	fi
}

refused() {
	! "$@"
}

start_fake() {
	mkfifo "$dir/input"
	"$NBD_FAKE_SERVER" 120 <"$dir/input" >"$dir/socket-path" &
	server=$!
	exec 7>"$dir/input"
	while [ ! -s "$dir/socket-path" ]; do
		kill -0 "$server"
		sleep 0.05
	done
	socket=$(cat "$dir/socket-path")
}

start_tarn() {
	export TARN_STATE_DIR=$dir/state TARN_RUNTIME_DIR=$dir/run
	"$TARN" pool create pool "$dir/a.disk" "$dir/b.disk" --file-size 256M >/dev/null
	"$TARN" volume create pool/vol 64M >/dev/null
	"$TARN" snapshot create pool/vol@snap >/dev/null
	socket=$dir/nbd.sock
	"$TARN" serve pool --nbd "unix:$socket" >"$dir/serve.log" 2>&1 &
	server=$!
	while [ ! -S "$socket" ]; do
		kill -0 "$server" || { cat "$dir/serve.log"; exit 1; }
		sleep 0.05
	done
}

random_file() {
	head -c "$1" /dev/urandom >"$2"
}

# ---- the tools ----

nbdinfo_size() { [ "$(nbdinfo --size "$uri")" = 67108864 ]; }
nbdinfo_map_empty() { nbdinfo --map "$uri" | grep -qE '^ *0 +67108864 +3 '; }
nbdinfo_list() { nbdinfo --list "nbd+unix:///?socket=$socket" | grep -q 'export="pool/vol@snap"'; }
nbdinfo_can() { nbdinfo --can "$1" "$uri"; }
nbdinfo_readonly() { nbdinfo --is read-only "$snapshot_uri"; }
nbdinfo_map_data() {
	head -c 8192 /dev/urandom | dd of="$dir/sparse" bs=64K seek=1 status=none && truncate -s 64M "$dir/sparse" &&
		nbdcopy --destination-is-zero "$dir/sparse" "$uri" && nbdinfo --map "$uri" | grep -qE '^ *65536 +8192 +0 '
}

run_nbdinfo() {
	check "the size" nbdinfo_size
	check "a new volume is one hole" nbdinfo_map_empty
	check "data are not" nbdinfo_map_data
	check "the list of exports" nbdinfo_list
	for what in flush fua trim zero fast-zero df multi-conn cache structured-reply; do
		check "can $what" nbdinfo_can "$what"
	done
	check "a snapshot is read-only" nbdinfo_readonly
	check "an unknown export is refused" refused nbdinfo "nbd+unix:///pool/nosuch?socket=$socket"
}

nbdcopy_round_trip() {
	nbdcopy --connections="$1" "$dir/random" "$uri" && nbdcopy --connections="$1" "$uri" "$dir/back" &&
		cmp "$dir/random" "$dir/back"
}
nbdcopy_zeroes() {
	truncate -s 64M "$dir/empty"
	nbdcopy --destination-is-zero "$dir/random" "$uri" && nbdcopy "$dir/empty" "$uri" && nbdcopy "$uri" "$dir/back" &&
		cmp "$dir/empty" "$dir/back"
}

run_nbdcopy() {
	random_file 64M "$dir/random"
	check "in and out by one connection" nbdcopy_round_trip 1
	check "in and out by four" nbdcopy_round_trip 4
	check "a sparse file" nbdcopy_zeroes
	check "a snapshot takes no writes" refused nbdcopy "$dir/random" "$snapshot_uri"
}

run_nbdsh() {
	PATH=/usr/bin:$PATH # Debian's module is for Debian's python3
	python3 -c 'import nbd' 2>/dev/null || skip "python3 has no module nbd"
	check "each command by libnbd" nbdsh -u "$uri" -c - <<'PYTHON'
import nbd
assert h.get_size() == 64 * 1024 * 1024
assert h.get_block_size(nbd.SIZE_MINIMUM) == 1 and h.get_block_size(nbd.SIZE_MAXIMUM) == 32 * 1024 * 1024
data = bytes(range(256)) * 100
h.pwrite(data, 12345, nbd.CMD_FLAG_FUA)
assert h.pread(len(data), 12345) == data
h.flush()
h.zero(1000, 13000)
assert h.pread(1000, 13000) == bytes(1000) and h.pread(655, 12345) == data[:655]
h.zero(100000, 13000, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)
h.zero(4096, 0, nbd.CMD_FLAG_FAST_ZERO)
h.trim(1 << 20, 0)
h.cache(1 << 20, 0)
parts = []
h.pread_structured(65536, 0, lambda buf, offset, status, err: parts.append((offset, len(buf))), nbd.CMD_FLAG_DF)
assert parts == [(0, 65536)]
for request in (lambda: h.pread(2, (64 << 20) - 1), lambda: h.trim(1, 64 << 20)):
    h.set_strict_mode(0)
    try:
        request()
        raise SystemExit("a request past the end was served")
    except nbd.Error as error:
        assert error.errno == "EINVAL", error
try:
    h.pwrite(b"xx", (64 << 20) - 1)
    raise SystemExit("a write past the end was served")
except nbd.Error as error:
    assert error.errno == "ENOSPC", error
cookies = [h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray([i]) * 5000), i * 7777) for i in range(100)]
while cookies:
    h.poll(-1)
    cookies = [c for c in cookies if not h.aio_command_completed(c)]
for i in range(100):
    assert h.pread(5000, i * 7777) == bytes([i]) * 5000
h.shutdown()
PYTHON
	check "simple replies" nbdsh -c "h.set_request_structured_replies(False); h.connect_uri('$uri')" -c - <<'PYTHON'
assert not h.get_structured_replies_negotiated()
h.pwrite(b"abc", 4095)
assert h.pread(3, 4095) == b"abc"
h.shutdown()
PYTHON
	check "ABORT" nbdsh -c "h.set_opt_mode(True); h.connect_uri('$uri'); h.opt_abort()"
}

qemu_img_round_trip() {
	qemu-img convert -n -f raw -O raw "$dir/random" "$uri" && qemu-img compare -f raw -F raw "$dir/random" "$uri"
}
qemu_img_qcow2() {
	qemu-img convert -f raw -O qcow2 "$uri" "$dir/copy.qcow2" && qemu-img compare -f raw -F qcow2 "$uri" "$dir/copy.qcow2"
}
qemu_img_map() { qemu-img map --output=json -f raw "$uri" | grep -q '"zero": true'; }

run_qemu-img() {
	random_file 20M "$dir/random"
	truncate -s 64M "$dir/random"
	check "info" qemu-img info -f raw "$uri"
	check "convert in and compare" qemu_img_round_trip
	check "convert out and compare" qemu_img_qcow2
	check "map" qemu_img_map
	check "bench" qemu-img bench -f raw -c 2000 -d 32 -w --flush-interval=100 "$uri"
}

# qemu-io's exit status says little before 7.0: its words are looked at.
qemu_io() {
	qemu-io -f raw "$@" "$uri" >"$dir/qemu-io" 2>&1 && ! grep -qiE 'fail|error|differ' "$dir/qemu-io"
}

qemu_io_snapshot() {
	qemu-io -r -f raw -c 'read -P 0 0 4M' -c flush "$snapshot_uri" >"$dir/qemu-io" 2>&1 &&
		! grep -qiE 'fail|error|differ' "$dir/qemu-io"
}

run_qemu-io() {
	check "write and read, unaligned" qemu_io -c 'write -P 5 1000 5000' -c 'read -P 5 1000 5000' -c 'read -P 0 0 1000'
	check "write zeroes" qemu_io -c 'write -P 7 0 4M' -c 'write -z 100 1M' -c 'read -P 0 100 1M' -c 'read -P 7 0 100'
	check "write zeroes, unmapping" qemu_io -c 'write -P 7 0 4M' -c 'write -zu 0 4M' -c 'read -P 0 0 4M'
	check "discard and flush" qemu_io -c 'write -P 7 0 4M' -c 'discard 1M 1M' -c flush -c 'read -P 7 2M 2M'
	check "a snapshot, read and flushed" qemu_io_snapshot
	check "FUA" qemu_io -c 'write -f -P 9 1M 64k' -c 'read -P 9 1M 64k'
	check "many at once" qemu_io -c 'aio_write -P 1 0 1M' -c 'aio_write -P 2 1M 1M' -c 'aio_write -P 3 2M 1M' \
		-c aio_flush -c 'read -P 1 0 1M' -c 'read -P 2 1M 1M' -c 'read -P 3 2M 1M'
}

run_fio() {
	fio --enghelp=nbd 2>&1 | grep -q 'NBD' || skip "this fio has no nbd engine"
	for pattern in "randwrite 4k 32" "write 1m 4" "randwrite 512-64k 16" "randrw 8k 16"; do
		read -r rw bs depth <<<"$pattern"
		check "verify $rw bs=$bs iodepth=$depth" fio --name=verify --ioengine=nbd --uri="$uri" --rw="$rw" \
			--bsrange="${bs/-*/}-${bs/*-/}" --iodepth="$depth" --size=64m --io_size=32m --verify=crc32c --do_verify=1 \
			--verify_fatal=1 --fsync=2000 --minimal
	done
}

run_test() {
	check "$(basename "$tool")" env "NBD_SOCKET=$socket" "$tool"
	check "the server serves" nbdinfo_size
}

cd "$dir" # fio leaves files where it runs
command -v "$tool" >/dev/null || skip "$tool is not installed"
if [ -n "${TARN:-}" ]; then start_tarn; else start_fake; fi
uri="nbd+unix:///pool/vol?socket=$socket"
snapshot_uri="nbd+unix:///pool/vol@snap?socket=$socket"
case $tool in
*/*) run_test ;;
*) "run_$tool" ;;
esac
exit $failed
