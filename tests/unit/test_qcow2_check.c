/* test_qcow2_check.c - what is found wrong with a qcow2 file: damage of every kind, told in a sentence and counted; and
 * nothing where nothing is. */
#include <stdatomic.h>
#include "formats/qcow2_checker.h"
#include "tests/unit/qcow2_fixture.h"

#define CLUSTER UINT64_C(4096)
#define BITS    12u

/* ---- images with refcounts ---- */

/* The clusters of a sample, and how often each is used. */
struct counted {
        struct qcow2_sample s;
        unsigned order; /* a refcount has 1 << this bits */
        uint64_t table, block;
        uint8_t counts[2048];
};

/* Sub-byte counts begin with the lowest bits. */
static void put_count(struct counted *c, uint64_t cluster, uint64_t count)
{
        uint8_t *block = c->s.bytes + c->block;

        switch (c->order) {
        case 6:
                qcow2_put64(block + cluster * 8, count);
                break;
        case 5:
                qcow2_put32(block + cluster * 4, (uint32_t)count);
                break;
        case 4:
                qcow2_put16(block + cluster * 2, (uint16_t)count);
                break;
        default:
                block[(cluster << c->order) / 8] &=
                    (uint8_t) ~(((1u << (1u << c->order)) - 1) << ((cluster << c->order) % 8));
                block[(cluster << c->order) / 8] |= (uint8_t)(count << ((cluster << c->order) % 8));
        }
}

static void use(struct counted *c, uint64_t offset, uint64_t bytes)
{
        for (uint64_t i = offset / CLUSTER; i <= (offset + bytes - 1) / CLUSTER; i++)
                c->counts[i]++;
}

static void use_tables(struct counted *c, uint64_t l1)
{
        struct qcow2_sample *s = &c->s;

        use(c, l1, s->l1_size * QCOW2_L1_ENTRY);
        for (uint64_t i = 0; i < s->l1_size; i++) {
                uint64_t table = qcow2_get64(s->bytes + l1 + i * 8) & QCOW2_OFFSET_MASK;

                if (table == 0)
                        continue;
                use(c, table, CLUSTER);
                for (uint64_t at = table; at < table + CLUSTER; at += s->entry_bytes) {
                        uint64_t entry = qcow2_get64(s->bytes + at);

                        if (entry & QCOW2_COMPRESSED)
                                use(c, qcow2_compressed_offset(entry, s->cluster_bits),
                                    qcow2_compressed_bytes(entry, s->cluster_bits));
                        else if (entry & QCOW2_OFFSET_MASK)
                                use(c, entry & QCOW2_OFFSET_MASK, CLUSTER);
                }
        }
}

/* A disk of 4 MiB with a few clusters of each kind. */
static void begin(struct counted *c, uint32_t version, unsigned order)
{
        uint8_t data[CLUSTER];

        *c = (struct counted){.order = order};
        qcow2_sample_init(&c->s, version, BITS, 4 * MIB, 0);
        if (version > 2)
                qcow2_put32(c->s.bytes + QCOW2_REFCOUNT_ORDER_AT, order);
        memset(data, 7, sizeof(data));
        qcow2_sample_plain(&c->s, 0, data);
        qcow2_sample_plain(&c->s, 5 * CLUSTER, data);
        qcow2_sample_plain(&c->s, 3 * MIB, data);
}

/* The table and the block of what has been made; whole clusters, so that nothing is cut off. */
static void count(struct counted *c)
{
        struct qcow2_sample *s = &c->s;

        c->table = qcow2_sample_room(s, CLUSTER);
        c->block = qcow2_sample_room(s, CLUSTER);
        qcow2_put64(s->bytes + QCOW2_REFCOUNT_TABLE_OFFSET_AT, c->table);
        qcow2_put32(s->bytes + QCOW2_REFCOUNT_TABLE_CLUSTERS_AT, 1);
        qcow2_put64(s->bytes + c->table, c->block);
        use(c, 0, CLUSTER);
        use(c, c->table, CLUSTER);
        use(c, c->block, CLUSTER);
        use_tables(c, s->l1);
}

