/* pool.h - thin, checksummed volumes and snapshots over a set of disks.
 *
 * Units      offsets, lengths and sizes are bytes unless a name says _blocks (POOL_BLOCK, 4096
 *            bytes).
 * Threads    a pool and all that belongs to it live on the loop that opened it. [any loop] marks
 *            what a handle of a volume can do elsewhere: see co_volume_use_from().
 * Errors     0 or -errno. On failure *err (may be NULL) holds a sentence for the operator; on
 *            success it is untouched. A failed call leaves the pool as it was.
 * Ownership  ret_* is set only on success; release with the named close.
 * Waiting    co_* functions may suspend and are called from coroutines. volume_submit() never
 *            suspends.
 *
 * Durability: what co_* operations on the catalog (create, snapshot, restore, delete, ...) did is
 * durable when they return 0. Writes are durable once a later flush, or their own FUA, has
 * completed.
 */
#pragma once
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include "common/llist.h"
#include "common/error.h"
#include "common/loop.h"
#include "pool/member.h"
#include "pool/throttle.h"

#define POOL_BLOCK         4096u
#define POOL_NAME_MAX      63u      /* characters, without NUL */
#define POOL_MEMBERS_MAX   1024u    /* superblock slot: 64 bytes a member in 128 KiB */
#define POOL_ROOTS_MAX     1000000u /* volumes and snapshots: the index is read at open */
#define VOLUME_SIZE_MAX    (UINT64_C(1) << 52) /* 4 PiB: five levels of map */
#define VOLUME_SECTOR      512u                /* a volume's size is a multiple of this */
#define VOLUME_REQUEST_MAX (UINT64_C(1) << 26) /* bytes in one read or write */

struct pool;
struct volume;

/* ---- the pool ---- */

enum pool_layout { POOL_LAYOUT_STRIPE, POOL_LAYOUT_CONCAT };

struct pool_options {
        uint64_t cache_bytes;            /* map node cache; 0: 512 MiB */
        unsigned checkpoint_interval_ms; /* 0: 5,000 */
        bool readonly;                   /* write nothing: the log is replayed in memory */
        bool manual_checkpoints;         /* tests: no timer, only limits and co_pool_checkpoint() */
        /* Write nothing until co_pool_go(): for a pool that another process has just closed, and may
         * open again in place of this one. Volumes may be opened meanwhile, and read. */
        bool held;
};

struct pool_create_options {
        const char *name;
        enum pool_layout layout;
        uint32_t stripe_bytes; /* 0: 64 KiB */
        /* For tests that want many slabs on small disks; 0 is the right choice everywhere else. */
        uint32_t slab_bytes; /* power of two, 256 KiB to 128 MiB */
        uint32_t log_slabs;
        const uint8_t *uuid; /* 16 bytes, or NULL: random */
};

/* True where @name is [A-Za-z0-9][A-Za-z0-9._-]{0,62}; otherwise -EINVAL and a sentence calling it
 * @what. */
int pool_name_check(const char *name, const char *what, struct error *err);

/* Write a new, empty pool onto @members (1 to POOL_MEMBERS_MAX); it is not open afterwards, and the
 * members stay the caller's. Whatever was on them is gone: the caller has asked.
 *
 * -EINVAL  too few bytes, too many members, bad name */
int co_pool_create(struct member *const *members, size_t n_members,
                   const struct pool_create_options *options, struct error *err);

/* What a member's label says, without opening the pool. */
struct pool_label {
        uint8_t pool_uuid[16], member_uuid[16];
        char pool_name[POOL_NAME_MAX + 1];
        unsigned index;
        uint64_t size_bytes;
        uint64_t generation; /* of its newest superblock; 0 where none is readable */
        unsigned n_members;  /* by that superblock */
};
/* -ENODATA  no label of tarn's at either end
 * -EUCLEAN  there was one, damaged at both ends
 * -ENOTSUP  a newer format version */
