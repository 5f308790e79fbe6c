/* sim_loop.c - the virtual clock: a queue of tasks and a heap of timers. */
#include "tests/sim/sim_loop.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "tests/sim/sim_memory.h"
#include "tests/sim/sim_random.h"

/* A round figure that is not 0, so that code which takes 0 for "never" is found out. */
#define SIM_LOOP_START_NS UINT64_C(1000000000)
/* Somebody who runs a loop again and again in which nothing can happen would do so for ever. */
#define IDLE_RUNS_MAX 1000u

struct sim_loop {
        struct loop base;
        uint64_t now_ns;
        struct sim_random random;
        bool shuffle;
        uint64_t next_order;

        struct loop_task *first_task, **end_task;

        /* A binary heap from index 1 on; a timer's heap_index is 0 while it is not armed, as zeroed
         * ones are. */
        struct loop_timer **heap;
        uint32_t n_heap, heap_capacity;

        bool stop;
        enum sim_loop_end end;
        uint64_t steps, max_steps;
        unsigned n_idle_runs; /* in a row */
};

static struct sim_loop *sim_loop_of(const struct loop *loop)
{
        return (struct sim_loop *)loop;
}

static bool fires_before(const struct loop_timer *a, const struct loop_timer *b)
{
        if (a->deadline_ns != b->deadline_ns)
                return a->deadline_ns < b->deadline_ns;
        return a->order < b->order;
}

static void heap_put(struct sim_loop *s, uint32_t index, struct loop_timer *timer)
{
        s->heap[index] = timer;
        timer->heap_index = index;
}

/* Let @timer find its place from the free position @index. */
static void heap_settle(struct sim_loop *s, uint32_t index, struct loop_timer *timer)
{
        while (index > 1 && fires_before(timer, s->heap[index / 2])) {
                heap_put(s, index, s->heap[index / 2]);
                index /= 2;
        }
        for (;;) {
                uint32_t child = 2 * index;
                if (child > s->n_heap)
                        break;
                if (child + 1 <= s->n_heap && fires_before(s->heap[child + 1], s->heap[child]))
                        child++;
                if (!fires_before(s->heap[child], timer))
                        break;
                heap_put(s, index, s->heap[child]);
                index = child;
        }
        heap_put(s, index, timer);
}

static void heap_remove(struct sim_loop *s, struct loop_timer *timer)
{
        uint32_t index = timer->heap_index;
        struct loop_timer *last = s->heap[s->n_heap--];

        timer->heap_index = 0;
        if (last != timer)
                heap_settle(s, index, last);
}

static void heap_reserve(struct sim_loop *s)
{
        if (s->n_heap + 1 < s->heap_capacity)
                return;
        s->heap_capacity = s->heap_capacity ? 2 * s->heap_capacity : 64;
        s->heap = sim_must(realloc(s->heap, s->heap_capacity * sizeof(struct loop_timer *)));
}

static uint64_t sim_now_ns(struct loop *loop)
{
        return sim_loop_of(loop)->now_ns;
}

static void sim_submit(struct loop *loop, struct loop_io *io)
{
        assert(!"a simulated loop has no system calls to make");
}

static void sim_timer_cancel(struct loop *loop, struct loop_timer *timer)
{
        if (timer->heap_index)
                heap_remove(sim_loop_of(loop), timer);
}

static void sim_timer_set(struct loop *loop, struct loop_timer *timer, uint64_t deadline_ns)
{
        struct sim_loop *s = sim_loop_of(loop);

        sim_timer_cancel(loop, timer);
        heap_reserve(s);
        timer->deadline_ns = deadline_ns;
        timer->order = s->shuffle ? sim_random_next(&s->random) : s->next_order++;
        list_init(&timer->link);
        heap_settle(s, ++s->n_heap, timer);
}

static void sim_post(struct loop *loop, struct loop_task *task)
{
        struct sim_loop *s = sim_loop_of(loop);

        if (task->queued)
                return;
        task->queued = true;
        task->next = NULL;
        *s->end_task = task;
        s->end_task = &task->next;
}

static void run_task(struct sim_loop *s)
{
        struct loop_task *task = s->first_task;

        s->first_task = task->next;
        if (!s->first_task)
                s->end_task = &s->first_task;
        task->next = NULL;
        task->queued = false;
        task->run(task);
}

