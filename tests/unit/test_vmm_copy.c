/* test_vmm_copy.c - the guest's memory into a file while others change it, and back: what is in the file
 * at the end is the memory, or there is a sentence. */
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
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "tests/vmm/machine_fixture.h"
#include "vmm-glue/vmm/memory_copy.h"

#define PAGE  MEMORY_LOG_PAGE
#define PAGES (LAYOUT_RAM_MIN / PAGE)

static struct machine_fixture *f;
static int file;
static struct {
        unsigned n;
        int result;
        char sentence[256];
        bool cancel; /* from within */
} copied;

/* A device whose memory another writes. */
static struct {
        struct device device;
        unsigned n_on, n_off;
        int refuse;
        bool full; /* once the file is made nothing goes into it any more */
} writer;

/* lseek(2) fails so, on the saved file. (By the name that it has where files may be large.) */
static int data_error, hole_error;

off_t __real_lseek64(int fd, off_t offset, int whence);
off_t __wrap_lseek64(int fd, off_t offset, int whence);
off_t __wrap_lseek64(int fd, off_t offset, int whence)
{
        const int error = whence == SEEK_DATA ? data_error : whence == SEEK_HOLE ? hole_error : 0;

        if (fd == file && error) {
                errno = error;
                return -1;
        }
        return __real_lseek64(fd, offset, whence);
}

