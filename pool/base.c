/* base.c - volumes on an image: bases made, filled, completed; images attached and read.
 *
 * A base is a root of its own, in state ROOT_BASE, without parent and children: what is copied from the
 * image is written to its map as to a volume's, zeroes as zero entries, so that absent means "not yet".
 * Roots on it (root->base) read its map where theirs is absent (read.c). Nothing that a base holds is
 * ever overwritten: its content is the image's, whoever copies it and when. */
#include "pool/base.h"

#include <errno.h>
#include <stdlib.h>

#include "pool/full.h"
#include "pool/operate.h"

#define COPY_BLOCKS LEAF_BLOCKS /* read from the image at once */

static_assert(POOL_BASE_DESCRIPTION_MAX + 1 == BASE_DESCRIPTION_MAX, "base.h");

struct base_image {
        struct pool_image *image;
        unsigned n_reads;
        struct co_queue unused; /* n_reads became 0 */
        bool detaching;
};

static struct root *base_by_id(struct pool *pool, uint64_t id)
{
        struct root *base = root_by_id(pool, id);
        return base && base->state == ROOT_BASE ? base : NULL;
}

static int no_base(const struct pool *pool, uint64_t id, struct error *err)
{
        return error_set(err, -ENOENT, "pool '%s' has no base %llu", pool->name,
                         (unsigned long long)id);
}

/* A base that others hold stays while they suspend. */
static struct root *co_base_hold(struct pool *pool, uint64_t id, struct error *err)
{
        struct root *base = base_by_id(pool, id);
        if (!base) {
                no_base(pool, id, err);
                return NULL;
        }
        base->n_handles++;
        if (co_root_load(pool, base, err) == 0)
                return base;
        base->n_handles--;
        return NULL;
}

void co_base_let_go(struct pool *pool, struct root *base)
{
        uint64_t id = base->id;
        if (--base->n_handles > 0 || base->n_dependents > 0 || pool->readonly || pool_failed(pool))
                return;
        co_lock(&pool->catalog_lock);
        co_collect_after(pool, root_by_id(pool, id));
        co_unlock(&pool->catalog_lock);
}

/* ---- listed ---- */

static int co_base_info(struct pool *pool, struct root *base,
                        int (*each)(const struct pool_base_info *, void *), void *arg,
                        struct error *err)
{
        int r = co_root_load(pool, base, err);
        if (r < 0)
                return r;
        struct pool_base_info info = {
            .id = base->id,
            .size_bytes = base->body->size_bytes,
            .copied_bytes = base->body->data_blocks * BLOCK,
            .description = base->body->description ? base->body->description : "",
            .complete = base->complete,
            .attached = base->image != NULL,
            .n_dependents = base->n_dependents,
        };
        memcpy(info.uuid, base->body->uuid, 16);
        return each(&info, arg);
}

int co_pool_base_get(struct pool *pool, uint64_t base_id,
                     int (*each)(const struct pool_base_info *, void *), void *arg,
                     struct error *err)
{
        co_lock(&pool->catalog_lock);
        struct root *base = base_by_id(pool, base_id);
        int r = base ? co_base_info(pool, base, each, arg, err) : no_base(pool, base_id, err);
        co_unlock(&pool->catalog_lock);
        return r;
}

bool pool_base_is_needed(struct pool *pool, uint64_t base_id)
{
        const struct root *base = base_by_id(pool, base_id);
        return base && base->n_dependents > 0;
}

int co_pool_bases(struct pool *pool, int (*each)(const struct pool_base_info *, void *), void *arg,
                  struct error *err)
{
        int r = 0;
        co_lock(&pool->catalog_lock); /* none that is being read is to be deleted */
        for (uint32_t i = 0; i < pool->n_slots && r == 0; i++)
                if (pool->slot[i] && pool->slot[i]->state == ROOT_BASE)
                        r = co_base_info(pool, pool->slot[i], each, arg, err);
        co_unlock(&pool->catalog_lock);
        return r;
}

