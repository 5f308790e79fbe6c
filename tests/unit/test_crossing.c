/* Handles of volumes that are used from other loops than the pool's; on both back ends. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "common/coroutine.h"
#include "common/loop_thread.h"
#include "pool/disk.h"
#include "pool/pool.h"
#include "tests/unit/loop_fixture.h"

enum { LOADS = 3, DEPTH = 16, ROUNDS = 40, BLOCKS_EACH = 64, MEMBER_BYTES = 128 << 20 };

struct test {
        struct loop *loop;
        struct loop_thread *thread[2];
        struct pool *pool;
        unsigned n_running; /* loads, counted on the pool's loop */
        struct co *waiter;
        bool failed;
        bool in_memory; /* the member */
        int fd;         /* its */
};

/* Writes blocks of its own range at a depth, reads each back, and ends with a flush. */
struct load {
        struct test *test;
        struct loop *loop;
        struct volume *volume;
        uint64_t first_block;
        unsigned n_in_flight, n_wrong;
        pid_t thread;
        struct co *co;
        struct slot {
                struct volume_request request;
                struct load *load;
                struct iovec iov;
                unsigned round, index;
                uint64_t *data;
        } slot[DEPTH];
};

#define must(condition) ((condition) ? (void)0 : must_failed(t, #condition, __LINE__))

static void must_failed(struct test *t, const char *what, int line)
{
        fprintf(stderr, "line %d: %s\n", line, what);
        t->failed = true;
}

static uint64_t stamp_of(const struct slot *s)
{
        return s->request.offset * 1000 + s->round;
}

static void submit(struct slot *s, enum volume_op op)
{
        uint64_t block = s->load->first_block + (s->round * DEPTH + s->index) % BLOCKS_EACH;

        s->request.op = op;
        s->request.offset = block * POOL_BLOCK;
        for (unsigned i = 0; i < POOL_BLOCK / sizeof(uint64_t); i++)
                s->data[i] = op == VOLUME_WRITE ? stamp_of(s) : 0;
        volume_submit(s->load->volume, &s->request);
}

static void step(struct volume_request *request, int result)
{
        struct slot *s = container_of(request, struct slot, request);
        struct load *load = s->load;

        load->n_wrong += result != 0 || gettid() != load->thread;
        if (request->op == VOLUME_WRITE) {
                submit(s, VOLUME_READ);
                return;
        }
        load->n_wrong += s->data[0] != stamp_of(s) || s->data[511] != stamp_of(s);
        if (++s->round < ROUNDS)
                submit(s, VOLUME_WRITE);
        else if (--load->n_in_flight == 0)
                co_wake(load->co);
}

static void slots_init(struct load *load)
{
        for (unsigned i = 0; i < DEPTH; i++) {
                struct slot *s = &load->slot[i];

                *s = (struct slot){.load = load, .index = i};
                s->data = aligned_alloc(POOL_BLOCK, POOL_BLOCK);
                s->iov = (struct iovec){s->data, POOL_BLOCK};
                s->request.length = POOL_BLOCK;
                s->request.iov = &s->iov;
                s->request.n_iov = 1;
                s->request.done = step;
        }
}

static void co_load(void *arg)
{
        struct load *load = arg;
        struct test *t = load->test;
        struct loop *from;

        must(co_volume_use_from(load->volume, load->loop) == 0);
        from = co_move(load->loop);
        load->thread = gettid();
        load->co = co_self();
        slots_init(load);
        load->n_in_flight = DEPTH;
        for (unsigned i = 0; i < DEPTH; i++)
                submit(&load->slot[i], VOLUME_WRITE);
        while (load->n_in_flight > 0)
                co_suspend();
        must(co_volume_flush(load->volume) == 0);
        for (unsigned i = 0; i < DEPTH; i++)
                free(load->slot[i].data);
        co_volume_close(load->volume);
        co_move(from);
        if (--t->n_running == 0)
                co_wake(t->waiter);
}

/* ---- a pool in a file that has no name ---- */

static int open_file(const char *path, bool in_memory)
{
        char name[] = "crossing.XXXXXX";
        int fd = in_memory ? memfd_create(path, MFD_CLOEXEC) : mkstemp(name);

        if (fd >= 0 && !in_memory)
                unlink(name);
        return fd;
}

static int co_pool_make(struct test *t)
{
        const struct pool_create_options create = {.name = "tank"};
        const struct pool_options options = {0};
        const char *path = "crossing";
        struct member *m;
        int fd = open_file(path, t->in_memory), r;

        if (fd < 0 || ftruncate(fd, MEMBER_BYTES) < 0)
                return -errno;
        t->fd = fd;
        r = co_disk_open_fd(t->loop, fd, path, &(struct disk_options){0}, &m, NULL);
        r = r ? r : co_pool_create(&m, 1, &create, NULL);
        r = r ? r : co_pool_open(t->loop, &m, 1, &options, &t->pool, NULL);
        return r ? r : co_volume_create(t->pool, "v", 16 << 20, NULL);
}

