/* sim_lives.c - the end of a pool's life and the beginning of the next: power cut, process killed,
 * or closed; opened under more trouble; opened; all that came back held against the model; opened once
 * more, and all the same. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/crash/members.h"
#include "tests/crash/model_impl.h"
#include "tests/crash/observe.h"
#include "tests/crash/probe.h"
#include "tests/sim/sim_run_impl.h"
#include "tests/sim/sim_shortage.h"
#include "tests/sim/sim_ways.h"

#define RECOVERY_EVENTS 80u /* of a recovery, among which power may be cut again */

/* ---- disks ---- */

static struct sim_disk *disk_new(struct sim_run *run, unsigned index, const struct sim_image *image)
{
        char name[16];
        struct sim_disk_options options = {
            .seed = sim_mix(run->plan->seed + ++run->n_disks_made),
            .name = name,
            .in_order = run->character.in_order,
            .discard = run->character.discard,
        };
        struct sim_disk *disk;

        snprintf(name, sizeof(name), "disk%u", index);
        disk = sim_disk_new(image, &options);
        sim_disk_set_hook(disk, sim_on_event, run);
        return disk;
}

static void disk_retire(struct sim_run *run, unsigned i)
{
        sim_trace(run, sim_disk_trace(run->disks[i]));
        if (run->stray.disk == run->disks[i])
                run->stray.disk = NULL;
        sim_disk_free(run->disks[i]);
        run->disks[i] = NULL;
        run->seen[i] = (struct sim_disk_stats){0};
}

int sim_add_disk(struct sim_run *run, struct member **ret_member)
{
        unsigned index = run->n_disks;
        uint64_t size_bytes = run->character.disk_bytes;
        struct sim_image *image;

        if (run->character.greedy && index % 2 == 1)
                size_bytes -= size_bytes / 4 / SIM_PAGE * SIM_PAGE;
        image = sim_image_new(size_bytes);
        run->seen[index] = (struct sim_disk_stats){0};
        run->disks[run->n_disks++] = disk_new(run, index, image);
        sim_image_free(image);
        return sim_disk_open(run->disks[index], run->loop, ret_member);
}

/* What becomes of what was pending on a disk. */
static uint8_t *draw_choices(struct sim_run *run, unsigned disk, bool whole,
                             struct sim_random *random)
{
        const struct sim_snapshot *s = run->moment.disks[disk];
        uint8_t *choice = malloc(s->n_pending + 1);
        unsigned mostly = (unsigned)sim_random_below(random, 4);
        bool any_lost = false;

        for (size_t k = 0; k < s->n_pending; k++) {
                uint64_t lot = sim_random_below(random, 8);

                choice[k] = lot == 0 ? (uint8_t)(2 + sim_random_below(random, 254))
                                     : (uint8_t)(mostly == 0   ? SIM_LOST
                                                 : mostly == 1 ? SIM_WHOLE
                                                               : lot % 2);
                choice[k] = whole ? SIM_WHOLE : choice[k];
                sim_count_add(SIM_WRITE_TORN, choice[k] > SIM_WHOLE);
                sim_count_add(SIM_WRITE_LOST, choice[k] == SIM_LOST);
                sim_count_add(SIM_WRITE_REORDERED, choice[k] == SIM_WHOLE && any_lost);
                any_lost = any_lost || choice[k] == SIM_LOST;
                if (run->lied && disk == run->character.bad && choice[k] != SIM_WHOLE &&
                    s->pending[k].data != NULL)
                        sim_note_pages(run, s->pending[k].data, s->pending[k].data_length);
        }
        return choice;
}

/* The disks become what the moment leaves of them. */
static void lose_power(struct sim_run *run, bool whole, struct sim_random *random)
{
        for (unsigned i = 0; i < run->n_disks; i++)
                disk_retire(run, i);
        run->n_disks = run->moment.n_disks;
        for (unsigned i = 0; i < run->n_disks; i++) {
                uint8_t *choice = draw_choices(run, i, whole, random);
                struct sim_image *image = sim_snapshot_crash(run->moment.disks[i], choice);

                run->disks[i] = disk_new(run, i, image);
                sim_image_free(image);
                free(choice);
        }
}

static void moment_clear(struct sim_run *run)
{
        for (unsigned i = 0; run->moment.taken && i < run->moment.n_disks; i++)
                sim_snapshot_free(run->moment.disks[i]);
        run->moment = (struct sim_moment){.taken = false};
        run->cut_in = run->cut_steps = 0;
}

/* ---- opening and closing ---- */

