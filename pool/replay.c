/* replay.c - what the log holds beyond the newest superblock, applied again in memory.
 *
 * Pass one makes the slabs that the log makes and sets every block that it names apart. Then the
 * data of records above the durable mark is read: what did not arrive is dropped. Pass two applies
 * the records under their pages' epochs. Nothing is written: a crash in here repeats the same
 * replay [I1]. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include "pool/engine.h"
#include "pool/full.h"

#define READ_PAGES 64u /* pages of the ring read at once; a bit each in replay.ahead_read */
#define VERIFY_MAX 16u /* records above the mark verified at once, up to 1 MiB each */

struct verify {
        uint64_t address;
        uint32_t n;
        const le32 *crc;
        uint64_t bad[LEAF_BLOCKS / 64];
        uint64_t record;
};

struct replay {
        struct pool *pool;
        struct log_page_disk *page; /* the chain, in order */
        uint8_t *bad;               /* of each: the legs that do not have it, a bit each */
        size_t n_pages, room;
        struct log_page_disk *leg[SLAB_LEGS_MAX]; /* what was read ahead of each leg */
        uint64_t ahead;                           /* first sequence in it */
        unsigned n_ahead;                         /* pages in it */
        uint64_t ahead_read; /* bit i: page i of it could be read on some leg */
        uint64_t mark;
        struct verify *verify;
        size_t n_verify, verify_room;
        size_t next_verify;
        struct catalog_op *group; /* records of an operation that goes on */
        size_t n_group;
        uint64_t n_dropped;
};

/* ---- reading the chain ---- */

/* One leg of the stretch in rp->ahead. Where that fails it is read page by page: a sector that
 * cannot be read must not take its neighbours with it. */
static void co_leg_read(struct replay *rp, struct disk *disk, unsigned leg, uint64_t offset)
{
        struct log_page_disk *pages = rp->leg[leg];
        int r = co_member_read(disk->member, pages, (size_t)rp->n_ahead * BLOCK, offset);
        if (r == 0) {
                rp->ahead_read = UINT64_MAX;
                return;
        }
        log_error("pool '%s': cannot read the log on member '%s' at byte %llu: %s", rp->pool->name,
                  disk->member->path, (unsigned long long)offset, strerror(-r));
        for (unsigned i = 0; i < rp->n_ahead; i++) {
                r = co_member_read(disk->member, &pages[i], BLOCK, offset + (uint64_t)i * BLOCK);
                if (r == 0)
                        rp->ahead_read |= UINT64_C(1) << i;
                else
                        memset(&pages[i], 0, BLOCK);
        }
}

/* Both legs of a stretch of the ring that begins at @sequence and stays within a slab. */
static void co_read_ahead(struct replay *rp, uint64_t sequence)
{
        struct pool *pool = rp->pool;
        uint32_t at = (uint32_t)(sequence % pool->log.ring_pages) % pool->slab_blocks;
        unsigned n_legs;
        uint64_t shift;
        struct leg *legs = log_page_legs(pool, sequence, &n_legs, &shift);
        rp->ahead = sequence;
        rp->n_ahead = (unsigned)min_u64(READ_PAGES, pool->slab_blocks - at);
        rp->ahead_read = 0;
        for (unsigned i = 0; i < SLAB_LEGS_MAX; i++) {
                if (i < n_legs)
                        co_leg_read(rp, pool->disk[legs[i].member], i, legs[i].offset + shift);
                else
                        memset(rp->leg[i], 0, READ_PAGES * BLOCK);
        }
}

static bool page_is_ours(const struct pool *pool, const struct log_page_disk *d)
{
        return le32_get(d->magic) == LOG_MAGIC &&
               le64_get(d->incarnation) == pool->log.incarnation &&
               memcmp(d->pool_uuid, pool->uuid, 16) == 0 &&
               le32_get(d->crc32c) == crc32c(0, (const char *)d + 8, BLOCK - 8);
}

/* A page of this incarnation at @sequence's place, on whichever leg @accept takes it; NULL: on
 * none. */
