/* model_impl.h - what model.c records and model_check.c judges. */
#pragma once
#include "tests/crash/model.h"

/* One write to one block. Ordered after another when it was requested after that one's answer. */
struct version {
        uint32_t branch;
        uint64_t block;
        uint16_t mask;
        bool zeroes;
        bool failed;                           /* it may not have been done at all */
        uint32_t operation;                    /* the resize that cut this off, or MODEL_NONE */
        uint64_t requested, answered, durable; /* MODEL_NEVER: not yet */
};

struct block_history {
        uint64_t block;
        uint32_t *versions; /* in the order requested */
        size_t n_versions;
};

/* The life of a volume from its creation, or from a clone, restore or crash, to its deletion or
 * next restore. It begins with what @parent, a cut, holds, or (MODEL_NONE) with @base, zeroes
 * elsewhere. */
struct branch {
        uint32_t parent;
        struct observed_block *base; /* what a crash left, or an image holds, ascending */
        size_t n_base;
        struct block_history *blocks; /* ascending */
        size_t n_blocks;
};

/* A snapshot: an instant of a branch. */
struct cut {
        uint32_t branch;
        uint32_t operation; /* which took it; the same for a group. MODEL_NONE: before a crash */
};

struct operation {
        struct catalog_request request;
        uint64_t requested, answered;
        bool succeeded;
        uint32_t branch; /* new (create, clone, restore) */
        uint32_t cuts[MODEL_GROUP_MAX];
        unsigned n_cuts;
};

/* That all of an image is in the pool. */
struct completion {
        uint32_t image;
        uint64_t requested, answered; /* for the first time */
};

/* Arrays that only grow. */
struct model {
        uint64_t clock, answers;
        struct version
            *versions;     /* from first + 1 on; before that: zeroes, and from before a crash */
        size_t n_versions; /* the next one's number */
        size_t first;
        uint64_t *damaged;
        size_t n_damaged;
        struct branch *branches;
        size_t n_branches;
        struct cut *cuts;
        size_t n_cuts;
        struct operation *operations;
        size_t n_operations;
        uint32_t *succeeded; /* operations in the order of their answers */
        size_t n_succeeded;
        struct completion *completions;
        size_t n_completions;
        struct model_roots initial, now;
};

static inline struct version *model_version(const struct model *model, uint32_t id)
{
        return &model->versions[id - model->first];
}

/* What @branch, of no parent, begins with at @block. */
const struct content *branch_base(const struct branch *branch, uint64_t block);
const struct block_history *branch_block(const struct branch *branch, uint64_t block);
/* What @operation does to the catalog. */
void operation_apply(const struct operation *operation, struct model_roots *roots);
void *model_grow(void *array, size_t n, size_t element_size);
