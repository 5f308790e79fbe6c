/* bus.h - who answers at which I/O port, and at which address.
 *
 * Units      addresses, and sizes in bytes: 1, 2, 4 or 8 (the last in memory only).
 * Threads    under the machine's lock.
 * Errors     -errno with a sentence.
 * Ownership  a range is the device's memory and has to be removed before that goes.
 *
 * An access that no range holds as a whole reads as ones and is not written: as on a real bus. Ranges
 * are few (some 60), found by bisection.
 */
#pragma once
#include <stdint.h>
#include "common/error.h"

struct bus_ops {
        /* @offset within the range; a value has no bits above @size bytes. */
        uint64_t (*read)(void *owner, uint64_t offset, unsigned size);
        void (*write)(void *owner, uint64_t offset, unsigned size, uint64_t value);
};

struct bus_range {
        uint64_t start, size;
        const struct bus_ops *ops;
        void *owner;
};

#define BUS_RANGES_MAX 512u

struct bus {
        struct bus_range *ranges[BUS_RANGES_MAX]; /* by start; they do not overlap */
        unsigned n;
};

/* -EBUSY   it overlaps another's
 * -ENOSPC  there are BUS_RANGES_MAX
 * -EINVAL  it is empty, or ends beyond 64 bits */
int bus_add(struct bus *bus, struct bus_range *range, struct error *err);
void bus_remove(struct bus *bus, struct bus_range *range); /* one that is not there is fine */

/* Little-endian, as the processor's. */
void bus_read(const struct bus *bus, uint64_t address, void *data, unsigned size);
void bus_write(const struct bus *bus, uint64_t address, const void *data, unsigned size);
