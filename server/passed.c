/* passed.c - see passed.h. */
#include "server/passed.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/service_manager.h"

static int check_listens(int fd, const char *name, struct error *err)
{
        int flags;

        if (!service_is_listening(fd))
                return error_set(err, -EINVAL,
                                 "'%s', passed as descriptor %d, is no listening stream socket",
                                 name, fd);
        /* io_uring takes O_NONBLOCK for a wish not to be kept waiting, and would be asked again and
         * again. */
        flags = fcntl(fd, F_GETFL);
        if (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0)
                return error_set(err, -errno, "cannot use descriptor %d: %s", fd, strerror(errno));
        return 0;
}

static int take_control(struct sockets *s, int fd, struct error *err)
{
        struct sockaddr_un a;
        socklen_t length = sizeof(a);

        if (s->control_fd >= 0)
                return error_set(err, -EINVAL, "two control sockets were passed");
        if (getsockname(fd, (struct sockaddr *)&a, &length) < 0 || a.sun_family != AF_UNIX ||
            length <= sizeof(sa_family_t) || a.sun_path[0] == '\0')
                return error_set(
                    err, -EINVAL,
                    "the control socket that was passed is no Unix socket with a path");
        s->passed_control = strndup(a.sun_path, sizeof(a.sun_path));
        if (!s->passed_control)
                return error_set(err, -ENOMEM, "out of memory");
        s->control_path = s->passed_control;
        s->control_fd = fd;
        return 0;
}

static int take(struct sockets *s, int fd, const char *name, struct error *err)
{
        int r = check_listens(fd, name, err);

        if (r < 0)
                return r;
        if (strcmp(name, "control") == 0)
                return take_control(s, fd, err);
        if (strcmp(name, "nbd") == 0)
                return sockets_add_nbd(s, fd, err);
        error_set(err, -EINVAL,
                  "a socket called '%s' was passed: it is neither 'nbd' nor 'control'", name);
        return error_hint(err, "say FileDescriptorName=nbd or =control in the socket's unit");
}

int passed_take(struct sockets *s, struct error *err)
{
        const char **names = NULL;
        int first, n = service_passed_fds(&first, &names), r = 0;

        if (n < 0)
                return error_set(err, n, "cannot take the sockets that were passed: %s",
                                 strerror(-n));
        for (int i = 0; i < n; i++) {
                int fd = first + i;

                if (r == 0)
                        r = take(s, fd, names[i], err);
                if (r < 0 && s->control_fd != fd)
                        close(fd);
        }
        free(names);
        return r;
}
