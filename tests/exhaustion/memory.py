"""Out of memory at every allocation of a command: memory.py [STRIDE [SCENARIO]].

Each command is run again and again, the first time with its first allocation failing, then with its second, until none
is left to fail. It must succeed, or end with exit status 1 and a sentence; never die, hang, or leave a pool that the
check finds something in. STRIDE: after the first 40 allocations only each so-many-th is tried (default 1)."""
import json
import os
import re
import signal
import subprocess
import sys

import shim
from shim import fail, must, says_why, tarn

ALL_OF_THEM = 40
CONTENT = os.urandom(1 << 20)  # of tank/data


class Scenario:
    """A command whose n-th run is given by words(n) and needs what before(n) makes; then the pool must be in order."""

    def __init__(self, name, words, after=lambda n, done: None, statuses=(0, 1), before=lambda n: None, tells=False):
        self.name, self.words, self.after, self.statuses, self.before = name, words, after, statuses, before
        self.tells = tells  # it prints all there is, or fails


def took_place(done, *undo):
    """What was told to be done is there, and goes again; what failed may be there or not."""
    if done:
        must(*undo)
    else:
        tarn(*undo)


def is_gone(done, *delete):
    """What failed may be there or not. What was told to be deleted is not: the next run makes it anew."""
    if not done:
        tarn(*delete)


def is_restored(n, done):
    """What was told to be restored has kept what it replaced; and nothing is kept without a restore: then the volume
    would go on as a child of what is kept."""
    snapshots = json.loads(must("snapshot", "list", "tank/data", "--json"))["snapshots"]
    kept = [s for s in snapshots if "@before-restore-" in s["name"]]
    if len(kept) != 1 if done else any(s["children"] for s in kept):
        fail(f"snapshot restore, allocation {n} failing, done: {done}; kept: {kept}")
    for s in kept:
        must("snapshot", "delete", s["name"], "--yes")


def is_exported(n, done):
    """All of it has the file's name, or nothing has."""
    name = f"out{n}"
    if os.path.exists(name) != done:
        fail(f"image export, allocation {n} failing, done: {done}; its file is {'not ' if done else ''}there")
    if done:
        with open(name, "rb") as image:
            if image.read() != CONTENT:
                fail(f"image export, allocation {n} failing: its file holds something else")
        os.unlink(name)


def remove_created(n, done):
    took_place(done, "pool", "destroy", "--yes", f"new{n}")
    if os.path.exists(f"new{n}.disk"):
        os.unlink(f"new{n}.disk")
    tarn("pool", "forget", f"new{n}")


def run(words, environment):
    return tarn(*words, env=environment)