static void put_counts(struct counted *c)
{
        for (uint64_t i = 0; i < c->s.used / CLUSTER; i++)
                put_count(c, i, c->counts[i]);
}

/* ---- checking ---- */

struct findings {
        struct image_check check;
        unsigned n;
        char all[8192];
};

static void add_finding(struct image_check *check, const char *sentence)
{
        struct findings *f = (struct findings *)check;
        size_t n = strlen(f->all);

        f->n++;
        snprintf(f->all + n, sizeof(f->all) - n, "%s\n", sentence);
}

static void co_check(struct fixture *f, const struct counted *c, struct findings *ret)
{
        struct image *image = co_open_sample(f, &c->s, &(struct image_options){.alone = true});
        struct error e = ERROR_INIT;

        *ret = (struct findings){.check.report = add_finding};
        if (image->driver->co_check(image, &ret->check, &e) < 0)
                fail_msg("%s", e.message);
        image_close(image);
}

static void co_expect(struct fixture *f, struct counted *c, uint64_t errors, uint64_t leaks,
                      const char *says)
{
        static struct findings is;

        co_check(f, c, &is);
        if (is.check.n_errors != errors || is.check.n_leaks != leaks)
                fail_msg("%llu errors and %llu leaks: %s", (unsigned long long)is.check.n_errors,
                         (unsigned long long)is.check.n_leaks, is.all);
        assert_int_equal(is.check.leaked_bytes, leaks * CLUSTER);
        if (says && !strstr(is.all, says))
                fail_msg("'%s' is not in: %s", says, is.all);
        if (!says)
                assert_int_equal(is.n, 0);
}

/* ---- nothing is wrong ---- */

static void co_check_sound(struct fixture *f)
{
        struct counted c;

        for (unsigned order = 0; order <= QCOW2_REFCOUNT_ORDER_MAX; order++) {
                begin(&c, order == 4 ? 2 : 3, order);
                count(&c);
                put_counts(&c);
                co_expect(f, &c, 0, 0, NULL);
                /* One too few, one too many, of every width. */
                put_count(&c, 2, 0);
                co_expect(f, &c, 2, 0, "has refcount 0 instead of 1");
                put_count(&c, 2, 1);
                put_count(&c, 200, 1);
                c.s.used = qcow2_sample_room(&c.s, (300 - c.s.used / CLUSTER) * CLUSTER) + CLUSTER;
                c.s.used = 300 * CLUSTER;
                co_expect(f, &c, 0, 1, "nothing needs");
                qcow2_sample_free(&c.s);
        }
}

static void counts_of_every_width_are_compared(void **state)
{
        run(*state, co_check_sound);
}

static void co_check_packed(struct fixture *f)
{
        struct counted c;
        uint8_t data[CLUSTER];
        uint64_t shared = 1;

        begin(&c, 3, 4);
        for (unsigned i = 0; i < 300; i++) {
                memset(data, (int)i, sizeof(data));
                qcow2_sample_pack(&c.s, MIB + i * CLUSTER, data);
        }
        count(&c);
        put_counts(&c);
        while (c.counts[shared] <= 20)
                shared++;
        co_expect(f, &c, 0, 0, NULL);
        put_count(&c, shared, c.counts[shared] - 1u);
        co_expect(f, &c, 1, 0, "used for data");
        qcow2_sample_free(&c.s);
}

static void compressed_clusters_count_where_they_share(void **state)
{
        run(*state, co_check_packed);
}

