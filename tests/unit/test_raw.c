/* test_raw.c - image files: recognised by content; raw ones read and written with their holes. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include "tests/unit/image_fixture.h"

#define RAW(bytes) AS("raw", bytes)

static void put(struct fixture *f, const char *bytes, size_t n, off_t at)
{
        assert_int_equal(pwrite(f->fd, bytes, n, at), (ssize_t)n);
}

static void co_expect_format(struct fixture *f, const char *name)
{
        const struct image_driver *driver = NULL;
        bool guessed = false;

        assert_int_equal(co_image_probe(f->fd, "x", &driver, &guessed, NULL), 0);
        assert_string_equal(driver->name, name);
        assert_int_equal(guessed, strcmp(name, "raw") == 0);
}

static void co_probe_each(struct fixture *f)
{
        static const struct {
                const char *name;
                const char *magic;
                size_t n;
                off_t at;
        } known[] = {
            {"qcow2", "QFI\xfb", 4, 0},
            {"vmdk", "KDMV", 4, 0},
            {"vmdk", "COWD", 4, 0},
            {"vmdk", "# Disk DescriptorFile", 21, 0},
            {"vdi", "\x7f\x10\xda\xbe", 4, 64},
            {"vhdx", "vhdxfile", 8, 0},
            {"vhd", "conectix", 8, 0},
            {"vhd", "conectix", 8, 8192 - 512},
            {"compressed", "\x1f\x8b\x08", 3, 0},
        };

        for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
                struct image *image = NULL;
                struct error e = ERROR_INIT;

                assert_int_equal(ftruncate(f->fd, 0), 0);
                assert_int_equal(ftruncate(f->fd, 8192), 0);
                co_expect_format(f, "raw");
                put(f, known[i].magic, known[i].n, known[i].at);
                co_expect_format(f, known[i].name);
                assert_true(co_image_open(f->fd, "disk.x", NULL, &image, &e) < 0);
                assert_null(image);
                assert_non_null(strstr(e.message, "disk.x"));
        }
}

static void formats_are_recognised_and_never_taken_for_raw(void **state)
{
        run(*state, co_probe_each);
}

static void co_probe_short(struct fixture *f)
{
        for (off_t size = 0; size < 600; size += 7) {
                assert_int_equal(ftruncate(f->fd, size), 0);
                co_expect_format(f, "raw");
        }
}

static void files_shorter_than_any_header_are_raw(void **state)
{
        run(*state, co_probe_short);
}

/* Of 1 MiB, how many bytes are in memory. */
static size_t in_memory(int fd)
{
        size_t page = (size_t)sysconf(_SC_PAGESIZE), n = 0;
        void *map = mmap(NULL, MIB, PROT_READ, MAP_SHARED, fd, 0);
        uint8_t *there = calloc(MIB / page, 1);

        assert_true(map != MAP_FAILED && there);
        assert_int_equal(mincore(map, MIB, there), 0);
        for (size_t i = 0; i < MIB / page; i++)
                n += there[i] & 1 ? page : 0;
        free(there);
        munmap(map, MIB);
        return n;
}

static void co_leave_memory(struct fixture *f)
{
        const struct image_options options = {.format = "raw", .from_disk = true};
        static uint8_t data[MIB];
        struct statfs fs;
        struct image *image;

        assert_int_equal(fstatfs(f->fd, &fs), 0);
        memset(data, 1, sizeof(data));
        put(f, (char *)data, sizeof(data), 0);
        assert_int_equal(fdatasync(f->fd), 0);
        assert_int_equal(in_memory(f->fd), MIB);
        assert_int_equal(co_image_open(f->fd, "x", &options, &image, NULL), 0);
        if (fs.f_type != TMPFS_MAGIC)
                assert_int_equal(in_memory(f->fd), 0);
        image_close(image);
}

static void what_is_to_be_read_from_the_disk_leaves_memory(void **state)
{
        run(*state, co_leave_memory);
}

