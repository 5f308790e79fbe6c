#!/usr/bin/python3
"""Writes the seeds of the fuzzers: legal conversations, in the words that nbd_play.c, vhost_play.c
and vhost_chain.c understand. What is found later is added beside them by hand.

usage: make_seeds.py CORPUS-FOLDER"""
import os
import struct
import sys


def number(n):
    """As input_number() takes it."""
    if n < 0xa0:
        return bytes([n])
    if n % 4096 == 0 and n // 4096 < 16:
        return bytes([0xb0 | n // 4096])
    if n % 512 == 0 and n // 512 < 16:
        return bytes([0xa0 | n // 512])
    if n < 1 << 16:
        return b'\xc0' + struct.pack('<H', n)
    if n < 1 << 32:
        return b'\xd0' + struct.pack('<I', n)
    return b'\xe0' + struct.pack('<Q', n)


def edge(near=0):
    return b'\xf6' + struct.pack('b', near)


# ---- NBD ----

PLAIN = b'\0\0'                 # the server's options
NAMES = ['', 'vol', 'pool/vol', 'pool/vol@snap', 'pool/big', 'secret', 'pool/no']
EXPORT_NAME, ABORT, LIST, PEEK, STARTTLS, INFO, GO, STRUCTURED, LIST_META, SET_META, EXTENDED = range(1, 12)
READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZEROES, STATUS = range(8)
FUA, NO_HOLE, DF, REQ_ONE, FAST, PAYLOAD = 1, 2, 4, 8, 16, 32
SEND, STEP = b'\x0a', b'\x0b'


def flags(n=3):
    return b'\x07' + number(n)


def option(kind, data=b'\0'):
    return bytes([0, kind | 0x40]) + data


def name(text):
    return bytes([0, NAMES.index(text)])


def info(kind, text, *infos):
    return option(kind, name(text) + bytes([len(infos), *infos]))


def meta(kind, text, *queries):
    return option(kind, name(text) + bytes([len(queries)]) + b''.join(bytes([0, q]) for q in queries))


def request(kind, offset, length, with_flags=0, more=b'', send=True):
    offset = offset if isinstance(offset, bytes) else number(offset)
    length = length if isinstance(length, bytes) else number(length)
    return bytes([3, kind | (0x40 if send else 0), with_flags]) + offset + length + more


def client(kind, who=0):
    return bytes([13, who << 4 | kind])


def engine(kind, *more):
    return bytes([14, kind, *more])


def advance(tenths):
    return bytes([12, tenths])


def operator(kind):
    return bytes([15, kind])


handshake = {
    'go': flags() + info(INFO, 'vol', 0, 1, 2, 3) + info(INFO, 'secret') + info(GO, 'pool/vol', 3) + request(READ, 0, 4096) + request(DISC, 0, 0),
    'export_name': flags(1) + option(EXPORT_NAME, b'\2') + request(WRITE, 512, 1024) + request(READ, 0, 4096),
    'export_name_unknown': flags() + option(EXPORT_NAME, b'\6'),
    'list': flags() + bytes([0, LIST, 0, 9, 5]) + STEP + SEND + advance(60) + option(ABORT),
    'structured': flags() + option(STRUCTURED) + info(GO, 'pool/vol') + request(READ, 4096, 8192, DF),
    'contexts': flags() + option(STRUCTURED) + meta(LIST_META, 'pool/vol') + meta(LIST_META, 'pool/vol', 1, 2, 5)
    + meta(SET_META, 'pool/vol', 0, 3, 4, 6, 7, 8) + info(GO, 'pool/vol') + request(STATUS, 0, edge()),
    'many_contexts': flags() + option(STRUCTURED) + option(SET_META, name('pool/vol') + b'\xe0'),
    'extended': flags() + option(EXTENDED) + option(STRUCTURED) + meta(SET_META, 'pool/big', 0, 3)
    + info(GO, 'pool/big') + request(STATUS, 0, 5 << 30) + request(ZEROES, 0, 5 << 30, FUA),
    'long_name': flags() + option(INFO, b'\0\xfa\0x' + b'\0') + option(EXPORT_NAME, b'\xfa\1y'),
    'too_long': flags() + option(15, b'\xfc') + option(15, b'\xfc'),
    'starttls': flags() + b'\0' + bytes([STARTTLS, 0]) + option(STRUCTURED),
    'hang_up': flags() + bytes([0, GO]) + name('pool/vol') + b'\0' + client(1) + STEP + client(0),
    'two': flags() + option(LIST) + client(2, 1) + flags() + info(GO, 'vol') + client(0, 1),
    'stop': flags() + option(LIST) + operator(0) + option(LIST) + SEND,
    'short_moves': operator(2 | 5 << 2) + flags() + option(LIST) + info(GO, 'vol') + request(READ, 0, 512),
    'rubbish': flags() + b'\x08\x10' + b'IHAVEOPT\0\0\0\3\0\0\0\0',
}
handshake = {k: PLAIN + v for k, v in handshake.items()}
for mode, byte in ('allowed', 6), ('required', 7):
    handshake['tls_' + mode] = (bytes([0, byte]) + flags() + option(LIST) + option(STARTTLS)
                                + b'\x08\x10\x16\x03\x01\0\x0b\1\0\0\7\3\3aaaaa' + SEND)
    handshake['tls_plain_behind_' + mode] = (bytes([0, byte]) + flags() + bytes([0, STARTTLS, 0]) + option(LIST))

HOW = {'plain': 4, 'oldest': 32, 'structured': 8 | 4 | 7 << 5, 'extended': 16 | 4 | 7 << 5, 'big': 16 | 4 | 2 | 7 << 5,
       'snapshot': 16 | 4 | 3 | 7 << 5}
every = (request(WRITE, 0, 4096) + request(READ, 0, 8192) + request(FLUSH, 0, 0) + request(TRIM, 4096, 4096)
         + request(CACHE, 0, edge()) + request(ZEROES, 0, 8192, NO_HOLE) + request(ZEROES, 4096, 8192, FAST)
         + request(STATUS, 0, edge()) + request(STATUS, 0, edge(), REQ_ONE) + request(DISC, 0, 0))
batch = b''.join(request(READ if i % 2 else WRITE, i * 512, 512, 0, b'', False) for i in range(24)) + SEND
requests = {}
for how in HOW:
    requests['every_' + how] = PLAIN + bytes([HOW[how]]) + every
wide = PLAIN + bytes([HOW['extended']])
requests.update({
    'payload_status': wide + request(STATUS, 0, 0, PAYLOAD, b'\3' + edge() + b'\1\2\3'),
    'payload_refused': wide + request(READ, 0, 512, PAYLOAD) + request(FLUSH, 0, 16, PAYLOAD),
    'write_without_payload': wide + bytes([3, 0x41, 0xc0]) + number(0) + number(512),
    'too_much': wide + request(READ, edge(-1), 2) + request(WRITE, edge(), 1) + request(READ, 0, 0) + request(READ, 0, b'\xf2\1') + request(WRITE, 0, 300000) + request(READ, 0, 512),
    'big_zeroes': PLAIN + bytes([HOW['big']]) + request(ZEROES, 0, 6 << 30, NO_HOLE) + request(TRIM, 1, 5 << 30, FUA),
    'held': wide + engine(0) + batch + engine(7) + STEP + engine(1) + SEND,
    'fails': wide + engine(2 | 1 << 3, 0) + request(READ, 0, 4096) + engine(2 | 2 << 3, 1)
    + request(WRITE, 0, 4096) + engine(3 | 1 << 3) + request(STATUS, 0, 4096),
    'shrinks': wide + engine(4 | 2 << 3) + request(READ, 200000, 4096) + engine(5 | 3 << 3) + request(WRITE, 40000, 4096),
    'few_slots': b'\x17\0' + bytes([HOW['extended']]) + engine(0) + batch + engine(1) + SEND,
    'little_memory': b'\x06\0' + bytes([HOW['extended']]) + engine(0) + request(READ, 0, edge()) + request(WRITE, 0, 100000)
    + batch + engine(1) + SEND,
    'two_starve': b'\x06\0' + bytes([HOW['plain']]) + engine(0) + request(READ, 0, edge()) + client(2, 1) + flags()
    + info(GO, 'vol') + request(READ, 0, edge()) + client(0, 0) + engine(1) + SEND,
    'slow_reader': wide + client(3) + b''.join(request(READ, 0, edge(), 0, b'', False) for _ in range(12)) + STEP + SEND,
    'idle': b'\x08\0' + bytes([HOW['plain']]) + request(READ, 0, 512) + advance(5) + request(READ, 0, 512) + advance(30),
    'stops': wide + engine(0) + batch + operator(0) + request(READ, 0, 512) + engine(1) + advance(20),
    'cut': wide + engine(0) + batch + operator(1) + STEP + engine(1) + SEND,
    'hang_up': wide + engine(0) + batch + client(0) + engine(1) + SEND,
    'short_moves': wide + operator(2 | 7 << 2) + request(WRITE, 0, 4096) + request(READ, 0, 4096) + request(STATUS, 0, edge()),
})

# ---- vhost-user ----

KICK, CHANGE, TELL, SETTLE = 4, 7, 8, b'\x0f'
MESSAGES = dict(get_features=1, set_features=2, owner=3, reset_owner=4, table=5, log_base=6, log_fd=7, num=8, addr=9,
                base=10, get_base=11, kick=12, call=13, err=14, get_protocol=15, set_protocol=16, queue_num=17,
                enable=18, backend=21, get_config=24, set_config=25, get_inflight=31, set_inflight=32, reset=34,
                slots=36, add=37, remove=38, set_status=39, get_status=40)


def tell(kind, *data, how=0):
    return bytes([TELL, MESSAGES[kind], how]) + b''.join(d if isinstance(d, bytes) else bytes([d]) for d in data)


IN, OUT, IDLE_FLUSH, ID, DISCARD, WRITE_ZEROES, SCSI = range(7)
INDIRECT, SPOILT, SECOND = 2, 4, 0x80


def chain(kind, sector=0, data=b'\1', how=0, more=b''):
    return bytes([0, how, kind]) + number(sector) + data + more


FEATURES = 1 << 32 | 1 << 30 | 1 << 29 | 1 << 28 | 1 << 13 | 1 << 14 | 1 << 9
negotiate = (tell('get_features') + tell('set_features', 0x80, number(FEATURES)) + tell('get_protocol')
             + tell('set_protocol', 0) + tell('owner') + tell('queue_num'))
memory = tell('table', 2, 0, 1)
ring = (tell('num', 0, 8) + tell('base', 0, 0) + tell('addr', 0)
        + tell('call', 0) + tell('err', 0) + tell('kick', 0) + tell('enable', 0, 1))
messages = {
    'set_up': negotiate + memory + ring + chain(IN) + bytes([KICK, 0]) + tell('get_base', 0, 0),
    'slots': negotiate + tell('slots') + tell('add', 0) + tell('add', 1) + ring + chain(OUT) + bytes([KICK, 0])
    + tell('remove', 0) + tell('add', 0) + tell('remove', 1),
    'config': negotiate + tell('get_config', 0, 60, 0, 0) + tell('set_config', 32, 1, 0, 1, b'\1') + tell('backend', 1),
    'inflight': negotiate + tell('get_inflight', 1) + tell('set_inflight', 1) + memory + ring,
    'migration': tell('get_features', how=8) + SETTLE + negotiate + memory + tell('log_base', number(4096), 0, 1) + tell('log_fd') + tell('set_features', 1)
    + ring + chain(IN) + bytes([KICK, 0]),
    'status': negotiate + tell('num', 0, 255, how=1) + tell('set_status', 15) + tell('get_status') + tell('set_status', 0) + tell('reset') + tell('reset_owner') + memory + ring,
    'pieces': tell('get_features', 5, how=6) + negotiate + tell('table', 2, 0, 1, 30, how=6),
    'events': negotiate + tell('call', 0xe7) + tell('kick', 0xe8) + tell('kick', 0x10) + tell('err', 0x10),
    'strange_regions': negotiate + tell('add', 0xa0, 0, 4, 0, 0) + tell('add', 0xa8, number(4096), number(4096), 0, 0)
    + tell('table', 3, 0x86, 0x88, 0x8a),
    'surplus': tell('get_features', how=0xe0) + b'\4\x14' + bytes(range(20)),
    'truncated': negotiate + b'\x0a\x05\1\0\0\0\1' + client(1),
    'two': negotiate + memory + ring + bytes([13, 0x13, 0x14, 0]) + bytes([13, 0x00]),
    'disconnect': negotiate + memory + ring + bytes([13, 4]) + SETTLE,
    'rubbish': b'\x0a\x10' + bytes(range(16)),
}
messages = {k: b'\0' + v for k, v in messages.items()}

kick = bytes([KICK, 0])
ranges = b'\2' + number(8) + number(16) + b'\0' + number(64) + number(8) + b'\1'
every = (chain(OUT, 0, b'\x61') + kick + chain(IN, 0, b'\x62') + kick + chain(IDLE_FLUSH, 0, b'') + kick
         + chain(ID, 0, b'\1') + kick + chain(DISCARD, 0, ranges) + kick + chain(WRITE_ZEROES, 0, ranges) + kick)
indirect = (chain(OUT, 8, b'\x64', INDIRECT) + chain(IN, 8, b'\x64', INDIRECT) + kick
            + chain(DISCARD, 0, ranges, INDIRECT) + kick)
chains = {}
for kind, byte in ('split', 1), ('packed', 5):
    for name_, more in ('plain', 0), ('event', 8 | 16 | 32), ('inflight', 64), ('two', 128 | 16):
        head = bytes([0, byte | more, 0])
        chains['%s_%s' % (kind, name_)] = head + every + indirect
    head = bytes([0, byte | 16 | 64, 0])
    held = head + engine(0) + chain(OUT, 0, b'\x61') + chain(IN, 0, b'\x61') + kick
    chains.update({
        kind + '_spoilt': head + chain(IN, 0, b'\2', SPOILT, b'\2\1\2\2\1' + b'\0\0' + edge()) + kick
        + chain(OUT, 0, b'\2', SPOILT | INDIRECT | 8, b'\1\1\3\0' + b'\1\0\1\7') + kick,
        kind + '_many_pieces': bytes([0, byte | 2 | 16, 0]) + chain(OUT, 0, b'\x1f', INDIRECT) + chain(IN, 0, b'\x1f') + kick,
        kind + '_held': held + engine(7) + engine(1) + SETTLE,
        kind + '_restart': held + tell('get_base', 0, 0) + engine(1) + tell('kick', 0) + kick,
        kind + '_killed': held + bytes([13, 0x13, byte | 64, 0]) + engine(1) + SETTLE + chain(IN) + kick,
        kind + '_memory_goes': held + tell('remove', 0) + engine(1) + SETTLE + tell('add', 0),
        kind + '_shrinks': head + chain(OUT, 0, b'\x61') + bytes([CHANGE, 0xf0, 0x14, 40]) + kick,
        kind + '_changes': head + chain(IN, 0, b'\x61') + bytes([CHANGE, 0x04, 0x04, 60]) + number(9)
        + bytes([CHANGE, 0x09, 0x00, 30]) + number(0x7fff) + kick,
        kind + '_flips': head + chain(OUT, 0, b'\x61') + b''.join(
            bytes([CHANGE, 0x26, i, 1]) + number(300 + i) for i in range(6)) + kick,
        kind + '_little_memory': bytes([7, byte | 16, 0]) + engine(0)
        + b''.join(chain(OUT, i * 8, b'\x6f', INDIRECT) for i in range(7)) + kick + engine(1) + SETTLE,
    })
chains['split_index_jumps'] = b'\0\1\0' + chain(IN, 0, b'\1', 0x10, b'\x7f') + kick
chains['split_hostile_marks'] = (b'\0\x41' + bytes([32 << 1]) + b'\0' * 8 + struct.pack('<HHHH', 1, 8, 3, 0xfffd)
                                 + b'\1' + b'\0' * 5 + b'\1\0' + struct.pack('<Q', 7) + every)
chains['packed_hostile_marks'] = (b'\0\x45' + bytes([63 << 1]) + b'\0' * 8
                                  + struct.pack('<HHHHHHBB7x', 1, 8, 2, 1, 3, 2, 1, 0)
                                  + b'\1\0' + struct.pack('<HHHQHHIQ', 1, 0, 1, 7, 0, 0, 16, 0x19000)[:31] + every)

# ---- the control socket, and files ----

LINE, WORD, GO_ON = b'\x07', 0, b'\x03'


def words(*numbers):
    return b''.join(bytes([WORD, n]) for n in numbers)


control = {
    'requests': words(0, 2, 3, 4, 5, 6) + GO_ON,
    'words': words(8, 12, 14, 11, 13, 14, 9) + LINE + GO_ON,
    'events': words(1, 0) + GO_ON + b'\x05\1' + GO_ON,
    'descriptors': words(0) + b'\4\2' + words(0) + b'\4\xfd' + b'\5\0',
    'deep_and_long': words(10) + b'\2\xdf' + b'[' * 31 + LINE + b'\2\xff' + b'"' * 31 + GO_ON,
}
lists = {
    'keys': b'1# comment\nalice:00112233445566778899aabbccddeeff\nbob:' + b'5a' * 32 + b' \r\n\n',
    'keys_refused': b'1alice:0011\n',
    'access': b'0# who may what\npsk:alice tank/*\n"dn:CN=bob,O=*" tank/[a-w]*@* ro\n- tank/pub?ic ro\n',
    'access_refused': b'0psk:alice tank/web rw\n',
}


def main():
    for kind, seeds in (('nbd_handshake', handshake), ('nbd_requests', requests), ('vhost_messages', messages),
                        ('vhost_chains', chains), ('control', control), ('lists', lists)):
        folder = os.path.join(sys.argv[1], kind)
        os.makedirs(folder, exist_ok=True)
        for title, content in seeds.items():
            with open(os.path.join(folder, title), 'wb') as f:
                f.write(content)


main()
