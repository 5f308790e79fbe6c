/* test_base.c - volumes on an image read what was never written to them from it, or from what was copied
 * of it; whatever is written, discarded, snapshot, resized or copied meanwhile, and over crashes. */
#include <errno.h>
#include "pool/base.h"
#include "tests/unit/check_fixture.h"
#include "tests/unit/content_fixture.h"

#define IMAGE_BLOCKS 1100u
#define IMAGE_BYTES  (IMAGE_BLOCKS * UINT64_C(4096) + 512)
#define ROOTS_MAX    12u
#define STEPS        120u

/* ---- the image ---- */

struct fake_image {
        struct pool_image image;
        struct sim_pool *s;
        bool fails, waits;
        unsigned n_reads;
        uint64_t read_bytes;
};

/* Every third block, and a long stretch, are zeroes. */
static uint8_t image_byte(uint64_t offset)
{
        uint64_t block = offset / POOL_BLOCK;

        if (offset >= IMAGE_BYTES || block % 3 == 0 || (block > 300 && block < 700))
                return 0;
        return (uint8_t)(block * 7 + offset % 251 + 1);
}

static int co_fake_read(struct pool_image *image, void *buffer, uint64_t length, uint64_t offset)
{
        struct fake_image *f = container_of(image, struct fake_image, image);

        if (f->waits)
                co_sleep_ns(1000000 * (1 + sim_random_below(&f->s->random, 5)));
        if (f->fails || offset + length > IMAGE_BYTES)
                return -EIO;
        for (uint64_t i = 0; i < length; i++)
                ((uint8_t *)buffer)[i] = image_byte(offset + i);
        f->n_reads++;
        f->read_bytes += length;
        return 0;
}

static struct fake_image fake_image(struct sim_pool *s)
{
        return (struct fake_image){.image = {co_fake_read}, .s = s};
}

/* ---- what there should be ---- */

struct model_root {
        char name[32]; /* empty: none */
        uint64_t size;
        uint8_t *data; /* BLOCKS_MAX blocks */
};

struct world {
        struct sim_pool *s;
        struct fake_image image;
        uint64_t base;
        struct model_root root[ROOTS_MAX];
        unsigned n_names;
        bool complete;
};

static struct model_root *model_free_root(struct world *w)
{
        for (unsigned i = 0; i < ROOTS_MAX; i++)
                if (!w->root[i].name[0])
                        return &w->root[i];
        return NULL;
}

static struct model_root *model_any(struct world *w, bool volume)
{
        for (unsigned tries = 0; tries < 100; tries++) {
                struct model_root *m = &w->root[sim_random_below(&w->s->random, ROOTS_MAX)];

                if (m->name[0] && !strchr(m->name, '@') == volume)
                        return m;
        }
        return NULL;
}

static void model_copy(struct model_root *to, const struct model_root *from, const char *name)
{
        to->data = to->data ? to->data : malloc(BLOCKS_MAX * POOL_BLOCK);
        memcpy(to->data, from->data, BLOCKS_MAX * POOL_BLOCK);
        to->size = from->size;
        snprintf(to->name, sizeof(to->name), "%.31s", name);
}

static void model_first(struct world *w, const char *name, uint64_t size)
{
        struct model_root *m = model_free_root(w);

        m->data = m->data ? m->data : malloc(BLOCKS_MAX * POOL_BLOCK);
        for (uint64_t i = 0; i < BLOCKS_MAX * POOL_BLOCK; i++)
                m->data[i] = i < size ? image_byte(i) : 0;
        m->size = size;
        snprintf(m->name, sizeof(m->name), "%.31s", name);
}

static void model_end(struct world *w)
{
        for (unsigned i = 0; i < ROOTS_MAX; i++)
                free(w->root[i].data);
}

/* ---- steps ---- */

