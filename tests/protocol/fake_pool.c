/* fake_pool.c - see fake_pool.h. Requests take effect when they are submitted, and are answered
 * from the loop, all of an iteration at once. */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "common/coroutine.h"
#include "tests/protocol/fake_pool.h"

enum block_state { BLOCK_HOLE = 0, BLOCK_ZERO = 1, BLOCK_DATA = 2 };

struct pending {
        struct list link; /* in held or done */
        struct volume_request *request;
        int result;
        bool waits; /* it is not done yet */
};

/* Enough for a few connections. No allocation while requests run: tests make those of the server
 * fail. */
#define PENDING_MAX 1024

#define ZERO_MAPPED (UINT64_C(1) << 27)

#define EMPTY_BLOCK (UINT64_C(64) << 20) /* of a volume that keeps no data */

struct volume {
        struct loop *loop;
        uint64_t size_bytes, made_bytes;
        bool keeps;           /* discard=off */
        uint64_t block_bytes; /* what a state is kept for */
        uint8_t *data;        /* NULL: none are kept */
        uint8_t *blocks;      /* enum block_state each */
        struct loop_task task;
        pthread_mutex_t mutex; /* of all below */
        pthread_cond_t changed;
        struct list held;
        unsigned n_held;
        bool hold, posted;
        enum fake_wait waits_for; /* those that come */
        bool cancelled, hurried;
        struct list done, unused;
        struct pending pendings[PENDING_MAX];
        int fail[VOLUME_ZERO + 1], fail_status;
        uint64_t shrink_to; /* when a request comes; 0: not */
        struct fake_counts counts;
        uint64_t bytes_in_flight;
        unsigned writes_in_flight;
};

