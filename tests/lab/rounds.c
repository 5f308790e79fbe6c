/* rounds - writes a volume in rounds whose contents are known beforehand, and says of any state of it
 * whether it is one that may be (tests/bench/stamp.h).
 *
 * usage: rounds write DEVICE FIRST LAST [COMMAND]      rounds FIRST to LAST; after each "COMMAND ROUND"
 *        rounds verify DEVICE|FILE DURABLE BEGUN [damaged]
 *
 * A round is REQUESTS writes, discards and zeroings of places that do not overlap, by THREADS threads,
 * with flushes among them, and a flush at its end; then "round N" is printed. Where something fails the
 * round is flushed all the same, and the program ends with status 1. A round may be repeated.
 *
 * To be verified all rounds up to DURABLE must be there, and those up to BEGUN may. With "damaged" what
 * cannot be read for an I/O error is no failure; how much it was is printed: "unreadable N". */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "tests/bench/plan.h"
#include "tests/bench/stamp.h"

#define VOLUME_BYTES  (UINT64_C(16) << 20)
#define BLOCK         4096u
#define REQUESTS      48u
#define REQUEST_BYTES (16u * BLOCK) /* at most */
#define THREADS       8u

enum kind { WRITE, DISCARD, ZERO, FLUSH };

struct request {
        enum kind kind;
        uint64_t offset, n_bytes;
        uint8_t *buffer;
        int result; /* 0 or -errno */
};

struct round {
        struct stamp_book *book;
        struct plan plan;
        struct request requests[REQUESTS];
        int fd;
};

struct worker {
        pthread_t thread;
        struct round *round;
        unsigned index;
};

static void die(const char *what, int result)
{
        printf("rounds: %s: %s\n", what, strerror(-result));
        fflush(stdout);
        exit(1);
}

static void die_by(const struct error *err)
{
        printf("rounds: %s\n", err->message);
        fflush(stdout);
        exit(1);
}

static void open_round(struct round *r, const char *path, int flags)
{
        struct plan_options options = {.n_blocks = 1, .seed = 11};
        struct error err = ERROR_INIT;

        r->fd = open(path, flags);
        if (r->fd < 0)
                die(path, -errno);
        if (stamp_open(NULL, 0, VOLUME_BYTES, BLOCK, 13, &r->book, &err) < 0)
                die_by(&err);
        plan_init(&r->plan, &options);
        for (unsigned i = 0; i < REQUESTS; i++)
                if (posix_memalign((void **)&r->requests[i].buffer, BLOCK, REQUEST_BYTES) != 0)
                        die("memory", -ENOMEM);
}

/* The next round's requests, and the book's knowledge that they were made. */
static void begin_round(struct round *r)
{
        for (unsigned i = 0; i < REQUESTS; i++) {
                struct request *q = &r->requests[i];
                uint64_t random = plan_random(&r->plan);
                unsigned draw = (unsigned)(random >> 40) % 100;
                q->n_bytes = (1 + random % (REQUEST_BYTES / BLOCK)) * BLOCK;
                q->offset = (random >> 8) % ((VOLUME_BYTES - q->n_bytes) / BLOCK) * BLOCK;
                q->result = 0;
                if (draw < 10 || stamp_is_busy(r->book, q->offset, q->n_bytes)) {
                        q->kind = FLUSH;
                } else if (draw < 80) {
                        q->kind = WRITE;
                        stamp_begin_write(r->book, q->offset, q->n_bytes, q->buffer);
                } else {
                        q->kind = draw < 90 ? DISCARD : ZERO;
                        stamp_begin_zero(r->book, q->offset, q->n_bytes);
                }
        }
}

static void end_round(struct round *r, bool durable)
{
        for (unsigned i = 0; i < REQUESTS; i++) {
                const struct request *q = &r->requests[i];
                if (q->kind != FLUSH &&
                    stamp_end_write(r->book, q->offset, q->n_bytes, durable) < 0)
                        die("stamps", -ENOMEM);
        }
}

static int do_request(int fd, const struct request *q)
{
        uint64_t range[2] = {q->offset, q->n_bytes};
        ssize_t n;

        switch (q->kind) {
        case WRITE:
                n = pwrite(fd, q->buffer, q->n_bytes, (off_t)q->offset);
                return n == (ssize_t)q->n_bytes ? 0 : n < 0 ? -errno : -EIO;
        case DISCARD:
                return ioctl(fd, BLKDISCARD, range) < 0 ? -errno : 0;
        case ZERO:
                return ioctl(fd, BLKZEROOUT, range) < 0 ? -errno : 0;
        case FLUSH:
                return fdatasync(fd) < 0 ? -errno : 0;
        }
        return -EINVAL;
}

