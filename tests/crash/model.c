/* model.c - the history of a run: see model.h */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/crash/model_impl.h"

/* Room for one element more in an array of @n: doubled at powers of two, so that no capacity is
 * kept. */
void *model_grow(void *array, size_t n, size_t element_size)
{
        size_t capacity = n < 4 ? 4 : 2 * n;

        if (n != 0 && (n < 4 || (n & (n - 1)) != 0))
                return array;
        array = realloc(array, capacity * element_size);
        if (array == NULL) {
                fputs("out of memory\n", stderr);
                exit(1);
        }
        return array;
}

struct model *model_new(void)
{
        struct model *model = calloc(1, sizeof(*model));

        if (model == NULL) {
                fputs("out of memory\n", stderr);
                exit(1);
        }
        model->versions = model_grow(NULL, 0, sizeof(*model->versions));
        memset(&model->versions[0], 0, sizeof(model->versions[0]));
        model->n_versions = 1;
        return model;
}

void model_free(struct model *model)
{
        if (model == NULL)
                return;
        for (size_t i = 0; i < model->n_branches; i++) {
                for (size_t k = 0; k < model->branches[i].n_blocks; k++)
                        free(model->branches[i].blocks[k].versions);
                free(model->branches[i].blocks);
                free(model->branches[i].base);
        }
        free(model->branches);
        free(model->versions);
        free(model->cuts);
        free(model->operations);
        free(model->succeeded);
        free(model->completions);
        free(model->damaged);
        free(model);
}

uint64_t model_tick(struct model *model)
{
        return ++model->clock;
}

uint64_t model_answers(const struct model *model)
{
        return model->answers;
}

const struct model_roots *model_now(const struct model *model)
{
        return &model->now;
}

/* ---- names ---- */

static struct model_root *roots_find(struct model_roots *roots, const char *name)
{
        for (unsigned i = 0; i < roots->n; i++)
                if (strcmp(roots->root[i].name, name) == 0)
                        return &roots->root[i];
        return NULL;
}

const struct model_root *model_roots_find(const struct model_roots *roots, const char *name)
{
        return roots_find((struct model_roots *)roots, name);
}

static void snapshot_name(char text[2 * MODEL_NAME_MAX], const char *volume, const char *snapshot)
{
        snprintf(text, 2 * MODEL_NAME_MAX, "%s@%s", volume, snapshot);
}

static void roots_add(struct model_roots *roots, const char *name, uint32_t id, uint64_t size_bytes,
                      uint32_t image)
{
        struct model_root *root = &roots->root[roots->n++];

        assert(roots->n <= MODEL_ROOTS_MAX);
        snprintf(root->name, sizeof(root->name), "%s", name);
        root->is_snapshot = strchr(name, '@') != NULL;
        root->id = id;
        root->size_bytes = size_bytes;
        root->image = image;
}

static void roots_remove(struct model_roots *roots, const char *name)
{
        struct model_root *root = roots_find(roots, name);

        if (root != NULL)
                *root = roots->root[--roots->n];
}

/* Is @root the volume or one of its snapshots? */
static bool root_of_volume(const struct model_root *root, const char *volume)
{
        size_t length = strlen(volume);

        return strncmp(root->name, volume, length) == 0 &&
               (root->name[length] == '\0' || root->name[length] == '@');
}

static void apply_rename(struct model_roots *roots, const struct catalog_request *q)
{
        for (unsigned i = 0; i < roots->n; i++) {
                struct model_root *root = &roots->root[i];
                char name[2 * MODEL_NAME_MAX];
                const char *at = strchr(root->name, '@');

                if (!root_of_volume(root, q->volume))
                        continue;
                if (at != NULL)
                        snapshot_name(name, q->other, at + 1);
                else
                        snprintf(name, sizeof(name), "%s", q->other);
                memcpy(root->name, name, sizeof(name));
        }
}

static void apply_delete_volume(struct model_roots *roots, const char *volume)
{
        for (unsigned i = roots->n; i-- > 0;)
                if (root_of_volume(&roots->root[i], volume))
                        roots->root[i] = roots->root[--roots->n];
}