static const struct log_page_disk *
co_page_at(struct replay *rp, uint64_t sequence,
           bool (*accept)(const struct replay *, const struct log_page_disk *, uint64_t sequence))
{
        if (sequence < rp->ahead || sequence >= rp->ahead + rp->n_ahead)
                co_read_ahead(rp, sequence);
        for (unsigned i = 0; i < SLAB_LEGS_MAX; i++) {
                const struct log_page_disk *d = rp->leg[i] + (sequence - rp->ahead);
                if (page_is_ours(rp->pool, d) && accept(rp, d, sequence))
                        return d;
        }
        return NULL;
}

static bool page_was_read(const struct replay *rp, uint64_t sequence)
{
        return rp->ahead_read >> (sequence - rp->ahead) & 1;
}

static bool page_continues(const struct replay *rp, const struct log_page_disk *d,
                           uint64_t sequence)
{
        const struct pool *pool = rp->pool;
        return le64_get(d->sequence) == sequence && le32_get(d->chain) == pool->log.chain &&
               le64_get(d->first_record) == pool->log.next_record &&
               le64_get(d->epoch) >= pool->epoch && le64_get(d->epoch) <= BIRTH_MAX &&
               le16_get(d->used) <= sizeof(d->records) &&
               le64_get(d->mark) <= pool->log.next_record;
}

static bool page_is_later(const struct replay *rp, const struct log_page_disk *d, uint64_t sequence)
{
        return le64_get(d->sequence) >= sequence;
}

/* The record at *at, or NULL at the end of the page; *at moves on. Its length is sound. */
static const struct log_head_disk *record_next(const struct log_page_disk *d, uint32_t *at)
{
        uint32_t used = le16_get(d->used);
        if (*at + sizeof(struct log_head_disk) > used)
                return NULL;
        const struct log_head_disk *head = (const void *)(d->records + *at);
        uint32_t length = le16_get(head->length);
        if (length < sizeof(*head) || length % 8 || *at + length > used)
                return NULL;
        *at += length;
        return head;
}

static uint64_t records_in(const struct log_page_disk *d)
{
        uint64_t n = 0;
        for (uint32_t at = 0; record_next(d, &at);)
                n++;
        return n;
}

/* The legs that hold something else than @d, which was read of another; a bit each. */
static uint8_t legs_without(struct replay *rp, const struct log_page_disk *d, uint64_t sequence)
{
        unsigned n_legs;
        uint64_t shift;
        uint8_t bad = 0;
        log_page_legs(rp->pool, sequence, &n_legs, &shift);
        for (unsigned i = 0; i < n_legs; i++)
                if (memcmp(rp->leg[i] + (sequence - rp->ahead), d, BLOCK))
                        bad |= (uint8_t)(1u << i);
        return bad;
}

static int chain_append(struct replay *rp, const struct log_page_disk *d, uint64_t sequence)
{
        if (rp->n_pages == rp->room) {
                size_t room = rp->room ? rp->room * 2 : 64;
                struct log_page_disk *grown = realloc(rp->page, room * sizeof(*grown));
                if (!grown)
                        return -ENOMEM;
                rp->page = grown;
                uint8_t *bad = realloc(rp->bad, room * sizeof(*bad));
                if (!bad)
                        return -ENOMEM;
                rp->bad = bad;
                rp->room = room;
        }
        rp->bad[rp->n_pages] = legs_without(rp, d, sequence);
        rp->page[rp->n_pages++] = *d;
        return 0;
}

static void leg_is_damaged(struct pool *pool, const struct leg *leg, uint64_t shift)
{
        const char *path = pool->disk[leg->member]->member->path;
        uint64_t offset = leg->offset + shift;
        log_error("pool '%s': a page of its log is damaged on member '%s' at byte %llu, and read "
                  "from another",
                  pool->name, path, (unsigned long long)offset);
        pool_tell(pool, &(struct pool_event){.kind = POOL_EVENT_CHECKSUM,
                                             .sentence = "a page of the log is damaged",
                                             .member = path,
                                             .member_offset = offset});
        pool->checksum_errors++;
        pool->log_damaged_legs++;
}

