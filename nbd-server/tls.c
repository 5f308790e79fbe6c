/* tls.c - a connection's TLS session: handshake, what comes in, what goes out, the end.
 *
 * GnuTLS pulls from `in` and pushes to `out`; only this file moves their bytes from and to the
 * socket. A reply counts as sent when the socket has taken all of the records that it is in, so
 * that a client which does not read is bounded as any other is (rule 2 of README.md). */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <gnutls/x509.h>
#include "nbd-server/tls.h"

struct tls {
        gnutls_session_t session;
        struct nbd_client *client;
        struct nbd_tls *credentials;
        /* One mapping: `in`, `out`, `gather`. */
        uint8_t *in, *out, *gather;
        size_t in_start, in_end, out_start, out_end;
        bool in_eof;
        bool established; /* from the handshake until the stream breaks: it may be ended politely */
        bool ended;       /* close_notify was met, behind data that had to be handed on first */
        ssize_t pending;  /* GnuTLS's error, likewise */
        char why[160];    /* the connection ended, for client_cut() */
        /* transmission */
        struct loop_task receive_task; /* there may be data without asking the socket */
        struct loop_io receive_io, send_io;
        struct iovec receive_iov, send_iov;
        struct loop_task refused_task; /* nothing could be encrypted */
        bool receiving, sending;       /* on the socket */
        size_t send_plain;             /* bytes of replies in `out` */
        /* negotiation: the part that runs on the loop's stack */
        uint8_t *data;
        size_t length;
        unsigned n_names;
        char *names[TLS_NAMES_MAX];
};

static const size_t arena_bytes = TLS_IN_BYTES + TLS_OUT_BYTES + TLS_RECORD_BYTES;

/* ---- what GnuTLS takes for the socket ---- */

static ssize_t pull(gnutls_transport_ptr_t arg, void *data, size_t length)
{
        struct tls *tls = arg;
        size_t available = tls->in_end - tls->in_start;

        if (available == 0) {
                if (tls->in_eof)
                        return 0;
                gnutls_transport_set_errno(tls->session, EAGAIN);
                return -1;
        }
        if (length > available)
                length = available;
        memcpy(data, tls->in + tls->in_start, length);
        tls->in_start += length;
        return (ssize_t)length;
}

static ssize_t push(gnutls_transport_ptr_t arg, const giovec_t *iov, int n)
{
        struct tls *tls = arg;
        size_t done = 0;

        for (int i = 0; i < n; i++) {
                size_t room = TLS_OUT_BYTES - tls->out_end;
                size_t length = iov[i].iov_len < room ? iov[i].iov_len : room;
                memcpy(tls->out + tls->out_end, iov[i].iov_base, length);
                tls->out_end += length;
                done += length;
        }
        if (done == 0 && n > 0) {
                gnutls_transport_set_errno(tls->session, EAGAIN);
                return -1;
        }
        return (ssize_t)done;
}

/* Never asked for the time that it would wait: it does not wait. */
static int pull_timeout(gnutls_transport_ptr_t arg, unsigned ms)
{
        const struct tls *tls = arg;

        return tls->in_end > tls->in_start || tls->in_eof;
}

/* Is there anything to be had without the socket? */
static bool buffered(const struct tls *tls)
{
        return tls->ended || tls->pending != 0 || tls->in_end > tls->in_start ||
               gnutls_record_check_pending(tls->session) > 0;
}

/* ---- names ---- */

static void add_name(struct tls *tls, const char *kind, const void *name, size_t length)
{
        if (length == 0 || length > TLS_NAME_MAX || memchr(name, 0, length) ||
            tls->n_names == TLS_NAMES_MAX)
                return;
        char *text = NULL;
        if (asprintf(&text, "%s:%.*s", kind, (int)length, (const char *)name) >= 0)
                tls->names[tls->n_names++] = text;
}

