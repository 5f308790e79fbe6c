/* number.h - numbers among the options of crash, sim and rot.
 *
 * Threads    [any thread]
 */
#pragma once
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

/* Decimal, 0x... or octal, and nothing behind it. */
static inline bool number_parse(const char *text, uint64_t *ret)
{
        char *end;

        errno = 0;
        *ret = strtoull(text, &end, 0);
        return errno == 0 && end != text && *end == '\0' && text[0] != '-';
}
