/* Which pages and records of the log a recovery believes: those that go on with this log, and whose
 * values can be. */
#include <errno.h>
#include "tests/unit/log_fixture.h"

/* ---- whose a page of the log is ---- */

static void page_as_it_is(struct log_page_disk *d)
{
}

static void page_of_another_incarnation(struct log_page_disk *d)
{
        d->incarnation = le64_make(le64_get(d->incarnation) - 1);
}

static void page_of_another_pool(struct log_page_disk *d)
{
        d->pool_uuid[0] ^= 1;
}

static void page_behind_another(struct log_page_disk *d)
{
        d->chain = le32_make(le32_get(d->chain) ^ 1);
}

static void page_of_another_place(struct log_page_disk *d)
{
        d->sequence = le64_make(le64_get(d->sequence) + le64_get(d->sequence) + 1);
}

/* Its record is longer than what is used of it. */
static void page_cut_short(struct log_page_disk *d)
{
        d->used = le16_make(16);
}

static struct log_write_disk *first_write(struct log_page_disk *d)
{
        return (struct log_write_disk *)(void *)d->records;
}

static void write_of_nothing(struct log_page_disk *d)
{
        first_write(d)->n_blocks = le32_make(0);
}

static void write_of_more_than_it_holds(struct log_page_disk *d)
{
        first_write(d)->n_blocks = le32_make(200);
}

static void write_far_behind_the_end(struct log_page_disk *d)
{
        first_write(d)->block = le64_make(VOLUME_SIZE_MAX / POOL_BLOCK - 256);
}

static void write_to_nowhere(struct log_page_disk *d)
{
        first_write(d)->address = le64_make(ADDRESS_MAX - 8);
}

static void write_to_no_volume(struct log_page_disk *d)
{
        first_write(d)->root_id = le64_make(999);
}

/* A record of @type in place of the write's, and nothing behind it. */
static void *first_record(struct log_page_disk *d, uint8_t type, size_t length)
{
        struct log_head_disk *head = (void *)d->records;
        memset(d->records, 0, sizeof(d->records));
        *head = (struct log_head_disk){.type = type, .length = le16_make((uint16_t)length)};
        d->used = le16_make((uint16_t)length);
        return head;
}

static struct log_clear_disk *first_clear(struct log_page_disk *d, uint64_t root_id)
{
        struct log_clear_disk *c = first_record(d, LOG_CLEAR, sizeof(*c));
        c->root_id = le64_make(root_id);
        c->n_blocks = le64_make(1);
        return c;
}

static void clear_of_no_volume(struct log_page_disk *d)
{
        first_clear(d, 999);
}

static void clear_behind_the_end(struct log_page_disk *d)
{
        first_clear(d, 1)->block = le64_make(257);
}

static void clear_across_the_end(struct log_page_disk *d)
{
        first_clear(d, 1)->n_blocks = le64_make(257);
}

static void clear_of_too_much(struct log_page_disk *d)
{
        first_clear(d, 1)->n_blocks = le64_make(UINT64_C(1) << 40);
}

static void clear_to_data(struct log_page_disk *d)
{
        first_clear(d, 1)->type = le32_make(ENTRY_DATA);
}

static void clear_cut_short(struct log_page_disk *d)
{
        first_record(d, LOG_CLEAR, sizeof(struct log_head_disk) + 4);
}

static void slab_cut_short(struct log_page_disk *d)
{
        first_record(d, LOG_SLAB, sizeof(struct log_head_disk) + 4);
}

static void record_of_no_type(struct log_page_disk *d)
{
        first_record(d, 99, sizeof(struct log_catalog_disk));
}

static void catalog_cut_short(struct log_page_disk *d)
{
        first_record(d, LOG_CREATE, sizeof(struct log_head_disk) + 4);
}

static void catalog_name_without_end(struct log_page_disk *d)
{
        struct log_catalog_disk *c = first_record(d, LOG_CREATE, sizeof(*c));
        c->new_id = le64_make(9);
        memset(c->name, 'x', sizeof(c->name));
}

static void rename_of_no_volume(struct log_page_disk *d)
{
        struct log_catalog_disk *c = first_record(d, LOG_RENAME, sizeof(*c));
        c->root_id = le64_make(999);
}

static void snapshot_without_id(struct log_page_disk *d)
{
        struct log_catalog_disk *c = first_record(d, LOG_SNAPSHOT, sizeof(*c));
        c->root_id = le64_make(1);
}

static void clone_of_a_volume(struct log_page_disk *d)
{
        struct log_catalog_disk *c = first_record(d, LOG_CLONE, sizeof(*c));
        c->from_id = le64_make(1);
        c->new_id = le64_make(9);
}