static void run_on(void **state, co_entry *entry, bool in_memory)
{
        struct test t = {.loop = *state, .in_memory = in_memory};

        setenv("TARN_LOOP", fixture_backend == LOOP_BACKEND_URING ? "uring" : "threads", 1);
        for (int i = 0; i < 2; i++)
                assert_int_equal(loop_thread_start("user", &t.thread[i], NULL), 0);
        unsetenv("TARN_LOOP");
        assert_int_equal(co_run(*state, entry, &t), 0);
        for (int i = 0; i < 2; i++)
                loop_thread_stop(t.thread[i]);
        assert_false(t.failed);
}

static void run(void **state, co_entry *entry)
{
        run_on(state, entry, false);
        run_on(state, entry, true);
}

/* ---- the tests ---- */

static void co_loads(void *arg)
{
        struct test *t = arg;
        struct loop *loops[LOADS] = {t->loop, loop_thread_loop(t->thread[0]),
                                     loop_thread_loop(t->thread[1])};
        struct load loads[LOADS];

        must(co_pool_make(t) == 0);
        t->waiter = co_self();
        for (unsigned i = 0; i < LOADS; i++) {
                loads[i] =
                    (struct load){.test = t, .loop = loops[i], .first_block = i * UINT64_C(1000)};
                must(co_volume_open(t->pool, "v", &loads[i].volume, NULL) == 0);
        }
        t->n_running = LOADS;
        for (unsigned i = 0; i < LOADS; i++)
                must(co_spawn(t->loop, co_load, &loads[i]) == 0);
        while (t->n_running > 0)
                co_suspend();
        for (unsigned i = 0; i < LOADS; i++)
                must(loads[i].n_wrong == 0);
        must(co_pool_close(t->pool, NULL) == 0);
}

static void requests_are_answered_on_the_loop_they_came_from(void **state)
{
        run(state, co_loads);
}

static void co_changes_users(void *arg)
{
        struct test *t = arg;
        struct load load = {.test = t};

        must(co_pool_make(t) == 0);
        t->waiter = co_self();
        for (unsigned i = 0; i < 4; i++) {
                must(co_volume_open(t->pool, "v", &load.volume, NULL) == 0);
                must(co_volume_use_from(load.volume, loop_thread_loop(t->thread[i % 2])) == 0);
                load.loop = i == 3 ? t->loop : loop_thread_loop(t->thread[(i + 1) % 2]);
                t->n_running = 1;
                must(co_spawn(t->loop, co_load, &load) == 0);
                while (t->n_running > 0)
                        co_suspend();
                must(load.n_wrong == 0);
        }
        must(co_pool_close(t->pool, NULL) == 0);
}

static void a_handle_may_change_its_loop(void **state)
{
        run_on(state, co_changes_users, true);
}

static void co_asks_from_elsewhere(void *arg)
{
        struct test *t = arg;
        struct volume_extent extents[4];
        struct volume *v;
        uint8_t data[512];
        size_t n = 0;

        must(co_pool_make(t) == 0);
        must(co_volume_open(t->pool, "v", &v, NULL) == 0);
        co_move(loop_thread_loop(t->thread[0]));
        memset(data, 'x', sizeof(data));
        must(co_volume_write(v, data, sizeof(data), 5 * POOL_BLOCK + 512, VOLUME_FUA) == 0);
        memset(data, 0, sizeof(data));
        must(co_volume_read(v, data, sizeof(data), 5 * POOL_BLOCK + 512) == 0);
        must(data[0] == 'x' && data[511] == 'x');
        must(co_volume_status(v, 0, 16 * POOL_BLOCK, extents, 4, &n) == 0);
        must(n == 3 && extents[0].length == 5 * POOL_BLOCK && extents[1].flags == 0);
        must(co_volume_discard(v, 0, 16 * POOL_BLOCK, 0) == 0);
        must(co_volume_status(v, 0, 16 * POOL_BLOCK, extents, 4, &n) == 0 && n == 1);
        must(volume_size(v) == 16 << 20 && !volume_is_readonly(v));
        co_volume_close(v);
        must(co_loop() == loop_thread_loop(t->thread[0]));
        co_move(t->loop);
        must(co_pool_close(t->pool, NULL) == 0);
}

static void what_waits_may_be_asked_from_any_loop(void **state)
{
        run_on(state, co_asks_from_elsewhere, true);
}

/* ---- reads that the user's loop makes ---- */

struct reads {
        struct test *test;
        struct volume *volume;
        struct co *co;
        unsigned n_in_flight;
        int result[DEPTH];
        uint64_t *data[DEPTH];
        struct volume_request request[DEPTH];
        struct iovec iov[DEPTH];
};

static void read_ended(struct volume_request *request, int result)
{
        struct reads *reads =
            container_of(request->iov, struct reads, iov[request->offset / POOL_BLOCK]);

        reads->result[request->offset / POOL_BLOCK] = result;
        if (--reads->n_in_flight == 0)
                co_wake(reads->co);
}

