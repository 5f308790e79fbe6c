/* pki.c - see pki.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <dirent.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include <gnutls/x509.h>
#include "tests/protocol/pki.h"

#define DAY_S 86400

const uint8_t PKI_KEY[32] = "0123456789abcdef0123456789abcde";

struct pki {
        char folder[64];
        char *paths[8];
        unsigned next;
        unsigned serial;
};

struct pair {
        gnutls_x509_privkey_t key;
        gnutls_x509_crt_t certificate;
};

static void ok(int r)
{
        if (r < 0)
                fail_msg("GnuTLS: %s", gnutls_strerror(r));
}

const char *pki_path(struct pki *pki, const char *name)
{
        char **path = &pki->paths[pki->next++ % 8];

        free(*path);
        *path = NULL;
        assert_true(asprintf(path, "%s/%s", pki->folder, name) > 0);
        return *path;
}

void pki_write(struct pki *pki, const char *name, const void *data, size_t length)
{
        int fd = open(pki_path(pki, name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

        assert_true(fd >= 0);
        assert_int_equal(write(fd, data, length), length);
        assert_int_equal(close(fd), 0);
}

struct kind {
        const char *name; /* of the files, and its CN */
        int from_days, until_days;
        const char *purpose; /* NULL: any */
        bool rsa;            /* else an elliptic curve */
};

static void make(struct pki *pki, const struct kind *kind, const struct pair *ca,
                 struct pair *ret_pair)
{
        gnutls_x509_privkey_t key;
        gnutls_x509_crt_t c;
        uint8_t serial = (uint8_t)++pki->serial;
        time_t now = time(NULL);

        ok(gnutls_x509_privkey_init(&key));
        ok(gnutls_x509_privkey_generate(
            key, kind->rsa ? GNUTLS_PK_RSA : GNUTLS_PK_ECDSA,
            kind->rsa ? 2048 : GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0));
        ok(gnutls_x509_crt_init(&c));
        ok(gnutls_x509_crt_set_version(c, 3));
        ok(gnutls_x509_crt_set_serial(c, &serial, 1));
        ok(gnutls_x509_crt_set_activation_time(c, now + kind->from_days * DAY_S));
        ok(gnutls_x509_crt_set_expiration_time(c, now + kind->until_days * DAY_S));
        ok(gnutls_x509_crt_set_dn_by_oid(c, GNUTLS_OID_X520_COMMON_NAME, 0, kind->name,
                                         (unsigned)strlen(kind->name)));
        ok(gnutls_x509_crt_set_dn_by_oid(c, GNUTLS_OID_X520_ORGANIZATION_NAME, 0, "Tarn Tests",
                                         10));
        ok(gnutls_x509_crt_set_key(c, key));
        if (kind->purpose)
                ok(gnutls_x509_crt_set_key_purpose_oid(c, kind->purpose, 0));
        if (ca) {
                ok(gnutls_x509_crt_set_subject_alt_name(c, GNUTLS_SAN_DNSNAME, "host.example", 12,
                                                        GNUTLS_FSAN_SET));
                ok(gnutls_x509_crt_set_subject_alt_name(c, GNUTLS_SAN_RFC822NAME, "me@host.example",
                                                        15, GNUTLS_FSAN_APPEND));
        } else {
                ok(gnutls_x509_crt_set_ca_status(c, 1));
                ok(gnutls_x509_crt_set_key_usage(c, GNUTLS_KEY_KEY_CERT_SIGN));
        }
        ok(gnutls_x509_crt_sign2(c, ca ? ca->certificate : c, ca ? ca->key : key, GNUTLS_DIG_SHA256,
                                 0));
        *ret_pair = (struct pair){key, c};
}

