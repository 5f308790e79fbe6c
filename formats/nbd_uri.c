/* nbd_uri.c - connecting to what an NBD URI names. */
#include "formats/nbd_uri.h"

#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "formats/nbd.h"
#include "formats/nbd_tls.h"

#define DEFAULT_PORT "10809"
/* What a server says first (proto.md). */
#define GREETING "NBDMAGICIHAVEOPT"
/* Between two looks at how much of that is there. */
#define PIECE_MS 5
/* A peer that is not there any more is noticed after half a minute. */
#define KEEPALIVE_IDLE_S     10
#define KEEPALIVE_INTERVAL_S 5
#define KEEPALIVE_PROBES     4
#define UNANSWERED_MS        30000u

/* The parts of SCHEME://AUTHORITY/PATH?QUERY, not decoded. */
struct parts {
        char *scheme, *authority, *path, *query;
};

static int malformed(const char *uri, const char *why, struct error *err)
{
        return error_set(err, -EINVAL, "'%s' is no NBD URI: %s", uri, why);
}

/* In place. False: a '%' that is not followed by two digits, or by those of NUL. */
static bool decode(char *text)
{
        char *to = text;

        for (const char *p = text; *p; p++) {
                char digits[3] = {0};

                if (*p != '%') {
                        *to++ = *p;
                        continue;
                }
                digits[0] = p[1];
                if (p[1])
                        digits[1] = p[2];
                if (!isxdigit((unsigned char)digits[0]) || !isxdigit((unsigned char)digits[1]) ||
                    strcmp(digits, "00") == 0)
                        return false;
                *to++ = (char)strtoul(digits, NULL, 16);
                p += 2;
        }
        *to = '\0';
        return true;
}

/* @copy is cut up; nbd_is_uri() holds. */
static void split(char *copy, struct parts *p)
{
        static char empty[] = "";
        char *rest = strstr(copy, "://");

        *rest = '\0';
        *p = (struct parts){.scheme = copy, .authority = rest + 3, .path = empty, .query = empty};
        rest = strchr(p->authority, '#');
        if (rest)
                *rest = '\0';
        rest = strchr(p->authority, '?');
        if (rest) {
                *rest = '\0';
                p->query = rest + 1;
        }
        rest = strchr(p->authority, '/');
        if (rest) {
                *rest = '\0';
                p->path = rest + 1;
        }
}

/* The decoded value of a field of the query, for the caller to free; NULL: there is none, or it is
 * malformed. */
static char *field_of(const struct parts *p, const char *key)
{
        size_t n = strlen(key);

        for (const char *at = p->query; *at; at += strcspn(at, "&"), at += *at == '&') {
                char *value;

                if (strncmp(at, key, n) != 0 || at[n] != '=')
                        continue;
                value = strndup(at + n + 1, strcspn(at + n + 1, "&"));
                if (value && decode(value))
                        return value;
                free(value);
                return NULL;
        }
        return NULL;
}

static int connect_unix(const char *uri, struct parts *p, struct error *err)
{
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        char *path, *at = strchr(p->authority, '@');
        int fd;

        if (at ? at[1] : p->authority[0])
                return malformed(uri, "one for a Unix socket names no host", err);
        path = field_of(p, "socket");
        if (!path)
                return malformed(uri, "it lacks '?socket=PATH'", err);
        if (!path[0] || strlen(path) >= sizeof(address.sun_path)) {
                free(path);
                return malformed(uri, "the socket's path is none, or too long", err);
        }
        memcpy(address.sun_path, path, strlen(path) + 1);
        free(path);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
                int r = error_set(err, -errno, "cannot connect to '%s': %s", uri, strerror(errno));

                if (fd >= 0)
                        close(fd);
                return r;
        }
        return fd;
}

/* "HOST", "HOST:PORT", "[ADDRESS]:PORT". */
static bool split_authority(char *authority, char **ret_host, const char **ret_port)
{
        char *end = authority, *at = strchr(authority, '@');

        if (at) /* behind a user's name */
                authority = end = at + 1;
        *ret_port = DEFAULT_PORT;
        *ret_host = authority;
        if (authority[0] == '[') {
                *ret_host = authority + 1;
                end = strchr(authority, ']');
                if (!end)
                        return false;
                *end++ = '\0';
        }
        end += strcspn(end, ":");
        if (*end == ':' && end[1])
                *ret_port = end + 1;
        *end = '\0';
        return decode(*ret_host);
}

static void keep_alive(int fd)
{
        static const struct {
                int level, name, value;
        } options[] = {
            {SOL_SOCKET, SO_KEEPALIVE, 1},
            {IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S},
            {IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S},
            {IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES},
            {IPPROTO_TCP, TCP_USER_TIMEOUT, UNANSWERED_MS},
            {IPPROTO_TCP, TCP_NODELAY, 1},
        };

        for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
                (void)setsockopt(fd, options[i].level, options[i].name, &options[i].value,
                                 sizeof(options[i].value));
}

static int connect_tcp(const char *uri, struct parts *p, struct error *err)
{
        const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
        struct addrinfo *found;
        char *host;
        const char *port;
        int fd = -1, r, code = EADDRNOTAVAIL;

        if (!split_authority(p->authority, &host, &port))
                return malformed(uri, "its host's name is none", err);
        r = getaddrinfo(host[0] ? host : "localhost", port, &hints, &found);
        if (r != 0)
                return error_set(err, -ENOENT, "cannot connect to '%s': %s", uri, gai_strerror(r));
        for (struct addrinfo *a = found; a && fd < 0; a = a->ai_next) {
                fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, a->ai_protocol);
                if (fd >= 0) /* for connecting, too */
                        keep_alive(fd);
                if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen) == 0)
                        break;
                code = errno;
                if (fd >= 0)
                        close(fd);
                fd = -1;
        }
        freeaddrinfo(found);
        return fd >= 0 ? fd
                       : error_set(err, -code, "cannot connect to '%s': %s", uri, strerror(code));
}

