"""disk.py FILE KIND SEED: a raw image of random content, the same for the same seed; see common.sh."""
import random
import sys

path, kind, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
rng = random.Random(f"{kind} {seed}")
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
sizes = {
    "sparse": 40 * MIB,
    "dense": 6 * MIB,
    "odd": 5 * MIB + 3 * 512,
    "bytes": 5 * MIB + 3 * 512 + 77,
    "small": 512,
    "empty": 16 * MIB,
    "huge": 2048 * GIB + 5 * MIB + 512,
}
size = sizes[kind]


def content(n):
    """Half of it cannot be compressed."""
    data = rng.randbytes(n)
    words = (b"%016x" % rng.getrandbits(64)) * (4096 // 16)
    return b"".join(
        data[at : at + 4096] if rng.random() < 0.5 else words[: min(4096, n - at)] for at in range(0, n, 4096)
    )


def put(f, offset, data):
    offset = max(0, min(offset, size - len(data)))
    f.seek(offset)
    f.write(data)


with open(path, "wb") as f:
    f.truncate(size)
    if kind in ("dense", "small"):
        put(f, 0, content(size))
    elif kind in ("odd", "bytes"):
        put(f, 0, content(100 * KIB))
        put(f, size, content(70 * KIB + 5))
        put(f, 2 * MIB, bytes(512 * KIB))
    elif kind == "sparse":
        for _ in range(40):
            n = rng.choice([512, 4 * KIB, 64 * KIB, 64 * KIB, 200 * KIB, 1 * MIB])
            data = bytes(n) if rng.random() < 0.25 else content(n)
            put(f, rng.randrange(size) // 512 * 512, data)
        put(f, 10 * MIB, content(3 * MIB))
    elif kind == "huge":
        put(f, 0, content(64 * KIB))
        put(f, size, content(64 * KIB + 512))
        at = GIB
        while at < size:
            put(f, at - 96 * KIB, content(192 * KIB))
            at *= 2
