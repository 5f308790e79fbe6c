/* test_vmm_memory.c - the guest's memory: which ranges are some, at every edge, and which pages were
 * written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "vmm-glue/vmm/layout.h"
#include "vmm-glue/vmm/memory.h"
#include "vmm-glue/vmm/memory_file.h"

#define PAGE MEMORY_LOG_PAGE

static struct guest_memory memory;

static void make(uint64_t size)
{
        assert_int_equal(memory_new(&memory, -1, size, false, NULL), 0);
}

static int tear_down(void **state)
{
        memory_log_end(&memory);
        memory_free(&memory);
        memory_free(&memory); /* once more is fine */
        return 0;
}

/* What there was when the last mark was made. */
static struct {
        const uint8_t *host;
        size_t length;
        uint8_t first, last;
} marked;

void __real_memory_mark(const struct guest_memory *of, const void *host, size_t length);
void __wrap_memory_mark(const struct guest_memory *of, const void *host, size_t length);
void __wrap_memory_mark(const struct guest_memory *of, const void *host, size_t length)
{
        marked.host = host;
        marked.length = length;
        if (length > 0) {
                marked.first = marked.host[0];
                marked.last = marked.host[length - 1];
        }
        __real_memory_mark(of, host, length);
}

/* All pages of a region, as memory_log_take() tells them. */
static uint64_t *take(unsigned index)
{
        uint64_t *bits = calloc(memory.regions[index].size / PAGE / 64, 8);

        assert_non_null(bits);
        assert_int_equal(memory_log_take(&memory, &memory.regions[index], bits, NULL), 0);
        return bits;
}

/* Exactly @count pages of the region were written, from @first on. */
static void assert_taken(unsigned index, uint64_t first, uint64_t count)
{
        uint64_t *bits = take(index);

        for (uint64_t page = 0; page < memory.regions[index].size / PAGE; page++)
                assert_int_equal(bits[page / 64] >> (page % 64) & 1,
                                 page >= first && page < first + count);
        free(bits);
}

static void assert_range(uint64_t gpa, uint64_t length, unsigned index, uint64_t offset)
{
        assert_ptr_equal(guest_range(&memory, gpa, length), memory.regions[index].host + offset);
}

static void assert_no_range(uint64_t gpa, uint64_t length)
{
        assert_null(guest_range(&memory, gpa, length));
}

static void test_ranges_of_a_small_machine(void **state)
{
        make(LAYOUT_RAM_MIN);
        assert_int_equal(memory.n, 1);
        assert_true(memory.low_size == LAYOUT_RAM_MIN && memory.high_size == 0);
        assert_range(0, 1, 0, 0);
        assert_range(0, LAYOUT_RAM_MIN, 0, 0);
        assert_range(LAYOUT_RAM_MIN - 1, 1, 0, LAYOUT_RAM_MIN - 1);
        assert_no_range(0, 0);
        assert_no_range(0, LAYOUT_RAM_MIN + 1);
        assert_no_range(LAYOUT_RAM_MIN - 1, 2);
        assert_no_range(LAYOUT_RAM_MIN, 0);
        assert_no_range(LAYOUT_RAM_MIN, 1);
        assert_no_range(LAYOUT_RAM_HIGH, 1);
        /* Lengths and addresses whose sum goes round. */
        assert_no_range(1, UINT64_MAX);
        assert_no_range(4096, UINT64_MAX - 4095);
        assert_no_range(LAYOUT_RAM_MIN - 1, UINT64_MAX);
        assert_no_range(UINT64_MAX, 1);
        assert_no_range(UINT64_MAX, 2);
        assert_no_range(UINT64_MAX, UINT64_MAX);
}

static void test_ranges_around_the_hole(void **state)
{
        make(LAYOUT_RAM_LOW_MAX + LAYOUT_RAM_UNIT);
        assert_int_equal(memory.n, 2);
        assert_true(memory.low_size == LAYOUT_RAM_LOW_MAX && memory.high_size == LAYOUT_RAM_UNIT);
        assert_range(LAYOUT_RAM_LOW_MAX - 8, 8, 0, LAYOUT_RAM_LOW_MAX - 8);
        assert_no_range(LAYOUT_RAM_LOW_MAX - 8, 9);
        assert_no_range(LAYOUT_RAM_LOW_MAX, 1);
        assert_no_range(LAYOUT_RAM_HIGH - 1, 1);
        assert_no_range(LAYOUT_RAM_HIGH - 1, 2);
        assert_range(LAYOUT_RAM_HIGH, LAYOUT_RAM_UNIT, 1, 0);
        assert_no_range(LAYOUT_RAM_HIGH, LAYOUT_RAM_UNIT + 1);
        assert_range(LAYOUT_RAM_HIGH + LAYOUT_RAM_UNIT - 1, 1, 1, LAYOUT_RAM_UNIT - 1);
        assert_no_range(LAYOUT_RAM_HIGH + LAYOUT_RAM_UNIT, 1);
        /* Not across the hole, although both ends are memory. */
        assert_no_range(0, LAYOUT_RAM_HIGH + 1);
}