static void limit_files(rlim_t size)
{
        struct rlimit limit;

        assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
        limit.rlim_cur = size;
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static int log_writer(struct device *device, bool on, struct error *err)
{
        if (on)
                writer.n_on++;
        else
                writer.n_off++;
        if (on && writer.full)
                limit_files(PAGE);
        return on && writer.refuse ? error_set(err, writer.refuse, "the back end does not log") : 0;
}

static void free_writer(struct device *device)
{
}

static const struct device_ops writer_ops = {.version = 1, .log = log_writer, .free = free_writer};
static const struct device_ops silent_ops = {.version = 1, .free = free_writer};
static struct device silent = {.ops = &silent_ops, .id = "silent"};

static void set_up_of(uint64_t size)
{
        f = fixture_new(size, NULL);
        file = memfd_create("saved", MFD_CLOEXEC);
        assert_true(file >= 0);
        copied.n = 0;
        copied.cancel = false;
        memset(&writer, 0, sizeof(writer));
        writer.device = (struct device){.ops = &writer_ops, .id = "writer"};
        machine_add_device(&f->machine, &silent);
        machine_add_device(&f->machine, &writer.device);
}

static int set_up(void **state)
{
        signal(SIGXFSZ, SIG_IGN);
        set_up_of(LAYOUT_RAM_MIN);
        return 0;
}

static int tear_down(void **state)
{
        limit_files(RLIM_INFINITY);
        data_error = hole_error = 0;
        memory_copy_cancel(&f->machine);
        assert_int_equal(writer.n_on > 0, writer.n_off > 0);
        assert_null(f->machine.memory.log);
        fixture_free(f);
        close(file);
        return 0;
}

static void on_copied(void *arg, int result, const char *sentence)
{
        assert_ptr_equal(arg, &copied);
        copied.n++;
        copied.result = result;
        copied.sentence[0] = '\0';
        if (sentence)
                strncpy(copied.sentence, sentence, sizeof(copied.sentence) - 1);
        if (copied.cancel)
                memory_copy_cancel(&f->machine);
        loop_stop(f->machine.loop);
}

static void begin(void)
{
        assert_int_equal(memory_copy_begin(&f->machine, file, on_copied, &copied, NULL), 0);
}

static void wait_copied(void)
{
        loop_run(f->machine.loop);
        assert_int_equal(copied.n, 1);
}

static uint8_t *page_at(uint64_t page)
{
        return f->machine.memory.regions[0].host + page * PAGE;
}

static void fill(uint64_t page, uint8_t first)
{
        for (unsigned i = 0; i < PAGE; i++)
                page_at(page)[i] = (uint8_t)(first + i % 251);
}

static void assert_same(void)
{
        static uint8_t bytes[PAGE];

        for (uint64_t page = 0; page < PAGES; page++) {
                assert_int_equal(pread(file, bytes, PAGE, (off_t)(page * PAGE)), PAGE);
                assert_memory_equal(bytes, page_at(page), PAGE);
        }
}

static uint64_t file_bytes(void)
{
        struct stat st;

        assert_int_equal(fstat(file, &st), 0);
        assert_int_equal(st.st_size, LAYOUT_RAM_MIN);
        return (uint64_t)st.st_blocks * 512;
}

static void finish(uint64_t bytes)
{
        uint64_t rest = 99;

        assert_int_equal(memory_copy_finish(&f->machine, &rest, NULL), 0);
        assert_int_equal(rest, bytes);
        assert_null(f->machine.copy);
        assert_null(f->machine.memory.log);
        assert_int_equal(writer.n_on, 1);
        assert_int_equal(writer.n_off, 1);
}

static void test_all_is_written(void **state)
{
        /* First and last, runs longer than one write, and one that crosses a word of bits. */
        fill(0, 1);
        for (uint64_t page = 10; page < 700; page++)
                fill(page, (uint8_t)page);
        fill(PAGES - 1, 7);
        /* A page of zeroes but for its last byte, or its first. */
        page_at(1000)[PAGE - 1] = 1;
        page_at(1100)[0] = 1;
        begin();
        assert_non_null(f->machine.memory.log);
        wait_copied();
        assert_int_equal(copied.result, 0);
        finish(0);
        assert_same();
        assert_int_equal(file_bytes(), (2 + 690 + 2) * PAGE);
}

static void test_zeroes_are_holes(void **state)
{
        memset(page_at(0), 0, LAYOUT_RAM_MIN); /* touched, all of it */
        fill(5, 1);
        fill(77, 1);
        begin();
        wait_copied();
        finish(0);
        assert_same();
        assert_int_equal(file_bytes(), 2 * PAGE);
}

static void test_what_was_in_the_file_is_gone(void **state)
{
        assert_int_equal(ftruncate(file, (off_t)LAYOUT_RAM_MIN * 2), 0);
        assert_int_equal(pwrite(file, "x", 1, 100 * PAGE), 1);
        fill(3, 1);
        begin();
        wait_copied();
        finish(0);
        assert_same();
        assert_int_equal(file_bytes(), PAGE);
}

static void test_changes_arrive_at_the_end(void **state)
{
        fill(1, 1);
        fill(2, 2);
        begin();
        wait_copied();
        fill(1, 100);
        memory_mark(&f->machine.memory, page_at(1), 1);
        /* Where there was nothing, and where there is nothing any more: no longer a hole. */
        fill(PAGES - 1, 3);
        memory_mark(&f->machine.memory, page_at(PAGES - 1), PAGE);
        memset(page_at(2), 0, PAGE);
        memory_mark(&f->machine.memory, page_at(2), PAGE);
        finish(3 * PAGE);
        assert_same();
}

/* Who has begun anew has written he does not know what. */
static void test_all_that_was_touched_arrives_at_the_end(void **state)
{
        fill(1, 1);
        begin();
        wait_copied();
        fill(1, 50);
        fill(200, 1);
        memory_log_touched(&f->machine.memory);
        finish(2 * PAGE);
        assert_same();
}

static atomic_bool stop_changing;

/* Memory is copied while it is changed, on purpose: what is torn is in the log (memory_copy.c). */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
        return "race:write_region\n";
}

static void *change(void *arg)
{
        uint64_t x = 1;

        while (!atomic_load(&stop_changing)) {
                uint8_t *page;

                x = x * UINT64_C(6364136223846793005) + 1442695040888963407;
                page = page_at((x >> 33) % PAGES);
                memset(page + (x >> 20) % 4000, (int)(x >> 50), 90);
                memory_mark(&f->machine.memory, page, PAGE);
        }
        return NULL;
}

