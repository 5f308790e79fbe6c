/* qcow2_sample.c - qcow2 images put together by hand. */
#include "tests/unit/qcow2_sample.h"

#include <isa-l/igzip_lib.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

static uint64_t cluster_bytes(const struct qcow2_sample *s)
{
        return UINT64_C(1) << s->cluster_bits;
}

uint64_t qcow2_sample_room(struct qcow2_sample *s, uint64_t bytes)
{
        uint64_t at = (s->used + cluster_bytes(s) - 1) & ~(cluster_bytes(s) - 1);

        if (bytes > QCOW2_SAMPLE_MAX || at > QCOW2_SAMPLE_MAX - bytes)
                abort();
        s->used = at + bytes;
        return at;
}

void qcow2_sample_init(struct qcow2_sample *s, uint32_t version, unsigned cluster_bits,
                       uint64_t virtual_bytes, uint64_t features)
{
        unsigned bits;

        *s = (struct qcow2_sample){.bytes = calloc(1, QCOW2_SAMPLE_MAX),
                                   .cluster_bits = cluster_bits,
                                   .virtual_bytes = virtual_bytes,
                                   .version = version};
        if (!s->bytes)
                abort();
        s->entry_bytes = features & QCOW2_EXTENDED_L2 ? QCOW2_L2_ENTRY_EXTENDED : QCOW2_L2_ENTRY;
        s->l2_bits = cluster_bits - (features & QCOW2_EXTENDED_L2 ? 4 : 3);
        bits = cluster_bits + s->l2_bits;
        s->l1_size = (uint32_t)((virtual_bytes + (UINT64_C(1) << bits) - 1) >> bits);
        qcow2_sample_room(s, cluster_bytes(s));
        s->l1 = qcow2_sample_room(s, (uint64_t)s->l1_size * QCOW2_L1_ENTRY);
        qcow2_put32(s->bytes + QCOW2_MAGIC_AT, QCOW2_MAGIC);
        qcow2_put32(s->bytes + QCOW2_VERSION_AT, version);
        qcow2_put32(s->bytes + QCOW2_CLUSTER_BITS_AT, cluster_bits);
        qcow2_put64(s->bytes + QCOW2_SIZE_AT, virtual_bytes);
        qcow2_put32(s->bytes + QCOW2_L1_SIZE_AT, s->l1_size);
        qcow2_put64(s->bytes + QCOW2_L1_OFFSET_AT, s->l1);
        s->extension = QCOW2_V2_HEADER_SIZE;
        if (version == 2)
                return;
        s->extension = QCOW2_V3_HEADER_SIZE_COMPRESSION;
        qcow2_put64(s->bytes + QCOW2_INCOMPATIBLE_AT, features);
        qcow2_put32(s->bytes + QCOW2_REFCOUNT_ORDER_AT, 4);
        qcow2_put32(s->bytes + QCOW2_HEADER_LENGTH_AT, QCOW2_V3_HEADER_SIZE_COMPRESSION);
        if (features & QCOW2_COMPRESSION_TYPE)
                s->bytes[QCOW2_COMPRESSION_TYPE_AT] = QCOW2_ZSTD;
}

void qcow2_sample_free(struct qcow2_sample *s)
{
        free(s->bytes);
}

void qcow2_sample_save(const struct qcow2_sample *s, int fd)
{
        if (ftruncate(fd, 0) < 0 || pwrite(fd, s->bytes, s->used, 0) != (ssize_t)s->used)
                abort();
}

void qcow2_sample_extension(struct qcow2_sample *s, uint32_t type, const void *data, uint32_t n)
{
        uint8_t *to = s->bytes + s->extension;

        qcow2_put32(to, type);
        qcow2_put32(to + 4, n);
        if (n > 0)
                memcpy(to + QCOW2_EXTENSION_HEAD, data, n);
        s->extension += QCOW2_EXTENSION_HEAD + ((n + 7) & ~7u);
}

void qcow2_sample_backing(struct qcow2_sample *s, const char *name, const char *format)
{
        size_t n = strlen(name);
        uint64_t at;

        if (format)
                qcow2_sample_extension(s, QCOW2_EXTENSION_BACKING_FORMAT, format,
                                       (uint32_t)strlen(format));
        at = s->extension + QCOW2_EXTENSION_HEAD; /* behind the end of the extensions */
        memcpy(s->bytes + at, name, n);
        qcow2_put64(s->bytes + QCOW2_BACKING_OFFSET_AT, at);
        qcow2_put32(s->bytes + QCOW2_BACKING_SIZE_AT, (uint32_t)n);
}

uint64_t qcow2_sample_entry(struct qcow2_sample *s, uint64_t l1, uint64_t guest)
{
        uint64_t at = l1 + (guest >> (s->cluster_bits + s->l2_bits)) * QCOW2_L1_ENTRY;
        uint64_t table = qcow2_get64(s->bytes + at) & QCOW2_OFFSET_MASK;
        uint64_t i = guest >> s->cluster_bits & ((UINT64_C(1) << s->l2_bits) - 1);

        if (table == 0) {
                table = qcow2_sample_room(s, cluster_bytes(s));
                qcow2_put64(s->bytes + at, table | QCOW2_COPIED);
        }
        return table + i * s->entry_bytes;
}

