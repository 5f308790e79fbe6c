"""What the tests here share: programs under shim.c, and the sentences that must come of it."""
import mmap
import os
import re
import subprocess
import sys
import tempfile

FIELDS = ("fail_at", "allocations", "struck", "inode", "read_error", "write_error", "flush_error", "times", "delay_ns",
          "operations")  # shim.h's
TARN = os.environ["TARN"]
# A command that hangs is ended; the machine may be busy.
PATIENCE_S = 120


class Shim:
    """Orders to programs that run under it, and what they have counted."""

    def __init__(self, folder):
        self.path = os.path.join(folder, "shim")
        with open(self.path, "wb") as f:
            f.truncate(4096)
        with open(self.path, "r+b") as f:
            self.memory = mmap.mmap(f.fileno(), 4096)

    def set(self, **fields):
        for name, value in fields.items():
            at = 8 * FIELDS.index(name)
            self.memory[at:at + 8] = value.to_bytes(8, "little")

    def get(self, name):
        at = 8 * FIELDS.index(name)
        return int.from_bytes(self.memory[at:at + 8], "little")

    def environment(self, **more):
        return {**os.environ, "LD_PRELOAD": os.environ["SHIM_LIBRARY"], "SHIM": self.path, **more}


def fail(*words):
    print("FAILED:", *words, file=sys.stderr)
    sys.exit(1)


def workplace():
    """A folder of its own, with a state of its own; it goes with the program."""
    folder = tempfile.TemporaryDirectory(prefix="tarn-exhaustion.")
    os.chdir(folder.name)
    os.environ.update(TARN_STATE_DIR=folder.name + "/state", TARN_RUNTIME_DIR=folder.name + "/run", LC_ALL="C.UTF-8")
    return folder


def tarn(*words, **options):
    return subprocess.run([TARN, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE_S,
                          **options)


def must(*words):
    done = tarn(*words)
    if done.returncode != 0:
        fail(words, "failed:", done.stderr)
    return done.stdout


def says_why(done):
    """Sentences of tarn's alone, at least one, and nothing of a library's or the run-time's."""
    lines = done.stderr.splitlines()
    return any(re.match("tarn: .", line) for line in lines) and all(re.match("(tarn|hint): ", line) for line in lines)
