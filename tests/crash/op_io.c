/* op_io.c - see op_io.h */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/crash/images.h"
#include "tests/crash/model_impl.h"
#include "tests/crash/op_io.h"

#define WIDE_BLOCKS 128u

bool op_is_io(const struct op *op)
{
        return op->kind == OP_WRITE || op->kind == OP_DISCARD || op->kind == OP_ZERO ||
               op->kind == OP_READ;
}

bool op_is_copy(const struct op *op)
{
        return op->kind == OP_COPY || op->kind == OP_COMPLETE;
}

bool op_is_catalog(const struct op *op)
{
        return !op_is_io(op) && !op_is_copy(op) && op->kind != OP_FLUSH &&
               op->kind != OP_CHECKPOINT && op->kind != OP_ADD && op->kind != OP_REOPEN &&
               op->kind != OP_CRASH;
}

bool op_is_wide(const struct op *op)
{
        return op_is_io(op) && op->kind != OP_WRITE && op->length > WIDE_BLOCKS * BLOCK_SIZE;
}

void op_volume(const struct op *op, char name[MODEL_NAME_MAX])
{
        snprintf(name, MODEL_NAME_MAX, "v%u", op->volume);
}

/* ---- the catalog ---- */

void op_request(const struct op *op, struct catalog_request *q)
{
        static const enum catalog_kind kinds[] = {
            [OP_CREATE] = CATALOG_CREATE,
            [OP_CREATE_ON] = CATALOG_CREATE,
            [OP_SNAPSHOT] = CATALOG_SNAPSHOT,
            [OP_RESTORE] = CATALOG_RESTORE,
            [OP_DELETE_SNAPSHOT] = CATALOG_DELETE_SNAPSHOT,
            [OP_DELETE_VOLUME] = CATALOG_DELETE_VOLUME,
            [OP_CLONE] = CATALOG_CLONE,
            [OP_RESIZE] = CATALOG_RESIZE,
            [OP_RENAME] = CATALOG_RENAME,
        };

        *q = (struct catalog_request){
            .kind = kinds[op->kind], .size_bytes = op->size_bytes, .image = op->image};
        snprintf(q->volume, sizeof(q->volume), "v%u", op->volume);
        if (op->kind == OP_RENAME)
                snprintf(q->other, sizeof(q->other), "v%u", op->other);
        else if (op->snapshot < SNAPSHOT_SLOTS)
                snprintf(q->other, sizeof(q->other), "s%u", op->snapshot);
        else
                snprintf(q->other, sizeof(q->other), "k%u", op->snapshot - SNAPSHOT_SLOTS);
        if (op->kind == OP_CREATE_ON)
                snprintf(q->on, sizeof(q->on), "v%u", op->other);
        if (op->kind == OP_CLONE)
                snprintf(q->keep, sizeof(q->keep), "v%u", op->other);
        if (op->kind == OP_RESTORE && op->keep)
                snprintf(q->keep, sizeof(q->keep), "k%u", op->kept);
        for (unsigned i = 0; op->kind == OP_SNAPSHOT && i < VOLUME_SLOTS; i++)
                if (op->volumes >> i & 1 && q->n_volumes < MODEL_GROUP_MAX)
                        snprintf(q->volumes[q->n_volumes++], MODEL_NAME_MAX, "v%u", i);
}

static int co_catalog_snapshot(struct pool *pool, const struct catalog_request *q,
                               struct error *err)
{
        char names[MODEL_GROUP_MAX][2 * MODEL_NAME_MAX];
        const char *list[MODEL_GROUP_MAX];

        for (unsigned i = 0; i < q->n_volumes; i++) {
                snprintf(names[i], sizeof(names[i]), "%s@%s", q->volumes[i], q->other);
                list[i] = names[i];
        }
        return co_snapshot_create(pool, list, q->n_volumes, err);
}

int co_op_catalog(struct pool *pool, const struct catalog_request *q, struct error *err)
{
        char name[2 * MODEL_NAME_MAX];

        snprintf(name, sizeof(name), "%s@%s", q->volume, q->other);
        switch (q->kind) {
        case CATALOG_CREATE:
                if (q->image != 0 || q->on[0] != '\0')
                        return co_images_create(pool, q, err);
                return co_volume_create(pool, q->volume, q->size_bytes, err);
        case CATALOG_RESIZE:
                return co_volume_resize(pool, q->volume, q->size_bytes, err);
        case CATALOG_RENAME:
                return co_volume_rename(pool, q->volume, q->other, err);
        case CATALOG_DELETE_VOLUME:
                return co_volume_delete(pool, q->volume, true, err);
        case CATALOG_SNAPSHOT:
                return co_catalog_snapshot(pool, q, err);
        case CATALOG_DELETE_SNAPSHOT:
                return co_snapshot_delete(pool, name, err);
        case CATALOG_RESTORE:
                return co_snapshot_restore(pool, name, q->keep[0] != '\0' ? q->keep : NULL, err);
        case CATALOG_CLONE:
                return co_snapshot_clone(pool, name, q->keep, err);
        }
        return -EINVAL;
}

/* ---- reads and writes ---- */

int co_op_submit(struct volume *volume, const struct op *op, const uint8_t *buffer, bool logged)
{
        unsigned flags = op->fua ? VOLUME_FUA : logged ? VOLUME_LOGGED : 0;

        if (op->kind == OP_WRITE)
                return co_volume_write(volume, buffer, op->length, op->offset, flags);
        if (op->kind == OP_DISCARD)
                return co_volume_discard(volume, op->offset, op->length, flags);
        return co_volume_zero(volume, op->offset, op->length, flags);
}

