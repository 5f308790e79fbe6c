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

/* ---- a server that goes on in another process (attach_handover.c) ---- */

/* Begin to let the front ends' requests finish; then take all attachments of the pool into @h, with
 * their sockets and front ends. Their sockets stay where they are. */
void attach_save_begin(struct host_pool *hp);
json_t *co_attach_save(struct host_pool *hp, struct handover *h);
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
void attach_volume_resized(struct host_pool *hp, const char *volume);

/* Front ends of the volume itself: adds their names to @text, returns how many they are. */
unsigned attach_users(struct host_pool *hp, const char *volume, char *text, size_t size);
void co_attach_disconnect(struct host_pool *hp, const char *volume);
/* [{"path", "queues", "readonly", "remembered", "clients": [{"pid", ...}]}] of VOL. */
json_t *attach_json(struct host_pool *hp, const char *volume);
