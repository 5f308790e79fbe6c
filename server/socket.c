/* socket.c - listening on and connecting to Unix sockets. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "server/control.h"

/* All the clients of a server that was started again come at once, and a Unix socket whose queue is
 * full refuses those that do not block. */
#define BACKLOG 1024
/* How long the sockets of a process that has ended may stay. */
#define LEFT_WAIT_MS 2000

static int unix_address(const char *path, struct sockaddr_un *address)
{
        *address = (struct sockaddr_un){.sun_family = AF_UNIX};
        if (path[0] == '\0')
                return -EINVAL;
        if (strlen(path) >= sizeof(address->sun_path))
                return -ENAMETOOLONG;
        memcpy(address->sun_path, path, strlen(path) + 1);
        return 0;
}

int socket_connect_unix(const char *path, int *ret_fd)
{
        struct sockaddr_un address;
        int fd, r = unix_address(path, &address);

        if (r < 0)
                return r;
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return -errno;
        if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
                r = -errno;
                close(fd);
                return r;
        }
        *ret_fd = fd;
        return 0;
}

static bool has_ended(pid_t pid)
{
        int fd = (int)syscall(SYS_pidfd_open, pid, 0);
        struct pollfd p = {.fd = fd, .events = POLLIN};
        bool ended = fd < 0 ? errno == ESRCH : poll(&p, 1, 0) > 0;

        if (fd >= 0)
                close(fd);
        return ended;
}

bool socket_is_left(int fd, pid_t pid)
{
        struct pollfd p = {.fd = fd};
        struct ucred peer;
        socklen_t length = sizeof(peer);

        /* The peer is who began to listen, 0 where he cannot be seen from here; another process may
         * have the socket from him, and does not hang up. */
        return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 && peer.pid > 0 &&
               has_ended(peer.pid) && has_ended(pid > 0 ? pid : peer.pid) &&
               poll(&p, 1, LEFT_WAIT_MS) > 0;
}

/* What stands at @path may be replaced: nothing, or a socket that nobody listens on. */
static int check_free(const char *path, struct error *err)
{
        struct stat st;
        bool left = false;
        int fd, r;

        if (lstat(path, &st) < 0)
                return errno == ENOENT ? 0
                                       : error_set(err, -errno, "cannot look at '%s': %s", path,
                                                   strerror(errno));
        if (!S_ISSOCK(st.st_mode))
                return error_set(err, -EEXIST, "'%s' exists and is not a socket", path);
        r = socket_connect_unix(path, &fd);
        if (r == 0) {
                left = socket_is_left(fd, 0);
                close(fd);
        }
        if ((r == 0 && !left) || r == -EAGAIN)
                return error_set(err, -EADDRINUSE, "another server listens on '%s'", path);
        return 0;
}

void socket_remove_left(const char *path)
{
        struct error e = ERROR_INIT;

        if (check_free(path, &e) == 0)
                unlink(path);
}

/* Bound under another name beside @path, given its mode, listened on, renamed. */
static int bind_beside(int fd, const char *path, const char *tmp, gid_t group)
{
        struct sockaddr_un address;
        int r = unix_address(tmp, &address);

        if (r < 0)
                return r;
        unlink(tmp);
        if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
                return -errno;
        if (group != (gid_t)-1 && chown(tmp, (uid_t)-1, group) < 0)
                r = -errno;
        if (r == 0 && chmod(tmp, group == (gid_t)-1 ? 0600 : 0660) < 0)
                r = -errno;
        if (r == 0 && listen(fd, BACKLOG) < 0)
                r = -errno;
        if (r == 0 && rename(tmp, path) < 0)
                r = -errno;
        if (r < 0)
                unlink(tmp);
        return r;
}

int socket_listen_unix(const char *path, gid_t group, int *ret_fd, struct error *err)
{
        char folder[PATH_MAX], tmp[PATH_MAX];
        struct sockaddr_un address;
        int fd, folder_fd, r;

        r = unix_address(path, &address);
        if (r == -EINVAL)
                return error_set(err, r, "the path of a socket is empty");
        if (r < 0)
                return error_set(err, r, "'%s' is too long for a socket: %zu characters at most",
                                 path, sizeof(address.sun_path) - 1);
        r = check_free(path, err);
        if (r < 0)
                return r;
        snprintf(folder, sizeof(folder), "%s", path);
        folder_fd = open(dirname(folder), O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (folder_fd < 0)
                return error_set(err, -errno, "cannot make the socket '%s': %s", path,
                                 strerror(errno));
        /* By way of /proc, so that the other name may be longer than the one asked for. */
        snprintf(tmp, sizeof(tmp), "/proc/self/fd/%d/.tarn-%d.sock", folder_fd, (int)getpid());
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        r = fd < 0 ? -errno : bind_beside(fd, path, tmp, group);
        close(folder_fd);
        if (r < 0) {
                if (fd >= 0)
                        close(fd);
                return error_set(err, r, "cannot make the socket '%s': %s", path, strerror(-r));
        }
        *ret_fd = fd;
        return 0;
}
