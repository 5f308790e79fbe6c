/* image_request.h - what requests about image files have in common.
 *
 * The image's own descriptor is the first of the request; those that follow are the other files that
 * it needs, which whoever asks has opened, and which "files" names in the same order. The server
 * opens none itself.
 *
 * Threads    coroutines of the pool's loop.
 * Errors     0 or -errno with a sentence.
 * Ownership  image_request_init() is followed by image_request_end(), before the loop is freed.
 */
#pragma once
#include "formats/image.h"
#include "server/command.h"
#include "server/transfer.h"

struct image_request {
        const struct command *command;
        const char *path; /* of the image, for messages */
        struct image_opener opener;
        struct transfer_watch watch;
        struct offload *offload;
        struct image **exports; /* of "files", those that were opened; NULL: none was yet */
        struct list opened; /* exports: what waits for their servers ends with who asked (nbd.h) */
        size_t n_states, n_done; /* copied one after the other, and so far: for progress */
};

/* -EINVAL  there are not as many descriptors as names */
int image_request_init(struct image_request *q, const struct command *c, struct error *err);
void image_request_end(struct image_request *q);

/* An optional text of the request. */
const char *image_request_text(const struct image_request *q, const char *key);
/* Of a file, as the request says. */
struct image_options image_request_options(struct image_request *q);
/* The image that the request is about: a file, "length" bytes of one from "offset" on, or an export of
 * an NBD server, to which its first descriptor is connected then and which "export" names. @snapshot:
 * one inside of it; NULL: none. */
int co_image_request_open(struct image_request *q, const char *snapshot, struct image **ret_image,
                          struct error *err);
/* To be written. */
int co_image_request_create(struct image_request *q, const struct image_create_options *options,
                            struct image **ret_image, struct error *err);
