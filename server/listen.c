/* listen.c - a server's listening sockets. */
#include "server/listen.h"

#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <linux/vm_sockets.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/log.h"
#include "server/control.h"
#include "server/state.h"

#define GROUP_TEXT_MAX ((size_t)4 << 20)

/* State files are read from any working folder. */
char *absolute_path(const char *path)
{
        char folder[PATH_MAX], *result = NULL;

        if (path[0] == '/')
                return strdup(path);
        if (!getcwd(folder, sizeof(folder)) || asprintf(&result, "%s/%s", folder, path) < 0)
                return NULL;
        return result;
}

static int open_unix(struct sockets *s, const char *path, gid_t group, int *ret_fd, char **ret_path,
                     struct error *err)
{
        struct socket_file *file = &s->files[s->n_files];
        struct stat st;
        int r;

        file->path = absolute_path(path);
        if (!file->path)
                return error_set(err, -ENOMEM, "out of memory");
        r = socket_listen_unix(path, group, ret_fd, err);
        if (r == 0 && lstat(file->path, &st) < 0)
                r = error_set(err, -errno, "cannot look at '%s': %s", file->path, strerror(errno));
        if (r < 0) {
                free(file->path);
                return r;
        }
        file->device = st.st_dev;
        file->inode = st.st_ino;
        s->n_files++;
        *ret_path = file->path;
        return 0;
}

/* The address as it turned out: port 0 is chosen by the kernel. */
static char *tcp_uri(const struct sockaddr *a, socklen_t length)
{
        char host[INET6_ADDRSTRLEN], port[8], *uri = NULL;
        bool v6 = a->sa_family == AF_INET6;
        int n;

        if (getnameinfo(a, length, host, sizeof(host), port, sizeof(port),
                        NI_NUMERICHOST | NI_NUMERICSERV) != 0)
                return NULL;
        n = asprintf(&uri, "nbd://%s%s%s:%s", v6 ? "[" : "", host, v6 ? "]" : "", port);
        return n < 0 ? NULL : uri;
}

static char *socket_uri(const struct sockaddr *a, socklen_t length)
{
        char *uri = NULL;
        int n = -1;

        if (a->sa_family == AF_INET || a->sa_family == AF_INET6)
                return tcp_uri(a, length);
        if (a->sa_family == AF_UNIX) {
                const struct sockaddr_un *un = (const struct sockaddr_un *)a;

                n = asprintf(&uri, "nbd+unix:///?socket=%.*s", (int)sizeof(un->sun_path),
                             un->sun_path);
        } else if (a->sa_family == AF_VSOCK) {
                const struct sockaddr_vm *vm = (const struct sockaddr_vm *)a;

                /* Where it listens on any, guests find it at the host's number. */
                n = asprintf(&uri, "nbd+vsock://%u:%u",
                             vm->svm_cid == VMADDR_CID_ANY ? VMADDR_CID_HOST : vm->svm_cid,
                             vm->svm_port);
        }
        return n < 0 ? NULL : uri;
}

static void warn_exposed(const struct sockets *s, int fd, const char *uri)
{
        int family = AF_UNSPEC;
        socklen_t length = sizeof(family);

        if (!s->exposure || !socket_is_exposed(fd))
                return;
        getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &length);
        log_warning("'%s' is open to %s, who %s", uri,
                    family == AF_VSOCK ? "virtual machines" : "other hosts", s->exposure);
}

int sockets_add_nbd(struct sockets *s, int fd, struct error *err)
{
        struct sockaddr_storage a = {0};
        socklen_t length = sizeof(a);
        char *uri = NULL;
        int r = 0;

        if (s->n_nbd == SOCKETS_NBD_MAX)
                r = error_set(err, -EINVAL, "a server listens on at most %u NBD sockets",
                              SOCKETS_NBD_MAX);
        else if (getsockname(fd, (struct sockaddr *)&a, &length) < 0)
                r = error_set(err, -errno, "cannot tell where a socket listens: %s",
                              strerror(errno));
        else if (a.ss_family != AF_UNIX && a.ss_family != AF_INET && a.ss_family != AF_INET6 &&
                 a.ss_family != AF_VSOCK)
                r = error_set(err, -EINVAL, "an NBD socket is of no family that is known");
        else if (!(uri = socket_uri((struct sockaddr *)&a, length)))
                r = error_set(err, -ENOMEM, "out of memory");
        if (r < 0) {
                close(fd);
                return r;
        }
        warn_exposed(s, fd, uri);
        s->nbd_fds[s->n_nbd] = fd;
        s->nbd_addresses[s->n_nbd++] = uri;
        return 0;
}

