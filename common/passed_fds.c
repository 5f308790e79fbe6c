/* passed_fds.c - descriptors that go with a message. */
#include "common/passed_fds.h"
#include <assert.h>
#include <errno.h>
#include <string.h>
#include "common/closer.h"

union control {
        char buffer[CMSG_SPACE(PASSED_FDS_MAX * sizeof(int))];
        struct cmsghdr align;
};

void passed_fds_take(struct msghdr *msg, struct passed_fds *to)
{
        for (struct cmsghdr *h = CMSG_FIRSTHDR(msg); h; h = CMSG_NXTHDR(msg, h)) {
                size_t n_here;

                if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
                        continue;
                n_here = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
                for (size_t i = 0; i < n_here; i++) {
                        int fd;

                        memcpy(&fd, CMSG_DATA(h) + i * sizeof(int), sizeof(fd));
                        if (to->n < to->max)
                                to->fds[to->n++] = fd;
                        else
                                close_elsewhere(to->closer, fd);
                }
        }
}

/* There is room for all that one message may bring: what the kernel has no room for it closes itself,
 * in the thread that receives, however long that takes. */
ssize_t passed_fds_receive(int fd, void *data, size_t length, struct passed_fds *to)
{
        union control control;
        struct iovec iov = {data, length};
        struct msghdr msg;
        ssize_t n;

        do {
                msg = (struct msghdr){.msg_iov = &iov,
                                      .msg_iovlen = 1,
                                      .msg_control = control.buffer,
                                      .msg_controllen = sizeof(control.buffer)};
                n = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        } while (n < 0 && errno == EINTR);
        if (n < 0)
                return -errno;
        passed_fds_take(&msg, to);
        if (msg.msg_flags & MSG_CTRUNC)
                to->dropped = true;
        return n;
}

ssize_t passed_fds_send(int fd, const void *data, size_t length, const int *fds, size_t n,
                        int flags)
{
        union control control = {0};
        struct iovec iov = {(void *)data, length};
        struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

        assert(n <= PASSED_FDS_MAX);
        if (n > 0) {
                msg.msg_control = control.buffer;
                msg.msg_controllen = CMSG_SPACE(n * sizeof(int));
                control.align.cmsg_level = SOL_SOCKET;
                control.align.cmsg_type = SCM_RIGHTS;
                control.align.cmsg_len = CMSG_LEN(n * sizeof(int));
                memcpy(CMSG_DATA(&control.align), fds, n * sizeof(int));
        }
        return sendmsg(fd, &msg, flags | MSG_NOSIGNAL);
}
