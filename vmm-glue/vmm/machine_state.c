/* machine_state.c - the saved state of a whole machine, but its memory and its disks. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "vmm-glue/vmm/vcpu.h"

#define STATE_VERSION 1u

static int save_vcpu(const struct vcpu *vcpu, struct state_writer *w, struct error *err)
{
        struct vcpu_state *state = malloc(sizeof(*state));
        char id[STATE_ID_MAX];
        int r = state ? vcpu_state_get(vcpu, state, err)
                      : error_set(err, -ENOMEM, "no memory to save vCPU %u", vcpu->index);

        if (r == 0) {
                snprintf(id, sizeof(id), "vcpu%u", vcpu->index);
                state_begin(w, id, STATE_VERSION);
                vcpu_state_save(state, w);
                state_end(w);
        }
        free(state);
        return r;
}

/* What a guest may have asked for, and waits for: it has to come in the next machine. */
#define ASKED (RUN_ASKED_RESET | RUN_ASKED_POWER_OFF)

/* What the two machines must have alike. */
static void save_shape(struct machine *machine, struct state_writer *w)
{
        state_begin(w, "machine", STATE_VERSION);
        state_put32(w, machine->n_vcpus);
        state_put64(w, machine->memory.low_size);
        state_put64(w, machine->memory.high_size);
        state_put64(w, machine->acpi_gpa);
        state_put64(w, machine->rsdp_gpa);
        state_put32(w, run_pending(machine) & ASKED);
        state_end(w);
}

int machine_save(struct machine *machine, struct state_writer *w, struct error *err)
{
        int r;

        if (run_pending(machine) & RUN_ASKED_FAILURE)
                return error_set(err, -ESHUTDOWN, "the machine has come to its end");
        save_shape(machine, w);
        state_begin(w, "chips", STATE_VERSION);
        r = chips_save(machine, w, err);
        state_end(w);
        for (unsigned i = 0; r == 0 && i < machine->n_vcpus; i++)
                r = save_vcpu(&machine->vcpus[i], w, err);
        if (r < 0)
                return r;
        list_for_each (it, &machine->devices) {
                struct device *device = container_of(it, struct device, link);

                state_begin(w, device->id, device->ops->version);
                device->ops->save(device, w);
                state_end(w);
        }
        return w->failed ? error_set(err, -ENOMEM, "no memory for the machine's state") : 0;
}

static int restore_shape(struct machine *machine, const void *data, size_t size,
                         uint32_t *ret_asked, struct error *err)
{
        struct state_reader r;
        uint32_t n_vcpus;
        uint64_t low, high;
        int result = state_find(data, size, "machine", STATE_VERSION, &r, err);

        if (result < 0)
                return result;
        n_vcpus = state_get32(&r);
        low = state_get64(&r);
        high = state_get64(&r);
        machine->acpi_gpa = state_get64(&r);
        machine->rsdp_gpa = state_get64(&r);
        *ret_asked = state_get32(&r) & ASKED;
        result = state_finish(&r, "machine", err);
        if (result == 0 && (n_vcpus != machine->n_vcpus || low != machine->memory.low_size ||
                            high != machine->memory.high_size))
                result = error_set(
                    err, -EINVAL,
                    "the saved machine has %u processors and %llu MiB of memory, and "
                    "this one %u and %llu MiB",
                    n_vcpus, (unsigned long long)((low + high) >> 20), machine->n_vcpus,
                    (unsigned long long)((machine->memory.low_size + machine->memory.high_size) >>
                                         20));
        return result;
}

static int restore_vcpu(const struct vcpu *vcpu, const void *data, size_t size, struct error *err)
{
        struct vcpu_state *state = calloc(1, sizeof(*state));
        char id[STATE_ID_MAX];
        struct state_reader r;
        int result;

        if (!state)
                return error_set(err, -ENOMEM, "no memory to restore vCPU %u", vcpu->index);
        snprintf(id, sizeof(id), "vcpu%u", vcpu->index);
        result = state_find(data, size, id, STATE_VERSION, &r, err);
        if (result == 0)
                result = vcpu_state_restore(state, &r, err);
        if (result == 0)
                result = state_finish(&r, id, err);
        if (result == 0)
                result = vcpu_state_set(vcpu, state, err);
        free(state);
        return result;
}

static int restore_device(struct device *device, const void *data, size_t size, struct error *err)
{
        struct state_reader r;
        int result = state_find(data, size, device->id, device->ops->version, &r, err);

        if (result == 0)
                result = device->ops->restore(device, &r, err);
        return result == 0 ? state_finish(&r, device->id, err) : result;
}

/* Devices come before the vCPUs: their lines are KVM's business, which the chips' state then says anew. */
int machine_restore(struct machine *machine, const void *data, size_t size, struct error *err)
{
        struct state_reader reader;
        uint32_t asked = 0;
        int r = restore_shape(machine, data, size, &asked, err);

        list_for_each (it, &machine->devices)
                if (r == 0)
                        r = restore_device(container_of(it, struct device, link), data, size, err);
        if (r == 0)
                r = state_find(data, size, "chips", STATE_VERSION, &reader, err);
        if (r == 0)
                r = chips_restore(machine, &reader, err);
        if (r == 0)
                r = state_finish(&reader, "chips", err);
        for (unsigned i = 0; r == 0 && i < machine->n_vcpus; i++)
                r = restore_vcpu(&machine->vcpus[i], data, size, err);
        if (r == 0 && (asked & RUN_ASKED_RESET))
                machine_ask_reset(machine);
        if (r == 0 && (asked & RUN_ASKED_POWER_OFF))
                machine_ask_power_off(machine);
        return r;
}
