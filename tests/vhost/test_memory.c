/* test_memory.c - the table of the guest's memory and its mappings, without a front end: what is where,
 * what is refused, and what becomes of a mapping whose file shrinks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>
#include "vmm-glue/vhost-user/internal.h"

#define PAGE 4096u

static struct sigaction guard_action; /* cmocka puts its own in its place for each test */
static struct vhost_server server;
static struct vhost_device device = {.server = &server};
static struct vhost_client client = {.device = &device};

static int memory_file(uint64_t length, char content)
{
        int fd = memfd_create("guest", MFD_CLOEXEC);
        char page[PAGE];

        assert_true(fd >= 0);
        memset(page, content, sizeof(page));
        for (uint64_t at = 0; at < length; at += PAGE)
                assert_int_equal(pwrite(fd, page, PAGE, (off_t)at), PAGE);
        return fd;
}

/* @memory with a region more, of a file of its own. */
static struct memory *with(struct memory *memory, uint64_t guest, uint64_t size, uint64_t user,
                           char content)
{
        struct vhost_region at = {.guest = guest, .size = size, .user = user};
        struct memory *more = NULL;
        int fd = memory_file(size, content);

        assert_int_equal(memory_with(&client, memory, &at, fd, &more, NULL), 0);
        close(fd);
        memory_unref(memory);
        return more;
}

/* a at 1 MiB, b directly behind it, a gap, c at 4 GiB; user addresses in another order. */
static struct memory *three_regions(void)
{
        struct memory *memory = memory_none();

        assert_non_null(memory);
        memory = with(memory, UINT64_C(4) << 30, 2 * PAGE, 0x10000, 'c');
        memory = with(memory, 1 << 20, 2 * PAGE, 0x900000, 'a');
        return with(memory, (1 << 20) + 2 * PAGE, 3 * PAGE, 0x500000, 'b');
}

static char at(const struct memory *memory, uint64_t guest, uint64_t *length)
{
        const uint8_t *p = memory_at(memory, guest, length);

        return p ? (char)*p : '-';
}

static void addresses_are_found_up_to_the_borders_of_their_regions(void **state)
{
        struct memory *memory = three_regions();
        static const struct {
                uint64_t guest, length;
                char content;
        } cases[] = {
            {0, 0, '-'},
            {(1 << 20) - 1, 0, '-'},
            {1 << 20, 2 * PAGE, 'a'},
            {(1 << 20) + 2 * PAGE - 1, 1, 'a'},
            {(1 << 20) + 2 * PAGE, 3 * PAGE, 'b'},
            {(1 << 20) + 5 * PAGE - 7, 7, 'b'},
            {(1 << 20) + 5 * PAGE, 0, '-'},
            {(UINT64_C(4) << 30) - 1, 0, '-'},
            {UINT64_C(4) << 30, 2 * PAGE, 'c'},
            {(UINT64_C(4) << 30) + 2 * PAGE, 0, '-'},
            {UINT64_MAX, 0, '-'},
        };

        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                uint64_t length = UINT64_MAX;

                assert_int_equal(at(memory, cases[i].guest, &length), cases[i].content);
                if (cases[i].length)
                        assert_int_equal(length, cases[i].length);
        }
        memory_unref(memory);
        assert_int_equal(client.memory_bytes, 0);
}

static void a_copy_may_span_regions_and_no_gap(void **state)
{
        struct memory *memory = three_regions();
        char copy[4];

        assert_int_equal(memory_read(memory, (1 << 20) + 2 * PAGE - 2, copy, 4), 0);
        assert_memory_equal(copy, "aabb", 4);
        assert_int_equal(memory_read(memory, (1 << 20) + 5 * PAGE - 2, copy, 4), -EFAULT);
        assert_int_equal(memory_read(memory, UINT64_MAX - 1, copy, 4), -EFAULT);
        memory_unref(memory);
}

static void user_addresses_lie_in_one_region(void **state)
{
        struct memory *memory = three_regions();

        assert_int_equal(*memory_at_user(memory, 0x900000, 2 * PAGE), 'a');
        assert_int_equal(*memory_at_user(memory, 0x500000 + PAGE, 2 * PAGE), 'b');
        assert_null(memory_at_user(memory, 0x900000, 2 * PAGE + 1));
        assert_null(memory_at_user(memory, 0x900000 - 1, 1));
        assert_null(memory_at_user(memory, 0x10000, UINT64_MAX));
        memory_unref(memory);
}

