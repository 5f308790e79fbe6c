/* nbd.h - exports of NBD servers as images, to read and to write, by libnbd.
 *
 * An export is taken as raw. Several requests are under way at once; what the server says of holes and
 * zeroes (base:allocation) is used. Where it says nothing, or writes no zeroes by itself, it costs
 * what it costs.
 *
 * Threads    as image.h: of the loop whose coroutine opened it.
 * Errors     0 or -errno with a sentence that names the export.
 * Ownership  as image.h; a target's descriptor stays the caller's, who may close it once the image is
 *            open.
 * Source     the NBD protocol (proto.md); libnbd(3).
 */
#pragma once
#include <stdatomic.h>
#include "common/list.h"
#include "formats/image.h"

struct nbd_target {
        const char *uri; /* for messages; and what is connected to where there is no descriptor */
        int fd;          /* a connected socket, without TLS; -1: by @uri */
        const char *export_name; /* with a descriptor */
        /* NULL, or true where nobody waits for it any more: then what is under way ends
         * (-ECANCELED). It is looked at as long as the image is open or, where @opened is not NULL,
         * until nbd_outlive(). */
        const atomic_bool *cancelled;
        struct list *opened; /* images get into it, and out of it as they are closed */
};

/* "nbd://", "nbd+unix://", "nbds://" and their like. */
bool nbd_is_uri(const char *word);

/* What the server offers of the export. */
struct nbd_offer {
        bool read_only, can_trim, can_zero, can_flush, can_fua, multi_conn, block_status, tls;
        uint64_t block_min, block_preferred, block_max; /* 0: not said */
};
struct nbd_offer nbd_offer(const struct image *image);

/* What the server has said of holes and zeroes is asked again: they may have been written to. */
void nbd_forget_map(struct image *image);

/* Whether its connection has ended: all that is asked of it fails. */
bool nbd_is_lost(const struct image *image);
/* End it: what is under way fails. */
void nbd_cut(struct image *image);

/* What is still in the list outlives who waited for it. */
void nbd_outlive(struct list *opened);

/* To read, or @write to write too: then it may hold anything, and all of it is to be written.
 *
 * -EACCES     to write, and the server does not let anybody
 * -EFBIG      larger than IMAGE_SIZE_MAX
 * -ETIMEDOUT  the server has said nothing for half a minute; so may every request end, but where one
 *             is under way to flush or to write zeroes, which takes as long as a disk takes */
int co_nbd_open(const struct nbd_target *target, bool write, struct image **ret_image,
                struct error *err);
