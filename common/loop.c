/* loop.c - choosing a back end. */
#include "common/loop.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "common/coroutine.h"
#include "common/log.h"
#include "common/loop_core.h"

/* TARN_LOOP decides where the caller leaves the choice open. */
static int backend_from_environment(enum loop_backend *backend, struct error *err)
{
        const char *name = getenv("TARN_LOOP");

        if (*backend != LOOP_BACKEND_AUTO || !name || !*name)
                return 0;
        if (strcmp(name, "uring") == 0)
                *backend = LOOP_BACKEND_URING;
        else if (strcmp(name, "threads") == 0)
                *backend = LOOP_BACKEND_THREADS;
        else
                return error_set(err, -EINVAL,
                                 "TARN_LOOP is '%.64s', but must be 'uring' or 'threads'", name);
        return 0;
}

int loop_new(enum loop_backend backend, struct loop **ret_loop, struct error *err)
{
        struct error refusal = ERROR_INIT;
        int r = backend_from_environment(&backend, err);

        if (r < 0)
                return r;
        if (backend == LOOP_BACKEND_THREADS)
                return loop_threads_new(ret_loop, err);
        if (backend == LOOP_BACKEND_URING)
                return loop_uring_new(ret_loop, err);
        r = loop_uring_new(ret_loop, &refusal);
        if (r == 0)
                return 0;
        log_debug("%s; using worker threads", refusal.message);
        return loop_threads_new(ret_loop, err);
}

void loop_free(struct loop *loop)
{
        if (!loop)
                return;
        co_free_idle(loop);
        loop->ops->free(loop);
}
