/* test_check_damage.c - everything has its checksum, and is wrong: the check tells what. */
#include "pool/codec.h"
#include "tests/unit/check_fixture.h"

static struct root *co_root(struct sim_pool *s, const char *name)
{
        struct root *root = root_by_name(s->pool, name);
        if (root && co_root_load(s->pool, root, NULL) < 0)
                root = NULL;
        return root;
}

/* A leaf that was written in this epoch, so that the next cut writes it with whatever is in it. */
static struct entry_disk *co_fresh_leaf(struct sim_pool *s, const char *name, uint64_t block)
{
        struct node *leaf = NULL;
        struct entry e;
        struct root *root = co_root(s, name);
        if (!root || co_sim_pool_write(s, name, block, 1) < 0 ||
            tree_leaf(s->pool, &root->body->map, block, &leaf, &e) < 0 || !leaf)
                return NULL;
        return ((struct node_disk *)leaf->page)->entry;
}

static void co_found(struct sim_pool *s, const char *what, int line)
{
        struct findings f;
        if (co_check(s, false, &f) < 0)
                sim_pool_fails(s, __FILE__, line, "the check gave up");
        else if (!strstr(f.text, what)) {
                char text[400];
                snprintf(text, sizeof(text), "not found: '%s', but: %.300s", what, f.text);
                sim_pool_fails(s, __FILE__, line, text);
        }
}

/* A pool of the family's shape is damaged by @each in one way, which the check has to name. */
static void co_damaged(void *arg)
{
        struct sim_pool *s = arg;
        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_family(s) == 0);
        expect(s, co_pool_settle(s->pool, NULL) == 0);
        co_expect_sound_here(s);
        expect(s, s->each(s) == 0);
        co_pool_abandon(s->pool);
}

static void damaged(int (*co_damage)(struct sim_pool *s))
{
        sim_pool_run_each(2, 1, co_damaged, co_damage);
}

static int co_leak(struct sim_pool *s)
{
        uint64_t address;
        uint32_t n;
        if (space_take_data(s->pool, 3, &address, &n) < 0 || co_sim_pool_write(s, "web", 0, 1) < 0)
                return -1;
        space_commit(s->pool, address, n);
        co_found(s, "3 blocks of data are in use and belong to nothing", __LINE__);
        return 0;
}

static void finds_blocks_that_belong_to_nothing(void **state)
{
        damaged(co_leak);
}

static int co_used_and_free(struct sim_pool *s)
{
        struct entry_disk *leaf = co_fresh_leaf(s, "web", 5);
        if (!leaf)
                return -1;
        space_free(s->pool, entry_get(&leaf[5]).address);
        co_found(s, "data of volume 'web' at offset 20480 lies on a block that is free", __LINE__);
        return 0;
}

static void finds_blocks_in_use_that_are_free(void **state)
{
        damaged(co_used_and_free);
}

static int co_used_twice(struct sim_pool *s)
{
        struct entry_disk *leaf = co_fresh_leaf(s, "web", 5);
        if (!leaf)
                return -1;
        leaf[250] = leaf[5];
        co_found(s, "at offset 1024000 lies on a block that something else has", __LINE__);
        return 0;
}

static void finds_blocks_used_twice(void **state)
{
        damaged(co_used_twice);
}

static int co_nowhere(struct sim_pool *s)
{
        struct entry_disk *leaf = co_fresh_leaf(s, "web", 5);
        if (!leaf)
                return -1;
        struct entry e = entry_get(&leaf[5]);
        e.address = 1; /* the first slab is of the slab table */
        entry_put(&leaf[5], &e);
        co_found(s, "is in no slab of data", __LINE__);
        return 0;
}

static void finds_addresses_of_another_kind(void **state)
{
        damaged(co_nowhere);
}

static int co_unknown_type(struct sim_pool *s)
{
        struct entry_disk *leaf = co_fresh_leaf(s, "web", 5);
        if (!leaf)
                return -1;
        struct entry e = entry_get(&leaf[5]);
        e.type = ENTRY_COMPRESSED;
        entry_put(&leaf[5], &e);
        co_found(s, "has an entry of unknown type 4", __LINE__);
        return 0;
}

static void finds_entries_of_unknown_type(void **state)
{
        damaged(co_unknown_type);
}

