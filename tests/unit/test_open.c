/* Which members make a pool, and what each that does not is told. */
#include <errno.h>
#include "common/crc32c.h"
#include "common/le.h"
#include "common/log.h"
#include "pool/codec.h"
#include "tests/unit/open_try.h"

/* ---- members ---- */

static void co_missing(void *arg)
{
        struct sim_pool *s = arg;
        struct member *members[SIM_MEMBERS_MAX] = {0};
        struct error err;
        co_new(s);
        expect(s, sim_pool_members(s, members) == 0);
        member_close(members[1]);
        members[1] = members[2];
        expect(s, co_try(s, members, 2, &err) == -ENXIO);
        expect(s, strstr(err.message, "misses member 2 of 3") && err.hint[0]);
        expect(s, co_try_all(s, &err) == 0);
}

static void a_missing_member_is_named(void **state)
{
        sim_pool_run(3, 1, co_missing);
}

static void co_any_order(void *arg)
{
        struct sim_pool *s = arg;
        struct member *members[SIM_MEMBERS_MAX] = {0};
        struct error err;
        co_new(s);
        expect(s, sim_pool_members(s, members) == 0);
        struct member *first = members[0];
        members[0] = members[2];
        members[2] = first;
        expect(s, co_try(s, members, 3, &err) == 0);
}

static void members_come_in_any_order(void **state)
{
        sim_pool_run(3, 1, co_any_order);
}

static void co_other_pool(void *arg)
{
        struct sim_pool *s = arg;
        struct pool_create_options options = {
            .name = "other", .slab_bytes = SIM_SLAB_BYTES, .log_slabs = 1};
        struct member *members[SIM_MEMBERS_MAX] = {0};
        struct error err;
        co_new(s);
        expect(s, sim_pool_members(s, members) == 0);
        expect(s, co_pool_create(&members[2], 1, &options, NULL) == 0);
        expect(s, co_try(s, members, 3, &err) == -EMEDIUMTYPE);
        expect(s, strstr(err.message, "'other'") && strstr(err.message, "'tank'") &&
                      strstr(err.message, "disk2"));
}

static void a_member_of_another_pool_is_named(void **state)
{
        sim_pool_run(3, 1, co_other_pool);
}

static void co_no_member(void *arg)
{
        struct sim_pool *s = arg;
        struct error err;
        expect(s, co_try_all(s, &err) == -ENODATA);
        expect(s, strstr(err.message, "'disk0' is not a member"));
}

static void a_disk_without_a_label_is_no_member(void **state)
{
        sim_pool_run(1, 1, co_no_member);
}

static void co_stale(void *arg)
{
        struct sim_pool *s = arg;
        struct error err;
        co_new(s);
        struct sim_image *old = sim_disk_visible(s->disk[1]);
        for (unsigned i = 0; i < 3; i++) {
                expect(s, co_sim_pool_open(s, false) == 0);
                expect(s, co_sim_pool_write(s, "v", i, 1) == 0);
                expect(s, co_sim_pool_close(s) == 0);
        }
        sim_disk_free(s->disk[1]);
        s->disk[1] = sim_pool_disk(old, 1);
        sim_image_free(old);
        expect(s, co_try_all(s, &err) == -ESTALE);
        expect(s, strstr(err.message, "'disk1' is at generation"));
}

static void a_member_that_missed_writes_is_refused(void **state)
{
        sim_pool_run(2, 1, co_stale);
}

static void co_twice(void *arg)
{
        struct sim_pool *s = arg;
        struct error err;
        co_new(s);
        struct sim_image *copy = sim_disk_visible(s->disk[0]);
        sim_disk_free(s->disk[1]);
        s->disk[1] = sim_pool_disk(copy, 1);
        sim_image_free(copy);
        expect(s, co_try_all(s, &err) == -EINVAL);
        expect(s, strstr(err.message, "the same member"));
}

static void a_copy_of_a_member_is_noticed(void **state)
{
        sim_pool_run(2, 1, co_twice);
}

/* ---- labels ---- */

