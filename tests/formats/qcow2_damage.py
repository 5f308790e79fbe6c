"""qcow2_damage.py TARN N FILE...: damages copies of qcow2 images in N ways, and compares what `tarn image check` and
`qemu-img check` count.

The same way for the same number: QCOW2_DAMAGE=NUMBER tries one, and keeps it as damaged.qcow2.
"""
import json
import os
import random
import struct
import subprocess
import sys

tarn, count, bases = sys.argv[1], int(sys.argv[2]), sorted(sys.argv[3:])
OFFSET = 0xFFFFFFFFFFFE00
FINDINGS_MAX = 100  # that are told


def get(data, at):
    return struct.unpack(">Q", data[at : at + 8])[0]


def put(data, at, value):
    data[at : at + 8] = struct.pack(">Q", value & (2**64 - 1))


class Places:
    """Where the tables of an image are."""

    def __init__(self, data):
        self.cluster = 1 << struct.unpack(">I", data[20:24])[0]
        l1_size, l1 = struct.unpack(">I", data[36:40])[0], get(data, 40)
        self.l1 = [l1 + 8 * i for i in range(l1_size)]
        self.l1_used = [at for at in self.l1 if get(data, at)]
        self.l2_used = []
        for at in self.l1_used:
            table = get(data, at) & OFFSET
            self.l2_used += [i for i in range(table, min(table + self.cluster, len(data) - 7), 8) if get(data, i)]
        table, clusters = get(data, 48), struct.unpack(">I", data[56:60])[0]
        self.blocks = [at for at in range(table, table + clusters * self.cluster, 8) if get(data, at)]
        self.counts = [
            get(data, at) + i for at in self.blocks if get(data, at) < len(data) for i in range(self.cluster)
        ]
        self.counts = [at for at in self.counts if at < len(data)]


def other_value(rng, data, places, at):
    value, cluster = get(data, at), places.cluster
    return rng.choice(
        [
            lambda: 0,
            lambda: value ^ 1 << 63,
            lambda: value ^ 1 << 62,
            lambda: value ^ 1 << rng.randrange(64),
            lambda: value & ~OFFSET | rng.randrange(len(data) // cluster + 3) * cluster,
            lambda: value & ~OFFSET | rng.randrange(len(data) // 512 + 3) * 512,
            lambda: value & ~OFFSET | (len(data) + cluster * rng.randrange(5)) & OFFSET,
            lambda: rng.getrandbits(64),
            lambda: value | 1,
            lambda: get(data, rng.choice(places.l2_used)),
        ]
    )()


def damage(rng, data):
    """What was done, for messages; None where both programs are known to differ, on purpose."""
    done = []
    for _ in range(rng.choice([1, 1, 1, 2, 3, 6])):
        places = Places(data)
        kind = rng.choice(["l1", "l1 used", "l2", "l2", "l2", "block", "count", "count"])
        if kind == "count" and places.counts:
            at = rng.choice(places.counts)
            data[at] = rng.choice([0, 1, 2, 255])
            done.append((kind, at, data[at]))
            continue
        groups = {"l1": places.l1, "l1 used": places.l1_used, "l2": places.l2_used, "block": places.blocks}
        group = groups.get(kind)
        if not group or not places.l2_used:
            continue
        at = rng.choice(group)
        value = other_value(rng, data, places, at)
        # An L1 entry without an offset but with flags: qemu-img takes the header for an L2 table.
        if kind.startswith("l1") and value and not value & OFFSET:
            return None
        done.append((kind, at, hex(get(data, at)), hex(value)))
        put(data, at, value)
    return done


def run(*words):
    return subprocess.run(words, capture_output=True, text=True, timeout=60)


def compare(number):
    rng = random.Random(number)
    base = rng.choice(bases)
    data = bytearray(open(base, "rb").read())
    done = damage(rng, data)
    if done is None:
        return False
    with open("damaged.qcow2", "wb") as f:
        f.write(data)
    theirs = run("qemu-img", "check", "-f", "qcow2", "--output=json", "damaged.qcow2")
    ours = run(tarn, "image", "check", "--json", "damaged.qcow2")
    try:
        wanted = json.loads(theirs.stdout)
    except ValueError:
        return False
    # Where qemu-img stops in the middle, its numbers mean nothing.
    if wanted["check-errors"]:
        return False
    where = f"damage {number} of {base}, {done}"
    try:
        found = json.loads(ours.stdout)
    except ValueError:
        sys.exit(f"{where}: {ours.stderr}")
    # An overlap that the file's own counts hide is found by tarn only.
    overlaps = sum("at once" in finding for finding in found["findings"])
    is_all = len(found["findings"]) < FINDINGS_MAX
    got = found["errors"] - overlaps, found["leaks"]
    want = wanted.get("corruptions", 0), wanted.get("leaks", 0)
    if got != want and (is_all or got[0] < want[0] or got[1] != want[1]):
        sys.exit(f"{where}: {got} errors and leaks, for qemu-img {want}: {found['findings']}")
    if found["end"] != wanted["image-end-offset"] and not overlaps:
        sys.exit(f"{where}: ends at {found['end']}, for qemu-img at {wanted['image-end-offset']}")
    return True


if "QCOW2_DAMAGE" in os.environ:
    sys.exit(not compare(int(os.environ["QCOW2_DAMAGE"])))
compared = sum(compare(number) for number in range(count))
if compared < count * 3 // 4:
    sys.exit(f"only {compared} of {count} could be compared")
