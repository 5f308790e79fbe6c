/* check_table.c - what takes turns: labels, superblocks, the slab table and the space maps. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include "pool/check.h"
#include "pool/codec.h"

/* ---- labels ---- */

static uint64_t area_offset(const struct member *m, unsigned end)
{
        return end ? m->size_bytes - LABEL_AREA_BYTES : 0;
}

static void label_compare(struct check *c, const struct disk *disk, const void *page,
                          uint64_t offset)
{
        struct label label;
        struct error e = ERROR_INIT;
        if (label_decode(page, &label, &e) < 0)
                check_finding(c, "the label of member '%s' at byte %llu: %s", disk->member->path,
                              (unsigned long long)offset, e.message);
        else if (memcmp(label.pool_uuid, c->pool->uuid, 16) ||
                 memcmp(label.member_uuid, disk->uuid, 16) || label.size_bytes != disk->size_bytes)
                check_finding(c, "the label of member '%s' at byte %llu is of another member",
                              disk->member->path, (unsigned long long)offset);
}

static int co_labels(struct check *c)
{
        void *page = page_alloc();
        if (!page)
                return -ENOMEM;
        for (size_t i = 0; i < 2 * c->n_disks; i++) {
                const struct disk *disk = c->pool->disk[i / 2];
                uint64_t offset = area_offset(disk->member, i % 2);
                int r = co_member_read(disk->member, page, BLOCK, offset);
                if (r < 0)
                        check_finding(c, "the label of member '%s' at byte %llu cannot be read: %s",
                                      disk->member->path, (unsigned long long)offset, strerror(-r));
                else
                        label_compare(c, disk, page, offset);
        }
        free(page);
        return 0;
}

/* ---- superblocks ---- */

struct supers {
        struct check *c;
        char *image, *good; /* SUPER_SLOT_BYTES each; good: the first right one */
        size_t length;      /* of good; 0: none yet */
        bool no_memory;     /* for one of them, which says nothing about it */
};

static uint64_t slot_offset(const struct member *m, unsigned end, uint64_t generation)
{
        return area_offset(m, end) + SUPER_RING_OFFSET +
               generation % SUPER_SLOTS * SUPER_SLOT_BYTES;
}

/* The slot's content; its length, or 0 where there is no superblock of the generation. */
static size_t co_slot(struct supers *s, const struct member *m, uint64_t offset,
                      uint64_t generation)
{
        if (co_member_read((struct member *)m, s->image, BLOCK, offset) < 0)
                return 0;
        size_t length = super_peek_length(s->image);
        if (length > BLOCK && co_member_read((struct member *)m, s->image + BLOCK, length - BLOCK,
                                             offset + BLOCK) < 0)
                return 0;
        struct super super;
        struct error e = ERROR_INIT; /* codes are told apart: see common/error.h */
        int r = length ? super_decode(s->image, length, &super, &e) : -ENODATA;
        s->no_memory = s->no_memory || r == -ENOMEM;
        if (r < 0)
                return 0;
        bool right = super.generation == generation;
        if (right && s->length == 0) {
                memcpy(s->good, s->image, length);
                s->length = length;
                s->c->n_slabs_on_disk = super.n_slabs;
                s->c->n_index_on_disk = super.n_index;
                s->c->n_table_on_disk = (super.n_slabs + SLABS_PER_PAGE - 1) / SLABS_PER_PAGE;
        }
        super_free(&super);
        return right ? length : 0;
}

/* A pool open read-only may have been killed while this superblock was being written: then a slot
 * is old, empty or torn, and its first sector either the new one or that of a lap before. A page of
 * the log that knows it proves that it was written. */
static bool slot_may_be_torn(const struct supers *s)
{
        static const char zeroes[512];
        const struct super_disk *d = (const void *)s->image, *good = (const void *)s->good;
        if (!s->c->memory || s->c->pool->committed_by_log)
                return false;
        bool old = le64_get(d->magic) == SUPER_MAGIC &&
                   le64_get(d->generation) + SUPER_SLOTS == s->c->generation &&
                   memcmp(d->pool_uuid, good->pool_uuid, 16) == 0;
        return old || memcmp(s->image, s->good, 512) == 0 || memcmp(s->image, zeroes, 512) == 0;
}

static int co_supers(struct check *c)
{
        struct supers s = {.c = c,
                           .image = aligned_alloc(BLOCK, SUPER_SLOT_BYTES),
                           .good = aligned_alloc(BLOCK, SUPER_SLOT_BYTES)};
        int r = s.image && s.good ? 0 : -ENOMEM;
        for (size_t i = 0; i < 2 * c->n_disks && r == 0 && s.length == 0; i++) {
                const struct member *m = c->pool->disk[i / 2]->member;
                co_slot(&s, m, slot_offset(m, i % 2, c->generation), c->generation);
        }
        if (s.no_memory)
                r = -ENOMEM;
        if (r == 0 && s.length == 0)
                check_finding(c, "the superblock of generation %llu is on no member",
                              (unsigned long long)c->generation);
        for (size_t i = 0; i < 2 * c->n_disks && r == 0 && s.length; i++) {
                const struct member *m = c->pool->disk[i / 2]->member;
                uint64_t offset = slot_offset(m, i % 2, c->generation);
                size_t length = co_slot(&s, m, offset, c->generation);
                if (s.no_memory)
                        r = -ENOMEM;
                if (r < 0 || (length == s.length && memcmp(s.image, s.good, length) == 0))
                        continue;
                if (length == 0 && slot_may_be_torn(&s))
                        continue;
                check_finding(
                    c, "the superblock of generation %llu is %s on member '%s' at byte %llu",
                    (unsigned long long)c->generation, length ? "different" : "damaged or missing",
                    m->path, (unsigned long long)offset);
        }
        free(s.image);
        free(s.good);
        return r;
}