/* The URI has the path that others find it by, not the name that it was bound under. */
static int add_unix(struct sockets *s, const char *path, gid_t group, struct error *err)
{
        size_t i = s->n_nbd;
        char *absolute_path;
        int r;

        if (i == SOCKETS_NBD_MAX)
                return error_set(err, -EINVAL, "a server listens on at most %u NBD sockets",
                                 SOCKETS_NBD_MAX);
        r = open_unix(s, path, group, &s->nbd_fds[i], &absolute_path, err);
        if (r < 0)
                return r;
        if (asprintf(&s->nbd_addresses[i], "nbd+unix:///?socket=%s", absolute_path) < 0)
                s->nbd_addresses[i] = NULL;
        s->n_nbd++;
        return s->nbd_addresses[i] ? 0 : error_set(err, -ENOMEM, "out of memory");
}

static int add_nbd(struct sockets *s, const char *spec, gid_t group, struct error *err)
{
        int fd, r;

        if (strncmp(spec, "unix:", 5) == 0)
                return add_unix(s, spec + 5, group, err);
        if (strncmp(spec, "tcp:", 4) == 0) {
                r = socket_listen_tcp(spec + 4, &fd, err);
        } else if (strncmp(spec, "vsock:", 6) == 0) {
                r = socket_listen_vsock(spec + 6, &fd, err);
        } else {
                r = error_set(err, -EINVAL, "'%s' is not an address to listen on", spec);
                error_hint(err, "write unix:PATH, tcp:127.0.0.1:10809, tcp:[::1]:10809 or "
                                "vsock:10809");
        }
        return r < 0 ? r : sockets_add_nbd(s, fd, err);
}

static int default_path(const char *pool, const char *suffix, char *path, size_t size,
                        struct error *err)
{
        char folder[PATH_MAX];
        int r = runtime_dir(folder, sizeof(folder), err);

        if (r < 0)
                return r;
        if ((size_t)snprintf(path, size, "%s/%s%s", folder, pool, suffix) >= size)
                return error_set(err, -ENAMETOOLONG, "the socket folder's path is too long");
        return 0;
}

/* Commands of several pools may ask at a time, each on its pool's thread. */
int group_find(const char *name, gid_t *ret_group, struct error *err)
{
        int r = name ? ERANGE : 0;
        bool found = false;

        *ret_group = (gid_t)-1;
        /* The text has all members of the group. */
        for (size_t size = 1024; r == ERANGE && size <= GROUP_TEXT_MAX; size *= 2) {
                struct group group, *there = NULL;
                char *text = malloc(size);

                if (!text)
                        return error_set(err, -ENOMEM, "out of memory");
                r = getgrnam_r(name, &group, text, size, &there);
                found = r == 0 && there;
                if (found)
                        *ret_group = group.gr_gid;
                free(text);
        }
        if (name && !found)
                return error_set(err, -ENOENT, "there is no group '%s'", name);
        return 0;
}

static int open_all(struct sockets *s, const char *const *pools, size_t n_pools,
                    const char *const *nbd, size_t n_nbd, const char *control, gid_t group,
                    struct error *err)
{
        char path[PATH_MAX], spec[PATH_MAX + 8];
        bool by_default = n_nbd == 0 && s->n_nbd == 0;
        int r = 0;

        if (control && s->control_fd >= 0)
                return error_set(err, -EINVAL, "there is a control socket already, from systemd");

        for (size_t i = 0; r == 0 && i < n_nbd; i++)
                r = add_nbd(s, nbd[i], group, err);
        for (size_t i = 0; r == 0 && by_default && i < n_pools; i++) {
                r = default_path(pools[i], ".nbd", path, sizeof(path), err);
                if (r == 0) {
                        snprintf(spec, sizeof(spec), "unix:%s", path);
                        r = add_nbd(s, spec, group, err);
                }
        }
        if (r < 0 || s->control_fd >= 0)
                return r;
        if (!control) {
                r = default_path(pools[0], ".control", path, sizeof(path), err);
                control = path;
        }
        return r < 0 ? r : open_unix(s, control, group, &s->control_fd, &s->control_path, err);
}

int sockets_open(struct sockets *s, const char *const *pools, size_t n_pools,
                 const char *const *nbd, size_t n_nbd, const char *control, const char *group,
                 struct error *err)
{
        int r = group_find(group, &s->group, err);

        if (r == 0)
                r = open_all(s, pools, n_pools, nbd, n_nbd, control, s->group, err);
        if (r < 0) {
                sockets_unlink(s);
                sockets_close(s);
        }
        return r;
}

