/* fuzz_vhost_messages.c - a front end from its first message on. */
#include "tests/fuzz/vhost_world.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct input in = {data, size};
        struct vhost_world *world = vw_new(&in);

        vw_play(world, &in);
        vw_free(world);
        return 0;
}
