/* psk.c - pre-shared keys: lines "NAME:KEY" as psktool writes them, read once. GnuTLS would read
 * the file anew at each handshake, when it may be gone, half written, or not ours to read. */
#include <errno.h>
#include <stdlib.h>
#include "nbd-server/tls.h"

static int hex_digit(char c)
{
        if (c >= '0' && c <= '9')
                return c - '0';
        if (c >= 'a' && c <= 'f')
                return c - 'a' + 10;
        if (c >= 'A' && c <= 'F')
                return c - 'A' + 10;
        return -1;
}

/* The sentences show nothing of what stands in the line: it may be most of a key. */
static int parse_key(struct psk_user *user, const char *hex, const char *path, unsigned line,
                     struct error *err)
{
        size_t n = strlen(hex);

        if (n % 2 != 0)
                return error_set(err, -EINVAL,
                                 "line %u of '%s': its key has an odd number of digits", line,
                                 path);
        if (n / 2 < TLS_PSK_KEY_MIN || n / 2 > TLS_PSK_KEY_MAX) {
                error_set(err, -EINVAL, "line %u of '%s': its key has %zu bytes, not %u to %u",
                          line, path, n / 2, TLS_PSK_KEY_MIN, TLS_PSK_KEY_MAX);
                return error_hint(err, "'psktool -u NAME -p FILE' makes a good one");
        }
        for (size_t i = 0; i < n / 2; i++) {
                int high = hex_digit(hex[2 * i]), low = hex_digit(hex[2 * i + 1]);
                if (high < 0 || low < 0)
                        return error_set(err, -EINVAL,
                                         "line %u of '%s': its key is not hexadecimal", line, path);
                user->key[i] = (uint8_t)(high << 4 | low);
        }
        user->key_bytes = n / 2;
        return 0;
}

static int parse_line(struct psk_user *user, char *text, const char *path, unsigned line,
                      struct error *err)
{
        char *colon = strrchr(text, ':');

        if (!colon || colon == text) {
                error_set(err, -EINVAL, "line %u of '%s' is not a name and a key", line, path);
                return error_hint(err, "lines are NAME:KEY, the key in hexadecimal");
        }
        *colon = 0;
        if ((size_t)(colon - text) > TLS_PSK_NAME_MAX)
                return error_set(err, -EINVAL, "line %u of '%s': its name is longer than %u bytes",
                                 line, path, TLS_PSK_NAME_MAX);
        memcpy(user->name, text, (size_t)(colon - text) + 1);
        return parse_key(user, colon + 1, path, line, err);
}

static int compare_users(const void *a, const void *b)
{
        return strcmp(((const struct psk_user *)a)->name, ((const struct psk_user *)b)->name);
}

static int sort(struct psk_user *users, size_t n, const char *path, struct error *err)
{
        qsort(users, n, sizeof(*users), compare_users);
        for (size_t i = 1; i < n; i++)
                if (strcmp(users[i - 1].name, users[i].name) == 0)
                        return error_set(err, -EINVAL, "'%s' has two keys for '%.100s'", path,
                                         users[i].name);
        return n > 0 ? 0 : error_set(err, -EINVAL, "there is no key in '%s'", path);
}

/* Spaces at the end of a line are nobody's. */
static char *trimmed(char *text)
{
        size_t n = strlen(text);

        while (n > 0 && strchr(" \t\r", text[n - 1]))
                text[--n] = 0;
        return text;
}

int psk_parse(char *text, const char *path, struct psk_user **ret_users, size_t *ret_n,
              struct error *err)
{
        size_t n = 0, n_lines = 1;
        unsigned line = 0;

        for (const char *c = text; *c; c++)
                n_lines += *c == '\n';
        struct psk_user *users = calloc(n_lines, sizeof(*users));
        if (!users)
                return error_set(err, -ENOMEM, "no memory for the keys in '%s'", path);
        for (char *next = text, *at; (at = strsep(&next, "\n"));) {
                line++;
                if (*trimmed(at) == 0 || *at == '#')
                        continue;
                int r = parse_line(&users[n++], at, path, line, err);
                if (r < 0) {
                        explicit_bzero(users, n * sizeof(*users));
                        free(users);
                        return r;
                }
        }
        int r = sort(users, n, path, err);
        if (r < 0) {
                explicit_bzero(users, n * sizeof(*users));
                free(users);
                return r;
        }
        *ret_users = users;
        *ret_n = n;
        return 0;
}

const struct psk_user *psk_find(const struct nbd_tls *tls, const void *name, size_t length)
{
        struct psk_user wanted = {0};

        if (length > TLS_PSK_NAME_MAX || memchr(name, 0, length))
                return NULL;
        memcpy(wanted.name, name, length);
        return tls->n_users > 0
                   ? bsearch(&wanted, tls->users, tls->n_users, sizeof(*tls->users), compare_users)
                   : NULL;
}
