/* The balloon: pages that the guest gives back are gone from the host's memory. */
#include <errno.h>
#include <linux/virtio_balloon.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "common/le.h"
#include "tests/vmm/fake_driver.h"
#include "vmm-glue/vmm/memory_size.h"

enum { INFLATE, DEFLATE, REPORT, REPORT_BY_STANDARD = 4 };

#define PAGE     4096u
#define PFNS     FAKE_DATA
#define PAGES_AT (FAKE_DATA + MIB(8))

static struct fake fake;

static uint64_t resident_pages(void)
{
        struct stat st;

        assert_int_equal(fstat(fake.machine.memory.regions[0].fd, &st), 0);
        return (uint64_t)st.st_blocks * 512 / PAGE;
}

static void begin(void)
{
        fake_init(&fake, NULL);
        assert_int_equal(virtio_balloon_create(&fake.machine, NULL), 0);
        assert_int_equal(fake_start(&fake, fake.v->ops->features(fake.v), NULL), 0);
        fake_kick_signalled(&fake);
}

static void end(void)
{
        fake_fini(&fake);
}

/* Written to, so that they are there. */
static void touch_pages(uint64_t gpa, unsigned n)
{
        for (unsigned i = 0; i < n; i++)
                memset(fake_at(&fake, gpa + i * PAGE), 0x55, PAGE);
}

static void give_pfns(unsigned queue, const uint32_t *pfns, unsigned n)
{
        const struct fake_piece piece = {PFNS, n * 4, false};

        for (unsigned i = 0; i < n; i++) {
                const le32 pfn = le32_make(pfns[i]);

                memcpy(fake_at(&fake, PFNS + i * 4), &pfn, 4);
        }
        fake_give(&fake, queue, &piece, 1);
        fake_kick(&fake, queue);
        assert_true(fake_take(&fake, queue, NULL, NULL));
}

static void takes_pages_out_of_the_hosts_memory(void **state)
{
        static const uint32_t first = PAGES_AT / PAGE;
        const uint32_t upwards[] = {first, first + 1, first + 2, first + 9};
        const uint32_t downwards[] = {first + 20, first + 19, first + 18};
        uint64_t before;

        begin();
        touch_pages(PFNS, 1);
        touch_pages(PAGES_AT, 32);
        before = resident_pages();
        give_pfns(INFLATE, upwards, 4);
        assert_int_equal(resident_pages(), before - 4);
        give_pfns(INFLATE, downwards, 3);
        assert_int_equal(resident_pages(), before - 7);
        assert_int_equal(*(uint8_t *)fake_at(&fake, PAGES_AT), 0);
        assert_int_equal(*(uint8_t *)fake_at(&fake, PAGES_AT + 3 * PAGE), 0x55);
        assert_int_equal(*(uint8_t *)fake_at(&fake, PAGES_AT + 17 * PAGE), 0x55);
        end();
}

static void leaves_pages_when_they_are_taken_back(void **state)
{
        const uint32_t pfn = PAGES_AT / PAGE;

        begin();
        touch_pages(PAGES_AT, 1);
        give_pfns(DEFLATE, &pfn, 1);
        assert_int_equal(*(uint8_t *)fake_at(&fake, PAGES_AT), 0x55);
        end();
}

/* What is no memory is not taken; what comes with it, is. */
static void bears_pages_that_are_not_there(void **state)
{
        const uint32_t last = FAKE_MEMORY / PAGE - 1;
        const uint32_t pfns[] = {0xffffffff, 0, last, last + 1, 0x80000000, 0x100000, 5};
        const struct fake_piece odd = {PFNS, 7, false}, none = {PFNS, 4, true};

        begin();
        touch_pages(PFNS, 1);
        touch_pages(FAKE_MEMORY - PAGE, 1);
        give_pfns(INFLATE, pfns, sizeof(pfns) / sizeof(pfns[0]));
        assert_int_equal(*(uint8_t *)fake_at(&fake, FAKE_MEMORY - PAGE), 0);
        fake_give(&fake, INFLATE, &odd, 1);
        fake_give(&fake, INFLATE, &none, 1);
        fake_kick(&fake, INFLATE);
        assert_true(fake_take(&fake, INFLATE, NULL, NULL));
        assert_true(fake_take(&fake, INFLATE, NULL, NULL));
        assert_false(fake.needs_reset);
        end();
}