def serve(words, environment):
    """A server that comes up is ended politely."""
    server = subprocess.Popen([shim.TARN, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, env=environment)
    out = ""
    for line in server.stdout:
        out += line
        if line.startswith("  control"):
            server.send_signal(signal.SIGTERM)
    server.stdout.close()
    err = server.stderr.read()
    server.stderr.close()
    return subprocess.CompletedProcess(words, server.wait(timeout=shim.PATIENCE_S), out, err)


def what_is_told(text):
    """Names of things and of fields. A table may lose a heading or the signs of a tree: libsmartcols does not say so."""
    return re.findall(r'tank/[a-z@]+|"[a-z_]+":', text)


def numbers(stride):
    n = 0
    while True:
        n += 1 if n < ALL_OF_THEM else stride
        yield n


def try_all(scenario, orders, stride):
    tried = told = 0
    whole = what_is_told(must(*scenario.words(0))) if scenario.tells else None
    for n in numbers(stride):
        words = scenario.words(n)
        scenario.before(n)
        orders.set(fail_at=n, allocations=0, struck=0)
        runner = serve if words[0] == "serve" else run
        try:
            done = runner(words, orders.environment())
        except subprocess.TimeoutExpired:
            fail(f"{words}, allocation {n} failing: it hangs")
        if done.returncode not in scenario.statuses:
            fail(f"{words}, allocation {n} failing: exit status {done.returncode}: {done.stdout}{done.stderr}")
        if done.returncode != 0 and not says_why(done):
            fail(f"{words}, allocation {n} failing: it does not say why: '{done.stderr}'")
        if done.returncode == 0 and whole not in (None, what_is_told(done.stdout)):
            fail(f"{words}, allocation {n} failing: it does not print all of {whole}: {done.stdout}")
        struck = orders.get("struck")
        if not struck and done.returncode != 0:
            fail(f"{words} fails with all its memory: {done.stderr}")
        scenario.after(n, done.returncode == 0)
        told += done.returncode != 0
        tried += struck
        if n % 25 == 0 or not struck:
            must("pool", "check", "tank", "--data")
        if not struck:
            break
    print(f"{scenario.name}: {tried} of {n - 1} allocations failed, {told} times it failed and said so")
    if told == 0:
        fail(f"{scenario.name} never failed: the shortage does not reach it")


def scenarios():
    return [
        Scenario("pool create", lambda n: ("pool", "create", f"new{n}", f"new{n}.disk", "--file-size", "64M"),
                 remove_created),
        Scenario("volume create", lambda n: ("volume", "create", f"tank/v{n}", "1M"),
                 lambda n, done: took_place(done, "volume", "delete", f"tank/v{n}", "--yes")),
        Scenario("volume resize", lambda n: ("volume", "resize", "tank/web", f"{9 + n % 3}M", "--yes")),
        Scenario("snapshot create", lambda n: ("snapshot", "create", f"tank/web@s{n}"),
                 lambda n, done: took_place(done, "snapshot", "delete", f"tank/web@s{n}", "--yes")),
        Scenario("snapshot delete", lambda n: ("snapshot", "delete", "tank/web@old", "--yes"),
                 lambda n, done: is_gone(done, "snapshot", "delete", "tank/web@old", "--yes"),
                 before=lambda n: must("snapshot", "create", "tank/web@old")),
        Scenario("snapshot restore", lambda n: ("snapshot", "restore", "tank/data@first", "--yes"), is_restored),
        Scenario("volume clone", lambda n: ("volume", "clone", "tank/data@first", f"tank/c{n}"),
                 lambda n, done: took_place(done, "volume", "delete", f"tank/c{n}", "--yes")),
        Scenario("volume delete", lambda n: ("volume", "delete", "tank/old", "--yes"),
                 lambda n, done: is_gone(done, "volume", "delete", "tank/old", "--yes"),
                 before=lambda n: must("volume", "clone", "tank/data@first", "tank/old")),
        Scenario("image export", lambda n: ("image", "export", "tank/data@first", f"out{n}"), is_exported),
        Scenario("pool check", lambda n: ("pool", "check", "tank", "--data"), statuses=(0, 3)),
        Scenario("volume list", lambda n: ("volume", "list"), tells=True),
        Scenario("volume show", lambda n: ("volume", "show", "tank/data", "--json"), tells=True),
        Scenario("snapshot list", lambda n: ("snapshot", "list", "tank"), tells=True),
        Scenario("pool status", lambda n: ("pool", "status", "tank", "--json"), tells=True),
        Scenario("serve", lambda n: ("serve", "tank")),
    ]


def main():
    stride = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    folder = shim.workplace()
    orders = shim.Shim(folder.name)
    must("pool", "create", "tank", "a.disk", "b.disk", "--file-size", "64M")
    must("volume", "create", "tank/web", "8M")
    with open("image", "wb") as image:
        image.write(CONTENT)
    must("image", "import", "image", "tank/data")
    must("snapshot", "create", "tank/web@first", "tank/data@first")
    for scenario in scenarios():
        if len(sys.argv) < 3 or scenario.name == sys.argv[2]:
            try_all(scenario, orders, stride)


main()
