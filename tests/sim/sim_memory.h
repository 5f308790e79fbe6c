/* sim_memory.h - memory for the simulator itself, which has nothing to tell once there is none. */
#pragma once
#include <stdlib.h>

static inline void *sim_must(void *memory)
{
        if (!memory)
                abort();
        return memory;
}
