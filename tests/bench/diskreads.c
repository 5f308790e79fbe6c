/* diskreads.c - in a guest: random reads of 4 KiB from a disk, past the page cache.
 *
 * usage: diskreads DISK SECONDS DEPTH...
 *
 * Writes the disk once from end to end, so that what is read is allocated, and prints for each DEPTH
 * "reads DEPTH PER_SECOND". */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <unistd.h>

#include "tests/bench/measure.h"

#define BLOCK     4096u
#define FILL      (1u << 20)
#define DEPTH_MAX 128u

_Noreturn static void die(const char *what, int error)
{
        fprintf(stderr, "diskreads: %s: %s\n", what, strerror(error));
        exit(EXIT_FAILURE);
}

static void fill(int fd, uint64_t size, uint8_t *data)
{
        for (size_t i = 0; i < FILL; i++)
                data[i] = (uint8_t)(i * 167 >> 3);
        for (uint64_t at = 0; at < size;) {
                size_t n = size - at < FILL ? (size_t)(size - at) : FILL;
                ssize_t done = pwrite(fd, data, n, (off_t)at);

                if (done <= 0)
                        die("write", done < 0 ? errno : EIO);
                at += (uint64_t)done;
        }
        if (fsync(fd) < 0)
                die("fsync", errno);
}

/* xorshift64: the same places for everybody. */
static uint64_t next(uint64_t *state)
{
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        return *state;
}

static void queue(struct io_uring *ring, int fd, uint64_t blocks, uint64_t *state, uint8_t *data)
{
        struct io_uring_sqe *sqe = io_uring_get_sqe(ring);

        io_uring_prep_read(sqe, fd, data, BLOCK, next(state) % blocks * BLOCK);
        io_uring_sqe_set_data(sqe, data);
}

static double measure(int fd, uint64_t size, unsigned depth, double seconds, uint8_t *data)
{
        const uint64_t began = measure_clock_ns(), end = began + (uint64_t)(seconds * 1e9);
        struct io_uring ring;
        struct io_uring_cqe *cqe;
        uint64_t state = 88172645463325252, n = 0, now;
        int r = io_uring_queue_init(depth, &ring, 0);

        if (r < 0)
                die("io_uring", -r);
        for (unsigned i = 0; i < depth; i++)
                queue(&ring, fd, size / BLOCK, &state, data + (size_t)i * BLOCK);
        do {
                r = io_uring_submit_and_wait(&ring, 1);
                if (r < 0)
                        die("io_uring", -r);
                while (io_uring_peek_cqe(&ring, &cqe) == 0) {
                        if (cqe->res != (int)BLOCK)
                                die("read", cqe->res < 0 ? -cqe->res : EIO);
                        queue(&ring, fd, size / BLOCK, &state, io_uring_cqe_get_data(cqe));
                        io_uring_cqe_seen(&ring, cqe);
                        n++;
                }
                now = measure_clock_ns();
        } while (now < end);
        io_uring_queue_exit(&ring);
        return (double)n * 1e9 / (double)(now - began);
}

int main(int argc, char **argv)
{
        uint8_t *data = aligned_alloc(BLOCK, FILL);
        uint64_t size;
        int fd;

        if (argc < 4 || !data) {
                fprintf(stderr, "usage: diskreads DISK SECONDS DEPTH...\n");
                return 2;
        }
        fd = open(argv[1], O_RDWR | O_DIRECT | O_CLOEXEC);
        if (fd < 0 || ioctl(fd, BLKGETSIZE64, &size) < 0)
                die(argv[1], errno);
        fill(fd, size, data);
        for (int i = 3; i < argc; i++) {
                unsigned depth = (unsigned)strtoul(argv[i], NULL, 10);

                if (depth < 1 || depth > DEPTH_MAX)
                        return 2;
                printf("reads %u %.0f\n", depth,
                       measure(fd, size, depth, strtod(argv[2], NULL), data));
                fflush(stdout);
        }
        return EXIT_SUCCESS;
}