/* All is copied while that thread changes it. */
static void copy_while(void *(*changes)(void *arg))
{
        pthread_t thread;

        begin();
        atomic_store(&stop_changing, false);
        assert_int_equal(pthread_create(&thread, NULL, changes, NULL), 0);
        wait_copied();
        assert_int_equal(copied.result, 0);
        atomic_store(&stop_changing, true);
        pthread_join(thread, NULL);
}

static void test_changes_all_the_time(void **state)
{
        uint64_t rest;

        for (uint64_t page = 0; page < PAGES; page++)
                fill(page, (uint8_t)page);
        copy_while(change);
        assert_int_equal(memory_copy_finish(&f->machine, &rest, NULL), 0);
        assert_same();
}

/* A guest that changes all of its memory each time it has run for some milliseconds, and may not run when
 * vCPUs may not. */
#define FAST_SIZE MIB(256)
#define PARTS     64u /* a pass over all of it is so many parts, each followed by a look */
static atomic_bool has_rested;

static bool may_run(void)
{
        struct run *run = &f->machine.run;
        bool go;

        pthread_mutex_lock(&run->mutex);
        go = run->go;
        pthread_mutex_unlock(&run->mutex);
        return go;
}

static void *change_fast(void *arg)
{
        const uint64_t part = FAST_SIZE / PARTS;

        for (unsigned i = 0; !atomic_load(&stop_changing); i++) {
                if (!may_run()) {
                        atomic_store(&has_rested, true);
                        usleep(100);
                        continue;
                }
                memory_mark(&f->machine.memory,
                            f->machine.memory.regions[0].host + i % PARTS * part, part);
                usleep(200);
        }
        return NULL;
}

static void copy_of_a_fast_guest(void)
{
        tear_down(NULL);
        set_up_of(FAST_SIZE);
        for (uint64_t page = 0; page < FAST_SIZE / PAGE; page++)
                fill(page, (uint8_t)page);
        run_go(&f->machine);
        atomic_store(&has_rested, false);
        copy_while(change_fast);
        assert_true(atomic_load(&has_rested));
}

static void test_a_guest_that_is_faster(void **state)
{
        uint64_t rest;

        copy_of_a_fast_guest();
        assert_int_equal(memory_copy_finish(&f->machine, &rest, NULL), 0);
        /* What was little, and some milliseconds more. */
        assert_in_range(rest, 0, FAST_SIZE / 2);
        assert_true(may_run());
}

/* One that may not run is not let go by that, nor when the copy is given up. */
static void test_a_paused_guest_stays_so(void **state)
{
        copy_of_a_fast_guest();
        for (unsigned i = 0; may_run(); i++) {
                assert_true(i < 1000);
                fixture_run(f);
        }
        f->machine.run.paused = true;
        run_rest(&f->machine);
        usleep(100000);
        fixture_run(f);
        assert_false(may_run());
        memory_copy_cancel(&f->machine);
        assert_false(may_run());
}

static void test_one_at_a_time(void **state)
{
        struct error err = ERROR_INIT;

        begin();
        assert_int_equal(memory_copy_begin(&f->machine, file, on_copied, &copied, &err), -EBUSY);
        assert_string_equal(err.message, "the guest's memory is being written already");
        wait_copied();
        assert_int_equal(memory_copy_begin(&f->machine, file, on_copied, &copied, NULL), -EBUSY);
        finish(0);
        copied.n = 0;
        begin();
        wait_copied();
}

