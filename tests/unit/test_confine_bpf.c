/* test_confine_bpf.c - programs of seccomp(2) made of rules do what the rules say, for every number, as a
 * plain interpreter of the instructions runs them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <string.h>
#include <cmocka.h>
#include "common/confine_bpf.h"

#define ELSE     (SECCOMP_RET_ERRNO | ENOSYS)
#define MAX      8192u
#define N(array) (sizeof(array) / sizeof((array)[0]))

static struct sock_filter program[MAX];
static size_t length;

/* linux/filter.h's instructions, as far as seccomp(2) lets them be used here. */
static uint32_t run(const struct seccomp_data *data)
{
        uint32_t a = 0;

        for (size_t at = 0; at < length; at++) {
                const struct sock_filter *i = &program[at];

                switch (i->code) {
                case BPF_LD | BPF_W | BPF_ABS:
                        assert_true(i->k % 4 == 0 && i->k < sizeof(*data));
                        memcpy(&a, (const uint8_t *)data + i->k, 4);
                        break;
                case BPF_ALU | BPF_AND | BPF_K:
                        a &= i->k;
                        break;
                case BPF_JMP | BPF_JA:
                        at += i->k;
                        break;
                case BPF_JMP | BPF_JEQ | BPF_K:
                        at += a == i->k ? i->jt : i->jf;
                        break;
                case BPF_JMP | BPF_JGE | BPF_K:
                        at += a >= i->k ? i->jt : i->jf;
                        break;
                case BPF_RET | BPF_K:
                        return i->k;
                default:
                        fail_msg("instruction 0x%x", i->code);
                }
        }
        fail_msg("it runs over its end");
        return 0;
}

static uint32_t call(int number, uint64_t first, uint64_t second)
{
        const struct seccomp_data data = {
            .nr = number, .arch = AUDIT_ARCH_X86_64, .args = {first, second}};

        return run(&data);
}

static void make(struct confine_rule *rules, size_t n)
{
        int r = confine_bpf_make(rules, n, ELSE, program, MAX);

        assert_true(r > 0);
        length = (size_t)r;
}

/* ---- which call ---- */

static void test_each_number_gets_what_its_rule_says(void **state)
{
        struct confine_rule rules[] = {{.number = 60, .action = SECCOMP_RET_ALLOW},
                                       {.number = 0, .action = SECCOMP_RET_ALLOW},
                                       {.number = 61, .action = SECCOMP_RET_KILL_PROCESS},
                                       {.number = 1, .action = SECCOMP_RET_ALLOW},
                                       {.number = 450, .action = SECCOMP_RET_ALLOW}};

        make(rules, N(rules));
        for (int i = 0; i < 1000; i++) {
                bool is_allowed = i == 0 || i == 1 || i == 60 || i == 450;

                assert_int_equal(call(i, 0, 0), is_allowed ? SECCOMP_RET_ALLOW
                                                : i == 61  ? SECCOMP_RET_KILL_PROCESS
                                                           : ELSE);
        }
}

static void test_without_rules_all_are_the_same(void **state)
{
        make(NULL, 0);
        for (int i = 0; i < 1000; i++)
                assert_int_equal(call(i, 0, 0), ELSE);
}

/* So many that jumps are longer than a conditional one can be. */
static void test_many_rules(void **state)
{
        struct confine_rule rules[500];
        static const struct confine_check checks[] = {{0, UINT64_MAX, 7}, {1, 0xff00, 0x1200}};

        for (size_t i = 0; i < N(rules); i++) {
                rules[i] = (struct confine_rule){.number = (int)(3 * (N(rules) - i)),
                                                 .action = SECCOMP_RET_TRACE | (uint32_t)i};
                if (i % 2) {
                        rules[i].checks = checks;
                        rules[i].n_checks = N(checks);
                }
        }
        make(rules, N(rules));
        assert_true(length > 1024);
        for (int number = 0; number < 2000; number++) {
                size_t i = N(rules) - (size_t)number / 3;
                bool has_rule = number > 0 && number % 3 == 0 && number <= 1500;

                assert_int_equal(call(number, 7, 0), has_rule ? SECCOMP_RET_TRACE | i : ELSE);
                assert_int_equal(call(number, 8, 0x3413ff),
                                 has_rule && i % 2 == 0 ? SECCOMP_RET_TRACE | i : ELSE);
                assert_int_equal(call(number, 8, 0xff12ff),
                                 has_rule ? SECCOMP_RET_TRACE | i : ELSE);
        }
}

static void test_calls_of_another_machine_end_the_process(void **state)
{
        struct confine_rule rules[] = {{.number = 1, .action = SECCOMP_RET_ALLOW}};
        struct seccomp_data data = {.nr = 1, .arch = AUDIT_ARCH_I386};

        make(rules, N(rules));
        assert_int_equal(run(&data), SECCOMP_RET_KILL_PROCESS);
        data.arch = AUDIT_ARCH_X86_64;
        assert_int_equal(run(&data), SECCOMP_RET_ALLOW);
        data.nr = 0x40000001; /* x32 */
        assert_int_equal(run(&data), SECCOMP_RET_KILL_PROCESS);
        data.nr = -1;
        assert_int_equal(run(&data), SECCOMP_RET_KILL_PROCESS);
}

/* ---- with which arguments ---- */