/* ---- what the table takes ---- */

static struct slab *system_slab_at(const struct check *c, const struct leg *leg)
{
        uint64_t bytes = (uint64_t)c->pool->slab_blocks * BLOCK;
        for (uint32_t i = 0; i < c->n_slabs; i++) {
                struct slab *slab = c->pool->slab[i];
                if (slab->kind == SLAB_SYSTEM && slab->leg[0].member == leg->member &&
                    leg->offset >= slab->leg[0].offset && leg->offset < slab->leg[0].offset + bytes)
                        return slab;
        }
        return NULL;
}

static void extent_claim(struct check *c, const struct slab_extent *x, const char *what)
{
        const struct slab *slab = system_slab_at(c, &x->leg[0]);
        struct check_place place = {what, NULL, NO_BLOCK};
        if (!slab) {
                check_finding(c, "%s lies in no slab of the slab table: member '%s' at byte %llu",
                              what, c->pool->disk[x->leg[0].member]->member->path,
                              (unsigned long long)x->leg[0].offset);
                return;
        }
        uint64_t address = (uint64_t)slab->index << c->pool->slab_shift |
                           (x->leg[0].offset - slab->leg[0].offset) / BLOCK;
        for (unsigned i = 0; i < MAP_COPIES; i++)
                check_claim(c, address + i, SLAB_SYSTEM, &place);
}

void check_table_claim(struct check *c)
{
        struct pool *pool = c->pool;
        for (uint32_t i = 0; i < c->n_index; i++)
                extent_claim(c, &pool->index[i], "an index page of the slab table");
        for (uint32_t i = 0; i < c->n_table; i++)
                extent_claim(c, &pool->table[i], "a page of the slab table");
        struct check_place place = {"a space map", NULL, NO_BLOCK};
        for (uint32_t i = 0; i < c->n_slabs; i++)
                for (unsigned k = 0; k < MAP_COPIES && slab_has_map(pool->slab[i]); k++)
                        check_claim(c, pool->slab[i]->map_address[k], SLAB_METADATA, &place);
}

/* ---- pages of the table ---- */

/* @x is a copy: the table is elsewhere once a slab was made that it had no page for. */
static void co_extent(struct check *c, struct slab_extent x, void *page, const char *what)
{
        for (unsigned i = 0; i < x.n_legs; i++) {
                struct member *m = c->pool->disk[x.leg[i].member]->member;
                uint64_t offset = x.leg[i].offset + (uint64_t)x.copy * BLOCK;
                int r = co_member_read(m, page, BLOCK, offset);
                if (r == 0 && crc32c(0, page, BLOCK) == x.crc)
                        continue;
                check_finding(c, "%s %s%s: member '%s' at byte %llu", what,
                              r < 0 ? "cannot be read: " : "fails its checksum",
                              r < 0 ? strerror(-r) : "", m->path, (unsigned long long)offset);
        }
}

static int co_table_pages(struct check *c)
{
        void *page = page_alloc();
        if (!page)
                return -ENOMEM;
        for (uint32_t i = 0; i < min_u64(c->n_index, c->n_index_on_disk); i++)
                co_extent(c, c->pool->index[i], page, "an index page of the slab table");
        for (uint32_t i = 0; i < min_u64(c->n_table, c->n_table_on_disk); i++)
                co_extent(c, c->pool->table[i], page, "a page of the slab table");
        free(page);
        return 0;
}

/* ---- space maps ---- */

static int co_maps_window(struct check *c, const uint32_t *slabs, size_t n, char *pages)
{
        char what[CHECK_WINDOW][48];
        struct check_read reads[CHECK_WINDOW];
        for (size_t i = 0; i < n; i++) {
                const struct slab *slab = c->pool->slab[slabs[i]];
                snprintf(what[i], sizeof(what[i]), "the space map of slab %u", slab->index);
                reads[i] = (struct check_read){.e = {.address = slab->map_address[slab->map_copy],
                                                     .crc = slab->map_crc,
                                                     .type = ENTRY_NODE},
                                               .place = {what[i], NULL, NO_BLOCK},
                                               .page = pages + i * BLOCK};
        }
        return co_check_reads(c, reads, n);
}

static int co_maps(struct check *c)
{
        uint32_t slabs[CHECK_WINDOW];
        uint32_t n_slabs = (uint32_t)min_u64(c->n_slabs, c->n_slabs_on_disk);
        size_t room = min_u64(CHECK_WINDOW, n_slabs ? n_slabs : 1), n = 0;
        char *pages = aligned_alloc(BLOCK, room * BLOCK);
        int r = pages ? 0 : -ENOMEM;
        for (uint32_t i = 0; i < n_slabs && r == 0; i++) {
                if (slab_has_map(c->pool->slab[i]))
                        slabs[n++] = i;
                if (n == room) {
                        r = co_maps_window(c, slabs, n, pages);
                        n = 0;
                }
        }
        if (r == 0 && n)
                r = co_maps_window(c, slabs, n, pages);
        free(pages);
        return r;
}

int co_check_table(struct check *c)
{
        if (c->pool->log_damaged_legs && c->memory)
                check_finding(c, "%llu copies of pages of the log were damaged when it was opened",
                              (unsigned long long)c->pool->log_damaged_legs);
        int r = co_labels(c);
        if (r == 0)
                r = co_supers(c);
        if (r == 0)
                r = co_table_pages(c);
        return r < 0 ? r : co_maps(c);
}
