/* What a guest's flush costs, what a full pool keeps doing, and what becomes of damaged blocks. */
#include <errno.h>
#include "common/log.h"
#include "tests/unit/check_fixture.h"

#define MANY_BLOCKS 64u

static uint64_t flushes_of(struct sim_pool *s, unsigned member)
{
        struct pool_member_info info;
        pool_get_member_info(s->pool, member, &info);
        return info.meter->line[METER_FLUSH].requests;
}

/* ---- flushes ---- */

/* Write a block and flush: no member may see more than one flush. */
static void co_expect_one_flush(struct sim_pool *s, uint64_t block)
{
        uint64_t before[SIM_MEMBERS_MAX], most = 0;
        for (unsigned i = 0; i < s->n_disks; i++)
                before[i] = flushes_of(s, i);
        expect(s, co_sim_pool_write(s, "v", block, 1) == 0);
        struct volume *v;
        expect(s, co_volume_open(s->pool, "v", &v, NULL) == 0);
        int r = co_volume_flush(v);
        co_volume_close(v);
        expect(s, r == 0);
        for (unsigned i = 0; i < s->n_disks; i++) {
                uint64_t n = flushes_of(s, i) - before[i];
                expect(s, n <= 1);
                most = n > most ? n : most;
        }
        expect(s, most == 1);
}

static void co_flush_costs(void *arg)
{
        struct sim_pool *s = arg;
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 1 << 30, NULL) == 0);
        for (uint64_t i = 0; i < 20; i++)
                co_expect_one_flush(s, i * 1000); /* first writes, each to a leaf of its own */
        for (uint64_t i = 0; i < 20; i++)
                co_expect_one_flush(s, i * 1000); /* allocated */
        expect(s, co_sim_pool_snapshot(s, "v@s") == 0);
        for (uint64_t i = 0; i < 20; i++)
                co_expect_one_flush(s, i * 1000); /* shared with the snapshot */
        expect(s, co_sim_pool_close(s) == 0);
}

static void a_guest_flush_is_at_most_one_flush_of_each_member(void **state)
{
        for (unsigned n = 1; n <= SIM_MEMBERS_MAX; n++)
                sim_pool_run(n, n, co_flush_costs);
}

struct flusher {
        struct sim_pool *s;
        struct volume *v;
        unsigned *n_left;
        struct co *waiter;
};

static void flusher_main(void *arg)
{
        struct flusher *f = arg;
        expect(f->s, co_volume_flush(f->v) == 0);
        if (--*f->n_left == 0)
                co_wake(f->waiter);
}

static void co_flushes_together(void *arg)
{
        struct sim_pool *s = arg;
        struct flusher flusher[32];
        unsigned n_left = 32;
        struct volume *v;
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 1 << 20, NULL) == 0);
        expect(s, co_sim_pool_write(s, "v", 0, 1) == 0);
        expect(s, co_volume_open(s->pool, "v", &v, NULL) == 0);
        uint64_t before = flushes_of(s, 0);
        for (unsigned i = 0; i < 32; i++) {
                flusher[i] = (struct flusher){s, v, &n_left, co_self()};
                expect(s, co_spawn(s->loop, flusher_main, &flusher[i]) == 0);
        }
        while (n_left)
                co_suspend();
        expect(s, flushes_of(s, 0) - before <= 2);
        co_volume_close(v);
        expect(s, co_sim_pool_close(s) == 0);
}

static void flushes_that_come_together_share_a_round(void **state)
{
        sim_pool_run(2, 1, co_flushes_together);
}

/* ---- writes ---- */

/* A slab of these pools is 64 blocks, a stripe 16. */
static void co_large_write(void *arg)
{
        struct sim_pool *s = arg;
        struct meter_line before, after;
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 4 << 20, NULL) == 0);
        /* From the middle of a slab over the ends of at least four. */
        expect(s, co_sim_pool_write(s, "v", 0, 24) == 0);
        before = sim_pool_done(s, METER_WRITE);
        expect(s, co_sim_pool_write(s, "v", 256, 256) == 0);
        after = sim_pool_done(s, METER_WRITE);
        if (s->n_disks == 1) /* where no metadata is written beside */
                expect(s, after.bytes - before.bytes == 256 * POOL_BLOCK &&
                              after.requests - before.requests <= 6);
        for (int round = 0; round < 2; round++) {
                co_expect_sound_here(s);
                expect(s, co_sim_pool_close(s) == 0);
                if (round == 0)
                        expect(s, co_sim_pool_open(s, false) == 0);
        }
}

