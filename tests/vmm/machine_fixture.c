/* machine_fixture.c - a struct machine without KVM. */
#include "tests/vmm/machine_fixture.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm-glue/vmm/acpi_pm.h"

#define QUIET_NS UINT64_C(5000000)

#define FAKE __attribute__((weak))

static bool own_loop;

static void must(bool true_, const char *what)
{
        if (true_)
                return;
        fprintf(stderr, "machine_fixture: %s\n", what);
        abort();
}

static struct machine_fixture *of(struct machine *machine)
{
        return container_of(machine, struct machine_fixture, machine);
}

struct machine_fixture *fixture_new(uint64_t memory, struct loop *loop)
{
        struct machine_fixture *f = calloc(1, sizeof(*f));
        struct error err = ERROR_INIT;

        must(f, "no memory");
        f->config = (struct vmm_config){.name = "test",
                                        .cpus = 1,
                                        .memory = memory,
                                        .memory_max = memory,
                                        .kernel = -1,
                                        .initrd = -1,
                                        .firmware = -1,
                                        .serial = -1,
                                        .seed = -1,
                                        .vsock_fd = -1};
        f->machine = (struct machine){.kvm = -1,
                                      .vm = -1,
                                      .config = &f->config,
                                      .events = &f->events,
                                      .events_arg = f,
                                      .loop = loop,
                                      .n_vcpus = 1};
        list_init(&f->machine.devices);
        pthread_mutex_init(&f->machine.lock, NULL);
        own_loop = !loop;
        if (own_loop && loop_new(LOOP_BACKEND_THREADS, &f->machine.loop, &err) < 0)
                must(false, err.message);
        if (memory_new(&f->machine.memory, -1, memory, false, &err) < 0)
                must(false, err.message);
        return f;
}

void fixture_free(struct machine_fixture *f)
{
        while (!list_empty(&f->machine.devices)) {
                struct device *device = container_of(f->machine.devices.prev, struct device, link);

                list_remove(&device->link);
                device->ops->free(device);
        }
        if (own_loop || f->run_loop)
                fixture_run(f); /* what was cancelled ends */
        if (own_loop)
                loop_free(f->machine.loop);
        memory_free(&f->machine.memory);
        must(f->machine.ports.n == 0 && f->machine.addresses.n == 0, "a range is left on a bus");
        must(f->n_irqfds == 0 && f->n_ioeventfds == 0, "an eventfd is left with KVM");
        pthread_mutex_destroy(&f->machine.lock);
        free(f);
}

/* ---- the loop ---- */

struct rest {
        struct loop_timer timer;
        struct loop *loop;
};

static void rested(struct loop_timer *timer)
{
        loop_stop(container_of(timer, struct rest, timer)->loop);
}

void fixture_run(struct machine_fixture *f)
{
        struct rest rest = {.timer.fire = rested, .loop = f->machine.loop};

        if (f->run_loop) {
                f->run_loop(f->machine.loop);
                return;
        }
        loop_timer_set(rest.loop, &rest.timer, loop_now_ns(rest.loop) + QUIET_NS);
        loop_run(rest.loop);
}

/* ---- what a vCPU does ---- */

void fixture_write(struct machine_fixture *f, uint64_t address, uint64_t value, unsigned size)
{
        const uint64_t one = 1;

        for (unsigned i = 0; i < f->n_ioeventfds; i++) {
                const struct fixture_ioeventfd *e = &f->ioeventfds[i];

                if (e->port || e->address != address || (e->size && e->size != size))
                        continue;
                must(write(e->fd, &one, sizeof(one)) == sizeof(one) || errno == EAGAIN, "eventfd");
                return;
        }
        machine_lock(&f->machine);
        bus_write(&f->machine.addresses, address, &value, size);
        machine_unlock(&f->machine);
}

uint64_t fixture_read(struct machine_fixture *f, uint64_t address, unsigned size)
{
        uint64_t value = 0;

        machine_lock(&f->machine);
        bus_read(&f->machine.addresses, address, &value, size);
        machine_unlock(&f->machine);
        return value;
}

void fixture_out(struct machine_fixture *f, uint16_t port, uint64_t value, unsigned size)
{
        machine_lock(&f->machine);
        bus_write(&f->machine.ports, port, &value, size);
        machine_unlock(&f->machine);
}

