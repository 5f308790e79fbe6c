/* nbd_tls.h - TLS to an NBD server by a process of its own, so that nobody else holds keys.
 *
 * Threads    blocking: each step of the handshake NBD_URI_WAIT_S seconds at most.
 * Errors     0 or -errno with a sentence that names the URI.
 * Ownership  strings and the descriptor stay the caller's.
 * Source     NBD_OPT_STARTTLS (proto.md); the fields of NBD URIs as libnbd has them.
 */
#pragma once
#include <stdbool.h>
#include "common/error.h"

struct nbd_tls_peer {
        const char *uri;  /* for messages */
        const char *host; /* whom the certificate has to name; NULL: nobody */
        /* A folder: ca-cert.pem, client-cert.pem, client-key.pem; NULL: the system's authorities. */
        const char *certificates;
        const char *psk_file; /* NULL: by certificates */
        const char *user;     /* of the key; NULL: the first one */
        bool verify;          /* the peer's certificate */
};

/* @fd is connected, and its greeting is still to be read. The new socket is where the same greeting
 * is read, and all that follows is in the clear, for as long as both ends live.
 *
 * -EACCES  the server has no TLS, or one does not trust the other */
int nbd_tls_relay(const struct nbd_tls_peer *peer, int fd, struct error *err);