static int co_birth_order(struct sim_pool *s)
{
        struct entry_disk *leaf = co_fresh_leaf(s, "web", 5);
        if (!leaf)
                return -1;
        struct entry e = entry_get(&leaf[5]);
        e.birth++;
        entry_put(&leaf[5], &e);
        co_found(s, "and what names it in epoch", __LINE__);
        return 0;
}

static void finds_births_out_of_order(void **state)
{
        damaged(co_birth_order);
}

/* Block 5 of "web" is inherited from "web@one"; it now stands for what block 6 is. */
static int co_wrong_heritage(struct sim_pool *s)
{
        struct entry_disk *leaf = co_fresh_leaf(s, "web", 200);
        if (!leaf || entry_get(&leaf[50]).birth >= s->pool->epoch)
                return -1;
        leaf[50] = leaf[51];
        co_found(s,
                 "data of volume 'web' at offset 204800 is inherited, and its parent has "
                 "something else there",
                 __LINE__);
        return 0;
}

static int co_moved_heritage(struct sim_pool *s)
{
        struct entry_disk *leaf = co_fresh_leaf(s, "web", 200);
        if (!leaf)
                return -1;
        struct entry e = entry_get(&leaf[50]);
        e.address = entry_get(&leaf[51]).address;
        entry_put(&leaf[50], &e);
        co_found(s, "data of volume 'web' at offset 204800 is inherited", __LINE__);
        return 0;
}

static void finds_what_was_never_inherited(void **state)
{
        damaged(co_wrong_heritage);
        damaged(co_moved_heritage);
}

static int co_lost_block(struct sim_pool *s)
{
        struct entry_disk *leaf = co_fresh_leaf(s, "web", 200);
        if (!leaf)
                return -1;
        leaf[50] = (struct entry_disk){0};
        co_found(s, "is a hole that is older than what the parent has", __LINE__);
        return 0;
}

static void finds_what_was_lost_of_the_heritage(void **state)
{
        damaged(co_lost_block);
}

static int co_behind_end(struct sim_pool *s)
{
        struct root *root = co_root(s, "copy");
        if (!root || co_sim_pool_write(s, "copy", 700, 2) < 0)
                return -1;
        root->body->size_bytes = 701 * POOL_BLOCK;
        co_found(s, "data of volume 'copy' at offset 2871296 lies behind the end", __LINE__);
        return 0;
}

static void finds_blocks_behind_the_end(void **state)
{
        damaged(co_behind_end);
}

static int co_counters(struct sim_pool *s)
{
        struct root *root = co_root(s, "copy");
        if (!root || co_sim_pool_write(s, "copy", 0, 1) < 0 || root->body->n_buckets == 0)
                return -1;
        root->body->data_blocks++;
        co_found(s, "the block of volume 'copy' counts", __LINE__);
        root->body->data_blocks--;
        root->body->own_blocks--;
        root_dirty(s->pool, root);
        co_found(s, "blocks of its own, and there are", __LINE__);
        root->body->own_blocks++;
        root->body->bucket[0].n_blocks++;
        root_dirty(s->pool, root);
        co_found(s, "of volume 'copy' has a bucket that counts", __LINE__);
        root->body->bucket[0].n_blocks--;
        root->body->bucket[0].n_pages++;
        root_dirty(s->pool, root);
        co_found(s, "of volume 'copy' has a bucket that counts", __LINE__);
        return 0;
}

static void finds_wrong_counters(void **state)
{
        damaged(co_counters);
}

/* The newest page of the last bucket of "copy", which may be changed now. */
static struct deadlist_disk *co_fresh_dead_page(struct sim_pool *s, struct bucket **ret_bucket)
{
        struct root *root = co_root(s, "copy");
        if (!root || co_sim_pool_write(s, "copy", 0, 3) < 0 || root->body->n_buckets == 0)
                return NULL;
        *ret_bucket = &root->body->bucket[root->body->n_buckets - 1];
        struct node *node = cache_find(s->pool, &(*ret_bucket)->head);
        return node && node->birth == s->pool->epoch ? node->page : NULL;
}

static int co_deadlist(struct sim_pool *s)
{
        struct bucket *bucket;
        struct deadlist_disk *page = co_fresh_dead_page(s, &bucket);
        if (!page)
                return -1;
        uint32_t n = le32_get(page->n);
        page->entry[n - 1] = page->entry[n - 2]; /* one is twice in it, one is not */
        co_found(s, "lists other blocks as dead than those that are", __LINE__);
        return 0;
}