uint64_t fixture_in(struct machine_fixture *f, uint16_t port, unsigned size)
{
        uint64_t value = 0;

        machine_lock(&f->machine);
        bus_read(&f->machine.ports, port, &value, size);
        machine_unlock(&f->machine);
        return value;
}

/* ---- all devices ---- */

void fixture_reset(struct machine_fixture *f)
{
        machine_lock(&f->machine);
        list_for_each (it, &f->machine.devices) {
                struct device *device = container_of(it, struct device, link);

                device->ops->reset(device);
        }
        machine_unlock(&f->machine);
}

void fixture_pause(struct machine_fixture *f)
{
        machine_lock(&f->machine);
        list_for_each (it, &f->machine.devices) {
                struct device *device = container_of(it, struct device, link);

                if (device->ops->pause)
                        device->ops->pause(device);
        }
        machine_unlock(&f->machine);
}

void fixture_resume(struct machine_fixture *f)
{
        machine_lock(&f->machine);
        list_for_each (it, &f->machine.devices) {
                struct device *device = container_of(it, struct device, link);

                if (device->ops->resume)
                        device->ops->resume(device);
        }
        machine_unlock(&f->machine);
}

void fixture_save(struct machine_fixture *f, struct state_writer *w)
{
        machine_lock(&f->machine);
        list_for_each (it, &f->machine.devices) {
                struct device *device = container_of(it, struct device, link);

                state_begin(w, device->id, device->ops->version);
                device->ops->save(device, w);
                state_end(w);
        }
        machine_unlock(&f->machine);
        must(!w->failed, "no memory for the state");
}

int fixture_restore(struct machine_fixture *f, const void *data, size_t size, struct error *err)
{
        int r = 0;

        machine_lock(&f->machine);
        for (struct list *it = f->machine.devices.next; r == 0 && it != &f->machine.devices;
             it = it->next) {
                struct device *device = container_of(it, struct device, link);
                struct state_reader reader;

                r = state_find(data, size, device->id, device->ops->version, &reader, err);
                if (r == 0)
                        r = device->ops->restore(device, &reader, err);
                if (r == 0)
                        r = state_finish(&reader, device->id, err);
        }
        machine_unlock(&f->machine);
        return r;
}

/* ---- machine.c ---- */

FAKE void machine_lock(struct machine *machine)
{
        pthread_mutex_lock(&machine->lock);
        must(of(machine)->depth++ == 0, "the lock is taken twice");
}

FAKE void machine_unlock(struct machine *machine)
{
        must(--of(machine)->depth == 0, "the lock is not held");
        pthread_mutex_unlock(&machine->lock);
}

FAKE void machine_add_device(struct machine *machine, struct device *device)
{
        list_append(&machine->devices, &device->link);
}

FAKE void machine_remove_device(struct machine *machine, struct device *device)
{
        list_remove(&device->link);
        device->ops->free(device);
}

FAKE void machine_ask_reset(struct machine *machine)
{
        of(machine)->n_resets++;
}

FAKE void machine_ask_power_off(struct machine *machine)
{
        of(machine)->n_power_offs++;
}

FAKE void machine_guest_panicked(struct machine *machine)
{
        of(machine)->n_panics++;
}

FAKE void machine_fail(struct machine *machine, const char *format, ...)
{
        of(machine)->n_failed++;
}

FAKE int machine_ioeventfd(struct machine *machine, bool port, uint64_t address, unsigned size,
                           const uint64_t *value, int fd, bool remove, struct error *err)
{
        struct machine_fixture *f = of(machine);

        for (unsigned i = 0; i < f->n_ioeventfds; i++) {
                struct fixture_ioeventfd *e = &f->ioeventfds[i];

                if (e->port != port || e->address != address || e->size != size || e->fd != fd)
                        continue;
                if (!remove)
                        return error_set(err, -EEXIST, "it is there already");
                *e = f->ioeventfds[--f->n_ioeventfds];
                return 0;
        }
        must(!remove, "an ioeventfd that is not there is removed");
        if (f->refuse_ioeventfds || f->n_ioeventfds == FIXTURE_IOEVENTFDS)
                return error_set(err, -ENOSPC, "no more ioeventfds");
        f->ioeventfds[f->n_ioeventfds++] = (struct fixture_ioeventfd){port, address, size, fd};
        return 0;
}

