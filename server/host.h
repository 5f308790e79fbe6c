/* host.h - the pools that are open in this process, and who uses what of them.
 *
 * A one-shot command makes a host for one pool and ends; 'tarn serve' keeps one.
 *
 * Units      times are milliseconds.
 * Threads    a host lives on one loop, its own; each of its pools on one that may be another. What
 *            a struct host_pool says below lives there. Functions named co_host_* are called on the
 *            host's loop, those that get a pool or a bar on the pool's.
 * Errors     0 or -errno with a sentence.
 * Ownership  a host owns its pools; host_pool pointers live until the pool is closed.
 */
#pragma once
#include "common/coroutine.h"
#include "nbd-server/nbd_server.h"
#include "server/access.h"
#include "server/state.h"
#include "vmm-glue/vhost-user/vhost_user.h"

#define FULL_NAME_MAX (3 * (POOL_NAME_MAX + 1) + 1) /* POOL/VOLUME@SNAPSHOT */

struct host_pool {
        struct list link;
        struct host *host;
        struct loop *loop; /* the pool's; with the two below it never changes */
        char name[POOL_NAME_MAX + 1];
        uint8_t uuid[16];
        atomic_uint n_subscribers; /* [any thread] */
        bool claimed; /* its state file says that this process serves it. The host's loop */

        /* the pool's loop */
        struct pool *pool;
        struct pool_state *state; /* as it was at open, with the paths found then */
        struct list exports;      /* that NBD clients have open */
        struct list bars;
        struct list openings;
        uint64_t full_logged_ns; /* 0: never */
        struct co_queue opened;  /* woken when an opening has ended, well or not, or an export */
        /* attach.h */
        struct vhost_server *vhost; /* NULL in a one-shot command */
        struct list attachments;
        unsigned n_attachments_ending;
        struct list imports;        /* that are under way: command_import.c */
        struct list image_bases;    /* image_base.h */
        struct co_mutex bases_lock; /* of commands that change one of them, and wait meanwhile */
};

/* An export that an NBD client has open. */
struct host_export {
        struct list link;
        struct host_pool *pool;
        struct volume *volume;
        bool to_use; /* false: it is only asked about, and will be closed at once */
        bool readonly;
        const struct nbd_client *client;
        char peer[128];
        char user[160]; /* "nbd unix pid 4711" */
};

/* While one stands, nobody can open the volume:
 * from the check that it is unused until it is gone. */
struct host_bar {
        struct list link;
        const char *volume;
};

/* An NBD client is opening the volume, or a snapshot of it: it began before any bar that stands. */
struct host_opening {
        struct list link;
        const char *target; /* VOL or VOL@SNAP */
};

struct host {
        struct loop *loop;
        struct list pools;
        unsigned n_pools;
        struct list subscribers;    /* events.h */
        struct nbd_server *nbd;     /* NULL in a one-shot command */
        struct access_list *access; /* NULL: whoever gets to the NBD server opens anything */
        const char *control_path;   /* NULL in a one-shot command */
        char **nbd_addresses;
        size_t n_nbd_addresses;
        char *vhost_folder;      /* a socket in it for each volume; NULL: none */
        gid_t vhost_group;       /* of sockets made here; (gid_t)-1: none */
        struct list image_files; /* image_file.h */
        int connector_fd;        /* connector.h; CONNECTOR_NONE in a one-shot command */
};

void host_init(struct host *host, struct loop *loop);

/* Lock the members, open the pool on @loop. On success *state is the host's and *state NULL. A
 * changed path is saved. @cancelled may be NULL. */
int co_host_open(struct host *host, struct loop *loop, struct pool_state **state,
                 const struct pool_options *options, unsigned wait_ms, const atomic_bool *cancelled,
                 struct host_pool **ret_pool, struct error *err);
/* The same of members that another process has open and locked; the descriptors are taken over also
 * on failure. */
struct host_members {
        const int *fds;
        const char *const *paths;
        size_t n;
};
int co_host_take(struct host *host, struct loop *loop, struct pool_state **state,
                 const struct pool_options *options, const struct host_members *members,
                 struct host_pool **ret_pool, struct error *err);
/* Checkpoint and close; gone whatever is returned. */
int co_host_close(struct host_pool *hp, struct error *err);
/* Close all; the first failure is returned. */
int co_host_close_all(struct host *host, struct error *err);

/* -ENOENT  no such pool is open here */
int host_find(struct host *host, const char *pool_name, struct host_pool **ret_pool,
              struct error *err);

/* Write down where the members are now. A failure is logged: the members can be searched for. */
void host_pool_save(struct host_pool *hp);

/* Open VOL or VOL@SNAP for a client.
 *
 * -EPERM  it is barred, before or while it is being opened */
int co_host_open_volume(struct host_pool *hp, const char *target, struct volume **ret_volume,
                        struct error *err);

/* What the NBD server asks. */
struct nbd_exports host_exports(struct host *host);

/* A volume was renamed: its NBD clients are shown, found and cut off by its new name, as the old
 * one may be another's soon. */
void co_host_renamed(struct host_pool *hp, const char *old_name, const char *new_name);

/* Wait until those are gone who had @target (VOL or VOL@SNAP), the volume or a snapshot of it, and have
 * hung up: whoever has seen them end may use it. A second at most. */
void co_host_await_leavers(struct host_pool *hp, const char *target);

/* Who uses @volume for writing, or has it open over vhost-user. As many names as fit, separated by ", ", into text; returns how
 * many there are. */
unsigned host_users(struct host_pool *hp, const char *volume, char *text, size_t size);
/* The same of those that may write to it. */
unsigned host_writers(struct host_pool *hp, const char *volume, char *text, size_t size);

/* Make sure that nobody writes to @volume, and that nobody begins to, until host_unbar(). With
 * @force NBD clients and front ends are cut off.
 *
 * -EBUSY  it is in use: the sentence names the users; or it is barred already */
int co_host_bar(struct host_bar *bar, struct host_pool *hp, const char *volume, const char *verb,
                bool force, struct error *err);
void host_unbar(struct host_bar *bar);
/* What whoever must not @verb a volume that @n @users have is told; 0 where there are none.
 *
 * -EBUSY */
int host_refuse_used(const struct host_pool *hp, const char *verb, const char *target, unsigned n,
                     const char *users, struct error *err);
bool host_is_barred(const struct host_pool *hp, const char *name); /* VOL or VOL@SNAP */
/* Is @name @volume, or a snapshot of it? */
bool host_name_is_of(const char *name, const char *volume);
