"""A server whose one disk fails or is slow, and one that is refused io_uring: disks.py.

The disk is a file whose operations shim.c has fail, or take long. Who reads what lies on it gets EIO, or waits; what lies
on the other disk is served as ever; the log names the member; when the disk is well again, or the server started anew,
all is as it was."""
import ctypes
import errno
import json
import os
import signal
import struct
import subprocess
import sys
import time

try:
    import nbd
except ImportError:
    print("SKIP: no Python module of libnbd")
    sys.exit(77)

import shim
from shim import fail, must

BLOCK = 4096
FOR_GOOD = 1 << 40


class Server:
    def __init__(self, environment, prepare=None):
        self.log = open("serve.log", "w+")
        self.process = subprocess.Popen([shim.TARN, "serve", "tank"], stdin=subprocess.DEVNULL, stdout=self.log,
                                        stderr=subprocess.STDOUT, env=environment, preexec_fn=prepare)
        self.wait_for("  control")

    def text(self):
        self.log.seek(0)
        return self.log.read()

    def wait_for(self, sentence):
        deadline = time.monotonic() + 60
        while sentence not in self.text():
            if self.process.poll() is not None or time.monotonic() > deadline:
                fail(f"the server does not say '{sentence}': {self.text()}")
            time.sleep(0.02)

    def client(self, volume="web"):
        h = nbd.NBD()
        h.connect_uri(f"nbd+unix:///tank/{volume}?socket={os.environ['TARN_RUNTIME_DIR']}/tank.nbd")
        return h

    def end(self, statuses=(0,)):
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(timeout=shim.PATIENCE_S) not in statuses:
            fail("the server ends with", self.process.returncode, self.text())
        self.log.close()


def content(i):
    return struct.pack("<Q", i + 1) * (BLOCK // 8)


def outcome(request, *words):
    """0, or the errno that it is answered with."""
    try:
        request(*words)
    except nbd.Error as error:
        return error.errnum
    return 0


def read_all(h, blocks):
    """Which blocks answer EIO; all others must be right."""
    bad = set()
    for i in range(blocks):
        try:
            if h.pread(BLOCK, i * BLOCK) != content(i):
                fail(f"block {i} holds other data")
        except nbd.Error as error:
            if error.errnum != errno.EIO:
                fail(f"block {i}: {error}")
            bad.add(i)
    return bad


def main():
    folder = shim.workplace()
    orders = shim.Shim(folder.name)
    under_shim = orders.environment(TARN_LOOP="threads")
    blocks = 64
    must("pool", "create", "tank", "a.disk", "b.disk", "--file-size", "128M")
    must("volume", "create", "tank/web", "8M")

    server = Server(under_shim)
    h = server.client()
    for i in range(blocks):
        h.pwrite(content(i), i * BLOCK)
    h.flush()
    orders.set(inode=os.stat("b.disk").st_ino)

    # A disk that is a hundred times slower than disks are.
    orders.set(delay_ns=20_000_000, operations=0)
    if read_all(h, blocks) != set():
        fail("a slow disk makes reads fail")
    h.pwrite(content(0), 0, nbd.CMD_FLAG_FUA)
    slow = orders.get("operations")
    if not 0 < slow:
        fail("nothing went to the slow disk")
    orders.set(delay_ns=0)

    # One read that fails: it is tried again, and nobody notices.
    orders.set(read_error=errno.EIO, times=1)
    once = read_all(h, blocks)
    if len(once) > 1:
        fail(f"one error costs {len(once)} blocks")
    # A disk that cannot be read any more.
    orders.set(times=FOR_GOOD)
    lost = read_all(h, blocks)
    if not 0 < len(lost) < blocks:
        fail(f"{len(lost)} of {blocks} blocks lie on one of two disks")
    server.wait_for("b.disk'")
    orders.set(read_error=0)
    if read_all(h, blocks) != set():
        fail("the disk is well again, and reads fail")

    # One that cannot be written: whose data go there gets an error, and the old content stays.
    orders.set(write_error=errno.EIO, times=FOR_GOOD)
    answers = [outcome(h.pwrite, content(i), i * BLOCK) for i in range(blocks)]
    if set(answers) - {0, errno.EIO} or errno.EIO not in answers:
        fail("writes to a disk that fails answer", answers)
    if read_all(h, blocks) != set():
        fail("a write that failed costs what was there")
    orders.set(write_error=0)

    # A flush that fails stops the pool: it is never tried again, and reads go on.
    orders.set(flush_error=errno.EIO, times=1)
    answers = [outcome(h.pwrite, content(i), i * BLOCK, nbd.CMD_FLAG_FUA) for i in range(8)]
    if errno.EIO not in answers:
        fail("a flush that failed is not told:", answers)
    server.wait_for("has stopped writing")
    if outcome(h.pwrite, content(0), 0) == 0 or outcome(h.flush) == 0:
        fail("a pool that has stopped takes writes")
    if read_all(h, blocks) != set():
        fail("a pool that has stopped cannot be read")
    status = json.loads(must("pool", "status", "--json", "tank"))
    if "b.disk" not in json.dumps(status):
        fail("the status does not tell of the member:", status)
    h.shutdown()
    server.end(statuses=(0, 1))
    orders.set(flush_error=0, inode=0)

    # The next server, which is refused io_uring, as in Docker's default profile.
    server = Server({**os.environ}, prepare=refuse_io_uring)
    fds = f"/proc/{server.process.pid}/fd"
    if any("io_uring" in os.readlink(f"{fds}/{fd}") for fd in os.listdir(fds)):
        fail("io_uring was not refused")
    h = server.client()
    if read_all(h, blocks) != set():
        fail("what was flushed is not there after the pool had stopped")
    h.pwrite(content(5), 5 * BLOCK, nbd.CMD_FLAG_FUA)
    if read_all(h, blocks) != set():
        fail("without io_uring data are other ones")
    h.shutdown()
    server.end()
    must("pool", "check", "tank", "--data")
    print(f"slow: {slow} operations; unreadable: {len(lost)} of {blocks} blocks")


def refuse_io_uring():
    """io_uring_setup() (425 on all architectures) fails with EPERM from now on."""
    statements = [(0x20, 0, 0, 0), (0x15, 0, 1, 425), (0x06, 0, 0, 0x00050000 | errno.EPERM), (0x06, 0, 0, 0x7fff0000)]
    program = b"".join(struct.pack("HBBI", *s) for s in statements)
    buffer = ctypes.create_string_buffer(program)
    filter_ = struct.pack("HL", len(statements), ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) < 0 or libc.prctl(22, 2, ctypes.create_string_buffer(filter_), 0, 0) < 0:
        os._exit(77)


main()