int co_pool_read_label(struct member *member, struct pool_label *ret_label, struct error *err);

/* The uuids of all members of the pool that @member belongs to, by its newest superblock, in order.
 * *ret_uuids is malloc'ed: *ret_n times 16 bytes.
 *
 * -EIO      a superblock cannot be read, and no other is there
 * -ENODATA  there is no superblock
 * -ENOTSUP  newer format or unknown incompatible feature */
int co_pool_read_membership(struct member *member, uint8_t (**ret_uuids)[16], size_t *ret_n,
                            struct error *err);

/* Open the pool whose members are @members, in any order, replaying its log after an unclean stop.
 * On success the pool owns the members; on failure they stay the caller's.
 *
 * -ENXIO        a member is missing: named by index and uuid
 * -ESTALE       a member is at an older generation: named
 * -EMEDIUMTYPE  a member is of another pool: named
 * -ENOTSUP      newer format or unknown incompatible feature, named
 * -EIO          a member cannot be read
 * -EUCLEAN      metadata fails its checksum on every copy or makes no sense, or (held) it was not
 *               closed cleanly; where anything was written (not held, not readonly), it only put
 *               members right: each has the newest superblock, no part of a next one, and blocks of
 *               metadata that its other legs had
 *
 * Release with co_pool_close(). */
int co_pool_open(struct loop *loop, struct member *const *members, size_t n_members,
                 const struct pool_options *options, struct pool **ret_pool, struct error *err);

/* A pool that was opened held may be written to from now on. */
void co_pool_go(struct pool *pool);

/* Finish what is in flight, checkpoint, let go of everything, close the members. All volumes must
 * be closed. The pool is gone whatever is returned; a failure means that the next open replays the
 * log. */
int co_pool_close(struct pool *pool, struct error *err);
/* The same without a last checkpoint or flush: what a kill would leave (crash tests; a pool that
 * failed). */
void co_pool_abandon(struct pool *pool);

/* Zero the labels of all members: the pool is gone. The pool is closed afterwards, whatever is
 * returned. */
int co_pool_destroy(struct pool *pool, struct error *err);

/* True where a request waits for space, and so may keep its volume from being closed. */
bool pool_waits_for_space(const struct pool *pool);

/* New members, written and then made part of the pool by one superblock. On success the pool owns
 * them. */
int co_pool_add(struct pool *pool, struct member *const *members, size_t n_members,
                struct error *err);

int co_pool_checkpoint(struct pool *pool, struct error *err);
/* Wait until no orphan is left to free, and freed space is allocatable and discarded on the
 * members. */
int co_pool_settle(struct pool *pool, struct error *err);

struct pool_member_info {
        const char *path;
        uint8_t uuid[16];
        uint64_t size_bytes;
        uint64_t data_bytes;       /* in slabs of data on it */
        uint64_t metadata_bytes;   /* in slabs of metadata, log and table on it, and labels */
        uint64_t used_bytes;       /* allocated blocks, every leg counted */
        uint64_t unassigned_bytes; /* in no slab yet */
        const struct meter *meter; /* since the pool was opened */
};

struct pool_info {
        const char *name;
        uint8_t uuid[16];
        enum pool_layout layout;
        uint32_t stripe_bytes, slab_bytes;
        uint64_t size_bytes; /* that data could take if none were written, metadata set apart */
        uint64_t used_bytes; /* data blocks allocated */
        uint64_t free_bytes; /* for data: size less used */
        uint64_t metadata_used_bytes; /* map nodes, catalog, lists */
        uint64_t freeing_bytes;       /* known to be on its way back: orphans, frees that wait */
        uint64_t provisioned_bytes;   /* sum of the sizes of volumes */
        uint64_t generation, epoch;
        uint64_t n_volumes, n_snapshots;
        uint64_t checksum_errors, repaired_errors;
        uint64_t log_used_bytes, log_size_bytes;
        bool readonly; /* opened so, or found damaged */
        /* a sentence where the pool has stopped writing, or was opened read-only for damage; else
         * NULL */
        const char *failed;
        size_t n_members;
};
void pool_get_info(struct pool *pool, struct pool_info *ret_info);
void pool_get_member_info(struct pool *pool, size_t index, struct pool_member_info *ret_info);
struct loop *pool_loop(struct pool *pool);
/* Another descriptor of the member's, which holds its lock together with the pool's own: the caller's.
 * -EOPNOTSUPP  it has none */
