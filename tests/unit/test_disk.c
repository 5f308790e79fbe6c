/* test_disk.c - members that are files: on tmpfs, on a disk,
 * with io_uring and with worker threads. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/log.h"
#include "tests/unit/disk_fixture.h"
#include "tests/unit/open_fds.h"

#define DISK_BYTES (64 * MIB)

/* Where the group that runs has its files. */
static const char *parent;
static enum loop_backend backend;

static int set_up(void **state)
{
        struct fixture *f = malloc(sizeof(*f));

        fixture_open(f, parent, backend);
        *state = f;
        return 0;
}

static int tear_down(void **state)
{
        fixture_close(*state);
        free(*state);
        return 0;
}

static bool exists(const char *path)
{
        return access(path, F_OK) == 0;
}

/* ---- making and opening ---- */

static void test_new_file_is_sparse_and_as_large_as_asked(void **state)
{
        struct fixture *f = *state;
        struct member *m = make_disk(f, 10 * 1024 * MIB);
        struct stat st;

        assert_int_equal(m->size_bytes, 10 * 1024 * MIB);
        assert_string_equal(m->path, f->path);
        assert_true(m->can_discard);
        member_close(m);
        assert_int_equal(stat(f->path, &st), 0);
        assert_int_equal(st.st_size, 10 * 1024 * MIB);
        assert_in_range(st.st_blocks, 0, 16);
}

static void test_making_a_file_refuses_one_that_exists_and_leaves_it(void **state)
{
        struct fixture *f = *state;
        struct disk_options options = {.create_bytes = DISK_BYTES};
        struct error err = ERROR_INIT;
        struct member *m;
        struct stat st;
        int fd = open(f->path, O_CREAT | O_WRONLY, 0600);

        assert_int_equal(write(fd, "precious", 8), 8);
        close(fd);
        assert_int_equal(open_disk(f, f->path, &options, &m, &err), -EEXIST);
        assert_non_null(strstr(err.message, f->path));
        assert_int_equal(stat(f->path, &st), 0);
        assert_int_equal(st.st_size, 8);
}

static void test_making_that_fails_leaves_no_file(void **state)
{
        struct fixture *f = *state;
        struct disk_options small = {.create_bytes = 1 * MIB}, huge = {.create_bytes = INT64_MAX};
        struct disk_options beyond = {.create_bytes = UINT64_MAX};
        struct error err = ERROR_INIT;
        struct member *m;

        assert_int_equal(open_disk(f, f->path, &small, &m, &err), -EINVAL);
        assert_non_null(strstr(err.message, "too small"));
        assert_false(exists(f->path));
        /* tmpfs takes a file of nearly 2^63 bytes, disks do not. */
        if (open_disk(f, f->path, &huge, &m, &err) == 0)
                member_close(m);
        else
                assert_false(exists(f->path));
        (void)unlink(f->path);
        assert_int_equal(open_disk(f, f->path, &beyond, &m, &err), -EFBIG);
        assert_false(exists(f->path));
        assert_int_equal(open_disk(f, "/nonexistent/disk",
                                   &(struct disk_options){.create_bytes = DISK_BYTES}, &m, &err),
                         -ENOENT);
}

static void test_size_is_rounded_down_to_whole_blocks(void **state)
{
        struct fixture *f = *state;
        struct member *m = make_disk(f, DISK_BYTES + 5000);

        assert_int_equal(m->size_bytes, DISK_BYTES + 4096);
        member_close(m);
}

static void refused(struct fixture *f, const char *path, int code, const char *word)
{
        struct error err = ERROR_INIT;
        struct member *m = NULL;
        unsigned n_fds = count_open_fds();

        assert_int_equal(open_disk(f, path, &(struct disk_options){0}, &m, &err), code);
        assert_null(m);
        assert_int_equal(err.code, code);
        assert_non_null(strstr(err.message, path));
        if (!strstr(err.message, word))
                fail_msg("'%s' is not in: %s", word, err.message);
        assert_int_equal(count_open_fds(), n_fds);
}

