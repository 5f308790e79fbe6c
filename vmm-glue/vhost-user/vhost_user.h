/* vhost_user.h - volumes over vhost-user: virtio-blk devices for virtual machines, the back end.
 *
 * A device is one volume on one listening Unix socket. Those who connect are front ends: the VMMs.
 * Several may be connected at once, as two are during a live migration.
 *
 * Units      bytes.
 * Threads    a server, its devices and all their front ends live on one loop. Other servers may run
 *            on other loops.
 * Errors     0 or -errno with a sentence. What a front end or its guest sends is never an error of
 *            the server: it is answered, the request or the queue fails, or the front end is cut
 *            off; the log says why.
 * Ownership  the embedding program says which volume a device is (struct vhost_volumes) and owns the
 *            pools.
 * Source     docs/interop/vhost-user.rst of QEMU; Virtual I/O Device (VIRTIO) 1.2, sections 2.7
 *            (split rings), 2.8 (packed rings), 5.2 (block device).
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "common/error.h"
#include "common/loop.h"
#include "pool/pool.h"

#define VHOST_QUEUES_MAX  16u
#define VHOST_CLIENTS_MAX 8u  /* front ends of one device */
#define VHOST_SERIAL_MAX  20u /* bytes of VIRTIO_BLK_T_GET_ID; section 5.2.6 */

struct vhost_server;
struct vhost_device;
struct vhost_client;

/* What a front end gets; filled by co_open, given back to co_close. */
struct vhost_volume {
        struct volume *volume;
        bool readonly;
        bool discard; /* false: DISCARD is not offered */
        char serial[VHOST_SERIAL_MAX + 1];
        void *priv; /* the embedder's */
};

struct vhost_volumes {
        /* Open the device's volume for @client, which has just connected. A failure ends the
         * connection, with the sentence in the log. */
        int (*co_open)(void *arg, struct vhost_client *client, struct vhost_volume *ret_volume,
                       struct error *err);
        void (*co_close)(void *arg, struct vhost_volume *volume);
        void *arg;
};

/* Zero means the default in brackets. */
struct vhost_server_options {
        uint64_t max_total_bytes; /* in flight for all devices [512 MiB] */
        uint64_t max_bytes;       /* in flight for one device [64 MiB] */
        unsigned poll_max_us;     /* longest look for more requests before sleeping [50] */
        bool no_polling;          /* tests: sleep at once */
};

int vhost_server_new(struct loop *loop, const struct vhost_server_options *options,
                     struct vhost_server **ret_server, struct error *err);
void vhost_server_free(struct vhost_server *server); /* without devices; NULL is fine */

struct vhost_device_options {
        const char *name;  /* for the log: POOL/VOL */
        unsigned n_queues; /* 1 to VHOST_QUEUES_MAX */
        struct vhost_volumes volumes;
        bool held; /* accept nobody until vhost_device_go() */
};

/* Offer a device on a listening Unix socket; the descriptor is the device's from now on, also on
 * failure. */
int vhost_device_new(struct vhost_server *server, const struct vhost_device_options *options,
                     int fd, struct vhost_device **ret_device, struct error *err);
/* Accept nobody else, let each front end's requests finish, hang up, and free the device. Requests
 * that were not begun stay in the rings, for the next server. */
void co_vhost_device_free(struct vhost_device *device);
/* Hang up on every front end in the same way, and wait until they are gone; the device stays. */
void co_vhost_device_disconnect(struct vhost_device *device);
int vhost_device_fd(const struct vhost_device *device); /* that it listens on; borrowed */
void vhost_device_rename(struct vhost_device *device, const char *name);
/* The volume's size is another: tell the guests. */
void vhost_device_config_changed(struct vhost_device *device);

/* ---- handing over to another server, of this process or another ---- */

/* A front end between two servers, which does not notice: bytes that only co_vhost_device_restore()
 * of the same VHOST_SAVED_VERSION knows, and descriptors, of which the first is its connection. */
#define VHOST_SAVED_VERSION 1u
struct vhost_saved {
        uint8_t *bytes; /* malloc'ed, as fds */
        size_t n_bytes;
        int *fds; /* -1 in the place of one that was taken out */
        size_t n_fds;
};
void vhost_saved_free(struct vhost_saved *saved); /* and close what is in it; zeroed is fine */

/* In place of co_vhost_device_free(): accept nobody else, let each front end's requests finish, and
 * give what it is to @saved, which owns it then. Begin for several devices, then end each: so they
 * finish at a time. Requests that wait for space longer than some seconds fail. A front end that
 * cannot be saved is hung up on, and the log says why. */
void vhost_device_save(struct vhost_device *device,
                       void (*saved)(struct vhost_saved *saved, void *arg), void *arg);
/* Returns the listening descriptor, the caller's from then on. The device is gone. */
int co_vhost_device_save_end(struct vhost_device *device);
/* Make a front end of a device that is held what it was; @saved is left empty. Nothing of it runs,
 * and nothing is taken from or sent to it, until vhost_device_go().
 *
 * -EOPNOTSUPP  it was promised what this server does not do
 * -ENOMEM, -EMFILE, -ENFILE
 * others       it is to blame, and was hung up on */
int co_vhost_device_restore(struct vhost_device *device, struct vhost_saved *saved,
                            struct error *err);
void vhost_device_go(struct vhost_device *device);

/* Who is connected. Valid during the call. */
struct vhost_client_info {
        struct vhost_client *client;
        struct vhost_device *device;
        pid_t pid; /* of who connected; 0: not known */
        bool readonly;
        unsigned n_queues_started;
        uint64_t reads, writes, flushes, read_bytes, write_bytes;
};
void vhost_device_each_client(struct vhost_device *device,
                              void (*each)(const struct vhost_client_info *info, void *arg),
                              void *arg);
/* It has closed its end, or ours is shut: it is no front end any more in a moment. */
bool vhost_client_has_left(const struct vhost_client *client);
/* Process of the front end, for sentences; 0: not known. */
pid_t vhost_client_pid(const struct vhost_client *client);