static void save(struct pki *pki, const char *name, const struct pair *pair,
                 const struct pair *also)
{
        char file[64], data[16384];
        size_t length = sizeof(data), more;

        ok(gnutls_x509_crt_export(pair->certificate, GNUTLS_X509_FMT_PEM, data, &length));
        if (also) {
                more = sizeof(data) - length;
                ok(gnutls_x509_crt_export(also->certificate, GNUTLS_X509_FMT_PEM, data + length,
                                          &more));
                length += more;
        }
        snprintf(file, sizeof(file), "%s.pem", name);
        pki_write(pki, file, data, length);
        length = sizeof(data);
        ok(gnutls_x509_privkey_export(pair->key, GNUTLS_X509_FMT_PEM, data, &length));
        snprintf(file, sizeof(file), "%s.key", name);
        pki_write(pki, file, data, length);
}

static void drop(struct pair *pair)
{
        gnutls_x509_privkey_deinit(pair->key);
        gnutls_x509_crt_deinit(pair->certificate);
}

static void make_keys(struct pki *pki, const struct pair *server)
{
        char text[512], data[8192];
        size_t length = sizeof(data);
        int n = snprintf(text, sizeof(text), "# who may come\nalice:");

        for (size_t i = 0; i < sizeof(PKI_KEY); i++)
                n += snprintf(text + n, sizeof(text) - (size_t)n, "%02X", PKI_KEY[i]);
        n += snprintf(text + n, sizeof(text) - (size_t)n,
                      "\n\nbob:000102030405060708090a0b0c0d0e0f\n");
        pki_write(pki, "keys.psk", text, (size_t)n);
        ok(gnutls_x509_privkey_export_pkcs8(server->key, GNUTLS_X509_FMT_PEM, "secret",
                                            GNUTLS_PKCS_PBES2_AES_256, data, &length));
        pki_write(pki, "locked.key", data, length);
}

struct pki *pki_new(void)
{
        static const struct kind authorities[] = {{"ca", -1, 30, NULL}, {"other-ca", -1, 30, NULL}};
        static const struct kind kinds[] = {
            {"server", -1, 30, NULL},
            {"server2", -1, 30, NULL},
            {"server-rsa", -1, 30, NULL, true},
            {"client", -1, 30, NULL},
            {"expired", -10, -1, NULL},
            {"future", 5, 30, NULL},
            {"for-servers", -1, 30, GNUTLS_KP_TLS_WWW_SERVER},
            {"for-clients", -1, 30, GNUTLS_KP_TLS_WWW_CLIENT},
        };
        static const struct kind stranger = {"stranger", -1, 30, NULL};
        struct pki *pki = calloc(1, sizeof(*pki));
        struct pair ca[2], pair;

        assert_non_null(pki);
        snprintf(pki->folder, sizeof(pki->folder), "/tmp/tarn-pki-XXXXXX");
        assert_non_null(mkdtemp(pki->folder));
        for (unsigned i = 0; i < 2; i++) {
                make(pki, &authorities[i], NULL, &ca[i]);
                save(pki, authorities[i].name, &ca[i], NULL);
        }
        for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
                make(pki, &kinds[i], &ca[0], &pair);
                save(pki, kinds[i].name, &pair, NULL);
                if (i == 0) {
                        save(pki, "chain", &pair, &ca[0]);
                        make_keys(pki, &pair);
                }
                drop(&pair);
        }
        make(pki, &stranger, &ca[1], &pair);
        save(pki, stranger.name, &pair, NULL);
        drop(&pair);
        drop(&ca[0]);
        drop(&ca[1]);
        return pki;
}

void pki_free(struct pki *pki)
{
        DIR *folder = opendir(pki->folder);
        struct dirent *entry;

        assert_non_null(folder);
        while ((entry = readdir(folder)))
                if (entry->d_name[0] != '.')
                        unlink(pki_path(pki, entry->d_name));
        closedir(folder);
        rmdir(pki->folder);
        for (unsigned i = 0; i < 8; i++)
                free(pki->paths[i]);
        free(pki);
}
