/* servers.c - servers for pools that nobody serves. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "server/client.h"
#include "vm/prepare.h"

/* A pool that was not closed well is replayed when it is opened. */
#define SERVED_WAIT_MS 120000u
#define LOOK_MS        20u
#define WORDS_SIZE     4096u

/* Behind the pools' own files and the machines' folders: ".servers" is no machine's name. */
static int log_path(const char *pool, char *path, size_t size, struct error *err)
{
        char folder[PATH_MAX];
        int r = state_dir(folder, sizeof(folder), err);

        if (r < 0)
                return r;
        if ((size_t)snprintf(path, size, "%s/vm", folder) >= size)
                return error_set(err, -ENAMETOOLONG, "the state folder's path is too long");
        (void)mkdir(path, 0700);
        if ((size_t)snprintf(path, size, "%s/vm/.servers", folder) >= size)
                return error_set(err, -ENAMETOOLONG, "the state folder's path is too long");
        (void)mkdir(path, 0700);
        if ((size_t)snprintf(path, size, "%s/vm/.servers/%s.log", folder, pool) >= size)
                return error_set(err, -ENAMETOOLONG, "the state folder's path is too long");
        return 0;
}

/* What it is told is told by the supervisor; and what sockets it passes are not for a server. */
static void forget_service_manager(void)
{
        char **to = environ;

        for (char **from = environ; from && *from; from++)
                if (strncmp(*from, "NOTIFY_SOCKET=", 14) != 0 && strncmp(*from, "LISTEN_", 7) != 0)
                        *to++ = *from;
        if (to)
                *to = NULL;
}

/* In the new process. Nothing of ours is left to it but the log. */
_Noreturn static void become_server(const char *pool, int log)
{
        char program[PATH_MAX] = "";
        char *const arguments[] = {"tarn", "serve", (char *)pool, "--while-used", NULL};
        sigset_t none;
        int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);

        if (setsid() < 0 || null_fd < 0 || dup2(null_fd, STDIN_FILENO) < 0 ||
            dup2(log, STDOUT_FILENO) < 0 || dup2(log, STDERR_FILENO) < 0)
                _exit(EXIT_FAILURE);
        close_range(STDERR_FILENO + 1, ~0u, 0);
        signal(SIGHUP, SIG_IGN);
        sigemptyset(&none);
        pthread_sigmask(SIG_SETMASK, &none, NULL);
        forget_service_manager();
        /* By its path it has its name in lists of processes; where that is another file by now, or none,
         * it is still there. */
        if (readlink("/proc/self/exe", program, sizeof(program) - 1) > 0)
                execv(program, arguments);
        execv("/proc/self/exe", arguments);
        _exit(EXIT_FAILURE);
}

int server_spawn(const char *pool, pid_t *ret_pid, struct error *err)
{
        char path[PATH_MAX];
        int log, r = log_path(pool, path, sizeof(path), err);
        pid_t pid;

        if (r < 0)
                return r;
        /* What the last one said is not this one's word. */
        log = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
        if (log < 0)
                return error_set(err, -errno, "cannot open '%s': %s", path, strerror(errno));
        pid = fork();
        if (pid == 0)
                become_server(pool, log);
        r = errno;
        close(log);
        if (pid < 0)
                return error_set(err, -r, "cannot start a server for pool '%s': %s", pool,
                                 strerror(r));
        *ret_pid = pid;
        return 0;
}

void server_last_words(const char *pool, char *text, size_t size)
{
        char path[PATH_MAX], words[WORDS_SIZE + 1] = "", *line, *save = NULL;
        int fd =
            log_path(pool, path, sizeof(path), NULL) < 0 ? -1 : open(path, O_RDONLY | O_CLOEXEC);

        text[0] = '\0';
        if (fd < 0)
                return;
        if (read(fd, words, WORDS_SIZE) < 0)
                words[0] = '\0';
        close(fd);
        for (line = strtok_r(words, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
                if (strncmp(line, "tarn: ", 6) == 0)
                        snprintf(text, size, "%s", line + 6);
}

/* 0: it is served. -ENOENT: nobody does. A pool that is not known here, or whose state cannot be read,
 * a server looks for, and says what is wrong. */
static int look(const char *pool, struct error *err)
{
        struct pool_state *state = NULL;
        int fd, r = state_load(pool, &state, NULL);

        if (r < 0)
                return error_set(err, -ENOENT, "pool '%s' is not being served", pool);
        r = client_connect(state, &fd, err);
        if (r == 0)
                close(fd);
        state_free(state);
        return r;
}

static int says_why(const char *pool, struct error *err)
{
        char words[400];

        server_last_words(pool, words, sizeof(words));
        return error_set(err, -EIO, "pool '%s' cannot be served: %s", pool,
                         words[0] ? words : "its server has ended");
}

static int make_served(const char *pool, struct error *err)
{
        const struct timespec pause = {.tv_nsec = LOOK_MS * 1000000L};
        pid_t pid;
        int r = look(pool, err);

        if (r != -ENOENT)
                return r;
        r = server_spawn(pool, &pid, err);
        for (unsigned waited = 0; r == 0; waited += LOOK_MS) {
                bool ended = waitpid(pid, NULL, WNOHANG) == pid;

                /* It ends as well where another one was quicker. */
                r = look(pool, err);
                if (r != -ENOENT)
                        return r;
                if (ended)
                        return says_why(pool, err);
                if (waited >= SERVED_WAIT_MS)
                        return error_set(err, -ETIMEDOUT,
                                         "the server of pool '%s' is not ready after %u s", pool,
                                         SERVED_WAIT_MS / 1000);
                r = 0;
                nanosleep(&pause, NULL);
        }
        return r;
}

int prepare_servers(const struct vm_file *file, struct error *err)
{
        int r = 0;

        for (size_t i = 0; r == 0 && i < file->n_disks; i++)
                r = make_served(file->disks[i].pool, err);
        return r;
}
