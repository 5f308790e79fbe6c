#!/bin/bash
# descriptors.sh - a server that has used up its descriptors: who comes then waits or is refused, and the log says so; who
# is connected goes on; when descriptors come free all goes on as before.
set -eu
. "$(dirname "$0")/../protocol/cli_common.sh"
$python -c 'import nbd' 2>/dev/null || skip "no Python module of libnbd"

ok tarn pool create tank a.disk --file-size 64M
ok tarn volume create tank/web 8M
serve_now tank
[ -e /proc/$server/fd ] || skip "no /proc"
command -v prlimit >/dev/null || skip "no prlimit"

# Room for a few more than are open now.
open=$(ls /proc/$server/fd | wc -l)
prlimit --pid $server --nofile=$((open + 6)):4096 || skip "limits of another process cannot be set here"
timeout 200 $python - "$work/run/tank.nbd" "$work/run/tank.control" <<'PY' || die "clients of a server without descriptors"
import nbd, socket, sys, time
nbd_path, control_path = sys.argv[1:]
uri = "nbd+unix:///tank/web?socket=" + nbd_path
DEADLINE = time.monotonic() + 120

def status(answer_within):
    """What the control socket answers, or None where it does not in time."""
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(answer_within)
    try:
        s.connect(control_path)
        s.sendall(b'{"command":"pool-status","pool":"tank"}\n')
        return s.makefile().readline() or None
    except (TimeoutError, BlockingIOError, ConnectionError):
        return None
    finally:
        s.close()

first = nbd.NBD()
first.connect_uri(uri)
first.pwrite(b"a" * 4096, 0)

# More than there is room for: they are connected by the kernel, and greeted by nobody.
crowd = []
for i in range(20):
    s = socket.socket(socket.AF_UNIX)
    s.connect(nbd_path)
    crowd.append(s)
time.sleep(0.5)
for i in range(20):
    first.pwrite(bytes([i]) * 4096, 4096 * i)
    assert first.pread(4096, 4096 * i) == bytes([i]) * 4096
first.flush()
answer = status(2)
assert answer is None or '"ok"' in answer or '"error"' in answer, answer
first.pwrite(b"b" * 4096, 0, nbd.CMD_FLAG_FUA)

# Free again.
for s in crowd:
    s.close()
while status(5) is None:
    assert time.monotonic() < DEADLINE, "the control socket answers nobody any more"
second = nbd.NBD()
second.connect_uri(uri)
assert second.pread(4096, 0) == b"b" * 4096
second.shutdown()
first.shutdown()
PY
grep -q "cannot accept a connection: Too many open files" serve.tank.log || die "the server says nothing of what it lacks"
[ "$(grep -c "Too many open files" serve.tank.log)" -lt 500 ] || die "the server's log is flooded"
serve_end
ok tarn pool check tank --data
