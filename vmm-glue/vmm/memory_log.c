/* memory_log.c - which pages of the guest's memory were written.
 *
 * Sources: Linux, Documentation/virt/kvm/api.rst, KVM_GET_DIRTY_LOG; QEMU, docs/interop/vhost-user.rst,
 * "Migration": the layout of the log. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm-glue/vmm/memory.h"

static int kvm_log(const struct guest_memory *memory, bool on)
{
        for (unsigned i = 0; i < memory->n; i++) {
                const struct guest_region *region = &memory->regions[i];
                struct kvm_userspace_memory_region slot = {
                    .slot = region->slot,
                    .flags = on ? KVM_MEM_LOG_DIRTY_PAGES : 0,
                    .guest_phys_addr = region->gpa,
                    .memory_size = region->size,
                    .userspace_addr = (uintptr_t)region->host,
                };

                if (region->shared && memory->vm >= 0 &&
                    ioctl(memory->vm, KVM_SET_USER_MEMORY_REGION, &slot) < 0)
                        return -errno;
        }
        return 0;
}

static int make_log(struct memory_log *log, uint64_t pages, struct error *err)
{
        log->size = ((pages + 7) / 8 + 4095) & ~UINT64_C(4095);
        log->fd = memfd_create("tarn-log", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (log->fd < 0)
                return error_set(err, -errno, "cannot make a log of written memory: %s",
                                 strerror(errno));
        log->bits = MAP_FAILED;
        if (ftruncate(log->fd, (off_t)log->size) == 0 &&
            fcntl(log->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
                log->bits = mmap(NULL, log->size, PROT_READ | PROT_WRITE, MAP_SHARED, log->fd, 0);
        if (log->bits == MAP_FAILED) {
                int r = error_set(err, -errno, "cannot make a log of written memory: %s",
                                  strerror(errno));

                close(log->fd);
                return r;
        }
        return 0;
}

static void free_log(struct memory_log *log)
{
        munmap(log->bits, log->size);
        close(log->fd);
        free(log);
}

int memory_log_begin(struct guest_memory *memory, struct error *err)
{
        const struct guest_region *last = &memory->regions[memory->n - 1];
        struct memory_log *log = calloc(1, sizeof(*log));
        int r;

        assert(!memory->log);
        if (!log)
                return error_set(err, -ENOMEM, "no memory for a log of written memory");
        /* The last region may be the firmware's, which nobody writes: a few bits too many. */
        r = make_log(log, (last->gpa + last->size) / MEMORY_LOG_PAGE, err);
        if (r < 0) {
                free(log);
                return r;
        }
        r = kvm_log(memory, true);
        if (r < 0) {
                kvm_log(memory, false);
                free_log(log);
                return error_set(err, r, "KVM does not log what the guest writes: %s",
                                 strerror(-r));
        }
        memory->log = log;
        return 0;
}

void memory_log_end(struct guest_memory *memory)
{
        if (!memory->log)
                return;
        kvm_log(memory, false);
        free_log(memory->log);
        memory->log = NULL;
}

void memory_mark(const struct guest_memory *memory, const void *host, size_t length)
{
        const struct guest_region *region;
        uint64_t start, last;

        if (!memory->log || length == 0)
                return;
        region = memory_region_of(memory, host, length, &start);
        if (!region)
                return;
        last = (region->gpa + start + length - 1) / MEMORY_LOG_PAGE;
        for (uint64_t page = (region->gpa + start) / MEMORY_LOG_PAGE; page <= last; page++)
                __atomic_fetch_or(&memory->log->bits[page / 8], (uint8_t)(1u << (page % 8)),
                                  __ATOMIC_SEQ_CST);
}

void memory_log_touched(const struct guest_memory *memory)
{
        for (unsigned i = 0; memory->log && i < memory->n; i++) {
                const struct guest_region *region = &memory->regions[i];
                uint64_t at = 0, end;

                for (; region->shared && memory_next_touched(region, &at, &end); at = end)
                        memory_mark(memory, region->host + at, end - at);
        }
}

int memory_log_take(struct guest_memory *memory, const struct guest_region *region, uint64_t *bits,
                    struct error *err)
{
        const uint64_t words = region->size / MEMORY_LOG_PAGE / 64;
        struct kvm_dirty_log request = {.slot = region->slot};
        uint64_t *kvm_bits;

        /* Regions begin and end at multiples of 2 MiB: 512 pages, 64 bytes of bits. */
        assert(memory->log && region->gpa % (64 * MEMORY_LOG_PAGE) == 0 && words > 0 &&
               region->size % (64 * MEMORY_LOG_PAGE) == 0);
        for (uint64_t i = 0; i < words; i++) {
                uint64_t *word =
                    (uint64_t *)(memory->log->bits + region->gpa / MEMORY_LOG_PAGE / 8) + i;

                if (__atomic_load_n(word, __ATOMIC_RELAXED) != 0)
                        bits[i] |= __atomic_exchange_n(word, 0, __ATOMIC_SEQ_CST);
        }
        if (memory->vm < 0)
                return 0;
        kvm_bits = calloc(words, 8);
        if (!kvm_bits)
                return error_set(err, -ENOMEM, "no memory to see what the guest wrote");
        request.dirty_bitmap = kvm_bits;
        if (ioctl(memory->vm, KVM_GET_DIRTY_LOG, &request) < 0) {
                int r = error_set(err, -errno, "KVM does not tell what the guest wrote: %s",
                                  strerror(errno));

                free(kvm_bits);
                return r;
        }
        for (uint64_t i = 0; i < words; i++)
                bits[i] |= kvm_bits[i];
        free(kvm_bits);
        return 0;
}
