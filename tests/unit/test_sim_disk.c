/* test_sim_disk.c - the simulator keeps its own rules (tests/sim/README.md): a simulated disk that
 * is kinder than a real one would hide bugs. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/coroutine.h"
#include "pool/member.h"
#include "tests/sim/sim_disk.h"
#include "tests/sim/sim_loop.h"
#include "tests/sim/sim_random.h"

#define DISK_BYTES (UINT64_C(64) << 20)
#define PAGE       4096u

/* ---- the disk ---- */

struct world {
        struct loop *loop;
        struct sim_disk *disk;
        struct member *member;
};

static struct loop *new_loop(uint64_t seed)
{
        struct loop *loop;

        assert_int_equal(sim_loop_new(seed, false, &loop), 0);
        return loop;
}

static struct world new_world(uint64_t seed, const struct sim_disk_options *options)
{
        struct sim_disk_options o = options ? *options : (struct sim_disk_options){.seed = seed};
        struct sim_image *blank = sim_image_new(DISK_BYTES);
        struct world w = {.loop = new_loop(seed), .disk = sim_disk_new(blank, &o)};

        sim_image_free(blank);
        assert_int_equal(sim_disk_open(w.disk, w.loop, &w.member), 0);
        return w;
}

static void free_world(struct world *w)
{
        if (w->member)
                member_close(w->member);
        loop_free(w->loop);
        sim_disk_free(w->disk);
}

struct request {
        struct member_io io;
        struct iovec iov;
        uint8_t *memory;
        bool done;
        int result;
        unsigned rank; /* among all completions */
};

static unsigned n_done;

static void request_done(struct member_io *io, int result)
{
        struct request *r = container_of(io, struct request, io);

        r->done = true;
        r->result = result;
        r->rank = ++n_done;
}

static void submit(struct world *w, struct request *r, enum member_op op, uint64_t offset,
                   uint64_t length, uint8_t byte)
{
        memset(r, 0, sizeof(*r));
        r->io =
            (struct member_io){.op = op, .offset = offset, .length = length, .done = request_done};
        if (op == MEMBER_READ || op == MEMBER_WRITE) {
                assert_int_equal(posix_memalign((void **)&r->memory, PAGE, length), 0);
                memset(r->memory, byte, length);
                r->iov = (struct iovec){.iov_base = r->memory, .iov_len = length};
                r->io.iov = &r->iov;
                r->io.n_iov = 1;
        }
        member_submit(w->member, &r->io);
        assert_false(r->done);
}

/* Run until nothing is in flight; the result of the last. */
static int settle(struct world *w, struct request *r)
{
        loop_run(w->loop);
        assert_true(r->done);
        free(r->memory);
        r->memory = NULL;
        return r->result;
}

static int run(struct world *w, enum member_op op, uint64_t offset, uint64_t length, uint8_t byte)
{
        struct request r;

        submit(w, &r, op, offset, length, byte);
        return settle(w, &r);
}

static uint8_t byte_of(struct sim_image *image, uint64_t offset)
{
        uint8_t byte;

        sim_image_read(image, offset, &byte, 1);
        return byte;
}

/* What is found at @offset when the power goes now with these choices. */
static uint8_t crash_byte(struct world *w, const uint8_t *choice, uint64_t offset)
{
        struct sim_image *image = sim_disk_crash(w->disk, choice);
        uint8_t byte = byte_of(image, offset);

        sim_image_free(image);
        return byte;
}

static uint8_t visible_byte(struct world *w, uint64_t offset)
{
        struct sim_image *image = sim_disk_visible(w->disk);
        uint8_t byte = byte_of(image, offset);

        sim_image_free(image);
        return byte;
}

