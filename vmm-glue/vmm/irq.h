/* irq.h - interrupts: lines of the PIC and IOAPIC, and messages (MSI), by KVM.
 *
 * Units      GSIs.
 * Threads    under the machine's lock.
 * Errors     0 or -errno with a sentence.
 * Ownership  a line is its device's memory.
 * Source     KVM API: KVM_IRQ_LINE, KVM_SET_GSI_ROUTING, KVM_IRQFD, KVM_SIGNAL_MSI.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "common/error.h"
#include "vmm-glue/vmm/layout.h"

struct machine;

/* One device's end of a GSI that several share: the GSI is high while any of them is. */
struct irq_line {
        struct machine *machine;
        unsigned gsi;
        bool high;
};
void irq_line_set(struct irq_line *line, bool high);

struct irqs {
        unsigned high[GSI_MSI_FIRST]; /* how many lines of each GSI are */
        struct irq_message {
                uint64_t address;
                uint32_t data;
                bool used, set;
        } messages[GSI_MSI_MAX];
};

/* What KVM routes before there are messages: the chips' own GSIs. */
int irq_routes_init(struct machine *machine, struct error *err);

/* A route for one vector of a device's MSI-X table; it goes nowhere until it is set.
 *
 * -ENOSPC  there are GSI_MSI_MAX */
int irq_message_new(struct machine *machine, unsigned *ret_gsi, struct error *err);
int irq_message_set(struct machine *machine, unsigned gsi, uint64_t address, uint32_t data,
                    struct error *err);
void irq_message_free(struct machine *machine, unsigned gsi);

/* Every signal of the eventfd @fd is an interrupt @gsi, without anybody's help. What was signalled
 * before counts. */
int irq_fd_attach(struct machine *machine, unsigned gsi, int fd, struct error *err);
void irq_fd_detach(struct machine *machine, unsigned gsi, int fd);

/* One message now. */
void irq_message_send(struct machine *machine, uint64_t address, uint32_t data);