static void stripes_that_are_adjacent_are_written_as_one(void **state)
{
        for (unsigned n = 1; n <= SIM_MEMBERS_MAX; n++)
                sim_pool_run(n, n, co_large_write);
}

/* ---- reads ---- */

static uint64_t co_reads_for_one(struct sim_pool *s, const char *name)
{
        struct volume *v;
        static char block[POOL_BLOCK] __attribute__((aligned(POOL_BLOCK)));
        if (co_volume_open(s->pool, name, &v, NULL) < 0)
                return UINT64_MAX;
        co_volume_read(v, block, POOL_BLOCK, 0); /* the map is in memory afterwards */
        uint64_t before = sim_pool_done(s, METER_READ).requests;
        int r = co_volume_read(v, block, POOL_BLOCK, 4 * POOL_BLOCK);
        uint64_t after = sim_pool_done(s, METER_READ).requests;
        co_volume_close(v);
        return r == 0 ? after - before : UINT64_MAX;
}

static void co_read_costs(void *arg)
{
        struct sim_pool *s = arg;
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 1 << 20, NULL) == 0);
        expect(s, co_sim_pool_write(s, "v", 0, 8) == 0);
        for (unsigned i = 0; i < 200; i++) {
                char name[16];
                snprintf(name, sizeof(name), "v@s%u", i);
                expect(s, co_sim_pool_snapshot(s, name) == 0);
                expect(s, co_sim_pool_write(s, "v", i % 4, 1) == 0);
        }
        expect(s, co_reads_for_one(s, "v") == 1);
        expect(s, co_reads_for_one(s, "v@s199") == 1);
        expect(s, co_reads_for_one(s, "v@s100") == 1);
        expect(s, co_reads_for_one(s, "v@s0") == 1);
        expect(s, co_sim_pool_close(s) == 0);
}

static void a_read_costs_one_device_read_however_many_snapshots(void **state)
{
        sim_pool_run(2, 1, co_read_costs);
}

/* ---- shrinking ---- */

struct held_write {
        struct volume *v;
        uint64_t offset, length;
        enum volume_op op;
        int result; /* 1: not yet */
        struct co *waiter;
};

static void held_write_main(void *arg)
{
        static char block[POOL_BLOCK] __attribute__((aligned(POOL_BLOCK)));
        struct held_write *w = arg;
        w->result = w->op == VOLUME_WRITE ? co_volume_write(w->v, block, w->length, w->offset, 0)
                                          : co_volume_zero(w->v, w->offset, w->length, 0);
        co_wake(w->waiter);
}

/* Writes that wait for a cut while the volume loses the end that they go to. */
static void co_shrunk_meanwhile(void *arg)
{
        struct sim_pool *s = arg;
        struct volume *v;
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 1 << 20, NULL) == 0);
        expect(s, co_sim_pool_write(s, "v", 0, 64) == 0);
        expect(s, co_volume_open(s->pool, "v", &v, NULL) == 0);
        co_root_hold(v->root);
        struct held_write write[3] = {{v, 40 * POOL_BLOCK, POOL_BLOCK, VOLUME_WRITE, 1, co_self()},
                                      {v, 41 * POOL_BLOCK, 512, VOLUME_WRITE, 1, co_self()},
                                      {v, 42 * POOL_BLOCK, 512, VOLUME_ZERO, 1, co_self()}};
        for (unsigned i = 0; i < 3; i++)
                expect(s, co_spawn(s->loop, held_write_main, &write[i]) == 0);
        expect(s, co_volume_resize(s->pool, "v", 16 * POOL_BLOCK, NULL) == 0);
        root_unhold(s->pool, v->root);
        for (unsigned i = 0; i < 3; i++) {
                while (write[i].result == 1)
                        co_suspend();
                expect(s, write[i].result == -EINVAL);
        }
        while (v->root->body->high_bytes)
                co_sleep_ns(1000000);
        expect(s, v->root->body->data_blocks == 16);
        co_volume_close(v);
        expect(s, co_sim_pool_close(s) == 0);
}

static void a_write_that_waited_goes_nowhere_past_the_end(void **state)
{
        sim_pool_run(1, 1, co_shrunk_meanwhile);
}

