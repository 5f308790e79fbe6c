/* image_base.h - the images that volumes stand on: found again, recognised, read, copied in the
 * background.
 *
 * What pool/base.h keeps as a description is a JSON text:
 *
 *     {"path", "format", "backing_format", "snapshot", "size", "mtime", "identity", "sample",
 *      "bandwidth"}
 *
 * path is absolute, or an NBD URI. size, mtime and identity (of all files that the image consists of:
 * their sizes, times of change and beginnings) tell whether it is still what it was: an image that was
 * changed is not read. An export (format "nbd") has no time of change: it is told by its size and its
 * sample, a sum of the size that a guest sees, the first 64 KiB, the last 4 KiB and 15 times 4 KiB
 * between. By the sample an image is known when it is elsewhere, whatever its format. bandwidth is there
 * where it is to be copied: bytes a second, 0: as fast as it goes.
 *
 * Units      bytes.
 * Threads    the pool's loop.
 * Errors     0 or -errno with a sentence.
 * Ownership  a pool's bases are its own, from opening to closing; the files are the host's (image_file.h),
 *            so that a server that has given its paths up and gets a pool back can still read them.
 */
#pragma once
#include "server/command.h"

/* After opening: attach the images that can be found and are what they were. The pool is open without
 * the others: who needs them is told why, by the functions below. */
void co_image_bases_open(struct host_pool *hp);
/* By a server that may write: copying begins, or goes on. What is wrong with images is logged. */
void co_image_bases_go(struct host_pool *hp);
/* Before closing. */
void co_image_bases_close(struct host_pool *hp);
/* Close what no volume needs any more. */
void co_image_bases_tidy(struct host_pool *hp);

/* An image came along with the request, as image_request.h says, by its absolute path: make @volume on
 * it. @size 0: as large as the image. */
int co_image_base_create(struct command *c, const char *volume, uint64_t size, uint64_t *ret_size,
                         struct error *err);

/* The base that a volume stands on; 0: none. */
int co_image_base_of(struct host_pool *hp, const char *volume, uint64_t *ret_id, struct error *err);
/* What volume-show tells of a volume's base; NULL: it has none. */
json_t *co_image_base_json(struct host_pool *hp, uint64_t base_id);
/* -EIO and why, where a volume on this base cannot be read: its image is needed, and not there. */
int co_image_base_check(struct host_pool *hp, const struct volume *volume, struct error *err);
/* Reading it ended with @r: where the image is why, *err says so instead. @r is returned. */
int image_base_explain(struct host_pool *hp, const struct volume *volume, int r, struct error *err);

/* volume-rebase: an image of the same content came along, and is the base from now on. */
co_command co_volume_rebase;
/* volume-hydrate: copy the image's data, in the background of a server, or here and now. */
co_command co_volume_hydrate;
