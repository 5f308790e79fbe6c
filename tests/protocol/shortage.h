/* shortage.h - allocations that fail to order, for programs that are linked with --wrap for malloc(),
 * calloc(), realloc(), aligned_alloc() and mmap(): those of this program's own code.
 *
 * Threads    each thread says for itself whether its allocations are counted; one thread at a time.
 * Errors     none.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The @n-th allocation of the calling thread from now on fails, *arg being an unsigned @n; 0: none. */
void shortage_fail(void *arg);
void shortage_off(void); /* the calling thread's are counted no more */
bool shortage_has_struck(void);

/* What a client says that uses everything, without looking at replies, from the greeting's answer
 * on: at most SHORTAGE_STREAM_BYTES; its length. The flags come first, in SHORTAGE_FLAGS_BYTES. */
#define SHORTAGE_STREAM_BYTES 200000u
#define SHORTAGE_FLAGS_BYTES  4u
size_t shortage_conversation(uint8_t *stream);
