/* fuzz_nbd_requests.c - a client that has opened an export in one of the ways there are. */
#include <string.h>
#include "tests/fuzz/nbd_world.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t put_string(uint8_t *at, const char *text)
{
        be32 length = be32_make((uint32_t)strlen(text));

        memcpy(at, &length, sizeof(length));
        memcpy(at + sizeof(length), text, strlen(text));
        return sizeof(length) + strlen(text);
}

static void set_contexts(struct world *world, const char *name, unsigned which)
{
        static const char *const contexts[] = {"base:allocation", "qemu:allocation-depth",
                                               "qemu:dirty-bitmap:snap"};
        uint8_t bytes[256];
        size_t n = put_string(bytes, name), count = n;
        unsigned n_queries = 0;

        n += sizeof(be32);
        for (unsigned i = 0; i < 3; i++)
                if (which & (1u << i)) {
                        n += put_string(bytes + n, contexts[i]);
                        n_queries++;
                }
        be32 queries = be32_make(n_queries);
        memcpy(bytes + count, &queries, sizeof(queries));
        world_put_option(world, NBD_OPT_SET_META_CONTEXT, bytes, n);
}

/* Negotiate as the input's first byte says. */
static void open_export(struct world *world, struct input *in)
{
        static const char *const names[] = {"pool/vol", "pool/vol", "pool/big", "pool/vol@snap"};
        uint8_t how = input_u8(in), go[64];
        const char *name = names[how & 3];
        be32 flags = be32_make(how & 4 ? 3 : 1);

        output_put(&world->out, &flags, sizeof(flags));
        if (how & 16)
                world_put_option(world, NBD_OPT_EXTENDED_HEADERS, NULL, 0);
        else if (how & 8)
                world_put_option(world, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
        if (how & 24)
                set_contexts(world, name, how >> 5);
        if (!(how & 24) && (how & 32)) {
                world_put_option(world, NBD_OPT_EXPORT_NAME, name, strlen(name));
        } else {
                size_t n = put_string(go, name);
                memset(go + n, 0, 2);
                world_put_option(world, NBD_OPT_GO, go, n + 2);
        }
        world_flush(world);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct input in = {data, size};
        struct world *world = world_new(&in);

        open_export(world, &in);
        world_play(world, &in);
        world_free(world);
        return 0;
}
