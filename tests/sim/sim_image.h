/* sim_image.h - what lies on a simulated disk: sparse, and cloned in no time.
 *
 * A tree of reference-counted nodes with 4 KiB pages at the bottom. A clone shares everything with
 * its original; whichever is written copies the path to the page it changes. A page of zeroes is
 * never kept, so that equal contents are equal trees and have equal hashes.
 *
 * Units      bytes; any offset and length inside the image.
 * Threads    an image and all its clones belong to one thread.
 * Errors     none, but of sim_image_save().
 * Memory     what cannot be allocated ends the program: a simulation without memory has nothing to
 *            tell.
 * Ownership  each image and each clone is released with sim_image_free().
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

#define SIM_PAGE 4096u

struct sim_image;

/* All zeroes; @size_bytes is a multiple of SIM_PAGE. */
struct sim_image *sim_image_new(uint64_t size_bytes);
struct sim_image *sim_image_clone(const struct sim_image *image);
void sim_image_free(struct sim_image *image); /* NULL is fine */

uint64_t sim_image_size(const struct sim_image *image);
/* Bytes in pages that are not all zeroes; walks the image. */
uint64_t sim_image_used(const struct sim_image *image);

void sim_image_read(const struct sim_image *image, uint64_t offset, void *buffer, size_t length);
void sim_image_write(struct sim_image *image, uint64_t offset, const void *data, size_t length);
void sim_image_zero(struct sim_image *image, uint64_t offset, uint64_t length);

/* Of the content: equal contents have equal hashes, and different ones differ but for one chance in
 * 2^64. What did not change since the last call is not read again. */
uint64_t sim_image_hash(struct sim_image *image);

/* Write the image into a sparse file, to be looked at with other tools. 0 or -errno. */
int sim_image_save(const struct sim_image *image, const char *path);
