/* engine.h - the engine's inside: structures that the files of this folder share. Nobody else
 * includes it.
 *
 * Units      addresses and counts of space are blocks of 4096 bytes; offsets on members, and what
 *            is called _bytes, are bytes.
 * Threads    one loop, no locks. What must not be interleaved runs without suspending: [sync] marks
 *            it.
 * Errors     0 or -errno. What was damaged on disk is -EUCLEAN or -EIO; what fails with writes half
 *            done stops the pool (pool_fail).
 * Ownership  all of it is the pool's. Nodes are pinned while they are used.
 * Numbers    README.md lists the invariants; comments cite them as [I1] and so on.
 */
#pragma once
#include <assert.h>
#include "common/coroutine.h"
#include "common/crc32c.h"
#include "common/error.h"
#include "common/list.h"
#include "common/log.h"
#include "common/loop.h"
#include "pool/format.h"
#include "pool/pool.h"

struct super;

#define BLOCK       POOL_BLOCK
#define BLOCK_SHIFT 12

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
        return a < b ? a : b;
}
static inline bool bytes_are_zero(const char *data, uint64_t length)
{
        return length == 0 || (data[0] == 0 && memcmp(data, data + 1, length - 1) == 0);
}
static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
        return a > b ? a : b;
}

/* ---- map entries ---- */

struct entry {
        uint64_t address; /* pool block */
        uint64_t birth;
        uint32_t crc;
        uint8_t type; /* enum entry_type, or what the disk holds */
};
static inline struct entry entry_get(const struct entry_disk *disk)
{
        uint64_t word = le64_get(disk->word);
        return (struct entry){
            .address = word & ADDRESS_MAX,
            /* an entry with a flag, and none is defined, is of no type that is known */
            .type = (word >> 48) & 0xff ? 0xff : (word >> 44) & 0xf,
            .birth = (word >> 56) | (uint64_t)le32_get(disk->birth_high) << 8,
            .crc = le32_get(disk->crc32c),
        };
}
static inline void entry_put(struct entry_disk *disk, const struct entry *e)
{
        assert(e->address <= ADDRESS_MAX && e->birth <= BIRTH_MAX && e->type <= 0xf);
        disk->word = le64_make(e->address | (uint64_t)e->type << 44 | (e->birth & 0xff) << 56);
        disk->birth_high = le32_make((uint32_t)(e->birth >> 8));
        disk->crc32c = le32_make(e->crc);
}
static inline bool entry_is_hole(const struct entry *e)
{
        return e->type == ENTRY_ABSENT || e->type == ENTRY_ZERO;
}

/* ---- slabs and space (slab.c, space.c) ---- */

struct leg {
        unsigned member;
        uint64_t offset;
};

struct slab {
        uint32_t index;
        uint8_t kind, n_legs, map_copy;
        struct leg leg[SLAB_LEGS_MAX];
        uint64_t map_address[MAP_COPIES];
        uint32_t map_crc;
        uint32_t log_index;
        uint64_t touched[2];
        uint32_t live_free;  /* bits clear in live; a system slab: blocks not handed out */
        uint32_t alloc_free; /* bits clear in busy */
        uint32_t cursor;     /* next-fit */
        uint64_t *live;      /* referenced by a tree, list or table as of now: goes to disk */
        uint64_t *busy;      /* live, or taken, or freed and not yet allocatable */
        bool dirty;          /* record or map differs from the last cut */
        bool map_dirty;
        bool discarding;         /* a coroutine discards free runs of it */
        uint64_t freed_interval; /* of the last free in it */
        struct list avail;       /* in its member's or the pool's list while alloc_free > 0 */
};

/* A member as the pool sees it. */
struct disk {
        struct member *member;
        uint8_t uuid[16];
        unsigned index;
        uint64_t size_bytes;
        uint32_t n_units, free_units, unit_cursor;
        uint64_t *units;    /* bit set: a slab's leg lies there */
        struct list avail;  /* data slabs with room */
        uint64_t data_free; /* alloc_free over its data slabs */
        int64_t credit;     /* of the weighted round */
        uint64_t writes_done,
            writes_durable; /* completed; and of those, covered by a completed flush */
        bool apart;         /* being added, or given back: flushed by nobody else */
        unsigned flushing;  /* flushes in flight */
};

/* Frees of one interval (the time between two cuts), waiting to become allocatable [I3]. */
struct interval {
        uint64_t *address;
        size_t n, room;
        uint64_t readers; /* that looked an entry up during this interval and still read */
};
#define INTERVALS 64u

/* ---- node cache (cache.c) ---- */

struct node {
        struct node *hash_next;
        struct list lru;
        uint64_t address, birth;
        uint32_t crc;
        uint32_t pins;
        bool loading, dirty, sealed, dead, referenced, forever;
        int error;               /* of the load */
        struct co_queue waiting; /* for the load */
        void *page;              /* 4096 bytes, aligned */
};

