/* pci_msix.c - MSI-X: the table of vectors, what is masked, what is pending. PCI 3.0, section 6.8.2. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm-glue/vmm/machine.h"
#include "vmm-glue/vmm/pci.h"
#include "vmm-glue/vmm/watch.h"

#define ENTRY_SIZE     16u
#define ENTRY_ADDRESS  0u
#define ENTRY_ADDRESS2 4u
#define ENTRY_DATA     8u
#define ENTRY_CONTROL  12u
#define PENDING_OFFSET 2048u /* within the BAR; the table is before it */
static_assert(PCI_MSIX_VECTORS_MAX * ENTRY_SIZE <= PENDING_OFFSET, "the table fits");

/* A message that is a write to where the local APICs are. Others would go to memory, or nowhere: they
 * are not sent. Intel SDM, volume 3, section 11.11.1. */
#define IS_MESSAGE(address) ((address) >> 20 == LAYOUT_LAPIC >> 20)

struct vector {
        uint64_t address;
        uint32_t data;
        bool masked, pending, live;
        unsigned gsi;
};

struct pci_msix {
        struct pci_device *pci;
        unsigned at; /* the capability */
        unsigned n;
        struct list sources; /* of struct pci_source */
        struct vector vectors[];
};

static uint16_t control(const struct pci_msix *msix)
{
        return pci_get16(msix->pci, msix->at + PCI_MSIX_FLAGS);
}

bool pci_msix_enabled(const struct pci_device *pci)
{
        return pci->msix && (control(pci->msix) & PCI_MSIX_FLAGS_ENABLE);
}

uint16_t pci_msix_check_vector(const struct pci_device *pci, uint16_t vector)
{
        return pci->msix && vector < pci->msix->n ? vector : PCI_MSIX_NONE;
}

/* ---- sources ---- */

static void detach(struct pci_source *source)
{
        struct pci_msix *msix = source->pci->msix;

        if (!source->attached)
                return;
        irq_fd_detach(source->pci->machine, msix->vectors[source->vector].gsi, source->fd);
        source->attached = false;
}

static void attach(struct pci_source *source)
{
        struct pci_msix *msix = source->pci->msix;

        /* Without, its signals are collected and sent from here, which is slower. */
        source->attached = irq_fd_attach(source->pci->machine, msix->vectors[source->vector].gsi,
                                         source->fd, NULL) == 0;
}

static void deliver(struct pci_msix *msix, struct vector *v)
{
        v->pending = !v->live;
        if (v->live && IS_MESSAGE(v->address))
                irq_message_send(msix->pci->machine, v->address, v->data);
}

void pci_source_init(struct pci_source *source, struct pci_device *pci, int fd)
{
        *source = (struct pci_source){.pci = pci, .fd = fd, .vector = PCI_MSIX_NONE};
        list_init(&source->link);
}

bool pci_source_collect(struct pci_source *source)
{
        struct pci_msix *msix = source->pci->msix;
        bool signalled = eventfd_take(source->fd);

        /* One that is attached has nothing for us: KVM has seen what is left in it. */
        if (signalled && !source->attached && source->vector != PCI_MSIX_NONE &&
            pci_msix_enabled(source->pci))
                deliver(msix, &msix->vectors[source->vector]);
        return signalled;
}

void pci_source_set_vector(struct pci_source *source, uint16_t vector)
{
        struct pci_msix *msix = source->pci->msix;

        detach(source);
        list_remove(&source->link);
        source->vector = pci_msix_check_vector(source->pci, vector);
        if (source->vector == PCI_MSIX_NONE)
                return;
        list_append(&msix->sources, &source->link);
        if (msix->vectors[source->vector].live)
                attach(source);
}

void pci_msix_notify(struct pci_device *pci, uint16_t vector)
{
        if (pci_msix_enabled(pci) && vector < pci->msix->n)
                deliver(pci->msix, &pci->msix->vectors[vector]);
}

/* ---- vectors ---- */

static void collect_vector(struct pci_msix *msix, unsigned index)
{
        list_for_each (it, &msix->sources) {
                struct pci_source *source = container_of(it, struct pci_source, link);

                if (source->vector == index && !source->attached)
                        pci_source_collect(source);
        }
}

