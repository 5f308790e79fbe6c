/* test_disk_block.c - members that are block devices: real loop devices, so it needs root. */
#include <errno.h>
#include <fcntl.h>
#include <linux/blkpg.h>
#include <linux/loop.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/coroutine.h"
#include "common/log.h"
#include "pool/disk_internal.h"
#include "tests/unit/disk_fixture.h"
#include "tests/unit/open_fds.h"

#define DISK_BYTES (128 * MIB)
#define SKIPPED    77

struct device {
        struct fixture f;
        char path[32]; /* /dev/loopN */
        int fd;        /* keeps it: it goes with its last user */
};

/* A loop device over a new sparse file; -errno where there are none to have. */
static int device_open(struct device *d, uint64_t size_bytes, unsigned sector_bytes,
                       bool partitions)
{
        struct loop_config config = {.block_size = sector_bytes};
        int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), r = -1;

        fixture_open(&d->f, "/var/tmp", LOOP_BACKEND_AUTO);
        config.fd = (unsigned)open(d->f.path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        assert_int_equal(ftruncate((int)config.fd, (off_t)size_bytes), 0);
        config.info.lo_flags = LO_FLAGS_AUTOCLEAR | (partitions ? LO_FLAGS_PARTSCAN : 0);
        /* Another process may take the free one before we do. */
        for (unsigned i = 0; control >= 0 && r < 0 && i < 10; i++) {
                snprintf(d->path, sizeof(d->path), "/dev/loop%d",
                         ioctl(control, LOOP_CTL_GET_FREE));
                d->fd = open(d->path, O_RDWR | O_CLOEXEC);
                r = d->fd < 0 ? -1 : ioctl(d->fd, LOOP_CONFIGURE, &config);
                if (r < 0 && d->fd >= 0)
                        close(d->fd);
        }
        r = r < 0 ? -errno : 0;
        close((int)config.fd);
        if (control >= 0)
                close(control);
        if (r < 0)
                fixture_close(&d->f);
        return r;
}

static void device_close(struct device *d)
{
        close(d->fd);
        fixture_close(&d->f);
}

static int set_up(void **state)
{
        struct device *d = malloc(sizeof(*d));

        assert_int_equal(device_open(d, DISK_BYTES, 512, false), 0);
        *state = d;
        return 0;
}

static int set_up_partitions(void **state)
{
        struct device *d = malloc(sizeof(*d));

        assert_int_equal(device_open(d, DISK_BYTES, 512, true), 0);
        *state = d;
        return 0;
}

static int tear_down(void **state)
{
        device_close(*state);
        free(*state);
        return 0;
}

static void assert_probe(const char *path, const char *expected)
{
        struct error err = ERROR_INIT;
        char text[64];

        assert_int_equal(disk_probe(path, text, sizeof(text), &err), 0);
        assert_string_equal(text, expected);
}

static void refused(struct device *d, const char *path, int code, const char *word)
{
        struct error err = ERROR_INIT;
        struct member *m = NULL;
        unsigned n_fds = count_open_fds();

        assert_int_equal(
            open_disk(&d->f, path, &(struct disk_options){.lock_wait_ms = 20}, &m, &err), code);
        if (!strstr(err.message, word))
                fail_msg("'%s' is not in: %s", word, err.message);
        assert_int_equal(count_open_fds(), n_fds);
}

static bool run_tool(const char *format, const char *argument)
{
        char command[256];
        int n = snprintf(command, sizeof(command), "PATH=$PATH:/sbin:/usr/sbin; ");

        snprintf(command + n, sizeof(command) - (size_t)n, format, argument);
        return system(command) == 0;
}

static bool is_direct(struct member *m)
{
        return fcntl(disk_of(m)->fd, F_GETFL) & O_DIRECT;
}

/* ---- tests ---- */

static void test_device_without_table_is_taken_as_it_is(void **state)
{
        struct device *d = *state;
        struct member *m = must_open(&d->f, d->path);
        char *page = page_alloc(PAGE), got[PAGE];

        assert_int_equal(m->size_bytes, DISK_BYTES);
        assert_true(is_direct(m));
        assert_int_equal(do_io(&d->f, m, MEMBER_WRITE, page, PAGE, DISK_BYTES - PAGE), 0);
        assert_int_equal(do_io(&d->f, m, MEMBER_FLUSH, NULL, 0, 0), 0);
        assert_int_equal(pread(d->fd, got, PAGE, DISK_BYTES - PAGE), PAGE);
        assert_memory_equal(got, page, PAGE);
        member_close(m);
        free(page);
}

