/* vcpu.c - vCPUs: their making, their threads, and what a guest's accesses become. */
#include "vmm-glue/vmm/vcpu.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/log.h"

static int make(struct machine *machine, struct vcpu *vcpu, struct error *err)
{
        int size;

        vcpu->fd = ioctl(machine->vm, KVM_CREATE_VCPU, (unsigned long)vcpu->index);
        if (vcpu->fd < 0)
                return error_set(err, -errno, "KVM makes no vCPU %u: %s", vcpu->index,
                                 strerror(errno));
        size = ioctl(machine->kvm, KVM_GET_VCPU_MMAP_SIZE, 0UL);
        if (size < (int)sizeof(struct kvm_run))
                return error_set(err, -EIO, "KVM says nonsense about its memory of a vCPU");
        vcpu->run_size = (size_t)size;
        vcpu->run = mmap(NULL, vcpu->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
        if (vcpu->run == MAP_FAILED) {
                vcpu->run = NULL;
                return error_set(err, -errno, "cannot map the memory of vCPU %u: %s", vcpu->index,
                                 strerror(errno));
        }
        return cpuid_set(vcpu, err);
}

#define MSR_MTRR_DEF_TYPE 0x2ffu
#define MSR_MISC_ENABLE   0x1a0u
#define MTRR_ENABLED_WB   0x806u /* bit 11: enabled; type 6: write-back */
#define FAST_STRINGS      1u

/* As firmware would leave it: without, all memory would be uncached to some guests. KVM knows one that
 * this processor lacks by ignoring it, or refuses: no harm. */
static void set_memory_type(const struct vcpu *vcpu)
{
        struct {
                struct kvm_msrs head;
                struct kvm_msr_entry entries[2];
        } msrs = {.head.nmsrs = 2,
                  .entries = {{.index = MSR_MTRR_DEF_TYPE, .data = MTRR_ENABLED_WB},
                              {.index = MSR_MISC_ENABLE, .data = FAST_STRINGS}}};

        ioctl(vcpu->fd, KVM_SET_MSRS, &msrs);
}

/* For the kick: it interrupts system calls, and does nothing. */
static void on_signal(int number)
{
}

int vcpus_create(struct machine *machine, struct error *err)
{
        const struct sigaction action = {.sa_handler = on_signal};
        unsigned n = machine->config->cpus;

        sigaction(VCPU_SIGNAL, &action, NULL);
        machine->vcpus = calloc(n, sizeof(*machine->vcpus));
        if (!machine->vcpus)
                return error_set(err, -ENOMEM, "no memory for %u vCPUs", n);
        for (unsigned i = 0; i < n; i++)
                machine->vcpus[i] = (struct vcpu){.machine = machine, .index = i, .fd = -1};
        machine->n_vcpus = n;
        for (unsigned i = 0; i < n; i++) {
                struct vcpu *vcpu = &machine->vcpus[i];
                int r = make(machine, vcpu, err);

                if (r < 0)
                        return r;
                set_memory_type(vcpu);
                vcpu->new_state = malloc(sizeof(*vcpu->new_state));
                if (!vcpu->new_state)
                        return error_set(err, -ENOMEM, "no memory for vCPU %u", i);
                r = vcpu_state_get(vcpu, vcpu->new_state, err);
                if (r < 0)
                        return r;
        }
        return 0;
}

void vcpus_free(struct machine *machine)
{
        for (unsigned i = 0; i < machine->n_vcpus; i++) {
                struct vcpu *vcpu = &machine->vcpus[i];

                if (vcpu->run)
                        munmap(vcpu->run, vcpu->run_size);
                if (vcpu->fd >= 0)
                        close(vcpu->fd);
                free(vcpu->new_state);
        }
        free(machine->vcpus);
        machine->vcpus = NULL;
        machine->n_vcpus = 0;
}

/* ---- where vCPU 0 begins ---- */

static const struct kvm_segment flat_code = {
    .limit = 0xffffffff, .selector = 8, .type = 11, .present = 1, .s = 1, .g = 1};
static const struct kvm_segment flat_data = {
    .limit = 0xffffffff, .selector = 16, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1};
static const struct kvm_segment task = {.limit = 0x67, .selector = 24, .type = 11, .present = 1};

#define CR0_PE   1u
#define CR0_ET   0x10u
#define CR0_PG   (1u << 31)
#define CR4_PAE  0x20u
#define EFER_LME 0x100u
#define EFER_LMA 0x400u

/* GDT of the boot protocols' segments: code at 8, data at 16, task at 24. */
static void write_gdt(struct machine *machine, bool long_mode)
{
        const uint64_t gdt[4] = {0, long_mode ? 0x00af9b000000ffff : 0x00cf9b000000ffff,
                                 0x00cf93000000ffff, 0x00008b0000000067};
        void *at = guest_range(&machine->memory, BOOT_GDT, sizeof(gdt));

        memcpy(at, gdt, sizeof(gdt));
}

static void begin_at(struct machine *machine, struct vcpu_state *state,
                     const struct vcpu_start *start)
{
        bool long_mode = start->mode == VCPU_START_LONG;
        struct kvm_sregs *sregs = &state->sregs;

        if (start->mode == VCPU_START_REAL)
                return;
        write_gdt(machine, long_mode);
        state->regs = (struct kvm_regs){.rip = start->rip,
                                        .rsi = start->rsi,
                                        .rbx = start->rbx,
                                        .rsp = BOOT_STACK,
                                        .rflags = 2};
        sregs->cs = flat_code;
        sregs->cs.l = long_mode;
        sregs->cs.db = !long_mode;
        sregs->ds = sregs->es = sregs->ss = sregs->fs = sregs->gs = flat_data;
        sregs->tr = task;
        sregs->gdt.base = BOOT_GDT;
        sregs->gdt.limit = 31;
        sregs->idt.limit = 0;
        sregs->cr0 = CR0_PE | CR0_ET;
        sregs->cr4 = 0;
        sregs->efer = 0;
        if (long_mode) {
                sregs->cr3 = BOOT_PAGE_TABLE;
                sregs->cr4 = CR4_PAE;
                sregs->cr0 |= CR0_PG;
                sregs->efer = EFER_LME | EFER_LMA;
        }
}

int vcpus_reset(struct machine *machine, const struct vcpu_start *start, struct error *err)
{
        for (unsigned i = 0; i < machine->n_vcpus; i++) {
                const struct vcpu *vcpu = &machine->vcpus[i];
                struct vcpu_state state = *vcpu->new_state;
                int r;

                if (i == 0)
                        begin_at(machine, &state, start);
                r = vcpu_state_set(vcpu, &state, err);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* ---- running ---- */

void vcpu_kick(struct vcpu *vcpu)
{
        /* The flag is for one that is just about to enter the guest, the signal for one that is in it. */
        __atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
        pthread_kill(vcpu->thread, VCPU_SIGNAL);
}

static void port_access(struct machine *machine, struct kvm_run *run)
{
        uint8_t *data = (uint8_t *)run + run->io.data_offset;

        machine_lock(machine);
        for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
                if (run->io.direction == KVM_EXIT_IO_OUT)
                        bus_write(&machine->ports, run->io.port, data, run->io.size);
                else
                        bus_read(&machine->ports, run->io.port, data, run->io.size);
        }
        machine_unlock(machine);
}

static void memory_access(struct machine *machine, struct kvm_run *run)
{
        const unsigned length = run->mmio.len;
        /* Parts of what an instruction does across two pages have odd lengths. */
        const unsigned step = length == 1 || length == 2 || length == 4 || length == 8 ? length : 1;

        machine_lock(machine);
        for (unsigned at = 0; at < length && at < sizeof(run->mmio.data); at += step) {
                if (run->mmio.is_write)
                        bus_write(&machine->addresses, run->mmio.phys_addr + at,
                                  run->mmio.data + at, step);
                else
                        bus_read(&machine->addresses, run->mmio.phys_addr + at, run->mmio.data + at,
                                 step);
        }
        machine_unlock(machine);
}

/* KVM cannot go on: it says why, and we where. */
static void broken(struct vcpu *vcpu)
{
        const struct kvm_run *run = vcpu->run;
        struct kvm_regs regs = {0};
        struct kvm_sregs sregs = {0};

        ioctl(vcpu->fd, KVM_GET_REGS, &regs);
        ioctl(vcpu->fd, KVM_GET_SREGS, &sregs);
        if (run->exit_reason == KVM_EXIT_FAIL_ENTRY)
                machine_fail(vcpu->machine,
                             "the processor refuses to run vCPU %u at 0x%llx (reason 0x%llx)",
                             vcpu->index, regs.rip,
                             (unsigned long long)run->fail_entry.hardware_entry_failure_reason);
        else if (run->exit_reason == KVM_EXIT_INTERNAL_ERROR)
                machine_fail(vcpu->machine,
                             "KVM cannot emulate what the guest does on vCPU %u at 0x%llx (code "
                             "segment at 0x%llx; suberror %u)",
                             vcpu->index, regs.rip, sregs.cs.base, run->internal.suberror);
        else
                machine_fail(vcpu->machine,
                             "vCPU %u stopped at 0x%llx for reason %u, which is not known here",
                             vcpu->index, regs.rip, run->exit_reason);
}

static void system_event(struct vcpu *vcpu)
{
        switch (vcpu->run->system_event.type) {
        case KVM_SYSTEM_EVENT_SHUTDOWN:
                machine_ask_power_off(vcpu->machine);
                break;
        case KVM_SYSTEM_EVENT_RESET:
                machine_ask_reset(vcpu->machine);
                break;
        case KVM_SYSTEM_EVENT_CRASH:
                machine_guest_panicked(vcpu->machine);
                break;
        default:
                broken(vcpu);
        }
}

static void handle_exit(struct vcpu *vcpu)
{
        switch (vcpu->run->exit_reason) {
        case KVM_EXIT_IO:
                port_access(vcpu->machine, vcpu->run);
                break;
        case KVM_EXIT_MMIO:
                memory_access(vcpu->machine, vcpu->run);
                break;
        case KVM_EXIT_SHUTDOWN: /* a triple fault */
                machine_ask_reset(vcpu->machine);
                break;
        case KVM_EXIT_SYSTEM_EVENT:
                system_event(vcpu);
                break;
        case KVM_EXIT_INTR:
        case KVM_EXIT_IRQ_WINDOW_OPEN:
        case KVM_EXIT_SET_TPR:
        case KVM_EXIT_IOAPIC_EOI:
                break;
        default:
                broken(vcpu);
        }
}

/* An exit is complete only when KVM was entered again: so it rests only where KVM_RUN was interrupted,
 * and what it was asked by then is in its registers. */
void *vcpu_thread(void *arg)
{
        struct vcpu *vcpu = arg;
        struct machine *machine = vcpu->machine;
        char name[16];
        sigset_t signals;

        /* All others are for the process's first thread. */
        sigfillset(&signals);
        sigdelset(&signals, VCPU_SIGNAL);
        pthread_sigmask(SIG_SETMASK, &signals, NULL);
        snprintf(name, sizeof(name), "vcpu %u", vcpu->index);
        pthread_setname_np(pthread_self(), name);
        if (machine->events->vcpu_began)
                machine->events->vcpu_began(machine->events_arg, vcpu->index);
        while (run_wait(vcpu)) {
                int r;

                do {
                        r = ioctl(vcpu->fd, KVM_RUN, 0UL) < 0 ? -errno : 0;
                        if (r == 0)
                                handle_exit(vcpu);
                } while (r == 0 || r == -EAGAIN);
                if (r != -EINTR)
                        machine_fail(machine, "KVM cannot run vCPU %u: %s", vcpu->index,
                                     strerror(-r));
        }
        return NULL;
}