static int co_change(struct world *w)
{
        struct sim_random *rnd = &w->s->random;
        struct model_root *m = model_any(w, true);
        struct volume *v;
        int r = m ? co_volume_open(w->s->pool, m->name, &v, NULL) : -ENOENT;

        if (r < 0)
                return m ? r : 0;
        uint64_t at = sim_random_below(rnd, m->size), n = 1 + sim_random_below(rnd, 400 * 4096);
        n = n < m->size - at ? n : m->size - at;
        if (sim_random_below(rnd, 2)) {
                at = at / 4096 * 4096;
                n = (n + 4095) / 4096 * 4096;
                n = n < m->size - at ? n : m->size - at;
        }
        uint8_t *data = malloc(n), fill = (uint8_t)sim_random_below(rnd, 256);
        unsigned kind = (unsigned)sim_random_below(rnd, 4);
        memset(data, kind < 2 ? 0 : fill, n);
        if (kind == 0)
                r = co_volume_discard(v, at, n, 0);
        else if (kind == 1)
                r = co_volume_zero(v, at, n, 0);
        else
                r = co_volume_write(v, data, n, at, 0);
        memcpy(m->data + at, data, n);
        free(data);
        co_volume_close(v);
        return r;
}

static int co_name_another(struct world *w)
{
        struct sim_random *rnd = &w->s->random;
        bool snapshot = sim_random_below(rnd, 2);
        struct model_root *from = model_any(w, snapshot), *to = model_free_root(w);
        char name[64];

        if (!from || !to)
                return 0;
        if (snapshot) {
                snprintf(name, sizeof(name), "%.20s@s%u", from->name, w->n_names++);
                model_copy(to, from, name);
                return co_sim_pool_snapshot(w->s, name);
        }
        snprintf(name, sizeof(name), "c%u", w->n_names++);
        model_copy(to, from, name);
        return co_snapshot_clone(w->s->pool, from->name, name, NULL);
}

static int co_restore_one(struct world *w)
{
        struct model_root *from = model_any(w, false);
        char volume[64];

        if (!from)
                return 0;
        snprintf(volume, sizeof(volume), "%.*s", (int)(strchr(from->name, '@') - from->name),
                 from->name);
        for (unsigned i = 0; i < ROOTS_MAX; i++)
                if (strcmp(w->root[i].name, volume) == 0)
                        model_copy(&w->root[i], from, volume);
        return co_snapshot_restore(w->s->pool, from->name, NULL, NULL);
}

static int co_delete_one(struct world *w)
{
        struct model_root *m = model_any(w, false);
        char name[64];

        if (!m)
                return 0;
        snprintf(name, sizeof(name), "%s", m->name);
        m->name[0] = 0;
        return co_snapshot_delete(w->s->pool, name, NULL);
}

static int co_resize_one(struct world *w)
{
        struct model_root *m = model_any(w, true);
        uint64_t size = 512 * (1 + sim_random_below(&w->s->random, BLOCKS_MAX * 8 - 1));

        if (!m)
                return 0;
        if (size < m->size)
                memset(m->data + size, 0, m->size - size);
        m->size = size;
        return co_volume_resize(w->s->pool, m->name, size, NULL);
}

static int co_copy_some(struct world *w)
{
        struct sim_random *rnd = &w->s->random;
        uint64_t copied, at = sim_random_below(rnd, IMAGE_BYTES),
                         n = 1 + sim_random_below(rnd, 300 * 4096);

        if (sim_random_below(rnd, 3) == 0)
                return co_pool_base_zero(w->s->pool, w->base, 310 * 4096 - at % 4096,
                                         (1 + n % 300) * 4096, NULL);
        return co_pool_base_copy(w->s->pool, w->base, at, n, &copied, NULL);
}

static int co_complete(struct world *w)
{
        uint64_t at = 0, copied;
        int r;

        if (w->complete)
                return 0;
        r = co_pool_base_next(w->s->pool, w->base, 0, &at, NULL);
        if (r == 0 && at < IMAGE_BYTES &&
            co_pool_base_complete(w->s->pool, w->base, NULL) != -EBUSY)
                return -EINVAL;
        if (r == 0)
                r = co_pool_base_copy(w->s->pool, w->base, at, IMAGE_BYTES, &copied, NULL);
        if (r == 0)
                r = co_pool_base_complete(w->s->pool, w->base, NULL);
        if (r < 0)
                return r;
        w->complete = true;
        w->image.fails = true; /* nobody asks it any more */
        co_pool_base_detach(w->s->pool, w->base);
        return 0;
}