static void test_reads_see_completed_writes_and_holes_are_zeroes(void **state)
{
        struct world w = new_world(1, NULL);
        struct request r;

        assert_int_equal(run(&w, MEMBER_WRITE, 8192, PAGE, 'w'), 0);
        submit(&w, &r, MEMBER_READ, 4096, 3 * PAGE, 0xff);
        loop_run(w.loop);
        assert_int_equal(r.result, 0);
        for (unsigned i = 0; i < 3 * PAGE; i++)
                assert_int_equal(r.memory[i], i / PAGE == 1 ? 'w' : 0);
        free(r.memory);
        assert_int_equal(w.member->meter.line[METER_WRITE].requests, 1);
        assert_int_equal(w.member->meter.line[METER_READ].bytes, 3 * PAGE);
        free_world(&w);
}

static void test_write_is_lost_until_a_flush_has_completed(void **state)
{
        struct world w = new_world(1, NULL);
        struct request flush;

        assert_int_equal(run(&w, MEMBER_WRITE, 0, PAGE, 'a'), 0);
        assert_int_equal(sim_disk_n_pending(w.disk), 1);
        assert_int_equal(crash_byte(&w, NULL, 0), 0);
        submit(&w, &flush, MEMBER_FLUSH, 0, 0, 0);
        assert_int_equal(crash_byte(&w, NULL, 0), 0);
        assert_int_equal(settle(&w, &flush), 0);
        assert_int_equal(sim_disk_n_pending(w.disk), 0);
        assert_int_equal(crash_byte(&w, NULL, 0), 'a');
        free_world(&w);
}

static void test_flush_covers_only_what_had_completed_when_it_was_submitted(void **state)
{
        bool write_was_first = false;

        /* Over the seeds the write beside the flush completes before it as well as after it. */
        for (uint64_t seed = 0; seed < 20; seed++) {
                struct world w = new_world(seed, NULL);
                struct request write, flush;

                assert_int_equal(run(&w, MEMBER_WRITE, 0, PAGE, 'a'), 0);
                submit(&w, &write, MEMBER_WRITE, PAGE, PAGE, 'b');
                submit(&w, &flush, MEMBER_FLUSH, 0, 0, 0);
                settle(&w, &flush);
                settle(&w, &write);
                write_was_first |= write.rank < flush.rank;
                assert_int_equal(sim_disk_n_pending(w.disk), 1);
                assert_int_equal(sim_disk_pending(w.disk, 0)->offset, PAGE);
                assert_int_equal(crash_byte(&w, NULL, 0), 'a');
                assert_int_equal(crash_byte(&w, NULL, PAGE), 0);
                assert_int_equal(visible_byte(&w, PAGE), 'b');
                free_world(&w);
        }
        assert_true(write_was_first);
}

static void test_write_in_flight_may_be_found_after_a_crash(void **state)
{
        static const uint8_t whole[] = {SIM_WHOLE};
        struct world w = new_world(1, NULL);
        struct request r;

        submit(&w, &r, MEMBER_WRITE, 0, PAGE, 'a');
        assert_int_equal(sim_disk_n_pending(w.disk), 1);
        assert_false(sim_disk_pending(w.disk, 0)->completed);
        assert_int_equal(visible_byte(&w, 0), 0);
        assert_int_equal(crash_byte(&w, whole, 0), 'a');
        assert_int_equal(crash_byte(&w, NULL, 0), 0);
        settle(&w, &r);
        free_world(&w);
}

static void test_torn_writes_by_choice(void **state)
{
        struct world w = new_world(1, NULL);
        uint8_t page[PAGE], choice[1];
        unsigned n_patterns = 0;
        uint64_t last_pattern = 0;

        assert_int_equal(run(&w, MEMBER_WRITE, PAGE, PAGE, 'n'), 0);
        for (unsigned c = SIM_LOST; c <= UINT8_MAX; c++) {
                struct sim_image *image;
                uint64_t pattern = 0;

                choice[0] = (uint8_t)c;
                image = sim_disk_crash(w.disk, choice);
                sim_image_read(image, PAGE, page, PAGE);
                for (unsigned sector = 0; sector < PAGE / SIM_SECTOR; sector++) {
                        const uint8_t *at = page + sector * SIM_SECTOR;

                        /* A sector is old or new, never a mixture. */
                        assert_true(at[0] == 0 || at[0] == 'n');
                        assert_memory_equal(at, at + 1, SIM_SECTOR - 1);
                        pattern |= (uint64_t)(at[0] != 0) << sector;
                }
                assert_int_equal(byte_of(image, 0), 0);
                assert_int_equal(byte_of(image, 2 * PAGE), 0);
                if (c < SIM_TORN) {
                        static const uint64_t expected[] = {0x00, 0xff, 0x0f, 0xf0};
                        assert_int_equal(pattern, expected[c]);
                }
                n_patterns += pattern != last_pattern;
                last_pattern = pattern;
                sim_image_free(image);
        }
        assert_true(n_patterns > 100);
        free_world(&w);
}