/* A shrink that a checkpoint holds half done is gone on with at open, though nobody asks for the
 * volume. */
static void co_shrink_resumes(void *arg)
{
        struct sim_pool *s = arg;
        struct volume *v;
        struct pool_info info;
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 1 << 20, NULL) == 0);
        expect(s, co_sim_pool_write(s, "v", 0, 64) == 0);
        expect(s, co_volume_open(s->pool, "v", &v, NULL) == 0);
        co_root_hold(v->root);
        expect(s, co_volume_resize(s->pool, "v", 16 * POOL_BLOCK, NULL) == 0);
        expect(s, v->root->body->high_bytes > 0);
        expect(s, co_pool_checkpoint(s->pool, NULL) == 0);
        root_unhold(s->pool, v->root);
        co_volume_close(v);
        co_sim_pool_crash(s);
        expect(s, co_sim_pool_open(s, false) == 0);
        expect(s, co_pool_settle(s->pool, NULL) == 0);
        pool_get_info(s->pool, &info);
        expect(s, info.used_bytes == 16 * POOL_BLOCK);
        expect(s, co_sim_pool_close(s) == 0);
}

static void an_unfinished_shrink_goes_on_at_open(void **state)
{
        sim_pool_run(1, 1, co_shrink_resumes);
}

/* ---- block status ---- */

/* A block in each stretch of 256 MiB has 255 absent leaves beside its own: more places than one call
 * looks at. */
static void co_status_in_parts(void *arg)
{
        struct sim_pool *s = arg;
        struct volume *v;
        static struct volume_extent extents[256];
        static char block[POOL_BLOCK] __attribute__((aligned(POOL_BLOCK)));
        const uint64_t stretch = 256 << 20, size = 24 * stretch;
        size_t n, calls = 0;
        uint64_t at = 0, data = 0;
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", size, NULL) == 0);
        expect(s, co_volume_open(s->pool, "v", &v, NULL) == 0);
        for (uint64_t i = 0; i < size; i += stretch)
                expect(s, co_volume_write(v, block, POOL_BLOCK, i, 0) == 0);
        for (; at < size; calls++) {
                expect(s, co_volume_status(v, at, size - at, extents, 256, &n) == 0);
                expect(s, n >= 1 && n <= 256);
                for (size_t i = 0; i < n; i++) {
                        expect(s, extents[i].length && extents[i].length <= size - at);
                        data += extents[i].flags & EXTENT_HOLE ? 0 : extents[i].length;
                        at += extents[i].length;
                }
        }
        expect(s, data == 24 * POOL_BLOCK && calls == 2);
        co_volume_close(v);
        expect(s, co_sim_pool_close(s) == 0);
}

static void block_status_of_a_large_volume_is_told_in_parts(void **state)
{
        sim_pool_run(1, 1, co_status_in_parts);
}

/* ---- a full pool ---- */

static void co_fill(struct sim_pool *s, uint64_t *ret_blocks)
{
        uint64_t block = 0;
        int r;
        while ((r = co_sim_pool_write(s, "v", block, MANY_BLOCKS)) == 0)
                block += MANY_BLOCKS;
        while (r == -ENOSPC && (r = co_sim_pool_write(s, "v", block, 1)) == 0)
                block++;
        expect(s, r == -ENOSPC);
        *ret_blocks = block;
}

static void co_full_pool(void *arg)
{
        struct sim_pool *s = arg;
        uint64_t blocks = 0, again = 0;
        struct pool_info info;
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 1 << 30, NULL) == 0);
        co_fill(s, &blocks);
        pool_get_info(s->pool, &info);
        expect(s, info.used_bytes == blocks * POOL_BLOCK);
        expect(s, !info.failed);

        /* What was written is there, and the names can still be worked with. */
        struct volume *v;
        static char block[POOL_BLOCK] __attribute__((aligned(POOL_BLOCK)));
        expect(s, co_volume_open(s->pool, "v", &v, NULL) == 0);
        for (uint64_t i = 0; i < blocks; i += 7)
                expect(s, co_volume_read(v, block, POOL_BLOCK, i * POOL_BLOCK) == 0);
        expect(s, co_volume_flush(v) == 0);
        expect(s, co_sim_pool_snapshot(s, "v@s") == 0);
        expect(s, co_snapshot_delete(s->pool, "v@s", NULL) == 0);

        /* Space that is given back can be written again, without anybody's help. */
        expect(s, co_volume_discard(v, 0, (uint64_t)MANY_BLOCKS * POOL_BLOCK, 0) == 0);
        co_volume_close(v);
        expect(s, co_sim_pool_write(s, "v", 0, MANY_BLOCKS) == 0);

        expect(s, co_volume_delete(s->pool, "v", false, NULL) == 0);
        expect(s, co_volume_create(s->pool, "v", 1 << 30, NULL) == 0);
        expect(s, co_pool_settle(s->pool, NULL) == 0);
        co_fill(s, &again);
        expect(s, again + MANY_BLOCKS >= blocks);
        expect(s, co_sim_pool_close(s) == 0);
}

