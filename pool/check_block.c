/* check_block.c - blocks claimed, and read from each of their legs. */
#include <errno.h>
#include <stdlib.h>
#include "pool/check.h"

/* ---- claims ---- */

static bool map_get(const uint64_t *map, uint64_t i)
{
        return map[i / 64] >> (i % 64) & 1;
}

static bool address_is_known(const struct check *c, uint64_t address)
{
        return address >> c->pool->slab_shift < c->n_slabs;
}

bool check_is_claimed(const struct check *c, uint64_t address)
{
        return address_is_known(c, address) && map_get(c->refs, address);
}

bool check_is_live(const struct check *c, uint64_t address)
{
        return address_is_known(c, address) && map_get(c->live, address);
}

static const char *kind_name(enum slab_kind kind)
{
        return kind == SLAB_DATA ? "data" : kind == SLAB_SYSTEM ? "the slab table" : "metadata";
}

static void claim_finding(struct check *c, uint64_t address, const struct check_place *place,
                          const char *is)
{
        check_finding(c, "%s lies on a block that %s: %s", check_place_text(c, place).s, is,
                      check_address_text(c, address, 0).s);
}

bool check_claim(struct check *c, uint64_t address, enum slab_kind kind,
                 const struct check_place *place)
{
        if (!address_is_known(c, address) ||
            c->pool->slab[address >> c->pool->slab_shift]->kind != kind) {
                check_finding(c, "%s has the address %llu, which is in no slab of %s",
                              check_place_text(c, place).s, (unsigned long long)address,
                              kind_name(kind));
                c->incomplete = true;
                return false;
        }
        if (map_get(c->refs, address)) {
                claim_finding(c, address, place, "something else has as well");
                return false;
        }
        if (!map_get(c->live, address))
                claim_finding(c, address, place, "is free by its space map");
        c->refs[address / 64] |= UINT64_C(1) << (address % 64);
        return true;
}

/* Blocks [first, first + n) of the slab are live and nobody's. */
static void leak_report(struct check *c, const struct slab *slab, uint32_t first, uint32_t n)
{
        uint64_t address = (uint64_t)slab->index << c->pool->slab_shift | first;
        check_finding(c, "%u block%s of %s %s in use and belong%s to nothing, from %s on", n,
                      n == 1 ? "" : "s", kind_name(slab->kind), n == 1 ? "is" : "are",
                      n == 1 ? "s" : "", check_address_text(c, address, 0).s);
}

void check_leaks(struct check *c)
{
        if (c->incomplete) {
                check_finding(c, "blocks that belong to nothing could not be looked for, since "
                                 "not everything could be read");
                return;
        }
        uint32_t blocks = c->pool->slab_blocks;
        for (uint32_t s = 0; s < c->n_slabs; s++) {
                const uint64_t *live = c->live + (size_t)s * (blocks / 64),
                               *refs = c->refs + (size_t)s * (blocks / 64);
                uint32_t n = 0;
                for (uint32_t b = 0; b <= blocks; b++) {
                        if (b % 64 == 0 && b < blocks && n == 0 &&
                            !(live[b / 64] & ~refs[b / 64])) {
                                b += 63;
                                continue;
                        }
                        bool leaked = b < blocks && map_get(live, b) && !map_get(refs, b);
                        if (!leaked && n)
                                leak_report(c, c->pool->slab[s], b - n, n);
                        n = leaked ? n + 1 : 0;
                }
        }
}

/* ---- reads ---- */

/* Copies of one block that are read at once. */
struct copies {
        struct check_read *read;
        const struct slab *slab;
        struct batch_io *io;
        unsigned n;
};

static bool read_is_cached(struct check *c, struct check_read *read)
{
        if (!c->memory || read->e.birth <= c->last_cut_epoch)
                return false;
        struct node *node = cache_find(c->pool, &read->e);
        read->good = node != NULL;
        if (node)
                memcpy(read->page, node->page, BLOCK);
        return true;
}

static void copy_submit_fill(struct check *c, const struct copies *k, unsigned leg, void *page)
{
        k->io[leg] = (struct batch_io){.disk = c->pool->disk[k->slab->leg[leg].member]};
        k->io[leg].io.op = MEMBER_READ;
        k->io[leg].io.offset = leg_offset(k->slab, leg, k->read->e.address, c->pool->slab_blocks);
        k->io[leg].io.length = BLOCK;
        k->io[leg].iov.iov_base = page;
}

