/* qcow2_check_tables.c - checking the L1 and L2 tables of a qcow2 file. */
#include <errno.h>
#include <stdlib.h>

#include "formats/qcow2_checker.h"

#define L2_ROOM_FIRST 1024u

int co_qcow2_check_read_table(struct qcow2_checker *c, uint64_t *entries, size_t n, uint64_t offset,
                              struct error *err)
{
        int r = image_check_cancelled(c->check, err);

        if (r == 0)
                r = co_image_pread_padded(c->image, entries, n * sizeof(*entries), offset, err);
        for (size_t i = 0; r == 0 && i < n; i++)
                entries[i] = be64toh(entries[i]);
        return r;
}

/* ---- which L2 tables there are ---- */

/* The slot of the table at @offset, or a free one. */
static struct qcow2_l2_ref *slot_of(struct qcow2_l2_ref *slots, uint64_t room, uint64_t offset)
{
        uint64_t i = (offset >> 9) * UINT64_C(0x9e3779b97f4a7c15) >> 20;

        for (;; i++) {
                struct qcow2_l2_ref *slot = &slots[i & (room - 1)];

                if (slot->offset == offset || slot->offset == 0)
                        return slot;
        }
}

static int grow_l2(struct qcow2_checker *c, struct error *err)
{
        uint64_t room = c->l2_room ? c->l2_room * 2 : L2_ROOM_FIRST;
        struct qcow2_l2_ref *slots = qcow2_check_alloc(c, room, sizeof(*slots), err);

        if (!slots)
                return qcow2_check_no_memory(c);
        for (uint64_t i = 0; i < c->l2_room; i++)
                if (c->l2[i].offset != 0)
                        *slot_of(slots, room, c->l2[i].offset) = c->l2[i];
        free(c->l2);
        c->memory_bytes -= c->l2_room * sizeof(*slots);
        c->l2 = slots;
        c->l2_room = room;
        return 0;
}

static int remember_l2(struct qcow2_checker *c, uint64_t offset, bool active, struct error *err)
{
        struct qcow2_l2_ref *slot;
        int r = c->n_l2 * 2 >= c->l2_room ? grow_l2(c, err) : 0;

        if (r < 0)
                return r;
        slot = slot_of(c->l2, c->l2_room, offset);
        if (slot->offset == 0) {
                slot->offset = offset;
                c->n_l2++;
        }
        slot->n++;
        slot->n_active += active;
        return 0;
}

static int compare_offsets(const void *a, const void *b)
{
        uint64_t x = ((const struct qcow2_l2_ref *)a)->offset;
        uint64_t y = ((const struct qcow2_l2_ref *)b)->offset;

        return x < y ? -1 : x > y;
}

/* In the order in which they lie in the file. */
static void sort_l2(struct qcow2_checker *c)
{
        uint64_t n = 0;

        for (uint64_t i = 0; i < c->l2_room; i++)
                if (c->l2[i].offset != 0)
                        c->l2[n++] = c->l2[i];
        if (n > 0)
                qsort(c->l2, n, sizeof(*c->l2), compare_offsets);
}

/* ---- L1 tables ---- */

/* Bit 63 of an entry of the disk as it is now: exactly one reference. */
static int co_check_copied(struct qcow2_checker *c, uint64_t entry, uint32_t n, const char *what,
                           struct error *err)
{
        uint64_t offset = entry & QCOW2_OFFSET_MASK, count;
        bool known, copied = (entry & QCOW2_COPIED) != 0;
        int r = co_qcow2_check_file_count(c, offset >> c->q->cluster_bits, &known, &count, err);

        if (r == 0 && known && (count == 1) != copied)
                qcow2_check_found(c, n, "%s at %llu has refcount %llu, and is marked as %s", what,
                                  (unsigned long long)offset, (unsigned long long)count,
                                  copied ? "having one reference" : "having several references");
        return r;
}

static int co_check_l1_entry(struct qcow2_checker *c, uint64_t entry, bool active,
                             struct error *err)
{
        uint64_t offset = entry & QCOW2_OFFSET_MASK;
        int r;