static void test_each_pending_write_has_its_own_choice_and_the_later_lies_on_top(void **state)
{
        struct world w = new_world(1, NULL);

        assert_int_equal(run(&w, MEMBER_WRITE, 0, 2 * PAGE, 'a'), 0);
        assert_int_equal(run(&w, MEMBER_WRITE, PAGE, 2 * PAGE, 'b'), 0);
        for (uint8_t a = SIM_LOST; a <= SIM_WHOLE; a++)
                for (uint8_t b = SIM_LOST; b <= SIM_WHOLE; b++) {
                        uint8_t choice[] = {a, b};

                        assert_int_equal(crash_byte(&w, choice, 0), a ? 'a' : 0);
                        assert_int_equal(crash_byte(&w, choice, PAGE), b ? 'b' : a ? 'a' : 0);
                        assert_int_equal(crash_byte(&w, choice, 2 * PAGE), b ? 'b' : 0);
                }
        free_world(&w);
}

static void test_unflushed_discard_may_have_happened_page_by_page(void **state)
{
        struct sim_disk_options options = {.seed = 1, .discard = SIM_DISCARD_ZERO};
        struct world w = new_world(1, &options);
        bool mixed = false;

        assert_int_equal(run(&w, MEMBER_WRITE, 0, 8 * PAGE, 'a'), 0);
        assert_int_equal(run(&w, MEMBER_FLUSH, 0, 0, 0), 0);
        assert_int_equal(run(&w, MEMBER_DISCARD, 0, 8 * PAGE, 0), 0);
        assert_int_equal(visible_byte(&w, 0), 0);
        assert_int_equal(crash_byte(&w, NULL, 0), 'a');
        for (unsigned c = SIM_WHOLE; c <= UINT8_MAX; c++) {
                uint8_t choice[] = {(uint8_t)c};
                unsigned n_gone = 0;

                for (unsigned page = 0; page < 8; page++) {
                        uint8_t first = crash_byte(&w, choice, page * PAGE);

                        assert_int_equal(first, crash_byte(&w, choice, page * PAGE + PAGE - 1));
                        n_gone += first == 0;
                }
                assert_true(c != SIM_WHOLE || n_gone == 8);
                assert_true((c != SIM_FIRST_HALF && c != SIM_SECOND_HALF) || n_gone == 4);
                mixed |= c >= SIM_TORN && n_gone > 0 && n_gone < 8;
        }
        assert_true(mixed);
        free_world(&w);
}

static void test_discarded_pages_hold_zeroes_or_what_they_held(void **state)
{
        struct world w = new_world(3, NULL);
        unsigned n_zero = 0;

        assert_int_equal(run(&w, MEMBER_WRITE, 0, 64 * PAGE, 'a'), 0);
        assert_int_equal(run(&w, MEMBER_DISCARD, 0, 64 * PAGE, 0), 0);
        for (unsigned page = 0; page < 64; page++) {
                uint8_t byte = visible_byte(&w, page * PAGE);

                assert_true(byte == 0 || byte == 'a');
                n_zero += byte == 0;
        }
        assert_in_range(n_zero, 8, 56);
        assert_int_equal(run(&w, MEMBER_FLUSH, 0, 0, 0), 0);
        for (unsigned page = 0; page < 64; page++)
                assert_int_equal(crash_byte(&w, NULL, page * PAGE), visible_byte(&w, page * PAGE));
        free_world(&w);
}

