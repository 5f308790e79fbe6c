/* memory.c - see memory.h. */
#include "tests/vhost/memory.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define HIGH_GUEST  (UINT64_C(1) << 32)
#define FIRST_USER  UINT64_C(0x100000000000)
#define REGION_SKEW (UINT64_C(1) << 20) /* the file's bytes before the region's first */

int memory_add(struct memory *m, uint64_t guest, uint64_t n_bytes, struct error *err)
{
        struct memory_region *r = &m->regions[m->n_regions];
        int result;

        assert(m->n_regions < MEMORY_REGIONS_MAX);
        *r = (struct memory_region){.address = {guest, n_bytes, m->next_user, REGION_SKEW}};
        r->fd = memfd_create("guest memory", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (r->fd < 0 || ftruncate(r->fd, (off_t)(n_bytes + REGION_SKEW)) < 0)
                goto fail;
        r->here = mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, REGION_SKEW);
        if (r->here == MAP_FAILED)
                goto fail;
        m->next_user += n_bytes + REGION_SKEW; /* no region's user addresses touch another's */
        return (int)m->n_regions++;
fail:
        result = error_set(err, -errno, "cannot make guest memory: %s", strerror(errno));
        if (r->fd >= 0)
                close(r->fd);
        return result;
}

void memory_drop(struct memory *m)
{
        assert(m->n_regions > 0);
        struct memory_region *r = &m->regions[--m->n_regions];
        munmap(r->here, r->address.size);
        close(r->fd);
}

int memory_new(uint64_t n_bytes, struct memory **ret_memory, struct error *err)
{
        struct memory *m = calloc(1, sizeof(*m));

        if (!m)
                return error_set(err, -ENOMEM, "out of memory for guest memory");
        m->next_user = FIRST_USER;
        int r = memory_add(m, 0, n_bytes / 2, err);
        if (r >= 0)
                r = memory_add(m, HIGH_GUEST, n_bytes / 4, err);
        if (r >= 0)
                r = memory_add(m, HIGH_GUEST + n_bytes / 4, n_bytes / 4, err);
        if (r < 0) {
                memory_free(m);
                return r;
        }
        *ret_memory = m;
        return 0;
}

void memory_free(struct memory *m)
{
        if (!m)
                return;
        while (m->n_regions > 0)
                memory_drop(m);
        free(m);
}

uint64_t memory_take(struct memory *m, unsigned index, uint64_t n_bytes, uint64_t align)
{
        struct memory_region *r = &m->regions[index];
        uint64_t at = (r->taken + align - 1) / align * align;

        assert(index < m->n_regions);
        if (at > r->address.size || n_bytes > r->address.size - at)
                abort(); /* the test wants more than it made */
        r->taken = at + n_bytes;
        return r->address.guest + at;
}

void memory_reset(struct memory *m, unsigned index, uint64_t taken)
{
        assert(index < m->n_regions && taken <= m->regions[index].taken);
        m->regions[index].taken = taken;
}

uint64_t memory_border(const struct memory *m)
{
        return m->regions[2].address.guest;
}

static const struct memory_region *region_of(const struct memory *m, uint64_t guest)
{
        for (unsigned i = 0; i < m->n_regions; i++)
                if (guest >= m->regions[i].address.guest &&
                    guest - m->regions[i].address.guest < m->regions[i].address.size)
                        return &m->regions[i];
        return NULL;
}

void *memory_at(const struct memory *m, uint64_t guest)
{
        const struct memory_region *r = region_of(m, guest);

        return r ? r->here + (guest - r->address.guest) : NULL;
}

uint64_t memory_user(const struct memory *m, uint64_t guest)
{
        const struct memory_region *r = region_of(m, guest);

        assert(r);
        return r->address.user + (guest - r->address.guest);
}

/* How much of @n_bytes lies in one mapping. */
static size_t in_one(const struct memory *m, uint64_t guest, size_t n_bytes, uint8_t **ret_here)
{
        const struct memory_region *r = region_of(m, guest);

        assert(r);
        uint64_t at = guest - r->address.guest;
        *ret_here = r->here + at;
        return n_bytes < r->address.size - at ? n_bytes : r->address.size - at;
}

void memory_write(struct memory *m, uint64_t guest, const void *data, size_t n_bytes)
{
        const uint8_t *from = data;
        uint8_t *here;

        while (n_bytes > 0) {
                size_t n = in_one(m, guest, n_bytes, &here);
                memcpy(here, from, n);
                guest += n;
                from += n;
                n_bytes -= n;
        }
}

void memory_read(const struct memory *m, uint64_t guest, void *data, size_t n_bytes)
{
        uint8_t *to = data, *here;

        while (n_bytes > 0) {
                size_t n = in_one(m, guest, n_bytes, &here);
                memcpy(to, here, n);
                guest += n;
                to += n;
                n_bytes -= n;
        }
}

void memory_fill(struct memory *m, uint64_t guest, uint8_t byte, size_t n_bytes)
{
        uint8_t *here;

        while (n_bytes > 0) {
                size_t n = in_one(m, guest, n_bytes, &here);
                memset(here, byte, n);
                guest += n;
                n_bytes -= n;
        }
}
