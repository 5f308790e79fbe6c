/* check.h - between the check_*.c files: one walk over everything that a pool holds, as of one cut.
 *
 * A check trusts nothing but the cut: it reads each copy of each structure from its member, past
 * the cache, and claims each block that something names in a map of references; what is claimed
 * twice, claimed and free, or live and never claimed is a finding. Roots are walked parents first,
 * each beside its parent: what the two share is walked once, and what the child no longer has must
 * be what its deadlist names. */
#pragma once
#include "pool/engine.h"

#define CHECK_WINDOW 32u /* blocks of metadata read at once */
#define NO_BLOCK     UINT64_MAX

/* A root as of the cut. */
struct check_root {
        uint64_t id, volume_id, epoch;
        uint32_t name_crc;
        uint32_t slot;
        uint8_t state;
        bool shrinking, complete;
        uint64_t base_id;
        struct check_root *parent; /* comes before it in the order of the walk */
        uint32_t parent_slot;
        bool newer; /* memory is newer than the disk: a log replayed in a pool open read-only */
        struct entry block; /* its block in the catalog; absent: none was found */
        struct tree map;
        uint64_t data_blocks; /* counted */
        bool exact;           /* all of it and of its ancestors could be read */
};

struct check_queued {
        uint64_t address, block;
        const struct check_root *root;
        uint32_t crc;
};

struct check {
        struct pool *pool;
        const struct pool_check_callbacks *callbacks;
        bool read_data;
        bool memory; /* nothing was committed: what is newer than the last cut is in the cache */
        bool incomplete; /* something could not be read: what belongs to nothing is not known */
        uint64_t n_findings;
        uint64_t done, total, shown; /* blocks */
        /* as of the cut */
        uint64_t generation, epoch, last_cut_epoch;
        size_t n_disks;
        uint32_t n_slabs, n_table, n_index;
        uint32_t n_slabs_on_disk, n_table_on_disk, n_index_on_disk;
        struct entry catalog;
        uint64_t *live, *refs; /* a bit a pool address */
        struct check_root *root;
        size_t n_roots;
        struct check_root **slot;
        uint32_t n_slots;
        /* data to be read */
        struct check_queued *queued;
        size_t n_queued, queue_room;
        char *buffer;
};

/* ---- findings (check.c) ---- */

/* What a block is, for sentences: "WHAT of volume 'x' at offset N". */
struct check_place {
        const char *what;
        const struct check_root *root; /* NULL: of none */
        uint64_t block;                /* NO_BLOCK: of none */
};
struct check_text {
        char s[320];
};
struct check_text check_place_text(const struct check *c, const struct check_place *place);
/* "member 'x' at byte N (slab S, block B)" */
struct check_text check_address_text(const struct check *c, uint64_t address, unsigned leg);
void check_finding(struct check *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
void check_progress(struct check *c, uint64_t blocks);
/* -EAGAIN where a writer needs the space that is held. */
int check_disturbed(const struct check *c);

/* ---- blocks (check_block.c) ---- */

/* Something names the block: false, and a finding, where it cannot be that (no such slab, or
 * claimed before). */
bool check_claim(struct check *c, uint64_t address, enum slab_kind kind,
                 const struct check_place *place);
bool check_is_claimed(const struct check *c, uint64_t address);
bool check_is_live(const struct check *c, uint64_t address);
void check_leaks(struct check *c);

struct check_read {
        struct entry e;
        struct check_place place;
        bool quiet; /* one good copy will do, and bad ones are somebody else's finding */
        void *page;
        bool good;
};
/* Every copy of each; page holds a good one. Fails only for want of memory. */
int co_check_reads(struct check *c, struct check_read *reads, size_t n);
int co_check_read(struct check *c, struct check_read *read);

/* ---- the parts ---- */

int co_check_table(struct check *c);     /* check_table.c: labels, superblocks, slab table, maps */
void check_table_claim(struct check *c); /* the blocks that the table takes for itself */
int check_roots_copy(struct check *c);   /* [sync] check_roots.c */
int co_check_catalog(struct check *c);   /* the tree, index blocks, where root blocks are */
int co_check_roots(struct check *c);     /* each root: body, map, deadlist */

/* check_list.c. @ancestor: epochs of the ancestors, ascending. */
struct check_list {
        uint64_t n_blocks, sum;
        bool exact;
};
int co_check_buckets(struct check *c, struct check_root *root, struct root_body *body, size_t n,
                     struct entry more, bool *ret_good);
int co_check_deadlist(struct check *c, const struct check_root *root, const struct root_body *body,
                      const uint64_t *ancestor, size_t n_ancestors, struct check_list *ret_list);

/* check_tree.c */
struct check_walk {
        struct check *c;
        struct check_root *root; /* NULL: the catalog */
        uint64_t threshold;      /* births above are the root's own */
        uint64_t newest;         /* no birth is above */
        uint64_t end_block;      /* nothing lies at or behind it */
        uint64_t cursor;         /* an orphan's: what lies below is freed */
        bool exact;
        uint64_t n_data, n_nodes;               /* own */
        uint64_t n_dead_data, n_dead, sum_dead; /* what the parent has and the root has not */
        int (*co_block)(struct check_walk *w, const struct entry *e, uint64_t block); /* catalog */
};
int co_check_tree(struct check_walk *w, const struct tree *tree);
/* Of a set of blocks, whatever their order. */
uint64_t check_mix(const struct entry *e);

/* check_data.c */
int co_check_data(struct check *c, const struct check_root *root, uint64_t block,
                  const struct entry *e);
int co_check_data_flush(struct check *c);
