/* virtio-mem: blocks that come and go, and what a driver may not do with them. */
#include <errno.h>
#include <linux/virtio_mem.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "common/le.h"
#include "tests/vmm/fake_driver.h"
#include "vmm-glue/vmm/memory_size.h"

#define BLOCK   MIB(2)
#define ROOM    MIB(200)
#define REGION  GIB(4) /* RAM is all below */
#define REQUEST FAKE_DATA
#define ANSWER  (FAKE_DATA + 4096)

static struct fake fake;

static void begin(void)
{
        fake_init(&fake, NULL);
        fake.config.memory_max = FAKE_MEMORY + ROOM;
        assert_int_equal(virtio_mem_create(&fake.machine, NULL), 0);
        assert_int_equal(fake_start(&fake, fake.v->ops->features(fake.v), NULL), 0);
}

static void end(void)
{
        fake_fini(&fake);
}

static uint16_t ask_of(uint16_t type, uint64_t addr, uint16_t n, uint16_t *ret_state)
{
        const struct virtio_mem_req request = {
            .type = htole16(type), .u.plug = {.addr = htole64(addr), .nb_blocks = htole16(n)}};
        const struct fake_piece pieces[] = {
            {REQUEST, sizeof(struct virtio_mem_req), false},
            {ANSWER, sizeof(struct virtio_mem_resp), true},
        };
        struct virtio_mem_resp response;
        uint32_t written;

        memcpy(fake_at(&fake, REQUEST), &request, sizeof(request));
        memset(fake_at(&fake, ANSWER), 0xee, sizeof(response));
        fake_give(&fake, 0, pieces, 2);
        fake_kick(&fake, 0);
        assert_true(fake_take(&fake, 0, NULL, &written));
        assert_int_equal(written, sizeof(response));
        memcpy(&response, fake_at(&fake, ANSWER), sizeof(response));
        if (ret_state)
                *ret_state = le16toh(response.u.state.state);
        return le16toh(response.type);
}

static uint16_t ask(uint16_t type, uint64_t block, uint16_t n)
{
        return ask_of(type, REGION + block * BLOCK, n, NULL);
}

static uint16_t state_of(uint64_t block, uint16_t n)
{
        uint16_t how;

        assert_int_equal(ask_of(VIRTIO_MEM_REQ_STATE, REGION + block * BLOCK, n, &how),
                         VIRTIO_MEM_RESP_ACK);
        return how;
}

static void want(uint64_t bytes)
{
        assert_int_equal(machine_memory_set(&fake.machine, FAKE_MEMORY + bytes, NULL), 0);
}

static uint64_t resident(void)
{
        struct stat st;

        assert_int_equal(fstat(fake.machine.memory.regions[1].fd, &st), 0);
        return (uint64_t)st.st_blocks * 512;
}

static void touch(uint64_t block, uint64_t n)
{
        for (uint64_t at = block * BLOCK; at < (block + n) * BLOCK; at += 4096)
                memset(fake_at(&fake, REGION + at), 1, 1);
}

static void tells_its_region(void **state)
{
        struct virtio_mem_config config;
        uint8_t beyond[16];

        begin();
        want(MIB(10));
        assert_int_equal(fake.n_config_changes, 1);
        fake.v->ops->read_config(fake.v, 0, &config, sizeof(config));
        assert_int_equal(le64toh(config.block_size), BLOCK);
        assert_int_equal(le64toh(config.addr), REGION);
        assert_int_equal(le64toh(config.region_size), MIB(256));
        assert_int_equal(le64toh(config.usable_region_size), MIB(256));
        assert_int_equal(le64toh(config.plugged_size), 0);
        assert_int_equal(le64toh(config.requested_size), MIB(10));
        memset(beyond, 0xff, sizeof(beyond));
        fake.v->ops->read_config(fake.v, sizeof(config), beyond, sizeof(beyond));
        assert_int_equal(beyond[0], 0);
        /* Those who process the guest's queues have it in their table. */
        assert_int_equal(fake.machine.memory.n, 2);
        assert_true(fake.machine.memory.regions[1].shared);
        end();
}

