/* test_model.c - the reference model allows what the promises allow, and nothing else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "tests/crash/model.h"

#define SIZE (UINT64_C(16) * BLOCK_SIZE)

static struct model *model;
static char reason[1000];

static int set_up(void **state)
{
        model = model_new();
        return 0;
}

static int tear_down(void **state)
{
        model_free(model);
        return 0;
}

/* ---- a history, told in short ---- */

static uint32_t catalog_begin(enum catalog_kind kind, const char *volume, const char *other,
                              const char *keep, uint64_t size_bytes)
{
        struct catalog_request q = {.kind = kind, .size_bytes = size_bytes};

        snprintf(q.volume, sizeof(q.volume), "%s", volume);
        snprintf(q.other, sizeof(q.other), "%s", other);
        snprintf(q.keep, sizeof(q.keep), "%s", keep);
        if (kind == CATALOG_SNAPSHOT)
                snprintf(q.volumes[q.n_volumes++], MODEL_NAME_MAX, "%s", volume);
        return model_catalog_begin(model, &q);
}

static void catalog(enum catalog_kind kind, const char *volume, const char *other, const char *keep,
                    uint64_t size_bytes)
{
        model_catalog_end(model, catalog_begin(kind, volume, other, keep, size_bytes), true);
}

static void create(const char *volume)
{
        catalog(CATALOG_CREATE, volume, "", "", SIZE);
}

static uint32_t group_begin(const char *a, const char *b, const char *snapshot)
{
        struct catalog_request q = {.kind = CATALOG_SNAPSHOT, .n_volumes = 2};

        snprintf(q.other, sizeof(q.other), "%s", snapshot);
        snprintf(q.volumes[0], MODEL_NAME_MAX, "%s", a);
        snprintf(q.volumes[1], MODEL_NAME_MAX, "%s", b);
        return model_catalog_begin(model, &q);
}

static uint32_t begin(const char *volume, uint64_t block)
{
        return model_write_begin(model, volume, block, ALL_GRAINS, false);
}

static uint32_t written(const char *volume, uint64_t block)
{
        uint32_t version = begin(volume, block);

        model_write_end(model, version, false);
        return version;
}

static void flush(void)
{
        model_flush_end(model, model_tick(model));
}

/* ---- what is found ---- */

#define ROOTS  4
#define BLOCKS 4

struct found {
        struct observed_root roots[ROOTS];
        struct observed_block blocks[ROOTS][BLOCKS];
        struct observed observed;
};

static struct observed_root *found_root(struct found *found, const char *name)
{
        size_t n = found->observed.n_roots++;

        found->observed.roots = found->roots;
        snprintf(found->roots[n].name, sizeof(found->roots[n].name), "%s", name);
        found->roots[n].is_snapshot = strchr(name, '@') != NULL;
        found->roots[n].size_bytes = SIZE;
        found->roots[n].blocks = found->blocks[n];
        found->roots[n].n_blocks = 0;
        return &found->roots[n];
}

static void found_block(struct observed_root *root, uint64_t block, uint32_t version)
{
        struct observed_block *b = &root->blocks[root->n_blocks++];

        b->block = block;
        for (unsigned g = 0; g < BLOCK_GRAINS; g++)
                b->content.grain[g] = version;
}

static bool crash_allows(const struct found *found)
{
        return model_crash_allowed(model, model_tick(model), &found->observed, reason,
                                   sizeof(reason));
}

/* Of one volume "v" the block 1 holds @version (0: zeroes): may that be, after a crash now? */
static bool crash_allows_version(uint32_t version)
{
        struct found found = {.observed = {.n_roots = 0}};
        struct observed_root *root = found_root(&found, "v");

        if (version != 0)
                found_block(root, 1, version);
        return crash_allows(&found);
}

static bool read_allows(uint64_t requested, uint32_t version)
{
        struct content content;

        for (unsigned g = 0; g < BLOCK_GRAINS; g++)
                content.grain[g] = version;
        return model_read_allowed(model, "v", 1, ALL_GRAINS, &content, requested);
}

/* ---- content ---- */

