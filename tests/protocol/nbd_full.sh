#!/bin/bash
# nbd_full.sh - a pool that is full, over NBD: writes get ENOSPC wherever they land, also over data that a snapshot
# shares and over which block status shows no hole; everything else goes on, and so do writes once there is space.
set -eu
. "$(dirname "$0")/cli_common.sh"

$python -c 'import nbd' 2>/dev/null || skip "python3 has no module nbd"
ok tarn pool create p a.disk --file-size 64M
ok tarn volume create p/vol 256M
serve_now p --nbd "unix:$work/nbd.sock"

ok $python - "nbd+unix:///p/vol?socket=$work/nbd.sock" "$TARN" <<'PYTHON'
import nbd, os, subprocess, sys
uri, tarn = sys.argv[1:]
MIB = 1 << 20
h = nbd.NBD()
h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
h.connect_uri(uri)

def run(*words):
    subprocess.run([tarn, *words], check=True, stdin=subprocess.DEVNULL, timeout=60)

def write_until_full(offset, end):
    while offset < end:
        try:
            h.pwrite(os.urandom(MIB), offset)
        except nbd.Error as error:
            assert error.errno == "ENOSPC", error
            return offset
        offset += MIB
    raise SystemExit("the pool does not become full")

first = os.urandom(MIB)
h.pwrite(first, 0)
full = write_until_full(MIB, 256 * MIB)
assert 16 * MIB < full < 64 * MIB, full
run("snapshot", "create", "p/vol@s")

# The data are shared now: no hole is shown, and an overwrite has no space all the same.
extents = []
h.block_status(8 * MIB, 0, lambda context, offset, entries, error: extents.extend(entries))
assert extents == [8 * MIB, 0], extents
write_until_full(2 * MIB, full)
assert h.pread(MIB, 0) == first
h.flush()

# A discard and the snapshot's end give space back.
h.trim(8 * MIB, 4 * MIB)
run("snapshot", "delete", "p/vol@s", "--yes")
for attempt in range(100):
    try:
        h.pwrite(first, 4 * MIB, nbd.CMD_FLAG_FUA)
        break
    except nbd.Error as error:
        assert error.errno == "ENOSPC", error
else:
    raise SystemExit("no space came back")
assert h.pread(MIB, 4 * MIB) == first
h.shutdown()
PYTHON
serve_end
ok tarn pool check p --data
# Who runs the server was warned before.
grep -q "'p': [89][0-9] % of the space for data is taken" serve.p.log || die "no warning before the pool was full"