static void plugs_and_unplugs(void **state)
{
        begin();
        want(MIB(20));
        assert_int_equal(ask(VIRTIO_MEM_REQ_PLUG, 3, 4), VIRTIO_MEM_RESP_ACK);
        assert_int_equal(machine_memory_size(&fake.machine), FAKE_MEMORY + 4 * BLOCK);
        assert_int_equal(state_of(3, 4), VIRTIO_MEM_STATE_PLUGGED);
        assert_int_equal(state_of(2, 2), VIRTIO_MEM_STATE_MIXED);
        assert_int_equal(state_of(0, 3), VIRTIO_MEM_STATE_UNPLUGGED);
        assert_int_equal(state_of(7, 1), VIRTIO_MEM_STATE_UNPLUGGED);
        touch(3, 4);
        assert_int_equal(resident(), 4 * BLOCK);
        assert_int_equal(ask(VIRTIO_MEM_REQ_UNPLUG, 4, 2), VIRTIO_MEM_RESP_ACK);
        assert_int_equal(resident(), 2 * BLOCK);
        assert_int_equal(machine_memory_size(&fake.machine), FAKE_MEMORY + 2 * BLOCK);
        assert_int_equal(*(uint8_t *)fake_at(&fake, REGION + 3 * BLOCK), 1);
        assert_int_equal(*(uint8_t *)fake_at(&fake, REGION + 4 * BLOCK), 0);
        assert_int_equal(ask(VIRTIO_MEM_REQ_UNPLUG_ALL, 0, 0), VIRTIO_MEM_RESP_ACK);
        assert_int_equal(resident(), 0);
        assert_int_equal(machine_memory_size(&fake.machine), FAKE_MEMORY);
        end();
}

static void plugs_no_more_than_was_asked_for(void **state)
{
        begin();
        assert_int_equal(ask(VIRTIO_MEM_REQ_PLUG, 0, 1), VIRTIO_MEM_RESP_NACK);
        want(MIB(4));
        assert_int_equal(ask(VIRTIO_MEM_REQ_PLUG, 0, 3), VIRTIO_MEM_RESP_NACK);
        assert_int_equal(ask(VIRTIO_MEM_REQ_PLUG, 0, 2), VIRTIO_MEM_RESP_ACK);
        assert_int_equal(ask(VIRTIO_MEM_REQ_PLUG, 2, 1), VIRTIO_MEM_RESP_NACK);
        end();
}

static void refuses_blocks_that_are_so_already(void **state)
{
        begin();
        want(MIB(100));
        assert_int_equal(ask(VIRTIO_MEM_REQ_PLUG, 5, 2), VIRTIO_MEM_RESP_ACK);
        assert_int_equal(ask(VIRTIO_MEM_REQ_PLUG, 6, 2), VIRTIO_MEM_RESP_ERROR);
        assert_int_equal(ask(VIRTIO_MEM_REQ_UNPLUG, 4, 2), VIRTIO_MEM_RESP_ERROR);
        assert_int_equal(state_of(5, 2), VIRTIO_MEM_STATE_PLUGGED);
        assert_int_equal(machine_memory_size(&fake.machine), FAKE_MEMORY + 2 * BLOCK);
        end();
}

static void refuses_ranges_that_are_not_its_own(void **state)
{
        const uint16_t types[] = {VIRTIO_MEM_REQ_PLUG, VIRTIO_MEM_REQ_UNPLUG, VIRTIO_MEM_REQ_STATE};
        const struct {
                uint64_t addr;
                uint16_t n;
        } wrong[] = {
            {REGION, 0},
            {REGION + 1, 1},
            {REGION + BLOCK / 2, 1},
            {REGION - BLOCK, 1},
            {0, 1},
            {REGION + MIB(256), 1},
            {REGION + MIB(256) - BLOCK, 2},
            {REGION, 129},
            {REGION, UINT16_MAX},
            {UINT64_MAX - BLOCK + 1, 1},
            {UINT64_MAX, UINT16_MAX},
        };

        begin();
        want(ROOM);
        for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
                for (unsigned t = 0; t < 3; t++)
                        assert_int_equal(ask_of(types[t], wrong[i].addr, wrong[i].n, NULL),
                                         VIRTIO_MEM_RESP_ERROR);
        assert_int_equal(ask(4, 0, 1), VIRTIO_MEM_RESP_ERROR);
        assert_int_equal(ask(UINT16_MAX, 0, 1), VIRTIO_MEM_RESP_ERROR);
        assert_int_equal(machine_memory_size(&fake.machine), FAKE_MEMORY);
        end();
}

