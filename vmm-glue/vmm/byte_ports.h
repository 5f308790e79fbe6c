/* byte_ports.h - devices whose ports are bytes: a wider access is one of each byte, lowest first, as
 * on an ISA bus.
 *
 * Units      offsets within the device's range.
 * Threads    the caller's.
 * Errors     none.
 * Ownership  none.
 */
#pragma once
#include <stdint.h>

static inline uint64_t byte_ports_read(void *owner, uint64_t offset, unsigned size,
                                       uint8_t (*read)(void *owner, unsigned port))
{
        uint64_t value = 0;

        for (unsigned i = 0; i < size; i++)
                value |= (uint64_t)read(owner, (unsigned)offset + i) << (8 * i);
        return value;
}

static inline void byte_ports_write(void *owner, uint64_t offset, unsigned size, uint64_t value,
                                    void (*write)(void *owner, unsigned port, uint8_t value))
{
        for (unsigned i = 0; i < size; i++)
                write(owner, (unsigned)offset + i, (uint8_t)(value >> (8 * i)));
}