/* Where no NBD server answers, nobody is to be given a connection. A greeting may come in pieces: a Unix
 * socket gives to MSG_PEEK what is there, whatever MSG_WAITALL says. */
static int check_greeting(int fd, const char *uri, struct error *err)
{
        const char *why = "it does not answer";
        char said[sizeof(GREETING) - 1];
        bool ended = false;

        for (int at_ms = 0; at_ms < NBD_URI_WAIT_S * 1000 && !ended; at_ms += PIECE_MS) {
                struct pollfd end = {.fd = fd, .events = POLLRDHUP};
                ssize_t n;

                ended = poll(&end, 1, at_ms == 0 ? 0 : PIECE_MS) > 0;
                n = recv(fd, said, sizeof(said), MSG_PEEK | MSG_DONTWAIT);
                if (n < 0 && errno != EAGAIN && errno != EINTR)
                        return error_set(err, -errno, "cannot connect to '%s': %s", uri,
                                         strerror(errno));
                if (n > 0 && memcmp(said, GREETING, (size_t)n) != 0)
                        return error_set(err, -EPROTO, "cannot connect to '%s': %s", uri,
                                         "it is no NBD server of this age");
                if (n == (ssize_t)sizeof(said))
                        return 0;
        }
        if (ended)
                why = "it hangs up";
        return error_set(err, ended ? -EPROTO : -ETIMEDOUT, "cannot connect to '%s': %s", uri, why);
}

static int by_tls(const char *uri, struct parts *p, int fd, struct error *err)
{
        const char *at = strchr(p->authority, '@'), *port;
        char *user = at ? strndup(p->authority, (size_t)(at - p->authority)) : NULL;
        char *host = NULL, *verify = field_of(p, "tls-verify-peer");
        char *folder = field_of(p, "tls-certificates"), *psk = field_of(p, "tls-psk-file");
        char *name = field_of(p, "tls-hostname");
        struct nbd_tls_peer peer = {.uri = uri, .certificates = folder, .psk_file = psk};
        int r = 0;

        if (user && !decode(user))
                r = malformed(uri, "the user's name is none", err);
        if (r == 0 && strstr(p->scheme, "unix") == NULL &&
            !split_authority(p->authority, &host, &port))
                r = malformed(uri, "its host's name is none", err);
        peer.user = user;
        peer.host = name ? name : host;
        peer.verify = !verify || (strcmp(verify, "0") != 0 && strcmp(verify, "false") != 0);
        if (r == 0)
                r = nbd_tls_relay(&peer, fd, err);
        free(user);
        free(verify);
        free(folder);
        free(psk);
        free(name);
        return r;
}

static int connect_parts(const char *uri, struct parts *p, struct error *err)
{
        bool tls = strncmp(p->scheme, "nbds", 4) == 0, local = strstr(p->scheme, "+unix");
        char *authority = NULL;
        int fd, r;

        if (strstr(p->scheme, "+vsock")) {
                error_set(err, -EOPNOTSUPP, "volumes cannot be copied by %s", p->scheme);
                error_hint(err, "'tarn image convert' can: between that and the NBD export of a "
                                "pool that is served");
                return -EOPNOTSUPP;
        }
        if (tls && !(authority = strdup(p->authority))) /* connecting cuts it up */
                return error_set(err, -ENOMEM, "out of memory");
        fd = local ? connect_unix(uri, p, err) : connect_tcp(uri, p, err);
        r = fd < 0 ? fd : check_greeting(fd, uri, err);
        if (r == 0 && tls) {
                p->authority = authority;
                r = by_tls(uri, p, fd, err);
        } else if (r == 0) {
                r = fd;
                fd = -1;
        }
        if (fd >= 0)
                close(fd);
        free(authority);
        return r;
}

static int is_absolute(const char *uri, const struct parts *p, const char *key, struct error *err)
{
        char *path = field_of(p, key);
        bool fine = !path || path[0] == '/';

        free(path);
        return fine ? 0
                    : malformed(uri, "a server finds files only by paths that begin with '/'", err);
}

int nbd_uri_check(const char *uri, char **ret_export, struct error *err)
{
        char *copy = strdup(uri);
        struct parts p;
        int r;

        if (!copy)
                return error_set(err, -ENOMEM, "out of memory");
        split(copy, &p);
        r = is_absolute(uri, &p, "socket", err);
        if (r == 0)
                r = is_absolute(uri, &p, "tls-certificates", err);
        if (r == 0)
                r = is_absolute(uri, &p, "tls-psk-file", err);
        if (r == 0 && !decode(p.path))
                r = malformed(uri, "the export's name is none", err);
        if (r == 0 && ret_export && !(*ret_export = strdup(p.path)))
                r = error_set(err, -ENOMEM, "out of memory");
        free(copy);
        return r;
}

int nbd_uri_connect(const char *uri, int *ret_fd, char **ret_export, struct error *err)
{
        char *copy = strdup(uri), *name;
        struct parts p;
        int fd;

        if (!copy)
                return error_set(err, -ENOMEM, "out of memory");
        split(copy, &p);
        if (!decode(p.path)) {
                free(copy);
                return malformed(uri, "the export's name is none", err);
        }
        name = strdup(p.path);
        fd = name ? connect_parts(uri, &p, err) : error_set(err, -ENOMEM, "out of memory");
        free(copy);
        if (fd < 0) {
                free(name);
                return fd;
        }
        *ret_fd = fd;
        *ret_export = name;
        return 0;
}