static void on_pool_event(const struct pool_event *event, void *arg)
{
        struct sim_run *run = arg;

        if (event->kind == POOL_EVENT_SPACE)
                sim_count(SIM_SPACE_BACK);
        co_wake_all(&run->changed);
}

static void close_handles(struct sim_run *run)
{
        for (unsigned i = 0; i < VOLUME_SLOTS; i++) {
                co_volume_close(run->slots[i].handle);
                run->slots[i] = (struct slot){.handle = NULL};
        }
}

static void pool_options_of(const struct sim_run *run, struct pool_options *options)
{
        *options = (struct pool_options){
            .cache_bytes = run->character.small_cache ? 1 << 20 : 8 << 20,
            .checkpoint_interval_ms = run->character.checkpoint_interval_ms,
            .manual_checkpoints = run->character.manual_checkpoints,
        };
}

static void co_abandon(struct sim_run *run)
{
        if (run->pool != NULL)
                co_pool_abandon(run->pool);
        run->pool = NULL;
        images_free(&run->images);
}

static int co_close_pool(struct sim_run *run, struct error *err)
{
        int r;

        co_images_close(&run->images, run->pool);
        r = co_pool_close(run->pool, err);
        run->pool = NULL;
        return r;
}

/* Open the pool on @disks; what is no member of it is only looked at. */
static int co_open_on(struct sim_run *run, struct sim_disk *const *disks, unsigned n_disks,
                      struct pool **ret_pool, unsigned *ret_kept, struct error *err)
{
        struct member *members[DISKS_MAX];
        struct pool_options options;
        unsigned n = 0;
        int r;

        pool_options_of(run, &options);
        r = co_members_open(run->loop, disks, n_disks, members, &n, ret_kept, err);
        if (r < 0)
                return r;
        r = co_pool_open(run->loop, members, n, &options, ret_pool, err);
        while (r < 0 && n-- > 0)
                member_close(members[n]);
        return r;
}

static int co_open(struct sim_run *run, struct error *err)
{
        struct sim_found found;
        unsigned kept;
        int r;

        sim_ways_before(run->disks, run->n_disks, &found);
        r = co_open_on(run, run->disks, run->n_disks, &run->pool, &kept, err);
        if (r < 0) {
                run->pool = NULL;
                return r;
        }
        for (unsigned i = run->n_disks; i-- > 0;)
                if (!(kept >> i & 1)) { /* no member: its 'add' did not come to an end */
                        disk_retire(run, i);
                        run->n_disks--;
                        memmove(&run->disks[i], &run->disks[i + 1],
                                (run->n_disks - i) * sizeof(run->disks[0]));
                        memmove(&run->seen[i], &run->seen[i + 1],
                                (run->n_disks - i) * sizeof(run->seen[0]));
                }
        pool_observe(run->pool, on_pool_event, run);
        sim_ways_after(run->pool, &found);
        r = co_images_open(&run->images, run->pool, err);
        if (r < 0)
                co_abandon(run);
        return r;
}

int co_sim_create(struct sim_run *run)
{
        uint8_t uuid[16] = "tarn simulation";
        struct pool_create_options options = {
            .name = "tank",
            .layout = run->character.concat ? POOL_LAYOUT_CONCAT : POOL_LAYOUT_STRIPE,
            .stripe_bytes = run->character.stripe_bytes,
            .slab_bytes = 256 << 10,
            .log_slabs = 1,
            .uuid = uuid,
        };
        struct member *members[DISKS_MAX];
        struct error err = ERROR_INIT;
        int r = 0;

        for (unsigned i = 0; r == 0 && i < run->character.n_members; i++)
                r = sim_add_disk(run, &members[i]);
        if (r == 0)
                r = co_pool_create(members, run->n_disks, &options, &err);
        for (unsigned i = 0; i < run->n_disks; i++)
                member_close(members[i]);
        if (r == 0)
                r = co_open(run, &err);
        if (r < 0)
                sim_fail(run, "cannot create the pool: %s", err.message);
        run->depth = 1;
        return r;
}

/* ---- trouble while the pool is opened ---- */

/* Opened, looked at and used until power goes again. Where all was found before that, the same must
 * be found again. */
static void co_cut_recovery(struct sim_run *run, uint64_t time, struct sim_random *random,
                            struct observed *expected)
{
        struct observed observed = {.n_roots = 0};
        struct error err = ERROR_INIT;
        char text[400];
        bool whole_look;

