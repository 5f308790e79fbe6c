/* blocks.h - what VDI and VHD have in common: a disk in blocks of one size, found by a table of 32-bit
 * numbers, and a parent that has what is in no block.
 *
 * Units      bytes; a block's index counts blocks of the disk.
 * Threads    the image's loop. co_* functions suspend; a table may be used by several coroutines.
 * Errors     as image.h has them.
 * Ownership  block_table_clear() gives a table's memory back; struct block_writer is the driver's, its
 *            places are released by block_writer_clear(). A parent is the driver's.
 */
#pragma once
#include "formats/image.h"

/* ---- the table ---- */

/* Read page by page, and the last ones used are kept: 4 MiB at most, whatever the table's length. */
#define BLOCK_TABLE_PAGE_BYTES (64u << 10)
#define BLOCK_TABLE_PAGES      64u

struct block_table {
        uint64_t offset;
        uint64_t n_entries; /* all within the file: the driver has looked */
        bool big_endian;
        struct {
                uint64_t number;
                uint8_t *bytes; /* NULL: none */
        } pages[BLOCK_TABLE_PAGES];
};

/* @index < n_entries */
int co_block_table_get(struct image *image, struct block_table *table, uint64_t index,
                       uint32_t *ret_value, struct error *err);
void block_table_clear(struct block_table *table);

/* ---- reading ---- */

/* The most blocks that one run is put together of. */
#define BLOCK_RUN_MAX 65536u

enum block_source {
        BLOCK_HERE,   /* at file_offset */
        BLOCK_ZERO,   /* reads as zeroes, as this file says */
        BLOCK_ABSENT, /* of a differencing image: the parent's, or zeroes where that ends */
};

struct block_run {
        enum block_source source;
        uint64_t length; /* at least 1 */
        uint64_t file_offset;
};

/* What is at @offset < virtual_bytes, for at most @wanted > 0 bytes. */
typedef int co_block_find(struct image *image, uint64_t offset, uint64_t wanted,
                          struct block_run *ret_run, struct error *err);

/* The drivers' co_extent() and co_read(); @parent NULL: there is none. Where @sparse, data of this
 * file may be holes in it. */
int co_blocks_extent(struct image *image, co_block_find *co_find, struct image *parent, bool sparse,
                     uint64_t offset, struct image_extent *ret_extent, struct error *err);
int co_blocks_read(struct image *image, co_block_find *co_find, struct image *parent, void *buffer,
                   size_t length, uint64_t offset, struct error *err);

/* ---- checking ---- */

/* The most blocks that can lie in a file that is checked: 64 MiB of memory. */
#define BLOCK_CHECK_MAX (16u << 20)

/* Blocks lie at @base and multiples of @unit from there, and take @stride bytes each. */
struct block_check {
        struct image *image;
        struct image_check *check;
        uint64_t base, unit, stride;
        uint64_t n_slots;
        uint32_t *starts; /* one a stride; which block begins there, plus one */
        uint64_t n_blocks;
        unsigned n_told;
};

/* -EFBIG  the file is larger than can be checked */
int block_check_init(struct block_check *bc, struct error *err);
/* Block @index lies at base + @value * unit and has @used bytes that matter: is that in the file, and
 * nobody else's? */
void block_check_add(struct block_check *bc, uint64_t index, uint32_t value, uint64_t used);
/* A finding; counted always, and told while there are few. */
void block_check_error(struct block_check *bc, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void block_check_clear(struct block_check *bc);

/* ---- writing ---- */

/* The most blocks that an image can be written with; the table takes memory as blocks are written. */
#define BLOCK_WRITE_MAX (64u << 20)

struct block_writer {
        uint32_t *places; /* of each block: its number in the table, plus one; 0: none */
        uint64_t n_blocks;
        uint32_t block_bytes;
};

int block_writer_init(struct block_writer *w, const struct image *image, uint32_t block_bytes,
                      struct error *err);
void block_writer_clear(struct block_writer *w);
/* Write the table at @offset, up to @bytes with @none behind the last block; @none also stands for
 * blocks that are not there. */
int co_block_writer_table(struct block_writer *w, struct image *image, uint64_t offset,
                          uint64_t bytes, uint32_t none, bool big_endian, struct error *err);

/* The file's size is set, and what was written to it is on its disk. */
int image_set_size(struct image *image, uint64_t bytes, struct error *err);
int co_image_sync(struct image *image, struct error *err);
/* What co_create() of both begins with: a regular file, emptied; no compression. */
int block_create_begin(struct image *image, const struct image_create_options *options,
                       struct error *err);
