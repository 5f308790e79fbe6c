/* buffer.c - payload buffers by size class, kept on free lists so that the hot path allocates
 * nothing. */
#include <assert.h>
#include <stdlib.h>
#include "nbd-server/internal.h"

struct buffer_node { /* lies in the unused buffer itself */
        struct buffer_node *next;
};

unsigned buffer_class(size_t length)
{
        assert(length > 0 && length <= PAYLOAD_MAX);
        if (length <= POOL_BLOCK)
                return 0;
        size_t blocks = (length - 1) / POOL_BLOCK; /* at least 1 */
        return (unsigned)(8 * sizeof(long) - (unsigned)__builtin_clzl(blocks));
}

void *buffer_get(struct buffer_pool *pool, unsigned class)
{
        assert(class < BUFFER_CLASSES);
        struct buffer_node *node = pool->free[class];
        if (node) {
                pool->free[class] = node->next;
                pool->cached_bytes -= buffer_class_bytes(class);
                return node;
        }
        return aligned_alloc(POOL_BLOCK, buffer_class_bytes(class));
}

void buffer_put(struct buffer_pool *pool, void *buffer, unsigned class)
{
        assert(class < BUFFER_CLASSES);
        if (pool->cached_bytes + buffer_class_bytes(class) > CACHED_BYTES_MAX) {
                free(buffer);
                return;
        }
        struct buffer_node *node = buffer;
        node->next = pool->free[class];
        pool->free[class] = node;
        pool->cached_bytes += buffer_class_bytes(class);
}

void buffer_trim(struct buffer_pool *pool)
{
        for (unsigned class = 0; class < BUFFER_CLASSES; class ++) {
                while (pool->free[class]) {
                        struct buffer_node *node = pool->free[class];
                        pool->free[class] = node->next;
                        free(node);
                }
        }
        pool->cached_bytes = 0;
}
