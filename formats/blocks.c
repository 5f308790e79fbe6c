/* blocks.c - reading images whose blocks are found by a table of 32-bit numbers. */
#include "formats/blocks.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint64_t min_u64(uint64_t a, uint64_t b)
{
        return a < b ? a : b;
}

/* A page is read into memory of its own and put in its place then: others may have done the same
 * meanwhile, and nobody keeps a pointer to one while he suspends. */
static int co_load_page(struct image *image, struct block_table *table, uint64_t number,
                        struct error *err)
{
        size_t slot = number % BLOCK_TABLE_PAGES;
        uint64_t at = number * BLOCK_TABLE_PAGE_BYTES;
        uint64_t length = min_u64(BLOCK_TABLE_PAGE_BYTES, table->n_entries * 4 - at);
        uint8_t *bytes = malloc(BLOCK_TABLE_PAGE_BYTES);
        int r;

        if (!bytes)
                return error_set(err, -ENOMEM, "out of memory");
        r = co_image_pread(image, bytes, length, table->offset + at, err);
        if (r < 0) {
                free(bytes);
                return r;
        }
        free(table->pages[slot].bytes);
        table->pages[slot].bytes = bytes;
        table->pages[slot].number = number;
        return 0;
}

int co_block_table_get(struct image *image, struct block_table *table, uint64_t index,
                       uint32_t *ret_value, struct error *err)
{
        uint64_t number = index * 4 / BLOCK_TABLE_PAGE_BYTES;
        size_t slot = number % BLOCK_TABLE_PAGES;
        uint32_t value;

        if (!table->pages[slot].bytes || table->pages[slot].number != number) {
                int r = co_load_page(image, table, number, err);

                if (r < 0)
                        return r;
        }
        memcpy(&value, table->pages[slot].bytes + index * 4 % BLOCK_TABLE_PAGE_BYTES, 4);
        *ret_value = table->big_endian ? be32toh(value) : le32toh(value);
        return 0;
}

void block_table_clear(struct block_table *table)
{
        for (size_t i = 0; i < BLOCK_TABLE_PAGES; i++) {
                free(table->pages[i].bytes);
                table->pages[i].bytes = NULL;
        }
}

/* ---- reading ---- */

static int co_parent_extent(struct image *parent, uint64_t offset, uint64_t length,
                            struct image_extent *ret_extent, struct error *err)
{
        int r;

        if (!parent || offset >= parent->virtual_bytes) {
                *ret_extent = (struct image_extent){.length = length, .zero = true};
                return 0;
        }
        r = parent->driver->co_extent(parent, offset, ret_extent, err);
        if (r < 0)
                return r;
        ret_extent->length = min_u64(ret_extent->length, length);
        ret_extent->depth++;
        return 0;
}

int co_blocks_extent(struct image *image, co_block_find *co_find, struct image *parent, bool sparse,
                     uint64_t offset, struct image_extent *ret_extent, struct error *err)
{
        struct block_run run;
        int r = co_find(image, offset, image->virtual_bytes - offset, &run, err);

        if (r < 0)
                return r;
        if (run.source == BLOCK_ABSENT)
                return co_parent_extent(parent, offset, run.length, ret_extent, err);
        *ret_extent = (struct image_extent){.length = run.length,
                                            .present = true,
                                            .zero = run.source == BLOCK_ZERO,
                                            .has_offset = run.source == BLOCK_HERE,
                                            .file_offset = run.file_offset};
        if (run.source == BLOCK_HERE && sparse)
                image_file_extent(image, run.file_offset, run.file_offset + run.length, ret_extent);
        return 0;
}

static int co_parent_read(struct image *parent, void *buffer, size_t length, uint64_t offset,
                          struct error *err)
{
        size_t n = 0;

        if (parent && offset < parent->virtual_bytes)
                n = (size_t)min_u64(length, parent->virtual_bytes - offset);
        memset((char *)buffer + n, 0, length - n);
        return n > 0 ? parent->driver->co_read(parent, buffer, n, offset, err) : 0;
}

int co_blocks_read(struct image *image, co_block_find *co_find, struct image *parent, void *buffer,
                   size_t length, uint64_t offset, struct error *err)
{
        char *to = buffer;

        while (length > 0) {
                struct block_run run;
                int r = co_find(image, offset, length, &run, err);

                if (r == 0 && run.source == BLOCK_HERE)
                        r = co_image_pread(image, to, run.length, run.file_offset, err);
                else if (r == 0 && run.source == BLOCK_ABSENT)
                        r = co_parent_read(parent, to, run.length, offset, err);
                else if (r == 0)
                        memset(to, 0, run.length);
                if (r < 0)
                        return r;
                to += run.length;
                offset += run.length;
                length -= run.length;
        }
        return 0;
}
