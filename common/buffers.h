/* buffers.h - payload buffers by size class, kept on free lists so that a hot path allocates
 * nothing.
 *
 * Units      bytes; class N has 4096 << N of them.
 * Threads    a struct buffers belongs to one loop.
 * Errors     buffers_get() gives NULL when out of memory.
 * Ownership  a buffer is its taker's until buffers_put() with the class that it was taken with.
 */
#pragma once
#include <stdint.h>

#define BUFFERS_PAGE    4096u
#define BUFFERS_CLASSES 14 /* up to 32 MiB */

struct buffers {
        struct buffers_node *free[BUFFERS_CLASSES];
        uint64_t cached_bytes, cached_max; /* unused ones that are kept */
};

/* The smallest class of at least @length bytes; 1 to 32 MiB. */
unsigned buffers_class(uint64_t length);
static inline uint64_t buffers_class_bytes(unsigned class)
{
        return (uint64_t)BUFFERS_PAGE << class;
}
void *buffers_get(struct buffers *buffers, unsigned class); /* aligned to BUFFERS_PAGE */
void buffers_put(struct buffers *buffers, void *buffer, unsigned class);
void buffers_trim(struct buffers *buffers); /* give all unused ones back */
