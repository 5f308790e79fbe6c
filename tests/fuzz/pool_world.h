/* pool_world.h - a small pool on simulated disks whose metadata says what the input wants, behind right
 * checksums; opened by the engine, and used.
 *
 * Units      bytes.
 * Threads    one.
 * Errors     what must not happen aborts: a pool that is waited for in vain or without end, a write
 *            where none may be (opened for reading only, held, of another pool), one beside the members.
 * Ownership  a pool_world lives for one input; samples and loop are kept between inputs.
 */
#pragma once
#include "tests/fuzz/input.h"
#include "tests/unit/hostile_sample.h"

#define PW_FAULTS 4u

struct pool_world {
        struct sim_pool s;
        const struct sample *sample;
        struct sim_image *image[HOSTILE_DISKS]; /* while no pool is open on them */
        struct sim_fault fault[PW_FAULTS];      /* of the disks to come */
        unsigned fault_disk[PW_FAULTS], n_faults;
        struct hostile_names names;
        struct input *in;
        uint64_t n_written; /* on members, since the pool was opened or refused */
};

/* For a new input: the sample as it was made. */
struct pool_world *pw_new(enum sample_end end, struct input *in);
void pw_free(struct pool_world *w);
/* Open the pool in a way that the input chooses, and use it until it says otherwise. */
void pw_run(struct pool_world *w);
/* Change metadata until the input says otherwise (pool_damage.c). */
void pw_damage(struct pool_world *w);
/* Put pages of records into the log until the input says otherwise (pool_log.c). */
void pw_forge_log(struct pool_world *w);

/* Content that its checksum does not fit: of a block that begins so. */
#define PW_ROTTEN "rotten!"
/* A word as the input wants it, made from another: a little more or less, a bit, nothing, all ones,
 * or a number of its own. */
uint64_t pw_word(struct input *in, uint64_t word);
