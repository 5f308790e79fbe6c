/* sim_run_impl.h - what the files of a run share: sim_run.c goes through the steps, sim_ops.c
 * carries them out, sim_harm.c does damage and keeps account of it, sim_lives.c ends lives and begins them,
 * sim_bases.c copies the images that volumes stand on, fails them and takes them away,
 * sim_space.c helps a pool that is full, sim_fill.c fills one again and again.
 *
 * What must not happen without a fault that excuses it is told by sim_fail(). */
#pragma once
#include "common/coroutine.h"
#include "pool/pool.h"
#include "tests/crash/images.h"
#include "tests/crash/model.h"
#include "tests/crash/op_io.h"
#include "tests/crash/run.h"
#include "tests/sim/sim_count.h"
#include "tests/sim/sim_disk.h"
#include "tests/sim/sim_run.h"

/* The instant at which the power goes. */
struct sim_moment {
        bool taken;
        uint64_t time; /* the model's */
        unsigned n_disks;
        struct sim_snapshot *disks[DISKS_MAX];
};

/* An image of a member from earlier; NULL: none yet. */
struct sim_old_image {
        struct sim_image *image;
        unsigned disk;
};

/* A write that is on its way to where it does not belong. */
struct sim_stray {
        const struct sim_disk *disk; /* NULL: none is */
        uint64_t operation, offset, length;
};

struct sim_run {
        const struct sim_plan *plan;
        struct sim_result *result;
        struct sim_character character;
        struct loop *loop;
        struct pool *pool;
        struct model *model;
        struct sim_disk *disks[DISKS_MAX];
        unsigned n_disks;
        uint64_t n_disks_made;
        struct slot slots[VOLUME_SLOTS];
        struct images images;        /* of the pool */
        struct co_mutex images_lock; /* of who attaches or detaches several */
        uint64_t *block_of;          /* of each version, the block of its volume */
        size_t block_of_room;
        struct sim_stray stray;
        unsigned in_flight, depth;
        uint64_t n_started;     /* that were ever in flight */
        uint64_t blocks_wanted; /* of data, at most, by the requests in flight */
        bool adding;
        struct co_queue changed;  /* something ended, or time has passed */
        struct loop_timer ticker; /* armed while somebody waits */
        unsigned n_ticks;         /* since something ended */
        bool hangs;               /* an operation has no answer, and never will */
        int failure;              /* what the last request that failed was answered */
        uint32_t step;

        /* of this life */
        bool uncertain;     /* an operation of the catalog has no answer: it may have happened */
        bool hurried;       /* requests that waited for space were cancelled */
        bool flush_failed;  /* what it covered may be gone, and only losing power shows it */
        bool lied;          /* a flush was answered and nothing done */
        uint64_t hits;      /* faults that struck in this life and that a failure may come from */
        unsigned n_after;   /* steps since the pool stopped */
        bool away;          /* images are not attached */
        uint32_t back_at;   /* the step that attaches them again */
        uint64_t n_away;    /* times that they went */
        unsigned cut_in;    /* events until the moment; 0: not armed */
        unsigned cut_steps; /* steps since it was armed */
        struct sim_moment moment;

        /* of this pool */
        bool tainted; /* something on a disk is damaged: a check may say so */
        struct sim_old_image old;
        uint64_t *lost; /* blocks of images of which what was copied is damaged */
        size_t n_lost;
        uint64_t image_failures_seen;
        struct sim_disk_stats seen[DISKS_MAX];
};

/* What a failure of an operation is held against: what struck since it began. */
struct sim_excuse {
        uint64_t hits;
        unsigned n_disks;
        bool adding; /* a member was being added */
        uint64_t image_hits;
        bool away; /* images were */
};

/* A step under way. */
struct sim_running {
        struct sim_run *run;
        struct sim_step step;
        const struct op *op; /* the step's */
        struct catalog_request request;
        struct sim_excuse excuse;
        bool quiet;
        bool on_image;   /* it may have to read one */
        uint32_t number; /* of the step */
        bool began_alone;
        uint64_t n_started; /* run->n_started at its start */
};

void sim_fail(struct sim_run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));
void sim_trace(struct sim_run *run, uint64_t value);
/* Run @entry beside the rest; @arg is its own. False: there was no memory for it. */
bool sim_spawn(struct sim_run *run, co_entry *entry, void *arg);
/* All that is in flight ends; a full pool is helped. */
void co_sim_drain(struct sim_run *run);
/* Wait until something has ended. */
void co_sim_wait(struct sim_run *run);

/* ---- sim_ops.c ---- */

