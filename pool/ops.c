/* ops.c - operations on the catalog, as they are applied: the same code runs live and in a replay.
 *
 * op_apply() and op_log() run in one step, so that a checkpoint holds both or neither. */
#include <errno.h>
#include <stdlib.h>
#include "pool/engine.h"

/* ---- records ---- */

static void catalog_record(struct pool *pool, const struct catalog_op *op, uint8_t flags)
{
        struct log_catalog_disk *d = log_append(pool, sizeof(*d), op->type, flags);
        d->root_id = le64_make(op->root_id);
        d->new_id = le64_make(op->new_id);
        d->from_id = le64_make(op->from_id);
        d->size_bytes = le64_make(op->size_bytes);
        d->time_ns = le64_make((uint64_t)op->time_ns);
        memcpy(d->uuid, op->uuid, 16);
        memcpy(d->name, op->name, strlen(op->name));
}

static void base_record(struct pool *pool, const struct catalog_op *op, uint8_t flags)
{
        struct log_base_disk *d = log_append(pool, sizeof(*d), op->type, flags);
        d->flags = le32_make(op->complete ? INDEX_COMPLETE : 0);
        d->root_id = le64_make(op->root_id);
        d->new_id = le64_make(op->new_id);
        d->size_bytes = le64_make(op->size_bytes);
        d->time_ns = le64_make((uint64_t)op->time_ns);
        memcpy(d->uuid, op->uuid, 16);
        memcpy(d->description, op->description, strlen(op->description));
}

void op_log(struct pool *pool, const struct catalog_op *op, bool more)
{
        uint8_t flags = more ? LOG_MORE : 0;
        if (op->type == LOG_BASE) {
                base_record(pool, op, flags);
                return;
        }
        if (op->type != LOG_PROPERTY) {
                catalog_record(pool, op, flags);
                return;
        }
        struct log_property_disk *d = log_append(pool, sizeof(*d), op->type, flags);
        d->root_id = le64_make(op->root_id);
        memcpy(d->key, op->key, strlen(op->key));
        memcpy(d->value, op->value, strlen(op->value));
}

static int base_decode(const struct log_base_disk *d, struct catalog_op *op)
{
        if (le16_get(d->head.length) < sizeof(*d) ||
            !memchr(d->description, 0, sizeof(d->description)))
                return -EUCLEAN;
        op->root_id = le64_get(d->root_id);
        op->new_id = le64_get(d->new_id);
        op->size_bytes = le64_get(d->size_bytes);
        op->time_ns = (int64_t)le64_get(d->time_ns);
        op->complete = le32_get(d->flags) & INDEX_COMPLETE;
        memcpy(op->uuid, d->uuid, 16);
        memcpy(op->description, d->description, sizeof(op->description));
        return op->size_bytes <= VOLUME_SIZE_MAX && op->size_bytes % VOLUME_SECTOR == 0 &&
                       op->new_id <= COUNTER_MAX && !op->root_id != !op->new_id
                   ? 0
                   : -EUCLEAN;
}

int op_decode(const struct log_head_disk *head, struct catalog_op *op)
{
        *op = (struct catalog_op){.type = head->type};
        if (head->type == LOG_BASE)
                return base_decode((const void *)head, op);
        if (head->type == LOG_PROPERTY) {
                const struct log_property_disk *d = (const void *)head;
                if (le16_get(head->length) < sizeof(*d) || !memchr(d->key, 0, sizeof(d->key)) ||
                    !memchr(d->value, 0, sizeof(d->value)))
                        return -EUCLEAN;
                op->root_id = le64_get(d->root_id);
                memcpy(op->key, d->key, sizeof(op->key));
                memcpy(op->value, d->value, sizeof(op->value));
                return 0;
        }
        const struct log_catalog_disk *d = (const void *)head;
        if (head->type < LOG_CREATE || head->type > LOG_RESIZE ||
            le16_get(head->length) < sizeof(*d) || !memchr(d->name, 0, sizeof(d->name)))
                return -EUCLEAN;
        op->root_id = le64_get(d->root_id);
        op->new_id = le64_get(d->new_id);
        op->from_id = le64_get(d->from_id);
        op->size_bytes = le64_get(d->size_bytes);
        op->time_ns = (int64_t)le64_get(d->time_ns);
        memcpy(op->uuid, d->uuid, 16);
        memcpy(op->name, d->name, sizeof(op->name));
        bool makes = op->type == LOG_CREATE || op->type == LOG_SNAPSHOT || op->type == LOG_CLONE ||
                     op->type == LOG_RESTORE;
        return op->size_bytes <= VOLUME_SIZE_MAX && op->new_id <= COUNTER_MAX &&
                       makes == (op->new_id != 0)
                   ? 0
                   : -EUCLEAN;
}

/* ---- what must be in memory ---- */

