/* size.c - reading and showing sizes. */
#include "common/size.h"
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* More digits after the point than these never matter: the smallest step of 1P is 2^-50, but nobody
 * writes that, and 18 decimal digits fit in 64 bits. */
#define FRACTION_DIGITS_MAX 18

struct number {
        uint64_t whole;
        uint64_t fraction; /* fraction / fraction_scale */
        uint64_t fraction_scale;
};

static bool is_digit(char c)
{
        return c >= '0' && c <= '9';
}

/* The number in front of the suffix; moves *at behind it. -EINVAL, -ERANGE */
static int parse_number(const char **at, struct number *ret)
{
        struct number n = {.fraction_scale = 1};
        const char *p = *at;
        unsigned digits = 0;

        if (!is_digit(*p))
                return -EINVAL;
        for (; is_digit(*p); p++)
                if (__builtin_mul_overflow(n.whole, 10, &n.whole) ||
                    __builtin_add_overflow(n.whole, (uint64_t)(*p - '0'), &n.whole))
                        return -ERANGE;
        if (*p == '.') {
                if (!is_digit(*++p))
                        return -EINVAL;
                for (; is_digit(*p); p++) {
                        if (++digits > FRACTION_DIGITS_MAX)
                                return -EINVAL;
                        n.fraction = n.fraction * 10 + (uint64_t)(*p - '0');
                        n.fraction_scale *= 10;
                }
        }
        *at = p;
        *ret = n;
        return 0;
}

/* "", "B", or one of KMGTP in either case, alone or followed by "iB". The SI "GB" is refused: it is
 * not a power of 1024, and half of those who write it mean one. */
static int parse_suffix(const char *text, unsigned *ret_shift)
{
        static const char letters[] = "kmgtp";
        const char *found;

        *ret_shift = 0;
        if (text[0] == '\0' || strcmp(text, "B") == 0)
                return 0;
        found = strchr(letters, text[0] | 0x20);
        if (!found || *found == '\0')
                return -EINVAL;
        if (text[1] != '\0' && strcmp(text + 1, "iB") != 0)
                return -EINVAL;
        *ret_shift = 10 * (unsigned)(found - letters + 1);
        return 0;
}

int size_parse(const char *text, uint64_t *ret_bytes, struct error *err)
{
        const char *at = text;
        struct number n;
        unsigned shift;
        unsigned __int128 total, part;
        int r;

        if (*text == '\0')
                return error_set(err, -EINVAL, "the size is empty");
        if (*text == '-')
                return error_set(err, -EINVAL, "'%.64s' is negative, a size is not", text);
        r = parse_number(&at, &n);
        if (r == 0)
                r = parse_suffix(at, &shift);
        if (r == -ERANGE)
                goto too_large;
        if (r < 0) {
                error_set(err, r, "'%.64s' is not a size", text);
                error_hint(err, "sizes are bytes, or take K, M, G, T, P (powers of 1024): "
                                "512, 64M, 1.5G, 8GiB");
                return r;
        }
        part = (unsigned __int128)n.fraction << shift;
        if (part % n.fraction_scale != 0)
                return error_set(err, -EINVAL, "'%.64s' is not a whole number of bytes", text);
        total = ((unsigned __int128)n.whole << shift) + part / n.fraction_scale;
        if (total > INT64_MAX)
                goto too_large;
        *ret_bytes = (uint64_t)total;
        return 0;
too_large:
        return error_set(err, -ERANGE, "'%.64s' is too large: sizes end below 8192P", text);
}

char *size_format(uint64_t bytes, char buffer[SIZE_TEXT_MAX])
{
        static const char units[] = "KMGTPE";
        unsigned unit = 0;
        uint64_t tenths;

        if (bytes < 1024) {
                snprintf(buffer, SIZE_TEXT_MAX, "%u B", (unsigned)bytes);
                return buffer;
        }
        /* Rounded to a tenth, and on to the next unit where that makes 1024.0 of this one. */
        for (;; unit++) {
                unsigned shift = 10 * (unit + 1);
                unsigned __int128 scaled = (unsigned __int128)bytes * 10;

                tenths = (uint64_t)((scaled + ((uint64_t)1 << (shift - 1))) >> shift);
                if (tenths < 10240)
                        break;
        }
        snprintf(buffer, SIZE_TEXT_MAX, "%u.%u %ciB", (unsigned)(tenths / 10),
                 (unsigned)(tenths % 10), units[unit]);
        return buffer;
}