/* All at once, of blocks that hold their numbers. */
static void co_read_all(struct reads *reads)
{
        for (unsigned i = 0; i < DEPTH; i++) {
                memset(reads->data[i], 0xff, POOL_BLOCK);
                reads->iov[i] = (struct iovec){reads->data[i], POOL_BLOCK};
                reads->request[i] = (struct volume_request){.op = VOLUME_READ,
                                                            .offset = i * (uint64_t)POOL_BLOCK,
                                                            .length = POOL_BLOCK,
                                                            .iov = &reads->iov[i],
                                                            .n_iov = 1,
                                                            .done = read_ended};
                reads->n_in_flight++;
                volume_submit(reads->volume, &reads->request[i]);
        }
        reads->co = co_self();
        while (reads->n_in_flight > 0)
                co_suspend();
}

static bool is_right(const struct reads *reads, unsigned i)
{
        return reads->result[i] == 0 && reads->data[i][0] == i + 1 && reads->data[i][511] == i + 1;
}

static void co_reads_begin(struct test *t, struct reads *reads)
{
        *reads = (struct reads){.test = t};
        must(co_pool_make(t) == 0);
        must(co_volume_open(t->pool, "v", &reads->volume, NULL) == 0);
        must(co_volume_use_from(reads->volume, loop_thread_loop(t->thread[0])) == 0);
        co_move(loop_thread_loop(t->thread[0]));
        for (unsigned i = 0; i < DEPTH; i++) {
                reads->data[i] = aligned_alloc(POOL_BLOCK, POOL_BLOCK);
                for (unsigned k = 0; k < 512; k++)
                        reads->data[i][k] = i + 1;
                must(co_volume_write(reads->volume, reads->data[i], POOL_BLOCK,
                                     i * (uint64_t)POOL_BLOCK, 0) == 0);
        }
        must(co_volume_flush(reads->volume) == 0);
        co_read_all(reads);
        for (unsigned i = 0; i < DEPTH; i++)
                must(is_right(reads, i));
}

static void co_reads_end(struct reads *reads)
{
        struct test *t = reads->test;

        for (unsigned i = 0; i < DEPTH; i++)
                free(reads->data[i]);
        co_volume_close(reads->volume);
        co_move(t->loop);
        must(co_pool_close(t->pool, NULL) == 0);
}

/* Where on the member the blocks lie: each holds its number, from 1. */
static void find_blocks(struct test *t, off_t at[DEPTH])
{
        static uint64_t page[512] __attribute__((aligned(4096)));
        unsigned n = 0;

        for (off_t here = 0; n < DEPTH && here < MEMBER_BYTES; here += POOL_BLOCK)
                if (pread(t->fd, page, POOL_BLOCK, here) == POOL_BLOCK && page[0] >= 1 &&
                    page[0] <= DEPTH && page[300] == page[0] && page[511] == page[0]) {
                        at[page[0] - 1] = here;
                        n++;
                }
        must(n == DEPTH);
}

/* Not among the first, which the pool's loop reads. */
enum { DAMAGED = DEPTH - 3 };

static void co_meets_damage(void *arg)
{
        static uint64_t other[512] __attribute__((aligned(4096))) = {77};
        struct test *t = arg;
        struct pool_info info;
        struct reads reads;
        off_t at[DEPTH];

        co_reads_begin(t, &reads);
        find_blocks(t, at);
        must(pwrite(t->fd, other, POOL_BLOCK, at[DAMAGED]) == POOL_BLOCK);
        co_read_all(&reads);
        for (unsigned i = 0; i < DEPTH; i++)
                must(i == DAMAGED ? reads.result[i] == -EIO : is_right(&reads, i));
        must(reads.data[DAMAGED][0] == 0); /* nothing of what was found there */
        co_move(t->loop);
        pool_get_info(t->pool, &info);
        must(info.checksum_errors == 1);
        co_move(loop_thread_loop(t->thread[0]));
        co_reads_end(&reads);
}

static void a_damaged_block_fails_its_own_read_alone(void **state)
{
        run(state, co_meets_damage);
}

static void co_meets_the_end(void *arg)
{
        struct test *t = arg;
        struct reads reads;
        off_t at[DEPTH], last = 0;

        co_reads_begin(t, &reads);
        find_blocks(t, at);
        for (unsigned i = 0; i < DEPTH; i++)
                last = at[i] > last ? at[i] : last;
        must(ftruncate(t->fd, last) == 0);
        co_read_all(&reads);
        for (unsigned i = 0; i < DEPTH; i++)
                must(is_right(&reads, i) || reads.result[i] == -EIO);
        must(reads.result[DEPTH - 1] == -EIO);
        must(ftruncate(t->fd, MEMBER_BYTES) == 0); /* so that it can be closed */
        co_reads_end(&reads);
}

static void a_member_that_ends_too_early_fails_what_lies_behind_its_end(void **state)
{
        run(state, co_meets_the_end);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            loop_test(requests_are_answered_on_the_loop_they_came_from),
            loop_test(a_handle_may_change_its_loop),
            loop_test(what_waits_may_be_asked_from_any_loop),
            loop_test(a_damaged_block_fails_its_own_read_alone),
            loop_test(a_member_that_ends_too_early_fails_what_lies_behind_its_end),
        };

        return run_on_each_backend(tests);
}
