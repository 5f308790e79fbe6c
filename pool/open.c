/* open.c - opening a pool from its members, replaying its log; closing it. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include "pool/codec.h"
#include "pool/full.h"
#include "pool/lifecycle.h"

/* ---- labels, without opening ---- */

static bool super_fits(const struct label *label, const struct super *super)
{
        return memcmp(label->pool_uuid, super->pool_uuid, 16) == 0;
}

int co_pool_read_label(struct member *member, struct pool_label *ret_label, struct error *err)
{
        struct label label;
        struct super super = {0};
        int r = co_label_read(member, &label, err);
        if (r < 0)
                return r;
        r = co_super_read(member, &super, NULL, err);
        if (r < 0 && r != -ENODATA && r != -EIO)
                return r;
        *ret_label = (struct pool_label){.index = label.index, .size_bytes = label.size_bytes};
        memcpy(ret_label->pool_uuid, label.pool_uuid, 16);
        memcpy(ret_label->member_uuid, label.member_uuid, 16);
        memcpy(ret_label->pool_name, label.pool_name, sizeof(label.pool_name));
        if (r == 0 && super_fits(&label, &super)) {
                ret_label->generation = super.generation;
                ret_label->n_members = super.n_members;
                memcpy(ret_label->pool_name, super.name, sizeof(super.name));
        }
        super_free(&super);
        return 0;
}

int co_pool_read_membership(struct member *member, uint8_t (**ret_uuids)[16], size_t *ret_n,
                            struct error *err)
{
        struct super super;
        int r = co_super_read(member, &super, NULL, err);
        if (r < 0)
                return r;
        uint8_t(*uuids)[16] = calloc(super.n_members, 16);
        if (!uuids) {
                super_free(&super);
                return error_set(err, -ENOMEM, "out of memory");
        }
        for (uint32_t i = 0; i < super.n_members; i++)
                memcpy(uuids[i], super.member[i].uuid, 16);
        *ret_uuids = uuids;
        *ret_n = super.n_members;
        super_free(&super);
        return 0;
}

/* ---- which members make the pool ---- */

struct candidate {
        struct member *member;
        struct label label;
        struct super super; /* newest on it; member NULL where there is none */
        unsigned n_ends;    /* that hold it */
        int why_none;       /* -EIO: it could not be read */
        bool used;
};

static void candidates_free(struct candidate *c, size_t n)
{
        for (size_t i = 0; c && i < n; i++)
                super_free(&c[i].super);
        free(c);
}

static int co_candidate_read(struct candidate *c, const struct candidate *first, struct error *err)
{
        int r = co_label_read(c->member, &c->label, err);
        if (r < 0)
                return r;
        if (memcmp(c->label.pool_uuid, first->label.pool_uuid, 16)) {
                error_set(err, -EMEDIUMTYPE, "'%s' belongs to pool '%s', and '%s' to pool '%s'",
                          c->member->path, c->label.pool_name, first->member->path,
                          first->label.pool_name);
                return error_hint(err, "name the members of one pool");
        }
        if (c->member->size_bytes < c->label.size_bytes)
                return error_set(err, -EIO,
                                 "'%s' has been truncated: it has %llu bytes, its label says %llu",
                                 c->member->path, (unsigned long long)c->member->size_bytes,
                                 (unsigned long long)c->label.size_bytes);
        c->member->size_bytes =
            c->label.size_bytes; /* what a larger disk has beyond is not the pool's */
        r = co_super_read(c->member, &c->super, &c->n_ends, err);
        if (r == 0 && !super_fits(&c->label, &c->super))
                super_free(&c->super);
        c->why_none = r == -EIO ? -EIO : -EUCLEAN;
        /* Left by an 'add' that never came to be, or damaged: who names it as a member tells. */
        return r == -ENODATA || r == -EIO ? 0 : r;
}

static struct candidate *candidate_find(struct candidate *c, size_t n, const uint8_t uuid[16])
{
        for (size_t i = 0; i < n; i++)
                if (memcmp(c[i].label.member_uuid, uuid, 16) == 0)
                        return &c[i];
        return NULL;
}

static void uuid_text(const uint8_t u[16], char text[37])
{
        snprintf(text, 37, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
                 u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12],
                 u[13], u[14], u[15]);
}

