/* nbd_tls.c - TLS to an NBD server by a process of its own, which has the keys, and nothing else by the
 * time that it hears what the peer has to say of TLS: it tells who asks how the handshake went, and
 * hands bytes to and fro. */
#include "formats/nbd_tls.h"

#include <errno.h>
#include <fcntl.h>
#include <gnutls/gnutls.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "common/be.h"
#include "common/confine.h"
#include "formats/nbd_uri.h"

#define OPT_STARTTLS 5u
#define REP_ACK      1u
#define REPLY_MAGIC  UINT64_C(0x3e889045565a9)
#define FLAGS_KNOWN  3u /* fixed newstyle, no zeroes */
#define KEY_MAX      1024u
#define PUMP_BYTES   (64u << 10)
#define REST_LOOK_MS 500
#define PEER_FD      3
#define PLAIN_FD     4
#define PRIORITY     "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"
#define PRIORITY_PSK PRIORITY ":+ECDHE-PSK:+DHE-PSK:+PSK"

/* As they are sent (proto.md, "newstyle negotiation"). */
struct greeting {
        be64 magic, option_magic;
        be16 flags;
};
struct option {
        be32 client_flags; /* before the first option only */
        be64 magic;
        be32 option, length;
};
struct reply {
        be64 magic;
        be32 option, type, length;
};

/* All that a process uses of TLS. */
struct tls {
        const struct nbd_tls_peer *peer;
        int fd;
        struct greeting greeting;
        gnutls_certificate_credentials_t certificates;
        gnutls_psk_client_credentials_t psk;
        gnutls_session_t session;
};

static uint32_t client_flags(const struct tls *t)
{
        return be16_get(t->greeting.flags) & FLAGS_KNOWN;
}

static int failed(const struct tls *t, int code, const char *why, struct error *err)
{
        return error_set(err, code, "cannot connect to '%s' by TLS: %s", t->peer->uri, why);
}

/* ---- before TLS ---- */

static int receive(const struct tls *t, void *data, size_t n, struct error *err)
{
        ssize_t got = recv(t->fd, data, n, MSG_WAITALL);

        if (got == (ssize_t)n)
                return 0;
        return failed(t, got < 0 && errno != EAGAIN ? -errno : -EPROTO,
                      got < 0 && errno != EAGAIN ? strerror(errno)
                      : got < 0                  ? "it does not answer"
                                                 : "it hangs up",
                      err);
}

static int start_tls(struct tls *t, struct error *err)
{
        struct option ask = {.option = be32_make(OPT_STARTTLS)};
        struct reply reply;
        int r = receive(t, &t->greeting, sizeof(t->greeting), err);

        if (r < 0)
                return r;
        /* The flags that whoever speaks behind the relay will want, too. */
        ask.client_flags = be32_make(client_flags(t));
        ask.magic = t->greeting.option_magic;
        if (send(t->fd, &ask, sizeof(ask), MSG_NOSIGNAL) != (ssize_t)sizeof(ask))
                return failed(t, -errno, strerror(errno), err);
        r = receive(t, &reply, sizeof(reply), err);
        if (r < 0)
                return r;
        if (be64_get(reply.magic) != REPLY_MAGIC || be32_get(reply.option) != OPT_STARTTLS)
                return failed(t, -EPROTO, "it answers what it was not asked", err);
        return be32_get(reply.type) == REP_ACK && be32_get(reply.length) == 0
                   ? 0
                   : failed(t, -EACCES, "it has no TLS", err);
}

/* ---- credentials ---- */

static bool path_in(char path[PATH_MAX], const char *folder, const char *name)
{
        int n = snprintf(path, PATH_MAX, "%s/%s", folder, name);

        return n > 0 && n < PATH_MAX && access(path, F_OK) == 0;
}

static int use_certificates(struct tls *t, struct error *err)
{
        const char *folder = t->peer->certificates;
        char ca[PATH_MAX], mine[PATH_MAX], key[PATH_MAX];
        int r = gnutls_certificate_allocate_credentials(&t->certificates);

        if (r >= 0 && folder && !path_in(ca, folder, "ca-cert.pem"))
                return failed(t, -ENOENT, "there is no 'ca-cert.pem' in the folder of certificates",
                              err);
        if (r >= 0)
                r = folder ? gnutls_certificate_set_x509_trust_file(t->certificates, ca,
                                                                    GNUTLS_X509_FMT_PEM)
                           : gnutls_certificate_set_x509_system_trust(t->certificates);
        if (r >= 0 && folder && path_in(mine, folder, "client-cert.pem") &&
            path_in(key, folder, "client-key.pem"))
                r = gnutls_certificate_set_x509_key_file(t->certificates, mine, key,
                                                         GNUTLS_X509_FMT_PEM);
        if (r >= 0)
                r = gnutls_credentials_set(t->session, GNUTLS_CRD_CERTIFICATE, t->certificates);
        return r < 0 ? failed(t, -EACCES, gnutls_strerror(r), err) : 0;
}

