/* check_list.c - deadlists: buckets, their chains of pages, and what the pages list [I6]. */
#include <errno.h>
#include <stdlib.h>
#include "pool/check.h"
#include "pool/codec.h"

/* ---- buckets that do not fit into the root's block ---- */

int co_check_buckets(struct check *c, struct check_root *root, struct root_body *body, size_t n,
                     struct entry more, bool *ret_good)
{
        struct buckets_disk *page = page_alloc();
        struct check_place place = {"a bucket page", root, NO_BLOCK};
        int r = page ? 0 : -ENOMEM;
        *ret_good = true;
        while (r == 0 && *ret_good && body->n_buckets < n) {
                struct check_read read = {.e = more, .place = place, .page = page};
                *ret_good =
                    more.type == ENTRY_NODE && check_claim(c, more.address, SLAB_METADATA, &place);
                if (*ret_good)
                        r = co_check_read(c, &read);
                uint32_t here = le32_get(page->n);
                *ret_good = *ret_good && read.good && le64_get(page->magic) == BUCKETS_MAGIC &&
                            here >= 1 && here <= PAGE_BUCKETS && here <= n - body->n_buckets;
                for (uint32_t i = 0; i < here && *ret_good && r == 0; i++)
                        *ret_good =
                            bucket_decode(&page->bucket[i], &body->bucket[body->n_buckets++]) == 0;
                more = entry_get(&page->next);
        }
        if (r == 0 && !*ret_good) {
                check_finding(
                    c, "the chain of bucket pages of %s is broken",
                    check_place_text(c, &(struct check_place){"the deadlist", root, NO_BLOCK}).s);
                c->incomplete = true;
        }
        free(page);
        return r;
}

/* ---- pages ---- */

struct chain {
        struct check *c;
        const struct check_root *root;
        const struct bucket *bucket;
        uint64_t upper;     /* births are above the bucket's key, and not above this */
        struct entry *head; /* pages yet to be read */
        size_t n_heads, room;
        uint64_t n_blocks, n_pages, sum;
        bool good;
};

static int head_push(struct chain *ch, const struct entry *e)
{
        if (e->type == ENTRY_ABSENT)
                return 0;
        if (ch->n_heads == ch->room) {
                size_t room = ch->room ? 2 * ch->room : 8;
                struct entry *grown = realloc(ch->head, room * sizeof(*grown));
                if (!grown)
                        return -ENOMEM;
                ch->head = grown;
                ch->room = room;
        }
        ch->head[ch->n_heads++] = *e;
        return 0;
}

static void dead_entry_look(struct chain *ch, const struct entry *e)
{
        struct check *c = ch->c;
        struct check_place place = {"the deadlist", ch->root, NO_BLOCK};
        bool known = e->type == ENTRY_DATA || e->type == ENTRY_NODE;
        ch->n_blocks++;
        ch->sum += check_mix(e);
        if (!known || e->birth <= ch->bucket->key || e->birth > ch->upper) {
                check_finding(
                    c,
                    "%s lists a block of type %u born in epoch %llu, in a bucket for %llu to %llu",
                    check_place_text(c, &place).s, e->type, (unsigned long long)e->birth,
                    (unsigned long long)ch->bucket->key + 1, (unsigned long long)ch->upper);
                ch->good = false;
                return;
        }
        if (ch->root->state == ROOT_ORPHAN) {
                place.what = "a block to be freed, in the list";
                if (!(ch->bucket->flags & BUCKET_PAGES_ONLY))
                        check_claim(c, e->address,
                                    e->type == ENTRY_DATA ? SLAB_DATA : SLAB_METADATA, &place);
                return;
        }
        if (!check_is_live(c, e->address) ||
            (ch->root->parent && ch->root->parent->exact && !check_is_claimed(c, e->address)))
                check_finding(c, "%s lists a block that %s: %s", check_place_text(c, &place).s,
                              check_is_live(c, e->address) ? "no ancestor has"
                                                           : "is free by its space map",
                              check_address_text(c, e->address, 0).s);
}

