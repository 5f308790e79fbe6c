/* marks.c - linked into a tarn of the tests' own (tarn_marked): it dies by SIGKILL when a thread of it comes past a
 * place for the Nth time, as TARN_DIES_AT=PLACE:N says.
 *
 * The linker leads calls of the engine's functions from one of its files to another through here (--wrap); the tarn
 * that is installed has none of this. TARN_DIES_AT=list prints the places. */
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "pool/codec.h"
#include "pool/engine.h"
#include "pool/format.h"
#include "vmm-glue/vhost-user/internal.h"

#define PLACES(PLACE)                                                                              \
        PLACE(DISK_WRITE, "disk-write")       /* a write to a member begins */                     \
        PLACE(DISK_FLUSH, "disk-flush")       /* a flush of a member begins */                     \
        PLACE(MAPPED, "mapped")               /* a write is in the map, not in the log */          \
        PLACE(LOG_WRITE, "log-write")         /* pages of the log are to be written */             \
        PLACE(LOG_WRITTEN, "log-written")     /* they are, and nobody is answered */               \
        PLACE(CUT, "cut")                     /* a checkpoint begins */                            \
        PLACE(PAGES_WRITTEN, "pages-written") /* its pages are, and not flushed */                 \
        PLACE(SUPERBLOCK, "superblock")       /* all but its superblock is durable */              \
        PLACE(SUPERBLOCK_WRITTEN, "superblock-written") /* that is, and is not flushed */          \
        PLACE(CREATE, "create")                         /* these are done in memory, and not */    \
        PLACE(SNAPSHOT, "snapshot")                     /* yet in the log on disk */               \
        PLACE(DELETE, "delete")                                                                    \
        PLACE(RESIZE, "resize")                                                                    \
        PLACE(COLLECT, "collect")                     /* what a deletion leaves is to go */        \
        PLACE(GUEST_ANSWER, "guest-answer")           /* before a request's place in the ring */   \
        PLACE(GUEST_ANSWERED, "guest-answered")       /* and after it */                           \
        PLACE(REPLAY, "replay")                       /* a recovery begins with the log */         \
        PLACE(REPLAY_WRITE, "replay-write")           /* one of its writes is in the map again */  \
        PLACE(REPLAYED, "replayed")                   /* all of it is */                           \
        PLACE(REPLAY_PAGES, "replay-pages")           /* its checkpoint's pages are written */     \
        PLACE(REPLAY_SUPERBLOCK, "replay-superblock") /* and are flushed */                        \
        PLACE(REPLAY_ENDS, "replay-ends")             /* its superblock is written */              \
        PLACE(GUEST_RESUMES, "guest-resumes")         /* what was in flight is known again */

#define PLACE_ID(id, name) PLACE_##id,
enum place { PLACES(PLACE_ID) N_PLACES };

#define PLACE_NAME(id, name) name,
static const char *const names[] = {PLACES(PLACE_NAME)};

static enum place wanted = N_PLACES;
static atomic_long left;

__attribute__((constructor)) static void read_wanted(void)
{
        const char *text = getenv("TARN_DIES_AT"), *colon = text ? strchr(text, ':') : NULL;

        if (text && strcmp(text, "list") == 0) {
                for (unsigned i = 0; i < N_PLACES; i++)
                        puts(names[i]);
                exit(0);
        }
        for (unsigned i = 0; colon && i < N_PLACES; i++)
                if (strlen(names[i]) == (size_t)(colon - text) &&
                    strncmp(names[i], text, strlen(names[i])) == 0)
                        wanted = i;
        if (text && wanted == N_PLACES) {
                fprintf(stderr, "TARN_DIES_AT=%s names no place\n", text);
                exit(2);
        }
        if (colon)
                atomic_store(&left, strtol(colon + 1, NULL, 10));
}

static void pass(enum place place)
{
        if (place == wanted && atomic_fetch_sub(&left, 1) == 1)
                raise(SIGKILL);
}

/* ---- the members ---- */

void __real_member_submit(struct member *m, struct member_io *io);
void __wrap_member_submit(struct member *m, struct member_io *io);

void __wrap_member_submit(struct member *m, struct member_io *io)
{
        if (io->op == MEMBER_WRITE)
                pass(PLACE_DISK_WRITE);
        if (io->op == MEMBER_FLUSH)
                pass(PLACE_DISK_FLUSH);
        __real_member_submit(m, io);
}

/* ---- the log, and checkpoints ---- */

int __real_map_write(struct pool *pool, struct root *root, uint64_t block, uint32_t n,
                     uint64_t address, const uint32_t *crc, struct entry *ret_missing);
