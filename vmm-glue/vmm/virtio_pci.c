/* virtio_pci.c - the life of a virtio device on PCI: it is attached, reset, started, paused, saved, let
 * go of; its interrupts. VIRTIO 1.2, sections 2.1, 3.1 and 4.1. */
#include "vmm-glue/vmm/virtio_pci.h"

#include <assert.h>
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_pci.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm-glue/vmm/machine.h"
#include "vmm-glue/vmm/watch.h"

#define VENDOR      0x1af4u
#define DEVICE_BASE 0x1040u

#define ISR_QUEUE  1u
#define ISR_CONFIG 2u

#define STATUS_OF_DRIVER                                                                           \
        (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK |      \
         VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_FAILED)

#define VERSION_1 (UINT64_C(1) << VIRTIO_F_VERSION_1)

static struct virtio_pci *of_pci(struct pci_device *pci)
{
        return container_of(pci, struct virtio_pci, pci);
}

static struct virtio_pci *of_device(struct device *device)
{
        return container_of(device, struct virtio_pci, device);
}

/* ---- interrupts ---- */

void virtio_pci_set_isr(struct virtio_pci *p, uint8_t isr)
{
        p->isr = isr;
        pci_intx_set(&p->pci, isr != 0);
}

/* A queue's call eventfd was signalled, and KVM did not see to it. */
static void call_readable(void *arg)
{
        struct virtio_pci_queue *q = arg;
        struct virtio_pci *p = q->transport;

        if (pci_source_collect(&q->source) && !pci_msix_enabled(&p->pci))
                virtio_pci_set_isr(p, p->isr | ISR_QUEUE);
}

void virtio_signal(struct virtio_queue *queue)
{
        eventfd_signal(queue->call);
}

static void config_interrupt(struct virtio_pci *p)
{
        if (!(p->status & VIRTIO_CONFIG_S_DRIVER_OK))
                return;
        if (pci_msix_enabled(&p->pci))
                pci_msix_notify(&p->pci, p->config_vector);
        else
                virtio_pci_set_isr(p, p->isr | ISR_CONFIG);
}

void virtio_config_changed(struct virtio_device *v)
{
        v->transport->generation++;
        config_interrupt(v->transport);
}

void virtio_needs_reset(struct virtio_device *v)
{
        struct virtio_pci *p = v->transport;

        if (p->status & VIRTIO_CONFIG_S_NEEDS_RESET)
                return;
        p->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
        config_interrupt(p);
}

void virtio_log(struct virtio_device *v, const char *format, ...)
{
        char text[256];
        va_list args;

        if (!log_limit_admits(&v->transport->log_limit, loop_now_ns(v->machine->loop), v->id,
                              "what the guest does"))
                return;
        va_start(args, format);
        vsnprintf(text, sizeof(text), format, args);
        va_end(args);
        log_warning("%s: %s", v->id, text);
}

/* ---- kicks ---- */

static void kick_readable(void *arg)
{
        struct virtio_pci_queue *q = arg;
        struct virtio_device *v = q->transport->v;

        eventfd_take(v->queues[q->index].kick);
        if (v->started && !(q->transport->status & VIRTIO_CONFIG_S_NEEDS_RESET))
                v->ops->kick(v, q->index);
}

/* While its BAR answers, a queue that is enabled is kicked without an exit. Where KVM has no room for
 * more, the write comes to us, and notify() does it. */
static void set_notified(struct virtio_pci_queue *q, bool wanted)
{
        struct virtio_pci *p = q->transport;
        int kick = p->v->queues[q->index].kick;

        if (wanted == q->notified)
                return;
        if (wanted)
                q->notify_address = p->pci.bars[VIRTIO_PCI_BAR].range.start + VIRTIO_PCI_NOTIFY +
                                    (uint64_t)q->index * VIRTIO_PCI_NOTIFY_GAP;
        if (machine_ioeventfd(p->v->machine, false, q->notify_address, 0, NULL, kick, !wanted,
                              NULL) == 0)
                q->notified = wanted;
}

static void bar_mapped(struct pci_device *pci, unsigned bar, bool mapped)
{
        struct virtio_pci *p = of_pci(pci);

        for (unsigned i = 0; bar == VIRTIO_PCI_BAR && i < p->v->n_queues; i++)
                set_notified(&p->queues[i], mapped && p->v->queues[i].enabled);
}

