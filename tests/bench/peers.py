"""The servers that tarn is compared with, each in the configuration that suits it best."""
import json
import os
import shutil
import subprocess

from load import ALLOCATED, ROWS, VHOST, WIDE_BYTES
from server import Server, VhostServer

CLUSTERS_PLAIN = ""
CLUSTERS_SUB = "extended_l2=on,cluster_size=128k"


def run(*argv):
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=120).stdout


def write_out(path, size):
    """Really written, not only allocated: as a disk is."""
    chunk = os.urandom(1 << 20)
    with open(path, "wb") as f:
        for _ in range(size >> 20):
            f.write(chunk)
        os.fsync(f.fileno())


class Peer:
    name = ""
    binary = ""       # what must be installed
    rows = ALLOCATED
    has_disk = True   # else it is measured once, not on each disk

    def missing(self):
        return None if shutil.which(self.binary) else f"{self.binary} is not installed"

    def argv(self, ctx, socket_path):
        raise NotImplementedError

    def serve(self, ctx, *args):
        path = ctx.new_socket()
        server = Server(self.argv(ctx, path, *args), path)
        server.env = dict(os.environ, LD_PRELOAD=ctx.tools["countsync.so"],
                          BENCH_SYNC_COUNT=server.sync_count_path)
        return server

    def measure(self, ctx):
        """One turn: set up, measure the rows that are wanted, clean up."""
        raise NotImplementedError


class NoDisk(Peer):
    """Serves nothing real: what the protocol alone costs."""
    rows = ("read", "write")
    has_disk = False

    def measure(self, ctx):
        with self.serve(ctx) as server:
            ctx.measure_rows(self, server, ctx.wanted(self.rows))


class Limit(NoDisk):
    name = "bare protocol"
    extra = ()

    def missing(self):
        return None

    def argv(self, ctx, socket_path):
        return [ctx.tools["nbdnull"], socket_path, str(ctx.size), *self.extra]


class LimitUnbatched(Limit):
    name = "bare protocol, a call a request"
    extra = ("--unbatched",)


class NbdkitNull(NoDisk):
    name = "nbdkit null"
    binary = "nbdkit"

    def argv(self, ctx, socket_path):
        return ["nbdkit", "-f", "-U", socket_path, "null", str(ctx.size)]


class NoServer(Peer):
    """fio on the raw file: what the disk gives without any protocol."""
    name = "io_uring on the raw file"
    binary = "fio"
    rows = ("read", "write", "seqread", "seqwrite")
    modes = {"read": "randread", "write": "randwrite", "seqread": "read", "seqwrite": "write"}

    def measure_row(self, ctx, image, row):
        is_large = row.name.startswith("seq")
        out = run("fio", "--name=raw", f"--filename={image}", f"--size={ctx.size}",
                  f"--direct={int(ctx.direct)}", "--ioengine=io_uring", "--output-format=json",
                  f"--rw={self.modes[row.name]}", f"--bs={'1M' if is_large else '4k'}",
                  f"--iodepth={8 if is_large else 32}", "--time_based", f"--runtime={ctx.load.seconds}s",
                  f"--ramp_time={ctx.load.warmup}s", f"--randseed={ctx.turn + 1}")
        job = json.loads(out)["jobs"][0]
        side = job["read" if row.name.endswith("read") else "write"]
        share = (job["usr_cpu"] + job["sys_cpu"]) / 100
        points = {"p50": "50.000000", "p99": "99.000000"}
        latency = {k: side["clat_ns"]["percentile"][v] / 1000 for k, v in points.items()}
        ctx.record(self.name, row.name, {
            "iops": side["iops"], "mib_per_s": side["bw_bytes"] / 1048576,
            "block_bytes": 1 << 20 if is_large else 4096,
            "client_cpu_us_per_io": share * 1e6 / side["iops"] if side["iops"] else 0.0,
            "latency_us": {"count": side["total_ios"], **latency}})

    def measure(self, ctx):
        rows = ctx.wanted(self.rows)
        if not rows:
            return
        image = os.path.join(ctx.dir, "image.raw")
        write_out(image, ctx.size)
        for row in rows:
            self.measure_row(ctx, image, row)
        os.unlink(image)


class FilledImage(Peer):
    """Serves an image that is filled first."""
    rows = ALLOCATED

    def create(self, ctx):
        raise NotImplementedError

    def measure(self, ctx):
        rows = ctx.wanted(self.rows)
        if not rows:
            return
        image = self.create(ctx)
        try:
            with self.serve(ctx, image) as server:
                ctx.load.fill(server.uri())
                ctx.measure_rows(self, server, rows)
        finally:
            os.unlink(image)


class RawFile(FilledImage):
    """Serves a plain file."""
    def create(self, ctx):
        image = os.path.join(ctx.dir, "image.raw")
        with open(image, "wb") as f:
            f.truncate(ctx.size)
        return image


class NbdkitFile(RawFile):
    name = "nbdkit file"
    binary = "nbdkit"

    def argv(self, ctx, socket_path, image):
        return ["nbdkit", "-f", "-U", socket_path, "file", image]