static void add_alternative_names(struct tls *tls, gnutls_x509_crt_t certificate)
{
        char name[TLS_NAME_MAX + 1];

        for (unsigned i = 0; i < TLS_NAMES_MAX; i++) {
                size_t length = sizeof(name);
                int type =
                    gnutls_x509_crt_get_subject_alt_name(certificate, i, name, &length, NULL);
                if (type == GNUTLS_E_SHORT_MEMORY_BUFFER)
                        continue;
                if (type < 0)
                        return;
                if (type == GNUTLS_SAN_DNSNAME)
                        add_name(tls, "dns", name, length);
                else if (type == GNUTLS_SAN_RFC822NAME)
                        add_name(tls, "email", name, length);
                else if (type == GNUTLS_SAN_URI)
                        add_name(tls, "uri", name, length);
        }
}

static void add_certificate_names(struct tls *tls, gnutls_x509_crt_t certificate)
{
        char name[TLS_NAME_MAX + 1];
        size_t length = sizeof(name);
        gnutls_datum_t dn = {0};

        /* As RFC 4514 writes it, and certtool -i shows it. */
        if (gnutls_x509_crt_get_dn3(certificate, &dn, 0) == 0)
                add_name(tls, "dn", dn.data, dn.size);
        gnutls_free(dn.data);
        if (gnutls_x509_crt_get_dn_by_oid(certificate, GNUTLS_OID_X520_COMMON_NAME, 0, 0, name,
                                          &length) == 0)
                add_name(tls, "cn", name, length);
        add_alternative_names(tls, certificate);
}

/* Certificates were verified in the handshake, or none was asked for. */
static void name_peer(struct tls *tls)
{
        gnutls_datum_t user = {0};
        gnutls_x509_crt_t certificate;
        unsigned n = 0;

        if (gnutls_auth_client_get_type(tls->session) == GNUTLS_CRD_PSK) {
                if (gnutls_psk_server_get_username2(tls->session, &user) == 0)
                        add_name(tls, "psk", user.data, user.size);
                return;
        }
        const gnutls_datum_t *chain =
            tls->credentials->ask_peer ? gnutls_certificate_get_peers(tls->session, &n) : NULL;
        if (!chain || n == 0 || gnutls_x509_crt_init(&certificate) < 0)
                return;
        if (gnutls_x509_crt_import(certificate, &chain[0], GNUTLS_X509_FMT_DER) == 0)
                add_certificate_names(tls, certificate);
        gnutls_x509_crt_deinit(certificate);
}

const char *tls_identity(const struct nbd_client *client, unsigned i)
{
        return client->tls && i < client->tls->n_names ? client->tls->names[i] : NULL;
}

/* ---- a session is made ---- */

static int make_session(struct tls *tls)
{
        struct nbd_tls *credentials = tls->credentials;

        /* No tickets: each connection proves anew who it is. */
        if (gnutls_init(&tls->session,
                        GNUTLS_SERVER | GNUTLS_NONBLOCK | GNUTLS_NO_TICKETS | GNUTLS_NO_SIGNAL) < 0)
                return -ENOMEM;
        gnutls_session_set_ptr(tls->session, credentials);
        gnutls_transport_set_ptr(tls->session, tls);
        gnutls_transport_set_pull_function(tls->session, pull);
        gnutls_transport_set_vec_push_function(tls->session, push);
        gnutls_transport_set_pull_timeout_function(tls->session, pull_timeout);
        /* The deadline of the whole negotiation is client.c's. */
        gnutls_handshake_set_timeout(tls->session, GNUTLS_INDEFINITE_TIMEOUT);
        if (gnutls_priority_set(tls->session, credentials->priority) < 0)
                return -ENOMEM;
        if (credentials->certificate && gnutls_credentials_set(tls->session, GNUTLS_CRD_CERTIFICATE,
                                                               credentials->certificate) < 0)
                return -ENOMEM;
        if (credentials->psk &&
            gnutls_credentials_set(tls->session, GNUTLS_CRD_PSK, credentials->psk) < 0)
                return -ENOMEM;
        /* REQUEST in any case: who must have one and has none is refused by verify_peer(). */
        gnutls_certificate_server_set_request(
            tls->session, credentials->ask_peer ? GNUTLS_CERT_REQUEST : GNUTLS_CERT_IGNORE);
        return 0;
}

static void receive_task_run(struct loop_task *task);
static void received(struct loop_io *io, int result);
static void sent(struct loop_io *io, int result);
static void refused_task_run(struct loop_task *task);

