/* spots.c - see spots.h
 *
 * What is in use is what the last checkpoint has in use, and what the log's tail has taken since: a
 * pool opened on the killed disks, without writing, knows the latter. Each block that such an
 * opening, or one that writes, reads is a spot; what is on it is found by its address and content. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "pool/codec.h"
#include "pool/format.h"
#include "tests/crash/loops.h"
#include "tests/rot/spots.h"
#include "tests/rot/trial.h"

#define SLABS_MAX 64u

const char *const kind_name[KINDS] = {
    [KIND_LABEL] = "label",
    [KIND_SUPER] = "superblock, newest",
    [KIND_SUPER_OLD] = "superblock, older",
    [KIND_INDEX] = "slab table, index page",
    [KIND_TABLE] = "slab table, page",
    [KIND_MAP] = "space map",
    [KIND_COPY] = "copy that does not count",
    [KIND_LOG] = "log, page of the chain",
    [KIND_LOG_IDLE] = "log, idle place",
    [KIND_CATALOG_NODE] = "catalog, node",
    [KIND_CATALOG_INDEX] = "catalog, index block",
    [KIND_ROOT] = "catalog, root block",
    [KIND_NODE] = "map node",
    [KIND_DEADLIST] = "deadlist page",
    [KIND_BUCKETS] = "bucket page",
    [KIND_REPLACED] = "replaced by the replay",
    [KIND_DATA] = "data",
    [KIND_FREE] = "free block",
};

/* The blocks in use, a bit each, slab by slab. */
struct in_use {
        uint32_t n_slabs;
        uint64_t bits[SLABS_MAX]; /* SAMPLE_SLAB_BYTES are 64 blocks */
};

struct spots {
        struct in_use cut, replayed;
        struct sample *sample;
        struct pool *pool;                  /* open on the killed disks, without writing */
        uint64_t mark;                      /* records below it are known to be flushed */
        uint64_t *read[SAMPLE_MEMBERS_MAX]; /* blocks that are read, a bit each */
};

struct spots *spots_new(void)
{
        struct spots *spots = calloc(1, sizeof(*spots));

        if (spots == NULL)
                abort();
        return spots;
}

void spots_free(struct spots *spots)
{
        free(spots);
}

static void in_use_take(struct in_use *u, const struct pool *pool)
{
        assert(pool->n_slabs <= SLABS_MAX && pool->slab_blocks == 64);
        u->n_slabs = pool->n_slabs;
        for (uint32_t i = 0; i < pool->n_slabs; i++)
                u->bits[i] = slab_has_map(pool->slab[i]) ? pool->slab[i]->live[0] : 0;
}

void spots_note_checkpoint(struct spots *spots, const struct pool *pool)
{
        in_use_take(&spots->cut, pool);
}

static bool is_in(const struct in_use *u, uint64_t address)
{
        return address / 64 < u->n_slabs && (u->bits[address / 64] >> (address % 64) & 1);
}

static void page_read(const struct spots *spots, const struct leg *leg, uint64_t shift, void *page)
{
        sim_image_read(spots->sample->image[leg->member], leg->offset + shift, page, BLOCK);
}

/* ---- the log ---- */

static bool page_is_in_chain(const struct pool *pool, const struct log_page_disk *d)
{
        uint64_t sequence = le64_get(d->sequence);

        return le32_get(d->magic) == LOG_MAGIC &&
               le64_get(d->incarnation) == pool->log.incarnation && sequence >= pool->log.start &&
               sequence < pool->log.next;
}

static const struct log_page_disk *log_page(const struct spots *spots, uint64_t sequence,
                                            struct log_page_disk *d)
{
        unsigned n_legs;
        uint64_t shift;
        const struct leg *legs = log_page_legs(spots->pool, sequence, &n_legs, &shift);

        page_read(spots, &legs[0], shift, d);
        return d;
}

/* Calls @each for every record of the chain. */
static void each_record(struct spots *spots,
                        void (*each)(struct spots *, const struct log_head_disk *, uint64_t record,
                                     void *),
                        void *arg)
{
        struct log_page_disk d;

        for (uint64_t s = spots->pool->log.start; s < spots->pool->log.next; s++) {
                uint64_t record = le64_get(log_page(spots, s, &d)->first_record);

                for (uint32_t at = 0; at < le16_get(d.used); record++) {
                        const struct log_head_disk *head = (const void *)(d.records + at);

                        each(spots, head, record, arg);
                        at += le16_get(head->length);
                }
        }
}

static void mark_find(struct spots *spots)
{
        struct log_page_disk d;

        for (uint64_t s = spots->pool->log.start; s < spots->pool->log.next; s++)
                spots->mark = max_u64(spots->mark, le64_get(log_page(spots, s, &d)->mark));
}

struct query {
        uint64_t address;
        bool found;
};

static void tail_look(struct spots *spots, const struct log_head_disk *head, uint64_t record,
                      void *arg)
{
        const struct log_write_disk *w = (const void *)head;
        struct query *q = arg;

        if (head->type == LOG_WRITE && record >= spots->mark &&
            q->address >= le64_get(w->address) &&
            q->address < le64_get(w->address) + le32_get(w->n_blocks))
                q->found = true;
}