static int members_match(struct candidate *c, size_t n, const struct super *newest,
                         struct error *err)
{
        for (size_t i = 0; i < n; i++) {
                struct candidate *other = candidate_find(c, n, c[i].label.member_uuid);
                assert(other); /* c[i] itself, if no other */
                if (other != &c[i])
                        return error_set(
                            err, -EINVAL,
                            "'%s' and '%s' are the same member, or one is a copy of the other",
                            other->member->path, c[i].member->path);
        }
        for (uint32_t i = 0; i < newest->n_members; i++) {
                struct candidate *m = candidate_find(c, n, newest->member[i].uuid);
                if (!m) {
                        char uuid[37];
                        uuid_text(newest->member[i].uuid, uuid);
                        error_set(err, -ENXIO, "pool '%s' misses member %u of %u (uuid %s)",
                                  newest->name, i + 1, newest->n_members, uuid);
                        return error_hint(err, "connect the disk, or tell where it is now: tarn "
                                               "pool import MEMBER...");
                }
                if (!m->super.member)
                        return error_set(err, m->why_none, "'%s' has no readable superblock",
                                         m->member->path);
                if (m->super.generation + 1 < newest->generation) {
                        error_set(err, -ESTALE,
                                  "member '%s' is at generation %llu, the pool at %llu",
                                  m->member->path, (unsigned long long)m->super.generation,
                                  (unsigned long long)newest->generation);
                        return error_hint(err, "it missed writes, for it was away or is an old "
                                               "copy: bring back the right disk");
                }
                if (m->used)
                        return error_set(err, -EUCLEAN,
                                         "the superblock of pool '%s' names '%s' twice",
                                         newest->name, m->member->path);
                m->used = true;
        }
        return 0;
}

static const struct super *newest_super(const struct candidate *c, size_t n)
{
        const struct super *newest = &c[0].super;
        for (size_t i = 1; i < n; i++)
                if (c[i].super.generation > newest->generation)
                        newest = &c[i].super;
        return newest;
}

/* ---- opening ---- */

static void pool_take_super(struct pool *pool, const struct super *s)
{
        memcpy(pool->name, s->name, sizeof(pool->name));
        memcpy(pool->uuid, s->pool_uuid, 16);
        pool->created_ns = s->created_ns;
        pool->layout = s->layout;
        pool->stripe_blocks = s->stripe_blocks;
        pool->incompat = s->incompat;
        pool->ro_compat = s->ro_compat;
        pool->compat = s->compat;
        pool->slab_blocks = s->slab_blocks;
        pool->slab_shift = (uint32_t)__builtin_ctz(s->slab_blocks);
        pool->generation = s->generation;
        pool->epoch = s->epoch;
        pool->last_cut_epoch = s->epoch - 1;
        pool->catalog.root = s->catalog;
        pool->next_root_id = s->next_root_id;
}

static int pool_take_members(struct pool *pool, struct candidate *c, size_t n,
                             const struct super *s, struct error *err)
{
        for (uint32_t i = 0; i < s->n_members; i++) {
                struct candidate *m = candidate_find(c, n, s->member[i].uuid);
                assert(m); /* members_match() found each */
                if (s->member[i].size_bytes != m->label.size_bytes)
                        return error_set(
                            err, -EUCLEAN,
                            "the superblock and the label of '%s' differ about its size",
                            m->member->path);
                if (pool_add_disk(pool, m->member, s->member[i].uuid, s->member[i].size_bytes) < 0)
                        return error_set(err, -ENOMEM, "out of memory");
        }
        pool->n_disks_committed = pool->n_disks;
        pool->index = calloc(s->n_index ? s->n_index : 1, sizeof(*pool->index));
        if (!pool->index)
                return error_set(err, -ENOMEM, "out of memory");
        memcpy(pool->index, s->index, s->n_index * sizeof(*s->index));
        pool->n_index = s->n_index;
        return 0;
}

/* What is held was closed by another process, which may open it again: it is as a clean close left
 * it, or it is not ours to put right. */