static void test_disk_that_keeps_discarded_pages(void **state)
{
        struct sim_disk_options options = {.seed = 1, .discard = SIM_DISCARD_KEEP};
        struct world w = new_world(1, &options);

        assert_int_equal(run(&w, MEMBER_WRITE, 0, 8 * PAGE, 'a'), 0);
        assert_int_equal(run(&w, MEMBER_DISCARD, 0, 8 * PAGE, 0), 0);
        for (unsigned page = 0; page < 8; page++)
                assert_int_equal(visible_byte(&w, page * PAGE), 'a');
        free_world(&w);
}

static void test_snapshot_is_independent_of_what_the_disk_does_next(void **state)
{
        static const uint8_t both[] = {SIM_WHOLE, SIM_WHOLE};
        struct world w = new_world(1, NULL);
        struct sim_snapshot *snapshot;
        struct sim_image *image;
        struct request r;

        assert_int_equal(run(&w, MEMBER_WRITE, 0, PAGE, 'a'), 0);
        submit(&w, &r, MEMBER_WRITE, PAGE, PAGE, 'b');
        snapshot = sim_disk_snapshot(w.disk);
        assert_int_equal(settle(&w, &r), 0);
        assert_int_equal(run(&w, MEMBER_FLUSH, 0, 0, 0), 0);
        assert_int_equal(run(&w, MEMBER_WRITE, 0, 2 * PAGE, 'c'), 0);
        assert_int_equal(run(&w, MEMBER_FLUSH, 0, 0, 0), 0);
        free_world(&w);

        assert_int_equal(snapshot->n_pending, 2);
        assert_true(snapshot->pending[0].completed);
        assert_false(snapshot->pending[1].completed);
        image = sim_snapshot_crash(snapshot, NULL);
        assert_int_equal(byte_of(image, 0), 0);
        sim_image_free(image);
        image = sim_snapshot_crash(snapshot, both);
        assert_int_equal(byte_of(image, 0), 'a');
        assert_int_equal(byte_of(image, PAGE), 'b');
        sim_image_free(image);
        sim_snapshot_free(snapshot);
}

static void test_killed_process_loses_nothing(void **state)
{
        struct world w = new_world(1, NULL);

        assert_int_equal(run(&w, MEMBER_WRITE, 0, PAGE, 'a'), 0);
        member_close(w.member);
        assert_int_equal(sim_disk_open(w.disk, w.loop, &w.member), 0);
        assert_int_equal(visible_byte(&w, 0), 'a');
        assert_int_equal(sim_disk_n_pending(w.disk), 1);
        assert_int_equal(run(&w, MEMBER_FLUSH, 0, 0, 0), 0);
        assert_int_equal(crash_byte(&w, NULL, 0), 'a');
        free_world(&w);
}

/* ---- determinism ---- */

static uint64_t busy_trace(uint64_t seed, bool in_order, unsigned *ret_n_reordered)
{
        enum { N = 64 };
        struct sim_disk_options options = {.seed = seed, .in_order = in_order};
        struct world w = new_world(seed, &options);
        static struct request r[N];
        uint64_t trace;

        *ret_n_reordered = 0;
        for (unsigned i = 0; i < N; i++)
                submit(&w, &r[i], i % 8 == 7 ? MEMBER_FLUSH : MEMBER_WRITE, i * PAGE, PAGE,
                       (uint8_t)i);
        for (unsigned i = 0; i < N; i++)
                settle(&w, &r[i]);
        for (unsigned i = 1; i < N; i++)
                *ret_n_reordered += r[i].rank < r[i - 1].rank;
        trace = sim_disk_trace(w.disk);
        free_world(&w);
        return trace;
}

static uint64_t write_trace(uint64_t offset, uint8_t byte)
{
        struct world w = new_world(1, NULL);
        uint64_t trace;

        assert_int_equal(run(&w, MEMBER_WRITE, offset, PAGE, byte), 0);
        trace = sim_disk_trace(w.disk);
        free_world(&w);
        return trace;
}