static void test_formatting_makes_one_partition_and_the_member_lies_in_it(void **state)
{
        /* DISK_GPT_TYPE as it lies on disk: UEFI specification 2.10, appendix A, mixed endian. */
        static const uint8_t type[16] = {0x6e, 0x72, 0x61, 0x74, 0x65, 0x6d, 0x62, 0x4d,
                                         0x8a, 0x72, 0x70, 0x6f, 0x6f, 0x6c, 0x00, 0x01};
        struct device *d = *state;
        struct member *m = must_open(&d->f, d->path);
        char *page = page_alloc(PAGE), got[PAGE];
        struct error err = ERROR_INIT;
        uint64_t size_bytes, first;

        assert_int_equal(format_disk(&d->f, m, &err), 0);
        assert_true(is_direct(m));
        size_bytes = m->size_bytes;
        assert_in_range(size_bytes, DISK_BYTES - 2 * MIB, DISK_BYTES - MIB - PAGE);
        assert_int_equal(size_bytes % PAGE, 0);
        /* The first and the last page of the member, which leave the tables at both ends alone. */
        assert_int_equal(do_io(&d->f, m, MEMBER_WRITE, page, PAGE, 0), 0);
        assert_int_equal(do_io(&d->f, m, MEMBER_WRITE, page, PAGE, size_bytes - PAGE), 0);
        assert_int_equal(do_io(&d->f, m, MEMBER_FLUSH, NULL, 0, 0), 0);
        member_close(m);

        assert_int_equal(pread(d->fd, got, PAGE, 0), PAGE);
        assert_memory_equal(got + 512, "EFI PART", 8);
        assert_memory_equal(got + 1024, type, sizeof(type));
        memcpy(&first, got + 1024 + 32, sizeof(first));
        assert_int_equal(first * 512, MIB);
        assert_int_equal(pread(d->fd, got, PAGE, MIB), PAGE);
        assert_memory_equal(got, page, PAGE);
        assert_int_equal(pread(d->fd, got, 512, DISK_BYTES - 512), 512);
        assert_memory_equal(got, "EFI PART", 8);
        assert_probe(d->path, "tarn member");

        m = must_open(&d->f, d->path);
        assert_int_equal(m->size_bytes, size_bytes);
        memset(page, 0, PAGE);
        assert_int_equal(do_io(&d->f, m, MEMBER_READ, page, PAGE, size_bytes - PAGE), 0);
        assert_int_equal(page[0], 0x5a);
        member_close(m);
        free(page);
}

static void test_formatting_again_changes_nothing(void **state)
{
        struct device *d = *state;
        struct member *m = must_open(&d->f, d->path);
        char before[PAGE], after[PAGE];
        struct error err = ERROR_INIT;

        assert_int_equal(format_disk(&d->f, m, &err), 0);
        member_close(m);
        assert_int_equal(pread(d->fd, before, PAGE, 0), PAGE);
        m = must_open(&d->f, d->path);
        assert_int_equal(format_disk(&d->f, m, &err), 0);
        member_close(m);
        assert_int_equal(pread(d->fd, after, PAGE, 0), PAGE);
        assert_memory_equal(after, before, PAGE);
}

/* A server that takes over has the old one's descriptor, with direct I/O on. */
static void test_descriptor_of_a_member_finds_its_partition_again(void **state)
{
        struct device *d = *state;
        struct member *m = must_open(&d->f, d->path);
        struct error err = ERROR_INIT;
        uint64_t start_bytes, size_bytes;
        int fd;

        assert_int_equal(format_disk(&d->f, m, &err), 0);
        start_bytes = disk_of(m)->start_bytes;
        size_bytes = m->size_bytes;
        assert_true(is_direct(m));
        fd = m->ops->dup(m);
        assert_true(fd >= 0);
        member_close(m);
        assert_int_equal(open_fd(&d->f, fd, d->path, &(struct disk_options){0}, &m, &err), 0);
        assert_int_equal(disk_of(m)->start_bytes, start_bytes);
        assert_int_equal(m->size_bytes, size_bytes);
        assert_true(is_direct(m));
        member_close(m);
}

