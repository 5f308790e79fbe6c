/* qcow2_lists.c - the lists in a qcow2 file: its snapshots, its bitmaps. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "formats/qcow2.h"

/* What is read of a list at once; any piece that is asked for is smaller. */
#define WINDOW_BYTES 65536u

struct window {
        uint8_t *data; /* WINDOW_BYTES */
        uint64_t offset, bytes;
};

/* @n bytes at @offset, of which the caller knows that they are in the file; valid until the next
 * call. */
static int co_window(struct image *image, struct window *w, uint64_t offset, uint32_t n,
                     const uint8_t **ret, struct error *err)
{
        if (offset < w->offset || offset + n > w->offset + w->bytes) {
                uint64_t left = image->file_bytes - offset;
                int r;

                w->offset = offset;
                w->bytes = 0;
                r = co_image_pread(image, w->data, left < WINDOW_BYTES ? left : WINDOW_BYTES,
                                   offset, err);
                if (r < 0)
                        return r;
                w->bytes = left < WINDOW_BYTES ? left : WINDOW_BYTES;
        }
        *ret = w->data + (offset - w->offset);
        return 0;
}

static int window_init(struct window *w, struct error *err)
{
        *w = (struct window){.data = calloc(1, WINDOW_BYTES)};
        return w->data ? 0 : error_set(err, -ENOMEM, "out of memory");
}

static int entry_damaged(struct image *image, const char *what, size_t i, uint64_t offset,
                         const char *reason, struct error *err)
{
        return error_set(err, -EBADMSG, "'%s' is damaged: %s %zu, at offset %llu, %s", image->path,
                         what, i + 1, (unsigned long long)offset, reason);
}

/* ---- snapshots ---- */

struct found {
        struct image_snapshot info;
        struct qcow2_snapshot l1;
        uint32_t date_ns;
        size_t i;
};

/* Any of these may have been taken by a clock that went back: then the table's order counts. */
static int older_first(const void *a, const void *b)
{
        const struct found *x = a, *y = b;

        if (x->info.date_s != y->info.date_s)
                return x->info.date_s < y->info.date_s ? -1 : 1;
        if (x->date_ns != y->date_ns)
                return x->date_ns < y->date_ns ? -1 : 1;
        return x->i < y->i ? -1 : 1;
}

static int co_read_string(struct image *image, struct window *w, uint64_t offset, uint32_t n,
                          char **ret, struct error *err)
{
        const uint8_t *p = NULL;
        int r = co_window(image, w, offset, n, &p, err);

        if (r < 0)
                return r;
        *ret = strndup((const char *)p, n);
        return *ret ? 0 : error_set(err, -ENOMEM, "out of memory");
}

static void parse_snapshot(struct image *image, struct found *found, const uint8_t *p,
                           uint32_t extra)
{
        const uint8_t *more = p + QCOW2_SNAPSHOT_SIZE;

        found->l1.l1_offset = qcow2_get64(p + QCOW2_SNAPSHOT_L1_OFFSET_AT);
        found->l1.l1_size = qcow2_get32(p + QCOW2_SNAPSHOT_L1_SIZE_AT);
        found->info.date_s = qcow2_get32(p + QCOW2_SNAPSHOT_DATE_S_AT);
        found->date_ns = qcow2_get32(p + QCOW2_SNAPSHOT_DATE_NS_AT);
        found->info.vm_state_bytes = qcow2_get32(p + QCOW2_SNAPSHOT_VM_STATE_32_AT);
        found->info.virtual_bytes = image->virtual_bytes;
        if (extra >= QCOW2_SNAPSHOT_EXTRA_SIZE_BYTES_AT)
                found->info.vm_state_bytes = qcow2_get64(more + QCOW2_SNAPSHOT_EXTRA_VM_STATE_AT);
        if (extra >= QCOW2_SNAPSHOT_EXTRA_V3_SIZE)
                found->info.virtual_bytes = qcow2_get64(more + QCOW2_SNAPSHOT_EXTRA_SIZE_BYTES_AT);
}

