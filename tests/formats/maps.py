"""maps.py A B: two maps as 'qemu-img map --output=json' prints them say the same of every byte. What only one of them
tells (qemu-img tells of compression since 8.2) is not compared. What reads as zeroes is no data, though qemu-img says so
of holes in files whose format places data there."""
import json
import sys


def load(path):
    with open(path) as f:
        entries = json.load(f)
    return [{**x, "data": x["data"] and not x["zero"]} for x in entries]


def merged(entries, keys):
    out = []
    for x in entries:
        x = {k: x[k] for k in keys + ["start", "length", "offset"] if k in x}
        last = out[-1] if out else None
        if (
            last
            and all(last.get(k) == x.get(k) for k in keys)
            and last["start"] + last["length"] == x["start"]
            and ("offset" in last) == ("offset" in x)
            and ("offset" not in x or last["offset"] + last["length"] == x["offset"])
        ):
            last["length"] += x["length"]
        else:
            out.append(x)
    return out


def cut(entries, end):
    """qemu-img has whole sectors only."""
    return [{**x, "length": min(x["length"], end - x["start"])} for x in entries if x["start"] < end]


def end_of(entries):
    return entries[-1]["start"] + entries[-1]["length"] if entries else 0


a, b = load(sys.argv[1]), load(sys.argv[2])
if 0 < end_of(b) - end_of(a) < 512:
    b = cut(b, end_of(a))
keys = [
    k
    for k in ("depth", "present", "zero", "data", "compressed")
    if all(k in x for x in a) and all(k in x for x in b)
]
a, b = merged(a, keys), merged(b, keys)
for x, y in zip(a, b):
    if x != y:
        sys.exit(f"the maps differ:\n  {x}\n  {y}")
if len(a) != len(b):
    sys.exit(f"the maps differ in length: {len(a)}, {len(b)}; the first that one lacks: {(a + b)[min(len(a), len(b))]}")
