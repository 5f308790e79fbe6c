/* qcow2_check_bitmaps.c - checking where the persistent bitmaps of a qcow2 file lie. */
#include <errno.h>
#include <stdlib.h>

#include "formats/qcow2_checker.h"

static int check_entry(struct qcow2_checker *c, uint64_t entry, struct error *err)
{
        uint64_t offset = entry & QCOW2_OFFSET_MASK;

        if (entry & QCOW2_BITMAP_ENTRY_RESERVED || offset & (c->q->cluster_bytes - 1) ||
            (offset != 0 && entry & QCOW2_BITMAP_ENTRY_ONES)) {
                qcow2_check_found(c, 1, "a bitmap's table has an entry that is none: %llx",
                                  (unsigned long long)entry);
                return 0;
        }
        if (offset == 0)
                return 0;
        return qcow2_check_use(c, QCOW2_USE_BITMAPS, "a part of a bitmap", offset,
                               c->q->cluster_bytes, 1, err);
}

static int co_check_table(struct qcow2_checker *c, uint64_t offset, uint64_t size, uint64_t *words,
                          struct error *err)
{
        int r = qcow2_check_use(c, QCOW2_USE_BITMAPS, "a bitmap's table", offset,
                                size * sizeof(*words), 1, err);

        while (r == 0 && size > 0 && offset < c->file_bytes) {
                size_t n = size < QCOW2_CHECK_ENTRIES ? size : QCOW2_CHECK_ENTRIES;

                r = co_qcow2_check_read_table(c, words, n, offset, err);
                for (size_t i = 0; r == 0 && i < n; i++)
                        r = check_entry(c, words[i], err);
                size -= n;
                offset += n * sizeof(*words);
        }
        return r;
}

/* @directory is one that opening the image has found to be sound. */
static int co_check_directory(struct qcow2_checker *c, const uint8_t *directory, uint64_t *words,
                              struct error *err)
{
        uint64_t at = 0, sum = 0, bytes = c->q->bitmaps_bytes;
        int r = 0;

        for (uint32_t i = 0; r == 0 && i < c->q->n_bitmaps; i++) {
                const uint8_t *entry = directory + at;
                uint64_t size;

                if (bytes - at < QCOW2_BITMAP_SIZE)
                        return error_set(err, -EBADMSG, "'%s' has become another: its bitmaps are",
                                         c->image->path);
                size = qcow2_get32(entry + QCOW2_BITMAP_TABLE_SIZE_AT);
                sum += size * sizeof(*words);
                /* Tables that overlap could keep us busy for ever. */
                if (sum > c->file_bytes)
                        return error_set(
                            err, -EBADMSG,
                            "the tables of the bitmaps in '%s' are together longer than the file",
                            c->image->path);
                r = co_check_table(c, qcow2_get64(entry + QCOW2_BITMAP_TABLE_OFFSET_AT), size,
                                   words, err);
                at +=
                    (QCOW2_BITMAP_SIZE + (uint64_t)qcow2_get16(entry + QCOW2_BITMAP_NAME_SIZE_AT) +
                     qcow2_get32(entry + QCOW2_BITMAP_EXTRA_SIZE_AT) + 7) &
                    ~UINT64_C(7);
                if (at > bytes)
                        at = bytes;
        }
        return r;
}

int co_qcow2_check_bitmaps(struct qcow2_checker *c, struct error *err)
{
        uint64_t bytes = c->q->bitmaps_bytes;
        uint64_t *words;
        uint8_t *directory;
        int r;

        if (c->q->n_bitmaps == 0)
                return 0;
        r = qcow2_check_use(c, QCOW2_USE_BITMAPS, "the bitmap directory", c->q->bitmaps_offset,
                            bytes, 1, err);
        if (r < 0)
                return r;
        directory = qcow2_check_alloc(c, bytes, 1, err);
        if (!directory)
                return qcow2_check_no_memory(c);
        words = malloc(QCOW2_CHECK_ENTRIES * sizeof(*words));
        if (!words)
                r = error_set(err, -ENOMEM, "out of memory");
        if (r == 0)
                r = co_image_pread(c->image, directory, bytes, c->q->bitmaps_offset, err);
        if (r == 0)
                r = co_check_directory(c, directory, words, err);
        free(words);
        free(directory);
        c->memory_bytes -= bytes;
        return r;
}
