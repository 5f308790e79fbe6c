/* volume.c - volumes by name: made, opened, resized, renamed, deleted, described by properties. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>
#include "pool/crossing.h"
#include "pool/operate.h"
#include "pool/usage.h"

/* ---- one operation at a time ---- */

int co_operate_begin(struct pool *pool, struct error *err)
{
        co_lock(&pool->catalog_lock);
        if (!pool->readonly && !pool_failed(pool))
                return 0;
        int r = pool_failed(pool)
                    ? error_set(err, -EIO, "pool '%s' has stopped writing: %s", pool->name,
                                pool->failed)
                    : error_set(err, -EROFS, "pool '%s' is open read-only%s%s", pool->name,
                                pool->damage[0] ? ": " : "", pool->damage);
        co_unlock(&pool->catalog_lock);
        return r;
}

int co_operate_end(struct pool *pool, int r, struct error *err)
{
        if (r == 0 && co_commit(pool) < 0)
                r = error_set(err, -EIO, "pool '%s' has stopped writing: %s", pool->name,
                              pool->failed);
        co_unlock(&pool->catalog_lock);
        return r;
}

int co_operate_admit(struct pool *pool, uint64_t n, bool adds, struct error *err)
{
        uint64_t blocks = catalog_blocks(n, pool->n_slots + n) + HEIGHT_MAX;
        int r = co_metadata_admit(pool, blocks + (adds ? metadata_reserve(pool) / 2 : 0), false);
        if (r == -ENOSPC) {
                error_set(err, r, "pool '%s' has no space left for this", pool->name);
                error_hint(err,
                           "delete snapshots or volumes, or add a disk: tarn pool add %s MEMBER",
                           pool->name);
        } else if (r < 0) {
                error_set(err, r, "pool '%s' has stopped writing", pool->name);
        }
        return r;
}

static bool op_adds(const struct catalog_op *op)
{
        return op->type == LOG_CREATE || op->type == LOG_SNAPSHOT || op->type == LOG_CLONE ||
               op->type == LOG_RESTORE;
}

int co_operate_prepare(struct pool *pool, const struct catalog_op *op, struct error *err)
{
        /* The root, a child that it merges into, a parent that goes with it, and one over. */
        int r = co_operate_admit(pool, 4, op_adds(op), err);
        return r < 0 ? r : co_op_prepare(pool, op, err);
}

int operate(struct pool *pool, const struct catalog_op *op, bool more, struct error *err)
{
        int r = op_apply(pool, op);
        if (r < 0) {
                if (r != -ENOSPC)
                        pool_fail(pool, "out of memory during an operation on its catalog");
                return error_set(err, r, "%s",
                                 r == -ENOSPC ? "no metadata block is left for this"
                                              : "out of memory");
        }
        op_log(pool, op, more);
        return 0;
}

