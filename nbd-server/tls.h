/* tls.h - a connection's TLS, to the files of nbd-server: what stands between the socket and those
 * who receive requests and send replies.
 *
 * GnuTLS reads from and writes to buffers here, which the loop fills and empties; it never waits
 * and never sees the socket. It runs on the loop's own stack: a handshake needs more than a
 * coroutine has (README.md, "TLS").
 *
 * Units      bytes.
 * Threads    the server's loop.
 * Errors     -errno; what a peer does wrong has been logged and has cut its client.
 * Ownership  a client owns its session.
 */
#pragma once
#include <gnutls/gnutls.h>
#include "nbd-server/internal.h"
#include "nbd-server/nbd_tls.h"

#define TLS_FILE_MAX     (1u << 20) /* of certificates or keys */
#define TLS_PSK_NAME_MAX 127u       /* GnuTLS's own limit */
#define TLS_PSK_KEY_MIN  16u        /* 128 bits */
#define TLS_PSK_KEY_MAX  512u
#define TLS_NAMES_MAX    32u  /* that a certificate may give its owner */
#define TLS_NAME_MAX     512u /* bytes each; longer ones are left out */
#define TLS_IN_BYTES     (128u << 10)
#define TLS_OUT_BYTES    (128u << 10)
#define TLS_RECORD_BYTES (16u << 10) /* RFC 8446, 5.1: the most in one record */
/* What a record takes on the wire beyond its data, and a key update in front of it. */
#define TLS_RECORD_EXTRA 1024u

struct psk_user {
        char name[TLS_PSK_NAME_MAX + 1];
        uint8_t key[TLS_PSK_KEY_MAX];
        size_t key_bytes;
};

/* Credentials, unchanged once they are made. */
struct nbd_tls {
        unsigned n_refs; /* atomic */
        gnutls_priority_t priority;
        gnutls_certificate_credentials_t certificate; /* NULL: none */
        gnutls_psk_server_credentials_t psk;          /* NULL: none */
        bool ask_peer, verify_peer;
        struct psk_user *users; /* sorted by name */
        size_t n_users;
};
/* psk.c: the lines of @text, which ends with NUL and is changed; @path is for messages. */
int psk_parse(char *text, const char *path, struct psk_user **ret_users, size_t *ret_n,
              struct error *err);
/* NULL: no such user. */
const struct psk_user *psk_find(const struct nbd_tls *tls, const void *name, size_t length);

/* ---- a session (tls.c) ---- */

/* The handshake; afterwards client->tls is set. Negative: close the connection. */
int co_tls_start(struct nbd_client *client);
/* Bytes in full, or negative. */
int co_tls_receive(struct nbd_client *client, void *data, size_t length);
int co_tls_send(struct nbd_client *client, const void *data, size_t length);

/* As loop_submit(&client->receive_io) and (&client->send_io) are for a plain connection: done()
 * runs later with the number of bytes behind TLS. A stream that ends without close_notify fails
 * with -ECONNRESET. */
void tls_receive(struct nbd_client *client);
void tls_send(struct nbd_client *client);
/* Ask both of them for an early end. */
void tls_cancel(struct nbd_client *client);
/* The receive under way ends, with what has come or -ECANCELED; what is being sent goes on. */
void tls_stop_receiving(struct nbd_client *client);

/* Has anything been received that nobody has seen yet? */
bool tls_input_waits(const struct nbd_client *client);
/* Say that no more comes, as far as the socket takes it at once. Not while a send is under way. */
void tls_bye(struct nbd_client *client);
/* Nothing is happening: give back the memory of the buffers. */
void tls_trim(struct nbd_client *client);
void tls_free(struct nbd_client *client);
/* The @i-th name of the peer, NULL behind the last. */
const char *tls_identity(const struct nbd_client *client, unsigned i);