static int co_again(struct world *w)
{
        int r = 0;

        if (sim_random_below(&w->s->random, 2)) {
                r = co_pool_checkpoint(w->s->pool, NULL);
                if (r == 0 && sim_random_below(&w->s->random, 2))
                        r = co_change(w);
                struct model_root *m = model_any(w, true);
                struct volume *v;
                if (r == 0)
                        r = co_volume_open(w->s->pool, m->name, &v, NULL);
                if (r == 0) {
                        r = co_volume_flush(v);
                        co_volume_close(v);
                }
                /* What was copied and not flushed may be lost, or not: it makes no difference. */
                for (unsigned i = 0; i < 3 && r == 0; i++)
                        r = co_copy_some(w);
                if (r == 0)
                        co_sim_pool_crash(w->s);
        } else {
                co_pool_base_detach(w->s->pool, w->base);
                r = co_sim_pool_close(w->s);
        }
        if (r == 0)
                r = co_sim_pool_open(w->s, false);
        if (r == 0 && !w->complete)
                r = pool_base_attach(w->s->pool, w->base, &w->image.image, NULL);
        return r;
}

/* ---- judging ---- */

static bool co_reads_as(struct world *w, const struct model_root *m)
{
        struct content c;
        struct volume *v;
        bool good = co_volume_open(w->s->pool, m->name, &v, NULL) == 0;

        if (!good)
                return false;
        good = co_content(v, &c) == 0 && c.size == m->size && !memcmp(c.data, m->data, m->size);
        for (uint64_t at = 0; at < m->size && good;) {
                struct volume_extent extents[5];
                size_t n = 0;

                good = co_volume_status(v, at, m->size - at, extents, 5, &n) == 0 && n > 0;
                for (size_t i = 0; i < n && good; at += extents[i++].length)
                        for (uint64_t k = at; k < at + extents[i].length; k++)
                                if ((extents[i].flags & EXTENT_ZERO) && m->data[k])
                                        good = false;
        }
        free(c.data);
        co_volume_close(v);
        return good;
}

/* What is not told as different is equal, by both ways to ask. */
static bool co_differs_as(struct world *w, const struct model_root *a, const struct model_root *b)
{
        struct diff_map map = {0};
        struct volume *va = NULL, *vb = NULL;
        uint64_t size = a->size > b->size ? a->size : b->size;
        bool good = co_pool_diff(w->s->pool, a->name, b->name, each_range, &map, NULL) == 0;

        for (uint64_t i = 0; i * POOL_BLOCK < size && good; i++) {
                uint64_t n =
                    size - i * POOL_BLOCK < POOL_BLOCK ? size - i * POOL_BLOCK : POOL_BLOCK;
                if (!map.changed[i] &&
                    memcmp(a->data + i * POOL_BLOCK, b->data + i * POOL_BLOCK, n))
                        good = false;
        }
        good = good && !map.malformed && co_volume_open(w->s->pool, a->name, &va, NULL) == 0 &&
               co_volume_open(w->s->pool, b->name, &vb, NULL) == 0;
        for (uint64_t at = 0; good && at < a->size;) {
                struct volume_extent extents[5];
                size_t n = 0;

                good = co_volume_changed(va, vb, at, a->size - at, extents, 5, &n) == 0 && n > 0;
                for (size_t i = 0; i < n && good; at += extents[i++].length)
                        if (!extents[i].flags &&
                            memcmp(a->data + at, b->data + at, extents[i].length))
                                good = false;
        }
        co_volume_close(va);
        co_volume_close(vb);
        return good;
}

