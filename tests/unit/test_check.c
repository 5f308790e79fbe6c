/* test_check.c - a check of a sound pool finds nothing, and of a damaged one what is damaged. */
#include <errno.h>
#include "pool/engine.h"
#include "tests/unit/sim_pool.h"

/* ---- checking ---- */

struct findings {
        uint64_t n;
        char text[2048]; /* the first ones */
        uint64_t done, total;
};

static void finding(void *arg, const char *sentence)
{
        struct findings *f = arg;
        size_t at = strlen(f->text);
        f->n++;
        snprintf(f->text + at, sizeof(f->text) - at, "%s\n", sentence);
}

static void progress(void *arg, uint64_t done, uint64_t total)
{
        struct findings *f = arg;
        f->done = done;
        f->total = total;
}

static int co_check(struct sim_pool *s, bool read_data, struct findings *f)
{
        struct pool_check_callbacks callbacks = {finding, progress, f};
        uint64_t n = 0;
        struct error err = ERROR_INIT;
        *f = (struct findings){0};
        int r = co_pool_check(s->pool, read_data, &callbacks, &n, &err);
        if (r == 0 && n != f->n)
                sim_pool_fails(s, __FILE__, __LINE__, "the number of findings is wrong");
        return r;
}

/* Nothing may be found. */
static void co_expect_sound(struct sim_pool *s, int line)
{
        struct findings f;
        int r = co_check(s, true, &f);
        if (r < 0)
                sim_pool_fails(s, __FILE__, line, "the check gave up");
        else if (f.n)
                sim_pool_fails(s, __FILE__, line, f.text);
        else if (f.done != f.total || !f.total)
                sim_pool_fails(s, __FILE__, line, "the check was not told to be done");
}

#define co_expect_sound_here(s)                                                                    \
        do {                                                                                       \
                co_expect_sound(s, __LINE__);                                                      \
                if ((s)->failure[0])                                                               \
                        return;                                                                    \
        } while (0)

/* ---- shapes ---- */

#define MANY_SNAPSHOTS 40u /* more buckets than a root's block holds */

static int co_snapshots_in_a_row(struct sim_pool *s)
{
        int r = co_volume_create(s->pool, "row", 4 << 20, NULL);
        for (unsigned i = 0; i < MANY_SNAPSHOTS && r == 0; i++) {
                char name[32];
                snprintf(name, sizeof(name), "row@s%u", i);
                r = co_sim_pool_write(s, "row", 3 * i, 2);
                if (r == 0)
                        r = co_sim_pool_snapshot(s, name);
        }
        for (unsigned i = 0; i < MANY_SNAPSHOTS && r == 0; i++)
                r = co_sim_pool_write(s, "row", 3 * i, 1);
        return r;
}

/* Volumes, snapshots, clones, clones of clones, a restore, discards, shrinks. */
static int co_family(struct sim_pool *s)
{
        int r = co_volume_create(s->pool, "web", 3 << 20, NULL);
        r = r ? r : co_sim_pool_write(s, "web", 0, 300);
        r = r ? r : co_sim_pool_snapshot(s, "web@one");
        r = r ? r : co_sim_pool_write(s, "web", 100, 50);
        r = r ? r : co_volume_resize(s->pool, "web", UINT64_C(2) << 30, NULL);
        r = r ? r : co_sim_pool_write(s, "web", 300000, 20);
        r = r ? r : co_sim_pool_snapshot(s, "web@two");
        r = r ? r : co_snapshot_clone(s->pool, "web@one", "copy", NULL);
        r = r ? r : co_sim_pool_write(s, "copy", 90, 20);
        r = r ? r : co_sim_pool_snapshot(s, "copy@three");
        r = r ? r : co_snapshot_clone(s->pool, "copy@three", "copy2", NULL);
        r = r ? r : co_sim_pool_discard(s, "copy2", 0, 260);
        r = r ? r : co_sim_pool_write(s, "copy2", 10, 3);
        r = r ? r : co_sim_pool_discard(s, "web", 95, 180);
        r = r ? r : co_snapshot_restore(s->pool, "web@one", "before", NULL);
        r = r ? r : co_sim_pool_write(s, "web", 0, 7);
        r = r ? r : co_volume_resize(s->pool, "copy2", (1 << 20) + 512, NULL);
        return r;
}

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

/* A writer that finds no space because the check holds it: the check gives up, the writer goes on.
 */
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

/* ---- everything has its checksum, and is wrong ---- */

static struct root *co_root(struct sim_pool *s, const char *name)
{
        struct root *root = root_by_name(s->pool, name);
        if (root && co_root_load(s->pool, root, NULL) < 0)
                root = NULL;
        return root;
}

