/* vcpu_state.c - all that KVM keeps of a vCPU: read, set, saved and restored.
 *
 * Source: Linux, Documentation/virt/kvm/api.rst; the order of setting is that of its dependencies:
 * CPUID was set before, the special registers bring the APIC's base, the APIC its timer's mode before
 * the MSR of its deadline, and the events come last. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "vmm-glue/vmm/vcpu.h"

#define MSR_TSC          0x10u
#define MSR_TSC_DEADLINE 0x6e0u

struct msr_list {
        struct kvm_msr_list head;
        uint32_t indices[VCPU_MSRS_MAX];
};
struct msr_set {
        struct kvm_msrs head;
        struct kvm_msr_entry entries[VCPU_MSRS_MAX];
};

static int fail(const struct vcpu *vcpu, const char *what, struct error *err)
{
        return error_set(err, -errno, "cannot %s of vCPU %u: %s", what, vcpu->index,
                         strerror(errno));
}

/* KVM reads as many as it knows up to the first that it does not let us read; that one is left out. */
static int get_msrs(const struct vcpu *vcpu, struct vcpu_state *state, struct error *err)
{
        struct msr_list list = {.head.nmsrs = VCPU_MSRS_MAX};
        struct msr_set *set;

        if (ioctl(vcpu->machine->kvm, KVM_GET_MSR_INDEX_LIST, &list) < 0)
                return fail(vcpu, "list the model-specific registers", err);
        set = calloc(1, sizeof(*set));
        if (!set)
                return error_set(err, -ENOMEM, "no memory for the registers of vCPU %u",
                                 vcpu->index);
        state->n_msrs = 0;
        for (uint32_t at = 0; at < list.head.nmsrs;) {
                int got;

                set->head.nmsrs = list.head.nmsrs - at;
                for (uint32_t i = 0; i < set->head.nmsrs; i++)
                        set->entries[i] = (struct kvm_msr_entry){.index = list.indices[at + i]};
                got = ioctl(vcpu->fd, KVM_GET_MSRS, set);
                if (got < 0) {
                        free(set);
                        return fail(vcpu, "read the model-specific registers", err);
                }
                memcpy(state->msrs + state->n_msrs, set->entries,
                       (size_t)got * sizeof(set->entries[0]));
                state->n_msrs += (uint32_t)got;
                at += (uint32_t)got + 1;
        }
        free(set);
        return 0;
}

/* What cannot be set, and has its value anyway, is one that only tells something. */
static int set_msr(const struct vcpu *vcpu, const struct kvm_msr_entry *entry, struct error *err)
{
        struct {
                struct kvm_msrs head;
                struct kvm_msr_entry entry;
        } one = {.head.nmsrs = 1, .entry = *entry};

        if (ioctl(vcpu->fd, KVM_SET_MSRS, &one) == 1)
                return 0;
        if (ioctl(vcpu->fd, KVM_GET_MSRS, &one) == 1 && one.entry.data == entry->data)
                return 0;
        return error_set(err, -EINVAL, "KVM does not set register 0x%x of vCPU %u to 0x%llx",
                         entry->index, vcpu->index, entry->data);
}

static int set_msrs(const struct vcpu *vcpu, const struct vcpu_state *state, struct error *err)
{
        struct msr_set *set = calloc(1, sizeof(*set));
        int r = 0;

        if (!set)
                return error_set(err, -ENOMEM, "no memory for the registers of vCPU %u",
                                 vcpu->index);
        for (uint32_t at = 0; r == 0 && at < state->n_msrs;) {
                int done;

                set->head.nmsrs = state->n_msrs - at;
                memcpy(set->entries, state->msrs + at, set->head.nmsrs * sizeof(set->entries[0]));
                done = ioctl(vcpu->fd, KVM_SET_MSRS, set);
                at += done < 0 ? 0 : (uint32_t)done;
                if (at < state->n_msrs)
                        r = set_msr(vcpu, &state->msrs[at++], err);
        }
        free(set);
        return r;
}

static int xsave_get(const struct vcpu *vcpu, struct vcpu_state *state, struct error *err)
{
        int size = ioctl(vcpu->machine->vm, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);
        bool larger = size > (int)sizeof(struct kvm_xsave);

        if (size > (int)VCPU_XSAVE_MAX)
                return error_set(err, -EOPNOTSUPP,
                                 "this processor has more vector registers than tarn can save");
        state->xsave_size = larger ? (uint32_t)size : (uint32_t)sizeof(struct kvm_xsave);
        memset(state->xsave, 0, sizeof(state->xsave));
        if (ioctl(vcpu->fd, larger ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, state->xsave) < 0)
                return fail(vcpu, "read the vector registers", err);
        return 0;
}

