/* image_fixture.h - for tests of image formats: a loop, a file that has no name any more, and running a
 * coroutine on them. */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
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
