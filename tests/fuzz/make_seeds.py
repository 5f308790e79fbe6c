#!/usr/bin/python3
"""Writes the seeds of the fuzzers: legal conversations, files and pools, in the words that nbd_play.c,
vhost_play.c, vhost_chain.c, pool_damage.c, pool_log.c and the others understand. What is found later is
added beside them by hand.

usage: make_seeds.py CORPUS-FOLDER"""
import os
import struct
import sys
import zlib


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

# ---- fuzz_vm_control.c: a machine's ----

SHOW, CONSOLE, PAUSE, STOP, FORCE = 0, 1, 2, 6, 7
SAY, ANSWER_ALL, ENDS, READS, SECONDS = b'\5', b'\x09\x80', b'\x0b\0', b'\x0d', b'\x0f'
vm_control = {
    'looking': words(SHOW, 16, 17, 18, 19, 27, 28) + b'\4' + SAY,
    'turns': words(PAUSE, 3, 4, 5) + SAY + ANSWER_ALL * 5 + b'\x0a\3' + SECONDS + b'\2',
    'refused': words(PAUSE) + SAY + b'\x09\x40' + words(4) + SAY + SECONDS + b'\x28',
    'disks': words(9, 10, 11, 21, 26) + SAY + ANSWER_ALL * 3,
    'memory': words(12, 13, 22, 25) + SAY + ANSWER_ALL * 2,
    'snapshots': words(14, 15, 23, 26) + SAY + ANSWER_ALL * 4,
    'two_turn': words(14) + SAY + b'\x07\x17' + words(PAUSE) + SAY + ANSWER_ALL * 3 + b'\x07\x10' + ANSWER_ALL,
    'console': b'\x0c' + number(100) + words(CONSOLE) + SAY + b'\0\xc4keys' + SAY + READS + b'\x0c' + edge() + b'\x07\0',
    'console_at_the_end': words(CONSOLE) + SAY + b'\x07\x17' + words(CONSOLE) + SAY + b'\x07\x11' + ENDS,
    'keys_not_read': words(CONSOLE) + SAY + b'\0\xffk' * 8 + SAY + SECONDS + b'\x20' + READS,
    'stop': words(STOP) + SAY + ANSWER_ALL * 2 + SECONDS + b'\x3d' + ENDS,
    'stop_by_force': words(8, 29, 24) + words(STOP) + SAY + b'\x07\x17' + words(FORCE) + SAY + ENDS,
    'too_long': b'\0\xfcx' + words(SHOW) + SAY,
    'deep': b'\0\xfa[' + words(25) + b'\0\xfa{' + b'\4' + SAY,
    'deaf': b'\x07\x0b' + b'\0\xfc\n' + SAY + SECONDS + b'\x0b' + b'\x08',
    'crowd': b'\x07\x0a' + words(SHOW) + SAY + b'\x07\0' + b'\x07\7' + words(SHOW) + SAY,
    'lies': words(PAUSE) + SAY + b'\x0a\xc0\1\5' + b'\xff' * 5 + words(SHOW) + SAY,
}
lists = {
    'keys': b'1# comment\nalice:00112233445566778899aabbccddeeff\nbob:' + b'5a' * 32 + b' \r\n\n',
    'keys_refused': b'1alice:0011\n',
    'access': b'0# who may what\npsk:alice tank/*\n"dn:CN=bob,O=*" tank/[a-w]*@* ro\n- tank/pub?ic ro\n',
    'access_refused': b'0psk:alice tank/web rw\n',
}

# ---- a server to the next: fuzz_vhost_saved.c, fuzz_handover.c ----

WORD_AT, ADD, DOUBLE, TAKE_OUT, DESCRIPTOR, CUT, DONE = 0, 2, 3, 4, 5, 6, 7
saved = {}
for kind, byte in ('split', 1), ('packed', 5):
    head = bytes([0, byte | 64, 0])
    pass_on = head + b'\0'
    in_flight = bytes([0, byte | 16 | 64, 0]) + b'\3' + engine(0) + chain(OUT, 0, b'\x61') + kick
    saved.update({
        kind + '_goes_on': pass_on + bytes([DONE]) + every + indirect,
        kind + '_in_flight': in_flight + bytes([DONE]) + engine(1) + SETTLE + every,
        kind + '_fact': pass_on + bytes([WORD_AT, 0, 4]) + number(3) + bytes([DONE]) + every,
        kind + '_size': pass_on + bytes([WORD_AT, 2, 3]) + number(0xffff) + bytes([DONE]) + every,
        kind + '_region': pass_on + bytes([WORD_AT, 3, 0x80 | 8]) + edge(1) + bytes([DONE]) + every,
        kind + '_made_up': pass_on + bytes([ADD, 1 << 6 | 12, 5, 8]) + b'\1' + b'\0' * 7 + bytes([DONE]) + every,
        kind + '_half_a_message': pass_on + bytes([ADD, 61, 63, 13]) + bytes([5, 0, 0, 0, 1]) + b'\0' * 8 + bytes([DONE]) + every,
        kind + '_twice': pass_on + bytes([DOUBLE, 3, 3, DOUBLE, 0, 2, DONE]) + every,
        kind + '_left_out': pass_on + bytes([TAKE_OUT, 3, DONE]) + every,
        kind + '_other_file': pass_on + bytes([DESCRIPTOR, 1, 4, DESCRIPTOR, 2, 0x40, DESCRIPTOR, 0, 0x86, DONE]) + every,
        kind + '_cut': pass_on + bytes([CUT, 200, 0, DONE]) + every,
    })


def said(*numbers):
    return b''.join(bytes([0, n]) for n in numbers)


handover = {
    'all': said(4, 6, 7, 9, 11, 13, 14, 15, 33, 5) + bytes([5 | 3 << 3]),
    'two_sockets': said(4, 6, 7, 34, 8, 10, 11, 12, 13, 5) + bytes([5 | 3 << 3]),
    'too_few': said(3, 6, 7, 9, 5) + bytes([5 | 1 << 3]),
    'one_twice': said(2, 6, 7, 10, 5) + bytes([5 | 1 << 3]),
    'subscriber': said(4, 6, 10, 11, 13, 14, 16, 33, 5) + bytes([5 | 3 << 3, 6, 0x86]),
    'attached': said(4, 6, 10, 11, 13, 17, 18, 26, 33, 5) + bytes([5 | 3 << 3, 6, 0x86]),
    'attached_twice': said(4, 6, 10, 11, 13, 17, 18, 26, 34, 18, 26, 33, 5) + bytes([5 | 3 << 3]),
    'attached_unknown': said(4, 6, 9, 11, 13, 17, 19, 26, 33, 5) + bytes([5 | 3 << 3]),
    'front_end': said(4, 6, 10, 11, 13, 17, 18, 20, 21, 22, 22, 22, 22, 25, 26, 33, 5) + bytes([5 | 3 << 3, 6, 0x86]),
    'front_end_says': said(4, 6, 10, 11, 13, 17, 18, 20, 21, 22, 22, 22, 22, 23, 24, 25, 26, 33, 5) + bytes([5 | 3 << 3, 6, 0x86]),
    'front_end_of_no_volume': said(4, 6, 9, 11, 13, 17, 19, 20, 21, 22, 22, 22, 22, 25, 26, 33, 5) + bytes([5 | 3 << 3]),
    'error': said(27, 28) + b'\4' + said(29) + b'\4',
    'late': said(3, 0) + b'\4\xf7' + said(28) + b'\4',
}
replies = {
    'reply': b'\0\0\0\1',
    'events': b'\1\2\2\3',
    'error': b'\0\0\3',
    'pieces': b'\0' + bytes([5, 11, 5, 12, 19, 9, 13, 24, 9, 14, 25, 6, 6, 4]),
    'no_json': b'\0\0\x05\4',
    'long': b'\0' + bytes([5, 11, 5, 13]) + b'\xc1"' + b'\xfe\x78' + b'\xc1"' + bytes([6, 6, 4]),
    'nothing': b'\1',
}

# ---- files ----

