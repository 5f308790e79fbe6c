/* hung_up.h - whether the other end of a stream socket has gone, without reading what it sent before (poll(2)).
 *
 * Threads    [any thread], as long as @fd is open.
 */
#pragma once
#include <poll.h>
#include <stdbool.h>

/* It has closed its end or will send no more, or ours is shut. */
static inline bool has_hung_up(int fd)
{
        struct pollfd p = {.fd = fd, .events = POLLRDHUP};

        return poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLRDHUP));
}
