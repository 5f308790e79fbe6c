/* snapshot.c - snapshots: taken at one instant, restored, cloned, deleted. */
#include <errno.h>
#include <stdlib.h>
#include "pool/operate.h"
#include "pool/usage.h"

int snapshot_name_split(const char *name, char volume[POOL_NAME_MAX + 1], const char **ret_snapshot,
                        struct error *err)
{
        const char *at = strchr(name, '@');
        if (!at || at == name || (size_t)(at - name) > POOL_NAME_MAX) {
                error_set(err, -EINVAL, "'%.160s' names no snapshot", name);
                return error_hint(err, "snapshots are named VOLUME@SNAPSHOT");
        }
        memcpy(volume, name, (size_t)(at - name));
        volume[at - name] = 0;
        *ret_snapshot = at + 1;
        return pool_name_check(at + 1, "snapshot", err);
}

/* ---- create ---- */

struct cut_part {
        struct catalog_op op;
        struct root *head;
};

static int part_fill(struct pool *pool, const char *name, struct cut_part *part, uint64_t new_id,
                     struct error *err)
{
        char volume[POOL_NAME_MAX + 1];
        const char *snapshot;
        int r = snapshot_name_split(name, volume, &snapshot, err);
        if (r < 0)
                return r;
        part->head = root_require(pool, volume, err);
        if (!part->head)
                return -ENOENT;
        if (root_snapshot(pool, part->head->volume_id, snapshot))
                return error_set(err, -EEXIST, "volume '%s' has a snapshot '%s' already", volume,
                                 snapshot);
        r = op_begin(&part->op, LOG_SNAPSHOT, true, err);
        part->op.root_id = part->head->id;
        part->op.new_id = new_id;
        memcpy(part->op.name, snapshot, strlen(snapshot));
        return r;
}

static int co_parts_prepare(struct pool *pool, const char *const *names, struct cut_part *part,
                            size_t n, struct error *err)
{
        int r = 0;
        for (size_t i = 0; i < n && r == 0; i++) {
                r = part_fill(pool, names[i], &part[i], pool->next_root_id + i, err);
                for (size_t k = 0; k < i && r == 0; k++)
                        if (part[k].head == part[i].head)
                                r = error_set(err, -EINVAL, "volume '%s' is named twice",
                                              part[i].head->name);
        }
        if (r == 0)
                r = co_operate_admit(pool, 2 * n, true, err);
        for (size_t i = 0; i < n && r == 0; i++)
                r = co_op_prepare(pool, &part[i].op, err);
        if (r == 0)
                r = co_catalog_prepare(pool, (unsigned)n, err);
        return r;
}

int co_snapshot_create(struct pool *pool, const char *const *names, size_t n, struct error *err)
{
        if (n == 0)
                return error_set(err, -EINVAL, "no snapshot is named");
        struct cut_part *part = calloc(n, sizeof(*part));
        if (!part)
                return error_set(err, -ENOMEM, "out of memory");
        int r = co_operate_begin(pool, err);
        if (r < 0) {
                free(part);
                return r;
        }
        r = co_parts_prepare(pool, names, part, n, err);
        if (r == 0) {
                /* The cut: new writes wait, those under way end, the epoch is raised,
                 * all goes on. */
                for (size_t i = 0; i < n; i++)
                        co_root_hold(part[i].head);
                for (size_t i = 0; i < n && r == 0; i++) /* [sync] */
                        r = operate(pool, &part[i].op, i + 1 < n, err);
                epoch_raise(pool);
                for (size_t i = 0; i < n; i++)
                        root_unhold(pool, part[i].head);
        }
        free(part);
        return co_operate_end(pool, r, err);
}

/* ---- delete ---- */

static struct root *snapshot_require(struct pool *pool, const char *name, struct error *err)
{
        char volume[POOL_NAME_MAX + 1];
        const char *snapshot;
        return snapshot_name_split(name, volume, &snapshot, err) < 0
                   ? NULL
                   : root_require(pool, name, err);
}