/* A crash may leave a page on one leg only as long as nobody knows it to be flushed: what lies below
 * the mark was on all of them. */
static void bad_legs_report(struct replay *rp)
{
        for (size_t p = 0; p < rp->n_pages; p++) {
                const struct log_page_disk *d = &rp->page[p];
                unsigned n_legs;
                uint64_t shift;
                if (!rp->bad[p] || le64_get(d->first_record) + records_in(d) > rp->mark)
                        continue;
                const struct leg *legs =
                    log_page_legs(rp->pool, le64_get(d->sequence), &n_legs, &shift);
                for (unsigned i = 0; i < n_legs; i++)
                        if (rp->bad[p] >> i & 1)
                                leg_is_damaged(rp->pool, &legs[i], shift);
        }
}

static int log_is_damaged(struct pool *pool, const char *why)
{
        log_error("pool '%s': its log is damaged: %s; the pool is opened read-only, and what was "
                  "written last is missing",
                  pool->name, why);
        snprintf(pool->damage, sizeof(pool->damage), "its log is damaged: %s", why);
        pool->readonly = true;
        return 0;
}

/* Behind the end of the chain: a page that knew more to be durable than the chain holds proves
 * damage. */
static int co_scan_beyond(struct replay *rp, bool *ret_found)
{
        struct pool *pool = rp->pool;
        uint64_t end = pool->log.start + pool->log.ring_pages;
        for (uint64_t s = pool->log.next; s < end; s++) {
                const struct log_page_disk *d = co_page_at(rp, s, page_is_later);
                if (!d)
                        continue;
                *ret_found = true;
                if (le64_get(d->mark) > pool->log.next_record)
                        return log_is_damaged(
                            pool,
                            "a later page says that records were durable which are not there");
                if (le64_get(d->generation) > pool->generation)
                        return log_is_damaged(pool,
                                              "it names a newer superblock than any member holds");
        }
        return 0;
}

static int co_chain_read(struct replay *rp, bool *ret_dirty)
{
        struct pool *pool = rp->pool;
        struct intent_log *log = &pool->log;
        rp->mark = log->next_record;
        uint64_t epoch = pool->epoch;
        const struct log_page_disk *d;
        while (log->next < log->start + log->ring_pages &&
               (d = co_page_at(rp, log->next, page_continues))) {
                if (le64_get(d->generation) > pool->generation)
                        return log_is_damaged(pool,
                                              "it names a newer superblock than any member holds");
                if (le64_get(d->generation) == pool->generation)
                        pool->committed_by_log = true;
                int r = chain_append(rp, d, log->next);
                if (r < 0)
                        return r;
                rp->mark = max_u64(rp->mark, le64_get(d->mark));
                log->chain = le32_get(d->crc32c);
                log->next_record += records_in(d);
                log->next++;
                pool->epoch = le64_get(d->epoch);
        }
        pool->epoch = epoch;
        *ret_dirty = rp->n_pages > 0;
        bad_legs_report(rp);
        /* What ends the chain must have been seen: it may be there, and durable. */
        if (log->next < log->start + log->ring_pages && !page_was_read(rp, log->next))
                return log_is_damaged(pool, "a page of it cannot be read on any member");
        /* Behind what is held lies nothing: its log was emptied a moment ago, and has not been out of
         * the hands of its processes since. Reading all of it would only make its users wait. */
        return pool->options.held ? 0 : co_scan_beyond(rp, ret_dirty);
}

/* ---- pass one ---- */

static int verify_add(struct replay *rp, const struct log_write_disk *w, uint64_t record)
{
        if (rp->n_verify == rp->verify_room) {
                size_t room = rp->verify_room ? rp->verify_room * 2 : 64;
                struct verify *grown = realloc(rp->verify, room * sizeof(*grown));
                if (!grown)
                        return -ENOMEM;
                rp->verify = grown;
                rp->verify_room = room;
        }
        rp->verify[rp->n_verify++] = (struct verify){.address = le64_get(w->address),
                                                     .n = le32_get(w->n_blocks),
                                                     .crc = w->crc32c,
                                                     .record = record};
        return 0;
}

