/* disk_fixture.h - what the tests of pool/disk.c share: a folder, a loop, and requests.
 *
 * Units      bytes.
 * Threads    one; calls run the fixture's loop until they are done.
 * Errors     -errno where a function returns int; else a failure fails the running cmocka test.
 * Ownership  members are closed by the test, before fixture_close().
 */
#pragma once
#include "pool/disk.h"

#define PAGE 4096u
#define MIB  (UINT64_C(1) << 20)

struct fixture {
        struct loop *loop;
        char folder[64];
        char path[128]; /* folder/disk */
};

/* A new folder in @parent, and a loop. */
void fixture_open(struct fixture *f, const char *parent, enum loop_backend backend);
void fixture_close(struct fixture *f); /* removes the folder with the files in it */

/* The co_ functions, each run to its end on the fixture's loop. */
int open_disk(struct fixture *f, const char *path, const struct disk_options *options,
              struct member **ret_member, struct error *err);
int open_fd(struct fixture *f, int fd, const char *path, const struct disk_options *options,
            struct member **ret_member, struct error *err);
int format_disk(struct fixture *f, struct member *m, struct error *err);
int wipe_disk(struct fixture *f, struct member *m, struct error *err);

/* A new member of @size_bytes at f->path. */
struct member *make_disk(struct fixture *f, uint64_t size_bytes);
/* What is at f->path, or whatever the options say. */
struct member *must_open(struct fixture *f, const char *path);

/* The descriptor of this process that is of the file at f->path. */
int fd_of_disk(const struct fixture *f);

/* One request, awaited. Buffers of reads and writes are one vector. */
int do_io(struct fixture *f, struct member *m, enum member_op op, void *buffer, uint64_t length,
          uint64_t offset);
int do_iov(struct fixture *f, struct member *m, enum member_op op, const struct iovec *iov,
           unsigned n_iov, uint64_t offset);

void *page_alloc(size_t length);
void fill_pattern(void *to, size_t length, unsigned seed);
