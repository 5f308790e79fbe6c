/* ops_random.c - see ops_random.h */
#include <stdio.h>
#include <string.h>
#include "tests/crash/content.h"
#include "tests/crash/ops_random.h"
#include "tests/sim/sim_random.h"

#define BLOCKS(n) ((uint64_t)(n)*BLOCK_SIZE)

/* What will be there, if every operation so far succeeds. */
struct state {
        struct sim_random random;
        bool exists[VOLUME_SLOTS];
        uint64_t size_bytes[VOLUME_SLOTS];
        uint64_t snapshot_bytes[VOLUME_SLOTS][2 * SNAPSHOT_SLOTS]; /* 0: none */
        uint8_t kept[VOLUME_SLOTS];
        unsigned n_members;
        bool greedy;
        uint32_t next_image; /* that a new volume may stand on; 0: none does */
};

static unsigned below(struct state *s, unsigned limit)
{
        return (unsigned)sim_random_below(&s->random, limit);
}

/* A slot with a volume in it, or (@exists false) without; VOLUME_SLOTS: there is none. */
static unsigned pick_volume(struct state *s, bool exists)
{
        unsigned start = below(s, VOLUME_SLOTS);

        for (unsigned i = 0; i < VOLUME_SLOTS; i++)
                if (s->exists[(start + i) % VOLUME_SLOTS] == exists)
                        return (start + i) % VOLUME_SLOTS;
        return VOLUME_SLOTS;
}

/* One that is there, kept ones too, or a free slot that an operation may name; 2 * SNAPSHOT_SLOTS:
 * there is none. */
static unsigned pick_snapshot(struct state *s, unsigned volume, bool exists)
{
        unsigned n = exists ? 2 * SNAPSHOT_SLOTS : SNAPSHOT_SLOTS, start = below(s, n);

        for (unsigned i = 0; i < n; i++)
                if ((s->snapshot_bytes[volume][(start + i) % n] != 0) == exists)
                        return (start + i) % n;
        return 2 * SNAPSHOT_SLOTS;
}

static uint64_t pick_size(struct state *s)
{
        static const uint64_t sizes[] = {BLOCKS(8),  BLOCKS(16), BLOCKS(16), BLOCKS(21) + 512,
                                         BLOCKS(64), 1536,       LARGE_BYTES};

        if (s->greedy && below(s, 2) == 0)
                return BLOCKS(100 + below(s, 200));
        return sizes[below(s, sizeof(sizes) / sizeof(sizes[0]))];
}

/* Where in a volume: most often at the start; in large ones also where nodes of the map meet, and
 * the end. */
static uint64_t pick_block(struct state *s, uint64_t n_blocks)
{
        static const uint64_t places[] = {255, 256, 511, 65535, 65536, 131072};
        uint64_t block;

        if (n_blocks > 256 && below(s, 3) == 0) {
                block = below(s, 4) == 0 ? n_blocks - 1
                                         : places[below(s, sizeof(places) / sizeof(places[0]))];
                return block < n_blocks ? block : n_blocks - 1;
        }
        block = below(s, below(s, 2) == 0 ? 6 : 40);
        return block % n_blocks;
}

static void make_io(struct state *s, struct op *op)
{
        uint64_t size = s->size_bytes[op->volume], n_blocks = (size + BLOCK_SIZE - 1) / BLOCK_SIZE;
        unsigned shape = s->greedy && below(s, 2) == 0 ? 5 : below(s, 10);

        op->offset = BLOCKS(pick_block(s, n_blocks));
        op->length = BLOCKS(1);
        if (shape >= 4)
                op->length = BLOCKS(1 + below(s, s->greedy ? 200 : 6));
        if (shape >= 7) { /* parts of blocks */
                op->offset += GRAIN * below(s, BLOCK_GRAINS);
                op->length = GRAIN * (1 + below(s, 2 * BLOCK_GRAINS));
        }
        if ((op->kind == OP_DISCARD || op->kind == OP_ZERO) && below(s, 4) == 0)
                op->length = below(s, 2) == 0 ? size : BLOCKS(300 + below(s, 100000));
        if (op->offset >= size)
                op->offset = 0;
        if (op->length > size - op->offset)
                op->length = size - op->offset;
        op->fua = op->kind != OP_READ && below(s, 8) == 0;
}

static bool make_snapshot(struct state *s, struct op *op)
{
        unsigned n = 1 + (below(s, 3) == 0 ? below(s, 3) : 0);

        op->snapshot = (uint8_t)pick_snapshot(s, op->volume, false);
        if (op->snapshot == 2 * SNAPSHOT_SLOTS)
                return false;
        for (unsigned i = 0; i < n; i++) {
                unsigned volume = i == 0 ? op->volume : pick_volume(s, true);

                if (s->snapshot_bytes[volume][op->snapshot] != 0)
                        continue;
                op->volumes |= (uint8_t)(1u << volume);
                s->snapshot_bytes[volume][op->snapshot] = s->size_bytes[volume];
        }
        return true;
}