        moment_clear(run);
        run->cut_in = 1 + (unsigned)sim_random_below(random, RECOVERY_EVENTS);
        if (co_open(run, &err) < 0) {
                sim_fail(run, "opening, to be cut: %s", err.message);
                return;
        }
        whole_look = !run->moment.taken;
        if (whole_look &&
            (run->tainted ? co_observe_damaged(run->pool, &observed, text, sizeof(text))
                          : co_observe(run->pool, &observed, text, sizeof(text))) == 0) {
                if (expected->n_roots > 0 &&
                    !observed_equal(expected, &observed, text, sizeof(text)))
                        sim_fail(run, "after a crash in the recovery: %s", text);
                observed_free(expected);
                *expected = observed;
        }
        if (!run->moment.taken)
                co_pool_settle(run->pool, &err);
        co_abandon(run);
        if (!run->moment.taken)
                sim_take_moment(run);
        lose_power(run, false, random);
        sim_count(SIM_RECOVERY_CUT);
}

/* Opened while something fails: it may fail, and must leave everything as it is. */
static void co_open_in_trouble(struct sim_run *run, enum sim_harm harm, struct sim_random *random)
{
        struct sim_step step = {.harm = harm, .random = sim_random_next(random)};
        struct sim_excuse excuse = sim_excuse(run);
        struct error err = ERROR_INIT;
        int r;

        sim_harm(run, &step);
        r = co_open(run, &err);
        if (r == 0) /* what the replay left to be written may still fail */
                co_pool_checkpoint(run->pool, &err);
        else if (sim_excuse(run).hits == excuse.hits)
                sim_fail(run, "opening, and nothing failed: %s", err.message);
        else
                sim_count(SIM_OPEN_FAILED);
        co_abandon(run);
        sim_harm_clear(run);
        sim_harm_look(run);
        if (!run->flush_failed)
                return;
        moment_clear(run);
        sim_take_moment(run);
        lose_power(run, false, random);
        run->flush_failed = false;
}

/* A member is gone: the pool must not open. */
static void co_open_without(struct sim_run *run)
{
        struct sim_disk *bad = run->disks[run->character.bad];
        struct error err = ERROR_INIT;

        sim_disk_add_fault(bad, &(struct sim_fault){.kind = SIM_FAULT_ERROR, .error = -EIO});
        if (co_open(run, &err) == 0) {
                sim_fail(run, "the pool opens without a member");
                co_abandon(run);
        }
        sim_count(SIM_DISK_DEAD);
        sim_count(SIM_DEAD_REFUSED);
        sim_harm_clear(run);
        sim_harm_look(run);
}

/* The generation on a disk: what was in memory when power was cut may not have come to it.
 * 0: none. */
static uint64_t co_generation(struct sim_run *run, struct sim_disk *disk)
{
        struct pool_label label = {.generation = 0};
        struct member *member;

        if (sim_disk_open(disk, run->loop, &member) < 0)
                return 0;
        co_pool_read_label(member, &label, NULL);
        member_close(member);
        return label.generation;
}

/* A member comes back as it was long ago, on other disks, so that what is tried has no
 * consequences. */
static void co_open_stale(struct sim_run *run)
{
        struct sim_disk *disks[DISKS_MAX];
        struct error err = ERROR_INIT;
        struct pool *pool = NULL;
        uint64_t newest = 0, old;
        unsigned kept;
        int r = 0;

        if (run->old.image == NULL || run->n_disks < 2)
                return;
        for (unsigned i = 0; i < run->n_disks; i++) {
                struct sim_image *image = i == run->old.disk ? sim_image_clone(run->old.image)
                                                             : sim_disk_visible(run->disks[i]);

                disks[i] = disk_new(run, i, image);
                sim_image_free(image);
        }
        old = co_generation(run, disks[run->old.disk]);
        for (unsigned i = 0; i < run->n_disks; i++) {
                uint64_t generation = i != run->old.disk ? co_generation(run, disks[i]) : 0;

                newest = generation > newest ? generation : newest;
        }
        if (old > 0 && newest >= old + 2) {
                r = co_open_on(run, disks, run->n_disks, &pool, &kept, &err);
                sim_count(SIM_DISK_STALE);
                if (r == -ESTALE)
                        sim_count(SIM_STALE_REFUSED);
                else
                        sim_fail(run, "a member at generation %llu of %llu: %s",
                                 (unsigned long long)old, (unsigned long long)newest,
                                 r == 0 ? "it opens" : err.message);
        }
        if (pool != NULL)
                co_pool_abandon(pool);
        for (unsigned i = 0; i < run->n_disks; i++)
                sim_disk_free(disks[i]);
}

