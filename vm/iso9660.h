/* iso9660.h - a few small files as an ISO 9660 image, with their names by Rock Ridge and Joliet.
 *
 * Why here: of Debian's libraries, libisofs is under the GPL, which tarn's own licence is not, and
 * libarchive puts the time of day into every image and what is in it into a file under /tmp on the
 * way. The same files must give the same bytes, as a VM's seed is made anew when the VM is restored.
 *
 * Units      bytes; sectors are ISO_SECTOR_SIZE.
 * Threads    [any thread]
 * Errors     0 or -errno with a sentence.
 * Ownership  everything stays the caller's.
 * Source     ECMA-119 (4th edition), cited by section; SUSP 1.12 and RRIP 1.10 (IEEE P1281, P1282
 *            drafts); the Joliet specification of 1995.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

#define ISO_SECTOR_SIZE 2048u
#define ISO_FILES_MAX   8u  /* their records fit one sector */
#define ISO_NAME_MAX    20u /* letters a to z, '-' */
#define ISO_LABEL_MAX   16u /* as Joliet's; lower case too, against ECMA-119, as everybody does */

struct iso_file {
        const char *name;
        const void *data;
        size_t length; /* less than 4 GiB together */
};

/* Append to @fd, which is empty, an image with @files in its root; they are sorted by name. How long
 * it is goes into ret_size_bytes. */
int iso_write(int fd, const char *label, const struct iso_file *files, size_t n_files,
              uint64_t *ret_size_bytes, struct error *err);
