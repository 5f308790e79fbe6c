/* tls_client.c - see tls_client.h. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <cmocka.h>
#include "tests/protocol/tls_client.h"

/* ---- the socket, to GnuTLS ---- */

static ssize_t push(gnutls_transport_ptr_t arg, const void *data, size_t length)
{
        struct tls_client *c = arg;
        size_t cut_at = c->options.cut_at;

        if (cut_at > 0 && c->sent + length >= cut_at) {
                send(c->wire->fd, data, cut_at - c->sent, MSG_NOSIGNAL);
                c->sent = cut_at;
                c->was_cut = true;
                shutdown(c->wire->fd, SHUT_WR);
                gnutls_transport_set_errno(c->session, EPIPE);
                return -1;
        }
        if (c->options.byte_by_byte)
                length = length > 0;
        ssize_t n = send(c->wire->fd, data, length, MSG_NOSIGNAL);
        if (n < 0)
                gnutls_transport_set_errno(c->session, errno);
        else
                c->sent += (size_t)n;
        return n;
}

static ssize_t pull(gnutls_transport_ptr_t arg, void *data, size_t length)
{
        struct tls_client *c = arg;
        ssize_t n = recv(c->wire->fd, data, length, 0);

        if (n < 0)
                gnutls_transport_set_errno(c->session, errno == EAGAIN ? ETIMEDOUT : errno);
        return n;
}

/* ---- TLS, to the wire ---- */

static ssize_t layer_send(void *arg, const void *data, size_t length)
{
        struct tls_client *c = arg;
        ssize_t n;

        /* A send with a timeout that met a signal is not restarted: GnuTLS goes on where it was. */
        do {
                n = gnutls_record_send(c->session, data, length);
        } while (n == GNUTLS_E_INTERRUPTED);
        if (n < 0)
                errno = n == GNUTLS_E_AGAIN ? ETIMEDOUT : EPIPE;
        return n;
}

static ssize_t layer_receive(void *arg, void *data, size_t length)
{
        struct tls_client *c = arg;
        ssize_t n;

        do {
                n = gnutls_record_recv(c->session, data, length);
        } while (n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED ||
                 n == GNUTLS_E_WARNING_ALERT_RECEIVED);
        c->at_end |= n == 0;
        if (n < 0)
                errno = ECONNRESET;
        return n;
}

/* ---- start and end ---- */

static void give_credentials(struct tls_client *c)
{
        const struct tls_client_options *o = &c->options;

        assert_int_equal(gnutls_certificate_allocate_credentials(&c->certificate), 0);
        if (o->certificate) {
                char file[64];
                snprintf(file, sizeof(file), "%s.pem", o->certificate);
                const char *certificate = pki_path(o->pki, file);
                snprintf(file, sizeof(file), "%s.key", o->certificate);
                assert_int_equal(gnutls_certificate_set_x509_key_file(c->certificate, certificate,
                                                                      pki_path(o->pki, file),
                                                                      GNUTLS_X509_FMT_PEM),
                                 0);
                /* also to a server that names other CAs than this one's */
                gnutls_certificate_set_flags(c->certificate,
                                             GNUTLS_CERTIFICATE_SKIP_KEY_CERT_MATCH);
        }
        if (!o->user)
                gnutls_credentials_set(c->session, GNUTLS_CRD_CERTIFICATE, c->certificate);
        if (o->user) {
                const uint8_t *bytes = o->key ? o->key : PKI_KEY;
                gnutls_datum_t key = {(unsigned char *)bytes, sizeof(PKI_KEY)};
                assert_int_equal(gnutls_psk_allocate_client_credentials(&c->psk), 0);
                gnutls_psk_set_client_credentials(c->psk, o->user, &key, GNUTLS_PSK_KEY_RAW);
                gnutls_credentials_set(c->session, GNUTLS_CRD_PSK, c->psk);
        }
}

int tls_client_start(struct wire *w, const struct tls_client_options *options,
                     struct tls_client **ret_client)
{
        struct tls_client *c = calloc(1, sizeof(*c));
        int r;

        assert_non_null(c);
        c->wire = w;
        c->options = *options;
        c->layer = (struct wire_layer){layer_receive, layer_send, c};
        /* The certificate is sent whatever CAs the server names. */
        assert_int_equal(gnutls_init(&c->session, GNUTLS_CLIENT | GNUTLS_FORCE_CLIENT_CERT), 0);
        assert_int_equal(gnutls_priority_set_direct(
                             c->session,
                             options->priority ? options->priority : "NORMAL:+ECDHE-PSK:+DHE-PSK",
                             NULL),
                         0);
        gnutls_transport_set_ptr(c->session, c);
        gnutls_transport_set_push_function(c->session, push);
        gnutls_transport_set_pull_function(c->session, pull);
        give_credentials(c);
        if (options->record_bytes > 0)
                assert_int_equal(gnutls_record_set_max_recv_size(c->session, options->record_bytes),
                                 0);
        do {
                r = gnutls_handshake(c->session);
        } while (r < 0 && !gnutls_error_is_fatal(r));
        w->layer = &c->layer;
        *ret_client = c;
        return r;
}

struct tls_client *tls_client_upgrade(struct wire *w, const struct tls_client_options *options)
{
        struct tls_client *c;

        assert_int_equal(wire_ask(w, NBD_OPT_STARTTLS, NULL, 0), NBD_REP_ACK);
        int r = tls_client_start(w, options, &c);
        if (r < 0)
                fail_msg("the handshake failed: %s", gnutls_strerror(r));
        w->structured = w->extended = false;
        return c;
}

void tls_client_close(struct tls_client *c)
{
        gnutls_deinit(c->session);
        gnutls_certificate_free_credentials(c->certificate);
        if (c->psk)
                gnutls_psk_free_client_credentials(c->psk);
        wire_close(c->wire);
        free(c);
}
