/* qcow2_write_tables.c - the L2 tables of a qcow2 file that is being made: written once they are full. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "formats/qcow2_writer.h"

/* Small tables are written several at a time. */
#define BATCH_BYTES (UINT64_C(64) << 10)

static struct qcow2_table *table_of(struct list *link)
{
        return container_of(link, struct qcow2_table, link);
}

/* Where the table @index is, or would be put before: searched from the end, where it is. */
static struct list *find(struct qcow2_writer *w, uint64_t index, struct qcow2_table **ret_table)
{
        struct list *it = w->tables.prev;

        while (it != &w->tables && table_of(it)->index > index)
                it = it->prev;
        *ret_table = it != &w->tables && table_of(it)->index == index ? table_of(it) : NULL;
        return it->next;
}

static int begin_one(struct qcow2_writer *w, uint64_t index, struct error *err)
{
        struct qcow2_table *table;
        struct list *before = find(w, index, &table);

        if (!table) {
                table = calloc(1, sizeof(*table) + w->cluster_bytes);
                if (!table)
                        return error_set(err, -ENOMEM, "out of memory");
                table->index = index;
                list_insert_before(before, &table->link);
        }
        table->n_writing++;
        return 0;
}

int qcow2_tables_begin(struct qcow2_writer *w, uint64_t offset, uint64_t length, struct error *err)
{
        uint64_t first = offset / w->table_covers;
        uint64_t last = (offset + length - 1) / w->table_covers;

        for (uint64_t i = first; i <= last; i++) {
                int r = begin_one(w, i, err);

                if (r < 0) {
                        if (i > first)
                                qcow2_tables_end(w, offset, i * w->table_covers - offset);
                        return r;
                }
        }
        w->begun = offset + length;
        return 0;
}

void qcow2_tables_end(struct qcow2_writer *w, uint64_t offset, uint64_t length)
{
        uint64_t first = offset / w->table_covers;
        uint64_t last = (offset + length - 1) / w->table_covers;

        list_for_each (it, &w->tables)
                if (table_of(it)->index >= first && table_of(it)->index <= last)
                        table_of(it)->n_writing--;
}

static uint8_t *entry_at(struct qcow2_writer *w, uint64_t offset, struct qcow2_table **ret_table)
{
        find(w, offset / w->table_covers, ret_table);
        assert(*ret_table);
        return (*ret_table)->entries +
               (offset % w->table_covers >> w->cluster_bits) * QCOW2_L2_ENTRY;
}

uint64_t qcow2_tables_get(struct qcow2_writer *w, uint64_t offset)
{
        struct qcow2_table *table;

        return qcow2_get64(entry_at(w, offset, &table));
}

void qcow2_tables_set(struct qcow2_writer *w, uint64_t offset, uint64_t entry)
{
        struct qcow2_table *table;

        qcow2_put64(entry_at(w, offset, &table), entry);
        table->used = true;
}

static bool is_complete(const struct qcow2_writer *w, const struct qcow2_table *table)
{
        return table->n_writing == 0 && (table->index + 1) * w->table_covers <= w->begun;
}

/* Take complete tables out of the list, as many as fit in a batch. */
static unsigned take_batch(struct qcow2_writer *w, struct list *batch)
{
        unsigned n = 0, max = w->cluster_bytes < BATCH_BYTES ? BATCH_BYTES >> w->cluster_bits : 1;

        list_for_each_safe (it, &w->tables) {
                struct qcow2_table *table = table_of(it);

                if (n == max || (table->index + 1) * w->table_covers > w->begun)
                        break;
                if (!is_complete(w, table))
                        continue;
                list_remove(it);
                if (table->used) {
                        list_append(batch, it);
                        n++;
                } else {
                        free(table);
                }
        }
        return n;
}

static int co_write_batch(struct image *image, struct list *batch, unsigned n, struct error *err)
{
        struct qcow2_writer *w = qcow2_of(image)->writer;
        uint8_t *buffer = malloc(n * w->cluster_bytes), *at = buffer;
        uint64_t offset;
        int r;

        if (!buffer)
                return error_set(err, -ENOMEM, "out of memory");
        r = qcow2_alloc_clusters(&w->alloc, n, &offset, err);
        if (r == 0) {
                list_for_each (it, batch) {
                        memcpy(at, table_of(it)->entries, w->cluster_bytes);
                        w->l1[table_of(it)->index] =
                            QCOW2_COPIED | (offset + (uint64_t)(at - buffer));
                        at += w->cluster_bytes;
                }
                r = co_image_pwrite(image, buffer, n * w->cluster_bytes, offset, err);
        }
        free(buffer);
        return r;
}

static void free_list(struct list *tables)
{
        list_for_each_safe (it, tables)
                free(table_of(it));
        list_init(tables);
}

int co_qcow2_tables_write(struct image *image, struct error *err)
{
        struct qcow2_writer *w = qcow2_of(image)->writer;
        int r = 0;

        while (r == 0) {
                struct list batch = LIST_INIT(batch);
                unsigned n = take_batch(w, &batch);

                if (n == 0)
                        break;
                r = co_write_batch(image, &batch, n, err);
                free_list(&batch);
        }
        return r;
}

void qcow2_tables_clear(struct qcow2_writer *w)
{
        free_list(&w->tables);
}
