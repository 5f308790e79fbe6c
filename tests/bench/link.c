/* link.c - the client's half of the newstyle negotiation (proto.md,
 * "Fixed newstyle negotiation"). */
#include "tests/bench/link.h"
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "tests/bench/nbd_wire.h"

#define OPTION_REPLY_MAX 65536u /* no honest reply to GO is longer */

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

/* Undo %XX of RFC 3986 in text[0..len) into a buffer of @size bytes. */
static int percent_decode(const char *text, size_t len, char *buffer, size_t size)
{
        size_t n = 0;

        for (size_t i = 0; i < len; i++) {
                char c = text[i];
                if (c == '%') {
                        if (len - i < 3)
                                return -EINVAL;
                        int high = hex_digit(text[i + 1]), low = hex_digit(text[i + 2]);
                        if (high < 0 || low < 0 || (high == 0 && low == 0))
                                return -EINVAL;
                        c = (char)(high << 4 | low);
                        i += 2;
                }
                if (n + 1 >= size)
                        return -ENAMETOOLONG;
                buffer[n++] = c;
        }
        buffer[n] = 0;
        return 0;
}

static int parse_unix(const char *rest, struct link_target *t)
{
        const char *query = strchr(rest, '?');
        if (!query || strncmp(query, "?socket=", 8) != 0 || rest[0] != '/')
                return -EINVAL;
        int r = percent_decode(rest + 1, (size_t)(query - rest - 1), t->export_name,
                               sizeof(t->export_name));
        if (r < 0)
                return r;
        return percent_decode(query + 8, strlen(query + 8), t->socket_path, sizeof(t->socket_path));
}

static int parse_tcp(const char *rest, struct link_target *t)
{
        const char *slash = strchr(rest, '/');
        const char *host_end, *port = NULL;

        if (!slash)
                slash = rest + strlen(rest);
        host_end = slash;
        if (rest[0] == '[') { /* IPv6: [::1]:10809 */
                host_end = memchr(rest, ']', (size_t)(slash - rest));
                if (!host_end)
                        return -EINVAL;
                if (host_end[1] == ':')
                        port = host_end + 2;
                rest++;
        } else {
                const char *colon = memchr(rest, ':', (size_t)(slash - rest));
                if (colon) {
                        host_end = colon;
                        port = colon + 1;
                }
        }
        int r = percent_decode(rest, (size_t)(host_end - rest), t->host, sizeof(t->host));
        if (r < 0 || !t->host[0])
                return r < 0 ? r : -EINVAL;
        r = port ? percent_decode(port, (size_t)(slash - port), t->port, sizeof(t->port))
                 : percent_decode("10809", 5, t->port, sizeof(t->port));
        if (r < 0 || !*slash)
                return r;
        return percent_decode(slash + 1, strlen(slash + 1), t->export_name, sizeof(t->export_name));
}

int link_parse_uri(const char *uri, struct link_target *ret_target, struct error *err)
{
        struct link_target t = {0};
        int r = -EINVAL;

        if (strncmp(uri, "nbd+unix://", 11) == 0)
                r = parse_unix(uri + 11, &t);
        else if (strncmp(uri, "nbd://", 6) == 0)
                r = parse_tcp(uri + 6, &t);
        if (r < 0) {
                error_set(err, r, "'%s' is not an NBD address", uri);
                error_hint(err, "nbd+unix:///EXPORT?socket=PATH or nbd://HOST:PORT/EXPORT");
                return r;
        }
        *ret_target = t;
        return 0;
}

static int connect_unix(const char *path, struct error *err)
{
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return error_set(err, -errno, "cannot make a socket: %s", strerror(errno));
        if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
                int r = error_set(err, -errno, "cannot connect to '%s': %s", path, strerror(errno));
                close(fd);
                return r;
        }
        return fd;
}

static int connect_tcp(const char *host, const char *port, struct error *err)
{
        struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *list;
        int r = getaddrinfo(host, port, &hints, &list);
        if (r != 0)
                return error_set(err, -ENOENT, "cannot resolve '%s': %s", host, gai_strerror(r));
        r = -ECONNREFUSED;
        for (struct addrinfo *a = list; a; a = a->ai_next) {
                int fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
                if (fd < 0)
                        continue;
                if (connect(fd, a->ai_addr, a->ai_addrlen) == 0) {
                        int on = 1;
                        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
                        freeaddrinfo(list);
                        return fd;
                }
                r = -errno;
                close(fd);
        }
        freeaddrinfo(list);
        return error_set(err, r, "cannot connect to %s:%s: %s", host, port, strerror(-r));
}

static int read_all(int fd, void *buffer, size_t len, struct error *err)
{
        for (size_t done = 0; done < len;) {
                ssize_t n = recv(fd, (char *)buffer + done, len - done, 0);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return error_set(err, n < 0 ? -errno : -ECONNRESET,
                                         "the server closed the connection while negotiating");
                done += (size_t)n;
        }
        return 0;
}