static void co_judge(struct world *w)
{
        const struct model_root *a = model_any(w, sim_random_below(&w->s->random, 2)),
                                *b = model_any(w, true);

        for (unsigned i = 0; i < ROOTS_MAX && !w->s->failure[0]; i++)
                if (w->root[i].name[0] && !co_reads_as(w, &w->root[i]))
                        sim_pool_fails(w->s, __FILE__, __LINE__, w->root[i].name);
        if (a && !w->s->failure[0] && !co_differs_as(w, a, b))
                sim_pool_fails(w->s, a->name, __LINE__, b->name);
        if (!w->s->failure[0])
                co_expect_sound(w->s, __LINE__);
}

static int co_step(struct world *w)
{
        switch (sim_random_below(&w->s->random, 16)) {
        case 0:
                return co_again(w);
        case 1:
                return co_resize_one(w);
        case 2:
        case 3:
                return co_name_another(w);
        case 4:
                return co_restore_one(w);
        case 5:
                return co_delete_one(w);
        case 6:
        case 7:
                return co_copy_some(w);
        case 8:
                return sim_random_below(&w->s->random, 4) ? 0 : co_complete(w);
        default:
                return co_change(w);
        }
}

static void co_anything(void *arg)
{
        struct sim_pool *s = arg;
        struct world w = {.s = s, .image = fake_image(s)};

        expect(s, co_sim_pool_create(s) == 0);
        expect(s, co_volume_create_on_new(s->pool, "v", 1200 * 4096, IMAGE_BYTES, "golden", &w.base,
                                          NULL) == 0);
        expect(s, pool_base_attach(s->pool, w.base, &w.image.image, NULL) == 0);
        model_first(&w, "v", 1200 * 4096);
        expect(s, co_volume_create_on(s->pool, "small", 77 * 512, w.base, NULL) == 0);
        model_first(&w, "small", 77 * 512);
        co_judge(&w);
        for (unsigned i = 0; i < STEPS && !s->failure[0]; i++) {
                int r = co_step(&w);

                if (r < 0)
                        sim_pool_fails(s, "step", (int)i, strerror(-r));
                else if (i % 8 == 7)
                        co_judge(&w);
        }
        if (!s->failure[0])
                co_judge(&w);
        model_end(&w);
        expect(s, !s->failure[0]);
        co_pool_base_detach(s->pool, w.base);
        expect(s, co_sim_pool_close(s) == 0);
}

static void whatever_is_done_volumes_on_an_image_hold_what_they_should(void **state)
{
        for (uint64_t seed = 1; seed <= 8; seed++)
                sim_pool_run(2 + seed % 2, seed, co_anything);
}

/* ---- one thing at a time ---- */

static int co_make(struct sim_pool *s, struct fake_image *image, uint64_t *ret_base)
{
        int r = co_sim_pool_create(s);

        *image = fake_image(s);
        if (r == 0)
                r = co_volume_create_on_new(s->pool, "v", 1200 * 4096, IMAGE_BYTES, "golden",
                                            ret_base, NULL);
        return r == 0 ? pool_base_attach(s->pool, *ret_base, &image->image, NULL) : r;
}

/* One block; whether it was read, and is all the image's. */
static int co_read_block(struct sim_pool *s, const char *volume, uint64_t block, bool *ret_same)
{
        struct volume *v;
        uint8_t data[POOL_BLOCK];
        int r = co_volume_open(s->pool, volume, &v, NULL);

        if (r < 0)
                return r;
        memset(data, 0xee, sizeof(data));
        r = co_volume_read(v, data, sizeof(data), block * POOL_BLOCK);
        *ret_same = true;
        for (unsigned i = 0; i < sizeof(data); i++)
                if (data[i] != (r == 0 ? image_byte(block * POOL_BLOCK + i) : 0))
                        *ret_same = false;
        co_volume_close(v);
        return r;
}