        if (entry & QCOW2_L1_RESERVED)
                qcow2_check_found(c, 1, "an L1 entry has reserved bits set: %llx",
                                  (unsigned long long)entry);
        if (offset == 0) {
                if (entry == QCOW2_COPIED)
                        qcow2_check_found(c, 1, "an L1 entry without a table has flags set: %llx",
                                          (unsigned long long)entry);
                return 0;
        }
        r = qcow2_check_use(c, QCOW2_USE_L2, "an L2 table", offset, c->q->cluster_bytes, 1, err);
        if (r < 0)
                return r;
        if (offset & (c->q->cluster_bytes - 1))
                qcow2_check_found(c, 1, "the L2 table at %llu does not begin with a cluster",
                                  (unsigned long long)offset);
        r = remember_l2(c, offset, active, err);
        return r == 0 && active ? co_check_copied(c, entry, 1, "the L2 table", err) : r;
}

static int co_check_l1(struct qcow2_checker *c, const char *what, uint64_t offset, uint32_t size,
                       bool active, struct error *err)
{
        uint64_t *entries;
        int r =
            qcow2_check_use(c, QCOW2_USE_L1, what, offset, (uint64_t)size * QCOW2_L1_ENTRY, 1, err);

        if (r < 0)
                return r;
        entries = malloc(QCOW2_CHECK_ENTRIES * sizeof(*entries));
        if (!entries)
                return error_set(err, -ENOMEM, "out of memory");
        while (r == 0 && size > 0) {
                uint32_t n = size < QCOW2_CHECK_ENTRIES ? size : QCOW2_CHECK_ENTRIES;

                r = co_qcow2_check_read_table(c, entries, n, offset, err);
                for (uint32_t i = 0; r == 0 && i < n; i++)
                        if (entries[i] != 0)
                                r = co_check_l1_entry(c, entries[i], active, err);
                size -= n;
                offset += (uint64_t)n * QCOW2_L1_ENTRY;
        }
        free(entries);
        return r;
}

static int co_check_snapshots(struct qcow2_checker *c, struct error *err)
{
        struct qcow2 *q = c->q;
        uint64_t sum = 0;
        int r = 0;

        if (q->named_data && q->n_snapshots > 0)
                qcow2_check_found(c, 1, "an image with an external data file has snapshots");
        for (uint32_t i = 0; r == 0 && i < q->n_snapshots; i++) {
                const struct qcow2_snapshot *s = &q->snapshots[i];

                sum += (uint64_t)s->l1_size * QCOW2_L1_ENTRY;
                /* Tables that overlap could keep us busy for ever. */
                if (sum > c->file_bytes)
                        return error_set(err, -EBADMSG,
                                         "the L1 tables of the snapshots in '%s' are together "
                                         "longer than the file",
                                         c->image->path);
                if (s->l1_offset & (q->cluster_bytes - 1))
                        qcow2_check_found(
                            c, 1,
                            "the L1 table of a snapshot, at %llu, does not begin with a cluster",
                            (unsigned long long)s->l1_offset);
                else
                        r = co_check_l1(c, "the L1 table of a snapshot", s->l1_offset, s->l1_size,
                                        false, err);
        }
        return r;
}

/* ---- L2 tables ---- */

struct l2_entry {
        uint64_t entry, bitmap; /* the latter with extended entries */
        const struct qcow2_l2_ref *of;
};

static int check_compressed(struct qcow2_checker *c, const struct l2_entry *e, struct error *err)
{
        unsigned bits = c->q->cluster_bits;
        uint64_t offset = qcow2_compressed_offset(e->entry, bits);
        uint32_t n = e->of->n;

        if (e->entry & QCOW2_COPIED)
                qcow2_check_found(
                    c, n, "the compressed cluster at %llu is marked as having one reference",
                    (unsigned long long)offset);
        if (c->q->named_data || e->bitmap) {
                qcow2_check_found(c, n, "the compressed cluster at %llu is in an image with %s",
                                  (unsigned long long)offset,
                                  c->q->named_data ? "an external data file"
                                                   : "a bitmap of its subclusters");
                return 0;
        }
        return qcow2_check_use(c, QCOW2_USE_DATA, "a compressed cluster", offset,
                               qcow2_compressed_bytes(e->entry, bits), n, err);
}

