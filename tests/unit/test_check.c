/* test_check.c - a check of a sound pool finds nothing, whatever became of it; and it finds each
 * bit that is flipped, in each copy of each structure. */
#include "tests/unit/check_fixture.h"

/* ---- sound pools ---- */

static void co_sound_shapes(void *arg)
{
        struct sim_pool *s = arg;
        expect(s, co_sim_pool_create(s) == 0);
        co_expect_sound_here(s); /* an empty pool */
        expect(s, co_snapshots_in_a_row(s) == 0);
        co_expect_sound_here(s);
        expect(s, co_family(s) == 0);
        co_expect_sound_here(s);
        expect(s, co_pool_settle(s->pool, NULL) == 0);
        co_expect_sound_here(s);
        expect(s, co_sim_pool_close(s) == 0);
        expect(s, co_sim_pool_open(s, true) == 0);
        co_expect_sound_here(s); /* from disk, writing nothing */
        expect(s, co_sim_pool_close(s) == 0);
}

static void finds_nothing_in_sound_pools(void **state)
{
        for (unsigned n = 1; n <= 3; n++)
                sim_pool_run(n, n, co_sound_shapes);
}

/* Deleted in an order by lot, checked after each step, so that orphans are met half worked off. */
static void co_deletes(void *arg)
{
        struct sim_pool *s = arg;
        static const char *const names[] = {"web@one", "web@two", "copy@three", "web@before",
                                            "row@s7",  "row@s8",  "row@s0",     "copy2",
                                            "copy",    "row@s39", "row@s20"};
        bool gone[11] = {0};
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_snapshots_in_a_row(s) == 0);
        expect(s, co_family(s) == 0);
        for (unsigned i = 0; i < 11; i++) {
                unsigned k = (unsigned)sim_random_below(&s->random, 11);
                while (gone[k])
                        k = (k + 1) % 11;
                gone[k] = true;
                int r = strchr(names[k], '@') ? co_snapshot_delete(s->pool, names[k], NULL)
                                              : co_volume_delete(s->pool, names[k], true, NULL);
                expect(s, r == 0 || r == -ENOENT);
                co_expect_sound_here(s);
                expect(s, co_sim_pool_write(s, "row", sim_random_below(&s->random, 100), 9) == 0);
                if (i == 5)
                        expect(s, co_pool_settle(s->pool, NULL) == 0);
        }
        expect(s, co_volume_delete(s->pool, "row", true, NULL) == 0);
        expect(s, co_volume_delete(s->pool, "web", true, NULL) == 0);
        co_expect_sound_here(s);
        expect(s, co_pool_settle(s->pool, NULL) == 0);
        co_expect_sound_here(s);
        struct pool_info info;
        pool_get_info(s->pool, &info);
        expect(s, info.used_bytes == 0 && info.n_volumes == 0);
        expect(s, co_sim_pool_close(s) == 0);
}

static void finds_nothing_while_roots_go(void **state)
{
        for (uint64_t seed = 1; seed <= 6; seed++)
                sim_pool_run(2, seed, co_deletes);
}

static int co_random_step(struct sim_pool *s)
{
        struct sim_random *rnd = &s->random;
        switch (sim_random_below(rnd, 6)) {
        case 0:
                return co_sim_pool_discard(s, "web", sim_random_below(rnd, 500), 40);
        case 1:
                return co_sim_pool_snapshot(s, "copy@more");
        case 2:
                return co_snapshot_delete(s->pool, "web@two", NULL);
        case 3:
                return co_pool_checkpoint(s->pool, NULL);
        default:
                return co_sim_pool_write(s, "web", sim_random_below(rnd, 500), 30);
        }
}

/* What a crash leaves is no damage: neither with the log replayed in memory, nor for good. */
static void co_crashes(void *arg)
{
        struct sim_pool *s = arg;
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_family(s) == 0);
        for (unsigned round = 0; round < 6; round++) {
                for (unsigned i = 0; i < 5; i++) {
                        int r = co_random_step(s);
                        expect(s, r == 0 || r == -ENOENT || r == -EEXIST);
                }
                co_sim_pool_crash(s);
                expect(s, co_sim_pool_open(s, true) == 0);
                co_expect_sound_here(s);
                expect(s, co_sim_pool_close(s) == 0);
                expect(s, co_sim_pool_open(s, false) == 0);
                co_expect_sound_here(s);
        }
        expect(s, co_sim_pool_close(s) == 0);
}