static void test_trace_tells_places_and_data_apart(void **state)
{
        assert_int_equal(write_trace(0, 'a'), write_trace(0, 'a'));
        assert_int_not_equal(write_trace(0, 'a'), write_trace(0, 'b'));
        assert_int_not_equal(write_trace(0, 'a'), write_trace(PAGE, 'a'));
}

static void test_seed_decides_the_trace(void **state)
{
        unsigned n;

        assert_int_equal(busy_trace(5, false, &n), busy_trace(5, false, &n));
        assert_int_not_equal(busy_trace(5, false, &n), busy_trace(6, false, &n));
}

static void test_completions_are_reordered_unless_asked_not_to_be(void **state)
{
        unsigned n;

        busy_trace(5, false, &n);
        assert_in_range(n, 10, 63);
        busy_trace(5, true, &n);
        assert_int_equal(n, 0);
}

struct seen {
        unsigned n_submitted, n_completed, n_pending_at_end;
        enum member_op last_op;
        uint64_t last_number;
};

static void see(void *arg, struct sim_disk *disk, const struct sim_event *event)
{
        struct seen *seen = arg;

        if (event->completed)
                seen->n_completed++;
        else
                seen->n_submitted++;
        assert_int_equal(event->number > seen->last_number, 1);
        seen->last_number = event->number;
        seen->last_op = event->op;
        seen->n_pending_at_end = (unsigned)sim_disk_n_pending(disk);
}

static void test_hook_sees_each_change_when_it_has_taken_effect(void **state)
{
        struct world w = new_world(1, NULL);
        struct seen seen = {0};
        struct request r;

        sim_disk_set_hook(w.disk, see, &seen);
        submit(&w, &r, MEMBER_WRITE, 0, PAGE, 'a');
        assert_int_equal(seen.n_submitted, 1);
        assert_int_equal(seen.n_pending_at_end, 1);
        settle(&w, &r);
        assert_int_equal(seen.n_completed, 1);
        run(&w, MEMBER_READ, 0, PAGE, 0);
        assert_int_equal(seen.n_submitted, 1);
        run(&w, MEMBER_FLUSH, 0, 0, 0);
        assert_int_equal(seen.last_op, MEMBER_FLUSH);
        assert_int_equal(seen.n_completed, 2);
        assert_int_equal(seen.n_pending_at_end, 0);
        free_world(&w);
}

/* ---- faults ---- */

static void test_error_hits_its_range_as_often_as_asked(void **state)
{
        struct world w = new_world(1, NULL);
        struct sim_fault fault = {.kind = SIM_FAULT_ERROR,
                                  .ops = SIM_OP(MEMBER_READ),
                                  .offset = 8 * PAGE,
                                  .length = PAGE,
                                  .skip = 1,
                                  .count = 2,
                                  .error = -EIO};
        struct sim_disk_stats stats;

        sim_disk_add_fault(w.disk, &fault);
        assert_int_equal(run(&w, MEMBER_WRITE, 8 * PAGE, PAGE, 'a'), 0);
        assert_int_equal(run(&w, MEMBER_READ, 7 * PAGE, PAGE, 0), 0);
        assert_int_equal(run(&w, MEMBER_READ, 7 * PAGE, 2 * PAGE, 0), 0);
        assert_int_equal(run(&w, MEMBER_READ, 7 * PAGE, 2 * PAGE, 0), -EIO);
        assert_int_equal(run(&w, MEMBER_READ, 8 * PAGE, PAGE, 0), -EIO);
        assert_int_equal(run(&w, MEMBER_READ, 8 * PAGE, PAGE, 0), 0);
        sim_disk_get_stats(w.disk, &stats);
        assert_int_equal(stats.errors, 2);
        assert_int_equal(meter_errors(&w.member->meter), 2);
        free_world(&w);
}