state = {
    'all': bytes([0, 1, 2, 4, 3, 5, 7, 8, 5, 6, 9, 10, 4, 11, 5, 6]),
    'members': bytes([0, 1, 2, 4, 2, 5, 6]),
    'served': bytes([0, 7, 8, 4, 8, 4, 22, 5, 6, 6]),
    'attached_twice': bytes([0, 9, 10, 4, 10, 4, 12, 15, 14, 26, 6, 5, 6]),
    'refused': bytes([0, 1, 12, 16, 14, 23, 6, 5, 6]),
    'pieces': bytes([12, 15, 14, 22, 4, 17, 14, 21, 6]),
}
word = {
    'size': b'\3' + b'\0' * 8 + bytes([8, 10, 17]),
    'fraction': b'\4' + struct.pack('<Q', 1 << 62) + bytes([8, 10, 11, 14]),
    'iops': b'\1' + struct.pack('<Q', 1 << 63) + bytes([0, 9]),
    'bandwidth': b'\1' + b'\xff' * 8 + bytes([2, 35, 13]),
    'on_full': b'\1' + b'\1' * 8 + bytes([4, 21]),
    'compression': b'\1' + b'\0' * 8 + bytes([6, 26]),
    'uuid': b'\7' + b'\0' * 8 + bytes([36, 37, 37, 38, 38, 8]),
    'name': b'\3' + b'\0' * 8 + bytes([30, 27, 34]),
    'too_large': b'\1' + b'\0' * 8 + bytes([39, 16]),
}


def pieces(text):
    """As input_words() takes bytes: 31 at a time."""
    text = text.encode()
    return b''.join(bytes([0xc0 | len(text[i:i + 31])]) + text[i:i + 31] for i in range(0, len(text), 31))


vm_file = {
    'kernel': pieces('name: web\nkernel: vmlinuz\ninitrd: initrd.img\ncmdline: "root=/dev/vda1: ro"\nmemory: 1G\nmemory-max: 4G\n'),
    'machine': pieces('name: a\nuuid: 00112233-4455-6677-8899-aabbccddeeff\ncpus: 4\ncpu-weight: 100\ncpu-max: 250%\nhugepages: yes\n'
                      'firmware: ./f\nvsock: {cid: 3}\nrng: off\nballoon: off\nconsole-log: l\nautostart: true\non-crash: reboot\n'
                      'disks: [{volume: t/v}]\n'),
    'disks': pieces('name: a\ndisks:\n  - volume: t/v\n    serial: s 1\n    queues: 4\n    boot: 1\n    from: i.qcow2\n    size: 20G\n'
                    '  - {volume: t/w, from: t/v@s, readonly: true}\n  - volume: t/v@s\n'),
    'network': pieces('name: a\nkernel: k\nnetwork:\n  - type: user\n    mac: 52:54:00:12:34:56\n    forward:\n      - tcp:80:8080\n'
                      "      - 'udp:[::1]:53:53'\n      - tcp:127.0.0.1:22:22\n  - {type: tap, tap: t0}\n"),
    'seed': pieces('name: a\nkernel: k\nseed:\n  hostname: a.example\n  ssh-keys:\n    - ssh-rsa AAAA me\n  user-data: u\n  network-config: n\n'),
    'words': bytes([0, 1, 9, 44, 46, 50, 12, 13, 51, 16, 60, 43, 60, 50, 21, 22, 26, 27, 28, 32, 34, 59, 57, 50]),
    'anchors': pieces('name: &a web\nkernel: *a\n'),
    'deep': pieces('name: [[[[[[[[[[') ,
    'long': pieces('name: a\nkernel: k\ncmdline: ') + b'\xfaa' + bytes([50]),
    'two_documents': pieces('name: a\nkernel: k\n---\nname: b\n'),
    'block': pieces('name: |\n  a\nkernel: >-\n  a\n  b\n'),
    'utf16': b'\xdf\xff\xfe' + 'name: a\nkernel'.encode('utf-16-le')[:29] + b'\xc8' + ': k\n'.encode('utf-16-le'),
    'unknown': pieces('name: a\nkernel: k\nmemroy: 1G\n'),
    'twice': pieces('name: a\nkernel: k\ncpus: 1\ncpus: 2\n'),
}
EVERY = b'\xff' * 4


def words_each(*numbers):
    """A word each, of one piece."""
    return b''.join(bytes([1, n]) for n in numbers)


def joined(*numbers):
    return bytes([len(numbers), *numbers])


NAME = joined(16, 17, 18)
arguments = {
    'words': EVERY + b'\2\3' + NAME + words_each(14),
    'options': EVERY + b'\1\2' + words_each(0, 1, 14, 4, 27) + NAME,
    'attached_value': EVERY + b'\0\7' + joined(2, 14) + joined(4, 15),
    'many': EVERY + b'\0\7' + words_each(3, 24) * 8,
    'end': EVERY + b'\1\7' + words_each(10, 0) + NAME,
    'negative': EVERY + b'\1\7' + NAME + words_each(12),
    'negative_size': EVERY + b'\1\7' + NAME + joined(12, 14),
    'letter': EVERY + b'\1\7' + words_each(13),
    'letters_behind_an_empty_word': EVERY + b'\1\7' + b'\0' + joined(13, 24),
    'short_for': EVERY + b'\1\7' + words_each(7, 6, 8),
    'with_a_value': EVERY + b'\1\7' + joined(21, 15),
    'none_known': b'\0\0\0\0\1\2' + words_each(0) + NAME,
    'no_text': EVERY + b'\1\2' + words_each(1, 22),
    'without_a_value': EVERY + b'\0\2' + words_each(1),
}
image = {
    'raw': b'\0' + b'\0\0' + b'\xb4' + b'\xf8x' + b'\2' + number(1 << 20) + b'\3\0' + b'\0' * 8,
    'pieces': b'\1' + b'\0\0' + b'\0' + b'\xf8x' + b'\3\1' + b'\0' * 8,
    'shrinks': b'\0' + b'\0\0' + number(1 << 16) + b'\xfcx' + b'\3\0' + b'\1' + number(4096) + b'\1' + number(0) + b'\0',
    'empty': b'\0\3\0',
    'hole': b'\0\2' + number(1 << 40) + b'\3\0',
    'largest': b'\0\2' + edge() + b'\3\0',
    'too_large': b'\0\2' + edge(1) + b'\3\0',
    'tail': b'\0\2' + number(4096) + b'\0\1\0\5\3\0',
}
for i in range(11):
    image['magic_%u' % i] = b'\0\0' + (b'\6' if i == 10 else b'\2') + b'\0' + bytes([i]) + b'\2' + number(4096) + b'\3\0'
HEADER, ENTRY = 0, 1
partition = {
    'both': b'\7', 'first': b'\3', 'second': b'\5', 'without_mbr': b'\6',
    'far': b'\7' + bytes([4 | ENTRY, 10]) + edge(9) + bytes([4 | ENTRY, 8]) + edge(),
    'backwards': b'\7' + bytes([4 | ENTRY, 10]) + number(1),
    'unaligned': b'\3' + bytes([4 | ENTRY, 8]) + number(2049),
    'overflows': b'\3' + bytes([4 | ENTRY, 8]) + number(1 << 63) + bytes([4 | ENTRY, 10]) + number((1 << 64) - 1),
    'many': b'\3' + bytes([HEADER, 20]) + number(1 << 31),
    'small_entries': b'\3' + bytes([HEADER, 21]) + number(16),
    'two': b'\3' + bytes([2, 5]),
    'none_but_xfs': b'\0\x80\0\0', 'ext': b'\0\x80\xf6\0\1', 'with_lvm': b'\7\x80\xa1\2',
}

# ---- pools ----

LABEL, SUPER, TABLE, LOG, NODE, ROOT, DEADLIST, BUCKETS = range(8)
KILLED, SETTLED, CLOSED = range(3)
CHECK, VOLUME, OPERATE, CATALOG, COMPARE, SETTLED_DOWN, END = range(7)
READONLY, HELD, TIMED, DATA, ABANDON, CHECKED = 1, 2, 4, 8, 16, 32
MORE, LESS, NONE, ALL, NUMBER, BIT = range(6)


def spot(kind, n=0):
    return struct.pack('<BH', kind, n)


def place(n, any_place=False):
    return struct.pack('<H', n | (0x8000 if any_place else 0))


def changed(kind, n, at, to=MORE, length=8):
    return bytes([{8: 0, 4: 2, 1: 3}[length]]) + spot(kind, n) + place(at) + bytes([to])


def life(how, *uses):
    return b'\7' + bytes([how]) + b''.join(uses) + b'\7'


def use_volume(who, at=0):
    return bytes([1, who]) + number(at)


def operate(kind, who, n=100):
    return bytes([2 | kind << 3, who]) + number(n)