static void finds_nothing_after_a_crash(void **state)
{
        for (uint64_t seed = 1; seed <= 8; seed++)
                sim_pool_run(1 + seed % 3, seed, co_crashes);
}

/* ---- while it is used ---- */

struct writer {
        struct sim_pool *s;
        bool stop, ended;
        uint64_t n_steps;
};

static void writer_main(void *arg)
{
        struct writer *w = arg;
        while (!w->stop) {
                int r = co_random_step(w->s);
                if (r < 0 && r != -ENOENT && r != -EEXIST)
                        sim_pool_fails(w->s, __FILE__, __LINE__, strerror(-r));
                w->n_steps++;
        }
        w->ended = true;
}

static void co_used_meanwhile(void *arg)
{
        struct sim_pool *s = arg;
        struct writer w = {.s = s};
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_family(s) == 0);
        expect(s, co_spawn(s->loop, writer_main, &w) == 0);
        for (unsigned i = 0; i < 20 && !s->failure[0]; i++) {
                struct findings f;
                uint64_t before = w.n_steps;
                int r = co_check(s, true, &f);
                if (r < 0 && r != -EAGAIN)
                        sim_pool_fails(s, __FILE__, __LINE__, strerror(-r));
                if (f.n)
                        sim_pool_fails(s, __FILE__, __LINE__, f.text);
                if (w.n_steps == before)
                        sim_pool_fails(s, __FILE__, __LINE__, "writers had to wait for the check");
        }
        w.stop = true;
        while (!w.ended)
                co_sleep_ns(1000000);
        expect(s, s->pool->hold_frees == 0);
        expect(s, co_pool_settle(s->pool, NULL) == 0);
        expect(s, s->pool->waiting_frees == 0);
        expect(s, co_sim_pool_close(s) == 0);
}

static void finds_nothing_while_it_is_written_to(void **state)
{
        for (uint64_t seed = 1; seed <= 4; seed++)
                sim_pool_run(2, seed, co_used_meanwhile);
}

/* More checkpoints than there are intervals, while one is held: nobody waits for anybody. */
static int nothing(void *arg)
{
        return 0;
}

static void co_held_long(void *arg)
{
        struct sim_pool *s = arg;
        struct checkpoint_hold hold = {.at_cut = nothing};
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 1 << 20, NULL) == 0);
        expect(s, co_sim_pool_write(s, "v", 0, 256) == 0);
        expect(s, co_checkpoint_hold(s->pool, &hold, NULL) == 0);
        for (unsigned i = 0; i < INTERVALS + 20; i++) {
                expect(s, co_sim_pool_write(s, "v", i % 200, 4) == 0);
                expect(s, co_pool_checkpoint(s->pool, NULL) == 0);
                expect(s, s->pool->interval - s->pool->released_interval <= INTERVALS);
        }
        expect(s, s->pool->waiting_frees >= (INTERVALS + 20) * 4);
        checkpoint_unhold(s->pool);
        expect(s, co_pool_settle(s->pool, NULL) == 0);
        expect(s, s->pool->waiting_frees == 0);
        co_expect_sound_here(s);
        expect(s, co_sim_pool_close(s) == 0);
}

static void a_checkpoint_is_held_for_long(void **state)
{
        sim_pool_run(2, 1, co_held_long);
}

/* A writer that finds no space because the check holds it: the check gives up,
 * the writer goes on. */
static void finding_drop(void *arg, const char *sentence)
{
}

struct slow_check {
        struct sim_pool *s;
        int result;
        bool begun, ended;
};