class QsdRaw(RawFile):
    name = "qemu-storage-daemon raw"
    binary = "qemu-storage-daemon"

    def argv(self, ctx, socket_path, image):
        direct = "on" if ctx.direct else "off"
        return ["qemu-storage-daemon",
                "--blockdev", f"driver=file,node-name=disk,filename={image},cache.direct={direct},"
                              f"aio={ctx.qemu_aio},discard=unmap",
                "--nbd-server", f"addr.type=unix,addr.path={socket_path}",
                "--export", "type=nbd,id=e,node-name=disk,name=,writable=on"]


class QsdVhost(FilledImage):
    """The same daemon, for virtual machines."""
    name = "qemu-storage-daemon raw"
    binary = "qemu-storage-daemon"
    image_format = "raw"
    rows = VHOST

    def missing(self):
        return super().missing() or (None if shutil.which("qemu-img") else "qemu-img is not installed")

    def argv(self, ctx, socket_path, image):
        direct = "on" if ctx.direct else "off"
        return ["qemu-storage-daemon",
                "--blockdev", f"driver=file,node-name=file,filename={image},cache.direct={direct},"
                              f"aio={ctx.qemu_aio},discard=unmap",
                "--blockdev", f"driver={self.image_format},node-name=disk,file=file,discard=unmap",
                "--export", "type=vhost-user-blk,id=e,node-name=disk,writable=on,num-queues=1,"
                            f"addr.type=unix,addr.path={socket_path}"]

    def create(self, ctx):
        image = os.path.join(ctx.dir, "image")
        run("qemu-img", "create", "-q", "-f", self.image_format, image, str(ctx.size))
        return image

    def serve(self, ctx, *args):
        path = ctx.new_socket()
        return VhostServer(self.argv(ctx, path, *args), path)


class QsdVhostQcow2(QsdVhost):
    name = "qemu-storage-daemon qcow2"
    image_format = "qcow2"


def qemu_nbd_argv(ctx, socket_path, image, image_format):
    cache = "none" if ctx.direct else "writeback"
    return ["qemu-nbd", "-t", "-e", "16", "-k", socket_path, "-f", image_format, "--cache", cache,
            "--aio", ctx.qemu_aio, "--discard", "unmap", image]


class QemuNbdRaw(RawFile):
    name = "qemu-nbd raw"
    binary = "qemu-nbd"

    def argv(self, ctx, socket_path, image):
        return qemu_nbd_argv(ctx, socket_path, image, "raw")


class Qcow2(Peer):
    name = "qemu-nbd qcow2"
    binary = "qemu-nbd"
    clusters = CLUSTERS_PLAIN
    on_new = ("first", "firstflush", "wide")
    rows = ALLOCATED + ("first", "snapwrite", "clonewrite", "firstflush", "snapflush",
                        "wide")

    def argv(self, ctx, socket_path, image):
        return qemu_nbd_argv(ctx, socket_path, image, "qcow2")

    def create(self, ctx, name, backing=None, size=None):
        image = os.path.join(ctx.dir, name)
        options = ["-o", self.clusters] if self.clusters else []
        if backing:
            options += ["-b", backing, "-F", "qcow2"]
        run("qemu-img", "create", "-q", "-f", "qcow2", *options, image, str(size or ctx.size))
        return image

    def measure_on(self, ctx, image, rows):
        with self.serve(ctx, image) as server:
            ctx.measure_rows(self, server, rows)

    def measure_filled(self, ctx):
        """Rows that need a filled image; the snapshots and overlays need it too."""
        image = self.create(ctx, "full.qcow2")
        with self.serve(ctx, image) as server:
            ctx.load.fill(server.uri())
            ctx.measure_rows(self, server, ctx.wanted(ALLOCATED))
        for row in ctx.wanted(("snapwrite", "snapflush")):
            run("qemu-img", "snapshot", "-c", row.name, image)
            self.measure_on(ctx, image, [row])
        for row in ctx.wanted(("clonewrite",)):
            overlay = self.create(ctx, "overlay.qcow2", backing=image)
            self.measure_on(ctx, overlay, [row])
            os.unlink(overlay)
        os.unlink(image)

    def measure(self, ctx):
        wanted = [r for r in self.rows if ctx.wanted((r,))]
        if set(wanted) - set(self.on_new):
            self.measure_filled(ctx)
        for row in ctx.wanted([r for r in self.on_new if r in self.rows]):
            image = self.create(ctx, "new.qcow2", size=WIDE_BYTES if row.name == "wide" else None)
            self.measure_on(ctx, image, [row])
            os.unlink(image)


class Qcow2Sub(Qcow2):
    name = "qemu-nbd qcow2, 128k/4k"
    clusters = CLUSTERS_SUB
    rows = ("first", "wide")


PEERS = (Limit(), LimitUnbatched(), NbdkitNull(), NoServer(), NbdkitFile(), QsdRaw(), QemuNbdRaw(), Qcow2(),
         Qcow2Sub(), QsdVhost(), QsdVhostQcow2())
assert all(row in ROWS for peer in PEERS for row in peer.rows)
