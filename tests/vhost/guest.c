/* guest.c - see guest.h. */
#include "tests/vhost/guest.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define HIGH_GUEST  (UINT64_C(1) << 32)
#define FIRST_USER  UINT64_C(0x100000000000)
#define REGION_SKEW (UINT64_C(1) << 20) /* the file's bytes before the region's first */

/* A file, and its mapping. */
static int make_file(struct guest_part *r, struct error *err)
{
        int result;

        r->fd = memfd_create("guest memory", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (r->fd < 0 || ftruncate(r->fd, (off_t)(r->address.size + REGION_SKEW)) < 0)
                goto fail;
        r->here =
            mmap(NULL, r->address.size, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, REGION_SKEW);
        if (r->here == MAP_FAILED)
                goto fail;
        return 0;
fail:
        result = error_set(err, -errno, "cannot make guest memory: %s", strerror(errno));
        if (r->fd >= 0)
                close(r->fd);
        return result;
}

int guest_add(struct guest *m, uint64_t guest, uint64_t n_bytes, struct error *err)
{
        struct guest_part *r = &m->regions[m->n_regions];

        assert(m->n_regions < GUEST_REGIONS_MAX);
        *r = (struct guest_part){.address = {guest, n_bytes, m->next_user, REGION_SKEW}};
        int result = make_file(r, err);
        if (result < 0)
                return result;
        m->next_user += n_bytes + REGION_SKEW; /* no region's user addresses touch another's */
        return (int)m->n_regions++;
}

int guest_replace(struct guest *m, unsigned index, struct error *err)
{
        struct guest_part *r = &m->regions[index], other = *r;

        assert(index < m->n_regions);
        int result = make_file(&other, err);
        if (result < 0)
                return result;
        memcpy(other.here, r->here, r->address.size);
        munmap(r->here, r->address.size);
        close(r->fd);
        *r = other;
        return 0;
}

int guest_shrink(struct guest *m, uint64_t guest, struct error *err)
{
        for (unsigned i = 0; i < m->n_regions; i++) {
                struct guest_part *r = &m->regions[i];
                if (guest < r->address.guest || guest - r->address.guest >= r->address.size)
                        continue;
                if (ftruncate(r->fd, (off_t)(guest - r->address.guest + REGION_SKEW)) < 0)
                        return error_set(err, -errno, "cannot shrink guest memory: %s",
                                         strerror(errno));
                return 0;
        }
        return error_set(err, -EINVAL, "no region has that address");
}

void guest_drop(struct guest *m)
{
        assert(m->n_regions > 0);
        struct guest_part *r = &m->regions[--m->n_regions];
        munmap(r->here, r->address.size);
        close(r->fd);
}

int guest_new(uint64_t n_bytes, struct guest **ret_guest, struct error *err)
{
        struct guest *m = calloc(1, sizeof(*m));

        if (!m)
                return error_set(err, -ENOMEM, "out of memory for guest memory");
        m->next_user = FIRST_USER;
        int r = guest_add(m, 0, n_bytes / 2, err);
        if (r >= 0)
                r = guest_add(m, HIGH_GUEST, n_bytes / 4, err);
        if (r >= 0)
                r = guest_add(m, HIGH_GUEST + n_bytes / 4, n_bytes / 4, err);
        if (r < 0) {
                guest_free(m);
                return r;
        }
        *ret_guest = m;
        return 0;
}

void guest_free(struct guest *m)
{
        if (!m)
                return;
        while (m->n_regions > 0)
                guest_drop(m);
        free(m);
}

uint64_t guest_take(struct guest *m, unsigned index, uint64_t n_bytes, uint64_t align)
{
        struct guest_part *r = &m->regions[index];
        uint64_t at = (r->taken + align - 1) / align * align;

        assert(index < m->n_regions);
        if (at > r->address.size || n_bytes > r->address.size - at)
                abort(); /* the test wants more than it made */
        r->taken = at + n_bytes;
        return r->address.guest + at;
}

void guest_reset(struct guest *m, unsigned index, uint64_t taken)
{
        assert(index < m->n_regions && taken <= m->regions[index].taken);
        m->regions[index].taken = taken;
}

uint64_t guest_border(const struct guest *m)
{
        return m->regions[2].address.guest;
}

static const struct guest_part *region_of(const struct guest *m, uint64_t guest)
{
        for (unsigned i = 0; i < m->n_regions; i++)
                if (guest >= m->regions[i].address.guest &&
                    guest - m->regions[i].address.guest < m->regions[i].address.size)
                        return &m->regions[i];
        return NULL;
}

void *guest_at(const struct guest *m, uint64_t guest)
{
        const struct guest_part *r = region_of(m, guest);

        return r ? r->here + (guest - r->address.guest) : NULL;
}

uint64_t guest_user(const struct guest *m, uint64_t guest)
{
        const struct guest_part *r = region_of(m, guest);

        assert(r);
        return r->address.user + (guest - r->address.guest);
}

/* How much of @n_bytes lies in one mapping. */
static size_t in_one(const struct guest *m, uint64_t guest, size_t n_bytes, uint8_t **ret_here)
{
        const struct guest_part *r = region_of(m, guest);

        assert(r);
        uint64_t at = guest - r->address.guest;
        *ret_here = r->here + at;
        return n_bytes < r->address.size - at ? n_bytes : r->address.size - at;
}

void guest_write(struct guest *m, uint64_t guest, const void *data, size_t n_bytes)
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

void guest_read(const struct guest *m, uint64_t guest, void *data, size_t n_bytes)
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

void guest_fill(struct guest *m, uint64_t guest, uint8_t byte, size_t n_bytes)
{
        uint8_t *here;

        while (n_bytes > 0) {
                size_t n = in_one(m, guest, n_bytes, &here);
                memset(here, byte, n);
                guest += n;
                n_bytes -= n;
        }
}
