/* all_threads.c - doing something in each thread of the process. */
#include "common/all_threads.h"
#include <dirent.h>
#include <errno.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define CALL_SIGNAL SIGURG
#define STEP_NS     10000000
#define STEPS_MAX   500 /* five seconds */

static struct {
        int (*call)(void *arg);
        void *arg;
        atomic_int result;
        atomic_int thread; /* whose turn it is: nobody else takes a stray signal for it */
        sem_t done;
} turn;

void all_threads_blocked(sigset_t *ret_set)
{
        static const int let_through[] = {SIGBUS,  SIGSEGV, SIGFPE,     SIGILL,
                                          SIGTRAP, SIGSYS,  CALL_SIGNAL};

        sigfillset(ret_set);
        for (size_t i = 0; i < sizeof(let_through) / sizeof(let_through[0]); i++)
                sigdelset(ret_set, let_through[i]);
}

static void take_turn(int signal)
{
        int saved = errno, me = (int)syscall(SYS_gettid), r;

        if (atomic_compare_exchange_strong(&turn.thread, &me, 0)) {
                r = turn.call(turn.arg);
                if (r < 0)
                        atomic_store(&turn.result, r);
                sem_post(&turn.done);
        }
        errno = saved;
}

static int signal_thread(int thread, int signal)
{
        return syscall(SYS_tgkill, getpid(), thread, signal) < 0 ? -errno : 0;
}

static bool is_done(void)
{
        struct timespec until;

        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += STEP_NS;
        if (until.tv_nsec >= 1000000000) {
                until.tv_nsec -= 1000000000;
                until.tv_sec++;
        }
        return sem_timedwait(&turn.done, &until) == 0;
}

/* A thread that has ended meanwhile needs nothing any more. */
static int call_in(int thread)
{
        int r;

        atomic_store(&turn.thread, thread);
        r = signal_thread(thread, CALL_SIGNAL);
        for (unsigned i = 0; r == 0; i++) {
                if (is_done())
                        return 0;
                r = i == STEPS_MAX ? -ETIMEDOUT : signal_thread(thread, 0);
        }
        /* Should it have begun just now, it comes to its end. */
        if (atomic_exchange(&turn.thread, 0) == 0) {
                while (!is_done())
                        ;
                return 0;
        }
        return r == -ESRCH ? 0 : r;
}

struct seen {
        int *thread;
        size_t n, room;
};

static bool has(const struct seen *seen, int thread)
{
        for (size_t i = 0; i < seen->n; i++)
                if (seen->thread[i] == thread)
                        return true;
        return false;
}

static int keep(struct seen *seen, int thread)
{
        if (seen->n == seen->room) {
                size_t room = seen->room ? 2 * seen->room : 64;
                int *more = reallocarray(seen->thread, room, sizeof(*more));

                if (!more)
                        return -ENOMEM;
                seen->thread = more;
                seen->room = room;
        }
        seen->thread[seen->n++] = thread;
        return 0;
}

/* io_uring's workers are listed with the process's threads, and are the kernel's: what they do is done
 * by the credentials of who asked for it (proc(5), /proc/PID/stat, field 9). */
static bool is_io_worker(int thread)
{
        const unsigned io_worker = 0x10; /* PF_IO_WORKER, include/linux/sched.h */
        char path[64], line[512];
        char *field;
        unsigned long flags = 0;
        FILE *file;

        snprintf(path, sizeof(path), "/proc/self/task/%d/stat", thread);
        file = fopen(path, "re");
        if (!file)
                return false;
        /* The name, which may hold anything, is the second field, and the last with a bracket. */
        field = fgets(line, sizeof(line), file) ? strrchr(line, ')') : NULL;
        for (int i = 2; field && i < 9; i++) {
                field = strchr(field, ' ');
                if (field)
                        field++;
        }
        if (field)
                flags = strtoul(field, NULL, 10);
        fclose(file);
        return flags & io_worker;
}

/* Those that were not there before, until there are no more. What a thread makes that has been called
 * inherits it from there, and is called once more. */
static int call_in_others(DIR *folder, struct seen *seen)
{
        const struct dirent *entry;
        size_t n;
        int r = 0;

        do {
                n = seen->n;
                rewinddir(folder);
                while ((entry = readdir(folder))) {
                        int thread = (int)strtol(entry->d_name, NULL, 10), result;

                        if (thread <= 0 || has(seen, thread))
                                continue;
                        result = keep(seen, thread);
                        if (result < 0)
                                return result;
                        result = is_io_worker(thread) ? 0 : call_in(thread);
                        if (result < 0)
                                r = result;
                }
        } while (seen->n > n);
        return r;
}

int all_threads_call(int (*call)(void *arg), void *arg, struct error *err)
{
        struct sigaction action = {.sa_handler = take_turn, .sa_flags = SA_RESTART}, before;
        struct seen seen = {0};
        DIR *folder = opendir("/proc/self/task");
        int r, own;

        turn.call = call;
        turn.arg = arg;
        atomic_store(&turn.result, 0);
        if (!folder || sem_init(&turn.done, 0, 0) < 0 ||
            sigaction(CALL_SIGNAL, &action, &before) < 0) {
                r = -errno;
        } else {
                r = keep(&seen, (int)syscall(SYS_gettid));
                if (r == 0)
                        r = call_in_others(folder, &seen);
                sigaction(CALL_SIGNAL, &before, NULL);
        }
        if (folder)
                closedir(folder);
        free(seen.thread);
        own = call(arg);
        if (r == 0)
                r = atomic_load(&turn.result);
        if (r == 0)
                r = own;
        return r < 0 ? error_set(err, r, "not done in every thread: %s", strerror(-r)) : 0;
}
