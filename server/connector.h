/* connector.h - connections to NBD servers, for a server that may make none itself (confined.c).
 *
 * A process of its own, begun before anything was opened, connects to what an NBD URI names and passes
 * the socket on. It gives out connections to NBD servers only: it has looked at their greeting. Keys and
 * certificates are read there, and by the processes that do TLS.
 *
 * A one-shot command has none, and connects itself.
 *
 * Threads    connector_start(): the only one; co_connector_connect(): coroutines of any loop.
 * Errors     0 or -errno with a sentence that names the URI.
 * Ownership  descriptors are the caller's. The process ends when its socket is closed.
 */
#pragma once
#include "server/host.h"

#define CONNECTOR_NONE (-1)

int connector_start(int *ret_fd, struct error *err);

/* What is waited for; who wants that to end shuts the socket down. -1: nothing yet, or any more */
struct connector_wait {
        int fd;
};

/* -ECONNABORTED  it was ended */
int co_connector_connect(struct host *host, const char *uri, struct connector_wait *wait,
                         int *ret_fd, struct error *err);