static void slow_check_main(void *arg)
{
        struct slow_check *k = arg;
        struct checkpoint_hold hold = {.at_cut = nothing};
        struct pool *pool = k->s->pool;
        k->result = co_checkpoint_hold(pool, &hold, NULL);
        k->begun = true;
        while (!pool->check_disturbed)
                co_sleep_ns(1000000);
        struct pool_check_callbacks callbacks = {.finding = finding_drop};
        uint64_t n;
        if (k->result == 0)
                k->result = co_pool_check(pool, false, &callbacks, &n, NULL);
        checkpoint_unhold(pool);
        k->ended = true;
}

static void co_full(void *arg)
{
        struct sim_pool *s = arg;
        struct slow_check k = {.s = s};
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 64 << 20, NULL) == 0);
        uint64_t block = 0;
        while (co_sim_pool_write(s, "v", block, 64) == 0)
                block += 64;
        expect(s, block >= 1024);
        expect(s, co_spawn(s->loop, slow_check_main, &k) == 0);
        while (!k.begun)
                co_sleep_ns(1000000);
        for (uint64_t at = 0; at < block; at += 64)
                expect(s, co_sim_pool_discard(s, "v", at, 64) == 0);
        expect(s, co_sim_pool_write(s, "v", 0, 64) == 0);
        while (!k.ended)
                co_sleep_ns(1000000);
        expect(s, k.result == -EAGAIN);
        co_expect_sound_here(s);
        expect(s, co_sim_pool_close(s) == 0);
}

static void gives_up_where_a_writer_needs_the_space(void **state)
{
        sim_pool_run(1, 1, co_full);
}

/* As when slabs are made: what the pool knows of the table's pages lies elsewhere in memory, and where it
 * lay is other things. */
struct mover {
        struct sim_pool *s;
        struct slab_extent *left[512];
        unsigned n;
        bool stop, ended;
};

static void mover_main(void *arg)
{
        struct mover *m = arg;
        struct pool *pool = m->s->pool;
        size_t size = pool->n_table * sizeof(*pool->table);
        while (!m->stop && m->n < 512) {
                m->left[m->n++] = pool->table;
                pool->table = malloc(size);
                memcpy(pool->table, m->left[m->n - 1], size);
                memset(m->left[m->n - 1], 0, size);
                co_sleep_ns(200000);
        }
        m->ended = true;
}

static void co_table_moves(void *arg)
{
        struct sim_pool *s = arg;
        struct mover m = {.s = s};
        struct findings f;
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_pool_checkpoint(s->pool, NULL) == 0);
        for (unsigned i = 0; i < s->n_disks; i++)
                sim_disk_set_latency(s->disk[i], 1000000, 1000000);
        expect(s, co_spawn(s->loop, mover_main, &m) == 0);
        int r = co_check(s, false, &f);
        m.stop = true;
        while (!m.ended)
                co_sleep_ns(100000);
        while (m.n > 0)
                free(m.left[--m.n]);
        expect(s, r == 0);
        expect(s, f.n == 0);
        expect(s, co_sim_pool_close(s) == 0);
}

static void finds_nothing_while_the_table_grows(void **state)
{
        sim_pool_run(2, 1, co_table_moves);
}

/* ---- a byte is wrong ---- */

struct rot {
        struct sim_pool *s;
        uint64_t n_tried;
};

/* One byte of [offset, offset + length) on the member is flipped: the check names the place. */
static void co_rot_at(struct rot *rot, unsigned member, uint64_t offset, uint64_t length, bool data)
{
        struct sim_pool *s = rot->s;
        struct findings f;
        char place[80];
        uint64_t at = offset + sim_random_below(&s->random, length);
        uint8_t bits = (uint8_t)(1u << sim_random_below(&s->random, 8));
        snprintf(place, sizeof(place), "member 'disk%u' at byte %llu", member,
                 (unsigned long long)offset);
        sim_disk_corrupt(s->disk[member], at, 1, bits);
        expect(s, co_check(s, data, &f) == 0);
        if (!strstr(f.text, place)) {
                sim_pool_fails(s, __FILE__, __LINE__, place);
                sim_pool_fails(s, __FILE__, __LINE__, f.text);
        }
        if (data) { /* and not where data is not asked for */
                expect(s, co_check(s, false, &f) == 0);
                expect(s, f.n == 0);
        }
        sim_disk_corrupt(s->disk[member], at, 1, bits);
        rot->n_tried++;
}