static void run_timer(struct sim_loop *s)
{
        struct loop_timer *timer = s->heap[1];

        heap_remove(s, timer);
        if (timer->deadline_ns > s->now_ns)
                s->now_ns = timer->deadline_ns;
        s->base.time_ns = 0;
        timer->fire(timer);
}

static enum sim_loop_end run_until_end(struct sim_loop *s)
{
        uint64_t limit = s->max_steps ? s->steps + s->max_steps : UINT64_MAX;

        while (!s->stop) {
                if (s->steps >= limit)
                        return SIM_LOOP_LIMIT;
                if (s->first_task)
                        run_task(s);
                else if (s->n_heap)
                        run_timer(s);
                else
                        return SIM_LOOP_IDLE;
                s->steps++;
        }
        return SIM_LOOP_STOPPED;
}

static void sim_run(struct loop *loop)
{
        struct sim_loop *s = sim_loop_of(loop);

        uint64_t steps = s->steps;

        s->end = run_until_end(s);
        s->stop = false;
        s->n_idle_runs = s->end == SIM_LOOP_IDLE && s->steps == steps ? s->n_idle_runs + 1 : 0;
        assert(s->n_idle_runs < IDLE_RUNS_MAX); /* a deadlock */
}

static void sim_stop(struct loop *loop)
{
        sim_loop_of(loop)->stop = true;
}

static void sim_free(struct loop *loop)
{
        struct sim_loop *s = sim_loop_of(loop);

        free(s->heap);
        free(s);
}

static const struct loop_ops sim_loop_ops = {
    .now_ns = sim_now_ns,
    .submit = sim_submit,
    .cancel = sim_submit,
    .timer_set = sim_timer_set,
    .timer_cancel = sim_timer_cancel,
    .post = sim_post,
    .post_remote = sim_post,
    .run = sim_run,
    .stop = sim_stop,
    .free = sim_free,
};

int sim_loop_new(uint64_t seed, bool shuffle, struct loop **ret_loop)
{
        struct sim_loop *s = calloc(1, sizeof(*s));

        if (!s)
                return -ENOMEM;
        s->base.ops = &sim_loop_ops;
        list_init(&s->base.idle_coroutines);
        sim_loop_reset(&s->base, seed, shuffle);
        *ret_loop = &s->base;
        return 0;
}

uint32_t sim_loop_reset(struct loop *loop, uint64_t seed, bool shuffle)
{
        struct sim_loop *s = sim_loop_of(loop);
        uint32_t n_armed = s->n_heap;

        s->now_ns = SIM_LOOP_START_NS;
        s->base.time_ns = 0;
        sim_random_init(&s->random, seed);
        s->shuffle = shuffle;
        s->next_order = 0;
        s->first_task = NULL;
        s->end_task = &s->first_task;
        s->n_heap = 0;
        s->stop = false;
        s->end = SIM_LOOP_STOPPED;
        s->steps = s->max_steps = 0;
        s->n_idle_runs = 0;
        return n_armed;
}

enum sim_loop_end sim_loop_end(const struct loop *loop)
{
        return sim_loop_of(loop)->end;
}

void sim_loop_set_step_limit(struct loop *loop, uint64_t max_steps)
{
        sim_loop_of(loop)->max_steps = max_steps;
}

uint64_t sim_loop_steps(const struct loop *loop)
{
        return sim_loop_of(loop)->steps;
}

struct main_co {
        struct loop *loop;
        co_entry *entry;
        void *arg;
        bool in_loop, ended, given_up;
};

static void run_main(void *arg)
{
        struct main_co *m = arg;

        m->entry(m->arg);
        m->ended = true;
        if (m->given_up)
                free(m);
        else if (m->in_loop)
                loop_stop(m->loop);
}

int sim_loop_co_run(struct loop *loop, co_entry *entry, void *arg)
{
        /* Not on our stack: a coroutine that never ends keeps it. */
        struct main_co *m = sim_must(calloc(1, sizeof(*m)));
        int r;

        *m = (struct main_co){.loop = loop, .entry = entry, .arg = arg};
        r = co_spawn(loop, run_main, m);
        m->in_loop = true;
        while (r == 0 && !m->ended) {
                loop_run(loop);
                if (m->ended || sim_loop_end(loop) == SIM_LOOP_STOPPED)
                        continue; /* a stop by somebody else is not the end */
                m->given_up = true;
                return sim_loop_end(loop) == SIM_LOOP_IDLE ? -EDEADLK : -ETIMEDOUT;
        }
        free(m);
        return r;
}
