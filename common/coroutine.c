/* coroutine.c - coroutines: their life, waiting, and what is built of it.
 *
 * A struct co lies at the top of its own stack. A stack whose coroutine has ended is kept by the
 * loop, stopped in co_main() in front of its next life.
 */
#include "common/coroutine.h"
#include <assert.h>
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>
#include "common/coroutine_switch.h"
#include "common/sanitizers.h"

#if WITH_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if WITH_TSAN
#include <sanitizer/tsan_interface.h>
#endif

/* The sanitizers' frames are several times as large. */
#if WITH_ASAN || WITH_TSAN
#define STACK_BYTES ((size_t)512 << 10)
#else
#define STACK_BYTES ((size_t)128 << 10)
#endif
/* Stacks kept by a loop for reuse: 32 MiB of addresses, of which each holds the few pages it has
 * touched. */
#define IDLE_MAX 256

/* The functions that change stacks must keep nothing in the shadow of a stack that they leave. */
#define SWITCHES_STACKS __attribute__((noinline, no_sanitize_address, no_sanitize_thread))

enum co_state {
        CO_IDLE,      /* between two lives */
        CO_RUNNING,   /* it, or what it resumed, runs */
        CO_SUSPENDED, /* in co_suspend(): co_wake() lets it go on */
        CO_WAITING, /* in a wait of this file, which alone lets it go on; co_wake() is remembered */
        CO_READY,   /* its task is posted */
};

struct co {
        struct co_context context;
        struct co_context resumer; /* who runs while this one does not */
        struct co *outer;          /* co_self() of the resumer */
        struct loop *loop;
        co_entry *entry;
        void *arg;
        enum co_state state;
        bool wake_remembered;
        struct loop *moving_to; /* between leaving one loop and being posted to the other */
        struct loop_task task;  /* resumes */
        struct list link;       /* in loop->idle_coroutines */
        void *mapping;
        size_t mapping_bytes;
#if WITH_ASAN
        void *fake_stack, *resumer_fake_stack;
        const void *resumer_stack;
        size_t resumer_stack_bytes;
#endif
#if WITH_TSAN
        void *fiber, *resumer_fiber;
#endif
};

static _Thread_local struct co *current;

struct co *co_self(void)
{
        return current;
}

struct loop *co_loop(void)
{
        assert(current);
        return current->loop;
}

/* Switching */

/* From the resumer into @co, until it leaves. */
static SWITCHES_STACKS void enter(struct co *co)
{
        co->outer = current;
        current = co;
#if WITH_TSAN
        co->resumer_fiber = __tsan_get_current_fiber();
        __tsan_switch_to_fiber(co->fiber, 0);
#endif
#if WITH_ASAN
        __sanitizer_start_switch_fiber(&co->resumer_fake_stack, co->mapping, co->mapping_bytes);
#endif
        co_context_switch(&co->resumer, &co->context);
#if WITH_ASAN
        __sanitizer_finish_switch_fiber(co->resumer_fake_stack, NULL, NULL);
#endif
        current = co->outer;
}

/* The first thing after an arrival on @co's stack. */
static inline __attribute__((always_inline, no_sanitize_address, no_sanitize_thread)) void
arrived(struct co *co)
{
#if WITH_ASAN
        __sanitizer_finish_switch_fiber(co->fake_stack, &co->resumer_stack,
                                        &co->resumer_stack_bytes);
#else
        (void)co;
#endif
}

/* From @co back to its resumer, until somebody enters it again. At the end of a life ASan gives up
 * its fake frames. */
static SWITCHES_STACKS void leave(struct co *co, bool end_of_life)
{
#if WITH_TSAN
        __tsan_switch_to_fiber(co->resumer_fiber, 0);
#endif
#if WITH_ASAN
        __sanitizer_start_switch_fiber(end_of_life ? NULL : &co->fake_stack, co->resumer_stack,
                                       co->resumer_stack_bytes);
        if (end_of_life)
                co->fake_stack = NULL;
#else
        (void)end_of_life;
#endif
        co_context_switch(&co->context, &co->resumer);
        arrived(co);
}

