/* pool_world.c - see pool_world.h: beginning, opening, use. */
#include "tests/fuzz/pool_world.h"
#include <assert.h>
#include <errno.h>
#include "common/crc32c.h"
#include "common/log.h"

/* A pool of some MiB has no more to do than this for an input. */
#define STEPS_MAX UINT64_C(1000000)
/* Of one life: with more the fuzzer learns slower. A check looks at all there is. */
#define USES_MAX   12u
#define CHECKS_MAX 2u

/* Every checksum is right, but for what is rotten. */
uint32_t crc32c(uint32_t crc, const void *data, size_t length)
{
        return crc |
               (length >= sizeof(PW_ROTTEN) && memcmp(data, PW_ROTTEN, sizeof(PW_ROTTEN)) == 0);
}

uint64_t pw_word(struct input *in, uint64_t word)
{
        uint8_t kind = input_u8(in);

        switch (kind & 7) {
        case 0:
                return word + 1 + (kind >> 3);
        case 1:
                return word - 1 - (kind >> 3);
        case 2:
                return 0;
        case 3:
                return UINT64_MAX;
        case 4:
        case 5:
                return input_number(in, word);
        default: /* any of 64 bits */
                return word ^ UINT64_C(1) << (kind >> 3 | (kind & 1) << 5);
        }
}

/* ---- beginning and end ---- */

struct pool_world *pw_new(enum sample_end end, struct input *in)
{
        static struct sample samples[3];
        static struct pool_world world; /* one at a time */
        static struct loop *loop;
        struct pool_world *w = &world;

        if (!loop) {
                fuzz_quiet();
                if (sim_loop_new(1, false, &loop) < 0)
                        abort();
        }
        if (!samples[end].spot)
                sample_make(&samples[end], end);
        *w = (struct pool_world){.s = {.loop = loop, .n_disks = HOSTILE_DISKS}, .in = in};
        w->sample = &samples[end];
        for (unsigned i = 0; i < HOSTILE_DISKS; i++)
                w->image[i] = sim_image_clone(w->sample->image[i]);
        sim_loop_reset(loop, 1, false);
        sim_loop_set_step_limit(loop, STEPS_MAX);
        return w;
}

void pw_free(struct pool_world *w)
{
        for (unsigned i = 0; i < HOSTILE_DISKS; i++)
                sim_image_free(w->image[i]);
}

/* ---- disks ---- */

static void written(void *arg, struct sim_disk *disk, const struct sim_event *event)
{
        struct pool_world *w = arg;

        if (!event->completed && (event->op == MEMBER_WRITE || event->op == MEMBER_DISCARD))
                w->n_written++;
}

static void disks_make(struct pool_world *w)
{
        for (unsigned i = 0; i < HOSTILE_DISKS; i++) {
                w->s.disk[i] = sim_pool_disk(w->image[i], i);
                sim_image_free(w->image[i]);
                w->image[i] = NULL;
                sim_disk_set_hook(w->s.disk[i], written, w);
        }
        for (unsigned i = 0; i < w->n_faults; i++)
                sim_disk_add_fault(w->s.disk[w->fault_disk[i]], &w->fault[i]);
        w->n_faults = 0;
}

static void disks_free(struct pool_world *w)
{
        for (unsigned i = 0; i < HOSTILE_DISKS; i++) {
                w->image[i] = sim_disk_visible(w->s.disk[i]);
                sim_disk_free(w->s.disk[i]);
        }
}

/* ---- use ---- */

static const char *a_name(struct pool_world *w)
{
        static const char *const others[] = {"web", "row@s7", "none", "new", "web@new", "", "a b"};
        uint8_t kind = input_u8(w->in);

        if (kind < 0xe0 && w->names.n > 0)
                return w->names.name[kind % w->names.n];
        return others[kind % (sizeof(others) / sizeof(others[0]))];
}

static void co_catalog(struct pool_world *w)
{
        static const char *const keys[] = {"iops", "bandwidth", "on-full", "discard", "any"};
        static const char *const values[] = {"100", "wait", "off", "", NULL, "1K"};
        struct pool *pool = w->s.pool;
        uint8_t kind = input_u8(w->in), more = input_u8(w->in);
        const char *name = a_name(w);

        switch (kind % 5) {
        case 0:
                co_volume_create(pool, name, 512 * input_number(w->in, 1u << 13), NULL);
                break;
        case 1:
                co_snapshot_create(pool, &name, 1, NULL);
                break;
        case 2:
                co_volume_rename(pool, name, a_name(w), NULL);
                break;
        case 3:
                co_volume_set(pool, name, keys[more % 5], values[more / 5 % 6], NULL);
                break;
        case 4:
                co_snapshot_restore(pool, name, "kept", NULL);
        }
}