static void test_what_is_no_disk_is_refused_with_a_sentence(void **state)
{
        struct fixture *f = *state;
        char pipe_path[160];
        int fd;

        refused(f, f->path, -ENOENT, "No such file");
        refused(f, f->folder, -EINVAL, "a directory");
        refused(f, "/dev/null", -EINVAL, "a character device");
        snprintf(pipe_path, sizeof(pipe_path), "%s/pipe", f->folder);
        assert_int_equal(mkfifo(pipe_path, 0600), 0);
        refused(f, pipe_path, -EINVAL, "a named pipe");
        fd = open(f->path, O_CREAT | O_WRONLY, 0600);
        refused(f, f->path, -EINVAL, "too small");
        assert_int_equal(ftruncate(fd, DISK_BYTES - 1), 0);
        refused(f, f->path, -EINVAL, "64.0 MiB");
        close(fd);
}

/* pwrite(2), BUGS: Linux appends then, whatever the offset. */
static void test_passed_descriptor_that_appends_is_written_where_told(void **state)
{
        struct fixture *f = *state;
        struct error err = ERROR_INIT;
        struct member *m;
        char *page = page_alloc(PAGE), *found = page_alloc(PAGE);
        struct stat st;

        member_close(make_disk(f, DISK_BYTES));
        assert_int_equal(open_fd(f, open(f->path, O_RDWR | O_APPEND | O_CLOEXEC), f->path,
                                 &(struct disk_options){0}, &m, &err),
                         0);
        fill_pattern(page, PAGE, 1);
        assert_int_equal(do_io(f, m, MEMBER_WRITE, page, PAGE, 2 * PAGE), 0);
        assert_int_equal(do_io(f, m, MEMBER_READ, found, PAGE, 2 * PAGE), 0);
        assert_memory_equal(page, found, PAGE);
        member_close(m);
        assert_int_equal(stat(f->path, &st), 0);
        assert_int_equal(st.st_size, DISK_BYTES);
        free(page);
        free(found);
}