check = b'\x08'
uses = [check, use_volume(0), use_volume(20), operate(0, 5), operate(2, 7), operate(5, 3), b'\6', use_volume(1, 4096), check]
others = [bytes([4, i, 3]) + (number(100) if i == 0 else b'') + bytes([0xe3]) for i in range(5)] + [b'\5\0\3', operate(1, 2), operate(3, 9), operate(4, 0, 3)]
pool = {
    'killed': bytes([KILLED]) + life(CHECKED | DATA, *uses),
    'settled': bytes([SETTLED]) + life(CHECKED, *others),
    'closed_held': bytes([CLOSED]) + life(HELD | CHECKED, *uses),
    'readonly': bytes([KILLED]) + life(READONLY | CHECKED, *uses),
    'abandoned': bytes([CLOSED]) + life(ABANDON | TIMED, *others) + life(CHECKED, *uses),
    'rotten_once': bytes([CLOSED]) + b''.join(b'\5' + spot(k, n) for k in (TABLE, NODE, ROOT) for n in (0, 3, 9)) + life(CHECKED | DATA),
    'rotten_twice': bytes([CLOSED]) + b''.join(b'\x0d' + spot(ROOT, n) for n in (20, 41)) + life(CHECKED | DATA, *uses),
    'log_rotten': bytes([KILLED, 0x0d]) + spot(LOG, 40) + life(CHECKED),
    'unreadable': bytes([CLOSED, 6]) + spot(NODE, 2) + b'\x0e' + spot(NODE, 30) + life(CHECKED, *uses),
    'failing': bytes([KILLED, 6 | 0x80, 0x11, 30, 6 | 0x80, 0x0d, 60]) + life(CHECKED, *uses),
    'page_for_page': bytes([CLOSED, 4]) + spot(NODE, 10) + spot(NODE, 11) + b'\7' + life(CHECKED, *uses),
    'names_itself': bytes([CLOSED, 4]) + spot(NODE, 12) + spot(NODE, 14) + b'\2' + place(8) + place(0) + life(CHECKED, *uses),
}
for title, kind, numbers in (('label', LABEL, (0, 1)), ('super', SUPER, (0, 1, 8)), ('table', TABLE, (0, 1, 3)),
                             ('log', LOG, (0, 5, 40)), ('node', NODE, (0, 4, 25, 80)),
                             ('root', ROOT, (0, 9)), ('deadlist', DEADLIST, (0, 5)), ('buckets', BUCKETS, (0,))):
    for n in numbers:
        for how, to in ('more', MORE), ('none', NONE), ('all', ALL):
            pool['%s_%u_%s' % (title, n, how)] = (bytes([KILLED]) + changed(kind, n, 2 + n % 7, to) + changed(kind, n, 9 + n % 5, to, 4)
                                                  + life(CHECKED, *uses[:6]))

# Named fields of every page of a kind, where they lie.


