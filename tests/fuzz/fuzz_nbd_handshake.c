/* fuzz_nbd_handshake.c - a client from the greeting on. */
#include "tests/fuzz/nbd_world.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct input in = {data, size};
        struct world *world = world_new(&in);

        world_play(world, &in);
        world_free(world);
        return 0;
}