static void test_passed_descriptor_is_used_and_taken_over_also_on_failure(void **state)
{
        struct fixture *f = *state;
        struct error err = ERROR_INIT;
        struct member *m;
        int fd;

        member_close(make_disk(f, DISK_BYTES));
        fd = open(f->path, O_RDONLY);
        assert_int_equal(open_fd(f, fd, "/from/somewhere", &(struct disk_options){0}, &m, &err),
                         -EINVAL);
        assert_non_null(strstr(err.message, "/from/somewhere"));
        assert_int_equal(fcntl(fd, F_GETFD), -1);
        fd = open(f->path, O_RDWR | O_NONBLOCK);
        assert_int_equal(open_fd(f, fd, "/from/somewhere", &(struct disk_options){0}, &m, &err), 0);
        assert_string_equal(m->path, "/from/somewhere");
        assert_int_equal(fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
        member_close(m);
        assert_int_equal(fcntl(fd, F_GETFD), -1);
}

static void test_lock_lasts_as_long_as_any_descriptor_of_the_open_file(void **state)
{
        struct fixture *f = *state;
        struct error err = ERROR_INIT;
        struct member *first = make_disk(f, DISK_BYTES), *second = NULL;
        int fd = first->ops->dup(first), other = first->ops->dup(first);

        assert_true(fd >= 0 && other >= 0);
        member_close(first);
        assert_int_equal(open_disk(f, f->path, &(struct disk_options){0}, &second, &err), -EBUSY);
        /* Who has the descriptor has the lock already. */
        assert_int_equal(open_fd(f, fd, f->path, &(struct disk_options){0}, &second, &err), 0);
        member_close(second);
        assert_int_equal(open_disk(f, f->path, &(struct disk_options){0}, &second, &err), -EBUSY);
        close(other);
        assert_int_equal(open_disk(f, f->path, &(struct disk_options){0}, &second, &err), 0);
        member_close(second);
}

static void test_readonly_member_takes_no_lock_and_no_writes(void **state)
{
        struct fixture *f = *state;
        struct member *writer = make_disk(f, DISK_BYTES), *reader;
        struct error err = ERROR_INIT;
        char *page = page_alloc(PAGE);

        assert_int_equal(
            open_disk(f, f->path, &(struct disk_options){.readonly = true}, &reader, &err), 0);
        assert_int_equal(do_io(f, writer, MEMBER_WRITE, page, PAGE, 0), 0);
        assert_int_equal(do_io(f, reader, MEMBER_WRITE, page, PAGE, PAGE), -EROFS);
        assert_int_equal(do_io(f, reader, MEMBER_DISCARD, NULL, PAGE, 0), -EROFS);
        assert_int_equal(wipe_disk(f, reader, &err), -EROFS);
        memset(page, 0, PAGE);
        assert_int_equal(do_io(f, reader, MEMBER_READ, page, PAGE, 0), 0);
        assert_int_equal(page[PAGE - 1], 0x5a);
        assert_int_equal(meter_errors(&reader->meter), 2);
        member_close(reader);
        member_close(writer);
        free(page);
}

/* ---- reading and writing ---- */

static void test_what_is_written_is_read_again_also_by_the_next_opener(void **state)
{
        struct fixture *f = *state;
        struct member *m = make_disk(f, DISK_BYTES);
        enum { LENGTH = 3 * 1024 * 1024 };
        char *out = page_alloc(LENGTH), *in = page_alloc(LENGTH);

        fill_pattern(out, LENGTH, 1);
        assert_int_equal(do_io(f, m, MEMBER_WRITE, out, LENGTH, DISK_BYTES - LENGTH), 0);
        assert_int_equal(do_io(f, m, MEMBER_FLUSH, NULL, 0, 0), 0);
        assert_int_equal(do_io(f, m, MEMBER_READ, in, LENGTH, DISK_BYTES - LENGTH), 0);
        assert_memory_equal(in, out, LENGTH);
        member_close(m);
        m = must_open(f, f->path);
        memset(in, 0, LENGTH);
        assert_int_equal(do_io(f, m, MEMBER_READ, in, LENGTH, DISK_BYTES - LENGTH), 0);
        assert_memory_equal(in, out, LENGTH);
        assert_int_equal(do_io(f, m, MEMBER_READ, in, LENGTH, 0), 0);
        for (size_t i = 0; i < LENGTH; i++)
                assert_int_equal(in[i], 0);
        member_close(m);
        free(out);
        free(in);
}

/* More pieces than one system call takes, so that the transfer comes back short. */
static void test_any_number_of_sectors_in_memory_makes_one_request(void **state)
{
        enum { N = 3 * IOV_MAX + 8, SECTOR = MEMBER_BUFFER_ALIGN };
        struct fixture *f = *state;
        struct member *m = make_disk(f, DISK_BYTES);
        char *out = page_alloc(2 * N * SECTOR), *in = page_alloc(N * SECTOR);
        static struct iovec iov[N];

        fill_pattern(out, 2 * N * SECTOR, 2);
        for (unsigned i = 0; i < N; i++)
                iov[i] = (struct iovec){.iov_base = out + 2 * i * SECTOR, .iov_len = SECTOR};
        assert_int_equal(do_iov(f, m, MEMBER_WRITE, iov, N, PAGE), 0);
        assert_int_equal(do_io(f, m, MEMBER_READ, in, N * SECTOR, PAGE), 0);
        for (unsigned i = 0; i < N; i++)
                assert_memory_equal(in + i * SECTOR, out + 2 * i * SECTOR, SECTOR);
        memset(out, 0, 2 * N * SECTOR);
        assert_int_equal(do_iov(f, m, MEMBER_READ, iov, N, PAGE), 0);
        for (unsigned i = 0; i < N; i++)
                assert_memory_equal(in + i * SECTOR, out + 2 * i * SECTOR, SECTOR);
        assert_int_equal(m->meter.line[METER_WRITE].requests, 1);
        assert_int_equal(m->meter.line[METER_READ].requests, 2);
        assert_int_equal(m->meter.line[METER_WRITE].bytes, N * SECTOR);
        member_close(m);
        free(out);
        free(in);
}

static void test_discard_gives_space_back_and_keeps_the_size(void **state)
{
        struct fixture *f = *state;
        struct member *m = make_disk(f, DISK_BYTES);
        char *data = page_alloc(8 * MIB);
        struct stat full, after;

        assert_int_equal(do_io(f, m, MEMBER_WRITE, data, 8 * MIB, DISK_BYTES - 8 * MIB), 0);
        assert_int_equal(do_io(f, m, MEMBER_FLUSH, NULL, 0, 0), 0);
        assert_int_equal(stat(f->path, &full), 0);
        assert_int_equal(do_io(f, m, MEMBER_DISCARD, NULL, 6 * MIB, DISK_BYTES - 6 * MIB), 0);
        assert_int_equal(do_io(f, m, MEMBER_FLUSH, NULL, 0, 0), 0);
        if (!m->can_discard) {
                print_message("SKIP: the file system of %s cannot punch holes\n", f->folder);
                goto out;
        }
        assert_int_equal(stat(f->path, &after), 0);
        assert_int_equal(after.st_size, DISK_BYTES);
        assert_true((full.st_blocks - after.st_blocks) * 512 >= 5 * (long)MIB);
        assert_int_equal(do_io(f, m, MEMBER_READ, data, 8 * MIB, DISK_BYTES - 8 * MIB), 0);
        assert_int_equal(data[2 * MIB - 1], 0x5a);
        assert_int_equal(data[2 * MIB], 0);
        assert_int_equal(m->meter.line[METER_DISCARD].bytes, 6 * MIB);
out:
        member_close(m);
        free(data);
}

static void test_member_without_discard_answers_that_all_is_well(void **state)
{
        struct fixture *f = *state;
        struct member *m = make_disk(f, DISK_BYTES);
        char *page = page_alloc(PAGE);

        m->can_discard = false;
        assert_int_equal(do_io(f, m, MEMBER_WRITE, page, PAGE, 0), 0);
        assert_int_equal(do_io(f, m, MEMBER_DISCARD, NULL, PAGE, 0), 0);
        memset(page, 0, PAGE);
        assert_int_equal(do_io(f, m, MEMBER_READ, page, PAGE, 0), 0);
        assert_int_equal(page[0], 0x5a);
        member_close(m);
        free(page);
}

struct many {
        struct member_io io;
        struct iovec iov;
        unsigned *n_done;
};

struct after {
        struct loop_task task;
        struct loop *loop;
        unsigned *n_done, n_seen;
};

static void many_done(struct member_io *io, int result)
{
        assert_int_equal(result, 0);
        ++*container_of(io, struct many, io)->n_done;
}

static void look(struct loop_task *task)
{
        struct after *a = container_of(task, struct after, task);

        /* The first answers are seen with all the others. */
        a->n_seen = *a->n_done;
        if (a->n_seen)
                loop_stop(a->loop);
        else
                loop_post(a->loop, task);
}

static void test_requests_in_memory_are_answered_together_by_the_loop(void **state)
{
        enum { N = 32 };
        struct fixture *f = *state;
        struct member *m = make_disk(f, DISK_BYTES);
        struct many many[N];
        char *data = page_alloc(N * PAGE);
        unsigned n_done = 0;
        struct after after = {.task.run = look, .loop = f->loop, .n_done = &n_done};

        for (unsigned i = 0; i < N; i++) {
                many[i] = (struct many){.n_done = &n_done, .iov = {data + i * PAGE, PAGE}};
                many[i].io = (struct member_io){.op = MEMBER_WRITE,
                                                .offset = i * PAGE,
                                                .length = PAGE,
                                                .iov = &many[i].iov,
                                                .n_iov = 1,
                                                .done = many_done};
                member_submit(m, &many[i].io);
        }
        assert_int_equal(n_done, 0);
        loop_post(f->loop, &after.task);
        loop_run(f->loop);
        assert_int_equal(after.n_seen, N);
        member_close(m);
        free(data);
}

struct paged {
        struct member_io io;
        struct iovec iov;
        struct loop *loop;
        unsigned *n_left;
        int result;
};

static void paged_done(struct member_io *io, int result)
{
        struct paged *r = container_of(io, struct paged, io);

        r->result = result;
        if (--*r->n_left == 0)
                loop_stop(r->loop);
}

/* @n requests of a page each in one round, @stride pages apart. */
static void do_pages(struct fixture *f, struct member *m, enum member_op op, struct paged *pages,
                     char *data, unsigned n, unsigned stride)
{
        unsigned n_left = n;

        for (unsigned i = 0; i < n; i++) {
                pages[i] = (struct paged){
                    .iov = {data + i * PAGE, PAGE}, .loop = f->loop, .n_left = &n_left};
                pages[i].io = (struct member_io){.op = op,
                                                 .offset = (uint64_t)i * stride * PAGE,
                                                 .length = PAGE,
                                                 .iov = &pages[i].iov,
                                                 .n_iov = 1,
                                                 .done = paged_done};
                member_submit(m, &pages[i].io);
        }
        loop_run(f->loop);
}

static void test_many_reads_of_one_round_all_arrive(void **state)
{
        enum { N = 40 };
        struct fixture *f = *state;
        struct member *m = make_disk(f, DISK_BYTES);
        struct paged readings[N];
        char *data = page_alloc(N * PAGE), *back = page_alloc(N * PAGE);

        fill_pattern(data, N * PAGE, 3);
        assert_int_equal(do_io(f, m, MEMBER_WRITE, data, N * PAGE, 0), 0);
        do_pages(f, m, MEMBER_READ, readings, back, N, 1);
        for (unsigned i = 0; i < N; i++)
                assert_int_equal(readings[i].result, 0);
        assert_memory_equal(data, back, N * PAGE);
        assert_int_equal(m->meter.line[METER_READ].requests, N);
        assert_int_equal(truncate(f->path, N / 2 * PAGE), 0);
        memset(back, 0, N * PAGE);
        do_pages(f, m, MEMBER_READ, readings, back, N, 1);
        for (unsigned i = 0; i < N; i++)
                assert_int_equal(readings[i].result, i < N / 2 ? 0 : -EIO);
        assert_memory_equal(data, back, N / 2 * PAGE);
        member_close(m);
        free(data);
        free(back);
}

/* ---- writes that become one ---- */

#define PARTS_MAX 16u

struct part {
        uint64_t offset, length;
        char *data;
};

/* All of them before the first is looked at; then what is there. */
static void write_in_one_round(struct fixture *f, struct member *m, const struct part *part,
                               unsigned n)
{
        struct many many[PARTS_MAX];
        char *read = page_alloc(MIB);
        unsigned n_done = 0;
        struct after after = {.task.run = look, .loop = f->loop, .n_done = &n_done};

        assert_true(n <= PARTS_MAX);
        for (unsigned i = 0; i < n; i++) {
                many[i] = (struct many){.n_done = &n_done, .iov = {part[i].data, part[i].length}};
                many[i].io = (struct member_io){.op = MEMBER_WRITE,
                                                .offset = part[i].offset,
                                                .length = part[i].length,
                                                .iov = &many[i].iov,
                                                .n_iov = 1,
                                                .done = many_done};
                member_submit(m, &many[i].io);
        }
        while (n_done < n) {
                loop_post(f->loop, &after.task);
                loop_run(f->loop);
        }
        for (unsigned i = 0; i < n; i++) {
                assert_int_equal(do_io(f, m, MEMBER_READ, read, part[i].length, part[i].offset), 0);
                assert_memory_equal(read, part[i].data, part[i].length);
        }
        free(read);
}

/* Pages of a volume in the order in which they are written: neighbours, a gap, a step back,
 * neighbours. */
static void test_adjacent_writes_of_one_round_all_arrive(void **state)
{
        static const unsigned place[] = {4, 5, 6, 9, 2, 3, 20, 21, 22, 23, 24, 7};
        enum { N = sizeof(place) / sizeof(place[0]) };
        struct fixture *f = *state;
        struct member *m = make_disk(f, DISK_BYTES);
        char *data = page_alloc(N * PAGE);
        struct part part[N];

        for (unsigned i = 0; i < N; i++) {
                part[i] = (struct part){place[i] * PAGE, PAGE, data + i * PAGE};
                memset(part[i].data, 'a' + (int)i, PAGE);
        }
        write_in_one_round(f, m, part, N);
        /* However many calls they were. */
        assert_int_equal(m->meter.line[METER_WRITE].requests, N);
        assert_int_equal(m->meter.line[METER_WRITE].bytes, N * PAGE);
        assert_int_equal(m->meter.queue.depth, 0);
        member_close(m);
        free(data);
}

/* What is large enough to be copied by itself, beside the loop: between small ones that are not, and
 * two that become large together. */
static void test_large_writes_of_one_round_all_arrive(void **state)
{
        struct fixture *f = *state;
        struct member *m = make_disk(f, DISK_BYTES);
        char *data = page_alloc(MIB);
        const struct part part[] = {{0, MIB, data},
                                    {2 * MIB, PAGE, data},
                                    {3 * MIB, MIB / 8, data},
                                    {3 * MIB + MIB / 8, MIB / 8, data},
                                    {5 * MIB, MIB / 4, data}};

        fill_pattern(data, MIB, 6);
        write_in_one_round(f, m, part, sizeof(part) / sizeof(part[0]));
        member_close(m);
        free(data);
}

/* More than are copied at once, none next to another. */
static void test_many_writes_of_one_round_all_arrive(void **state)
{
        enum { N = 40 };
        struct fixture *f = *state;
        struct member *m = make_disk(f, DISK_BYTES);
        struct paged writes[N];
        char *data = page_alloc(N * PAGE), *read = page_alloc(PAGE);

        fill_pattern(data, N * PAGE, 5);
        do_pages(f, m, MEMBER_WRITE, writes, data, N, 2);
        for (unsigned i = 0; i < N; i++) {
                assert_int_equal(writes[i].result, 0);
                assert_int_equal(do_io(f, m, MEMBER_READ, read, PAGE, (uint64_t)i * 2 * PAGE), 0);
                assert_memory_equal(read, data + i * PAGE, PAGE);
        }
        assert_int_equal(m->meter.line[METER_WRITE].requests, N);
        member_close(m);
        free(read);
        free(data);
}

/* ---- truncation ---- */

static char logged[512];
static unsigned n_logged;

static void keep_log(enum log_level level, const char *message)
{
        if (level != LOG_LEVEL_ERROR)
                return;
        snprintf(logged, sizeof(logged), "%s", message);
        n_logged++;
}

static void test_file_truncated_in_use_is_an_io_error_and_logged_once(void **state)
{
        static const off_t ends[] = {10 * PAGE, 10 * PAGE + 512, 10 * PAGE + 100, 0};
        struct fixture *f = *state;
        struct member *m = make_disk(f, DISK_BYTES);
        char *data = page_alloc(16 * PAGE);

        n_logged = 0;
        log_set_sink(keep_log);
        for (unsigned i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
                assert_int_equal(truncate(f->path, ends[i]), 0);
                assert_int_equal(do_io(f, m, MEMBER_READ, data, 16 * PAGE, 0), -EIO);
        }
        log_set_sink(NULL);
        assert_int_equal(n_logged, 1);
        assert_non_null(strstr(logged, f->path));
        assert_non_null(strstr(logged, "truncated"));
        assert_int_equal(meter_errors(&m->meter), 4);
        member_close(m);
        free(data);
}

/* No test can look into a disk's cache. What the kernel says to it shows that it is asked: with a
 * pipe in the file's place there is nothing that could be flushed (fsync(2): EINVAL). In memory
 * nobody is asked. */
static void test_flush_asks_the_kernel_and_says_what_it_says(void **state)
{
        struct fixture *f = *state;
        struct member *m = make_disk(f, DISK_BYTES);
        int pipe_fds[2], fd = fd_of_disk(f);
        struct statfs fs;

        assert_int_equal(fstatfs(fd, &fs), 0);
        assert_int_equal(do_io(f, m, MEMBER_FLUSH, NULL, 0, 0), 0);
        assert_int_equal(pipe(pipe_fds), 0);
        assert_int_equal(dup2(pipe_fds[0], fd), fd);
        assert_int_equal(do_io(f, m, MEMBER_FLUSH, NULL, 0, 0),
                         fs.f_type == TMPFS_MAGIC ? 0 : -EINVAL);
        close(pipe_fds[0]);
        close(pipe_fds[1]);
        member_close(m);
}

/* ---- locks ---- */

static void test_second_opener_in_one_process_is_refused(void **state)
{
        struct fixture *f = *state;
        struct member *m = make_disk(f, DISK_BYTES);

        refused(f, f->path, -EBUSY, "already");
        member_close(m);
        member_close(must_open(f, f->path));
}

/* A process that holds the file's lock until it is killed, or for @hold_ms.
 * Returns when it has it. */
static pid_t start_holder(const char *path, unsigned hold_ms)
{
        int ready[2];
        char byte;
        pid_t pid;

        assert_int_equal(pipe(ready), 0);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
                int fd = open(path, O_RDWR);

                if (fd < 0 || fcntl(fd, F_OFD_SETLK, &lock) < 0 || write(ready[1], "x", 1) != 1)
                        _exit(1);
                usleep(hold_ms * 1000);
                _exit(0);
        }
        close(ready[1]);
        assert_int_equal(read(ready[0], &byte, 1), 1);
        close(ready[0]);
        return pid;
}

