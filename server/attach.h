/* attach.h - volumes offered over vhost-user: those attached by name, and those of a folder that has
 * a socket for each volume.
 *
 * An attachment by name is remembered in the pool's state file until it is detached, and comes back
 * with the next server, which makes the socket anew at the path that the file has. Attachments of
 * the folder follow the volumes: they are made, renamed and deleted with them, and not remembered.
 *
 * Units      none.
 * Threads    the pool's loop, on which its devices live; co_attach_start() and co_attach_stop() are
 *            for the host's.
 * Errors     0 or -errno with a sentence.
 * Ownership  a pool owns its attachments.
 */
#pragma once
#include <jansson.h>

#include "server/handover.h"
#include "server/host.h"

#define ATTACH_QUEUES_DEFAULT VHOST_QUEUES_MAX

/* Begin to serve: offer what is remembered and what the folder is to have. A
 * single attachment that fails is logged; -errno: the folder cannot be made. */
int co_attach_start(struct host *host, struct error *err);
/* Hang up on all front ends, after what is in flight, and take away the sockets that were made here.
 * What is remembered stays so. */
void co_attach_stop(struct host *host);

/* The sockets that are this server's to remove. */
void attach_each_socket(struct host_pool *hp, void (*each)(const char *path, void *arg), void *arg);

/* ---- a server that goes on in another process (attach_handover.c) ---- */

/* While all still runs: the attachments of the pool, with their sockets, which are in @h then. NULL: no
 * memory, or no descriptors. They stay what they are until they are saved. */
json_t *attach_prepare(struct host_pool *hp, struct handover *h);
/* Begin to let the front ends' requests finish; then add the front ends to what attach_prepare()
 * made, which is still there, and to @h, and end the attachments here. Their sockets stay where they are.
 *
 * -ENOMEM  some front ends are lost, and have seen their connection end; all else is there */
void attach_save_begin(struct host_pool *hp);
int co_attach_save(struct host_pool *hp, struct handover *h, struct error *err);
/* Make them anew, in place of co_attach_start(). Until attach_go() nothing of them runs.
 *
 * A front end that alone is to blame is hung up on, and the log says why; any other failure is
 * returned. */
int co_attach_restore(struct host_pool *hp, struct handover *h, const json_t *attachments,
                      struct error *err);
void attach_go(struct host_pool *hp);

/* Offer @target (VOL or VOL@SNAP) on @fd, which listens at @path and is borrowed, and remember it.
 *
 * -ENOENT     there is no such volume
 * -EEXIST     it is attached
 * -ENOTCONN   nobody serves: this is a one-shot command */
int co_attach(struct host_pool *hp, const struct state_attachment *wanted, int fd,
              struct error *err);
/* The same for a virtual machine that is about to connect, and not remembered: it ends by itself when
 * the front end has gone, or none has come in ten seconds. Its socket is for who made it to remove.
 *
 * A machine comes back for a disk by its name, and says by the identity that it was told the first time
 * what it had then: its guest cannot go on with anything else.
 *
 * -EBUSY   somebody else uses the volume, and @wanted is not read-only
 * -ESTALE  the name is another volume's by now, or what the volume held was replaced */
#define ATTACH_IDENTITY_SIZE 64u
struct attach_passing {
        struct state_attachment wanted;
        char serial[VHOST_SERIAL_MAX + 1]; /* empty: from the volume's name */
        char machine[POOL_NAME_MAX + 1];   /* its name, for sentences; empty: not known */
        /* Going in what it must have, empty: any; coming out what it has. */
        char identity[ATTACH_IDENTITY_SIZE];
};
int co_attach_passing(struct host_pool *hp, struct attach_passing *passing, int fd,
                      struct error *err);
/* -EBUSY  @volume, or a snapshot of it, is attached so */
int attach_check_rename(const struct host_pool *hp, const char *volume, struct error *err);
/* Whether there are such attachments, or any front end. */
bool attach_is_used(struct host_pool *hp);

/* End it, and forget it. ret_path has the place of its socket.
 *
 * -ENOENT  it is not attached
 * -EBUSY   a front end is connected, and @force is false */
int co_detach(struct host_pool *hp, const char *target, bool force, char **ret_path,
              struct error *err);

/* What happened to volumes, and what follows from it here and in the state file. */
void attach_volume_made(struct host_pool *hp, const char *volume);
void attach_volume_renamed(struct host_pool *hp, const char *volume, const char *new_name);
/* @target is VOL (with its snapshots) or VOL@SNAP. */
void co_attach_volume_gone(struct host_pool *hp, const char *target);
/* -EBUSY  front ends are connected that this would cut off */
int co_attach_refuse_gone(struct host_pool *hp, const char *target, struct error *err);
void attach_volume_resized(struct host_pool *hp, const char *volume);

/* Front ends of the volume itself, with @writers only those that may write: adds their names to @text,
 * returns how many they are. */
unsigned attach_users(struct host_pool *hp, const char *volume, bool writers, char *text,
                      size_t size);
void co_attach_disconnect(struct host_pool *hp, const char *volume);
/* Has one of those of the volume, or of a snapshot of it, hung up? */
bool attach_is_left(struct host_pool *hp, const char *volume);
/* [{"path", "queues", "readonly", "machine", "remembered", "clients": [{"pid", ...}]}] of VOL. */
json_t *attach_json(struct host_pool *hp, const char *volume);
/* The virtual machines of tarn's own VMM that have disks of the pool: ["web"]. New. */
json_t *attach_machines_json(struct host_pool *hp);
