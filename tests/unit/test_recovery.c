/* What a recovery makes of members that cannot be read everywhere. What a flush was answered for is
 * there again, or an error: never gone without a word. */
#include <errno.h>
#include "common/log.h"
#include "pool/engine.h"
#include "tests/unit/sim_pool.h"

static char data[8 * POOL_BLOCK] __attribute__((aligned(POOL_BLOCK)));

static int co_fill(struct sim_pool *s, char content, unsigned flags)
{
        struct volume *v;
        int r = co_volume_open(s->pool, "v", &v, NULL);
        if (r < 0)
                return r;
        memset(data, content, sizeof(data));
        r = co_volume_write(v, data, sizeof(data), 0, flags);
        co_volume_close(v);
        return r;
}

/* A volume of 'a' in a checkpoint, and of 'b' in the log: flushed, and the process is killed. Where
 * the log's open page lies is returned by leg. */
static void co_killed(struct sim_pool *s, struct leg legs[SLAB_LEGS_MAX])
{
        uint64_t shift;
        unsigned n_legs;
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 1 << 20, NULL) == 0);
        expect(s, co_fill(s, 'a', 0) == 0);
        expect(s, co_pool_checkpoint(s->pool, NULL) == 0);
        struct leg *from = log_page_legs(s->pool, s->pool->log.next, &n_legs, &shift);
        expect(s, n_legs == (s->n_disks > 1 ? 2 : 1));
        for (unsigned i = 0; i < n_legs; i++)
                legs[i] = (struct leg){from[i].member, from[i].offset + shift};
        expect(s, co_fill(s, 'b', VOLUME_FUA) == 0);
        co_pool_abandon(s->pool);
}

static void unreadable(struct sim_pool *s, const struct leg *leg, uint64_t blocks)
{
        struct sim_fault fault = {.kind = SIM_FAULT_ERROR,
                                  .ops = SIM_OP(MEMBER_READ),
                                  .offset = leg->offset,
                                  .length = blocks * POOL_BLOCK,
                                  .error = -EIO};
        sim_disk_add_fault(s->disk[leg->member], &fault);
}

/* How many of the volume's blocks hold @content; -1 where something else was read. */
static int co_blocks_with(struct sim_pool *s, char content)
{
        struct volume *v;
        int n = 0;
        if (co_volume_open(s->pool, "v", &v, NULL) < 0)
                return -1;
        for (unsigned i = 0; i < 8 && n >= 0; i++) {
                int r = co_volume_read(v, data, POOL_BLOCK, (uint64_t)i * POOL_BLOCK);
                if (r < 0 && r != -EIO)
                        n = -1;
                for (unsigned k = 0; r == 0 && n >= 0 && k < POOL_BLOCK; k++)
                        n = data[k] == content ? n : -1;
                n += n >= 0 && r == 0;
        }
        co_volume_close(v);
        return n;
}

/* ---- the log ---- */

/* A bad sector behind the end of the log, read together with what is in use. */
static void co_bad_neighbour(void *arg)
{
        struct sim_pool *s = arg;
        struct leg legs[SLAB_LEGS_MAX] = {0};
        co_killed(s, legs);
        legs[0].offset += 5 * POOL_BLOCK;
        unreadable(s, &legs[0], 1);
        expect(s, co_sim_pool_open(s, false) == 0);
        expect(s, !s->pool->readonly);
        expect(s, co_blocks_with(s, 'b') == 8);
        expect(s, co_sim_pool_close(s) == 0);
}

static void an_unreadable_page_of_the_log_hides_no_other(void **state)
{
        sim_pool_run(1, 1, co_bad_neighbour);
        sim_pool_run(2, 1, co_bad_neighbour);
}

static void co_bad_leg(void *arg)
{
        struct sim_pool *s = arg;
        struct leg legs[SLAB_LEGS_MAX] = {0};
        co_killed(s, legs);
        unreadable(s, &legs[0], 1);
        expect(s, co_sim_pool_open(s, false) == 0);
        expect(s, !s->pool->readonly);
        expect(s, co_blocks_with(s, 'b') == 8);
        expect(s, co_sim_pool_close(s) == 0);
}

static void a_page_of_the_log_is_read_from_the_other_leg(void **state)
{
        sim_pool_run(2, 1, co_bad_leg);
}

static void co_bad_page(void *arg)
{
        struct sim_pool *s = arg;
        struct leg legs[SLAB_LEGS_MAX] = {0};
        co_killed(s, legs);
        for (unsigned i = 0; i < s->n_disks; i++)
                unreadable(s, &legs[i], 1);
        expect(s, co_sim_pool_open(s, false) == 0);
        struct pool_info info;
        pool_get_info(s->pool, &info);
        expect(s, info.readonly && info.failed && strstr(info.failed, "log is damaged"));
        expect(s, co_sim_pool_close(s) == 0);
        /* Nothing was given up: it may have been a loose cable. */
        for (unsigned i = 0; i < s->n_disks; i++)
                sim_disk_clear_faults(s->disk[i]);
        expect(s, co_sim_pool_open(s, false) == 0);
        expect(s, !s->pool->readonly);
        expect(s, co_blocks_with(s, 'b') == 8);
        expect(s, co_sim_pool_close(s) == 0);
}