static void a_pointer_leads_back_to_its_guest_address(void **state)
{
        struct memory *memory = three_regions();
        uint64_t length = 1, guest = 0;
        const uint8_t *p = memory_at(memory, (1 << 20) + 2 * PAGE + 5, &length);

        assert_true(memory_guest_address(memory, p, &guest));
        assert_int_equal(guest, (1 << 20) + 2 * PAGE + 5);
        assert_false(memory_guest_address(memory, &guest, &guest));
        memory_unref(memory);
}

static void a_table_that_is_held_keeps_what_another_one_lacks(void **state)
{
        struct memory *memory = three_regions(), *fewer = NULL;
        struct vhost_region at_b = {
            .guest = (1 << 20) + 2 * PAGE, .size = 3 * PAGE, .user = 0x500000};
        uint64_t length = 1;
        const uint8_t *p = memory_at(memory, at_b.guest, &length);

        assert_int_equal(memory_without(memory, &at_b, &fewer, NULL), 0);
        assert_int_equal(*p, 'b');
        assert_null(memory_at(fewer, at_b.guest, &length));
        assert_int_equal(memory_without(fewer, &at_b, &fewer, NULL), -ENOENT);
        assert_int_equal(client.memory_bytes, 7 * PAGE);
        memory_unref(memory);
        assert_int_equal(client.memory_bytes, 4 * PAGE);
        memory_unref(fewer);
        assert_int_equal(client.memory_bytes, 0);
}

static void expect_refused(const struct vhost_region *region, int fd, int error)
{
        struct memory *memory = three_regions(), *more = NULL;
        struct error e = ERROR_INIT;

        assert_int_equal(memory_with(&client, memory, region, fd, &more, &e), error);
        assert_int_equal(e.code, error);
        assert_null(more);
        memory_unref(memory);
}

static void odd_regions_are_refused(void **state)
{
        int fd = memory_file(PAGE, 'x');
        struct vhost_region good = {.guest = 1 << 30, .size = PAGE, .user = 0x700000}, bad;

        bad = good, bad.size = 0;
        expect_refused(&bad, fd, -EINVAL);
        bad = good, bad.size = PAGE + 1; /* more than the file has */
        expect_refused(&bad, fd, -EINVAL);
        bad = good, bad.mmap_offset = 1;
        expect_refused(&bad, fd, -EINVAL);
        bad = good, bad.mmap_offset = UINT64_MAX;
        expect_refused(&bad, fd, -EINVAL);
        bad = good, bad.guest = UINT64_MAX;
        expect_refused(&bad, fd, -EINVAL);
        bad = good, bad.user = UINT64_MAX - 1;
        expect_refused(&bad, fd, -EINVAL);
        bad = good, bad.guest = (1 << 20) - PAGE + 1; /* a byte of another */
        expect_refused(&bad, fd, -EINVAL);
        bad = good, bad.guest = UINT64_C(1) << 40, bad.size = CLIENT_MEMORY_MAX;
        assert_int_equal(ftruncate(fd, (off_t)CLIENT_MEMORY_MAX), 0);
        expect_refused(&bad, fd, -ENOSPC);
        close(fd);
}

/* Tables that only requests hold any more, each with a mapping and a descriptor for a region. */
static void what_is_held_is_bounded_though_no_table_has_it(void **state)
{
        struct memory *tables[CLIENT_MAPPINGS_MAX / MEMORY_SLOTS_MAX], *one, *more = NULL;
        struct vhost_region at = {.guest = 1 << 20, .size = PAGE, .user = 0x700000};
        int fd = memory_file(PAGE, 'x');

        for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
                tables[i] = memory_none();
                for (unsigned n = 0; n < MEMORY_SLOTS_MAX; n++) {
                        at.guest += PAGE;
                        assert_int_equal(memory_with(&client, tables[i], &at, fd, &more, NULL), 0);
                        memory_unref(tables[i]);
                        tables[i] = more;
                }
        }
        one = memory_none();
        assert_int_equal(memory_with(&client, one, &at, fd, &more, NULL), -ENOSPC);
        memory_unref(tables[0]);
        assert_int_equal(memory_with(&client, one, &at, fd, &more, NULL), 0);
        memory_unref(one);
        memory_unref(more);
        for (size_t i = 1; i < sizeof(tables) / sizeof(tables[0]); i++)
                memory_unref(tables[i]);
        assert_int_equal(client.memory_bytes, 0);
        assert_int_equal(client.n_mappings, 0);
        close(fd);
}

