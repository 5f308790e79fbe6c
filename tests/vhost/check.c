/* check.c - see check.h. */
#include "tests/vhost/check.h"
#include <stdlib.h>
#include <string.h>

struct error check_err;
static const char *path;

const char *check_path(void)
{
        const char *p = path ? path : getenv("VHOST_SOCKET");

        if (!p)
                fail_msg("VHOST_SOCKET names no socket");
        return p;
}

void check_set_path(const char *new_path)
{
        path = new_path;
}

struct disk *check_open(struct disk_options options)
{
        struct disk *d = NULL;

        if (!options.path)
                options.path = check_path();
        ok(disk_open(&options, &d, &check_err));
        return d;
}

void check_pattern(uint8_t *data, size_t n_bytes, uint64_t seed)
{
        uint64_t x = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;

        for (size_t i = 0; i < n_bytes; i++) {
                x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
                data[i] = (uint8_t)(x >> 56);
        }
}

uint8_t check_status(struct disk *d, uint32_t type, uint64_t sector, void *data, uint32_t n_bytes)
{
        struct disk_op op = {.type = type, .sector = sector, .data = data, .n_bytes = n_bytes};

        ok(disk_do(d, 0, &op, &check_err));
        return op.status;
}

void check_write(struct disk *d, uint64_t sector, const void *data, uint32_t n_bytes)
{
        assert_int_equal(
            check_status(d, VIRTIO_BLK_T_OUT, sector, (void *)(uintptr_t)data, n_bytes),
            VIRTIO_BLK_S_OK);
}

void check_read(struct disk *d, uint64_t sector, void *data, uint32_t n_bytes)
{
        assert_int_equal(check_status(d, VIRTIO_BLK_T_IN, sector, data, n_bytes), VIRTIO_BLK_S_OK);
}

void check_flush(struct disk *d)
{
        assert_int_equal(check_status(d, VIRTIO_BLK_T_FLUSH, 0, NULL, 0), VIRTIO_BLK_S_OK);
}

void check_alive(struct disk *d)
{
        static uint64_t seed = 1000;
        uint8_t data[4096], back[4096];

        check_pattern(data, sizeof(data), seed++);
        check_write(d, 8, data, sizeof(data));
        check_read(d, 8, back, sizeof(back));
        assert_memory_equal(data, back, sizeof(back));
}

void check_server_alive(void)
{
        struct disk *d = check_open((struct disk_options){.without_inflight = true});

        check_alive(d);
        disk_close(d);
}
