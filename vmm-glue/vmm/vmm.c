/* vmm.c - making a machine, and what its owner asks of it. */
#include "vmm-glue/vmm/vmm.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "vmm-glue/vmm/boot.h"
#include "vmm-glue/vmm/memory_copy.h"
#include "vmm-glue/vmm/memory_size.h"
#include "vmm-glue/vmm/vcpu.h"
#include "vmm-glue/vmm/virtio.h"

struct vmm {
        struct machine machine;
        /* Whose descriptors are a device's, which closes them, also when it cannot be made. */
        size_t n_disks_given, n_nics_given;
        bool serial_given, vsock_given;
};

/* What every machine has, in the order in which it is made. */
static int (*const devices[])(struct machine *machine, struct error *err) = {
    pci_create,      acpi_pm_create, serial_create, rtc_create,
    keyboard_create, pvpanic_create, fw_cfg_create,
};

/* What KVM must have; Linux 6.1 does, on every processor. */
static const struct {
        int capability;
        const char *name;
} needed[] = {
    {KVM_CAP_IRQCHIP, "interrupt controllers"},
    {KVM_CAP_IRQ_ROUTING, "interrupt routes"},
    {KVM_CAP_IRQFD, "interrupts by eventfds"},
    {KVM_CAP_IOEVENTFD, "writes that signal eventfds"},
    {KVM_CAP_PIT2, "a timer chip"},
    {KVM_CAP_PIT_STATE2, "the state of its timer chip"},
    {KVM_CAP_READONLY_MEM, "memory that guests cannot write"},
    {KVM_CAP_IMMEDIATE_EXIT, "immediate exits"},
    {KVM_CAP_SIGNAL_MSI, "messages"},
    {KVM_CAP_XSAVE, "the state of vector registers"},
    {KVM_CAP_DEBUGREGS, "the state of debug registers"},
    {KVM_CAP_VCPU_EVENTS, "the state of events"},
    {KVM_CAP_ADJUST_CLOCK, "a clock that can be set"},
};

static int open_kvm(struct machine *machine, struct error *err)
{
        int r;

        machine->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
        if (machine->kvm < 0) {
                r = error_set(err, -errno, "cannot open /dev/kvm: %s", strerror(errno));
                error_hint(err, r == -EACCES
                                    ? "members of the group 'kvm' may open it"
                                    : "virtualization has to be on in the firmware, and the module "
                                      "kvm-intel or kvm-amd be loaded");
                return r;
        }
        r = ioctl(machine->kvm, KVM_GET_API_VERSION, 0UL);
        if (r != KVM_API_VERSION)
                return error_set(err, -EOPNOTSUPP, "/dev/kvm is of version %d, and not of %d", r,
                                 KVM_API_VERSION);
        for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++)
                if (ioctl(machine->kvm, KVM_CHECK_EXTENSION, (long)needed[i].capability) <= 0)
                        return error_set(err, -EOPNOTSUPP, "this kernel's KVM lacks %s",
                                         needed[i].name);
        return 0;
}

int vmm_check(struct error *err)
{
        struct machine machine = {.kvm = -1};
        int r = open_kvm(&machine, err);

        if (machine.kvm >= 0)
                close(machine.kvm);
        return r;
}

static int check_config(const struct machine *machine, struct error *err)
{
        const struct vmm_config *config = machine->config;
        int max = ioctl(machine->kvm, KVM_CHECK_EXTENSION, (long)KVM_CAP_MAX_VCPUS);

        if (config->cpus < 1 || config->cpus > VCPUS_MAX)
                return error_set(err, -EINVAL, "a machine has 1 to %u processors, not %u",
                                 VCPUS_MAX, config->cpus);
        if (max > 0 && config->cpus > (unsigned)max)
                return error_set(err, -EINVAL, "this host's KVM gives %d processors, and not %u",
                                 max, config->cpus);
        if (config->memory < LAYOUT_RAM_MIN || config->memory > LAYOUT_RAM_MAX ||
            config->memory % LAYOUT_RAM_UNIT != 0)
                return error_set(err, -EINVAL,
                                 "a machine has memory of 32 MiB to 1 TiB, in steps of 2 MiB");
        if (config->kernel < 0 && config->firmware < 0)
                return error_set(err, -EINVAL, "there is neither a kernel nor a firmware to start");
        if (config->n_disks > VMM_DISKS_MAX || config->n_nics > VMM_NICS_MAX)
                return error_set(err, -ENOSPC, "a machine has at most %u disks and %u networks",
                                 VMM_DISKS_MAX, VMM_NICS_MAX);
        return 0;
}