int op_begin(struct catalog_op *op, uint8_t type, bool uuid, struct error *err)
{
        struct timespec ts;
        clock_gettime(CLOCK_REALTIME, &ts);
        *op = (struct catalog_op){.type = type,
                                  .time_ns = (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec};
        if (uuid && getrandom(op->uuid, 16, 0) != 16)
                return error_set(err, -EIO, "no random numbers for a uuid");
        op->uuid[6] = (op->uuid[6] & 0x0f) | 0x40; /* RFC 9562, section 5.4 */
        op->uuid[8] = (op->uuid[8] & 0x3f) | 0x80;
        return 0;
}

struct root *root_require(struct pool *pool, const char *name, struct error *err)
{
        struct root *root = root_by_name(pool, name);
        if (!root)
                error_set(err, -ENOENT, "there is no '%.160s' in pool '%s'", name, pool->name);
        return root;
}

static struct root *volume_require(struct pool *pool, const char *name, struct error *err)
{
        if (strchr(name, '@')) {
                error_set(err, -EINVAL, "'%.160s' is a snapshot, and a volume is wanted", name);
                return NULL;
        }
        return root_require(pool, name, err);
}

static int err_code(const struct error *err, int otherwise)
{
        return err && err->code ? err->code : otherwise;
}

/* ---- create, delete, rename ---- */

int volume_size_check(uint64_t size_bytes, struct error *err)
{
        if (size_bytes == 0)
                return error_set(err, -EINVAL, "a volume of no size cannot be made");
        if (size_bytes % VOLUME_SECTOR)
                return error_set(err, -EINVAL,
                                 "a volume's size is a multiple of %u bytes, and %llu is not",
                                 VOLUME_SECTOR, (unsigned long long)size_bytes);
        if (size_bytes > VOLUME_SIZE_MAX)
                return error_set(
                    err, -EINVAL, "%llu bytes are too many for a volume: at most %llu (4P)",
                    (unsigned long long)size_bytes, (unsigned long long)VOLUME_SIZE_MAX);
        return 0;
}

int volume_name_is_new(struct pool *pool, const char *name, struct error *err)
{
        int r = pool_name_check(name, "volume", err);
        if (r == 0 && root_by_name(pool, name))
                r = error_set(err, -EEXIST, "pool '%s' has a volume '%s' already", pool->name,
                              name);
        return r;
}

int co_volume_create(struct pool *pool, const char *name, uint64_t size_bytes, struct error *err)
{
        struct catalog_op op;
        int r = volume_size_check(size_bytes, err);
        if (r == 0)
                r = pool_name_check(name, "volume", err);
        if (r == 0)
                r = co_operate_begin(pool, err);
        if (r < 0)
                return r;
        r = volume_name_is_new(pool, name, err);
        if (r == 0)
                r = op_begin(&op, LOG_CREATE, true, err);
        if (r == 0) {
                op.new_id = pool->next_root_id;
                op.size_bytes = size_bytes;
                memcpy(op.name, name, strlen(name));
                r = co_operate_prepare(pool, &op, err);
        }
        if (r == 0)
                r = operate(pool, &op, false, err);
        return co_operate_end(pool, r, err);
}

static int unname(struct pool *pool, uint64_t id, bool more, struct error *err)
{
        struct catalog_op op = {.type = LOG_UNNAME, .root_id = id};
        return operate(pool, &op, more, err);
}

/* The named snapshots of a volume; *ret_ids is malloc'ed. */
static int snapshots_of(struct pool *pool, uint64_t volume_id, uint64_t **ret_ids, size_t *ret_n)
{
        size_t n = 0;
        uint64_t *ids = malloc((pool->n_slots + 1) * sizeof(*ids));
        if (!ids)
                return -ENOMEM;
        for (uint32_t i = 0; i < pool->n_slots; i++) {
                const struct root *root = pool->slot[i];
                if (root && root->state == ROOT_FROZEN && root->name[0] &&
                    root->volume_id == volume_id)
                        ids[n++] = root->id;
        }
        *ret_ids = ids;
        *ret_n = n;
        return 0;
}

static int co_delete(struct pool *pool, const char *name, bool with_snapshots, struct error *err)
{
        struct root *root = volume_require(pool, name, err);
        if (!root)
                return err_code(err, -ENOENT);
        if (root->n_handles)
                return error_set(err, -EBUSY, "volume '%s' is in use", name);
        uint64_t *ids = NULL, id = root->id;
        size_t n = 0;
        int r = snapshots_of(pool, root->volume_id, &ids, &n);
        if (r < 0)
                return error_set(err, r, "out of memory");
        if (n && !with_snapshots) {
                error_set(err, -ENOTEMPTY, "volume '%s' has %zu snapshot%s", name, n,
                          n == 1 ? "" : "s");
                error_hint(err, "--snapshots deletes them with it");
                r = -ENOTEMPTY;
        }
        for (size_t i = 0; i <= n && r == 0; i++) {
                struct catalog_op op = {.type = LOG_UNNAME, .root_id = i < n ? ids[i] : id};
                r = co_op_prepare(pool, &op, err);
        }
        if (r == 0) {
                r = co_operate_admit(pool, n + 3, false, err);
                if (r == -ENOSPC && n)
                        error_hint(err, "delete its snapshots one by one first");
        }
        co_root_hold(root); /* the worker may be shrinking it */
        if (r == 0 && root->n_handles)
                r = error_set(err, -EBUSY, "volume '%s' is in use", name);
        for (size_t i = 0; i <= n && r == 0; i++) /* [sync] all of them, or none */
                r = unname(pool, i < n ? ids[i] : id, i < n, err);
        root_unhold(pool, root);
        /* From the head up: what has no child is freed as a whole, and nothing has to be merged. */
        for (size_t i = n + 1; i-- > 0 && r == 0;)
                co_collect_after(pool, root_by_id(pool, i < n ? ids[i] : id));
        free(ids);
        return r;
}

int co_volume_delete(struct pool *pool, const char *name, bool with_snapshots, struct error *err)
{
        int r = co_operate_begin(pool, err);
        if (r < 0)
                return r;
        r = co_delete(pool, name, with_snapshots, err);
        return co_operate_end(pool, r, err);
}

int co_volume_rename(struct pool *pool, const char *name, const char *new_name, struct error *err)
{
        int r = co_operate_begin(pool, err);
        if (r < 0)
                return r;
        struct root *root = volume_require(pool, name, err);
        r = root ? volume_name_is_new(pool, new_name, err) : err_code(err, -ENOENT);
        if (r == 0) {
                struct catalog_op op = {.type = LOG_RENAME, .root_id = root->id};
                memcpy(op.name, new_name, strlen(new_name));
                r = co_operate_prepare(pool, &op, err);
                if (r == 0)
                        r = operate(pool, &op, false, err);
        }
        return co_operate_end(pool, r, err);
}

/* ---- resize ---- */

/* What lies behind the end in its last block becomes zeroes, so that growing shows zeroes. */
static int co_zero_tail(struct pool *pool, struct root *root)
{
        uint64_t size = root->body->size_bytes, n = (BLOCK - size % BLOCK) % BLOCK;
        return n ? co_root_zero_part(pool, root, size, n, ENTRY_ZERO, true) : 0;
}

/* What an earlier shrink gave up must be gone before the space is part of the volume again. Nothing
 * is locked meanwhile: @id may go, or be what a restore has kept. Where it failed before, for lack of space perhaps, it is tried
 * again. */
static int co_shrink_ended(struct pool *pool, uint64_t id, struct error *err)
{
        struct root *root = root_by_id(pool, id);
        root->broken = root->starved = false;
        pool->job_first = id;
        while (root && root->state == ROOT_LIVE && root->body->high_bytes && !pool_failed(pool) &&
               !pool->closing && !root->broken && !root->starved) {
                worker_kick(pool);
                co_sleep_ns(1000000);
                root = root_by_id(pool, id);
        }
        if (pool->job_first == id)
                pool->job_first = 0;
        return !root || root->state != ROOT_LIVE || !root->body->high_bytes || pool_failed(pool)
                   ? 0
                   : error_set(err, -EIO,
                               "volume '%s' could not be shrunk before, and cannot grow now",
                               root->name);
}

/* 1: *ret_shrinking is to end first. */
static int co_resize(struct pool *pool, const char *name, uint64_t size_bytes, bool may_shrink,
                     uint64_t *ret_shrinking, struct error *err)
{
        struct root *root = volume_require(pool, name, err);
        if (!root)
                return err_code(err, -ENOENT);
        if (!may_shrink && size_bytes < root->body->size_bytes)
                return error_set(err, -EBUSY, "volume '%s' has become larger meanwhile", name);
        struct catalog_op op = {.type = LOG_RESIZE, .root_id = root->id, .size_bytes = size_bytes};
        int r = co_operate_prepare(pool, &op, err);
        if (r < 0)
                return r;
        if (size_bytes > root->body->size_bytes) {
                if (root->body->high_bytes) {
                        *ret_shrinking = root->id;
                        return 1;
                }
                /* Durable before the record that makes it visible: a recovery may drop a write that
                 * was not. */
                r = co_zero_tail(pool, root);
                if (r == 0)
                        r = co_commit(pool);
                if (r < 0)
                        return error_set(err, r,
                                         "the last block of volume '%s' cannot be rewritten: %s",
                                         name, strerror(-r));
        }
        co_root_hold(root);
        r = operate(pool, &op, false, err);
        root_unhold(pool, root);
        worker_kick(pool);
        return r;
}

static int co_resize_locked(struct pool *pool, const char *name, uint64_t size_bytes,
                            bool may_shrink, struct error *err)
{
        int r = volume_size_check(size_bytes, err);
        while (r >= 0) {
                uint64_t shrinking = 0;
                r = co_operate_begin(pool, err);
                if (r < 0)
                        return r;
                r = co_resize(pool, name, size_bytes, may_shrink, &shrinking, err);
                if (r <= 0)
                        return co_operate_end(pool, r, err);
                co_unlock(&pool->catalog_lock);
                r = co_shrink_ended(pool, shrinking, err);
        }
        return r;
}

int co_volume_resize(struct pool *pool, const char *name, uint64_t size_bytes, struct error *err)
{
        return co_resize_locked(pool, name, size_bytes, true, err);
}

int co_volume_grow(struct pool *pool, const char *name, uint64_t size_bytes, struct error *err)
{
        return co_resize_locked(pool, name, size_bytes, false, err);
}

/* ---- properties ---- */

int co_volume_set(struct pool *pool, const char *name, const char *key, const char *value,
                  struct error *err)
{
        struct catalog_op op = {.type = LOG_PROPERTY};
        if (!key[0] || strlen(key) >= sizeof(op.key) ||
            (value && strlen(value) >= sizeof(op.value)))
                return error_set(err, -EINVAL, "property '%.40s' or its value is too long", key);
        int r = co_operate_begin(pool, err);
        if (r < 0)
                return r;
        struct root *root = volume_require(pool, name, err);
        r = root ? 0 : err_code(err, -ENOENT);
        if (r == 0) {
                op.root_id = root->id;
                memcpy(op.key, key, strlen(key));
                if (value)
                        memcpy(op.value, value, strlen(value));
                r = co_operate_prepare(pool, &op, err);
        }
        if (r == 0) {
                r = op_apply(pool, &op);
                if (r < 0)
                        error_set(err, r, "volume '%s' has %u properties, which is the limit", name,
                                  ROOT_PROPERTIES);
                else
                        op_log(pool, &op, false);
                if (r == 0)
                        usage_set(pool, root);
        }
        return co_operate_end(pool, r, err);
}

int co_volume_get_properties(struct pool *pool, const char *name,
                             int (*each)(const char *key, const char *value, void *arg), void *arg,
                             struct error *err)
{
        co_lock(&pool->catalog_lock); /* a root that is being read is not to be deleted */
        struct root *root = root_require(pool, name, err);
        int r = root ? co_root_load(pool, root, err) : -ENOENT;
        for (unsigned i = 0; r == 0 && i < root->body->n_properties; i++)
                r = each(root->body->property[i].key, root->body->property[i].value, arg);
        co_unlock(&pool->catalog_lock);
        return r;
}

/* ---- handles ---- */

int co_volume_open(struct pool *pool, const char *name, struct volume **ret_volume,
                   struct error *err)
{
        struct root *root = root_require(pool, name, err);
        if (!root)
                return -ENOENT;
        struct volume *v = calloc(1, sizeof(*v));
        if (!v)
                return error_set(err, -ENOMEM, "out of memory");
        root->n_handles++;
        pool->n_handles++;
        int r = co_root_load(pool, root, err);
        v->pool = pool;
        v->root = root;
        if (r == 0 && (r = usage_enter(v)) < 0)
                error_set(err, r, "out of memory");
        if (r < 0) {
                root->n_handles--;
                pool->n_handles--;
                free(v);
                return r;
        }
        if (root->state == ROOT_LIVE && root->body->high_bytes)
                worker_kick(pool);
        *ret_volume = v;
        return 0;
}

static void co_let_go(struct pool *pool, struct root *root)
{
        root->n_handles--;
        pool->n_handles--;
        if (root->n_handles || root->name[0] || pool->readonly || pool_failed(pool))
                return;
        /* The last handle of a snapshot that was deleted meanwhile. While the lock is waited for,
         * somebody else may collect it. */
        uint64_t id = root->id;
        co_lock(&pool->catalog_lock);
        co_collect_after(pool, root_by_id(pool, id));
        co_unlock(&pool->catalog_lock);
}

void co_volume_close(struct volume *v)
{
        if (!v)
                return;
        struct pool *pool = v->pool;
        struct loop *from = co_move(pool->loop);
        co_crossing_put(v->crossing);
        usage_leave(v);
        co_let_go(pool, v->root);
        free(v);
        co_move(from);
}

struct loop *volume_loop(const struct volume *v)
{
        return v->pool->loop;
}

uint64_t volume_size(const struct volume *v)
{
        return __atomic_load_n(&v->root->body->size_bytes, __ATOMIC_RELAXED);
}

bool volume_is_readonly(const struct volume *v)
{
        return v->root->state != ROOT_LIVE || v->pool->readonly;
}

const char *volume_name(const struct volume *v)
{
        struct volume *w = (struct volume *)v; /* the text is kept in the handle */
        const struct root *head = root_head(v->pool, v->root->volume_id);
        const char *volume = v->root->state == ROOT_LIVE ? v->root->name
                             : head                      ? head->name
                                                         : "(deleted)";
        const char *snapshot = v->root->name[0] ? v->root->name : "(deleted)";
        if (v->root->state == ROOT_LIVE)
                snprintf(w->name, sizeof(w->name), "%s", volume);
        else
                snprintf(w->name, sizeof(w->name), "%s@%s", volume, snapshot);
        return v->name;
}
