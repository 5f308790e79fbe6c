/* ops.c - see ops.h */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/crash/content.h"
#include "tests/crash/ops.h"
#include "tests/crash/ops_random.h"

#define BLOCKS(n) ((uint64_t)(n)*BLOCK_SIZE)

#define SEQUENCE_MAX 8u

const char ops_letters[] = "wodzsgrxcefkuavnbptlhmijqy";

const char *ops_alphabet(bool images, unsigned length)
{
        if (images)
                return length <= 2 ? "hmijqywodzsrxcefkuvnp" : "hmiyodsrxcek";
        return length <= 2 ? "wodzsgrxcefkuavnbptl" : "wodzsgrxcefk";
}

static void plan_add(struct plan *plan, const struct op *op)
{
        plan->ops[plan->n_ops++] = *op;
        plan->ops[plan->n_ops - 1].alone = true;
}

static void plan_io(struct plan *plan, enum op_kind kind, unsigned volume, uint64_t offset,
                    uint64_t length)
{
        plan_add(plan,
                 &(struct op){
                     .kind = kind, .volume = (uint8_t)volume, .offset = offset, .length = length});
}

/* The pool on which sequences start: two small volumes with data, one large and sparse, a snapshot
 * of the first two with writes after it; part of that is in a checkpoint and part in the log. */
static void plan_prelude(struct plan *plan)
{
        plan_add(plan, &(struct op){.kind = OP_CREATE, .volume = 0, .size_bytes = BLOCKS(16)});
        plan_add(plan,
                 &(struct op){.kind = OP_CREATE, .volume = 1, .size_bytes = BLOCKS(12) + 512});
        plan_add(plan, &(struct op){.kind = OP_CREATE, .volume = 2, .size_bytes = LARGE_BYTES});
        plan_io(plan, OP_WRITE, 0, 0, BLOCKS(5));
        plan_io(plan, OP_WRITE, 1, 0, BLOCKS(3));
        plan_io(plan, OP_WRITE, 2, LARGE_BYTES - BLOCKS(1), BLOCKS(1));
        plan_add(plan, &(struct op){.kind = OP_CHECKPOINT});
        plan_add(plan, &(struct op){.kind = OP_SNAPSHOT, .volumes = 3, .snapshot = 0});
        plan_io(plan, OP_WRITE, 0, BLOCKS(1), BLOCKS(1));
        plan_io(plan, OP_WRITE, 1, BLOCKS(11), BLOCKS(1) + 512);
        plan_add(plan, &(struct op){.kind = OP_FLUSH});
        plan_io(plan, OP_WRITE, 0, BLOCKS(2), BLOCKS(1));
}

/* The same on an image that ends inside the first volume and behind the second. Part of it is copied: some
 * that the checkpoint has, some that the log has, and some that no flush covers. */
static void plan_prelude_on_image(struct plan *plan)
{
        plan_add(plan, &(struct op){
                           .kind = OP_CREATE, .volume = 0, .size_bytes = BLOCKS(28), .image = 1});
        plan_add(plan, &(struct op){.kind = OP_CREATE_ON,
                                    .volume = 1,
                                    .other = 0,
                                    .size_bytes = BLOCKS(12) + 512});
        plan_add(plan, &(struct op){.kind = OP_CREATE, .volume = 2, .size_bytes = LARGE_BYTES});
        plan_io(plan, OP_WRITE, 0, BLOCKS(1), BLOCKS(3));
        plan_io(plan, OP_WRITE, 2, LARGE_BYTES - BLOCKS(1), BLOCKS(1));
        plan_io(plan, OP_COPY, 0, BLOCKS(2), BLOCKS(3));
        plan_add(plan, &(struct op){.kind = OP_CHECKPOINT});
        plan_add(plan, &(struct op){.kind = OP_SNAPSHOT, .volumes = 3, .snapshot = 0});
        plan_io(plan, OP_WRITE, 0, BLOCKS(5), BLOCKS(1));
        plan_io(plan, OP_COPY, 0, BLOCKS(6), BLOCKS(2));
        plan_add(plan, &(struct op){.kind = OP_FLUSH});
        plan_io(plan, OP_COPY, 0, BLOCKS(8), BLOCKS(2));
}