int vcpu_state_get(const struct vcpu *vcpu, struct vcpu_state *ret_state, struct error *err)
{
        int r;

        if (ioctl(vcpu->fd, KVM_GET_MP_STATE, &ret_state->mp_state) < 0)
                return fail(vcpu, "read the run state", err);
        if (ioctl(vcpu->fd, KVM_GET_REGS, &ret_state->regs) < 0 ||
            ioctl(vcpu->fd, KVM_GET_SREGS, &ret_state->sregs) < 0 ||
            ioctl(vcpu->fd, KVM_GET_DEBUGREGS, &ret_state->debugregs) < 0)
                return fail(vcpu, "read the registers", err);
        /* A processor without XSAVE has none. */
        ret_state->xcrs.nr_xcrs = 0;
        if (ioctl(vcpu->machine->kvm, KVM_CHECK_EXTENSION, KVM_CAP_XCRS) > 0 &&
            ioctl(vcpu->fd, KVM_GET_XCRS, &ret_state->xcrs) < 0)
                return fail(vcpu, "read the extended control registers", err);
        if (ioctl(vcpu->fd, KVM_GET_LAPIC, &ret_state->lapic) < 0)
                return fail(vcpu, "read the APIC", err);
        if (ioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, &ret_state->events) < 0)
                return fail(vcpu, "read the events", err);
        r = xsave_get(vcpu, ret_state, err);
        return r < 0 ? r : get_msrs(vcpu, ret_state, err);
}

int vcpu_state_set(const struct vcpu *vcpu, const struct vcpu_state *state, struct error *err)
{
        struct vcpu_state now;
        int r = xsave_get(vcpu, &now, err);

        if (r < 0)
                return r;
        if (now.xsave_size != state->xsave_size)
                return error_set(err, -EINVAL,
                                 "the vector registers of vCPU %u are another processor's",
                                 vcpu->index);
        if (ioctl(vcpu->fd, KVM_SET_MP_STATE, &state->mp_state) < 0)
                return fail(vcpu, "set the run state", err);
        if (ioctl(vcpu->fd, KVM_SET_REGS, &state->regs) < 0 ||
            ioctl(vcpu->fd, KVM_SET_XSAVE, state->xsave) < 0 ||
            ioctl(vcpu->fd, KVM_SET_SREGS, &state->sregs) < 0 ||
            ioctl(vcpu->fd, KVM_SET_DEBUGREGS, &state->debugregs) < 0)
                return fail(vcpu, "set the registers", err);
        if (state->xcrs.nr_xcrs > 0 && ioctl(vcpu->fd, KVM_SET_XCRS, &state->xcrs) < 0)
                return fail(vcpu, "set the extended control registers", err);
        if (ioctl(vcpu->fd, KVM_SET_LAPIC, &state->lapic) < 0)
                return fail(vcpu, "set the APIC", err);
        r = set_msrs(vcpu, state, err);
        if (r < 0)
                return r;
        if (ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &state->events) < 0)
                return fail(vcpu, "set the events", err);
        return 0;
}

void vcpu_state_save(const struct vcpu_state *state, struct state_writer *w)
{
        state_put(w, &state->regs, sizeof(state->regs));
        state_put(w, &state->sregs, sizeof(state->sregs));
        state_put(w, &state->xcrs, sizeof(state->xcrs));
        state_put(w, &state->debugregs, sizeof(state->debugregs));
        state_put(w, &state->events, sizeof(state->events));
        state_put(w, &state->lapic, sizeof(state->lapic));
        state_put(w, &state->mp_state, sizeof(state->mp_state));
        state_put32(w, state->n_msrs);
        for (uint32_t i = 0; i < state->n_msrs; i++) {
                state_put32(w, state->msrs[i].index);
                state_put64(w, state->msrs[i].data);
        }
        state_put32(w, state->xsave_size);
        state_put(w, state->xsave, state->xsave_size);
}

int vcpu_state_restore(struct vcpu_state *ret_state, struct state_reader *r, struct error *err)
{
        struct vcpu_state *s = ret_state;

        state_get(r, &s->regs, sizeof(s->regs));
        state_get(r, &s->sregs, sizeof(s->sregs));
        state_get(r, &s->xcrs, sizeof(s->xcrs));
        state_get(r, &s->debugregs, sizeof(s->debugregs));
        state_get(r, &s->events, sizeof(s->events));
        state_get(r, &s->lapic, sizeof(s->lapic));
        state_get(r, &s->mp_state, sizeof(s->mp_state));
        s->n_msrs = state_get32(r);
        if (s->n_msrs > VCPU_MSRS_MAX)
                return error_set(err, -EINVAL, "the saved state has %u registers of one vCPU",
                                 s->n_msrs);
        for (uint32_t i = 0; i < s->n_msrs; i++) {
                s->msrs[i] = (struct kvm_msr_entry){.index = state_get32(r)};
                s->msrs[i].data = state_get64(r);
        }
        s->xsave_size = state_get32(r);
        if (s->xsave_size > VCPU_XSAVE_MAX)
                return error_set(err, -EINVAL,
                                 "the saved state has %u bytes of vector registers of one vCPU",
                                 s->xsave_size);
        memset(s->xsave, 0, sizeof(s->xsave));
        state_get(r, s->xsave, s->xsave_size);
        return 0;
}