static bool make_from_snapshot(struct state *s, struct op *op)
{
        op->snapshot = (uint8_t)pick_snapshot(s, op->volume, true);
        if (op->snapshot == 2 * SNAPSHOT_SLOTS)
                return false;
        switch (op->kind) {
        case OP_RESTORE:
                op->keep = below(s, 2) == 0 && s->kept[op->volume] < SNAPSHOT_SLOTS;
                if (op->keep) {
                        op->kept = s->kept[op->volume]++;
                        s->snapshot_bytes[op->volume][SNAPSHOT_SLOTS + op->kept] =
                            s->size_bytes[op->volume];
                }
                s->size_bytes[op->volume] = s->snapshot_bytes[op->volume][op->snapshot];
                return true;
        case OP_CLONE:
                op->other = (uint8_t)pick_volume(s, false);
                if (op->other == VOLUME_SLOTS)
                        return false;
                s->exists[op->other] = true;
                s->size_bytes[op->other] = s->snapshot_bytes[op->volume][op->snapshot];
                return true;
        default:
                s->snapshot_bytes[op->volume][op->snapshot] = 0;
                return true;
        }
}

static void forget_volume(struct state *s, unsigned volume)
{
        s->exists[volume] = false;
        s->kept[volume] = 0;
        memset(s->snapshot_bytes[volume], 0, sizeof(s->snapshot_bytes[volume]));
}

static bool make_volume_op(struct state *s, struct op *op)
{
        switch (op->kind) {
        case OP_CREATE:
                op->volume = (uint8_t)pick_volume(s, false);
                if (op->volume == VOLUME_SLOTS)
                        return false;
                op->size_bytes = s->size_bytes[op->volume] = pick_size(s);
                s->exists[op->volume] = true;
                if (s->next_image != 0 && below(s, 3) > 0)
                        op->image = s->next_image;
                return true;
        case OP_CREATE_ON:
                op->other = op->volume;
                op->volume = (uint8_t)pick_volume(s, false);
                if (op->volume == VOLUME_SLOTS)
                        return false;
                op->size_bytes = s->size_bytes[op->volume] = pick_size(s);
                s->exists[op->volume] = true;
                return true;
        case OP_RESIZE:
                op->size_bytes = s->size_bytes[op->volume] = pick_size(s);
                return true;
        case OP_RENAME:
                op->other = (uint8_t)pick_volume(s, false);
                if (op->other == VOLUME_SLOTS)
                        return false;
                s->exists[op->other] = true;
                s->size_bytes[op->other] = s->size_bytes[op->volume];
                s->kept[op->other] = s->kept[op->volume];
                memcpy(s->snapshot_bytes[op->other], s->snapshot_bytes[op->volume],
                       sizeof(s->snapshot_bytes[0]));
                forget_volume(s, op->volume);
                return true;
        default:
                forget_volume(s, op->volume);
                return true;
        }
}

/* Parts of an image, and everything from some place on. */
static void make_copy(struct state *s, struct op *op)
{
        op->offset = BLOCKS(pick_block(s, 270));
        op->length = below(s, 4) == 0 ? BLOCKS(270) : BLOCKS(1 + below(s, 12));
}

static bool make_op(struct state *s, enum op_kind kind, struct op *op)
{
        *op = (struct op){.kind = kind, .alone = below(s, 4) == 0};
        op->volume = (uint8_t)pick_volume(s, true);
        if (op->volume == VOLUME_SLOTS && kind != OP_CREATE)
                return false;
        switch (kind) {
        case OP_WRITE:
        case OP_DISCARD:
        case OP_ZERO:
        case OP_READ:
                make_io(s, op);
                return true;
        case OP_SNAPSHOT:
                return make_snapshot(s, op);
        case OP_RESTORE:
        case OP_DELETE_SNAPSHOT:
        case OP_CLONE:
                return make_from_snapshot(s, op);
        case OP_CREATE:
        case OP_CREATE_ON:
        case OP_RESIZE:
        case OP_RENAME:
        case OP_DELETE_VOLUME:
                return make_volume_op(s, op);
        case OP_ADD:
                return s->n_members++ < 3;
        case OP_CRASH:
                op->alone = true;
                op->random = sim_random_next(&s->random);
                return true;
        case OP_COPY:
                make_copy(s, op);
                return true;
        case OP_COMPLETE:
        case OP_FLUSH:
        case OP_CHECKPOINT:
        case OP_REOPEN:
                return true;
        }
        return false;
}

