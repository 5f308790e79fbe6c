/* passed_fds.c - descriptors that go with a message. */
#include "common/passed_fds.h"
#include <assert.h>
#include <string.h>
#include "common/closer.h"

size_t passed_fds_take(struct msghdr *msg, int *fds, size_t n, size_t max)
{
        for (struct cmsghdr *h = CMSG_FIRSTHDR(msg); h; h = CMSG_NXTHDR(msg, h)) {
                size_t n_here;

                if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
                        continue;
                n_here = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
                for (size_t i = 0; i < n_here; i++) {
                        int fd;

                        memcpy(&fd, CMSG_DATA(h) + i * sizeof(int), sizeof(fd));
                        if (n < max)
                                fds[n++] = fd;
                        else
                                close_elsewhere(fd);
                }
        }
        return n;
}

ssize_t passed_fds_send(int fd, const void *data, size_t length, const int *fds, size_t n,
                        int flags)
{
        union {
                char buffer[CMSG_SPACE(PASSED_FDS_MAX * sizeof(int))];
                struct cmsghdr align;
        } control = {0};
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
