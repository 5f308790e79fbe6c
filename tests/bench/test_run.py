#!/usr/bin/env python3
"""The benchmark itself, small: every row that can be measured is, and what it prints is well-formed.

usage: test_run.py BUILD_DIR
"""
import json
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))


def main():
    with tempfile.TemporaryDirectory() as disk:
        done = subprocess.run(
            [sys.executable, os.path.join(HERE, "run"), "--build", sys.argv[1], "--disk", disk,
             "--size", "16M", "--seconds", "0.05", "--runs", "2", "--json", "-",
             "--only", "bare protocol,tarn,read,write,first,firstflush,snapwrite,snap10,oldest,vhostread,vhostwrite1,open,memory"],
            capture_output=True, text=True, timeout=120)
        left = os.listdir(disk)
    result = json.loads(done.stdout)
    assert done.returncode == 0, result["notes"]
    assert not left, f"left behind: {left}"
    read = result["median"]["no disk"]["read"]["bare protocol"]
    assert read["runs"] == 2 and read["iops"] > 0 and read["latency_us"]["p99"] > 0, read
    if any(note.startswith("SKIP tarn") for note in result["notes"]):
        print("SKIP tarn's rows: the tarn command is not built")
        return 0
    rows = next(rows for disk, rows in result["median"].items() if disk != "no disk")
    for row in ("read", "write", "first", "firstflush", "snapwrite", "snap10", "oldest", "vhostread", "vhostwrite1"):
        assert rows[row]["tarn"]["iops"] > 0, row
    assert rows["firstflush"]["tarn"]["member_flushes_per_flush"] > 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