/* Gigabytes of page numbers in one chain: only the first are looked at. */
static void looks_at_so_many_pages_of_a_chain(void **state)
{
        const struct fake_piece piece = {0, FAKE_MEMORY, false};
        uint64_t before;

        begin();
        for (unsigned i = 0; i < 4096; i++) {
                const le32 pfn = le32_make(PAGES_AT / PAGE + i);

                memcpy(fake_at(&fake, PFNS + i * 4), &pfn, 4);
        }
        touch_pages(PAGES_AT, 4096);
        before = resident_pages();
        fake_give(&fake, INFLATE, &(struct fake_piece){PFNS, 4 * 4096, false}, 1);
        fake_kick(&fake, INFLATE);
        assert_true(before - resident_pages() >= 1024);
        assert_true(before - resident_pages() < 2048);
        fake_give(&fake, INFLATE, &piece, 1);
        fake_kick(&fake, INFLATE);
        end();
}

static void takes_what_is_reported_free(void **state)
{
        const unsigned queues[] = {REPORT, REPORT_BY_STANDARD};

        for (unsigned i = 0; i < 2; i++) {
                /* The second is not whole pages: those that are go. */
                const struct fake_piece pieces[] = {{PAGES_AT, 4 * PAGE, true},
                                                    {PAGES_AT + 8 * PAGE + 100, 3 * PAGE, true}};
                uint64_t before;

                begin();
                touch_pages(PAGES_AT, 16);
                before = resident_pages();
                fake_give(&fake, queues[i], pieces, 2);
                fake_kick(&fake, queues[i]);
                assert_true(fake_take(&fake, queues[i], NULL, NULL));
                assert_int_equal(resident_pages(), before - 4 - 2);
                assert_int_equal(*(uint8_t *)fake_at(&fake, PAGES_AT + 8 * PAGE), 0x55);
                assert_int_equal(*(uint8_t *)fake_at(&fake, PAGES_AT + 8 * PAGE + 101), 0x55);
                assert_int_equal(*(uint8_t *)fake_at(&fake, PAGES_AT + 9 * PAGE), 0);
                assert_int_equal(*(uint8_t *)fake_at(&fake, PAGES_AT + 11 * PAGE), 0x55);
                end();
        }
}

/* They were reserved for the guest, which dies where it does not get one again. */
static void takes_no_huge_pages(void **state)
{
        const struct fake_piece piece = {PAGES_AT, (uint32_t)MIB(4), true};
        uint32_t pfns[MIB(4) / PAGE];
        uint64_t before;

        begin();
        fake.config.huge_pages = fake.machine.memory.regions[0].huge = true;
        touch_pages(PFNS, 1);
        touch_pages(PAGES_AT, MIB(4) / PAGE);
        before = resident_pages();
        for (unsigned i = 0; i < MIB(4) / PAGE; i++)
                pfns[i] = PAGES_AT / PAGE + i;
        give_pfns(INFLATE, pfns, MIB(4) / PAGE);
        fake_give(&fake, REPORT, &piece, 1);
        fake_kick(&fake, REPORT);
        assert_true(fake_take(&fake, REPORT, NULL, NULL));
        assert_int_equal(resident_pages(), before);
        assert_int_equal(*(uint8_t *)fake_at(&fake, PAGES_AT), 0x55);
        end();
}

/* More chains than one turn has: it kicks itself. */
static void serves_many_chains_in_turns(void **state)
{
        const struct fake_piece piece = {PFNS, 4, false};
        unsigned n = 0;

        begin();
        for (unsigned i = 0; i < 50; i++)
                fake_give(&fake, DEFLATE, &piece, 1);
        fake_kick(&fake, DEFLATE);
        while (fake_take(&fake, DEFLATE, NULL, NULL))
                n++;
        assert_true(n < 50);
        fake_kick_signalled(&fake);
        while (fake_take(&fake, DEFLATE, NULL, NULL))
                n++;
        assert_int_equal(n, 50);
        end();
}

static uint32_t config_word(uint32_t offset)
{
        le32 word;

        fake.v->ops->read_config(fake.v, offset, &word, sizeof(word));
        return le32_get(word);
}

