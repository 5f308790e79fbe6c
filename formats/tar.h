/* tar.h - tar archives: what is in one and where, and headers for writing one.
 *
 * Members are read in place, as ranges of the archive; that is why this is not a library's business,
 * which would hand out copies. Sources: POSIX.1-2017, pax ("ustar Interchange Format", "pax Extended
 * Header"); GNU tar's long names and its numbers in base 256.
 *
 * Units      bytes.
 * Threads    the archive's loop; co_* functions suspend.
 * Errors     0 or -errno with a sentence that names the archive and the offset.
 * Ownership  release a list with tar_list_clear(), also after a failure.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include "common/error.h"
#include "formats/image.h"

#define TAR_BLOCK       512u
#define TAR_MEMBERS_MAX 4096u
#define TAR_NAME_MAX    4096u

struct tar_member {
        char *name;
        uint64_t offset, length; /* of its content, in the archive */
};

struct tar_list {
        struct tar_member *members;
        size_t n;
};

/* The regular files in @archive, which is open as raw; other kinds are passed over.
 *
 * -EBADMSG  a header breaks the rules, or a member is not whole */
int co_tar_list(struct image *archive, struct tar_list *list, struct error *err);
void tar_list_clear(struct tar_list *list);
/* A name counts with and without "./" in front. NULL: there is none. */
const struct tar_member *tar_find(const struct tar_list *list, const char *name);

/* A header of a regular file, mode 0644. @name has at most 100 bytes. */
void tar_header(uint8_t header[TAR_BLOCK], const char *name, uint64_t length, uint64_t mtime_s);
