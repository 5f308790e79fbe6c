/* input.c - see input.h. */
#include "tests/fuzz/input.h"
#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "common/log.h"

size_t input_take(struct input *in, size_t length, const uint8_t **ret_at)
{
        if (length > in->left)
                length = in->left;
        *ret_at = length ? in->at : NULL;
        in->at += length;
        in->left -= length;
        return length;
}

static uint64_t take_number(struct input *in, size_t length)
{
        const uint8_t *at;
        uint64_t value = 0;
        size_t n = input_take(in, length, &at);

        for (size_t i = 0; i < n; i++)
                value |= (uint64_t)at[i] << (8 * i);
        return value;
}

uint8_t input_u8(struct input *in)
{
        return (uint8_t)take_number(in, 1);
}

uint16_t input_u16(struct input *in)
{
        return (uint16_t)take_number(in, 2);
}

uint32_t input_u32(struct input *in)
{
        return (uint32_t)take_number(in, 4);
}

uint64_t input_u64(struct input *in)
{
        return take_number(in, 8);
}

uint64_t input_number(struct input *in, uint64_t edge)
{
        static const uint64_t edges[] = {
            0, 1u << 15, 1u << 25, UINT64_C(1) << 31, UINT64_C(1) << 32, UINT64_C(1) << 63};
        uint8_t kind = input_u8(in);
        int64_t near = (int8_t)(kind >= 0xf0 ? input_u8(in) : 0);

        switch (kind >> 4) {
        case 0xf:
                kind &= 15;
                return (kind < 6 ? edges[kind] : edge) + (uint64_t)near;
        case 0xe:
                return input_u64(in);
        case 0xd:
                return input_u32(in);
        case 0xc:
                return input_u16(in);
        case 0xb:
                return (uint64_t)(kind & 15) << 12;
        case 0xa:
                return (uint64_t)(kind & 15) << 9;
        default:
                return kind;
        }
}

void output_put(struct output *out, const void *data, size_t length)
{
        if (length > OUTPUT_MAX - out->n)
                length = OUTPUT_MAX - out->n;
        if (length > 0)
                memcpy(out->bytes + out->n, data, length);
        out->n += length;
}

void output_fill(struct output *out, uint8_t byte, size_t length)
{
        if (length > OUTPUT_MAX - out->n)
                length = OUTPUT_MAX - out->n;
        memset(out->bytes + out->n, byte, length);
        out->n += length;
}

void input_words(struct input *in, const char *const *words, size_t n_words, struct output *out)
{
        uint8_t kind = input_u8(in);
        const uint8_t *bytes;
        size_t n;

        if (kind < 0xc0)
                output_put(out, words[kind % n_words], strlen(words[kind % n_words]));
        else if (kind >= 0xf0)
                output_fill(out, input_u8(in), (size_t)2 << (kind & 15));
        else if ((n = input_take(in, kind & 31, &bytes)) > 0)
                output_put(out, bytes, n);
}

/* The kernel gives the lowest that is free. */
int fuzz_lowest_fd(void)
{
        int fd = fcntl(0, F_DUPFD_CLOEXEC, 3);

        assert(fd >= 0);
        close(fd);
        return fd;
}

int fuzz_listen(void)
{
        /* An address of no more than its family: the kernel chooses a name. */
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

        if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(sa_family_t)) < 0 ||
            listen(fd, 64) < 0)
                abort();
        return fd;
}

int fuzz_connect(int listen_fd)
{
        struct sockaddr_un address;
        socklen_t length = sizeof(address);
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

        if (fd < 0 || getsockname(listen_fd, (struct sockaddr *)&address, &length) < 0 ||
            connect(fd, (struct sockaddr *)&address, length) < 0)
                abort();
        return fd;
}

static void quiet(enum log_level level, const char *message)
{
}

void fuzz_quiet(void)
{
        if (getenv("TARN_TEST_VERBOSE"))
                log_set_level(LOG_LEVEL_DEBUG);
        else
                log_set_sink(quiet);
}