static void reap(pid_t pid)
{
        int status;

        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, &status, 0), pid);
}

static void test_member_in_use_names_the_process_that_has_it(void **state)
{
        struct fixture *f = *state;
        struct error err = ERROR_INIT;
        struct member *m;
        char number[32], other_path[160];
        pid_t pid, other_pid;

        member_close(make_disk(f, DISK_BYTES));
        /* A process that has locked another file is not the one. */
        snprintf(other_path, sizeof(other_path), "%s/other", f->folder);
        close(open(other_path, O_CREAT | O_WRONLY, 0600));
        other_pid = start_holder(other_path, 60000);
        pid = start_holder(f->path, 60000);
        snprintf(number, sizeof(number), "process %d", (int)pid);
        assert_int_equal(
            open_disk(f, f->path, &(struct disk_options){.lock_wait_ms = 30}, &m, &err), -EBUSY);
        assert_non_null(strstr(err.message, f->path));
        if (!strstr(err.message, number))
                fail_msg("'%s' is not in: %s", number, err.message);
        assert_true(err.hint[0] != '\0');
        reap(pid);
        reap(other_pid);
}

static void test_opening_waits_for_a_lock_that_is_about_to_go(void **state)
{
        struct fixture *f = *state;
        struct error err = ERROR_INIT;
        struct member *m;
        pid_t pid;

        member_close(make_disk(f, DISK_BYTES));
        pid = start_holder(f->path, 100);
        assert_int_equal(
            open_disk(f, f->path, &(struct disk_options){.lock_wait_ms = 60000}, &m, &err), 0);
        member_close(m);
        reap(pid);
}

