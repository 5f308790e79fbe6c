/* loop_thread.c - a thread that runs an event loop of its own. */
#include "common/loop_thread.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include "common/all_threads.h"

struct loop_thread {
        pthread_t thread;
        struct loop *loop;
        struct loop_task stop;
};

static void stop_loop(struct loop_task *task)
{
        loop_stop(container_of(task, struct loop_thread, stop)->loop);
}

static void *run(void *arg)
{
        struct loop_thread *t = arg;

        loop_run(t->loop);
        return NULL;
}

/* Signals are for the thread that waits for them: a new thread inherits that they are blocked (not its
 * own faults: SIGBUS has a handler in vmm-glue/vhost-user/guard.c). */
static int start_without_signals(struct loop_thread *t)
{
        sigset_t all, before;
        int r;

        all_threads_blocked(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        r = pthread_create(&t->thread, NULL, run, t);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        return -r;
}

int loop_thread_start(const char *name, struct loop_thread **ret_thread, struct error *err)
{
        struct loop_thread *t = calloc(1, sizeof(*t));
        char short_name[16];
        int r;

        if (!t)
                return error_set(err, -ENOMEM, "out of memory for a thread");
        t->stop.run = stop_loop;
        r = loop_new(LOOP_BACKEND_AUTO, &t->loop, err);
        if (r < 0)
                goto free_thread;
        r = start_without_signals(t);
        if (r < 0) {
                error_set(err, r, "cannot start a thread: %s", strerror(-r));
                goto free_loop;
        }
        strncpy(short_name, name, sizeof(short_name) - 1);
        short_name[sizeof(short_name) - 1] = '\0';
        pthread_setname_np(t->thread, short_name);
        *ret_thread = t;
        return 0;
free_loop:
        loop_free(t->loop);
free_thread:
        free(t);
        return r;
}

struct loop *loop_thread_loop(const struct loop_thread *thread)
{
        return thread->loop;
}

void loop_thread_stop(struct loop_thread *thread)
{
        if (!thread)
                return;
        loop_post_remote(thread->loop, &thread->stop);
        pthread_join(thread->thread, NULL);
        loop_free(thread->loop);
        free(thread);
}