static void test_damaged_first_table_is_read_from_the_second(void **state)
{
        struct device *d = *state;
        struct member *m = must_open(&d->f, d->path);
        struct error err = ERROR_INIT;
        uint64_t size_bytes;

        assert_int_equal(format_disk(&d->f, m, &err), 0);
        size_bytes = m->size_bytes;
        member_close(m);
        assert_int_equal(pwrite(d->fd, "XXXXXXXX", 8, 512), 8);
        m = must_open(&d->f, d->path);
        assert_int_equal(m->size_bytes, size_bytes);
        member_close(m);
}

static void test_file_system_is_recognised_and_formatting_removes_its_traces(void **state)
{
        struct device *d = *state;
        struct error err = ERROR_INIT;
        struct member *m;

        if (!run_tool("mkfs.ext4 -q -F %s 2>/dev/null", d->path)) {
                print_message("SKIP: mkfs.ext4 is not installed\n");
                return;
        }
        assert_probe(d->path, "ext4 filesystem");
        m = must_open(&d->f, d->path);
        assert_int_equal(format_disk(&d->f, m, &err), 0);
        member_close(m);
        assert_probe(d->path, "tarn member");
}

/* Behind what the new table itself overwrites. */
static void test_formatting_removes_old_signatures(void **state)
{
        static const char descriptor[8] = "\1CD001\1", terminator[8] = "\377CD001\1";
        struct device *d = *state;
        struct error err = ERROR_INIT;
        struct member *m;
        char got[8];

        assert_int_equal(pwrite(d->fd, descriptor, 8, 32768), 8);
        assert_int_equal(pwrite(d->fd, terminator, 8, 32768 + 2048), 8);
        assert_probe(d->path, "iso9660 filesystem");
        m = must_open(&d->f, d->path);
        assert_int_equal(format_disk(&d->f, m, &err), 0);
        member_close(m);
        assert_int_equal(pread(d->fd, got, 8, 32768), 8);
        assert_memory_not_equal(got, descriptor, 8);
}

static void test_wiping_leaves_a_disk_that_looks_unused(void **state)
{
        struct device *d = *state;
        struct member *m = must_open(&d->f, d->path);
        char *page = page_alloc(PAGE);
        struct error err = ERROR_INIT;
        uint64_t size_bytes;

        assert_int_equal(format_disk(&d->f, m, &err), 0);
        size_bytes = m->size_bytes;
        assert_int_equal(do_io(&d->f, m, MEMBER_WRITE, page, PAGE, 0), 0);
        assert_int_equal(do_io(&d->f, m, MEMBER_WRITE, page, PAGE, size_bytes - PAGE), 0);
        assert_int_equal(wipe_disk(&d->f, m, &err), 0);
        member_close(m);
        assert_probe(d->path, "");
        m = must_open(&d->f, d->path);
        assert_int_equal(m->size_bytes, DISK_BYTES);
        assert_int_equal(do_io(&d->f, m, MEMBER_READ, page, PAGE, MIB), 0);
        assert_int_equal(page[0], 0);
        assert_int_equal(do_io(&d->f, m, MEMBER_READ, page, PAGE, MIB + size_bytes - PAGE), 0);
        assert_int_equal(page[0], 0);
        member_close(m);
        free(page);
}

static void test_disk_too_small_for_its_table_is_refused(void **state)
{
        struct error err = ERROR_INIT;
        struct device d;
        struct member *m;

        assert_int_equal(device_open(&d, 65 * MIB, 512, false), 0);
        m = must_open(&d.f, d.path);
        assert_int_equal(format_disk(&d.f, m, &err), -EINVAL);
        member_close(m);
        assert_probe(d.path, "");
        device_close(&d);
        assert_int_equal(device_open(&d, 10 * MIB, 512, false), 0);
        refused(&d, d.path, -EINVAL, "too small");
        device_close(&d);
}