uint16_t op_mask(const struct op *op, uint64_t block)
{
        uint64_t start = block * BLOCK_SIZE, end = start + BLOCK_SIZE;
        uint64_t from = op->offset > start ? op->offset : start;
        uint64_t to = op->offset + op->length < end ? op->offset + op->length : end;

        if (from >= to)
                return 0;
        return (uint16_t)(((1u << (to - from) / GRAIN) - 1) << (from - start) / GRAIN);
}

size_t op_blocks(const struct model *model, const struct op *op, uint64_t **ret_blocks)
{
        uint64_t *blocks = NULL;
        char name[MODEL_NAME_MAX];
        size_t n = 0, touched;

        op_volume(op, name);
        if (op_is_wide(op)) {
                touched = model_touched(model, model_roots_find(model_now(model), name), &blocks);
                for (size_t i = 0; i < touched; i++)
                        if (op_mask(op, blocks[i]) != 0)
                                blocks[n++] = blocks[i];
        } else {
                for (uint64_t b = op->offset / BLOCK_SIZE; b * BLOCK_SIZE < op->offset + op->length;
                     b++) {
                        blocks = model_grow(blocks, n, sizeof(*blocks));
                        blocks[n++] = b;
                }
        }
        *ret_blocks = blocks;
        return n;
}

void op_fill(const struct op *op, uint8_t *buffer, uint64_t block, uint32_t version)
{
        for (unsigned g = 0; g < BLOCK_GRAINS; g++)
                if (op_mask(op, block) >> g & 1)
                        content_fill(buffer + (block * BLOCK_SIZE + g * GRAIN - op->offset),
                                     version, g);
}

void op_content(const struct op *op, const uint8_t *buffer, uint64_t block, struct content *content)
{
        *content = (struct content){{0}};
        for (unsigned g = 0; g < BLOCK_GRAINS; g++)
                if (op_mask(op, block) >> g & 1)
                        content->grain[g] = content_decode(
                            buffer + (block * BLOCK_SIZE + g * GRAIN - op->offset), g);
}

/* ---- what may go on at once ---- */

bool op_needs_quiet(const struct model *model, const struct op *op)
{
        const struct model_root *root;
        char name[MODEL_NAME_MAX];

        if (op->kind != OP_RESIZE)
                return op->kind == OP_RESTORE || op->kind == OP_DELETE_VOLUME ||
                       op->kind == OP_RENAME;
        snprintf(name, sizeof(name), "v%u", op->volume);
        root = model_roots_find(model_now(model), name);
        return root != NULL && op->size_bytes < root->size_bytes;
}

/* The slots that a catalog operation names, a bit each. */
static unsigned slots_named(const struct op *op)
{
        if (op->kind == OP_SNAPSHOT)
                return op->volumes;
        if (op->kind == OP_CLONE || op->kind == OP_RENAME || op->kind == OP_CREATE_ON)
                return 1u << op->volume | 1u << op->other;
        return 1u << op->volume;
}

bool slots_may_start(const struct slot slots[VOLUME_SLOTS], const struct model *model,
                     const struct op *op)
{
        const struct slot *slot = &slots[op->volume];

        if (op_is_io(op))
                return !slot->exclusive && (!op_is_wide(op) || slot->io == 0);
        for (unsigned i = 0; op_is_catalog(op) && i < VOLUME_SLOTS; i++) {
                slot = &slots[i];
                if (!(slots_named(op) >> i & 1))
                        continue;
                if (slot->catalog > 0 || (slot->exclusive && op_needs_quiet(model, op)) ||
                    (slot->io > 0 && op_needs_quiet(model, op)))
                        return false;
        }
        return true;
}

void slots_mark(struct slot slots[VOLUME_SLOTS], const struct op *op, bool quiet, bool on)
{
        unsigned change = on ? 1 : -1u;

        if (op_is_io(op)) {
                slots[op->volume].io += change;
                if (op_is_wide(op))
                        slots[op->volume].exclusive = on;
        }
        for (unsigned i = 0; op_is_catalog(op) && i < VOLUME_SLOTS; i++)
                if (slots_named(op) >> i & 1) {
                        slots[i].catalog += change;
                        if (quiet)
                                slots[i].exclusive = on;
                }
}

bool op_is_possible(const struct model *model, const struct op *op)
{
        const struct model_root *root;
        struct catalog_request request;
        char name[MODEL_NAME_MAX];

        if (op_is_catalog(op)) {
                op_request(op, &request);
                return model_catalog_valid(model, &request);
        }
        if (!op_is_io(op) && !op_is_copy(op))
                return true;
        op_volume(op, name);
        root = model_roots_find(model_now(model), name);
        if (op_is_copy(op))
                return root != NULL && root->image != 0;
        if (root == NULL || op->offset >= root->size_bytes ||
            op->length > root->size_bytes - op->offset)
                return false;
        for (uint64_t b = op->offset / BLOCK_SIZE;
             !op_is_wide(op) && b * BLOCK_SIZE < op->offset + op->length; b++)
                if (model_unsettled(model, name, b) >= 8)
                        return false; /* too many orders to look at */
        return true;
}