static void test_cancel_at_once(void **state)
{
        memory_copy_cancel(&f->machine); /* there is none */
        for (uint64_t page = 0; page < PAGES; page++)
                fill(page, 1);
        begin();
        memory_copy_cancel(&f->machine);
        assert_null(f->machine.copy);
        assert_null(f->machine.memory.log);
        assert_int_equal(writer.n_off, 1);
        memory_copy_cancel(&f->machine);
        /* The next does not wait for the old one's task, and is not taken for it. */
        begin();
        wait_copied();
        assert_int_equal(copied.result, 0);
        fixture_run(f);
        assert_int_equal(copied.n, 1);
        assert_same();
        memory_copy_cancel(&f->machine);
        assert_null(f->machine.memory.log);
        assert_int_equal(writer.n_off, 2);
}

static void test_cancelled_is_not_copied(void **state)
{
        begin();
        memory_copy_cancel(&f->machine);
        fixture_run(f);
        assert_int_equal(copied.n, 0);
        /* And when the thread has come to its end. */
        begin();
        usleep(50000);
        memory_copy_cancel(&f->machine);
        fixture_run(f);
        assert_int_equal(copied.n, 0);
}

static void test_cancel_when_told(void **state)
{
        copied.cancel = true;
        begin();
        wait_copied();
        assert_int_equal(copied.result, 0);
        assert_null(f->machine.copy);
        assert_null(f->machine.memory.log);
        fixture_run(f);
}

static void test_no_room_for_the_file(void **state)
{
        struct error err = ERROR_INIT;

        limit_files(LAYOUT_RAM_MIN - 1);
        assert_int_equal(memory_copy_begin(&f->machine, file, on_copied, &copied, &err), -EFBIG);
        assert_string_equal(err.message,
                            "cannot make a file for the guest's memory: File too large");
        assert_null(f->machine.copy);
        assert_int_equal(writer.n_on, 0);
}

static void test_no_room_while_it_is_written(void **state)
{
        fill(0, 1);
        fill(9, 1);
        writer.full = true;
        begin();
        wait_copied();
        assert_int_equal(copied.result, -EFBIG);
        assert_string_equal(copied.sentence, "cannot write the guest's memory: File too large");
        /* There is nothing to finish. */
        assert_null(f->machine.copy);
        assert_null(f->machine.memory.log);
        assert_int_equal(writer.n_off, 1);
        /* And the next one is as good as any. */
        limit_files(RLIM_INFINITY);
        writer.full = false;
        copied.n = 0;
        begin();
        wait_copied();
        assert_int_equal(copied.result, 0);
        assert_same();
}

static void test_no_room_for_the_rest(void **state)
{
        struct error err = ERROR_INIT;
        uint64_t rest;

        begin();
        wait_copied();
        limit_files(PAGE);
        fill(9, 1);
        memory_mark(&f->machine.memory, page_at(9), PAGE);
        assert_int_equal(memory_copy_finish(&f->machine, &rest, &err), -EFBIG);
        assert_string_equal(err.message, "cannot write the guest's memory: File too large");
        assert_null(f->machine.copy);
        assert_null(f->machine.memory.log);
        assert_int_equal(writer.n_off, 1);
}

/* Its owner may have paused it just then, which does nothing. */
static void test_a_machine_that_has_ended(void **state)
{
        struct error err = ERROR_INIT;
        uint64_t rest = 1;

        begin();
        wait_copied();
        f->machine.run.ended = true;
        assert_int_equal(memory_copy_finish(&f->machine, &rest, &err), -ESHUTDOWN);
        assert_string_equal(err.message, "the machine has come to its end");
        assert_null(f->machine.copy);
        assert_null(f->machine.memory.log);
        assert_int_equal(writer.n_off, 1);
}

static void test_a_file_that_cannot_be_written(void **state)
{
        int fds[2];
        struct error err = ERROR_INIT;

        assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
        assert_true(memory_copy_begin(&f->machine, fds[1], on_copied, &copied, &err) < 0);
        assert_null(f->machine.copy);
        close(fds[0]);
        close(fds[1]);
}

