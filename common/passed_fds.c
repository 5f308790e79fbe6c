/* passed_fds.c - descriptors that came with a message. */
#include "common/passed_fds.h"
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
