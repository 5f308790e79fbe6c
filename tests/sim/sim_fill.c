/* sim_fill.c - a pool that is filled to its last block and emptied again, round after round: freed in
 * another way each time, by writers that fail and by writers that wait, with power cut on the way.
 *
 * What a round has taken comes back, all of it: that is required after each. That a refusal was one
 * for lack of space is required of each (sim_space.c), and that nobody waits for ever (sim_run.c). */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "tests/sim/sim_run_impl.h"

#define VOLUME_BYTES  (UINT64_C(64) << 20) /* far more than the disks hold */
#define VOLUME_BLOCKS (VOLUME_BYTES / BLOCK_SIZE)
#define SCATTER       259u /* blocks: each write in another leaf of the map */
#define CUT_EVENTS    150u
#define WRITES_MAX    VOLUME_BLOCKS
/* Blocks of metadata that an empty pool has in use besides the space maps of its slabs. */
#define METADATA_EMPTY 12u

/* How it comes free. */
enum way {
        WAY_DISCARD,
        WAY_DELETE_VOLUME,
        WAY_DELETE_SNAPSHOT,
        WAY_RESTORE,
        WAY_SHRINK,
        WAY_ADD, /* a member, and then it is filled again */
        N_WAYS,
};

enum { EMPTY, HALF }; /* snapshots: of nothing, and of what was there half way */

struct round {
        struct sim_run *run;
        struct sim_random random;
        enum way way;
        bool scattered, waits;
        uint64_t at; /* the next block to be written */
        bool cut;    /* power was: what there is, is emptied */
};

static bool goes_on(const struct round *round)
{
        return !round->cut && !round->run->result->failed && !sim_pool_has_failed(round->run);
}

static void co_life_ends(struct round *round, enum sim_step_kind kind)
{
        round->cut = true;
        co_sim_next_life(round->run, kind, sim_random_next(&round->random));
}

/* Wait for what is under way, and for the power to go where it is time. */
static void co_round_drain(struct round *round)
{
        co_sim_drain(round->run);
        sim_harm_look(round->run);
        if (round->run->moment.taken && !round->run->result->failed)
                co_life_ends(round, SIM_STEP_CUT);
}

/* What it was answered. */
static int co_round_op(struct round *round, const struct op *op)
{
        struct sim_run *run = round->run;

        if (!goes_on(round))
                return -ECANCELED;
        run->failure = 0;
        co_sim_op(run, op);
        co_round_drain(round);
        return run->failure;
}

static int co_round_step(struct round *round, enum sim_step_kind kind, uint64_t random)
{
        struct sim_step step = {.kind = kind, .random = random};

        if (!goes_on(round))
                return -ECANCELED;
        co_sim_step(round->run, &step);
        co_round_drain(round);
        return 0;
}

static int co_snapshot(struct round *round, unsigned snapshot)
{
        return co_round_op(
            round, &(struct op){.kind = OP_SNAPSHOT, .volumes = 1, .snapshot = (uint8_t)snapshot});
}

static bool has_snapshot(const struct round *round, unsigned snapshot)
{
        return sim_root_exists(round->run, snapshot == EMPTY ? "v0@s0" : "v0@s1");
}

/* ---- filling ---- */

static struct op next_write(struct round *round, uint64_t n_blocks)
{
        struct op op = {.kind = OP_WRITE};

        if (round->at + n_blocks > VOLUME_BLOCKS)
                round->at = round->at % SCATTER + 1;
        op.offset = round->at * BLOCK_SIZE;
        op.length = n_blocks * BLOCK_SIZE;
        round->at += round->scattered ? SCATTER : n_blocks;
        return op;
}

/* Several at once, until one of them finds no space or half of the pool is taken. */
static void co_fill_at_once(struct round *round, uint64_t n_max, bool half)
{
        struct sim_run *run = round->run;
        struct pool_info info;

        run->failure = 0;
        for (unsigned i = 0; goes_on(round) && run->failure == 0 && !run->moment.taken; i++) {
                struct sim_step step = {.kind = SIM_STEP_OP};

                if (i == WRITES_MAX)
                        sim_fail(run, "step %u: the pool does not fill up", run->step);
                pool_get_info(run->pool, &info);
                if (half && info.used_bytes > info.size_bytes / 2)
                        break;
                step.op = next_write(round, 1 + sim_random_below(&round->random, n_max));
                co_sim_step(run, &step);
        }
        co_round_drain(round);
}

/* One after another, ever smaller ones, until there is no room for a block. */
static void co_fill_up(struct round *round)
{
        struct pool_info info;

        for (uint64_t n = 32; n > 0 && goes_on(round);) {
                struct op op = next_write(round, n);
                int r = co_round_op(round, &op);

                if (r < 0)
                        n = r == -ENOSPC ? n / 2 : 0;
        }
        if (!goes_on(round))
                return;
        pool_get_info(round->run->pool, &info);
        sim_count(info.free_bytes == 0 ? SIM_FILLED : SIM_FILLED_METADATA);
}

static void co_fill(struct round *round)
{
        uint64_t n_max = round->scattered ? 1 : UINT64_C(8) << sim_random_below(&round->random, 4);

        /* Something that goes when others wait. */
        if (round->waits || round->way == WAY_DELETE_SNAPSHOT) {
                co_fill_at_once(round, n_max, true);
                co_snapshot(round, HALF);
                round->at = 0;
        }
        if (round->waits)
                co_round_step(round, SIM_STEP_ON_FULL, 0);
        co_fill_at_once(round, n_max, false);
        if (round->waits)
                co_round_step(round, SIM_STEP_ON_FULL, 2);
        co_fill_up(round);
}

