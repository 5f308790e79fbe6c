# nbd_durable.py write|verify ROUND - see cli_durable.sh. A round is about one way to make something durable, and
# nothing after it makes it so by the way.
import nbd
import os
import sys

FUA, NO_HOLE = nbd.CMD_FLAG_FUA, nbd.CMD_FLAG_NO_HOLE
MIB = 1 << 20
WAYS = ("flush by another", "write", "zero", "zero, no hole", "trim")
step, round = sys.argv[1], int(sys.argv[2])
way = WAYS[round % len(WAYS)]


def connect():
    h = nbd.NBD()
    h.add_meta_context("base:allocation")
    h.set_export_name("tank/v")
    h.connect_unix(os.environ["TARN_RUNTIME_DIR"] + "/tank.nbd")
    return h


def data(length, seed):
    return bytes((i * 7 + round * 31 + seed) % 255 + 1 for i in range(length))


def hole_bytes(h):
    found = []
    h.block_status(MIB, 0, lambda context, at, extents, error: found.extend(extents) or 0)
    return sum(n for n, flags in zip(found[0::2], found[1::2]) if flags & nbd.STATE_HOLE)


def write():
    h = [connect() for i in range(4)]
    h[0].pwrite(data(2 * MIB, 0), 0)
    h[0].flush()
    if way == "flush by another":
        for i in range(3):
            h[i].pwrite(data(200000, 1 + i), 100 + i * 200000)
        h[3].flush()
    elif way == "write":
        h[0].pwrite(data(600000, 1), 100, FUA)
    elif way == "zero":
        h[0].zero(600000, 100, FUA)
    elif way == "zero, no hole":
        h[0].zero(600000, 100, FUA | NO_HOLE)
    elif way == "trim":
        h[0].trim(600000, 100, FUA)


def verify():
    h = connect()
    expected = bytearray(data(2 * MIB, 0))
    if way == "flush by another":
        expected[100:600100] = b"".join(data(200000, 1 + i) for i in range(3))
    elif way == "write":
        expected[100:600100] = data(600000, 1)
    else:
        expected[100:600100] = bytes(600000)
    assert h.pread(2 * MIB, 0) == expected, way + ": lost"
    if way in ("trim", "zero"):
        assert hole_bytes(h) > 0, "what was trimmed or zeroed takes space"
    else:
        assert hole_bytes(h) == 0, "what was written, or zeroed to be no hole, is one"


{"write": write, "verify": verify}[step]()
