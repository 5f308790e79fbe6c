"""keys.py COMMAND... - runs a machine of fake_vmm.c on a terminal, and types what is for the guest and what is for tarn."""
import os
import pty
import select
import sys
import time

pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
shown = b""


def until(text):
    global shown
    end = time.monotonic() + 60
    while text not in shown and time.monotonic() < end:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                shown += os.read(terminal, 4096)
            except OSError:
                break
    if text not in shown:
        os.kill(pid, 9)
        sys.exit("%r did not come: %r" % (text, shown))


until(b"started")
os.write(terminal, b"hello\r")
until(b"typed hello")
os.write(terminal, b"\x1d?")
until(b"press the power button")
os.write(terminal, b"\x1dr")
until(b"reset\r\n")
os.write(terminal, b"\x03\x1d]\r")  # neither ends anything
until(b"typed \x03\x1d")
os.write(terminal, b"deaf\r\x1dp")
until(b"power button\r\n")
os.write(terminal, b"\x1dq")
until(b"freed")
_, status = os.waitpid(pid, 0)
sys.exit(os.waitstatus_to_exitcode(status))