static bool data_is_in_tail(struct spots *spots, uint64_t address)
{
        struct query q = {.address = address};

        each_record(spots, tail_look, &q);
        return q.found;
}

/* ---- metadata ---- */

/* In the catalog, at a level above its blocks (@nodes) or not. */
static bool is_in_catalog(const struct spots *spots, uint64_t address, bool nodes,
                          const struct entry *e, unsigned level)
{
        const struct slab *slab = spots->pool->slab[e->address / 64];
        struct node_disk node;
        bool found = e->address == address && (level > 0) == nodes;

        if (level == 0 || e->type != ENTRY_NODE)
                return found && !entry_is_hole(e);
        page_read(spots, &slab->leg[0], e->address % 64 * BLOCK, &node);
        for (unsigned i = 0; i < NODE_ENTRIES && !found; i++) {
                struct entry below = entry_get(&node.entry[i]);

                if (!entry_is_hole(&below))
                        found = is_in_catalog(spots, address, nodes, &below, level - 1);
        }
        return found;
}

static enum kind map_kind(const struct pool *pool, uint64_t address)
{
        for (uint32_t i = 0; i < pool->n_slabs; i++)
                for (unsigned k = 0; k < MAP_COPIES && slab_has_map(pool->slab[i]); k++)
                        if (pool->slab[i]->map_address[k] == address)
                                return k == pool->slab[i]->map_copy ? KIND_MAP : KIND_COPY;
        return KINDS;
}

static enum kind metadata_kind(const struct spots *spots, uint64_t address, const void *page)
{
        const le64 *magic = page;
        const struct tree *catalog = &spots->pool->catalog;
        enum kind kind = map_kind(spots->pool, address);

        if (kind != KINDS)
                return kind;
        if (!is_in(&spots->cut, address))
                return KIND_FREE;
        if (!is_in(&spots->replayed, address))
                return KIND_REPLACED;
        if (le64_get(*magic) == DEADLIST_MAGIC)
                return KIND_DEADLIST;
        if (le64_get(*magic) == BUCKETS_MAGIC)
                return KIND_BUCKETS;
        if (le64_get(*magic) == ROOT_MAGIC)
                return KIND_ROOT;
        if (is_in_catalog(spots, address, true, &catalog->root, catalog->height))
                return KIND_CATALOG_NODE;
        return is_in_catalog(spots, address, false, &catalog->root, catalog->height)
                   ? KIND_CATALOG_INDEX
                   : KIND_NODE;
}

static enum kind system_kind(const struct pool *pool, unsigned member, uint64_t offset)
{
        for (unsigned what = 0; what < 2; what++) {
                const struct slab_extent *x = what == 0 ? pool->index : pool->table;
                uint32_t n = what == 0 ? pool->n_index : pool->n_table;

                for (uint32_t i = 0; i < n; i++)
                        for (unsigned leg = 0; leg < x[i].n_legs; leg++) {
                                uint64_t first = x[i].leg[leg].offset;

                                if (x[i].leg[leg].member != member || offset < first ||
                                    offset >= first + MAP_COPIES * BLOCK)
                                        continue;
                                if ((offset - first) / BLOCK != x[i].copy)
                                        return KIND_COPY;
                                return what == 0 ? KIND_INDEX : KIND_TABLE;
                        }
        }
        return KIND_FREE;
}

/* ---- places ---- */

static void spot_in_label_area(const struct spots *spots, struct spot *spot, uint64_t in_area)
{
        uint64_t in_slot = (in_area - SUPER_RING_OFFSET) % SUPER_SLOT_BYTES;
        uint64_t slot = (in_area - SUPER_RING_OFFSET) / SUPER_SLOT_BYTES;

        spot->redundant = true;
        if (in_area == 0)
                spot->kind = KIND_LABEL;
        else if (in_area < SUPER_RING_OFFSET || slot >= SUPER_SLOTS)
                spot->kind = KIND_FREE;
        else if (slot != spots->pool->generation % SUPER_SLOTS)
                spot->kind = KIND_SUPER_OLD;
        else
                spot->kind = KIND_SUPER;
        if (spot->kind == KIND_SUPER)
                spot->named -= in_slot;
}

static bool log_page_is_tail(const struct spots *spots, const struct log_page_disk *d)
{
        const struct log_head_disk *head;
        uint64_t n = 0;

        for (uint32_t at = 0; at < le16_get(d->used); at += le16_get(head->length), n++)
                head = (const void *)(d->records + at);
        return le64_get(d->first_record) + n > spots->mark;
}

