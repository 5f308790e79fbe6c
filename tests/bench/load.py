"""What is measured: the rows of the table, and one run of nbdload or vhostload for each."""
import json
import subprocess
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    name: str
    title: str
    args: tuple       # for nbdload, or vhostload
    once: bool = False  # touches each block once, and so needs a volume of its own


RANDOM = ("--bs", "4K", "--depth", "32")
SECTORS = ("--bs", "512", "--depth", "32")
FOUR = ("--connections", "4")
ALONE = ("--bs", "4K", "--depth", "1")
LARGE = ("--bs", "1M", "--depth", "8")

ROWS = {row.name: row for row in (
    Row("read", "random read, 4 KiB, depth 32", ("--op", "randread", *RANDOM)),
    Row("write", "random write to allocated space, 4 KiB, depth 32", ("--op", "randwrite", *RANDOM)),
    Row("read4", "random read, 4 KiB, four connections of depth 32",
        ("--op", "randread", *FOUR, *RANDOM)),
    Row("write4", "random write to allocated space, 4 KiB, four connections of depth 32",
        ("--op", "randwrite", *FOUR, *RANDOM)),
    Row("sectorread", "random read of single sectors, 512 B, depth 32",
        ("--op", "randread", *SECTORS)),
    Row("sectorwrite", "random write of single sectors, 512 B, depth 32",
        ("--op", "randwrite", *SECTORS)),
    Row("first", "first write of each block, 4 KiB, depth 32",
        ("--op", "randwrite", "--once", *RANDOM), once=True),
    Row("snapwrite", "first write of each block after a snapshot, 4 KiB, depth 32",
        ("--op", "randwrite", "--once", *RANDOM), once=True),
    Row("clonewrite", "first write of each block of a clone (overlay), 4 KiB, depth 32",
        ("--op", "randwrite", "--once", *RANDOM), once=True),
    Row("wide", "first writes scattered over 64 GiB, 4 KiB, depth 32",
        ("--op", "randwrite", "--once", *RANDOM), once=True),
    Row("seqread", "sequential read, 1 MiB, depth 8", ("--op", "read", *LARGE)),
    Row("seqwrite", "sequential write, 1 MiB, depth 8", ("--op", "write", *LARGE)),
    Row("fragread", "sequential read, 1 MiB, depth 8, after random writes", ("--op", "read", *LARGE)),
    Row("mixed", "random, 70 % reads, fsync each 32 writes, 4 KiB, depth 32",
        ("--op", "randrw", "--flush-every", "32", *RANDOM)),
    Row("flush", "one random write, one flush, in turn, 4 KiB",
        ("--op", "randwrite", "--flush-every", "1", "--bs", "4K", "--depth", "1")),
    Row("firstflush", "first writes, fsync each 8, 4 KiB, depth 8",
        ("--op", "randwrite", "--once", "--flush-every", "8", "--bs", "4K", "--depth", "8"),
        once=True),
    Row("snapflush", "first writes after a snapshot, fsync each 8, 4 KiB, depth 8",
        ("--op", "randwrite", "--once", "--flush-every", "8", "--bs", "4K", "--depth", "8"),
        once=True),
    Row("snap1", "random read of the head, 1 snapshot back", ("--op", "randread", *RANDOM)),
    Row("snap10", "random read of the head, 10 snapshots back", ("--op", "randread", *RANDOM)),
    Row("snap1000", "random read of the head, 1000 snapshots back", ("--op", "randread", *RANDOM)),
    Row("oldest", "random read of the oldest of these snapshots", ("--op", "randread", *RANDOM)),
    Row("vhostread", "vhost-user-blk: random read, 4 KiB, depth 32, one queue",
        ("--op", "randread", *RANDOM)),
    Row("vhostwrite", "vhost-user-blk: random write to allocated space, 4 KiB, depth 32, one queue",
        ("--op", "randwrite", *RANDOM)),
    Row("vhostread1", "vhost-user-blk: random read, 4 KiB, depth 1", ("--op", "randread", *ALONE)),
    Row("vhostwrite1", "vhost-user-blk: random write to allocated space, 4 KiB, depth 1",
        ("--op", "randwrite", *ALONE)),
)}

WIDE_BYTES = 64 << 30  # of a volume on which scattered blocks share no map node

# What can be measured one after the other on one filled volume, in this order: random writes scatter its blocks.
ALLOCATED = ("seqread", "seqwrite", "read", "write", "read4", "write4", "sectorread", "sectorwrite",
             "fragread", "mixed", "flush")

VHOST = ("vhostread", "vhostwrite", "vhostread1", "vhostwrite1")


class LoadFailed(Exception):
    pass


class Load:
    """Runs the load clients with the settings of the whole benchmark. Where there is no URI but a
    path, that is the socket of a vhost-user-blk device."""

    def __init__(self, nbd_binary, vhost_binary, seconds, warmup):
        self.nbd_binary, self.vhost_binary = nbd_binary, vhost_binary
        self.seconds, self.warmup = seconds, warmup

    def _run(self, uri, args, timeout):
        client = [self.nbd_binary, "--uri"] if "://" in uri else [self.vhost_binary, "--socket"]
        done = subprocess.run([*client, uri, *args], capture_output=True, text=True, timeout=timeout)
        if done.returncode != 0:
            raise LoadFailed(done.stderr.strip() or f"{client[0]} ended with {done.returncode}")
        return json.loads(done.stdout)

    def fill(self, uri):
        """Write all of the export, and flush."""
        self._run(uri, ("--op", "write", "--once", "--bs", "1M", "--depth", "8", "--end-flush"), 120)

    def scatter(self, uri, seed, seconds=0.02):
        """A few writes here and there."""
        self._run(uri, ("--op", "randwrite", "--seconds", str(seconds), "--seed", str(seed)), 60)

    def measure(self, uri, row, seed, pid=None):
        args = [*row.args, "--seconds", str(self.seconds), "--warmup", str(self.warmup),
                "--seed", str(seed)]
        if pid:
            args += ["--server-pid", str(pid)]
        return self._run(uri, args, self.seconds + self.warmup + 90)