/* Direct I/O in units of 512 bytes is not to be had there. */
static void test_disk_with_sectors_of_4096_bytes(void **state)
{
        struct error err = ERROR_INIT;
        char *page = page_alloc(2 * PAGE);
        struct iovec pieces[2] = {{page + 512, 512}, {page + PAGE, PAGE - 512}};
        struct device d;
        struct member *m;
        uint64_t size_bytes;

        assert_int_equal(device_open(&d, DISK_BYTES, 4096, false), 0);
        m = must_open(&d.f, d.path);
        assert_false(is_direct(m));
        assert_int_equal(format_disk(&d.f, m, &err), 0);
        size_bytes = m->size_bytes;
        assert_int_equal(do_iov(&d.f, m, MEMBER_WRITE, pieces, 2, size_bytes - PAGE), 0);
        assert_int_equal(do_io(&d.f, m, MEMBER_FLUSH, NULL, 0, 0), 0);
        member_close(m);
        m = must_open(&d.f, d.path);
        assert_int_equal(m->size_bytes, size_bytes);
        memset(page, 0, PAGE);
        assert_int_equal(do_io(&d.f, m, MEMBER_READ, page, PAGE, size_bytes - PAGE), 0);
        assert_int_equal(page[PAGE - 1], 0x5a);
        member_close(m);
        device_close(&d);
        free(page);
}

static void test_discard_reaches_the_file_under_the_device(void **state)
{
        struct device *d = *state;
        struct member *m = must_open(&d->f, d->path);
        char *data = page_alloc(6 * MIB);
        struct error err = ERROR_INIT;
        struct stat full, after;

        assert_int_equal(format_disk(&d->f, m, &err), 0);
        assert_int_equal(do_io(&d->f, m, MEMBER_WRITE, data, 6 * MIB, 7 * MIB), 0);
        assert_int_equal(do_io(&d->f, m, MEMBER_FLUSH, NULL, 0, 0), 0);
        assert_int_equal(stat(d->f.path, &full), 0);
        assert_int_equal(do_io(&d->f, m, MEMBER_DISCARD, NULL, 4 * MIB, 8 * MIB), 0);
        assert_int_equal(stat(d->f.path, &after), 0);
        assert_true((full.st_blocks - after.st_blocks) * 512 >= 3 * (long)MIB);
        assert_int_equal(do_io(&d->f, m, MEMBER_READ, data, 6 * MIB, 7 * MIB), 0);
        for (unsigned i = 0; i < 6; i++)
                assert_int_equal(data[i * MIB], i == 0 || i == 5 ? 0x5a : 0);
        member_close(m);
        free(data);
}

struct parallel {
        struct member_io io;
        struct loop *loop;
        unsigned *n_left;
};

static void parallel_done(struct member_io *io, int result)
{
        struct parallel *p = container_of(io, struct parallel, io);

        assert_int_equal(result, 0);
        if (--*p->n_left == 0)
                loop_stop(p->loop);
}

static void test_discards_in_flight_together_are_all_done(void **state)
{
        enum { N = 16 };
        struct device *d = *state;
        struct member *m = must_open(&d->f, d->path);
        char *data = page_alloc(2 * N * MIB);
        struct parallel p[N];
        unsigned n_left = N;

        assert_int_equal(do_io(&d->f, m, MEMBER_WRITE, data, 2 * N * MIB, 0), 0);
        for (unsigned i = 0; i < N; i++) {
                p[i] = (struct parallel){.loop = d->f.loop, .n_left = &n_left};
                p[i].io = (struct member_io){.op = MEMBER_DISCARD,
                                             .offset = 2 * i * MIB,
                                             .length = MIB,
                                             .done = parallel_done};
                member_submit(m, &p[i].io);
        }
        loop_run(d->f.loop);
        assert_int_equal(n_left, 0);
        assert_int_equal(do_io(&d->f, m, MEMBER_READ, data, 2 * N * MIB, 0), 0);
        for (unsigned i = 0; i < 2 * N; i++) {
                assert_int_equal(data[i * MIB], i % 2 ? 0x5a : 0);
                assert_int_equal(data[(i + 1) * MIB - 1], i % 2 ? 0x5a : 0);
        }
        member_close(m);
        free(data);
}

static void test_device_is_had_by_one_at_a_time(void **state)
{
        struct device *d = *state;
        struct error err = ERROR_INIT;
        struct member *m = must_open(&d->f, d->path), *reader;

        refused(d, d->path, -EBUSY, "already");
        assert_int_equal(
            open_disk(&d->f, d->path, &(struct disk_options){.readonly = true}, &reader, &err), 0);
        member_close(reader);
        member_close(m);
        member_close(must_open(&d->f, d->path));
}