uint64_t volume_base(const struct volume *v)
{
        return v->root->base ? v->root->base->id : 0;
}

uint64_t root_base(const struct root_info *info)
{
        return info->root->base ? info->root->base->id : 0;
}

/* ---- made ---- */

static int create_begin(struct pool *pool, struct catalog_op *op, const char *name,
                        uint64_t size_bytes, struct error *err)
{
        int r = op_begin(op, LOG_CREATE, true, err);
        if (r == 0)
                r = volume_name_is_new(pool, name, err);
        if (r < 0)
                return r;
        op->size_bytes = size_bytes;
        memcpy(op->name, name, strlen(name));
        return 0;
}

static int co_create_on(struct pool *pool, const char *name, uint64_t size_bytes, uint64_t base_id,
                        struct error *err)
{
        struct catalog_op op;
        if (!base_by_id(pool, base_id))
                return no_base(pool, base_id, err);
        int r = create_begin(pool, &op, name, size_bytes, err);
        if (r < 0)
                return r;
        op.new_id = pool->next_root_id;
        op.from_id = base_id;
        r = co_operate_prepare(pool, &op, err);
        return r == 0 ? operate(pool, &op, false, err) : r;
}

int co_volume_create_on(struct pool *pool, const char *name, uint64_t size_bytes, uint64_t base_id,
                        struct error *err)
{
        int r = volume_size_check(size_bytes, err);
        if (r == 0)
                r = co_operate_begin(pool, err);
        if (r < 0)
                return r;
        struct root *base = co_base_hold(pool, base_id, err);
        r = base ? co_create_on(pool, name, size_bytes, base_id, err) : -ENOENT;
        if (base)
                base->n_handles--; /* under the lock, and with a volume on it or as it was */
        return co_operate_end(pool, r, err);
}

static int description_check(const char *description, struct error *err)
{
        size_t n = strlen(description);
        return n <= POOL_BASE_DESCRIPTION_MAX
                   ? 0
                   : error_set(
                         err, -ENAMETOOLONG,
                         "the description of an image takes %zu bytes, at most %u are allowed", n,
                         POOL_BASE_DESCRIPTION_MAX);
}

/* Base and volume are one operation: a base without a volume is nobody's. */
static int co_create_on_new(struct pool *pool, const char *name, uint64_t size_bytes,
                            struct catalog_op *base, struct error *err)
{
        struct catalog_op op;
        int r = create_begin(pool, &op, name, size_bytes, err);
        if (r == 0)
                r = co_operate_admit(pool, 4, true, err);
        if (r == 0)
                r = co_catalog_prepare(pool, 2, err);
        if (r < 0)
                return r;
        base->new_id = pool->next_root_id; /* [sync] from here on */
        r = operate(pool, base, true, err);
        op.from_id = base->new_id;
        op.new_id = pool->next_root_id;
        return r == 0 ? operate(pool, &op, false, err) : r;
}

int co_volume_create_on_new(struct pool *pool, const char *name, uint64_t size_bytes,
                            uint64_t base_bytes, const char *description, uint64_t *ret_base_id,
                            struct error *err)
{
        struct catalog_op base = {0};
        int r = volume_size_check(size_bytes, err);
        if (r == 0)
                r = volume_size_check(base_bytes, err);
        if (r == 0)
                r = description_check(description, err);
        if (r == 0)
                r = op_begin(&base, LOG_BASE, true, err);
        if (r == 0)
                r = co_operate_begin(pool, err);
        if (r < 0)
                return r;
        base.size_bytes = base_bytes;
        memcpy(base.description, description, strlen(description));
        r = co_create_on_new(pool, name, size_bytes, &base, err);
        *ret_base_id = base.new_id;
        return co_operate_end(pool, r, err);
}

/* ---- the image ---- */

