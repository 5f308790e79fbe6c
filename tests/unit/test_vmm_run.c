/* test_vmm_run.c - letting vCPUs run and making them rest, and what guests ask for meanwhile: with threads
 * that are vCPUs but for the guest. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "tests/vmm/machine_fixture.h"
#include "vmm-glue/vmm/vcpu.h"

#define VCPUS  3u
#define ROUNDS 300u

static struct machine_fixture *f;
static struct vcpu vcpus[VCPUS];
static struct kvm_run runs[VCPUS];
static atomic_uint n_in_guest, n_entered;
/* What each vCPU does when it enters the guest next, once. */
static void (*_Atomic act)(struct machine *machine);

static struct {
        unsigned n_resets, n_ended, n_panics;
        enum vmm_end how;
        char sentence[64];
        int reset_fails;
} told;

/* ---- vcpu.c and machine.c, as far as run.c needs them ---- */

void vcpu_kick(struct vcpu *vcpu)
{
        __atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
}

void *vcpu_thread(void *arg)
{
        struct vcpu *vcpu = arg;

        while (run_wait(vcpu)) {
                void (*now)(struct machine *);

                atomic_fetch_add(&n_in_guest, 1);
                atomic_fetch_add(&n_entered, 1);
                now = atomic_exchange(&act, NULL);
                if (now)
                        now(vcpu->machine);
                while (!__atomic_load_n(&vcpu->run->immediate_exit, __ATOMIC_SEQ_CST))
                        sched_yield();
                atomic_fetch_sub(&n_in_guest, 1);
        }
        return NULL;
}

int machine_reset(struct machine *machine, struct error *err)
{
        assert_int_equal(atomic_load(&n_in_guest), 0);
        told.n_resets++;
        return told.reset_fails ? error_set(err, told.reset_fails, "there is no kernel any more")
                                : 0;
}

/* ---- what the machine's owner is told ---- */

static void on_ended(void *arg, enum vmm_end how, const char *sentence)
{
        assert_int_equal(atomic_load(&n_in_guest), 0);
        told.n_ended++;
        told.how = how;
        strncpy(told.sentence, sentence ? sentence : "", sizeof(told.sentence) - 1);
}

static void on_panicked(void *arg)
{
        told.n_panics++;
}

static int set_up(void **state)
{
        f = fixture_new(LAYOUT_RAM_MIN, NULL);
        memset(&told, 0, sizeof(told));
        f->events.ended = on_ended;
        f->events.panicked = on_panicked;
        for (unsigned i = 0; i < VCPUS; i++) {
                runs[i].immediate_exit = 0;
                vcpus[i] = (struct vcpu){.machine = &f->machine, .index = i, .run = &runs[i]};
        }
        f->machine.vcpus = vcpus;
        f->machine.n_vcpus = VCPUS;
        run_init(&f->machine);
        assert_int_equal(run_start_threads(&f->machine, NULL), 0);
        return 0;
}

static int tear_down(void **state)
{
        run_end_threads(&f->machine);
        assert_int_equal(atomic_load(&n_in_guest), 0);
        fixture_run(f);
        run_destroy(&f->machine, NULL);
        fixture_free(f);
        return 0;
}

static void wait_in_guest(void)
{
        for (unsigned left = 20000; atomic_load(&n_in_guest) < VCPUS; left--) {
                assert_true(left > 0);
                usleep(1000);
        }
}

static void assert_resting(void)
{
        unsigned before = atomic_load(&n_entered);

        assert_int_equal(atomic_load(&n_in_guest), 0);
        usleep(2000);
        assert_int_equal(atomic_load(&n_entered), before);
}

static void test_all_rest_and_all_go(void **state)
{
        assert_resting();
        for (unsigned i = 0; i < ROUNDS; i++) {
                run_go(&f->machine);
                if (i % 3 == 0)
                        wait_in_guest();
                run_rest(&f->machine);
                assert_int_equal(atomic_load(&n_in_guest), 0);
        }
        assert_resting();
        run_rest(&f->machine); /* they do already */
        run_go(&f->machine);
        wait_in_guest();
}