/* The bottom of every coroutine's stack. */
static SWITCHES_STACKS void co_main(void)
{
        struct co *co = current;

        arrived(co);
        for (;;) {
                co->entry(co->arg);
                co->state = CO_IDLE;
                leave(co, true);
        }
}

/* Stacks */

static struct co *co_new(struct loop *loop)
{
        const size_t page = (size_t)sysconf(_SC_PAGESIZE);
        const size_t total = STACK_BYTES + page;
        uint8_t *mapping = mmap(NULL, total, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
        struct co *co;

        if (mapping == MAP_FAILED)
                return NULL;
        if (mprotect(mapping, page, PROT_NONE) < 0) {
                munmap(mapping, total);
                return NULL;
        }
        co = (struct co *)(mapping + total - (sizeof(*co) + 63) / 64 * 64);
        *co = (struct co){.loop = loop, .mapping = mapping, .mapping_bytes = total};
        list_init(&co->link);
#if WITH_TSAN
        co->fiber = __tsan_create_fiber(0);
#endif
        co_context_init(&co->context, mapping + page, (size_t)((uint8_t *)co - mapping) - page,
                        co_main);
        return co;
}

static void co_unmap(struct co *co)
{
        void *mapping = co->mapping;
        size_t bytes = co->mapping_bytes;

#if WITH_TSAN
        __tsan_destroy_fiber(co->fiber);
#endif
#if WITH_ASAN
        __asan_unpoison_memory_region(mapping, bytes);
#endif
        munmap(mapping, bytes);
}

/* From the cache of @loop, or new; NULL when out of memory. The list is looked at only where the
 * counter says that something is in it, so that a back end need not initialise it. */
static struct co *co_get(struct loop *loop)
{
        struct co *co;

        if (loop->n_idle_coroutines == 0)
                return co_new(loop);
        co = container_of(loop->idle_coroutines.next, struct co, link);
        list_remove(&co->link);
        loop->n_idle_coroutines--;
        return co;
}

static void co_put(struct co *co)
{
        struct loop *loop = co->loop;

        if (loop->n_idle_coroutines >= IDLE_MAX) {
                co_unmap(co);
                return;
        }
        if (loop->n_idle_coroutines++ == 0)
                list_init(&loop->idle_coroutines);
        /* The one that ended last is the one whose stack is still in the processor's cache. */
        list_prepend(&loop->idle_coroutines, &co->link);
}

void co_free_idle(struct loop *loop)
{
        for (; loop->n_idle_coroutines > 0; loop->n_idle_coroutines--) {
                struct co *co = container_of(loop->idle_coroutines.next, struct co, link);

                list_remove(&co->link);
                co_unmap(co);
        }
}

/* Running and waiting */

static void resume(struct co *co)
{
        co->state = CO_RUNNING;
        enter(co);
        if (co->moving_to) {
                struct loop *loop = co->moving_to;

                co->moving_to = NULL;
                co->loop = loop;
                co->state = CO_READY;
                loop_post_remote(loop, &co->task); /* from here on it is another thread's */
        } else if (co->state == CO_IDLE) {
                co_put(co);
        }
}

static void resume_task(struct loop_task *task)
{
        resume(container_of(task, struct co, task));
}

int co_spawn(struct loop *loop, co_entry *entry, void *arg)
{
        struct co *co = co_get(loop);

        if (!co)
                return -ENOMEM;
        co->entry = entry;
        co->arg = arg;
        co->wake_remembered = false;
        co->task.run = resume_task;
        resume(co);
        return 0;
}

static void make_ready(struct co *co)
{
        co->state = CO_READY;
        loop_post(co->loop, &co->task);
}

void co_suspend(void)
{
        struct co *co = current;

        assert(co);
        if (co->wake_remembered) {
                co->wake_remembered = false;
                return;
        }
        co->state = CO_SUSPENDED;
        leave(co, false);
}

void co_wake(struct co *co)
{
        assert(co->state != CO_IDLE);
        if (co->state == CO_SUSPENDED)
                make_ready(co);
        else
                co->wake_remembered = true;
}

/* The waits of this file are apart from co_suspend() and co_wake(): a wake from outside ends none
 * of them, and none of them swallows one. */
static void wait_inside(struct co *co)
{
        co->state = CO_WAITING;
        leave(co, false);
}

static void wake_inside(struct co *co)
{
        assert(co->state == CO_WAITING);
        make_ready(co);
}

/* Operations and time */

static void io_done(struct loop_io *io, int result)
{
        io->result = result;
        wake_inside(io->waiter);
}

int co_io(struct loop_io *io)
{
        struct co *co = current;

        assert(co);
        io->done = io_done;
        io->waiter = co;
        loop_submit(co->loop, io);
        wait_inside(co);
        return io->result;
}

struct sleeper {
        struct loop_timer timer;
        struct co *co;
};

static void sleeper_fire(struct loop_timer *timer)
{
        wake_inside(container_of(timer, struct sleeper, timer)->co);
}

void co_sleep_ns(uint64_t duration_ns)
{
        struct co *co = current;
        struct sleeper sleeper = {.timer.fire = sleeper_fire, .co = co};
        uint64_t deadline_ns;

        assert(co);
        if (__builtin_add_overflow(loop_now_ns(co->loop), duration_ns, &deadline_ns))
                deadline_ns = UINT64_MAX;
        loop_timer_set(co->loop, &sleeper.timer, deadline_ns);
        wait_inside(co);
}

/* By a timer that is due at once and not by a posted task: timers fire after the completions of the
 * next pass over the kernel, so that I/O which is ready comes first. */
void co_yield_loop(void)
{
        co_sleep_ns(0);
}

/* Its own stack is left before the other thread is told of it: by resume(). */
struct loop *co_move(struct loop *loop)
{
        struct co *co = current;
        struct loop *from;