static void content_names_its_version_and_place(void **state)
{
        uint8_t bytes[GRAIN];

        content_fill(bytes, 7, 3);
        assert_int_equal(content_decode(bytes, 3), 7);
        assert_int_equal(content_decode(bytes, 4), VERSION_DAMAGE);
        content_fill(bytes, VERSION_ZERO, 3);
        assert_int_equal(content_decode(bytes, 3), VERSION_ZERO);
}

static void a_changed_byte_is_damage(void **state)
{
        uint8_t bytes[GRAIN];

        for (unsigned i = 0; i < GRAIN; i++) {
                content_fill(bytes, i % 2 == 0 ? 7 : VERSION_ZERO, 3);
                bytes[i] ^= 0x10;
                assert_int_equal(content_decode(bytes, 3), VERSION_DAMAGE);
        }
}

/* ---- blocks ---- */

static void unflushed_writes_may_be_lost(void **state)
{
        uint32_t a, b;

        create("v");
        a = written("v", 1);
        b = written("v", 1);
        assert_true(crash_allows_version(0));
        assert_true(crash_allows_version(a));
        assert_true(crash_allows_version(b));
        assert_false(crash_allows_version(b + 1));
        assert_false(crash_allows_version(VERSION_DAMAGE));
}

static void flushed_writes_are_there(void **state)
{
        uint32_t a, b;

        create("v");
        a = written("v", 1);
        b = written("v", 1);
        flush();
        assert_false(crash_allows_version(0));
        assert_false(crash_allows_version(a));
        assert_true(crash_allows_version(b));
}

static void a_flush_covers_what_was_answered_before_its_request(void **state)
{
        uint32_t a, b;
        uint64_t requested;

        create("v");
        a = begin("v", 1);
        requested = model_tick(model);
        model_write_end(model, a, false);
        model_flush_end(model, requested);
        assert_true(crash_allows_version(0));
        requested = model_tick(model);
        b = written("v", 1);
        model_flush_end(model, requested);
        assert_false(crash_allows_version(0));
        assert_true(crash_allows_version(a));
        assert_true(crash_allows_version(b));
}

static void fua_covers_itself_only(void **state)
{
        uint32_t a;
        struct found found = {.observed = {.n_roots = 0}};

        create("v");
        written("v", 2);
        a = begin("v", 1);
        model_write_end(model, a, true);
        assert_false(crash_allows_version(0));
        found_block(found_root(&found, "v"), 1, a);
        assert_true(crash_allows(&found));
}

static void a_write_in_flight_may_be_there_or_not(void **state)
{
        uint32_t a, b;

        create("v");
        a = written("v", 1);
        flush();
        b = begin("v", 1);
        assert_true(crash_allows_version(a));
        assert_true(crash_allows_version(b));
        assert_false(crash_allows_version(0));
}

static void what_is_durable_is_not_hidden_by_what_came_before(void **state)
{
        uint32_t a, b;

        create("v");
        a = begin("v", 1);
        b = begin("v", 1);
        model_write_end(model, b, true);
        assert_true(crash_allows_version(b));
        assert_true(crash_allows_version(a)); /* they overlapped: b, then a */
        model_write_end(model, a, false);
        assert_true(crash_allows_version(a));
        written("v", 1);
        flush();
        assert_false(crash_allows_version(a));
        assert_false(crash_allows_version(b));
}

static void blocks_are_never_mixed(void **state)
{
        struct found found = {.observed = {.n_roots = 0}};
        struct observed_root *root = found_root(&found, "v");
        uint32_t a, b;

        create("v");
        a = written("v", 1);
        b = written("v", 1);
        found_block(root, 1, a);
        root->blocks[0].content.grain[5] = b;
        assert_false(crash_allows(&found));
}

static void parts_of_blocks_are_applied_in_order(void **state)
{
        struct found found = {.observed = {.n_roots = 0}};
        struct observed_root *root = found_root(&found, "v");
        uint32_t a, b, c;

        create("v");
        a = written("v", 1);
        b = model_write_begin(model, "v", 1, 0x00f0, false);
        model_write_end(model, b, false);
        c = model_write_begin(model, "v", 1, 0xff00, false);
        model_write_end(model, c, false);
        found_block(root, 1, a);
        for (unsigned g = 4; g < 8; g++)
                root->blocks[0].content.grain[g] = b;
        assert_true(crash_allows(&found));
        for (unsigned g = 8; g < 16; g++)
                root->blocks[0].content.grain[g] = c;
        assert_true(crash_allows(&found));
        for (unsigned g = 4; g < 8; g++)
                root->blocks[0].content.grain[g] = a; /* c without b */
        assert_false(crash_allows(&found));
}