static int co_load_by_id(struct pool *pool, uint64_t id, struct error *err)
{
        struct root *root = root_by_id(pool, id);
        if (!root)
                return error_set(err, -EUCLEAN, "the log names root %llu, which does not exist",
                                 (unsigned long long)id);
        return co_root_load(pool, root, err);
}

int co_op_prepare(struct pool *pool, const struct catalog_op *op, struct error *err)
{
        int r = 0;
        if (op->root_id)
                r = co_load_by_id(pool, op->root_id, err);
        if (r == 0 && op->from_id)
                r = co_load_by_id(pool, op->from_id, err);
        if (r == 0 && op->new_id)
                r = co_catalog_prepare(pool, 1, err);
        return r;
}

/* ---- applying ---- */

/* What @to reads is what @from reads; own blocks, deadlist and names are the caller's. */
static void body_copy_content(struct root_body *to, const struct root_body *from)
{
        to->map = from->map;
        to->size_bytes = from->size_bytes;
        to->high_bytes = from->high_bytes;
        to->data_blocks = from->data_blocks;
        to->base_bytes = from->base_bytes;
}

static void body_copy_properties(struct root_body *to, const struct root_body *from)
{
        memcpy(to->property, from->property, sizeof(to->property));
        to->n_properties = from->n_properties;
}

static int body_describe(struct root_body *body, const char *description)
{
        char *copy = strdup(description);
        if (!copy)
                return -ENOMEM;
        free(body->description);
        body->description = copy;
        return 0;
}

/* A base is made, or described anew. */
static int apply_base(struct pool *pool, const struct catalog_op *op, struct root *base)
{
        bool made = !base;
        if (made)
                base = root_new(pool, op->new_id);
        if (!base || body_describe(base->body, op->description) < 0)
                return -ENOMEM;
        base->complete = op->complete;
        if (made) {
                struct root_body *b = base->body;
                b->map.root = (struct entry){.type = ENTRY_ABSENT, .birth = pool->epoch};
                b->map.height = (uint8_t)tree_height_for(op->size_bytes);
                b->size_bytes = op->size_bytes;
                b->created_ns = op->time_ns;
                memcpy(b->uuid, op->uuid, 16);
                root_identify(pool, base, ROOT_BASE, base->id, "");
        }
        pool->incompat |= FEATURE_INCOMPAT_BASE;
        root_dirty(pool, base);
        return 0;
}

static int apply_create(struct pool *pool, const struct catalog_op *op, struct root *base)
{
        struct root *root = root_new(pool, op->new_id);
        if (!root)
                return -ENOMEM;
        struct root_body *b = root->body;
        b->map.root = (struct entry){.type = ENTRY_ABSENT, .birth = pool->epoch};
        b->map.height = (uint8_t)tree_height_for(op->size_bytes);
        b->size_bytes = op->size_bytes;
        b->created_ns = op->time_ns;
        memcpy(b->uuid, op->uuid, 16);
        root_set_base(root, base);
        if (base)
                b->base_bytes = min_u64(op->size_bytes, base->body->size_bytes);
        root_identify(pool, root, ROOT_LIVE, root->id, op->name);
        root_dirty(pool, root);
        return 0;
}

/* The snapshot takes the head's place in the tree of roots, with its deadlist; the head becomes its
 * child. */
static int apply_snapshot(struct pool *pool, const struct catalog_op *op, struct root *head)
{
        struct root *snap = root_new(pool, op->new_id);
        if (!snap)
                return -ENOMEM;
        struct root_body *h = head->body, *s = snap->body;
        body_copy_content(s, h);
        body_copy_properties(s, h);
        s->own_blocks = h->own_blocks;
        s->bucket = h->bucket;
        s->n_buckets = h->n_buckets;
        s->bucket_room = h->bucket_room;
        s->bucket_page = h->bucket_page;
        s->n_bucket_pages = h->n_bucket_pages;
        h->own_blocks = 0;
        h->bucket = NULL;
        h->n_buckets = h->bucket_room = 0;
        h->bucket_page = NULL;
        h->n_bucket_pages = 0;
        s->created_ns = op->time_ns;
        memcpy(s->uuid, op->uuid, 16);
        snap->epoch = pool->epoch;
        root_set_base(snap, head->base);
        root_set_parent(pool, snap, head->parent);
        root_set_parent(pool, head, snap);
        root_identify(pool, snap, ROOT_FROZEN, head->volume_id, op->name);
        root_dirty(pool, snap);
        root_dirty(pool, head);
        return 0;
}

static int apply_clone(struct pool *pool, const struct catalog_op *op, struct root *from)
{
        struct root *root = root_new(pool, op->new_id);
        if (!root)
                return -ENOMEM;
        body_copy_content(root->body, from->body);
        body_copy_properties(root->body, from->body);
        root->body->created_ns = op->time_ns;
        memcpy(root->body->uuid, op->uuid, 16);
        root_set_base(root, from->base);
        root_set_parent(pool, root, from);
        root_identify(pool, root, ROOT_LIVE, root->id, op->name);
        root_dirty(pool, root);
        return 0;
}