static int make_kvm(struct machine *machine, struct error *err)
{
        int r;

        do
                machine->vm = ioctl(machine->kvm, KVM_CREATE_VM, 0UL);
        while (machine->vm < 0 && errno == EINTR);
        if (machine->vm < 0)
                return error_set(err, -errno, "KVM makes no machine: %s", strerror(errno));
        r = memory_give_to_kvm(&machine->memory, machine->vm, err);
        if (r == 0)
                r = chips_create(machine, err);
        if (r == 0)
                r = vcpus_create(machine, err);
        return r;
}

static int make_devices(struct vmm *vmm, struct error *err)
{
        int r = 0;

        for (size_t i = 0; r == 0 && i < sizeof(devices) / sizeof(devices[0]); i++) {
                vmm->serial_given |= devices[i] == serial_create;
                r = devices[i](&vmm->machine, err);
        }
        return r;
}

/* The disks, and what has its place on the bus behind them. */
static int make_other_devices(struct vmm *vmm, struct error *err)
{
        struct machine *machine = &vmm->machine;
        const struct vmm_config *config = machine->config;
        int r = 0;

        while (r == 0 && vmm->n_disks_given < config->n_disks)
                r = vhost_blk_create(machine, &config->disks[vmm->n_disks_given++], false, err);
        if (r == 0 && config->seed >= 0)
                r = seed_blk_create(machine, err);
        while (r == 0 && vmm->n_nics_given < config->n_nics)
                r = virtio_net_create(machine, &config->nics[vmm->n_nics_given++], err);
        if (r == 0 && config->rng)
                r = virtio_rng_create(machine, err);
        if (r == 0 && config->vsock_cid != 0) {
                vmm->vsock_given = true;
                r = virtio_vsock_create(machine, err);
        }
        if (r == 0 && config->balloon)
                r = virtio_balloon_create(machine, err);
        if (r == 0 && config->memory_max > config->memory)
                r = virtio_mem_create(machine, err);
        return r;
}

static void close_fd(int fd)
{
        if (fd >= 0)
                close(fd);
}

/* Those of the configuration that no device has. */
static void close_config(const struct vmm_config *config, const struct vmm *vmm)
{
        close_fd(config->kernel);
        close_fd(config->initrd);
        close_fd(config->firmware);
        close_fd(config->seed);
        if (!vmm->serial_given)
                close_fd(config->serial);
        for (size_t i = vmm->n_disks_given; i < config->n_disks; i++)
                close_fd(config->disks[i].fd);
        for (size_t i = vmm->n_nics_given; i < config->n_nics; i++) {
                close_fd(config->nics[i].fd);
                close_fd(config->nics[i].vhost_fd);
        }
        if (config->vsock_cid != 0 && !vmm->vsock_given)
                close_fd(config->vsock_fd);
}

struct loading {
        struct machine *machine;
        int result;
        struct error error;
};

static void *load(void *loading)
{
        struct loading *l = loading;

        l->result = boot_preload(l->machine, &l->error);
        return NULL;
}

/* The kernel waits for itself more than once while it makes a machine, and to copy a kernel of 10 MiB
 * takes a while: that is done meanwhile. */
static int make_while_loading(struct vmm *vmm, struct error *err)
{
        struct loading l = {.machine = &vmm->machine, .error = ERROR_INIT};
        pthread_t thread;
        int r = pthread_create(&thread, NULL, load, &l);

        if (r != 0)
                return error_set(err, -r, "cannot start a thread: %s", strerror(r));
        r = make_kvm(&vmm->machine, err);
        if (r == 0)
                r = make_devices(vmm, err);
        pthread_join(thread, NULL);
        if (r == 0 && l.result < 0) {
                r = l.result;
                if (err)
                        *err = l.error;
        }
        return r;
}