int pool_dup_member(struct pool *pool, size_t index);

/* ---- statistics: all since the pool was opened ---- */

struct pool_stats {
        uint64_t time_ns, opened_ns; /* of the loop's clock */
        uint64_t checkpoints;
        uint64_t cache_hits, cache_misses; /* map nodes found in memory; read from members */
        uint64_t cache_bytes, cache_dirty_bytes, cache_max_bytes;
};
void pool_get_stats(struct pool *pool, struct pool_stats *ret_stats);

/* Of a volume or snapshot that was opened at least once; of all handles, also those closed. */
struct volume_stats {
        const char *name; /* VOL or VOL@SNAP, as it is now */
        unsigned n_handles;
        struct meter_stats meter;
        struct throttle_limits limits;
        uint64_t throttled, throttled_ns; /* requests that waited for the limits, and how long */
        uint64_t n_waiting;               /* that do now */
        uint64_t n_full;                  /* that wait for space now */
};
/* What is passed lives during the call, which must not suspend. */
void pool_each_volume_stats(struct pool *pool,
                            void (*each)(const struct volume_stats *stats, void *arg), void *arg);

/* Of a handle that is open and was given a user by volume_set_user(). */
struct handle_stats {
        const char *name, *user;
        bool readonly;
        struct meter_stats meter;
};
void pool_each_handle_stats(struct pool *pool,
                            void (*each)(const struct handle_stats *stats, void *arg), void *arg);
void pool_get_member_stats(struct pool *pool, size_t index, struct meter_stats *ret_stats);

/* ---- events ---- */

enum pool_event_kind {
        POOL_EVENT_FILLING,  /* more than a level of the space for data is taken: 80 %, then 95 % */
        POOL_EVENT_FULL,     /* a write found no space */
        POOL_EVENT_SPACE,    /* there is more than then */
        POOL_EVENT_CHECKSUM, /* a block fails its checksum */
        POOL_EVENT_MEMBER,   /* a member fails to read or to write */
        POOL_EVENT_STOPPED,  /* nothing is written any more until the pool is opened again */
};
struct pool_event {
        enum pool_event_kind kind;
        const char *sentence;
        const char *volume; /* name of the volume or snapshot whose data it was, or NULL */
        uint64_t offset;    /* in it */
        const char *member; /* path, or NULL */
        uint64_t member_offset;
        unsigned percent; /* of FILLING */
};
/* Be told of what happens, on the pool's loop and as it happens: @each must not suspend, nor call
 * anything of the pool's. One observer; NULL: none any more. */
void pool_observe(struct pool *pool, void (*each)(const struct pool_event *event, void *arg),
                  void *arg);

/* ---- check ---- */

struct pool_check_callbacks {
        /* One finding, a sentence that names the place. */
        void (*finding)(void *arg, const char *sentence);
        /* done of total units of work; called now and then. May be NULL. */
        void (*progress)(void *arg, uint64_t done, uint64_t total);
        void *arg;
        /* looked at now and then: true ends it with -ECANCELED. May be NULL. */
        const atomic_bool *cancelled;
};
/* Walk everything and report; writes nothing. Guest I/O may go on. 0 and the number of findings, or
 *
 * -EAGAIN     it had to give up: space is too low to hold a checkpoint
 * -ECANCELED  *cancelled became true */