int pool_base_attach(struct pool *pool, uint64_t base_id, struct pool_image *image,
                     struct error *err)
{
        struct root *base = base_by_id(pool, base_id);
        if (!base)
                return no_base(pool, base_id, err);
        if (base->image)
                return error_set(err, -EALREADY, "the image of base %llu is attached already",
                                 (unsigned long long)base_id);
        base->image = calloc(1, sizeof(*base->image));
        if (!base->image)
                return error_set(err, -ENOMEM, "out of memory");
        base->image->image = image;
        co_queue_init(&base->image->unused);
        base->n_handles++; /* what is attached stays until it is detached */
        base->told_unreadable = false;
        return 0;
}

int pool_base_replace(struct pool *pool, uint64_t base_id, struct pool_image *image,
                      struct error *err)
{
        struct root *base = base_by_id(pool, base_id);
        if (!base || !base->image)
                return no_base(pool, base_id, err);
        base->image->image = image;
        base->told_unreadable = false;
        return 0;
}

void co_pool_base_detach(struct pool *pool, uint64_t base_id)
{
        struct root *base = base_by_id(pool, base_id);
        if (!base || !base->image)
                return;
        struct base_image *image = base->image;
        image->detaching = true;
        while (image->n_reads > 0)
                co_wait(&image->unused);
        base->image = NULL;
        free(image);
        co_base_let_go(pool, base);
}

static void tell_once(struct pool *pool, struct root *base, const char *sentence)
{
        if (!base->told_unreadable)
                log_error("pool '%s': %s", pool->name, sentence);
        base->told_unreadable = true;
}

int co_image_read(struct pool *pool, struct root *base, uint64_t block, uint32_t n, void *buffer)
{
        struct base_image *image = base->image;
        uint64_t offset = block * BLOCK, end = min_u64((block + n) * BLOCK, base->body->size_bytes);
        /* It has been completed since the caller looked. */
        if (base->complete)
                return co_span_read(pool, base, block, n, buffer);
        if (!image || image->detaching) {
                tell_once(pool, base, "an image that volumes stand on is not there");
                return -EIO;
        }
        struct pool_image *asked;
        int r = 0;
        image->n_reads++;
        /* Of an image that another has replaced meanwhile, a read may be cut off. */
        do {
                asked = image->image;
                if (offset < end)
                        r = asked->co_read(asked, buffer, end - offset, offset);
        } while (r < 0 && !image->detaching && image->image != asked);
        if (--image->n_reads == 0)
                co_wake_all(&image->unused);
        /* As is one of an image that is not needed any more. */
        if (r < 0 && base->complete)
                return co_span_read(pool, base, block, n, buffer);
        if (r < 0) {
                tell_once(pool, base, "an image that volumes stand on cannot be read");
                return -EIO;
        }
        if (end < (block + n) * BLOCK) {
                uint64_t have = end > offset ? end - offset : 0;
                memset((char *)buffer + have, 0, n * (uint64_t)BLOCK - have);
        }
        return 0;
}

/* ---- copied ---- */

static bool block_is_zero(const char *data)
{
        return bytes_are_zero(data, BLOCK);
}

/* Blocks that were read from the image take their place: data, and zeroes. The last may reach beyond
 * the base's size. */
static int co_put(struct pool *pool, struct root *base, uint64_t block, uint32_t n,
                  const char *data)
{
        struct co_range range = {.range = {.first = block, .last = block + n - 1}};
        int r = 0;
        co_write_begin(base);
        co_range_lock(base, &range);
        for (uint32_t i = 0, k; i < n && r == 0; i += k) {
                bool zero = block_is_zero(data + (size_t)i * BLOCK);
                for (k = 1; i + k < n && block_is_zero(data + (size_t)(i + k) * BLOCK) == zero; k++)
                        ;
                r = zero ? co_root_clear(pool, base, block + i, k, ENTRY_ZERO, false)
                         : co_span_write(pool, base, block + i, k, data + (size_t)i * BLOCK, true);
        }
        range_unlock(base, &range.range);
        write_end(base);
        return r;
}