/* Two snapshots of the same tables, the second with a table of its own. */
static void co_check_snapshots(struct fixture *f)
{
        struct counted c;
        struct qcow2_sample_snapshot list[2];
        uint64_t l1[2], at;

        begin(&c, 3, 4);
        for (unsigned i = 0; i < 2; i++) {
                l1[i] = qcow2_sample_room(&c.s, c.s.l1_size * QCOW2_L1_ENTRY);
                memcpy(c.s.bytes + l1[i], c.s.bytes + c.s.l1, c.s.l1_size * QCOW2_L1_ENTRY);
                list[i] = (struct qcow2_sample_snapshot){.id = i ? "2" : "1",
                                                         .name = "s",
                                                         .l1 = l1[i],
                                                         .l1_size = c.s.l1_size,
                                                         .virtual_bytes = 4 * MIB,
                                                         .extra_bytes = 16};
        }
        qcow2_sample_snapshots(&c.s, list, 2);
        at = qcow2_get64(c.s.bytes + QCOW2_SNAPSHOTS_OFFSET_AT);
        count(&c);
        use(&c, at, 1);
        use_tables(&c, l1[0]);
        use_tables(&c, l1[1]);
        put_counts(&c);
        /* Two L2 tables and three clusters are shared now, and said to be not. */
        co_expect(f, &c, 5, 0, "marked as having one reference");
        for (uint64_t i = 0; i < c.s.used; i += 8) {
                uint64_t entry = qcow2_get64(c.s.bytes + i);

                if (entry & QCOW2_COPIED && (entry & ~QCOW2_COPIED) < c.s.used && i < c.table)
                        qcow2_put64(c.s.bytes + i, entry & ~QCOW2_COPIED);
        }
        co_expect(f, &c, 0, 0, NULL);
        /* A snapshot's table in the middle of a cluster is not followed. */
        qcow2_put64(c.s.bytes + at, l1[0] + 8);
        co_expect(f, &c, 1, 6, "L1 table of a snapshot");
        qcow2_put64(c.s.bytes + at, l1[0]);
        /* The snapshot table's own cluster. */
        put_count(&c, at / CLUSTER, 0);
        co_expect(f, &c, 1, 0, "the snapshot table");
        qcow2_sample_free(&c.s);
}

static void snapshots_are_followed(void **state)
{
        run(*state, co_check_snapshots);
}

/* Tables that lie in each other: a small file that would keep us busy for a long time. */
static void co_check_many_snapshots(struct fixture *f)
{
        struct qcow2_sample_snapshot *list = calloc(2000, sizeof(*list));
        struct counted c;
        struct image *image;
        struct findings found = {.check.report = add_finding};
        struct error e = ERROR_INIT;

        begin(&c, 3, 4);
        for (unsigned i = 0; i < 2000; i++)
                list[i] = (struct qcow2_sample_snapshot){
                    .id = "1", .name = "s", .l1 = c.s.l1, .l1_size = 1000, .extra_bytes = 16};
        qcow2_sample_snapshots(&c.s, list, 2000);
        count(&c);
        image = co_open_sample(f, &c.s, &(struct image_options){.alone = true});
        assert_int_equal(image->driver->co_check(image, &found.check, &e), -EBADMSG);
        assert_non_null(strstr(e.message, "'x.qcow2'"));
        image_close(image);
        qcow2_sample_free(&c.s);
        free(list);
}

static void tables_longer_than_the_file_are_not_followed(void **state)
{
        run(*state, co_check_many_snapshots);
}

/* Whether it is given up, with a sentence. */
static void co_expect_refused(struct fixture *f, const struct counted *c, int code,
                              const char *says)
{
        struct image *image = co_open_sample(f, &c->s, &(struct image_options){.alone = true});
        static struct findings found;
        struct error e = ERROR_INIT;

        found = (struct findings){.check.report = add_finding};
        assert_int_equal(image->driver->co_check(image, &found.check, &e), code);
        assert_non_null(strstr(e.message, "'x.qcow2'"));
        assert_non_null(strstr(e.message, says));
        image_close(image);
}

/* The same of L2 tables, each a sector behind the one before. */
static void co_check_many_l2(struct fixture *f)
{
        struct counted c;
        uint64_t table;

        c = (struct counted){.order = 4};
        qcow2_sample_init(&c.s, 3, BITS, UINT64_C(2048) * MIB, 0);
        qcow2_put32(c.s.bytes + QCOW2_REFCOUNT_ORDER_AT, c.order);
        table = qcow2_sample_room(&c.s, MIB);
        for (uint64_t i = 0; i < c.s.l1_size; i++)
                qcow2_put64(c.s.bytes + c.s.l1 + i * QCOW2_L1_ENTRY, table + i % 1024 * 512);
        count(&c);
        co_expect_refused(f, &c, -EBADMSG, "L2 tables");
        qcow2_sample_free(&c.s);
}

