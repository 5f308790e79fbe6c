/* tls_client.h - a TLS client by GnuTLS under a wire, which also misbehaves to order.
 *
 * Threads    the wire's; blocking.
 * Errors     tls_client_start() returns GnuTLS's; what is sent and received fails as wire.h says.
 * Ownership  tls_client_close() ends the connection with it: once a wire has TLS it replaces
 *            wire_close().
 */
#pragma once
#include <gnutls/gnutls.h>
#include "tests/protocol/pki.h"
#include "tests/protocol/wire.h"

struct tls_client_options {
        struct pki *pki;
        const char *priority;    /* NULL: GnuTLS's, with keys */
        const char *certificate; /* NAME of NAME.pem and NAME.key; NULL: none */
        const char *user;        /* of a pre-shared key; NULL: none */
        const uint8_t *key;      /* NULL: PKI_KEY */
        size_t record_bytes;     /* ask for records no longer than this; 0: do not */
        size_t cut_at;           /* close the socket's sending side after as many bytes; 0: never */
        bool byte_by_byte;       /* send so */
};

struct tls_client {
        gnutls_session_t session;
        struct wire *wire;
        struct wire_layer layer;
        gnutls_certificate_credentials_t certificate;
        gnutls_psk_client_credentials_t psk;
        struct tls_client_options options;
        size_t sent;  /* bytes on the socket */
        bool at_end;  /* close_notify was received */
        bool was_cut; /* at cut_at */
};

/* After STARTTLS was acknowledged: the handshake. A handshake that the server refuses late, as TLS
 * 1.3 does with the client's certificate, succeeds. */
int tls_client_start(struct wire *w, const struct tls_client_options *options,
                     struct tls_client **ret_client);
/* STARTTLS, and a handshake that succeeds. */
struct tls_client *tls_client_upgrade(struct wire *w, const struct tls_client_options *options);
/* Without a word, as a client that was killed. */
void tls_client_close(struct tls_client *client);
