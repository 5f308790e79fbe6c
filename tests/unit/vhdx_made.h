/* vhdx_made.h - VHDX files made by hand, for tests and fuzzers: right in everything until bytes are
 * changed and sums mended.
 *
 * Units      bytes. Log sectors are 4096 bytes.
 * Threads    one.
 * Errors     none: a file that cannot be written aborts.
 * Ownership  the descriptor is the caller's.
 */
#pragma once
#include "formats/vhdx_internal.h"

/* Where things are. */
#define MADE_LOG      (1 * VHDX_MIB)
#define MADE_METADATA (2 * VHDX_MIB)
#define MADE_BAT      (3 * VHDX_MIB)
#define MADE_DATA     (4 * VHDX_MIB)
#define MADE_ITEM(i)  (MADE_METADATA + 32 + 32 * (uint64_t)(i)) /* the table's entry */
#define MADE_VALUE(i) (MADE_METADATA + 65536 + 4096 * (uint64_t)(i))
enum { MADE_PARAMETERS, MADE_SIZE, MADE_PAGE_83, MADE_LOGICAL, MADE_PHYSICAL, MADE_PARENT };
#define MADE_REGION(table, i)                                                                      \
        (VHDX_TABLE_OFFSET(table) + 16 + 32 * (uint64_t)(i)) /* BAT, metadata */

struct made {
        int fd;
        uint64_t block, size; /* set before made_begin(); 0: 1 MiB, 8 blocks */
        uint32_t sector;      /* 0: 512 */
        uint32_t flags;       /* VHDX_HAS_PARENT needs made_locator() */
        struct vhdx_guid data_write;
        uint64_t next; /* where the file ends */
};

/* An empty file of that kind, all blocks not present. */
void made_begin(struct made *m);

void made_put(const struct made *m, uint64_t offset, const void *bytes, size_t length);
void made_put16(const struct made *m, uint64_t offset, uint16_t value);
void made_put32(const struct made *m, uint64_t offset, uint32_t value);
void made_put64(const struct made *m, uint64_t offset, uint64_t value);
void made_fill(const struct made *m, uint64_t offset, uint8_t byte, uint64_t length);
void made_mend_header(const struct made *m, unsigned i);
void made_mend_table(const struct made *m, unsigned i); /* region tables */
void made_end(const struct made *m, uint64_t length);   /* ftruncate() */

/* The BAT's entries, by block, and by chunk. */
uint64_t made_entry_at(const struct made *m, uint64_t block);
uint64_t made_bitmap_at(const struct made *m, uint64_t block);
void made_entry(const struct made *m, uint64_t block, uint64_t offset, enum vhdx_state state);
/* Take space for a block, full of @byte; where it is. */
uint64_t made_block(struct made *m, uint64_t block, enum vhdx_state state, uint8_t byte);
/* The sector bitmap of the chunk that has @block, all zero; where it is. */
uint64_t made_bitmap(struct made *m, uint64_t block);

/* Keys and values, the last pair's key NULL. */
void made_locator(const struct made *m, const char *const (*pairs)[2]);

/* ---- logs ---- */

struct made_record {
        uint64_t offset;
        const uint8_t *data; /* a sector; NULL: zeroes */
        uint64_t length;     /* of zeroes */
};
struct made_log_entry {
        uint32_t sector, tail; /* in sectors of the log */
        uint64_t sequence;
        uint64_t flushed, last;
        const struct made_record *records;
        uint32_t n_records;
};
extern const struct vhdx_guid made_log_guid;
/* The headers say that the log is in use. */
void made_use_log(const struct made *m);
/* Write an entry; the sector behind it. The log goes round. */
uint32_t made_log(const struct made *m, const struct made_log_entry *entry);
/* The sum of the entry at @sector, after it was changed. */
void made_mend_log(const struct made *m, uint32_t sector, uint32_t n_sectors);
