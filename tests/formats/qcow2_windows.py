"""qcow2_windows.py FILE [N]: the first N compressed clusters of a qcow2 image need no more than the last 4 KiB.

zlib only looks at its window where the output does not lie in one piece: so it gets a byte at a time.
"""
import struct
import sys
import zlib

data = open(sys.argv[1], "rb").read()
wanted = int(sys.argv[2]) if len(sys.argv) > 2 else 12
bits = struct.unpack(">I", data[20:24])[0]
size = 1 << bits
l1_size, l1 = struct.unpack(">I", data[36:40])[0], struct.unpack(">Q", data[40:48])[0]
shift = 62 - (bits - 8)
seen = 0

for i in range(l1_size):
    table = struct.unpack(">Q", data[l1 + 8 * i : l1 + 8 * i + 8])[0] & 0xFFFFFFFFFFFE00
    if not table:
        continue
    for entry in struct.unpack(f">{size // 8}Q", data[table : table + size]):
        if not entry >> 62 & 1 or seen == wanted:
            continue
        offset = entry & ((1 << shift) - 1)
        length = (((entry & ((1 << 62) - 1)) >> shift) + 1) * 512 - offset % 512
        inflate, left, got = zlib.decompressobj(-12), data[offset : offset + length], 0
        while got < size:
            byte = inflate.decompress(left, 1)
            left = inflate.unconsumed_tail
            if not byte:
                sys.exit(f"the cluster at {offset} ends after {got} bytes")
            got += 1
        seen += 1
if not seen:
    sys.exit("there is no compressed cluster")
