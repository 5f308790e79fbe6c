"""vhost_client.py SOCKET NAME - a vhost-user front end that stays connected, for the cli_attach test.

It looks at the configuration space and waits for it to change, and writes down what it sees: NAME.capacity holds the
number of bytes, anew after each change; NAME.off appears when the server hangs up. It ends by itself after a minute."""
import array
import os
import socket
import struct
import sys

GET_PROTOCOL_FEATURES, SET_PROTOCOL_FEATURES, SET_BACKEND_REQ_FD, GET_CONFIG = 15, 16, 21, 24
GET_FEATURES = 1
BACKEND_REQ, CONFIG = 1 << 5, 1 << 9


def receive(s, n):
    data = b""
    while len(data) < n:
        more = s.recv(n - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def send(s, request, payload=b"", fds=()):
    control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    s.sendmsg([struct.pack("=III", request, 1, len(payload)) + payload], control)


def ask(s, request, payload=b""):
    send(s, request, payload)
    _, flags, size = struct.unpack("=III", receive(s, 12))
    assert flags & 4
    return receive(s, size)


def note(path, text):
    with open(path + ".new", "w") as f:
        f.write(text)
    os.rename(path + ".new", path)


def main():
    path, name = sys.argv[1:]
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(60)
    s.connect(path)
    features = struct.unpack("=Q", ask(s, GET_FEATURES))[0]
    ask(s, GET_PROTOCOL_FEATURES)
    send(s, SET_PROTOCOL_FEATURES, struct.pack("=Q", BACKEND_REQ | CONFIG))
    ours, theirs = socket.socketpair()
    ours.settimeout(60)
    send(s, SET_BACKEND_REQ_FD, fds=[theirs.fileno()])
    theirs.close()
    note(name + ".features", "%d" % features)
    try:
        while True:
            config = ask(s, GET_CONFIG, struct.pack("=III", 0, 60, 0) + bytes(60))
            note(name + ".capacity", "%d" % (512 * struct.unpack_from("<Q", config, 12)[0]))
            request, _, size = struct.unpack("=III", receive(ours, 12))
            assert (request, size) == (2, 0)
    except (EOFError, ConnectionError):
        note(name + ".off", "")


main()