struct cache {
        struct node **bucket;
        size_t n_buckets, n_nodes, n_max, n_dirty;
        uint64_t hits, misses;
        struct list lru;
        struct list finished;          /* deadlist.c's: dirty pages that will not change again */
        struct list spare;             /* nodes kept for reuse */
        struct chunk_of_nodes *chunks; /* cache.c's */
};

/* ---- roots (root.c, catalog.c) ---- */

struct bucket {
        uint64_t key;
        struct entry head;
        uint64_t n_blocks;
        uint32_t n_pages;
        uint32_t flags;
};

struct tree {
        struct entry root;
        uint8_t height;
};

struct root_body {
        uint8_t uuid[16];
        int64_t created_ns;
        uint64_t size_bytes, high_bytes;
        struct tree map;
        uint64_t data_blocks, own_blocks;
        uint64_t cursor;
        uint64_t base_bytes;   /* of the base that show through */
        char *description;     /* of a base, BASE_DESCRIPTION_MAX; else NULL */
        struct bucket *bucket; /* by key, ascending */
        size_t n_buckets, bucket_room;
        struct entry *bucket_page; /* where the buckets beyond ROOT_BUCKETS lie now */
        size_t n_bucket_pages;
        struct property_disk property[ROOT_PROPERTIES];
        unsigned n_properties;
};

/* A write's place in the order of overlapping ones (range.c). */
struct range {
        struct list link;
        uint64_t first, last; /* blocks */
        bool exclusive, granted;
        void (*grant)(struct range *range); /* called when a lock that had to wait is granted */
};

struct root {
        uint64_t id, volume_id, epoch;
        struct root *parent;
        struct list children, sibling;
        unsigned n_children;
        struct root *hash_next[3]; /* by id, by name, by volume: catalog.c */
        uint32_t slot;
        uint8_t state; /* enum root_state */
        char name[POOL_NAME_MAX + 1];
        bool shrinking; /* as read from the index; once the body is there its high tells */
        /* Of a root on an image: what is absent is looked for there, and then in the image. */
        struct root *base;
        unsigned n_dependents;    /* a base's: roots on it */
        bool complete;            /* a base's: all is in the pool */
        bool told_unreadable;     /* a base's: of its image, once */
        struct base_image *image; /* a base's: who reads the image; NULL: nobody yet (base.c) */
        bool loaded;              /* body is there */
        bool dirty;
        /* The worker leaves it alone: what it holds cannot be read, until the next open; or there is
         * no metadata to give it back with, until some has come. */
        bool broken, starved;
        int64_t starved_with; /* what was available then */
        struct root_body *body;
        struct list dirty_link;
        unsigned n_handles;
        struct usage *usage; /* NULL: not opened since the pool was */
        /* I/O on a live root */
        struct list ranges;
        unsigned n_exclusive;
        unsigned n_writes; /* begun and not yet in the map */
        unsigned n_holds;  /* cuts that wait for n_writes to reach 0 */
        struct co_queue drained;
        struct list held; /* spans that came during a hold */
        struct co_queue unheld;
        /* epochs of the ancestors, ascending; valid while ancestry_version is the pool's */
        uint64_t *ancestors;
        size_t n_ancestors;
        uint64_t ancestry_version;
};

struct volume {
        struct pool *pool;
        struct root *root;
        struct crossing *crossing; /* NULL: used from the pool's loop */
        struct list link;          /* in its root's usage */
        struct meter meter;
        struct list throttled; /* requests, first come first */
        struct list turn;      /* while there are any: in usage.turns */
        bool cancelled, hurried, waits_when_full;
        struct loop_task cancel, hurry; /* posted by volume_cancel(), volume_hurry() */
        char name[2 * POOL_NAME_MAX + 2];
        char user[160];
};

/* ---- the log (intent.c) ---- */

struct log_page {
        struct list link;
        uint64_t sequence;
        struct log_page_disk *disk;
};

struct commit_wait {
        struct list link;
        struct co *co;                                   /* either a coroutine */
        void (*done)(struct commit_wait *w, int result); /* or a callback */
        int result;
};

struct intent_log {
        struct slab **slab;
        uint32_t n_slabs;
        uint32_t ring_pages;
        uint64_t incarnation;
        uint64_t start;        /* tail: first page that a recovery would read */
        uint64_t next;         /* sequence of the open page */
        uint32_t chain;        /* CRC of the page before the open one */
        struct log_page *open; /* being filled; records in it: open_used bytes */
        struct list spare;     /* pages kept for reuse */
        unsigned n_spare;
        uint32_t open_used;
        uint64_t open_first;
        uint64_t next_record;
        uint64_t mark;
        struct list sealed; /* to be written */
        uint64_t unmarked_blocks;
        uint64_t reserved_bytes; /* for records of writes in flight */
        struct list waiters;     /* commit_wait: for the next round */
        struct list loggers;     /* commit_wait: for the pages of the next round only */
        struct co_queue idle;    /* the committer waits here */
        struct co_queue stopped;
        bool running, round_wanted, stopping;
};

