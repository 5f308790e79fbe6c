/* crc32c.c - CRC-32C by ISA-L, which picks the best code for the processor at run time. */
#include "common/crc32c.h"
#include <isa-l/crc.h>

/* crc32_iscsi() takes its length as an int. */
#define PIECE_MAX ((size_t)1 << 30)

/* crc32_iscsi() is the bare shift register: it inverts neither the value that it starts from nor
 * the one that it returns (RFC 3720 asks for both), and its buffer argument lacks a const. */
static uint32_t crc32c_raw(uint32_t state, const uint8_t *data, size_t length)
{
        return crc32_iscsi((unsigned char *)data, (int)length, state);
}

uint32_t crc32c(uint32_t crc, const void *data, size_t length)
{
        const uint8_t *at = data;
        uint32_t state = ~crc;

        while (length > PIECE_MAX) {
                state = crc32c_raw(state, at, PIECE_MAX);
                at += PIECE_MAX;
                length -= PIECE_MAX;
        }
        return ~crc32c_raw(state, at, length);
}