static bool write_is_sound(const struct log_write_disk *w)
{
        uint32_t n = le32_get(w->n_blocks);
        uint64_t block = le64_get(w->block);
        return le16_get(w->head.length) >= sizeof(*w) && n >= 1 && n <= LEAF_BLOCKS &&
               le16_get(w->head.length) >= sizeof(*w) + 4 * n &&
               le64_get(w->address) <= ADDRESS_MAX && block < VOLUME_SIZE_MAX / BLOCK &&
               block % LEAF_BLOCKS + n <= LEAF_BLOCKS;
}

static int name_record(struct replay *rp, const struct log_head_disk *head, uint64_t record,
                       struct error *err)
{
        struct pool *pool = rp->pool;
        if (head->type == LOG_SLAB) {
                const struct log_slab_disk *s = (const void *)head;
                if (le16_get(head->length) < sizeof(*s))
                        return error_set(err, -EUCLEAN, "a record of the log is cut short");
                return slab_replay(pool, le32_get(s->index), &s->slab, err);
        }
        if (head->type != LOG_WRITE)
                return 0;
        const struct log_write_disk *w = (const void *)head;
        if (!write_is_sound(w) ||
            space_mark_busy(pool, le64_get(w->address), le32_get(w->n_blocks)) < 0)
                return error_set(err, -EUCLEAN,
                                 "record %llu of the log names blocks that are in use",
                                 (unsigned long long)record);
        if (record >= rp->mark && verify_add(rp, w, record) < 0)
                return error_set(err, -ENOMEM, "out of memory");
        return 0;
}

static int co_each_record(struct replay *rp,
                          int (*co_each)(struct replay *, const struct log_head_disk *, uint64_t,
                                         struct error *),
                          struct error *err)
{
        for (size_t p = 0; p < rp->n_pages; p++) {
                const struct log_page_disk *d = &rp->page[p];
                const struct log_head_disk *head;
                uint64_t record = le64_get(d->first_record);
                rp->pool->epoch = le64_get(d->epoch);
                for (uint32_t at = 0; (head = record_next(d, &at)); record++) {
                        int r = co_each(rp, head, record, err);
                        if (r < 0)
                                return r;
                }
        }
        return 0;
}

/* ---- the tail ---- */

/* A block that cannot be read says nothing about whether it arrived, and a flush may have been
 * answered for it: it takes its place, so that reading it is an error and never its old content. */
static bool co_block_was_read(struct replay *rp, const struct batch_io *io, char *data, uint32_t i)
{
        const struct member *member = io->disk->member;
        uint64_t offset = io->io.offset + (uint64_t)i * BLOCK;
        int r = io->result;
        if (r < 0 && io->io.length > BLOCK) /* the others of its record may be all right */
                r = co_member_read(io->disk->member, data, BLOCK, offset);
        if (r < 0)
                log_error("pool '%s': a block that was written last cannot be read on member '%s' "
                          "at byte %llu: %s",
                          rp->pool->name, member->path, (unsigned long long)offset, strerror(-r));
        return r == 0;
}

static void co_verify_judge(struct replay *rp, struct verify *v, const struct batch_io *io)
{
        for (uint32_t i = 0; i < v->n; i++) {
                char *data = (char *)io->iov.iov_base + (size_t)i * BLOCK;
                if (io->result < 0 && !co_block_was_read(rp, io, data, i))
                        continue;
                if (crc32c(0, data, BLOCK) == le32_get(v->crc[i]))
                        continue;
                v->bad[i / 64] |= UINT64_C(1) << (i % 64);
                rp->n_dropped++;
        }
}