static void a_full_pool_loses_nothing_and_goes_on_when_space_comes_back(void **state)
{
        for (unsigned n = 1; n <= SIM_MEMBERS_MAX; n++)
                sim_pool_run(n, n, co_full_pool);
}

#define DISK_PAGES (SIM_MEMBER_SIZE / POOL_BLOCK)

struct written {
        struct sim_pool *s;
        unsigned disk;
        bool page[DISK_PAGES];
        uint64_t n_holes; /* filled by what is not data, once the pool was open */
};

static bool is_data(const struct pool *pool, unsigned disk, uint64_t offset)
{
        for (uint32_t i = 0; i < pool->n_slabs; i++) {
                const struct leg *leg = &pool->slab[i]->leg[0];
                if (pool->slab[i]->kind == SLAB_DATA && leg->member == disk &&
                    offset >= leg->offset && offset < leg->offset + SIM_SLAB_BYTES)
                        return true;
        }
        return false;
}

static void note_write(void *arg, struct sim_disk *disk, const struct sim_event *event)
{
        struct written *w = arg;
        if (event->op != MEMBER_WRITE || event->completed)
                return;
        for (uint64_t at = event->offset; at < event->offset + event->length; at += POOL_BLOCK) {
                if (w->s->pool && !w->page[at / POOL_BLOCK] && !is_data(w->s->pool, w->disk, at))
                        w->n_holes++;
                w->page[at / POOL_BLOCK] = true;
        }
}

/* What a pool writes to keep what it has lies where something was written before. */
static void co_holes(void *arg)
{
        struct sim_pool *s = arg;
        struct written *w = calloc(s->n_disks, sizeof(*w));
        for (unsigned i = 0; i < s->n_disks; i++) {
                w[i].s = s;
                w[i].disk = i;
                sim_disk_set_hook(s->disk[i], note_write, &w[i]);
        }
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 1 << 20, NULL) == 0);
        for (unsigned i = 0; i < 20; i++) {
                expect(s, co_sim_pool_write(s, "v", i, 1) == 0);
                expect(s, co_pool_checkpoint(s->pool, NULL) == 0);
        }
        expect(s, co_sim_pool_close(s) == 0);
        for (unsigned i = 0; i < s->n_disks; i++) {
                sim_disk_set_hook(s->disk[i], NULL, NULL);
                expect(s, w[i].n_holes == 0);
        }
        free(w);
}

static void a_full_host_takes_no_space_from_what_is_no_data(void **state)
{
        sim_pool_run(1, 1, co_holes);
        sim_pool_run(3, 1, co_holes);
}

/* The file system under a sparse member is full: no slab can be made any more. */
static void co_host_is_full(void *arg)
{
        struct sim_pool *s = arg;
        struct sim_fault fault = {
            .kind = SIM_FAULT_ERROR, .ops = SIM_OP(MEMBER_WRITE), .error = -ENOSPC};
        struct sim_disk_stats stats;
        int r = 0;
        uint64_t n = 0;
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 1 << 30, NULL) == 0);
        expect(s, co_sim_pool_write(s, "v", 0, 1) == 0);
        expect(s, co_pool_settle(s->pool, NULL) == 0);
        for (uint32_t i = 0; i < s->pool->n_slabs; i++)
                if (s->pool->slab[i]->leg[0].offset > fault.offset)
                        fault.offset = s->pool->slab[i]->leg[0].offset;
        fault.offset += SIM_SLAB_BYTES;
        fault.length = SIM_MEMBER_SIZE - LABEL_AREA_BYTES - fault.offset;
        sim_disk_add_fault(s->disk[0], &fault);
        /* A leaf for each block, so that metadata is what lacks. */
        while (r == 0 && n < 1000)
                r = co_sim_pool_write(s, "v", n++ * 256, 1);
        expect(s, r == -ENOSPC);
        expect(s, !s->pool->failed[0]);
        r = co_sim_pool_discard(s, "v", 100, 5000);
        expect(s, r == 0 || r == -ENOSPC);
        expect(s, co_volume_delete(s->pool, "v", false, NULL) == 0);
        expect(s, co_pool_settle(s->pool, NULL) == 0);
        expect(s, co_volume_create(s->pool, "w", 1 << 20, NULL) == 0);
        expect(s, co_sim_pool_write(s, "w", 0, 1) == 0);
        sim_disk_get_stats(s->disk[0], &stats);
        expect(s, stats.errors < 100); /* tried now and then, and not all the time */
        expect(s, co_sim_pool_close(s) == 0);
}