/* ---- from one server to the next ---- */

json_t *sockets_json(const struct sockets *s, const int *nbd_numbers, int control_number)
{
        json_t *nbd = json_array(), *files = json_array();

        for (size_t i = 0; i < s->n_nbd; i++)
                json_array_append_new(nbd, json_pack("{s:i, s:s}", "fd", nbd_numbers[i], "address",
                                                     s->nbd_addresses[i]));
        for (size_t i = 0; i < s->n_files; i++)
                json_array_append_new(files, json_pack("{s:s, s:I, s:I}", "path", s->files[i].path,
                                                       "device", (json_int_t)s->files[i].device,
                                                       "inode", (json_int_t)s->files[i].inode));
        return json_pack("{s:o, s:{s:i, s:s}, s:o, s:I}", "nbd", nbd, "control", "fd",
                         control_number, "path", s->control_path, "files", files, "group",
                         (json_int_t)s->group);
}

static int take_nbd(struct sockets *s, struct handover *h, const json_t *json)
{
        const char *address = json_string_value(json_object_get(json, "address"));
        int fd = handover_take(h, json_object_get(json, "fd"));

        if (fd < 0 || !address || s->n_nbd == SOCKETS_NBD_MAX) {
                if (fd >= 0)
                        close(fd);
                return -EBADMSG;
        }
        s->nbd_fds[s->n_nbd] = fd;
        s->nbd_addresses[s->n_nbd] = strdup(address);
        if (!s->nbd_addresses[s->n_nbd++])
                return -ENOMEM;
        warn_exposed(s, fd, address);
        return 0;
}

int sockets_take(struct sockets *s, struct handover *h, const json_t *json, struct error *err)
{
        const json_t *nbd = json_object_get(json, "nbd");
        const json_t *control = json_object_get(json, "control");
        const char *path = json_string_value(json_object_get(control, "path"));
        int r = 0;

        for (size_t i = 0; r == 0 && i < json_array_size(nbd); i++)
                r = take_nbd(s, h, json_array_get(nbd, i));
        if (r == 0) {
                s->control_fd = handover_take(h, json_object_get(control, "fd"));
                s->passed_control = s->control_path = path ? strdup(path) : NULL;
                s->group = (gid_t)json_integer_value(json_object_get(json, "group"));
                r = s->control_fd < 0 || !path ? -EBADMSG : s->control_path ? 0 : -ENOMEM;
        }
        return r < 0 ? error_set(err, r, "the sockets cannot be taken over: %s", strerror(-r)) : 0;
}

int sockets_own(struct sockets *s, const json_t *json)
{
        const json_t *files = json_object_get(json, "files");

        for (size_t i = 0; i < json_array_size(files) && i < SOCKETS_NBD_MAX + 1; i++) {
                const json_t *from = json_array_get(files, i);
                const char *path = json_string_value(json_object_get(from, "path"));
                struct socket_file *file = &s->files[s->n_files];

                file->path = path ? strdup(path) : NULL;
                if (!file->path)
                        return -ENOMEM;
                file->device = (dev_t)json_integer_value(json_object_get(from, "device"));
                file->inode = (ino_t)json_integer_value(json_object_get(from, "inode"));
                s->n_files++;
        }
        return 0;
}

void sockets_disown(struct sockets *s)
{
        /* Their paths stay in use as the control socket's. */
        for (size_t i = 0; i < s->n_files; i++)
                s->files[i].inode = 0;
}

void sockets_unlink(struct sockets *s)
{
        for (size_t i = 0; i < s->n_files; i++) {
                struct stat st;

                if (lstat(s->files[i].path, &st) == 0 && st.st_dev == s->files[i].device &&
                    st.st_ino == s->files[i].inode)
                        unlink(s->files[i].path);
        }
}

void sockets_close(struct sockets *s)
{
        if (s->control_fd >= 0)
                close(s->control_fd);
        s->control_fd = -1;
        for (size_t i = 0; i < s->n_nbd; i++) {
                if (s->nbd_fds[i] >= 0)
                        close(s->nbd_fds[i]);
                s->nbd_fds[i] = -1;
                free(s->nbd_addresses[i]);
                s->nbd_addresses[i] = NULL;
        }
        s->n_nbd = 0;
        for (size_t i = 0; i < s->n_files; i++)
                free(s->files[i].path);
        s->n_files = 0;
        free(s->passed_control);
        s->passed_control = NULL;
        s->control_path = NULL;
}