static bool may_live(const struct pci_msix *msix, const struct vector *v)
{
        uint16_t flags = control(msix);

        return (flags & PCI_MSIX_FLAGS_ENABLE) && !(flags & PCI_MSIX_FLAGS_MASKALL) && !v->masked;
}

static void go_live(struct pci_msix *msix, unsigned index)
{
        struct vector *v = &msix->vectors[index];

        collect_vector(msix, index);
        v->live = true;
        if (v->pending)
                deliver(msix, v);
        if (!IS_MESSAGE(v->address) ||
            irq_message_set(msix->pci->machine, v->gsi, v->address, v->data, NULL) < 0)
                return;
        list_for_each (it, &msix->sources) {
                struct pci_source *source = container_of(it, struct pci_source, link);

                if (source->vector == index)
                        attach(source);
        }
}

static void go_dead(struct pci_msix *msix, unsigned index)
{
        msix->vectors[index].live = false;
        list_for_each (it, &msix->sources) {
                struct pci_source *source = container_of(it, struct pci_source, link);

                if (source->vector == index)
                        detach(source);
        }
}

/* @changed: its message did. */
static void update(struct pci_msix *msix, unsigned index, bool changed)
{
        struct vector *v = &msix->vectors[index];
        bool live = may_live(msix, v);

        if (v->live && (!live || changed))
                go_dead(msix, index);
        if (live && !v->live)
                go_live(msix, index);
}

static void update_all(struct pci_msix *msix)
{
        for (unsigned i = 0; i < msix->n; i++)
                update(msix, i, false);
}

/* ---- the BAR ---- */

static uint32_t entry_get(const struct vector *v, unsigned field)
{
        switch (field) {
        case ENTRY_ADDRESS:
                return (uint32_t)v->address;
        case ENTRY_ADDRESS2:
                return (uint32_t)(v->address >> 32);
        case ENTRY_DATA:
                return v->data;
        default:
                return v->masked ? PCI_MSIX_ENTRY_CTRL_MASKBIT : 0;
        }
}

static void entry_set(struct vector *v, unsigned field, uint32_t value)
{
        switch (field) {
        case ENTRY_ADDRESS:
                v->address = (v->address & ~UINT64_C(0xffffffff)) | (value & ~3u);
                break;
        case ENTRY_ADDRESS2:
                v->address = (v->address & 0xffffffff) | (uint64_t)value << 32;
                break;
        case ENTRY_DATA:
                v->data = value;
                break;
        default:
                v->masked = value & PCI_MSIX_ENTRY_CTRL_MASKBIT;
        }
}

static uint32_t pending_get(struct pci_msix *msix, unsigned first)
{
        uint32_t bits = 0;

        for (unsigned i = first; i < first + 32 && i < msix->n; i++) {
                if (pci_msix_enabled(msix->pci))
                        collect_vector(msix, i);
                if (msix->vectors[i].pending)
                        bits |= UINT32_C(1) << (i - first);
        }
        return bits;
}

static uint32_t read_dword(struct pci_msix *msix, unsigned offset)
{
        if (offset < msix->n * ENTRY_SIZE)
                return entry_get(&msix->vectors[offset / ENTRY_SIZE], offset % ENTRY_SIZE);
        if (offset >= PENDING_OFFSET && (offset - PENDING_OFFSET) * 8 < msix->n)
                return pending_get(msix, (offset - PENDING_OFFSET) * 8);
        return 0;
}

/* Section 6.8.2: whole dwords, or whole qwords. */
static bool is_whole(uint64_t offset, unsigned size)
{
        return (size == 4 || size == 8) && offset % size == 0;
}

static uint64_t msix_read(void *owner, uint64_t offset, unsigned size)
{
        struct pci_msix *msix = owner;
        uint64_t value;

        if (!is_whole(offset, size))
                return UINT64_MAX >> (64 - 8 * size);
        value = read_dword(msix, (unsigned)offset);
        if (size == 8)
                value |= (uint64_t)read_dword(msix, (unsigned)offset + 4) << 32;
        return value;
}