static void test_lock_keeps_others_out_while_the_member_is_open(void **state)
{
        struct fixture *f = *state;
        struct member *m = make_disk(f, DISK_BYTES);
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        int fd = open(f->path, O_RDWR);

        assert_int_equal(fcntl(fd, F_OFD_SETLK, &lock), -1);
        member_close(m);
        assert_int_equal(fcntl(fd, F_OFD_SETLK, &lock), 0);
        close(fd);
}

/* ---- what is on it ---- */

static void probe(struct fixture *f, const char *expected)
{
        struct error err = ERROR_INIT;
        char text[64] = "not set";

        assert_int_equal(disk_probe(f->path, text, sizeof(text), &err), 0);
        assert_string_equal(text, expected);
}

static void put(struct fixture *f, const void *bytes, size_t length, off_t offset)
{
        int fd = open(f->path, O_WRONLY);

        assert_int_equal(pwrite(fd, bytes, length, offset), (ssize_t)length);
        close(fd);
}

static void test_probe_names_what_others_left(void **state)
{
        static const uint8_t linux_partition[16] = {0, 0, 2, 0, 0x83, 0,    0, 0,
                                                    0, 8, 0, 0, 0,    0x80, 0, 0};
        struct fixture *f = *state;
        struct error err = ERROR_INIT;
        char text[64], command[256];

        member_close(make_disk(f, DISK_BYTES));
        probe(f, "");
        put(f, linux_partition, sizeof(linux_partition), 446);
        put(f, "\x55\xaa", 2, 510);
        probe(f, "dos partition table");
        assert_int_equal(disk_probe("/nonexistent", text, sizeof(text), &err), -ENOENT);
        put(f, (char[512]){0}, 512, 0);
        snprintf(command, sizeof(command),
                 "PATH=$PATH:/sbin:/usr/sbin mkfs.ext4 -q -F %s 2>/dev/null", f->path);
        if (system(command) == 0)
                probe(f, "ext4 filesystem");
        else
                print_message("SKIP: the part with ext4: mkfs.ext4 is not installed\n");
}