int vmm_new(struct loop *loop, const struct vmm_config *config, const struct vmm_events *events,
            void *arg, struct vmm **ret_vmm, struct error *err)
{
        static const struct vmm nothing_given;
        struct vmm *vmm = calloc(1, sizeof(*vmm));
        struct machine *machine;
        int r;

        if (!vmm) {
                close_config(config, &nothing_given);
                return error_set(err, -ENOMEM, "no memory for a machine");
        }
        machine = &vmm->machine;
        *machine = (struct machine){.kvm = -1,
                                    .vm = -1,
                                    .config = config,
                                    .events = events,
                                    .events_arg = arg,
                                    .loop = loop};
        pthread_mutex_init(&machine->lock, NULL);
        list_init(&machine->devices);
        run_init(machine);
        r = open_kvm(machine, err);
        if (r == 0)
                r = check_config(machine, err);
        if (r == 0)
                r = memory_new(&machine->memory, MEMORY_KVM_LATER, config->memory,
                               config->huge_pages, err);
        if (r == 0)
                r = make_while_loading(vmm, err);
        if (r == 0)
                *ret_vmm = vmm;
        else
                vmm_free(vmm);
        return r;
}

int vmm_complete(struct vmm *vmm, struct error *err)
{
        int r = make_other_devices(vmm, err);

        return r < 0 ? r : machine_reset(&vmm->machine, err);
}

void vmm_free(struct vmm *vmm)
{
        struct machine *machine;

        if (!vmm)
                return;
        machine = &vmm->machine;
        memory_copy_cancel(machine);
        run_end_threads(machine);
        machine_lock(machine);
        while (!list_empty(&machine->devices))
                machine_remove_device(machine,
                                      container_of(machine->devices.prev, struct device, link));
        machine_unlock(machine);
        vhost_blk_end(machine);
        vcpus_free(machine);
        chips_free(machine);
        memory_free(&machine->memory);
        close_fd(machine->vm);
        close_fd(machine->kvm);
        close_config(machine->config, vmm);
        pthread_mutex_destroy(&machine->lock);
        run_destroy(machine, vmm);
}

int vmm_start(struct vmm *vmm, struct error *err)
{
        int r = run_start_threads(&vmm->machine, err);

        if (r == 0 && !vmm->machine.run.paused)
                run_go(&vmm->machine);
        return r;
}

void vmm_pause(struct vmm *vmm)
{
        struct machine *machine = &vmm->machine;

        if (machine->run.paused || machine->run.ended)
                return;
        machine->run.paused = true;
        run_rest(machine);
        machine_lock(machine);
        list_for_each (it, &machine->devices) {
                struct device *device = container_of(it, struct device, link);

                if (device->ops->pause)
                        device->ops->pause(device);
        }
        machine_unlock(machine);
}

/* A guest that sees that it has not run for a while is not to take that for a fault of its own. */
static void excuse_the_pause(struct machine *machine)
{
        for (unsigned i = 0; i < machine->n_vcpus; i++)
                ioctl(machine->vcpus[i].fd, KVM_KVMCLOCK_CTRL, 0UL);
}

void vmm_resume(struct vmm *vmm)
{
        struct machine *machine = &vmm->machine;

        if (!machine->run.paused || machine->run.ended)
                return;
        machine->run.paused = false;
        machine_lock(machine);
        list_for_each (it, &machine->devices) {
                struct device *device = container_of(it, struct device, link);

                if (device->ops->resume)
                        device->ops->resume(device);
        }
        machine_unlock(machine);
        excuse_the_pause(machine);
        run_go(machine);
}

static int write_all(int fd, const uint8_t *data, size_t size)
{
        while (size > 0) {
                ssize_t n = write(fd, data, size);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                data += n;
                size -= (size_t)n;
        }
        return 0;
}