/* ---- irq.c ---- */

FAKE void irq_line_set(struct irq_line *line, bool high)
{
        unsigned *n = &line->machine->irqs.high[line->gsi];

        if (line->high == high)
                return;
        line->high = high;
        must(high || *n > 0, "a line was low before");
        *n = high ? *n + 1 : *n - 1;
}

FAKE int irq_message_new(struct machine *machine, unsigned *ret_gsi, struct error *err)
{
        for (unsigned i = 0; i < GSI_MSI_MAX; i++)
                if (!machine->irqs.messages[i].used) {
                        machine->irqs.messages[i] = (struct irq_message){.used = true};
                        *ret_gsi = GSI_MSI_FIRST + i;
                        return 0;
                }
        return error_set(err, -ENOSPC, "no more messages");
}

static struct irq_message *message_of(struct machine *machine, unsigned gsi)
{
        must(gsi >= GSI_MSI_FIRST && gsi - GSI_MSI_FIRST < GSI_MSI_MAX &&
                 machine->irqs.messages[gsi - GSI_MSI_FIRST].used,
             "no such message");
        return &machine->irqs.messages[gsi - GSI_MSI_FIRST];
}

FAKE int irq_message_set(struct machine *machine, unsigned gsi, uint64_t address, uint32_t data,
                         struct error *err)
{
        *message_of(machine, gsi) =
            (struct irq_message){.address = address, .data = data, .used = true, .set = true};
        return 0;
}

FAKE void irq_message_free(struct machine *machine, unsigned gsi)
{
        *message_of(machine, gsi) = (struct irq_message){0};
}

FAKE int irq_fd_attach(struct machine *machine, unsigned gsi, int fd, struct error *err)
{
        struct machine_fixture *f = of(machine);

        message_of(machine, gsi);
        for (unsigned i = 0; i < f->n_irqfds; i++)
                must(f->irqfds[i].fd != fd, "an irqfd is attached twice");
        if (f->refuse_irqfds || f->n_irqfds == FIXTURE_FDS)
                return error_set(err, -ENOSPC, "no more irqfds");
        f->irqfds[f->n_irqfds++] = (struct fixture_irqfd){gsi, fd};
        return 0;
}

FAKE void irq_fd_detach(struct machine *machine, unsigned gsi, int fd)
{
        struct machine_fixture *f = of(machine);

        for (unsigned i = 0; i < f->n_irqfds; i++)
                if (f->irqfds[i].fd == fd && f->irqfds[i].gsi == gsi) {
                        f->irqfds[i] = f->irqfds[--f->n_irqfds];
                        return;
                }
        must(false, "an irqfd that is not attached is detached");
}

FAKE void irq_message_send(struct machine *machine, uint64_t address, uint32_t data)
{
        struct machine_fixture *f = of(machine);

        if (f->n_messages < FIXTURE_MESSAGES)
                f->messages[f->n_messages] = (struct fixture_message){address, data};
        f->n_messages++;
}

void fixture_deliver(struct machine_fixture *f)
{
        for (unsigned i = 0; i < f->n_irqfds; i++) {
                const struct irq_message *m = message_of(&f->machine, f->irqfds[i].gsi);
                uint64_t value;

                if (read(f->irqfds[i].fd, &value, sizeof(value)) != sizeof(value))
                        continue;
                must(m->set, "an irqfd's message is not set");
                irq_message_send(&f->machine, m->address, m->data);
        }
}

/* ---- acpi_pm.c ---- */

FAKE void acpi_pm_power_button(struct machine *machine)
{
}

FAKE void acpi_pm_raise_gpe(struct machine *machine, unsigned bit)
{
        of(machine)->gpes |= UINT32_C(1) << bit;
}

FAKE uint8_t acpi_pm_reset_read(struct machine *machine)
{
        return of(machine)->reset_register;
}

FAKE void acpi_pm_reset_write(struct machine *machine, uint8_t value)
{
        of(machine)->reset_register = value;
}