static void test_wipe_leaves_nothing_at_either_end(void **state)
{
        struct fixture *f = *state;
        struct member *m = make_disk(f, DISK_BYTES);
        char *page = page_alloc(PAGE), *zeroes = page_alloc(PAGE);
        struct error err = ERROR_INIT;

        memset(zeroes, 0, PAGE);
        assert_int_equal(do_io(f, m, MEMBER_WRITE, page, PAGE, 0), 0);
        assert_int_equal(do_io(f, m, MEMBER_WRITE, page, PAGE, DISK_BYTES - PAGE), 0);
        assert_int_equal(do_io(f, m, MEMBER_WRITE, page, PAGE, DISK_BYTES / 2), 0);
        assert_int_equal(format_disk(f, m, &err), 0); /* files get no table */
        assert_int_equal(m->size_bytes, DISK_BYTES);
        assert_int_equal(wipe_disk(f, m, &err), 0);
        assert_int_equal(do_io(f, m, MEMBER_READ, page, PAGE, 0), 0);
        assert_memory_equal(page, zeroes, PAGE);
        assert_int_equal(do_io(f, m, MEMBER_READ, page, PAGE, DISK_BYTES - PAGE), 0);
        assert_memory_equal(page, zeroes, PAGE);
        assert_int_equal(do_io(f, m, MEMBER_READ, page, PAGE, DISK_BYTES / 2), 0);
        assert_memory_not_equal(page, zeroes, PAGE);
        member_close(m);
        free(page);
        free(zeroes);
}