/* A file that is sealed, and a descriptor that is not for reading. */
static void co_fail_somewhere(struct fixture *f)
{
        int fd = memfd_create("sealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        struct error e = ERROR_INIT;
        char path[64], data[8192];
        struct image *image;

        assert_int_equal(co_image_create(fd, "disk.img", RAW(8192), &image, NULL), 0);
        assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
        assert_int_equal(image->driver->co_write(image, data, 4096, 4096, &e), -EPERM);
        assert_string_equal(e.message,
                            "cannot write 'disk.img' at offset 4096: Operation not permitted");
        image_close(image);
        close(fd);

        assert_int_equal(ftruncate(f->fd, sizeof(data)), 0);
        assert_int_equal(co_image_open(f->fd, "disk.img", NULL, &image, NULL), 0);
        snprintf(path, sizeof(path), "/proc/self/fd/%d", f->fd);
        fd = open(path, O_WRONLY | O_CLOEXEC);
        assert_int_equal(dup2(fd, f->fd), f->fd);
        assert_int_equal(image->driver->co_read(image, data, 100, 5000, &e), -EBADF);
        assert_string_equal(e.message,
                            "cannot read 'disk.img' at offset 5000: Bad file descriptor");
        image_close(image);
        close(fd);
}

static void what_fails_says_where(void **state)
{
        run(*state, co_fail_somewhere);
}

static void co_walk_extents(struct fixture *f)
{
        struct image *image;
        uint64_t offset = 0, data = 0;

        assert_int_equal(ftruncate(f->fd, 8 * MIB + 5), 0);
        put(f, "data", 4, 2 * MIB);
        put(f, "end", 3, 8 * MIB + 2);
        assert_int_equal(co_image_open(f->fd, "x", NULL, &image, NULL), 0);
        assert_true(image->guessed);
        assert_int_equal(image->virtual_bytes, 8 * MIB + 5);
        while (offset < image->virtual_bytes) {
                struct image_extent extent;

                assert_int_equal(image->driver->co_extent(image, offset, &extent, NULL), 0);
                assert_true(extent.length > 0);
                assert_true(extent.length <= image->virtual_bytes - offset);
                if (!extent.zero)
                        data += extent.length;
                if (offset <= 2 * MIB && 2 * MIB < offset + extent.length)
                        assert_false(extent.zero);
                if (offset <= 8 * MIB + 2 && 8 * MIB + 2 < offset + extent.length)
                        assert_false(extent.zero);
                offset += extent.length;
        }
        assert_int_equal(offset, image->virtual_bytes);
        /* Where the file system knows holes, they are seen. */
        if (!image->no_seek_data)
                assert_true(data < 4 * MIB);
        image_close(image);
}

static void extents_cover_the_image_and_tell_holes(void **state)
{
        run(*state, co_walk_extents);
}

static void co_cut_short(struct fixture *f)
{
        struct image *image;
        struct error e = ERROR_INIT;
        char buffer[4096];

        assert_int_equal(ftruncate(f->fd, 8192), 0);
        assert_int_equal(co_image_open(f->fd, "cut", NULL, &image, NULL), 0);
        assert_int_equal(ftruncate(f->fd, 6000), 0);
        assert_int_equal(image->driver->co_read(image, buffer, 4096, 4096, &e), -EIO);
        assert_non_null(strstr(e.message, "'cut'"));
        image_close(image);
}

static void a_file_that_is_cut_while_it_is_read_is_an_error(void **state)
{
        run(*state, co_cut_short);
}

static void co_write_image(struct fixture *f)
{
        struct image *image;
        struct stat st;
        char buffer[16];

        put(f, "what was here before", 20, 0);
        assert_int_equal(co_image_create(f->fd, "x", RAW(16 * MIB), &image, NULL), 0);
        assert_int_equal(image->driver->co_write(image, "hello", 5, MIB, NULL), 0);
        assert_int_equal(image->driver->co_zero(image, 2 * MIB, MIB, NULL), 0);
        assert_int_equal(image->driver->co_finish(image, NULL), 0);
        image_close(image);
        assert_int_equal(fstat(f->fd, &st), 0);
        assert_int_equal(st.st_size, 16 * MIB);
        assert_true(st.st_blocks * 512 < 2 * MIB);
        assert_int_equal(pread(f->fd, buffer, 5, 0), 5);
        assert_memory_equal(buffer, "\0\0\0\0\0", 5);
        assert_int_equal(pread(f->fd, buffer, 5, MIB), 5);
        assert_memory_equal(buffer, "hello", 5);
}

static void an_image_is_written_sparse_over_what_was_there(void **state)
{
        run(*state, co_write_image);
}

/* With a pipe in the file's place there is nothing that could be flushed (fsync(2): EINVAL), and
 * that is what shows that the kernel is asked. */
static void co_finish_pipe(struct fixture *f)
{
        struct image *image;
        struct error e = ERROR_INIT;
        int fds[2];

        assert_int_equal(co_image_create(f->fd, "x", RAW(MIB), &image, NULL), 0);
        assert_int_equal(image->driver->co_finish(image, NULL), 0);
        assert_int_equal(pipe(fds), 0);
        assert_int_equal(dup2(fds[0], f->fd), f->fd);
        assert_int_equal(image->driver->co_finish(image, &e), -EINVAL);
        assert_non_null(strstr(e.message, "'x'"));
        image_close(image);
        close(fds[0]);
        close(fds[1]);
}

static void an_image_is_finished_when_it_is_on_its_disk(void **state)
{
        run(*state, co_finish_pipe);
}

static void co_open_others(struct fixture *f)
{
        struct image *image = NULL;
        struct error e = ERROR_INIT;
        int fds[2];

        assert_int_equal(pipe(fds), 0);
        assert_int_equal(co_image_open(fds[0], "pipe", NULL, &image, &e), -EINVAL);
        close(fds[0]);
        close(fds[1]);
        assert_int_equal(co_image_open(-1, "closed", NULL, &image, &e), -EBADF);
        assert_int_equal(
            co_image_open(f->fd, "x", &(struct image_options){.format = "tar"}, &image, &e),
            -EINVAL);
        assert_int_equal(co_image_create(f->fd, "x", AS("tar", MIB), &image, &e), -EINVAL);
        assert_null(image);
}

static void what_is_no_file_is_refused(void **state)
{
        run(*state, co_open_others);
}

static void zeroes_are_told_from_data_at_every_place(void **state)
{
        uint8_t data[100] = {0};

        for (size_t n = 0; n <= sizeof(data); n++)
                assert_true(image_is_zero(data, n));
        for (size_t at = 0; at < sizeof(data); at++) {
                data[at] = 1;
                assert_false(image_is_zero(data, sizeof(data)));
                assert_false(image_is_zero(data, at + 1));
                assert_true(image_is_zero(data, at));
                data[at] = 0;
        }
}

#define raw_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            raw_test(formats_are_recognised_and_never_taken_for_raw),
            raw_test(files_shorter_than_any_header_are_raw),
            raw_test(extents_cover_the_image_and_tell_holes),
            raw_test(a_file_that_is_cut_while_it_is_read_is_an_error),
            raw_test(an_image_is_written_sparse_over_what_was_there),
            raw_test(an_image_is_finished_when_it_is_on_its_disk),
            raw_test(what_is_to_be_read_from_the_disk_leaves_memory),
            raw_test(what_is_no_file_is_refused),
            raw_test(what_fails_says_where),
            cmocka_unit_test(zeroes_are_told_from_data_at_every_place),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
