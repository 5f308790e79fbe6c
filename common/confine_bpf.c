/* confine_bpf.c - see confine_bpf.h.
 *
 * The numbers of system calls are cut into ranges in which the same is done, and a range is sought by
 * halves. Jumps of the classic instruction set go forwards, and conditional ones by 255 at most. */
#include "common/confine_bpf.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stdlib.h>

#define X32_BIT    0x40000000
#define JUMP_MAX   255u
#define RANGES_MAX 1024u

/* From @first to the next one's; @rule NULL: what no rule is for. */
struct range {
        int first;
        const struct confine_rule *rule;
};

struct output {
        struct sock_filter *program;
        size_t n, max;
        uint32_t otherwise;
        int result; /* -E2BIG: it was too much */
};

static void put(struct output *o, uint16_t code, uint32_t k, uint8_t jt, uint8_t jf)
{
        if (o->n == o->max)
                o->result = -E2BIG;
        else
                o->program[o->n++] = (struct sock_filter)BPF_JUMP(code, k, jt, jf);
}

static void load(struct output *o, size_t offset)
{
        put(o, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset, 0, 0);
}

static void answer(struct output *o, uint32_t action)
{
        put(o, BPF_RET | BPF_K, action, 0, 0);
}

/* ---- one call ---- */

/* One half of an argument: where it has not its value, jump over @rest instructions that follow, and the
 * answer behind them. */
static void compare(struct output *o, size_t offset, uint32_t mask, uint32_t value, size_t rest)
{
        load(o, offset);
        if (mask != UINT32_MAX)
                put(o, BPF_ALU | BPF_AND | BPF_K, mask, 0, 0);
        put(o, BPF_JMP | BPF_JEQ | BPF_K, value, 0, (uint8_t)(rest + 1));
}

static size_t compare_length(uint32_t mask)
{
        return mask == 0 ? 0 : mask == UINT32_MAX ? 2 : 3;
}

/* x86-64 is little-endian: the lower half of an argument comes first. */
static void check(struct output *o, const struct confine_check *c, uint32_t action)
{
        const size_t offset = offsetof(struct seccomp_data, args) + c->argument * sizeof(uint64_t);
        const uint32_t low = (uint32_t)c->mask, high = (uint32_t)(c->mask >> 32);

        if (low != 0)
                compare(o, offset, low, (uint32_t)c->value, compare_length(high));
        if (high != 0)
                compare(o, offset + 4, high, (uint32_t)(c->value >> 32), 0);
        answer(o, action);
}

static void decide(struct output *o, const struct confine_rule *rule)
{
        if (!rule || rule->n_checks == 0) {
                answer(o, rule ? rule->action : o->otherwise);
                return;
        }
        for (size_t i = 0; i < rule->n_checks; i++)
                check(o, &rule->checks[i], rule->action);
        answer(o, o->otherwise);
}

/* ---- which call ---- */

/* By halves: the lower one follows the comparison, the upper one lies behind that. */
static void seek(struct output *o, const struct range *ranges, size_t n)
{
        const size_t middle = n / 2;
        size_t at, length;

        if (n == 1) {
                decide(o, ranges[0].rule);
                return;
        }
        at = o->n;
        put(o, BPF_JMP | BPF_JGE | BPF_K, (uint32_t)ranges[middle].first, 0, 1);
        put(o, BPF_JMP | BPF_JA, 0, 0, 0);
        seek(o, ranges, middle);
        if (o->result < 0)
                return;
        length = o->n - at - 2;
        if (length < JUMP_MAX) {
                /* Without the long jump, which was for a lower half of unknown length. */
                for (size_t i = at + 1; i + 1 < o->n; i++)
                        o->program[i] = o->program[i + 1];
                o->n--;
                o->program[at].jt = (uint8_t)length;
                o->program[at].jf = 0;
        } else {
                o->program[at + 1].k = (uint32_t)length;
        }
        seek(o, ranges + middle, n - middle);
}

static bool do_the_same(const struct confine_rule *a, const struct confine_rule *b)
{
        if (!a || !b)
                return a == b;
        return a->n_checks == 0 && b->n_checks == 0 && a->action == b->action;
}

static void add_range(struct range *ranges, size_t *n, int first, const struct confine_rule *rule)
{
        if (*n == 0 || !do_the_same(ranges[*n - 1].rule, rule))
                ranges[(*n)++] = (struct range){first, rule};
}

static int compare_numbers(const void *a, const void *b)
{
        const struct confine_rule *x = a, *y = b;

        return x->number < y->number ? -1 : x->number > y->number;
}

static int make_ranges(struct confine_rule *rules, size_t n, struct range *ranges, size_t *ret_n)
{
        *ret_n = 0;
        if (2 * n + 1 > RANGES_MAX)
                return -E2BIG;
        if (n > 0)
                qsort(rules, n, sizeof(*rules), compare_numbers);
        for (size_t i = 0; i < n; i++) {
                const struct confine_rule *rule = &rules[i];
                const int next = i == 0 ? 0 : rules[i - 1].number + 1;

                if (rule->number < next || rule->number >= X32_BIT)
                        return -EINVAL;
                for (size_t j = 0; j < rule->n_checks; j++)
                        if (rule->checks[j].argument > 5 || rule->checks[j].mask == 0)
                                return -EINVAL;
                if (rule->number > next)
                        add_range(ranges, ret_n, next, NULL);
                add_range(ranges, ret_n, rule->number, rule);
        }
        add_range(ranges, ret_n, n == 0 ? 0 : rules[n - 1].number + 1, NULL);
        return 0;
}

int confine_bpf_make(struct confine_rule *rules, size_t n, uint32_t otherwise,
                     struct sock_filter *program, size_t max)
{
        struct output o = {.program = program, .max = max, .otherwise = otherwise};
        struct range ranges[RANGES_MAX];
        size_t n_ranges;
        int r = make_ranges(rules, n, ranges, &n_ranges);

        if (r < 0)
                return r;
        load(&o, offsetof(struct seccomp_data, arch));
        put(&o, BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
        answer(&o, SECCOMP_RET_KILL_PROCESS);
        load(&o, offsetof(struct seccomp_data, nr));
        put(&o, BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 0, 1);
        answer(&o, SECCOMP_RET_KILL_PROCESS);
        seek(&o, ranges, n_ranges);
        return o.result < 0 ? o.result : (int)o.n;
}