static int missing_code(const char *name)
{
        return strchr(name, '@') ? -ENOENT : -EINVAL;
}

int co_snapshot_delete(struct pool *pool, const char *name, struct error *err)
{
        int r = co_operate_begin(pool, err);
        if (r < 0)
                return r;
        struct root *root = snapshot_require(pool, name, err);
        r = root ? 0 : missing_code(name);
        if (r == 0) {
                struct catalog_op op = {.type = LOG_UNNAME, .root_id = root->id};
                uint64_t id = root->id;
                r = co_operate_prepare(pool, &op, err);
                if (r == 0)
                        r = operate(pool, &op, false, err);
                if (r == 0)
                        co_collect_after(pool, root_by_id(pool, id));
        }
        return co_operate_end(pool, r, err);
}

/* ---- restore ---- */

static int co_restore(struct pool *pool, const char *name, const char *keep_as, struct error *err)
{
        struct root *from = snapshot_require(pool, name, err);
        if (!from)
                return missing_code(name);
        struct root *head = root_head(pool, from->volume_id);
        struct catalog_op op;
        int r = keep_as ? pool_name_check(keep_as, "snapshot", err) : 0;
        if (r < 0)
                return r;
        if (keep_as && root_snapshot(pool, head->volume_id, keep_as))
                return error_set(err, -EEXIST, "volume '%s' has a snapshot '%s' already",
                                 head->name, keep_as);
        if (head->n_handles)
                return error_set(err, -EBUSY, "volume '%s' is in use", head->name);
        r = op_begin(&op, LOG_RESTORE, true, err);
        if (r < 0)
                return r;
        op.root_id = head->id;
        op.from_id = from->id;
        op.new_id = pool->next_root_id;
        if (keep_as)
                memcpy(op.name, keep_as, strlen(keep_as));
        r = co_operate_prepare(pool, &op, err);
        if (r < 0)
                return r;
        co_root_hold(head); /* the worker may be shrinking it */
        if (head->n_handles) {
                root_unhold(pool, head);
                return error_set(err, -EBUSY, "volume '%s' is in use", head->name);
        }
        r = operate(pool, &op, false, err);
        if (r == 0)
                usage_move(head, root_by_id(pool, op.new_id));
        epoch_raise(pool);
        root_unhold(pool, head);
        if (r == 0)
                co_collect_after(pool, head);
        worker_kick(pool);
        return r;
}

int co_snapshot_restore(struct pool *pool, const char *name, const char *keep_as, struct error *err)
{
        int r = co_operate_begin(pool, err);
        if (r < 0)
                return r;
        r = co_restore(pool, name, keep_as, err);
        return co_operate_end(pool, r, err);
}

/* ---- clone ---- */

int co_snapshot_clone(struct pool *pool, const char *snapshot, const char *new_volume,
                      struct error *err)
{
        int r = pool_name_check(new_volume, "volume", err);
        if (r == 0)
                r = co_operate_begin(pool, err);
        if (r < 0)
                return r;
        struct catalog_op op;
        struct root *from = snapshot_require(pool, snapshot, err);
        r = from ? 0 : missing_code(snapshot);
        if (r == 0 && root_by_name(pool, new_volume))
                r = error_set(err, -EEXIST, "pool '%s' has a volume '%s' already", pool->name,
                              new_volume);
        if (r == 0)
                r = op_begin(&op, LOG_CLONE, true, err);
        if (r == 0) {
                op.from_id = from->id;
                op.new_id = pool->next_root_id;
                memcpy(op.name, new_volume, strlen(new_volume));
                r = co_operate_prepare(pool, &op, err);
        }
        if (r == 0)
                r = operate(pool, &op, false, err);
        if (r == 0)
                worker_kick(pool);
        return co_operate_end(pool, r, err);
}
