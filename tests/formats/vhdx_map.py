"""vhdx_map.py MAP FILE RAW: a map of FILE covers all of RAW's bytes, what it calls zeroes are, and what it says is in FILE
at an offset is there."""
import json
import os
import sys

STEP = 1 << 20


def data_ranges(fd, end):
    """Where a sparse file has data."""
    at = 0
    while at < end:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            return
        hole = os.lseek(fd, at, os.SEEK_HOLE)
        yield at, min(hole, end)
        at = hole


entries = json.load(open(sys.argv[1]))
file, raw = (os.open(name, os.O_RDONLY) for name in sys.argv[2:4])
size = os.fstat(raw).st_size
at = 0
for x in entries:
    if x["start"] != at or x["length"] <= 0:
        sys.exit(f"there is a gap before {x}")
    at += x["length"]
if at != size:
    sys.exit(f"the map ends at {at}, and the disk at {size}")
for begin, end in data_ranges(raw, size):
    for x in entries:
        a, b = max(begin, x["start"]), min(end, x["start"] + x["length"])
        while a < b:
            n = min(STEP, b - a)
            bytes = os.pread(raw, n, a)
            if x["zero"] and any(bytes):
                sys.exit(f"there is data at {a}: {x}")
            if not x["zero"] and os.pread(file, n, x["offset"] + a - x["start"]) != bytes:
                sys.exit(f"that is not where {a} is: {x}")
            a += n
