/* test_verify.c - a copy is compared with what it was made of: all of it, several reads at a time, and the
 * first byte that differs is named. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "common/coroutine.h"
#include "server/verify.h"
#include "tests/unit/loop_fixture.h"

#define KIB 1024u
#define MIB (1024u * KIB)

struct disk {
        struct image image;
        uint8_t *data;
        uint64_t random;
        bool tells_zeroes;
        unsigned n_now, n_most, n_calls, n_wrong;
        unsigned fail_at; /* this read; 0: none */
        uint64_t read;    /* bytes */
};

struct test {
        struct disk from, made;
        struct transfer_watch watch;
        atomic_bool cancelled;
        unsigned n_progress, n_wrong;
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

static int co_extent(struct image *image, uint64_t offset, struct image_extent *ret,
                     struct error *err)
{
        struct disk *d = disk_of(image);
        uint64_t length = 1 + next_random(&d->random) % MIB, left = image->virtual_bytes - offset;

        if (length > left || image_is_zero(d->data + offset, left))
                length = left;
        *ret = (struct image_extent){
            .length = length, .zero = d->tells_zeroes && image_is_zero(d->data + offset, length)};
        return 0;
}

static int co_read(struct image *image, void *buffer, size_t length, uint64_t offset,
                   struct error *err)
{
        struct disk *d = disk_of(image);
        int r = 0;