/* The operation that @letter stands for, when it is number @i of its sequence. */
static bool plan_letter(struct plan *plan, char letter, unsigned i)
{
        uint8_t n = (uint8_t)(1 + i);

        switch (letter) {
        case 'w': /* a first write */
                plan_io(plan, OP_WRITE, 0, BLOCKS(6 + 2 * i), BLOCKS(2));
                return true;
        case 'o': /* an overwrite, of what a snapshot holds too */
                plan_io(plan, OP_WRITE, 0, BLOCKS(0), BLOCKS(3));
                return true;
        case 'd':
                plan_io(plan, OP_DISCARD, 0, BLOCKS(1), BLOCKS(6));
                return true;
        case 'z':
                plan_io(plan, OP_ZERO, 0, BLOCKS(2) + 512, BLOCKS(2));
                return true;
        case 's':
                plan_add(plan, &(struct op){.kind = OP_SNAPSHOT, .volumes = 1, .snapshot = n});
                return true;
        case 'g':
                plan_add(plan, &(struct op){.kind = OP_SNAPSHOT, .volumes = 7, .snapshot = n});
                return true;
        case 'r':
                plan_add(plan, &(struct op){.kind = OP_RESTORE, .keep = i != 1, .kept = n});
                return true;
        case 'x':
                plan_add(plan, &(struct op){.kind = OP_DELETE_SNAPSHOT, .snapshot = 0});
                return true;
        case 'c':
                plan_add(plan, &(struct op){.kind = OP_CLONE, .other = (uint8_t)(3 + i)});
                return true;
        case 'e':
                plan_add(plan,
                         &(struct op){.kind = OP_RESIZE,
                                      .size_bytes = i % 2 == 0 ? BLOCKS(2) + 512 : BLOCKS(32)});
                return true;
        case 'f':
                plan_add(plan, &(struct op){.kind = OP_FLUSH});
                return true;
        case 'k':
                plan_add(plan, &(struct op){.kind = OP_CHECKPOINT});
                return true;
        case 'u': /* not aligned at either end */
                plan_io(plan, OP_WRITE, 0, BLOCKS(1) + 768, BLOCKS(1));
                return true;
        case 'a':
                plan_io(plan, OP_WRITE, 0, BLOCKS(3), BLOCKS(2));
                plan->ops[plan->n_ops - 1].fua = true;
                return true;
        case 'v':
                plan_add(plan,
                         &(struct op){.kind = OP_DELETE_VOLUME, .volume = i % 2 == 0 ? 1 : 0});
                return true;
        case 'n':
                plan_add(plan, &(struct op){.kind = OP_RENAME,
                                            .volume = i % 2 == 0 ? 0 : 6,
                                            .other = i % 2 == 0 ? 6 : 0});
                return true;
        /* a write to the clone that 'c' makes in front, and high up in the large volume */
        case 'b':
                plan_io(plan, OP_WRITE, 3, BLOCKS(1), BLOCKS(1));
                plan_io(plan, OP_WRITE, 2, BLOCKS(65535), BLOCKS(2));
                return true;
        case 'p':
                plan_add(plan, &(struct op){.kind = OP_REOPEN});
                return true;
        case 't':
                plan_add(plan, &(struct op){.kind = OP_ADD});
                return true;
        /* of the image: some of it copied, all of it, another volume on it, one on another image, a write
         * across its end, and the last of its volumes gone */
        case 'h':
                plan_io(plan, OP_COPY, 0, BLOCKS(4 * i), BLOCKS(8));
                return true;
        case 'm':
                plan_add(plan, &(struct op){.kind = OP_COMPLETE});
                return true;
        case 'i':
                plan_add(plan, &(struct op){.kind = OP_CREATE_ON,
                                            .volume = (uint8_t)(3 + i),
                                            .size_bytes = BLOCKS(10)});
                return true;
        case 'j':
                plan_add(plan, &(struct op){.kind = OP_CREATE,
                                            .volume = (uint8_t)(3 + i),
                                            .size_bytes = BLOCKS(30),
                                            .image = plan->n_ops + 1});
                return true;
        case 'q':
                plan_io(plan, OP_WRITE, 0, BLOCKS(23) + 512, BLOCKS(1) + 256);
                return true;
        case 'y':
                plan_add(plan, &(struct op){.kind = OP_DELETE_VOLUME, .volume = 0});
                plan_add(plan, &(struct op){.kind = OP_DELETE_VOLUME, .volume = 1});
                return true;
        case 'l': /* most of the large volume, end included */
                plan_io(plan, OP_DISCARD, 2, BLOCKS(4096), LARGE_BYTES - BLOCKS(4096));
                return true;
        }
        return false;
}

