/* qcow2_check_counts.c - the reference counts that a qcow2 file holds, and whether they are right. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/coroutine.h"
#include "formats/qcow2_checker.h"

/* Groups without a reference that are looked at before others on the loop have their turn. */
#define GROUPS_AT_ONCE 1024u

/* ---- reading them ---- */

int co_qcow2_check_counts_load(struct qcow2_checker *c, struct error *err)
{
        struct qcow2 *q = c->q;
        uint64_t bytes = (uint64_t)q->refcount_table_clusters << q->cluster_bits;

        if (bytes > QCOW2_REFCOUNT_TABLE_BYTES_MAX)
                return error_set(err, -EBADMSG, "the refcount table of '%s' is longer than 8 MiB",
                                 c->image->path);
        c->counts_per_block = (q->cluster_bytes * 8) >> q->refcount_order;
        c->n_cache = QCOW2_CHECK_CACHE_BYTES >> q->cluster_bits;
        if (c->n_cache > QCOW2_CHECK_CACHE_MAX)
                c->n_cache = QCOW2_CHECK_CACHE_MAX;
        if (c->n_cache < QCOW2_CHECK_CACHE_MIN)
                c->n_cache = QCOW2_CHECK_CACHE_MIN;
        c->cache = qcow2_check_alloc(c, c->n_cache, sizeof(*c->cache), err);
        if (!c->cache)
                return qcow2_check_no_memory(c);
        c->n_table = bytes / QCOW2_REFCOUNT_ENTRY;
        c->table = qcow2_check_alloc(c, c->n_table + 1, sizeof(*c->table), err);
        if (!c->table)
                return qcow2_check_no_memory(c);
        return co_qcow2_check_read_table(c, c->table, c->n_table, q->refcount_table_offset, err);
}

/* Whether another block may be read. */
static int check_load(struct qcow2_checker *c, struct error *err)
{
        if (c->loaded_bytes / QCOW2_CHECK_RELOADS_MAX > c->file_bytes)
                return error_set(err, -EFBIG,
                                 "checking '%s' would read its refcount blocks over and over",
                                 c->image->path);
        c->loaded_bytes += c->q->cluster_bytes;
        return image_check_cancelled(c->check, err);
}

/* The block at @offset, until the next call. */
static int co_load_block(struct qcow2_checker *c, uint64_t offset, const uint8_t **ret_counts,
                         struct error *err)
{
        struct qcow2_cached_block *b = &c->cache[(offset >> c->q->cluster_bits) % c->n_cache];
        int r = 0;

        if (!b->counts) {
                b->counts = qcow2_check_alloc(c, 1, c->q->cluster_bytes, err);
                if (!b->counts)
                        return qcow2_check_no_memory(c);
        }
        if (b->offset != offset) {
                b->offset = 0;
                r = check_load(c, err);
                if (r < 0)
                        return r;
                r = co_image_pread_padded(c->image, b->counts, c->q->cluster_bytes, offset, err);
                if (r == 0)
                        b->offset = offset;
        }
        *ret_counts = b->counts;
        return r;
}

/* Counts narrower than a byte begin with its lowest bits. */
static uint64_t get_count(const uint8_t *counts, uint64_t i, unsigned order)
{
        switch (order) {
        case 3:
                return counts[i];
        case 4:
                return qcow2_get16(counts + i * 2);
        case 5:
                return qcow2_get32(counts + i * 4);
        case 6:
                return qcow2_get64(counts + i * 8);
        default:
                return counts[(i << order) / 8] >> ((i << order) % 8) & ((1u << (1u << order)) - 1);
        }
}

int co_qcow2_check_file_count(struct qcow2_checker *c, uint64_t cluster, bool *ret_known,
                              uint64_t *ret_count, struct error *err)
{
        uint64_t i = cluster / c->counts_per_block;
        uint64_t offset = i < c->n_table ? c->table[i] & QCOW2_REFCOUNT_OFFSET_MASK : 0;
        const uint8_t *counts = NULL;
        int r;

        *ret_known = (offset & (c->q->cluster_bytes - 1)) == 0 && offset <= INT64_MAX;
        *ret_count = 0;
        if (offset == 0 || !*ret_known)
                return 0;
        r = co_load_block(c, offset, &counts, err);
        if (r == 0)
                *ret_count = get_count(counts, cluster % c->counts_per_block, c->q->refcount_order);
        return r;
}

/* ---- where they lie ---- */

int co_qcow2_check_blocks(struct qcow2_checker *c, struct error *err)
{
        int r = 0;

        for (uint64_t i = 0; r == 0 && i < c->n_table; i++) {
                uint64_t entry = c->table[i], cluster = entry >> c->q->cluster_bits;
                unsigned use;

                if (entry & QCOW2_REFCOUNT_RESERVED) {
                        qcow2_check_found(
                            c, 1, "entry %llu of the refcount table has reserved bits set: %llx",
                            (unsigned long long)i, (unsigned long long)entry);
                } else if (entry & (c->q->cluster_bytes - 1)) {
                        qcow2_check_found(
                            c, 1, "the refcount block at %llu does not begin with a cluster",
                            (unsigned long long)entry);
                } else if (cluster >= c->n_clusters) {
                        qcow2_check_found(c, 1,
                                          "the refcount block at %llu lies beyond the file's end",
                                          (unsigned long long)entry);
                } else if (entry != 0) {
                        r = qcow2_check_use(c, QCOW2_USE_REFCOUNT_BLOCK, "a refcount block", entry,
                                            c->q->cluster_bytes, 1, err);
                        if (r == 0 && qcow2_check_count(c, cluster, &use) != 1)
                                qcow2_check_found(
                                    c, 1,
                                    "the refcount block at %llu is used for something else too",
                                    (unsigned long long)entry);
                }
        }
        return r;
}

