/* vcpu.h - virtual processors: threads, exits, what they see of themselves, their state.
 *
 * Threads    one each; the functions here belong to the loop's thread, with the vCPUs resting.
 * Errors     0 or -errno with a sentence.
 * Ownership  a machine owns its vCPUs.
 * Source     Linux, Documentation/virt/kvm/api.rst.
 */
#pragma once
#include <linux/kvm.h>
#include <pthread.h>

#include "vmm-glue/vmm/machine.h"

/* All that KVM keeps of a vCPU. */
#define VCPU_MSRS_MAX  256u
#define VCPU_XSAVE_MAX 16384u
struct vcpu_state {
        struct kvm_regs regs;
        struct kvm_sregs sregs;
        struct kvm_xcrs xcrs;
        struct kvm_debugregs debugregs;
        struct kvm_vcpu_events events;
        struct kvm_lapic_state lapic;
        struct kvm_mp_state mp_state;
        uint32_t n_msrs;
        struct kvm_msr_entry msrs[VCPU_MSRS_MAX];
        uint32_t xsave_size;
        uint8_t xsave[VCPU_XSAVE_MAX];
};

struct vcpu {
        struct machine *machine;
        unsigned index;
        int fd;
        struct kvm_run *run;
        size_t run_size;
        pthread_t thread;
        struct vcpu_state *new_state; /* as it was made: what a reset brings back */
};

int vcpus_create(struct machine *machine, struct error *err);
void vcpus_free(struct machine *machine);
/* All of them as they were made, and the first where @start says. */
int vcpus_reset(struct machine *machine, const struct vcpu_start *start, struct error *err);

/* Make a vCPU that runs the guest stop doing so soon, from any thread. */
void vcpu_kick(struct vcpu *vcpu);
/* The signal by which that is done; for those who choose the signals that a thread lets in. */
#define VCPU_SIGNAL (SIGRTMIN + 1)
void *vcpu_thread(void *vcpu);

/* vcpu_state.c */
int vcpu_state_get(const struct vcpu *vcpu, struct vcpu_state *ret_state, struct error *err);
int vcpu_state_set(const struct vcpu *vcpu, const struct vcpu_state *state, struct error *err);
void vcpu_state_save(const struct vcpu_state *state, struct state_writer *w);
int vcpu_state_restore(struct vcpu_state *ret_state, struct state_reader *r, struct error *err);

/* cpuid.c: what the guest's CPUID tells, for each vCPU. */
int cpuid_set(const struct vcpu *vcpu, struct error *err);

/* chips.c: KVM's PIC, IOAPIC, PIT and clock. */
int chips_create(struct machine *machine, struct error *err);
int chips_reset(struct machine *machine, struct error *err);
void chips_free(struct machine *machine);
int chips_save(struct machine *machine, struct state_writer *w, struct error *err);
int chips_restore(struct machine *machine, struct state_reader *r, struct error *err);
