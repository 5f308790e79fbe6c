/* What a recovery makes of members that cannot be read everywhere. What a flush was answered for is
 * there again, or an error: never gone without a word. */
#include <errno.h>
#include "common/log.h"
#include "tests/unit/log_fixture.h"

static void unreadable(struct sim_pool *s, const struct leg *leg, uint64_t blocks)
{
        struct sim_fault fault = {.kind = SIM_FAULT_ERROR,
                                  .ops = SIM_OP(MEMBER_READ),
                                  .offset = leg->offset,
                                  .length = blocks * POOL_BLOCK,
                                  .error = -EIO};
        sim_disk_add_fault(s->disk[leg->member], &fault);
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
        expect(s, co_create_filled(s, 0) == 0);
        expect(s, co_pool_checkpoint(s->pool, NULL) == 0);
        uint64_t before = sim_pool_done(s, METER_FLUSH).requests;
        expect(s, co_logged_change(s) == 0);
        expect(s, sim_pool_done(s, METER_FLUSH).requests == before);
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

/* ---- metadata that rots ---- */

/* All that is metadata of the pool, on one leg. */
static void co_rot(struct sim_pool *s, unsigned leg, unsigned *ret_n)
{
        *ret_n = 0;
        for (uint32_t i = 0; i < s->pool->n_slabs; i++) {
                const struct slab *slab = s->pool->slab[i];
                if (slab->kind != SLAB_METADATA)
                        continue;
                expect(s, slab->n_legs == 2);
                sim_disk_corrupt(s->disk[slab->leg[leg].member], slab->leg[leg].offset,
                                 SIM_SLAB_BYTES, 0x55);
                ++*ret_n;
        }
}

/* One leg rots while nobody looks, then the other: what was read in between was mended. */
static void co_rotten_legs(void *arg)
{
        struct sim_pool *s = arg;
        unsigned n = 0;
        expect(s, co_create_filled(s, 0) == 0);
        expect(s, co_pool_checkpoint(s->pool, NULL) == 0);
        for (unsigned leg = 0; leg < 2; leg++) {
                co_rot(s, leg, &n);
                expect(s, n > 0);
                co_pool_abandon(s->pool);
                expect(s, co_sim_pool_open(s, false) == 0);
                expect(s, co_blocks_with(s, 'a') == 8);
        }
        expect(s, co_sim_pool_close(s) == 0);
}

static void metadata_that_is_rotten_on_a_leg_is_read_from_the_other_and_mended(void **state)
{
        sim_pool_run(2, 1, co_rotten_legs);
}

/* ---- metadata that cannot be ---- */

static void co_no_metadata(void *arg)
{
        struct sim_pool *s = arg;
        void *page = page_alloc();
        expect(s, page && co_create_filled(s, VOLUME_FUA) == 0);
        memset(page, 'a', BLOCK);
        uint32_t crc = crc32c(0, page, BLOCK);
        for (uint32_t i = 0; i < s->pool->n_slabs; i++)
                if (s->pool->slab[i]->kind == SLAB_DATA)
                        for (uint64_t k = 0; k < s->pool->slab_blocks; k++)
                                expect(s, co_metadata_read(s->pool,
                                                           i * (uint64_t)s->pool->slab_blocks + k,
                                                           crc, page) == -EUCLEAN);
        expect(s, co_metadata_read(s->pool, ADDRESS_MAX, crc, page) == -EUCLEAN);
        free(page);
        expect(s, co_sim_pool_close(s) == 0);
}

static void data_are_never_read_as_metadata(void **state)
{
        sim_pool_run(1, 1, co_no_metadata);
}

static void co_free_twice(void *arg)
{
        struct sim_pool *s = arg;
        expect(s, co_create_filled(s, VOLUME_FUA) == 0);
        uint64_t address = 0;
        for (uint32_t i = 0; i < s->pool->n_slabs; i++)
                if (s->pool->slab[i]->kind == SLAB_DATA)
                        address = (i + 1) * (uint64_t)s->pool->slab_blocks - 1;
        expect(s, address > 0 && !space_is_live(s->pool, address));
        space_free(s->pool, address);
        expect(s, pool_failed(s->pool));
        co_pool_abandon(s->pool);
}

/* Whose the block is by then nobody knows: what is damaged is not written on. */
static void a_block_that_is_free_is_not_freed_again(void **state)
{
        sim_pool_run(1, 1, co_free_twice);
}

/* The page behind says that what was in this one had been flushed. */
static void co_page_rotten(void *arg)
{
        struct sim_pool *s = arg;
        uint64_t shift;
        unsigned n;
        expect(s, co_create_filled(s, 0) == 0);
        expect(s, co_pool_checkpoint(s->pool, NULL) == 0);
        struct leg *leg = log_page_legs(s->pool, s->pool->log.next, &n, &shift);
        uint64_t offset = leg->offset + shift;
        expect(s, co_fill(s, 'b', VOLUME_FUA) == 0);
        expect(s, co_fill(s, 'c', VOLUME_FUA) == 0);
        co_pool_abandon(s->pool);
        page_change = page_missing;
        page_patch(s, offset);
        expect(s, co_sim_pool_open(s, false) == 0);
        expect(s, s->pool->readonly);
        expect(s, co_sim_pool_close(s) == 0);
}

static void a_page_that_is_gone_from_what_was_flushed_is_damage(void **state)
{
        sim_pool_run(1, 1, co_page_rotten);
}

/* FORMAT.md: pages that a crash has left behind the end are of a log that is no more. */
static void co_new_log(void *arg)
{
        struct sim_pool *s = arg;
        expect(s, co_create_filled(s, VOLUME_FUA) == 0);
        uint64_t incarnation = s->pool->log.incarnation;
        co_pool_abandon(s->pool);
        expect(s, co_sim_pool_open(s, false) == 0);
        expect(s, s->pool->log.incarnation > incarnation);
        expect(s, co_sim_pool_close(s) == 0);
}

static void a_recovery_begins_a_new_log(void **state)
{
        sim_pool_run(1, 1, co_new_log);
        sim_pool_run(2, 1, co_new_log);
}

/* The power fails: of what was not flushed the log's page at @offset is there, and nothing else. */
static void log_without_data(struct sim_pool *s, uint64_t offset)
{
        uint8_t choice[256] = {SIM_LOST};
        size_t n = sim_disk_n_pending(s->disk[0]);
        for (size_t i = 0; i < n && i < sizeof(choice); i++)
                if (sim_disk_pending(s->disk[0], i)->offset == offset)
                        choice[i] = SIM_WHOLE;
        struct sim_image *image = sim_disk_crash(s->disk[0], choice);
        co_pool_abandon(s->pool);
        sim_disk_free(s->disk[0]);
        s->disk[0] = sim_pool_disk(image, 0);
        sim_image_free(image);
}

/* A record whose data are not there was dropped. A flush after that says that all before it is
 * there. */
static void co_dropped(void *arg)
{
        struct sim_pool *s = arg;
        struct volume *v;
        uint64_t shift;
        unsigned n;
        expect(s, co_create_filled(s, 0) == 0);
        expect(s, co_pool_checkpoint(s->pool, NULL) == 0);
        struct leg *leg = log_page_legs(s->pool, s->pool->log.next, &n, &shift);
        uint64_t offset = leg->offset + shift;
        expect(s, co_fill(s, 'b', VOLUME_LOGGED) == 0);
        log_without_data(s, offset);

        expect(s, co_sim_pool_open(s, false) == 0);
        expect(s, co_blocks_with(s, 'a') == 8);
        expect(s, co_volume_open(s->pool, "v", &v, NULL) == 0);
        memset(data, 'c', sizeof(data));
        expect(s, co_volume_write(v, data, sizeof(data), sizeof(data), VOLUME_FUA) == 0);
        co_volume_close(v);
        co_pool_abandon(s->pool);

        expect(s, co_sim_pool_open(s, false) == 0);
        expect(s, co_blocks_with(s, 'a') == 8);
        expect(s, co_sim_pool_close(s) == 0);
}

static void what_one_recovery_has_dropped_the_next_one_drops_too(void **state)
{
        sim_pool_run(1, 1, co_dropped);
}

/* ---- a process that was killed, and then the power ---- */

#define EVENTS_MAX 400u

struct moment {
        struct sim_snapshot *at[SIM_MEMBERS_MAX];
};

struct moments {
        struct sim_pool *s;
        struct moment moment[EVENTS_MAX];
        unsigned n;
};

static void keep_moment(void *arg, struct sim_disk *disk, const struct sim_event *event)
{
        struct moments *m = arg;
        for (unsigned i = 0; i < m->s->n_disks && m->n < EVENTS_MAX; i++)
                m->moment[m->n].at[i] = sim_disk_snapshot(m->s->disk[i]);
        m->n += m->n < EVENTS_MAX;
}

/* What was not flushed is lost on @loses, and there on all others: every block has its old content
 * or its new one. */
static void co_expect_all(struct sim_pool *s, const struct moment *moment, unsigned loses)
{
        static uint8_t whole[1024];
        struct sim_pool after = {.loop = s->loop, .n_disks = s->n_disks};
        memset(whole, SIM_WHOLE, sizeof(whole));
        for (unsigned i = 0; i < s->n_disks; i++) {
                expect(s, moment->at[i]->n_pending <= sizeof(whole));
                struct sim_image *image =
                    sim_snapshot_crash(moment->at[i], i == loses ? NULL : whole);
                after.disk[i] = sim_pool_disk(image, i);
                sim_image_free(image);
        }
        struct volume *v;
        bool good =
            co_sim_pool_open(&after, false) == 0 && co_volume_open(after.pool, "v", &v, NULL) == 0;
        for (unsigned i = 0; good && i < 8; i++) {
                good = co_volume_read(v, data, POOL_BLOCK, (uint64_t)i * POOL_BLOCK) == 0 &&
                       (data[0] == 'a' || data[0] == 'b') &&
                       memcmp(data, data + 1, POOL_BLOCK - 1) == 0;
        }
        expect(s, good);
        co_volume_close(v);
        expect(s, co_sim_pool_close(&after) == 0);
        for (unsigned i = 0; i < s->n_disks; i++)
                sim_disk_free(after.disk[i]);
}

/* On the third disk lie data and nothing else. */
static void co_killed_then_dark(void *arg)
{
        struct sim_pool *s = arg;
        struct moments *m = calloc(1, sizeof(*m));
        expect(s, m && co_create_filled(s, 0) == 0);
        expect(s, co_pool_checkpoint(s->pool, NULL) == 0);
        for (unsigned i = 0; i < 6; i++)
                expect(s, co_fill(s, 'b', VOLUME_LOGGED) == 0);
        co_pool_abandon(s->pool);

        m->s = s;
        for (unsigned i = 0; i < s->n_disks; i++)
                sim_disk_set_hook(s->disk[i], keep_moment, m);
        expect(s, co_sim_pool_open(s, false) == 0);
        for (unsigned i = 0; i < s->n_disks; i++)
                sim_disk_set_hook(s->disk[i], NULL, NULL);
        expect(s, co_blocks_with(s, 'b') == 8);
        expect(s, co_sim_pool_close(s) == 0);
        expect(s, m->n > 0 && m->n < EVENTS_MAX);
        for (unsigned k = 0; k < m->n; k++) {
                for (unsigned loses = 0; loses < s->n_disks; loses++)
                        co_expect_all(s, &m->moment[k], loses);
                for (unsigned i = 0; i < s->n_disks; i++)
                        sim_snapshot_free(m->moment[k].at[i]);
        }
        free(m);
}

static void what_a_killed_process_left_in_a_disks_cache_is_flushed_before_it_counts(void **state)
{
        sim_pool_run(3, 1, co_killed_then_dark);
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
            cmocka_unit_test(metadata_that_is_rotten_on_a_leg_is_read_from_the_other_and_mended),
            cmocka_unit_test(data_are_never_read_as_metadata),
            cmocka_unit_test(a_block_that_is_free_is_not_freed_again),
            cmocka_unit_test(a_page_that_is_gone_from_what_was_flushed_is_damage),
            cmocka_unit_test(a_recovery_begins_a_new_log),
            cmocka_unit_test(what_one_recovery_has_dropped_the_next_one_drops_too),
            cmocka_unit_test(
                what_a_killed_process_left_in_a_disks_cache_is_flushed_before_it_counts),
        };
        log_set_sink(NULL);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
