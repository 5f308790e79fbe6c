/* A pool that is opened by a server before the other has closed it: it writes nothing, and takes none
 * that was not closed cleanly. */
#include <errno.h>
#include "common/crc32c.h"
#include "common/log.h"
#include "pool/codec.h"
#include "tests/unit/open_try.h"

static int co_open_held(struct sim_pool *s, struct error *err)
{
        struct member *members[SIM_MEMBERS_MAX] = {0};
        struct pool_options options = {.cache_bytes = 2 << 20, .held = true};
        int r = sim_pool_members(s, members);
        if (r == 0)
                r = co_pool_open(s->loop, members, s->n_disks, &options, &s->pool, err);
        for (unsigned i = 0; r < 0 && i < s->n_disks; i++)
                member_close(members[i]);
        return r;
}

/* Of all that is on them. */
static uint64_t hash_of_disks(const struct sim_pool *s)
{
        uint64_t hash = 0;
        for (unsigned i = 0; i < s->n_disks; i++) {
                struct sim_image *image = sim_disk_visible(s->disk[i]);
                hash = 31 * hash + sim_image_hash(image);
                sim_image_free(image);
        }
        return hash;
}

static bool has_orphan(const struct pool *pool)
{
        for (uint32_t i = 0; i < pool->n_slots; i++)
                if (pool->slot[i] && pool->slot[i]->state == ROOT_ORPHAN)
                        return true;
        return false;
}

/* With a deleted volume to be worked off, which an open pool begins at once. */
static void co_hold(void *arg)
{
        struct sim_pool *s = arg;
        struct error err = ERROR_INIT;
        struct volume *v;
        uint64_t before;
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 1 << 20, NULL) == 0);
        expect(s, co_volume_create(s->pool, "gone", 8 << 20, NULL) == 0);
        expect(s, co_sim_pool_write(s, "v", 0, 8) == 0);
        expect(s, co_sim_pool_write(s, "gone", 0, 1024) == 0);
        expect(s, co_volume_delete(s->pool, "gone", true, NULL) == 0);
        expect(s, co_sim_pool_close(s) == 0);
        before = hash_of_disks(s);
        for (unsigned i = 0; i < 2; i++) {
                expect(s, co_open_held(s, &err) == 0);
                expect(s, has_orphan(s->pool));
                expect(s, co_volume_open(s->pool, "v", &v, NULL) == 0);
                co_sleep_ns(UINT64_C(60000000000));
                co_volume_close(v);
                expect(s, has_orphan(s->pool));
                expect(s, co_sim_pool_close(s) == 0);
                expect(s, hash_of_disks(s) == before);
        }
        expect(s, co_open_held(s, &err) == 0);
        co_pool_go(s->pool);
        expect(s, co_sim_pool_write(s, "v", 8, 8) == 0);
        expect(s, co_pool_settle(s->pool, &err) == 0);
        expect(s, !has_orphan(s->pool));
        expect(s, co_sim_pool_close(s) == 0);
        expect(s, hash_of_disks(s) != before);
        expect(s, co_sim_pool_open(s, false) == 0);
        expect(s, co_sim_pool_close(s) == 0);
}

static void a_held_pool_writes_nothing_before_it_may(void **state)
{
        sim_pool_run(1, 1, co_hold);
        sim_pool_run(3, 2, co_hold);
}

static void co_hold_unclean(void *arg)
{
        struct sim_pool *s = arg;
        struct error err = ERROR_INIT;
        struct volume *v;
        char *data = calloc(1, POOL_BLOCK);
        uint64_t before;
        co_new(s);
        expect(s, co_sim_pool_open(s, false) == 0);
        expect(s, co_volume_open(s->pool, "v", &v, NULL) == 0);
        expect(s, data && co_volume_write(v, data, POOL_BLOCK, 0, VOLUME_FUA) == 0);
        co_volume_close(v);
        free(data);
        co_pool_abandon(s->pool);
        before = hash_of_disks(s);
        expect(s, co_open_held(s, &err) == -EUCLEAN);
        expect(s, strstr(err.message, "was not closed cleanly"));
        expect(s, hash_of_disks(s) == before);
        expect(s, co_sim_pool_open(s, false) == 0);
        expect(s, co_sim_pool_close(s) == 0);
}

/* The newest superblock is at one end of a member, as when a process was killed while it closed. */
static void co_hold_half_closed(void *arg)
{
        struct sim_pool *s = arg;
        struct error err = ERROR_INIT;
        uint64_t before;
        co_new(s);
        sim_disk_corrupt(s->disk[0], SUPER_RING_OFFSET, SUPER_SLOTS * SUPER_SLOT_BYTES, 0x42);
        before = hash_of_disks(s);
        expect(s, co_open_held(s, &err) == -EUCLEAN);
        expect(s, strstr(err.message, "'disk0' was not closed cleanly"));
        expect(s, hash_of_disks(s) == before);
        expect(s, co_sim_pool_open(s, false) == 0);
        expect(s, co_sim_pool_close(s) == 0);
        expect(s, co_open_held(s, &err) == 0);
        expect(s, co_sim_pool_close(s) == 0);
}

static void a_pool_that_was_not_closed_cannot_be_held(void **state)
{
        sim_pool_run(1, 1, co_hold_unclean);
        sim_pool_run(3, 1, co_hold_unclean);
        sim_pool_run(1, 1, co_hold_half_closed);
        sim_pool_run(3, 1, co_hold_half_closed);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(a_held_pool_writes_nothing_before_it_may),
            cmocka_unit_test(a_pool_that_was_not_closed_cannot_be_held),
        };
        log_set_sink(NULL);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
