/* fuzz_vhost_chains.c - the guest behind a front end that has set up a device. */
#include "tests/fuzz/vhost_world.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct input in = {data, size};
        struct vhost_world *world = vw_new(&in);

        vw_set_up(world, &in);
        vw_play(world, &in);
        vw_free(world);
        return 0;
}