static void l2_tables_longer_than_the_file_are_not_followed(void **state)
{
        run(*state, co_check_many_l2);
}

/* Entries that need one refcount block and another by turns, of which memory has room for one only. */
static void co_check_reloads(struct fixture *f)
{
        const uint64_t apart = QCOW2_CHECK_CACHE_MAX * CLUSTER, reach = CLUSTER / 2 * CLUSTER;
        struct counted c;
        uint64_t at;

        c = (struct counted){.order = 4};
        qcow2_sample_init(&c.s, 3, BITS, 40 * MIB, 0);
        qcow2_put32(c.s.bytes + QCOW2_REFCOUNT_ORDER_AT, c.order);
        for (uint64_t i = 0; i < 40 * MIB / CLUSTER; i++) {
                at = qcow2_sample_entry(&c.s, c.s.l1, i * CLUSTER);
                qcow2_put64(c.s.bytes + at, CLUSTER + i % 2 * reach);
        }
        c.table = qcow2_sample_room(&c.s, CLUSTER);
        c.block = qcow2_sample_room(&c.s, apart + CLUSTER);
        qcow2_put64(c.s.bytes + QCOW2_REFCOUNT_TABLE_OFFSET_AT, c.table);
        qcow2_put32(c.s.bytes + QCOW2_REFCOUNT_TABLE_CLUSTERS_AT, 1);
        qcow2_put64(c.s.bytes + c.table, c.block);
        qcow2_put64(c.s.bytes + c.table + 8, c.block + apart);
        co_expect_refused(f, &c, -EFBIG, "over and over");
        qcow2_sample_free(&c.s);
}

static void refcount_blocks_are_not_read_over_and_over(void **state)
{
        run(*state, co_check_reloads);
}

static void co_check_cancelled(struct fixture *f)
{
        struct findings found = {.check.report = add_finding};
        atomic_bool cancelled = true;
        struct error e = ERROR_INIT;
        struct counted c;
        struct image *image;

        begin(&c, 3, 4);
        count(&c);
        put_counts(&c);
        image = co_open_sample(f, &c.s, &(struct image_options){.alone = true});
        found.check.cancelled = &cancelled;
        assert_int_equal(image->driver->co_check(image, &found.check, &e), -ECANCELED);
        assert_string_equal(e.message, "interrupted");
        cancelled = false;
        assert_int_equal(image->driver->co_check(image, &found.check, &e), 0);
        image_close(image);
        qcow2_sample_free(&c.s);
}

static void a_check_can_be_cancelled(void **state)
{
        run(*state, co_check_cancelled);
}

