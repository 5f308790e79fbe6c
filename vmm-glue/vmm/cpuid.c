/* cpuid.c - the processor as each vCPU sees it: the host's, as far as KVM gives it, in one socket of as
 * many cores as there are vCPUs, without threads.
 *
 * Sources: Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E.4; Linux,
 * Documentation/virt/kvm/x86/cpuid.rst. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "vmm-glue/vmm/vcpu.h"

#define CPUID_ENTRIES_MAX 256u

struct cpuid_table {
        struct kvm_cpuid2 head;
        struct kvm_cpuid_entry2 entries[CPUID_ENTRIES_MAX];
};

/* Bits that number as many things. */
static unsigned bits_of(unsigned n)
{
        unsigned bits = 0;

        while ((1u << bits) < n)
                bits++;
        return bits;
}

static void set_features(const struct vcpu *vcpu, struct kvm_cpuid_entry2 *e)
{
        const unsigned n = vcpu->machine->n_vcpus;

        e->ebx = (e->ebx & 0xffff) | vcpu->index << 24 | (1u << bits_of(n)) << 16;
        e->ecx |= 1u << 31;   /* a hypervisor */
        e->ecx &= ~(1u << 5); /* VMX: saved state has no guests of guests */
        if (ioctl(vcpu->machine->kvm, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0)
                e->ecx |= 1u << 24;
        e->edx = n > 1 ? e->edx | 1u << 28 : e->edx & ~(1u << 28);
}

/* Levels of 0xb and 0x1f: one thread a core, all cores in the package. */
static void set_topology(const struct vcpu *vcpu, struct kvm_cpuid_entry2 *e)
{
        const unsigned n = vcpu->machine->n_vcpus;

        e->edx = vcpu->index;
        e->eax = e->ebx = 0;
        e->ecx = e->index;
        if (e->index == 0) {
                e->ebx = 1;
                e->ecx |= 1u << 8;
        } else if (e->index == 1) {
                e->eax = bits_of(n);
                e->ebx = n;
                e->ecx |= 2u << 8;
        }
}

/* Who shares a cache: of levels 1 and 2 nobody, of 3 all. */
static unsigned sharing(const struct vcpu *vcpu, unsigned level)
{
        return level < 3 ? 0 : (1u << bits_of(vcpu->machine->n_vcpus)) - 1;
}

static void adapt(const struct vcpu *vcpu, struct kvm_cpuid_entry2 *e)
{
        const unsigned n = vcpu->machine->n_vcpus;

        switch (e->function) {
        case 1:
                set_features(vcpu, e);
                break;
        case 4:
                if ((e->eax & 0x1f) == 0)
                        break;
                e->eax &= 0x3fff;
                e->eax |= sharing(vcpu, e->eax >> 5 & 7) << 14;
                e->eax |= ((1u << bits_of(n)) - 1) << 26;
                break;
        case 0xb:
        case 0x1f:
                set_topology(vcpu, e);
                break;
        case 0x80000001:
                e->ecx &= ~(1u << 2);                       /* SVM */
                e->ecx = n > 1 ? e->ecx | 2 : e->ecx & ~2u; /* CmpLegacy */
                break;
        case 0x80000008:
                e->ecx = (e->ecx & ~0xf0ffu) | bits_of(n) << 12 | (n - 1);
                break;
        case 0x8000001d:
                e->eax = (e->eax & 0x3fff) | sharing(vcpu, e->eax >> 5 & 7) << 14;
                break;
        case 0x8000001e:
                e->eax = vcpu->index;
                e->ebx = vcpu->index; /* the core; one thread in it */
                e->ecx = 0;           /* one node */
                break;
        default:
                break;
        }
}

int cpuid_set(const struct vcpu *vcpu, struct error *err)
{
        struct cpuid_table *table = calloc(1, sizeof(*table));
        int r = 0;

        if (!table)
                return error_set(err, -ENOMEM, "no memory for the CPUID of vCPU %u", vcpu->index);
        table->head.nent = CPUID_ENTRIES_MAX;
        if (ioctl(vcpu->machine->kvm, KVM_GET_SUPPORTED_CPUID, table) < 0)
                r = error_set(err, -errno, "KVM does not say what its processors can do: %s",
                              strerror(errno));
        for (uint32_t i = 0; r == 0 && i < table->head.nent; i++)
                adapt(vcpu, &table->entries[i]);
        if (r == 0 && ioctl(vcpu->fd, KVM_SET_CPUID2, table) < 0)
                r = error_set(err, -errno, "KVM does not take the CPUID of vCPU %u: %s",
                              vcpu->index, strerror(errno));
        free(table);
        return r;
}
