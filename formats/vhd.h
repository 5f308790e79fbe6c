/* vhd.h - the parts of the VHD driver, to each other.
 *
 * Units      bytes.
 * Threads    the image's loop.
 * Errors     as image.h has them.
 * Ownership  a struct vhd is an image's state; image.h's close() releases it.
 */
#pragma once
#include "formats/blocks.h"
#include "formats/vhd_format.h"

/* Larger blocks than anybody makes (2 MiB): a bound on the memory for a block's bitmap. */
#define VHD_BLOCK_MAX (256u << 20)
/* Bitmaps of blocks that are kept; 4 MiB at most. */
#define VHD_BITMAPS 64u

struct vhd {
        struct vhd_footer_disk footer;
        uint64_t footer_offset;
        bool by_copy; /* the footer at the end is damaged, or not there */
        uint32_t type;
        uint64_t header_offset;
        struct vhd_header_disk header; /* of an image that is not fixed */
        uint32_t block_bytes, bitmap_bytes;
        struct block_table table;
        struct {
                uint32_t sector; /* where it lies, which says which block it is of */
                uint8_t *bits;   /* NULL: none */
        } bitmaps[VHD_BITMAPS];
        struct image *parent;
        struct block_writer writer; /* of an image that is being made */
        uint64_t next_block;        /* where the next one is placed */
};

bool vhd_probe(const struct image_sample *sample);
/* One's complement of the sum of bytes, with the checksum, at @at, counted as 0. */
uint32_t vhd_checksum(const void *data, size_t length, size_t at);
/* Find the footer, and say how large the disk is: virtual_bytes is set. */
int co_vhd_read_footer(struct image *image, struct vhd *vhd, struct error *err);
int co_vhd_read_header(struct image *image, struct vhd *vhd, struct error *err);
/* "Appendix: CHS Calculation": sectors that a geometry has for this many; rounded down. */
uint64_t vhd_geometry(uint64_t n_sectors, uint16_t *ret_cylinders, uint8_t *ret_heads,
                      uint8_t *ret_sectors_per_track);

int co_vhd_open_parent(struct image *image, struct vhd *vhd, const struct image_options *options,
                       struct error *err);

int co_vhd_check(struct image *image, struct image_check *check, struct error *err);
int co_vhd_create(struct image *image, const struct image_create_options *options,
                  struct error *err);
int co_vhd_write(struct image *image, const void *buffer, size_t length, uint64_t offset,
                 struct error *err);
int co_vhd_zero(struct image *image, uint64_t offset, uint64_t length, struct error *err);
int co_vhd_finish(struct image *image, struct error *err);