static int co_verify_tail(struct replay *rp)
{
        struct pool *pool = rp->pool;
        if (rp->n_verify == 0)
                return 0;
        struct batch_io ios[VERIFY_MAX];
        size_t window = min_u64(VERIFY_MAX, rp->n_verify);
        char *data = aligned_alloc(BLOCK, window * LEAF_BLOCKS * BLOCK);
        if (!data)
                return -ENOMEM;
        for (size_t first = 0; first < rp->n_verify; first += window) {
                size_t n = min_u64(window, rp->n_verify - first);
                for (size_t i = 0; i < n; i++) {
                        const struct verify *v = &rp->verify[first + i];
                        const struct slab *slab = address_slab(pool, v->address);
                        ios[i] = (struct batch_io){.disk = pool->disk[slab->leg[0].member]};
                        ios[i].io.op = MEMBER_READ;
                        ios[i].io.offset = leg_offset(slab, 0, v->address, pool->slab_blocks);
                        ios[i].io.length = (uint64_t)v->n * BLOCK;
                        ios[i].iov.iov_base = data + i * LEAF_BLOCKS * BLOCK;
                }
                co_batch(ios, n);
                for (size_t i = 0; i < n; i++)
                        co_verify_judge(rp, &rp->verify[first + i], &ios[i]);
        }
        free(data);
        return 0;
}

/* ---- pass two ---- */

static struct root *co_live_root(struct replay *rp, uint64_t id, struct error *err)
{
        struct root *root = root_by_id(rp->pool, id);
        if (!root || (root->state != ROOT_LIVE && root->state != ROOT_BASE)) {
                error_set(err, -EUCLEAN, "the log writes to root %llu, which is no volume",
                          (unsigned long long)id);
                return NULL;
        }
        return co_root_load(rp->pool, root, err) < 0 ? NULL : root;
}

static int co_apply_blocks(struct replay *rp, struct root *root, uint64_t block, uint32_t n,
                           uint64_t address, const le32 *crc32, struct error *err)
{
        uint32_t crc[LEAF_BLOCKS];
        struct entry missing;
        for (uint32_t i = 0; i < n; i++)
                crc[i] = le32_get(crc32[i]);
        int r;
        while ((r = map_write(rp->pool, root, block, n, address, crc, &missing)) == -EAGAIN) {
                r = co_map_load(rp->pool, &missing);
                if (r < 0)
                        break;
        }
        return r == 0
                   ? 0
                   : error_set(err, r, "a block of a map is damaged on every member that holds it");
}

static int co_apply_write(struct replay *rp, const struct log_write_disk *w, uint64_t record,
                          struct error *err)
{
        const struct verify *v = NULL;
        if (rp->next_verify < rp->n_verify && rp->verify[rp->next_verify].record == record)
                v = &rp->verify[rp->next_verify++];
        struct root *root = co_live_root(rp, le64_get(w->root_id), err);
        if (!root)
                return -EUCLEAN;
        uint32_t n = le32_get(w->n_blocks), i = 0;
        if (le64_get(w->block) + n > tree_span(root->body->map.height))
                return error_set(err, -EUCLEAN, "the log writes past the end of root %llu",
                                 (unsigned long long)root->id);
        while (i < n) {
                uint32_t first = i;
                while (i < n && !(v && v->bad[i / 64] >> (i % 64) & 1))
                        i++;
                int r = i == first
                            ? 0
                            : co_apply_blocks(rp, root, le64_get(w->block) + first, i - first,
                                              le64_get(w->address) + first, w->crc32c + first, err);
                if (r < 0)
                        return r;
                while (i < n && v && v->bad[i / 64] >> (i % 64) & 1)
                        i++;
        }
        return 0;
}