static void test_all_below_the_hole_needs_no_second_region(void **state)
{
        make(LAYOUT_RAM_LOW_MAX);
        assert_int_equal(memory.n, 1);
        assert_true(memory.high_size == 0);
}

static void test_firmware_is_no_ram(void **state)
{
        struct guest_region *region;

        make(LAYOUT_RAM_LOW_MAX + LAYOUT_RAM_UNIT);
        assert_int_equal(memory_add(&memory, GIB(4) - MIB(2), MIB(2), false, true, &region, NULL),
                         0);
        /* In its place by address, with a slot of its own. */
        assert_int_equal(memory.n, 3);
        assert_ptr_equal(region, &memory.regions[1]);
        assert_true(memory.regions[2].gpa == LAYOUT_RAM_HIGH);
        assert_int_equal(memory.regions[0].slot, 0);
        assert_int_equal(memory.regions[1].slot, 2);
        assert_int_equal(memory.regions[2].slot, 1);
        assert_false(region->shared);
        assert_no_range(GIB(4) - MIB(2), 1);
        assert_no_range(GIB(4) - 1, 1);
        assert_range(LAYOUT_RAM_HIGH, 1, 2, 0);
        /* Next to it, in either order, nothing runs over. */
        assert_int_equal(memory_add(&memory, GIB(4) - MIB(4), MIB(2), false, false, &region, NULL),
                         0);
        assert_no_range(GIB(4) - MIB(2) - 1, 2);
        assert_ptr_equal(guest_range(&memory, GIB(4) - MIB(2) - 1, 1), region->host + MIB(2) - 1);
}

/* Two regions that touch are two all the same. */
static void test_ranges_of_neighbours(void **state)
{
        make(LAYOUT_RAM_MIN);
        assert_int_equal(
            memory_add(&memory, LAYOUT_RAM_MIN, LAYOUT_RAM_UNIT, false, false, NULL, NULL), 0);
        assert_range(LAYOUT_RAM_MIN, LAYOUT_RAM_UNIT, 1, 0);
        assert_range(LAYOUT_RAM_MIN - 1, 1, 0, LAYOUT_RAM_MIN - 1);
        assert_no_range(LAYOUT_RAM_MIN - 1, 2);
}

/* What back ends hold cannot be cut off below us. */
static void test_nobody_can_shrink_it(void **state)
{
        make(LAYOUT_RAM_MIN);
        assert_int_equal(ftruncate(memory.regions[0].fd, 4096), -1);
        assert_int_equal(errno, EPERM);
        assert_int_equal(ftruncate(memory.regions[0].fd, (off_t)GIB(1)), -1);
        assert_int_equal(fcntl(memory.regions[0].fd, F_GETFD), FD_CLOEXEC);
}

/* There are none, or not so many: a sentence and no signal. */
static void test_huge_pages_that_are_not_there(void **state)
{
        struct error err = ERROR_INIT;

        assert_true(memory_new(&memory, -1, LAYOUT_RAM_MAX, true, &err) < 0);
        assert_true(err.message[0] != '\0');
        assert_int_equal(memory.n, 0);
}

static void test_without_a_log_nothing_is_noted(void **state)
{
        make(LAYOUT_RAM_MIN);
        memory_mark(&memory, memory.regions[0].host, PAGE);
        memory_log_end(&memory);
        assert_int_equal(memory_log_begin(&memory, NULL), 0);
        assert_taken(0, 0, 0);
}

static void test_marks_at_every_edge(void **state)
{
        static const struct {
                uint64_t at, length, first, count;
        } marks[] = {
            {0, 1, 0, 1},
            {0, 0, 0, 0},
            {PAGE - 1, 1, 0, 1},
            {PAGE - 1, 2, 0, 2},
            {PAGE, PAGE, 1, 1},
            {PAGE, PAGE + 1, 1, 2},
            {63 * PAGE, 2 * PAGE, 63, 2},
            {7 * PAGE + 5, 64 * PAGE, 7, 65},
            {LAYOUT_RAM_MIN - 1, 1, LAYOUT_RAM_MIN / PAGE - 1, 1},
            {0, LAYOUT_RAM_MIN, 0, LAYOUT_RAM_MIN / PAGE},
        };

        make(LAYOUT_RAM_MIN);
        assert_int_equal(memory_log_begin(&memory, NULL), 0);
        for (size_t i = 0; i < sizeof(marks) / sizeof(marks[0]); i++) {
                memory_mark(&memory, memory.regions[0].host + marks[i].at, marks[i].length);
                assert_taken(0, marks[i].first, marks[i].count);
                assert_taken(0, 0, 0); /* it was forgotten */
        }
}