#define BOTH(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

static int run_group(const char *name)
{
        const struct CMUnitTest tests[] = {
            BOTH(test_new_file_is_sparse_and_as_large_as_asked),
            BOTH(test_making_a_file_refuses_one_that_exists_and_leaves_it),
            BOTH(test_making_that_fails_leaves_no_file),
            BOTH(test_size_is_rounded_down_to_whole_blocks),
            BOTH(test_what_is_no_disk_is_refused_with_a_sentence),
            BOTH(test_passed_descriptor_that_appends_is_written_where_told),
            BOTH(test_passed_descriptor_is_used_and_taken_over_also_on_failure),
            BOTH(test_lock_lasts_as_long_as_any_descriptor_of_the_open_file),
            BOTH(test_readonly_member_takes_no_lock_and_no_writes),
            BOTH(test_what_is_written_is_read_again_also_by_the_next_opener),
            BOTH(test_any_number_of_sectors_in_memory_makes_one_request),
            BOTH(test_discard_gives_space_back_and_keeps_the_size),
            BOTH(test_member_without_discard_answers_that_all_is_well),
            BOTH(test_many_reads_of_one_round_all_arrive),
            BOTH(test_many_writes_of_one_round_all_arrive),
            BOTH(test_large_writes_of_one_round_all_arrive),
            BOTH(test_adjacent_writes_of_one_round_all_arrive),
            BOTH(test_file_truncated_in_use_is_an_io_error_and_logged_once),
            BOTH(test_flush_asks_the_kernel_and_says_what_it_says),
            BOTH(test_second_opener_in_one_process_is_refused),
            BOTH(test_member_in_use_names_the_process_that_has_it),
            BOTH(test_opening_waits_for_a_lock_that_is_about_to_go),
            BOTH(test_lock_keeps_others_out_while_the_member_is_open),
            BOTH(test_probe_names_what_others_left),
            BOTH(test_wipe_leaves_nothing_at_either_end),
        };
        const struct CMUnitTest in_memory[] = {
            BOTH(test_requests_in_memory_are_answered_together_by_the_loop),
        };
        int failed = cmocka_run_group_tests_name(name, tests, NULL, NULL);

        if (strcmp(parent, "/dev/shm") == 0)
                failed += cmocka_run_group_tests_name(name, in_memory, NULL, NULL);
        return failed;
}

int main(void)
{
        const char *temporary = getenv("TMPDIR");
        int failed = 0;

        log_set_sink(NULL);
        for (int b = LOOP_BACKEND_AUTO; b <= LOOP_BACKEND_THREADS; b += LOOP_BACKEND_THREADS) {
                backend = (enum loop_backend)b;
                parent = temporary && *temporary ? temporary : "/var/tmp";
                failed +=
                    run_group(b ? "file, worker threads" : "file, io_uring where it is given");
                parent = "/dev/shm";
                failed +=
                    run_group(b ? "tmpfs, worker threads" : "tmpfs, io_uring where it is given");
        }
        return failed;
}