static int co_page_look(struct chain *ch, const struct entry *e, struct deadlist_disk *page)
{
        struct check *c = ch->c;
        struct check_place place = {"a page of the deadlist", ch->root, NO_BLOCK};
        struct check_read read = {.e = *e, .place = place, .page = page};
        if (e->type != ENTRY_NODE || !check_claim(c, e->address, SLAB_METADATA, &place)) {
                ch->good = false;
                return 0;
        }
        int r = co_check_read(c, &read);
        if (r < 0 || !read.good) {
                ch->good = false;
                return r;
        }
        uint32_t n = le32_get(page->n);
        if (le64_get(page->magic) != DEADLIST_MAGIC || n > DEAD_ENTRIES) {
                check_finding(c, "%s holds impossible values: %s", check_place_text(c, &place).s,
                              check_address_text(c, e->address, 0).s);
                c->incomplete = true;
                ch->good = false;
                return 0;
        }
        ch->n_pages++;
        struct entry prev = entry_get(&page->prev), join = entry_get(&page->join);
        r = head_push(ch, &prev);
        if (r == 0)
                r = head_push(ch, &join);
        for (uint32_t i = 0; i < n; i++) {
                struct entry dead = entry_get(&page->entry[i]);
                dead_entry_look(ch, &dead);
        }
        return r;
}

static int co_chain(struct chain *ch)
{
        struct deadlist_disk *page = page_alloc();
        int r = page ? head_push(ch, &ch->bucket->head) : -ENOMEM;
        while (r == 0 && ch->n_heads) {
                struct entry e = ch->head[--ch->n_heads];
                r = co_page_look(ch, &e, page);
        }
        free(page);
        free(ch->head);
        return r;
}

/* ---- the list ---- */

/* An orphan's counters are not kept while it is worked off. */
static void bucket_counters(struct chain *ch)
{
        const struct bucket *b = ch->bucket;
        if (!ch->good || ch->root->state == ROOT_ORPHAN ||
            (b->n_blocks == ch->n_blocks && b->n_pages == ch->n_pages))
                return;
        struct check_place place = {"the deadlist", ch->root, NO_BLOCK};
        check_finding(
            ch->c,
            "%s has a bucket that counts %llu blocks on %u pages, and there are %llu on %llu",
            check_place_text(ch->c, &place).s, (unsigned long long)b->n_blocks, b->n_pages,
            (unsigned long long)ch->n_blocks, (unsigned long long)ch->n_pages);
}

/* The lowest epoch of an ancestor above @key: no birth in the bucket is above it. */
static uint64_t bucket_upper(const struct check *c, const struct check_root *root, uint64_t key,
                             const uint64_t *ancestor, size_t n)
{
        if (root->state == ROOT_ORPHAN)
                return c->epoch;
        size_t low = 0, high = n;
        while (low < high) {
                size_t middle = low + (high - low) / 2;
                if (ancestor[middle] <= key)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low < n ? ancestor[low] : 0;
}

int co_check_deadlist(struct check *c, const struct check_root *root, const struct root_body *body,
                      const uint64_t *ancestor, size_t n_ancestors, struct check_list *list)
{
        int r = 0;
        *list = (struct check_list){.exact = true};
        for (size_t i = 0; i < body->n_buckets && r == 0; i++) {
                const struct bucket *b = &body->bucket[i];
                struct check_place place = {"the deadlist", root, NO_BLOCK};
                if (root->state != ROOT_ORPHAN &&
                    (b->flags || (i > 0 && body->bucket[i - 1].key > b->key)))
                        check_finding(c, "%s has buckets out of order",
                                      check_place_text(c, &place).s);
                struct chain ch = {.c = c, .root = root, .bucket = b, .good = true};
                ch.upper = bucket_upper(c, root, b->key, ancestor, n_ancestors);
                r = co_chain(&ch);
                bucket_counters(&ch);
                list->n_blocks += ch.n_blocks;
                list->sum += ch.sum;
                list->exact = list->exact && ch.good;
        }
        return r;
}