static void what_is_no_memory_is_refused(void **state)
{
        struct vhost_region region = {.guest = 1 << 30, .size = PAGE, .user = 0x700000};
        int fds[2], fd = open("/dev/zero", O_RDWR);

        expect_refused(&region, fd, -EPERM);
        close(fd);
        assert_int_equal(pipe(fds), 0);
        expect_refused(&region, fds[0], -EPERM);
        close(fds[0]);
        close(fds[1]);
        fd = open("/proc/self/status", O_RDONLY);
        expect_refused(&region, fd, -EPERM);
        close(fd);
        expect_refused(&region, -1, -EPERM);
}

static void a_mapping_begins_at_any_byte_of_its_file(void **state)
{
        struct vhost_region region = {.guest = 1 << 30, .size = 10, .mmap_offset = PAGE + 3};
        struct memory *none = memory_none(), *memory = NULL;
        int fd = memory_file(2 * PAGE, 'x');
        uint64_t length = 100;

        assert_int_equal(pwrite(fd, "y", 1, PAGE + 3), 1);
        assert_int_equal(memory_with(&client, none, &region, fd, &memory, NULL), 0);
        close(fd);
        assert_int_equal(at(memory, 1 << 30, &length), 'y');
        assert_int_equal(length, 10);
        memory_unref(memory);
        memory_unref(none);
}

static void memory_that_shrinks_reads_as_zeroes_and_is_told(void **state)
{
        struct vhost_region region = {.guest = 0, .size = 4 * PAGE};
        struct memory *none = memory_none(), *memory = NULL, *other = three_regions();
        int fd = memory_file(4 * PAGE, 'x');
        uint64_t length = 1;
        uint8_t *p;

        assert_int_equal(sigaction(SIGBUS, &guard_action, NULL), 0);
        assert_int_equal(memory_with(&client, none, &region, fd, &memory, NULL), 0);
        p = memory_at(memory, 3 * PAGE, &length);
        assert_int_equal(*(volatile uint8_t *)p, 'x');
        assert_false(atomic_load(&client.memory_lost));
        assert_int_equal(ftruncate(fd, PAGE), 0);
        assert_int_equal(*(volatile uint8_t *)p, 0);
        assert_true(atomic_load(&client.memory_lost));
        *(volatile uint8_t *)p = 7; /* goes nowhere */
        atomic_store(&client.memory_lost, false);
        length = 1;
        assert_int_equal(at(other, 1 << 20, &length), 'a'); /* others stay */
        memory_unref(memory);
        memory_unref(none);
        memory_unref(other);
        close(fd);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(addresses_are_found_up_to_the_borders_of_their_regions),
            cmocka_unit_test(a_copy_may_span_regions_and_no_gap),
            cmocka_unit_test(user_addresses_lie_in_one_region),
            cmocka_unit_test(a_pointer_leads_back_to_its_guest_address),
            cmocka_unit_test(a_table_that_is_held_keeps_what_another_one_lacks),
            cmocka_unit_test(odd_regions_are_refused),
            cmocka_unit_test(what_is_held_is_bounded_though_no_table_has_it),
            cmocka_unit_test(what_is_no_memory_is_refused),
            cmocka_unit_test(a_mapping_begins_at_any_byte_of_its_file),
            cmocka_unit_test(memory_that_shrinks_reads_as_zeroes_and_is_told),
        };

        if (guard_init() < 0 || sigaction(SIGBUS, NULL, &guard_action) < 0)
                return 1;
        return cmocka_run_group_tests(tests, NULL, NULL);
}
