/* virtio_pci_regs.c - what the guest sees of a virtio device on PCI: VIRTIO 1.2, section 4.1.4. */
#include <assert.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <string.h>

#include "vmm-glue/vmm/machine.h"
#include "vmm-glue/vmm/virtio_pci.h"
#include "vmm-glue/vmm/watch.h"

#define COMMON_SIZE 56u /* without what came with QUEUE_RESET, which is not offered */
#define WINDOW_DATA (offsetof(struct virtio_pci_cfg_cap, pci_cfg_data))

/* ---- the common configuration: section 4.1.4.3 ---- */

static struct virtio_queue *selected(const struct virtio_pci *p)
{
        return p->queue_select < p->v->n_queues ? &p->v->queues[p->queue_select] : NULL;
}

static uint32_t half(uint64_t value, uint32_t select)
{
        return select < 2 ? (uint32_t)(value >> 32 * select) : 0;
}

static void put64(uint8_t *to, uint64_t value)
{
        pci_put32(to, (uint32_t)value);
        pci_put32(to + 4, (uint32_t)(value >> 32));
}

/* As a whole: so a read of any size, anywhere, gets what lies there. None has an effect. */
static void common_image(const struct virtio_pci *p, uint8_t *image)
{
        const struct virtio_queue *queue = selected(p);

        memset(image, 0, COMMON_SIZE);
        pci_put32(image + VIRTIO_PCI_COMMON_DFSELECT, p->device_feature_select);
        pci_put32(image + VIRTIO_PCI_COMMON_DF, half(p->offered, p->device_feature_select));
        pci_put32(image + VIRTIO_PCI_COMMON_GFSELECT, p->driver_feature_select);
        pci_put32(image + VIRTIO_PCI_COMMON_GF, half(p->driver_features, p->driver_feature_select));
        pci_put16(image + VIRTIO_PCI_COMMON_MSIX, p->config_vector);
        pci_put16(image + VIRTIO_PCI_COMMON_NUMQ, (uint16_t)p->v->n_queues);
        image[VIRTIO_PCI_COMMON_STATUS] = p->status;
        image[VIRTIO_PCI_COMMON_CFGGENERATION] = p->generation;
        pci_put16(image + VIRTIO_PCI_COMMON_Q_SELECT, p->queue_select);
        if (!queue)
                return; /* its size of 0 says so */
        pci_put16(image + VIRTIO_PCI_COMMON_Q_SIZE, queue->size);
        pci_put16(image + VIRTIO_PCI_COMMON_Q_MSIX, p->queues[p->queue_select].source.vector);
        pci_put16(image + VIRTIO_PCI_COMMON_Q_ENABLE, queue->enabled);
        pci_put16(image + VIRTIO_PCI_COMMON_Q_NOFF, p->queue_select);
        put64(image + VIRTIO_PCI_COMMON_Q_DESCLO, queue->descriptors);
        put64(image + VIRTIO_PCI_COMMON_Q_AVAILLO, queue->available);
        put64(image + VIRTIO_PCI_COMMON_Q_USEDLO, queue->used);
}

static void write_driver_features(struct virtio_pci *p, uint32_t value)
{
        unsigned shift = 32 * p->driver_feature_select;

        if (p->driver_feature_select > 1 || (p->status & VIRTIO_CONFIG_S_FEATURES_OK))
                return;
        p->driver_features &= ~(UINT64_C(0xffffffff) << shift);
        p->driver_features |= (uint64_t)value << shift;
}

static void write_queue_size(struct virtio_pci *p, uint16_t value)
{
        struct virtio_queue *queue = selected(p);

        if (!queue || queue->enabled)
                return;
        /* What makes no sense leaves what was there, and so the driver reads it. */
        if (value > 0 && value <= queue->size_max && (value & (value - 1)) == 0)
                queue->size = value;
}

static void write_queue_address(struct virtio_pci *p, unsigned offset, unsigned size,
                                uint64_t value)
{
        struct virtio_queue *queue = selected(p);
        uint64_t *address;

        if (!queue || queue->enabled)
                return;
        address = offset < VIRTIO_PCI_COMMON_Q_AVAILLO  ? &queue->descriptors
                  : offset < VIRTIO_PCI_COMMON_Q_USEDLO ? &queue->available
                                                        : &queue->used;
        if (size == 8)
                *address = value;
        else if (offset % 8 == 0)
                *address = (*address & ~UINT64_C(0xffffffff)) | value;
        else
                *address = (*address & 0xffffffff) | value << 32;
}

