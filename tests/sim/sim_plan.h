/* sim_plan.h - what happens to one pool of a simulation, step by step, from a seed.
 *
 * A step follows from the seed, its number and what is there when its turn comes; no step's lots
 * depend on another step having been drawn. So any of them can be left out: that is how a failing
 * plan is shortened.
 *
 * Units      bytes.
 * Threads    [any thread]
 * Errors     none.
 */
#pragma once
#include "tests/crash/ops.h"
#include "tests/sim/sim_disk.h"
#include "tests/sim/sim_random.h"

#define SIM_STEPS_MAX 1000000u

struct model_roots;

/* What a pool is like, and its disks. */
struct sim_character {
        unsigned n_members;     /* at first */
        unsigned n_members_max; /* none is added beyond */
        unsigned
            bad; /* the member that all damage to metadata is done to: the other legs stay whole */
        bool concat;
        uint32_t stripe_bytes;
        uint64_t
            disk_bytes; /* of the first disk; in pools with little room every other one has less */
        bool greedy;    /* little room, large writes */
        bool small_cache, manual_checkpoints, in_order;
        unsigned checkpoint_interval_ms;
        enum sim_discard discard;
        bool images; /* volumes stand on images */
        bool faults; /* other than losing power, being killed, and running full */
};

enum sim_step_kind {
        SIM_STEP_OP,
        SIM_STEP_READ_SNAPSHOT,
        SIM_STEP_CHECK, /* the pool's check, while it is in use */
        SIM_STEP_SETTLE,
        SIM_STEP_DIFF,
        SIM_STEP_CHANGED,
        SIM_STEP_LIMIT,   /* iops and bandwidth of a volume */
        SIM_STEP_ON_FULL, /* wait or fail */
        SIM_STEP_CUT,     /* power is cut at one of the next moments */
        SIM_STEP_KILL,
        SIM_STEP_CLOSE,
        SIM_STEP_FAULT,
        /* with images: */
        SIM_STEP_FILL,       /* the pool from the image of a volume, step by step */
        SIM_STEP_MOVE_IMAGE, /* that of a volume is found elsewhere */
        SIM_STEP_IMAGE_FAILS,
        SIM_STEP_IMAGES_AWAY, /* for some steps */
};

enum sim_harm {
        SIM_HARM_ROT_DATA,
        SIM_HARM_ROT_METADATA,
        SIM_HARM_EIO_READ,
        SIM_HARM_EIO_WRITE,
        SIM_HARM_EIO_FLUSH,
        SIM_HARM_DEAD,
        SIM_HARM_HOST_FULL,
        SIM_HARM_NO_MEMORY,
        SIM_HARM_MISDIRECT,
        SIM_HARM_DROP_WRITE,
        SIM_HARM_LIE,
        SIM_HARM_SLOW,
        SIM_N_HARMS,
};

struct sim_step {
        enum sim_step_kind kind;
        enum sim_harm harm;
        struct op op;
        unsigned volume; /* slot */
        uint64_t random; /* for details */
};

struct sim_plan {
        uint64_t seed;
        uint32_t n_steps;
        const uint8_t *dropped; /* of each step, whether it is left out; NULL: none is */
        bool fill;              /* each step is a round of sim_fill.c */
        bool show;              /* print each step to stdout */
};

/* @fill: of a pool that is filled again and again: small disks that fail at nothing. */
void sim_character_make(uint64_t seed, bool fill, struct sim_character *ret_character);
/* False: nothing is possible. */
bool sim_step_make(const struct sim_character *character, uint64_t seed, uint32_t number,
                   const struct model_roots *now, struct sim_step *ret_step);
void sim_step_print(const struct sim_step *step, char *text, size_t text_size);