int co_pool_check(struct pool *pool, bool read_data, const struct pool_check_callbacks *callbacks,
                  uint64_t *ret_n_findings, struct error *err);

/* ---- volumes and snapshots by name ---- */

/* Things are named VOLUME or VOLUME@SNAPSHOT, without the pool's name. */

enum root_kind { ROOT_VOLUME, ROOT_SNAPSHOT };

struct root_info {
        enum root_kind kind;
        const char *volume;     /* its volume's name */
        const char *snapshot;   /* NULL for a volume */
        uint64_t id, parent_id; /* of roots; parent_id 0: none. A parent may be hidden (nameless) */
        /* the same for a volume and its snapshots; stays over rename and restore */
        uint64_t volume_id;
        /* the named snapshot nearest above; NULL where none */
        const char *origin_volume, *origin_snapshot;
        uint8_t uuid[16];
        uint64_t size_bytes;
        int64_t created_ns;              /* since 1970, UTC */
        uint64_t referenced_bytes;       /* data reachable from it */
        uint64_t freed_if_deleted_bytes; /* for a snapshot or volume, with the cascade; exact */
        unsigned n_children;
        unsigned n_clones; /* children that are volumes of their own */
        unsigned n_handles;
        const struct root *root; /* for root_property() */
};
/* The value of a property, during the call; NULL where there is none. */
const char *root_property(const struct root_info *info, const char *key);
/* Call @each for every named root: volumes by name, each followed by its snapshots by epoch. A
 * non-zero answer ends the walk and is returned. The strings live during the call. */
int co_pool_list(struct pool *pool, int (*each)(const struct root_info *info, void *arg), void *arg,
                 struct error *err);
int co_root_get(struct pool *pool, const char *name,
                int (*each)(const struct root_info *info, void *arg), void *arg, struct error *err);

/* -EEXIST  there is a volume of that name
 * -EINVAL  size no multiple of 512, zero, above VOLUME_SIZE_MAX
 * -ENOSPC  catalog full */
int co_volume_create(struct pool *pool, const char *name, uint64_t size_bytes, struct error *err);
/* -ENOENT     there is no such volume
 * -EBUSY      handles are open
 * -ENOTEMPTY  it has snapshots, and @with_snapshots is false */
int co_volume_delete(struct pool *pool, const char *name, bool with_snapshots, struct error *err);
int co_volume_rename(struct pool *pool, const char *name, const char *new_name, struct error *err);
/* Growing is for anyone; shrinking gives up what lies behind the new end. */
int co_volume_resize(struct pool *pool, const char *name, uint64_t size_bytes, struct error *err);
/* -EBUSY      it is larger than that, or has become it meanwhile */
int co_volume_grow(struct pool *pool, const char *name, uint64_t size_bytes, struct error *err);

/* All the snapshots named ("VOL@SNAP"), of different volumes, at one instant. */
int co_snapshot_create(struct pool *pool, const char *const *names, size_t n_names,
                       struct error *err);
int co_snapshot_delete(struct pool *pool, const char *name, struct error *err);
/* The volume takes the snapshot's content and size. What it held becomes the snapshot @keep_as of
 * it, or is discarded where @keep_as is NULL.
 *
 * -EBUSY   handles are open on the volume
 * -EEXIST  it has a snapshot @keep_as already */
int co_snapshot_restore(struct pool *pool, const char *name, const char *keep_as,
                        struct error *err);
int co_snapshot_clone(struct pool *pool, const char *snapshot, const char *new_volume,
                      struct error *err);

/* Properties: tagged texts a volume carries; keys and meaning are the caller's, but for those that
 * the engine acts upon, at once and for requests that wait as well:
 *
 * iops, bandwidth              what all handles of the volume together may do a second: operations
 *                              (all but flushes), and bytes read and written (as common/size.h)
 * iops-burst, bandwidth-burst  how much of it at once after a pause; default: a tenth of a second's
 * discard=off                  see volume_discards()
 * on-full=wait, =enospc        what finds no space waits until there is some, and holds nothing
 *                              meanwhile: no snapshot, flush or checkpoint waits for it; or it fails.
 *                              Anything else: what the handle says, volume_set_wait_when_full()
 *
 * A value that says nothing to it is as none. A NULL value removes. At most 16, keys up to 31 and
 * values up to 63 characters. */