static void test_an_argument_has_its_value(void **state)
{
        static const struct confine_check value[] = {{0, UINT64_MAX, 0x100000002}};
        struct confine_rule rules[] = {{5, SECCOMP_RET_ALLOW, value, 1}};

        make(rules, N(rules));
        assert_int_equal(call(5, 0x100000002, 0), SECCOMP_RET_ALLOW);
        assert_int_equal(call(5, 0x100000003, 0), ELSE);
        assert_int_equal(call(5, 2, 0), ELSE);
        assert_int_equal(call(5, 0x200000002, 0), ELSE);
        assert_int_equal(call(4, 0x100000002, 0), ELSE);
        assert_int_equal(call(6, 0x100000002, 0), ELSE);
}

static void test_only_bits_of_the_mask_count(void **state)
{
        static const struct confine_check low[] = {{1, UINT32_MAX, 3}};
        static const struct confine_check none_of[] = {{1, 4, 0}};
        static const struct confine_check high[] = {
            {1, UINT64_C(0xf0) << 32, UINT64_C(0x50) << 32}};
        static const struct confine_check both[] = {{1, 0xf0000000f, 0x500000003}};
        struct confine_rule rules[] = {{5, SECCOMP_RET_ALLOW, low, 1},
                                       {6, SECCOMP_RET_ALLOW, none_of, 1},
                                       {7, SECCOMP_RET_ALLOW, high, 1},
                                       {8, SECCOMP_RET_ALLOW, both, 1}};

        make(rules, N(rules));
        assert_int_equal(call(5, 0, 0xffff00000003), SECCOMP_RET_ALLOW);
        assert_int_equal(call(5, 0, 7), ELSE);
        assert_int_equal(call(6, 0, ~UINT64_C(4)), SECCOMP_RET_ALLOW);
        assert_int_equal(call(6, 0, 4), ELSE);
        assert_int_equal(call(7, 0, 0x5f00000000 | 0x1234), SECCOMP_RET_ALLOW);
        assert_int_equal(call(7, 0, 0x6f00000000 | 0x1234), ELSE);
        assert_int_equal(call(8, 0, 0xf5fffffff3), SECCOMP_RET_ALLOW);
        assert_int_equal(call(8, 0, 0xf5fffffff2), ELSE);
        assert_int_equal(call(8, 0, 0xf4fffffff3), ELSE);
}

static void test_any_of_several_checks_is_enough(void **state)
{
        static const struct confine_check checks[] = {
            {0, UINT64_MAX, 1}, {1, 0xff00, 0xae00}, {0, UINT32_MAX, 9}};
        struct confine_rule rules[] = {{5, SECCOMP_RET_ALLOW, checks, N(checks)},
                                       {6, SECCOMP_RET_ALLOW, NULL, 0}};

        make(rules, N(rules));
        assert_int_equal(call(5, 1, 0), SECCOMP_RET_ALLOW);
        assert_int_equal(call(5, 0, 0x1ae44), SECCOMP_RET_ALLOW);
        assert_int_equal(call(5, 0x100000009, 0), SECCOMP_RET_ALLOW);
        assert_int_equal(call(5, 2, 0xaf00), ELSE);
        assert_int_equal(call(6, 2, 0xaf00), SECCOMP_RET_ALLOW);
}

/* ---- what is refused ---- */

static void test_rules_that_make_no_sense(void **state)
{
        static const struct confine_check no_argument[] = {{6, 1, 1}}, no_bits[] = {{0, 0, 0}};
        struct confine_rule twice[] = {{.number = 3}, {.number = 2}, {.number = 3}};
        struct confine_rule negative[] = {{.number = -1}};
        struct confine_rule x32[] = {{.number = 0x40000000}};
        struct confine_rule argument[] = {{1, SECCOMP_RET_ALLOW, no_argument, 1}};
        struct confine_rule bits[] = {{1, SECCOMP_RET_ALLOW, no_bits, 1}};

        assert_int_equal(confine_bpf_make(twice, 3, ELSE, program, MAX), -EINVAL);
        assert_int_equal(confine_bpf_make(negative, 1, ELSE, program, MAX), -EINVAL);
        assert_int_equal(confine_bpf_make(x32, 1, ELSE, program, MAX), -EINVAL);
        assert_int_equal(confine_bpf_make(argument, 1, ELSE, program, MAX), -EINVAL);
        assert_int_equal(confine_bpf_make(bits, 1, ELSE, program, MAX), -EINVAL);
}

static void test_too_little_room(void **state)
{
        struct confine_rule rules[] = {{.number = 3, .action = SECCOMP_RET_ALLOW},
                                       {.number = 30, .action = SECCOMP_RET_ALLOW}};
        int needed = confine_bpf_make(rules, N(rules), ELSE, program, MAX);

        assert_true(needed > 0);
        for (int max = 0; max < needed; max++)
                assert_int_equal(confine_bpf_make(rules, N(rules), ELSE, program, (size_t)max),
                                 -E2BIG);
        assert_int_equal(confine_bpf_make(rules, N(rules), ELSE, program, (size_t)needed), needed);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(test_each_number_gets_what_its_rule_says),
            cmocka_unit_test(test_without_rules_all_are_the_same),
            cmocka_unit_test(test_many_rules),
            cmocka_unit_test(test_calls_of_another_machine_end_the_process),
            cmocka_unit_test(test_an_argument_has_its_value),
            cmocka_unit_test(test_only_bits_of_the_mask_count),
            cmocka_unit_test(test_any_of_several_checks_is_enough),
            cmocka_unit_test(test_rules_that_make_no_sense),
            cmocka_unit_test(test_too_little_room),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