static void a_pool_whose_host_is_full_is_full_and_goes_on(void **state)
{
        sim_pool_run(1, 1, co_host_is_full);
}

static void co_full_of_snapshots(void *arg)
{
        struct sim_pool *s = arg;
        uint64_t blocks = 0;
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 8 << 20, NULL) == 0);
        unsigned n = 0;
        for (int r = 0; r == 0; n++) {
                char name[16];
                snprintf(name, sizeof(name), "v@s%u", n);
                expect(s, co_sim_pool_snapshot(s, name) == 0);
                for (blocks = 0; r == 0 && blocks < 1024; blocks += MANY_BLOCKS)
                        r = co_sim_pool_write(s, "v", blocks, MANY_BLOCKS);
                expect(s, r == 0 || r == -ENOSPC);
        }
        for (unsigned i = 0; i < n; i++) {
                char name[16];
                snprintf(name, sizeof(name), "v@s%u", i);
                expect(s, co_snapshot_delete(s->pool, name, NULL) == 0);
        }
        expect(s, co_pool_settle(s->pool, NULL) == 0);
        for (blocks = 0; blocks < 1024; blocks += MANY_BLOCKS)
                expect(s, co_sim_pool_write(s, "v", blocks, MANY_BLOCKS) == 0);
        expect(s, co_sim_pool_close(s) == 0);
}

static void deleting_snapshots_frees_a_full_pool(void **state)
{
        sim_pool_run(2, 1, co_full_of_snapshots);
}

static void co_discards(void *arg)
{
        struct sim_pool *s = arg;
        const uint64_t bytes = 8 << 20;
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", bytes, NULL) == 0);
        for (uint64_t block = 0; block < bytes / POOL_BLOCK; block += MANY_BLOCKS)
                expect(s, co_sim_pool_write(s, "v", block, MANY_BLOCKS) == 0);
        expect(s, co_pool_settle(s->pool, NULL) == 0);
        expect(s, sim_pool_done(s, METER_DISCARD).bytes == 0);
        expect(s, co_volume_delete(s->pool, "v", false, NULL) == 0);
        expect(s, co_pool_settle(s->pool, NULL) == 0);
        uint64_t once = sim_pool_done(s, METER_DISCARD).bytes;
        expect(s, once >= bytes * 9 / 10); /* all but slabs that hold something else, too */
        expect(s, co_pool_settle(s->pool, NULL) == 0);
        expect(s, sim_pool_done(s, METER_DISCARD).bytes == once);
        expect(s, co_sim_pool_close(s) == 0);
        expect(s, co_sim_pool_open(s, false) == 0);
        expect(s, co_pool_settle(s->pool, NULL) == 0);
        expect(s,
               sim_pool_done(s, METER_DISCARD).bytes == 0); /* the members are known to be clean */
        expect(s, co_sim_pool_close(s) == 0);
}

static void freed_space_is_discarded_on_the_members_once(void **state)
{
        sim_pool_run(1, 1, co_discards);
        sim_pool_run(3, 1, co_discards);
}

/* ---- damage ---- */

static char logged[1024];

static void keep_log(enum log_level level, const char *message)
{
        if (level == LOG_LEVEL_ERROR && !logged[0])
                snprintf(logged, sizeof(logged), "%s", message);
}

