/* test_vmm_small_devices.c - entropy, and the seed's disk, as a driver uses them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <endian.h>
#include <errno.h>
#include <linux/virtio_blk.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>
#include "common/log.h"
#include "tests/fuzz/fuzz_loop.h"
#include "tests/vmm/guest.h"
#include "vmm-glue/vmm/virtio.h"
#include "vmm-glue/vmm/virtio_pci.h"

#define RING     MIB(1)
#define HEAD     MIB(2)
#define DATA     MIB(3)
#define STATUS   MIB(4)
#define SECTORS  100u
#define SLOT_RNG 1u
#define SLOT_BLK 2u

struct world {
        struct machine_fixture *f;
        struct guest_device rng, blk;
        struct guest_ring r;
};

static int setup(void **state)
{
        static struct loop *loop;
        struct world *w = calloc(1, sizeof(*w));
        uint8_t sector[512];

        log_set_sink(NULL);
        if (!loop)
                loop = fuzz_loop_new();
        w->f = fixture_new(MIB(32), loop);
        w->f->run_loop = fuzz_loop_settle;
        w->f->config.seed = memfd_create("seed", MFD_CLOEXEC);
        for (unsigned i = 0; i < SECTORS; i++) {
                memset(sector, (int)i + 1, sizeof(sector));
                assert_int_equal(write(w->f->config.seed, sector, 512), 512);
        }
        assert_int_equal(pci_create(&w->f->machine, NULL), 0);
        assert_int_equal(virtio_rng_create(&w->f->machine, NULL), 0);
        assert_int_equal(seed_blk_create(&w->f->machine, NULL), 0);
        w->rng = guest_device(w->f, SLOT_RNG);
        w->blk = guest_device(w->f, SLOT_BLK);
        *state = w;
        return 0;
}

static int teardown(void **state)
{
        struct world *w = *state;

        close(w->f->config.seed);
        fixture_free(w->f);
        free(w);
        return 0;
}

static void bring_up(struct world *w, struct guest_device *d)
{
        guest_begin(d, UINT64_MAX);
        w->r = guest_ring(d, 0, 64, RING);
        guest_ready(d);
}

/* What the device gives back for a chain: it, and only it. */
static uint32_t run(struct world *w, const struct guest_piece *pieces, unsigned n)
{
        uint16_t head = guest_add(&w->r, pieces, n);
        uint32_t id, length;

        guest_kick(&w->r);
        fixture_run(w->f);
        assert_true(guest_used(&w->r, &id, &length));
        assert_int_equal(id, head);
        assert_false(guest_used(&w->r, &id, &length));
        return length;
}

/* ---- entropy ---- */

static void buffers_are_filled(void **state)
{
        struct world *w = *state;
        uint8_t *data = guest_memory_at(w->f, DATA, 4096);
        unsigned n_zero = 0;

        bring_up(w, &w->rng);
        for (unsigned size = 1; size <= 1024; size *= 4) {
                memset(data, 0, 4096);
                assert_int_equal(run(w, &(struct guest_piece){DATA, size, true}, 1), size);
        }
        for (unsigned i = 0; i < 1024; i++)
                n_zero += data[i] == 0;
        assert_in_range(n_zero, 0, 100); /* four are likely */
}

static void as_much_as_fits_and_no_more(void **state)
{
        struct world *w = *state;
        const uint8_t *data = guest_memory_at(w->f, DATA, 8192);

        bring_up(w, &w->rng);
        assert_int_equal(run(w, &(struct guest_piece){DATA, MIB(8), true}, 1), 1024);
        for (unsigned i = 1024; i < 8192; i++)
                assert_int_equal(data[i], 0);
        assert_int_equal(run(w, &(struct guest_piece){DATA, 64, false}, 1), 0);
        assert_int_equal(run(w, &(struct guest_piece){DATA, 0, true}, 1), 0);
}

static void many_buffers_take_their_turns(void **state)
{
        struct world *w = *state;
        uint32_t id, length;

        bring_up(w, &w->rng);
        for (unsigned i = 0; i < 64; i++)
                guest_add(&w->r, &(struct guest_piece){DATA, 16, true}, 1);
        guest_kick(&w->r);
        fixture_run(w->f);
        for (unsigned i = 0; i < 64; i++)
                assert_true(guest_used(&w->r, &id, &length) && id == i && length == 16);
}

