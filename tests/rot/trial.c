/* trial.c - see trial.h */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/log.h"
#include "pool/pool.h"
#include "tests/crash/loops.h"
#include "tests/rot/trial.h"

#define CACHE_BYTES (UINT64_C(2) << 20)

struct trial {
        struct sim_disk *disk[SAMPLE_MEMBERS_MAX];
        unsigned n_members;
        bool use;
        const struct truth *truth;
        struct truth *take; /* in place of comparing */
        struct outcome *outcome;
};

/* ---- messages that name the place ---- */

static struct {
        char text[80]; /* "member 'disk0' at byte 4096"; empty: none is looked for */
        bool seen, show;
} named;

static bool names_place(const char *message)
{
        size_t length = strlen(named.text);
        const char *at = length > 0 ? strstr(message, named.text) : NULL;

        return at != NULL && (at[length] < '0' || at[length] > '9');
}

static void on_message(enum log_level level, const char *message)
{
        named.seen = named.seen || names_place(message);
        if (named.show)
                fprintf(stderr, "  log: %s\n", message);
}

void trial_show_log(void)
{
        named.show = true;
}

static void on_finding(void *arg, const char *sentence)
{
        struct outcome *o = arg;

        if (o->n_findings++ == 0)
                snprintf(o->finding, sizeof(o->finding), "%.299s", sentence);
        o->named = o->named || names_place(sentence);
        if (named.show)
                fprintf(stderr, "  check: %s\n", sentence);
}

/* ---- blocks that are read ---- */

/* Members whose reads are noted: their operations are the simulated disk's but for one. */
static struct {
        uint64_t *const *bits; /* NULL: not noted */
        unsigned n;
        struct member *member[SAMPLE_MEMBERS_MAX];
        const struct member_ops *real;
        struct member_ops ops;
} noted;

static void note_and_submit(struct member *m, struct member_io *io)
{
        for (unsigned i = 0; i < noted.n && io->op == MEMBER_READ; i++)
                if (noted.member[i] == m)
                        for (uint64_t b = io->offset / POOL_BLOCK;
                             b < (io->offset + io->length) / POOL_BLOCK; b++)
                                noted.bits[i][b / 64] |= UINT64_C(1) << (b % 64);
        noted.real->submit(m, io);
}

static void note_member(unsigned i, struct member *m)
{
        noted.real = m->ops;
        noted.ops = *m->ops;
        noted.ops.submit = note_and_submit;
        noted.member[i] = m;
        noted.n = i + 1;
        m->ops = &noted.ops;
}

/* ---- one opening ---- */

static int co_open(struct trial *t, struct pool **ret_pool)
{
        struct pool_options options = {
            .cache_bytes = CACHE_BYTES, .readonly = !t->use, .manual_checkpoints = true};
        struct member *members[SAMPLE_MEMBERS_MAX];
        struct error err = ERROR_INIT;
        struct outcome *o = t->outcome;
        unsigned n = 0;
        int r = 0;

        while (r == 0 && n < t->n_members) {
                r = sim_disk_open(t->disk[n], loop_borrow(), &members[n]);
                if (r == 0 && noted.bits != NULL)
                        note_member(n, members[n]);
                n += r == 0;
        }
        if (r == 0)
                r = co_pool_open(loop_borrow(), members, n, &options, ret_pool, &err);
        if (r == 0) {
                o->opened = true;
                return 0;
        }
        while (n-- > 0)
                member_close(members[n]);
        snprintf(o->refusal, sizeof(o->refusal), "%.299s", err.message);
        if (named.show)
                fprintf(stderr, "  refused: %s\n", err.message);
        return r;
}

static void co_trial(void *arg)
{
        struct trial *t = arg;
        struct outcome *o = t->outcome;
        struct pool_check_callbacks callbacks = {.finding = on_finding, .arg = o};
        struct pool_info info;
        struct pool *pool;
        uint64_t n;

        if (co_open(t, &pool) < 0)
                return;
        pool_get_info(pool, &info);
        o->damaged = info.readonly && info.failed != NULL;
        if (t->take != NULL)
                o->check = co_truth_take(pool, t->take);
        else
                co_truth_compare(pool, t->truth, &o->seen);
        if (t->use)
                co_pool_settle(pool, NULL);
        else
                o->check = co_pool_check(pool, true, &callbacks, &n, NULL);
        pool_get_info(pool, &info);
        o->n_bad = info.checksum_errors;
        co_pool_close(pool, NULL);
}

