/* nbd_uri.h - connecting to what an NBD URI names, for a server that may connect to nothing itself.
 *
 * What it gives is a socket on which NBD is spoken in the clear, and has not begun: the greeting has been
 * looked at, and is still to be read. TLS is another process's, which lives as long as both ends.
 *
 * Threads    blocking: each step NBD_URI_WAIT_S seconds at most, connecting what the kernel allows.
 * Errors     0 or -errno with a sentence that names the URI.
 * Ownership  the descriptor and the name (malloc'ed) are the caller's.
 * Source     the NBD URI specification (uri.md); RFC 3986 for percent-encoding.
 */
#pragma once
#include "common/error.h"

#define NBD_URI_WAIT_S 5

/* nbd_is_uri() holds.
 *
 * -EOPNOTSUPP  it asks for vsock
 * -EPROTO      it is no NBD server, or one older than the newstyle handshake */
int nbd_uri_connect(const char *uri, int *ret_fd, char **ret_export, struct error *err);

/* Whether another process, in another folder, can make sense of it: the paths that it has are absolute.
 * The export's name is told where @ret_export is not NULL. */
int nbd_uri_check(const char *uri, char **ret_export, struct error *err);
