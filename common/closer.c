/* closer.c - closing descriptors that others made. Memory has threads of its own: how long it takes
 * is up to its size and nobody else, and so it never waits behind what is held up on purpose. */
#include "common/closer.h"
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>
#include "common/all_threads.h"

#define STACK_BYTES (64u << 10)

struct job {
        struct job *next;
        struct closer *closer;
        void (*work)(void *arg); /* NULL: close fd */
        void *arg;
        int fd;
};

struct lane {
        struct job *first, **end;
        unsigned n_threads, max_threads;
};

struct closer {
        struct lane lane;
        unsigned n_pending; /* in the lane for memory, too */
        bool released;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* of all below */
static struct lane memory_lane = {.end = &memory_lane.first, .max_threads = 2};
static struct closer common_closer = {.lane = {.end = &common_closer.lane.first, .max_threads = 4}};

/* With the mutex held. */
static struct job *take_job(struct lane *lane)
{
        struct job *job = lane->first;

        if (job) {
                lane->first = job->next;
                if (!lane->first)
                        lane->end = &lane->first;
        }
        return job;
}

/* With the mutex held: a released closer goes with its last job and its last thread. */
static void free_if_done(struct closer *closer)
{
        if (closer->released && closer->n_pending == 0 && closer->lane.n_threads == 0)
                free(closer);
}

static void do_job(const struct job *job)
{
        if (job->work)
                job->work(job->arg);
        else
                close(job->fd);
}

static void run_lane(struct lane *lane)
{
        struct job *job;

        while ((job = take_job(lane))) {
                struct closer *closer = job->closer;

                pthread_mutex_unlock(&mutex);
                do_job(job);
                free(job);
                pthread_mutex_lock(&mutex);
                closer->n_pending--;
                if (lane != &closer->lane)
                        free_if_done(closer);
        }
        lane->n_threads--;
}

static void *memory_main(void *arg)
{
        pthread_mutex_lock(&mutex);
        run_lane(&memory_lane);
        pthread_mutex_unlock(&mutex);
        return NULL;
}

static void *closer_main(void *arg)
{
        struct closer *closer = arg;

        pthread_mutex_lock(&mutex);
        run_lane(&closer->lane);
        free_if_done(closer);
        pthread_mutex_unlock(&mutex);
        return NULL;
}

/* Signals are for the threads that the program made. */
static int start_thread(void *(*run)(void *arg), void *arg)
{
        pthread_attr_t attr;
        pthread_t thread;
        sigset_t all, old;
        int r = pthread_attr_init(&attr);

        if (r != 0)
                return -r;
        pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
        pthread_attr_setstacksize(&attr, STACK_BYTES);
        all_threads_blocked(&all);
        pthread_sigmask(SIG_BLOCK, &all, &old);
        r = pthread_create(&thread, &attr, run, arg);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        pthread_attr_destroy(&attr);
        return -r;
}

/* False: nobody is there to do it. */
static bool add_job(struct closer *closer, struct lane *lane, struct job *job)
{
        bool added = true;

        pthread_mutex_lock(&mutex);
        job->closer = closer;
        job->next = NULL;
        if (lane->n_threads < lane->max_threads &&
            start_thread(lane == &memory_lane ? memory_main : closer_main, closer) == 0)
                lane->n_threads++;
        if (lane->n_threads > 0) {
                *lane->end = job;
                lane->end = &job->next;
                closer->n_pending++;
        } else {
                added = false;
        }
        pthread_mutex_unlock(&mutex);
        return added;
}

struct closer *closer_new(void)
{
        struct closer *closer = calloc(1, sizeof(*closer));

        if (closer) {
                closer->lane.end = &closer->lane.first;
                closer->lane.max_threads = 4;
        }
        return closer;
}

void closer_free(struct closer *closer)
{
        if (!closer)
                return;
        pthread_mutex_lock(&mutex);
        closer->released = true;
        free_if_done(closer);
        pthread_mutex_unlock(&mutex);
}

unsigned closer_pending(struct closer *closer)
{
        unsigned n;

        pthread_mutex_lock(&mutex);
        n = closer->n_pending;
        pthread_mutex_unlock(&mutex);
        return n;
}

void close_elsewhere(struct closer *closer, int fd)
{
        struct job *job = malloc(sizeof(*job));
        struct lane *lane;

        closer = closer ? closer : &common_closer;
        lane = fcntl(fd, F_GET_SEALS) >= 0 ? &memory_lane : &closer->lane;
        if (job)
                *job = (struct job){.fd = fd};
        if (!job || !add_job(closer, lane, job)) {
                close(fd);
                free(job);
        }
}

bool closer_run(struct closer *closer, void (*work)(void *arg), void *arg)
{
        struct job *job = malloc(sizeof(*job));

        if (!job)
                return false;
        *job = (struct job){.work = work, .arg = arg};
        if (add_job(closer, &closer->lane, job))
                return true;
        free(job);
        return false;
}
