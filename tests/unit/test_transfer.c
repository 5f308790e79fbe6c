/* test_transfer.c - what image.h promises drivers of how they are written: whole units, each place once,
 * calls that begin in ascending order; whatever the source is like, and however long calls take. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/coroutine.h"
#include "server/transfer.h"
#include "tests/unit/loop_fixture.h"

#define KIB 1024u
#define MIB (1024u * KIB)

struct disk {
        struct image image;
        uint8_t *data;
        uint64_t random;
        /* a source */
        uint32_t extent_most; /* their length */
        /* a sink */
        uint64_t next; /* what begins next begins here */
        unsigned n_now, n_most, n_calls, n_wrong;
        unsigned fail_at; /* this call; 0: none */
        uint64_t zeroed, written;
        bool finished;
};

struct test {
        struct loop *loop;
        struct disk from, to;
        struct transfer_watch watch;
        atomic_bool cancelled;
        uint64_t cancel_at, seen_done, seen_total;
        int result;
        struct error error;
};

static uint64_t next_random(uint64_t *state)
{
        *state = *state * 6364136223846793005u + 1442695040888963407u;
        return *state >> 33;
}

static struct disk *disk_of(struct image *image)
{
        return container_of(image, struct disk, image);
}

static void co_take_time(struct disk *d)
{
        if (next_random(&d->random) % 2 == 0)
                co_sleep_ns(next_random(&d->random) % 200000);
}

/* ---- a source: extents of random lengths, that say zero only where all is ---- */

static int co_source_extent(struct image *image, uint64_t offset, struct image_extent *ret,
                            struct error *err)
{
        struct disk *d = disk_of(image);
        uint64_t length = 1 + next_random(&d->random) % d->extent_most;

        if (length > image->virtual_bytes - offset)
                length = image->virtual_bytes - offset;
        co_take_time(d);
        *ret = (struct image_extent){.length = length,
                                     .zero = image_is_zero(d->data + offset, length)};
        return 0;
}

static int co_source_read(struct image *image, void *buffer, size_t length, uint64_t offset,
                          struct error *err)
{
        struct disk *d = disk_of(image);

        if (offset + length > image->virtual_bytes)
                d->n_wrong++;
        co_take_time(d);
        if (++d->n_calls == d->fail_at)
                return error_set(err, -EIO, "the source fails");
        memcpy(buffer, d->data + offset, length);
        return 0;
}

static const struct image_driver source_driver = {
    .name = "source", .co_extent = co_source_extent, .co_read = co_source_read};

/* ---- a sink ---- */

static int co_sink(struct disk *d, const uint8_t *data, uint64_t length, uint64_t offset,
                   struct error *err)
{
        uint64_t end = offset + length;
        int r = 0;

        if (length == 0 || offset != d->next || end > d->image.virtual_bytes ||
            offset % d->image.write_unit != 0 ||
            (end % d->image.write_unit != 0 && end != d->image.virtual_bytes))
                d->n_wrong++;
        d->next = end;
        if (++d->n_now > d->n_most)
                d->n_most = d->n_now;
        if (++d->n_calls == d->fail_at)
                r = error_set(err, -ENOSPC, "the sink fails");
        co_take_time(d);
        if (data && r == 0)
                memcpy(d->data + offset, data, length);
        d->n_now--;
        return r;
}

static int co_sink_write(struct image *image, const void *buffer, size_t length, uint64_t offset,
                         struct error *err)
{
        struct disk *d = disk_of(image);

        d->written += length;
        return co_sink(d, buffer, length, offset, err);
}

static int co_sink_zero(struct image *image, uint64_t offset, uint64_t length, struct error *err)
{
        struct disk *d = disk_of(image);

        d->zeroed += length;
        return co_sink(d, NULL, length, offset, err);
}

static int co_sink_finish(struct image *image, struct error *err)
{
        struct disk *d = disk_of(image);

        if (d->finished || d->n_now > 0 || d->next != image->virtual_bytes)
                d->n_wrong++;
        d->finished = true;
        return 0;
}

static const struct image_driver sink_driver = {.name = "sink",
                                                .co_write = co_sink_write,
                                                .co_zero = co_sink_zero,
                                                .co_finish = co_sink_finish};

/* ---- a copy ---- */

static void progress(struct transfer_watch *watch, uint64_t done, uint64_t total)
{
        struct test *t = container_of(watch, struct test, watch);

        if (done < t->seen_done || done > total)
                t->to.n_wrong++;
        t->seen_done = done;
        t->seen_total = total;
}

static void co_copy(void *arg)
{
        struct test *t = arg;

        t->result =
            co_transfer((struct transfer_side){.image = &t->from.image},
                        (struct transfer_side){.image = &t->to.image}, &t->watch, &t->error);
}

static void co_cancel(void *arg)
{
        struct test *t = arg;

        co_sleep_ns(t->cancel_at);
        t->cancelled = true;
}

static void co_copy_and_cancel(void *arg)
{
        struct test *t = arg;

        if (co_spawn(co_loop(), co_cancel, t) < 0)
                t->to.n_wrong++;
        co_copy(t);
        while (!t->cancelled)
                co_sleep_ns(1000000);
}

static void begin(struct test *t, struct loop *loop, uint64_t from_bytes, uint64_t to_bytes,
                  uint32_t unit, uint64_t seed)
{
        *t = (struct test){
            .loop = loop,
            .from = {.image = {.driver = &source_driver,
                               .path = "from",
                               .virtual_bytes = from_bytes},
                     .data = calloc(1, from_bytes + 1),
                     .random = seed,
                     .extent_most = MIB},
            .to = {.image = {.driver = &sink_driver,
                             .path = "to",
                             .virtual_bytes = to_bytes,
                             .write_unit = unit},
                   .data = calloc(1, to_bytes + 1),
                   .random = seed + 1},
        };
        t->watch = (struct transfer_watch){.progress = progress, .cancelled = &t->cancelled};
        assert_true(t->from.data && t->to.data);
}