static void asks_the_guest_for_what_is_wanted(void **state)
{
        const le32 actual = le32_make(1024);

        begin();
        assert_int_equal(machine_memory_set(&fake.machine, MIB(48), NULL), 0);
        assert_int_equal(fake.n_config_changes, 1);
        assert_int_equal(config_word(0), MIB(16) / PAGE);
        /* Asked for already. */
        assert_int_equal(machine_memory_set(&fake.machine, MIB(48), NULL), 0);
        assert_int_equal(fake.n_config_changes, 1);
        assert_int_equal(machine_memory_size(&fake.machine), FAKE_MEMORY);
        fake.v->ops->write_config(fake.v, 4, &actual, sizeof(actual));
        assert_int_equal(config_word(4), 1024);
        assert_int_equal(machine_memory_size(&fake.machine), FAKE_MEMORY - MIB(4));
        assert_int_equal(machine_memory_set(&fake.machine, MIB(64), NULL), 0);
        assert_int_equal(config_word(0), 0);
        end();
}

/* A guest may say anything of its balloon. */
static void bears_a_balloon_that_cannot_be(void **state)
{
        const le32 actual = le32_make(0xffffffff);
        uint8_t many[64] = {0};

        begin();
        fake.v->ops->write_config(fake.v, 4, &actual, sizeof(actual));
        assert_int_equal(machine_memory_size(&fake.machine), 0);
        fake.v->ops->write_config(fake.v, 0, many, sizeof(many));
        fake.v->ops->write_config(fake.v, 5, many, 2);
        fake.v->ops->write_config(fake.v, UINT32_MAX, many, 4);
        assert_int_equal(config_word(4), 0xffffffff);
        fake_reset(&fake);
        assert_int_equal(config_word(4), 0);
        end();
}

static void refuses_memory_that_cannot_be(void **state)
{
        struct error err = ERROR_INIT;

        begin();
        assert_int_equal(machine_memory_set(&fake.machine, MIB(48) + 1, &err), -EINVAL);
        assert_int_equal(machine_memory_set(&fake.machine, MIB(30), &err), -EINVAL);
        assert_int_equal(machine_memory_set(&fake.machine, MIB(66), &err), -EINVAL);
        assert_string_equal(err.message, "the machine was started with room for 64 MiB of memory");
        end();
        fake_init(&fake, NULL);
        assert_int_equal(machine_memory_set(&fake.machine, MIB(48), &err), -EOPNOTSUPP);
        fake_fini(&fake);
}

static void is_saved_and_restored(void **state)
{
        const le32 actual = le32_make(77);
        struct state_writer w = {0};
        struct state_reader r;

        begin();
        assert_int_equal(machine_memory_set(&fake.machine, MIB(40), NULL), 0);
        fake.v->ops->write_config(fake.v, 4, &actual, sizeof(actual));
        state_begin(&w, "balloon", 1);
        fake.v->ops->save(fake.v, &w);
        state_end(&w);
        end();
        begin();
        assert_int_equal(state_find(w.data, w.size, "balloon", 1, &r, NULL), 0);
        assert_int_equal(fake.v->ops->restore(fake.v, &r, NULL), 0);
        assert_int_equal(state_finish(&r, "balloon", NULL), 0);
        assert_int_equal(config_word(0), MIB(24) / PAGE);
        assert_int_equal(config_word(4), 77);
        end();
        state_writer_free(&w);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(takes_pages_out_of_the_hosts_memory),
            cmocka_unit_test(leaves_pages_when_they_are_taken_back),
            cmocka_unit_test(bears_pages_that_are_not_there),
            cmocka_unit_test(looks_at_so_many_pages_of_a_chain),
            cmocka_unit_test(takes_what_is_reported_free),
            cmocka_unit_test(takes_no_huge_pages),
            cmocka_unit_test(serves_many_chains_in_turns),
            cmocka_unit_test(asks_the_guest_for_what_is_wanted),
            cmocka_unit_test(bears_a_balloon_that_cannot_be),
            cmocka_unit_test(refuses_memory_that_cannot_be),
            cmocka_unit_test(is_saved_and_restored),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