struct release {
        struct fixture *f;
        int fd;
};

static void release_soon(void *arg)
{
        struct release *r = arg;

        co_sleep_ns(50000000);
        close(r->fd);
}

static void test_exclusive_use_that_is_about_to_end_is_waited_for(void **state)
{
        struct device *d = *state;
        struct release release = {.f = &d->f, .fd = open(d->path, O_RDWR | O_EXCL | O_CLOEXEC)};
        struct error err = ERROR_INIT;
        struct member *m;

        assert_true(release.fd >= 0);
        assert_int_equal(co_spawn(d->f.loop, release_soon, &release), 0);
        assert_int_equal(
            open_disk(&d->f, d->path, &(struct disk_options){.lock_wait_ms = 60000}, &m, &err), 0);
        member_close(m);
}

static void test_mounted_device_names_its_mount_point(void **state)
{
        struct device *d = *state;
        struct error err = ERROR_INIT;
        char folder[160];
        struct member *m;
        int fd;

        snprintf(folder, sizeof(folder), "%s mount point", d->f.folder);
        if (!run_tool("mkfs.ext4 -q -F %s 2>/dev/null", d->path)) {
                print_message("SKIP: mkfs.ext4 is not installed\n");
                return;
        }
        assert_int_equal(mkdir(folder, 0700), 0);
        if (mount(d->path, folder, "ext4", 0, NULL) < 0) {
                print_message("SKIP: mounting is refused here: %s\n", strerror(errno));
                assert_int_equal(rmdir(folder), 0);
                return;
        }
        refused(d, d->path, -EBUSY, folder);
        /* A descriptor from elsewhere says nothing about how it was opened. */
        fd = open(d->path, O_RDWR | O_CLOEXEC);
        assert_int_equal(open_fd(&d->f, fd, d->path, &(struct disk_options){0}, &m, &err), -EBUSY);
        assert_non_null(strstr(err.message, folder));
        assert_int_equal(umount(folder), 0);
        assert_int_equal(rmdir(folder), 0);
        member_close(must_open(&d->f, d->path));
}

/* A file system of 12 MiB at most under a sparse file of 64: what fits is written, the rest is
 * refused, nothing hangs. */
static void full_file_system(struct device *d, const char *type, const char *source,
                             const char *options)
{
        char folder[160], path[176];
        char *data = page_alloc(MIB);
        uint64_t written = 0;
        struct member *m;
        struct error err = ERROR_INIT;
        int r;

        snprintf(folder, sizeof(folder), "%s-full", d->f.folder);
        snprintf(path, sizeof(path), "%s/disk", folder);
        assert_int_equal(mkdir(folder, 0700), 0);
        if (mount(source, folder, type, 0, options) < 0) {
                print_message("SKIP: mounting %s is refused here: %s\n", type, strerror(errno));
                goto out;
        }
        assert_int_equal(
            open_disk(&d->f, path, &(struct disk_options){.create_bytes = 64 * MIB}, &m, &err), 0);
        /* From here on the open file alone keeps it, so that a failing test leaves nothing. */
        assert_int_equal(umount2(folder, MNT_DETACH), 0);
        do {
                r = do_io(&d->f, m, MEMBER_WRITE, data, MIB, written);
                written += r == 0 ? MIB : 0;
        } while (r == 0 && written < 64 * MIB);
        assert_int_equal(r, -ENOSPC);
        assert_in_range(written, MIB, 12 * MIB);
        assert_int_equal(do_io(&d->f, m, MEMBER_FLUSH, NULL, 0, 0), 0);
        /* Space given back can be written again, elsewhere too. */
        assert_int_equal(do_io(&d->f, m, MEMBER_DISCARD, NULL, MIB, 0), 0);
        assert_int_equal(do_io(&d->f, m, MEMBER_WRITE, data, PAGE, 63 * MIB), 0);
        assert_int_equal(do_io(&d->f, m, MEMBER_READ, data, PAGE, 0), 0);
        assert_int_equal(data[0], 0);
        member_close(m);
out:
        assert_int_equal(rmdir(folder), 0);
        free(data);
}