static void a_broken_ring_stops_until_the_reset(void **state)
{
        struct world *w = *state;

        bring_up(w, &w->rng);
        guest_make_available(&w->r, 64);
        guest_kick(&w->r);
        fixture_run(w->f);
        assert_true(guest_status(&w->rng) & VIRTIO_CONFIG_S_NEEDS_RESET);
        bring_up(w, &w->rng);
        assert_int_equal(run(w, &(struct guest_piece){DATA, 64, true}, 1), 64);
}

static void a_ring_outside_ram_does_not_start(void **state)
{
        struct world *w = *state;

        guest_begin(&w->rng, UINT64_MAX);
        guest_set_common(&w->rng, VIRTIO_PCI_COMMON_Q_DESCHI, 4, 1);
        guest_set_common(&w->rng, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
        guest_ready(&w->rng);
        assert_true(guest_status(&w->rng) & VIRTIO_CONFIG_S_NEEDS_RESET);
}

/* ---- the seed ---- */

static uint8_t request(struct world *w, uint32_t type, uint64_t sector, uint32_t length)
{
        struct virtio_blk_outhdr *head = guest_memory_at(w->f, HEAD, sizeof(*head));
        uint8_t *status = guest_memory_at(w->f, STATUS, 1);
        const struct guest_piece pieces[] = {
            {HEAD, sizeof(*head), false}, {DATA, length, true}, {STATUS, 1, true}};

        *head = (struct virtio_blk_outhdr){.type = htole32(type), .sector = htole64(sector)};
        *status = 0xee;
        assert_int_equal(run(w, pieces, 3), length + 1);
        return *status;
}

static void the_seed_says_what_it_is(void **state)
{
        struct world *w = *state;
        uint64_t config = w->blk.bar + VIRTIO_PCI_DEVICE;

        assert_true(guest_features(&w->blk) & UINT64_C(1) << VIRTIO_BLK_F_RO);
        assert_int_equal(fixture_read(w->f, config, 8), SECTORS);
        assert_int_equal(
            fixture_read(w->f, config + offsetof(struct virtio_blk_config, blk_size), 4), 512);
        assert_int_equal(
            fixture_read(w->f, config + offsetof(struct virtio_blk_config, size_max), 4), 0);
        fixture_write(w->f, config, 0, 8);
        assert_int_equal(fixture_read(w->f, config, 8), SECTORS);
        assert_int_equal(fixture_read(w->f, config + 4000, 8), 0);
        assert_int_equal(fixture_read(w->f, config + sizeof(struct virtio_blk_config) - 2, 8) >> 16,
                         0);
}

static void sectors_are_read(void **state)
{
        struct world *w = *state;
        const uint8_t *data = guest_memory_at(w->f, DATA, 4096);

        bring_up(w, &w->blk);
        assert_int_equal(request(w, VIRTIO_BLK_T_IN, 10, 1024), VIRTIO_BLK_S_OK);
        assert_int_equal(data[0], 11);
        assert_int_equal(data[511], 11);
        assert_int_equal(data[512], 12);
        assert_int_equal(data[1024], 0);
        assert_int_equal(request(w, VIRTIO_BLK_T_IN, SECTORS - 1, 512), VIRTIO_BLK_S_OK);
        assert_int_equal(data[0], SECTORS);
        assert_int_equal(request(w, VIRTIO_BLK_T_IN, 0, SECTORS * 512), VIRTIO_BLK_S_OK);
}

static void what_is_not_there_cannot_be_read(void **state)
{
        struct world *w = *state;
        const uint8_t *data = guest_memory_at(w->f, DATA, 4096);

        bring_up(w, &w->blk);
        assert_int_equal(request(w, VIRTIO_BLK_T_IN, SECTORS, 512), VIRTIO_BLK_S_IOERR);
        assert_int_equal(request(w, VIRTIO_BLK_T_IN, SECTORS - 1, 1024), VIRTIO_BLK_S_IOERR);
        assert_int_equal(request(w, VIRTIO_BLK_T_IN, UINT64_MAX, 512), VIRTIO_BLK_S_IOERR);
        assert_int_equal(request(w, VIRTIO_BLK_T_IN, UINT64_MAX / 512 + 1, 512),
                         VIRTIO_BLK_S_IOERR);
        assert_int_equal(request(w, VIRTIO_BLK_T_IN, 0, 100), VIRTIO_BLK_S_IOERR);
        assert_int_equal(data[0], 0);
        assert_int_equal(request(w, VIRTIO_BLK_T_IN, 0, 0), VIRTIO_BLK_S_OK);
}

static void it_has_a_name(void **state)
{
        struct world *w = *state;
        const char *data = guest_memory_at(w->f, DATA, 4096);

        bring_up(w, &w->blk);
        assert_int_equal(request(w, VIRTIO_BLK_T_GET_ID, 0, VIRTIO_BLK_ID_BYTES), VIRTIO_BLK_S_OK);
        assert_string_equal(data, "seed");
        assert_int_equal(request(w, VIRTIO_BLK_T_GET_ID, 0, 2), VIRTIO_BLK_S_OK);
}

static void it_is_not_written(void **state)
{
        struct world *w = *state;
        const uint8_t *data = guest_memory_at(w->f, DATA, 512);

        bring_up(w, &w->blk);
        assert_int_equal(request(w, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_IOERR);
        assert_int_equal(request(w, VIRTIO_BLK_T_DISCARD, 0, 512), VIRTIO_BLK_S_UNSUPP);
        assert_int_equal(request(w, 0xffffffff, 0, 512), VIRTIO_BLK_S_UNSUPP);
        assert_int_equal(request(w, VIRTIO_BLK_T_IN, 0, 512), VIRTIO_BLK_S_OK);
        assert_int_equal(data[0], 1);
}

static void data_and_status_may_be_one_piece(void **state)
{
        struct world *w = *state;
        struct virtio_blk_outhdr *head = guest_memory_at(w->f, HEAD, sizeof(*head));
        const uint8_t *data = guest_memory_at(w->f, DATA, 1024);
        const struct guest_piece pieces[] = {
            {HEAD, 7, false}, {HEAD + 7, 9, false}, {DATA, 513, true}};

        bring_up(w, &w->blk);
        *head = (struct virtio_blk_outhdr){.type = htole32(VIRTIO_BLK_T_IN), .sector = htole64(5)};
        assert_int_equal(run(w, pieces, 3), 513);
        assert_int_equal(data[511], 6);
        assert_int_equal(data[512], VIRTIO_BLK_S_OK);
}

static void requests_without_head_or_status_come_back(void **state)
{
        struct world *w = *state;
        const struct guest_piece short_head[] = {{HEAD, 15, false}, {STATUS, 1, true}};
        const struct guest_piece no_status[] = {{HEAD, 16, false}};
        const struct guest_piece only_status[] = {{STATUS, 1, true}};

        bring_up(w, &w->blk);
        assert_int_equal(run(w, short_head, 2), 0);
        assert_int_equal(run(w, no_status, 1), 0);
        assert_int_equal(run(w, only_status, 1), 0);
        assert_int_equal(request(w, VIRTIO_BLK_T_IN, 0, 512), VIRTIO_BLK_S_OK);
}

static void a_seed_is_of_whole_sectors(void **state)
{
        struct world *w = *state;
        struct error err = ERROR_INIT;

        assert_int_equal(ftruncate(w->f->config.seed, 1000), 0);
        assert_int_equal(seed_blk_create(&w->f->machine, &err), -EINVAL);
        assert_int_equal(ftruncate(w->f->config.seed, (off_t)MIB(64) + 512), 0);
        assert_int_equal(seed_blk_create(&w->f->machine, &err), -EINVAL);
        assert_int_equal(pci_slot_used_mask(&w->f->machine), 7);
}

/* It cannot be: the machine's owner sealed it. But if: an error, and no crash. */
static void a_seed_that_shrinks_gives_errors(void **state)
{
        struct world *w = *state;

        bring_up(w, &w->blk);
        assert_int_equal(ftruncate(w->f->config.seed, 512), 0);
        assert_int_equal(request(w, VIRTIO_BLK_T_IN, 0, 1024), VIRTIO_BLK_S_IOERR);
}

#define device_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            device_test(buffers_are_filled),
            device_test(as_much_as_fits_and_no_more),
            device_test(many_buffers_take_their_turns),
            device_test(a_broken_ring_stops_until_the_reset),
            device_test(a_ring_outside_ram_does_not_start),
            device_test(the_seed_says_what_it_is),
            device_test(sectors_are_read),
            device_test(what_is_not_there_cannot_be_read),
            device_test(it_has_a_name),
            device_test(it_is_not_written),
            device_test(data_and_status_may_be_one_piece),
            device_test(requests_without_head_or_status_come_back),
            device_test(a_seed_is_of_whole_sectors),
            device_test(a_seed_that_shrinks_gives_errors),
        };

        return cmocka_run_group_tests_name("vmm_small_devices", tests, NULL, NULL);
}