/* Flip a bit in each place of the member that holds the byte pattern of @data. */
static unsigned corrupt_copies(struct sim_disk *disk, const char *data)
{
        struct sim_image *image = sim_disk_visible(disk);
        char page[POOL_BLOCK];
        unsigned n = 0;
        for (uint64_t at = 0; at < SIM_MEMBER_SIZE; at += POOL_BLOCK) {
                sim_image_read(image, at, page, POOL_BLOCK);
                if (memcmp(page, data, POOL_BLOCK) == 0) {
                        sim_disk_corrupt(disk, at + 100, 1, 0x10);
                        n++;
                }
        }
        sim_image_free(image);
        return n;
}

static void co_rotten_data(void *arg)
{
        struct sim_pool *s = arg;
        static char data[2 * POOL_BLOCK] __attribute__((aligned(POOL_BLOCK)));
        struct volume *v;
        unsigned n = 0;
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 1 << 20, NULL) == 0);
        expect(s, co_volume_open(s->pool, "v", &v, NULL) == 0);
        memset(data, 'x', POOL_BLOCK);
        memset(data + POOL_BLOCK, 'y', POOL_BLOCK);
        expect(s, co_volume_write(v, data, sizeof(data), 0, 0) == 0);
        expect(s, co_volume_flush(v) == 0);
        for (unsigned i = 0; i < s->n_disks; i++)
                n += corrupt_copies(s->disk[i], data);
        expect(s, n == 1);
        memset(data, 'z', sizeof(data));
        logged[0] = 0;
        log_set_sink(keep_log);
        int r = co_volume_read(v, data, sizeof(data), 0);
        log_set_sink(NULL);
        expect(s, r == -EIO);
        for (unsigned i = 0; i < POOL_BLOCK; i++)
                expect(s, data[i] == 0); /* never what failed its checksum */
        for (unsigned i = 0; i < POOL_BLOCK; i++)
                expect(s, data[POOL_BLOCK + i] == 'y');
        expect(s, strstr(logged, "pool 'tank'") && strstr(logged, "'v'") &&
                      strstr(logged, "offset 0") && strstr(logged, "disk"));
        struct pool_info info;
        pool_get_info(s->pool, &info);
        expect(s, info.checksum_errors == 1);
        co_volume_close(v);
        expect(s, co_sim_pool_close(s) == 0);
}

static void a_block_that_fails_its_checksum_is_eio_and_never_data(void **state)
{
        sim_pool_run(1, 1, co_rotten_data);
        sim_pool_run(3, 1, co_rotten_data);
}

/* A map whose entries say what nobody knows. */
static void co_unknown_entry(void *arg)
{
        struct sim_pool *s = arg;
        static char data[8 * POOL_BLOCK] __attribute__((aligned(POOL_BLOCK)));
        struct volume *v;
        struct node *leaf;
        struct entry e;
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 1 << 20, NULL) == 0);
        expect(s, co_sim_pool_write(s, "v", 0, 8) == 0);
        expect(s, co_volume_open(s->pool, "v", &v, NULL) == 0);
        expect(s, tree_leaf(s->pool, &v->root->body->map, 0, &leaf, &e) == 0 && leaf);
        struct entry_disk *at = &((struct node_disk *)leaf->page)->entry[5], good = *at;
        at->word.b[6] ^= 1;
        for (unsigned offset = 0; offset < 2; offset++) { /* aligned, and not */
                memset(data, 'z', sizeof(data));
                expect(s, co_volume_read(v, data, sizeof(data) - POOL_BLOCK, offset) == -EIO);
                for (unsigned i = 0; i < sizeof(data) - POOL_BLOCK; i++)
                        expect(s, data[i] == 0);
        }
        *at = good;
        co_volume_close(v);
        expect(s, co_sim_pool_close(s) == 0);
}

static void a_read_that_fails_leaves_zeroes(void **state)
{
        sim_pool_run(1, 1, co_unknown_entry);
}