static void co_fails(void *arg)
{
        struct sim_pool *s = arg;
        struct fake_image image;
        uint64_t base, copied;
        bool same;

        expect(s, co_make(s, &image, &base) == 0);
        expect(s, co_pool_base_copy(s->pool, base, 0, 8 * 4096, &copied, NULL) == 0);
        expect(s, copied == 8 * 4096);
        image.fails = true;
        /* what is in the pool is read from there, the rest is an error and no content */
        expect(s, co_read_block(s, "v", 4, &same) == 0 && same);
        expect(s, co_read_block(s, "v", 10, &same) == -EIO && same);
        expect(s, co_pool_base_copy(s->pool, base, 0, IMAGE_BYTES, &copied, NULL) == -EIO);
        expect(s, co_pool_base_complete(s->pool, base, NULL) == -EBUSY);
        image.fails = false;
        expect(s, co_read_block(s, "v", 10, &same) == 0 && same);
        co_pool_base_detach(s->pool, base);
        expect(s, co_read_block(s, "v", 4, &same) == 0 && same);
        expect(s, co_read_block(s, "v", 10, &same) == -EIO && same);
        expect(s, co_sim_pool_write(s, "v", 10, 1) == 0);
        expect(s, co_read_block(s, "v", 10, &same) == 0);
        expect(s, co_sim_pool_close(s) == 0);
}

static void an_image_that_cannot_be_read_is_an_error_where_it_is_needed_alone(void **state)
{
        sim_pool_run(2, 1, co_fails);
}

static void co_completes(void *arg)
{
        struct sim_pool *s = arg;
        struct fake_image image;
        uint64_t base, copied, before;

        expect(s, co_make(s, &image, &base) == 0);
        expect(s, co_pool_base_copy(s->pool, base, 0, IMAGE_BYTES, &copied, NULL) == 0);
        before = sim_pool_done(s, METER_FLUSH).requests;
        expect(s, co_pool_base_complete(s->pool, base, NULL) == 0);
        expect(s, sim_pool_done(s, METER_FLUSH).requests >= before + 2);
        co_pool_base_detach(s->pool, base);
        expect(s, co_sim_pool_close(s) == 0);
}

/* A recovery may drop what was not flushed, and keep the record: two flushes of one disk. */
static void all_is_on_disk_before_the_record_that_says_so(void **state)
{
        sim_pool_run(1, 1, co_completes);
}

static int see_base(const struct pool_base_info *info, void *arg)
{
        *(struct pool_base_info *)arg = *info;
        return 1;
}

/* The disk fails at flush @number of those that completing takes: the pool stops, and after a crash the
 * base needs its image still, or not, but says so. */
static void co_fails_to_complete(struct sim_pool *s, unsigned number)
{
        const struct sim_fault fault = {.kind = SIM_FAULT_ERROR,
                                        .ops = SIM_OP(MEMBER_FLUSH),
                                        .skip = number,
                                        .count = 1,
                                        .error = -EIO};
        struct fake_image image;
        struct pool_base_info info;
        uint64_t base, copied;
        bool same;

        expect(s, co_make(s, &image, &base) == 0);
        expect(s, co_pool_base_copy(s->pool, base, 0, IMAGE_BYTES, &copied, NULL) == 0);
        sim_disk_add_fault(s->disk[0], &fault);
        expect(s, co_pool_base_complete(s->pool, base, NULL) < 0);
        expect(s, co_read_block(s, "v", 1000, &same) == 0 && same);
        co_sim_pool_crash(s);
        expect(s, co_sim_pool_open(s, false) == 0);
        expect(s, co_pool_bases(s->pool, see_base, &info, NULL) == 1 && info.id == base);
        if (!info.complete)
                expect(s, pool_base_attach(s->pool, base, &image.image, NULL) == 0);
        for (uint64_t block = 0; block < IMAGE_BLOCKS; block += 99)
                expect(s, co_read_block(s, "v", block, &same) == 0 && same);
        co_expect_sound_here(s);
        expect(s, co_pool_base_copy(s->pool, base, 0, IMAGE_BYTES, &copied, NULL) == 0);
        expect(s, co_pool_base_complete(s->pool, base, NULL) == 0);
        co_pool_base_detach(s->pool, base);
        expect(s, co_sim_pool_close(s) == 0);
}

static void co_first_flush_fails(void *arg)
{
        co_fails_to_complete(arg, 0);
}

static void co_second_flush_fails(void *arg)
{
        co_fails_to_complete(arg, 1);
}