/* Blocks of one leaf, from @block on, that are absent or are not; as many as are alike. */
static int co_alike(struct pool *pool, struct root *base, uint64_t block, uint32_t max,
                    uint32_t *ret_n, bool *ret_absent)
{
        struct node *leaf;
        struct entry e;
        uint32_t n = 1;
        int r = co_tree_leaf(pool, &base->body->map, block, &leaf, &e);
        if (r < 0)
                return r;
        if (!leaf) {
                *ret_absent = e.type == ENTRY_ABSENT;
                *ret_n = max;
                return 0;
        }
        const struct entry_disk *at = &((struct node_disk *)leaf->page)->entry[block % LEAF_BLOCKS];
        *ret_absent = entry_get(at).type == ENTRY_ABSENT;
        while (n < max && (entry_get(at + n).type == ENTRY_ABSENT) == *ret_absent)
                n++;
        node_unpin(pool, leaf);
        *ret_n = n;
        return 0;
}

static int co_copy(struct pool *pool, struct root *base, uint64_t first, uint64_t end, char *buffer,
                   uint64_t *ret_copied)
{
        int r = 0;
        for (uint64_t block = first; block < end && r == 0;) {
                uint32_t n = (uint32_t)min_u64(LEAF_BLOCKS - block % LEAF_BLOCKS, end - block);
                bool absent;
                r = co_alike(pool, base, block, n, &n, &absent);
                if (r == 0 && absent) {
                        r = co_image_read(pool, base, block, n, buffer);
                        if (r == 0)
                                r = co_put(pool, base, block, n, buffer);
                        *ret_copied += (uint64_t)n * BLOCK;
                }
                block += n;
        }
        return r;
}

int co_pool_base_copy(struct pool *pool, uint64_t base_id, uint64_t offset, uint64_t length,
                      uint64_t *ret_copied, struct error *err)
{
        struct root *base = co_base_hold(pool, base_id, err);
        if (!base)
                return -ENOENT;
        uint64_t size = base->body->size_bytes;
        uint64_t end = min_u64((size + BLOCK - 1) / BLOCK,
                               (offset + min_u64(length, VOLUME_SIZE_MAX) + BLOCK - 1) / BLOCK);
        char *buffer = aligned_alloc(BLOCK, (size_t)COPY_BLOCKS * BLOCK);
        int r = -ENOMEM;
        *ret_copied = 0;
        if (buffer)
                r = co_copy(pool, base, offset / BLOCK, end, buffer, ret_copied);
        free(buffer);
        co_base_let_go(pool, base);
        if (r < 0)
                error_set(err, r, "cannot copy the image of base %llu: %s",
                          (unsigned long long)base_id, strerror(-r));
        return r;
}

int co_pool_base_zero(struct pool *pool, uint64_t base_id, uint64_t offset, uint64_t length,
                      struct error *err)
{
        struct root *base = co_base_hold(pool, base_id, err);
        if (!base)
                return -ENOENT;
        uint64_t size = base->body->size_bytes, end_bytes = offset + min_u64(length, size);
        uint64_t block = (offset + BLOCK - 1) / BLOCK,
                 end = (end_bytes >= size ? size + BLOCK - 1 : end_bytes) / BLOCK;
        int r = 0;
        while (block < end && r == 0) {
                uint64_t n = min_u64(end - block, clear_slice_blocks(pool, base, block, false));
                r = co_root_clear(pool, base, block, n, ENTRY_ZERO, false);
                block += n;
                co_yield_loop();
        }
        co_base_let_go(pool, base);
        return r < 0 ? error_set(err, r, "cannot note zeroes of the image of base %llu: %s",
                                 (unsigned long long)base_id, strerror(-r))
                     : 0;
}

