/* guest.c - a driver for tests. */
#include "tests/vmm/guest.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "vmm-glue/vmm/virtio_pci.h"

/* ---- configuration space ---- */

static uint64_t ecam(unsigned slot, unsigned offset)
{
        return LAYOUT_ECAM + slot * 0x8000u + offset;
}

uint32_t guest_config_read(struct machine_fixture *f, unsigned slot, unsigned offset, unsigned size)
{
        return (uint32_t)fixture_read(f, ecam(slot, offset), size);
}

void guest_config_write(struct machine_fixture *f, unsigned slot, unsigned offset, unsigned size,
                        uint32_t value)
{
        fixture_write(f, ecam(slot, offset), value, size);
}

static uint16_t select_port(struct machine_fixture *f, unsigned slot, unsigned offset)
{
        fixture_out(f, PORT_PCI_ADDRESS, 0x80000000u | slot << 11 | (offset & 0xfc), 4);
        return (uint16_t)(PORT_PCI_DATA + offset % 4);
}

uint32_t guest_port_config_read(struct machine_fixture *f, unsigned slot, unsigned offset,
                                unsigned size)
{
        return (uint32_t)fixture_in(f, select_port(f, slot, offset), size);
}

void guest_port_config_write(struct machine_fixture *f, unsigned slot, unsigned offset,
                             unsigned size, uint32_t value)
{
        fixture_out(f, select_port(f, slot, offset), value, size);
}

unsigned guest_capability(struct machine_fixture *f, unsigned slot, uint8_t id, uint8_t type)
{
        unsigned at = guest_config_read(f, slot, PCI_CAPABILITY_LIST, 1);

        for (unsigned steps = 0; at != 0 && steps < 48; steps++) {
                if (guest_config_read(f, slot, at, 1) == id &&
                    (id != PCI_CAP_ID_VNDR ||
                     guest_config_read(f, slot, at + VIRTIO_PCI_CAP_CFG_TYPE, 1) == type))
                        return at;
                at = guest_config_read(f, slot, at + PCI_CAP_LIST_NEXT, 1);
        }
        return 0;
}

/* ---- a device ---- */

struct guest_device guest_device(struct machine_fixture *f, unsigned slot)
{
        struct guest_device d = {.f = f, .slot = slot, .bar = GUEST_BAR + (slot - 1) * 0x10000u};

        d.msix_bar = d.bar + 0x8000;
        guest_config_write(f, slot, PCI_BASE_ADDRESS_0, 4, (uint32_t)d.bar);
        guest_config_write(f, slot, PCI_BASE_ADDRESS_1, 4, (uint32_t)d.msix_bar);
        guest_config_write(f, slot, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
        return d;
}

uint64_t guest_common(const struct guest_device *d, unsigned field, unsigned size)
{
        return fixture_read(d->f, d->bar + VIRTIO_PCI_COMMON + field, size);
}

void guest_set_common(const struct guest_device *d, unsigned field, unsigned size, uint64_t value)
{
        fixture_write(d->f, d->bar + VIRTIO_PCI_COMMON + field, value, size);
}

uint8_t guest_status(const struct guest_device *d)
{
        return (uint8_t)guest_common(d, VIRTIO_PCI_COMMON_STATUS, 1);
}

void guest_set_status(const struct guest_device *d, uint8_t status)
{
        guest_set_common(d, VIRTIO_PCI_COMMON_STATUS, 1, status);
}

uint64_t guest_features(const struct guest_device *d)
{
        uint64_t features = 0;

        for (unsigned i = 0; i < 2; i++) {
                guest_set_common(d, VIRTIO_PCI_COMMON_DFSELECT, 4, i);
                features |= guest_common(d, VIRTIO_PCI_COMMON_DF, 4) << 32 * i;
        }
        return features;
}

bool guest_agree(const struct guest_device *d, uint64_t features)
{
        const uint8_t known = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;

        guest_set_status(d, known);
        for (unsigned i = 0; i < 2; i++) {
                guest_set_common(d, VIRTIO_PCI_COMMON_GFSELECT, 4, i);
                guest_set_common(d, VIRTIO_PCI_COMMON_GF, 4, features >> 32 * i & 0xffffffff);
        }
        guest_set_status(d, known | VIRTIO_CONFIG_S_FEATURES_OK);
        return guest_status(d) & VIRTIO_CONFIG_S_FEATURES_OK;
}

void guest_begin(const struct guest_device *d, uint64_t features)
{
        features |= UINT64_C(1) << VIRTIO_F_VERSION_1;
        guest_set_status(d, 0);
        if (!guest_agree(d, features & guest_features(d)))
                abort();
}

void guest_ready(const struct guest_device *d)
{
        guest_set_status(d, guest_status(d) | VIRTIO_CONFIG_S_DRIVER_OK);
}

/* ---- MSI-X ---- */

void guest_msix_on(const struct guest_device *d, unsigned n_vectors)
{
        unsigned at = guest_capability(d->f, d->slot, PCI_CAP_ID_MSIX, 0);

        for (unsigned i = 0; i < n_vectors; i++) {
                uint64_t entry = d->msix_bar + i * PCI_MSIX_ENTRY_SIZE;

                fixture_write(d->f, entry + PCI_MSIX_ENTRY_LOWER_ADDR, GUEST_MESSAGE, 4);
                fixture_write(d->f, entry + PCI_MSIX_ENTRY_UPPER_ADDR, 0, 4);
                fixture_write(d->f, entry + PCI_MSIX_ENTRY_DATA, 0x40 + i, 4);
                guest_msix_mask(d, i, false);
        }
        guest_config_write(d->f, d->slot, at + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE);
}

void guest_msix_mask(const struct guest_device *d, unsigned vector, bool masked)
{
        fixture_write(d->f, d->msix_bar + vector * PCI_MSIX_ENTRY_SIZE + PCI_MSIX_ENTRY_VECTOR_CTRL,
                      masked, 4);
}

uint32_t guest_msix_pending(const struct guest_device *d)
{
        unsigned at = guest_capability(d->f, d->slot, PCI_CAP_ID_MSIX, 0);
        uint32_t pba = guest_config_read(d->f, d->slot, at + PCI_MSIX_PBA, 4);

        return (uint32_t)fixture_read(d->f, d->msix_bar + (pba & PCI_MSIX_PBA_OFFSET), 4);
}

/* ---- rings ---- */

void *guest_memory_at(struct machine_fixture *f, uint64_t gpa, uint64_t length)
{
        void *at = guest_range(&f->machine.memory, gpa, length);

        if (!at)
                abort();
        return at;
}

struct guest_ring guest_ring(struct guest_device *d, unsigned index, unsigned size, uint64_t gpa)
{
        struct guest_ring r = {.d = d, .index = index, .size = size, .gpa = gpa};
        uint64_t available = gpa + 16u * size, used = (available + 6 + 2u * size + 63) & ~63u;

