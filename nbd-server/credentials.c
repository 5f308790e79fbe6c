/* credentials.c - certificates and keys, read once and checked then: what is wrong with them is
 * said to the operator at the start, not to each client. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <gnutls/x509.h>
#include "common/log.h"
#include "nbd-server/tls.h"

#define CHAIN_MAX 16u /* certificates in one file that are looked at */

/* ---- files ---- */

static int read_all(int fd, const char *path, gnutls_datum_t *ret_data, struct error *err)
{
        uint8_t *data = malloc(TLS_FILE_MAX + 1);
        size_t done = 0;
        ssize_t n;

        if (!data)
                return error_set(err, -ENOMEM, "no memory to read '%s'", path);
        while ((n = read(fd, data + done, TLS_FILE_MAX + 1 - done)) > 0)
                done += (size_t)n;
        if (n < 0 || done > TLS_FILE_MAX || memchr(data, 0, done)) {
                int r = n < 0
                            ? error_set(err, -errno, "cannot read '%s': %s", path, strerror(errno))
                        : done > TLS_FILE_MAX
                            ? error_set(err, -EINVAL, "'%s' is longer than 1 MiB", path)
                            : error_set(err, -EINVAL, "'%s' is not text", path);
                explicit_bzero(data, done);
                free(data);
                return r;
        }
        data[done] = 0;
        *ret_data = (gnutls_datum_t){data, (unsigned)done};
        return 0;
}

static void forget(gnutls_datum_t *file)
{
        if (file->data)
                explicit_bzero(file->data, file->size);
        free(file->data);
        *file = (gnutls_datum_t){0};
}

/* With a NUL behind it; give back by forget(). */
static int read_file(const char *path, bool secret, gnutls_datum_t *ret_data, struct error *err)
{
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        struct stat st;

        if (fd < 0)
                return error_set(err, -errno, "cannot open '%s': %s", path, strerror(errno));
        if (secret && fstat(fd, &st) == 0 && (st.st_mode & S_IRWXO))
                log_warning("'%s' holds a secret, and everybody may read it: its mode is %04o",
                            path, (unsigned)(st.st_mode & 07777));
        int r = read_all(fd, path, ret_data, err);
        close(fd);
        return r;
}

/* ---- certificates ---- */

static void format_day(time_t when, char text[16])
{
        struct tm tm;

        if (!gmtime_r(&when, &tm) || strftime(text, 16, "%Y-%m-%d", &tm) == 0)
                snprintf(text, 16, "an unknown day");
}

static int check_dates(gnutls_x509_crt_t certificate, const char *path, struct error *err)
{
        time_t now = time(NULL), from = gnutls_x509_crt_get_activation_time(certificate),
               until = gnutls_x509_crt_get_expiration_time(certificate);
        char day[16];

        if (until < now) {
                format_day(until, day);
                return error_set(err, -EINVAL, "the certificate in '%s' expired on %s", path, day);
        }
        if (from > now) {
                format_day(from, day);
                return error_set(err, -EINVAL, "the certificate in '%s' is not valid before %s",
                                 path, day);
        }
        return 0;
}

/* @first: only the first counts, as those behind it are others'. */
static int check_certificates(const gnutls_datum_t *pem, const char *path, bool first,
                              struct error *err)
{
        gnutls_x509_crt_t list[CHAIN_MAX];
        unsigned n = CHAIN_MAX, n_valid = 0;
        struct error e = ERROR_INIT;
        int r = gnutls_x509_crt_list_import(list, &n, pem, GNUTLS_X509_FMT_PEM, 0);

        if (r == GNUTLS_E_SHORT_MEMORY_BUFFER)
                return 0; /* a bundle: there is no one certificate in it that matters */
        if (r == 0 || r == GNUTLS_E_NO_CERTIFICATE_FOUND)
                return error_set(err, -EINVAL, "there is no certificate in '%s'", path);
        if (r < 0)
                return error_set(err, -EINVAL, "cannot use the certificate in '%s': %s", path,
                                 gnutls_strerror(r));
        for (int i = 0; i < r; i++) {
                if ((!first || i == 0) && check_dates(list[i], path, &e) == 0)
                        n_valid++;
                gnutls_x509_crt_deinit(list[i]);
        }
        return n_valid > 0 ? 0 : error_set(err, e.code, "%s", e.message);
}