static void apply_restore(const struct operation *op, struct model_roots *roots,
                          const char *snapshot)
{
        const struct catalog_request *q = &op->request;
        struct model_root *volume = roots_find(roots, q->volume);
        uint64_t size_bytes = volume->size_bytes;
        char name[2 * MODEL_NAME_MAX];

        volume->id = op->branch;
        volume->size_bytes = roots_find(roots, snapshot)->size_bytes;
        if (q->keep[0] != '\0') {
                snapshot_name(name, q->volume, q->keep);
                roots_add(roots, name, op->cuts[0], size_bytes, volume->image);
        }
}

void operation_apply(const struct operation *op, struct model_roots *roots)
{
        const struct catalog_request *q = &op->request;
        const struct model_root *from;
        char name[2 * MODEL_NAME_MAX];

        snapshot_name(name, q->volume, q->other);
        switch (q->kind) {
        case CATALOG_CREATE:
                roots_add(roots, q->volume, op->branch, q->size_bytes, q->image);
                break;
        case CATALOG_RESIZE:
                roots_find(roots, q->volume)->size_bytes = q->size_bytes;
                break;
        case CATALOG_RENAME:
                apply_rename(roots, q);
                break;
        case CATALOG_DELETE_VOLUME:
                apply_delete_volume(roots, q->volume);
                break;
        case CATALOG_SNAPSHOT:
                for (unsigned i = 0; i < q->n_volumes; i++) {
                        snapshot_name(name, q->volumes[i], q->other);
                        from = roots_find(roots, q->volumes[i]);
                        roots_add(roots, name, op->cuts[i], from->size_bytes, from->image);
                }
                break;
        case CATALOG_DELETE_SNAPSHOT:
                roots_remove(roots, name);
                break;
        case CATALOG_RESTORE:
                apply_restore(op, roots, name);
                break;
        case CATALOG_CLONE:
                from = roots_find(roots, name);
                roots_add(roots, q->keep, op->branch, from->size_bytes, from->image);
                break;
        }
}

static bool snapshot_valid(const struct model_roots *roots, const struct catalog_request *q)
{
        char name[2 * MODEL_NAME_MAX];

        for (unsigned i = 0; i < q->n_volumes; i++) {
                snapshot_name(name, q->volumes[i], q->other);
                if (model_roots_find(roots, q->volumes[i]) == NULL ||
                    model_roots_find(roots, name) != NULL)
                        return false;
                for (unsigned k = 0; k < i; k++)
                        if (strcmp(q->volumes[i], q->volumes[k]) == 0)
                                return false;
        }
        return q->n_volumes > 0 && roots->n + q->n_volumes < MODEL_ROOTS_MAX / 2;
}

bool model_catalog_valid(const struct model *model, const struct catalog_request *q)
{
        const struct model_roots *roots = &model->now;
        const struct model_root *on = model_roots_find(roots, q->on);
        bool volume = model_roots_find(roots, q->volume) != NULL;
        char name[2 * MODEL_NAME_MAX], keep[2 * MODEL_NAME_MAX];
        bool snapshot, room = roots->n < MODEL_ROOTS_MAX / 2; /* several may be in flight */

        snapshot_name(name, q->volume, q->other);
        snapshot_name(keep, q->volume, q->keep);
        snapshot = volume && model_roots_find(roots, name) != NULL;
        switch (q->kind) {
        case CATALOG_CREATE:
                return !volume && room && (q->on[0] == '\0' || (on != NULL && on->image != 0));
        case CATALOG_RESIZE:
        case CATALOG_DELETE_VOLUME:
                return volume;
        case CATALOG_RENAME:
                return volume && model_roots_find(roots, q->other) == NULL;
        case CATALOG_SNAPSHOT:
                return snapshot_valid(roots, q);
        case CATALOG_DELETE_SNAPSHOT:
                return snapshot;
        case CATALOG_RESTORE:
                return snapshot && room &&
                       (q->keep[0] == '\0' || model_roots_find(roots, keep) == NULL);
        case CATALOG_CLONE:
                return snapshot && room && model_roots_find(roots, q->keep) == NULL;
        }
        return false;
}

/* ---- blocks of branches ---- */

