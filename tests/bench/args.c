#include "tests/bench/args.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include "common/size.h"

#define BLOCK_BYTES_MAX (32u << 20) /* what every NBD server takes */

int args_number(const char *text, uint64_t min, uint64_t max, uint64_t *ret_number,
                struct error *err)
{
        char *end;

        errno = 0;
        unsigned long long n = strtoull(text, &end, 10);
        if (errno || end == text || *end || text[0] == '-' || n < min || n > max)
                return error_set(err, -EINVAL, "'%s' is not a number from %" PRIu64 " to %" PRIu64,
                                 text, min, max);
        *ret_number = n;
        return 0;
}

int args_unsigned(const char *text, unsigned min, unsigned max, unsigned *ret_number,
                  struct error *err)
{
        uint64_t n = 0;
        int r = args_number(text, min, max, &n, err);
        if (r == 0)
                *ret_number = (unsigned)n;
        return r;
}

int args_seconds(const char *text, uint64_t *ret_ns, struct error *err)
{
        char *end;
        double seconds = strtod(text, &end);

        if (end == text || *end || !(seconds >= 0) || seconds > 86400)
                return error_set(err, -EINVAL, "'%s' is not a number of seconds up to a day", text);
        *ret_ns = (uint64_t)(seconds * 1e9);
        return 0;
}

int args_block_bytes(const char *text, uint32_t *ret_bytes, struct error *err)
{
        uint64_t bytes;
        int r = size_parse(text, &bytes, err);
        if (r < 0)
                return r;
        if (bytes == 0 || bytes > BLOCK_BYTES_MAX)
                return error_set(err, -EINVAL, "a block has from 1 byte to 32M");
        *ret_bytes = (uint32_t)bytes;
        return 0;
}
