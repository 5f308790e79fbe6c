/* service_manager.c - see service_manager.h. */
#include "common/service_manager.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define TEXT_MAX 1024u
#define FIRST_FD 3 /* SD_LISTEN_FDS_START */

/* ---- telling ---- */

/* A path, or with '@' a name in the abstract namespace, which has a NUL there. 0: nobody is to be told. */
static socklen_t address_of(const char *name, struct sockaddr_un *ret)
{
        size_t n = name ? strlen(name) : 0;

        if (n < 2 || n >= sizeof(ret->sun_path) || (name[0] != '/' && name[0] != '@'))
                return 0;
        *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
        memcpy(ret->sun_path, name, n);
        if (name[0] == '@')
                ret->sun_path[0] = '\0';
        return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + (name[0] == '/'));
}

void service_notify(const char *format, ...)
{
        struct sockaddr_un address;
        socklen_t length = address_of(getenv("NOTIFY_SOCKET"), &address);
        char text[TEXT_MAX];
        va_list ap;
        int fd, n;

        if (length == 0)
                return;
        va_start(ap, format);
        n = vsnprintf(text, sizeof(text), format, ap);
        va_end(ap);
        if (n < 0 || (size_t)n >= sizeof(text))
                return;
        fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return;
        (void)sendto(fd, text, (size_t)n, MSG_NOSIGNAL, (const struct sockaddr *)&address, length);
        close(fd);
}

/* ---- what was passed ---- */

/* A number without a sign; -EINVAL. */
static int parse(const char *text, long max, long *ret)
{
        char *end;
        long number;

        if (text[0] < '0' || text[0] > '9')
                return -EINVAL;
        errno = 0;
        number = strtol(text, &end, 10);
        if (errno != 0 || *end != '\0' || number > max)
                return -EINVAL;
        *ret = number;
        return 0;
}

/* The names of @n descriptors, with their text behind them. */
static int split(const char *text, size_t n, const char ***ret)
{
        size_t size = text ? strlen(text) + 1 : 0, found = 0;
        const char **names = malloc(n * sizeof(*names) + size);
        char *copy, *name;

        if (!names)
                return -ENOMEM;
        copy = (char *)(names + n);
        for (size_t i = 0; i < n; i++)
                names[i] = "unknown";
        if (text) {
                memcpy(copy, text, size);
                while ((name = strsep(&copy, ":"))) {
                        if (found == n) {
                                free(names);
                                return -EINVAL;
                        }
                        names[found++] = name;
                }
        }
        if (text && found != n) {
                free(names);
                return -EINVAL;
        }
        *ret = names;
        return 0;
}

static int count(void)
{
        const char *process = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
        long pid, n;

        if (!process || !fds)
                return 0;
        if (parse(process, INT_MAX, &pid) < 0)
                return -EINVAL;
        if (pid != (long)getpid())
                return 0; /* they were for a parent of this process */
        return parse(fds, INT_MAX - FIRST_FD, &n) < 0 ? -EINVAL : (int)n;
}

int service_passed_fds(int *ret_first, const char ***ret_names)
{
        int n = count(), r = n;

        for (int i = 0; r >= 0 && i < n; i++) {
                int flags = fcntl(FIRST_FD + i, F_GETFD);

                if (flags < 0 || fcntl(FIRST_FD + i, F_SETFD, flags | FD_CLOEXEC) < 0)
                        r = -errno;
        }
        if (r > 0)
                r = split(getenv("LISTEN_FDNAMES"), (size_t)n, ret_names);
        unsetenv("LISTEN_PID");
        unsetenv("LISTEN_FDS");
        unsetenv("LISTEN_FDNAMES");
        *ret_first = FIRST_FD;
        return r < 0 ? r : n;
}

bool service_is_listening(int fd)
{
        int type = 0, listening = 0;
        socklen_t length = sizeof(type);

        if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) < 0 || type != SOCK_STREAM)
                return false;
        length = sizeof(listening);
        return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length) == 0 && listening;
}