static void co_check_bitmaps(struct fixture *f)
{
        struct counted c;
        uint64_t directory, table, data;
        uint8_t extension[QCOW2_BITMAPS_SIZE] = {0}, *p;

        begin(&c, 3, 4);
        directory = qcow2_sample_room(&c.s, CLUSTER);
        table = qcow2_sample_room(&c.s, CLUSTER);
        data = qcow2_sample_room(&c.s, CLUSTER);
        p = c.s.bytes + directory;
        qcow2_put64(p + QCOW2_BITMAP_TABLE_OFFSET_AT, table);
        qcow2_put32(p + QCOW2_BITMAP_TABLE_SIZE_AT, 2);
        p[QCOW2_BITMAP_TYPE_AT] = QCOW2_BITMAP_TYPE_DIRTY;
        p[QCOW2_BITMAP_GRANULARITY_BITS_AT] = 9;
        qcow2_put16(p + QCOW2_BITMAP_NAME_SIZE_AT, 3);
        memcpy(p + QCOW2_BITMAP_SIZE, "map", 3);
        qcow2_put64(c.s.bytes + table, data);
        qcow2_put64(c.s.bytes + table + 8, QCOW2_BITMAP_ENTRY_ONES);
        qcow2_put32(extension + QCOW2_BITMAPS_N_AT, 1);
        qcow2_put64(extension + QCOW2_BITMAPS_DIRECTORY_SIZE_AT, 32);
        qcow2_put64(extension + QCOW2_BITMAPS_DIRECTORY_OFFSET_AT, directory);
        qcow2_sample_extension(&c.s, QCOW2_EXTENSION_BITMAPS, extension, sizeof(extension));
        qcow2_put64(c.s.bytes + QCOW2_AUTOCLEAR_AT, QCOW2_BITMAPS);
        count(&c);
        use(&c, directory, 3 * CLUSTER);
        put_counts(&c);
        co_expect(f, &c, 0, 0, NULL);
        qcow2_put64(c.s.bytes + table, data | QCOW2_BITMAP_ENTRY_ONES);
        co_expect(f, &c, 1, 1, "a bitmap's table has an entry");
        qcow2_put64(c.s.bytes + table, data);
        /* Without the bit they are nothing to be trusted, and in the way. */
        qcow2_put64(c.s.bytes + QCOW2_AUTOCLEAR_AT, 0);
        co_expect(f, &c, 0, 3, "3 clusters");
        qcow2_sample_free(&c.s);
}

static void bitmaps_are_followed(void **state)
{
        run(*state, co_check_bitmaps);
}

/* ---- damage ---- */

/* A place with a value of 64 bits, as it should be told and counted. */
static void co_damage(struct fixture *f, struct counted *c, uint64_t at, uint64_t value,
                      uint64_t errors, uint64_t leaks, const char *says)
{
        uint64_t was = qcow2_get64(c->s.bytes + at);

        qcow2_put64(c->s.bytes + at, value);
        co_expect(f, c, errors, leaks, says);
        qcow2_put64(c->s.bytes + at, was);
}

static void co_check_damage(struct fixture *f)
{
        struct counted c;
        uint64_t l1, l2, host, table, end;

        begin(&c, 3, 4);
        count(&c);
        put_counts(&c);
        end = c.s.used;
        l1 = c.s.l1;
        l2 = qcow2_sample_entry(&c.s, l1, 0);
        host = qcow2_get64(c.s.bytes + l2) & QCOW2_OFFSET_MASK;
        table = l2;

        co_damage(f, &c, l1, table, 1, 0, "the L2 table");
        co_damage(f, &c, l1, table | QCOW2_COPIED | 1, 1, 0, "reserved bits");
        co_damage(f, &c, l1, QCOW2_COPIED, 1, 3, "without a table");
        co_damage(f, &c, l1, (end + CLUSTER) | QCOW2_COPIED, 2, 3, "beyond the file's end");
        co_damage(f, &c, l1 + 8, table | QCOW2_COPIED, 3, 2,
                  "used for an L2 table, has refcount 1");
        co_damage(f, &c, l2, host, 1, 0, "the cluster of data");
        co_damage(f, &c, l2, host | QCOW2_COPIED | 2, 1, 0, "reserved bits");
        co_damage(f, &c, l2, (host + 512) | QCOW2_COPIED, 2, 0, "do not begin with a cluster");
        co_damage(f, &c, l2, (end + CLUSTER) | QCOW2_COPIED, 2, 1, "beyond the file's end");
        co_damage(f, &c, l2 + 8, host | QCOW2_COPIED, 1, 0, "has refcount 1 instead of 2");
        co_damage(f, &c, l2 + 8, table | QCOW2_COPIED, 1, 0, "an L2 table and data");
        co_damage(f, &c, l2 + 8, c.block | QCOW2_COPIED, 2, 0, "something else");
        co_damage(f, &c, l2 + 8, QCOW2_COMPRESSED | QCOW2_COPIED | host, 2, 0, "compressed");
        co_damage(f, &c, l2 + 8, QCOW2_COMPRESSED | end * 4, 1, 0, "beyond the file's end");
        co_damage(f, &c, l2, 0, 0, 1, "nothing needs it");
        co_damage(f, &c, c.table, c.block | 1, 1, 1, "reserved bits");
        co_damage(f, &c, c.table, c.block + 512, 1, 0, "does not begin");
        co_damage(f, &c, c.table + 8, end + CLUSTER, 1, 0, "beyond the file's end");
        co_damage(f, &c, c.table + 8, c.block, 2, 0, "something else");
        co_expect(f, &c, 0, 0, NULL);
        qcow2_sample_free(&c.s);
}