static void update_notified(struct virtio_pci *p, unsigned index)
{
        set_notified(&p->queues[index],
                     p->pci.bars[VIRTIO_PCI_BAR].mapped && p->v->queues[index].enabled);
}

/* ---- running ---- */

/* Nothing that was said while nobody listened is lost. */
static void signal_queues(struct virtio_device *v, bool call)
{
        for (unsigned i = 0; i < v->n_queues; i++)
                if (v->queues[i].enabled)
                        eventfd_signal(call ? v->queues[i].call : v->queues[i].kick);
}

static void stop(struct virtio_device *v)
{
        if (!v->started)
                return;
        v->ops->stop(v);
        v->started = false;
}

static void start(struct virtio_device *v)
{
        struct error err = ERROR_INIT;

        if (v->ops->start(v, &err) < 0) {
                virtio_log(v, "%s", err.message);
                virtio_needs_reset(v);
                return;
        }
        v->started = true;
        signal_queues(v, false);
}

/* It runs when the driver is ready, the machine is, and the device may access memory: whoever boots
 * another kernel takes that away first. */
static void update_running(struct virtio_pci *p)
{
        bool wanted =
            (p->status & VIRTIO_CONFIG_S_DRIVER_OK) && !p->paused && pci_may_access_memory(&p->pci);

        if (!wanted)
                stop(p->v);
        else if (!p->v->started && !(p->status & VIRTIO_CONFIG_S_NEEDS_RESET))
                start(p->v);
}

static void reset_queue(struct virtio_pci *p, unsigned index)
{
        struct virtio_queue *queue = &p->v->queues[index];

        queue->enabled = false;
        update_notified(p, index);
        pci_source_set_vector(&p->queues[index].source, PCI_MSIX_NONE);
        eventfd_take(queue->kick);
        eventfd_take(queue->call);
        queue->size = queue->size_max;
        queue->descriptors = queue->available = queue->used = 0;
        queue->next_available = queue->next_used = 0;
}

/* Section 2.4: when the driver reads 0 all is as at the beginning. */
static void reset_virtio(struct virtio_pci *p)
{
        struct virtio_device *v = p->v;

        stop(v);
        p->status = 0;
        for (unsigned i = 0; i < v->n_queues; i++)
                reset_queue(p, i);
        p->device_feature_select = p->driver_feature_select = 0;
        p->queue_select = 0;
        p->config_vector = PCI_MSIX_NONE;
        virtio_pci_set_isr(p, 0);
        p->driver_features = v->features = 0;
        if (v->ops->reset)
                v->ops->reset(v);
        p->offered = VERSION_1 | v->ops->features(v);
}

static bool features_agree(const struct virtio_pci *p)
{
        return (p->driver_features & VERSION_1) && !(p->driver_features & ~p->offered);
}

void virtio_pci_write_status(struct virtio_pci *p, uint8_t value)
{
        if (value == 0) {
                reset_virtio(p);
                return;
        }
        value = (value & STATUS_OF_DRIVER) | p->status; /* bits are taken away by a reset alone */
        if ((value & ~p->status & VIRTIO_CONFIG_S_FEATURES_OK) && !features_agree(p))
                value &= (uint8_t)~VIRTIO_CONFIG_S_FEATURES_OK;
        if (!(value & VIRTIO_CONFIG_S_FEATURES_OK))
                value &= (uint8_t)~VIRTIO_CONFIG_S_DRIVER_OK;
        p->status = value;
        if (value & VIRTIO_CONFIG_S_FEATURES_OK)
                p->v->features = p->driver_features;
        update_running(p);
}

/* Section 2.7. */
static bool aligned(const struct virtio_queue *queue)
{
        return queue->descriptors % 16 == 0 && queue->available % 2 == 0 && queue->used % 4 == 0;
}