/* Begin the step, or leave it out where it is not possible. */
void co_sim_step(struct sim_run *run, const struct sim_step *step);
/* The same for an operation, and wait for its end. */
void co_sim_op(struct sim_run *run, const struct op *op);
bool sim_root_exists(const struct sim_run *run, const char *name);
/* What is answered with @r without an excuse breaks a promise. */
void sim_judge(struct sim_running *running, int r);

/* ---- sim_bases.c ---- */

/* Carry out OP_COPY, OP_COMPLETE, SIM_STEP_FILL, SIM_STEP_MOVE_IMAGE. */
void co_sim_copy(struct sim_running *running);
void co_sim_complete(struct sim_running *running);
void co_sim_fill_from(struct sim_running *running);
void co_sim_move_image(struct sim_running *running);
/* How long images take to be read in a life that begins. */
void sim_images_begin(struct sim_run *run, struct sim_random *random);
/* With nothing under way: a base is there as long as a volume stands on it. */
void co_sim_see_bases(struct sim_run *run);
/* Some of the next reads of images fail. */
void sim_images_fail(struct sim_run *run, uint64_t random);
void co_sim_images_away(struct sim_run *run, uint64_t random);
/* They come back, if it is time. */
void co_sim_images_back(struct sim_run *run);
/* Of volumes made and deleted since: attach theirs, let go of those that nobody needs. */
void co_sim_images_follow(struct sim_run *run, const struct sim_excuse *excuse);
/* May the step have to read an image? */
bool sim_is_on_image(const struct sim_run *run, const struct sim_step *step);
/* May an operation that reads images and began with @excuse fail with @error for theirs? */
bool sim_image_excuses(const struct sim_run *run, const struct sim_excuse *excuse, int error);
uint64_t sim_image_hits(const struct sim_run *run);
/* What was copied of this block of an image is damaged, for good. */
void sim_lose_image_block(struct sim_run *run, uint64_t block);
/* Blocks of data that copying @op's part of an image takes, at most. */
uint64_t sim_copy_wants(const struct op *op);

/* ---- sim_harm.c ---- */

void sim_harm(struct sim_run *run, const struct sim_step *step);
/* Take account of what struck since the last time. */
void sim_harm_look(struct sim_run *run);
void sim_harm_clear(struct sim_run *run);
void sim_on_event(void *arg, struct sim_disk *disk, const struct sim_event *event);
void sim_take_moment(struct sim_run *run);
struct sim_excuse sim_excuse(struct sim_run *run);
/* May an operation that began with @excuse fail with @error? */
bool sim_is_excused(struct sim_run *run, const struct sim_excuse *excuse, int error);
bool sim_pool_has_failed(const struct sim_run *run);
/* The data in a page of a disk may be lost. */
void sim_note_page(struct sim_run *run, const uint8_t *page);
void sim_note_pages(struct sim_run *run, const uint8_t *bytes, uint64_t length);
/* Is @error what a block that is known to be damaged would answer? */
bool sim_may_be_unreadable(const struct sim_run *run, const char *root, uint64_t block);
/* The pool's check. 0, or -errno and a text; findings that damage explains are none. */
int co_sim_check(struct sim_run *run, char *text, size_t text_size);

/* ---- sim_lives.c ---- */

int co_sim_create(struct sim_run *run);
int sim_add_disk(struct sim_run *run, struct member **ret_member);
/* End this life as @kind says (SIM_STEP_CUT, SIM_STEP_KILL, SIM_STEP_CLOSE), begin the next, and
 * hold what came back against the model. */
void co_sim_next_life(struct sim_run *run, enum sim_step_kind kind, uint64_t random);
void sim_end(struct sim_run *run);

/* ---- sim_space.c ---- */

/* Requests wait for space: bring some, or make them fail. */
void co_sim_relieve(struct sim_run *run);
/* Blocks that a request may take for data. */
uint64_t sim_blocks_wanted(const struct op *op);
/* @op was refused for lack of space, and no fault explains it: is there really none? @alone: nothing
 * else was ever in flight beside it. */
bool sim_is_full(const struct sim_run *run, const struct op *op, bool alone, char *text,
                 size_t text_size);
/* Blocks of metadata in use, and how many of them are space maps. */
void sim_space_maps(const struct pool *pool, uint64_t *ret_metadata, uint64_t *ret_maps);
/* With nothing left to free: is as much in use as what was @observed takes? */
bool sim_use_is_right(struct pool *pool, const struct observed *observed, char *text,
                      size_t text_size);

/* ---- sim_fill.c ---- */

/* Fill the pool, free what it holds. It is empty at the beginning and at the end. */
void co_sim_fill_round(struct sim_run *run);