/* The entry at *@offset, and the next one's. */
static int co_snapshot(struct image *image, struct window *w, uint64_t *offset, struct found *found,
                       struct error *err)
{
        const struct qcow2 *q = image->state;
        uint64_t at = *offset, end = q->snapshots_offset + QCOW2_SNAPSHOT_TABLE_BYTES_MAX;
        const uint8_t *p = NULL;
        uint32_t extra, id, name;
        uint64_t bytes;
        int r;

        if (end > image->file_bytes)
                end = image->file_bytes;
        if (at + QCOW2_SNAPSHOT_SIZE > end)
                return entry_damaged(image, "snapshot", found->i, at,
                                     "lies beyond the file's end or makes a table of over 64 MiB",
                                     err);
        r = co_window(image, w, at, QCOW2_SNAPSHOT_SIZE, &p, err);
        if (r < 0)
                return r;
        extra = qcow2_get32(p + QCOW2_SNAPSHOT_EXTRA_SIZE_AT);
        id = qcow2_get16(p + QCOW2_SNAPSHOT_ID_SIZE_AT);
        name = qcow2_get16(p + QCOW2_SNAPSHOT_NAME_SIZE_AT);
        bytes = (uint64_t)QCOW2_SNAPSHOT_SIZE + extra + id + name;
        if (extra > QCOW2_SNAPSHOT_EXTRA_MAX)
                return entry_damaged(image, "snapshot", found->i, at,
                                     "says that it has more than 1024 bytes of extra data", err);
        if (bytes > end - at)
                return entry_damaged(image, "snapshot", found->i, at,
                                     "ends beyond the file's end or makes a table of over 64 MiB",
                                     err);
        r = co_window(image, w, at, QCOW2_SNAPSHOT_SIZE + extra, &p, err);
        if (r < 0)
                return r;
        parse_snapshot(image, found, p, extra);
        at += QCOW2_SNAPSHOT_SIZE + extra;
        r = co_read_string(image, w, at, id, &found->info.id, err);
        if (r == 0)
                r = co_read_string(image, w, at + id, name, &found->info.name, err);
        *offset += (bytes + 7) & ~UINT64_C(7);
        return r;
}

/* Hand over what was found, in its order. */
static int keep_snapshots(struct image *image, struct found *found, size_t n, struct error *err)
{
        struct qcow2 *q = image->state;

        qsort(found, n, sizeof(*found), older_first);
        q->snapshots = calloc(n, sizeof(*q->snapshots));
        image->info.snapshots = calloc(n, sizeof(*image->info.snapshots));
        if (!q->snapshots || !image->info.snapshots)
                return error_set(err, -ENOMEM, "out of memory");
        for (size_t i = 0; i < n; i++) {
                q->snapshots[i] = found[i].l1;
                image->info.snapshots[i] = found[i].info;
                found[i].info = (struct image_snapshot){0};
        }
        image->info.n_snapshots = n;
        return 0;
}

int co_qcow2_snapshots_load(struct image *image, struct error *err)
{
        struct qcow2 *q = image->state;
        uint64_t at = q->snapshots_offset;
        struct window w;
        struct found *found;
        int r;

        if (q->n_snapshots == 0)
                return 0;
        r = window_init(&w, err);
        if (r < 0)
                return r;
        found = calloc(q->n_snapshots, sizeof(*found));
        if (!found)
                r = error_set(err, -ENOMEM, "out of memory");
        for (size_t i = 0; r == 0 && i < q->n_snapshots; i++) {
                found[i].i = i;
                r = co_snapshot(image, &w, &at, &found[i], err);
        }
        if (r == 0) {
                q->snapshots_bytes = at - q->snapshots_offset;
                r = keep_snapshots(image, found, q->n_snapshots, err);
        }
        for (size_t i = 0; found && i < q->n_snapshots; i++) {
                free(found[i].info.id);
                free(found[i].info.name);
        }
        free(found);
        free(w.data);
        return r;
}

/* ---- bitmaps ---- */

