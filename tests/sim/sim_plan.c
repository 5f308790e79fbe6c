/* sim_plan.c - see sim_plan.h */
#include <stdio.h>
#include <string.h>
#include "tests/crash/ops_random.h"
#include "tests/sim/sim_plan.h"

#define N_FIRST_VOLUMES 3u

void sim_character_make(uint64_t seed, bool fill, struct sim_character *c)
{
        struct sim_random random;

        sim_random_init(&random, sim_mix(seed));
        *c = (struct sim_character){.n_members = 1 + (unsigned)sim_random_below(&random, 4)};
        c->bad = (unsigned)sim_random_below(&random, c->n_members);
        c->concat = sim_random_chance(&random, 3);
        c->stripe_bytes = sim_random_chance(&random, 2) ? 0 : 8192;
        c->greedy = sim_random_chance(&random, 3);
        c->disk_bytes = c->greedy ? (UINT64_C(9) << 19) + (sim_random_below(&random, 8) << 18)
                                  : (UINT64_C(16) << 20) + (sim_random_below(&random, 8) << 20);
        c->small_cache = sim_random_chance(&random, 3);
        c->manual_checkpoints = sim_random_chance(&random, 4);
        c->checkpoint_interval_ms = 1u << sim_random_below(&random, 10);
        c->in_order = sim_random_chance(&random, 3);
        c->discard = (enum sim_discard)sim_random_below(&random, SIM_DISCARD_UNSUPPORTED + 1);
        c->faults = !sim_random_chance(&random, 5);
        c->n_members_max = 6;
        c->images = !fill && sim_random_chance(&random, 3);
        if (fill) {
                c->n_members = 1 + c->n_members % 3;
                c->n_members_max = 4;
                c->bad = 0;
                c->greedy = true;
                c->faults = false;
                c->disk_bytes = (UINT64_C(7) << 19) + (sim_random_below(&random, 6) << 18);
        }
}

/* ---- steps ---- */

/* What a pool with little room may suffer: damage to a leg is for those where each other leg is
 * sure to be there. */
static bool harm_is_survivable(const struct sim_character *c, enum sim_harm harm)
{
        switch (harm) {
        case SIM_HARM_ROT_METADATA:
        case SIM_HARM_MISDIRECT:
        case SIM_HARM_DROP_WRITE:
        case SIM_HARM_LIE:
                return c->n_members > 1 && !c->greedy;
        default:
                return true;
        }
}

/* What only pools with images know. False: it is something else's turn. */
static bool make_image_step(const struct sim_character *c, struct sim_random *random,
                            struct sim_step *step)
{
        static const struct {
                enum sim_step_kind kind;
                unsigned weight;
        } weights[] = {{SIM_STEP_FILL, 30},
                       {SIM_STEP_MOVE_IMAGE, 4},
                       {SIM_STEP_IMAGE_FAILS, 16},
                       {SIM_STEP_IMAGES_AWAY, 12}};
        uint64_t at = c->images ? sim_random_below(random, 1600) : 1600;

        for (unsigned i = 0; i < sizeof(weights) / sizeof(weights[0]); i++) {
                if (at < weights[i].weight) {
                        step->kind = weights[i].kind;
                        return c->faults || step->kind == SIM_STEP_FILL ||
                               step->kind == SIM_STEP_MOVE_IMAGE;
                }
                at -= weights[i].weight;
        }
        return false;
}

static bool make_harm(const struct sim_character *c, struct sim_random *random,
                      struct sim_step *step)
{
        step->kind = SIM_STEP_FAULT;
        do { /* slowness is always possible */
                step->harm = (enum sim_harm)sim_random_below(random, SIM_N_HARMS);
        } while (step->harm != SIM_HARM_SLOW && !(c->faults && harm_is_survivable(c, step->harm)));
        return true;
}