/* ---- the pool ---- */

struct root_table {
        struct root **bucket;
        size_t n_buckets, n;
};

/* A page frozen by a cut, to be written to each target. */
struct frozen_page {
        void *page;
        struct node *node; /* pinned, or NULL: page is freed after the write */
        unsigned n_targets;
        struct leg target[SLAB_LEGS_MAX];
};
struct frozen {
        struct frozen_page *page;
        size_t n, room;
        bool failed; /* out of memory while freezing */
};

struct pool {
        struct loop *loop;
        struct pool_options options;
        char name[POOL_NAME_MAX + 1];
        uint8_t uuid[16];
        int64_t created_ns;
        uint32_t layout, stripe_blocks;
        uint64_t incompat, ro_compat, compat;

        struct disk **disk;
        size_t n_disks;
        size_t n_disks_committed; /* in the newest superblock */

        /* slabs */
        uint32_t slab_blocks, slab_shift;
        struct slab **slab;
        uint32_t n_slabs, slab_room;
        struct slab_extent *table; /* extents of table pages */
        uint32_t n_table;
        struct slab_extent *index; /* extents of index pages */
        uint32_t n_index;
        struct list metadata_avail;
        uint64_t system_room;                   /* pages of system slabs not handed out */
        uint64_t metadata_total, metadata_free; /* blocks; free: not busy */
        uint64_t metadata_reserved;             /* promised to writes in flight */
        uint64_t data_total, data_free, data_live;
        uint64_t metadata_live;
        uint32_t stripe_left; /* blocks left in the current stripe unit */
        struct disk *stripe_disk;
        struct slab *stripe_slab;
        bool maker_running, maker_broken;
        uint64_t maker_waits; /* no space was left under a member: until n_checkpoints is this */
        struct co_queue maker_done;

        /* time */
        uint64_t generation, epoch, last_cut_epoch;
        uint64_t interval, released_interval, committed_interval;
        struct interval intervals[INTERVALS];
        unsigned hold_frees; /* check holds a checkpoint */
        uint64_t waiting_frees;
        uint64_t ancestry_version;

        struct cache cache;
        struct intent_log log;

        /* catalog */
        struct tree catalog;
        struct root **slot; /* by slot; NULL: free */
        uint32_t n_slots, slot_room, slot_cursor;
        struct root_table table_of[3];
        struct list dirty_roots;
        size_t n_dirty_roots;
        uint64_t cut_pages; /* bucket pages that the next cut will take for dirty roots */
        uint64_t next_root_id;
        uint64_t n_volumes, n_snapshots;
        struct list usages;
        uint64_t opened_ns;
        struct co_mutex catalog_lock; /* one catalog operation at a time */
        unsigned n_handles;
        struct list crossings; /* of loops that handles are used from */

        /* checkpoints */
        bool checkpoint_running, checkpoint_wanted;
        struct co_mutex checkpoint_lock;
        struct co_queue checkpoint_ended;
        bool discarder_running;
        bool discard_in_flight; /* of free blocks, which nobody can take until it has ended */
        /* when this interval has committed, what was freed last may be discarded */
        uint64_t discard_after;
        bool touched_dirty;     /* discards were done and no checkpoint knows yet */
        uint64_t n_checkpoints; /* ended, for better or worse */
        struct loop_timer checkpoint_timer;
        /* for space (full.c): a write found none, and there has been no more since */
        bool full;
        /* blocks, when the last one failed; of metadata UINT64_MAX where that was not it */
        uint64_t full_data_room, full_metadata_room;
        unsigned filling;             /* percent: the level that was told last */
        uint64_t filling_next;        /* data blocks: with more it is time to look */
        struct list full_waiting;     /* requests */
        struct loop_timer full_timer; /* armed while there are any */
        void (*observer)(const struct pool_event *event, void *arg);
        void *observer_arg;

        struct list stalled; /* spans that wait for room */
        struct loop_task stalled_task;

        /* background */
        unsigned n_coroutines; /* of the engine's own; close waits for 0 */
        struct co_queue idle;
        bool closing;
        bool worker_running;
        uint64_t job_first; /* the root whose shrinking somebody waits for; 0: none */
        struct co_queue worker_done;
        bool recovering;
        unsigned n_spans; /* in flight */
        struct list spare_spans;
        unsigned n_spare_spans;
        bool check_disturbed; /* a check holds frees back, and somebody needs them */

