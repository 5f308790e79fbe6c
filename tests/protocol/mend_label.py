# mend_label.py FILE FIELD VALUE: change a field of both labels of a member, with the CRC-32C that fits, so that what
# a newer tarn would write can be shown to this one (pool/FORMAT.md, 2.1). FIELD 'crc' adds VALUE to the CRC instead.
import struct
import sys

FIELDS = {"version": (8, "<I"), "incompatible": (16, "<Q"), "size": (72, "<Q"), "crc": (4092, "<I")}
AREA = 1 << 20


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


path, field, value = sys.argv[1], sys.argv[2], int(sys.argv[3])
offset, kind = FIELDS[field]
with open(path, "r+b") as f:
    size = f.seek(0, 2)
    for at in (0, size - AREA):
        f.seek(at)
        label = bytearray(f.read(4096))
        assert label[:8] == b"trnlabl1", label[:8]
        struct.pack_into(kind, label, offset, value)
        crc = crc32c(label[:4092])
        struct.pack_into("<I", label, 4092, crc ^ value if field == "crc" else crc)
        f.seek(at)
        f.write(label)