static void test_error_for_good_lasts_until_cleared(void **state)
{
        struct world w = new_world(1, NULL);
        struct sim_fault fault = {.kind = SIM_FAULT_ERROR, .error = -ENODEV};

        sim_disk_add_fault(w.disk, &fault);
        for (unsigned i = 0; i < 10; i++)
                assert_int_equal(
                    run(&w, (enum member_op)(i % 4), 0, i % 4 == MEMBER_FLUSH ? 0 : PAGE, 'a'),
                    -ENODEV);
        sim_disk_clear_faults(w.disk);
        assert_int_equal(run(&w, MEMBER_READ, 0, PAGE, 0), 0);
        assert_int_equal(visible_byte(&w, 0), 0);
        free_world(&w);
}

static void test_write_without_space_leaves_the_old_content(void **state)
{
        static const uint8_t whole[] = {SIM_WHOLE};
        struct world w = new_world(1, NULL);
        struct sim_fault fault = {
            .kind = SIM_FAULT_ERROR, .ops = SIM_OP(MEMBER_WRITE), .error = -ENOSPC};

        sim_disk_add_fault(w.disk, &fault);
        assert_int_equal(run(&w, MEMBER_WRITE, 0, PAGE, 'a'), -ENOSPC);
        assert_int_equal(visible_byte(&w, 0), 0);
        assert_int_equal(crash_byte(&w, whole, 0), 0);
        free_world(&w);
}

static void test_failed_write_may_have_written_some_sectors(void **state)
{
        struct world w = new_world(1, NULL);
        struct sim_fault fault = {
            .kind = SIM_FAULT_ERROR, .ops = SIM_OP(MEMBER_WRITE), .error = -EIO};
        unsigned n_new = 0;

        sim_disk_add_fault(w.disk, &fault);
        assert_int_equal(run(&w, MEMBER_WRITE, 0, 16 * PAGE, 'a'), -EIO);
        for (unsigned at = 0; at < 16 * PAGE; at += SIM_SECTOR)
                n_new += visible_byte(&w, at) == 'a';
        assert_in_range(n_new, 16, 112);
        free_world(&w);
}

static void test_flush_after_a_failed_flush_does_not_save_what_that_one_lost(void **state)
{
        struct world w = new_world(1, NULL);
        struct sim_fault fault = {
            .kind = SIM_FAULT_ERROR, .ops = SIM_OP(MEMBER_FLUSH), .count = 1, .error = -EIO};
        unsigned n_lost = 0;

        sim_disk_add_fault(w.disk, &fault);
        for (unsigned i = 0; i < 32; i++)
                assert_int_equal(run(&w, MEMBER_WRITE, i * PAGE, PAGE, 'a'), 0);
        assert_int_equal(run(&w, MEMBER_FLUSH, 0, 0, 0), -EIO);
        assert_int_equal(run(&w, MEMBER_FLUSH, 0, 0, 0), 0);
        for (unsigned i = 0; i < 32; i++) {
                assert_int_equal(visible_byte(&w, i * PAGE), 'a');
                n_lost += crash_byte(&w, NULL, i * PAGE) == 0;
        }
        assert_in_range(n_lost, 4, 28);
        free_world(&w);
}

static void test_failed_flush_says_nothing_of_writes_that_completed_beside_it(void **state)
{
        struct sim_fault fault = {
            .kind = SIM_FAULT_ERROR, .ops = SIM_OP(MEMBER_FLUSH), .count = 1, .error = -EIO};

        for (uint64_t seed = 0; seed < 20; seed++) {
                struct world w = new_world(seed, NULL);
                struct request write, flush;

                sim_disk_add_fault(w.disk, &fault);
                submit(&w, &write, MEMBER_WRITE, 0, PAGE, 'a');
                submit(&w, &flush, MEMBER_FLUSH, 0, 0, 0);
                assert_int_equal(settle(&w, &flush), -EIO);
                assert_int_equal(settle(&w, &write), 0);
                assert_int_equal(sim_disk_n_pending(w.disk), 1);
                assert_int_equal(run(&w, MEMBER_FLUSH, 0, 0, 0), 0);
                assert_int_equal(crash_byte(&w, NULL, 0), 'a');
                free_world(&w);
        }
}