static void msix_write(void *owner, uint64_t offset, unsigned size, uint64_t value)
{
        struct pci_msix *msix = owner;
        unsigned index = (unsigned)offset / ENTRY_SIZE, field = offset % ENTRY_SIZE;
        uint64_t address;
        struct vector *v;
        uint32_t data;

        if (!is_whole(offset, size) || index >= msix->n)
                return;
        v = &msix->vectors[index];
        address = v->address;
        data = v->data;
        entry_set(v, field, (uint32_t)value);
        if (size == 8)
                entry_set(v, field + 4, (uint32_t)(value >> 32));
        update(msix, index, address != v->address || data != v->data);
}

static const struct bus_ops msix_ops = {msix_read, msix_write};

/* ---- the capability ---- */

void pci_msix_config_written(struct pci_device *pci, unsigned offset, unsigned size)
{
        struct pci_msix *msix = pci->msix;

        if (msix && offset < msix->at + PCI_CAP_MSIX_SIZEOF && offset + size > msix->at)
                update_all(msix);
}

int pci_msix_new(struct pci_device *pci, unsigned bar, unsigned n_vectors, struct error *err)
{
        struct pci_msix *msix = calloc(1, sizeof(*msix) + n_vectors * sizeof(msix->vectors[0]));
        uint8_t body[PCI_CAP_MSIX_SIZEOF - 2];

        assert(n_vectors > 0 && n_vectors <= PCI_MSIX_VECTORS_MAX);
        if (!msix)
                return error_set(err, -ENOMEM, "no memory for %u interrupt vectors", n_vectors);
        list_init(&msix->sources);
        msix->pci = pci;
        for (; msix->n < n_vectors; msix->n++) {
                int r = irq_message_new(pci->machine, &msix->vectors[msix->n].gsi, err);

                if (r < 0) {
                        pci->msix = msix;
                        pci_msix_free(pci);
                        return r;
                }
        }
        pci_put16(body + PCI_MSIX_FLAGS - 2, (uint16_t)(n_vectors - 1));
        pci_put32(body + PCI_MSIX_TABLE - 2, bar);
        pci_put32(body + PCI_MSIX_PBA - 2, PENDING_OFFSET | bar);
        msix->at = pci_add_capability(pci, PCI_CAP_ID_MSIX, body, sizeof(body));
        pci_put16(pci->writable + msix->at + PCI_MSIX_FLAGS,
                  PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
        pci_add_bar(pci, bar, PCI_MSIX_BAR_SIZE, &msix_ops, msix);
        pci->msix = msix;
        pci_msix_reset(pci);
        return 0;
}

void pci_msix_free(struct pci_device *pci)
{
        struct pci_msix *msix = pci->msix;

        if (!msix)
                return;
        for (unsigned i = 0; i < msix->n; i++) {
                go_dead(msix, i);
                irq_message_free(pci->machine, msix->vectors[i].gsi);
        }
        list_for_each_safe (it, &msix->sources)
                list_remove(it);
        pci->msix = NULL;
        free(msix);
}

/* The capability's own bits are cleared already. */
void pci_msix_reset(struct pci_device *pci)
{
        struct pci_msix *msix = pci->msix;

        for (unsigned i = 0; msix && i < msix->n; i++) {
                struct vector *v = &msix->vectors[i];

                go_dead(msix, i);
                *v = (struct vector){.masked = true, .gsi = v->gsi};
        }
}

void pci_msix_save(const struct pci_device *pci, struct state_writer *w)
{
        struct pci_msix *msix = pci->msix;

        for (unsigned i = 0; msix && i < msix->n; i++) {
                const struct vector *v = &msix->vectors[i];

                if (pci_msix_enabled(pci))
                        collect_vector(msix, i);
                state_put64(w, v->address);
                state_put32(w, v->data);
                state_put8(w, v->masked);
                state_put8(w, v->pending);
        }
}

int pci_msix_restore(struct pci_device *pci, struct state_reader *r, struct error *err)
{
        struct pci_msix *msix = pci->msix;

        for (unsigned i = 0; msix && i < msix->n; i++) {
                struct vector *v = &msix->vectors[i];

                v->address = state_get64(r) & ~UINT64_C(3);
                v->data = state_get32(r);
                v->masked = state_get8(r);
                v->pending = state_get8(r);
        }
        if (r->failed)
                return error_set(err, -EINVAL, "the state of a device's interrupts is cut off");
        if (msix)
                update_all(msix);
        return 0;
}