static int plan_make_exhaustive(char kind, const char *letters, struct plan *plan)
{
        bool overlap = kind == 'c' || kind == 'd';

        plan->depth = SEQUENCE_MAX;
        plan->seed = 1;
        plan->manual_checkpoints = true;
        plan->disk_bytes = UINT64_C(16) << 20;
        if (kind == 'b' || kind == 'd')
                plan_prelude_on_image(plan);
        else
                plan_prelude(plan);
        for (unsigned i = 0; letters[i] != '\0'; i++) {
                unsigned before = plan->n_ops;

                if (i == SEQUENCE_MAX || !plan_letter(plan, letters[i], i))
                        return -EINVAL;
                if (overlap ? i == 0 : letters[i + 1] == '\0')
                        plan->first_op = before;
                for (unsigned k = before; overlap && k < plan->n_ops; k++)
                        plan->ops[k].alone = false;
        }
        return plan->first_op > 0 ? 0 : -EINVAL;
}

int plan_make(const char *name, struct plan *ret_plan)
{
        unsigned n_members, n_ops;
        unsigned long long seed;
        char kind, letters[PLAN_NAME_MAX];
        int r = -EINVAL;

        *ret_plan = (struct plan){.n_ops = 0};
        if (strlen(name) >= PLAN_NAME_MAX)
                return -EINVAL;
        if (sscanf(name, "%c%u-%63[a-z]", &kind, &n_members, letters) == 3 &&
            strchr("xcbd", kind) != NULL && n_members >= 1 && n_members <= 4) {
                ret_plan->n_members = n_members;
                r = plan_make_exhaustive(kind, letters, ret_plan);
        } else if (sscanf(name, "%c%u-%u-%llx", &kind, &n_members, &n_ops, &seed) == 4 &&
                   strchr("rwi", kind) != NULL && n_members >= 1 && n_members <= 4 && n_ops >= 1 &&
                   n_ops <= OPS_MAX - 8) {
                ret_plan->n_members = n_members;
                ret_plan->seed = seed;
                plan_make_random(ret_plan, n_ops, kind == 'w', kind == 'i');
                r = 0;
        }
        snprintf(ret_plan->name, sizeof(ret_plan->name), "%s", name);
        return r;
}

bool plan_exhaustive(char kind, const char *alphabet, unsigned length, unsigned n_members,
                     uint64_t index, char name[PLAN_NAME_MAX])
{
        uint64_t n_letters = strlen(alphabet);
        char letters[SEQUENCE_MAX + 1] = "";

        if (length > SEQUENCE_MAX)
                return false;
        for (unsigned i = length; i-- > 0; index /= n_letters)
                letters[i] = alphabet[index % n_letters];
        snprintf(name, PLAN_NAME_MAX, "%c%u-%s", kind, n_members, letters);
        return index == 0;
}

