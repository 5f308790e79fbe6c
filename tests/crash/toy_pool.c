/* toy_pool.c - see toy_impl.h: the pool as a whole, its labels and its members. */
#include "tests/crash/toy_impl.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct label_disk {
        uint64_t magic, index;
        uint8_t pool_uuid[16];
};

static int co_write_label(struct member *member, uint64_t index, const uint8_t *uuid)
{
        struct label_disk *label = toy_must(aligned_alloc(POOL_BLOCK, POOL_BLOCK));
        int r;

        memset(label, 0, POOL_BLOCK);
        *label = (struct label_disk){.magic = TOY_MAGIC, .index = index};
        if (uuid != NULL)
                memcpy(label->pool_uuid, uuid, sizeof(label->pool_uuid));
        r = co_member_write(member, label, POOL_BLOCK, 0);
        free(label);
        return r < 0 ? r : co_member_flush(member);
}

int co_pool_create(struct member *const *members, size_t n_members,
                   const struct pool_create_options *options, struct error *err)
{
        struct pool pool = {.n_members = n_members};
        int r = 0;

        for (size_t i = 0; r == 0 && i < n_members; i++) {
                pool.members[i] = members[i];
                r = co_write_label(members[i], i, options->uuid);
        }
        return r < 0 ? r : co_toy_commit(&pool, true);
}

int co_pool_read_label(struct member *member, struct pool_label *ret_label, struct error *err)
{
        struct label_disk *label = toy_must(aligned_alloc(POOL_BLOCK, POOL_BLOCK));
        struct commit_disk commit;
        int r = co_member_read(member, label, POOL_BLOCK, 0);

        if (r == 0 && label->magic != TOY_MAGIC)
                r = error_set(err, -ENODATA, "no label");
        if (r == 0)
                r = co_toy_newest(member, member, &commit, NULL);
        if (r == 0) {
                *ret_label = (struct pool_label){.index = (unsigned)label->index};
                ret_label->generation = commit.sequence;
                ret_label->member_uuid[0] = (uint8_t)label->index;
        }
        free(label);
        return r;
}

int co_pool_read_membership(struct member *member, uint8_t (**ret_uuids)[16], size_t *ret_n,
                            struct error *err)
{
        struct commit_disk commit;
        int r = co_toy_newest(member, member, &commit, NULL);

        if (r < 0)
                return error_set(err, r, "cannot read the membership");
        *ret_n = commit.n_members;
        *ret_uuids = toy_must(calloc(commit.n_members + 1, 16));
        for (size_t i = 0; i < commit.n_members; i++)
                (*ret_uuids)[i][0] = (uint8_t)i;
        return 0;
}

static int co_recover(struct pool *pool, const struct commit_disk *commit)
{
        int r = 0;

        if (commit->clean)
                return 0;
        pool->recovered = true;
        if (toy_defect() == DEFECT_ABORT && commit->sequence % 3 == 0)
                abort();
        if (toy_defect() == DEFECT_RECOVERY_NOT_RESTARTED && pool->n_roots > 0) {
                struct root whole = pool->roots[0];

                pool->roots[0].n_entries = 0;
                r = co_toy_commit(pool, false);
                pool->roots[0] = whole;
        }
        return r < 0 ? r : co_toy_commit(pool, false);
}

int co_pool_open(struct loop *loop, struct member *const *members, size_t n_members,
                 const struct pool_options *options, struct pool **ret_pool, struct error *err)
{
        struct pool *pool = toy_must(calloc(1, sizeof(*pool)));
        struct commit_disk commit;
        uint8_t *bytes = NULL;
        int r;

        pool->loop = loop;
        pool->n_members = n_members;
        memcpy(pool->members, members, n_members * sizeof(*members));
        co_mutex_init(&pool->lock);
        r = co_toy_newest(members[0], members[0], &commit, &bytes);
        if (r == 0 && commit.sequence == 0)
                r = -EUCLEAN;
        if (r == 0) {
                toy_load(pool, bytes);
                pool->next_id = commit.next_id;
                pool->sequence = commit.sequence;
                r = co_recover(pool, &commit);
        }
        free(bytes);
        if (r < 0) {
                free(pool);
                return error_set(err, r, "cannot open the toy pool");
        }
        *ret_pool = pool;
        return 0;
}

void co_pool_abandon(struct pool *pool)
{
        for (size_t i = 0; i < pool->n_members; i++)
                member_close(pool->members[i]);
        while (pool->n_roots > 0)
                root_remove(pool, &pool->roots[0]);
        for (size_t i = 0; i < pool->n_remains; i++)
                page_drop(pool->remains[i].page);
        free(pool->remains);
        free(pool);
}

int co_pool_close(struct pool *pool, struct error *err)
{
        int r;

        if (toy_defect() == DEFECT_SECOND_RECOVERY && pool->recovered && pool->n_roots > 0 &&
            pool->roots[0].n_entries > 0)
                root_write(&pool->roots[0], NULL, pool->roots[0].entries[0].block * POOL_BLOCK,
                           512);
        r = co_toy_commit(pool, true);
        co_pool_abandon(pool);
        return r;
}

int co_pool_add(struct pool *pool, struct member *const *members, size_t n_members,
                struct error *err)
{
        int r;

        co_lock(&pool->lock);
        r = co_write_label(members[0], pool->n_members, NULL);
        if (r == 0) {
                pool->members[pool->n_members++] = members[0];
                r = co_toy_commit(pool, false);
        }
        co_unlock(&pool->lock);
        return r;
}

int co_pool_checkpoint(struct pool *pool, struct error *err)
{
        return co_toy_commit_locked(pool, false);
}

int co_pool_settle(struct pool *pool, struct error *err)
{
        return 0;
}

void pool_get_info(struct pool *pool, struct pool_info *ret_info)
{
        *ret_info = (struct pool_info){.n_members = pool->n_members};
}

int co_pool_check(struct pool *pool, bool read_data, const struct pool_check_callbacks *callbacks,
                  uint64_t *ret_n_findings, struct error *err)
{
        *ret_n_findings = 0;
        return 0;
}