static void copies_judge(struct check *c, struct copies *k)
{
        struct check_read *read = k->read;
        for (unsigned leg = 0; leg < k->n; leg++) {
                const struct batch_io *io = &k->io[leg];
                const void *page = io->iov.iov_base;
                bool good = io->result == 0 && crc32c(0, page, BLOCK) == read->e.crc;
                if (good && !read->good && page != read->page)
                        memcpy(read->page, page, BLOCK);
                read->good = read->good || good;
                if (good || read->quiet)
                        continue;
                struct check_text what = check_place_text(c, &read->place);
                struct check_text where = check_address_text(c, read->e.address, leg);
                if (io->result < 0)
                        check_finding(c, "%s cannot be read (%s): %s", what.s,
                                      strerror(-io->result), where.s);
                else
                        check_finding(c, "%s fails its checksum: %s", what.s, where.s);
        }
}

/* The first copy of a quiet read was bad: the others, one by one. */
static void co_other_copies(struct check *c, struct copies *k)
{
        struct check_read *read = k->read;
        for (unsigned leg = 1; leg < k->slab->n_legs && !read->good; leg++) {
                struct member *m = c->pool->disk[k->slab->leg[leg].member]->member;
                uint64_t offset = leg_offset(k->slab, leg, read->e.address, c->pool->slab_blocks);
                read->good = co_member_read(m, read->page, BLOCK, offset) == 0 &&
                             crc32c(0, read->page, BLOCK) == read->e.crc;
        }
}

/* Which copies there are to be read; their number. */
static size_t copies_plan(struct check *c, struct check_read *reads, size_t n,
                          struct copies *copies, size_t *ret_n_ios)
{
        size_t n_copies = 0, n_ios = 0;
        for (size_t i = 0; i < n; i++) {
                reads[i].good = false;
                const struct slab *slab = address_is_known(c, reads[i].e.address)
                                              ? address_slab(c->pool, reads[i].e.address)
                                              : NULL;
                if (!slab || slab->kind != SLAB_METADATA || read_is_cached(c, &reads[i]))
                        continue;
                struct copies *k = &copies[n_copies++];
                *k = (struct copies){.read = &reads[i], .slab = slab};
                k->n = reads[i].quiet ? 1 : slab->n_legs;
                n_ios += k->n;
        }
        *ret_n_ios = n_ios;
        return n_copies;
}

int co_check_reads(struct check *c, struct check_read *reads, size_t n)
{
        struct copies copies[CHECK_WINDOW];
        size_t n_ios;
        assert(n <= CHECK_WINDOW);
        size_t n_copies = copies_plan(c, reads, n, copies, &n_ios);
        size_t n_spare = n_ios - n_copies, at = 0; /* first copies go to the page itself */
        struct batch_io *ios = malloc((n_ios + 1) * sizeof(*ios));
        char *spare = n_spare ? aligned_alloc(BLOCK, n_spare * BLOCK) : NULL, *page = spare;
        if (!ios || (n_spare && !spare)) {
                free(ios);
                free(spare);
                return -ENOMEM;
        }
        for (size_t i = 0; i < n_copies; i++) {
                copies[i].io = &ios[at];
                at += copies[i].n;
                for (unsigned leg = 0; leg < copies[i].n; leg++) {
                        copy_submit_fill(c, &copies[i], leg, leg ? page : copies[i].read->page);
                        if (leg)
                                page += BLOCK;
                }
        }
        co_batch(ios, n_ios);
        for (size_t i = 0; i < n_copies; i++) {
                copies_judge(c, &copies[i]);
                if (copies[i].read->quiet)
                        co_other_copies(c, &copies[i]);
        }
        free(ios);
        free(spare);
        for (size_t i = 0; i < n; i++)
                if (!reads[i].quiet && !reads[i].good)
                        c->incomplete = true;
        check_progress(c, n);
        return check_disturbed(c);
}

int co_check_read(struct check *c, struct check_read *read)
{
        return co_check_reads(c, read, 1);
}