static void test_a_device_that_does_not_log(void **state)
{
        struct error err = ERROR_INIT;

        writer.refuse = -EOPNOTSUPP;
        assert_int_equal(memory_copy_begin(&f->machine, file, on_copied, &copied, &err),
                         -EOPNOTSUPP);
        assert_string_equal(err.message, "the back end does not log");
        assert_null(f->machine.copy);
        assert_null(f->machine.memory.log);
        fixture_run(f);
        assert_int_equal(copied.n, 0);
}

/* Regions follow each other in the file, in the order of their addresses; firmware is not in it. */
static void test_both_sides_of_the_hole(void **state)
{
        const uint64_t size = LAYOUT_RAM_LOW_MAX + LAYOUT_RAM_UNIT;
        struct guest_memory *memory;
        struct stat st;
        char bytes[4];
        uint64_t rest;

        tear_down(NULL);
        set_up_of(size);
        memory = &f->machine.memory;
        assert_int_equal(memory_add(memory, GIB(4) - MIB(2), MIB(2), false, true, NULL, NULL), 0);
        memcpy(memory->regions[0].host + LAYOUT_RAM_LOW_MAX - 4, "last", 4);
        memcpy(memory->regions[1].host, "firm", 4);
        memcpy(memory->regions[2].host, "high", 4);
        memcpy(memory->regions[2].host + LAYOUT_RAM_UNIT - 4, "end.", 4);
        begin();
        wait_copied();
        assert_int_equal(copied.result, 0);
        memcpy(memory->regions[2].host, "HIGH", 4);
        memory_mark(memory, memory->regions[2].host, 1);
        assert_int_equal(memory_copy_finish(&f->machine, &rest, NULL), 0);
        assert_int_equal(rest, PAGE);
        assert_int_equal(fstat(file, &st), 0);
        assert_int_equal(st.st_size, size);
        assert_int_equal(st.st_blocks * 512, 3 * PAGE);
        assert_int_equal(pread(file, bytes, 4, (off_t)LAYOUT_RAM_LOW_MAX - 4), 4);
        assert_memory_equal(bytes, "last", 4);
        assert_int_equal(pread(file, bytes, 4, (off_t)LAYOUT_RAM_LOW_MAX), 4);
        assert_memory_equal(bytes, "HIGH", 4);

        memset(memory->regions[0].host, 'x', 4);
        memset(memory->regions[0].host + LAYOUT_RAM_LOW_MAX - 4, 'x', 4);
        memset(memory->regions[2].host, 'x', LAYOUT_RAM_UNIT);
        assert_int_equal(memory_copy_load(&f->machine, file, NULL), 0);
        assert_memory_equal(memory->regions[0].host, "\0\0\0\0", 4);
        assert_memory_equal(memory->regions[0].host + LAYOUT_RAM_LOW_MAX - 4, "last", 4);
        assert_memory_equal(memory->regions[1].host, "firm", 4);
        assert_memory_equal(memory->regions[2].host, "HIGH\0\0\0\0", 8);
        assert_memory_equal(memory->regions[2].host + LAYOUT_RAM_UNIT - 5, "\0end.", 5);
}

static void test_loaded_is_what_was_saved(void **state)
{
        uint8_t *before = malloc(LAYOUT_RAM_MIN);

        assert_non_null(before);
        fill(0, 1);
        fill(700, 1);
        fill(701, 2);
        fill(PAGES - 1, 3);
        begin();
        wait_copied();
        finish(0);
        memcpy(before, page_at(0), LAYOUT_RAM_MIN);
        /* What was loaded for a fresh start is not what was there. */
        memset(page_at(0), 0xee, LAYOUT_RAM_MIN);
        assert_int_equal(memory_copy_load(&f->machine, file, NULL), 0);
        assert_memory_equal(page_at(0), before, LAYOUT_RAM_MIN);
        free(before);
}

