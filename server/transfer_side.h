/* transfer_side.h - transfer.c's: what both ends of a copy have in common.
 *
 * Errors     0 or -errno with a sentence.
 */
#pragma once
#include "server/transfer.h"

struct side_ops {
        int (*co_extent)(struct transfer_side *side, uint64_t offset, struct image_extent *ret,
                         struct error *err);
        int (*co_read)(struct transfer_side *side, void *buffer, size_t length, uint64_t offset,
                       struct error *err);
        int (*co_write)(struct transfer_side *side, const void *buffer, size_t length,
                        uint64_t offset, struct error *err);
        int (*co_zero)(struct transfer_side *side, uint64_t offset, uint64_t length,
                       struct error *err);
        int (*co_finish)(struct transfer_side *side, struct error *err);
};

/* Compare, in the place of writing (verify.c). */
extern const struct side_ops verify_ops;

const struct side_ops *side_ops(const struct transfer_side *side);
const char *side_name(const struct transfer_side *side);
uint64_t side_bytes(const struct transfer_side *side);
/* Of which what is written begins and ends at multiples. */
uint32_t side_unit(const struct transfer_side *side);