static void write_common32(struct virtio_pci *p, uint64_t offset, uint32_t value)
{
        switch (offset) {
        case VIRTIO_PCI_COMMON_DFSELECT:
                p->device_feature_select = value;
                break;
        case VIRTIO_PCI_COMMON_GFSELECT:
                p->driver_feature_select = value;
                break;
        case VIRTIO_PCI_COMMON_GF:
                write_driver_features(p, value);
                break;
        }
}

static void write_common16(struct virtio_pci *p, uint64_t offset, uint16_t value)
{
        switch (offset) {
        case VIRTIO_PCI_COMMON_MSIX:
                p->config_vector = pci_msix_check_vector(&p->pci, value);
                break;
        case VIRTIO_PCI_COMMON_Q_SELECT:
                p->queue_select = value;
                break;
        case VIRTIO_PCI_COMMON_Q_SIZE:
                write_queue_size(p, value);
                break;
        case VIRTIO_PCI_COMMON_Q_MSIX:
                if (selected(p))
                        pci_source_set_vector(&p->queues[p->queue_select].source, value);
                break;
        case VIRTIO_PCI_COMMON_Q_ENABLE:
                if (selected(p) && value == 1)
                        virtio_pci_enable_queue(p, p->queue_select);
                break;
        }
}

/* Section 4.1.3.1: a field is written by its own size, one of 64 bits also in halves. */
static void common_write(struct virtio_pci *p, uint64_t offset, unsigned size, uint64_t value)
{
        if (offset == VIRTIO_PCI_COMMON_STATUS && size == 1)
                virtio_pci_write_status(p, (uint8_t)value);
        else if (offset >= VIRTIO_PCI_COMMON_Q_DESCLO && offset < COMMON_SIZE &&
                 (size == 4 || size == 8) && offset % size == 0)
                write_queue_address(p, (unsigned)offset, size, value);
        else if (size == 4)
                write_common32(p, offset, (uint32_t)value);
        else if (size == 2)
                write_common16(p, offset, (uint16_t)value);
}

static uint64_t common_read(const struct virtio_pci *p, uint64_t offset, unsigned size)
{
        uint8_t image[COMMON_SIZE];
        uint64_t value = 0;

        common_image(p, image);
        for (unsigned i = 0; i < size && offset + i < COMMON_SIZE; i++)
                value |= (uint64_t)image[offset + i] << 8 * i;
        return value;
}

/* ---- the other structures: sections 4.1.4.4 to 4.1.4.6 ---- */

static uint64_t isr_read(struct virtio_pci *p, uint64_t offset)
{
        uint8_t isr = p->isr;

        if (offset != 0)
                return 0;
        virtio_pci_set_isr(p, 0);
        return isr;
}

static uint64_t device_read(struct virtio_pci *p, uint64_t offset, unsigned size)
{
        uint64_t value = 0;

        if (p->v->ops->read_config)
                p->v->ops->read_config(p->v, (uint32_t)offset, &value, size);
        return value;
}

static void device_write(struct virtio_pci *p, uint64_t offset, unsigned size, uint64_t value)
{
        if (p->v->ops->write_config)
                p->v->ops->write_config(p->v, (uint32_t)offset, &value, size);
}

/* Only what KVM does not do in our place. */
static void notify(struct virtio_pci *p, uint64_t offset)
{
        uint64_t index = offset / VIRTIO_PCI_NOTIFY_GAP;

        if (index < p->v->n_queues && p->v->queues[index].enabled)
                eventfd_signal(p->v->queues[index].kick);
}

static uint64_t bar_read(void *owner, uint64_t offset, unsigned size)
{
        struct virtio_pci *p = owner;
        uint64_t within = offset % VIRTIO_PCI_PAGE;

        if (within + size > VIRTIO_PCI_PAGE)
                return UINT64_MAX >> (64 - 8 * size);
        switch (offset - within) {
        case VIRTIO_PCI_COMMON:
                return common_read(p, within, size);
        case VIRTIO_PCI_ISR_PAGE:
                return isr_read(p, within);
        case VIRTIO_PCI_DEVICE:
                return device_read(p, within, size);
        }
        return 0;
}

static void bar_write(void *owner, uint64_t offset, unsigned size, uint64_t value)
{
        struct virtio_pci *p = owner;
        uint64_t within = offset % VIRTIO_PCI_PAGE;

        if (within + size > VIRTIO_PCI_PAGE)
                return;
        switch (offset - within) {
        case VIRTIO_PCI_COMMON:
                common_write(p, within, size, value);
                break;
        case VIRTIO_PCI_DEVICE:
                device_write(p, within, size, value);
                break;
        case VIRTIO_PCI_NOTIFY:
                notify(p, within);
                break;
        }
}

