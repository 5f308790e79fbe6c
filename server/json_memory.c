/* json_memory.c - see json_memory.h. */
#include "server/json_memory.h"

#include <jansson.h>
#include <stdatomic.h>
#include <stdlib.h>

static atomic_uint failures;

static void *count_failures(size_t size)
{
        void *p = malloc(size);

        if (!p)
                failures++;
        return p;
}

void json_memory_watch(void)
{
        json_set_alloc_funcs(count_failures, free);
}

unsigned json_memory_failures(void)
{
        return failures;
}