/* ---- freeing ---- */

static int co_delete_snapshots(struct round *round)
{
        int r = 0;

        for (unsigned i = EMPTY; i <= HALF && r == 0; i++)
                if (has_snapshot(round, i))
                        r = co_round_op(round, &(struct op){.kind = OP_DELETE_SNAPSHOT,
                                                            .snapshot = (uint8_t)i});
        return r;
}

static int co_delete_volume(struct round *round)
{
        const struct op op = {.kind = OP_DELETE_VOLUME};
        int r = sim_root_exists(round->run, "v0") ? co_round_op(round, &op) : 0;

        /* With its snapshots at once it may be too much. */
        if (r == -ENOSPC && (has_snapshot(round, EMPTY) || has_snapshot(round, HALF))) {
                r = co_delete_snapshots(round);
                if (r == 0)
                        r = co_round_op(round, &op);
        }
        return r;
}

static int co_discard(struct round *round)
{
        return co_round_op(round, &(struct op){.kind = OP_DISCARD, .length = VOLUME_BYTES});
}

static int co_free(struct round *round)
{
        int r = 0;

        switch (round->way) {
        case WAY_DISCARD:
                return co_discard(round);
        case WAY_DELETE_SNAPSHOT:
                r = co_discard(round);
                return r == 0 ? co_delete_snapshots(round) : r;
        case WAY_RESTORE:
                return co_round_op(round, &(struct op){.kind = OP_RESTORE, .snapshot = EMPTY});
        case WAY_SHRINK:
                return co_round_op(round,
                                   &(struct op){.kind = OP_RESIZE, .size_bytes = BLOCK_SIZE});
        case WAY_ADD:
                r = co_round_op(round, &(struct op){.kind = OP_ADD});
                co_fill_up(round);
                return r;
        default:
                return co_delete_volume(round);
        }
}

/* ---- a round ---- */

/* All is back. */
static void see_empty(struct round *round)
{
        struct sim_run *run = round->run;
        const struct pool *pool = run->pool;
        struct pool_info info;
        uint64_t metadata, maps;

        pool_get_info(run->pool, &info);
        sim_space_maps(pool, &metadata, &maps);
        if (info.used_bytes > 0 || info.freeing_bytes > 0 || metadata > maps + METADATA_EMPTY)
                sim_fail(run,
                         "step %u: the pool is empty, and %llu blocks of data and %llu of metadata "
                         "beside the space maps are in use, %llu on their way back",
                         run->step, (unsigned long long)(info.used_bytes / BLOCK_SIZE),
                         (unsigned long long)(metadata - maps),
                         (unsigned long long)(info.freeing_bytes / BLOCK_SIZE));
}

static void co_empty(struct round *round)
{
        struct sim_run *run = round->run;
        int r;

        round->cut = false;
        r = co_delete_volume(round);
        if (goes_on(round) && r < 0)
                sim_fail(run, "step %u: a full pool's volume cannot be deleted: %s", run->step,
                         strerror(-r));
        co_round_step(round, SIM_STEP_SETTLE, 0);
        if (goes_on(round))
                see_empty(round);
}

void co_sim_fill_round(struct sim_run *run)
{
        static const enum sim_counter counters[N_WAYS] = {
            [WAY_DISCARD] = SIM_FREED_DISCARD,
            [WAY_DELETE_VOLUME] = SIM_FREED_VOLUME,
            [WAY_DELETE_SNAPSHOT] = SIM_FREED_SNAPSHOT,
            [WAY_RESTORE] = SIM_FREED_RESTORE,
            [WAY_SHRINK] = SIM_FREED_SHRINK,
            [WAY_ADD] = SIM_FREED_ADD,
        };
        struct round round = {.run = run};
        uint64_t lot;
        int r;

        sim_random_init(&round.random,
                        sim_mix(run->plan->seed + UINT64_C(0x5851f42d4c957f2d) * (run->step + 1)));
        round.way = (enum way)sim_random_below(
            &round.random,
            run->n_disks < run->character.n_members_max ? N_WAYS : (unsigned)WAY_ADD);
        round.scattered = sim_random_chance(&round.random, 24);
        round.waits = sim_random_chance(&round.random, 4);
        lot = sim_random_below(&round.random, 12);
        if (lot == 0)
                run->cut_in = 1 + (unsigned)sim_random_below(&round.random, CUT_EVENTS);
        co_round_op(&round, &(struct op){.kind = OP_CREATE, .size_bytes = VOLUME_BYTES});
        if (round.way == WAY_RESTORE)
                co_snapshot(&round, EMPTY);
        co_fill(&round);
        if (lot == 1 && goes_on(&round))
                run->cut_in = 1 + (unsigned)sim_random_below(&round.random, CUT_EVENTS);
        if (lot == 2 && goes_on(&round))
                co_life_ends(&round, SIM_STEP_KILL);
        r = co_free(&round);
        if (goes_on(&round) && r == 0)
                sim_count(counters[round.way]);
        if (lot == 3 && goes_on(&round))
                co_life_ends(&round, SIM_STEP_CLOSE);
        if (run->cut_in > 0 && !run->result->failed)
                co_life_ends(&round, SIM_STEP_CUT);
        if (!run->result->failed)
                co_empty(&round);
        sim_count(SIM_ROUNDS);
}