static void print_volumes(const struct op *op, char *text, size_t text_size)
{
        size_t at = 0;

        text[0] = '\0';
        for (unsigned i = 0; i < VOLUME_SLOTS && at < text_size; i++)
                if (op->volumes >> i & 1)
                        at += (size_t)snprintf(text + at, text_size - at, " v%u@s%u", i,
                                               op->snapshot);
}

static const char *print_snapshot(const struct op *op, char text[16])
{
        bool kept = op->snapshot >= SNAPSHOT_SLOTS;

        snprintf(text, 16, "v%u@%c%u", op->volume, kept ? 'k' : 's', op->snapshot % SNAPSHOT_SLOTS);
        return text;
}

void op_print(const struct op *op, char *text, size_t text_size)
{
        static const char *const names[] = {
            [OP_CREATE] = "create",
            [OP_WRITE] = "write",
            [OP_DISCARD] = "discard",
            [OP_ZERO] = "zero",
            [OP_READ] = "read",
            [OP_FLUSH] = "flush",
            [OP_SNAPSHOT] = "snapshot",
            [OP_RESTORE] = "restore",
            [OP_DELETE_SNAPSHOT] = "delete",
            [OP_DELETE_VOLUME] = "delete",
            [OP_CLONE] = "clone",
            [OP_RESIZE] = "resize",
            [OP_RENAME] = "rename",
            [OP_CHECKPOINT] = "checkpoint",
            [OP_ADD] = "add a member",
            [OP_REOPEN] = "close and open",
            [OP_CRASH] = "crash",
            [OP_CREATE_ON] = "create",
            [OP_COPY] = "copy the image of",
            [OP_COMPLETE] = "complete the image of",
        };
        char detail[160] = "", volumes[120], name[16];

        switch (op->kind) {
        case OP_CREATE_ON:
                snprintf(detail, sizeof(detail), " v%u %llu bytes on the image of v%u", op->volume,
                         (unsigned long long)op->size_bytes, op->other);
                break;
        case OP_COMPLETE:
                snprintf(detail, sizeof(detail), " v%u", op->volume);
                break;
        case OP_CREATE:
        case OP_RESIZE:
                snprintf(detail, sizeof(detail), " v%u %llu bytes", op->volume,
                         (unsigned long long)op->size_bytes);
                if (op->image != 0)
                        snprintf(detail, sizeof(detail), " v%u %llu bytes on image %u", op->volume,
                                 (unsigned long long)op->size_bytes, op->image);
                break;
        case OP_WRITE:
        case OP_DISCARD:
        case OP_ZERO:
        case OP_READ:
        case OP_COPY:
                snprintf(detail, sizeof(detail), " v%u block %llu+%llu length %llu%s", op->volume,
                         (unsigned long long)(op->offset / BLOCK_SIZE),
                         (unsigned long long)(op->offset % BLOCK_SIZE),
                         (unsigned long long)op->length, op->fua ? " fua" : "");
                break;
        case OP_SNAPSHOT:
                print_volumes(op, volumes, sizeof(volumes));
                snprintf(detail, sizeof(detail), "%s", volumes);
                break;
        case OP_RESTORE:
                snprintf(detail, sizeof(detail), " %s", print_snapshot(op, name));
                if (op->keep)
                        snprintf(detail, sizeof(detail), " %s, keep as @k%u", name, op->kept);
                break;
        case OP_DELETE_SNAPSHOT:
                snprintf(detail, sizeof(detail), " %s", print_snapshot(op, name));
                break;
        case OP_DELETE_VOLUME:
                snprintf(detail, sizeof(detail), " v%u", op->volume);
                break;
        case OP_CLONE:
                snprintf(detail, sizeof(detail), " %s to v%u", print_snapshot(op, name), op->other);
                break;
        case OP_RENAME:
                snprintf(detail, sizeof(detail), " v%u to v%u", op->volume, op->other);
                break;
        default:
                break;
        }
        snprintf(text, text_size, "%s%s%s", names[op->kind], detail,
                 op->alone ? "" : " (may overlap)");
}
