/* signals.c - SIGINT and SIGTERM as a descriptor. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "server/session.h"

static volatile sig_atomic_t seen;

static void signal_set(sigset_t *set)
{
        sigemptyset(set);
        sigaddset(set, SIGINT);
        sigaddset(set, SIGTERM);
}

int signals_open(struct error *err)
{
        sigset_t set;
        int fd;

        signal_set(&set);
        sigprocmask(SIG_BLOCK, &set, NULL);
        fd = signalfd(-1, &set, SFD_CLOEXEC);
        if (fd < 0)
                return error_set(err, -errno, "cannot watch signals: %s", strerror(errno));
        return fd;
}

void signals_default(void)
{
        struct signalfd_siginfo info;
        sigset_t set, pending;
        int fd;

        signal_set(&set);
        /* What is pending was seen, and must not end the process when it is let through. */
        fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        while (fd >= 0 && sigpending(&pending) == 0 &&
               (sigismember(&pending, SIGINT) || sigismember(&pending, SIGTERM)) &&
               read(fd, &info, sizeof(info)) == sizeof(info))
                seen = 1;
        if (fd >= 0)
                close(fd);
        sigprocmask(SIG_UNBLOCK, &set, NULL);
}

static void note(int number)
{
        seen = 1;
}

void signals_hold(void)
{
        /* SA_RESETHAND: a second one ends the process, as it does elsewhere. */
        const struct sigaction action = {.sa_handler = note, .sa_flags = SA_RESTART | SA_RESETHAND};

        sigaction(SIGINT, &action, NULL);
        sigaction(SIGTERM, &action, NULL);
}

int signals_check(struct error *err)
{
        return seen ? error_set(err, -ECANCELED, "interrupted") : 0;
}