static void a_disk_that_fails_leaves_a_base_that_says_what_it_is(void **state)
{
        for (uint64_t seed = 1; seed <= 3; seed++) {
                sim_pool_run(1, seed, co_first_flush_fails);
                sim_pool_run(1, seed, co_second_flush_fails);
        }
}

static int see_freed(const struct root_info *info, void *arg)
{
        *(uint64_t *)arg = info->freed_if_deleted_bytes;
        return 0;
}

static void co_shared(void *arg)
{
        struct sim_pool *s = arg;
        struct fake_image image;
        struct pool_base_info info;
        uint64_t base, copied, freed = 1;
        unsigned n_reads;
        bool same;

        expect(s, co_make(s, &image, &base) == 0);
        expect(s, co_sim_pool_snapshot(s, "v@one") == 0);
        expect(s, co_snapshot_clone(s->pool, "v@one", "copy", NULL) == 0);
        expect(s, co_volume_create_on(s->pool, "other", 1 << 20, base, NULL) == 0);
        expect(s, co_root_get(s->pool, "other", see_freed, &freed, NULL) == 0 && freed == 0);
        expect(s, co_pool_bases(s->pool, see_base, &info, NULL) == 1);
        expect(s, info.id == base && info.size_bytes == IMAGE_BYTES && info.n_dependents == 4);
        expect(s, !strcmp(info.description, "golden") && info.attached && !info.complete);
        /* copied once, and there for all */
        expect(s, co_pool_base_copy(s->pool, base, 0, 1 << 20, &copied, NULL) == 0);
        n_reads = image.n_reads;
        expect(s, co_pool_base_copy(s->pool, base, 0, 1 << 20, &copied, NULL) == 0 && !copied);
        expect(s, co_read_block(s, "v", 20, &same) == 0 && same);
        expect(s, co_read_block(s, "copy", 20, &same) == 0 && same);
        expect(s, co_read_block(s, "v@one", 20, &same) == 0 && same);
        expect(s, co_read_block(s, "other", 20, &same) == 0 && same);
        expect(s, image.n_reads == n_reads);
        expect(s, co_pool_base_describe(s->pool, base, "elsewhere", NULL) == 0);
        co_pool_base_detach(s->pool, base);
        expect(s, co_sim_pool_close(s) == 0 && co_sim_pool_open(s, false) == 0);
        expect(s, co_pool_bases(s->pool, see_base, &info, NULL) == 1);
        expect(s, !strcmp(info.description, "elsewhere") && info.n_dependents == 4);
        expect(s, co_volume_delete(s->pool, "v", true, NULL) == 0);
        expect(s, co_volume_delete(s->pool, "copy", false, NULL) == 0);
        expect(s, co_pool_bases(s->pool, see_base, &info, NULL) == 1 && info.n_dependents == 1);
        /* what was copied is foretold to go with the last, and not before */
        expect(s, co_root_get(s->pool, "other", see_freed, &freed, NULL) == 0);
        expect(s, freed >= info.copied_bytes && info.copied_bytes > 0);
        expect(s, co_volume_delete(s->pool, "other", false, NULL) == 0);
        expect(s, co_pool_bases(s->pool, see_base, &info, NULL) == 0);
        expect(s, co_pool_settle(s->pool, NULL) == 0);
        struct pool_info pool;
        pool_get_info(s->pool, &pool);
        expect(s, pool.used_bytes == 0 && pool.n_volumes == 0);
        co_expect_sound_here(s);
        expect(s, co_sim_pool_close(s) == 0);
}

static void a_base_is_shared_by_its_volumes_and_goes_with_the_last(void **state)
{
        sim_pool_run(2, 2, co_shared);
}