static int parse_bitmap(struct image *image, const uint8_t *p, size_t i, uint64_t at,
                        struct error *err)
{
        struct image_bitmap *bitmap = &image->info.bitmaps[i];
        uint32_t flags = qcow2_get32(p + QCOW2_BITMAP_FLAGS_AT);
        unsigned bits = p[QCOW2_BITMAP_GRANULARITY_BITS_AT];
        unsigned name = qcow2_get16(p + QCOW2_BITMAP_NAME_SIZE_AT);

        if (p[QCOW2_BITMAP_TYPE_AT] != QCOW2_BITMAP_TYPE_DIRTY)
                return entry_damaged(image, "bitmap", i, at, "is of an unknown type", err);
        if (flags & ~(QCOW2_BITMAP_IN_USE | QCOW2_BITMAP_AUTO | QCOW2_BITMAP_EXTRA_OK))
                return entry_damaged(image, "bitmap", i, at, "has reserved flags set", err);
        if (bits < QCOW2_BITMAP_GRANULARITY_BITS_MIN || bits > QCOW2_BITMAP_GRANULARITY_BITS_MAX)
                return entry_damaged(image, "bitmap", i, at,
                                     "has a granularity that is not between 512 bytes and 2 GiB",
                                     err);
        if (name == 0 || name > QCOW2_BITMAP_NAME_MAX)
                return entry_damaged(image, "bitmap", i, at,
                                     "has a name that is empty or longer than 1023 bytes", err);
        bitmap->granularity_bytes = UINT64_C(1) << bits;
        bitmap->automatic = (flags & QCOW2_BITMAP_AUTO) != 0;
        /* Extra data whose meaning is unknown: "the bitmap must not be used". */
        bitmap->in_use =
            (flags & QCOW2_BITMAP_IN_USE) ||
            (qcow2_get32(p + QCOW2_BITMAP_EXTRA_SIZE_AT) > 0 && !(flags & QCOW2_BITMAP_EXTRA_OK));
        return 0;
}

static int co_bitmap(struct image *image, struct window *w, uint64_t *offset, size_t i,
                     struct error *err)
{
        const struct qcow2 *q = image->state;
        uint64_t at = *offset, end = q->bitmaps_offset + q->bitmaps_bytes, extra, name;
        const uint8_t *p = NULL;
        int r;

        if (at > end || end - at < QCOW2_BITMAP_SIZE)
                return entry_damaged(image, "bitmap", i, at, "lies beyond the directory's end",
                                     err);
        r = co_window(image, w, at, QCOW2_BITMAP_SIZE, &p, err);
        if (r == 0)
                r = parse_bitmap(image, p, i, at, err);
        if (r < 0)
                return r;
        extra = qcow2_get32(p + QCOW2_BITMAP_EXTRA_SIZE_AT);
        name = qcow2_get16(p + QCOW2_BITMAP_NAME_SIZE_AT);
        if (QCOW2_BITMAP_SIZE + extra + name > end - at)
                return entry_damaged(image, "bitmap", i, at, "ends beyond the directory's end",
                                     err);
        *offset += (QCOW2_BITMAP_SIZE + extra + name + 7) & ~UINT64_C(7);
        return co_read_string(image, w, at + QCOW2_BITMAP_SIZE + extra, (uint32_t)name,
                              &image->info.bitmaps[i].name, err);
}

int co_qcow2_bitmaps_load(struct image *image, struct error *err)
{
        struct qcow2 *q = image->state;
        uint64_t at = q->bitmaps_offset;
        struct window w;
        int r;

        if (q->n_bitmaps == 0)
                return 0;
        r = window_init(&w, err);
        if (r < 0)
                return r;
        image->info.bitmaps = calloc(q->n_bitmaps, sizeof(*image->info.bitmaps));
        if (!image->info.bitmaps)
                r = error_set(err, -ENOMEM, "out of memory");
        else
                image->info.n_bitmaps = q->n_bitmaps;
        for (size_t i = 0; r == 0 && i < q->n_bitmaps; i++)
                r = co_bitmap(image, &w, &at, i, err);
        free(w.data);
        return r;
}