/* All metadata on the member that is read first is rubbish: the other leg has it all. */
static void co_rotten_leg(void *arg)
{
        struct sim_pool *s = arg;
        struct pool_info info;
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 1 << 20, NULL) == 0);
        expect(s, co_sim_pool_write(s, "v", 0, 16) == 0);
        expect(s, co_sim_pool_snapshot(s, "v@s") == 0);
        expect(s, co_sim_pool_close(s) == 0);
        /* Slabs are taken from the front: tables, log and metadata first. */
        sim_disk_corrupt(s->disk[0], 1 << 20, 4 * SIM_SLAB_BYTES, 0x55);
        expect(s, co_sim_pool_open(s, false) == 0);
        struct volume *v;
        static char block[POOL_BLOCK] __attribute__((aligned(POOL_BLOCK)));
        expect(s, co_volume_open(s->pool, "v@s", &v, NULL) == 0);
        for (uint64_t i = 0; i < 16; i++)
                expect(s, co_volume_read(v, block, POOL_BLOCK, i * POOL_BLOCK) == 0);
        co_volume_close(v);
        pool_get_info(s->pool, &info);
        expect(s, info.repaired_errors > 0);
        expect(s, co_sim_pool_close(s) == 0);
}

static void metadata_is_read_from_the_other_leg_and_repaired(void **state)
{
        log_set_sink(NULL);
        sim_pool_run(2, 1, co_rotten_leg);
}

static void co_failing_flush(void *arg)
{
        struct sim_pool *s = arg;
        struct sim_fault fault = {
            .kind = SIM_FAULT_ERROR, .ops = SIM_OP(MEMBER_FLUSH), .error = -EIO, .count = 1};
        static char block[POOL_BLOCK] __attribute__((aligned(POOL_BLOCK)));
        struct volume *v;
        struct pool_info info;
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 1 << 20, NULL) == 0);
        expect(s, co_volume_open(s->pool, "v", &v, NULL) == 0);
        memset(block, 'a', sizeof(block));
        expect(s, co_volume_write(v, block, POOL_BLOCK, 0, 0) == 0);
        sim_disk_add_fault(s->disk[0], &fault);
        expect(s, co_volume_flush(v) == -EIO);
        /* It is not tried again: the disk may have dropped what it could not write. */
        expect(s, co_volume_flush(v) == -EIO);
        expect(s, co_volume_write(v, block, POOL_BLOCK, 0, 0) == -EIO);
        expect(s, co_volume_read(v, block, POOL_BLOCK, 0) == 0);
        pool_get_info(s->pool, &info);
        expect(s, info.failed && strstr(info.failed, "flush"));
        expect(s, co_volume_create(s->pool, "w", 1 << 20, NULL) == -EIO);
        co_volume_close(v);
        co_pool_abandon(s->pool);
        expect(s, co_sim_pool_open(s, false) == 0);
        expect(s, co_sim_pool_write(s, "v", 0, 1) == 0);
        expect(s, co_sim_pool_close(s) == 0);
}

/* A checkpoint's flushes, of which the first member's fails at once and the second's takes long. */
struct slow_flush {
        struct sim_pool *s;
        unsigned n_flushes;
        bool failed, ended;
};

static void on_slow_flush_event(void *arg, struct sim_disk *disk, const struct sim_event *event)
{
        struct slow_flush *slow = arg;
        if (event->op != MEMBER_FLUSH)
                return;
        if (disk == slow->s->disk[0] && !event->completed && ++slow->n_flushes == 2)
                sim_disk_set_latency(slow->s->disk[1], 10000000000, 10000000000);
        if (disk == slow->s->disk[1] && !event->completed)
                sim_disk_set_latency(disk, 20000, 200000);
        if (event->completed && event->result < 0)
                slow->failed = true;
}

static void slow_checkpoint(void *arg)
{
        struct slow_flush *slow = arg;
        expect(slow->s, co_pool_checkpoint(slow->s->pool, NULL) < 0);
        slow->ended = true;
}

static void co_failing_flush_beside_slow(void *arg)
{
        struct sim_pool *s = arg;
        struct slow_flush slow = {.s = s};
        struct sim_fault fault = {.kind = SIM_FAULT_ERROR,
                                  .ops = SIM_OP(MEMBER_FLUSH),
                                  .error = -EIO,
                                  .skip = 1,
                                  .count = 1};
        static char bytes[256 << 10] __attribute__((aligned(POOL_BLOCK)));
        struct volume *v;
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 1 << 20, NULL) == 0);
        expect(s, co_volume_open(s->pool, "v", &v, NULL) == 0);
        memset(bytes, 'a', sizeof(bytes)); /* on both members */
        expect(s, co_volume_write(v, bytes, sizeof(bytes), 0, 0) == 0);
        sim_disk_add_fault(s->disk[0], &fault);
        for (unsigned i = 0; i < 2; i++)
                sim_disk_set_hook(s->disk[i], on_slow_flush_event, &slow);
        expect(s, co_spawn(pool_loop(s->pool), slow_checkpoint, &slow) == 0);
        while (!slow.failed)
                co_sleep_ns(1000);
        expect(s, !slow.ended);
        /* The member's next flush would succeed, and says nothing of what the failed one lost. */
        co_volume_write(v, bytes, POOL_BLOCK, 0, 0);
        expect(s, co_volume_flush(v) == -EIO);
        while (!slow.ended)
                co_sleep_ns(1000000);
        for (unsigned i = 0; i < 2; i++)
                sim_disk_set_hook(s->disk[i], NULL, NULL);
        co_volume_close(v);
        co_pool_abandon(s->pool);
}

