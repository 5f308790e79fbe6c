/* check_tree.c - a root's map, walked beside its parent's.
 *
 * Only what is the root's own (born after the parent's epoch) is gone down into. At each place
 * there is what the root has and what the parent has, its peer: an inherited entry must be equal to
 * its peer, and a peer that the root does not have any more is dead to it, with all below. So each
 * node is read once as its owner's and once as the peer of each child that changed it, and shared
 * parts cost nothing. */
#include <errno.h>
#include <stdlib.h>
#include "pool/check.h"

/* What the parent has at the same place. */
enum peer_kind {
        PEER_ENTRY,
        PEER_ABOVE,   /* above the top of the parent's map, which is lower */
        PEER_UNKNOWN, /* could not be read */
};
struct peer {
        enum peer_kind kind;
        struct entry e;
};

/* A subtree to go down into: a node of the root's own; or a hole, where the peer is none. */
struct item {
        struct entry e;
        struct peer peer;
        uint64_t base;
        struct check_read own, theirs;
};

uint64_t check_mix(const struct entry *e)
{
        uint64_t x = e->address * UINT64_C(0x9e3779b97f4a7c15) ^ e->birth;
        x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
        return x ^ x >> 31;
}

static const struct tree *peer_tree(const struct check_walk *w)
{
        return &w->root->parent->map;
}

static bool peer_is_hole(const struct check_walk *w, const struct peer *peer)
{
        return peer->kind == PEER_ENTRY   ? entry_is_hole(&peer->e)
               : peer->kind == PEER_ABOVE ? entry_is_hole(&peer_tree(w)->root)
                                          : true;
}

static struct peer peer_child(const struct check_walk *w, const struct item *item, unsigned i,
                              unsigned level)
{
        struct peer hole = {.kind = PEER_ENTRY, .e = {.type = ENTRY_ABSENT}};
        const struct peer *peer = &item->peer;
        if (peer->kind == PEER_UNKNOWN)
                return *peer;
        if (peer->kind == PEER_ABOVE && i > 0)
                return hole;
        if (peer->kind == PEER_ABOVE && level > peer_tree(w)->height)
                return *peer;
        if (peer->kind == PEER_ABOVE)
                return (struct peer){.kind = PEER_ENTRY, .e = peer_tree(w)->root};
        if (peer->e.type != ENTRY_NODE)
                return *peer; /* a hole, all the way down */
        if (!item->theirs.good)
                return (struct peer){.kind = PEER_UNKNOWN};
        return (struct peer){.kind = PEER_ENTRY,
                             .e = entry_get(&((struct node_disk *)item->theirs.page)->entry[i])};
}

static struct check_place place_of(const struct check_walk *w, unsigned level, uint64_t base)
{
        if (!w->root)
                return (struct check_place){
                    level ? "a node of the catalog" : "a block of the catalog", NULL, NO_BLOCK};
        return (struct check_place){level ? "a map node" : "data", w->root, base};
}

static struct check_text text_of(const struct check_walk *w, unsigned level, uint64_t base)
{
        struct check_place place = place_of(w, level, base);
        return check_place_text(w->c, &place);
}

/* ---- one entry ---- */

static void peer_is_dead(struct check_walk *w, const struct peer *peer, unsigned level)
{
        if (peer->kind != PEER_ENTRY || entry_is_hole(&peer->e))
                return;
        w->n_dead++;
        w->n_dead_data += level == 0;
        w->sum_dead += check_mix(&peer->e);
}

/* True where something is to be gone down into. */
static bool hole_look(struct check_walk *w, const struct entry *e, const struct peer *peer,
                      unsigned level, uint64_t base)
{
        if (peer->kind == PEER_UNKNOWN)
                w->exact = false;
        if (peer_is_hole(w, peer))
                return false;
        if (e->birth <= w->threshold && w->exact) {
                check_finding(w->c, "%s is a hole that is older than what the parent has there",
                              text_of(w, level, base).s);
                w->exact = false;
        }
        peer_is_dead(w, peer, level);
        return level > 0;
}

static void inherited_look(struct check_walk *w, const struct entry *e, const struct peer *peer,
                           unsigned level, uint64_t base)
{
        if (peer->kind == PEER_UNKNOWN) {
                w->exact = false;
                return;
        }
        const struct entry *p = &peer->e;
        if (peer->kind == PEER_ENTRY && p->type == e->type && p->address == e->address &&
            p->birth == e->birth &&
            (p->crc == e->crc || (w->c->memory && e->birth > w->c->last_cut_epoch)))
                return;
        check_finding(w->c, "%s is inherited, and its parent has something else there: %s",
                      text_of(w, level, base).s, check_address_text(w->c, e->address, 0).s);
        w->exact = false;
}

static int own_look(struct check_walk *w, const struct entry *e, const struct peer *peer,
                    unsigned level, uint64_t base, bool *ret_down)
{
        enum slab_kind kind = level == 0 && w->root ? SLAB_DATA : SLAB_METADATA;
        struct check_place place = place_of(w, level, base);
        if (peer->kind == PEER_UNKNOWN)
                w->exact = false;
        peer_is_dead(w, peer, level);
        if (!check_claim(w->c, e->address, kind, &place)) {
                w->exact = false;
                return 0;
        }
        if (level) {
                w->n_nodes++;
                *ret_down = true;
                return 0;
        }
        w->n_data++;
        if (!w->root)
                return w->co_block(w, e, base);
        if (w->c->read_data && w->root->state != ROOT_ORPHAN)
                return co_check_data(w->c, w->root, base, e);
        return 0;
}