/* The last volume goes while its image is attached; the power fails before the base does. */
static void co_left(void *arg)
{
        struct sim_pool *s = arg;
        struct fake_image image;
        struct pool_base_info info;
        uint64_t base, copied;

        expect(s, co_make(s, &image, &base) == 0);
        expect(s, co_pool_base_copy(s->pool, base, 0, 1 << 20, &copied, NULL) == 0);
        expect(s, co_volume_delete(s->pool, "v", false, NULL) == 0);
        expect(s, co_pool_bases(s->pool, see_base, &info, NULL) == 1 && info.n_dependents == 0);
        /* copied nevertheless, by who had not seen yet that nobody needs it */
        expect(s, co_pool_base_copy(s->pool, base, 0, 2 << 20, &copied, NULL) == 0 && copied);
        expect(s, co_volume_create(s->pool, "x", 1 << 20, NULL) == 0);
        co_sim_pool_crash(s);
        expect(s, co_sim_pool_open(s, false) == 0);
        expect(s, co_pool_bases(s->pool, see_base, &info, NULL) == 0);
        expect(s, co_pool_settle(s->pool, NULL) == 0);
        co_expect_sound_here(s);
        expect(s, co_sim_pool_close(s) == 0);
}

static void a_base_that_nobody_needs_goes_at_the_next_open_at_latest(void **state)
{
        for (uint64_t seed = 1; seed <= 10; seed++)
                sim_pool_run(1, seed, co_left);
}

/* The process dies while a snapshot is read that was deleted, the last on its base: opening collects both. */
static void co_left_with_reader(void *arg)
{
        struct sim_pool *s = arg;
        struct fake_image image;
        struct pool_base_info info;
        struct sim_image *disk;
        struct volume *reader;
        uint64_t base;

        expect(s, co_make(s, &image, &base) == 0);
        expect(s, co_sim_pool_snapshot(s, "v@one") == 0);
        expect(s, co_volume_open(s->pool, "v@one", &reader, NULL) == 0);
        expect(s, co_volume_delete(s->pool, "v", true, NULL) == 0);
        expect(s, co_pool_checkpoint(s->pool, NULL) == 0);
        expect(s, co_pool_bases(s->pool, see_base, &info, NULL) == 1 && info.n_dependents == 1);
        disk = sim_disk_visible(s->disk[0]);
        co_volume_close(reader);
        co_pool_abandon(s->pool);
        sim_disk_free(s->disk[0]);
        s->disk[0] = sim_pool_disk(disk, 0);
        sim_image_free(disk);
        expect(s, co_sim_pool_open(s, false) == 0);
        expect(s, co_pool_bases(s->pool, see_base, &info, NULL) == 0);
        expect(s, co_pool_settle(s->pool, NULL) == 0);
        co_expect_sound_here(s);
        expect(s, co_sim_pool_close(s) == 0);
}

static void a_base_goes_at_the_next_open_with_what_goes_then(void **state)
{
        sim_pool_run(1, 1, co_left_with_reader);
}

struct reader {
        struct sim_pool *s;
        unsigned n_running;
        struct co_queue ended;
        bool wrong;
};

static void co_reader(void *arg)
{
        struct reader *r = arg;
        bool same;

        for (unsigned i = 0; i < 100 && !r->wrong; i++)
                if (co_read_block(r->s, "v", sim_random_below(&r->s->random, IMAGE_BLOCKS), &same) <
                        0 ||
                    !same)
                        r->wrong = true;
        r->n_running--;
        co_wake_one(&r->ended);
}

static void co_readers_begin(struct sim_pool *s, struct reader *readers)
{
        *readers = (struct reader){.s = s};
        co_queue_init(&readers->ended);
        for (unsigned i = 0; i < 8; i++) {
                readers->n_running++;
                expect(s, co_spawn(s->loop, co_reader, readers) == 0);
        }
}

static void co_meanwhile(void *arg)
{
        struct sim_pool *s = arg;
        struct fake_image image;
        struct reader readers;
        uint64_t base, copied;

        expect(s, co_make(s, &image, &base) == 0);
        image.waits = true;
        co_readers_begin(s, &readers);
        for (uint64_t at = 0; at < IMAGE_BYTES; at += 100 * 4096)
                expect(s, co_pool_base_copy(s->pool, base, at, 100 * 4096, &copied, NULL) == 0);
        expect(s, co_pool_base_complete(s->pool, base, NULL) == 0);
        image.fails = true; /* as one does that is let go of */
        co_pool_base_detach(s->pool, base);
        while (readers.n_running > 0)
                co_wait(&readers.ended);
        expect(s, !readers.wrong);
        co_expect_sound_here(s);
        expect(s, co_sim_pool_close(s) == 0);
}

