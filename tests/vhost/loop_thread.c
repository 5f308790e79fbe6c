/* loop_thread.c - see loop_thread.h. */
#include "tests/vhost/loop_thread.h"
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include "common/coroutine.h"

struct loop_thread {
        pthread_t thread;
        struct loop *loop;
};

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

static void call(struct loop_thread *t, void (*f)(void *arg), void *arg,
                 void (*run_task)(struct loop_task *))
{
        struct call c = {.task = {.run = run_task}, .loop = t->loop, .f = f, .arg = arg};

        sem_init(&c.done, 0, 0);
        loop_post_remote(t->loop, &c.task);
        while (sem_wait(&c.done) < 0 && errno == EINTR)
                ;
        sem_destroy(&c.done);
}

void loop_thread_run(struct loop_thread *t, void (*f)(void *arg), void *arg)
{
        call(t, f, arg, call_run);
}

void loop_thread_run_co(struct loop_thread *t, void (*co_f)(void *arg), void *arg)
{
        call(t, co_f, arg, call_spawn);
}

static void *run(void *arg)
{
        loop_run(((struct loop_thread *)arg)->loop);
        return NULL;
}

struct loop_thread *loop_thread_start(void)
{
        struct loop_thread *t = calloc(1, sizeof(*t));
        struct error err = ERROR_INIT;

        assert(t);
        int r = loop_new(LOOP_BACKEND_AUTO, &t->loop, &err);
        assert(r == 0);
        r = pthread_create(&t->thread, NULL, run, t);
        assert(r == 0);
        return t;
}

struct loop *loop_thread_loop(struct loop_thread *t)
{
        return t->loop;
}

static void stop(void *arg)
{
        loop_stop(((struct loop_thread *)arg)->loop);
}

void loop_thread_stop(struct loop_thread *t)
{
        loop_thread_run(t, stop, t);
        pthread_join(t->thread, NULL);
        loop_free(t->loop);
        free(t);
}
