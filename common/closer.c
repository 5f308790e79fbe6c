/* closer.c - closing descriptors that others made. Memory has threads of its own: how long it takes
 * is up to its size and nobody else, and so it never waits behind what is held up on purpose. */
#include "common/closer.h"
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#define STACK_BYTES (64u << 10)

struct job {
        struct job *next;
        int fd;
};

struct lane {
        struct job *first, **end;
        unsigned n_threads, max_threads;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* of the lanes */
static struct lane memory_lane = {.end = &memory_lane.first, .max_threads = 2};
static struct lane other_lane = {.end = &other_lane.first, .max_threads = 32};

static void *closer_main(void *arg)
{
        struct lane *lane = arg;
        struct job *job;

        pthread_mutex_lock(&mutex);
        while ((job = lane->first)) {
                lane->first = job->next;
                if (!lane->first)
                        lane->end = &lane->first;
                pthread_mutex_unlock(&mutex);
                close(job->fd);
                free(job);
                pthread_mutex_lock(&mutex);
        }
        lane->n_threads--;
        pthread_mutex_unlock(&mutex);
        return NULL;
}

/* Signals are for the threads that the program made. */
static int start_closer(struct lane *lane)
{
        pthread_attr_t attr;
        pthread_t thread;
        sigset_t all, old;
        int r = pthread_attr_init(&attr);

        if (r != 0)
                return -r;
        pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
        pthread_attr_setstacksize(&attr, STACK_BYTES);
        sigfillset(&all);
        pthread_sigmask(SIG_BLOCK, &all, &old);
        r = pthread_create(&thread, &attr, closer_main, lane);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        pthread_attr_destroy(&attr);
        return -r;
}

void close_elsewhere(int fd)
{
        struct lane *lane = fcntl(fd, F_GET_SEALS) >= 0 ? &memory_lane : &other_lane;
        struct job *job = malloc(sizeof(*job));

        if (!job) {
                close(fd);
                return;
        }
        *job = (struct job){.fd = fd};
        pthread_mutex_lock(&mutex);
        *lane->end = job;
        lane->end = &job->next;
        if (lane->n_threads < lane->max_threads && start_closer(lane) == 0)
                lane->n_threads++;
        if (lane->n_threads == 0) { /* this one is the only one in it */
                lane->first = NULL;
                lane->end = &lane->first;
                close(fd);
                free(job);
        }
        pthread_mutex_unlock(&mutex);
}