static void *work(void *arg)
{
        struct worker *w = arg;

        for (unsigned i = w->index; i < REQUESTS; i += THREADS)
                w->round->requests[i].result = do_request(w->round->fd, &w->round->requests[i]);
        return NULL;
}

static void send_round(struct round *r, uint64_t number)
{
        struct worker workers[THREADS];

        for (unsigned i = 0; i < THREADS; i++) {
                workers[i] = (struct worker){.round = r, .index = i};
                if (pthread_create(&workers[i].thread, NULL, work, &workers[i]) != 0)
                        die("a thread", -EAGAIN);
        }
        for (unsigned i = 0; i < THREADS; i++)
                pthread_join(workers[i].thread, NULL);
        int result = fdatasync(r->fd) < 0 ? -errno : 0;
        for (unsigned i = 0; i < REQUESTS && result == 0; i++)
                result = r->requests[i].result;
        if (result < 0) {
                printf("failed in round %llu\n", (unsigned long long)number);
                die("a request", result);
        }
        printf("round %llu\n", (unsigned long long)number);
        fflush(stdout);
}

static void write_rounds(struct round *r, uint64_t first, uint64_t last, const char *command)
{
        char text[256];

        for (uint64_t number = 1; number <= last; number++) {
                begin_round(r);
                if (number >= first)
                        send_round(r, number);
                end_round(r, true);
                if (number < first || !command)
                        continue;
                snprintf(text, sizeof(text), "%s %llu", command, (unsigned long long)number);
                if (system(text) != 0)
                        die(text, -EPROTO);
        }
}

static void check_content(struct round *r, uint64_t offset, uint64_t n_bytes)
{
        struct error err = ERROR_INIT;

        stamp_begin_read(r->book, offset, n_bytes);
        if (stamp_end_read(r->book, offset, n_bytes, r->requests[0].buffer, true, &err) < 0)
                die_by(&err);
}

static bool can_read(struct round *r, uint64_t offset, uint64_t n_bytes)
{
        ssize_t n = pread(r->fd, r->requests[0].buffer, n_bytes, (off_t)offset);

        if (n < 0 && errno != EIO)
                die("read", -errno);
        return n == (ssize_t)n_bytes;
}

static void verify(struct round *r, uint64_t durable, uint64_t begun, bool damaged)
{
        uint64_t n_unreadable = 0;

        for (uint64_t number = 1; number <= begun; number++) {
                begin_round(r);
                end_round(r, number <= durable);
        }
        for (uint64_t at = 0; at < VOLUME_BYTES; at += REQUEST_BYTES) {
                if (can_read(r, at, REQUEST_BYTES)) {
                        check_content(r, at, REQUEST_BYTES);
                        continue;
                }
                if (!damaged)
                        die("read", -EIO);
                for (uint64_t block = at; block < at + REQUEST_BYTES; block += BLOCK) {
                        if (can_read(r, block, BLOCK))
                                check_content(r, block, BLOCK);
                        else
                                n_unreadable++;
                }
        }
        if (damaged)
                printf("unreadable %llu\n", (unsigned long long)n_unreadable);
}

int main(int argc, char **argv)
{
        static struct round r;
        bool writes = argc >= 5 && strcmp(argv[1], "write") == 0;
        bool verifies = argc >= 5 && strcmp(argv[1], "verify") == 0;

        if ((!writes && !verifies) || argc > 6) {
                fputs("usage: rounds write DEVICE FIRST LAST [COMMAND] | verify FILE DURABLE BEGUN "
                      "[damaged]\n",
                      stderr);
                return 2;
        }
        uint64_t from = strtoull(argv[3], NULL, 10), to = strtoull(argv[4], NULL, 10);
        open_round(&r, argv[2], writes ? O_RDWR | O_DIRECT : O_RDONLY | O_DIRECT);
        if (writes)
                write_rounds(&r, from, to, argc == 6 ? argv[5] : NULL);
        else
                verify(&r, from, to, argc == 6 && strcmp(argv[5], "damaged") == 0);
        return fflush(stdout) == 0 ? 0 : 1;
}
