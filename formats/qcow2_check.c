/* qcow2_check.c - checking qcow2 files for damage and leaks. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "formats/qcow2_checker.h"

static void tell(struct qcow2_checker *c, const char *format, va_list args)
{
        char sentence[256];

        if (!c->check->report || c->n_reported >= IMAGE_FINDINGS_MAX)
                return;
        c->n_reported++;
        vsnprintf(sentence, sizeof(sentence), format, args);
        c->check->report(c->check, sentence);
}

void qcow2_check_found(struct qcow2_checker *c, uint64_t n, const char *format, ...)
{
        va_list args;

        c->check->n_errors += n;
        va_start(args, format);
        tell(c, format, args);
        va_end(args);
}

void qcow2_check_tell(struct qcow2_checker *c, const char *format, ...)
{
        va_list args;

        va_start(args, format);
        tell(c, format, args);
        va_end(args);
}

void *qcow2_check_alloc(struct qcow2_checker *c, uint64_t n, uint64_t size, struct error *err)
{
        void *p;

        if (n > QCOW2_CHECK_MEMORY_MAX / size ||
            c->memory_bytes > QCOW2_CHECK_MEMORY_MAX - n * size) {
                c->no_memory =
                    error_set(err, -EFBIG, "checking '%s' would take more than %llu MiB of memory",
                              c->image->path, (unsigned long long)(QCOW2_CHECK_MEMORY_MAX >> 20));
                return NULL;
        }
        p = calloc(n, size);
        if (!p)
                c->no_memory = error_set(err, -ENOMEM, "out of memory");
        else
                c->memory_bytes += n * size;
        return p;
}

static int co_check_file(struct qcow2_checker *c, struct error *err)
{
        struct qcow2 *q = c->q;
        int r = qcow2_check_use(c, QCOW2_USE_HEADER, "the header", 0, q->cluster_bytes, 1, err);

        if (r == 0)
                r = co_qcow2_check_l1s(c, err);
        if (r == 0)
                r = qcow2_check_use(c, QCOW2_USE_SNAPSHOTS, "the snapshot table",
                                    q->snapshots_offset, q->snapshots_bytes, 1, err);
        if (r == 0)
                r = qcow2_check_use(
                    c, QCOW2_USE_REFCOUNT_TABLE, "the refcount table", q->refcount_table_offset,
                    (uint64_t)q->refcount_table_clusters << q->cluster_bits, 1, err);
        if (r == 0)
                r = co_qcow2_check_bitmaps(c, err);
        if (r == 0)
                r = co_qcow2_check_blocks(c, err);
        return r == 0 ? co_qcow2_check_compare(c, err) : r;
}

static void clear(struct qcow2_checker *c)
{
        for (uint64_t i = 0; c->groups && i < c->n_groups; i++)
                free(c->groups[i]);
        for (uint64_t i = 0; c->cache && i < c->n_cache; i++)
                free(c->cache[i].counts);
        free(c->groups);
        free(c->cache);
        free(c->table);
        free(c->l2);
}

int co_qcow2_check(struct image *image, struct image_check *check, struct error *err)
{
        struct qcow2_checker c = {.image = image, .q = qcow2_of(image), .check = check};
        int r;

        r = qcow2_check_uses_init(&c, err);
        if (r == 0)
                r = co_qcow2_check_counts_load(&c, err);
        if (r == 0)
                r = co_check_file(&c, err);
        clear(&c);
        return r;
}
