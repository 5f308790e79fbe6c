/* blocks_check.c - whether the blocks of an image lie in its file, each at a place of its own. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "formats/blocks.h"

/* Blocks that do not overlap begin at least a stride apart, so that there is at most one beginning in each
 * stride of the file: that is all that needs to be remembered. */
int block_check_init(struct block_check *bc, struct error *err)
{
        uint64_t bytes = bc->image->file_bytes;

        bc->n_slots = bytes <= bc->base ? 0 : (bytes - bc->base + bc->stride - 1) / bc->stride;
        if (bc->n_slots > BLOCK_CHECK_MAX)
                return error_set(err, -EFBIG,
                                 "'%s' has room for %llu blocks, and not more than %u are checked",
                                 bc->image->path, (unsigned long long)bc->n_slots, BLOCK_CHECK_MAX);
        bc->starts = calloc(bc->n_slots + 1, sizeof(*bc->starts));
        return bc->starts ? 0 : error_set(err, -ENOMEM, "out of memory");
}

void block_check_clear(struct block_check *bc)
{
        free(bc->starts);
}

void block_check_error(struct block_check *bc, const char *format, ...)
{
        char sentence[512];
        va_list args;

        bc->check->n_errors++;
        if (!bc->check->report || bc->n_told++ >= IMAGE_FINDINGS_MAX)
                return;
        va_start(args, format);
        vsnprintf(sentence, sizeof(sentence), format, args);
        va_end(args);
        bc->check->report(bc->check, sentence);
}

/* Does the block that begins in @slot reach into [start, start + stride)? */
static bool overlaps(const struct block_check *bc, uint64_t slot, uint64_t start)
{
        uint64_t other;

        if (slot >= bc->n_slots || bc->starts[slot] == 0)
                return false;
        other = (uint64_t)(bc->starts[slot] - 1) * bc->unit;
        return other < start + bc->stride && start < other + bc->stride;
}

void block_check_add(struct block_check *bc, uint64_t index, uint32_t value, uint64_t used)
{
        uint64_t start = value * bc->unit, offset = bc->base + start, slot = start / bc->stride;

        if (offset > bc->image->file_bytes || used > bc->image->file_bytes - offset) {
                block_check_error(bc, "block %llu lies at offset %llu, beyond the file's end",
                                  (unsigned long long)index, (unsigned long long)offset);
                return;
        }
        if (overlaps(bc, slot, start) || overlaps(bc, slot + 1, start) ||
            (slot > 0 && overlaps(bc, slot - 1, start))) {
                block_check_error(bc, "block %llu lies at offset %llu, where another one lies",
                                  (unsigned long long)index, (unsigned long long)offset);
                return;
        }
        bc->n_blocks++;
        if (slot < bc->n_slots)
                bc->starts[slot] = value + 1;
        bc->check->allocated_bytes += bc->stride;
        if (bc->check->end_bytes < offset + bc->stride)
                bc->check->end_bytes = offset + bc->stride;
}
