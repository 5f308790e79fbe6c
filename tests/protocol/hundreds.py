"""hundreds.py CONTROL NBD FOLDER N VHOSTLOAD - hundreds of volumes at once, for the cli_hundreds test.

It makes N volumes, connects to each over NBD and over vhost-user, all at the same time, writes to each over NBD what no
other holds, again and again while guests write to and read from a tenth of them, reads it back when all have been written,
and says "ready": until a line comes on standard input all stay connected. Then each must have been hung up on."""
import json
import select
import socket
import struct
import subprocess
import sys

BLOCK = 4096
VOLUME = 8 << 20
GUESTS_PART = 4 << 20  # from here on guests write
OPTION, GO, ACK = 0x49484156454F5054, 7, 1
REQUEST, REPLY, READ, WRITE = 0x25609513, 0x67446698, 0, 1
GET_FEATURES = 1


def connect(path):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(60)
    s.connect(path)
    return s


def receive(s, n):
    data = b""
    while len(data) < n:
        more = s.recv(n - len(data))
        if not more:
            raise EOFError("hung up on")
        data += more
    return data


def command(control, **what):
    control.sendall(json.dumps(what).encode() + b"\n")
    answer = control.makefile().readline()
    assert "error" not in json.loads(answer), answer


def nbd(path, name):
    s = connect(path)
    receive(s, 18)
    s.sendall(struct.pack(">I", 3))  # fixed newstyle, no zeroes
    export = name.encode()
    payload = struct.pack(">I", len(export)) + export + struct.pack(">H", 0)
    s.sendall(struct.pack(">QII", OPTION, GO, len(payload)) + payload)
    kind = None
    while kind != ACK:
        _, _, kind, length = struct.unpack(">QIII", receive(s, 20))
        receive(s, length)
        assert kind < 1 << 31, kind
    return s


def vhost(path):
    s = connect(path)
    s.sendall(struct.pack("=III", GET_FEATURES, 1, 0))
    request, _, size = struct.unpack("=III", receive(s, 12))
    assert (request, size) == (GET_FEATURES, 8)
    receive(s, size)
    return s


def stamp(i):
    return struct.pack(">Q", i + 1) * (BLOCK // 8)


def done(s, cookie):
    assert struct.unpack(">IIQ", receive(s, 16)) == (REPLY, 0, cookie)


def guest(load, path, seed):
    """A second front end of its volume, which checks what it reads."""
    where = ["--offset", str(GUESTS_PART), "--length", str(VOLUME - GUESTS_PART)]
    words = ["--op", "randrw", "--verify", "--flush-every", "64", "--seconds", "1", "--seed", str(seed)]
    return subprocess.Popen(
        [load, "--socket", path] + words + where, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def write(clients):
    for i, s in enumerate(clients):
        s.sendall(struct.pack(">IHHQQI", REQUEST, 0, WRITE, i, BLOCK * i, BLOCK) + stamp(i))
    for i, s in enumerate(clients):
        done(s, i)


def main():
    control_path, nbd_path, folder, n, load = sys.argv[1:]
    n = int(n)
    control = connect(control_path)
    for i in range(n):
        command(control, command="volume-create", pool="tank", volume="v%d" % i, size=VOLUME)
    clients = [nbd(nbd_path, "tank/v%d" % i) for i in range(n)]
    front_ends = [vhost("%s/v%d.sock" % (folder, i)) for i in range(n)]
    guests = [guest(load, "%s/v%d.sock" % (folder, i), i + 1) for i in range(0, n, 10)]
    write(clients)
    while any(g.poll() is None for g in guests):
        write(clients)
    for g in guests:
        assert g.returncode == 0, g.communicate()[1]
    for i, s in enumerate(clients):
        s.sendall(struct.pack(">IHHQQI", REQUEST, 0, READ, i, BLOCK * i, BLOCK))
    for i, s in enumerate(clients):
        done(s, i)
        assert receive(s, BLOCK) == stamp(i), i
    print("ready", flush=True)
    sys.stdin.readline()
    for s in clients + front_ends:
        select.select([s], [], [], 60)
        assert s.recv(1) == b"", "still connected"
    print("hung up", flush=True)


main()