static void trial_run(struct trial *t, const struct place *place)
{
        named.text[0] = '\0';
        named.seen = false;
        if (place != NULL)
                snprintf(named.text, sizeof(named.text), "member 'disk%u' at byte %llu",
                         place->member, (unsigned long long)place->named);
        log_set_sink(on_message);
        memset(t->outcome, 0, sizeof(*t->outcome));
        if (!loop_run_entry(1, co_trial, t, &t->outcome->hang))
                return;
        t->outcome->hang = NULL;
        t->outcome->logged = named.seen;
}

/* A sector that could not be read can be once it was written. */
static void on_event(void *arg, struct sim_disk *disk, const struct sim_event *event)
{
        const struct place *place = arg;

        if (event->op == MEMBER_WRITE && event->completed && event->offset <= place->offset &&
            event->offset + event->length > place->offset)
                sim_disk_clear_faults(disk);
}

static void disks_make(struct trial *t, struct sim_image *const *images, const struct place *place)
{
        static const char *const name[] = {"disk0", "disk1"};

        for (unsigned i = 0; i < t->n_members; i++) {
                struct sim_disk_options options = {
                    .latency_min_ns = 1, .latency_max_ns = 1, .in_order = true, .name = name[i]};

                t->disk[i] = sim_disk_new(images[i], &options);
        }
        if (place != NULL && place->unreadable) {
                struct sim_fault fault = {.kind = SIM_FAULT_ERROR,
                                          .ops = SIM_OP(MEMBER_READ),
                                          .offset = place->offset,
                                          .length = POOL_BLOCK,
                                          .error = -EIO};

                sim_disk_add_fault(t->disk[place->member], &fault);
                sim_disk_set_hook(t->disk[place->member], on_event, (void *)place);
        }
}

static void disks_free(struct trial *t)
{
        for (unsigned i = 0; i < t->n_members && t->outcome->hang == NULL; i++)
                sim_disk_free(t->disk[i]);
}

void trial_look(struct sim_image *const *images, const struct sample *sample,
                const struct truth *truth, const struct place *place, struct outcome *ret)
{
        struct trial t = {.n_members = sample->shape->n_members, .truth = truth, .outcome = ret};

        disks_make(&t, images, place);
        trial_run(&t, place);
        disks_free(&t);
}

void trial_use(struct sim_image *const *images, const struct sample *sample,
               const struct truth *truth, const struct place *place, struct outcome *ret,
               struct outcome *ret_after)
{
        struct trial t = {
            .n_members = sample->shape->n_members, .truth = truth, .outcome = ret, .use = true};

        memset(ret_after, 0, sizeof(*ret_after));
        disks_make(&t, images, place);
        trial_run(&t, place);
        if (ret->opened && ret->hang == NULL) {
                t.use = false;
                t.outcome = ret_after;
                trial_run(&t, place);
        }
        disks_free(&t);
}

void trial_truth(struct sim_image *const *images, unsigned n_members, struct truth *ret_truth)
{
        struct outcome o;
        struct trial t = {.n_members = n_members, .take = ret_truth, .outcome = &o};

        disks_make(&t, images, NULL);
        trial_run(&t, NULL);
        if (!o.opened || o.check < 0 || o.hang != NULL) {
                fprintf(stderr, "rot: the pool cannot be read without damage: %s\n",
                        o.opened ? strerror(-o.check) : o.refusal);
                exit(1);
        }
        disks_free(&t);
}

void trial_reads(struct sim_image *const *images, const struct sample *sample,
                 uint64_t *const *bits)
{
        struct outcome seen, after;

        noted.bits = bits;
        trial_look(images, sample, &sample->truth, NULL, &seen);
        trial_use(images, sample, &sample->truth, NULL, &seen, &after);
        noted.bits = NULL;
}