static void test_a_reset_begins_anew(void **state)
{
        for (unsigned i = 1; i <= 20; i++) {
                atomic_store(&act, machine_ask_reset);
                run_go(&f->machine);
                fixture_run(f);
                while (told.n_resets < i)
                        fixture_run(f);
                wait_in_guest();
                run_rest(&f->machine);
        }
        assert_int_equal(told.n_resets, 20);
        assert_int_equal(told.n_ended, 0);
}

static void test_a_reset_that_fails_is_the_end(void **state)
{
        told.reset_fails = -EINVAL;
        run_go(&f->machine);
        machine_ask_reset(&f->machine);
        fixture_run(f);
        assert_int_equal(told.n_ended, 1);
        assert_int_equal(told.how, VMM_END_FAILED);
        assert_string_equal(told.sentence, "there is no kernel any more");
        assert_resting();
        /* And what comes behind it is nothing. */
        machine_ask_reset(&f->machine);
        machine_ask_power_off(&f->machine);
        fixture_run(f);
        assert_int_equal(told.n_resets, 1);
        assert_int_equal(told.n_ended, 1);
}

static void test_a_paused_machine_is_reset_and_rests(void **state)
{
        f->machine.run.paused = true;
        machine_ask_reset(&f->machine);
        assert_int_equal(run_pending(&f->machine), RUN_ASKED_RESET);
        fixture_run(f);
        assert_int_equal(run_pending(&f->machine), 0);
        assert_int_equal(told.n_resets, 1);
        assert_resting();
        run_go(&f->machine);
        wait_in_guest();
}

/* Who goes on before the loop has come to it goes on behind it. */
static void test_what_was_asked_comes_before_going_on(void **state)
{
        machine_ask_reset(&f->machine);
        run_go(&f->machine);
        assert_resting();
        fixture_run(f);
        assert_int_equal(told.n_resets, 1);
        wait_in_guest();
}

/* But a panic is only told: the machine goes on, as it does with nothing asked. */
static void test_a_panic_keeps_nobody_back(void **state)
{
        machine_guest_panicked(&f->machine);
        run_go(&f->machine);
        wait_in_guest();
        fixture_run(f);
        assert_int_equal(told.n_panics, 1);
        assert_int_equal(atomic_load(&n_in_guest), VCPUS);
        assert_int_equal(told.n_ended, 0);
}

static void fail_twice(struct machine *machine)
{
        machine_fail(machine, "vCPU %u is lost", 7u);
        machine_fail(machine, "and so is another");
}

static void test_of_several_the_last_counts(void **state)
{
        run_go(&f->machine);
        machine_ask_reset(&f->machine);
        machine_guest_panicked(&f->machine);
        machine_ask_power_off(&f->machine);
        fixture_run(f);
        assert_int_equal(told.n_panics, 1);
        assert_int_equal(told.n_resets, 0);
        assert_int_equal(told.n_ended, 1);
        assert_int_equal(told.how, VMM_END_POWER_OFF);
        assert_resting();
}

static void test_a_failure_counts_more_than_all(void **state)
{
        atomic_store(&act, fail_twice);
        machine_guest_panicked(&f->machine);
        run_go(&f->machine);
        while (atomic_load(&act))
                sched_yield();
        machine_ask_power_off(&f->machine);
        fixture_run(f);
        while (told.n_ended == 0)
                fixture_run(f);
        assert_int_equal(told.how, VMM_END_FAILED);
        assert_string_equal(told.sentence, "vCPU 7 is lost");
        assert_resting();
}

static void test_no_loop_comes_to_a_machine_that_is_gone(void **state)
{
        struct machine *gone = calloc(1, sizeof(*gone));

        assert_non_null(gone);
        gone->loop = f->machine.loop;
        run_init(gone);
        machine_ask_power_off(gone);
        run_destroy(gone, gone);
        fixture_run(f);
        assert_int_equal(told.n_ended, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
        const struct CMUnitTest tests[] = {
            TEST(test_all_rest_and_all_go),
            TEST(test_a_reset_begins_anew),
            TEST(test_a_reset_that_fails_is_the_end),
            TEST(test_a_paused_machine_is_reset_and_rests),
            TEST(test_what_was_asked_comes_before_going_on),
            TEST(test_a_panic_keeps_nobody_back),
            TEST(test_of_several_the_last_counts),
            TEST(test_a_failure_counts_more_than_all),
            TEST(test_no_loop_comes_to_a_machine_that_is_gone),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