static int tls_new(struct nbd_client *client, struct tls **ret_tls)
{
        struct tls *tls = calloc(1, sizeof(*tls));

        if (!tls)
                return -ENOMEM;
        tls->in = mmap(NULL, arena_bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (tls->in == MAP_FAILED) {
                free(tls);
                return -ENOMEM;
        }
        tls->out = tls->in + TLS_IN_BYTES;
        tls->gather = tls->out + TLS_OUT_BYTES;
        tls->client = client;
        tls->credentials = nbd_tls_ref(client->server->options.tls);
        tls->receive_task.run = receive_task_run;
        tls->refused_task.run = refused_task_run;
        tls->receive_io = (struct loop_io){.op = LOOP_RECV,
                                           .fd = client->fd,
                                           .iov = &tls->receive_iov,
                                           .n_iov = 1,
                                           .done = received};
        rights_arm(client, &tls->receive_io);
        tls->send_io = (struct loop_io){
            .op = LOOP_SENDMSG, .fd = client->fd, .iov = &tls->send_iov, .n_iov = 1, .done = sent};
        *ret_tls = tls;
        return make_session(tls);
}

void tls_free(struct nbd_client *client)
{
        struct tls *tls = client->tls;

        if (!tls)
                return;
        assert(!tls->receiving && !tls->sending && !tls->receive_task.queued &&
               !tls->refused_task.queued);
        if (tls->session)
                gnutls_deinit(tls->session);
        nbd_tls_unref(tls->credentials);
        for (unsigned i = 0; i < tls->n_names; i++)
                free(tls->names[i]);
        munmap(tls->in, arena_bytes);
        free(tls);
        client->tls = NULL;
}

void tls_trim(struct nbd_client *client)
{
        struct tls *tls = client->tls;

        if (!buffered(tls) && !tls->sending && tls->out_start == tls->out_end)
                madvise(tls->in, arena_bytes, MADV_DONTNEED);
}

/* ---- plain from cipher ---- */

/* As far as the socket takes it without waiting: for what is sent only out of politeness. */
static void send_at_once(struct tls *tls)
{
        if (tls->sending || tls->out_start == tls->out_end)
                return;
        if (send(tls->client->fd, tls->out + tls->out_start, tls->out_end - tls->out_start,
                 MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
                tls->out_start = tls->out_end = 0;
}

/* Tell the peer why, and end. */
static int fail(struct tls *tls, const char *what, ssize_t error)
{
        gnutls_alert_send_appropriate(tls->session, (int)error);
        send_at_once(tls);
        snprintf(tls->why, sizeof(tls->why), "%s: %s", what, gnutls_strerror((int)error));
        client_cut(tls->client, tls->why);
        return -EPROTO;
}

/* What GnuTLS says where it has no data. 0: go on; otherwise the stream is over, with the client cut
 * where that is its fault. */
static int judge(struct tls *tls, ssize_t error)
{
        if (error == GNUTLS_E_AGAIN || error == GNUTLS_E_INTERRUPTED ||
            error == GNUTLS_E_WARNING_ALERT_RECEIVED)
                return 0;
        tls->established = false;
        switch (error) {
        case GNUTLS_E_PREMATURE_TERMINATION:
                return -ECONNRESET;
        case GNUTLS_E_REHANDSHAKE: /* there is nothing that it would be needed for */
                gnutls_alert_send(tls->session, GNUTLS_AL_WARNING, GNUTLS_A_NO_RENEGOTIATION);
                send_at_once(tls);
                client_cut(tls->client, "it wants to negotiate TLS again");
                return -EPROTO;
        case GNUTLS_E_FATAL_ALERT_RECEIVED:
                client_cut(tls->client, "it ended TLS with an alert");
                return -EPROTO;
        default:
                return fail(tls, "its TLS stream is broken", error);
        }
}

/* As recv(2) that does not wait: bytes, 0 at a proper end, -EAGAIN where the socket must be asked
 * first. */
static ssize_t decrypt(struct tls *tls, uint8_t *data, size_t length)
{
        size_t done = 0;

        while (done < length) {
                size_t before = tls->in_end - tls->in_start;
                ssize_t n = tls->pending;
                if (n == 0)
                        n = gnutls_record_recv(tls->session, data + done, length - done);
                if (n > 0) {
                        done += (size_t)n;
                        continue;
                }
                if (done > 0) { /* that is handed on first */
                        if (n == 0)
                                tls->ended = true;
                        else if (gnutls_error_is_fatal((int)n) || n == GNUTLS_E_REHANDSHAKE)
                                tls->pending = n; /* GnuTLS says it only once */
                        break;
                }
                if (n == 0)
                        return 0;
                int r = judge(tls, n);
                if (r < 0)
                        return r;
                /* It may have been a message of TLS itself. Each round takes some of what there
                 * is, or is the last. */
                if (tls->in_end - tls->in_start == before)
                        return -EAGAIN;
        }
        return (ssize_t)done;
}

/* Into `in`, which is empty or holds part of a record. */
static struct iovec in_space(struct tls *tls)
{
        if (tls->in_start == tls->in_end)
                tls->in_start = tls->in_end = 0;
        return (struct iovec){tls->in + tls->in_end, TLS_IN_BYTES - tls->in_end};
}

/* ---- cipher from plain ---- */

/* A walk over the bytes of an iovec. */
struct walk {
        const struct iovec *iov;
        unsigned n;
        size_t skip; /* of iov[0] */
};

static void walk_on(struct walk *walk, size_t length)
{
        while (length > 0) {
                size_t left = walk->iov->iov_len - walk->skip;
                if (length < left) {
                        walk->skip += length;
                        return;
                }
                length -= left;
                walk->skip = 0;
                walk->iov++;
                walk->n--;
        }
}

/* The next record's data: small pieces are gathered, so that replies share a record. */
static size_t next_record(struct tls *tls, const struct walk *walk, const void **ret_data)
{
        const uint8_t *first = (const uint8_t *)walk->iov->iov_base + walk->skip;
        size_t length = walk->iov->iov_len - walk->skip, done = 0, skip = walk->skip;

        if (length >= TLS_RECORD_BYTES || walk->n == 1) {
                *ret_data = first;
                return length < TLS_RECORD_BYTES ? length : TLS_RECORD_BYTES;
        }
        for (unsigned i = 0; i < walk->n && done < TLS_RECORD_BYTES; i++, skip = 0) {
                length = walk->iov[i].iov_len - skip;
                if (length > TLS_RECORD_BYTES - done)
                        length = TLS_RECORD_BYTES - done;
                memcpy(tls->gather + done, (const uint8_t *)walk->iov[i].iov_base + skip, length);
                done += length;
        }
        *ret_data = tls->gather;
        return done;
}

/* As much as `out` takes: how many bytes, or -EPROTO. */
static ssize_t encrypt(struct tls *tls, const struct iovec *iov, unsigned n)
{
        struct walk walk = {iov, n, 0};
        size_t done = 0;

        while (walk.n > 0 &&
               TLS_OUT_BYTES - tls->out_end >= TLS_RECORD_BYTES + 2 * TLS_RECORD_EXTRA) {
                const void *data;
                size_t length = next_record(tls, &walk, &data);
                ssize_t taken = gnutls_record_send(tls->session, data, length);
                if (taken <= 0) /* there was room: it must not be a matter of waiting */
                        return -EPROTO;
                walk_on(&walk, (size_t)taken);
                done += (size_t)taken;
        }
        return (ssize_t)done;
}

/* ---- negotiation: coroutines ---- */

struct step {
        struct loop_task task;
        struct tls *tls;
        struct co *co;
        int (*run)(struct tls *tls);
        int result;
        bool done;
};

static void step_run(struct loop_task *task)
{
        struct step *step = container_of(task, struct step, task);

        step->result = step->run(step->tls);
        step->done = true;
        co_wake(step->co);
}

/* Run a part of GnuTLS on the loop's stack. */
static int co_step(struct tls *tls, int (*run)(struct tls *tls))
{
        struct step step = {.task.run = step_run, .tls = tls, .co = co_self(), .run = run};

        loop_post(tls->client->worker->loop, &step.task);
        while (!step.done)
                co_suspend();
        return step.result;
}

/* One operation on the socket, that client_cut() ends. */
static int co_socket(struct nbd_client *client, enum loop_io_op op, struct iovec *iov)
{
        struct loop_io io = {.op = op, .fd = client->fd, .iov = iov, .n_iov = 1};
        int n;

        do {
                if (client->state == CLIENT_DEAD)
                        return -ECANCELED;
                if (op == LOOP_RECV)
                        rights_arm(client, &io);
                client->negotiation_io = &io;
                n = co_io(&io);
                client->negotiation_io = NULL;
                rights_take(client, &io, n);
        } while (n == -EINTR || n == -EAGAIN);
        return n;
}

static int co_fill(struct tls *tls)
{
        struct iovec iov = in_space(tls);

        if (iov.iov_len == 0 || tls->in_eof)
                return -ECONNRESET;
        int n = co_socket(tls->client, LOOP_RECV, &iov);
        if (n < 0)
                return n;
        tls->in_eof = n == 0;
        tls->in_end += (size_t)n;
        return 0;
}

static int co_flush(struct tls *tls)
{
        while (tls->out_start < tls->out_end) {
                struct iovec iov = {tls->out + tls->out_start, tls->out_end - tls->out_start};
                int n = co_socket(tls->client, LOOP_SENDMSG, &iov);
                if (n <= 0)
                        return n < 0 ? n : -ECONNRESET;
                tls->out_start += (size_t)n;
        }
        tls->out_start = tls->out_end = 0;
        return 0;
}

static int handshake_step(struct tls *tls)
{
        int r;

        do {
                r = gnutls_handshake(tls->session);
        } while (r < 0 && r != GNUTLS_E_AGAIN && !gnutls_error_is_fatal(r) && buffered(tls));
        if (r == 0) {
                tls->established = true;
                name_peer(tls);
                return 0;
        }
        if (r == GNUTLS_E_PREMATURE_TERMINATION)
                return -ECONNRESET;
        return gnutls_error_is_fatal(r) ? fail(tls, "the TLS handshake failed", r) : -EAGAIN;
}

int co_tls_start(struct nbd_client *client)
{
        struct tls *tls = NULL;
        int r = tls_new(client, &tls);

        client->tls = tls;
        if (r < 0) {
                client_cut(client, "no memory for TLS");
                return r;
        }
        do {
                r = co_step(tls, handshake_step);
                int flushed = co_flush(tls);
                if (flushed < 0)
                        return flushed;
                if (r == -EAGAIN && gnutls_record_get_direction(tls->session) == 0) {
                        int filled = co_fill(tls);
                        if (filled < 0)
                                return filled;
                }
        } while (r == -EAGAIN);
        return r;
}

static int receive_step(struct tls *tls)
{
        return (int)decrypt(tls, tls->data, tls->length);
}

int co_tls_receive(struct nbd_client *client, void *data, size_t length)
{
        struct tls *tls = client->tls;

        for (size_t done = 0; done < length;) {
                tls->data = (uint8_t *)data + done;
                tls->length = length - done;
                int n = co_step(tls, receive_step);
                if (client->state == CLIENT_DEAD)
                        return -ECANCELED;
                if (n == -EAGAIN)
                        n = co_fill(tls);
                else if (n == 0)
                        return -ECONNRESET;
                else
                        client->between_options = false;
                if (n < 0)
                        return n;
                done += (size_t)n;
        }
        return 0;
}

static int send_step(struct tls *tls)
{
        const struct iovec iov = {tls->data, tls->length};
        ssize_t n = encrypt(tls, &iov, 1);

        return n < 0 ? fail(tls, "TLS takes no more", GNUTLS_E_INTERNAL_ERROR) : (int)n;
}

int co_tls_send(struct nbd_client *client, const void *data, size_t length)
{
        struct tls *tls = client->tls;

        for (size_t done = 0; done < length;) {
                tls->data = (uint8_t *)data + done;
                tls->length = length - done;
                int n = co_step(tls, send_step);
                if (n < 0)
                        return n;
                done += (size_t)n;
                int r = co_flush(tls);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* ---- transmission: receiving ---- */

static void receive_end(struct tls *tls, int result)
{
        struct loop_io *io = &tls->client->receive_io;

        io->done(io, result);
}

static void ask_socket(struct tls *tls)
{
        tls->receive_iov = in_space(tls);
        if (tls->receive_iov.iov_len == 0) { /* GnuTLS leaves no full record untouched */
                receive_end(tls, -ECONNRESET);
                return;
        }
        tls->receiving = true;
        loop_submit(tls->client->worker->loop, &tls->receive_io);
}

static void receive_some(struct tls *tls)
{
        struct nbd_client *client = tls->client;
        const struct iovec *iov = &client->receive_iov;

        if (client->state == CLIENT_DEAD) {
                receive_end(tls, -ECANCELED);
                return;
        }
        ssize_t n = decrypt(tls, iov->iov_base, iov->iov_len);
        if (n == -EAGAIN)
                ask_socket(tls);
        else
                receive_end(tls, (int)n);
}

static void receive_task_run(struct loop_task *task)
{
        receive_some(container_of(task, struct tls, receive_task));
}

static void received(struct loop_io *io, int result)
{
        struct tls *tls = container_of(io, struct tls, receive_io);

        tls->receiving = false;
        rights_take(tls->client, io, result);
        if (result < 0) {
                receive_end(tls, result);
                return;
        }
        tls->in_eof = result == 0;
        tls->in_end += (size_t)result;
        tls->client->moved_bytes += (size_t)result; /* part of a record is progress too */
        receive_some(tls);
}

void tls_receive(struct nbd_client *client)
{
        struct tls *tls = client->tls;

        if (buffered(tls))
                loop_post(client->worker->loop, &tls->receive_task);
        else
                ask_socket(tls);
}

/* ---- transmission: sending ---- */

static void send_end(struct tls *tls, int result)
{
        struct loop_io *io = &tls->client->send_io;

        io->done(io, result);
}

static void send_more(struct tls *tls)
{
        tls->send_iov = (struct iovec){tls->out + tls->out_start, tls->out_end - tls->out_start};
        tls->sending = true;
        loop_submit(tls->client->worker->loop, &tls->send_io);
}

static void sent(struct loop_io *io, int result)
{
        struct tls *tls = container_of(io, struct tls, send_io);

        tls->sending = false;
        if (result > 0) {
                tls->out_start += (size_t)result;
                tls->client->moved_bytes += (size_t)result;
        }
        if (tls->out_start == tls->out_end) {
                tls->out_start = tls->out_end = 0;
                send_end(tls, (int)tls->send_plain);
        } else if (tls->client->state == CLIENT_DEAD) {
                send_end(tls, -ECANCELED);
        } else if (result > 0 || result == -EINTR || result == -EAGAIN) {
                send_more(tls);
        } else {
                send_end(tls, result < 0 ? result : -EPIPE);
        }
}

static void refused_task_run(struct loop_task *task)
{
        send_end(container_of(task, struct tls, refused_task), -EPROTO);
}

void tls_send(struct nbd_client *client)
{
        struct tls *tls = client->tls;
        ssize_t n = encrypt(tls, client->send_io.iov, client->send_io.n_iov);

        if (n < 0) {
                loop_post(client->worker->loop, &tls->refused_task);
                return;
        }
        tls->send_plain = (size_t)n;
        send_more(tls);
}

/* ---- the end ---- */

void tls_cancel(struct nbd_client *client)
{
        struct tls *tls = client->tls;

        if (tls->receiving)
                loop_cancel(client->worker->loop, &tls->receive_io);
        if (tls->sending)
                loop_cancel(client->worker->loop, &tls->send_io);
}

void tls_stop_receiving(struct nbd_client *client)
{
        if (client->tls->receiving)
                loop_cancel(client->worker->loop, &client->tls->receive_io);
}

bool tls_input_waits(const struct nbd_client *client)
{
        return buffered(client->tls);
}

void tls_bye(struct nbd_client *client)
{
        struct tls *tls = client->tls;

        if (!tls->established || tls->sending || tls->out_start < tls->out_end)
                return;
        tls->established = false;
        gnutls_bye(tls->session, GNUTLS_SHUT_WR);
        send_at_once(tls);
}