/* Section 3.1.1: before DRIVER_OK. Later it would come too late for the device. */
void virtio_pci_enable_queue(struct virtio_pci *p, unsigned index)
{
        struct virtio_queue *queue = &p->v->queues[index];

        if (queue->enabled || (p->status & VIRTIO_CONFIG_S_DRIVER_OK))
                return;
        if (!aligned(queue)) {
                virtio_log(p->v, "the rings of queue %u are not aligned", index);
                virtio_needs_reset(p->v);
                return;
        }
        queue->enabled = true;
        update_notified(p, index);
}

/* ---- as a device of the bus ---- */

static void config_read(struct pci_device *pci, unsigned offset, unsigned size)
{
        virtio_pci_window_read(of_pci(pci), offset, size);
}

static void config_written(struct pci_device *pci, unsigned offset, unsigned size)
{
        struct virtio_pci *p = of_pci(pci);

        virtio_pci_window_written(p, offset, size);
        update_running(p);
}

static void say_farewell(struct loop_task *task)
{
        struct virtio_pci_farewell *farewell = container_of(task, struct virtio_pci_farewell, task);
        struct virtio_pci *p = farewell->transport;
        struct machine *machine;

        if (!p) {
                free(farewell);
                return;
        }
        machine = p->v->machine;
        machine_lock(machine);
        if (p->removed)
                p->removed(p->v);
        farewell->posted = false; /* whoever frees the device frees it too */
        machine_remove_device(machine, &p->device);
        machine_unlock(machine);
}

/* By a vCPU's thread, or at a reset, in the midst of the machine's list of devices. */
static void ejected(struct pci_device *pci)
{
        struct virtio_pci *p = of_pci(pci);

        reset_virtio(p);
        p->farewell->posted = true;
        loop_post_remote(p->v->machine->loop, &p->farewell->task);
}

static const struct pci_device_ops pci_ops = {
    .bar_mapped = bar_mapped,
    .config_read = config_read,
    .config_written = config_written,
    .ejected = ejected,
};

void virtio_detach(struct virtio_device *v, void (*removed)(struct virtio_device *v))
{
        struct virtio_pci *p = v->transport;

        p->removed = removed;
        if (!p->farewell->posted)
                pci_ask_eject(&p->pci);
}

/* ---- as a device of the machine ---- */

static void device_reset(struct device *device)
{
        struct virtio_pci *p = of_device(device);

        reset_virtio(p);
        pci_device_reset(&p->pci);
}

static void device_pause(struct device *device)
{
        struct virtio_pci *p = of_device(device);

        p->paused = true;
        update_running(p);
        /* What a queue has signalled last is not in anybody's memory but this. */
        for (unsigned i = 0; i < p->v->n_queues; i++)
                if (!p->queues[i].source.attached)
                        call_readable(&p->queues[i]);
}

static void device_resume(struct device *device)
{
        struct virtio_pci *p = of_device(device);

        p->paused = false;
        update_running(p);
        /* After a restore nobody knows what was on its way; an interrupt more does no harm. */
        if (p->v->started)
                signal_queues(p->v, true);
}

/* One that does not run sees at its start whether there is a log. */
static int device_log(struct device *device, bool on, struct error *err)
{
        struct virtio_device *v = of_device(device)->v;

        return v->started && v->ops->log ? v->ops->log(v, on, err) : 0;
}

static void device_save(struct device *device, struct state_writer *w)
{
        struct virtio_pci *p = of_device(device);
        struct virtio_device *v = p->v;

        pci_device_save(&p->pci, w);
        state_put8(w, p->status);
        state_put8(w, p->isr);
        state_put8(w, p->generation);
        state_put32(w, p->device_feature_select);
        state_put32(w, p->driver_feature_select);
        state_put64(w, p->driver_features);
        state_put16(w, p->config_vector);
        state_put16(w, p->queue_select);
        state_put16(w, (uint16_t)v->n_queues);
        for (unsigned i = 0; i < v->n_queues; i++) {
                const struct virtio_queue *queue = &v->queues[i];

                state_put16(w, queue->size);
                state_put8(w, queue->enabled);
                state_put16(w, p->queues[i].source.vector);
                state_put64(w, queue->descriptors);
                state_put64(w, queue->available);
                state_put64(w, queue->used);
                state_put16(w, queue->next_available);
                state_put16(w, queue->next_used);
        }
        if (v->ops->save)
                v->ops->save(v, w);
}