void qcow2_sample_map(struct qcow2_sample *s, uint64_t guest, uint64_t entry, uint64_t bitmap)
{
        uint64_t at = qcow2_sample_entry(s, s->l1, guest);

        qcow2_put64(s->bytes + at, entry);
        if (s->entry_bytes == QCOW2_L2_ENTRY_EXTENDED)
                qcow2_put64(s->bytes + at + 8, bitmap);
}

void qcow2_sample_plain(struct qcow2_sample *s, uint64_t guest, const void *data)
{
        uint64_t at;

        qcow2_sample_entry(s, s->l1, guest); /* its table first, as files have it */
        at = qcow2_sample_room(s, cluster_bytes(s));
        memcpy(s->bytes + at, data, cluster_bytes(s));
        qcow2_sample_map(s, guest, at | QCOW2_COPIED, UINT32_MAX);
}

void qcow2_sample_pack_bytes(struct qcow2_sample *s, uint64_t guest, const void *data, size_t n)
{
        uint64_t at;

        qcow2_sample_entry(s, s->l1, guest);
        at = s->used;
        if (n > QCOW2_SAMPLE_MAX - at)
                abort();
        memcpy(s->bytes + at, data, n);
        s->used = at + n;
        qcow2_sample_map(s, guest, qcow2_compressed_make(at, n, s->cluster_bits), 0);
}

static size_t deflate(const struct qcow2_sample *s, const void *data, uint8_t *to, size_t room)
{
        struct isal_zstream *z = malloc(sizeof(*z));
        size_t n;

        if (!z)
                abort();
        isal_deflate_stateless_init(z);
        z->hist_bits = QCOW2_ZLIB_WINDOW_BITS;
        z->next_in = (uint8_t *)data;
        z->avail_in = (uint32_t)cluster_bytes(s);
        z->end_of_stream = 1;
        z->next_out = to;
        z->avail_out = (uint32_t)room;
        if (isal_deflate_stateless(z) != COMP_OK)
                abort();
        n = z->total_out;
        free(z);
        return n;
}

void qcow2_sample_pack(struct qcow2_sample *s, uint64_t guest, const void *data)
{
        size_t room = cluster_bytes(s) * 2 + 1024, n;
        uint8_t *packed = malloc(room);

        if (!packed)
                abort();
        if (s->bytes[QCOW2_COMPRESSION_TYPE_AT] == QCOW2_ZSTD && s->version > 2)
                n = ZSTD_compress(packed, room, data, cluster_bytes(s), 1);
        else
                n = deflate(s, data, packed, room);
        qcow2_sample_pack_bytes(s, guest, packed, n);
        free(packed);
}

void qcow2_sample_snapshots(struct qcow2_sample *s, const struct qcow2_sample_snapshot *list,
                            uint32_t n)
{
        uint64_t at = qcow2_sample_room(s, (uint64_t)n * 256);

        qcow2_put32(s->bytes + QCOW2_N_SNAPSHOTS_AT, n);
        qcow2_put64(s->bytes + QCOW2_SNAPSHOTS_OFFSET_AT, at);
        for (uint32_t i = 0; i < n; i++) {
                uint8_t *p = s->bytes + at, *more = p + QCOW2_SNAPSHOT_SIZE;
                size_t id = strlen(list[i].id), name = strlen(list[i].name);

                qcow2_put64(p + QCOW2_SNAPSHOT_L1_OFFSET_AT, list[i].l1);
                qcow2_put32(p + QCOW2_SNAPSHOT_L1_SIZE_AT, list[i].l1_size);
                qcow2_put16(p + QCOW2_SNAPSHOT_ID_SIZE_AT, (uint16_t)id);
                qcow2_put16(p + QCOW2_SNAPSHOT_NAME_SIZE_AT, (uint16_t)name);
                qcow2_put32(p + QCOW2_SNAPSHOT_DATE_S_AT, list[i].date_s);
                qcow2_put32(p + QCOW2_SNAPSHOT_VM_STATE_32_AT, (uint32_t)list[i].vm_state_bytes);
                qcow2_put32(p + QCOW2_SNAPSHOT_EXTRA_SIZE_AT, list[i].extra_bytes);
                if (list[i].extra_bytes >= QCOW2_SNAPSHOT_EXTRA_V3_SIZE) {
                        qcow2_put64(more + QCOW2_SNAPSHOT_EXTRA_VM_STATE_AT,
                                    list[i].vm_state_bytes);
                        qcow2_put64(more + QCOW2_SNAPSHOT_EXTRA_SIZE_BYTES_AT,
                                    list[i].virtual_bytes);
                }
                memcpy(more + list[i].extra_bytes, list[i].id, id);
                memcpy(more + list[i].extra_bytes + id, list[i].name, name);
                at += (QCOW2_SNAPSHOT_SIZE + list[i].extra_bytes + id + name + 7) & ~7u;
        }
}