static void test_failed_read_leaves_nothing_that_could_pass_for_data(void **state)
{
        struct world w = new_world(1, NULL);
        struct sim_fault fault = {
            .kind = SIM_FAULT_ERROR, .ops = SIM_OP(MEMBER_READ), .error = -EIO};
        struct request r;

        sim_disk_add_fault(w.disk, &fault);
        assert_int_equal(run(&w, MEMBER_WRITE, 0, PAGE, 'a'), 0);
        submit(&w, &r, MEMBER_READ, 0, PAGE, 0);
        loop_run(w.loop);
        assert_int_equal(r.result, -EIO);
        assert_true(r.memory[0] != 0 && r.memory[0] != 'a');
        free(r.memory);
        free_world(&w);
}

static void test_lying_flush_saves_nothing_and_an_honest_one_makes_up_for_it(void **state)
{
        struct world w = new_world(1, NULL);
        struct sim_fault fault = {.kind = SIM_FAULT_LIE, .count = 1};

        sim_disk_add_fault(w.disk, &fault);
        assert_int_equal(run(&w, MEMBER_WRITE, 0, PAGE, 'a'), 0);
        assert_int_equal(run(&w, MEMBER_FLUSH, 0, 0, 0), 0);
        assert_int_equal(crash_byte(&w, NULL, 0), 0);
        assert_int_equal(run(&w, MEMBER_FLUSH, 0, 0, 0), 0);
        assert_int_equal(crash_byte(&w, NULL, 0), 'a');
        free_world(&w);
}

static void test_misdirected_and_lost_writes_are_answered_all_the_same(void **state)
{
        struct world w = new_world(1, NULL);
        struct sim_fault elsewhere = {
            .kind = SIM_FAULT_MISDIRECT, .length = PAGE, .delta = 5 * PAGE};
        struct sim_fault nowhere = {.kind = SIM_FAULT_LOSE, .offset = PAGE, .length = PAGE};

        sim_disk_add_fault(w.disk, &elsewhere);
        sim_disk_add_fault(w.disk, &nowhere);
        assert_int_equal(run(&w, MEMBER_WRITE, 0, PAGE, 'a'), 0);
        assert_int_equal(run(&w, MEMBER_WRITE, PAGE, PAGE, 'b'), 0);
        assert_int_equal(run(&w, MEMBER_FLUSH, 0, 0, 0), 0);
        assert_int_equal(visible_byte(&w, 0), 0);
        assert_int_equal(visible_byte(&w, PAGE), 0);
        assert_int_equal(visible_byte(&w, 5 * PAGE), 'a');
        assert_int_equal(crash_byte(&w, NULL, 5 * PAGE), 'a');
        free_world(&w);
}

static void test_bit_rot_is_seen_by_reads_and_stays(void **state)
{
        struct world w = new_world(1, NULL);

        assert_int_equal(run(&w, MEMBER_WRITE, 0, PAGE, 'a'), 0);
        assert_int_equal(run(&w, MEMBER_FLUSH, 0, 0, 0), 0);
        sim_disk_corrupt(w.disk, 100, 1, 0x20);
        assert_int_equal(visible_byte(&w, 99), 'a');
        assert_int_equal(visible_byte(&w, 100), 'A');
        assert_int_equal(crash_byte(&w, NULL, 100), 'A');
        free_world(&w);
}

static void test_changing_data_in_flight_and_overlapping_writes_are_counted(void **state)
{
        struct world w = new_world(1, NULL);
        struct sim_disk_stats stats;
        struct request a, b, c;

        submit(&w, &a, MEMBER_WRITE, 0, 2 * PAGE, 'a');
        submit(&w, &b, MEMBER_WRITE, 2 * PAGE, PAGE, 'b');
        sim_disk_get_stats(w.disk, &stats);
        assert_int_equal(stats.overlapping_writes, 0);
        submit(&w, &c, MEMBER_WRITE, PAGE, PAGE, 'c');
        a.memory[17] ^= 1;
        settle(&w, &a);
        settle(&w, &b);
        settle(&w, &c);
        sim_disk_get_stats(w.disk, &stats);
        assert_int_equal(stats.changed_buffers, 1);
        assert_int_equal(stats.overlapping_writes, 1);
        free_world(&w);
}

