/* loop_call.c - see loop_call.h. */
#include "tests/protocol/loop_call.h"
#include <assert.h>
#include <errno.h>
#include <semaphore.h>
#include "common/coroutine.h"

struct call {
        struct loop_task task;
        struct loop *loop;
        void (*f)(void *arg);
        void *arg;
        sem_t done;
};

static void call_run(struct loop_task *task)
{
        struct call *call = container_of(task, struct call, task);

        call->f(call->arg);
        sem_post(&call->done);
}

static void co_call(void *arg)
{
        call_run(arg);
}

static void call_spawn(struct loop_task *task)
{
        struct call *call = container_of(task, struct call, task);
        int r = co_spawn(call->loop, co_call, &call->task);

        assert(r == 0);
}

static void call(struct loop *loop, void (*f)(void *arg), void *arg,
                 void (*run_task)(struct loop_task *))
{
        struct call c = {.task = {.run = run_task}, .loop = loop, .f = f, .arg = arg};

        sem_init(&c.done, 0, 0);
        loop_post_remote(loop, &c.task);
        while (sem_wait(&c.done) < 0 && errno == EINTR)
                ;
        sem_destroy(&c.done);
}

void loop_call(struct loop *loop, void (*f)(void *arg), void *arg)
{
        call(loop, f, arg, call_run);
}

void loop_call_co(struct loop *loop, void (*co_f)(void *arg), void *arg)
{
        call(loop, co_f, arg, call_spawn);
}