static int check_closed(const struct pool *pool, struct candidate *c, size_t n,
                        const struct super *newest, struct error *err)
{
        for (size_t i = 0; i < pool->n_disks; i++) {
                const struct candidate *m = candidate_find(c, n, pool->disk[i]->uuid);
                assert(m); /* pool_take_members() took each from there */
                if (m->super.generation != newest->generation || m->n_ends < 2)
                        return error_set(err, -EUCLEAN, "member '%s' was not closed cleanly",
                                         m->member->path);
        }
        return 0;
}

/* Before anything else is written: members that missed the newest superblock get it, and what is
 * left of a next one goes. */
static int co_catch_up(struct pool *pool, struct candidate *c, size_t n, const struct super *newest,
                       struct error *err)
{
        for (size_t i = 0; i < pool->n_disks; i++)
                pool->disk[i]->writes_done++; /* what a killed process left in the disks' caches */
        if (co_flush_members(pool) < 0)
                return error_set(err, -EIO, "%s", pool->failed);
        int r = co_super_forget(pool, newest->generation + 1, err);
        for (size_t i = 0; i < pool->n_disks && r == 0; i++) {
                struct candidate *m = candidate_find(c, n, pool->disk[i]->uuid);
                assert(m); /* pool_take_members() took each from there */
                if (m->super.generation != newest->generation || m->n_ends < 2)
                        r = co_super_write(pool, newest, i, i + 1, err);
        }
        if (r == 0 && co_flush_members(pool) < 0)
                r = error_set(err, -EIO, "%s", pool->failed);
        return r;
}

static void timer_fire(struct loop_timer *timer)
{
        struct pool *pool = container_of(timer, struct pool, checkpoint_timer);
        filling_look(pool);
        worker_feed(pool);
        checkpoint_kick_if_useful(pool);
        loop_timer_set(pool->loop, timer,
                       loop_now_ns(pool->loop) +
                           pool->options.checkpoint_interval_ms * UINT64_C(1000000));
}

/* From here on it is written to, also in the background. */
static void co_start_writing(struct pool *pool)
{
        co_shrinks_find(pool);
        maker_kick(pool);
        worker_kick(pool);
        if (!pool->options.manual_checkpoints) {
                pool->checkpoint_timer.fire = timer_fire;
                timer_fire(&pool->checkpoint_timer);
        }
}

void co_pool_go(struct pool *pool)
{
        assert(pool->options.held);
        pool->options.held = false;
        co_start_writing(pool);
}

static int co_bring_up(struct pool *pool, const struct super *newest, struct error *err)
{
        bool dirty = false;
        pool->recovering = true;
        int r = co_slabs_load(pool, newest->n_slabs, err);
        if (r == 0)
                r = log_init(pool, newest, err);
        if (r == 0)
                r = co_catalog_load(pool, err);
        if (r == 0)
                r = co_log_replay(pool, &dirty, err);
        if (r == 0)
                r = co_collect_all(pool, err);
        if (r == 0 && dirty && pool->options.held)
                r = error_set(err, -EUCLEAN, "it was not closed cleanly");
        if (r == 0 && dirty && !pool->readonly)
                r = co_checkpoint_fresh(pool, err);
        pool->recovering = false;
        if (r < 0 || pool->readonly)
                return r;
        if (log_start(pool) < 0)
                return error_set(err, -ENOMEM, "out of memory");
        if (!pool->options.held)
                co_start_writing(pool);
        return 0;
}

static int co_open(struct loop *loop, struct candidate *c, size_t n,
                   const struct pool_options *options, struct pool **ret_pool, struct error *err)
{
        const struct super *newest = newest_super(c, n);
        if (!newest->member)
                return error_set(err, c[0].why_none, "'%s' has no readable superblock",
                                 c[0].member->path);
        int r = members_match(c, n, newest, err);
        if (r < 0)
                return r;
        uint64_t ro_compat = newest->ro_compat;
        for (size_t i = 0; i < n; i++)
                ro_compat |= c[i].used ? c[i].label.ro_compat : 0;
        if ((ro_compat & ~FEATURES_RO_COMPAT_KNOWN) && !(options && options->readonly)) {
                error_set(err, -ENOTSUP, "pool '%s' uses features that this version cannot write",
                          newest->name);
                return error_hint(err, "a newer tarn can open it");
        }
        struct pool *pool = pool_new(loop, options);
        if (!pool)
                return error_set(err, -ENOMEM, "out of memory");
        pool_take_super(pool, newest);
        r = pool_take_members(pool, c, n, newest, err);
        if (r == 0 && pool->options.held)
                r = check_closed(pool, c, n, newest, err);
        else if (r == 0 && !pool->readonly)
                r = co_catch_up(pool, c, n, newest, err);
        if (r == 0)
                r = co_bring_up(pool, newest, err);
        if (r < 0) {
                error_prefix(err, "pool '%s'", newest->name);
                pool_free(pool, false);
                return r;
        }
        *ret_pool = pool;
        return 0;
}