static void create_of_what_is_there(struct log_page_disk *d)
{
        struct log_catalog_disk *c = first_record(d, LOG_CREATE, sizeof(*c));
        c->new_id = le64_make(1);
}

static void property_without_end(struct log_page_disk *d)
{
        struct log_property_disk *p = first_record(d, LOG_PROPERTY, sizeof(*p));
        p->root_id = le64_make(1);
        memset(p->key, 'x', sizeof(p->key));
}

static void page_of_too_early_an_epoch(struct log_page_disk *d)
{
        d->epoch = le64_make(0);
}

static void page_of_too_late_an_epoch(struct log_page_disk *d)
{
        d->epoch = le64_make(BIRTH_MAX + 1);
}

static void page_used_beyond_its_end(struct log_page_disk *d)
{
        d->used = le16_make(sizeof(d->records) + 8);
}

static void page_of_later_records(struct log_page_disk *d)
{
        d->first_record = le64_make(le64_get(d->first_record) + 1);
}

static void co_odd_page(void *arg)
{
        struct sim_pool *s = arg;
        struct leg legs[SLAB_LEGS_MAX] = {0};
        co_killed(s, legs);
        page_patch(s, legs[0].offset);
        expect(s, co_sim_pool_open(s, false) == 0);
        expect(s, co_blocks_with(s, page_change == page_as_it_is ? 'b' : 'a') == 8);
        expect(s, co_sim_pool_close(s) == 0);
}

static void a_page_that_does_not_go_on_with_this_log_is_its_end(void **state)
{
        void (*const changes[])(struct log_page_disk *) = {page_as_it_is,
                                                           page_of_another_incarnation,
                                                           page_of_another_pool,
                                                           page_behind_another,
                                                           page_of_another_place,
                                                           page_missing,
                                                           page_damaged,
                                                           page_cut_short,
                                                           page_of_too_early_an_epoch,
                                                           page_of_too_late_an_epoch,
                                                           page_used_beyond_its_end,
                                                           page_of_later_records};
        for (unsigned i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
                page_change = changes[i];
                sim_pool_run(1, 1, co_odd_page);
        }
}

static void page_of_a_newer_superblock(struct log_page_disk *d)
{
        d->generation = le64_make(le64_get(d->generation) + 1);
}

static void page_that_knows_of_later_records(struct log_page_disk *d)
{
        d->mark = le64_make(le64_get(d->first_record) + 1);
}

/* What no crash leaves. */
static void co_damaged_page(void *arg)
{
        struct sim_pool *s = arg;
        struct leg legs[SLAB_LEGS_MAX] = {0};
        struct pool_info info;
        co_killed(s, legs);
        page_patch(s, legs[0].offset);
        expect(s, co_sim_pool_open(s, false) == 0);
        pool_get_info(s->pool, &info);
        expect(s, info.readonly && strstr(info.failed, "its log is damaged"));
        expect(s, co_blocks_with(s, 'a') == 8);
        co_pool_abandon(s->pool);
}

static void a_page_that_knows_more_than_there_is_is_damage(void **state)
{
        void (*const changes[])(struct log_page_disk *) = {page_of_a_newer_superblock,
                                                           page_that_knows_of_later_records};
        for (unsigned i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
                page_change = changes[i];
                sim_pool_run(1, 1, co_damaged_page);
        }
}

static void co_odd_record(void *arg)
{
        struct sim_pool *s = arg;
        struct leg legs[SLAB_LEGS_MAX] = {0};
        struct member *members[SIM_MEMBERS_MAX];
        struct pool_options options = {.manual_checkpoints = true};
        struct pool *pool;
        co_killed(s, legs);
        page_patch(s, legs[0].offset);
        expect(s, sim_pool_members(s, members) == 0);
        expect(s, co_pool_open(s->loop, members, 1, &options, &pool, NULL) == -EUCLEAN);
        member_close(members[0]);
}

static void a_record_of_impossible_values_is_refused(void **state)
{
        void (*const changes[])(struct log_page_disk *) = {
            write_of_nothing,         write_of_more_than_it_holds,
            write_far_behind_the_end, write_to_nowhere,
            write_to_no_volume,       clear_of_no_volume,
            clear_behind_the_end,     clear_across_the_end,
            clear_of_too_much,        clear_to_data,
            clear_cut_short,          slab_cut_short,
            record_of_no_type,        catalog_cut_short,
            catalog_name_without_end, rename_of_no_volume,
            snapshot_without_id,      clone_of_a_volume,
            create_of_what_is_there,  property_without_end};
        for (unsigned i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
                page_change = changes[i];
                sim_pool_run(1, 1, co_odd_record);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(a_page_that_does_not_go_on_with_this_log_is_its_end),
            cmocka_unit_test(a_page_that_knows_more_than_there_is_is_damage),
            cmocka_unit_test(a_record_of_impossible_values_is_refused),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