static size_t branch_position(const struct branch *branch, uint64_t block)
{
        size_t low = 0, high = branch->n_blocks;

        while (low < high) {
                size_t middle = (low + high) / 2;

                if (branch->blocks[middle].block < block)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

const struct content *branch_base(const struct branch *branch, uint64_t block)
{
        static const struct content zeroes;
        size_t low = 0, high = branch->n_base;

        while (low < high) {
                size_t middle = (low + high) / 2;

                if (branch->base[middle].block < block)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low < branch->n_base && branch->base[low].block == block ? &branch->base[low].content
                                                                        : &zeroes;
}

const struct block_history *branch_block(const struct branch *branch, uint64_t block)
{
        size_t at = branch_position(branch, block);

        return at < branch->n_blocks && branch->blocks[at].block == block ? &branch->blocks[at]
                                                                          : NULL;
}

static uint32_t version_add(struct model *model, const struct version *version)
{
        struct branch *branch = &model->branches[version->branch];
        size_t at = branch_position(branch, version->block);
        uint32_t id = (uint32_t)model->n_versions;
        struct block_history *history;

        model->versions =
            model_grow(model->versions, model->n_versions - model->first, sizeof(*model->versions));
        model->versions[model->n_versions++ - model->first] = *version;
        if (branch_block(branch, version->block) == NULL) {
                branch->blocks =
                    model_grow(branch->blocks, branch->n_blocks, sizeof(*branch->blocks));
                memmove(&branch->blocks[at + 1], &branch->blocks[at],
                        (branch->n_blocks - at) * sizeof(*branch->blocks));
                branch->blocks[at] = (struct block_history){.block = version->block};
                branch->n_blocks++;
        }
        history = &branch->blocks[at];
        history->versions =
            model_grow(history->versions, history->n_versions, sizeof(*history->versions));
        history->versions[history->n_versions++] = id;
        return id;
}

uint32_t model_write_begin(struct model *model, const char *volume, uint64_t block, uint16_t mask,
                           bool zeroes)
{
        const struct model_root *root = model_roots_find(&model->now, volume);

        assert(root != NULL && !root->is_snapshot && mask != 0);
        return version_add(model, &(struct version){
                                      .branch = root->id,
                                      .block = block,
                                      .mask = mask,
                                      .zeroes = zeroes,
                                      .operation = MODEL_NONE,
                                      .requested = model_tick(model),
                                      .answered = MODEL_NEVER,
                                      .durable = MODEL_NEVER,
                                  });
}

void model_write_end(struct model *model, uint32_t id, bool durable)
{
        struct version *version = model_version(model, id);

        assert(version->answered == MODEL_NEVER);
        version->answered = model_tick(model);
        if (durable)
                version->durable = version->answered;
        model->answers++;
}

void model_write_fail(struct model *model, uint32_t id)
{
        model_version(model, id)->failed = true;
        model_write_end(model, id, false);
}

/* What was answered before @requested is durable, of one branch or (MODEL_NONE) of all. */
static void make_durable(struct model *model, uint32_t branch, uint64_t requested)
{
        uint64_t now = model_tick(model);

        for (size_t i = model->first + 1; i < model->n_versions; i++) {
                struct version *version = model_version(model, (uint32_t)i);

                if ((branch == MODEL_NONE || version->branch == branch) &&
                    version->answered < requested && version->durable == MODEL_NEVER)
                        version->durable = now;
        }
}

void model_flush_end(struct model *model, uint64_t requested)
{
        make_durable(model, MODEL_NONE, requested);
        model->answers++;
}

unsigned model_unsettled(const struct model *model, const char *volume, uint64_t block)
{
        const struct model_root *root = model_roots_find(&model->now, volume);
        const struct block_history *history = branch_block(&model->branches[root->id], block);
        unsigned n = 0;

        for (size_t i = 0; history != NULL && i < history->n_versions; i++)
                n += model_version(model, history->versions[i])->durable == MODEL_NEVER;
        return n;
}

unsigned model_open(const struct model *model, const char *volume, uint64_t block)
{
        const struct model_root *root = model_roots_find(&model->now, volume);
        const struct block_history *history = branch_block(&model->branches[root->id], block);
        unsigned n = 0;

        for (size_t i = history != NULL ? history->n_versions : 0; i-- > 0; n++) {
                const struct version *v = model_version(model, history->versions[i]);

                if (!v->failed && v->mask == ALL_GRAINS && v->durable != MODEL_NEVER)
                        break;
        }
        return n;
}

/* ---- damage ---- */

void model_weaken(struct model *model, uint32_t id)
{
        if (id > model->first && id < model->n_versions)
                model_version(model, id)->failed = true;
}

void model_damage(struct model *model, uint64_t block)
{
        if (model_is_damaged(model, block))
                return;
        model->damaged = model_grow(model->damaged, model->n_damaged, sizeof(*model->damaged));
        model->damaged[model->n_damaged++] = block;
}

bool model_is_damaged(const struct model *model, uint64_t block)
{
        for (size_t i = 0; i < model->n_damaged; i++)
                if (model->damaged[i] == block)
                        return true;
        return false;
}

static int compare_blocks(const void *a, const void *b)
{
        uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

        return x < y ? -1 : x > y;
}

size_t model_touched(const struct model *model, const struct model_root *root,
                     uint64_t **ret_blocks)
{
        uint32_t id = root->is_snapshot ? model->cuts[root->id].branch : root->id;
        uint64_t *blocks = NULL;
        size_t n = 0, unique = 0;

        while (id != MODEL_NONE) {
                const struct branch *branch = &model->branches[id];

                for (size_t i = 0; i < branch->n_blocks; i++) {
                        blocks = model_grow(blocks, n, sizeof(*blocks));
                        blocks[n++] = branch->blocks[i].block;
                }
                for (size_t i = 0; i < branch->n_base; i++) {
                        blocks = model_grow(blocks, n, sizeof(*blocks));
                        blocks[n++] = branch->base[i].block;
                }
                id = branch->parent == MODEL_NONE ? MODEL_NONE : model->cuts[branch->parent].branch;
        }
        if (n > 0)
                qsort(blocks, n, sizeof(*blocks), compare_blocks);
        for (size_t i = 0; i < n; i++)
                if (unique == 0 || blocks[unique - 1] != blocks[i])
                        blocks[unique++] = blocks[i];
        *ret_blocks = blocks;
        return unique;
}

/* ---- crashes ---- */

static uint32_t branch_add(struct model *model, uint32_t parent)
{
        model->branches = model_grow(model->branches, model->n_branches, sizeof(*model->branches));
        model->branches[model->n_branches] = (struct branch){.parent = parent};
        return (uint32_t)model->n_branches++;
}

static struct completion *completion_add(struct model *model, uint32_t image)
{
        struct completion *completion;

        model->completions =
            model_grow(model->completions, model->n_completions, sizeof(*model->completions));
        completion = &model->completions[model->n_completions++];
        *completion = (struct completion){
            .image = image, .requested = model_tick(model), .answered = MODEL_NEVER};
        return completion;
}

static void root_after_crash(struct model *model, const struct observed_root *observed)
{
        uint32_t id = branch_add(model, MODEL_NONE);
        struct branch *branch = &model->branches[id];

        for (size_t i = 0; i < observed->n_blocks; i++) {
                branch->base = model_grow(branch->base, branch->n_base, sizeof(*branch->base));
                branch->base[branch->n_base++] = observed->blocks[i];
        }
        if (observed->is_snapshot) {
                model->cuts = model_grow(model->cuts, model->n_cuts, sizeof(*model->cuts));
                model->cuts[model->n_cuts] = (struct cut){.branch = id, .operation = MODEL_NONE};
                id = (uint32_t)model->n_cuts++;
        }
        roots_add(&model->now, observed->name, id, observed->size_bytes, observed->image);
}

struct model *model_after_crash(const struct model *before, const struct observed *observed)
{
        struct model *model = model_new();

        model->clock = before->clock + 1;
        model->answers = before->answers + 1;
        /* Numbers are in the data and are not given out again. */
        model->first = before->n_versions - 1;
        model->n_versions = before->n_versions;
        for (size_t i = 0; i < observed->n_roots; i++)
                root_after_crash(model, &observed->roots[i]);
        for (size_t i = 0; i < observed->n_images; i++)
                if (observed->images[i].complete)
                        completion_add(model, observed->images[i].image)->answered = 0;
        model->initial = model->now;
        return model;
}

/* ---- images ---- */

static struct completion *completion_find(const struct model *model, uint32_t image)
{
        for (size_t i = 0; i < model->n_completions; i++)
                if (model->completions[i].image == image)
                        return &model->completions[i];
        return NULL;
}

void model_complete_begin(struct model *model, uint32_t image)
{
        if (completion_find(model, image) == NULL)
                completion_add(model, image);
}

void model_complete_end(struct model *model, uint32_t image)
{
        completion_find(model, image)->answered = model_tick(model);
        model->answers++;
}

/* A volume that begins with the first bytes of an image. */
static void branch_begin_with(struct branch *branch, uint32_t image, uint64_t size_bytes)
{
        static const struct content zeroes;
        uint64_t end_bytes = size_bytes < image_bytes(image) ? size_bytes : image_bytes(image);

        for (uint64_t block = 0; block * BLOCK_SIZE < end_bytes; block++) {
                struct content content = image_content(image, block, end_bytes);

                if (memcmp(&content, &zeroes, sizeof(zeroes)) == 0)
                        continue;
                branch->base = model_grow(branch->base, branch->n_base, sizeof(*branch->base));
                branch->base[branch->n_base++] = (struct observed_block){block, content};
        }
}

/* ---- operations ---- */

static void cut_add(struct model *model, struct operation *op, const char *volume)
{
        const struct model_root *root = model_roots_find(&model->now, volume);

        model->cuts = model_grow(model->cuts, model->n_cuts, sizeof(*model->cuts));
        model->cuts[model->n_cuts] =
            (struct cut){.branch = root->id, .operation = (uint32_t)model->n_operations};
        op->cuts[op->n_cuts++] = (uint32_t)model->n_cuts++;
}

/* What lies behind the new end becomes zeroes, if and only if the resize happens. */
static void cut_off(struct model *model, const struct operation *op)
{
        const struct model_root *root = model_roots_find(&model->now, op->request.volume);
        uint64_t end_bytes = op->request.size_bytes, *blocks = NULL;
        size_t n = end_bytes < root->size_bytes ? model_touched(model, root, &blocks) : 0;

        for (size_t i = 0; i < n; i++) {
                uint64_t start = blocks[i] * BLOCK_SIZE;
                unsigned kept = start >= end_bytes ? 0 : (unsigned)((end_bytes - start) / GRAIN);

                if (start + BLOCK_SIZE <= end_bytes)
                        continue;
                version_add(model, &(struct version){
                                       .branch = root->id,
                                       .block = blocks[i],
                                       .mask = (uint16_t)(ALL_GRAINS << kept),
                                       .zeroes = true,
                                       .operation = (uint32_t)model->n_operations,
                                       .requested = op->requested,
                                       .answered = MODEL_NEVER,
                                       .durable = MODEL_NEVER,
                                   });
        }
        free(blocks);
}

uint32_t model_catalog_begin(struct model *model, const struct catalog_request *q)
{
        struct operation op = {
            .request = *q,
            .requested = model_tick(model),
            .answered = MODEL_NEVER,
            .branch = MODEL_NONE,
        };
        char name[2 * MODEL_NAME_MAX];

        assert(model_catalog_valid(model, q));
        snapshot_name(name, q->volume, q->other);
        if (q->kind == CATALOG_CREATE)
                op.branch = branch_add(model, MODEL_NONE);
        if (q->on[0] != '\0')
                op.request.image = model_roots_find(&model->now, q->on)->image;
        if (op.request.image != 0)
                branch_begin_with(&model->branches[op.branch], op.request.image, q->size_bytes);
        if (q->kind == CATALOG_CLONE || q->kind == CATALOG_RESTORE)
                op.branch = branch_add(model, model_roots_find(&model->now, name)->id);
        if (q->kind == CATALOG_RESTORE && q->keep[0] != '\0')
                cut_add(model, &op, q->volume);
        for (unsigned i = 0; q->kind == CATALOG_SNAPSHOT && i < q->n_volumes; i++)
                cut_add(model, &op, q->volumes[i]);
        if (q->kind == CATALOG_RESIZE)
                cut_off(model, &op);
        model->operations =
            model_grow(model->operations, model->n_operations, sizeof(*model->operations));
        model->operations[model->n_operations] = op;
        return (uint32_t)model->n_operations++;
}

void model_catalog_end(struct model *model, uint32_t id, bool succeeded)
{
        struct operation *op = &model->operations[id];

        assert(op->answered == MODEL_NEVER);
        op->answered = model_tick(model);
        op->succeeded = succeeded;
        model->answers++;
        if (!succeeded)
                return;
        for (size_t i = model->first + 1;
             op->request.kind == CATALOG_RESIZE && i < model->n_versions; i++) {
                struct version *version = model_version(model, (uint32_t)i);

                if (version->operation == id)
                        version->answered = version->durable = op->answered;
        }
        for (unsigned i = 0; i < op->n_cuts; i++)
                make_durable(model, model->cuts[op->cuts[i]].branch, op->requested);
        operation_apply(op, &model->now);
        model->succeeded =
            model_grow(model->succeeded, model->n_succeeded, sizeof(*model->succeeded));
        model->succeeded[model->n_succeeded++] = id;
}
