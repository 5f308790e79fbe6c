/* args.h - the values of the load clients' options.
 *
 * Units      as the names say.
 * Threads    [any thread]
 * Errors     -EINVAL with a sentence.
 * Ownership  texts stay the caller's.
 */
#pragma once
#include <stdint.h>
#include "common/error.h"

int args_number(const char *text, uint64_t min, uint64_t max, uint64_t *ret_number,
                struct error *err);
int args_unsigned(const char *text, unsigned min, unsigned max, unsigned *ret_number,
                  struct error *err);
/* Seconds, with a fraction, up to a day. */
int args_seconds(const char *text, uint64_t *ret_ns, struct error *err);
/* From a byte to 32 MiB. */
int args_block_bytes(const char *text, uint32_t *ret_bytes, struct error *err);