static int refuse_key(int error, const struct nbd_tls_options *o, struct error *err)
{
        switch (error) {
        case GNUTLS_E_CERTIFICATE_KEY_MISMATCH:
                return error_set(err, -EINVAL,
                                 "the key in '%s' does not belong to the certificate in '%s'",
                                 o->key, o->certificate);
        case GNUTLS_E_DECRYPTION_FAILED:
        case GNUTLS_E_INVALID_PASSWORD:
                return error_set(err, -EINVAL, "the key in '%s' is protected by a password",
                                 o->key);
        default:
                return error_set(err, -EINVAL, "cannot use the key in '%s' with '%s': %s", o->key,
                                 o->certificate, gnutls_strerror(error));
        }
}

static int load_pair(struct nbd_tls *tls, const struct nbd_tls_options *o, struct error *err)
{
        gnutls_datum_t certificate = {0}, key = {0};
        int r = read_file(o->certificate, false, &certificate, err);

        if (r == 0)
                r = check_certificates(&certificate, o->certificate, true, err);
        if (r == 0)
                r = read_file(o->key, true, &key, err);
        if (r == 0) {
                int e = gnutls_certificate_set_x509_key_mem2(tls->certificate, &certificate, &key,
                                                             GNUTLS_X509_FMT_PEM, NULL, 0);
                r = e < 0 ? refuse_key(e, o, err) : 0;
        }
        forget(&certificate);
        forget(&key);
        return r;
}

static int load_ca(struct nbd_tls *tls, const char *path, struct error *err)
{
        gnutls_datum_t pem = {0};
        int r = read_file(path, false, &pem, err);

        if (r == 0)
                r = check_certificates(&pem, path, false, err);
        if (r == 0) {
                int n = gnutls_certificate_set_x509_trust_mem(tls->certificate, &pem,
                                                              GNUTLS_X509_FMT_PEM);
                if (n <= 0)
                        r = error_set(err, -EINVAL, "cannot use the certificates in '%s': %s", path,
                                      n < 0 ? gnutls_strerror(n) : "there are none");
        }
        forget(&pem);
        tls->ask_peer = r == 0;
        return r;
}

/* Called in the handshake where clients are asked for a certificate. Those who have authenticated
 * by a key are not. */
static int verify_peer(gnutls_session_t session)
{
        const struct nbd_tls *tls = gnutls_session_get_ptr(session);
        gnutls_typed_vdata_st purpose = {
            .type = GNUTLS_DT_KEY_PURPOSE_OID,
            .data = (unsigned char *)GNUTLS_KP_TLS_WWW_CLIENT,
        };
        unsigned n = 0, status = 0;

        if (!gnutls_certificate_get_peers(session, &n) || n == 0)
                return tls->verify_peer ? GNUTLS_E_NO_CERTIFICATE_FOUND : 0;
        int r = gnutls_certificate_verify_peers(session, &purpose, 1, &status);
        return r < 0 ? r : status != 0 ? GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR : 0;
}

static int load_certificate(struct nbd_tls *tls, const struct nbd_tls_options *o, struct error *err)
{
        int r = gnutls_certificate_allocate_credentials(&tls->certificate);

        if (r < 0)
                return error_set(err, -ENOMEM, "no memory for the certificate");
        gnutls_certificate_set_known_dh_params(tls->certificate, GNUTLS_SEC_PARAM_MEDIUM);
        gnutls_certificate_set_verify_function(tls->certificate, verify_peer);
        r = load_pair(tls, o, err);
        if (r == 0 && o->ca)
                r = load_ca(tls, o->ca, err);
        return r;
}

/* ---- keys ---- */

static int find_key(gnutls_session_t session, const gnutls_datum_t *name, gnutls_datum_t *ret_key)
{
        const struct psk_user *user =
            psk_find(gnutls_session_get_ptr(session), name->data, name->size);

        if (!user)
                return 1; /* GnuTLS goes on with a random key: who asks does not learn which names
                             there are */
        ret_key->data = gnutls_malloc(user->key_bytes);
        if (!ret_key->data)
                return -1;
        memcpy(ret_key->data, user->key, user->key_bytes);
        ret_key->size = (unsigned)user->key_bytes;
        return 0;
}