/* The line "NAME:KEY" of this user, or the first one. */
static bool find_key(FILE *file, const char *user, char line[KEY_MAX], char **ret_key)
{
        while (fgets(line, KEY_MAX, file)) {
                char *colon = strchr(line, ':');

                line[strcspn(line, "\r\n")] = '\0';
                if (!colon || line[0] == '#')
                        continue;
                *colon = '\0';
                *ret_key = colon + 1;
                if (!user || strcmp(user, line) == 0)
                        return true;
        }
        return false;
}

static int use_key(struct tls *t, struct error *err)
{
        FILE *file = fopen(t->peer->psk_file, "re");
        char line[KEY_MAX], *key;
        gnutls_datum_t datum;
        bool found;
        int r;

        if (!file)
                return failed(t, -errno, "the file of keys cannot be opened", err);
        found = find_key(file, t->peer->user, line, &key);
        fclose(file);
        if (!found) {
                explicit_bzero(line, sizeof(line));
                return failed(t, -ENOENT, "the file of keys has none for this user", err);
        }
        datum = (gnutls_datum_t){.data = (unsigned char *)key, .size = (unsigned)strlen(key)};
        r = gnutls_psk_allocate_client_credentials(&t->psk);
        if (r >= 0)
                r = gnutls_psk_set_client_credentials(t->psk, line, &datum, GNUTLS_PSK_KEY_HEX);
        explicit_bzero(line, sizeof(line));
        if (r >= 0)
                r = gnutls_credentials_set(t->session, GNUTLS_CRD_PSK, t->psk);
        return r < 0 ? failed(t, -EACCES, gnutls_strerror(r), err) : 0;
}

static int prepare(struct tls *t, struct error *err)
{
        const struct nbd_tls_peer *peer = t->peer;
        const char *priority = peer->psk_file ? PRIORITY_PSK : PRIORITY;
        int r = gnutls_init(&t->session, GNUTLS_CLIENT | GNUTLS_NO_SIGNAL);

        if (r >= 0)
                r = gnutls_priority_set_direct(t->session, priority, NULL);
        if (r < 0)
                return failed(t, -ENOMEM, gnutls_strerror(r), err);
        r = peer->psk_file ? use_key(t, err) : use_certificates(t, err);
        if (r == 0 && !peer->psk_file && peer->verify)
                gnutls_session_set_verify_cert(t->session, peer->host, 0);
        if (r == 0 && !peer->psk_file && peer->host)
                gnutls_server_name_set(t->session, GNUTLS_NAME_DNS, peer->host, strlen(peer->host));
        return r;
}

static int shake_hands(struct tls *t, struct error *err)
{
        int r;

        gnutls_transport_set_int(t->session, t->fd);
        gnutls_handshake_set_timeout(t->session, NBD_URI_WAIT_S * 1000);
        do
                r = gnutls_handshake(t->session);
        while (r < 0 && !gnutls_error_is_fatal(r) && r != GNUTLS_E_AGAIN);
        return r < 0 ? failed(t, -EACCES, gnutls_strerror(r), err) : 0;
}

/* ---- to and fro ---- */

struct pump {
        uint8_t data[PUMP_BYTES];
        size_t from, to; /* what is still to be handed on */
};

/* Progress is 1, nothing to do for now 0, the end -1. */
static int to_tls(struct tls *t, int plain_fd, struct pump *p)
{
        ssize_t n;

        if (p->from == p->to) {
                n = recv(plain_fd, p->data, sizeof(p->data), MSG_DONTWAIT);
                if (n <= 0)
                        return n < 0 && errno == EAGAIN ? 0 : -1;
                p->from = 0;
                p->to = (size_t)n;
        }
        n = gnutls_record_send(t->session, p->data + p->from, p->to - p->from);
        if (n < 0)
                return gnutls_error_is_fatal((int)n) ? -1 : 0;
        p->from += (size_t)n;
        return 1;
}

static int to_plain(struct tls *t, int plain_fd, struct pump *p)
{
        ssize_t n;

        if (p->from == p->to) {
                n = gnutls_record_recv(t->session, p->data, sizeof(p->data));
                if (n <= 0)
                        return n == 0 || gnutls_error_is_fatal((int)n) ? -1 : 0;
                p->from = 0;
                p->to = (size_t)n;
        }
        n = send(plain_fd, p->data + p->from, p->to - p->from, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0)
                return errno == EAGAIN ? 0 : -1;
        p->from += (size_t)n;
        return 1;
}

static time_t now_s(void)
{
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return now.tv_sec;
}

/* The user has gone: what he has left is for a peer that takes it soon. His end is ready for ever, and is
 * not waited for. */
