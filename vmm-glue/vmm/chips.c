/* chips.c - KVM's own devices: PIC, IOAPIC, PIT, the clock. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "vmm-glue/vmm/vcpu.h"

#define N_CHIPS 3u /* two PICs and the IOAPIC, numbered by KVM_IRQCHIP_* */

struct chips_state {
        struct kvm_irqchip chip[N_CHIPS];
        struct kvm_pit_state2 pit;
        struct kvm_clock_data clock;
};

static int get(const struct machine *machine, struct chips_state *state, struct error *err)
{
        memset(state, 0, sizeof(*state));
        for (unsigned i = 0; i < N_CHIPS; i++) {
                state->chip[i].chip_id = i;
                if (ioctl(machine->vm, KVM_GET_IRQCHIP, &state->chip[i]) < 0)
                        return error_set(err, -errno, "cannot read the interrupt controllers: %s",
                                         strerror(errno));
        }
        if (ioctl(machine->vm, KVM_GET_PIT2, &state->pit) < 0)
                return error_set(err, -errno, "cannot read the timer chip: %s", strerror(errno));
        if (ioctl(machine->vm, KVM_GET_CLOCK, &state->clock) < 0)
                return error_set(err, -errno, "cannot read the guest's clock: %s", strerror(errno));
        return 0;
}

static int set(const struct machine *machine, const struct chips_state *state, struct error *err)
{
        for (unsigned i = 0; i < N_CHIPS; i++)
                if (ioctl(machine->vm, KVM_SET_IRQCHIP, &state->chip[i]) < 0)
                        return error_set(err, -errno, "cannot set the interrupt controllers: %s",
                                         strerror(errno));
        if (ioctl(machine->vm, KVM_SET_PIT2, &state->pit) < 0)
                return error_set(err, -errno, "cannot set the timer chip: %s", strerror(errno));
        return 0;
}

int chips_create(struct machine *machine, struct error *err)
{
        const struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
        const uint64_t identity_map = LAYOUT_IDENTITY_MAP;
        int r;

        if (ioctl(machine->vm, KVM_SET_IDENTITY_MAP_ADDR, &identity_map) < 0 ||
            ioctl(machine->vm, KVM_SET_TSS_ADDR, (unsigned long)LAYOUT_TSS) < 0)
                return error_set(err, -errno, "KVM does not take the places of its own pages: %s",
                                 strerror(errno));
        if (ioctl(machine->vm, KVM_CREATE_IRQCHIP, 0UL) < 0)
                return error_set(err, -errno, "KVM makes no interrupt controllers: %s",
                                 strerror(errno));
        if (ioctl(machine->vm, KVM_CREATE_PIT2, &pit) < 0)
                return error_set(err, -errno, "KVM makes no timer chip: %s", strerror(errno));
        r = irq_routes_init(machine, err);
        if (r < 0)
                return r;
        machine->new_chips = malloc(sizeof(*machine->new_chips));
        if (!machine->new_chips)
                return error_set(err, -ENOMEM, "no memory for the interrupt controllers");
        return get(machine, machine->new_chips, err);
}

void chips_free(struct machine *machine)
{
        free(machine->new_chips);
        machine->new_chips = NULL;
}

/* The clock goes on. */
int chips_reset(struct machine *machine, struct error *err)
{
        return set(machine, machine->new_chips, err);
}

int chips_save(struct machine *machine, struct state_writer *w, struct error *err)
{
        struct chips_state state;
        int r = get(machine, &state, err);

        if (r < 0)
                return r;
        for (unsigned i = 0; i < N_CHIPS; i++)
                state_put(w, &state.chip[i].chip, sizeof(state.chip[i].chip));
        state_put(w, &state.pit, sizeof(state.pit));
        state_put64(w, state.clock.clock);
        return 0;
}

int chips_restore(struct machine *machine, struct state_reader *r, struct error *err)
{
        struct chips_state state = {0};
        int result;

        for (unsigned i = 0; i < N_CHIPS; i++) {
                state.chip[i].chip_id = i;
                state_get(r, &state.chip[i].chip, sizeof(state.chip[i].chip));
        }
        state_get(r, &state.pit, sizeof(state.pit));
        state.clock.clock = state_get64(r);
        if (r->failed)
                return 0; /* state_finish() says so */
        result = set(machine, &state, err);
        if (result == 0 && ioctl(machine->vm, KVM_SET_CLOCK, &state.clock) < 0)
                result =
                    error_set(err, -errno, "cannot set the guest's clock: %s", strerror(errno));
        return result;
}