int __wrap_map_write(struct pool *pool, struct root *root, uint64_t block, uint32_t n,
                     uint64_t address, const uint32_t *crc, struct entry *ret_missing);

int __wrap_map_write(struct pool *pool, struct root *root, uint64_t block, uint32_t n,
                     uint64_t address, const uint32_t *crc, struct entry *ret_missing)
{
        int r = __real_map_write(pool, root, block, n, address, crc, ret_missing);

        if (r == 0)
                pass(pool->recovering ? PLACE_REPLAY_WRITE : PLACE_MAPPED);
        return r;
}

int __real_co_write_frozen(struct pool *pool, const struct frozen *frozen);
int __wrap_co_write_frozen(struct pool *pool, const struct frozen *frozen);

int __wrap_co_write_frozen(struct pool *pool, const struct frozen *frozen)
{
        const struct log_page_disk *first = frozen->n > 0 ? frozen->page[0].page : NULL;
        bool is_log = first && le32_get(first->magic) == LOG_MAGIC;

        if (is_log)
                pass(PLACE_LOG_WRITE);
        int r = __real_co_write_frozen(pool, frozen);
        if (is_log)
                pass(PLACE_LOG_WRITTEN);
        else
                pass(pool->recovering ? PLACE_REPLAY_PAGES : PLACE_PAGES_WRITTEN);
        return r;
}

int __real_catalog_freeze(struct pool *pool, struct frozen *frozen);
int __wrap_catalog_freeze(struct pool *pool, struct frozen *frozen);

int __wrap_catalog_freeze(struct pool *pool, struct frozen *frozen)
{
        if (!pool->recovering)
                pass(PLACE_CUT);
        return __real_catalog_freeze(pool, frozen);
}

int __real_co_super_write_all(struct pool *pool, const struct super *super, struct error *err);
int __wrap_co_super_write_all(struct pool *pool, const struct super *super, struct error *err);

int __wrap_co_super_write_all(struct pool *pool, const struct super *super, struct error *err)
{
        pass(pool->recovering ? PLACE_REPLAY_SUPERBLOCK : PLACE_SUPERBLOCK);
        int r = __real_co_super_write_all(pool, super, err);
        pass(pool->recovering ? PLACE_REPLAY_ENDS : PLACE_SUPERBLOCK_WRITTEN);
        return r;
}

/* ---- operations on volumes and snapshots ---- */

void __real_op_log(struct pool *pool, const struct catalog_op *op, bool more);
void __wrap_op_log(struct pool *pool, const struct catalog_op *op, bool more);

void __wrap_op_log(struct pool *pool, const struct catalog_op *op, bool more)
{
        __real_op_log(pool, op, more);
        switch (op->type) {
        case LOG_CREATE:
                pass(PLACE_CREATE);
                break;
        case LOG_SNAPSHOT:
                pass(PLACE_SNAPSHOT);
                break;
        case LOG_UNNAME:
                pass(PLACE_DELETE);
                break;
        case LOG_RESIZE:
                pass(PLACE_RESIZE);
                break;
        default:
                break;
        }
}

void __real_co_collect_after(struct pool *pool, struct root *root);
void __wrap_co_collect_after(struct pool *pool, struct root *root);

void __wrap_co_collect_after(struct pool *pool, struct root *root)
{
        pass(PLACE_COLLECT);
        __real_co_collect_after(pool, root);
}

/* ---- recovery ---- */

int __real_co_log_replay(struct pool *pool, bool *ret_dirty, struct error *err);
int __wrap_co_log_replay(struct pool *pool, bool *ret_dirty, struct error *err);

int __wrap_co_log_replay(struct pool *pool, bool *ret_dirty, struct error *err)
{
        pass(PLACE_REPLAY);
        int r = __real_co_log_replay(pool, ret_dirty, err);
        pass(PLACE_REPLAYED);
        return r;
}

/* ---- guests ---- */

void __real_queue_done(struct vhost_req *req);
void __wrap_queue_done(struct vhost_req *req);

void __wrap_queue_done(struct vhost_req *req)
{
        pass(PLACE_GUEST_ANSWER);
        __real_queue_done(req);
        pass(PLACE_GUEST_ANSWERED);
}

int __real_inflight_recover_split(struct queue *queue, uint16_t ring_used, bool *ret_valid);
int __wrap_inflight_recover_split(struct queue *queue, uint16_t ring_used, bool *ret_valid);

int __wrap_inflight_recover_split(struct queue *queue, uint16_t ring_used, bool *ret_valid)
{
        int r = __real_inflight_recover_split(queue, ring_used, ret_valid);

        pass(PLACE_GUEST_RESUMES);
        return r;
}
