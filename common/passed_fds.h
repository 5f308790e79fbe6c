/* passed_fds.h - descriptors that go with a message (unix(7), SCM_RIGHTS).
 *
 * Threads    [any thread].
 * Ownership  those received are the caller's; those for which there is no room are closed, by another
 *            thread. Those sent stay the caller's.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/types.h>

#define PASSED_FDS_MAX 253u /* in one message: the kernel's SCM_MAX_FD */

struct closer;

/* Descriptors that have come. */
struct passed_fds {
        int *fds;
        size_t n, max;         /* there are, and there is room for */
        struct closer *closer; /* of those for which there is none; NULL: from who may be trusted */
        bool dropped;          /* the process may not have more, and some are lost */
};

/* Append what recvmsg(2) has left in @msg. */
void passed_fds_take(struct msghdr *msg, struct passed_fds *to);
/* recvmsg(2) of at most @length bytes, without waiting for them; descriptors that come along are
 * appended to @to and are close-on-exec. The number of bytes, 0 at the end, or -errno: -EAGAIN. */
ssize_t passed_fds_receive(int fd, void *data, size_t length, struct passed_fds *to);
/* sendmsg(2) of @length bytes with @n descriptors, at most PASSED_FDS_MAX; MSG_NOSIGNAL is added to
 * @flags. */
ssize_t passed_fds_send(int fd, const void *data, size_t length, const int *fds, size_t n,
                        int flags);