static int load_psk(struct nbd_tls *tls, const char *path, struct error *err)
{
        gnutls_datum_t text = {0};
        int r = read_file(path, true, &text, err);

        if (r == 0)
                r = psk_parse((char *)text.data, path, &tls->users, &tls->n_users, err);
        forget(&text);
        if (r < 0)
                return r;
        if (gnutls_psk_allocate_server_credentials(&tls->psk) < 0)
                return error_set(err, -ENOMEM, "no memory for the keys in '%s'", path);
        gnutls_psk_set_server_known_dh_params(tls->psk, GNUTLS_SEC_PARAM_MEDIUM);
        gnutls_psk_set_server_credentials_function2(tls->psk, find_key);
        return 0;
}

/* ---- all of it ---- */

static int check_options(const struct nbd_tls_options *o, struct error *err)
{
        if (!o->certificate && !o->psk)
                return error_set(err, -EINVAL, "TLS needs a certificate or pre-shared keys");
        if (!o->certificate != !o->key)
                return error_set(err, -EINVAL, "a certificate and its key come together");
        if (o->ca && !o->certificate)
                return error_set(err, -EINVAL,
                                 "clients show certificates only to a server that has one");
        if (o->verify_peer && !o->ca)
                return error_set(err, -EINVAL,
                                 "clients cannot be verified without the certificate of their CA");
        return 0;
}

/* Forward secrecy always: neither RSA nor a bare key agrees on a session's keys. The server chooses
 * the cipher: with a key, clients of GnuTLS would rather have ChaCha20, which was seen at a sixteenth
 * of AES-GCM's speed. */
#define PRIORITY                                                                                   \
        "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:-CIPHER-ALL:+AES-256-GCM:+AES-128-GCM:"        \
        "+CHACHA20-POLY1305:%SERVER_PRECEDENCE:"

static int make_priority(struct nbd_tls *tls, struct error *err)
{
        const char *priority = !tls->psk           ? PRIORITY "-RSA"
                               : !tls->certificate ? PRIORITY "-KX-ALL:+ECDHE-PSK:+DHE-PSK"
                                                   : PRIORITY "-RSA:+ECDHE-PSK:+DHE-PSK";
        int r = gnutls_priority_init(&tls->priority, priority, NULL);

        return r < 0 ? error_set(err, -EINVAL, "cannot set up TLS: %s", gnutls_strerror(r)) : 0;
}

int nbd_tls_new(const struct nbd_tls_options *options, struct nbd_tls **ret_tls, struct error *err)
{
        int r = check_options(options, err);

        if (r < 0)
                return r;
        struct nbd_tls *tls = calloc(1, sizeof(*tls));
        if (!tls)
                return error_set(err, -ENOMEM, "no memory for TLS");
        tls->n_refs = 1;
        tls->verify_peer = options->verify_peer;
        if (options->certificate)
                r = load_certificate(tls, options, err);
        if (r == 0 && options->psk)
                r = load_psk(tls, options->psk, err);
        if (r == 0)
                r = make_priority(tls, err);
        if (r < 0) {
                nbd_tls_unref(tls);
                return r;
        }
        *ret_tls = tls;
        return 0;
}

struct nbd_tls *nbd_tls_ref(struct nbd_tls *tls)
{
        if (tls)
                __atomic_add_fetch(&tls->n_refs, 1, __ATOMIC_RELAXED);
        return tls;
}

void nbd_tls_unref(struct nbd_tls *tls)
{
        if (!tls || __atomic_sub_fetch(&tls->n_refs, 1, __ATOMIC_ACQ_REL) > 0)
                return;
        if (tls->certificate)
                gnutls_certificate_free_credentials(tls->certificate);
        if (tls->psk)
                gnutls_psk_free_server_credentials(tls->psk);
        if (tls->priority)
                gnutls_priority_deinit(tls->priority);
        if (tls->users)
                explicit_bzero(tls->users, tls->n_users * sizeof(*tls->users));
        free(tls->users);
        free(tls);
}