static int restore_queue(struct virtio_pci *p, unsigned index, struct state_reader *r,
                         struct error *err)
{
        struct virtio_queue *queue = &p->v->queues[index];
        uint16_t size = state_get16(r);
        bool enabled = state_get8(r);
        uint16_t vector = state_get16(r);

        queue->descriptors = state_get64(r);
        queue->available = state_get64(r);
        queue->used = state_get64(r);
        queue->next_available = state_get16(r);
        queue->next_used = state_get16(r);
        if (size == 0 || size > queue->size_max || (size & (size - 1)) ||
            (enabled && !aligned(queue)))
                return error_set(err, -EINVAL, "queue %u of %s was another one", index, p->v->id);
        queue->size = size;
        queue->enabled = enabled;
        update_notified(p, index);
        pci_source_set_vector(&p->queues[index].source, vector);
        return 0;
}

static int restore_status(struct virtio_pci *p, uint8_t status, struct error *err)
{
        if (status & ~(STATUS_OF_DRIVER | VIRTIO_CONFIG_S_NEEDS_RESET))
                return error_set(err, -EINVAL, "%s has no status 0x%x", p->v->id, status);
        if ((status & VIRTIO_CONFIG_S_FEATURES_OK) && !features_agree(p))
                return error_set(err, -EINVAL,
                                 "%s has no longer the features that its driver uses: 0x%llx",
                                 p->v->id, (unsigned long long)(p->driver_features & ~p->offered));
        if ((status & VIRTIO_CONFIG_S_DRIVER_OK) && !(status & VIRTIO_CONFIG_S_FEATURES_OK))
                return error_set(err, -EINVAL, "%s has no status 0x%x", p->v->id, status);
        p->status = status;
        if (status & VIRTIO_CONFIG_S_FEATURES_OK)
                p->v->features = p->driver_features;
        return 0;
}

/* It starts at resume(). */
static int device_restore(struct device *device, struct state_reader *r, struct error *err)
{
        struct virtio_pci *p = of_device(device);
        struct virtio_device *v = p->v;
        uint8_t status, isr;
        unsigned n_queues;
        int ret;

        p->paused = true;
        ret = pci_device_restore(&p->pci, r, err);
        if (ret < 0)
                return ret;
        status = state_get8(r);
        isr = state_get8(r);
        p->generation = state_get8(r);
        p->device_feature_select = state_get32(r);
        p->driver_feature_select = state_get32(r);
        p->driver_features = state_get64(r);
        p->config_vector = pci_msix_check_vector(&p->pci, state_get16(r));
        p->queue_select = state_get16(r);
        n_queues = state_get16(r);
        if (n_queues != v->n_queues)
                return error_set(err, -EINVAL, "%s had %u queues and has %u", v->id, n_queues,
                                 v->n_queues);
        virtio_pci_set_isr(p, isr & (ISR_QUEUE | ISR_CONFIG));
        ret = restore_status(p, status, err);
        for (unsigned i = 0; ret == 0 && i < n_queues; i++)
                ret = restore_queue(p, i, r, err);
        if (ret == 0 && v->ops->restore)
                ret = v->ops->restore(v, r, err);
        return ret;
}

static void device_free(struct device *device)
{
        struct virtio_pci *p = of_device(device);
        struct virtio_device *v = p->v;

        stop(v);
        pci_remove(&p->pci);
        pci_msix_free(&p->pci);
        for (unsigned i = 0; p->queues && i < v->n_queues; i++) {
                /* Watches close what they watch. */
                if (!p->queues[i].kick && v->queues[i].kick >= 0)
                        close(v->queues[i].kick);
                watch_free(p->queues[i].kick);
                watch_free(p->queues[i].call);
        }
        if (p->farewell && p->farewell->posted)
                p->farewell->transport = NULL;
        else
                free(p->farewell);
        free(p->queues);
        free(v->queues);
        v->ops->free(v);
        free(p);
}

static const struct device_ops device_ops = {
    .version = 1,
    .reset = device_reset,
    .pause = device_pause,
    .resume = device_resume,
    .log = device_log,
    .save = device_save,
    .restore = device_restore,
    .free = device_free,
};

/* ---- attaching ---- */

