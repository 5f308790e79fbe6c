/* passed_fds.h - descriptors that go with a message (unix(7), SCM_RIGHTS).
 *
 * Threads    [any thread].
 * Ownership  those taken are the caller's; those for which there is no room are closed. Those sent
 *            stay the caller's.
 */
#pragma once
#include <stddef.h>
#include <sys/socket.h>
#include <sys/types.h>

#define PASSED_FDS_MAX 253u /* in one message: the kernel's SCM_MAX_FD */

/* Append what recvmsg() left in @msg to the @n descriptors in @fds, which has room for @max; returns
 * how many they are then. */
size_t passed_fds_take(struct msghdr *msg, int *fds, size_t n, size_t max);
/* sendmsg(2) of @length bytes with @n descriptors, at most PASSED_FDS_MAX; MSG_NOSIGNAL is added to
 * @flags. */
ssize_t passed_fds_send(int fd, const void *data, size_t length, const int *fds, size_t n,
                        int flags);
