"""One server process: started, waited for, ended by its pid."""
import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.parse

START_TIMEOUT = 30  # seconds
STOP_TIMEOUT = 30
PR_SET_PDEATHSIG = 1


class ServerFailed(Exception):
    pass


def die_with_parent():
    """In the child: a benchmark that is killed leaves no server behind (prctl(2))."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def is_listening(path):
    with socket.socket(socket.AF_UNIX) as s:
        try:
            s.connect(path)
        except OSError:
            return False
    return True


class Server:
    def __init__(self, argv, socket_path, env=None):
        self.argv, self.socket_path, self.env = argv, socket_path, env
        self.sync_count_path = socket_path + ".syncs"
        self.process = None
        self.peak_rss_bytes = 0

    @property
    def pid(self):
        return self.process.pid

    def uri(self, export=""):
        return (f"nbd+unix:///{urllib.parse.quote(export, safe='/@')}"
                f"?socket={urllib.parse.quote(self.socket_path)}")

    def start(self):
        """Returns the seconds that it took until the socket answered."""
        log = self.socket_path + ".log"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.socket_path)
        began = time.monotonic()
        with open(log, "wb") as out:
            self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                            env=self.env, preexec_fn=die_with_parent)
        while not is_listening(self.socket_path):
            if self.process.poll() is not None or time.monotonic() - began > START_TIMEOUT:
                self.stop()
                with open(log, errors="replace") as f:
                    raise ServerFailed(f"{self.argv[0]} does not serve: {f.read()[-500:].strip()}")
            time.sleep(0.005)
        return time.monotonic() - began

    def syncs(self):
        """fsync() and fdatasync() calls so far; None where countsync is not preloaded."""
        try:
            with open(self.sync_count_path, "rb") as f:
                return int.from_bytes(f.read(8), sys.byteorder)
        except OSError:
            return None

    def note_memory(self):
        with contextlib.suppress(OSError), open(f"/proc/{self.pid}/status") as f:
            for line in f:
                if line.startswith("VmHWM:"):
                    self.peak_rss_bytes = int(line.split()[1]) * 1024

    def kill(self):
        """As a crash does."""
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process.poll() is None:
            self.note_memory()
            self.process.terminate()
            try:
                self.process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self.kill()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()


class VhostServer(Server):
    """Its one device is at the socket, which stands for a URI."""

    def uri(self, export=""):
        return self.socket_path
