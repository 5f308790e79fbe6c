"""taker.py CONTROL POOL MODE - the other end of a takeover, for tests: as a new server that fails at one of its steps.

It is written from docs/control.md, not from the server. MODE says what becomes of it:
  refused SENTENCE   the answer must be an error with that sentence
  asked              it ends once it has asked
  torn               it ends in the middle of the answer
  handed             it ends with all that was handed over
  error              it says that it cannot
  wrong              it says something that is no word of the exchange
  silent             it says nothing; it must be told within 20 s that the server has called it off
  kill PID           it kills that process, when all is handed over
  term PID           it sends SIGTERM to that process then, and is to be told that it was called off
  between PATH       it listens on PATH, hands all on to a new server that comes there, and calls that off before the
                     new one can be ready; then it says that it cannot
  ready              it says that it is ready, is told to go, and ends: nobody serves then
Exit status: 0 where all was as it should."""
import array
import json
import os
import signal
import socket
import sys


def send(s, **line):
    s.sendall(json.dumps(line).encode() + b"\n")


class Lines:
    def __init__(self, s):
        self.s, self.data, self.fds = s, b"", array.array("i")

    def more(self, n=65536):
        data, control, flags, _ = self.s.recvmsg(n, socket.CMSG_SPACE(253 * 4))
        assert not flags & socket.MSG_CTRUNC, "descriptors were lost"
        for level, kind, value in control:
            assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
            self.fds.frombytes(value[:len(value) - len(value) % 4])
        self.data += data
        return data

    def line(self):
        while b"\n" not in self.data:
            if not self.more():
                raise EOFError("the server has closed")
        line, self.data = self.data.split(b"\n", 1)
        return json.loads(line)


def numbers(value):
    """All "fd" and "fds" of it."""
    if isinstance(value, list):
        return sum((numbers(v) for v in value), [])
    if not isinstance(value, dict):
        return []
    found = []
    for key, v in value.items():
        if key == "fd":
            found.append(v)
        elif key == "fds":
            found += v
        else:
            found += numbers(v)
    return found


def new_server(path):
    """The connection of a new server, which asks at @path."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    listener.settimeout(60)
    new, _ = listener.accept()
    Lines(new).line()
    return new


def hand_on(new, answer, fds):
    """All of it, and that it was called off."""
    assert len(fds) <= 253
    data = b"".join(json.dumps(line).encode() + b"\n" for line in (answer, {"cancelled": True}))
    assert new.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)]) == len(data)
    new.close()


def main():
    control, pool, mode = sys.argv[1:4]
    s = socket.socket(socket.AF_UNIX)
    new = new_server(sys.argv[4]) if mode == "between" else None
    s.connect(control)
    s.settimeout(60)
    version = 99 if mode == "refused" and "another way" in sys.argv[4] else 1
    send(s, command="takeover", version=version, pools=pool.split(","), unknown={"to": "be ignored"})
    lines = Lines(s)
    if mode == "asked":
        return
    if mode == "torn":
        lines.more(100)
        return
    answer = lines.line()
    if mode == "refused":
        assert sys.argv[4] in answer["error"]["message"], answer
        return
    assert answer["ok"] is True and answer["fds"] == len(lines.fds), (answer, len(lines.fds))
    # Each descriptor is named once.
    assert sorted(numbers(answer["takeover"])) == list(range(len(lines.fds))), answer
    # Front ends wait while it is sent: what clients of the control socket have said in part is short.
    for client in answer["takeover"]["clients"]:
        assert len(client["received"]) <= 2 << 16, len(client["received"])
    if mode == "handed":
        return
    if mode == "kill":
        os.kill(int(sys.argv[4]), signal.SIGKILL)
    elif mode == "term":
        os.kill(int(sys.argv[4]), signal.SIGTERM)
        assert lines.line() == {"cancelled": True}
    elif mode in ("error", "between"):
        if new:
            hand_on(new, answer, lines.fds)
        send(s, error={"code": "EIO", "message": "the test does not want to"})
        assert lines.line() == {"cancelled": True}
    elif mode == "wrong":
        send(s, steady=True)
        assert lines.line() == {"cancelled": True}
    elif mode == "silent":
        s.settimeout(20)
        assert lines.line() == {"cancelled": True}
    elif mode == "ready":
        send(s, ready=True)
        assert lines.line() == {"go": True}


main()