int co_base_read(struct pool *pool, struct root *base, uint64_t block, void *page)
{
        uint32_t n;
        bool absent;
        int r = co_alike(pool, base, block, 1, &n, &absent);
        if (r < 0)
                return r;
        return absent ? co_image_read(pool, base, block, 1, page)
                      : co_span_read(pool, base, block, 1, page);
}

static int co_next_absent(struct pool *pool, struct root *base, uint64_t offset,
                          uint64_t *ret_offset)
{
        uint64_t block = offset / BLOCK, end = (base->body->size_bytes + BLOCK - 1) / BLOCK;
        bool absent = false;
        int r = 0;
        while (block < end) {
                struct entry e;
                unsigned level = tree_cover(pool, &base->body->map, block, &e);
                uint32_t n;
                if (e.type == ENTRY_ZERO && level > 0) { /* a large part at once */
                        block = (block / tree_span(level) + 1) * tree_span(level);
                        continue;
                }
                n = (uint32_t)(LEAF_BLOCKS - block % LEAF_BLOCKS);
                r = co_alike(pool, base, block, n, &n, &absent);
                if (r < 0 || absent)
                        break;
                block += n;
        }
        *ret_offset = min_u64(block * BLOCK, base->body->size_bytes);
        return r;
}

int co_pool_base_next(struct pool *pool, uint64_t base_id, uint64_t offset, uint64_t *ret_offset,
                      struct error *err)
{
        struct root *base = co_base_hold(pool, base_id, err);
        if (!base)
                return -ENOENT;
        int r = co_next_absent(pool, base, offset, ret_offset);
        co_base_let_go(pool, base);
        return r < 0 ? error_set(err, r, "the map of base %llu cannot be read: %s",
                                 (unsigned long long)base_id, strerror(-r))
                     : 0;
}

/* ---- described ---- */

static int co_describe(struct pool *pool, struct root *base, bool complete, const char *description,
                       struct error *err)
{
        struct catalog_op op = {.type = LOG_BASE, .root_id = base->id, .complete = complete};
        op.size_bytes = base->body->size_bytes;
        memcpy(op.description, description, strlen(description));
        int r = co_operate_prepare(pool, &op, err);
        return r == 0 ? operate(pool, &op, false, err) : r;
}

static int co_base_change(struct pool *pool, uint64_t base_id, bool complete,
                          const char *description, struct error *err)
{
        int r = co_operate_begin(pool, err);
        if (r < 0)
                return r;
        struct root *base = co_base_hold(pool, base_id, err);
        uint64_t absent = 0;
        r = base ? 0 : -ENOENT;
        if (r == 0 && complete)
                r = co_next_absent(pool, base, 0, &absent);
        if (r == 0 && complete && absent < base->body->size_bytes)
                r = error_set(err, -EBUSY, "the image of base %llu is not all in pool '%s'",
                              (unsigned long long)base_id, pool->name);
        /* A recovery may drop what was not durable: not behind a record that says that all is there. */
        if (r == 0 && complete && (r = co_commit(pool)) < 0)
                error_set(err, r, "pool '%s' has stopped writing: %s", pool->name, pool->failed);
        if (r == 0)
                r = co_describe(pool, base, complete || base->complete,
                                description               ? description
                                : base->body->description ? base->body->description
                                                          : "",
                                err);
        if (base)
                base->n_handles--; /* whoever deletes the last volume on it has the lock */
        if (base && base->n_dependents == 0)
                co_collect_after(pool, base);
        return co_operate_end(pool, r, err);
}

int co_pool_base_complete(struct pool *pool, uint64_t base_id, struct error *err)
{
        return co_base_change(pool, base_id, true, NULL, err);
}

int co_pool_base_describe(struct pool *pool, uint64_t base_id, const char *description,
                          struct error *err)
{
        int r = description_check(description, err);
        return r < 0 ? r : co_base_change(pool, base_id, false, description, err);
}