        r.descriptors = guest_memory_at(d->f, gpa, 16u * size);
        r.available = guest_memory_at(d->f, available, 6 + 2u * size);
        r.used = guest_memory_at(d->f, used, 6 + 8u * size);
        memset(r.descriptors, 0, 16u * size);
        memset(r.available, 0, 6 + 2u * size);
        memset(r.used, 0, 6 + 8u * size);
        guest_set_common(d, VIRTIO_PCI_COMMON_Q_SELECT, 2, index);
        guest_set_common(d, VIRTIO_PCI_COMMON_Q_SIZE, 2, size);
        guest_set_common(d, VIRTIO_PCI_COMMON_Q_DESCLO, 4, gpa);
        guest_set_common(d, VIRTIO_PCI_COMMON_Q_AVAILLO, 4, available);
        guest_set_common(d, VIRTIO_PCI_COMMON_Q_USEDLO, 4, used);
        guest_set_common(d, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
        return r;
}

uint16_t guest_add(struct guest_ring *r, const struct guest_piece *pieces, unsigned n)
{
        uint16_t head = (uint16_t)(r->next_descriptor % r->size);

        for (unsigned i = 0; i < n; i++) {
                unsigned at = (head + i) % r->size;

                r->descriptors[at] = (struct vring_desc){
                    .addr = htole64(pieces[i].gpa),
                    .len = htole32(pieces[i].length),
                    .flags = htole16((pieces[i].writable ? VRING_DESC_F_WRITE : 0) |
                                     (i + 1 < n ? VRING_DESC_F_NEXT : 0)),
                    .next = htole16((uint16_t)((at + 1) % r->size)),
                };
        }
        r->next_descriptor = (uint16_t)(r->next_descriptor + n);
        guest_make_available(r, head);
        return head;
}

void guest_make_available(struct guest_ring *r, uint16_t head)
{
        uint16_t idx = le16toh(r->available->idx);

        r->available->ring[idx % r->size] = htole16(head);
        __atomic_store_n(&r->available->idx, htole16((uint16_t)(idx + 1)), __ATOMIC_RELEASE);
}

void guest_kick(struct guest_ring *r)
{
        fixture_write(r->d->f, r->d->bar + VIRTIO_PCI_NOTIFY + r->index * VIRTIO_PCI_NOTIFY_GAP,
                      r->index, 2);
}

bool guest_used(struct guest_ring *r, uint32_t *ret_id, uint32_t *ret_length)
{
        const struct vring_used_elem *element = &r->used->ring[r->seen % r->size];

        if (le16toh(__atomic_load_n(&r->used->idx, __ATOMIC_ACQUIRE)) == r->seen)
                return false;
        *ret_id = le32toh(element->id);
        *ret_length = le32toh(element->len);
        r->seen++;
        return true;
}