static void another_volumes_data_is_refused(void **state)
{
        uint32_t b;

        create("v");
        create("w");
        b = written("w", 1);
        catalog(CATALOG_DELETE_VOLUME, "w", "", "", 0);
        assert_true(crash_allows_version(0));
        assert_false(crash_allows_version(b));
}

static void blocks_that_nobody_wrote_are_zeroes(void **state)
{
        struct found found = {.observed = {.n_roots = 0}};
        uint32_t a;

        create("v");
        a = written("v", 1);
        found_block(found_root(&found, "v"), 2, a);
        assert_false(crash_allows(&found));
}

static void a_discard_is_a_write_of_zeroes(void **state)
{
        uint32_t a, d;

        create("v");
        a = written("v", 1);
        flush();
        d = model_write_begin(model, "v", 1, ALL_GRAINS, true);
        model_write_end(model, d, false);
        assert_true(crash_allows_version(a));
        assert_true(crash_allows_version(0));
        flush();
        assert_false(crash_allows_version(a));
        assert_true(crash_allows_version(0));
}

/* ---- reads ---- */

static void a_read_sees_what_was_answered_before_it(void **state)
{
        uint32_t a, b;
        uint64_t requested;

        create("v");
        a = written("v", 1);
        requested = model_tick(model);
        assert_true(read_allows(requested, a));
        assert_false(read_allows(requested, 0));
        b = begin("v", 1);
        assert_true(read_allows(requested, a));
        assert_true(read_allows(requested, b));
        model_write_end(model, b, false);
        requested = model_tick(model);
        assert_false(read_allows(requested, a));
        assert_true(read_allows(requested, b));
}

/* ---- the catalog ---- */

static void an_answered_operation_has_happened(void **state)
{
        struct found found = {.observed = {.n_roots = 0}};

        create("v");
        assert_false(crash_allows(&found));
        found_root(&found, "v");
        assert_true(crash_allows(&found));
        found_root(&found, "w");
        assert_false(crash_allows(&found));
}

static void an_operation_in_flight_has_happened_or_not(void **state)
{
        struct found none = {.observed = {.n_roots = 0}}, both = none, one = none;

        create("v");
        create("w");
        group_begin("v", "w", "s");
        found_root(&none, "v");
        found_root(&none, "w");
        both = none;
        both.observed.roots = both.roots;
        found_root(&both, "v@s");
        one = both;
        one.observed.roots = one.roots;
        found_root(&both, "w@s");
        assert_true(crash_allows(&none));
        assert_true(crash_allows(&both));
        assert_false(crash_allows(&one));
}

static void a_failed_operation_has_not_happened(void **state)
{
        struct found found = {.observed = {.n_roots = 0}};
        uint32_t operation;

        create("v");
        operation = catalog_begin(CATALOG_SNAPSHOT, "v", "s", "", 0);
        model_catalog_end(model, operation, false);
        found_root(&found, "v");
        assert_true(crash_allows(&found));
        found_root(&found, "v@s");
        assert_false(crash_allows(&found));
}

static bool snapshot_allows(uint32_t in_volume, uint32_t in_snapshot)
{
        struct found found = {.observed = {.n_roots = 0}};
        struct observed_root *volume = found_root(&found, "v"),
                             *snapshot = found_root(&found, "v@s");

        if (in_volume != 0)
                found_block(volume, 1, in_volume);
        if (in_snapshot != 0)
                found_block(snapshot, 1, in_snapshot);
        return crash_allows(&found);
}

static void a_snapshot_holds_what_was_answered_before_it(void **state)
{
        uint32_t a, b;

        create("v");
        a = written("v", 1);
        catalog(CATALOG_SNAPSHOT, "v", "s", "", 0);
        assert_true(snapshot_allows(a, a));
        assert_false(snapshot_allows(a, 0));
        assert_false(snapshot_allows(0, a)); /* what it holds is durable for the volume too */
        b = written("v", 1);
        assert_true(snapshot_allows(b, a));
        assert_false(snapshot_allows(b, b));
}

