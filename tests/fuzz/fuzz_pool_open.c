/* fuzz_pool_open.c - disks of a pool, every block of whose metadata may say anything behind right
 * checksums: what is imported, opened, checked, used, and opened again. */
#include "tests/fuzz/pool_world.h"

#define LIVES 2u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct input in = {data, size};
        struct pool_world *w = pw_new((enum sample_end)(input_u8(&in) % 3), &in);

        for (unsigned i = 0; i < LIVES && in.left > 0; i++) {
                pw_damage(w);
                pw_run(w);
        }
        pw_free(w);
        return 0;
}