static void *map(size_t length)
{
        void *p = mmap(NULL, length, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        assert(p != MAP_FAILED);
        return p;
}

static uint64_t n_blocks(const struct volume *volume)
{
        return volume->made_bytes / volume->block_bytes + 1;
}

static void answer_all(struct loop_task *task);

static struct volume *volume_new(struct loop *loop, uint64_t size_bytes, uint64_t block_bytes)
{
        struct volume *volume = calloc(1, sizeof(*volume));

        assert(volume);
        volume->loop = loop;
        volume->size_bytes = volume->made_bytes = size_bytes;
        volume->block_bytes = block_bytes;
        volume->blocks = map(n_blocks(volume));
        volume->task.run = answer_all;
        pthread_mutex_init(&volume->mutex, NULL);
        pthread_cond_init(&volume->changed, NULL);
        list_init(&volume->held);
        list_init(&volume->done);
        list_init(&volume->unused);
        for (unsigned i = 0; i < PENDING_MAX; i++)
                list_append(&volume->unused, &volume->pendings[i].link);
        return volume;
}

struct volume *fake_volume_new(struct loop *loop, uint64_t size_bytes)
{
        struct volume *volume = volume_new(loop, size_bytes, POOL_BLOCK);

        volume->data = map(size_bytes);
        return volume;
}

struct volume *fake_volume_new_empty(struct loop *loop, uint64_t size_bytes)
{
        return volume_new(loop, size_bytes, EMPTY_BLOCK);
}

void fake_volume_free(struct volume *volume)
{
        assert(volume->counts.in_flight == 0);
        if (volume->data)
                munmap(volume->data, volume->made_bytes);
        munmap(volume->blocks, n_blocks(volume));
        free(volume);
}

void fake_volume_reset(struct volume *volume)
{
        assert(volume->counts.in_flight == 0 && list_empty(&volume->held));
        volume->size_bytes = volume->made_bytes;
        volume->keeps = volume->hold = volume->cancelled = volume->hurried = false;
        volume->waits_for = FAKE_WAIT_NOTHING;
        memset(volume->fail, 0, sizeof(volume->fail));
        volume->fail_status = 0;
        volume->shrink_to = 0;
        volume->counts = (struct fake_counts){0};
        if (volume->data)
                madvise(volume->data, volume->made_bytes, MADV_DONTNEED);
        madvise(volume->blocks, n_blocks(volume), MADV_DONTNEED);
}

void fake_resize(struct volume *volume, uint64_t size_bytes)
{
        assert(size_bytes <= volume->made_bytes);
        __atomic_store_n(&volume->size_bytes, size_bytes, __ATOMIC_SEQ_CST);
}

void fake_shrink_at_submit(struct volume *volume, uint64_t size_bytes)
{
        pthread_mutex_lock(&volume->mutex);
        volume->shrink_to = size_bytes;
        pthread_mutex_unlock(&volume->mutex);
}

uint64_t volume_size(const struct volume *volume)
{
        return __atomic_load_n(&volume->size_bytes, __ATOMIC_SEQ_CST);
}

bool volume_discards(const struct volume *volume)
{
        return !__atomic_load_n(&volume->keeps, __ATOMIC_SEQ_CST);
}

/* Requests wait here when they are told to. */
void volume_set_wait_when_full(struct volume *volume, bool wait)
{
        (void)volume;
        (void)wait;
}

void fake_keep(struct volume *volume, bool keep)
{
        __atomic_store_n(&volume->keeps, keep, __ATOMIC_SEQ_CST);
}

struct loop *volume_loop(const struct volume *volume)
{
        return volume->loop;
}

int co_volume_use_from(struct volume *volume, struct loop *loop)
{
        assert(loop == volume->loop);
        return 0;
}

const uint8_t *fake_data(struct volume *volume)
{
        pthread_mutex_lock(&volume->mutex);
        pthread_mutex_unlock(&volume->mutex);
        return volume->data;
}

void fake_fill(struct volume *volume, uint64_t offset, uint8_t byte, uint64_t length)
{
        pthread_mutex_lock(&volume->mutex);
        memset(volume->data + offset, byte, length);
        pthread_mutex_unlock(&volume->mutex);
}

/* ---- faults and counts ---- */

void fake_fail(struct volume *volume, enum volume_op op, int error)
{
        pthread_mutex_lock(&volume->mutex);
        volume->fail[op] = error;
        pthread_mutex_unlock(&volume->mutex);
}

void fake_fail_status(struct volume *volume, int error)
{
        pthread_mutex_lock(&volume->mutex);
        volume->fail_status = error;
        pthread_mutex_unlock(&volume->mutex);
}

void fake_hold(struct volume *volume)
{
        pthread_mutex_lock(&volume->mutex);
        volume->hold = true;
        pthread_mutex_unlock(&volume->mutex);
}

static void begin(struct volume *volume, struct pending *pending, bool cancelled);

static void release(struct volume *volume, struct list *node)
{
        struct pending *pending = container_of(node, struct pending, link);

        if (pending->waits) /* the limits let it go, or there is space */
                begin(volume, pending, false);
        list_remove(node);
        list_append(&volume->done, node);
        volume->n_held--;
        loop_post_remote(volume->loop, &volume->task);
}

void fake_release_last(struct volume *volume)
{
        pthread_mutex_lock(&volume->mutex);
        assert(volume->n_held > 0);
        release(volume, volume->held.prev);
        pthread_mutex_unlock(&volume->mutex);
}

void fake_release_all(struct volume *volume)
{
        pthread_mutex_lock(&volume->mutex);
        volume->hold = false;
        volume->waits_for = FAKE_WAIT_NOTHING;
        while (!list_empty(&volume->held))
                release(volume, volume->held.next);
        pthread_mutex_unlock(&volume->mutex);
}

void fake_wait_for(struct volume *volume, enum fake_wait what)
{
        pthread_mutex_lock(&volume->mutex);
        volume->waits_for = what;
        volume->cancelled = false;
        pthread_mutex_unlock(&volume->mutex);
}

unsigned fake_n_held(struct volume *volume)
{
        pthread_mutex_lock(&volume->mutex);
        unsigned n = volume->n_held;
        pthread_mutex_unlock(&volume->mutex);
        return n;
}

struct fake_counts fake_counts(struct volume *volume)
{
        pthread_mutex_lock(&volume->mutex);
        struct fake_counts counts = volume->counts;
        pthread_mutex_unlock(&volume->mutex);
        return counts;
}

void fake_wait_held(struct volume *volume, unsigned n)
{
        pthread_mutex_lock(&volume->mutex);
        while (volume->n_held < n)
                pthread_cond_wait(&volume->changed, &volume->mutex);
        pthread_mutex_unlock(&volume->mutex);
}

/* ---- requests ---- */

static bool transfers(const struct volume_request *r)
{
        return r->op == VOLUME_READ || r->op == VOLUME_WRITE;
}

static void copy(struct volume *volume, const struct volume_request *r)
{
        uint64_t at = r->offset;

        for (unsigned i = 0; i < r->n_iov; i++) {
                size_t length = r->iov[i].iov_len;
                if (!volume->data && r->op == VOLUME_READ)
                        memset(r->iov[i].iov_base, 0, length);
                else if (r->op == VOLUME_READ)
                        memcpy(r->iov[i].iov_base, volume->data + at, length);
                else if (volume->data)
                        memcpy(volume->data + at, r->iov[i].iov_base, length);
                if ((uintptr_t)r->iov[i].iov_base % POOL_BLOCK != 0)
                        volume->counts.unaligned++;
                at += length;
        }
        assert(at == r->offset + r->length);
}

/* Whole blocks inside the range change state; of those in part only writing makes data. */
static void set_blocks(struct volume *volume, const struct volume_request *r)
{
        uint64_t size = volume->block_bytes, first = r->offset / size,
                 end = (r->offset + r->length + size - 1) / size;
        uint8_t state = r->op == VOLUME_WRITE  ? BLOCK_DATA
                        : r->op == VOLUME_ZERO ? BLOCK_ZERO
                                               : BLOCK_HOLE;

        for (uint64_t b = first; b < end; b++) {
                bool whole = b * size >= r->offset && (b + 1) * size <= r->offset + r->length;
                if (whole || r->op == VOLUME_WRITE)
                        volume->blocks[b] = state;
        }
}

/* Large ranges become memory that is not there, which reads as zeroes. */
static void zero(struct volume *volume, uint64_t offset, uint64_t length)
{
        if (!volume->data)
                return;
        if (length >= ZERO_MAPPED && offset % POOL_BLOCK == 0 && length % POOL_BLOCK == 0)
                madvise(volume->data + offset, length, MADV_DONTNEED);
        else
                memset(volume->data + offset, 0, length);
}

static void execute(struct volume *volume, const struct volume_request *r)
{
        if (transfers(r))
                copy(volume, r);
        else if (r->op != VOLUME_FLUSH)
                zero(volume, r->offset, r->length);
        if (r->op != VOLUME_READ && r->op != VOLUME_FLUSH)
                set_blocks(volume, r);
}

static void count(struct volume *volume, const struct volume_request *r)
{
        struct fake_counts *c = &volume->counts;

        c->submitted[r->op]++;
        if (r->flags & VOLUME_FUA)
                c->fua[r->op]++;
        if (++c->in_flight > c->in_flight_max)
                c->in_flight_max = c->in_flight;
        if (transfers(r)) {
                volume->bytes_in_flight += r->length;
                c->data = r->n_iov > 0 ? r->iov[0].iov_base : NULL;
        }
        if (volume->bytes_in_flight > c->bytes_in_flight_max)
                c->bytes_in_flight_max = volume->bytes_in_flight;
        if (r->op == VOLUME_WRITE)
                volume->writes_in_flight++;
        if (r->op == VOLUME_FLUSH)
                c->flush_in_flight_writes += volume->writes_in_flight;
}

static void begin(struct volume *volume, struct pending *pending, bool cancelled)
{
        pending->waits = false;
        if (pending->result == 0 && cancelled)
                pending->result = -ECANCELED;
        if (pending->result == 0)
                execute(volume, pending->request);
}

/* Where those that have to wait for it are told not to: are they given up? */
static bool is_given_up(const struct volume *volume)
{
        return volume->cancelled || volume->waits_for == FAKE_WAIT_SPACE;
}

void volume_submit(struct volume *volume, struct volume_request *r)
{
        pthread_mutex_lock(&volume->mutex);
        if (volume->shrink_to > 0)
                fake_resize(volume, volume->shrink_to);
        volume->shrink_to = 0;
        uint64_t size = volume_size(volume);
        assert(!list_empty(&volume->unused));
        struct pending *pending = container_of(volume->unused.next, struct pending, link);
        list_remove(&pending->link);
        count(volume, r);
        pending->request = r;
        pending->result = volume->fail[r->op];
        if (r->offset > size || r->length > size - r->offset)
                pending->result = -EINVAL;
        bool would_wait = volume->waits_for != FAKE_WAIT_NOTHING;
        pending->waits = would_wait && !volume->cancelled && !volume->hurried;
        if (!pending->waits)
                begin(volume, pending, would_wait && is_given_up(volume));
        if (volume->hold || pending->waits) {
                list_append(&volume->held, &pending->link);
                volume->n_held++;
                pthread_cond_broadcast(&volume->changed);
        } else {
                list_append(&volume->done, &pending->link);
                loop_post(volume->loop, &volume->task);
        }
        pthread_mutex_unlock(&volume->mutex);
}

/* As the engine does; a volume is its only handle here. */
static void stop_waiting(struct volume *volume)
{
        list_for_each_safe (it, &volume->held) {
                struct pending *pending = container_of(it, struct pending, link);

                if (!pending->waits)
                        continue;
                begin(volume, pending, is_given_up(volume));
                release(volume, &pending->link);
        }
}

void volume_cancel(struct volume *volume)
{
        pthread_mutex_lock(&volume->mutex);
        volume->cancelled = true;
        stop_waiting(volume);
        pthread_mutex_unlock(&volume->mutex);
}

void volume_hurry(struct volume *volume, bool hurry)
{
        pthread_mutex_lock(&volume->mutex);
        volume->hurried = hurry;
        if (hurry)
                stop_waiting(volume);
        pthread_mutex_unlock(&volume->mutex);
}

static void answer_all(struct loop_task *task)
{
        struct volume *volume = container_of(task, struct volume, task);
        struct list done;

        list_init(&done);
        pthread_mutex_lock(&volume->mutex);
        list_splice(&done, &volume->done);
        list_for_each (it, &done) {
                const struct volume_request *r = container_of(it, struct pending, link)->request;
                volume->counts.in_flight--;
                if (transfers(r))
                        volume->bytes_in_flight -= r->length;
                if (r->op == VOLUME_WRITE)
                        volume->writes_in_flight--;
        }
        pthread_mutex_unlock(&volume->mutex);
        while (!list_empty(&done)) {
                struct pending *pending = container_of(done.next, struct pending, link);
                struct volume_request *r = pending->request;
                int result = pending->result;
                pthread_mutex_lock(&volume->mutex);
                list_remove(&pending->link);
                list_append(&volume->unused, &pending->link);
                pthread_mutex_unlock(&volume->mutex);
                r->done(r, result);
        }
}

/* ---- what stands where ---- */

typedef unsigned block_flags(const struct volume *volume, const struct volume *since,
                             uint64_t block);

static unsigned allocation_flags(const struct volume *volume, const struct volume *since,
                                 uint64_t block)
{
        static const unsigned flags[] = {
            [BLOCK_HOLE] = EXTENT_HOLE | EXTENT_ZERO, [BLOCK_ZERO] = EXTENT_ZERO, [BLOCK_DATA] = 0};

        return flags[volume->blocks[block]];
}

/* Zeroes are an ancestor's. */
static unsigned depth_flags(const struct volume *volume, const struct volume *since, uint64_t block)
{
        static const unsigned depths[] = {[BLOCK_HOLE] = 0, [BLOCK_ZERO] = 2, [BLOCK_DATA] = 1};

        return depths[volume->blocks[block]];
}

static unsigned changed_flags(const struct volume *volume, const struct volume *since,
                              uint64_t block)
{
        size_t at = block * POOL_BLOCK;

        if (!volume->data || !since->data)
                return EXTENT_CHANGED;
        return memcmp(volume->data + at, since->data + at, POOL_BLOCK) ? EXTENT_CHANGED : 0;
}

static int co_extents(struct volume *volume, const struct volume *since, block_flags *flags_of,
                      uint64_t offset, uint64_t length, struct volume_extent *extents, size_t n_max,
                      size_t *ret_n)
{
        uint64_t end = offset + length;
        size_t n = 0;

        pthread_mutex_lock(&volume->mutex);
        volume->counts.statuses++;
        int fail = volume->fail_status;
        pthread_mutex_unlock(&volume->mutex);
        co_yield_loop(); /* as one that had to read the map */
        if (fail)
                return fail;
        while (offset < end) {
                uint64_t block_end = (offset / volume->block_bytes + 1) * volume->block_bytes;
                uint64_t piece = (block_end < end ? block_end : end) - offset;
                unsigned f = flags_of(volume, since, offset / volume->block_bytes);
                if (n > 0 && extents[n - 1].flags == f)
                        extents[n - 1].length += piece;
                else if (n == n_max)
                        break;
                else
                        extents[n++] = (struct volume_extent){piece, f};
                offset += piece;
        }
        *ret_n = n;
        return 0;
}

int co_volume_status(struct volume *volume, uint64_t offset, uint64_t length,
                     struct volume_extent *extents, size_t n_max, size_t *ret_n)
{
        return co_extents(volume, NULL, allocation_flags, offset, length, extents, n_max, ret_n);
}

int co_volume_depth(struct volume *volume, uint64_t offset, uint64_t length,
                    struct volume_extent *extents, size_t n_max, size_t *ret_n)
{
        return co_extents(volume, NULL, depth_flags, offset, length, extents, n_max, ret_n);
}

int co_volume_changed(struct volume *volume, struct volume *since, uint64_t offset, uint64_t length,
                      struct volume_extent *extents, size_t n_max, size_t *ret_n)
{
        return co_extents(volume, since, changed_flags, offset, length, extents, n_max, ret_n);
}