/* Runs of data of all lengths. */
static void fill(struct disk *d, unsigned n_runs, uint64_t run_most)
{
        for (unsigned i = 0; i < n_runs; i++) {
                uint64_t at = next_random(&d->random) % d->image.virtual_bytes;
                uint64_t length = 1 + next_random(&d->random) % run_most;

                if (length > d->image.virtual_bytes - at)
                        length = d->image.virtual_bytes - at;
                memset(d->data + at, 1 + (int)(i % 255), length);
        }
}

static void end(struct test *t)
{
        assert_int_equal(t->from.n_wrong + t->to.n_wrong, 0);
        assert_int_equal(t->to.n_now, 0);
        free(t->from.data);
        free(t->to.data);
}

static void must_be_copied(struct test *t)
{
        uint64_t n = t->from.image.virtual_bytes;

        assert_int_equal(t->result, 0);
        assert_true(t->to.finished);
        assert_int_equal(t->to.written + t->to.zeroed, t->to.image.virtual_bytes);
        assert_int_equal(t->seen_done, t->seen_total);
        assert_memory_equal(t->from.data, t->to.data, n);
        assert_true(image_is_zero(t->to.data + n, t->to.image.virtual_bytes - n));
}

/* ---- tests ---- */

static void every_unit_size_and_source(void **state)
{
        static const uint32_t units[] = {512, 4096, 64 * KIB, MIB, 2 * MIB};

        for (unsigned i = 0; i < 25; i++) {
                uint64_t seed = 1000 + i, bytes = 1 + next_random(&seed) % (12 * MIB);
                struct test t;

                begin(&t, *state, bytes, bytes + next_random(&seed) % (3 * MIB) * (i % 2),
                      units[i % 5], i);
                t.from.extent_most = (uint32_t)(i % 3 == 0 ? 5000 : i % 3 == 1 ? MIB : 8 * MIB);
                fill(&t.from, 1 + i % 12, i % 2 ? 3 * MIB : 20 * KIB);
                assert_int_equal(co_run(*state, co_copy, &t), 0);
                must_be_copied(&t);
                end(&t);
        }
}

static void calls_overlap_in_time(void **state)
{
        struct test t;

        begin(&t, *state, 24 * MIB, 24 * MIB, 64 * KIB, 5);
        fill(&t.from, 200, 100 * KIB);
        assert_int_equal(co_run(*state, co_copy, &t), 0);
        must_be_copied(&t);
        assert_in_range(t.to.n_most, 4, 64);
        end(&t);
}

static void zeroes_are_not_written(void **state)
{
        struct test t;

        /* Some said so, others are found by looking. */
        begin(&t, *state, 16 * MIB, 16 * MIB, 4096, 6);
        t.from.data[5 * MIB] = 1;
        t.from.extent_most = 3 * MIB;
        assert_int_equal(co_run(*state, co_copy, &t), 0);
        must_be_copied(&t);
        assert_int_equal(t.to.written, 4096);
        end(&t);
}

static void nothing_at_all(void **state)
{
        struct test t;

        begin(&t, *state, 0, 0, 4096, 7);
        assert_int_equal(co_run(*state, co_copy, &t), 0);
        assert_int_equal(t.result, 0);
        assert_true(t.to.finished);
        end(&t);
}

static void a_sink_that_is_too_small(void **state)
{
        struct test t;

        begin(&t, *state, MIB, MIB - 512, 4096, 8);
        assert_int_equal(co_run(*state, co_copy, &t), 0);
        assert_int_equal(t.result, -EFBIG);
        assert_int_equal(t.to.n_calls, 0);
        end(&t);
}

static void the_first_failure_ends_it(void **state)
{
        for (unsigned i = 1; i <= 40; i++) {
                struct test t;

                begin(&t, *state, 24 * MIB, 24 * MIB, 64 * KIB, i);
                fill(&t.from, 200, 100 * KIB);
                if (i % 2)
                        t.to.fail_at = i;
                else
                        t.from.fail_at = i / 4 + 1;
                assert_int_equal(co_run(*state, co_copy, &t), 0);
                assert_int_equal(t.result, i % 2 ? -ENOSPC : -EIO);
                assert_string_equal(t.error.message, i % 2 ? "the sink fails" : "the source fails");
                assert_false(t.to.finished);
                end(&t);
        }
}

static void it_can_be_cancelled(void **state)
{
        for (unsigned i = 0; i < 10; i++) {
                struct test t;

                begin(&t, *state, 24 * MIB, 24 * MIB, 64 * KIB, i);
                fill(&t.from, 200, 100 * KIB);
                t.cancel_at = i * 300000;
                assert_int_equal(co_run(*state, co_copy_and_cancel, &t), 0);
                if (t.result == 0) {
                        must_be_copied(&t);
                } else {
                        assert_int_equal(t.result, -ECANCELED);
                        assert_false(t.to.finished);
                }
                end(&t);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            loop_test(every_unit_size_and_source), loop_test(calls_overlap_in_time),
            loop_test(zeroes_are_not_written),     loop_test(nothing_at_all),
            loop_test(a_sink_that_is_too_small),   loop_test(the_first_failure_ends_it),
            loop_test(it_can_be_cancelled),
        };

        return run_on_each_backend(tests);
}