static void reads_go_on_while_the_image_is_copied_and_given_up(void **state)
{
        for (uint64_t seed = 1; seed <= 5; seed++)
                sim_pool_run(2, seed, co_meanwhile);
}

static void co_replaced(void *arg)
{
        struct sim_pool *s = arg;
        struct fake_image was, is = fake_image(s);
        struct reader readers;
        uint64_t base;

        expect(s, co_make(s, &was, &base) == 0);
        was.waits = true;
        co_readers_begin(s, &readers);
        co_sleep_ns(10000000);
        was.fails = true; /* what is under way, too */
        expect(s, pool_base_replace(s->pool, base, &is.image, NULL) == 0);
        while (readers.n_running > 0)
                co_wait(&readers.ended);
        expect(s, !readers.wrong && is.n_reads > 0);
        co_pool_base_detach(s->pool, base);
        expect(s, co_sim_pool_close(s) == 0);
}

static void reads_go_on_while_another_image_takes_the_place_of_one(void **state)
{
        for (uint64_t seed = 1; seed <= 5; seed++)
                sim_pool_run(2, seed, co_replaced);
}

static void co_refused(void *arg)
{
        struct sim_pool *s = arg;
        struct fake_image image;
        struct error err = ERROR_INIT;
        char text[POOL_BASE_DESCRIPTION_MAX + 2];
        uint64_t base, other, copied;

        expect(s, co_make(s, &image, &base) == 0);
        expect(s, pool_base_attach(s->pool, base, &image.image, &err) == -EALREADY);
        expect(s, pool_base_attach(s->pool, base + 1, &image.image, &err) == -ENOENT);
        expect(s, co_volume_create_on(s->pool, "w", 1 << 20, base + 1, &err) == -ENOENT);
        expect(s, co_volume_create_on(s->pool, "v", 1 << 20, base, &err) == -EEXIST);
        expect(s, co_volume_create_on(s->pool, "w", 1000, base, &err) == -EINVAL);
        expect(s, co_pool_base_copy(s->pool, 99, 0, 4096, &copied, &err) == -ENOENT);
        memset(text, 'x', sizeof(text));
        text[sizeof(text) - 1] = 0;
        expect(s, co_volume_create_on_new(s->pool, "w", 1 << 20, 1 << 20, text, &other, &err) ==
                      -ENAMETOOLONG);
        expect(s, co_pool_base_describe(s->pool, base, text, &err) == -ENAMETOOLONG);
        text[POOL_BASE_DESCRIPTION_MAX] = 0;
        expect(s, co_pool_base_describe(s->pool, base, text, &err) == 0);
        co_pool_base_detach(s->pool, base);
        expect(s, co_sim_pool_close(s) == 0 && co_sim_pool_open(s, false) == 0);
        co_expect_sound_here(s);
        expect(s, co_sim_pool_close(s) == 0);
}

static void what_cannot_be_is_refused(void **state)
{
        sim_pool_run(1, 1, co_refused);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(whatever_is_done_volumes_on_an_image_hold_what_they_should),
            cmocka_unit_test(an_image_that_cannot_be_read_is_an_error_where_it_is_needed_alone),
            cmocka_unit_test(all_is_on_disk_before_the_record_that_says_so),
            cmocka_unit_test(a_disk_that_fails_leaves_a_base_that_says_what_it_is),
            cmocka_unit_test(a_base_is_shared_by_its_volumes_and_goes_with_the_last),
            cmocka_unit_test(a_base_that_nobody_needs_goes_at_the_next_open_at_latest),
            cmocka_unit_test(a_base_goes_at_the_next_open_with_what_goes_then),
            cmocka_unit_test(reads_go_on_while_the_image_is_copied_and_given_up),
            cmocka_unit_test(reads_go_on_while_another_image_takes_the_place_of_one),
            cmocka_unit_test(what_cannot_be_is_refused),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
