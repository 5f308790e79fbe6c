"""nbd_lies.py SOCKET LIE: an NBD server for one client after the other, which says what none may; --list names all lies.
Or which says nothing any more, until its client goes: to options (mute_options), or to requests (mute_requests). Then it
prints a line.

Source: the NBD protocol's proto.md. The honest part is an export of 1 MiB of ones, structured replies, base:allocation.
"""
import os
import socket
import struct
import sys

SIZE = 1 << 20
OPT_MAGIC, REP_MAGIC = 0x49484156454F5054, 0x3E889045565A9
ACK, INFO, CONTEXT = 1, 3, 4
GO, STRUCTURED, SET_CONTEXT = 7, 8, 10
DONE, OFFSET_DATA, OFFSET_HOLE, STATUS, ERROR = 1, 1, 2, 5, 0x8001

# where it lies: in the greeting, in answers to options, or in replies to requests
LIES = {
    "greeting": None,
    "cut_greeting": None,
    "option_magic": None,
    "reply_of_4_gib": None,
    "reply_of_64_kib_for_nothing": None,
    "another_options_reply": None,
    "info_too_short": None,
    "size_over_all": 1 << 63,
    "context_without_name": None,
    "chunk_before_the_read": None,
    "chunk_behind_the_read": None,
    "chunk_longer_than_the_read": None,
    "chunk_without_data": None,
    "chunk_of_4_gib": None,
    "hole_over_all": None,
    "error_with_a_long_text": None,
    "another_requests_reply": None,
    "reply_magic": None,
    "data_missing": None,
    "hangs_up": None,
}


MUTE = ("mute_options", "mute_requests")


class Gone(Exception):
    pass


def take(c, n):
    data = b""
    while len(data) < n:
        piece = c.recv(n - len(data))
        if not piece:
            raise Gone
        data += piece
    return data


def be_mute(c):
    print("mute", flush=True)
    while c.recv(65536):
        pass
    raise Gone


def reply(c, option, kind, data=b"", length=None):
    c.sendall(struct.pack(">QIII", REP_MAGIC, option, kind, len(data) if length is None else length) + data)


def go(c, lie):
    if lie == "info_too_short":
        reply(c, GO, INFO, b"\0\0\1")
    else:
        reply(c, GO, INFO, struct.pack(">HQH", 0, LIES[lie] if LIES[lie] is not None else SIZE, 0x1))
    reply(c, GO, ACK)


def options(c, lie):
    while True:
        magic, option, length = struct.unpack(">QII", take(c, 16))
        take(c, length)
        if lie == "option_magic":
            c.sendall(b"\xff" * 20)
        elif lie == "reply_of_4_gib":
            reply(c, option, INFO, b"x" * 100, 0xFFFFFFFF)
        elif lie == "reply_of_64_kib_for_nothing":
            reply(c, option, ACK, b"x" * 65536)
        elif lie == "another_options_reply":
            reply(c, option + 1, ACK)
        elif option == STRUCTURED:
            reply(c, option, ACK)
        elif option == SET_CONTEXT:
            name = b"" if lie == "context_without_name" else b"base:allocation"
            reply(c, option, CONTEXT, struct.pack(">I", 1) + name)
            reply(c, option, ACK)
        elif option == GO:
            go(c, lie)
            return
        else:
            reply(c, option, 0x80000001)


def chunk(c, cookie, flags, kind, data, length=None):
    c.sendall(struct.pack(">IHHQI", 0x668E33EF, flags, kind, cookie, len(data) if length is None else length) + data)


def read(c, lie, cookie, offset, n):
    ones = b"\1" * n
    if lie == "chunk_before_the_read":
        chunk(c, cookie, DONE, OFFSET_DATA, struct.pack(">Q", offset - 4096 & 0xFFFFFFFFFFFFFFFF) + ones)
    elif lie == "chunk_behind_the_read":
        chunk(c, cookie, DONE, OFFSET_DATA, struct.pack(">Q", offset + n) + ones)
    elif lie == "chunk_longer_than_the_read":
        chunk(c, cookie, DONE, OFFSET_DATA, struct.pack(">Q", offset) + ones + b"\1" * 4096)
    elif lie == "chunk_without_data":
        chunk(c, cookie, DONE, OFFSET_DATA, b"\0\0\0")
    elif lie == "chunk_of_4_gib":
        chunk(c, cookie, DONE, OFFSET_DATA, struct.pack(">Q", offset) + ones, 0xFFFFFFFF)
    elif lie == "hole_over_all":
        chunk(c, cookie, DONE, OFFSET_HOLE, struct.pack(">QI", offset, 0xFFFFFFFF))
    elif lie == "error_with_a_long_text":
        chunk(c, cookie, DONE, ERROR, struct.pack(">IH", 5, 0xFFFF) + b"x" * 10)
    elif lie == "another_requests_reply":
        chunk(c, cookie + 77, DONE, OFFSET_DATA, struct.pack(">Q", offset) + ones)
    elif lie == "reply_magic":
        c.sendall(b"\x55" * 20)
    elif lie == "data_missing":
        c.sendall(struct.pack(">IHHQI", 0x668E33EF, DONE, OFFSET_DATA, cookie, 8 + n) + ones[: n // 2])
        raise Gone
    elif lie == "hangs_up":
        raise Gone
    else:
        chunk(c, cookie, DONE, OFFSET_DATA, struct.pack(">Q", offset) + ones)


def requests(c, lie):
    while True:
        _, _, kind, cookie, offset, n = struct.unpack(">IHHQQI", take(c, 28))
        if kind == 0:
            read(c, lie, cookie, offset, n)
        elif kind == 7:
            chunk(c, cookie, DONE, STATUS, struct.pack(">III", 1, n, 0))
        elif kind == 2:
            return
        else:
            chunk(c, cookie, DONE, ERROR, struct.pack(">IH", 22, 0))


def serve(c, lie):
    if lie == "greeting":
        c.sendall(b"SSH-2.0-OpenSSH_9.2\r\n" * 10)
        return
    c.sendall(struct.pack(">8sQH", b"NBDMAGIC", OPT_MAGIC, 3)[: 11 if lie == "cut_greeting" else 18])
    if lie == "cut_greeting":
        return
    take(c, 4)
    if lie == "mute_options":
        be_mute(c)
    options(c, lie)
    if lie == "mute_requests":
        be_mute(c)
    requests(c, lie)


def main():
    if sys.argv[1] == "--list":
        print("\n".join(LIES))
        return
    path, lie = sys.argv[1:]
    assert lie in LIES or lie in MUTE or lie == "none"
    server = socket.socket(socket.AF_UNIX)
    server.bind(path + ".new")
    server.listen(5)
    os.rename(path + ".new", path)
    for name in MUTE + ("none",):
        LIES.setdefault(name, None)
    while True:
        client, _ = server.accept()
        with client:
            try:
                serve(client, lie)
            except (Gone, ConnectionError):
                pass


main()