        bool readonly;
        char damage[128]; /* why it was opened read-only though nobody asked for that; or empty */
        char failed[256]; /* why writing stopped; empty: it goes on */
        uint64_t checksum_errors, repaired_errors;
        /* found by the replay: copies of pages of the log that were durable and are not right; and
         * that the newest superblock was durable everywhere, as a page was closed after that */
        uint64_t log_damaged_legs;
        bool committed_by_log;
};

struct slab_extent {
        unsigned n_legs;
        struct leg leg[2];
        uint8_t copy;
        uint32_t crc;
        bool dirty;
};

/* ---- disk I/O helpers (blockio.c) ---- */

/* One of many operations that a coroutine waits for together. */
struct batch_io {
        struct member_io io;
        struct iovec iov;
        struct disk *disk;
        struct pool *pool; /* of a flush: stopped as soon as it fails */
        int result;
        struct batch *batch;
};
/* op, disk, offset, length and iov.iov_base are set by the caller; results are in each. */
void co_batch(struct batch_io *ios, size_t n);
int co_disk_write(struct disk *disk, const void *buffer, size_t length, uint64_t offset);

/* Translate; the slab must exist. */
struct slab *address_slab(struct pool *pool, uint64_t address);
uint64_t leg_offset(const struct slab *slab, unsigned leg, uint64_t address, uint32_t slab_blocks);
/* A block of metadata, by whichever leg has it right; a bad leg is repaired. -EUCLEAN, -EIO */
int co_metadata_read(struct pool *pool, uint64_t address, uint32_t crc, void *page);
int co_legs_read(struct pool *pool, const struct leg *leg, unsigned n_legs, uint64_t shift,
                 uint32_t crc, void *page, const char *what);
