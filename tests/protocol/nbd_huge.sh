#!/bin/bash
# nbd_huge.sh - requests of 64 bits on a volume of 4 PiB, by extended headers: each is served in reasonable time, and
# meanwhile another client is served as ever.
set -eu
. "$(dirname "$0")/cli_common.sh"

ok tarn pool create p a.disk b.disk --file-size 256M
ok tarn volume create p/vol 4096T
serve_now p --nbd "unix:$work/nbd.sock"

ok $python - "$work/nbd.sock" <<'PYTHON'
import socket, struct, sys, threading, time

SIZE = 4 << 50
READ, WRITE, TRIM, CACHE, ZEROES, STATUS = 0, 1, 4, 5, 6, 7
FUA, PAYLOAD_LEN = 1, 32


class Client:
    """Extended headers, by doc/proto.md: no other client that is packaged has them."""

    def __init__(self, path):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.settimeout(60)
        self.s.connect(path)
        self.receive(18)
        self.s.sendall(struct.pack(">I", 3))
        name, query = b"p/vol", b"base:allocation"
        self.option(11, b"")
        self.option(10, struct.pack(">I", len(name)) + name + struct.pack(">II", 1, len(query)) + query)
        self.option(7, struct.pack(">I", len(name)) + name + struct.pack(">H", 0))

    def receive(self, n):
        data = b""
        while len(data) < n:
            part = self.s.recv(n - len(data))
            assert part, "the server closed"
            data += part
        return data

    def option(self, number, data):
        self.s.sendall(b"IHAVEOPT" + struct.pack(">II", number, len(data)) + data)
        kind = 0
        while kind != 1:
            _, _, kind, length = struct.unpack(">QIII", self.receive(20))
            assert kind < 1 << 31, (number, kind)
            self.receive(length)

    def request(self, kind, offset, length, flags=0, payload=b""):
        flags |= PAYLOAD_LEN if payload else 0
        self.s.sendall(struct.pack(">IHHQQQ", 0x21E41C71, flags, kind, 7, offset, length) + payload)
        magic, done, reply, cookie, at, n = struct.unpack(">IHHQQQ", self.receive(32))
        assert (magic, done, cookie, at) == (0x6E8A278C, 1, 7, offset), (magic, done, cookie, at)
        data = self.receive(n)
        assert reply < 1 << 15, struct.unpack(">I", data[:4])
        return data

    def status(self, offset, length):
        data = self.request(STATUS, offset, length)
        n = struct.unpack(">II", data[:8])[1]
        values = struct.unpack(">%dQ" % (2 * n), data[8:])
        return list(zip(values[::2], values[1::2]))


path = sys.argv[1]
h, other = Client(path), Client(path)
places = [0, 1 << 30, (1 << 44) + 12345, (1 << 51) + 4096, SIZE - 4096]
longest, stop = 0.0, False


def look():
    global longest
    while not stop:
        began = time.monotonic()
        other.request(READ, 0, 4096)
        longest = max(longest, time.monotonic() - began)


def fill():
    for at in places:
        h.request(WRITE, at, 4096, 0, b"x" * 4096)


thread = threading.Thread(target=look)
thread.start()
began = time.monotonic()
try:
    fill()
    at = n = data = 0
    while at < SIZE:
        for length, flags in h.status(at, SIZE - at):
            at += length
            data += 0 if flags else length
        n += 1
        assert n < 1000
    assert at == SIZE and data == 6 * 4096, (at, data)  # one of them lies across two blocks
    h.request(CACHE, 0, SIZE)
    h.request(TRIM, 4096, SIZE - 4096, FUA)
    assert h.request(READ, 0, 4096)[8:] == b"x" * 4096
    assert h.status(4096, SIZE - 4096) == [(SIZE - 4096, 3)]
    fill()
    h.request(ZEROES, 0, SIZE, FUA)
    for at in places:
        assert h.request(READ, at, 4096)[8:] == bytes(4096), at
finally:
    stop = True
    thread.join()
print("%.1f s in all, %.3f s the longest read of another client" % (time.monotonic() - began, longest))
PYTHON
echo "$out"
serve_end
ok tarn pool check p --data