static void a_write_in_flight_is_in_the_snapshot_or_not(void **state)
{
        uint32_t a;

        create("v");
        a = begin("v", 1);
        catalog(CATALOG_SNAPSHOT, "v", "s", "", 0);
        model_write_end(model, a, false);
        assert_true(snapshot_allows(a, a));
        assert_true(snapshot_allows(a, 0));
        assert_true(snapshot_allows(0, 0));
}

/* a in v is answered before b in w is requested, both while the group is being taken: b without a
 * was never so. */
/* The cut is before the second write or behind it: but not before the first. */
static void a_snapshot_in_flight_need_not_hold_what_was_durable_after_its_request(void **state)
{
        uint32_t first, second;

        create("v");
        first = written("v", 1);
        flush();
        second = begin("v", 1);
        catalog_begin(CATALOG_SNAPSHOT, "v", "s", "", 0);
        model_write_end(model, second, true);
        assert_true(snapshot_allows(second, first));
        assert_true(snapshot_allows(second, second));
        assert_false(snapshot_allows(second, 0));
        assert_false(snapshot_allows(first, first));
}

/* ---- images ---- */

static bool crash_allows_image(uint32_t number, uint32_t version, bool complete)
{
        struct observed_image image = {.image = number, .complete = complete};
        struct found found = {.observed = {.images = &image, .n_images = 1}};
        struct observed_root *root = found_root(&found, "a");

        root->image = number;
        root->size_bytes = BLOCK_SIZE;
        found_block(root, 0, version);
        return crash_allows(&found);
}

static void a_volume_on_an_image_begins_with_its_content(void **state)
{
        struct catalog_request q = {.volume = "a", .size_bytes = BLOCK_SIZE, .image = 7};
        uint32_t content = image_content(7, 0, BLOCK_SIZE).grain[0];

        model_catalog_end(model, model_catalog_begin(model, &q), true);
        assert_true(crash_allows_image(7, content, false));
        assert_false(crash_allows_image(7, VERSION_ZERO, false));
        assert_false(crash_allows_image(8, content, false));
        assert_false(crash_allows_image(7, image_content(8, 0, BLOCK_SIZE).grain[0], false));
        model_write_end(model, begin("a", 0), false);
        assert_true(crash_allows_image(7, content, false));
        flush();
        assert_false(crash_allows_image(7, content, false));
}

static void an_image_is_complete_when_it_was_answered_and_not_before_it_was_asked(void **state)
{
        struct catalog_request q = {.volume = "a", .size_bytes = BLOCK_SIZE, .image = 7};
        uint32_t content = image_content(7, 0, BLOCK_SIZE).grain[0];

        model_catalog_end(model, model_catalog_begin(model, &q), true);
        assert_false(crash_allows_image(7, content, true));
        model_complete_begin(model, 7);
        assert_true(crash_allows_image(7, content, true));
        assert_true(crash_allows_image(7, content, false));
        model_complete_end(model, 7);
        assert_true(crash_allows_image(7, content, true));
        assert_false(crash_allows_image(7, content, false));
}

static void a_group_is_one_instant(void **state)
{
        struct found found = {.observed = {.n_roots = 0}};
        struct observed_root *v, *w, *vs, *ws;
        uint32_t operation, a, b;

        create("v");
        create("w");
        operation = group_begin("v", "w", "s");
        a = written("v", 1);
        b = written("w", 1);
        model_catalog_end(model, operation, true);
        v = found_root(&found, "v");
        w = found_root(&found, "w");
        vs = found_root(&found, "v@s");
        ws = found_root(&found, "w@s");
        found_block(v, 1, a);
        found_block(w, 1, b);
        assert_true(crash_allows(&found));
        found_block(ws, 1, b);
        assert_false(crash_allows(&found));
        found_block(vs, 1, a);
        assert_true(crash_allows(&found));
        ws->n_blocks = 0;
        assert_true(crash_allows(&found));
}