static void co_compare(struct pool_world *w)
{
        struct volume *v = NULL, *since = NULL;
        struct volume_extent extent[8];
        size_t n;

        if (co_volume_open(w->s.pool, a_name(w), &v, NULL) == 0 &&
            co_volume_open(w->s.pool, a_name(w), &since, NULL) == 0) {
                co_volume_depth(v, 0, volume_size(v), extent, 8, &n);
                co_volume_changed(v, since, 0, volume_size(v), extent, 8, &n);
        }
        co_volume_close(since);
        co_volume_close(v);
}

static void co_use(struct pool_world *w)
{
        unsigned n_checks = 0;
        uint8_t kind;

        for (unsigned i = 0; i < USES_MAX && w->in->left > 0; i++) {
                switch ((kind = input_u8(w->in)) & 7) {
                case 0:
                        if (n_checks++ < CHECKS_MAX)
                                co_hostile_check(&w->s, kind & 8);
                        break;
                case 1:
                        co_hostile_use_volume(&w->s, a_name(w),
                                              input_number(w->in, UINT64_C(300000) << 12));
                        break;
                case 2:
                case 3:
                        co_hostile_operate(&w->s, (kind >> 3) % HOSTILE_OPERATIONS, a_name(w),
                                           512 * input_number(w->in, 1u << 13));
                        break;
                case 4:
                        co_catalog(w);
                        break;
                case 5:
                        co_compare(w);
                        break;
                case 6:
                        co_pool_settle(w->s.pool, NULL);
                        break;
                case 7:
                        return;
                }
        }
}

/* ---- opening ---- */

/* Told before anything is put right. */
static bool is_other_pool(int r)
{
        return r == -ENXIO || r == -ESTALE || r == -EMEDIUMTYPE;
}

/* What an import asks of each disk. */
static void co_look(struct member *member)
{
        struct pool_label label;
        uint8_t(*uuids)[16];
        size_t n;

        co_pool_read_label(member, &label, NULL);
        if (co_pool_read_membership(member, &uuids, &n, NULL) == 0)
                free(uuids);
}

static int co_open(struct pool_world *w, const struct pool_options *options)
{
        struct member *members[SIM_MEMBERS_MAX];
        struct error err = ERROR_INIT;
        int r = sim_pool_members(&w->s, members);

        assert(r == 0);
        for (unsigned i = 0; i < HOSTILE_DISKS; i++)
                co_look(members[i]);
        r = co_pool_open(w->s.loop, members, HOSTILE_DISKS, options, &w->s.pool, &err);
        assert(r == 0 || err.message[0]);
        if (r < 0)
                log_debug("%s", err.message);
        if (r < 0)
                for (unsigned i = 0; i < HOSTILE_DISKS; i++)
                        member_close(members[i]);
        if (w->n_written > 0 && (is_other_pool(r) || options->readonly || options->held)) {
                fprintf(stderr, "opened (%s), and written to\n", strerror(-r));
                abort();
        }
        return r;
}

static void co_life(void *arg)
{
        struct pool_world *w = arg;
        uint8_t how = input_u8(w->in);
        struct pool_options options = {.cache_bytes = 2u << 20,
                                       .readonly = how & 1,
                                       .held = (how & 3) == 2,
                                       .manual_checkpoints = !(how & 4)};

        w->n_written = 0;
        if (co_open(w, &options) < 0)
                return;
        if (how & 32)
                co_hostile_check(&w->s, how & 8);
        w->names.n = 0;
        co_hostile_list(&w->s, &w->names);
        if (options.held) {
                assert(w->n_written == 0);
                co_pool_go(w->s.pool);
        }
        co_use(w);
        if (how & 16)
                co_pool_abandon(w->s.pool);
        else
                co_pool_close(w->s.pool, NULL);
        assert(!options.readonly || w->n_written == 0);
}

void pw_run(struct pool_world *w)
{
        int r;

        disks_make(w);
        r = sim_loop_co_run(w->s.loop, co_life, w);
        if (r < 0) {
                fprintf(stderr, "the pool has not come to an end: %s\n", strerror(-r));
                abort();
        }
        if (sim_loop_reset(w->s.loop, 1, false) > 0) {
                fprintf(stderr, "a timer was left armed\n");
                abort();
        }
        disks_free(w);
}