static void a_log_whose_end_cannot_be_read_is_not_given_up(void **state)
{
        sim_pool_run(1, 1, co_bad_page);
        sim_pool_run(2, 1, co_bad_page);
}

/* ---- data above the mark ---- */

static void co_bad_block(void *arg)
{
        struct sim_pool *s = arg;
        struct leg legs[SLAB_LEGS_MAX] = {0}, block = {0};
        char page[POOL_BLOCK];
        co_killed(s, legs);
        struct sim_image *image = sim_disk_visible(s->disk[0]);
        for (uint64_t at = 0; at < SIM_MEMBER_SIZE && !block.offset; at += POOL_BLOCK) {
                sim_image_read(image, at, page, POOL_BLOCK);
                if (page[0] == 'b' && page[POOL_BLOCK - 1] == 'b')
                        block.offset = at;
        }
        sim_image_free(image);
        expect(s, block.offset);
        block.offset += 2 * POOL_BLOCK;
        unreadable(s, &block, 1);
        expect(s, co_sim_pool_open(s, false) == 0);
        expect(s, co_blocks_with(s, 'b') == 7);
        sim_disk_clear_faults(s->disk[0]);
        expect(s, co_blocks_with(s, 'b') == 8);
        expect(s, co_sim_pool_close(s) == 0);
}

static void a_flushed_block_that_cannot_be_read_is_an_error_and_not_its_old_content(void **state)
{
        sim_pool_run(1, 1, co_bad_block);
}

/* ---- the end of the process alone ---- */

static uint64_t flushes_of_all(struct sim_pool *s)
{
        uint64_t sum = 0;
        for (unsigned i = 0; i < s->n_disks; i++) {
                struct pool_member_info info;
                pool_get_member_info(s->pool, i, &info);
                sum += info.counters->flushes;
        }
        return sum;
}

/* One kind of change in a life, as the page of one would take another's record along. */
static enum { LOGGED_WHOLE, LOGGED_PART, LOGGED_DISCARD, LOGGED_KINDS } logged_kind;

static int co_logged_change(struct sim_pool *s)
{
        struct volume *v;
        int r = co_volume_open(s->pool, "v", &v, NULL);
        if (r < 0)
                return r;
        if (logged_kind == LOGGED_WHOLE) {
                memset(data, 'b', sizeof(data));
                r = co_volume_write(v, data, sizeof(data), 0, VOLUME_LOGGED);
        } else if (logged_kind == LOGGED_PART) {
                r = co_volume_write(v, "b", 1, 100, VOLUME_LOGGED);
        } else {
                r = co_volume_discard(v, POOL_BLOCK, 7 * POOL_BLOCK, VOLUME_LOGGED);
        }
        co_volume_close(v);
        return r;
}

static char logged_content(size_t i)
{
        if (logged_kind == LOGGED_WHOLE)
                return 'b';
        if (logged_kind == LOGGED_PART)
                return i == 100 ? 'b' : 'a';
        return i < POOL_BLOCK ? 'a' : 0;
}

static void co_logged_only(void *arg)
{
        struct sim_pool *s = arg;
        struct volume *v;
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 1 << 20, NULL) == 0);
        expect(s, co_fill(s, 'a', 0) == 0);
        expect(s, co_pool_checkpoint(s->pool, NULL) == 0);
        uint64_t before = flushes_of_all(s);
        expect(s, co_logged_change(s) == 0);
        expect(s, flushes_of_all(s) == before);
        co_pool_abandon(s->pool);

        expect(s, co_sim_pool_open(s, false) == 0);
        expect(s, co_volume_open(s->pool, "v", &v, NULL) == 0);
        expect(s, co_volume_read(v, data, sizeof(data), 0) == 0);
        co_volume_close(v);
        for (size_t i = 0; i < sizeof(data); i++)
                expect(s, data[i] == logged_content(i));
        expect(s, co_sim_pool_close(s) == 0);
}

static void what_was_answered_as_logged_outlives_the_process(void **state)
{
        for (logged_kind = 0; logged_kind < LOGGED_KINDS; logged_kind++) {
                sim_pool_run(1, 1, co_logged_only);
                sim_pool_run(2, 1, co_logged_only);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(an_unreadable_page_of_the_log_hides_no_other),
            cmocka_unit_test(a_page_of_the_log_is_read_from_the_other_leg),
            cmocka_unit_test(a_log_whose_end_cannot_be_read_is_not_given_up),
            cmocka_unit_test(
                a_flushed_block_that_cannot_be_read_is_an_error_and_not_its_old_content),
            cmocka_unit_test(what_was_answered_as_logged_outlives_the_process),
        };
        log_set_sink(NULL);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