/* ---- coroutines over a member ---- */

static void copy_a_page(void *arg)
{
        struct world *w = arg;
        uint8_t *memory = NULL;

        assert_int_equal(posix_memalign((void **)&memory, PAGE, PAGE), 0);
        memset(memory, 'q', PAGE);
        assert_int_equal(co_member_write(w->member, memory, PAGE, PAGE), 0);
        assert_int_equal(co_member_flush(w->member), 0);
        memset(memory, 0, PAGE);
        assert_int_equal(co_member_read(w->member, memory, PAGE, PAGE), 0);
        assert_int_equal(memory[PAGE - 1], 'q');
        assert_int_equal(co_member_discard(w->member, PAGE, PAGE), 0);
        free(memory);
}

static void test_coroutines_wait_for_their_operations(void **state)
{
        struct world w = new_world(1, NULL);

        assert_int_equal(sim_loop_co_run(w.loop, copy_a_page, &w), 0);
        assert_int_equal(w.member->meter.line[METER_READ].requests, 1);
        assert_int_equal(w.member->meter.line[METER_WRITE].requests, 1);
        assert_int_equal(w.member->meter.line[METER_FLUSH].requests, 1);
        assert_int_equal(w.member->meter.line[METER_DISCARD].requests, 1);
        assert_int_equal(w.member->meter.line[METER_DISCARD].bytes, PAGE);
        free_world(&w);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(test_reads_see_completed_writes_and_holes_are_zeroes),
            cmocka_unit_test(test_write_is_lost_until_a_flush_has_completed),
            cmocka_unit_test(test_flush_covers_only_what_had_completed_when_it_was_submitted),
            cmocka_unit_test(test_write_in_flight_may_be_found_after_a_crash),
            cmocka_unit_test(test_torn_writes_by_choice),
            cmocka_unit_test(test_each_pending_write_has_its_own_choice_and_the_later_lies_on_top),
            cmocka_unit_test(test_unflushed_discard_may_have_happened_page_by_page),
            cmocka_unit_test(test_discarded_pages_hold_zeroes_or_what_they_held),
            cmocka_unit_test(test_disk_that_keeps_discarded_pages),
            cmocka_unit_test(test_snapshot_is_independent_of_what_the_disk_does_next),
            cmocka_unit_test(test_killed_process_loses_nothing),
            cmocka_unit_test(test_trace_tells_places_and_data_apart),
            cmocka_unit_test(test_seed_decides_the_trace),
            cmocka_unit_test(test_completions_are_reordered_unless_asked_not_to_be),
            cmocka_unit_test(test_hook_sees_each_change_when_it_has_taken_effect),
            cmocka_unit_test(test_error_hits_its_range_as_often_as_asked),
            cmocka_unit_test(test_error_for_good_lasts_until_cleared),
            cmocka_unit_test(test_write_without_space_leaves_the_old_content),
            cmocka_unit_test(test_failed_write_may_have_written_some_sectors),
            cmocka_unit_test(test_flush_after_a_failed_flush_does_not_save_what_that_one_lost),
            cmocka_unit_test(test_failed_flush_says_nothing_of_writes_that_completed_beside_it),
            cmocka_unit_test(test_failed_read_leaves_nothing_that_could_pass_for_data),
            cmocka_unit_test(test_lying_flush_saves_nothing_and_an_honest_one_makes_up_for_it),
            cmocka_unit_test(test_misdirected_and_lost_writes_are_answered_all_the_same),
            cmocka_unit_test(test_bit_rot_is_seen_by_reads_and_stays),
            cmocka_unit_test(test_changing_data_in_flight_and_overlapping_writes_are_counted),
            cmocka_unit_test(test_coroutines_wait_for_their_operations),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
