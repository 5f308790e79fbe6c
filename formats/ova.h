/* ova.h - OVA files: a virtual machine's descriptor and its disks in a tar archive; or that descriptor
 * as a file, an OVF, and its disks beside it.
 *
 * Source: DMTF DSP0243 1.1.1 and 2.1.1: section 5 (packages, the manifest).
 *
 * Units      bytes.
 * Threads    the loop whose coroutine opened it; co_* functions suspend. Digests are made in the
 *            offload's threads.
 * Errors     0 or -errno with a sentence that names the file.
 * Trust      nothing in the file is trusted: sizes have ceilings, members lie inside of the file, and
 *            no name in an archive is ever opened as a path. Those in an OVF go through the opener.
 * Ownership  descriptors stay the caller's and must outlive what was opened of them. Release with
 *            ova_close().
 */
#pragma once
#include <stdatomic.h>
#include "formats/image.h"
#include "formats/ovf.h"
#include "formats/tar.h"

struct ova {
        char *path;
        int fd;
        struct offload *offload;
        struct image_opener *opener;
        bool is_archive;       /* else an OVF */
        struct tar_list files; /* of an archive */
        char *descriptor;      /* name of its file */
        char *manifest;        /* NULL: none */
        struct ovf_machine machine;
};

/* Where one of its files is: a range of a descriptor. Release with ova_place_clear(). */
struct ova_place {
        int fd;
        bool is_ours; /* the descriptor: it is closed with this */
        char *path;   /* for messages */
        uint64_t offset, length;
};

/* Of work on all of it. */
struct ova_watch {
        /* Now and then; may be NULL. */
        void (*progress)(void *arg, uint64_t done, uint64_t total);
        void *arg;
        const atomic_bool *cancelled; /* may be NULL; true: -ECANCELED */
};

/* Whether a file that co_image_probe() finds this in may be an OVA or an OVF. */
bool ova_is_probed(const struct image_driver *driver);

/* Open the OVA, or the OVF, @fd and read its descriptor, whose digest is compared where there is a
 * manifest. Every disk's file is known to be there, but for an OVF without an opener, of which nothing
 * else is looked for.
 *
 * -EBADMSG  the archive, the descriptor or the manifest breaks its rules, or a digest is another one
 * -ENOTSUP  something is not read here: named */
int co_ova_open(int fd, const char *path, struct offload *offload, struct image_opener *opener,
                struct ova **ret_ova, struct error *err);
void ova_close(struct ova *ova); /* NULL is fine */

/* Compare the digests of all files that the manifest names: reads all of them.
 *
 * -ENOENT   there is no manifest, and nothing that could be compared
 * -EBADMSG  one is another one, or the manifest names a file that is not there */
int co_ova_verify(struct ova *ova, struct ova_watch *watch, struct error *err);

/* Where the file of machine.disks[@i] is.
 *
 * -ENOENT   an empty disk, which has none
 * -ENOTSUP  its file is compressed or in several pieces */
int ova_disk_place(struct ova *ova, size_t i, struct ova_place *ret_place, struct error *err);
void ova_place_clear(struct ova_place *place);

/* Open the image of machine.disks[@i] in its place. It has no permission to open other files. To be
 * closed before the OVA. Errors are those of ova_disk_place() and of co_image_open(). */
int co_ova_open_disk(struct ova *ova, size_t i, struct image **ret_image, struct error *err);

/* Write an OVA of @machine to the empty file @fd: the descriptor, a manifest with SHA-256, the disks'
 * files. Of each disk, @disk_fds[i] is a stream-optimized VMDK; file, id and capacity_bytes of the
 * machine's disks are set by this call, the controller counts. Durable when it returns 0; until then
 * the file is no archive. @watch may be NULL.
 *
 * -EINVAL   no name, no processors, no memory, more disks than a controller has, no such VMDK */
int co_ova_write(int fd, const char *path, const struct ovf_machine *machine, const int *disk_fds,
                 struct offload *offload, struct ova_watch *watch, struct error *err);

/* -ECANCELED  so the watch says, which is told of the progress else; NULL is fine */
int ova_watch_look(struct ova_watch *watch, uint64_t done, uint64_t total, struct error *err);

/* ---- digests of a range of a file, in small letters (ova_digest.c) ---- */

#define OVA_DIGEST_TEXT 65u /* SHA-256's, with a NUL */

enum ova_digest { OVA_SHA1, OVA_SHA256 };

struct ova_hash;
int ova_hash_new(enum ova_digest digest, struct ova_hash **ret, struct error *err);
void co_ova_hash_add(struct ova_hash *hash, struct offload *offload, const void *data,
                     size_t length);
/* Releases it; @text NULL: only that. */
void ova_hash_end(struct ova_hash *hash, char text[OVA_DIGEST_TEXT]);