static void co_trouble(struct sim_run *run, uint64_t time, struct sim_random *random,
                       struct observed *expected)
{
        static const enum sim_harm harms[] = {SIM_HARM_EIO_READ, SIM_HARM_EIO_WRITE,
                                              SIM_HARM_EIO_FLUSH, SIM_HARM_NO_MEMORY,
                                              SIM_HARM_NO_MEMORY};
        uint64_t lot = sim_random_below(random, 16);

        if (lot < 8)
                co_cut_recovery(run, time, random, expected);
        else if (!run->character.faults)
                return;
        else if (lot < 13)
                co_open_in_trouble(run, harms[lot - 8], random);
        else if (lot < 14)
                co_open_without(run);
        else
                co_open_stale(run);
}

/* ---- what came back ---- */

static int see_health(struct sim_run *run, char *text, size_t text_size)
{
        struct pool_info info;

        pool_get_info(run->pool, &info);
        if (info.failed != NULL || info.readonly)
                snprintf(text, text_size, "the pool %s",
                         info.failed != NULL ? info.failed : "is read-only");
        else if (!run->tainted && (info.checksum_errors > 0 || info.repaired_errors > 0))
                snprintf(text, text_size, "%llu blocks failed their checksum, %llu were repaired",
                         (unsigned long long)info.checksum_errors,
                         (unsigned long long)info.repaired_errors);
        else {
                sim_count_add(SIM_LEG_REPAIRED, info.repaired_errors);
                return 0;
        }
        return -EUCLEAN;
}

static int co_look(struct sim_run *run, struct observed *ret_observed, char *text, size_t text_size)
{
        int r;

        if (see_health(run, text, text_size) < 0)
                return -EUCLEAN;
        r = run->tainted ? co_observe_damaged(run->pool, ret_observed, text, text_size)
                         : co_observe(run->pool, ret_observed, text, text_size);
        if (r == 0 && !images_all_needed(ret_observed, text, text_size))
                r = -EUCLEAN;
        if (r == 0)
                r = co_sim_check(run, text, text_size);
        return r == 0 ? see_health(run, text, text_size) : r;
}

/* A second recovery changes nothing. */
static int co_look_again(struct sim_run *run, const struct observed *before,
                         struct sim_random *random, char *text, size_t text_size)
{
        struct observed observed = {.n_roots = 0};
        struct error err = ERROR_INIT;
        bool settled = !sim_random_chance(random, 2);
        int r = 0;

        if (!settled) {
                co_abandon(run);
        } else {
                r = co_pool_settle(run->pool, &err);
                if (r == 0)
                        r = co_close_pool(run, &err);
                else
                        co_abandon(run);
        }
        if (r == 0)
                r = co_open(run, &err);
        if (r < 0) {
                snprintf(text, text_size, "%s", err.message);
                return r;
        }
        r = co_look(run, &observed, text, text_size);
        if (r == 0 && !observed_equal(before, &observed, text, text_size))
                r = -EUCLEAN;
        if (r == 0 && settled && !run->tainted &&
            !sim_use_is_right(run->pool, &observed, text, text_size))
                r = -EUCLEAN;
        observed_free(&observed);
        return r;
}

/* What a flush that lied has cost may be more than can be opened: then it must have been noticed,
 * and the disks are as if it had not lied. */
static bool co_open_after_lie(struct sim_run *run, struct sim_random *random, struct error *err)
{
        struct pool_info info;

        if (co_open(run, err) == 0) {
                pool_get_info(run->pool, &info);
                if (!info.readonly && info.failed == NULL)
                        return true;
                co_abandon(run);
        }
        sim_count(SIM_LIE_REFUSED);
        lose_power(run, true, random);
        return co_open(run, err) == 0;
}