static void bears_requests_that_are_cut(void **state)
{
        const struct fake_piece no_answer = {REQUEST, sizeof(struct virtio_mem_req), false};
        const struct fake_piece cut[] = {{REQUEST, sizeof(struct virtio_mem_req) - 1, false},
                                         {ANSWER, sizeof(struct virtio_mem_resp), true}};
        const struct fake_piece short_answer[] = {{REQUEST, sizeof(struct virtio_mem_req), false},
                                                  {ANSWER, 3, true}};
        uint32_t written;

        begin();
        fake_give(&fake, 0, &no_answer, 1);
        fake_give(&fake, 0, cut, 2);
        fake_give(&fake, 0, short_answer, 2);
        fake_kick(&fake, 0);
        assert_true(fake_take(&fake, 0, NULL, &written));
        assert_int_equal(written, 0);
        assert_true(fake_take(&fake, 0, NULL, &written));
        assert_int_equal(written, 0);
        assert_true(fake_take(&fake, 0, NULL, &written));
        assert_int_equal(written, 3);
        end();
}

static void keeps_what_is_plugged_over_a_reset(void **state)
{
        begin();
        want(MIB(4));
        assert_int_equal(ask(VIRTIO_MEM_REQ_PLUG, 0, 2), VIRTIO_MEM_RESP_ACK);
        fake_reset(&fake);
        assert_int_equal(machine_memory_size(&fake.machine), FAKE_MEMORY + MIB(4));
        end();
}

static void save(struct state_writer *w)
{
        state_begin(w, "mem", 1);
        fake.v->ops->save(fake.v, w);
        state_end(w);
}

static int restore(const struct state_writer *w)
{
        struct state_reader r;
        int result = state_find(w->data, w->size, "mem", 1, &r, NULL);

        if (result == 0)
                result = fake.v->ops->restore(fake.v, &r, NULL);
        if (result == 0)
                result = state_finish(&r, "mem", NULL);
        return result;
}

static void is_saved_and_restored(void **state)
{
        struct state_writer w = {0};

        begin();
        want(MIB(40));
        assert_int_equal(ask(VIRTIO_MEM_REQ_PLUG, 9, 7), VIRTIO_MEM_RESP_ACK);
        save(&w);
        end();
        begin();
        assert_int_equal(restore(&w), 0);
        assert_int_equal(machine_memory_size(&fake.machine), FAKE_MEMORY + 7 * BLOCK);
        assert_int_equal(state_of(9, 7), VIRTIO_MEM_STATE_PLUGGED);
        assert_int_equal(state_of(8, 2), VIRTIO_MEM_STATE_MIXED);
        assert_int_equal(ask(VIRTIO_MEM_REQ_PLUG, 20, 14), VIRTIO_MEM_RESP_NACK);
        assert_int_equal(ask(VIRTIO_MEM_REQ_PLUG, 20, 13), VIRTIO_MEM_RESP_ACK);
        end();
        state_writer_free(&w);
}

static void refuses_a_state_of_another_machine(void **state)
{
        struct state_writer w = {0};

        begin();
        save(&w);
        end();
        fake_init(&fake, NULL);
        fake.config.memory_max = FAKE_MEMORY + 2 * ROOM;
        assert_int_equal(virtio_mem_create(&fake.machine, NULL), 0);
        assert_int_equal(restore(&w), -EINVAL);
        end();
        state_writer_free(&w);
}

static void refuses_what_cannot_grow(void **state)
{
        struct error err = ERROR_INIT;

        fake_init(&fake, NULL);
        fake.config.memory_max = FAKE_MEMORY + 4096;
        assert_int_equal(virtio_mem_create(&fake.machine, &err), -EINVAL);
        fake.config.memory_max = LAYOUT_RAM_MAX + BLOCK;
        assert_int_equal(virtio_mem_create(&fake.machine, &err), -EINVAL);
        fake.config.memory_max = FAKE_MEMORY + BLOCK;
        fake.config.huge_pages = true;
        assert_int_equal(virtio_mem_create(&fake.machine, &err), -EOPNOTSUPP);
        fake_fini(&fake);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(tells_its_region),
            cmocka_unit_test(plugs_and_unplugs),
            cmocka_unit_test(plugs_no_more_than_was_asked_for),
            cmocka_unit_test(refuses_blocks_that_are_so_already),
            cmocka_unit_test(refuses_ranges_that_are_not_its_own),
            cmocka_unit_test(bears_requests_that_are_cut),
            cmocka_unit_test(keeps_what_is_plugged_over_a_reset),
            cmocka_unit_test(is_saved_and_restored),
            cmocka_unit_test(refuses_a_state_of_another_machine),
            cmocka_unit_test(refuses_what_cannot_grow),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