/* Change the label at one end, with its CRC made right again. */
static void label_edit(struct sim_disk *disk, unsigned end, void (*edit)(struct label_disk *))
{
        uint64_t at = end ? SIM_MEMBER_SIZE - LABEL_AREA_BYTES : 0;
        struct label_disk old, new;
        struct sim_image *image = sim_disk_visible(disk);
        sim_image_read(image, at, &old, sizeof(old));
        sim_image_free(image);
        new = old;
        edit(&new);
        new.crc32c = le32_make(crc32c(0, &new, sizeof(new) - 4));
        for (size_t i = 0; i < sizeof(new); i++) {
                uint8_t bits = ((uint8_t *)&old)[i] ^ ((uint8_t *)&new)[i];
                if (bits)
                        sim_disk_corrupt(disk, at + i, 1, bits);
        }
}

static void newer(struct label_disk *d)
{
        d->version = le32_make(FORMAT_VERSION + 1);
}

static void unknown_feature(struct label_disk *d)
{
        d->incompat = le64_make(UINT64_C(1) << 17);
}

static void unknown_when_written(struct label_disk *d)
{
        d->ro_compat = le64_make(2);
}

static void larger(struct label_disk *d)
{
        d->size_bytes = le64_make(SIM_MEMBER_SIZE * 2);
}

static void co_labels(void *arg)
{
        struct sim_pool *s = arg;
        struct error err;
        co_new(s);
        sim_disk_corrupt(s->disk[0], 100, 1, 1);
        expect(s, co_try_all(s, &err) == 0);
        sim_disk_corrupt(s->disk[0], SIM_MEMBER_SIZE - LABEL_AREA_BYTES + 100, 1, 1);
        expect(s, co_try_all(s, &err) == -EUCLEAN);
        expect(s, strstr(err.message, "'disk0': its label fails its checksum"));
}

static void a_label_lives_at_both_ends(void **state)
{
        sim_pool_run(2, 1, co_labels);
}

static void co_newer(void *arg)
{
        struct sim_pool *s = arg;
        struct error err;
        co_new(s);
        label_edit(s->disk[0], 0, newer);
        label_edit(s->disk[0], 1, newer);
        expect(s, co_try_all(s, &err) == -ENOTSUP);
        expect(s, strstr(err.message, "version 2") && strstr(err.hint, "newer tarn"));
}

static void co_feature(void *arg)
{
        struct sim_pool *s = arg;
        struct error err;
        co_new(s);
        label_edit(s->disk[0], 0, unknown_feature);
        label_edit(s->disk[0], 1, unknown_feature);
        expect(s, co_try_all(s, &err) == -ENOTSUP);
        expect(s, strstr(err.message, "feature 0x20000"));
}

static void co_read_only_feature(void *arg)
{
        struct sim_pool *s = arg;
        struct error err;
        co_new(s);
        label_edit(s->disk[0], 0, unknown_when_written);
        expect(s, co_try_all(s, &err) == -ENOTSUP);
        expect(s, strstr(err.message, "cannot write"));
        expect(s, co_sim_pool_open(s, true) == 0);
        expect(s, co_sim_pool_close(s) == 0);
}

static void co_truncated(void *arg)
{
        struct sim_pool *s = arg;
        struct error err;
        co_new(s);
        label_edit(s->disk[0], 0, larger);
        expect(s, co_try_all(s, &err) == -EIO);
        expect(s, strstr(err.message, "truncated"));
}

static void a_newer_format_and_a_truncated_disk_are_refused(void **state)
{
        sim_pool_run(1, 1, co_newer);
        sim_pool_run(1, 1, co_feature);
        sim_pool_run(1, 1, co_read_only_feature);
        sim_pool_run(1, 1, co_truncated);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(a_missing_member_is_named),
            cmocka_unit_test(members_come_in_any_order),
            cmocka_unit_test(a_member_of_another_pool_is_named),
            cmocka_unit_test(a_disk_without_a_label_is_no_member),
            cmocka_unit_test(a_member_that_missed_writes_is_refused),
            cmocka_unit_test(a_copy_of_a_member_is_noticed),
            cmocka_unit_test(a_label_lives_at_both_ends),
            cmocka_unit_test(a_newer_format_and_a_truncated_disk_are_refused),
        };
        log_set_sink(NULL);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