static uint32_t class_code(uint16_t type)
{
        switch (type) {
        case VIRTIO_ID_NET:
                return 0x020000;
        case VIRTIO_ID_BLOCK:
                return 0x010000;
        case VIRTIO_ID_VSOCK:
                return 0x028000;
        default:
                return 0xff0000;
        }
}

static int make_queue(struct virtio_pci *p, unsigned index, uint16_t size, struct error *err)
{
        struct virtio_queue *queue = &p->v->queues[index];
        struct virtio_pci_queue *q = &p->queues[index];
        int r = 0;

        assert(size > 0 && size <= VIRTIO_QUEUE_SIZE_MAX && (size & (size - 1)) == 0);
        *q = (struct virtio_pci_queue){.transport = p, .index = index};
        queue->size = queue->size_max = size;
        queue->kick = eventfd_new(err);
        if (queue->kick < 0)
                return queue->kick;
        if (p->v->ops->kick)
                r = watch_new(p->v->machine, queue->kick, kick_readable, q, &q->kick, err);
        if (r < 0) {
                queue->kick = -1;
                return r;
        }
        queue->call = eventfd_new(err);
        if (queue->call < 0)
                return queue->call;
        pci_source_init(&q->source, &p->pci, queue->call);
        return watch_new(p->v->machine, queue->call, call_readable, q, &q->call, err);
}

static int make_queues(struct virtio_pci *p, const struct virtio_options *options,
                       struct error *err)
{
        struct virtio_device *v = p->v;
        int r = 0;

        assert(options->n_queues > 0 && options->n_queues <= VIRTIO_QUEUES_MAX);
        v->queues = calloc(options->n_queues, sizeof(*v->queues));
        p->queues = calloc(options->n_queues, sizeof(*p->queues));
        if (!v->queues || !p->queues)
                return error_set(err, -ENOMEM, "no memory for the queues of %s", v->id);
        /* What is not made yet is not closed. */
        v->n_queues = options->n_queues;
        for (unsigned i = 0; i < v->n_queues; i++)
                v->queues[i].kick = -1;
        for (unsigned i = 0; r == 0 && i < v->n_queues; i++)
                r = make_queue(p, i, options->queue_sizes[i], err);
        return r;
}

static int make_farewell(struct virtio_pci *p, struct error *err)
{
        struct virtio_pci_farewell *farewell = malloc(sizeof(*farewell));

        if (!farewell)
                return error_set(err, -ENOMEM, "no memory for %s", p->v->id);
        *farewell = (struct virtio_pci_farewell){.task.run = say_farewell, .transport = p};
        p->farewell = farewell;
        return 0;
}

int virtio_attach(struct machine *machine, struct virtio_device *v,
                  const struct virtio_options *options, struct error *err)
{
        struct virtio_pci *p = calloc(1, sizeof(*p));
        const struct pci_identity identity = {
            .vendor = VENDOR,
            .device = DEVICE_BASE + v->ops->type,
            .subsystem_vendor = VENDOR,
            .subsystem = DEVICE_BASE + v->ops->type,
            .class_code = class_code(v->ops->type),
            .revision = 1, /* section 4.1.2.1 */
            .interrupt = true,
        };
        int r;

        v->machine = machine;
        v->transport = p;
        v->queues = NULL;
        v->n_queues = 0;
        if (!p) {
                v->ops->free(v);
                return error_set(err, -ENOMEM, "no memory for a device");
        }
        p->v = v;
        p->device = (struct device){.ops = &device_ops, .machine = machine};
        memcpy(p->device.id, v->id, sizeof(p->device.id));
        pci_device_init(&p->pci, machine, &pci_ops, &identity);
        p->pci.boot_order = options->boot_order;
        r = make_farewell(p, err);
        if (r == 0)
                r = make_queues(p, options, err);
        if (r == 0)
                r = pci_msix_new(&p->pci, VIRTIO_PCI_MSIX_BAR, v->n_queues + 1, err);
        if (r == 0) {
                virtio_pci_add_registers(p);
                r = pci_insert(&p->pci, options->hotplugged, err);
        }
        if (r < 0) {
                device_free(&p->device);
                return r;
        }
        reset_virtio(p);
        machine_add_device(machine, &p->device);
        return 0;
}
