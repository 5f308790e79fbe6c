/* content.h - what the crash explorer writes: every 256 bytes say which write they come from.
 *
 * A version is one write to one block; its number is 1 or more and is never used twice in a run. A
 * grain (256 bytes, 16 to a block) of version v holds words that depend on v and on the grain's
 * place, the first of which spells v: so that what is read back is either nothing but zeroes, or
 * names its writer, or is damage. Grains are smaller than a sector because the engine takes
 * requests down to a byte.
 *
 * Units      bytes; a grain's number is its place in the block.
 * Threads    [any thread]
 * Errors     none: what no version holds is VERSION_DAMAGE.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BLOCK_SIZE   4096u
#define GRAIN        256u
#define BLOCK_GRAINS 16u
#define ALL_GRAINS   0xffffu

/* In place of a version: all zeroes; and what no write of ours has written there. */
#define VERSION_ZERO   0u
#define VERSION_DAMAGE UINT32_MAX
/* Nothing was read there: an error. */
#define VERSION_UNREADABLE (UINT32_MAX - 1)
/* Above all numbers of writes: a block of an image. */
#define VERSION_IMAGE (UINT32_C(1) << 31)

/* The versions that the grains of one block come from. */
struct content {
        uint32_t grain[BLOCK_GRAINS];
};

/* Images that volumes stand on, numbered from 1: a small one that ends inside a block, and a larger one
 * with a hole across leaves of its map. */
uint64_t image_bytes(uint32_t image);
/* Of its first @end_bytes, zeroes behind that. */
struct content image_content(uint32_t image, uint64_t block, uint64_t end_bytes);
/* Is @version of an image, and which of its blocks? */
bool content_is_image(uint32_t version, uint64_t *ret_block);

void content_fill(void *bytes, uint32_t version, unsigned grain);
/* The version that the GRAIN bytes at @bytes, read at @grain of a block, come from. */
uint32_t content_decode(const void *bytes, unsigned grain);
