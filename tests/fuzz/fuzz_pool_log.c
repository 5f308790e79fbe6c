/* fuzz_pool_log.c - a log with records that fit the pool, or nearly, or not at all: replayed, and the pool
 * used. */
#include "tests/fuzz/pool_world.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct input in = {data, size};
        struct pool_world *w = pw_new(SAMPLE_SETTLED, &in);

        pw_forge_log(w);
        pw_run(w);
        if (in.left > 0) /* what the recovery has made of it, or the same once more */
                pw_run(w);
        pw_free(w);
        return 0;
}