/* A leaf that was written in this epoch, so that the next cut writes it with whatever is in it. */
static struct entry_disk *co_fresh_leaf(struct sim_pool *s, const char *name, uint64_t block)
{
        struct node *leaf = NULL;
        struct entry e;
        struct root *root = co_root(s, name);
        if (!root || co_sim_pool_write(s, name, block, 1) < 0 ||
            tree_leaf(s->pool, &root->body->map, block, &leaf, &e) < 0 || !leaf)
                return NULL;
        return ((struct node_disk *)leaf->page)->entry;
}

static void co_found(struct sim_pool *s, const char *what, int line)
{
        struct findings f;
        if (co_check(s, false, &f) < 0)
                sim_pool_fails(s, __FILE__, line, "the check gave up");
        else if (!strstr(f.text, what)) {
                char text[400];
                snprintf(text, sizeof(text), "not found: '%s', but: %.300s", what, f.text);
                sim_pool_fails(s, __FILE__, line, text);
        }
}

/* A pool of the family's shape is damaged by @each in one way, which the check has to name. */
static void co_damaged(void *arg)
{
        struct sim_pool *s = arg;
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_family(s) == 0);
        expect(s, co_pool_settle(s->pool, NULL) == 0);
        co_expect_sound_here(s);
        expect(s, s->each(s) == 0);
        co_pool_abandon(s->pool);
}

static void damaged(int (*co_damage)(struct sim_pool *s))
{
        sim_pool_run_each(2, 1, co_damaged, co_damage);
}

static int co_leak(struct sim_pool *s)
{
        uint64_t address;
        uint32_t n;
        if (space_take_data(s->pool, 3, &address, &n) < 0 || co_sim_pool_write(s, "web", 0, 1) < 0)
                return -1;
        space_commit(s->pool, address, n);
        co_found(s, "3 blocks of data are in use and belong to nothing", __LINE__);
        return 0;
}

static void finds_blocks_that_belong_to_nothing(void **state)
{
        damaged(co_leak);
}

static int co_used_and_free(struct sim_pool *s)
{
        struct entry_disk *leaf = co_fresh_leaf(s, "web", 5);
        if (!leaf)
                return -1;
        space_free(s->pool, entry_get(&leaf[5]).address);
        co_found(s, "data of volume 'web' at offset 20480 lies on a block that is free", __LINE__);
        return 0;
}

static void finds_blocks_in_use_that_are_free(void **state)
{
        damaged(co_used_and_free);
}

static int co_used_twice(struct sim_pool *s)
{
        struct entry_disk *leaf = co_fresh_leaf(s, "web", 5);
        if (!leaf)
                return -1;
        leaf[250] = leaf[5];
        co_found(s, "at offset 1024000 lies on a block that something else has", __LINE__);
        return 0;
}

static void finds_blocks_used_twice(void **state)
{
        damaged(co_used_twice);
}

static int co_nowhere(struct sim_pool *s)
{
        struct entry_disk *leaf = co_fresh_leaf(s, "web", 5);
        if (!leaf)
                return -1;
        struct entry e = entry_get(&leaf[5]);
        e.address = 1; /* the first slab is of the slab table */
        entry_put(&leaf[5], &e);
        co_found(s, "is in no slab of data", __LINE__);
        return 0;
}

static void finds_addresses_of_another_kind(void **state)
{
        damaged(co_nowhere);
}

static int co_unknown_type(struct sim_pool *s)
{
        struct entry_disk *leaf = co_fresh_leaf(s, "web", 5);
        if (!leaf)
                return -1;
        struct entry e = entry_get(&leaf[5]);
        e.type = ENTRY_COMPRESSED;
        entry_put(&leaf[5], &e);
        co_found(s, "has an entry of unknown type 4", __LINE__);
        return 0;
}

static void finds_entries_of_unknown_type(void **state)
{
        damaged(co_unknown_type);
}

static int co_birth_order(struct sim_pool *s)
{
        struct entry_disk *leaf = co_fresh_leaf(s, "web", 5);
        if (!leaf)
                return -1;
        struct entry e = entry_get(&leaf[5]);
        e.birth++;
        entry_put(&leaf[5], &e);
        co_found(s, "and what names it in epoch", __LINE__);
        return 0;
}

static void finds_births_out_of_order(void **state)
{
        damaged(co_birth_order);
}

/* Block 5 of "web" is inherited from "web@one"; it now stands for what block 6 is. */
static int co_wrong_heritage(struct sim_pool *s)
{
        struct entry_disk *leaf = co_fresh_leaf(s, "web", 200);
        if (!leaf || entry_get(&leaf[50]).birth >= s->pool->epoch)
                return -1;
        leaf[50] = leaf[51];
        co_found(s,
                 "data of volume 'web' at offset 204800 is inherited, and its parent has "
                 "something else there",
                 __LINE__);
        return 0;
}

