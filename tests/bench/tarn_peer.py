"""tarn itself as one of the servers."""
import json
import os
import subprocess
import time

from load import ALLOCATED, ROWS, VHOST, WIDE_BYTES
from peers import Peer
from server import Server

POOL = "bench"
SNAPSHOT_BUDGET = 60     # seconds for making them
MEMBER_FACTOR = 16       # a sparse member's size over the volume's


class TarnFailed(Exception):
    pass


class Tarn(Peer):
    name = "tarn"
    rows = ALLOCATED + VHOST + ("first", "firstflush", "wide", "snapwrite", "snapflush", "clonewrite",
                                "snap1", "snap10", "snap1000", "oldest")

    def __init__(self, n_members=1):
        self.n_members = n_members
        if n_members > 1:
            self.name = f"tarn, {n_members} members"
            self.rows = ("read", "write", "first", "seqread", "seqwrite", "mixed", "flush",
                         "firstflush")

    def missing(self):
        return None  # run looks for the binary before

    def argv(self, ctx, socket_path):
        return [ctx.tools["tarn"], "serve", POOL, "--nbd", f"unix:{socket_path}",
                "--vhost-user", self.vhost_folder(ctx)]

    def vhost_folder(self, ctx):
        path = os.path.join(ctx.run_dir, "vhost")
        os.makedirs(path, exist_ok=True)
        return path

    def serve(self, ctx, *args):
        path = ctx.new_socket()
        return Server(self.argv(ctx, path), path, env=ctx.tarn_env())

    def tarn(self, ctx, *args):
        done = subprocess.run([ctx.tools["tarn"], *args], capture_output=True, text=True, timeout=120,
                              env=ctx.tarn_env(), stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise TarnFailed(f"tarn {' '.join(args)}: {done.stderr.strip()}")
        return done.stdout

    def status(self, ctx):
        return json.loads(self.tarn(ctx, "pool", "status", POOL, "--json"))

    def member_flushes(self, ctx):
        """Flushes that each member got since the pool was opened."""
        return [m["flushes"] for m in self.status(ctx)["members"]]

    def measure_counted(self, ctx, server, row, export):
        """A row, and how many flushes the busiest member got for each of the client's."""
        before = self.member_flushes(ctx)
        result = ctx.measure_row(self, server, row, export)
        after = self.member_flushes(ctx)
        if result and result["all_flushes"]:
            most = max(b - a for a, b in zip(before, after))
            result["member_flushes_per_flush"] = most / result["all_flushes"]

    def new_volume(self, ctx, name, fill_through=None, size=None):
        self.tarn(ctx, "volume", "create", f"{POOL}/{name}", str(size or ctx.size))
        if fill_through:
            ctx.load.fill(fill_through.uri(f"{POOL}/{name}"))

    def measure_allocated(self, ctx, server):
        rows = ctx.wanted([r for r in ALLOCATED if r in self.rows])
        if rows:
            self.new_volume(ctx, "full", server)
        for row in rows:
            self.measure_counted(ctx, server, row, f"{POOL}/full")

    def measure_vhost(self, ctx, server):
        rows = ctx.wanted([r for r in VHOST if r in self.rows])
        if not rows:
            return
        self.new_volume(ctx, "guest")
        socket_path = os.path.join(self.vhost_folder(ctx), "guest.sock")
        ctx.load.fill(socket_path)
        for row in rows:
            ctx.measure_row(self, server, row, address=socket_path)

    def measure_once(self, ctx, server):
        for row in ctx.wanted([r for r in ("first", "firstflush", "wide") if r in self.rows]):
            self.new_volume(ctx, row.name, size=WIDE_BYTES if row.name == "wide" else None)
            self.measure_counted(ctx, server, row, f"{POOL}/{row.name}")
        shared = ctx.wanted([r for r in ("snapwrite", "snapflush", "clonewrite") if r in self.rows])
        if shared:
            self.new_volume(ctx, "shared", server)
        for row in shared:
            self.tarn(ctx, "snapshot", "create", f"{POOL}/shared@{row.name}")
            export = f"{POOL}/shared"
            if row.name == "clonewrite":
                export = f"{POOL}/clone"
                self.tarn(ctx, "volume", "clone", f"{POOL}/shared@{row.name}", export)
            self.measure_counted(ctx, server, row, export)

    def snapshot_until(self, ctx, server, have, wanted, deadline):
        """Each snapshot with a few writes before it, so that every one has something of its own."""
        export = server.uri(f"{POOL}/old")
        while have < wanted and time.monotonic() < deadline:
            if have % 10 == 0:
                ctx.load.scatter(export, seed=have + 1)
            self.tarn(ctx, "snapshot", "create", f"{POOL}/old@s{have}")
            have += 1
        return have

    def measure_snapshots(self, ctx, server):
        """Only in the first turn, with as many measurements as there are turns: a thousand snapshots take time."""
        if ctx.turn > 0 or not ctx.wanted([r for r in ("snap1", "snap10", "snap1000", "oldest")
                                           if r in self.rows]):
            return
        self.new_volume(ctx, "old", server)
        deadline, have = time.monotonic() + SNAPSHOT_BUDGET, 0
        for row in ctx.wanted(("snap1", "snap10", "snap1000")):
            wanted = int(row.name[4:])
            have = self.snapshot_until(ctx, server, have, wanted, deadline)
            if have < wanted:
                ctx.note(f"{self.name}: only {have} snapshots in {SNAPSHOT_BUDGET} s for {row.name}")
            for _ in range(ctx.turns):
                ctx.measure_row(self, server, row, f"{POOL}/old")
        for row in ctx.wanted(("oldest",)):
            have = self.snapshot_until(ctx, server, have, 1, deadline)
            for _ in range(ctx.turns):
                ctx.measure_row(self, server, row, f"{POOL}/old@s0")

    def measure_open(self, ctx, server):
        """Killed in the middle of writes: how long until it serves again?"""
        self.new_volume(ctx, "killed")
        ctx.load.scatter(server.uri(f"{POOL}/killed"), seed=7, seconds=2)
        server.kill()
        ctx.record(self.name, "open", {"seconds": server.start()})

    def measure(self, ctx):
        rows = ctx.wanted(self.rows)
        if not rows:
            return
        members = [os.path.join(ctx.dir, f"member{i}") for i in range(self.n_members)]
        self.tarn(ctx, "pool", "create", POOL, *members, "--file-size",
                  str(MEMBER_FACTOR * ctx.size // self.n_members))
        try:
            with self.serve(ctx) as server:
                self.measure_allocated(ctx, server)
                self.measure_vhost(ctx, server)
                self.measure_once(ctx, server)
                self.measure_snapshots(ctx, server)
                server.note_memory()
                ctx.record(self.name, "memory", {
                    "peak_rss_bytes": server.peak_rss_bytes,
                    "metadata_bytes": self.status(ctx)["metadata_used"]})
                if ctx.wants_open and self.n_members == 1:
                    self.measure_open(ctx, server)
            self.tarn(ctx, "pool", "destroy", POOL, "--yes")
        finally:
            for path in members:
                if os.path.exists(path):
                    os.unlink(path)


assert all(row in ROWS for row in Tarn.rows)