/* Write pages to all their targets, many at a time. Fails when a page reached no target. */
int co_write_frozen(struct pool *pool, const struct frozen *frozen);
/* Zeroes over the whole of a slab, on every leg. */
int co_slab_write_out(struct pool *pool, const struct slab *slab);
/* Flush every member that has unflushed writes, all at once; failure stops the pool. */
int co_flush_members(struct pool *pool);
/* Writing stops for good: reads go on. Returns -EIO. */
int pool_fail(struct pool *pool, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* That data could take, taken or not. */
uint64_t pool_data_blocks(const struct pool *pool);
static inline bool pool_failed(const struct pool *pool)
{
        return pool->failed[0] != 0;
}
void *page_alloc(void); /* 4096 aligned bytes, zeroed; NULL: out of memory */

/* ---- slab.c: the slab table and its three copies ---- */

void slab_free(struct slab *slab);
static inline bool slab_has_map(const struct slab *slab)
{
        return slab->kind == SLAB_DATA || slab->kind == SLAB_METADATA;
}
/* Choose legs for a slab of @kind (DATA: on @disk; others: two where two members have room) and
 * take their units. -ENOSPC, -ENOMEM. The slab is in no table until slab_enter(); slab_unplace()
 * gives the units back and frees it. */
int slab_place(struct pool *pool, enum slab_kind kind, struct disk *disk, struct slab **ret_slab);
void slab_unplace(struct pool *pool, struct slab *slab);
/* [sync] Give a placed slab its number and its space map, count it in; logged unless @quiet. On
 * failure it is still only placed. */
int slab_enter(struct pool *pool, struct slab *slab, bool quiet);
/* Replay: a logged slab takes its place. -EUCLEAN where it overlaps another. */
int slab_replay(struct pool *pool, uint32_t index, const struct slab_disk *disk, struct error *err);
int co_slabs_load(struct pool *pool, uint32_t n_slabs, struct error *err);
/* [sync] All dirty maps, table and index pages as of now. */
int slabs_freeze(struct pool *pool, struct frozen *frozen);
int frozen_add(struct frozen *frozen, void *page, struct node *node, const struct leg *legs,
               unsigned n_legs, uint64_t shift);
void frozen_release(struct pool *pool, struct frozen *frozen);

/* ---- space.c: taking and freeing blocks ---- */

/* count in a slab whose maps are there */
void space_add_slab(struct pool *pool, struct slab *slab);
/* Take up to @want adjacent data blocks by the layout's rule. -ENOSPC */
int space_take_data(struct pool *pool, uint32_t want, uint64_t *ret_address, uint32_t *ret_n);
int space_take_metadata(struct pool *pool, uint64_t *ret_address);  /* -ENOSPC; live at once */
void space_untake(struct pool *pool, uint64_t address, uint32_t n); /* taken and not used */
void space_commit(struct pool *pool, uint64_t address, uint32_t n); /* taken becomes live */
/* Live becomes freed [I3]. A block that is not live is a sign of damage: the pool stops. */
void space_free(struct pool *pool, uint64_t address);
bool space_is_live(struct pool *pool, uint64_t address);
/* Replay: what the log names is not to be taken; afterwards what is not live is let go. -EUCLEAN */
int space_mark_busy(struct pool *pool, uint64_t address, uint32_t n);
void space_recount_busy(struct pool *pool);
/* Frees whose checkpoint has committed and whose readers are gone become allocatable. */
void space_release(struct pool *pool);
static inline uint64_t reader_enter(struct pool *pool)
{
        pool->intervals[pool->interval % INTERVALS].readers++;
        return pool->interval;
}
void reader_exit(struct pool *pool, uint64_t interval);
/* Metadata blocks that may be taken once the cut's and the writes' needs are set apart;
 * may be negative. */
int64_t metadata_available(const struct pool *pool);
uint64_t metadata_reserve(const struct pool *pool); /* kept for deletes and catalog */

/* ---- maker.c: slabs made ahead, free space discarded ---- */

/* a metadata slab is made where one is wanted, in the background */
void maker_kick(struct pool *pool);
bool data_may_grow(const struct pool *pool, const struct disk *disk);
/* Discard free runs of at least 1 MiB that stayed free over this many checkpoints. */
#define DISCARD_CHECKPOINTS 2u
void co_discard_free(struct pool *pool);

/* ---- cache.c ---- */

int cache_init(struct cache *cache, uint64_t bytes);
void cache_destroy(struct cache *cache);
/* NULL: not there, or loading */
struct node *cache_find(struct pool *pool, const struct entry *entry);
/* Read through; pinned on success. */
int co_node_get(struct pool *pool, const struct entry *entry, struct node **ret_node);
static inline void node_pin(struct node *node)
{
        node->pins++;
}
void node_unpin(struct pool *pool, struct node *node);
/* A new node at a newly taken metadata block, dirty, born now, its page undefined or a copy of
 * @from's. */
int node_make(struct pool *pool, const struct node *from, struct node **ret_node);
/* cache forgets it; the block is freed */
void node_free_block(struct pool *pool, const struct entry *entry);
void node_forget(struct pool *pool, const struct entry *entry); /* cache only */
bool cache_trim(struct pool *pool, unsigned n); /* where no node is in use that is not pinned */
#define TRIM_A_CHANGE 64u
/* Half of the cache is dirty, and a checkpoint is on the way to change that. */
bool cache_is_dirty(const struct pool *pool);
void node_written(struct pool *pool, struct node *node); /* after its checkpoint committed */

/* ---- tree.c ---- */

/* blocks under an entry's node at @level; level 0: a block */
static inline uint64_t tree_span(unsigned level)
{
        return UINT64_C(1) << (8 * level);
}
/* Of @block, in the leaf that covers it. */
static inline struct entry leaf_entry(const struct node *leaf, uint64_t block)
{
        return entry_get(&((const struct node_disk *)leaf->page)->entry[block % LEAF_BLOCKS]);
}
/* What a tree has at the blocks of one leaf: the leaf, or the hole that stands for all of them. */
struct cover {
        struct node *leaf;
        struct entry hole;
};
static inline struct entry cover_entry(const struct cover *cover, uint64_t block)
{
        return cover->leaf ? leaf_entry(cover->leaf, block) : cover->hole;
}
unsigned tree_height_for(uint64_t size_bytes);
/* [sync] The leaf covering @block: *ret_leaf, or NULL with the hole entry in *ret_entry.
 *
 * -EAGAIN  *ret_entry names a node to load first */
int tree_leaf(struct pool *pool, const struct tree *tree, uint64_t block, struct node **ret_leaf,
              struct entry *ret_entry);
/* Load what tree_leaf() lacks; then the leaf is pinned (NULL where it is a hole). */
int co_tree_leaf(struct pool *pool, const struct tree *tree, uint64_t block, struct node **ret_leaf,
                 struct entry *ret_entry);
/* [sync] The entry that stands for @block, as far down as nodes are in memory; returns its level. */
unsigned tree_cover(struct pool *pool, const struct tree *tree, uint64_t block,
                    struct entry *ret_entry);
/* [sync] Where what is absent around @block begins, as far as one entry tells; block + 1 where
 * there is something, or a node that is to be loaded. */
uint64_t tree_absent_start(struct pool *pool, const struct tree *tree, uint64_t block);
/* [sync] A leaf of @root's map that may be changed now. -EAGAIN as above; -ENOSPC. */
int tree_leaf_writable(struct pool *pool, struct root *root, struct tree *tree, uint64_t block,
                       struct node **ret_leaf, struct entry *ret_entry);
/* [sync] Raise the height so that @size_bytes fit. */
int tree_grow(struct pool *pool, struct root *root, struct tree *tree, uint64_t size_bytes);
/* [sync] Fill the CRCs of what was born since the last cut and after @above, and freeze it. (What
 * an orphan shares with others is not its own, and may be gone already.) */
int tree_seal(struct pool *pool, struct tree *tree, uint64_t above, struct frozen *frozen);
/* [sync] Make [first, first+n) holes of @type, freeing what was there. Nodes needed must be in the
 * cache: else -EAGAIN and the one that lacks, with everything changed so far consistent.
 * *ret_changed: whether anything was. */
int tree_clear(struct pool *pool, struct root *root, struct tree *tree, uint64_t first, uint64_t n,
               uint8_t type, bool *ret_changed, struct entry *ret_missing);

/* [sync] Blocks [block, block+n), all of one leaf, take their place: what was taken becomes live,
 * what stood there is superseded. -EAGAIN: *ret_missing is to be loaded, nothing changed. */
int map_write(struct pool *pool, struct root *root, uint64_t block, uint32_t n, uint64_t address,
              const uint32_t *crc, struct entry *ret_missing);
int co_map_load(struct pool *pool, const struct entry *missing); /* what -EAGAIN asked for */
/* Clear without a record: for slices of discards, and replays of them. */
int co_map_clear(struct pool *pool, struct root *root, uint64_t first, uint64_t n, uint8_t type,
                 bool *ret_changed);

/* ---- deadlist.c ---- */

/* [sync] @entry of @root was superseded: freed where it is the root's own, else listed. @root NULL:
 * the catalog, which owns all it has. */
int root_supersede(struct pool *pool, struct root *root, const struct entry *entry);
int deadlist_seal(struct pool *pool, struct root *root, struct frozen *frozen); /* the heads */
int deadlist_seal_finished(struct pool *pool, struct frozen *frozen); /* the rest, once a cut */
/* Blocks of metadata that listing @n superseded entries of @root takes at most, whatever they are
 * and whatever is listed already. */
uint64_t deadlist_needs(struct pool *pool, struct root *root, uint64_t n);
/* The epochs of the ancestors, ascending, in @root->ancestors. -ENOMEM */
int ancestry_refresh(struct pool *pool, struct root *root);
/* How many of these are below @birth. */
size_t ancestors_before(const struct root *root, uint64_t birth);
/* [sync] @into takes all of @from's buckets; chains of one key are joined where there is room. */
int deadlist_merge(struct pool *pool, struct root_body *into, struct root_body *from);
/* finds or makes; NULL: out of memory */
struct bucket *bucket_add(struct root_body *body, uint64_t key);
uint64_t deadlist_blocks_above(const struct root_body *body, uint64_t epoch);

/* ---- status.c ---- */

/* One more at the end; neighbours with equal flags become one. False: there is no room for
 * another. */
bool extent_add(struct volume_extent *extents, size_t n_max, size_t *n, uint64_t length,
                unsigned flags);

/* ---- intent.c ---- */

/* The ring's slabs in order, from the table. -EUCLEAN */
int log_init(struct pool *pool, const struct super *super, struct error *err);
int log_start(struct pool *pool); /* the committer runs */
void log_destroy(struct pool *pool);
struct leg *log_page_legs(struct pool *pool, uint64_t sequence, unsigned *ret_n_legs,
                          uint64_t *ret_shift);
/* A checkpoint that begins at page @start has committed: what lies before is no longer needed. */
void log_advance(struct pool *pool, uint64_t start);
/* [sync] Space for a record; the caller fills it. A record goes to the next page when it does not
 * fit. */
void *log_append(struct pool *pool, size_t length, uint8_t type, uint8_t flags);
void log_append_write(struct pool *pool, uint64_t root_id, uint64_t block, uint64_t address,
                      uint32_t n, const uint32_t *crc);
void log_seal(struct pool *pool); /* [sync] close the open page */
/* True where @bytes more may be promised; log_reserve/unreserve keep the sum. */
bool log_has_room(struct pool *pool, size_t bytes);
uint64_t log_pages_used(const struct pool *pool);
int co_commit(struct pool *pool);                               /* a flush round */
void commit_async(struct pool *pool, struct commit_wait *wait); /* the same with a callback */
/* Until the records so far are written, though not flushed: VOLUME_LOGGED. */
int co_logged(struct pool *pool);
void logged_async(struct pool *pool, struct commit_wait *wait);
void log_kick(struct pool *pool); /* a background round */
void co_log_stop(struct pool *pool);
#define LOG_WRITE_BYTES(n) ((sizeof(struct log_write_disk) + 4 * (size_t)(n) + 7) & ~(size_t)7)

/* ---- replay.c ---- */

/* Apply what the log holds beyond the newest superblock. *ret_dirty: something was there, so that
 * the log has to begin anew. A log that proves to be damaged makes the pool read-only. */
int co_log_replay(struct pool *pool, bool *ret_dirty, struct error *err);

/* ---- checkpoint.c ---- */

int co_checkpoint(struct pool *pool, struct error *err);
/* The same at the end of a recovery: with an empty log of a new incarnation. */
int co_checkpoint_fresh(struct pool *pool, struct error *err);
/* A checkpoint that is held: what is in use as of its cut is not given out again until
 * checkpoint_unhold(), so that it can be read at leisure while I/O goes on. Where there is nothing
 * to write, now is the cut. Writers that lack the space set pool->check_disturbed: the holder gives
 * up. */
struct checkpoint_hold {
        /* [sync] at the cut: CRCs are filled in, live maps and catalog are what goes to disk */
        int (*at_cut)(void *arg);
        /* Committed, and no other checkpoint begins: what takes turns (superblocks, slab table,
         * space maps) is still that of the cut. NULL: nothing */
        int (*co_then)(void *arg);
        void *arg;
};
/* 0, what at_cut() or co_then() returned, or -EIO; held on success only. */
int co_checkpoint_hold(struct pool *pool, const struct checkpoint_hold *hold, struct error *err);
void checkpoint_unhold(struct pool *pool);
void co_checkpoint_wait(struct pool *pool);        /* until the next one has ended */
void checkpoint_kick(struct pool *pool);           /* in the background */
void checkpoint_kick_if_useful(struct pool *pool); /* where there is something to commit */
void epoch_raise(struct pool *pool);               /* [sync] seals the log's page */
bool checkpoint_due(struct pool *pool);

/* ---- catalog.c: roots on disk; roots.c: roots in memory ---- */

int co_catalog_load(struct pool *pool, struct error *err);
/* The body. While it is read nobody may delete the root: the catalog's lock or a handle sees to
 * that. */
int co_root_load(struct pool *pool, struct root *root, struct error *err);
/* The paths that @n new roots will need at the next cut are in memory. -ENOSPC: too many roots */
int co_catalog_prepare(struct pool *pool, unsigned n, struct error *err);
int catalog_freeze(struct pool *pool, struct frozen *frozen); /* [sync] */

int roots_init(struct pool *pool);
void roots_destroy(struct pool *pool);
struct root *root_by_id(struct pool *pool, uint64_t id);
struct root *root_by_name(struct pool *pool, const char *name); /* VOL or VOL@SNAP */
struct root *root_head(struct pool *pool, uint64_t volume_id);  /* the live root of a volume */
struct root *root_snapshot(struct pool *pool, uint64_t volume_id, const char *name);
/* A root in a free slot, of no name and state, with an empty body; NULL: out of memory or slots. */
struct root *root_new(struct pool *pool, uint64_t id);
struct root *root_enter(struct pool *pool, uint64_t id, uint32_t slot); /* without a body */
/* Name and state decide where a root is found: they change through here. */
void root_identify(struct pool *pool, struct root *root, uint8_t state, uint64_t volume_id,
                   const char *name);
void root_set_parent(struct pool *pool, struct root *root, struct root *parent);
void root_set_base(struct root *root, struct root *base);
/* gone: its slot is free after the next cut */
void root_release(struct pool *pool, struct root *root);
void root_destroy(struct pool *pool, struct root *root); /* catalog_freeze()'s */
void root_dirty(struct pool *pool, struct root *root);
/* Of the pages that a cut writes for @n buckets. (Some have room in the root's block.) */
static inline uint64_t bucket_pages(uint64_t n)
{
        return (n + PAGE_BUCKETS - 1) / PAGE_BUCKETS;
}
/* A root that has @before of them already, and is dirty: what it has more is promised to the cut. */
void buckets_grown(struct pool *pool, const struct root *root, size_t before);
/* Metadata blocks that a cut takes at most for the catalog, @n roots of @n_slots slots being dirty;
 * each root beyond the first wants no more than CATALOG_BLOCKS_ONE of them. */
uint64_t catalog_blocks(uint64_t n, uint64_t n_slots);
#define CATALOG_BLOCKS_ONE (2 * CATALOG_HEIGHT + 1)
void body_free(struct root_body *body);

/* ---- operations on the catalog, applied (ops.c): the same code runs live and in a replay ---- */

struct catalog_op {
        uint8_t type; /* enum log_type */
        uint64_t root_id, new_id, from_id, size_bytes;
        int64_t time_ns;
        uint8_t uuid[16];
        char name[POOL_NAME_MAX + 1];
        char key[32], value[64];
        bool complete;
        char description[BASE_DESCRIPTION_MAX];
};
/* What op_apply() needs in memory. */
int co_op_prepare(struct pool *pool, const struct catalog_op *op, struct error *err);
int op_apply(struct pool *pool, const struct catalog_op *op); /* [sync] */
void op_log(struct pool *pool, const struct catalog_op *op, bool more);
int op_decode(const struct log_head_disk *head, struct catalog_op *ret_op);

/* ---- base.c ---- */

/* Where the base ends to show through, in blocks; 0 for a root without one. */
static inline uint64_t root_base_end(const struct root *root)
{
        return root->base ? (root->body->base_bytes + BLOCK - 1) / BLOCK : 0;
}
/* What a discard of a block leaves there: absent would show the base. */
static inline uint8_t root_hole_type(const struct root *root, uint64_t block, uint8_t wanted)
{
        return block < root_base_end(root) ? ENTRY_ZERO : wanted;
}
/* Read blocks of a base from its image; what lies behind its end is zeroes. -EIO: also where there
 * is nobody to read it */
int co_image_read(struct pool *pool, struct root *base, uint64_t block, uint32_t n, void *buffer);

/* A handle of a base's is given back: it goes with the last of them and of the roots on it. */
void co_base_let_go(struct pool *pool, struct root *base);
/* One block of a base, wherever it is. */
int co_base_read(struct pool *pool, struct root *base, uint64_t block, void *page);
/* [sync] Does a hole of @root's at @block show its base? */
static inline bool hole_shows(const struct root *root, const struct entry *hole, uint64_t block)
{
        return hole->type == ENTRY_ABSENT && block < root_base_end(root);
}

/* ---- collect.c ---- */

/* @root lost a name, a handle or a child: orphan it, or merge it into its only child;
 * up the tree. */
int co_collect(struct pool *pool, struct root *root, struct error *err);
/* After an operation that has been applied and logged: that what it leaves cannot be collected now is
 * not its failure. Opening collects all. */
void co_collect_after(struct pool *pool, struct root *root);
int co_collect_all(struct pool *pool, struct error *err);
/* At open: volumes whose shrink was not finished are loaded, so that the worker goes on with it. One
 * that cannot be read is told in the log, and left to who opens it. */
void co_shrinks_find(struct pool *pool);
void worker_kick(struct pool *pool); /* orphans and shrinks are worked off in the background */
void worker_feed(struct pool *pool); /* the same, with what was starved, where there is more now */

/* ---- range.c: overlapping writes ---- */

/* A lock is granted when no earlier range overlaps it, or both are shared. False: it waits, and
 * grant() is called later, from the loop of whoever unlocks. */
bool range_lock(struct root *root, struct range *range);
/* The same for a coroutine. */
struct co_range {
        struct range range;
        struct co *co;
};
void co_range_lock(struct root *root, struct co_range *range);
void range_unlock(struct root *root, struct range *range);

/* ---- span.c and io.c; their own structures are in span.h ---- */

/* New writes of @root wait; returns when none is under way. */
void co_root_hold(struct root *root);
void root_unhold(struct pool *pool, struct root *root);
/* For writes that are coroutines: wait for holds to end, then count as one under way. */
void co_write_begin(struct root *root);
void write_end(struct root *root);
/* Spans that wait for room try again. */
void stalled_wake(struct pool *pool);
void spans_destroy(struct pool *pool);
/* Whole blocks of a root, through the hot path. @nested: the caller is counted as a write and holds
 * a range. */
int co_span_read(struct pool *pool, struct root *root, uint64_t block, uint32_t n, void *buffer);
int co_span_write(struct pool *pool, struct root *root, uint64_t block, uint32_t n,
                  const void *buffer, bool nested);
/* A slice of a discard (at most LOG_CLEAR_LEAVES leaves): loads, clears, logs. The caller is
 * counted as a write where others may write to the root. */
int co_root_clear(struct pool *pool, struct root *root, uint64_t first, uint64_t n, uint8_t type,
                  bool worker);
/* Zeroes over a part of one block, as a write of its own; a block that holds nothing else any more
 * becomes @type. @behind: the part lies behind the volume's end. */
int co_root_zero_part(struct pool *pool, struct root *root, uint64_t offset, uint64_t length,
                      uint8_t type, bool behind);
/* How many blocks from @first on make one slice: fewer where metadata is short. @worker as there. */
uint64_t clear_slice_blocks(struct pool *pool, struct root *root, uint64_t first, bool worker);
/* Wait until an operation that frees or names things may take @blocks of metadata; @worker: it is
 * the worker's, which must not wait for itself. -ENOSPC, -EIO */
int co_metadata_admit(struct pool *pool, uint64_t blocks, bool worker);
/* Whether waiting may still bring space: something is on its way back, or being made. */
bool space_may_come(const struct pool *pool, bool from_worker);

/* Coroutines of the engine are counted, so that close can wait for them. */
int engine_spawn(struct pool *pool, co_entry *entry, void *arg);
void engine_coroutine_ends(struct pool *pool);