/* What is reserved for the guest stays so: here the pages that the file has are what tells. */
static void test_huge_pages_are_kept(void **state)
{
        struct guest_region *region = &f->machine.memory.regions[0];
        struct stat before, after;

        fill(7, 1);
        begin();
        wait_copied();
        finish(0);
        memset(page_at(0), 0xee, LAYOUT_RAM_MIN);
        assert_int_equal(fstat(region->fd, &before), 0);
        region->huge = true;
        assert_int_equal(memory_copy_load(&f->machine, file, NULL), 0);
        assert_int_equal(fstat(region->fd, &after), 0);
        assert_int_equal(after.st_blocks, before.st_blocks);
        assert_same();
}

static void test_files_that_are_no_memory(void **state)
{
        struct error err = ERROR_INIT;
        int fds[2], folder = open("/", O_RDONLY | O_CLOEXEC);

        assert_int_equal(ftruncate(file, 0), 0);
        assert_int_equal(memory_copy_load(&f->machine, file, &err), -EINVAL);
        assert_int_equal(ftruncate(file, (off_t)LAYOUT_RAM_MIN - 1), 0);
        assert_int_equal(memory_copy_load(&f->machine, file, &err), -EINVAL);
        assert_int_equal(ftruncate(file, (off_t)LAYOUT_RAM_MIN * 2), 0);
        assert_int_equal(memory_copy_load(&f->machine, file, &err), -EINVAL);
        assert_string_equal(err.message, "the saved memory is of 64 MiB, and this machine's of 32");
        assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
        assert_int_equal(memory_copy_load(&f->machine, fds[0], &err), -EINVAL);
        assert_string_equal(err.message, "the saved memory is not a file");
        assert_int_equal(memory_copy_load(&f->machine, folder, &err), -EINVAL);
        close(folder);
        close(fds[0]);
        close(fds[1]);
}

/* A file system that fails is no file of zeroes, and nothing is read to where it does not belong. */
static void test_a_file_that_cannot_be_read(void **state)
{
        struct error err = ERROR_INIT;

        assert_int_equal(ftruncate(file, (off_t)LAYOUT_RAM_MIN), 0);
        assert_int_equal(pwrite(file, "x", 1, 5 * PAGE), 1);
        data_error = EIO;
        assert_int_equal(memory_copy_load(&f->machine, file, &err), -EIO);
        assert_string_equal(err.message, "cannot read the saved memory: Input/output error");
        data_error = 0;
        hole_error = EIO;
        assert_int_equal(memory_copy_load(&f->machine, file, &err), -EIO);
        hole_error = ENXIO; /* cut off meanwhile */
        assert_int_equal(memory_copy_load(&f->machine, file, &err), -ENXIO);
        hole_error = 0;
        assert_int_equal(memory_copy_load(&f->machine, file, &err), 0);
        assert_int_equal(page_at(5)[0], 'x');
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
        const struct CMUnitTest tests[] = {
            TEST(test_all_is_written),
            TEST(test_zeroes_are_holes),
            TEST(test_what_was_in_the_file_is_gone),
            TEST(test_changes_arrive_at_the_end),
            TEST(test_all_that_was_touched_arrives_at_the_end),
            TEST(test_changes_all_the_time),
            TEST(test_a_guest_that_is_faster),
            TEST(test_a_paused_guest_stays_so),
            TEST(test_one_at_a_time),
            TEST(test_cancel_at_once),
            TEST(test_cancelled_is_not_copied),
            TEST(test_cancel_when_told),
            TEST(test_no_room_for_the_file),
            TEST(test_no_room_while_it_is_written),
            TEST(test_no_room_for_the_rest),
            TEST(test_a_machine_that_has_ended),
            TEST(test_a_file_that_cannot_be_written),
            TEST(test_a_device_that_does_not_log),
            TEST(test_both_sides_of_the_hole),
            TEST(test_loaded_is_what_was_saved),
            TEST(test_huge_pages_are_kept),
            TEST(test_files_that_are_no_memory),
            TEST(test_a_file_that_cannot_be_read),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