/* Who takes the log between a mark and the change would copy what there was before. */
static void test_what_is_emptied_is_marked_afterwards(void **state)
{
        uint8_t *at;

        make(LAYOUT_RAM_MIN);
        at = guest_range(&memory, 0, 4 * PAGE);
        memset(at, 0x55, 4 * PAGE);
        memory_discard(&memory, at + PAGE, PAGE);
        assert_ptr_equal(marked.host, at + PAGE);
        assert_int_equal(marked.length, PAGE);
        assert_int_equal(marked.first, 0);
        memory_zero(&memory, at + 1, 3 * PAGE);
        assert_ptr_equal(marked.host, at + 1);
        assert_int_equal(marked.length, 3 * PAGE);
        assert_int_equal(marked.first, 0);
        assert_int_equal(marked.last, 0);
        /* Less than a page. */
        memory_zero(&memory, at + 3 * PAGE + 1, 5);
        assert_ptr_equal(marked.host, at + 3 * PAGE + 1);
        assert_int_equal(marked.first, 0);
        assert_int_equal(marked.last, 0);
        assert_int_equal(at[0], 0x55);
        assert_int_equal(at[3 * PAGE + 6], 0x55);
}

static void test_what_is_taken_is_added(void **state)
{
        uint64_t *bits;

        make(LAYOUT_RAM_MIN);
        assert_int_equal(memory_log_begin(&memory, NULL), 0);
        memory_mark(&memory, memory.regions[0].host, 1);
        bits = take(0);
        memory_mark(&memory, memory.regions[0].host + 2 * PAGE, 1);
        assert_int_equal(memory_log_take(&memory, &memory.regions[0], bits, NULL), 0);
        assert_int_equal(bits[0], 5);
        free(bits);
}

/* Regions do not take each other's pages, and one that ends where another begins does not either. */
static void test_marks_of_several_regions(void **state)
{
        make(LAYOUT_RAM_LOW_MAX + LAYOUT_RAM_UNIT);
        assert_int_equal(memory_add(&memory, GIB(4) - MIB(2), MIB(2), false, true, NULL, NULL), 0);
        assert_int_equal(memory_log_begin(&memory, NULL), 0);
        memory_mark(&memory, guest_range(&memory, LAYOUT_RAM_HIGH + 3 * PAGE, 1), 1);
        memory_mark(&memory, guest_range(&memory, LAYOUT_RAM_LOW_MAX - 1, 1), 1);
        memory_mark(&memory, memory.regions[1].host, MIB(2));
        assert_taken(0, LAYOUT_RAM_LOW_MAX / PAGE - 1, 1);
        assert_taken(2, 3, 1);
        /* What is no guest memory at all is nobody's. */
        memory_mark(&memory, &memory, sizeof(memory));
        assert_taken(0, 0, 0);
        assert_taken(2, 0, 0);
}

/* As a vhost-user back end writes it: into the descriptor, by the layout of vhost's log. */
static void test_marks_of_another_process(void **state)
{
        uint8_t *bits;

        make(LAYOUT_RAM_LOW_MAX + LAYOUT_RAM_UNIT);
        assert_int_equal(memory_log_begin(&memory, NULL), 0);
        bits = mmap(NULL, memory.log->size, PROT_READ | PROT_WRITE, MAP_SHARED, memory.log->fd, 0);
        assert_true(bits != MAP_FAILED);
        assert_true(memory.log->size >= (LAYOUT_RAM_HIGH + LAYOUT_RAM_UNIT) / PAGE / 8);
        bits[(LAYOUT_RAM_HIGH / PAGE + 9) / 8] = 2;
        bits[1] = 0x80;
        assert_taken(1, 9, 1);
        assert_taken(0, 15, 1);
        /* What lies in no region is not to be found, and harms nothing. */
        memset(bits + LAYOUT_RAM_LOW_MAX / PAGE / 8, 0xff,
               (LAYOUT_RAM_HIGH - LAYOUT_RAM_LOW_MAX) / PAGE / 8);
        assert_taken(0, 0, 0);
        assert_taken(1, 0, 0);
        /* Nor can the log be cut off below us. */
        assert_int_equal(ftruncate(memory.log->fd, 0), -1);
        munmap(bits, memory.log->size);
}

