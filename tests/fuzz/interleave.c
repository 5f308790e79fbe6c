/* interleave.c - see interleave.h. Nothing here is watched itself. */
#include "tests/fuzz/interleave.h"
#include <stdbool.h>

#define UNWATCHED __attribute__((no_sanitize("coverage", "address", "undefined")))

static struct change {
        unsigned left; /* comparisons; 0: it is not to come */
        unsigned period, turn, n_turns;
        void (*change)(unsigned arg, unsigned turn);
        unsigned arg;
} changes[INTERLEAVE_MAX];
static unsigned n_changes;
/* For the thread that let time go on, and no other: one that closes files beside it makes comparisons
 * too, at moments that nothing repeats, and a change of its would come when time stands still. */
static _Thread_local bool running;

UNWATCHED void interleave_at(unsigned after, unsigned period, unsigned n_turns,
                             void (*change)(unsigned arg, unsigned turn), unsigned arg)
{
        for (unsigned i = 0; i < INTERLEAVE_MAX && n_turns > 0; i++)
                if (changes[i].left == 0) {
                        changes[i] = (struct change){after + 1, period, 0, n_turns, change, arg};
                        n_changes++;
                        return;
                }
}

UNWATCHED void interleave_forget(void)
{
        for (unsigned i = 0; i < INTERLEAVE_MAX; i++)
                changes[i].left = 0;
        n_changes = 0;
}

UNWATCHED void interleave_run(void)
{
        running = n_changes > 0;
}

UNWATCHED void interleave_stop(void)
{
        running = false;
}

UNWATCHED static void take_turn(struct change *c)
{
        c->change(c->arg, c->turn++);
        if (c->turn < c->n_turns)
                c->left = c->period;
        else
                n_changes--;
}

UNWATCHED static void tick(void)
{
        running = false; /* what a change does is not counted */
        for (unsigned i = 0; i < INTERLEAVE_MAX; i++)
                if (changes[i].left > 0 && --changes[i].left == 0)
                        take_turn(&changes[i]);
        running = n_changes > 0;
}

/* The calls that clang puts in. They end in a jump, as the fuzzer looks up where it was called. */
#define COMPARISON(name, type)                                                                     \
        void __real_##name(type a, type b);                                                        \
        void __wrap_##name(type a, type b);                                                        \
        UNWATCHED void __wrap_##name(type a, type b)                                               \
        {                                                                                          \
                if (running)                                                                       \
                        tick();                                                                    \
                __attribute__((musttail)) return __real_##name(a, b);                              \
        }
COMPARISON(__sanitizer_cov_trace_cmp1, uint8_t)
COMPARISON(__sanitizer_cov_trace_cmp2, uint16_t)
COMPARISON(__sanitizer_cov_trace_cmp4, uint32_t)
COMPARISON(__sanitizer_cov_trace_cmp8, uint64_t)
COMPARISON(__sanitizer_cov_trace_const_cmp1, uint8_t)
COMPARISON(__sanitizer_cov_trace_const_cmp2, uint16_t)
COMPARISON(__sanitizer_cov_trace_const_cmp4, uint32_t)
COMPARISON(__sanitizer_cov_trace_const_cmp8, uint64_t)
