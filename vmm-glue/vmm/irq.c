/* irq.c - interrupts, by KVM. */
#include "vmm-glue/vmm/irq.h"

#include <assert.h>
#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "common/log.h"
#include "vmm-glue/vmm/machine.h"

void irq_line_set(struct irq_line *line, bool high)
{
        struct machine *machine = line->machine;
        unsigned *n = &machine->irqs.high[line->gsi];
        struct kvm_irq_level level = {.irq = line->gsi};
        bool before = *n > 0;

        assert(line->gsi < GSI_MSI_FIRST);
        if (line->high == high)
                return;
        line->high = high;
        *n += high ? 1 : -1U;
        level.level = *n > 0;
        if (machine->vm >= 0 && before != (level.level != 0))
                ioctl(machine->vm, KVM_IRQ_LINE, &level);
}

/* KVM's own routes of the chips' GSIs, and behind them the messages that are set. */
static int tell_routes(struct machine *machine, struct error *err)
{
        const struct irqs *irqs = &machine->irqs;
        struct kvm_irq_routing *table;
        struct kvm_irq_routing_entry *entry;
        int r = 0;

        if (machine->vm < 0)
                return 0;
        table = calloc(1, sizeof(*table) + (16 + GSI_MSI_FIRST + GSI_MSI_MAX) *
                                               sizeof(struct kvm_irq_routing_entry));
        if (!table)
                return error_set(err, -ENOMEM, "no memory for interrupt routes");
        entry = table->entries;
        for (unsigned gsi = 0; gsi < 16; gsi++) {
                *entry++ = (struct kvm_irq_routing_entry){
                    .gsi = gsi,
                    .type = KVM_IRQ_ROUTING_IRQCHIP,
                    .u.irqchip = {.irqchip =
                                      gsi < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE,
                                  .pin = gsi % 8}};
        }
        /* The timer's interrupt 0 comes in at pin 2, as the MADT says. */
        for (unsigned gsi = 0; gsi < GSI_MSI_FIRST; gsi++) {
                if (gsi != 2)
                        *entry++ = (struct kvm_irq_routing_entry){
                            .gsi = gsi,
                            .type = KVM_IRQ_ROUTING_IRQCHIP,
                            .u.irqchip = {.irqchip = KVM_IRQCHIP_IOAPIC,
                                          .pin = gsi == 0 ? 2 : gsi}};
        }
        for (unsigned i = 0; i < GSI_MSI_MAX; i++) {
                const struct irq_message *message = &irqs->messages[i];

                if (message->set)
                        *entry++ = (struct kvm_irq_routing_entry){
                            .gsi = GSI_MSI_FIRST + i,
                            .type = KVM_IRQ_ROUTING_MSI,
                            .u.msi = {.address_lo = (uint32_t)message->address,
                                      .address_hi = (uint32_t)(message->address >> 32),
                                      .data = message->data}};
        }
        table->nr = (uint32_t)(entry - table->entries);
        if (ioctl(machine->vm, KVM_SET_GSI_ROUTING, table) < 0)
                r = error_set(err, -errno, "KVM does not take the interrupt routes: %s",
                              strerror(errno));
        free(table);
        return r;
}

int irq_routes_init(struct machine *machine, struct error *err)
{
        return tell_routes(machine, err);
}

int irq_message_new(struct machine *machine, unsigned *ret_gsi, struct error *err)
{
        for (unsigned i = 0; i < GSI_MSI_MAX; i++) {
                if (!machine->irqs.messages[i].used) {
                        machine->irqs.messages[i].used = true;
                        *ret_gsi = GSI_MSI_FIRST + i;
                        return 0;
                }
        }
        return error_set(err, -ENOSPC, "the machine's devices have more than %u interrupt vectors",
                         GSI_MSI_MAX);
}

static struct irq_message *message_of(struct machine *machine, unsigned gsi)
{
        assert(gsi >= GSI_MSI_FIRST && gsi < GSI_MSI_FIRST + GSI_MSI_MAX);
        return &machine->irqs.messages[gsi - GSI_MSI_FIRST];
}

int irq_message_set(struct machine *machine, unsigned gsi, uint64_t address, uint32_t data,
                    struct error *err)
{
        struct irq_message *message = message_of(machine, gsi);
        const struct irq_message before = *message;
        int r;

        if (message->set && message->address == address && message->data == data)
                return 0;
        message->set = true;
        message->address = address;
        message->data = data;
        r = tell_routes(machine, err);
        if (r < 0)
                *message = before;
        return r;
}

void irq_message_free(struct machine *machine, unsigned gsi)
{
        struct irq_message *message = message_of(machine, gsi);
        bool set = message->set;

        *message = (struct irq_message){0};
        if (set)
                tell_routes(machine, NULL);
}

static int irqfd(struct machine *machine, unsigned gsi, int fd, uint32_t flags)
{
        struct kvm_irqfd request = {.fd = (uint32_t)fd, .gsi = gsi, .flags = flags};

        if (machine->vm < 0)
                return 0;
        return ioctl(machine->vm, KVM_IRQFD, &request) < 0 ? -errno : 0;
}

int irq_fd_attach(struct machine *machine, unsigned gsi, int fd, struct error *err)
{
        int r = irqfd(machine, gsi, fd, 0);

        if (r < 0)
                return error_set(err, r, "KVM does not take an eventfd for an interrupt: %s",
                                 strerror(-r));
        return 0;
}

void irq_fd_detach(struct machine *machine, unsigned gsi, int fd)
{
        irqfd(machine, gsi, fd, KVM_IRQFD_FLAG_DEASSIGN);
}

void irq_message_send(struct machine *machine, uint64_t address, uint32_t data)
{
        struct kvm_msi msi = {
            .address_lo = (uint32_t)address, .address_hi = (uint32_t)(address >> 32), .data = data};

        if (machine->vm >= 0)
                ioctl(machine->vm, KVM_SIGNAL_MSI, &msi);
}
