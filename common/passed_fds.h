/* passed_fds.h - descriptors that came with a message (unix(7), SCM_RIGHTS).
 *
 * Threads    [any thread].
 * Ownership  those taken are the caller's; those for which there is no room are closed.
 */
#pragma once
#include <stddef.h>
#include <sys/socket.h>

/* Append what recvmsg() left in @msg to the @n descriptors in @fds, which has room for @max; returns
 * how many they are then. */
size_t passed_fds_take(struct msghdr *msg, int *fds, size_t n, size_t max);