int co_pool_open(struct loop *loop, struct member *const *members, size_t n,
                 const struct pool_options *options, struct pool **ret_pool, struct error *err)
{
        if (n < 1 || n > POOL_MEMBERS_MAX)
                return error_set(err, -EINVAL, "a pool has 1 to %u members, not %zu",
                                 POOL_MEMBERS_MAX, n);
        struct candidate *c = calloc(n, sizeof(*c));
        if (!c)
                return error_set(err, -ENOMEM, "out of memory");
        int r = 0;
        for (size_t i = 0; i < n && r == 0; i++) {
                c[i].member = members[i];
                r = co_candidate_read(&c[i], &c[0], err);
        }
        if (r == 0)
                r = co_open(loop, c, n, options, ret_pool, err);
        /* A label left by an 'add' that never came to be: not ours. */
        for (size_t i = 0; i < n && r == 0; i++)
                if (!c[i].used)
                        member_close(c[i].member);
        candidates_free(c, n);
        return r;
}

/* ---- closing ---- */

static void co_quiesce(struct pool *pool)
{
        pool->closing = true;
        loop_timer_cancel(pool->loop, &pool->checkpoint_timer);
        stalled_wake(pool);
        co_log_stop(pool);
        while (pool->n_spans || pool->n_coroutines)
                co_wait(&pool->idle);
}

int co_pool_close(struct pool *pool, struct error *err)
{
        assert(pool->n_handles == 0);
        co_quiesce(pool);
        int r = 0;
        if (!pool->readonly && !pool->options.held) {
                r = co_checkpoint(pool, err);
                if (r == 0 && co_flush_members(pool) < 0)
                        r = error_set(err, -EIO, "pool '%s': %s", pool->name, pool->failed);
        }
        pool_free(pool, true);
        return r;
}

void co_pool_abandon(struct pool *pool)
{
        if (!pool_failed(pool))
                snprintf(pool->failed, sizeof(pool->failed), "it was abandoned");
        co_quiesce(pool);
        pool_free(pool, true);
}

int co_pool_destroy(struct pool *pool, struct error *err)
{
        assert(pool->n_handles == 0);
        int r = 0;
        if (!pool_failed(pool))
                snprintf(pool->failed, sizeof(pool->failed), "it is being destroyed");
        co_quiesce(pool);
        for (size_t i = 0; i < pool->n_disks; i++) {
                int one = co_member_clear(pool->disk[i]->member, r == 0 ? err : NULL);
                r = r < 0 ? r : one;
        }
        pool_free(pool, true);
        return r;
}

int co_pool_checkpoint(struct pool *pool, struct error *err)
{
        int r = co_commit(pool);
        if (r < 0 && !pool->readonly)
                return error_set(err, r, "pool '%s' has stopped writing: %s", pool->name,
                                 pool->failed);
        return co_checkpoint(pool, err);
}

int co_pool_settle(struct pool *pool, struct error *err)
{
        do {
                while (pool->worker_running)
                        co_wait(&pool->worker_done);
                int r = co_pool_checkpoint(pool, err);
                if (r < 0)
                        return r;
        } while (pool->worker_running);
        /* What others free from here on is theirs to wait for. */
        uint64_t committed = pool->committed_interval;
        while (pool->released_interval < committed && !pool->readonly && !pool->hold_frees &&
               !pool_failed(pool))
                co_sleep_ns(1000000);
        uint64_t discard_after = pool->discard_after;
        while (pool->committed_interval < discard_after && !pool->readonly && !pool->hold_frees) {
                int r = co_checkpoint(pool, err);
                if (r < 0)
                        return r;
        }
        while (pool->discarder_running)
                co_sleep_ns(1000000);
        co_discard_free(pool);
        return 0;
}