static void test_full_tmpfs_is_no_space(void **state)
{
        full_file_system(*state, "tmpfs", "tmpfs", "size=8m");
}

static void test_full_file_system_is_no_space(void **state)
{
        struct device *d = *state;

        if (run_tool("mkfs.ext4 -q -F %s 12m 2>/dev/null", d->path))
                full_file_system(d, "ext4", d->path, NULL);
        else
                print_message("SKIP: mkfs.ext4 is not installed\n");
}

/* Tell the kernel of the first partition, as udev would have it do;
 * some kernels do not read GPTs. */
static bool add_partition(const struct device *d, uint64_t size_bytes)
{
        struct blkpg_partition partition = {
            .start = (long long)MIB, .length = (long long)size_bytes, .pno = 1};
        struct blkpg_ioctl_arg add = {
            .op = BLKPG_ADD_PARTITION, .datalen = sizeof(partition), .data = &partition};

        return ioctl(d->fd, BLKPG, &add) == 0 || errno == EBUSY;
}

static void test_disk_with_a_mounted_partition_names_its_mount_point(void **state)
{
        struct device *d = *state;
        struct error err = ERROR_INIT;
        char folder[160], partition[48];
        struct member *m = must_open(&d->f, d->path);
        uint64_t size_bytes;

        assert_int_equal(format_disk(&d->f, m, &err), 0);
        size_bytes = m->size_bytes;
        member_close(m);
        snprintf(partition, sizeof(partition), "%sp1", d->path);
        snprintf(folder, sizeof(folder), "%s-mount", d->f.folder);
        if (!add_partition(d, size_bytes) || access(partition, F_OK) < 0) {
                print_message("SKIP: no device nodes for partitions are made here\n");
                return;
        }
        /* A partition given by name is used as it is. */
        m = must_open(&d->f, partition);
        assert_int_equal(m->size_bytes, size_bytes);
        assert_int_equal(format_disk(&d->f, m, &err), 0);
        assert_int_equal(m->size_bytes, size_bytes);
        refused(d, d->path, -EBUSY, "in use");
        member_close(m);
        if (!run_tool("mkfs.ext4 -q -F %s 2>/dev/null", partition)) {
                print_message("SKIP: mkfs.ext4 is not installed\n");
                return;
        }
        assert_int_equal(mkdir(folder, 0700), 0);
        assert_int_equal(mount(partition, folder, "ext4", 0, NULL), 0);
        refused(d, d->path, -EBUSY, folder);
        assert_int_equal(umount(folder), 0);
        assert_int_equal(rmdir(folder), 0);
}

#define WITH(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
        const struct CMUnitTest tests[] = {
            WITH(test_device_without_table_is_taken_as_it_is),
            WITH(test_formatting_makes_one_partition_and_the_member_lies_in_it),
            WITH(test_formatting_again_changes_nothing),
            WITH(test_descriptor_of_a_member_finds_its_partition_again),
            WITH(test_damaged_first_table_is_read_from_the_second),
            WITH(test_file_system_is_recognised_and_formatting_removes_its_traces),
            WITH(test_formatting_removes_old_signatures),
            WITH(test_wiping_leaves_a_disk_that_looks_unused),
            cmocka_unit_test(test_disk_too_small_for_its_table_is_refused),
            cmocka_unit_test(test_disk_with_sectors_of_4096_bytes),
            WITH(test_discard_reaches_the_file_under_the_device),
            WITH(test_discards_in_flight_together_are_all_done),
            WITH(test_device_is_had_by_one_at_a_time),
            WITH(test_exclusive_use_that_is_about_to_end_is_waited_for),
            WITH(test_full_tmpfs_is_no_space),
            WITH(test_full_file_system_is_no_space),
            WITH(test_mounted_device_names_its_mount_point),
            cmocka_unit_test_setup_teardown(
                test_disk_with_a_mounted_partition_names_its_mount_point, set_up_partitions,
                tear_down),
        };
        struct device d;
        int r;

        log_set_sink(NULL);
        if (geteuid() != 0) {
                printf("SKIP: loop devices are for root only\n");
                return SKIPPED;
        }
        r = device_open(&d, DISK_BYTES, 512, false);
        if (r < 0) {
                printf("SKIP: no loop device to be had: %s\n", strerror(-r));
                return SKIPPED;
        }
        device_close(&d);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