        assert(co);
        from = co->loop;
        if (from != loop) {
                co->moving_to = loop;
                leave(co, false);
        }
        return from;
}

/* Queues */

struct waiter {
        struct list link;
        struct co *co;
};

void co_wait(struct co_queue *q)
{
        struct waiter waiter = {.co = current};

        assert(current);
        list_append(&q->waiting, &waiter.link);
        wait_inside(waiter.co);
}

void co_wake_one(struct co_queue *q)
{
        struct list *first = q->waiting.next;

        if (list_empty(&q->waiting))
                return;
        list_remove(first);
        wake_inside(container_of(first, struct waiter, link)->co);
}

void co_wake_all(struct co_queue *q)
{
        while (!co_queue_empty(q))
                co_wake_one(q);
}

/* A released lock passes straight to the first in the queue and is never free in between: otherwise
 * a coroutine that comes back at once could take it again and again. */
void co_lock(struct co_mutex *m)
{
        if (m->held)
                co_wait(&m->queue);
        else
                m->held = true;
}

void co_unlock(struct co_mutex *m)
{
        assert(m->held);
        if (co_queue_empty(&m->queue))
                m->held = false;
        else
                co_wake_one(&m->queue);
}

/* A whole program in one coroutine */

struct main_coroutine {
        struct loop *loop;
        co_entry *entry;
        void *arg;
        bool in_loop, ended;
};

static void run_main(void *arg)
{
        struct main_coroutine *m = arg;

        m->entry(m->arg);
        m->ended = true;
        if (m->in_loop)
                loop_stop(m->loop);
}

int co_run(struct loop *loop, co_entry *entry, void *arg)
{
        struct main_coroutine m = {.loop = loop, .entry = entry, .arg = arg};
        int r = co_spawn(loop, run_main, &m);

        if (r < 0)
                return r;
        /* A stop by somebody else does not end the coroutine, and m must outlive it. */
        m.in_loop = true;
        while (!m.ended)
                loop_run(loop);
        return 0;
}
