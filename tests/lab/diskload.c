/* diskload - in the guest: reads, writes, discards and flushes a block device in several threads at
 * once, and checks everything that it reads by its stamp (tests/bench/stamp.h).
 *
 * usage: diskload DEVICE SECONDS [THREADS]
 *
 * Each thread has 4 MiB of its own, which are written first. Prints "running" once all are, then a
 * line each second of work done, and "verified N" at the end. SIGTERM brings the end before its
 * time. Any error, or content that is not what it must be, ends it with status 1 and a sentence. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>
#include "tests/bench/plan.h"
#include "tests/bench/stamp.h"

#define THREADS_MAX   32u
#define RANGE_BYTES   (UINT64_C(4) << 20)
#define BLOCK         4096u
#define REQUEST_BYTES (16u * BLOCK) /* at most */

struct worker {
        pthread_t thread;
        int fd;
        unsigned index;
        struct stamp_book *book;
        struct plan plan;
        uint8_t *buffer;
        uint64_t n_done;
};

static bool stop;
static volatile sig_atomic_t told_to_end;

static void end_early(int number)
{
        (void)number;
        told_to_end = 1;
}

static void die(const struct worker *w, const char *what, uint64_t offset)
{
        printf("diskload: %s at %llu: %s\n", what, (unsigned long long)offset, strerror(errno));
        fflush(stdout);
        _exit(1);
}

static void read_range(struct worker *w, uint64_t offset, uint64_t n_bytes)
{
        struct error err = ERROR_INIT;

        stamp_begin_read(w->book, offset, n_bytes);
        if (pread(w->fd, w->buffer, n_bytes, (off_t)offset) != (ssize_t)n_bytes)
                die(w, "read", offset);
        if (stamp_end_read(w->book, offset, n_bytes, w->buffer, false, &err) < 0) {
                printf("diskload: %s\n", err.message);
                fflush(stdout);
                _exit(1);
        }
}

static void write_range(struct worker *w, uint64_t offset, uint64_t n_bytes)
{
        stamp_begin_write(w->book, offset, n_bytes, w->buffer);
        if (pwrite(w->fd, w->buffer, n_bytes, (off_t)offset) != (ssize_t)n_bytes)
                die(w, "write", offset);
        if (stamp_end_write(w->book, offset, n_bytes, false) < 0)
                die(w, "stamps", offset);
}

static void zero_range(struct worker *w, uint64_t offset, uint64_t n_bytes, unsigned long how)
{
        uint64_t range[2] = {offset, n_bytes};

        stamp_begin_zero(w->book, offset, n_bytes);
        if (ioctl(w->fd, how, range) < 0)
                die(w, how == BLKDISCARD ? "discard" : "zeroing", offset);
        if (stamp_end_write(w->book, offset, n_bytes, false) < 0)
                die(w, "stamps", offset);
}

static void flush(struct worker *w)
{
        uint64_t ticket = stamp_flush_ticket(w->book);

        if (fdatasync(w->fd) < 0)
                die(w, "flush", 0);
        stamp_flushed(w->book, ticket);
}

static void *work(void *arg)
{
        struct worker *w = arg;
        uint64_t base = w->index * RANGE_BYTES;

        while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
                uint64_t random = plan_random(&w->plan);
                uint64_t n_blocks = 1 + random % (REQUEST_BYTES / BLOCK);
                uint64_t at = (random >> 8) % (RANGE_BYTES / BLOCK - n_blocks);
                unsigned draw = (unsigned)(random >> 40) % 100;
                uint64_t offset = base + at * BLOCK, n_bytes = n_blocks * BLOCK;
                if (draw < 50)
                        read_range(w, offset, n_bytes);
                else if (draw < 88)
                        write_range(w, offset, n_bytes);
                else if (draw < 91)
                        zero_range(w, offset, n_bytes, BLKDISCARD);
                else if (draw < 94)
                        zero_range(w, offset, n_bytes, BLKZEROOUT);
                else
                        flush(w);
                __atomic_fetch_add(&w->n_done, 1, __ATOMIC_RELAXED);
        }
        flush(w);
        for (uint64_t at = 0; at < RANGE_BYTES; at += REQUEST_BYTES)
                read_range(w, base + at, REQUEST_BYTES);
        return NULL;
}

static void start(struct worker *w, const char *device, unsigned index)
{
        struct plan_options options = {.n_blocks = 1, .seed = index + 1};
        struct error err = ERROR_INIT;

        w->index = index;
        w->fd = open(device, O_RDWR | O_DIRECT);
        if (w->fd < 0 || posix_memalign((void **)&w->buffer, BLOCK, REQUEST_BYTES) != 0)
                die(w, device, 0);
        if (stamp_open(NULL, index * RANGE_BYTES, RANGE_BYTES, BLOCK, 7, &w->book, &err) < 0)
                die(w, err.message, 0);
        plan_init(&w->plan, &options);
        for (uint64_t at = 0; at < RANGE_BYTES; at += REQUEST_BYTES)
                write_range(w, index * RANGE_BYTES + at, REQUEST_BYTES);
}

int main(int argc, char **argv)
{
        static struct worker workers[THREADS_MAX];
        unsigned seconds = argc > 2 ? (unsigned)atoi(argv[2]) : 0;
        unsigned n = argc > 3 ? (unsigned)atoi(argv[3]) : 4;
        uint64_t n_done = 0;

        if (argc < 3 || seconds == 0 || n == 0 || n > THREADS_MAX) {
                fputs("usage: diskload DEVICE SECONDS [THREADS]\n", stderr);
                return 2;
        }
        signal(SIGTERM, end_early);
        for (unsigned i = 0; i < n; i++)
                start(&workers[i], argv[1], i);
        for (unsigned i = 0; i < n; i++)
                if (pthread_create(&workers[i].thread, NULL, work, &workers[i]) != 0)
                        die(&workers[i], "a thread", 0);
        puts("running");
        fflush(stdout);
        for (unsigned i = 0; i < seconds && !told_to_end; i++) {
                sleep(1);
                n_done = 0;
                for (unsigned w = 0; w < n; w++)
                        n_done += __atomic_load_n(&workers[w].n_done, __ATOMIC_RELAXED);
                printf("done %llu\n", (unsigned long long)n_done);
                fflush(stdout);
        }
        __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
        for (unsigned i = 0; i < n; i++)
                pthread_join(workers[i].thread, NULL);
        printf("verified %llu\n", (unsigned long long)n_done);
        return fflush(stdout) == 0 ? 0 : 1;
}
