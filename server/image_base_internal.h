/* image_base_internal.h - between the files of image_base. */
#pragma once
#include "formats/image.h"
#include "pool/base.h"
#include "server/image_base.h"
#include "server/image_file.h"
#include "server/image_request.h"

/* What tells an image: of the image itself its size and time of change; of all its files a CRC of these
 * and their beginnings. A block device has no time of change that tells anything: its node is made anew
 * with each boot, and may be called as another was. */
struct image_identity {
        uint64_t size;
        int64_t mtime_ns; /* of a block device: 0 */
        uint32_t crc;
        uint32_t
            sample; /* of what a guest sees; of an image that came along, or is on a block device */
        bool is_block_device;
};

/* A file that an open image consists of, as it was found and is to stay. */
struct image_part {
        struct list link; /* in b->parts, the image itself first */
        struct image_file *file;
        char *path;
        int fd;
        bool is_file; /* a block device has no time of change */
        uint64_t size_bytes;
        int64_t mtime_ns;
};

struct base_opener {
        struct image_opener opener;
        struct host *host;
        struct image_request *request; /* while it runs: descriptors come along with it */
        struct image_identity *identity;
};

/* A base of an open pool. */
struct image_base {
        struct list link; /* in hp->image_bases */
        struct host_pool *hp;
        uint64_t id;
        uint64_t base_bytes;
        json_t *about;     /* the description */
        bool complete;     /* all is in the pool: no image */
        char problem[512]; /* why there is no image, or why it is not copied; empty: none */
        bool unreadable;   /* as the last read of the image saw, and problem says why */

        /* the image; NULL: none */
        struct image *image;
        int fd;
        struct list parts;
        struct base_opener opener;
        struct offload *offload;
        struct co_queue idle; /* n_busy became 0 */
        struct pool_image reader;
        bool attached;
        bool is_kept; /* the pool may be opened again: so are its files */
        unsigned
            n_busy; /* it is being made, replaced, or made a volume on: nobody else is to forget it */
        unsigned n_reads;
        struct co_queue unread; /* n_reads became 0 */

        /* image_base_copy.c's */
        bool copying, stop;
        uint64_t next; /* below it all is in the pool */
        struct co_queue stopped;
};

/* ---- image_base_open.c ---- */

/* Open a file, and what belongs to it: from @request, or, NULL, from what the host has kept, or by path. */
int co_image_base_open_file(struct image_base *b, struct image_request *request, const char *path,
                            const struct image_options *how, struct image_identity *identity,
                            struct error *err);
/* What @request has brought: a file or an export. */
int co_image_base_open_request(struct image_base *b, struct image_request *request,
                               struct image_identity *identity, struct error *err);
/* An export that has to be as @identity says. @connection may be NULL, and is taken over. */
int image_base_remote(struct image_base *b, const char *uri, const struct image_identity *identity,
                      struct image *connection, struct error *err);
/* Remember it, and log it where it is another than before. */
void image_base_problem(struct image_base *b, const struct error *e);

/* ---- image_base.c ---- */

/* In the pool's list; without an image. */
struct image_base *image_base_new(struct host_pool *hp);
/* It is read from now on, in place of @was, which may be NULL. */
int image_base_attach(struct image_base *b, struct image_base *was, struct error *err);
bool image_base_is_as_it_was(const struct image_base *b, const struct image_identity *now);
void co_image_base_forget(struct image_base *b);
/* The image is not read any more. */
void co_image_base_close(struct image_base *b);
struct image_base *image_base_find(struct host_pool *hp, uint64_t id);

/* ---- image_base_part.c ---- */

/* One of the image's files, the first being itself. On success @file is the part's.
 *
 * -EBUSY  it is locked against readers, as a pool's member is */
int image_part_add(struct image_base *b, int fd, const char *path, struct image_file *file,
                   struct image_identity *identity, struct error *err);
void image_parts_close(struct image_base *b);
/* -ESTALE: a file was changed under us */
int image_base_unchanged(struct image_base *b, struct error *err);

/* ---- image_base_nbd.c ---- */

/* Of what a guest sees: its size, its beginning, its end, and places between. */
int co_image_sample(struct image *image, uint32_t *ret_crc, struct error *err);

struct remote_options {
        struct host *host;
        const char *uri;
        uint64_t size_bytes;      /* that it has to have, as well as */
        uint32_t sample;          /* co_image_sample()'s */
        struct image *connection; /* co_nbd_open()'s, taken over on success; NULL: none yet */
        /* An attempt to connect has failed, or, NULL, has not. */
        void (*tell)(void *arg, const struct error *problem);
        void *arg;
};
/* An image that connects when it is read, and again when the connection is lost. */
int remote_image_new(const struct remote_options *options, struct image **ret_image,
                     struct error *err);
bool image_is_remote(const struct image *image);
/* Connect in the background, before it is read. */
void remote_go(struct image *image);
/* Why it cannot be read: by a server, as far as it is known; by a command, which connects for that. */
int co_remote_check(struct image *image, struct error *err);
bool remote_may_come_back(const struct image *image);
/* What is under way fails, and nothing is begun: before image_close(). */
void co_remote_stop(struct image *image);

/* ---- image_base_make.c ---- */

/* Write the description anew. */
int co_image_base_save(struct image_base *b, struct error *err);

/* ---- image_base_copy.c ---- */

/* Copying. 0: it has begun, or is under way */
int image_base_copy_start(struct image_base *b, struct error *err);
void co_image_base_copy_stop(struct image_base *b);
/* Here, to the end. */
int co_image_base_copy_all(struct image_base *b, struct command *c, struct error *err);