static int co_check_standard(struct qcow2_checker *c, const struct l2_entry *e, struct error *err)
{
        uint64_t offset = e->entry & QCOW2_OFFSET_MASK;
        uint32_t n = e->of->n;
        int r = 0;

        if (e->bitmap >> QCOW2_SUBCLUSTERS & e->bitmap & UINT32_MAX)
                qcow2_check_found(c, n, "subclusters at %llu are said to be zero and to have data",
                                  (unsigned long long)offset);
        if (offset & (c->q->cluster_bytes - 1))
                qcow2_check_found(c, n, "the data at %llu do not begin with a cluster",
                                  (unsigned long long)offset);
        if (!c->q->named_data)
                r = qcow2_check_use(c, QCOW2_USE_DATA, "a cluster of data", offset,
                                    c->q->cluster_bytes, n, err);
        if (r < 0 || e->of->n_active == 0)
                return r;
        if (!c->q->named_data)
                return co_check_copied(c, e->entry, e->of->n_active, "the cluster of data", err);
        if (!(e->entry & QCOW2_COPIED))
                qcow2_check_found(c, e->of->n_active,
                                  "the cluster at %llu of the external data file is marked as "
                                  "having several references",
                                  (unsigned long long)offset);
        return 0;
}

/* Without an offset: nothing, or in an external data file what lies there at its beginning. */
static bool is_allocated(const struct qcow2_checker *c, const struct l2_entry *e)
{
        if (e->entry & QCOW2_OFFSET_MASK)
                return true;
        return c->q->named_data && e->entry & QCOW2_COPIED &&
               (c->q->extended || !(e->entry & QCOW2_ZERO));
}

static int co_check_l2_entry(struct qcow2_checker *c, const struct l2_entry *e, struct error *err)
{
        if (e->entry & QCOW2_COMPRESSED)
                return check_compressed(c, e, err);
        if (e->entry & QCOW2_L2_RESERVED)
                qcow2_check_found(c, e->of->n, "an L2 entry has reserved bits set: %llx",
                                  (unsigned long long)e->entry);
        if (is_allocated(c, e))
                return co_check_standard(c, e, err);
        if (e->bitmap & UINT32_MAX)
                qcow2_check_found(c, e->of->n, "subclusters have data, and their cluster has none");
        return 0;
}

static int co_check_l2(struct qcow2_checker *c, const struct qcow2_l2_ref *l2, uint64_t *words,
                       struct error *err)
{
        uint64_t at = l2->offset, end = at + c->q->cluster_bytes;
        unsigned step = c->q->extended ? 2 : 1;
        int r = 0;

        while (r == 0 && at < end && at < c->file_bytes) {
                size_t n = (end - at) / sizeof(*words);

                if (n > QCOW2_CHECK_ENTRIES)
                        n = QCOW2_CHECK_ENTRIES;
                r = co_qcow2_check_read_table(c, words, n, at, err);
                for (size_t i = 0; r == 0 && i < n; i += step)
                        if (words[i] != 0 || (step == 2 && words[i + 1] != 0))
                                r = co_check_l2_entry(
                                    c,
                                    &(struct l2_entry){words[i], step == 2 ? words[i + 1] : 0, l2},
                                    err);
                at += n * sizeof(*words);
        }
        return r;
}

/* Tables that do not begin with a cluster may overlap, and could keep us busy for ever. */
static int check_l2_length(const struct qcow2_checker *c, struct error *err)
{
        uint64_t sum = 0;

        for (uint64_t i = 0; i < c->n_l2; i++)
                if (c->l2[i].offset < c->file_bytes)
                        sum += c->q->cluster_bytes;
        /* The last one may be cut off. */
        return sum < c->file_bytes + c->q->cluster_bytes
                   ? 0
                   : error_set(err, -EBADMSG,
                               "the L2 tables of '%s' are together longer than the file",
                               c->image->path);
}

static int co_check_l2s(struct qcow2_checker *c, struct error *err)
{
        uint64_t *words;
        int r = check_l2_length(c, err);

        if (r < 0)
                return r;
        words = malloc(QCOW2_CHECK_ENTRIES * sizeof(*words));
        if (!words)
                return error_set(err, -ENOMEM, "out of memory");
        for (uint64_t i = 0; r == 0 && i < c->n_l2; i++)
                r = co_check_l2(c, &c->l2[i], words, err);
        free(words);
        return r;
}

int co_qcow2_check_l1s(struct qcow2_checker *c, struct error *err)
{
        int r =
            co_check_l1(c, "the L1 table", c->q->active_l1_offset, c->q->active_l1_size, true, err);

        if (r == 0)
                r = co_check_snapshots(c, err);
        if (r < 0)
                return r;
        sort_l2(c);
        return co_check_l2s(c, err);
}
