/* buffers.c - payload buffers by size class. */
#include "common/buffers.h"
#include <assert.h>
#include <stdlib.h>

struct buffers_node { /* lies in the unused buffer itself */
        struct buffers_node *next;
};

unsigned buffers_class(uint64_t length)
{
        assert(length > 0 && length <= buffers_class_bytes(BUFFERS_CLASSES - 1));
        if (length <= BUFFERS_PAGE)
                return 0;
        uint64_t pages = (length - 1) / BUFFERS_PAGE; /* at least 1 */
        return (unsigned)(64 - __builtin_clzll(pages));
}

void *buffers_get(struct buffers *buffers, unsigned class)
{
        struct buffers_node *node = buffers->free[class];

        if (!node)
                return aligned_alloc(BUFFERS_PAGE, buffers_class_bytes(class));
        buffers->free[class] = node->next;
        buffers->cached_bytes -= buffers_class_bytes(class);
        return node;
}

void buffers_put(struct buffers *buffers, void *buffer, unsigned class)
{
        struct buffers_node *node = buffer;

        if (buffers->cached_bytes + buffers_class_bytes(class) > buffers->cached_max) {
                free(buffer);
                return;
        }
        node->next = buffers->free[class];
        buffers->free[class] = node;
        buffers->cached_bytes += buffers_class_bytes(class);
}

void buffers_trim(struct buffers *buffers)
{
        for (unsigned class = 0; class < BUFFERS_CLASSES; class ++)
                while (buffers->free[class]) {
                        struct buffers_node *node = buffers->free[class];

                        buffers->free[class] = node->next;
                        free(node);
                }
        buffers->cached_bytes = 0;
}
