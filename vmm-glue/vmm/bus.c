/* bus.c - who answers at an address. */
#include "vmm-glue/vmm/bus.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

/* The number of ranges that start at or below @address. */
static unsigned below(const struct bus *bus, uint64_t address)
{
        unsigned low = 0, high = bus->n;

        while (low < high) {
                unsigned middle = (low + high) / 2;

                if (bus->ranges[middle]->start <= address)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

int bus_add(struct bus *bus, struct bus_range *range, struct error *err)
{
        unsigned at = below(bus, range->start);
        const struct bus_range *before = at > 0 ? bus->ranges[at - 1] : NULL;
        const struct bus_range *after = at < bus->n ? bus->ranges[at] : NULL;

        if (range->size == 0 || range->start + (range->size - 1) < range->start)
                return error_set(err, -EINVAL, "a device has no addresses at 0x%llx",
                                 (unsigned long long)range->start);
        if ((before && range->start - before->start < before->size) ||
            (after && after->start - range->start < range->size))
                return error_set(err, -EBUSY, "two devices would answer at 0x%llx",
                                 (unsigned long long)range->start);
        if (bus->n == BUS_RANGES_MAX)
                return error_set(err, -ENOSPC, "more than %u ranges of addresses", BUS_RANGES_MAX);
        memmove(bus->ranges + at + 1, bus->ranges + at, (bus->n - at) * sizeof(bus->ranges[0]));
        bus->ranges[at] = range;
        bus->n++;
        return 0;
}

void bus_remove(struct bus *bus, struct bus_range *range)
{
        unsigned at = below(bus, range->start);

        if (at == 0 || bus->ranges[at - 1] != range)
                return;
        bus->n--;
        memmove(bus->ranges + at - 1, bus->ranges + at, (bus->n - at + 1) * sizeof(bus->ranges[0]));
}

static const struct bus_range *find(const struct bus *bus, uint64_t address, unsigned size)
{
        unsigned at = below(bus, address);
        const struct bus_range *range;

        assert(size == 1 || size == 2 || size == 4 || size == 8);
        if (at == 0)
                return NULL;
        range = bus->ranges[at - 1];
        return address - range->start < range->size &&
                       size <= range->size - (address - range->start)
                   ? range
                   : NULL;
}

void bus_read(const struct bus *bus, uint64_t address, void *data, unsigned size)
{
        const struct bus_range *range = find(bus, address, size);
        uint64_t value =
            range ? range->ops->read(range->owner, address - range->start, size) : UINT64_MAX;

        memcpy(data, &value, size);
}

void bus_write(const struct bus *bus, uint64_t address, const void *data, unsigned size)
{
        const struct bus_range *range = find(bus, address, size);
        uint64_t value = 0;

        memcpy(&value, data, size);
        if (range)
                range->ops->write(range->owner, address - range->start, size, value);
}
