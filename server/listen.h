/* listen.h - a server's listening sockets: made together, or none.
 *
 * Threads    blocking; one thread at a time.
 * Errors     0 or -errno with a sentence. What was made before a failure is taken away again.
 * Ownership  a struct sockets is the caller's memory, from SOCKETS_INIT to sockets_close(). A
 *            descriptor that somebody else takes over is set to -1.
 */
#pragma once
#include <stddef.h>
#include <sys/types.h>

#include "common/error.h"
#include "server/handover.h"

#define SOCKETS_NBD_MAX 64u

struct sockets {
        char *control_path;
        int control_fd;       /* -1 once somebody else has it */
        char *passed_control; /* where systemd made it; not ours to remove */
        /* What other hosts and guests may do, to be said of sockets that they reach; NULL:
         * nothing that needs saying. */
        const char *exposure;
        size_t n_nbd;
        int nbd_fds[SOCKETS_NBD_MAX];
        /* "nbd+unix:///?socket=PATH", "nbd://127.0.0.1:10809", "nbd+vsock://2:10809" */
        char *nbd_addresses[SOCKETS_NBD_MAX];
        /* What was made in the file system, to be removed at the end if it is still ours. */
        struct socket_file {
                char *path;
                dev_t device;
                ino_t inode;
        } files[SOCKETS_NBD_MAX + 1];
        size_t n_files;
        gid_t group; /* of the sockets; (gid_t)-1: none */
};
#define SOCKETS_INIT                                                                               \
        {                                                                                          \
                .control_fd = -1                                                                   \
        }

/* A socket that listens already, and is the struct's from now on, also on failure. */
int sockets_add_nbd(struct sockets *s, int fd, struct error *err);
/* @pools: names for the default paths, where nothing is asked for or there already. @control,
 * @group may be NULL. */
int sockets_open(struct sockets *s, const char *const *pools, size_t n_pools,
                 const char *const *nbd, size_t n_nbd, const char *control, const char *group,
                 struct error *err);
/* Where they are, for a server that takes them over with their descriptors; and back, but for the
 * files, so that they are not removed until sockets_own(). A descriptor is @h's number in "fd". */
json_t *sockets_json(const struct sockets *s, const int *nbd_numbers, int control_number);
int sockets_take(struct sockets *s, struct handover *h, const json_t *json, struct error *err);
int sockets_own(struct sockets *s, const json_t *json);
/* They are another server's: nothing is removed. */
void sockets_disown(struct sockets *s);
/* Nobody finds them any more; those connected stay. */
void sockets_unlink(struct sockets *s);
void sockets_close(struct sockets *s);

/* A group's number; (gid_t)-1 where @name is NULL. -ENOENT */
int group_find(const char *name, gid_t *ret_group, struct error *err);
/* @path seen from the working folder, malloc'ed; NULL: out of memory. */
char *absolute_path(const char *path);
