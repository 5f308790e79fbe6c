"""info.py TARN QEMU: 'tarn image info --json' and 'qemu-img info --output=json' say the same of an image. Each tells more
than the other: what only one has is not compared."""
import datetime
import json
import sys


def load(path):
    with open(path) as f:
        return json.load(f)


def utc(seconds):
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def pairs(ours, theirs):
    """(what, ours, theirs)"""
    special = theirs.get("format-specific", {}).get("data", {})
    of_several = ours["format"] == "vmdk" and any(x["filename"] != theirs["filename"] for x in special["extents"])
    yield "format", ours["format"], {"vpc": "vhd"}.get(theirs["format"], theirs["format"])
    size = ours["virtual_size"]
    if ours["format"] == "raw":  # of which qemu-img has whole sectors only
        size = (size + 511) // 512 * 512
    yield "virtual size", size, theirs["virtual-size"]
    yield "backing file", ours["backing_file"], theirs.get("backing-filename")
    if not of_several:  # where qemu-img looks into the others, and adds them up
        yield "cluster size", ours["cluster_size"], theirs.get("cluster-size")
        yield "allocated", ours["allocated"], theirs["actual-size"]
    if ours["format"] == "vmdk":
        yield "variant", ours["variant"], special["create-type"]
    if ours["format"] != "qcow2":
        return
    yield "backing format", ours["backing_format"], theirs.get("backing-filename-format")
    yield "dirty", ours["dirty"], theirs["dirty-flag"]
    yield "corrupt", ours["corrupt"], special.get("corrupt", False)
    yield "version", ours["version"], {"0.10": "2", "1.1": "3"}[special["compat"]]
    yield "data file", ours["data_file"], special.get("data-file")
    yield "snapshots", sorted(
        (x["id"], x["name"], x["vm_state_size"], x["created"]) for x in ours["snapshots"]
    ), sorted((x["id"], x["name"], x["vm-state-size"], utc(x["date-sec"])) for x in theirs.get("snapshots", []))
    yield "bitmaps", sorted((x["name"], x["granularity"], x["automatic"]) for x in ours["bitmaps"]), sorted(
        (x["name"], x["granularity"], "auto" in x["flags"]) for x in special.get("bitmaps", [])
    )


for what, a, b in pairs(load(sys.argv[1]), load(sys.argv[2])):
    if a != b:
        sys.exit(f"{what}: tarn says {a}, qemu-img {b}")
