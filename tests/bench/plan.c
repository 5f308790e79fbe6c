#include "tests/bench/plan.h"
#include <assert.h>

static uint64_t mix(uint64_t x) /* the finalizer of splitmix64 */
{
        x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
        return x ^ (x >> 31);
}

void plan_init(struct plan *p, const struct plan_options *options)
{
        assert(options->n_blocks > 0 && options->read_percent <= 100);
        *p = (struct plan){.options = *options};
        for (unsigned i = 0; i < 4; i++)
                p->state[i] = mix(options->seed + (i + 1) * UINT64_C(0x9e3779b97f4a7c15));
}

static uint64_t rotate(uint64_t x, unsigned bits)
{
        return (x << bits) | (x >> (64 - bits));
}

uint64_t plan_random(struct plan *p) /* xoshiro256++ of Blackman and Vigna */
{
        uint64_t *s = p->state;
        uint64_t result = rotate(s[0] + s[3], 23) + s[0], t = s[1] << 17;

        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = rotate(s[3], 45);
        return result;
}

static uint64_t below(struct plan *p, uint64_t limit)
{
        return (uint64_t)(((unsigned __int128)plan_random(p) * limit) >> 64);
}

/* Where @index stands in a random order of all n blocks: a Feistel network over the smallest even
 * number of bits that holds n, applied again while it leads outside. It needs no memory, at any
 * size. */
static uint64_t shuffled(const struct plan *p, uint64_t index)
{
        unsigned half_bits = 1;
        while (half_bits < 32 && (UINT64_C(1) << (2 * half_bits)) < p->options.n_blocks)
                half_bits++;
        uint64_t mask = (UINT64_C(1) << half_bits) - 1;

        do {
                uint64_t left = index >> half_bits, right = index & mask;
                for (unsigned round = 0; round < 4; round++) {
                        uint64_t key = mix(p->options.seed + round);
                        uint64_t next = left ^ (mix(right ^ key) & mask);
                        left = right;
                        right = next;
                }
                index = left << half_bits | right;
        } while (index >= p->options.n_blocks);
        return index;
}

bool plan_next(struct plan *p, uint64_t *ret_block, bool *ret_is_read)
{
        const struct plan_options *o = &p->options;

        if (o->once && p->cursor == o->n_blocks)
                return false;
        if (o->once && o->random)
                *ret_block = shuffled(p, p->cursor++);
        else if (o->random)
                *ret_block = below(p, o->n_blocks);
        else {
                *ret_block = p->cursor++;
                if (!o->once && p->cursor == o->n_blocks)
                        p->cursor = 0;
        }
        if (o->read_percent == 0 || o->read_percent == 100)
                *ret_is_read = o->read_percent == 100;
        else
                *ret_is_read = below(p, 100) < o->read_percent;
        return true;
}