static enum op_kind pick_kind(struct state *s)
{
        static const struct {
                enum op_kind kind;
                unsigned weight;
        } weights[] = {
            {OP_WRITE, 34},     {OP_DISCARD, 6},         {OP_ZERO, 5},          {OP_READ, 8},
            {OP_FLUSH, 8},      {OP_SNAPSHOT, 9},        {OP_RESTORE, 4},       {OP_CLONE, 5},
            {OP_RESIZE, 4},     {OP_DELETE_SNAPSHOT, 5}, {OP_DELETE_VOLUME, 3}, {OP_CREATE, 3},
            {OP_CHECKPOINT, 4}, {OP_RENAME, 2},          {OP_ADD, 1},           {OP_REOPEN, 1},
            {OP_CRASH, 2},      {OP_COPY, 14},           {OP_CREATE_ON, 3},     {OP_COMPLETE, 3},
        };
        const unsigned n_weights =
            sizeof(weights) / sizeof(weights[0]) - (s->next_image != 0 ? 0 : 3);
        unsigned total = 0, at;

        for (unsigned i = 0; i < n_weights; i++)
                total += weights[i].weight;
        at = below(s, total);
        for (unsigned i = 0;; i++) {
                if (at < weights[i].weight)
                        return weights[i].kind;
                at -= weights[i].weight;
        }
}

/* What the names say: "v1", "v1@s2", "v1@k3". */
static void state_from(struct state *s, const struct model_roots *now)
{
        for (unsigned i = 0; i < now->n; i++) {
                const struct model_root *root = &now->root[i];
                unsigned volume, snapshot;
                char kind;
                int n = sscanf(root->name, "v%u@%c%u", &volume, &kind, &snapshot);

                if (n < 1 || volume >= VOLUME_SLOTS)
                        continue;
                if (n == 1) {
                        s->exists[volume] = true;
                        s->size_bytes[volume] = root->size_bytes;
                        continue;
                }
                if (n < 3 || snapshot >= SNAPSHOT_SLOTS)
                        continue;
                if (kind == 'k' && s->kept[volume] <= snapshot)
                        s->kept[volume] = (uint8_t)(snapshot + 1);
                snapshot += kind == 'k' ? SNAPSHOT_SLOTS : 0;
                s->snapshot_bytes[volume][snapshot] = root->size_bytes;
        }
}

bool op_make_random(const struct model_roots *now, struct sim_random *random, bool greedy,
                    uint32_t next_image, bool io, struct op *op)
{
        static const enum op_kind ios[] = {OP_WRITE, OP_WRITE,   OP_WRITE, OP_WRITE,
                                           OP_WRITE, OP_READ,    OP_READ,  OP_READ,
                                           OP_READ,  OP_DISCARD, OP_ZERO,  OP_FLUSH};
        struct state s = {.random = *random, .greedy = greedy, .next_image = next_image};
        enum op_kind kind;
        bool possible;

        state_from(&s, now);
        kind = io ? ios[below(&s, sizeof(ios) / sizeof(ios[0]))] : pick_kind(&s);
        possible = make_op(&s, kind, op);
        *random = s.random;
        return possible;
}

void plan_make_random(struct plan *plan, unsigned n_ops, bool roomy, bool images)
{
        struct state s = {.n_members = plan->n_members};
        static const uint64_t first_sizes[] = {BLOCKS(16), BLOCKS(21) + 512, LARGE_BYTES};

        sim_random_init(&s.random, plan->seed);
        plan->depth = 1 + below(&s, 5);
        plan->small_cache = below(&s, 3) == 0;
        plan->manual_checkpoints = below(&s, 4) != 0;
        /* Often a pool that is soon full: a few slabs of 256 KiB behind 2 MiB of labels. */
        plan->greedy = s.greedy = below(&s, 3) == 0 && !roomy;
        plan->disk_bytes = plan->greedy ? (UINT64_C(9) << 19) + ((uint64_t)below(&s, 8) << 18)
                                        : UINT64_C(16) << 20;
        for (unsigned v = 0; v < 3; v++) {
                plan->ops[plan->n_ops++] = (struct op){
                    .kind = OP_CREATE,
                    .alone = true,
                    .volume = (uint8_t)v,
                    .size_bytes = first_sizes[v] + (s.greedy && v < 2 ? BLOCKS(150) : 0),
                    .image = images ? v + 1 : 0,
                };
                s.exists[v] = true;
                s.size_bytes[v] = plan->ops[v].size_bytes;
        }
        while (plan->n_ops < 3 + n_ops) {
                s.next_image = images ? plan->n_ops + 1 : 0;
                if (make_op(&s, pick_kind(&s), &plan->ops[plan->n_ops]))
                        plan->n_ops++;
        }
}
