/* ring_internal.h - what the two kinds of ring give to ring.c. See ring.h.
 *
 * _add takes n free descriptors and returns the head or id; _publish says whether to kick; _peek
 * looks at the next used one; _take gives its descriptors back. */
#pragma once
#include "tests/vhost/ring.h"

uint16_t ring_split_add(struct ring *r, const struct ring_buffer *buffers, unsigned n,
                        bool indirect);
bool ring_split_publish(struct ring *r);
bool ring_split_peek(struct ring *r, uint32_t *ret_id, uint32_t *ret_n_bytes);
void ring_split_take(struct ring *r, uint16_t id, uint16_t n_taken);
void ring_split_arm(struct ring *r);
void ring_split_disarm(struct ring *r);

uint16_t ring_packed_add(struct ring *r, const struct ring_buffer *buffers, unsigned n,
                         bool indirect);
bool ring_packed_publish(struct ring *r);
bool ring_packed_peek(struct ring *r, uint32_t *ret_id, uint32_t *ret_n_bytes);
void ring_packed_take(struct ring *r, uint16_t id, uint16_t n_taken);
void ring_packed_arm(struct ring *r);
void ring_packed_disarm(struct ring *r);