        if (length == 0 || offset + length > image->virtual_bytes)
                d->n_wrong++;
        d->read += length;
        if (++d->n_now > d->n_most)
                d->n_most = d->n_now;
        if (++d->n_calls == d->fail_at)
                r = error_set(err, -EIO, "'%s' fails", image->path);
        co_sleep_ns(next_random(&d->random) % 200000);
        if (r == 0)
                memcpy(buffer, d->data + offset, length);
        d->n_now--;
        return r;
}

static const struct image_driver driver = {
    .name = "disk", .co_extent = co_extent, .co_read = co_read};

static void progress(struct transfer_watch *watch, uint64_t done, uint64_t total)
{
        struct test *t = container_of(watch, struct test, watch);

        if (!watch->verifying || done > total)
                t->n_wrong++;
        t->n_progress++;
}

static void co_compare(void *arg)
{
        struct test *t = arg;

        t->result =
            co_verify((struct transfer_side){.image = &t->from.image},
                      (struct transfer_side){.image = &t->made.image}, &t->watch, &t->error);
}

static struct disk disk(const char *path, uint64_t bytes, uint64_t seed)
{
        /* A page at a time is there once something is in it: most is zero. */
        return (struct disk){
            .image = {.driver = &driver, .path = (char *)path, .virtual_bytes = bytes, .fd = -1},
            .data =
                mmap(NULL, bytes + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
            .random = seed,
            .tells_zeroes = true};
}

/* @made is as large or larger, and holds the same. */
static void begin(struct test *t, uint64_t bytes, uint64_t more, uint64_t seed)
{
        *t = (struct test){.from = disk("from", bytes, seed),
                           .made = disk("made", bytes + more, seed + 1)};
        t->watch = (struct transfer_watch){.progress = progress, .cancelled = &t->cancelled};
        assert_true(t->from.data != MAP_FAILED && t->made.data != MAP_FAILED);
        for (unsigned i = 0; i < 12; i++) {
                uint64_t at = next_random(&seed) % bytes, n = 1 + next_random(&seed) % (MIB / 2);

                n = n < bytes - at ? n : bytes - at;
                memset(t->from.data + at, 1 + (int)i, n);
                memset(t->made.data + at, 1 + (int)i, n);
        }
}

static void end(struct test *t)
{
        assert_int_equal(t->from.n_wrong + t->made.n_wrong + t->n_wrong, 0);
        assert_int_equal(t->from.n_now + t->made.n_now, 0);
        assert_false(t->watch.verifying);
        munmap(t->from.data, t->from.image.virtual_bytes + 1);
        munmap(t->made.data, t->made.image.virtual_bytes + 1);
}

/* ---- tests ---- */

static void a_copy_that_is_the_same(void **state)
{
        for (unsigned i = 0; i < 16; i++) {
                uint64_t seed = 100 + i;
                struct test t;

                begin(&t, 1 + next_random(&seed) % (12 * MIB), i % 2 ? next_random(&seed) % MIB : 0,
                      i);
                t.from.tells_zeroes = i & 4;
                t.made.tells_zeroes = i & 8;
                assert_int_equal(co_run(*state, co_compare, &t), 0);
                assert_string_equal(t.error.message, "");
                assert_int_equal(t.result, 0);
                assert_true(t.n_progress > 0);
                end(&t);
        }
}

/* Wherever it is: in data, in zeroes that either side or none tells of, or behind the source's end. */
static void the_first_byte_that_differs_is_named(void **state)
{
        for (unsigned i = 0; i < 48; i++) {
                uint64_t seed = 200 + i, first;
                char words[64];
                struct test t;

                begin(&t, 1 + next_random(&seed) % (12 * MIB),
                      i % 2 ? 1 + next_random(&seed) % MIB : 0, i);
                t.from.tells_zeroes = i & 4;
                t.made.tells_zeroes = i & 8;
                first = next_random(&seed) % t.made.image.virtual_bytes;
                if (i % 8 == 1)
                        first = t.made.image.virtual_bytes - 1;
                t.made.data[first] ^= 0x40;
                for (unsigned k = 0; k < i % 4; k++) /* and others behind it */
                        t.made.data[first + 1 +
                                    next_random(&seed) % (t.made.image.virtual_bytes - first)] ^=
                            0x80;
                assert_int_equal(co_run(*state, co_compare, &t), 0);
                assert_int_equal(t.result, -EILSEQ);
                snprintf(words, sizeof(words), "offset %llu of 'made' differs from 'from'",
                         (unsigned long long)first);
                if (!strstr(t.error.message, words))
                        fail_msg("'%s' does not say '%s'", t.error.message, words);
                end(&t);
        }
}

static void what_both_say_is_zero_is_not_read(void **state)
{
        struct test t;

        begin(&t, 8 * MIB, MIB, 1);
        memset(t.from.data, 0, 8 * MIB);
        memset(t.made.data, 0, 8 * MIB);
        assert_int_equal(co_run(*state, co_compare, &t), 0);
        assert_int_equal(t.result, 0);
        assert_int_equal(t.from.read + t.made.read, 0);
        end(&t);
}

static void several_reads_are_under_way(void **state)
{
        struct test t;

        begin(&t, 24 * MIB, 0, 2);
        memset(t.from.data, 1, 24 * MIB);
        memset(t.made.data, 1, 24 * MIB);
        assert_int_equal(co_run(*state, co_compare, &t), 0);
        assert_int_equal(t.result, 0);
        assert_in_range(t.from.n_most, 4, 64);
        assert_in_range(t.made.n_most, 4, 64);
        assert_int_equal(t.from.read, 24 * MIB);
        assert_int_equal(t.made.read, 24 * MIB);
        end(&t);
}

static void what_cannot_be_read_is_an_error(void **state)
{
        for (unsigned i = 0; i < 6; i++) {
                struct test t;

                begin(&t, 12 * MIB, 0, i);
                if (i % 2)
                        t.from.fail_at = 1 + i;
                else
                        t.made.fail_at = 1 + i;
                assert_int_equal(co_run(*state, co_compare, &t), 0);
                assert_int_equal(t.result, -EIO);
                assert_string_equal(t.error.message, i % 2 ? "'from' fails" : "'made' fails");
                end(&t);
        }
}

static void it_can_be_cancelled(void **state)
{
        struct test t;

        begin(&t, 12 * MIB, 0, 3);
        t.cancelled = true;
        assert_int_equal(co_run(*state, co_compare, &t), 0);
        assert_int_equal(t.result, -ECANCELED);
        end(&t);
}

/* ---- files ---- */

struct file_test {
        int fd;
        const char *format;
        off_t spoil_at; /* of the file; -1: it is left as it is */
        off_t cut_to;   /* its length; 0: the same */
        int result;
        struct error error;
};

/* 3 MiB of ones are written, the file is spoilt behind the writer's back, and verified. */
static void co_write_and_verify(void *arg)
{
        struct file_test *f = arg;
        struct disk from = disk("from", 3 * MIB, 1);
        struct image_create_options options = {.format = f->format, .virtual_bytes = 3 * MIB};
        struct transfer_watch watch = {0};
        struct image *made = NULL;

        memset(from.data, 1, 3 * MIB);
        f->result = co_image_create(f->fd, "made", &options, &made, &f->error);
        if (f->result == 0)
                f->result = co_transfer((struct transfer_side){.image = &from.image},
                                        (struct transfer_side){.image = made}, &watch, &f->error);
        if (f->result == 0 && f->spoil_at >= 0 && pwrite(f->fd, "x", 1, f->spoil_at) != 1)
                f->result = -errno;
        if (f->result == 0 && f->cut_to > 0 && ftruncate(f->fd, f->cut_to) < 0)
                f->result = -errno;
        if (f->result == 0)
                f->result = co_verify_image((struct transfer_side){.image = &from.image}, made,
                                            NULL, &watch, &f->error);
        image_close(made);
        munmap(from.data, 3 * MIB + 1);
}

static void a_file_is_verified_by_what_it_holds(void **state)
{
        static const struct {
                const char *format;
                off_t spoil_at, cut_to;
                int code;
                const char *words;
        } cases[] = {
            {"raw", -1, 0, 0, ""},
            {"qcow2", -1, 0, 0, ""},
            {"raw", 2222222, 0, -EILSEQ, "offset 2222222 of 'made' differs from 'from'"},
            {"raw", -1, 2 * MIB, -EILSEQ,
             "'made' was made 3145728 bytes large, and is 2097152 when"},
            {"raw", -1, 4 * MIB, -EILSEQ,
             "'made' was made 3145728 bytes large, and is 4194304 when"},
            {"qcow2", 0, 0, -EBADMSG, "'made'"},
            {"qcow2", 3 * MIB, 0, -EILSEQ, "of 'made' differs from 'from'"},
        };

        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                char path[] = "/tmp/tarn-verify-XXXXXX";
                struct file_test f = {.fd = mkstemp(path),
                                      .format = cases[i].format,
                                      .spoil_at = cases[i].spoil_at,
                                      .cut_to = cases[i].cut_to};

                assert_true(f.fd >= 0 && unlink(path) == 0);
                assert_int_equal(co_run(*state, co_write_and_verify, &f), 0);
                assert_int_equal(f.result, cases[i].code);
                if (!strstr(f.error.message, cases[i].words))
                        fail_msg("'%s' does not say '%s'", f.error.message, cases[i].words);
                close(f.fd);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            loop_test(a_copy_that_is_the_same),
            loop_test(the_first_byte_that_differs_is_named),
            loop_test(what_both_say_is_zero_is_not_read),
            loop_test(several_reads_are_under_way),
            loop_test(what_cannot_be_read_is_an_error),
            loop_test(it_can_be_cancelled),
            loop_test(a_file_is_verified_by_what_it_holds),
        };

        return run_on_each_backend(tests);
}
