/* sim_random.h - the simulator's random numbers, so that a seed means the same run on every machine
 * and with every C library.
 *
 * Threads    a generator belongs to one thread.
 * Errors     none.
 * Ownership  a generator is plain memory of the caller's.
 * Source     splitmix64: Steele, Lea, Flood: Fast splittable pseudorandom number generators (2014).
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct sim_random {
        uint64_t state;
};

static inline uint64_t sim_mix(uint64_t x)
{
        x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
        return x ^ (x >> 31);
}

static inline void sim_random_init(struct sim_random *r, uint64_t seed)
{
        r->state = seed;
}

static inline uint64_t sim_random_next(struct sim_random *r)
{
        r->state += UINT64_C(0x9e3779b97f4a7c15);
        return sim_mix(r->state);
}

/* 0 <= result < @limit; the bias of the modulus does not matter to tests. @limit is not 0. */
static inline uint64_t sim_random_below(struct sim_random *r, uint64_t limit)
{
        return sim_random_next(r) % limit;
}

/* True once in @one_in times. */
static inline bool sim_random_chance(struct sim_random *r, uint64_t one_in)
{
        return sim_random_below(r, one_in) == 0;
}
