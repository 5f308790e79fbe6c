/* size.h - sizes as people write them: plain bytes, or K, M, G, T, P (powers of 1024).
 *
 * Units      bytes.
 * Threads    [any thread]
 * Errors     0 or -errno with a sentence that quotes the text.
 * Ownership  texts stay the caller's.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include "common/error.h"

/* "8G" -> 8589934592. "1.5G" is taken where it is a whole number of bytes; "8GiB" and "8g" too.
 *
 * -EINVAL  not a size, negative, or empty
 * -ERANGE  does not fit in 63 bits */
int size_parse(const char *text, uint64_t *ret_bytes, struct error *err);

/* "8.0 GiB", "512 B"; at most 15 characters and NUL. Returns buffer. */
#define SIZE_TEXT_MAX 16
char *size_format(uint64_t bytes, char buffer[SIZE_TEXT_MAX]);