static int co_short_deadlist(struct sim_pool *s)
{
        struct bucket *bucket;
        struct deadlist_disk *page = co_fresh_dead_page(s, &bucket);
        if (!page)
                return -1;
        page->n = le32_make(le32_get(page->n) - 1);
        bucket->n_blocks--;
        co_found(s, "blocks as dead, and there are", __LINE__);
        return 0;
}

static int co_dead_in_wrong_bucket(struct sim_pool *s)
{
        struct bucket *bucket;
        struct deadlist_disk *page = co_fresh_dead_page(s, &bucket);
        if (!page)
                return -1;
        struct entry e = entry_get(&page->entry[0]);
        e.birth = s->pool->epoch;
        entry_put(&page->entry[0], &e);
        co_found(s, "in a bucket for", __LINE__);
        return 0;
}

static void finds_what_the_deadlist_lacks(void **state)
{
        damaged(co_deadlist);
        damaged(co_short_deadlist);
        damaged(co_dead_in_wrong_bucket);
}

static int co_dead_and_free(struct sim_pool *s)
{
        struct bucket *bucket;
        struct deadlist_disk *page = co_fresh_dead_page(s, &bucket);
        if (!page)
                return -1;
        space_free(s->pool, entry_get(&page->entry[le32_get(page->n) - 1]).address);
        co_found(s, "lists a block that is free by its space map", __LINE__);
        return 0;
}

static void finds_dead_blocks_that_are_free(void **state)
{
        damaged(co_dead_and_free);
}

static int co_wrong_label(struct sim_pool *s)
{
        struct label label;
        struct member *m = s->pool->disk[1]->member;
        if (co_label_read(m, &label, NULL) < 0)
                return -1;
        label.member_uuid[0] ^= 1;
        if (co_label_write(m, &label, NULL) < 0)
                return -1;
        co_found(s, "the label of member 'disk1' at byte 0 is of another member", __LINE__);
        return 0;
}

static int co_other_super(struct sim_pool *s)
{
        struct super super;
        if (co_super_read(s->pool->disk[0]->member, &super, NULL, NULL) < 0)
                return -1;
        super.next_root_id++;
        int r = co_super_write(s->pool, &super, 1, 2, NULL);
        super_free(&super);
        co_found(s, "is different on member 'disk1'", __LINE__);
        return r;
}

static int co_other_index(struct sim_pool *s)
{
        struct root *root = co_root(s, "web@one");
        if (!root)
                return -1;
        root->epoch++;
        co_found(s, "of the catalog differs from the root that is in memory", __LINE__);
        return 0;
}

static int co_other_name(struct sim_pool *s)
{
        struct root *root = co_root(s, "web@one");
        if (!root)
                return -1;
        root->name[0] ^= 1;
        co_found(s, "of the catalog differs from the root that is in memory", __LINE__);
        root->name[0] ^= 1;
        root->volume_id++;
        co_found(s, "of the catalog differs from the root that is in memory", __LINE__);
        root->volume_id--;
        return 0;
}

static void finds_what_belongs_elsewhere(void **state)
{
        damaged(co_other_name);
        damaged(co_wrong_label);
        damaged(co_other_super);
        damaged(co_other_index);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(finds_blocks_that_belong_to_nothing),
            cmocka_unit_test(finds_blocks_in_use_that_are_free),
            cmocka_unit_test(finds_blocks_used_twice),
            cmocka_unit_test(finds_addresses_of_another_kind),
            cmocka_unit_test(finds_entries_of_unknown_type),
            cmocka_unit_test(finds_births_out_of_order),
            cmocka_unit_test(finds_what_was_never_inherited),
            cmocka_unit_test(finds_what_was_lost_of_the_heritage),
            cmocka_unit_test(finds_blocks_behind_the_end),
            cmocka_unit_test(finds_wrong_counters),
            cmocka_unit_test(finds_what_the_deadlist_lacks),
            cmocka_unit_test(finds_dead_blocks_that_are_free),
            cmocka_unit_test(finds_what_belongs_elsewhere),
        };
        log_set_sink(NULL);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