static void test_a_log_begins_empty(void **state)
{
        make(LAYOUT_RAM_MIN);
        assert_int_equal(memory_log_begin(&memory, NULL), 0);
        memory_mark(&memory, memory.regions[0].host, LAYOUT_RAM_MIN);
        memory_log_end(&memory);
        assert_null(memory.log);
        memory_log_end(&memory);
        assert_int_equal(memory_log_begin(&memory, NULL), 0);
        assert_taken(0, 0, 0);
}

/* All that may have been written: what was never touched is not. */
static void test_all_that_was_touched(void **state)
{
        make(LAYOUT_RAM_MIN);
        memory.regions[0].host[17 * PAGE + 1] = 1;
        memory.regions[0].host[LAYOUT_RAM_MIN - 1] = 1;
        memory_log_touched(&memory); /* nobody wants to know */
        assert_int_equal(memory_log_begin(&memory, NULL), 0);
        assert_taken(0, 0, 0);
        memory_log_touched(&memory);
        {
                uint64_t *bits = take(0);

                assert_true(bits[0] == 1u << 17);
                assert_true(bits[LAYOUT_RAM_MIN / PAGE / 64 - 1] == UINT64_C(1) << 63);
                free(bits);
        }
}

/* Memory as any other to who gets it, and in no folder. */
static bool is_memory(int fd)
{
        struct stat st;
        char *at;
        bool good;

        if (fstat(fd, &st) < 0 || st.st_size != LAYOUT_RAM_MIN || st.st_nlink != 0 ||
            fcntl(fd, F_GET_SEALS) < 0)
                return false;
        at = mmap(NULL, LAYOUT_RAM_MIN, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (at == MAP_FAILED)
                return false;
        good = at[LAYOUT_RAM_MIN - 1] == 0;
        at[LAYOUT_RAM_MIN - 1] = 1;
        munmap(at, LAYOUT_RAM_MIN);
        return good && fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) == 0;
}

static void test_a_file_of_large_pages(void **state)
{
        int lowest = dup(STDIN_FILENO), fd;

        close(lowest);
        fd = memory_file_huge(LAYOUT_RAM_MIN);
        if (fd < 0)
                skip(); /* this kernel, or who runs us, has none */
        assert_true(is_memory(fd));
        /* What it took meanwhile is free again. */
        assert_int_equal(dup(STDIN_FILENO), lowest);
        close(lowest);
        close(fd);
}

/* As a user of no rights: the process that helps has ended, and we are who we were. */
static void test_a_file_of_large_pages_without_rights(void **state)
{
        enum { GOOD = 0, BAD = 1, NONE = 2 };
        int status;
        pid_t pid;

        if (geteuid() != 0)
                skip(); /* the other test is this one */
        pid = fork();
        if (pid == 0) {
                int fd;

                /* A program that was started by that user is dumpable: its /proc is its own. */
                if (setgid(65534) < 0 || setuid(65534) < 0 || prctl(PR_SET_DUMPABLE, 1) < 0)
                        _exit(BAD);
                fd = memory_file_huge(LAYOUT_RAM_MIN);
                if (fd < 0)
                        _exit(NONE);
                _exit(is_memory(fd) && waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD &&
                              geteuid() == 65534
                          ? GOOD
                          : BAD);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        assert_int_not_equal(WEXITSTATUS(status), BAD);
        if (WEXITSTATUS(status) == NONE)
                skip();
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test_teardown(test_ranges_of_a_small_machine, tear_down),
            cmocka_unit_test_teardown(test_ranges_around_the_hole, tear_down),
            cmocka_unit_test_teardown(test_all_below_the_hole_needs_no_second_region, tear_down),
            cmocka_unit_test_teardown(test_firmware_is_no_ram, tear_down),
            cmocka_unit_test_teardown(test_ranges_of_neighbours, tear_down),
            cmocka_unit_test_teardown(test_nobody_can_shrink_it, tear_down),
            cmocka_unit_test_teardown(test_huge_pages_that_are_not_there, tear_down),
            cmocka_unit_test_teardown(test_without_a_log_nothing_is_noted, tear_down),
            cmocka_unit_test_teardown(test_marks_at_every_edge, tear_down),
            cmocka_unit_test_teardown(test_what_is_emptied_is_marked_afterwards, tear_down),
            cmocka_unit_test_teardown(test_what_is_taken_is_added, tear_down),
            cmocka_unit_test_teardown(test_marks_of_several_regions, tear_down),
            cmocka_unit_test_teardown(test_marks_of_another_process, tear_down),
            cmocka_unit_test_teardown(test_a_log_begins_empty, tear_down),
            cmocka_unit_test_teardown(test_all_that_was_touched, tear_down),
            cmocka_unit_test(test_a_file_of_large_pages),
            cmocka_unit_test(test_a_file_of_large_pages_without_rights),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
