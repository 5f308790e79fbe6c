/* disk_fixture.c - see disk_fixture.h. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/coroutine.h"
#include "tests/unit/disk_fixture.h"

void fixture_open(struct fixture *f, const char *parent, enum loop_backend backend)
{
        struct error err = ERROR_INIT;

        memset(f, 0, sizeof(*f));
        snprintf(f->folder, sizeof(f->folder), "%s/tarn-test-XXXXXX", parent);
        assert_non_null(mkdtemp(f->folder));
        snprintf(f->path, sizeof(f->path), "%s/disk", f->folder);
        assert_int_equal(loop_new(backend, &f->loop, &err), 0);
}

void fixture_close(struct fixture *f)
{
        DIR *folder = opendir(f->folder);
        const struct dirent *entry;

        assert_non_null(folder);
        while ((entry = readdir(folder)))
                if (entry->d_name[0] != '.')
                        assert_int_equal(unlinkat(dirfd(folder), entry->d_name, 0), 0);
        closedir(folder);
        assert_int_equal(rmdir(f->folder), 0);
        loop_free(f->loop);
}

enum call_kind { CALL_OPEN, CALL_OPEN_FD, CALL_FORMAT, CALL_WIPE };

struct call {
        enum call_kind kind;
        struct fixture *f;
        int fd;
        const char *path;
        const struct disk_options *options;
        struct member **member;
        struct error *err;
        int result;
};

static void run_call(void *arg)
{
        struct call *c = arg;

        switch (c->kind) {
        case CALL_OPEN:
                c->result = co_disk_open(c->f->loop, c->path, c->options, c->member, c->err);
                break;
        case CALL_OPEN_FD:
                c->result =
                    co_disk_open_fd(c->f->loop, c->fd, c->path, c->options, c->member, c->err);
                break;
        case CALL_FORMAT:
                c->result = co_disk_format(*c->member, c->err);
                break;
        case CALL_WIPE:
                c->result = co_disk_wipe(*c->member, c->err);
                break;
        }
}

static int call(struct call c)
{
        assert_int_equal(co_run(c.f->loop, run_call, &c), 0);
        return c.result;
}

int open_disk(struct fixture *f, const char *path, const struct disk_options *options,
              struct member **ret_member, struct error *err)
{
        return call((struct call){.kind = CALL_OPEN,
                                  .f = f,
                                  .path = path,
                                  .options = options,
                                  .member = ret_member,
                                  .err = err});
}

int open_fd(struct fixture *f, int fd, const char *path, const struct disk_options *options,
            struct member **ret_member, struct error *err)
{
        return call((struct call){.kind = CALL_OPEN_FD,
                                  .f = f,
                                  .fd = fd,
                                  .path = path,
                                  .options = options,
                                  .member = ret_member,
                                  .err = err});
}

int format_disk(struct fixture *f, struct member *m, struct error *err)
{
        return call((struct call){.kind = CALL_FORMAT, .f = f, .member = &m, .err = err});
}

int wipe_disk(struct fixture *f, struct member *m, struct error *err)
{
        return call((struct call){.kind = CALL_WIPE, .f = f, .member = &m, .err = err});
}

static struct member *must(struct fixture *f, const char *path, const struct disk_options *options)
{
        struct error err = ERROR_INIT;
        struct member *m = NULL;

        if (open_disk(f, path, options, &m, &err) < 0)
                fail_msg("%s", err.message);
        return m;
}

struct member *make_disk(struct fixture *f, uint64_t size_bytes)
{
        return must(f, f->path, &(struct disk_options){.create_bytes = size_bytes});
}

struct member *must_open(struct fixture *f, const char *path)
{
        return must(f, path, &(struct disk_options){0});
}

int fd_of_disk(const struct fixture *f)
{
        struct stat wanted, st;

        assert_int_equal(stat(f->path, &wanted), 0);
        for (int fd = 0; fd < 1024; fd++)
                if (fstat(fd, &st) == 0 && st.st_dev == wanted.st_dev && st.st_ino == wanted.st_ino)
                        return fd;
        fail();
        return -1;
}

struct request {
        struct member_io io;
        struct loop *loop;
        bool submitting, done;
        int result;
};

static void request_done(struct member_io *io, int result)
{
        struct request *r = container_of(io, struct request, io);

        assert_false(r->submitting);
        r->done = true;
        r->result = result;
        loop_stop(r->loop);
}

int do_iov(struct fixture *f, struct member *m, enum member_op op, const struct iovec *iov,
           unsigned n_iov, uint64_t offset)
{
        struct request r = {.loop = f->loop, .submitting = true};

        r.io = (struct member_io){
            .op = op, .offset = offset, .iov = iov, .n_iov = n_iov, .done = request_done};
        for (unsigned i = 0; i < n_iov; i++)
                r.io.length += iov[i].iov_len;
        if (op == MEMBER_DISCARD)
                r.io.n_iov = 0;
        member_submit(m, &r.io);
        r.submitting = false;
        while (!r.done)
                loop_run(f->loop);
        return r.result;
}

int do_io(struct fixture *f, struct member *m, enum member_op op, void *buffer, uint64_t length,
          uint64_t offset)
{
        struct iovec iov = {.iov_base = buffer, .iov_len = length};

        return do_iov(f, m, op, &iov, 1, offset);
}

void *page_alloc(size_t length)
{
        void *memory = NULL;

        assert_int_equal(posix_memalign(&memory, PAGE, length), 0);
        memset(memory, 0x5a, length);
        return memory;
}

void fill_pattern(void *to, size_t length, unsigned seed)
{
        uint8_t *bytes = to;

        for (size_t i = 0; i < length; i++) {
                seed = seed * 1103515245u + 12345u;
                bytes[i] = (uint8_t)(seed >> 16);
        }
}