static void every_kind_of_damage_is_told_and_counted(void **state)
{
        run(*state, co_check_damage);
}

/* The file's own counts agree with what is there, and still data would be written over a table. */
static void co_check_hidden_overlap(struct fixture *f)
{
        struct counted c;
        uint64_t l2;

        begin(&c, 3, 4);
        l2 = qcow2_sample_entry(&c.s, c.s.l1, 0);
        qcow2_put64(c.s.bytes + l2 + 8, c.s.l1);
        count(&c);
        put_counts(&c);
        co_expect(f, &c, 1, 0, "is used for an L1 table and data at once");
        qcow2_sample_free(&c.s);
}

static void an_overlap_that_the_counts_hide_is_found(void **state)
{
        run(*state, co_check_hidden_overlap);
}

static void co_check_many_findings(struct fixture *f)
{
        static struct findings is;
        struct counted c;

        begin(&c, 3, 4);
        count(&c);
        for (uint64_t i = 0; i < 512; i++)
                qcow2_put64(c.s.bytes + qcow2_sample_entry(&c.s, c.s.l1, 0) + i * 8, 2);
        co_check(f, &c, &is);
        assert_true(is.check.n_errors > 512);
        assert_int_equal(is.n, IMAGE_FINDINGS_MAX);
        qcow2_sample_free(&c.s);
}

static void all_are_counted_and_not_all_are_told(void **state)
{
        run(*state, co_check_many_findings);
}

/* 4 PiB of nothing take neither memory nor time; more clusters than fit in memory are refused. */
static void co_check_large(struct fixture *f)
{
        static struct findings is;
        struct counted c;
        struct image *image;
        struct error e = ERROR_INIT;

        begin(&c, 3, 4);
        count(&c);
        put_counts(&c);
        image = co_open_sample(f, &c.s, &(struct image_options){.alone = true});
        image->file_bytes = UINT64_C(1) << 45;
        is = (struct findings){.check.report = add_finding};
        if (image->driver->co_check(image, &is.check, &e) < 0)
                fail_msg("%s", e.message);
        assert_int_equal(is.check.n_errors, 0);
        assert_int_equal(is.check.end_bytes, c.s.used);
        qcow2_of(image)->cluster_bits = 9;
        qcow2_of(image)->cluster_bytes = 512;
        image->file_bytes = UINT64_C(1) << 52;
        assert_int_equal(image->driver->co_check(image, &is.check, &e), -EFBIG);
        assert_non_null(strstr(e.message, "'x.qcow2'"));
        image_close(image);
        qcow2_sample_free(&c.s);
}

static void memory_has_a_ceiling(void **state)
{
        run(*state, co_check_large);
}

#define check_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            check_test(counts_of_every_width_are_compared),
            check_test(compressed_clusters_count_where_they_share),
            check_test(snapshots_are_followed),
            check_test(tables_longer_than_the_file_are_not_followed),
            check_test(l2_tables_longer_than_the_file_are_not_followed),
            check_test(refcount_blocks_are_not_read_over_and_over),
            check_test(a_check_can_be_cancelled),
            check_test(bitmaps_are_followed),
            check_test(every_kind_of_damage_is_told_and_counted),
            check_test(an_overlap_that_the_counts_hide_is_found),
            check_test(all_are_counted_and_not_all_are_told),
            check_test(memory_has_a_ceiling),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