static int entry_look(struct check_walk *w, const struct entry *e, const struct peer *peer,
                      unsigned level, uint64_t base, uint64_t ceiling, bool *ret_down)
{
        *ret_down = false;
        if (base + tree_span(level) <= w->cursor)
                return 0;
        if (!entry_is_hole(e) && e->type != (level ? ENTRY_NODE : ENTRY_DATA)) {
                check_finding(w->c, "%s has an entry of unknown type %u", text_of(w, level, base).s,
                              e->type);
                w->exact = false;
                return 0;
        }
        if (e->birth > ceiling)
                check_finding(w->c, "%s is born in epoch %llu, and what names it in epoch %llu",
                              text_of(w, level, base).s, (unsigned long long)e->birth,
                              (unsigned long long)ceiling);
        if (entry_is_hole(e)) {
                *ret_down = hole_look(w, e, peer, level, base);
                return 0;
        }
        if (base >= w->end_block)
                check_finding(w->c, "%s lies behind the end", text_of(w, level, base).s);
        if (e->birth > w->threshold)
                return own_look(w, e, peer, level, base, ret_down);
        if (w->root && w->root->state == ROOT_ORPHAN)
                return 0; /* an ancestor's, or of one that was */
        if (w->threshold)
                inherited_look(w, e, peer, level, base);
        else
                check_finding(w->c, "%s is born in epoch 0", text_of(w, level, base).s);
        return 0;
}

/* ---- going down ---- */

static int co_items(struct check_walk *w, struct item *items, size_t n, unsigned level);

static int co_children(struct check_walk *w, const struct item *item, unsigned level)
{
        const struct node_disk *own = item->e.type == ENTRY_NODE ? item->own.page : NULL;
        struct item *items = malloc(CHECK_WINDOW * sizeof(*items));
        if (!items)
                return -ENOMEM;
        size_t n = 0;
        int r = 0;
        for (unsigned i = 0; i < NODE_ENTRIES && r == 0; i++) {
                struct entry e = own ? entry_get(&own->entry[i]) : item->e;
                struct peer peer = peer_child(w, item, i, level);
                uint64_t base = item->base + i * tree_span(level);
                bool down;
                r = entry_look(w, &e, &peer, level, base, item->e.birth, &down);
                if (r < 0 || !down)
                        continue;
                items[n++] = (struct item){.e = e, .peer = peer, .base = base};
                if (n == CHECK_WINDOW) {
                        r = co_items(w, items, n, level);
                        n = 0;
                }
        }
        if (r == 0 && n)
                r = co_items(w, items, n, level);
        free(items);
        return r;
}

static int co_items_read(struct check_walk *w, struct item *items, size_t n, unsigned level,
                         char *pages)
{
        struct check_read reads[CHECK_WINDOW];
        int r = 0;
        for (int theirs = 0; theirs < 2 && r == 0; theirs++) {
                size_t k = 0;
                for (size_t i = 0; i < n; i++) {
                        struct item *it = &items[i];
                        const struct entry *e = theirs ? &it->peer.e : &it->e;
                        if (e->type != ENTRY_NODE || (theirs && it->peer.kind != PEER_ENTRY))
                                continue;
                        reads[k++] =
                            (struct check_read){.e = *e,
                                                .place = place_of(w, level, it->base),
                                                .quiet = theirs,
                                                .page = pages + (2 * i + (size_t)theirs) * BLOCK};
                }
                if (k)
                        r = co_check_reads(w->c, reads, k);
                for (size_t i = 0; i < n; i++) {
                        void *page = pages + (2 * i + (size_t)theirs) * BLOCK;
                        for (size_t j = 0; j < k; j++)
                                if (reads[j].page == page)
                                        *(theirs ? &items[i].theirs : &items[i].own) = reads[j];
                }
        }
        return r;
}

static int co_items(struct check_walk *w, struct item *items, size_t n, unsigned level)
{
        char *pages = aligned_alloc(BLOCK, 2 * n * BLOCK);
        if (!pages)
                return -ENOMEM;
        int r = co_items_read(w, items, n, level, pages);
        for (size_t i = 0; i < n && r == 0; i++) {
                if (items[i].e.type == ENTRY_NODE && !items[i].own.good)
                        w->exact = false;
                else
                        r = co_children(w, &items[i], level - 1);
        }
        free(pages);
        return r;
}

int co_check_tree(struct check_walk *w, const struct tree *tree)
{
        const struct check_root *parent = w->root ? w->root->parent : NULL;
        struct item top = {.e = tree->root, .peer = {.kind = PEER_ENTRY, .e.type = ENTRY_ABSENT}};
        if (parent && !parent->exact) {
                top.peer.kind = PEER_UNKNOWN;
        } else if (parent && parent->map.height > tree->height) {
                check_finding(w->c, "%s is %u levels high, and its parent's %u",
                              text_of(w, tree->height, 0).s, tree->height, parent->map.height);
                top.peer.kind = PEER_UNKNOWN;
        } else if (parent) {
                top.peer.kind = parent->map.height < tree->height ? PEER_ABOVE : PEER_ENTRY;
                top.peer.e = parent->map.root;
        }
        bool down;
        int r = entry_look(w, &tree->root, &top.peer, tree->height, 0, w->newest, &down);
        if (r == 0 && down)
                r = co_items(w, &top, 1, tree->height);
        return r;
}
