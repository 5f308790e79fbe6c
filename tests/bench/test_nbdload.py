#!/usr/bin/env python3
"""nbdload finds what a server does wrong, and nothing where it does right.

usage: test_nbdload.py BUILD_DIR    (nbdload and nbdnull in it)
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import unittest

sys.dont_write_bytecode = True

from server import Server

BUILD = None
SIZE = 32 << 20


def load(server, *args):
    done = subprocess.run([os.path.join(BUILD, "nbdload"), "--uri", server.uri(), *args],
                          capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


class Memory(unittest.TestCase):
    """Against nbdkit's memory plugin, which keeps what it is given."""

    def setUp(self):
        if not shutil.which("nbdkit"):
            self.skipTest("nbdkit is not installed")
        self.dir = tempfile.TemporaryDirectory()
        self.addCleanup(self.dir.cleanup)
        path = os.path.join(self.dir.name, "s")
        self.stamps = os.path.join(self.dir.name, "stamps")
        self.server = Server(["nbdkit", "-f", "-U", path, "memory", str(SIZE)], path)
        self.server.start()
        self.addCleanup(self.server.stop)

    def good(self, *args):
        status, out, err = load(self.server, *args)
        self.assertEqual((status, err), (0, ""))
        return json.loads(out)

    def test_what_is_written_once_in_random_order_reads_back(self):
        wrote = self.good("--op", "randwrite", "--once", "--verify", "--stamps", self.stamps)
        self.assertEqual((wrote["writes"], wrote["plan_ended"]), (SIZE // 4096, True))
        for extra in ([], ["--bs", "1M"], ["--structured"], ["--structured", "--bs", "1M"]):
            read = self.good("--op", "read", "--once", "--verify", "--stamps", self.stamps, *extra)
            self.assertEqual(read["checked_bytes"], SIZE)

    def test_mixed_load_on_several_connections_verifies(self):
        done = self.good("--op", "randrw", "--verify", "--connections", "4", "--flush-every", "5",
                         "--seconds", "0.3", "--length", "4M")
        self.assertGreater(done["reads"], 0)
        self.assertGreater(done["flushes"], 0)
        self.assertGreaterEqual(done["all_flushes"], done["flushes"])

    def test_blocks_of_a_sector_verify(self):
        self.good("--op", "randrw", "--verify", "--bs", "512", "--seconds", "0.2", "--length", "1M")

    def test_a_foreign_write_is_found(self):
        self.good("--op", "write", "--once", "--verify", "--stamps", self.stamps)
        self.good("--op", "write", "--offset", "8M", "--length", "4K", "--once")
        status, out, err = load(self.server, "--op", "read", "--once", "--verify", "--stamps",
                                self.stamps)
        self.assertEqual((status, out), (1, ""))
        self.assertIn(f"offset {8 << 20} ", err)

    def test_a_killed_server_is_one_sentence(self):
        self.server.kill()
        status, out, err = load(self.server)
        self.assertEqual((status, out), (1, ""))
        self.assertRegex(err, r"^nbdload: cannot connect to '.*': .*\n$")

    def test_a_range_beyond_the_end_is_refused(self):
        status, _, err = load(self.server, "--offset", "31M", "--length", "2M")
        self.assertEqual(status, 1)
        self.assertIn("beyond the volume's", err)


class Crash(unittest.TestCase):
    """A server on a file, killed in the middle of writes."""

    def setUp(self):
        if not shutil.which("nbdkit"):
            self.skipTest("nbdkit is not installed")
        self.dir = tempfile.TemporaryDirectory()
        self.addCleanup(self.dir.cleanup)
        self.image = os.path.join(self.dir.name, "image")
        self.stamps = os.path.join(self.dir.name, "stamps")
        with open(self.image, "wb") as f:
            f.truncate(SIZE)

    def serve(self):
        path = os.path.join(self.dir.name, "s")
        server = Server(["nbdkit", "-f", "-U", path, "file", self.image], path)
        server.start()
        self.addCleanup(server.stop)
        return server

    def write_and_kill(self):
        server = self.serve()
        timer = threading.Timer(0.3, server.kill)
        timer.start()
        status, out, err = load(server, "--op", "randwrite", "--verify", "--stamps", self.stamps,
                                "--flush-every", "16", "--seconds", "30")
        timer.join()
        self.assertEqual((status, out), (1, ""))
        self.assertRegex(err, "closed the connection with|cannot send to the server")

    def check(self):
        return load(self.serve(), "--op", "read", "--once", "--verify", "--stamps", self.stamps,
                    "--after-crash")

    def test_what_a_crash_may_leave_is_accepted(self):
        for _ in range(3):
            self.write_and_kill()
            status, out, err = self.check()
            self.assertEqual((status, err), (0, ""))
            self.assertEqual(json.loads(out)["checked_bytes"], SIZE)

    def test_what_a_flush_covers_must_be_there(self):
        self.write_and_kill()
        with open(self.image, "wb") as f:
            f.truncate(SIZE)
        status, _, err = self.check()
        self.assertEqual(status, 1)
        self.assertIn("holds version 0; allowed are", err)


class Null(unittest.TestCase):
    """Against nbdnull, which forgets what it is given."""

    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()
        self.addCleanup(self.dir.cleanup)

    def serve(self, *args):
        path = os.path.join(self.dir.name, "s")
        server = Server([os.path.join(BUILD, "nbdnull"), path, str(SIZE), *args], path)
        server.start()
        self.addCleanup(server.stop)
        return server

    def test_a_lost_write_is_found(self):
        status, out, err = load(self.serve(), "--op", "randrw", "--verify", "--length", "1M")
        self.assertEqual((status, out), (1, ""))
        self.assertIn("holds version 0; allowed are", err)

    def test_both_ways_of_answering_answer_all(self):
        for mode in ([], ["--unbatched"]):
            server = self.serve(*mode)
            for args in (["--op", "randrw"], ["--op", "rw", "--bs", "4M"], ["--op", "flush"],
                         ["--op", "write", "--bs", "1M", "--depth", "8"]):
                with self.subTest(mode=mode, args=args):
                    status, out, err = load(server, *args, "--seconds", "0.1", "--connections", "3")
                    self.assertEqual((status, err), (0, ""))
                    self.assertGreater(json.loads(out)["ios"], 0)
            server.stop()

    def test_usage_errors_are_status_2(self):
        server = self.serve()
        for args in (["--op", "jump"], ["--bs", "0"], ["--depth", "0"], ["--seconds", "-1"],
                     ["--after-crash"], ["--after-client"], ["--verify", "--bs", "100"], ["--seconds", "0"], ["what"]):
            with self.subTest(args=args):
                self.assertEqual(load(server, *args)[0], 2)


if __name__ == "__main__":
    BUILD = sys.argv.pop(1)
    unittest.main()
