/* connector.c - see connector.h.
 *
 * A request is a message with the URI and one end of a socket pair, an answer a message there with the
 * error, or the connection. Each is a child of its own, which a peer may keep waiting. */
#include "server/connector.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "common/confine.h"
#include "common/coroutine.h"
#include "common/log.h"
#include "common/offload.h"
#include "common/passed_fds.h"
#include "formats/nbd.h"
#include "formats/nbd_uri.h"

#define URI_MAX   2048u
#define CHILD_S   30u /* a name's servers that do not answer, then each of its addresses */
#define OWN_FD    3
#define N_SIGNALS (sizeof(ignored) / sizeof(ignored[0]))

static const int ignored[] = {SIGINT, SIGTERM, SIGHUP, SIGCHLD};

/* ---- the process ---- */

static _Noreturn void answer(const char *uri, int reply_fd)
{
        struct error e = ERROR_INIT;
        char *export_name = NULL;
        int fd = -1;

        signal(SIGALRM, SIG_DFL);
        alarm(CHILD_S);
        if (!nbd_is_uri(uri))
                error_set(&e, -EINVAL, "'%s' is no NBD URI", uri);
        else if (nbd_uri_connect(uri, &fd, &export_name, &e) < 0)
                fd = -1;
        passed_fds_send(reply_fd, &e, sizeof(e), &fd, fd >= 0 ? 1 : 0, 0);
        _exit(0);
}

static _Noreturn void serve(void)
{
        char uri[URI_MAX + 1];

        for (;;) {
                int reply_fd = -1;
                struct passed_fds passed = {.fds = &reply_fd, .max = 1};
                struct pollfd wait = {.fd = OWN_FD, .events = POLLIN};
                ssize_t n;

                if (poll(&wait, 1, -1) < 0)
                        continue;
                n = passed_fds_receive(OWN_FD, uri, URI_MAX, &passed);
                if (n == 0 || (n < 0 && n != -EAGAIN && n != -EINTR))
                        _exit(0);
                if (n > 0 && reply_fd >= 0) {
                        uri[n] = '\0';
                        if (fork() == 0)
                                answer(uri, reply_fd);
                }
                if (reply_fd >= 0)
                        close(reply_fd);
        }
}

/* It ends with the server, not by what ends or hangs up a terminal's processes. */
static _Noreturn void child(int fd)
{
        /* Names, keys and sockets may be anywhere. */
        static const struct confine_path read_all = {"/", CONFINE_READ};
        static const struct confine_profile profile = {.paths = &read_all,
                                                       .n_paths = 1,
                                                       .socket_group = (gid_t)-1,
                                                       .abstract_sockets = true,
                                                       .connects = true};
        struct error e = ERROR_INIT;
        sigset_t none;

        for (size_t i = 0; i < N_SIGNALS; i++)
                signal(ignored[i], SIG_IGN);
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        prctl(PR_SET_NAME, "tarn-connector");
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || dup2(fd, OWN_FD) < 0)
                _exit(1);
        close_range(OWN_FD + 1, ~0u, 0);
        if (confine(&profile, &e) < 0)
                log_warning("the process that connects to bases keeps more than it needs: %s",
                            e.message);
        serve();
}

int connector_start(int *ret_fd, struct error *err)
{
        int ends[2];
        pid_t pid;

        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
                return error_set(err, -errno, "cannot make a socket pair: %s", strerror(errno));
        pid = fork();
        if (pid == 0)
                child(ends[1]);
        close(ends[1]);
        if (pid > 0) {
                *ret_fd = ends[0];
                return 0;
        }
        close(ends[0]);
        return error_set(err, -errno, "cannot start a process: %s", strerror(errno));
}

/* ---- asking it ---- */

static int aborted(const char *uri, struct error *err)
{
        return error_set(err, -ECONNABORTED, "cannot connect to '%s': it was given up", uri);
}

static int co_receive(const char *uri, int fd, int *ret_fd, struct error *err)
{
        struct loop_io io = {.op = LOOP_POLL, .fd = fd, .flags = POLLIN};
        struct passed_fds passed = {.fds = ret_fd, .max = 1};
        struct error e = ERROR_INIT;
        ssize_t n;

        (void)co_io(&io);
        n = passed_fds_receive(fd, &e, sizeof(e), &passed);
        if (n != (ssize_t)sizeof(e))
                return aborted(uri, err);
        if (e.code == 0 && passed.n == 1)
                return 0;
        if (err)
                *err = e;
        return e.code < 0 ? e.code : aborted(uri, err);
}

static int co_ask(struct host *host, const char *uri, struct connector_wait *wait, int *ret_fd,
                  struct error *err)
{
        int ends[2], r;

        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
                return error_set(err, -errno, "cannot connect to '%s': %s", uri, strerror(errno));
        r = passed_fds_send(host->connector_fd, uri, strlen(uri), &ends[1], 1, MSG_DONTWAIT) < 0
                ? error_set(err, -errno, "cannot connect to '%s': the process that would is gone",
                            uri)
                : 0;
        close(ends[1]);
        wait->fd = ends[0];
        if (r == 0)
                r = co_receive(uri, ends[0], ret_fd, err);
        wait->fd = -1;
        close(ends[0]);
        return r;
}

struct here {
        const char *uri;
        int fd, result;
        struct error *err;
};

static void connect_here(void *arg)
{
        struct here *h = arg;
        char *export_name;

        h->result = nbd_uri_connect(h->uri, &h->fd, &export_name, h->err);
        if (h->result == 0)
                free(export_name);
}

int co_connector_connect(struct host *host, const char *uri, struct connector_wait *wait,
                         int *ret_fd, struct error *err)
{
        struct here here = {.uri = uri, .err = err};
        struct offload *offload;

        if (strlen(uri) > URI_MAX)
                return error_set(err, -ENAMETOOLONG, "the URI '%.100s...' is too long", uri);
        if (host->connector_fd != CONNECTOR_NONE)
                return co_ask(host, uri, wait, ret_fd, err);
        offload = offload_new(1);
        co_offload(offload, connect_here, &here);
        offload_free(offload);
        *ret_fd = here.fd;
        return here.result;
}
