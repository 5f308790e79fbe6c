/* nbd_tls.h - the credentials of an NBD server that speaks TLS: a certificate, pre-shared keys, or
 * both.
 *
 * Units      none.
 * Threads    [any thread] once made: nothing changes them, and several servers may share them.
 * Errors     0 or -errno with a sentence that names the file, and the line where there is one.
 * Ownership  counted references: who makes or takes one gives it back with nbd_tls_unref().
 *            Connections hold theirs, so that credentials may be replaced at any time.
 * Source     proto.md, "TLS support"; RFC 8446, RFC 5246, RFC 4279 and 5489 for keys, by GnuTLS.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include "common/error.h"

/* proto.md's NOTLS, OPTIONALTLS and FORCEDTLS. */
enum nbd_tls_mode {
        NBD_TLS_OFF,
        NBD_TLS_ALLOW,
        NBD_TLS_REQUIRE_NETWORK, /* required but on Unix sockets, where the file's mode protects */
        NBD_TLS_REQUIRE,
};

/* Paths of files; NULL: none. */
struct nbd_tls_options {
        const char *certificate; /* PEM: the server's, then those up to its CA */
        const char *key;         /* PEM, without a password; given where a certificate is */
        /* PEM: who signs clients. With it clients are asked for a certificate. */
        const char *ca;
        bool verify_peer; /* and must have one */
        /* Lines "NAME:KEY", the key in hexadecimal: as psktool, nbdkit and QEMU have them. Lines
         * that begin with '#' are comments. */
        const char *psk;
};

struct nbd_tls;

/* Read and check everything; the files are not looked at again. What is doubtful (a private key
 * that everybody may read) is logged as a warning.
 *
 * -ENOENT, -EACCES...  a file cannot be read
 * -EINVAL              what is in it cannot be used, or the options do not go together */
int nbd_tls_new(const struct nbd_tls_options *options, struct nbd_tls **ret_tls, struct error *err);
struct nbd_tls *nbd_tls_ref(struct nbd_tls *tls);
void nbd_tls_unref(struct nbd_tls *tls); /* NULL is fine */
