/* image_fixture.h - for tests of image formats: a loop, a file that has no name any more, and running a
 * coroutine on them. */
#pragma once
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "common/coroutine.h"
#include "formats/image.h"

#define KIB             1024u
#define MIB             (1024u * KIB)
#define AS(name, bytes) (&(struct image_create_options){.format = (name), .virtual_bytes = (bytes)})

struct fixture {
        struct loop *loop;
        int fd;
        void (*co_test)(struct fixture *f);
};

static inline int setup(void **state)
{
        struct fixture *f = calloc(1, sizeof(*f));
        char path[] = "/tmp/tarn-raw-XXXXXX";

        *state = f;
        f->fd = mkstemp(path);
        return f->fd < 0 || unlink(path) < 0 || loop_new(LOOP_BACKEND_AUTO, &f->loop, NULL) < 0;
}

static inline int teardown(void **state)
{
        struct fixture *f = *state;

        loop_free(f->loop);
        close(f->fd);
        free(f);
        return 0;
}

static inline void entry(void *arg)
{
        struct fixture *f = arg;

        f->co_test(f);
}

static inline void run(struct fixture *f, void (*co_test)(struct fixture *f))
{
        f->co_test = co_test;
        assert_int_equal(co_run(f->loop, entry, f), 0);
}

/* Refused, with words that name what is wrong; nothing is made. */
static inline void co_not_written(struct fixture *f, struct image_create_options options, int code,
                                  const char *words)
{
        struct error e = ERROR_INIT;
        struct image *image = NULL;

        assert_int_equal(co_image_create(f->fd, "disk.img", &options, &image, &e), code);
        assert_null(image);
        assert_non_null(strstr(e.message, words));
}

/* ---- checks that are cancelled ---- */

static inline void tell_nobody(struct image_check *check, const char *sentence)
{
}

/* Not at once: it has its turns only where a check lets others have theirs. */
static inline void change_of_mind(void *arg)
{
        atomic_bool *cancelled = arg;

        co_yield_loop();
        co_yield_loop();
        *cancelled = true;
}

/* Of a table of more than two IMAGE_CHECK_STEPs: a check that is cancelled before it begins, and one that is in the
 * midst of it, with all that can be in memory there. */
static inline void co_expect_cancelled(struct image *image)
{
        atomic_bool cancelled = true;
        struct image_check check = {.report = tell_nobody, .cancelled = &cancelled};
        struct error e = ERROR_INIT;

        assert_int_equal(image->driver->co_check(image, &check, &e), -ECANCELED);
        assert_string_equal(e.message, "interrupted");
        cancelled = false;
        assert_int_equal(image->driver->co_check(image, &check, NULL), 0);
        co_spawn(co_loop(), change_of_mind, &cancelled);
        assert_int_equal(image->driver->co_check(image, &check, NULL), -ECANCELED);
}
