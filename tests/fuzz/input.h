/* input.h - a fuzzer's input, decoded bit by bit: behind its end there are zeroes. And what all
 * fuzzers look at between inputs.
 *
 * Units      bytes; integers little-endian.
 * Threads    one.
 * Errors     none.
 * Ownership  the bytes are libFuzzer's.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct input {
        const uint8_t *at;
        size_t left;
};

/* At most @length bytes; *ret_at is NULL where there are none. How many. */
size_t input_take(struct input *in, size_t length, const uint8_t **ret_at);
uint8_t input_u8(struct input *in);
uint16_t input_u16(struct input *in);
uint32_t input_u32(struct input *in);
uint64_t input_u64(struct input *in);
/* A number of one to nine bytes: small, any, or near @edge or another edge. */
uint64_t input_number(struct input *in, uint64_t edge);

/* Bytes to send, gathered up to a limit. */
#define OUTPUT_MAX (512u << 10)
struct output {
        uint8_t bytes[OUTPUT_MAX];
        size_t n;
};
void output_put(struct output *out, const void *data, size_t length);
void output_fill(struct output *out, uint8_t byte, size_t length);

/* One more piece of a text: one of @words, bytes of the input, or many of one byte. */
void input_words(struct input *in, const char *const *words, size_t n_words, struct output *out);

/* A new descriptor would be this one: the same before and after an input. */
int fuzz_lowest_fd(void);
/* A listening Unix socket without a name in the file system; and a connection to it. */
int fuzz_listen(void);
int fuzz_connect(int listen_fd);
void fuzz_quiet(void); /* no log, but with TARN_TEST_VERBOSE */
