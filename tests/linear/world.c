/* world.c - see world.h. */
#include "tests/linear/world.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "tests/bench/measure.h"

#define PATH_BYTES 512

uint64_t world_clock_ns(void)
{
        return measure_clock_ns();
}

void world_sleep_ms(unsigned ms)
{
        const struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};

        nanosleep(&t, NULL);
}

int world_init(struct world *w, struct error *err)
{
        pthread_rwlockattr_t attributes;

        /* Those who try to connect again and again would keep the killer out. */
        pthread_rwlockattr_init(&attributes);
        pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
        int r = pthread_rwlock_init(&w->lock, &attributes);
        pthread_rwlockattr_destroy(&attributes);
        return r ? error_set(err, -r, "cannot make a lock: %s", strerror(r)) : 0;
}

void world_free(struct world *w)
{
        if (w->server > 0) {
                kill(w->server, SIGKILL);
                waitpid(w->server, NULL, 0);
        }
        pthread_rwlock_destroy(&w->lock);
}

unsigned world_enter(struct world *w)
{
        pthread_rwlock_rdlock(&w->lock);
        return w->life;
}

void world_leave(struct world *w)
{
        pthread_rwlock_unlock(&w->lock);
}

bool world_stopping(const struct world *w)
{
        return atomic_load(&w->stopping);
}

enum world_mood world_mood(const struct world *w)
{
        return (enum world_mood)atomic_load(&w->mood);
}

/* ---- servers ---- */

static void log_path(const struct world *w, char path[PATH_BYTES])
{
        snprintf(path, PATH_BYTES, "%s/serve.%u.log", w->folder, w->n_servers);
}

static int spawn(struct world *w, bool takes_over, struct error *err)
{
        char nbd[PATH_BYTES], vhost[PATH_BYTES], log[PATH_BYTES];
        const char *words[16] = {w->tarn, "serve", w->pool};
        posix_spawn_file_actions_t actions;
        unsigned n = 3;

        w->n_servers++;
        snprintf(nbd, sizeof(nbd), "unix:%s/nbd.sock", w->folder);
        snprintf(vhost, sizeof(vhost), "%s/vhost", w->folder);
        log_path(w, log);
        if (takes_over) {
                words[n++] = "--takeover";
        } else {
                words[n++] = "--nbd";
                words[n++] = nbd;
                words[n++] = "--vhost-user";
                words[n++] = vhost;
        }
        if (w->threads) {
                words[n++] = "--threads";
                words[n++] = w->threads;
        }
        int r = posix_spawn_file_actions_init(&actions);
        if (r == 0) {
                r = posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, log,
                                                     O_WRONLY | O_CREAT | O_TRUNC, 0600);
                if (r == 0)
                        r = posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO,
                                                             STDERR_FILENO);
                if (r == 0)
                        r = posix_spawn(&w->server, w->tarn, &actions, NULL,
                                        (char *const *)(uintptr_t)words, environ);
                posix_spawn_file_actions_destroy(&actions);
        }
        if (r) {
                w->server = 0;
                return error_set(err, -r, "cannot start a server: %s", strerror(r));
        }
        return 0;
}

static bool log_says(const struct world *w, const char *beginning)
{
        char path[PATH_BYTES], line[1024];
        bool found = false;

        log_path(w, path);
        FILE *file = fopen(path, "r");
        while (file && !found && fgets(line, sizeof(line), file))
                found = strncmp(line, beginning, strlen(beginning)) == 0;
        if (file)
                fclose(file);
        return found;
}

static int wait_until_it_serves(struct world *w, struct error *err)
{
        uint64_t end_ns = world_clock_ns() + WORLD_PATIENCE_MS * UINT64_C(1000000);

        while (!log_says(w, "  control")) {
                if (waitpid(w->server, NULL, WNOHANG) == w->server) {
                        w->server = 0;
                        return error_set(err, -ECHILD, "server %u ended at its start",
                                         w->n_servers);
                }
                if (world_clock_ns() > end_ns)
                        return error_set(err, -ETIMEDOUT, "server %u does not serve", w->n_servers);
                world_sleep_ms(10);
        }
        return 0;
}

int world_begin(struct world *w, struct error *err)
{
        return spawn(w, false, err);
}

int world_start(struct world *w, struct error *err)
{
        int r = spawn(w, false, err);

        return r < 0 ? r : wait_until_it_serves(w, err);
}

int world_kill(struct world *w, struct error *err)
{
        int status;

        if (kill(w->server, SIGKILL) < 0 || waitpid(w->server, &status, 0) != w->server)
                return error_set(err, -errno, "cannot kill the server: %s", strerror(errno));
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
                return error_set(err, -ECHILD, "server %u had ended before it was killed",
                                 w->n_servers);
        pthread_rwlock_wrlock(&w->lock);
        w->life++;
        w->server = 0;
        pthread_rwlock_unlock(&w->lock);
        return 0;
}

/* It must end by itself, and with success. */
static int await_end(pid_t server, struct error *err)
{
        uint64_t end_ns = world_clock_ns() + WORLD_PATIENCE_MS * UINT64_C(1000000);
        int status;

        while (waitpid(server, &status, WNOHANG) != server) {
                if (world_clock_ns() > end_ns)
                        return error_set(err, -ETIMEDOUT, "a server does not end");
                world_sleep_ms(10);
        }
        if (status != 0)
                return error_set(err, -ECHILD, "a server ended with status %#x", (unsigned)status);
        return 0;
}

int world_take_over(struct world *w, struct error *err)
{
        pid_t old = w->server;
        int r = spawn(w, true, err);

        if (r == 0)
                r = wait_until_it_serves(w, err);
        int ended = await_end(old, r == 0 ? err : NULL);
        if (ended == -ETIMEDOUT) {
                kill(old, SIGKILL);
                waitpid(old, NULL, 0);
        }
        return r < 0 ? r : ended;
}

int world_end(struct world *w, struct error *err)
{
        if (kill(w->server, SIGTERM) < 0)
                return error_set(err, -errno, "the server has ended: %s", strerror(errno));
        int r = await_end(w->server, err);
        if (r != -ETIMEDOUT)
                w->server = 0;
        return r;
}
