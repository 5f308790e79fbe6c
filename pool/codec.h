/* codec.h - what lies on the members, as structures of this host: superblocks, labels, records of slabs
 * and roots. codec.c alone reads and writes the structs of format.h.
 *
 * Units      as engine.h's.
 * Threads    the pool's loop.
 * Errors     0 or -errno; a field out of its limits is -EUCLEAN, with a sentence.
 * Ownership  a struct super's arrays are its own: super_free().
 */
#pragma once
#include "pool/engine.h"

/* ---- codec.c: the only reader and writer of on-disk structs ---- */

struct super_member {
        uint8_t uuid[16];
        uint32_t index, state;
        uint64_t size_bytes;
};
struct super {
        uint64_t generation, epoch, incompat, ro_compat, compat;
        uint8_t pool_uuid[16];
        char name[POOL_NAME_MAX + 1];
        int64_t created_ns;
        uint32_t layout, stripe_blocks, slab_blocks, n_slabs;
        uint32_t log_pages, log_chain, catalog_height;
        uint64_t log_incarnation, log_start;
        struct entry catalog;
        uint64_t next_root_id, next_record;
        struct super_member *member;
        uint32_t n_members;
        struct slab_extent *index;
        uint32_t n_index;
};
void super_free(struct super *super);
/* A malloc'ed, aligned image, ready to be written. */
int super_encode(const struct super *super, void **ret_image, size_t *ret_length);
/* -ENODATA  no superblock here
 * -EUCLEAN  damaged
 * -ENOTSUP  newer or unknown feature */
int super_decode(const void *image, size_t length, struct super *ret_super, struct error *err);
/* The length that the first page claims, or 0. */
size_t super_peek_length(const void *first_page);
uint64_t super_peek_generation(const void *first_page); /* the same, unchecked */

struct label {
        uint8_t pool_uuid[16], member_uuid[16];
        char pool_name[POOL_NAME_MAX + 1];
        uint32_t index;
        uint64_t ro_compat;
        uint64_t size_bytes;
        int64_t created_ns;
};
void label_encode(const struct label *label, void *page);
int label_decode(const void *page, struct label *ret_label, struct error *err);

void slab_encode(const struct slab *slab, struct slab_disk *disk);
/* -EUCLEAN and a sentence where a field is out of its limits;
 * @n_disks and slab_blocks bound them. */
int slab_decode(const struct slab_disk *disk, size_t n_disks, uint32_t slab_blocks,
                struct slab *slab, struct error *err);
void extent_encode(const struct slab_extent *extent, struct extent_disk *disk);
int extent_decode(const struct extent_disk *disk, size_t n_disks, struct slab_extent *extent,
                  struct error *err);

void index_encode(const struct root *root, struct index_disk *disk);
struct index {
        char name[POOL_NAME_MAX + 1];
        uint64_t id, volume_id, parent_id, epoch;
        uint64_t base_id;
        uint8_t state;
        bool shrinking, complete;
};
int index_decode(const struct index_disk *disk, struct index *ret_index, struct error *err);
/* @more: the first bucket page, absent where the inline ones are all. */
void root_encode(const struct root *root, const struct entry *more, void *page);
/* Fills body but for buckets beyond the inline ones, whose number and place are returned. */
int root_decode(const void *page, uint64_t id, struct root_body *body, size_t *ret_n_buckets,
                struct entry *ret_more, struct error *err);
void bucket_encode(const struct bucket *bucket, struct bucket_disk *disk);
int bucket_decode(const struct bucket_disk *disk, struct bucket *bucket);

/* ---- super.c: labels and superblocks on members ---- */

int co_label_write(struct member *m, const struct label *label, struct error *err);
int co_label_read(struct member *m, struct label *ret_label, struct error *err);
/* Newest valid superblock on either end. @ret_n_ends (may be NULL): how many ends hold it.
 *
 * -EIO      some place of one cannot be read, and no other holds one
 * -ENODATA  all places could be read, and none holds one */
int co_super_read(struct member *m, struct super *ret_super, unsigned *ret_n_ends,
                  struct error *err);
/* To both ends of every member, flushed before and after by the caller. */
int co_super_write_all(struct pool *pool, const struct super *super, struct error *err);
/* What is left of a superblock of @generation that was never committed goes;
 * flushed by the caller. */
int co_super_forget(struct pool *pool, uint64_t generation, struct error *err);
/* The same for the members [from, to) only. */
int co_super_write(struct pool *pool, const struct super *super, size_t from, size_t to,
                   struct error *err);
