/* background.c - a supervisor that is nobody's child: 'tarn vm start'. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"
#include "server/session.h"
#include "vm/vm.h"

struct background {
        int report; /* to who waits; -1: told already */
        int log;
        const struct known *known;
};

/* What came of the start, in the pipe: a whole struct, whose code is 0 when the guest runs. */
static void report(struct background *b, const struct error *e)
{
        if (b->report < 0)
                return;
        (void)!write(b->report, e, sizeof(*e));
        close(b->report);
        b->report = -1;
}

/* From here on nobody is at the terminal. */
static void running(void *arg)
{
        struct background *b = arg;
        int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);

        if (null_fd >= 0) {
                dup2(null_fd, STDIN_FILENO);
                close(null_fd);
        }
        dup2(b->log, STDOUT_FILENO);
        dup2(b->log, STDERR_FILENO);
        report(b, &ERROR_INIT);
}

static int open_log(struct background *b, struct error *err)
{
        char path[PATH_MAX];
        int r = known_path(b->known->name, "log", path, sizeof(path), err);

        if (r < 0)
                return r;
        b->log = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
        return b->log < 0 ? error_set(err, -errno, "cannot open '%s': %s", path, strerror(errno))
                          : 0;
}

_Noreturn static void become_supervisor(struct known *known,
                                        const struct prepare_progress *progress, int report_fd)
{
        struct background b = {.report = report_fd, .log = -1, .known = known};
        struct vm_run run = {.known = known, .progress = *progress, .running = running, .arg = &b};
        struct error e = ERROR_INIT;
        int r;

        setsid();
        signal(SIGHUP, SIG_IGN);
        r = known_is_ours(known, &e);
        if (r == 0)
                r = open_log(&b, &e);
        run.log = b.log;
        if (r == 0)
                r = vm_run(&run, &e);
        if (r < 0 && b.report < 0)
                log_error("machine '%s' has failed: %s", known->name, e.message);
        if (r == 0 && b.report >= 0) /* it was stopped before it ran */
                error_set(&e, -ECANCELED, "interrupted");
        report(&b, &e);
        known_free(known);
        fflush(NULL);
        _exit(r < 0 ? EXIT_FAILURE : EXIT_SUCCESS);
}

/* A signal goes on to the supervisor, which undoes what it has begun, and says so. */
static int await_report(int fd, pid_t pid, struct error *err)
{
        struct error e = ERROR_INIT;
        int signals = signals_open(err), r = signals < 0 ? signals : 0;
        struct pollfd polls[2] = {{.fd = fd, .events = POLLIN}, {.fd = signals, .events = POLLIN}};
        bool interrupted = false;

        while (r == 0 && !polls[0].revents) {
                if (poll(polls, 2, -1) < 0 && errno != EINTR)
                        r = error_set(err, -errno, "cannot wait: %s", strerror(errno));
                if (polls[1].revents) {
                        kill(pid, SIGTERM);
                        interrupted = true;
                        polls[1].fd = -1;
                        polls[1].revents = 0;
                }
        }
        if (r == 0 && read(fd, &e, sizeof(e)) != (ssize_t)sizeof(e))
                r = error_set(err, -EIO, "the process that was to run the machine has ended");
        if (r == 0 && e.code < 0) {
                (void)waitpid(pid, NULL, 0);
                r = e.code;
                if (err)
                        *err = e;
        }
        /* Where it runs all the same, its power button is pressed. */
        if (interrupted)
                r = error_set(err, -ECANCELED, "interrupted");
        if (signals >= 0)
                close(signals);
        signals_default();
        return r;
}

int vm_start(struct known *known, const struct prepare_progress *progress, struct error *err)
{
        int fds[2], r;
        pid_t pid;

        if (pipe2(fds, O_CLOEXEC) < 0)
                return error_set(err, -errno, "cannot make a pipe: %s", strerror(errno));
        pid = fork();
        if (pid == 0) {
                close(fds[0]);
                become_supervisor(known, progress, fds[1]);
        }
        r = pid < 0 ? error_set(err, -errno, "cannot start a process: %s", strerror(errno)) : 0;
        close(fds[1]);
        if (r == 0)
                r = await_report(fds[0], pid, err);
        close(fds[0]);
        return r;
}