static const struct bus_ops bar_ops = {bar_read, bar_write};

/* ---- capabilities: sections 4.1.4 and 4.1.4.9 ---- */

static unsigned add_capability(struct virtio_pci *p, uint8_t type, uint32_t offset, uint32_t length,
                               unsigned extra)
{
        uint8_t capability[sizeof(struct virtio_pci_cfg_cap)] = {0};
        unsigned size = sizeof(struct virtio_pci_cap) + extra;

        capability[VIRTIO_PCI_CAP_LEN] = (uint8_t)size;
        capability[VIRTIO_PCI_CAP_CFG_TYPE] = type;
        capability[VIRTIO_PCI_CAP_BAR] = VIRTIO_PCI_BAR;
        pci_put32(capability + VIRTIO_PCI_CAP_OFFSET, offset);
        pci_put32(capability + VIRTIO_PCI_CAP_LENGTH, length);
        if (type == VIRTIO_PCI_CAP_NOTIFY_CFG)
                pci_put32(capability + VIRTIO_PCI_NOTIFY_CAP_MULT, VIRTIO_PCI_NOTIFY_GAP);
        return pci_add_capability(&p->pci, PCI_CAP_ID_VNDR, capability + 2, size - 2);
}

void virtio_pci_add_registers(struct virtio_pci *p)
{
        uint8_t *writable;

        pci_add_bar(&p->pci, VIRTIO_PCI_BAR, VIRTIO_PCI_BAR_SIZE, &bar_ops, p);
        add_capability(p, VIRTIO_PCI_CAP_COMMON_CFG, VIRTIO_PCI_COMMON, COMMON_SIZE, 0);
        add_capability(p, VIRTIO_PCI_CAP_ISR_CFG, VIRTIO_PCI_ISR_PAGE, 1, 0);
        add_capability(p, VIRTIO_PCI_CAP_DEVICE_CFG, VIRTIO_PCI_DEVICE, VIRTIO_PCI_PAGE, 0);
        add_capability(p, VIRTIO_PCI_CAP_NOTIFY_CFG, VIRTIO_PCI_NOTIFY,
                       p->v->n_queues * VIRTIO_PCI_NOTIFY_GAP, 4);
        p->window = add_capability(p, VIRTIO_PCI_CAP_PCI_CFG, 0, 0, 4);
        writable = p->pci.writable + p->window;
        writable[VIRTIO_PCI_CAP_BAR] = 0xff;
        memset(writable + VIRTIO_PCI_CAP_OFFSET, 0xff, 4);
        memset(writable + VIRTIO_PCI_CAP_LENGTH, 0xff, 4);
        memset(writable + WINDOW_DATA, 0xff, 4);
}

/* The BAR that the window shows something of; NULL where it makes no sense. */
static struct pci_bar *window_bar(struct virtio_pci *p, unsigned offset, unsigned size,
                                  uint32_t *ret_offset, uint32_t *ret_length)
{
        unsigned data = p->window + (unsigned)WINDOW_DATA;
        uint8_t bar = p->pci.config[p->window + VIRTIO_PCI_CAP_BAR];

        *ret_offset = pci_get32(&p->pci, p->window + VIRTIO_PCI_CAP_OFFSET);
        *ret_length = pci_get32(&p->pci, p->window + VIRTIO_PCI_CAP_LENGTH);
        if (offset >= data + 4 || offset + size <= data || bar >= PCI_BARS)
                return NULL;
        if ((*ret_length != 1 && *ret_length != 2 && *ret_length != 4) ||
            *ret_offset % *ret_length || *ret_offset >= p->pci.bars[bar].size)
                return NULL;
        return &p->pci.bars[bar];
}

void virtio_pci_window_read(struct virtio_pci *p, unsigned offset, unsigned size)
{
        uint32_t at, length;
        const struct pci_bar *bar = window_bar(p, offset, size, &at, &length);

        if (bar)
                pci_put32(p->pci.config + p->window + WINDOW_DATA,
                          (uint32_t)bar->ops->read(bar->owner, at, length));
}

void virtio_pci_window_written(struct virtio_pci *p, unsigned offset, unsigned size)
{
        uint32_t at, length, value = pci_get32(&p->pci, p->window + (unsigned)WINDOW_DATA);
        const struct pci_bar *bar = window_bar(p, offset, size, &at, &length);

        if (bar)
                bar->ops->write(bar->owner, at, length, value & UINT32_MAX >> (32 - 8 * length));
}