static void a_restored_volume_is_its_snapshot_and_keeps_the_rest(void **state)
{
        struct found found = {.observed = {.n_roots = 0}};
        struct observed_root *root;
        uint32_t a, b;

        create("v");
        a = written("v", 1);
        catalog(CATALOG_SNAPSHOT, "v", "s", "", 0);
        b = written("v", 1);
        catalog(CATALOG_RESTORE, "v", "s", "k", 0);
        root = found_root(&found, "v");
        found_block(root, 1, a);
        found_block(found_root(&found, "v@s"), 1, a);
        found_block(found_root(&found, "v@k"), 1, b);
        assert_true(crash_allows(&found));
        root->blocks[0].content.grain[0] = b;
        assert_false(crash_allows(&found));
}

static void a_clone_begins_as_its_snapshot_and_goes_its_own_way(void **state)
{
        struct found found = {.observed = {.n_roots = 0}};
        struct observed_root *clone;
        uint32_t a, b;

        create("v");
        a = written("v", 1);
        catalog(CATALOG_SNAPSHOT, "v", "s", "", 0);
        catalog(CATALOG_CLONE, "v", "s", "c", 0);
        catalog(CATALOG_DELETE_SNAPSHOT, "v", "s", "", 0);
        b = written("c", 1);
        found_block(found_root(&found, "v"), 1, a);
        clone = found_root(&found, "c");
        assert_false(crash_allows(&found)); /* zeroes: not even the snapshot's content */
        found_block(clone, 1, a);
        assert_true(crash_allows(&found));
        found_block(clone, 1, b);
        clone->blocks++;
        clone->n_blocks = 1;
        assert_true(crash_allows(&found));
        flush();
        assert_true(crash_allows(&found));
        clone->blocks--;
        assert_false(crash_allows(&found));
}

static void a_shrink_cuts_off_whole_or_not_at_all(void **state)
{
        struct found found = {.observed = {.n_roots = 0}};
        struct observed_root *root = found_root(&found, "v");
        uint32_t operation, a;

        create("v");
        a = written("v", 1);
        flush();
        operation = catalog_begin(CATALOG_RESIZE, "v", "", "", BLOCK_SIZE + 512);
        found_block(root, 1, a);
        assert_true(crash_allows(&found)); /* not happened */
        for (unsigned g = 2; g < BLOCK_GRAINS; g++)
                root->blocks[0].content.grain[g] = VERSION_ZERO;
        assert_false(crash_allows(&found)); /* its old size, and cut */
        root->size_bytes = BLOCK_SIZE + 512;
        assert_true(crash_allows(&found));
        model_catalog_end(model, operation, true);
        catalog(CATALOG_RESIZE, "v", "", "", SIZE);
        root->size_bytes = SIZE;
        assert_true(crash_allows(&found));
        found_block(root, 1, a);
        root->blocks++;
        root->n_blocks = 1;
        assert_false(crash_allows(&found)); /* what was cut off came back */
}

static void a_shrink_makes_nothing_durable(void **state)
{
        struct found found = {.observed = {.n_roots = 0}};
        struct observed_root *root = found_root(&found, "v");
        uint32_t a;

        create("v");
        a = written("v", 1);
        catalog(CATALOG_RESIZE, "v", "", "", BLOCK_SIZE + 512);
        root->size_bytes = BLOCK_SIZE + 512;
        assert_true(crash_allows(&found)); /* the write is lost */
        found_block(root, 1, a);
        for (unsigned g = 2; g < BLOCK_GRAINS; g++)
                root->blocks[0].content.grain[g] = VERSION_ZERO;
        assert_true(crash_allows(&found));
        root->blocks[0].content.grain[1] = VERSION_ZERO;
        assert_false(crash_allows(&found)); /* but not half of it */
}

static void a_renamed_volume_takes_its_snapshots_along(void **state)
{
        struct found found = {.observed = {.n_roots = 0}};

        create("v");
        catalog(CATALOG_SNAPSHOT, "v", "s", "", 0);
        catalog(CATALOG_RENAME, "v", "w", "", 0);
        found_root(&found, "w");
        assert_false(crash_allows(&found));
        found_root(&found, "w@s");
        assert_true(crash_allows(&found));
}

static void without_a_crash_all_that_was_answered_is_there(void **state)
{
        struct found found = {.observed = {.n_roots = 0}};
        struct observed_root *root = found_root(&found, "v");
        uint32_t a;

        create("v");
        a = written("v", 1);
        assert_false(model_live_allowed(model, &found.observed, reason, sizeof(reason)));
        found_block(root, 1, a);
        assert_true(model_live_allowed(model, &found.observed, reason, sizeof(reason)));
}

