/* socket_network.c - listening on TCP and vsock. */
#include <errno.h>
#include <linux/vm_sockets.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/control.h"

/* As for Unix sockets: all may come at once. */
#define BACKLOG 1024

/* ---- TCP ---- */

static int split_address(const char *address, char *host, size_t host_size, const char **ret_port)
{
        const char *colon = strrchr(address, ':');
        size_t length;

        if (!colon || colon[1] == '\0')
                return -EINVAL;
        length = (size_t)(colon - address);
        if (length >= 2 && address[0] == '[' && address[length - 1] == ']') {
                address++;
                length -= 2;
        } else if (memchr(address, ':', length)) {
                return -EINVAL; /* an IPv6 address needs its brackets */
        }
        if (length >= host_size)
                return -EINVAL;
        memcpy(host, address, length);
        host[length] = '\0';
        *ret_port = colon + 1;
        return 0;
}

/* getaddrinfo(3) takes 99999 too, and drops what does not fit in 16 bits. */
static bool is_port(const char *text)
{
        size_t n = strspn(text, "0123456789");

        return n > 0 && n <= 5 && text[n] == '\0' && atoi(text) <= 65535;
}

static bool is_loopback(const struct sockaddr_storage *a)
{
        if (a->ss_family == AF_INET) {
                const struct sockaddr_in *in = (const struct sockaddr_in *)a;

                return ntohl(in->sin_addr.s_addr) >> 24 == 127;
        }
        if (a->ss_family == AF_INET6)
                return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)a)->sin6_addr);
        return a->ss_family == AF_VSOCK &&
               ((const struct sockaddr_vm *)a)->svm_cid == VMADDR_CID_LOCAL;
}

bool socket_is_exposed(int fd)
{
        struct sockaddr_storage a = {0};
        socklen_t length = sizeof(a);

        return getsockname(fd, (struct sockaddr *)&a, &length) < 0 ||
               (a.ss_family != AF_UNIX && !is_loopback(&a));
}

static int listen_on(const struct addrinfo *info)
{
        int fd, r, on = 1;

        fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return -errno;
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
        if (info->ai_family == AF_INET6)
                setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
        if (bind(fd, info->ai_addr, info->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
                return fd;
        r = -errno;
        close(fd);
        return r;
}

int socket_listen_tcp(const char *address, int *ret_fd, struct error *err)
{
        const struct addrinfo want = {
            .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
        struct addrinfo *found = NULL;
        char host[256];
        const char *port;
        int fd, r;

        if (split_address(address, host, sizeof(host), &port) < 0) {
                error_set(err, -EINVAL, "'%s' is not an address and port", address);
                return error_hint(err, "write tcp:127.0.0.1:10809 or tcp:[::1]:10809");
        }
        if (!is_port(port))
                return error_set(err, -EINVAL,
                                 "'%s' is no port to listen on: ports are numbers up to 65535",
                                 port);
        r = getaddrinfo(host[0] ? host : NULL, port, &want, &found);
        if (r != 0)
                return error_set(err, -EINVAL, "cannot resolve '%s': %s", address, gai_strerror(r));
        fd = listen_on(found);
        freeaddrinfo(found);
        if (fd < 0)
                return error_set(err, fd, "cannot listen on '%s': %s", address, strerror(-fd));
        *ret_fd = fd;
        return 0;
}

/* ---- vsock ---- */

static int parse_number(const char *text, uint32_t *ret_number)
{
        size_t n = strspn(text, "0123456789");
        unsigned long long number = strtoull(text, NULL, 10);

        /* The last one stands for any in both places where it might be. */
        if (n == 0 || n > 10 || text[n] != '\0' || number >= UINT32_MAX)
                return -EINVAL;
        *ret_number = (uint32_t)number;
        return 0;
}

int socket_listen_vsock(const char *address, int *ret_fd, struct error *err)
{
        struct sockaddr_vm a = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY};
        const char *colon = strchr(address, ':');
        char cid[16];
        int fd, r = 0;

        if (colon) {
                snprintf(cid, sizeof(cid), "%.*s", (int)(colon - address), address);
                r = colon - address < (int)sizeof(cid) ? parse_number(cid, &a.svm_cid) : -EINVAL;
        }
        if (r < 0 || parse_number(colon ? colon + 1 : address, &a.svm_port) < 0) {
                error_set(err, -EINVAL, "'%s' is not a vsock address", address);
                return error_hint(err, "write vsock:PORT or vsock:CID:PORT, both numbers");
        }
        fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0 && bind(fd, (const struct sockaddr *)&a, sizeof(a)) == 0 &&
            listen(fd, BACKLOG) == 0) {
                *ret_fd = fd;
                return 0;
        }
        r = -errno;
        if (fd >= 0)
                close(fd);
        return error_set(err, r, "cannot listen on 'vsock:%s': %s", address, strerror(-r));
}