def field(kind, n_pages, at, value, length=4, how=CHECKED, sample=KILLED):
    acts = b''.join(bytes([{8: 0, 4: 2, 1: 3}[length]]) + spot(kind, n) + place(at // 4, True) + bytes([NUMBER]) + number(value)
                    for n in range(n_pages))
    return bytes([sample]) + acts + life(how, *uses)


for title, at, value, length in (('kind', 0, 7, 1), ('legs', 0, 0x0904, 4), ('copy', 0, 0x03000203, 4), ('free', 4, 65, 4),
                                 ('log_index', 12, 9, 4), ('map_address', 16, (1 << 44) - 1, 8), ('member', 40, 200, 1),
                                 ('offset', 48, 1 << 40, 8)):
    for record in 1, 3, 6:
        pool['slab_%s_%u' % (title, record)] = field(TABLE, 9, 128 * record + at, value, length)
for title, at, value, length in (('size', 40, 1 << 60, 8), ('map', 56, 5, 4), ('height', 72, 0xc0005, 4), ('properties', 72, 0x110c0002, 4),
                                 ('buckets', 76, 1 << 30, 4), ('cursor', 96, 1 << 50, 8), ('key', 512, (1 << 64) - 1, 8), ('pages', 544, 9, 4)):
    pool['root_%s' % title] = field(ROOT, 45, at, value, length, CHECKED, CLOSED)
pool.update({
    'deadlist_n': field(DEADLIST, 50, 40, 5000),
    'deadlist_prev': field(DEADLIST, 9, 8, 7, 8),
    'buckets_n': field(BUCKETS, 2, 24, 200),
    'buckets_next': field(BUCKETS, 2, 8, 9, 8),
    'super_members': field(SUPER, 12, 20, 4000),
    'super_log': field(SUPER, 12, 172, 1 << 31),
    'super_slabs': field(SUPER, 12, 164, 1 << 31),
    'super_index': field(SUPER, 12, 168, 3000),
    'super_length': field(SUPER, 12, 16, 0x1f000),
    'label_size': field(LABEL, 4, 72, 1 << 62, 8),
    'label_features': field(LABEL, 4, 24, 1, 8),
})


def written(n, root, block, address, arrived=True):
    return bytes([0, n, root]) + number(block) + bytes([address, 0 if arrived else 1])


def catalog(kind, who, root=0, new=0, source=0, size=100, more=False):
    return bytes([3 | (16 if more else 0), kind, who, root, new, source]) + number(size)


CREATE, SNAPSHOT, CLONE, RESTORE, UNNAME, RENAME, RESIZE = range(7)
END_PAGE, END_LOG = b'\7', b'\x0f'
ROW, WEB, FREE = 1, 48, 200 # roots of volumes; a number that no root has
after = b'\x28' + check + use_volume(0) + b'\6\7'
log = {
    'writes': written(8, ROW, 0, 0) + written(1, ROW, 300, 8) + END_PAGE + written(2, WEB, 5, 9, False),
    'same_block': written(2, ROW, 0, 0) + written(2, ROW, 0, 0),
    'past_the_end': written(4, ROW, 255, 0),
    'far': written(1, ROW, 1 << 32, 0),
    'no_volume': written(1, FREE, 0, 0),
    'clears': b'\1\0' + bytes([ROW]) + number(0) + number(90) + b'\1\1' + bytes([WEB]) + number(256) + number(4096),
    'slab': b'\2\4\1' + number(64) + number(9) + number(10) + number(11) + b'\x40',
    'slab_metadata': b'\2\3\2' + number(61) + number(0) + number(1) + number(2) + b'\x40\x41',
    'create': catalog(CREATE, 0, 0, FREE) + written(3, FREE, 0, 0) + catalog(SNAPSHOT, 4, FREE, FREE + 1),
    'snapshots': catalog(SNAPSHOT, 0, ROW, FREE, more=True) + catalog(SNAPSHOT, 0, WEB, FREE + 1),
    'half_of_a_group': catalog(SNAPSHOT, 0, ROW, FREE, more=True),
    'clone': catalog(CLONE, 0, 0, FREE, 2) + written(1, FREE, 0, 0),
    'restore': catalog(RESTORE, 0, ROW, FREE, 5),
    'unname': catalog(UNNAME, 0, 5) + catalog(UNNAME, 0, 6) + catalog(UNNAME, 0, ROW),
    'rename': catalog(RENAME, 0, ROW) + catalog(RESIZE, 0, ROW, size=8),
    'property': b'\4\0' + bytes([ROW]) + b'\4\x15' + bytes([ROW]) + b'\4\x06' + bytes([ROW]),
    'unknown': b'\5\x0c' + bytes([99, 0, 16, 0]) + b'\0' * 8,
    'cut_short': written(4, ROW, 0, 0) + b'\6\0' + bytes([NUMBER]) + number(0x180001),
    'epoch': END_PAGE + written(1, ROW, 0, 0) + b'\x17\2\0' + written(1, ROW, 1, 1) + b'\x17\2\3',
    'mark': written(1, ROW, 0, 0) + b'\x17\4\0',
    'generation': written(1, ROW, 0, 0) + b'\x17\1\0',
    'used': written(1, ROW, 0, 0) + b'\x17\6\3',
}
log = {k: v + END_LOG + after for k, v in log.items()}

# ---- a virtual machine's disk: fuzz_vmm_disk.c ----

RIGHT, SILENT, CLOSES, HALF, TWICE, ONES = 0, 0xf2, 0xf3, 0xf4, 0xff, 0xfe
DISK_GONE, DISK_SAY, DISK_BREAKS, DISK_SETTLE, DISK_LOG, DISK_INDEX = b'\3', b'\4\0\0', b'\7', b'\x08', b'\x0a', b'\x0b'
DISK_RESET, DISK_RESTORE, DISK_AWAY = b'\x0f', b'\x8f', b'\x11\1'


def answers(n, wrong=0, how=RIGHT):
    return bytes([how if i + 1 == wrong else RIGHT for i in range(n)])


def disk(queues=2, **fault):
    return bytes([0, queues]) + answers(7, **fault)


def disk_start(queues=2, **fault):
    return b'\x0c\0' + bytes(3 * queues) + answers(5 + 7 * queues, **fault)


def disk_connect(queues=2, **fault):
    return b'\1' + answers(7 + 4 + 7 * queues, **fault)


def disk_stop(queues=2, **fault):
    return b'\x0e' + answers(queues, **fault)


vmm_disk = {
    'start_and_stop': disk() + disk_start() + disk_stop() + disk_start() + DISK_RESET + answers(2) + disk_start(),
    'reconnect': disk() + disk_start() + DISK_GONE + DISK_SETTLE + disk_connect() + DISK_SETTLE + disk_stop(),
    'gone_at_start': disk() + DISK_GONE + disk_start() + DISK_SETTLE + disk_connect(),
    'stopped_when_gone': disk() + disk_start() + DISK_GONE + disk_stop() + DISK_INDEX + b'\0\5\0' + DISK_SETTLE +
        disk_connect() + disk_start(),
    'resized': disk() + disk_start() + b'\5\3\0\x40' + DISK_SAY + DISK_SETTLE + answers(1) + DISK_SETTLE,
    'absurd_config': disk() + b'\5\3\x14\xff' + DISK_SAY + DISK_SETTLE + answers(1),
    'other_queues': disk() + disk_start() + DISK_GONE + DISK_SETTLE + b'\5\2\1' + disk_connect(),
    'other_features': disk() + disk_start() + DISK_GONE + DISK_SETTLE + b'\5\0\x0d' + disk_connect(),
    'ring_breaks': disk() + disk_start() + DISK_BREAKS + DISK_SETTLE,
    'silent_at_stop': disk() + disk_start() + disk_stop(wrong=2, how=SILENT) + DISK_SETTLE + disk_connect(),
    'closes_at_start': disk() + disk_start(wrong=9, how=CLOSES) + DISK_SETTLE + disk_connect(),
    'half_an_answer': disk(wrong=5, how=HALF) + disk() + disk_start(wrong=4, how=HALF),
    'twice': disk(wrong=7, how=TWICE) + disk_start(),
    'absurd_region': disk() + disk_start(wrong=4, how=ONES),
    'log': disk() + disk_start() + DISK_LOG + answers(4) + DISK_GONE + DISK_SETTLE + disk_connect() + DISK_LOG,
    'cache': disk() + disk_start() + b'\x10\x20\0\0' + answers(1) + DISK_GONE + DISK_SETTLE + disk_connect(),
    'restored': disk() + disk_start() + disk_stop() + DISK_RESTORE + b'\2' + answers(7) + b'\0' + disk_start(),
    'restored_other': disk() + disk_start() + disk_stop() + DISK_RESTORE + b'\2' + answers(7) + b'\2\x10\xff\x11\xff',
    'removed': disk() + disk_start() + DISK_AWAY + answers(2) + DISK_SETTLE + disk() + DISK_AWAY,
}


# ---- the VMM's PCI bus ----

RNG, SEED, GOING = 1, 2, 3 # slots
SETTLE, DELIVER = b'\x09', b'\x0a'
PAUSE, RESUME, RESET, ASSIGN, DETACH, ATTACH, MOVE = (bytes([11, n]) for n in range(7))
NEXT, WRITABLE, INDIRECT = 1, 2, 4
PAGES = {'common': 0, 'isr': 1, 'device': 2, 'notify': 3, 'msix': 4}


def ring_of(slot):
    return 0x100000 + slot * 0x10000


def bring_up(slot, features=(1 << 64) - 1):
    return bytes([4, slot - 1]) + struct.pack('<Q', features)


def pci_desc(slot, index, address, length, flags, follows=0, table=False):
    what = next(w for w in range(index << 3, (index << 3) + 8) if (w | table << 7) % 3 == slot - 1)
    return bytes([5, what | table << 7]) + number(address) + number(length) + bytes([flags, follows])


def available(slot, head, kick=True):
    what = next(w for w in range(128 * kick, 128 * kick + 3) if w % 3 == slot - 1)
    return bytes([7, what, head])


def pci_bar(slot, page, offset, size, value=None):
    page = PAGES[page] << 2
    what = next(w for w in range(page, page + 4) if (w | (value is None) << 7) % 3 == slot - 1)
    head = bytes([2, what | (value is None) << 7, (1, 2, 4, 8).index(size), offset])
    return head if value is None else head + number(value)


def pci_config(slot, offset, size, value=None):
    head = bytes([1, slot | (value is None) << 7, offset, (1, 2, 4).index(size)])
    return head if value is None else head + number(value)


def blk_request(kind, sector, length):
    head = struct.pack('<IIQ', kind, 0, sector)
    return (b'\x08' + number(ring_of(SEED) + 0x9000) + bytes([16]) + head + b'\0' * 8 +
            pci_desc(SEED, 0, ring_of(SEED) + 0x9000, 16, NEXT, 1) +
            pci_desc(SEED, 1, ring_of(SEED) + 0xa000, length, NEXT | WRITABLE, 2) +
            pci_desc(SEED, 2, ring_of(SEED) + 0x9100, 1, WRITABLE) + available(SEED, 0) + SETTLE)


one_buffer = pci_desc(RNG, 0, ring_of(RNG) + 0x9000, 64, WRITABLE)
fill = one_buffer + available(RNG, 0) + SETTLE + DELIVER
vmm_pci = {
    'entropy': bring_up(RNG) + fill + fill,
    'entropy_line': bring_up(RNG, (1 << 64) - 2) + fill + pci_bar(RNG, 'isr', 0, 1),
    'seed_read': bring_up(SEED) + blk_request(0, 3, 1024),
    'seed_name': bring_up(SEED) + blk_request(8, 0, 20),
    'seed_write': bring_up(SEED) + blk_request(1, 0, 512) + blk_request(0, 31, 1024),
    'indirect': bring_up(RNG) + pci_desc(RNG, 0, ring_of(RNG) + 0x8000, 32, INDIRECT) +
                pci_desc(RNG, 0, ring_of(RNG) + 0x9000, 8, NEXT | WRITABLE, 1, True) +
                pci_desc(RNG, 1, ring_of(RNG) + 0x9100, 8, WRITABLE, 0, True) + available(RNG, 0) + SETTLE,
    'circle': bring_up(RNG) + pci_desc(RNG, 0, ring_of(RNG), 8, NEXT, 0) + available(RNG, 0) + SETTLE + fill,
    'masked': bring_up(RNG) + pci_bar(RNG, 'msix', 28, 4, 1) + fill + pci_bar(RNG, 'msix', 28, 4, 0) + DELIVER,
    'bar_moves': bring_up(RNG) + pci_config(RNG, 16, 4, 0xffffffff) + pci_config(RNG, 16, 4, 0xd0100000) +
                 available(RNG, 0) + pci_config(RNG, 4, 2, 0) + pci_config(RNG, 4, 2, 6) + fill,
    'bars_overlap': bring_up(RNG) + bring_up(SEED) + pci_config(SEED, 16, 4, 0xd0000000) + pci_config(RNG, 4, 2, 0) + fill,
    'window': pci_config(RNG, 0xa0, 4, 0x14) + pci_config(RNG, 0xa4, 4, 1) + pci_config(RNG, 0xa8, 4) +
              pci_config(RNG, 0xa8, 4, 1) + pci_config(RNG, 0xa8, 4),
    'pause': bring_up(RNG) + PAUSE + fill + RESUME + SETTLE + RESET + bring_up(RNG) + fill,
    'move': bring_up(RNG) + fill + MOVE + b'\0\0\0\0' + fill + MOVE + b'\1\x20\1\7\0\0\0' + fill,
    'eject': bring_up(GOING) + DETACH + b'\0\x84\2' + b'\0\x88\2' + number(1 << GOING) + SETTLE + ATTACH + bring_up(GOING),
    'eject_at_reset': DETACH + RESET + SETTLE + ATTACH + b'\0\xc0\2',
    'assign': ASSIGN + pci_config(RNG, 4, 2, 6) + pci_config(RNG, 16, 4) + bring_up(RNG) + fill,
    'not_aligned': bring_up(RNG) + pci_bar(RNG, 'common', 20, 1, 0) + pci_bar(RNG, 'common', 32, 4, 8) + pci_bar(RNG, 'common', 28, 2, 1),
}
# ---- the VMM's ports (fuzz_vmm_ports.c) ----

COM1, CLOCK, PM, GPE, FW_CFG, KEYBOARD, PANIC, PCI, HOTPLUG = range(9)
BYTE, WORD_, LONG = range(3)


def port_in(which, offset, size=BYTE):
    return bytes([0, which, offset, size])


def port_out(which, offset, value, size=BYTE):
    return bytes([1, which, offset]) + struct.pack('<I', value) + bytes([size])


def clock(index, value):
    return bytes([3, index, value])


def dma(control, length, to=0x3000, at=0x2000):
    return b'\4' + number(at) + number(to) + struct.pack('<I', control) + number(length)


def outside(how, data=b''):
    return bytes([5, how | len(data) << 2]) + data


def later(ns):
    return b'\6\0' + number(ns)


BUTTON, RAISE, PAUSE, BOOT, MOVE, RESET = b'\7\1', b'\7\2', b'\x08', b'\x09', b'\x0a', b'\xf0'
vmm_ports = {
    'serial_probe': b''.join(port_out(COM1, r, v) + port_in(COM1, r) for r, v in
                             ((1, 0), (1, 15), (4, 0x1a), (2, 1), (2, 0x21), (7, 0x55), (3, 0x83), (0, 1), (3, 3))),
    'serial_out': b''.join(port_out(COM1, 0, c) for c in b'hello') + later(2000000) + outside(1),
    'serial_in': port_out(COM1, 2, 0xc1) + port_out(COM1, 1, 0xf) + port_out(COM1, 4, 8) + outside(2, b'typed') +
                 later(2000000) + b''.join(port_in(COM1, r) for r in (2, 5, 0, 0, 0, 0, 0, 5, 6)),
    'serial_gone': port_out(COM1, 0, 65) + outside(0) + later(5000000) + port_out(COM1, 0, 66) + later(5000000),
    'serial_loop': port_out(COM1, 2, 1) + port_out(COM1, 4, 0x1f) + port_out(COM1, 0, 7) * 18 + port_in(COM1, 5) + MOVE +
                   port_in(COM1, 0),
    'clock_read': b''.join(port_out(CLOCK, 0, r) + port_in(CLOCK, 1) for r in (10, 0, 2, 4, 6, 7, 8, 9, 0x32, 11, 12, 13)),
    'clock_set': clock(11, 0x82) + clock(0, 0x59) + clock(2, 0x59) + clock(4, 0x23) + clock(7, 0x31) + clock(8, 0x12) +
                 clock(9, 0x99) + clock(0x32, 0x21) + clock(11, 0x12) + later(3 << 30) + MOVE,
    'clock_alarm': clock(1, 0xff) + clock(3, 0xff) + clock(5, 0x22) + clock(11, 0x22) + later(3 << 30) + port_out(CLOCK, 0, 12) +
                   port_in(CLOCK, 1) + later(3 << 30),
    'clock_periodic': clock(10, 0x23) + clock(11, 0x42) + (later(1000000) + port_out(CLOCK, 0, 12) + port_in(CLOCK, 1)) * 4,
    'clock_jumps': clock(11, 0x32) + b'\6\7' + number(5) + later(1 << 30) + b'\6\7' + number(1 << 30) + later(1 << 30),
    # The guest's clock as late as it can be, the host's still later: regression.
    'clock_leaves': b'\6\7' + number(0) + clock(11, 0x82) + clock(0x32, 0x99) + clock(11, 0x72) +
                    b'\6\7' + number((1 << 31) - 1) + port_in(CLOCK, 1) + later(1 << 30) + clock(11, 0x82) + clock(0x32, 0) +
                    clock(11, 0x72) + b'\6\7' + number(0) + port_in(CLOCK, 1) + later(1 << 30),
    'power_button': port_out(PM, 2, 0x121, WORD_) + BUTTON + port_in(PM, 0, LONG) + port_out(PM, 0, 0x100, WORD_),
    'sleep': port_out(PM, 4, 0x3400, WORD_) + port_in(PM, 8, LONG) + RESET + port_in(PM, 4, WORD_),
    'hotplug_event': port_out(GPE, 2, 2) + RAISE + port_in(GPE, 0) + port_in(HOTPLUG, 0, LONG) + port_out(GPE, 0, 2) +
                     port_out(HOTPLUG, 8, 6, LONG),
    'resets': port_out(KEYBOARD, 0, 0xfe) + port_out(PCI, 1, 2) + port_out(PCI, 1, 6) + port_in(PCI, 1) + port_out(PANIC, 0, 1),
    'pci': port_out(PCI, 0, 1 << 31, LONG) + port_in(PCI, 4, LONG) + port_out(PCI, 4, 0xffffffff, LONG),
    'fw_cfg_ports': port_out(FW_CFG, 0, 0, WORD_) + port_in(FW_CFG, 1) * 6 + port_in(FW_CFG, 4, LONG) + MOVE +
                    port_in(FW_CFG, 1),
    'fw_cfg_files': BOOT + dma(0x19 << 16 | 10, 4) + dma(2, 256) + dma(0x20 << 16 | 10, 160) + dma(4, 1) + RESET + BOOT,
    'fw_cfg_wrong': dma(10, 5, (32 << 20) - 4) + dma(16 | 8, 4) + dma(10, 1 << 31, 0) + dma(10, 4, 0x3000, (32 << 20) - 8) +
                    dma(10, 64, 0x2000),
    'paused': clock(11, 0x72) + PAUSE + outside(2, b'x') + later(3 << 30) + PAUSE + port_in(COM1, 0),
}
for wrong, what in enumerate((struct.pack('<HHHHHBQ', 0x521, 1, 0, 2, 2, 6, 599_900_000_000),
                              b'\x0f\xc1\x03\x1f\x55\x02\x0f\x01\x00\x01\x10' + b'abcdefghijklmnop',
                              b'\x0b' + b'\xff' * 128 + struct.pack('<q', 1 << 62), b'', b'', struct.pack('<HII', 0x19, 4, 1))):
    vmm_ports['state_%d' % wrong] = (bytes([11, wrong, len(what)]) + what + later(3 << 30) + port_in(CLOCK, 1) +
                                     port_in(COM1, 0) + port_in(PM, 0, LONG) + port_in(FW_CFG, 1) + MOVE)
# An age of the ACPI timer that is refused after a second more, but not before: regression.
vmm_ports['old_timer'] = (bytes([11, 0, 19]) + struct.pack('<HHHHHBQ', 0x521, 1, 0, 2, 2, 6, (1 << 63) - 1) + later(1 << 30) +
                          MOVE + port_in(PM, 8, LONG))


# ---- a guest's network card, balloon and memory: fuzz_vmm_net.c ----

NET, BALLOON, MEM = range(3)
RX, TX = 0, 1
ALL, NO_INDIRECT, MERGE = (1 << 64) - 1, ~(1 << 28) & (1 << 64) - 1, 1 << 15
PEER_READS, LOOP, RESET, PAUSE, GONE = b'\x08\xd0\xff\xff\0\0', b'\x09', b'\x0a', b'\x0c', b'\x0f'


def guest(device, features=ALL):
    return bytes([device]) + struct.pack('<Q', features)


def given(queue, *of):
    """Pieces: offset into the data area, length, whether writable."""
    return bytes([0, queue, len(of) - 1]) + b''.join(
        bytes([1 if writable else 0, 7]) + struct.pack('<H', offset) + number(length) for offset, length, writable in of)


def kicked(queue):
    return bytes([4, queue])


def put(offset, data):
    return b'\x03\x07' + struct.pack('<HB', offset, len(data) - 1) + data


def frame(length):
    return b'\x06' + number(length)


def started(features=ALL):
    return b'\x0b' + struct.pack('<Q', features)


def mem_request(kind, block, n):
    return (b'\x0e\x01\0' + number(block) + struct.pack('<BH', kind, n) +
            given(0, (0, 24, False), (4096, 10, True)) + kicked(0))


def wanted(blocks):
    return b'\x0e\0' + number(blocks)


sent = given(TX, (0, 12, False), (4096, 1500, False)) + kicked(TX)
received = given(RX, (8192, 2048, True)) + kicked(RX) + frame(60) + LOOP
pfns = struct.pack('<4I', 512, 513, 514, 900)
vmm_net = {
    'send': guest(NET) + sent + PEER_READS + LOOP,
    'send_much': guest(NET) + given(TX, (0, 12, False), (4096, 65000, False)) * 3 + kicked(TX) + (PEER_READS + LOOP) * 4,
    'receive': guest(NET) + received + received,
    'receive_merged': guest(NET, MERGE) + given(RX, (8192, 100, True)) * 4 + frame(300) + kicked(RX) + LOOP,
    'receive_large': guest(NET, 0) + given(RX, (0, 65562, True)) + frame(65550) + LOOP + kicked(RX),
    'wait_for_buffers': guest(NET) + frame(1000) * 3 + LOOP + received * 3,
    'in_pieces': guest(NET) + given(RX, (0, 2048, True)) + b'\x07\x05\0\0\0\x20\1' + LOOP + b'\x07\x1f' + b'\2' * 31 + LOOP,
    'length': guest(NET) + given(RX, (0, 2048, True)) + b'\x07\x04\xff\xff\xff\xff' + LOOP + sent,
    'reset': guest(NET) + given(TX, (0, 60000, False)) + kicked(TX) + RESET + started() + sent + PEER_READS + LOOP,
    'pause': guest(NET) + received + PAUSE + received + sent,
    'gone': guest(NET) + received + GONE + LOOP + sent,
    'loop_of_descriptors': guest(NET, 0) + given(TX, (0, 60, False)) + b'\x03\0' + number(32768) + b'\x0f' +
                           struct.pack('<QIHH', 1 << 20, 60, 1, 0) + b'\3\0' + number(0xc002) + b'\1\1\0' + kicked(TX),
    'inflate': guest(BALLOON) + b'\x0e' + number(20) + put(0, pfns) + given(0, (0, 16, False)) + kicked(0) + b'\x0d\x04\4' + b'\4\0\0\0',
    'deflate': guest(BALLOON) + put(0, pfns) + given(1, (0, 16, False)) + kicked(1),
    'report': guest(BALLOON) + given(2, (4096, 8192, True), (16384, 40000, True)) + kicked(2),
    'plug': guest(MEM) + wanted(50) + mem_request(0, 3, 4) + mem_request(3, 2, 3) + mem_request(1, 4, 1) + mem_request(2, 0, 0),
    'plug_wrong': guest(MEM) + wanted(160) + mem_request(0, 127, 2) + mem_request(0, 0, 65535) + mem_request(1, 0, 1) + mem_request(7, 0, 1),
    'restore': guest(MEM) + RESET + b'\x0f\x28' + struct.pack('<QQQ', 1 << 32, 1 << 28, 1 << 22) + b'\3' + b'\0' * 15,
}


# ---- kernels (fuzz_vmm_boot.c) ----

BZIMAGE, ELF, CUT, INITRD, LARGE = 0, 1, 2, 4, 8


def header(offset, value, size):
    """Of a bzImage, by its offset from 0x1f1."""
    return bytes([offset - 0x1f1]) + number(value) + bytes([size])


def elf(at, value, size):
    return bytes([at >= 512, at % 512]) + number(value) + bytes([size])


FIRST, NOTE_, SECOND = 64, 64 + 56, 64 + 112 # program headers: type 0, offset 8, paddr 24, filesz 32, memsz 40
vmm_boot = {
    'linux': bytes([BZIMAGE | INITRD]) + number(100) + number(5 << 20),
    'linux_large': bytes([BZIMAGE | INITRD | LARGE]) + number(2047) + number(30 << 20),
    'linux_low': bytes([BZIMAGE]) + number(0) + header(0x258, 1 << 30, 3),
    'linux_too_large': bytes([BZIMAGE]) + number(0) + header(0x260, 0xffffffff, 2),
    'linux_alignment': bytes([BZIMAGE]) + number(0) + header(0x230, 3, 2) + header(0x258, 1 << 40, 3),
    'linux_old': bytes([BZIMAGE]) + number(0) + header(0x206, 0x20b, 1),
    'linux_32': bytes([BZIMAGE]) + number(0) + header(0x236, 0, 1),
    'linux_cut': bytes([BZIMAGE | CUT]) + number(0) + number(0x200),
    'linux_cmdline': bytes([BZIMAGE]) + number(2048),
    'linux_initrd_max': bytes([BZIMAGE | INITRD]) + number(0) + number(1 << 20) + header(0x22c, 0xfffff, 2),
    'nothing': bytes([BZIMAGE]) + number(0) + header(0x202, 0, 2),
    'elf': bytes([ELF | INITRD]) + number(65000) + number(1 << 20),
    'elf_cut': bytes([ELF | CUT]) + number(0) + number(100),
    'elf_32': bytes([ELF]) + number(0) + elf(4, 1, 0),
    'elf_segments': bytes([ELF]) + number(0) + elf(56, 65535, 1),
    'elf_far': bytes([ELF]) + number(0) + elf(32, (1 << 64) - 8, 3),
    'elf_low': bytes([ELF]) + number(0) + elf(SECOND + 24, 0x7000, 3),
    'elf_end': bytes([ELF]) + number(0) + elf(SECOND + 24, (32 << 20) - 4096, 3),
    'elf_wraps': bytes([ELF]) + number(0) + elf(FIRST + 40, (1 << 64) - 1, 3),
    'elf_shrinks': bytes([ELF]) + number(0) + elf(FIRST + 40, 2048, 3),
    'elf_bss': bytes([ELF | INITRD]) + number(0) + number(4096) + elf(FIRST + 40, 15 << 20, 3),
    'elf_bss_of_all': bytes([ELF | LARGE]) + number(0) + elf(FIRST + 40, 2 << 30, 3),
    'elf_note_name': bytes([ELF]) + number(0) + elf(512, 0xffffffff, 2),
    'elf_note_long': bytes([ELF]) + number(0) + elf(NOTE_ + 32, 65536, 3),
    'elf_note_short': bytes([ELF]) + number(0) + elf(NOTE_ + 32, 35, 3),
    'elf_no_note': bytes([ELF]) + number(0) + elf(NOTE_, 6, 2),
}

# ---- saved machines (fuzz_vmm_state.c) ----


def sections(which, *how):
    return bytes([which]) + b''.join(how)


def change(*changes):
    return bytes([len(changes)]) + b''.join(number(v) + struct.pack('<H', to) + bytes([size]) for v, to, size in changes)


GONE_, VERSION, LONGER, SHORTER = b'\xfc', b'\xf8', b'\xf0', b'\xe8'
vmm_state = {
    'as_it_was': sections(0) + bytes([0, 0x10, 0]) + number(1) + bytes([4, 0xf8, 3]) + number(0),
    'memory': sections(1, change((1 << 40, 4, 3))),
    'pci': sections(2, change((0xffffffff, 0, 2), (0xffffffff, 16, 2))),
    'gone': sections(0xff, *[b'\0'] * 3, GONE_),
    'version': sections(4, VERSION + number(7) + b'\0' * 200),
    'longer': sections(8, LONGER + b'\x07' + b'\0' * 400),
    'shorter': sections(16, SHORTER),
    'serial': sections(8, change((0xff, 0, 0), (0xff, 8, 2), (0xffff, 12, 1))),
    'clock': sections(16, change(*[((1 << 64) - 1, to, 3) for to in range(0, 80, 8)])),
    'virtio': sections(1 << 7, change((0xffff, 0, 1), (0xff, 20, 3), (0x1000, 40, 3))) + bytes([7, 0, 0]) + number(0),
    'all': sections(0xff, *[change(((1 << 64) - 1, 3 * i, 2)) for i in range(10)]),
    'vcpu': b'\xff' + struct.pack('<IIQII', 1, 0x10, 7, 16, 0) + b'\1' * 12,
    'vcpu_msrs': b'\xff' + struct.pack('<I', 1 << 20),
    'vcpu_vectors': b'\xff' + struct.pack('<II', 0, 1 << 30),
}


# ---- image formats ----

def vmdk_text(*numbers):
    return joined(*numbers)


def vmdk_header(shape, capacity, grain, *changes):
    return bytes([shape]) + number(capacity) + bytes([grain, len(changes)]) + b''.join(
        bytes([at]) + number(to) for at, to in changes)


def vmdk_file(kind, *parts, length=131072):
    return bytes([kind]) + number(length) + b''.join(parts)


def vmdk_entries(*entries):
    """(kind, index, value): 1 is a table's; (3, sector, bytes)."""
    out = bytes([len(entries)])
    for kind, index, value in entries:
        out += bytes([kind, index]) + (bytes([len(value)]) + value if kind == 3 else number(value))
    return out


NO_FILE = vmdk_file(0, vmdk_text(), length=0)
SPARSE_FILE = vmdk_file(2, vmdk_header(4 | 8, 1024, 3), vmdk_entries((1, 0, 64), (1, 1, 72), (1, 2, 1), (1, 5, 128)))
GRAIN = zlib.compress(b'a' * 4096)
READ_IT, WRITE_IT = b'\1', b'\0'
vmdk = {
    'sparse': READ_IT + SPARSE_FILE + NO_FILE * 2,
    'cowd': READ_IT + vmdk_file(1, number(1024), b'\3\1', vmdk_entries((1, 0, 64), (1, 9, 80))) + NO_FILE * 2,
    'compressed': READ_IT + vmdk_file(2, vmdk_header(16 | 32, 16, 3), vmdk_entries(
        (1, 0, 32), (1, 1, 33), (3, 32, struct.pack('<QI', 0, len(GRAIN)) + GRAIN),
        (3, 33, struct.pack('<QI', 8, len(GRAIN)) + GRAIN))) + NO_FILE * 2,
    'without_markers': READ_IT + vmdk_file(2, vmdk_header(16, 16, 3), vmdk_entries((1, 0, 32), (3, 32, GRAIN)))
    + NO_FILE * 2,
    'footer': READ_IT + vmdk_file(2 | 8, vmdk_header(16 | 32 | 128, 16, 3), vmdk_entries(
        (1, 0, 32), (3, 32, struct.pack('<QI', 0, len(GRAIN)) + GRAIN)), vmdk_header(16 | 32, 16, 3)) + NO_FILE * 2,
    'extents': READ_IT + vmdk_file(0, vmdk_text(0, 1, 23, 6, 21, 9, 13, 17, 6, 22, 10, 14, 17, 6, 22, 11)) + SPARSE_FILE
    + vmdk_file(0, vmdk_text()),
    'child': READ_IT + vmdk_file(2 | 4, vmdk_header(64 | 8, 1024, 3), vmdk_text(0, 1, 23, 3, 4), vmdk_entries((1, 0, 64)))
    + vmdk_file(0, vmdk_text(0, 1, 23, 6, 21, 11)) + NO_FILE,
    'grain': READ_IT + vmdk_file(2, vmdk_header(4, 1024, 3, (20, 3)), vmdk_entries()) + NO_FILE * 2,
    'written': WRITE_IT + b'\0' + number(500000) + b'\0' + bytes(range(0, 250, 7)),
    'written_stream': WRITE_IT + b'\1' + number(700000) + b'\1' + bytes(range(32, 250, 5)),
    'written_flat': WRITE_IT + b'\2' + number(300000) + bytes(range(32, 250, 11)),
    'written_split': WRITE_IT + b'\3' + number(900000) + b'\3' + bytes(range(40, 250, 9)),
}


def ova_member(name, *numbers, kind=0, records=None):
    return (bytes([kind]) + (joined(*records) if records else b'') + joined(*numbers) + bytes([1, name, 1]))


OVF = [0, 2, 4, 7, 3, 8, 10, 11, 7, 9, 13, 15, 18, 21, 16, 15, 19, 16, 15, 17, 22, 16, 15, 20, 16, 14, 1]
ova = {
    'disk': b'\2' + ova_member(0, *OVF) + ova_member(2, 27, 27),
    'dot': b'\2' + ova_member(0, *OVF) + ova_member(3, 27, 27),
    'manifest': b'\3' + ova_member(0, *OVF) + ova_member(1, 28, 30) + ova_member(2, 27),
    'extended': b'\3' + ova_member(0, *OVF) + b'\3\1' + bytes([14, 1]) + b'\0\1\4\1' + ova_member(4, 27),
    'compressed': b'\2' + ova_member(0, *[n if n != 4 else 5 for n in OVF]) + ova_member(2, 27),
    'pieces': b'\2' + ova_member(0, 0, 2, 4, 6, 7, *OVF[4:]) + ova_member(2, 27),
    'dtd': b'\1' + ova_member(0, 24, *OVF),
    'units': b'\2' + ova_member(0, *OVF[:8], 12, *OVF[8:]) + ova_member(2, 27),
}


# ---- image formats: see fuzz_vdi.c, fuzz_vhd.c, image_play.c ----

QUIET = b'\0'                   # nothing changed; as long as it is
FREE, ZERO = 0xc0, 0xa0
DYNAMIC, STATIC, UNDO, DIFFERENCING = range(4)


def vdi_disk(kind, *entries, extra=0, old=False, poke=QUIET, resize=QUIET):
    head = [3, len(entries), 7 if old else 0, 0, kind] + ([] if old else [0, extra, len(entries), 1])
    return bytes(head + [*entries, 12]) + poke + resize


def vhd_disk(kind, *entries, names=QUIET, footer=QUIET, header=QUIET, poke=QUIET, resize=QUIET, end=0):
    """kind: 0 fixed, 1 dynamic, 2 differencing."""
    return (bytes([3, len(entries), 0, 0, 0, kind, 20, 0]) + footer + names + header + bytes(entries)
            + b'\4' + b'\xff\0\xf0\1\0\0\x55\xaa' + resize + bytes([end]) + poke)


def disks(first, *more, lost=0, how=0, reads=()):
    others = [b'\1' + x for x in more] + [b'\0'] * (2 - len(more))
    return (b'\0\0' + first + b''.join(others) + bytes([lost, how, len(reads)])
            + b''.join(number(at) + number(length) for at, length in reads))


def made(size, variant, cluster, *pieces):
    return b'\0\x0f' + number(size) + bytes([variant, cluster, *pieces])


def poked(at, value, length, from_end=0):
    return b'\1' + bytes([(length - 1) << 5 | from_end]) + number(value) + number(at)


vdi = {
    'dynamic': disks(vdi_disk(DYNAMIC, 0, 1, 2, FREE, ZERO, 3), reads=[(0, 20000), (4095, 2)]),
    'static': disks(vdi_disk(STATIC, *range(8)), reads=[(100, 30000)]),
    'extra': disks(vdi_disk(DYNAMIC, 1, 0, extra=1)),
    'old': disks(vdi_disk(DYNAMIC, 0, FREE, 1, old=True)),
    'parent': disks(vdi_disk(DIFFERENCING, FREE, 0, ZERO, FREE), vdi_disk(DYNAMIC, 0, 1), reads=[(0, 16384)]),
    'grandparent': disks(vdi_disk(DIFFERENCING, FREE, 0), vdi_disk(DIFFERENCING, FREE, 0), vdi_disk(STATIC, 1, 0)),
    'lost': disks(vdi_disk(DIFFERENCING, FREE), lost=1),
    'alone': disks(vdi_disk(DIFFERENCING, FREE, 0), how=0x30),
    'beyond': disks(vdi_disk(DYNAMIC, 0, 0x3f, 0xf0, 0, 0, 0, 1)),
    'twice': disks(vdi_disk(DYNAMIC, 0, 0, 1)),
    'no_blocks': disks(vdi_disk(DYNAMIC)),
    'block_size': disks(vdi_disk(DYNAMIC, 0, 1, poke=poked(376, 0, 4))),
    'blocks': disks(vdi_disk(DYNAMIC, 0, 1, poke=poked(384, 0xffffffff, 4))),
    'size': disks(vdi_disk(DYNAMIC, 0, 1, poke=poked(368, 1 << 62, 8))),
    'cut': disks(vdi_disk(DYNAMIC, 0, 1, resize=b'\7' + number(1024))),
    'made': made(3 << 20, 1, 0, 2, 1, 0x12),
    'made_static': made(100000, 2, 0, 2, 1, 2),
}
vhd = {
    'dynamic': disks(vhd_disk(1, 0, 1, 2, FREE, 3), reads=[(0, 20000), (4095, 2)]),
    'fixed': disks(vhd_disk(0, 0, 1), reads=[(100, 3000)]),
    'parent': disks(vhd_disk(2, FREE, 0, 1, FREE), vhd_disk(1, 0, FREE, 2), reads=[(0, 16384)]),
    'grandparent': disks(vhd_disk(2, FREE, 1), vhd_disk(2, 2, FREE), vhd_disk(1, 1, 2)),
    'url': disks(vhd_disk(2, FREE, names=b'\1\0\4\0'), vhd_disk(1, 1)),
    'wide': disks(vhd_disk(2, FREE, names=b'\1\1\0\0'), vhd_disk(1, 1)),
    'windows': disks(vhd_disk(2, FREE, names=b'\1\6\3\1C:\\a\\1\0'), vhd_disk(1, 1)),
    'lost': disks(vhd_disk(2, FREE), lost=1),
    'alone': disks(vhd_disk(2, FREE, 0), how=0x30),
    'copy': disks(vhd_disk(1, 1, 2, end=7)),
    'short_footer': disks(vhd_disk(1, 1, 2, end=0x18)),
    'beyond': disks(vhd_disk(1, 0, 0x1f, 0xf0, 0, 0, 0, 1)),
    'twice': disks(vhd_disk(1, 1, 1)),
    'no_blocks': disks(vhd_disk(1)),
    'block_size': disks(vhd_disk(1, 1, header=b'\1' + struct.pack('<H', 32) + number(0) + b'\2')),
    'entries': disks(vhd_disk(1, 1, header=b'\1' + struct.pack('<H', 28) + number(0xffffffff) + b'\2')),
    'size': disks(vhd_disk(1, 1, footer=b'\1' + struct.pack('<H', 48) + number(1 << 50) + b'\3')),
    'checksum': disks(vhd_disk(1, 1, poke=poked(512, 7, 1))),
    'made': made(3 << 20, 1, 0, 2, 1, 2),
    'made_fixed': made(100000, 3, 0, 2, 1, 2),
}


# ---- VHDX ----

def vhdx_block(block, kind):
    return b'\0' + number(block) + bytes([kind])


def vhdx_bitmap(block, bits, fill=0):
    return b'\2' + number(block) + bytes([len(bits)]) + bits + bytes([fill]) + number(0)


def vhdx_log(*records, kind=1, more=b''):
    """A record: what is written, where, how long if it is zeroes."""
    return bytes([4, len(records), kind]) + more + b''.join(
        bytes([what]) + number(where) + number(length) for what, where, length in records)


def vhdx_spoil(place, at, value, width=16, more=b''):
    return bytes([5, place | width]) + number(at) + number(value) + more


VHDX_END = b'\7\0'
vhdx = {
    'dynamic': b'\1\0' + number(8) + vhdx_block(0, 0) + vhdx_block(1, 1) + vhdx_block(4, 5) + VHDX_END,
    'fixed': b'\1\x10' + number(4) + vhdx_block(0, 0) + vhdx_block(1, 0) + VHDX_END,
    'sectors': b'\1\x25' + number(40) + number(3) + vhdx_block(3, 0) + vhdx_block(2, 6) + VHDX_END,
    'differencing': b'\1\x08' + number(8) + vhdx_block(1, 2) + vhdx_bitmap(1, b'\xf0\xff\0\1') + vhdx_block(2, 0) +
    VHDX_END + b'\xff',
    'bitmap-of-ones': b'\1\x0d' + number(8) + vhdx_block(1, 2) + vhdx_bitmap(1, b'', 0xff) + VHDX_END + b'\xff',
    'log': b'\1\0' + number(8) + vhdx_block(0, 0) + vhdx_log((0x70, 0, 0)) + VHDX_END,
    'log-of-two': b'\1\0' + number(8) + vhdx_block(0, 0) + vhdx_log((0x70, 0, 0)) +
    vhdx_log((1, 2, 4), (0x11, 3, 0), kind=0, more=b'\0') + VHDX_END,
    'log-round': b'\1\0' + number(8) + vhdx_block(0, 0) + vhdx_log((0x70, 0, 0), kind=17, more=b'\xff') + VHDX_END,
    'size': b'\1\0' + number(8) + vhdx_spoil(7, 0, 1 << 20) + VHDX_END,
    'blocks': b'\1\0' + number(8) + vhdx_spoil(6, 0, 3 << 20) + VHDX_END,
    'region': b'\1\0' + number(8) + vhdx_spoil(2, 32, 1 << 20) + VHDX_END,
    'written': b'\0\2' + number(4096) + bytes([3]) + number(0) + bytes([31]) + number(700),
    'written-fixed': b'\0\1' + number(40000) + bytes([9]) + number(3) + bytes([7]) + number(9),
}

# ---- fuzz_nbd_client.c: servers of exports that are read and written as images ----


def use(kind, offset=0, length=5000):
    return bytes([0, kind]) + number(offset) + number(length)


def answered(how=0, more=b''):
    return bytes([3, how]) + more + b'\6'


WALK, FETCH, STORE, ZERO, FINISH = range(5)
SERVED = b'\7\6'
nbd_client = {
    'reads': b'\0' + SERVED + b''.join(use(FETCH) + answered(how) for how in range(4)) + use(FETCH, 77, 200000) + answered(1),
    'walks': b'\0' + SERVED + use(WALK) + answered(2, number(4096) + b'\3' + number(8192) + b'\0') + answered(1, number(1 << 30) + b'\1'),
    'many_extents': b'\0' + SERVED + use(WALK) + answered(8, number(1) + b'\3') + b'\x0b' + use(WALK, 512) + answered(8, edge() + b'\1'),
    'no_extent': b'\0' + SERVED + use(WALK) + answered(0) + use(WALK) + answered(2, b'\0' * 4),
    'others_extents': b'\0' + SERVED + use(WALK) + answered(0x12, number(4096) + b'\3'),
    'writes': b'\1' + SERVED + use(STORE, 4096, 9000) + use(ZERO, 65536, 65536) + use(FINISH) + b'\7\3' + use(STORE) + answered(0x20),
    'errors': b'\1' + SERVED + use(FETCH) + answered(0x40, b'\5') + use(STORE) + answered(0x60, b'\x1c') + use(FINISH) + answered(0x40, b'\0'),
    'plain': b'\0' + answered() + answered(0x40) + b'\7\3' + use(FETCH) + answered() + use(FETCH) + answered(0x40, b'\5'),
    'old': b'\0' + answered(0x40) + use(FETCH) + answered(),
    'export_name': b'\1' + answered(0x20) + answered(0x40) + answered(0x40) + answered(1) + use(STORE) + answered(),
    'sizes': b'\0' + answered() + answered() + answered() + answered(4, number(512) + number(4096) + number(65536)) + use(FETCH, 0, 200000) + b'\7\x1f',
    'huge': b'\0' + answered() + answered() + answered() + answered(0x10, edge(1)),
    'empty': b'\0' + answered() + answered() + answered() + answered(0x10, b'\0') + use(FETCH),
    'read_only': b'\1' + answered() + answered() + answered() + answered(8, b'\3\0'),
    'refused': b'\0' + answered() + answered() + answered() + answered(0x68, b'\6\0\0\x80' + b'no such '),
    'contexts': b'\0' + answered() + answered() + answered(0x15, b'other') + b'\7\2' + use(WALK) + answered(1, number(4096) + b'\3'),
    'out_of_order': b'\0' + SERVED + use(FETCH) + use(FETCH, 4096) + answered(0x80, b'\1') + answered(),
    'never_asked': b'\0' + SERVED + use(FETCH) + answered(0x80, b'\7'),
    'silence': b'\0' + SERVED + use(FETCH) + b'\x0f\x1f' + use(FETCH),
    'cancelled': b'\0' + SERVED + use(FETCH) + b'\x0c\2\x0f\1',
    'hangs_up': b'\0' + SERVED + use(FETCH) + use(WALK) + b'\3\0\x0a\x80' + b'\x0c\0',
    'last_words': b'\0' + SERVED + use(WALK) + use(FETCH) + b'\3\1' + number(4096) + b'\3' + b'\x0c\0',
    'half_closed': b'\1' + SERVED + use(STORE) + b'\x0c\1' + b'\x0e' + use(FETCH),
    'cut': b'\0' + SERVED + use(FETCH) + b'\x0c\3' + use(FETCH),
    'spoilt': b'\0' + SERVED + use(FETCH) + b'\3\0\x08' + number(16) + b'\3' + b'\xff' * 4 + b'\6',
    'rubbish': b'\0' + b'\x09\xe1x\6',
    'uri': bytes([2, 2, 7, 9, 10, 11, 12, 10, 18]),
    'uri_percent': bytes([2, 0, 5, 6, 7, 15, 20]),
    'uri_relative': bytes([2, 3, 7, 8, 9, 8]),
}


def main():
    for kind, seeds in (('nbd_handshake', handshake), ('nbd_requests', requests), ('vhost_messages', messages),
                        ('vhost_chains', chains), ('vhost_saved', saved), ('control', control), ('handover', handover),
                        ('replies', replies), ('lists', lists), ('state', state), ('words', word), ('vm_file', vm_file),
                        ('vm_control', vm_control), ('arguments', arguments), ('image', image), ('vdi', vdi), ('vhd', vhd),
                        ('partition', partition), ('vhdx', vhdx), ('pool_open', pool), ('pool_log', log),
                        ('vmm_disk', vmm_disk),
                        ('vmm_net', vmm_net),
                        ('vmm_pci', vmm_pci),
                        ('vmm_ports', vmm_ports), ('vmm_boot', vmm_boot), ('vmm_state', vmm_state),
                        ('ova', ova), ('vmdk', vmdk), ('nbd_client', nbd_client)):
        folder = os.path.join(sys.argv[1], kind)
        os.makedirs(folder, exist_ok=True)
        for title, content in seeds.items():
            with open(os.path.join(folder, title), 'wb') as f:
                f.write(content)


main()