/* ---- comparing ---- */

static bool is_overlap(unsigned use)
{
        return (use & (use - 1)) != 0;
}

/* For a sentence: what a cluster is used for. */
static const char *name_uses(unsigned use, char *names, size_t size)
{
        static const char *const name[] = {
            "the header",         "an L1 table",      "an L2 table",        "data",
            "the refcount table", "a refcount block", "the snapshot table", "bitmaps"};

        names[0] = 0;
        for (size_t i = 0; i < sizeof(name) / sizeof(name[0]); i++) {
                size_t n = strlen(names);

                if (use & 1u << i)
                        snprintf(names + n, size - n, "%s%s", n > 0 ? " and " : "", name[i]);
        }
        return names;
}

static void report_overlap(struct qcow2_checker *c, uint64_t offset, unsigned use)
{
        char names[160];

        qcow2_check_found(c, 1, "the cluster at %llu is used for %s at once",
                          (unsigned long long)offset, name_uses(use, names, sizeof(names)));
}

/* Tell of clusters that lie next to each other, and that nothing uses, once. */
static void report_leaks(struct qcow2_checker *c)
{
        unsigned long long first = c->first_leaked << c->q->cluster_bits;

        if (c->n_leaked == 1)
                qcow2_check_tell(c, "the cluster at %llu is counted as used, and nothing needs it",
                                 first);
        else if (c->n_leaked > 1)
                qcow2_check_tell(
                    c, "%llu clusters at %llu are counted as used, and nothing needs them",
                    (unsigned long long)c->n_leaked, first);
        c->n_leaked = 0;
}

static void add_leak(struct qcow2_checker *c, uint64_t cluster)
{
        c->check->n_leaks++;
        c->check->leaked_bytes += c->q->cluster_bytes;
        if (c->first_leaked + c->n_leaked != cluster)
                report_leaks(c);
        if (c->n_leaked == 0)
                c->first_leaked = cluster;
        c->n_leaked++;
}

/* @known NULL: the file's count cannot be read, which has been reported. */
static void compare(struct qcow2_checker *c, uint64_t cluster, const uint64_t *known)
{
        uint64_t offset = cluster << c->q->cluster_bits;
        unsigned use;
        uint32_t count = qcow2_check_count(c, cluster, &use);
        uint64_t file_count = known ? *known : count;

        if (count > 0)
                c->check->allocated_bytes += c->q->cluster_bytes;
        if (count > 0 || file_count > 0)
                c->check->end_bytes = offset + c->q->cluster_bytes;
        if (c->count_saturates && count == c->count_max && file_count >= count)
                file_count = count;
        if (file_count < count) {
                char names[160];

                qcow2_check_found(
                    c, 1, "the cluster at %llu, used for %s, has refcount %llu instead of %u",
                    (unsigned long long)offset, name_uses(use, names, sizeof(names)),
                    (unsigned long long)file_count, count);
        } else if (file_count > count) {
                add_leak(c, cluster);
        } else if (is_overlap(use)) {
                report_overlap(c, offset, use);
        }
}

/* A group that nothing refers to: what its counts say is lost. */
static int co_compare_unused(struct qcow2_checker *c, uint64_t cluster, uint64_t end,
                             struct error *err)
{
        while (cluster < end) {
                uint64_t i = cluster / c->counts_per_block, block_end, count = 0;
                uint64_t offset = i < c->n_table ? c->table[i] & QCOW2_REFCOUNT_OFFSET_MASK : 0;
                bool known = true;
                int r;

                block_end = (i + 1) * c->counts_per_block;
                if (block_end > end || i >= c->n_table)
                        block_end = end;
                for (; offset != 0 && known && cluster < block_end; cluster++) {
                        r = co_qcow2_check_file_count(c, cluster, &known, &count, err);
                        if (r < 0)
                                return r;
                        if (count > 0)
                                compare(c, cluster, &count);
                }
                cluster = block_end;
        }
        return 0;
}

static int co_compare_used(struct qcow2_checker *c, uint64_t cluster, uint64_t end,
                           struct error *err)
{
        int r = 0;

        for (; r == 0 && cluster < end; cluster++) {
                uint64_t count;
                bool known;

                r = co_qcow2_check_file_count(c, cluster, &known, &count, err);
                if (r == 0)
                        compare(c, cluster, known ? &count : NULL);
        }
        return r;
}

int co_qcow2_check_compare(struct qcow2_checker *c, struct error *err)
{
        int r = 0;

        for (uint64_t i = 0; r == 0 && i < c->n_groups; i++) {
                uint64_t first = i * QCOW2_GROUP, end = first + QCOW2_GROUP;

                if (end > c->n_clusters)
                        end = c->n_clusters;
                r = image_check_cancelled(c->check, err);
                if (r < 0)
                        break;
                if (c->groups[i])
                        r = co_compare_used(c, first, end, err);
                else
                        r = co_compare_unused(c, first, end, err);
                if (c->groups[i] || i % GROUPS_AT_ONCE == 0)
                        co_yield_loop();
        }
        report_leaks(c);
        return r;
}