/* All that came back from a crash at @time; from now on that is what there is. */
static void co_recover(struct sim_run *run, uint64_t time, bool cut, struct sim_random *random)
{
        struct observed observed = {.n_roots = 0}, expected = {.n_roots = 0};
        struct error err = ERROR_INIT;
        struct model *model;
        uint64_t replayed;
        char text[900] = "";
        const char *when = "after recovery";

        for (unsigned n = 0; cut && !run->lied && n < 3 && sim_random_chance(random, 2); n++)
                if (!run->result->failed)
                        co_trouble(run, time, random, &expected);
        if (run->result->failed) {
                observed_free(&expected);
                return;
        }
        if (!run->lied)
                moment_clear(run);
        replayed = sim_counted(SIM_LOG_REPLAYED);
        if (run->lied ? !co_open_after_lie(run, random, &err) : co_open(run, &err) < 0) {
                sim_fail(run, "step %u: cannot open: %s", run->step, err.message);
                observed_free(&expected);
                return;
        }
        sim_count(SIM_RECOVERIES);
        sim_count_add(SIM_LOG_NONE, sim_counted(SIM_LOG_REPLAYED) == replayed);
        if (co_look(run, &observed, text, sizeof(text)) == 0 &&
            model_crash_allowed(run->model, time, &observed, text, sizeof(text)) &&
            (expected.n_roots == 0 || observed_equal(&expected, &observed, text, sizeof(text)))) {
                when = "after a second recovery";
                if (!cut || co_look_again(run, &observed, random, text, sizeof(text)) == 0) {
                        when = "differences";
                        text[0] = '\0';
                        if (!run->tainted && sim_random_chance(random, 4))
                                co_probe_diff(run->pool, &observed, random, text, sizeof(text));
                }
        }
        if (text[0] != '\0')
                sim_fail(run, "step %u, %s: %s", run->step, when, text);
        model = model_after_crash(run->model, &observed);
        model_free(run->model);
        run->model = model;
        for (size_t i = 0; i < run->n_lost; i++)
                model_damage(run->model, run->lost[i]);
        observed_free(&observed);
        observed_free(&expected);
}

/* ---- the end of a life ---- */

/* Something to come back with later. */
static void keep_old_image(struct sim_run *run, struct sim_random *random)
{
        if (run->character.n_members < 2 ||
            (run->old.image != NULL && !sim_random_chance(random, 4)))
                return;
        sim_image_free(run->old.image);
        run->old.disk = run->character.bad;
        run->old.image = sim_disk_durable(run->disks[run->old.disk]);
}

static void co_close(struct sim_run *run)
{
        uint64_t requested = model_tick(run->model);
        struct error err = ERROR_INIT;
        bool failed = sim_pool_has_failed(run);
        int r = co_close_pool(run, &err);

        sim_harm_look(run);
        if (r == 0)
                model_flush_end(run->model, requested);
        else if (!failed && run->hits == 0 && r != -ENOSPC)
                sim_fail(run, "step %u: cannot close: %s", run->step, err.message);
}

static void begin(struct sim_run *run, bool cut, struct sim_random *random)
{
        moment_clear(run);
        run->uncertain = run->hurried = run->flush_failed = false;
        run->lied = run->lied && !cut; /* what was not flushed may still be lost */
        run->hits = 0;
        run->away = false;
        run->n_after = 0;
        run->depth = 1 + (unsigned)sim_random_below(random, 12);
        sim_images_begin(run, random);
        sim_count(SIM_LIVES);
}

void co_sim_next_life(struct sim_run *run, enum sim_step_kind kind, uint64_t seed)
{
        struct sim_random random;
        struct pool_info info;
        uint64_t time;

        sim_random_init(&random, seed);
        co_sim_drain(run);
        if (run->result->failed)
                return;
        sim_harm_look(run);
        pool_get_info(run->pool, &info);
        if (info.failed != NULL && run->hits == 0)
                sim_fail(run, "step %u: the pool stopped, and nothing had gone wrong: %s",
                         run->step, info.failed);
        if (info.failed == NULL && run->hits == 0)
                co_sim_see_bases(run);
        if (kind == SIM_STEP_CUT && !run->moment.taken)
                sim_take_moment(run);
        close_handles(run);
        if (kind == SIM_STEP_CLOSE)
                co_close(run);
        else
                co_abandon(run);
        sim_harm_look(run);
        if (run->flush_failed && kind != SIM_STEP_CUT) { /* only that shows what it has cost */
                kind = SIM_STEP_CUT;
                moment_clear(run);
                sim_take_moment(run);
        }
        time = kind == SIM_STEP_CUT ? run->moment.time : model_tick(run->model);
        sim_harm_clear(run);
        if (kind == SIM_STEP_CUT)
                lose_power(run, false, &random);
        if (!run->lied)
                keep_old_image(run, &random);
        if (kind != SIM_STEP_CLOSE)
                sim_count(kind == SIM_STEP_CUT ? SIM_POWER_CUT : SIM_KILLED);
        co_recover(run, time, kind == SIM_STEP_CUT, &random);
        begin(run, kind == SIM_STEP_CUT, &random);
}

void sim_end(struct sim_run *run)
{
        close_handles(run);
        co_abandon(run);
        moment_clear(run);
        sim_image_free(run->old.image);
        run->old.image = NULL;
        for (unsigned i = 0; i < run->n_disks; i++)
                sim_trace(run, sim_disk_trace(run->disks[i]));
}
