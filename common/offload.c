/* offload.c - work for the processor in other threads. */
#include "common/offload.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>

#include "common/all_threads.h"
#include "common/coroutine.h"

#define THREADS_MAX 64u
#define STACK_BYTES ((size_t)256 << 10)

struct job {
        struct list link;
        void (*work)(void *arg);
        void *arg;
        struct loop *loop;
        struct loop_task ended; /* on the loop of who waits */
        struct co_queue waiter;
};

struct offload {
        pthread_mutex_t mutex; /* of all below */
        pthread_cond_t job_there;
        struct list jobs;
        bool ending;
        unsigned n_threads, n_idle, n_jobs, max_threads;
        pthread_t threads[THREADS_MAX];
};

static unsigned count_processors(void)
{
        cpu_set_t set;

        return sched_getaffinity(0, sizeof(set), &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1;
}

struct offload *offload_new(unsigned n_threads)
{
        struct offload *o = calloc(1, sizeof(*o));

        if (!o)
                return NULL;
        pthread_mutex_init(&o->mutex, NULL);
        pthread_cond_init(&o->job_there, NULL);
        list_init(&o->jobs);
        o->max_threads = n_threads ? n_threads : count_processors();
        if (o->max_threads > THREADS_MAX)
                o->max_threads = THREADS_MAX;
        return o;
}

void offload_free(struct offload *o)
{
        if (!o)
                return;
        pthread_mutex_lock(&o->mutex);
        o->ending = true;
        pthread_cond_broadcast(&o->job_there);
        pthread_mutex_unlock(&o->mutex);
        for (unsigned i = 0; i < o->n_threads; i++)
                pthread_join(o->threads[i], NULL);
        pthread_cond_destroy(&o->job_there);
        pthread_mutex_destroy(&o->mutex);
        free(o);
}

static void *thread_main(void *arg)
{
        struct offload *o = arg;

        pthread_mutex_lock(&o->mutex);
        while (!o->ending) {
                struct job *job;

                if (list_empty(&o->jobs)) {
                        o->n_idle++;
                        pthread_cond_wait(&o->job_there, &o->mutex);
                        o->n_idle--;
                        continue;
                }
                job = container_of(o->jobs.next, struct job, link);
                list_remove(&job->link);
                o->n_jobs--;
                pthread_mutex_unlock(&o->mutex);
                job->work(job->arg);
                /* The job is its waiter's from here on, and may be gone. */
                loop_post_remote(job->loop, &job->ended);
                pthread_mutex_lock(&o->mutex);
        }
        pthread_mutex_unlock(&o->mutex);
        return NULL;
}

/* With the mutex held. Signals are for the threads that the program made. */
static void start_thread(struct offload *o)
{
        pthread_attr_t attr;
        sigset_t all, old;

        if (pthread_attr_init(&attr) != 0)
                return;
        pthread_attr_setstacksize(&attr, STACK_BYTES);
        all_threads_blocked(&all);
        pthread_sigmask(SIG_BLOCK, &all, &old);
        if (pthread_create(&o->threads[o->n_threads], &attr, thread_main, o) == 0)
                o->n_threads++;
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        pthread_attr_destroy(&attr);
}

static void job_ended(struct loop_task *task)
{
        struct job *job = container_of(task, struct job, ended);

        co_wake_one(&job->waiter);
}

/* False: nobody is there to do it. */
static bool add_job(struct offload *o, struct job *job)
{
        bool added;

        pthread_mutex_lock(&o->mutex);
        /* Those who are idle may be on their way to jobs that wait. */
        if (o->n_idle <= o->n_jobs && o->n_threads < o->max_threads)
                start_thread(o);
        added = o->n_threads > 0;
        if (added) {
                list_append(&o->jobs, &job->link);
                o->n_jobs++;
                pthread_cond_signal(&o->job_there);
        }
        pthread_mutex_unlock(&o->mutex);
        return added;
}

void co_offload(struct offload *o, void (*work)(void *arg), void *arg)
{
        struct job job = {.work = work, .arg = arg, .loop = co_loop(), .ended = {.run = job_ended}};

        co_queue_init(&job.waiter);
        if (o && add_job(o, &job))
                co_wait(&job.waiter);
        else
                work(arg);
}
