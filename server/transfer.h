/* transfer.h - copying a disk's content: from an image or a volume into a new one.
 *
 * Several coroutines read at a time. What is written follows the contract of image.h: whole units,
 * each place once, calls that begin in ascending order and may overlap in time. Zeroes are passed
 * on as such, where the source says so and where they are found by looking.
 *
 * Units      bytes.
 * Threads    coroutines of the loop that images and volumes belong to.
 * Errors     0 or -errno with a sentence that names the image or the volume, and the offset.
 * Ownership  images and volumes stay the caller's.
 */
#pragma once
#include <stdatomic.h>

#include "formats/image.h"
#include "pool/pool.h"

/* One side of it: an image, or a volume. */
struct transfer_side {
        struct image *image;
        struct volume *volume;
        const char *pool; /* of the volume, for messages */
        const char *name; /* likewise; NULL: as the volume is called */
        bool over; /* to a volume that holds something: what is the same already is not written */
        struct verify *verify; /* set by co_verify(): what would be written is compared with it */
};

struct transfer_watch {
        /* Now and then; may be NULL. */
        void (*progress)(struct transfer_watch *watch, uint64_t done, uint64_t total);
        const atomic_bool *cancelled; /* may be NULL; true: -ECANCELED */
        bool verifying;               /* progress is of co_verify() (verify.h), which sets it */
};

/* All of @from goes into @to, which is at least as large, and new: it reads as zeroes (a block device
 * that is an image may hold anything), but for a volume that is copied over. What is beyond @from is zero. Durable and whole on return.
 *
 * -ECANCELED  so watch->cancelled says
 * -EFBIG      @to is smaller */
int co_transfer(struct transfer_side from, struct transfer_side to, struct transfer_watch *watch,
                struct error *err);
