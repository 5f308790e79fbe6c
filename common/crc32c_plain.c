/* crc32c_plain.c - CRC-32C without ISA-L, byte by byte: for a program that has little to sum up, and is
 * linked without libraries. It takes the place of crc32c.c. */
#include "common/crc32c.h"

#define POLYNOMIAL 0x82f63b78u /* of RFC 3720, reversed */

static void fill(uint32_t table[256])
{
        for (uint32_t i = 0; i < 256; i++) {
                uint32_t value = i;

                for (int bit = 0; bit < 8; bit++)
                        value = value >> 1 ^ (value & 1 ? POLYNOMIAL : 0);
                table[i] = value;
        }
}

uint32_t crc32c(uint32_t crc, const void *data, size_t length)
{
        const uint8_t *at = data;
        uint32_t table[256], state = ~crc;

        fill(table);
        while (length-- > 0)
                state = state >> 8 ^ table[(state ^ *at++) & 0xff];
        return ~state;
}
