/* crc32c.h - CRC-32C (Castagnoli; RFC 3720 appendix B.4), by ISA-L. [any thread] */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* The CRC of @data continued from @crc, which is 0 for a first piece: so that
 * crc32c(crc32c(0, a, n), b, m) is the CRC of a followed by b. crc32c(0, "123456789", 9) is
 * 0xe3069283. */
uint32_t crc32c(uint32_t crc, const void *data, size_t length);