int co_volume_set(struct pool *pool, const char *name, const char *key, const char *value,
                  struct error *err);
int co_volume_get_properties(struct pool *pool, const char *name,
                             int (*each)(const char *key, const char *value, void *arg), void *arg,
                             struct error *err);

/* The ranges in which the contents of A and B (any two named roots) may differ, in order, merged;
 * exact to the block, except that a block rewritten with the same content counts as changed where A
 * is an ancestor of B. Sizes may differ: the smaller reads as zeroes behind its end. */
int co_pool_diff(struct pool *pool, const char *a, const char *b,
                 int (*each)(uint64_t offset, uint64_t length, void *arg), void *arg,
                 struct error *err);

/* ---- I/O ---- */

/* Open "VOLUME" or "VOLUME@SNAPSHOT". Handles are counted: the same volume may be opened many
 * times. Snapshots are read-only: writes to them get -EPERM. */
int co_volume_open(struct pool *pool, const char *name, struct volume **ret_volume,
                   struct error *err);
/* NULL is fine; nothing may be in flight. [any loop] */
void co_volume_close(struct volume *volume);
struct loop *volume_loop(const struct volume *volume); /* its pool's. [any loop] */
uint64_t volume_size(const struct volume *volume);     /* now: changes with resize. [any loop] */
bool volume_is_readonly(const struct volume *volume);  /* [any loop] */
const char *volume_name(const struct volume *volume);  /* "VOL" or "VOL@SNAP", as it is now */
/* From now on requests on this handle are submitted and answered on @loop, where a pool's own is
 * what a handle begins with. They cross over in batches, one wake-up for many; co_volume_*
 * functions on the handle work from any loop in any case. Nothing may be in flight. [any loop]
 * -ENOMEM */
int co_volume_use_from(struct volume *volume, struct loop *loop);
/* False where the volume's property discard is off: a protocol then does not offer discards, and
 * answers those that come with success, doing nothing. [any loop] */
bool volume_discards(const struct volume *volume);
/* Who uses the handle, for statistics: "nbd unix pid 4711". At most 159 characters are kept. */
void volume_set_user(struct volume *volume, const char *user);
const char *volume_user(const struct volume *volume); /* empty where nobody was named */
/* What finds no space waits for it, where the volume's property on-full says nothing; otherwise it
 * fails with -ENOSPC, as it does to begin with. [the pool's loop; nothing in flight] */
void volume_set_wait_when_full(struct volume *volume, bool wait);
/* Nobody waits for the handle's answers any more: its requests that wait for the volume's limits or
 * for space end with -ECANCELED, and so do those that come later and would have to. The rest ends as
 * ever. [the loop that the handle is used from] */
void volume_cancel(struct volume *volume);
/* The handle's requests are waited for, as it is to be closed or its user to stop: those that wait
 * for the limits go at once, and are counted against what comes after them, up to an hour's worth;
 * those that wait for space, or for more than that, end with -ECANCELED. So do those that come
 * later, until it is turned off, which only the pool's loop can. [the loop that the handle is used
 * from] */
void volume_hurry(struct volume *volume, bool hurry);

enum volume_op {
        VOLUME_READ,
        VOLUME_WRITE,
        VOLUME_FLUSH,   /* covers every write answered before, through any handle of the pool */
        VOLUME_DISCARD, /* the range reads as zeroes and gives its space back */
        VOLUME_ZERO,    /* reads as zeroes */
};
enum {
        VOLUME_FUA = 1, /* answer when durable; on WRITE, DISCARD, ZERO */
        /* WRITE from memory that may change under way: copied once, CRC of the copy */
        VOLUME_UNSTABLE = 2,
        /* answer when it is written, if not flushed: it survives the end of this process, though not
         * of the power. For those whom the process serves and who outlive it. On WRITE, DISCARD,
         * ZERO. */
        VOLUME_LOGGED = 4,
};