/* A crash is judged by what was known at its time, not at the end of the run. */
static void later_answers_do_not_count(void **state)
{
        struct found found = {.observed = {.n_roots = 0}};
        uint64_t time;

        create("v");
        written("v", 1);
        time = model_tick(model);
        flush();
        catalog(CATALOG_CREATE, "w", "", "", SIZE);
        found_root(&found, "v");
        assert_true(model_crash_allowed(model, time, &found.observed, reason, sizeof(reason)));
        assert_false(crash_allows(&found));
}

static void a_refused_write_is_there_or_not_but_never_late(void **state)
{
        uint32_t a, b;

        create("v");
        a = begin("v", 1);
        model_write_fail(model, a);
        flush();
        assert_true(crash_allows_version(0));
        assert_true(crash_allows_version(a));
        assert_true(read_allows(model_tick(model), a));
        b = written("v", 1);
        flush();
        assert_true(crash_allows_version(b));
        assert_false(crash_allows_version(a));
        assert_false(crash_allows_version(0));
}

/* What came back from a crash is what there is from then on. */
static void after_a_crash_what_was_found_is_durable(void **state)
{
        struct found found = {.observed = {.n_roots = 0}};
        struct observed_root *volume = found_root(&found, "v");
        struct model *before = model;
        uint32_t a, b;

        create("v");
        a = written("v", 1);
        b = written("v", 1);
        catalog_begin(CATALOG_SNAPSHOT, "v", "s", "", 0);
        found_block(volume, 1, a);
        found_block(found_root(&found, "v@s"), 1, a);
        model = model_after_crash(before, &found.observed);
        model_free(before);
        assert_true(crash_allows(&found));
        found_block(volume, 1, b);
        volume->blocks++;
        volume->n_blocks = 1;
        assert_false(crash_allows(&found));
        assert_int_not_equal(written("v", 1), b);
        catalog(CATALOG_DELETE_SNAPSHOT, "v", "s", "", 0);
        assert_true(crash_allows_version(a));
        flush();
        assert_false(crash_allows_version(a));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
        const struct CMUnitTest tests[] = {
            TEST(content_names_its_version_and_place),
            TEST(a_changed_byte_is_damage),
            TEST(unflushed_writes_may_be_lost),
            TEST(flushed_writes_are_there),
            TEST(a_flush_covers_what_was_answered_before_its_request),
            TEST(fua_covers_itself_only),
            TEST(a_write_in_flight_may_be_there_or_not),
            TEST(what_is_durable_is_not_hidden_by_what_came_before),
            TEST(blocks_are_never_mixed),
            TEST(parts_of_blocks_are_applied_in_order),
            TEST(another_volumes_data_is_refused),
            TEST(blocks_that_nobody_wrote_are_zeroes),
            TEST(a_discard_is_a_write_of_zeroes),
            TEST(a_read_sees_what_was_answered_before_it),
            TEST(an_answered_operation_has_happened),
            TEST(an_operation_in_flight_has_happened_or_not),
            TEST(a_failed_operation_has_not_happened),
            TEST(a_snapshot_holds_what_was_answered_before_it),
            TEST(a_write_in_flight_is_in_the_snapshot_or_not),
            TEST(a_snapshot_in_flight_need_not_hold_what_was_durable_after_its_request),
            TEST(a_volume_on_an_image_begins_with_its_content),
            TEST(an_image_is_complete_when_it_was_answered_and_not_before_it_was_asked),
            TEST(a_group_is_one_instant),
            TEST(a_restored_volume_is_its_snapshot_and_keeps_the_rest),
            TEST(a_clone_begins_as_its_snapshot_and_goes_its_own_way),
            TEST(a_shrink_cuts_off_whole_or_not_at_all),
            TEST(a_shrink_makes_nothing_durable),
            TEST(a_renamed_volume_takes_its_snapshots_along),
            TEST(without_a_crash_all_that_was_answered_is_there),
            TEST(later_answers_do_not_count),
            TEST(a_refused_write_is_there_or_not_but_never_late),
            TEST(after_a_crash_what_was_found_is_durable),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