int vmm_save(struct vmm *vmm, int fd, struct error *err)
{
        struct state_writer w = {0};
        int r;

        /* Which vmm_pause() leaves alone, so that its owner need not have seen it come. */
        if (vmm->machine.run.ended)
                return error_set(err, -ESHUTDOWN, "the machine has come to its end");
        assert(vmm->machine.run.paused);
        machine_lock(&vmm->machine);
        r = machine_save(&vmm->machine, &w, err);
        machine_unlock(&vmm->machine);
        if (r == 0) {
                r = write_all(fd, w.data, w.size);
                if (r < 0)
                        error_set(err, r, "cannot write the machine's state: %s", strerror(-r));
        }
        state_writer_free(&w);
        return r;
}

int vmm_restore(struct vmm *vmm, int fd, struct error *err)
{
        struct machine *machine = &vmm->machine;
        uint64_t size;
        void *data;
        int r = boot_file_size(fd, "saved state", &size, err);

        assert(machine->run.n_threads == 0);
        if (r < 0)
                return r;
        if (size == 0 || size > STATE_SIZE_MAX)
                return error_set(err, -EINVAL, "the saved state is of %llu bytes",
                                 (unsigned long long)size);
        data = malloc(size);
        if (!data)
                return error_set(err, -ENOMEM, "no memory for the machine's state");
        r = boot_read(fd, 0, data, size, "saved state", err);
        if (r == 0) {
                machine_lock(machine);
                r = machine_restore(machine, data, size, err);
                machine_unlock(machine);
        }
        machine->run.paused = r == 0;
        free(data);
        return r;
}

bool vmm_is_paused(const struct vmm *vmm)
{
        return vmm->machine.run.paused;
}

void vmm_reset(struct vmm *vmm)
{
        machine_ask_reset(&vmm->machine);
}

void vmm_power_button(struct vmm *vmm)
{
        machine_lock(&vmm->machine);
        acpi_pm_power_button(&vmm->machine);
        machine_unlock(&vmm->machine);
}

int vmm_memory_set(struct vmm *vmm, uint64_t bytes, struct error *err)
{
        int r;

        machine_lock(&vmm->machine);
        r = machine_memory_set(&vmm->machine, bytes, err);
        machine_unlock(&vmm->machine);
        return r;
}

uint64_t vmm_memory_size(struct vmm *vmm)
{
        uint64_t bytes;

        machine_lock(&vmm->machine);
        bytes = machine_memory_size(&vmm->machine);
        machine_unlock(&vmm->machine);
        return bytes;
}

int vmm_memory_copy(struct vmm *vmm, int fd,
                    void (*copied)(void *arg, int result, const char *sentence), void *arg,
                    struct error *err)
{
        return memory_copy_begin(&vmm->machine, fd, copied, arg, err);
}

int vmm_memory_copy_finish(struct vmm *vmm, uint64_t *ret_bytes, struct error *err)
{
        assert(vmm->machine.run.paused || vmm->machine.run.ended);
        return memory_copy_finish(&vmm->machine, ret_bytes, err);
}

void vmm_memory_copy_cancel(struct vmm *vmm)
{
        memory_copy_cancel(&vmm->machine);
}

int vmm_memory_load(struct vmm *vmm, int fd, struct error *err)
{
        assert(vmm->machine.run.n_threads == 0);
        return memory_copy_load(&vmm->machine, fd, err);
}

int vmm_disk_connect(struct vmm *vmm, const char *id, int fd, struct error *err)
{
        int r;

        machine_lock(&vmm->machine);
        r = vhost_blk_connect(&vmm->machine, id, fd, err);
        machine_unlock(&vmm->machine);
        return r;
}

int vmm_nic_connect(struct vmm *vmm, const char *id, int fd, struct error *err)
{
        int r;

        machine_lock(&vmm->machine);
        r = virtio_net_connect(&vmm->machine, id, fd, err);
        machine_unlock(&vmm->machine);
        return r;
}

int vmm_disk_add(struct vmm *vmm, const struct vmm_disk *disk, struct error *err)
{
        int r;

        machine_lock(&vmm->machine);
        r = vhost_blk_create(&vmm->machine, disk, true, err);
        machine_unlock(&vmm->machine);
        return r;
}

int vmm_disk_remove(struct vmm *vmm, const char *id, struct error *err)
{
        int r;

        machine_lock(&vmm->machine);
        r = vhost_blk_remove(&vmm->machine, id, err);
        machine_unlock(&vmm->machine);
        return r;
}
