/* crc32c.h - CRC-32C (Castagnoli), by ISA-L.
 *
 * Units      length is bytes.
 * Threads    [any thread]
 * Errors     none.
 * Ownership  nothing is kept.
 * Source     RFC 3720, section 12.1 and the examples of appendix B.4.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* The CRC of @data continued from @crc, which is 0 for a first piece.
 *
 * crc32c(0, "123456789", 9)      is 0xe3069283
 * crc32c(crc32c(0, a, n), b, m)  is the CRC of a followed by b */
uint32_t crc32c(uint32_t crc, const void *data, size_t length);