static void co_rot_legs(struct rot *rot, const struct leg *leg, unsigned n_legs, uint64_t shift,
                        bool data)
{
        for (unsigned i = 0; i < n_legs && !rot->s->failure[0]; i++)
                co_rot_at(rot, leg[i].member, leg[i].offset + shift, BLOCK, data);
}

static void co_rot_labels(struct rot *rot)
{
        struct pool *pool = rot->s->pool;
        for (unsigned i = 0; i < 2 * rot->s->n_disks; i++) {
                uint64_t area = i % 2 ? SIM_MEMBER_SIZE - LABEL_AREA_BYTES : 0;
                uint64_t slot = pool->generation % SUPER_SLOTS * SUPER_SLOT_BYTES;
                co_rot_at(rot, i / 2, area, BLOCK, false);
                co_rot_at(rot, i / 2, area + SUPER_RING_OFFSET + slot, 2 * BLOCK, false);
        }
        for (uint32_t i = 0; i < pool->n_index; i++)
                co_rot_legs(rot, pool->index[i].leg, pool->index[i].n_legs,
                            (uint64_t)pool->index[i].copy * BLOCK, false);
        for (uint32_t i = 0; i < pool->n_table; i++)
                co_rot_legs(rot, pool->table[i].leg, pool->table[i].n_legs,
                            (uint64_t)pool->table[i].copy * BLOCK, false);
}

/* A copy of a space map that does not count now. */
static bool is_idle_map(const struct pool *pool, uint64_t address)
{
        for (uint32_t i = 0; i < pool->n_slabs; i++)
                for (unsigned k = 0; k < MAP_COPIES; k++)
                        if (slab_has_map(pool->slab[i]) && k != pool->slab[i]->map_copy &&
                            pool->slab[i]->map_address[k] == address)
                                return true;
        return false;
}

static void co_rot_slab(struct rot *rot, const struct slab *slab)
{
        struct pool *pool = rot->s->pool;
        for (uint32_t b = 0; b < pool->slab_blocks && !rot->s->failure[0]; b++) {
                uint64_t address = (uint64_t)slab->index << pool->slab_shift | b;
                if (!(slab->live[b / 64] >> (b % 64) & 1) || is_idle_map(pool, address) ||
                    (slab->kind == SLAB_DATA && !sim_random_chance(&rot->s->random, 4)))
                        continue;
                co_rot_legs(rot, slab->leg, slab->n_legs, (uint64_t)b * BLOCK,
                            slab->kind == SLAB_DATA);
        }
}

static void co_rot_everywhere(void *arg)
{
        struct sim_pool *s = arg;
        struct rot rot = {.s = s};
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_snapshots_in_a_row(s) == 0);
        expect(s, co_family(s) == 0);
        expect(s, co_pool_settle(s->pool, NULL) == 0);
        co_expect_sound_here(s);
        co_rot_labels(&rot);
        for (uint32_t i = 0; i < s->pool->n_slabs && !s->failure[0]; i++)
                if (slab_has_map(s->pool->slab[i]))
                        co_rot_slab(&rot, s->pool->slab[i]);
        co_expect_sound_here(s);
        expect(s, rot.n_tried > 300);
        expect(s, co_sim_pool_close(s) == 0);
}

static void finds_a_flipped_bit_wherever_it_is(void **state)
{
        sim_pool_run(1, 1, co_rot_everywhere);
        sim_pool_run(2, 2, co_rot_everywhere);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(finds_nothing_in_sound_pools),
            cmocka_unit_test(finds_nothing_while_roots_go),
            cmocka_unit_test(finds_nothing_after_a_crash),
            cmocka_unit_test(finds_nothing_while_it_is_written_to),
            cmocka_unit_test(a_checkpoint_is_held_for_long),
            cmocka_unit_test(gives_up_where_a_writer_needs_the_space),
            cmocka_unit_test(finds_nothing_while_the_table_grows),
            cmocka_unit_test(finds_a_flipped_bit_wherever_it_is),
        };
        log_set_sink(NULL);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
