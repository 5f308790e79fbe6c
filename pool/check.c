/* check.c - everything that a pool holds, looked at as of one cut, while I/O goes on. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include "pool/check.h"

#define PROGRESS_STEP 256u

/* ---- findings ---- */

void check_finding(struct check *c, const char *format, ...)
{
        char text[768];
        int n = snprintf(text, sizeof(text), "pool '%s': ", c->pool->name);
        va_list ap;
        va_start(ap, format);
        vsnprintf(text + n, sizeof(text) - (size_t)n, format, ap);
        va_end(ap);
        c->n_findings++;
        c->callbacks->finding(c->callbacks->arg, text);
}

static void root_text(const struct check *c, const struct check_root *r, char *text, size_t size)
{
        const struct root *root = root_by_id(c->pool, r->id);
        const struct root *head = root ? root_head(c->pool, root->volume_id) : NULL;
        unsigned long long id = r->id;
        if (!root || root->state == ROOT_ORPHAN || root->state == ROOT_FREE)
                snprintf(text, size, "root %llu, which is being deleted,", id);
        else if (root->state == ROOT_LIVE)
                snprintf(text, size, "volume '%s'", root->name);
        else if (root->state == ROOT_BASE)
                snprintf(text, size, "the base of volumes (root %llu)", id);
        else if (root->name[0])
                snprintf(text, size, "snapshot '%s@%s'", head ? head->name : "", root->name);
        else
                snprintf(text, size, "a hidden snapshot (root %llu)", id);
}

struct check_text check_place_text(const struct check *c, const struct check_place *place)
{
        struct check_text text;
        char of[200] = "", at[64] = "";
        if (place->root) {
                memcpy(of, " of ", 5);
                root_text(c, place->root, of + 4, sizeof(of) - 4);
        }
        if (place->block != NO_BLOCK)
                snprintf(at, sizeof(at), " at offset %llu",
                         (unsigned long long)place->block * BLOCK);
        snprintf(text.s, sizeof(text.s), "%s%s%s", place->what, of, at);
        return text;
}

struct check_text check_address_text(const struct check *c, uint64_t address, unsigned leg)
{
        struct check_text text;
        const struct slab *slab = address_slab(c->pool, address);
        unsigned block = (unsigned)(address & (c->pool->slab_blocks - 1));
        if (!slab || leg >= slab->n_legs)
                snprintf(text.s, sizeof(text.s), "pool block %llu, which is in no slab",
                         (unsigned long long)address);
        else
                snprintf(text.s, sizeof(text.s), "member '%.200s' at byte %llu (slab %u, block %u)",
                         c->pool->disk[slab->leg[leg].member]->member->path,
                         (unsigned long long)leg_offset(slab, leg, address, c->pool->slab_blocks),
                         slab->index, block);
        return text;
}

void check_progress(struct check *c, uint64_t blocks)
{
        c->done = min_u64(c->done + blocks, c->total);
        if (!c->callbacks->progress || c->done - c->shown < PROGRESS_STEP)
                return;
        c->shown = c->done;
        c->callbacks->progress(c->callbacks->arg, c->done, c->total);
}

int check_disturbed(const struct check *c)
{
        if (c->callbacks->cancelled && *c->callbacks->cancelled)
                return -ECANCELED;
        return c->pool->check_disturbed ? -EAGAIN : 0;
}

/* ---- the cut ---- */

static void live_copy(struct check *c)
{
        struct pool *pool = c->pool;
        size_t words = pool->slab_blocks / 64;
        for (uint32_t i = 0; i < c->n_slabs; i++) {
                const struct slab *slab = pool->slab[i];
                uint64_t *live = c->live + i * words;
                if (slab_has_map(slab))
                        memcpy(live, slab->live, words * sizeof(*live));
                /* A system slab hands its blocks out from the first on. */
                uint32_t used = slab->kind == SLAB_SYSTEM ? pool->slab_blocks - slab->live_free : 0;
                for (uint32_t b = 0; b < used; b++)
                        live[b / 64] |= UINT64_C(1) << (b % 64);
        }
}

/* [sync] */
static int see_cut(void *arg)
{
        struct check *c = arg;
        struct pool *pool = c->pool;
        c->memory = pool->readonly;
        c->epoch = pool->epoch;
        c->last_cut_epoch = pool->last_cut_epoch;
        c->n_disks = pool->n_disks;
        c->n_slabs = pool->n_slabs;
        c->n_table = pool->n_table;
        c->n_index = pool->n_index;
        c->catalog = pool->catalog.root;
        c->total = pool->metadata_live + (c->read_data ? pool->data_live : 0);
        c->queue_room = c->read_data ? min_u64(1024, pool->data_live) : 0;
        size_t words = (size_t)c->n_slabs * (pool->slab_blocks / 64);
        c->live = calloc(words ? words : 1, sizeof(*c->live));
        c->refs = calloc(words ? words : 1, sizeof(*c->refs));
        if (!c->live || !c->refs)
                return -ENOMEM;
        live_copy(c);
        return check_roots_copy(c);
}

/* What takes turns: no other checkpoint begins meanwhile. */
static int co_see_table(void *arg)
{
        struct check *c = arg;
        c->generation = c->pool->generation;
        check_table_claim(c);
        return co_check_table(c);
}

static int co_check(struct check *c, struct error *err)
{
        struct checkpoint_hold hold = {see_cut, co_see_table, c};
        int r = co_checkpoint_hold(c->pool, &hold, err);
        if (r < 0)
                return r;
        r = co_check_catalog(c);
        if (r == 0)
                r = co_check_roots(c);
        if (r == 0)
                r = co_check_data_flush(c);
        if (r == 0)
                check_leaks(c);
        checkpoint_unhold(c->pool);
        return r;
}

int co_pool_check(struct pool *pool, bool read_data, const struct pool_check_callbacks *callbacks,
                  uint64_t *ret_n_findings, struct error *err)
{
        struct check c = {.pool = pool, .callbacks = callbacks, .read_data = read_data};
        int r = co_check(&c, err);
        if (r == 0 && callbacks->progress)
                callbacks->progress(callbacks->arg, c.total, c.total);
        free(c.live);
        free(c.refs);
        free(c.root);
        free(c.slot);
        free(c.queued);
        free(c.buffer);
        if (r == -EAGAIN) {
                error_set(err, r, "pool '%s' is too full to be checked while it is written to",
                          pool->name);
                error_hint(err, "check it when nobody serves it, or make room first");
        } else if (r == -ECANCELED) {
                error_set(err, r, "interrupted");
        } else if (r == -ENOMEM) {
                error_set(err, r, "out of memory");
        }
        if (r == 0)
                *ret_n_findings = c.n_findings;
        return r;
}