static int write_all(int fd, const void *buffer, size_t len, struct error *err)
{
        for (size_t done = 0; done < len;) {
                ssize_t n = send(fd, (const char *)buffer + done, len - done, MSG_NOSIGNAL);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return error_set(err, -errno, "cannot send to the server: %s",
                                         strerror(errno));
                done += (size_t)n;
        }
        return 0;
}

static int greet(int fd, struct error *err)
{
        uint8_t hello[18], answer[4];

        int r = read_all(fd, hello, sizeof(hello), err);
        if (r < 0)
                return r;
        if (wire_get64(hello) != NBD_MAGIC || wire_get64(hello + 8) != NBD_OPTION_MAGIC ||
            !(wire_get16(hello + 16) & NBD_FLAG_FIXED_NEWSTYLE))
                return error_set(err, -EPROTO, "the peer is not a fixed newstyle NBD server");
        wire_put32(answer, NBD_FLAG_FIXED_NEWSTYLE | (wire_get16(hello + 16) & NBD_FLAG_NO_ZEROES));
        return write_all(fd, answer, sizeof(answer), err);
}

static int send_option(int fd, uint32_t option, const void *data, uint32_t len, struct error *err)
{
        uint8_t header[16];

        wire_put64(header, NBD_OPTION_MAGIC);
        wire_put32(header + 8, option);
        wire_put32(header + 12, len);
        int r = write_all(fd, header, sizeof(header), err);
        return r < 0 ? r : write_all(fd, data, len, err);
}

/* One reply to @option: its type, and its data in @data. */
static int read_option_reply(int fd, uint32_t option, uint8_t data[OPTION_REPLY_MAX],
                             uint32_t *ret_type, uint32_t *ret_len, struct error *err)
{
        uint8_t header[20];

        int r = read_all(fd, header, sizeof(header), err);
        if (r < 0)
                return r;
        uint32_t len = wire_get32(header + 16);
        if (wire_get64(header) != NBD_OPTION_REPLY_MAGIC || wire_get32(header + 8) != option ||
            len > OPTION_REPLY_MAX)
                return error_set(err, -EPROTO, "the server sent a malformed option reply");
        r = read_all(fd, data, len, err);
        if (r < 0)
                return r;
        *ret_type = wire_get32(header + 12);
        *ret_len = len;
        return 0;
}

static int ask_structured(struct link *l, uint8_t *buffer, struct error *err)
{
        uint32_t type = 0, len = 0;

        int r = send_option(l->fd, NBD_OPT_STRUCTURED_REPLY, NULL, 0, err);
        if (r < 0)
                return r;
        r = read_option_reply(l->fd, NBD_OPT_STRUCTURED_REPLY, buffer, &type, &len, err);
        if (r < 0)
                return r;
        l->structured = type == NBD_REP_ACK;
        return 0;
}

static int go(struct link *l, const char *name, uint8_t *buffer, struct error *err)
{
        uint32_t type = 0, len = 0, name_len = (uint32_t)strlen(name);
        bool have_size = false;

        wire_put32(buffer, name_len);
        memcpy(buffer + 4, name, name_len);
        wire_put16(buffer + 4 + name_len, 0); /* no information beyond NBD_INFO_EXPORT */
        int r = send_option(l->fd, NBD_OPT_GO, buffer, 6 + name_len, err);
        if (r < 0)
                return r;
        for (;;) {
                r = read_option_reply(l->fd, NBD_OPT_GO, buffer, &type, &len, err);
                if (r < 0)
                        return r;
                if (type & NBD_REP_FLAG_ERR)
                        return error_set(err, -ENOENT, "the server refuses export '%s': %.*s", name,
                                         (int)(len < 200 ? len : 200), buffer);
                if (type == NBD_REP_ACK)
                        break;
                if (type == NBD_REP_INFO && len >= 12 && wire_get16(buffer) == NBD_INFO_EXPORT) {
                        l->size_bytes = wire_get64(buffer + 2);
                        l->flags = wire_get16(buffer + 10);
                        have_size = true;
                }
        }
        return have_size ? 0 : error_set(err, -EPROTO, "the server did not tell the export's size");
}

int link_open(const struct link_target *target, bool want_structured, struct link *ret_link,
              struct error *err)
{
        uint8_t buffer[OPTION_REPLY_MAX];
        struct link l = {0};

        l.fd = target->socket_path[0] ? connect_unix(target->socket_path, err)
                                      : connect_tcp(target->host, target->port, err);
        if (l.fd < 0)
                return l.fd;
        int r = greet(l.fd, err);
        if (r == 0 && want_structured)
                r = ask_structured(&l, buffer, err);
        if (r == 0)
                r = go(&l, target->export_name, buffer, err);
        if (r < 0) {
                close(l.fd);
                return r;
        }
        *ret_link = l;
        return 0;
}

void link_close(struct link *l)
{
        uint8_t request[NBD_REQUEST_BYTES] = {0};

        if (l->fd < 0)
                return;
        wire_put32(request, NBD_REQUEST_MAGIC);
        wire_put16(request + 6, NBD_CMD_DISC);
        if (send(l->fd, request, sizeof(request), MSG_NOSIGNAL) >= 0)
                shutdown(l->fd, SHUT_WR);
        close(l->fd);
        l->fd = -1;
}