static void spot_in_log(const struct spots *spots, struct spot *spot, const struct slab *slab,
                        uint64_t block, const void *page)
{
        const struct pool *pool = spots->pool;
        uint64_t position = (uint64_t)slab->log_index * pool->slab_blocks + block;

        spot->redundant = slab->n_legs > 1;
        if (page_is_in_chain(pool, page)) {
                spot->kind = KIND_LOG;
                spot->last = log_page_is_tail(spots, page);
                spot->tail = spot->last && slab->n_legs == 1;
                return;
        }
        spot->kind = KIND_LOG_IDLE;
        /* What ends the chain has to be seen, and on one leg cannot always be; after a recovery that
         * is the first page. */
        if (position != pool->log.next % pool->log.ring_pages && position > 0)
                spot->redundant = true;
}

static void spot_in_slab(struct spots *spots, struct spot *spot, const struct slab *slab,
                         uint64_t block, const void *page)
{
        uint64_t address = (uint64_t)slab->index << spots->pool->slab_shift | block;

        spot->redundant = slab->n_legs > 1;
        switch (slab->kind) {
        case SLAB_SYSTEM:
                spot->kind = system_kind(spots->pool, spot->member, spot->offset);
                break;
        case SLAB_LOG:
                spot_in_log(spots, spot, slab, block, page);
                return;
        case SLAB_METADATA:
                spot->kind = metadata_kind(spots, address, page);
                break;
        default:
                spot->tail = spot->last = data_is_in_tail(spots, address);
                spot->kind = is_in(&spots->replayed, address) ? KIND_DATA
                             : spot->tail                     ? KIND_REPLACED
                                                              : KIND_FREE;
        }
        if (spot->kind == KIND_COPY || spot->kind == KIND_FREE)
                spot->redundant = true;
}

static void spot_judge(struct spots *spots, struct spot *spot)
{
        const struct pool *pool = spots->pool;
        uint64_t size = sim_image_size(spots->sample->image[spot->member]);
        uint8_t page[BLOCK] __attribute__((aligned(8)));

        sim_image_read(spots->sample->image[spot->member], spot->offset, page, BLOCK);
        spot->kind = KIND_FREE;
        spot->redundant = true;
        if (spot->offset < LABEL_AREA_BYTES || spot->offset >= size - LABEL_AREA_BYTES) {
                spot_in_label_area(spots, spot, spot->offset % (size - LABEL_AREA_BYTES));
                return;
        }
        for (uint32_t i = 0; i < pool->n_slabs; i++)
                for (unsigned leg = 0; leg < pool->slab[i]->n_legs; leg++) {
                        const struct leg *l = &pool->slab[i]->leg[leg];

                        if (l->member == spot->member && spot->offset >= l->offset &&
                            spot->offset < l->offset + SAMPLE_SLAB_BYTES)
                                spot_in_slab(spots, spot, pool->slab[i],
                                             (spot->offset - l->offset) / BLOCK, page);
                }
}

/* ---- finding ---- */

static void spots_add(struct spots *spots, unsigned member)
{
        struct sample *sample = spots->sample;
        const uint64_t *read = spots->read[member];

        for (uint64_t b = 0; b < sim_image_size(sample->image[member]) / BLOCK; b++) {
                struct spot spot = {.member = member, .offset = b * BLOCK, .named = b * BLOCK};

                spot_judge(spots, &spot);
                if (!(read[b / 64] >> (b % 64) & 1)) {
                        sample->n_never[spot.kind]++;
                        continue;
                }
                sample->spot = realloc(sample->spot, (sample->n_spots + 1) * sizeof(*sample->spot));
                if (sample->spot == NULL)
                        abort();
                sample->spot[sample->n_spots++] = spot;
        }
}

static void co_find(void *arg)
{
        struct spots *spots = arg;
        struct sample *sample = spots->sample;
        struct pool_options options = {.readonly = true, .manual_checkpoints = true};
        struct member *members[SAMPLE_MEMBERS_MAX];
        struct sim_disk *disk[SAMPLE_MEMBERS_MAX];

        for (unsigned i = 0; i < sample->shape->n_members; i++) {
                disk[i] = sim_disk_new(sample->image[i], NULL);
                if (sim_disk_open(disk[i], loop_borrow(), &members[i]) < 0)
                        abort();
        }
        if (co_pool_open(loop_borrow(), members, sample->shape->n_members, &options, &spots->pool,
                         NULL) < 0)
                abort();
        in_use_take(&spots->replayed, spots->pool);
        mark_find(spots);
        for (unsigned i = 0; i < sample->shape->n_members; i++)
                spots_add(spots, i);
        co_pool_close(spots->pool, NULL);
        for (unsigned i = 0; i < sample->shape->n_members; i++)
                sim_disk_free(disk[i]);
}

void spots_find(struct spots *spots, struct sample *sample)
{
        const char *reason;

        spots->sample = sample;
        for (unsigned i = 0; i < sample->shape->n_members; i++) {
                spots->read[i] = calloc(sim_image_size(sample->image[i]) / BLOCK / 64 + 1, 8);
                if (spots->read[i] == NULL)
                        abort();
        }
        trial_reads(sample->image, sample, spots->read);
        if (!loop_run_entry(1, co_find, spots, &reason))
                abort();
        for (unsigned i = 0; i < sample->shape->n_members; i++)
                free(spots->read[i]);
}