/* A new head grows from the snapshot; the old one is frozen under the name it is kept as, or under
 * none. */
static int apply_restore(struct pool *pool, const struct catalog_op *op, struct root *old,
                         struct root *from)
{
        struct root *head = root_new(pool, op->new_id);
        if (!head)
                return -ENOMEM;
        char name[POOL_NAME_MAX + 1];
        memcpy(name, old->name, sizeof(name));
        body_copy_content(head->body, from->body);
        body_copy_properties(head->body, old->body);
        head->body->created_ns = old->body->created_ns;
        memcpy(head->body->uuid, old->body->uuid, 16);
        old->body->created_ns = op->time_ns;
        memcpy(old->body->uuid, op->uuid, 16);
        old->epoch = pool->epoch;
        root_identify(pool, old, ROOT_FROZEN, old->volume_id, op->name);
        root_set_base(head, from->base);
        root_set_parent(pool, head, from);
        root_identify(pool, head, ROOT_LIVE, old->volume_id, name);
        root_dirty(pool, head);
        root_dirty(pool, old);
        return 0;
}

static void apply_unname(struct pool *pool, struct root *root)
{
        if (root->state == ROOT_LIVE)
                root->epoch = pool->epoch;
        root_identify(pool, root, ROOT_FROZEN, root->volume_id, "");
        root_dirty(pool, root);
}

static int apply_resize(struct pool *pool, const struct catalog_op *op, struct root *root)
{
        struct root_body *b = root->body;
        root_dirty(pool, root); /* before: a failure half way leaves nodes that the cut must seal */
        if (op->size_bytes < b->size_bytes) {
                b->high_bytes = max_u64(b->high_bytes, b->size_bytes);
                b->base_bytes = min_u64(b->base_bytes, op->size_bytes);
        } else if (op->size_bytes > b->size_bytes) {
                int r = tree_grow(pool, root, &b->map, op->size_bytes);
                if (r < 0)
                        return r;
                b->high_bytes = 0; /* growing waited until the shrink before it was worked off */
        }
        __atomic_store_n(&b->size_bytes, op->size_bytes, __ATOMIC_RELAXED); /* volume_size() */
        return 0;
}

static int apply_property(struct pool *pool, const struct catalog_op *op, struct root *root)
{
        struct root_body *b = root->body;
        unsigned i = 0;
        while (i < b->n_properties && strcmp(b->property[i].key, op->key))
                i++;
        if (op->value[0]) {
                if (i == ROOT_PROPERTIES)
                        return -ENOSPC;
                memset(&b->property[i], 0, sizeof(b->property[i]));
                memcpy(b->property[i].key, op->key, strlen(op->key));
                memcpy(b->property[i].value, op->value, strlen(op->value));
                if (i == b->n_properties)
                        b->n_properties++;
        } else if (i < b->n_properties) {
                b->property[i] = b->property[--b->n_properties];
        }
        root_dirty(pool, root);
        return 0;
}

int op_apply(struct pool *pool, const struct catalog_op *op)
{
        struct root *root = op->root_id ? root_by_id(pool, op->root_id) : NULL;
        struct root *from = op->from_id ? root_by_id(pool, op->from_id) : NULL;
        bool needs_from = op->type == LOG_CLONE || op->type == LOG_RESTORE;
        if ((op->new_id && root_by_id(pool, op->new_id)) ||
            (op->root_id && (!root || !root->loaded)) ||
            (needs_from && (!from || !from->loaded || from->state != ROOT_FROZEN)) ||
            (op->type != LOG_CREATE && op->type != LOG_CLONE && op->type != LOG_BASE && !root))
                return -EUCLEAN;
        if ((op->type == LOG_CREATE && op->from_id &&
             (!from || !from->loaded || from->state != ROOT_BASE)) ||
            (root && (root->state == ROOT_BASE) != (op->type == LOG_BASE)))
                return -EUCLEAN;
        if ((op->type == LOG_SNAPSHOT || op->type == LOG_RESTORE || op->type == LOG_RESIZE) &&
            root->state != ROOT_LIVE)
                return -EUCLEAN;
        switch (op->type) {
        case LOG_CREATE:
                return apply_create(pool, op, from);
        case LOG_BASE:
                return apply_base(pool, op, root);
        case LOG_SNAPSHOT:
                return apply_snapshot(pool, op, root);
        case LOG_CLONE:
                return apply_clone(pool, op, from);
        case LOG_RESTORE:
                return apply_restore(pool, op, root, from);
        case LOG_UNNAME:
                apply_unname(pool, root);
                return 0;
        case LOG_RENAME:
                root_identify(pool, root, root->state, root->volume_id, op->name);
                root_dirty(pool, root);
                return 0;
        case LOG_RESIZE:
                return apply_resize(pool, op, root);
        case LOG_PROPERTY:
                return apply_property(pool, op, root);
        default:
                return -EUCLEAN;
        }
}