static int co_apply_clear(struct replay *rp, const struct log_clear_disk *c, struct error *err)
{
        if (le16_get(c->head.length) < sizeof(*c))
                return error_set(err, -EUCLEAN, "a record of the log is cut short");
        struct root *root = co_live_root(rp, le64_get(c->root_id), err);
        if (!root)
                return -EUCLEAN;
        uint64_t first = le64_get(c->block), n = le64_get(c->n_blocks);
        uint32_t type = le32_get(c->type);
        uint64_t span = tree_span(root->body->map.height);
        if ((type != ENTRY_ABSENT && type != ENTRY_ZERO) || n > LOG_CLEAR_LEAVES * LEAF_BLOCKS ||
            first > span || n > span - first)
                return error_set(err, -EUCLEAN, "the log discards past the end of root %llu",
                                 (unsigned long long)root->id);
        bool changed;
        int r = co_map_clear(rp->pool, root, first, n, (uint8_t)type, &changed);
        return r == 0
                   ? 0
                   : error_set(err, r, "a block of a map is damaged on every member that holds it");
}

static int co_apply_group(struct replay *rp, struct error *err)
{
        struct pool *pool = rp->pool;
        int r = 0;
        for (size_t i = 0; i < rp->n_group && r == 0; i++) {
                r = co_op_prepare(pool, &rp->group[i], err);
                if (r == 0) {
                        r = op_apply(pool, &rp->group[i]);
                        if (r < 0)
                                error_set(
                                    err, r,
                                    "the log holds an operation that does not fit the catalog");
                }
        }
        for (size_t i = rp->n_group; i-- > 0 && r == 0;) /* as co_delete() does */
                if (rp->group[i].type == LOG_UNNAME || rp->group[i].type == LOG_RESTORE)
                        r = co_collect(pool, root_by_id(pool, rp->group[i].root_id), err);
        rp->n_group = 0;
        return r;
}

static int co_apply_catalog(struct replay *rp, const struct log_head_disk *head, struct error *err)
{
        struct catalog_op op;
        if (op_decode(head, &op) < 0)
                return error_set(err, -EUCLEAN, "the log holds a record of unknown type %u",
                                 head->type);
        struct catalog_op *grown = realloc(rp->group, (rp->n_group + 1) * sizeof(*grown));
        if (!grown)
                return error_set(err, -ENOMEM, "out of memory");
        rp->group = grown;
        rp->group[rp->n_group++] = op;
        return head->flags & LOG_MORE ? 0 : co_apply_group(rp, err);
}

static int co_apply_record(struct replay *rp, const struct log_head_disk *head, uint64_t record,
                           struct error *err)
{
        switch (head->type) {
        case LOG_WRITE:
                return co_apply_write(rp, (const void *)head, record, err);
        case LOG_CLEAR:
                return co_apply_clear(rp, (const void *)head, err);
        case LOG_SLAB:
                return 0;
        default:
                return co_apply_catalog(rp, head, err);
        }
}

/* ---- all of it ---- */

int co_log_replay(struct pool *pool, bool *ret_dirty, struct error *err)
{
        struct replay rp = {.pool = pool, .ahead = UINT64_MAX};
        int r = 0;
        for (unsigned i = 0; i < SLAB_LEGS_MAX; i++) {
                rp.leg[i] = aligned_alloc(BLOCK, READ_PAGES * BLOCK);
                if (!rp.leg[i])
                        r = error_set(err, -ENOMEM, "out of memory");
        }
        *ret_dirty = false;
        if (r == 0 && (r = co_chain_read(&rp, ret_dirty)) < 0)
                error_set(err, r, "out of memory");
        if (r == 0)
                r = co_each_record(&rp, name_record, err);
        if (r == 0 && (r = co_verify_tail(&rp)) < 0)
                error_set(err, r, "out of memory");
        if (r == 0)
                r = co_each_record(&rp, co_apply_record, err);
        if (r == 0)
                space_recount_busy(pool);
        if (r == 0 && rp.n_pages)
                log_info("pool '%s' was not closed: %zu pages of log replayed, %llu blocks that "
                         "were never flushed "
                         "had not arrived",
                         pool->name, rp.n_pages, (unsigned long long)rp.n_dropped);
        for (unsigned i = 0; i < SLAB_LEGS_MAX; i++)
                free(rp.leg[i]);
        free(rp.page);
        free(rp.bad);
        free(rp.verify);
        free(rp.group);
        return r;
}
