/* qcow2_alloc.c - the clusters of a qcow2 file that is being written, and their reference counts. */
#include "formats/qcow2_alloc.h"

#include <errno.h>
#include <stdlib.h>

#include "formats/qcow2_format.h"

#define COUNT_BYTES 2u
#define COUNT_MAX   UINT16_MAX

void qcow2_alloc_init(struct qcow2_alloc *a, const char *path, unsigned cluster_bits)
{
        *a = (struct qcow2_alloc){.path = path, .cluster_bits = cluster_bits};
        a->full_last = &a->full_first;
}

void qcow2_alloc_clear(struct qcow2_alloc *a)
{
        while (a->full_first) {
                struct qcow2_block *block = a->full_first;

                a->full_first = block->next;
                free(block);
        }
        free(a->open);
        free(a->table);
        a->full_last = &a->full_first;
        a->open = NULL;
        a->table = NULL;
}

static uint64_t counts_per_block(const struct qcow2_alloc *a)
{
        return (UINT64_C(1) << a->cluster_bits) / COUNT_BYTES;
}

/* Room in the table for block number @index. */
static int grow_table(struct qcow2_alloc *a, uint64_t index, struct error *err)
{
        size_t room = a->table_room ? a->table_room : 64;
        uint64_t *table;

        if (index < a->n_table)
                return 0;
        if (index >= QCOW2_REFCOUNT_TABLE_BYTES_MAX / QCOW2_REFCOUNT_ENTRY)
                return error_set(err, -EFBIG,
                                 "'%s' would become longer than a qcow2 file with clusters of %llu "
                                 "bytes can be",
                                 a->path, 1ULL << a->cluster_bits);
        while (room <= index)
                room *= 2;
        table = realloc(a->table, room * sizeof(*table));
        if (!table)
                return error_set(err, -ENOMEM, "out of memory");
        a->table = table;
        a->table_room = room;
        while (a->n_table <= index)
                a->table[a->n_table++] = 0;
        return 0;
}

static void append_full(struct qcow2_alloc *a, struct qcow2_block *block)
{
        *a->full_last = block;
        a->full_last = &block->next;
}

static int open_block(struct qcow2_alloc *a, uint64_t index, struct error *err)
{
        struct qcow2_block *block;
        int r = grow_table(a, index, err);

        if (r < 0)
                return r;
        block = calloc(1, sizeof(*block) + (UINT64_C(1) << a->cluster_bits));
        if (!block)
                return error_set(err, -ENOMEM, "out of memory");
        block->index = index;
        if (a->open)
                append_full(a, a->open);
        a->open = block;
        return 0;
}

static uint8_t *count_at(struct qcow2_alloc *a, uint64_t cluster)
{
        return a->open->counts + cluster % counts_per_block(a) * COUNT_BYTES;
}

/* The next cluster, referred to once. */
static int take_cluster(struct qcow2_alloc *a, struct error *err)
{
        uint64_t index = a->next / counts_per_block(a);
        int r = 0;

        if (!a->open || a->open->index != index)
                r = open_block(a, index, err);
        if (r == 0)
                qcow2_put16(count_at(a, a->next++), 1);
        return r;
}

int qcow2_alloc_clusters(struct qcow2_alloc *a, uint64_t n, uint64_t *ret_offset, struct error *err)
{
        uint64_t first = a->next;
        int r = 0;

        for (uint64_t i = 0; r == 0 && i < n; i++)
                r = take_cluster(a, err);
        if (r == 0)
                *ret_offset = first << a->cluster_bits;
        return r;
}

/* Can the cluster with the free end take something more? Not once its block is full, nor when no more
 * references can be counted. */
static bool can_pack(struct qcow2_alloc *a)
{
        uint64_t cluster = a->pack_offset >> a->cluster_bits;

        return a->pack_offset < a->pack_end && a->open->index == cluster / counts_per_block(a) &&
               qcow2_get16(count_at(a, cluster)) < COUNT_MAX;
}

int qcow2_alloc_bytes(struct qcow2_alloc *a, size_t n, uint64_t *ret_offset, struct error *err)
{
        uint64_t next_offset = a->next << a->cluster_bits;
        uint8_t *count = NULL;
        int r = 0;

        if (!can_pack(a) || (n > a->pack_end - a->pack_offset && a->pack_end != next_offset))
                a->pack_offset = a->pack_end = next_offset;
        else
                count = count_at(a, a->pack_offset >> a->cluster_bits);
        if (count)
                qcow2_put16(count, qcow2_get16(count) + 1);
        if (n > a->pack_end - a->pack_offset) {
                r = take_cluster(a, err);
                if (r < 0)
                        return r;
                a->pack_end = a->next << a->cluster_bits;
        }
        *ret_offset = a->pack_offset;
        a->pack_offset += n;
        return 0;
}

/* The cluster may begin another block, and with it the table move. */
static int place_block(struct qcow2_alloc *a, uint64_t index, struct error *err)
{
        uint64_t offset;
        int r = qcow2_alloc_clusters(a, 1, &offset, err);

        if (r == 0)
                a->table[index] = offset;
        return r;
}

int qcow2_alloc_take_block(struct qcow2_alloc *a, struct qcow2_block **ret_block, struct error *err)
{
        struct qcow2_block *block = a->full_first;
        int r = 0;

        if (block && a->table[block->index] == 0)
                r = place_block(a, block->index, err);
        if (r < 0)
                return r;
        if (block) {
                a->full_first = block->next;
                if (!a->full_first)
                        a->full_last = &a->full_first;
        }
        *ret_block = block;
        return 0;
}

/* How many clusters the table takes when the file ends with it and with the places of those blocks that
 * have none yet. Both count themselves; more of them need more of them, which soon settles. */
static uint64_t size_of_table(const struct qcow2_alloc *a, uint64_t n_placed)
{
        uint64_t per_table_cluster = (UINT64_C(1) << a->cluster_bits) / QCOW2_REFCOUNT_ENTRY;
        uint64_t per_block = counts_per_block(a), blocks = 0, clusters = 0, needed;

        for (;;) {
                uint64_t end = a->next + (blocks > n_placed ? blocks - n_placed : 0) + clusters;

                needed = (end + per_block - 1) / per_block;
                if (needed == blocks &&
                    clusters == (needed + per_table_cluster - 1) / per_table_cluster)
                        return clusters;
                blocks = needed;
                clusters = (needed + per_table_cluster - 1) / per_table_cluster;
        }
}

int qcow2_alloc_finish(struct qcow2_alloc *a, uint64_t *ret_offset, uint64_t *ret_clusters,
                       struct error *err)
{
        uint64_t n_placed = 0, clusters;
        int r = 0;

        for (size_t i = 0; i < a->n_table; i++)
                n_placed += a->table[i] != 0;
        clusters = size_of_table(a, n_placed);
        /* The table may open another block, and the place of a block as well. */
        r = qcow2_alloc_clusters(a, clusters, ret_offset, err);
        for (size_t i = 0; r == 0 && i < a->n_table; i++)
                if (a->table[i] == 0)
                        r = place_block(a, i, err);
        if (r < 0)
                return r;
        append_full(a, a->open);
        a->open = NULL;
        *ret_clusters = clusters;
        return 0;
}