static void give_rest(struct tls *t, int plain_fd, struct pump *out)
{
        struct pollfd wait = {.fd = t->fd, .events = POLLOUT};
        time_t end_s = now_s() + NBD_URI_WAIT_S;
        int sent;

        while ((sent = to_tls(t, plain_fd, out)) >= 0 && now_s() < end_s)
                if (sent == 0 && poll(&wait, 1, REST_LOOK_MS) < 0 && errno != EINTR)
                        return;
}

static void pump(struct tls *t, int plain_fd)
{
        static struct pump out, in;

        for (;;) {
                int sent = to_tls(t, plain_fd, &out), received = to_plain(t, plain_fd, &in);
                struct pollfd wait[2];

                if (sent < 0 || received < 0)
                        return;
                if (sent || received)
                        continue;
                wait[0] = (struct pollfd){.fd = plain_fd,
                                          .events = (short)((out.from == out.to ? POLLIN : 0) |
                                                            (in.from < in.to ? POLLOUT : 0))};
                wait[1] = (struct pollfd){.fd = t->fd,
                                          .events = (short)((in.from == in.to ? POLLIN : 0) |
                                                            (out.from < out.to ? POLLOUT : 0))};
                if (poll(wait, 2, -1) < 0 && errno != EINTR)
                        return;
                if (wait[0].revents & (POLLHUP | POLLERR) && !(wait[1].revents & POLLOUT) &&
                    out.from < out.to) {
                        give_rest(t, plain_fd, &out);
                        return;
                }
        }
}

/* Whoever speaks NBD begins as if nothing had been said. */
static void relay(struct tls *t, int plain_fd)
{
        be32 flags;

        if (send(plain_fd, &t->greeting, sizeof(t->greeting), MSG_NOSIGNAL) !=
                (ssize_t)sizeof(t->greeting) ||
            recv(plain_fd, &flags, sizeof(flags), MSG_WAITALL) != (ssize_t)sizeof(flags) ||
            be32_get(flags) != client_flags(t) || fcntl(t->fd, F_SETFL, O_NONBLOCK) < 0)
                return;
        pump(t, plain_fd);
        (void)gnutls_bye(t->session, GNUTLS_SHUT_WR);
}

/* ---- the process ---- */

/* Where a system's trust may be looked up while a certificate is verified (p11-kit). */
static const struct confine_path trust[] = {
    {"/etc/ssl", CONFINE_READ}, {"/etc/pki", CONFINE_READ}, {"/usr/share", CONFINE_READ}};

/* Nothing that the parent has open may stay open by this: locks, and ends of pipes. */
static bool keep_two(struct tls *t, int plain_fd)
{
        int null = open("/dev/null", O_RDWR);
        sigset_t none;

        prctl(PR_SET_NAME, "tarn-tls");
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        for (int i = 0; i < 3 && null >= 0; i++)
                dup2(null, i);
        plain_fd = fcntl(plain_fd, F_DUPFD, 100);
        if (plain_fd < 0 || dup2(t->fd, PEER_FD) < 0 || dup2(plain_fd, PLAIN_FD) < 0)
                return false;
        close_range(PLAIN_FD + 1, ~0u, 0);
        t->fd = PEER_FD;
        return true;
}

static int connect_by_tls(struct tls *t, struct error *err)
{
        const struct confine_profile profile = {
            .paths = trust, .n_paths = sizeof(trust) / sizeof(trust[0]), .socket_group = (gid_t)-1};
        int r = prepare(t, err);

        if (r == 0)
                r = confine(&profile, err);
        if (r == 0)
                r = start_tls(t, err);
        return r == 0 ? shake_hands(t, err) : r;
}

static _Noreturn void child(struct tls *t, int plain_fd)
{
        struct error e = ERROR_INIT;

        if (!keep_two(t, plain_fd))
                _exit(1);
        if (connect_by_tls(t, &e) < 0) {
                (void)send(PLAIN_FD, &e, sizeof(e), MSG_NOSIGNAL);
                _exit(1);
        }
        if (send(PLAIN_FD, &e, sizeof(e), MSG_NOSIGNAL) == (ssize_t)sizeof(e))
                relay(t, PLAIN_FD);
        _exit(0);
}

int nbd_tls_relay(const struct nbd_tls_peer *peer, int fd, struct error *err)
{
        const struct timeval most = {.tv_sec = NBD_URI_WAIT_S};
        struct tls t = {.peer = peer, .fd = fd};
        struct error e = ERROR_INIT;
        int ends[2];
        pid_t pid;

        (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &most, sizeof(most));
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
                return failed(&t, -errno, strerror(errno), err);
        pid = fork();
        if (pid == 0)
                child(&t, ends[1]);
        close(ends[1]);
        if (pid < 0)
                failed(&t, -errno, strerror(errno), &e);
        else if (recv(ends[0], &e, sizeof(e), MSG_WAITALL) != (ssize_t)sizeof(e))
                failed(&t, -ECONNABORTED, "the process that does it has ended", &e);
        if (e.code == 0)
                return ends[0];
        close(ends[0]);
        if (err)
                *err = e;
        return e.code;
}