static void a_failed_flush_stops_writing_before_other_members_have_answered(void **state)
{
        log_set_sink(NULL);
        sim_pool_run(2, 1, co_failing_flush_beside_slow);
}

static void a_failed_flush_stops_writing_until_the_pool_is_opened_again(void **state)
{
        log_set_sink(NULL);
        sim_pool_run(1, 1, co_failing_flush);
        sim_pool_run(3, 1, co_failing_flush);
}

static void co_failing_write(void *arg)
{
        struct sim_pool *s = arg;
        static char block[4 * POOL_BLOCK] __attribute__((aligned(POOL_BLOCK)));
        struct volume *v;
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 1 << 20, NULL) == 0);
        expect(s, co_volume_open(s->pool, "v", &v, NULL) == 0);
        memset(block, 'a', sizeof(block));
        expect(s, co_volume_write(v, block, sizeof(block), 0, 0) == 0);
        struct sim_fault fault = {
            .kind = SIM_FAULT_ERROR, .ops = SIM_OP(MEMBER_WRITE), .error = -EIO, .count = 1};
        sim_disk_add_fault(s->disk[0], &fault);
        memset(block, 'b', sizeof(block));
        expect(s, co_volume_write(v, block, POOL_BLOCK, POOL_BLOCK, 0) == -EIO);
        /* Its writer hears of it; the old content is there, and everything else goes on. */
        expect(s, co_volume_read(v, block, sizeof(block), 0) == 0);
        for (size_t i = 0; i < sizeof(block); i++)
                expect(s, block[i] == 'a');
        expect(s, co_volume_write(v, block, POOL_BLOCK, 0, 0) == 0);
        expect(s, co_volume_flush(v) == 0);
        co_volume_close(v);
        expect(s, co_sim_pool_close(s) == 0);
}

static void a_failed_data_write_concerns_its_writer_only(void **state)
{
        log_set_sink(NULL);
        sim_pool_run(1, 1, co_failing_write);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(a_guest_flush_is_at_most_one_flush_of_each_member),
            cmocka_unit_test(flushes_that_come_together_share_a_round),
            cmocka_unit_test(stripes_that_are_adjacent_are_written_as_one),
            cmocka_unit_test(a_read_costs_one_device_read_however_many_snapshots),
            cmocka_unit_test(a_write_that_waited_goes_nowhere_past_the_end),
            cmocka_unit_test(an_unfinished_shrink_goes_on_at_open),
            cmocka_unit_test(block_status_of_a_large_volume_is_told_in_parts),
            cmocka_unit_test(a_full_pool_loses_nothing_and_goes_on_when_space_comes_back),
            cmocka_unit_test(a_full_host_takes_no_space_from_what_is_no_data),
            cmocka_unit_test(a_pool_whose_host_is_full_is_full_and_goes_on),
            cmocka_unit_test(deleting_snapshots_frees_a_full_pool),
            cmocka_unit_test(freed_space_is_discarded_on_the_members_once),
            cmocka_unit_test(a_block_that_fails_its_checksum_is_eio_and_never_data),
            cmocka_unit_test(a_read_that_fails_leaves_zeroes),
            cmocka_unit_test(metadata_is_read_from_the_other_leg_and_repaired),
            cmocka_unit_test(a_failed_flush_stops_writing_until_the_pool_is_opened_again),
            cmocka_unit_test(a_failed_flush_stops_writing_before_other_members_have_answered),
            cmocka_unit_test(a_failed_data_write_concerns_its_writer_only),
        };
        log_set_sink(NULL);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