/* One request. Any offset and length down to a byte inside the volume; for READ and WRITE @iov's
 * lengths add up to @length. Buffers need no alignment; aligned to MEMBER_BUFFER_ALIGN they are
 * used without a copy. result: 0, or
 *
 * -EINVAL  out of range
 * -EPERM   read-only
 * -ENOSPC  no space, and none on its way back
 * -ECANCELED  by volume_cancel() or volume_hurry(): it may be begun anew, all of it
 * -EIO     also for a checksum that fails: buffers then hold zeroes where nothing good was read */
struct volume_request {
        enum volume_op op;
        unsigned flags;
        uint64_t offset, length;
        const struct iovec *iov;
        unsigned n_iov;
        void (*done)(struct volume_request *request, int result);
        /* the engine's */
        struct volume *volume;
        uint64_t began_ns;
        bool waited;      /* for space */
        struct list link; /* while it waits for the volume's limits, or for space */
        struct loop_task task;
        int result;
        struct llist_node crossing_link; /* these two: crossing.c's */
        void (*crossing_done)(struct volume_request *request, int result);
};
/* done() runs from the loop, never from inside this call. The request must live until then.
 * [the loop that the handle is used from] */
void volume_submit(struct volume *volume, struct volume_request *request);

/* [any loop] for these and for co_volume_status(), co_volume_depth(), co_volume_changed() */
int co_volume_read(struct volume *volume, void *buffer, uint64_t length, uint64_t offset);
int co_volume_write(struct volume *volume, const void *buffer, uint64_t length, uint64_t offset,
                    unsigned flags);
int co_volume_flush(struct volume *volume);
int co_volume_discard(struct volume *volume, uint64_t offset, uint64_t length, unsigned flags);
int co_volume_zero(struct volume *volume, uint64_t offset, uint64_t length, unsigned flags);

enum extent_flags { EXTENT_HOLE = 1, EXTENT_ZERO = 2, EXTENT_CHANGED = 4 };
struct volume_extent {
        uint64_t length;
        unsigned flags; /* EXTENT_HOLE: takes no space; EXTENT_ZERO: reads as zeroes */
};
/* Extents from @offset on, neighbours with equal flags merged, until @length is covered, @n_max are
 * filled, or a call has looked at enough: then the caller asks on from there. *ret_n is at least 1;
 * the extents never add up to more than @length. */
int co_volume_status(struct volume *volume, uint64_t offset, uint64_t length,
                     struct volume_extent *extents, size_t n_max, size_t *ret_n);
/* The same, but flags are depths: 0 where nothing was ever written or all of it was discarded, 1
 * where the data (or the discard of a snapshot's data) are the volume's own, n where they are those
 * of the n-1st root above: of the snapshots that it and its snapshots stand on. */
int co_volume_depth(struct volume *volume, uint64_t offset, uint64_t length,
                    struct volume_extent *extents, size_t n_max, size_t *ret_n);
/* The same, but flags are EXTENT_CHANGED where the content may differ from @since's, and 0 where it
 * is equal; behind @since's end that reads as zeroes. Exact to the block, except that a block which
 * was written anew counts as changed, whatever was written. @since is any snapshot or volume of the
 * same pool, and @volume may be written to meanwhile: each part is told as it is at some instant of
 * the call.
 *
 * -EXDEV  @since is of another pool */
int co_volume_changed(struct volume *volume, struct volume *since, uint64_t offset, uint64_t length,
                      struct volume_extent *extents, size_t n_max, size_t *ret_n);