static void finds_what_was_never_inherited(void **state)
{
        damaged(co_wrong_heritage);
}

static int co_lost_block(struct sim_pool *s)
{
        struct entry_disk *leaf = co_fresh_leaf(s, "web", 200);
        if (!leaf)
                return -1;
        leaf[50] = (struct entry_disk){0};
        co_found(s, "is a hole that is older than what the parent has", __LINE__);
        return 0;
}

static void finds_what_was_lost_of_the_heritage(void **state)
{
        damaged(co_lost_block);
}

static int co_behind_end(struct sim_pool *s)
{
        struct root *root = co_root(s, "copy");
        if (!root || co_sim_pool_write(s, "copy", 700, 2) < 0)
                return -1;
        root->body->size_bytes = 701 * POOL_BLOCK;
        co_found(s, "data of volume 'copy' at offset 2871296 lies behind the end", __LINE__);
        return 0;
}

static void finds_blocks_behind_the_end(void **state)
{
        damaged(co_behind_end);
}

static int co_counters(struct sim_pool *s)
{
        struct root *root = co_root(s, "copy");
        if (!root || co_sim_pool_write(s, "copy", 0, 1) < 0 || root->body->n_buckets == 0)
                return -1;
        root->body->data_blocks++;
        co_found(s, "the block of volume 'copy' counts", __LINE__);
        root->body->data_blocks--;
        root->body->own_blocks--;
        root_dirty(s->pool, root);
        co_found(s, "blocks of its own, and there are", __LINE__);
        root->body->own_blocks++;
        root->body->bucket[0].n_blocks++;
        root_dirty(s->pool, root);
        co_found(s, "of volume 'copy' has a bucket that counts", __LINE__);
        root->body->bucket[0].n_blocks--;
        root->body->bucket[0].n_pages++;
        root_dirty(s->pool, root);
        co_found(s, "of volume 'copy' has a bucket that counts", __LINE__);
        return 0;
}

static void finds_wrong_counters(void **state)
{
        damaged(co_counters);
}

static int co_deadlist(struct sim_pool *s)
{
        struct root *root = co_root(s, "copy");
        if (!root || co_sim_pool_write(s, "copy", 0, 3) < 0 || root->body->n_buckets == 0)
                return -1;
        struct bucket *bucket = &root->body->bucket[root->body->n_buckets - 1];
        struct node *node = cache_find(s->pool, &bucket->head);
        if (!node || bucket->head.birth != s->pool->epoch)
                return -1;
        struct deadlist_disk *page = node->page;
        uint32_t n = le32_get(page->n);
        page->entry[n - 1] = page->entry[n - 2]; /* one is twice in it, one is not */
        co_found(s, "lists other blocks as dead than those that are", __LINE__);
        return 0;
}

static void finds_what_the_deadlist_lacks(void **state)
{
        damaged(co_deadlist);
}

static int co_dead_and_free(struct sim_pool *s)
{
        struct root *root = co_root(s, "copy");
        if (!root || co_sim_pool_write(s, "copy", 0, 3) < 0 || root->body->n_buckets == 0)
                return -1;
        struct bucket *bucket = &root->body->bucket[root->body->n_buckets - 1];
        struct node *node = cache_find(s->pool, &bucket->head);
        if (!node)
                return -1;
        struct deadlist_disk *page = node->page;
        struct entry e = entry_get(&page->entry[le32_get(page->n) - 1]);
        space_free(s->pool, e.address);
        co_found(s, "lists a block that is free by its space map", __LINE__);
        return 0;
}

static void finds_dead_blocks_that_are_free(void **state)
{
        damaged(co_dead_and_free);
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
            cmocka_unit_test(finds_a_flipped_bit_wherever_it_is),
            cmocka_unit_test(finds_blocks_that_belong_to_nothing),
            cmocka_unit_test(finds_blocks_in_use_that_are_free),
            cmocka_unit_test(finds_blocks_used_twice),
            cmocka_unit_test(finds_addresses_of_another_kind),
            cmocka_unit_test(finds_entries_of_unknown_type),
            cmocka_unit_test(finds_births_out_of_order),
            cmocka_unit_test(finds_what_was_never_inherited),
            cmocka_unit_test(finds_what_was_lost_of_the_heritage),
            cmocka_unit_test(finds_blocks_behind_the_end),
            cmocka_unit_test(finds_wrong_counters),
            cmocka_unit_test(finds_what_the_deadlist_lacks),
            cmocka_unit_test(finds_dead_blocks_that_are_free),
        };
        log_set_sink(NULL);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