bool sim_step_make(const struct sim_character *c, uint64_t seed, uint32_t number,
                   const struct model_roots *now, struct sim_step *step)
{
        static const struct {
                enum sim_step_kind kind;
                unsigned weight;
        } rare[] = {
            {SIM_STEP_READ_SNAPSHOT, 40}, {SIM_STEP_CHECK, 4},   {SIM_STEP_SETTLE, 4},
            {SIM_STEP_DIFF, 6},           {SIM_STEP_CHANGED, 6}, {SIM_STEP_LIMIT, 4},
            {SIM_STEP_ON_FULL, 8},        {SIM_STEP_CUT, 8},     {SIM_STEP_KILL, 2},
            {SIM_STEP_CLOSE, 3},          {SIM_STEP_FAULT, 32},
        };
        struct sim_random random;
        uint64_t at;

        sim_random_init(&random, sim_mix(seed + UINT64_C(0x5851f42d4c957f2d) * (number + 1)));
        *step = (struct sim_step){.random = sim_random_next(&random)};
        step->volume = (unsigned)sim_random_below(&random, VOLUME_SLOTS);
        if (number < N_FIRST_VOLUMES) {
                static const uint64_t sizes[] = {16 * 4096, 21 * 4096 + 512, LARGE_BYTES};

                step->op = (struct op){.kind = OP_CREATE, .alone = true};
                step->op.volume = (uint8_t)number;
                step->op.image = c->images ? number + 1 : 0;
                step->op.size_bytes = sizes[number] + (c->greedy && number < 2 ? 150 * 4096 : 0);
                return true;
        }
        if (make_image_step(c, &random, step))
                return true;
        at = sim_random_below(&random, 1600);
        for (unsigned i = 0; i < sizeof(rare) / sizeof(rare[0]); i++) {
                if (at < rare[i].weight) {
                        step->kind = rare[i].kind;
                        return step->kind != SIM_STEP_FAULT || make_harm(c, &random, step);
                }
                at -= rare[i].weight;
        }
        step->kind = SIM_STEP_OP;
        if (!op_make_random(now, &random, c->greedy, c->images ? number + 1 : 0, at % 8 != 0,
                            &step->op))
                return false;
        step->op.alone = step->op.alone && at % 16 == 0;
        return step->op.kind != OP_CRASH && step->op.kind != OP_REOPEN;
}

/* ---- messages ---- */

void sim_step_print(const struct sim_step *step, char *text, size_t text_size)
{
        static const char *const kinds[] = {
            [SIM_STEP_READ_SNAPSHOT] = "read a snapshot of",
            [SIM_STEP_CHECK] = "check",
            [SIM_STEP_SETTLE] = "settle",
            [SIM_STEP_DIFF] = "diff",
            [SIM_STEP_CHANGED] = "changes of",
            [SIM_STEP_LIMIT] = "limit",
            [SIM_STEP_ON_FULL] = "on-full of",
            [SIM_STEP_CUT] = "cut power soon",
            [SIM_STEP_KILL] = "kill",
            [SIM_STEP_CLOSE] = "close and open",
            [SIM_STEP_FILL] = "copy step by step the image of",
            [SIM_STEP_MOVE_IMAGE] = "find elsewhere the image of",
            [SIM_STEP_IMAGE_FAILS] = "fault: EIO of an image",
            [SIM_STEP_IMAGES_AWAY] = "fault: images are away",
        };
        static const char *const harms[] = {
            [SIM_HARM_ROT_DATA] = "bit rot in data",
            [SIM_HARM_ROT_METADATA] = "bit rot in metadata",
            [SIM_HARM_EIO_READ] = "EIO of a read",
            [SIM_HARM_EIO_WRITE] = "EIO of a write",
            [SIM_HARM_EIO_FLUSH] = "EIO of a flush",
            [SIM_HARM_DEAD] = "a disk dies",
            [SIM_HARM_HOST_FULL] = "ENOSPC of a disk",
            [SIM_HARM_NO_MEMORY] = "out of memory",
            [SIM_HARM_MISDIRECT] = "misdirected write",
            [SIM_HARM_DROP_WRITE] = "write answered and not done",
            [SIM_HARM_LIE] = "flush lies",
            [SIM_HARM_SLOW] = "slow disks",
        };

        if (step->kind == SIM_STEP_OP)
                op_print(&step->op, text, text_size);
        else if (step->kind == SIM_STEP_FAULT)
                snprintf(text, text_size, "fault: %s", harms[step->harm]);
        else if (step->kind == SIM_STEP_CHANGED || step->kind == SIM_STEP_LIMIT ||
                 step->kind == SIM_STEP_ON_FULL || step->kind == SIM_STEP_READ_SNAPSHOT ||
                 step->kind == SIM_STEP_FILL || step->kind == SIM_STEP_MOVE_IMAGE)
                snprintf(text, text_size, "%s v%u", kinds[step->kind], step->volume);
        else
                snprintf(text, text_size, "%s", kinds[step->kind]);
}
