/* memory.c - the guest's memory. */
#include "vmm-glue/vmm/memory.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm-glue/vmm/layout.h"
#include "vmm-glue/vmm/memory_file.h"

/* Of large pages where that can be, as each page that KVM maps costs an exit of the guest and more of
 * the translation cache. Without a KVM there is nothing to be gained. */
static int make_file(const struct guest_memory *memory, uint64_t size, bool huge, bool readonly,
                     struct error *err)
{
        int fd = -1;

        if (!huge && !readonly && memory->vm != -1)
                fd = memory_file_huge(size);
        return fd >= 0 ? fd : memory_file_new(size, huge, err);
}

static int tell_kvm(const struct guest_memory *memory, const struct guest_region *region,
                    bool readonly, struct error *err)
{
        struct kvm_userspace_memory_region slot = {
            .slot = region->slot,
            .flags = readonly ? KVM_MEM_READONLY : 0,
            .guest_phys_addr = region->gpa,
            .memory_size = region->size,
            .userspace_addr = (uintptr_t)region->host,
        };

        if (memory->vm >= 0 && ioctl(memory->vm, KVM_SET_USER_MEMORY_REGION, &slot) < 0)
                return error_set(err, -errno, "KVM does not take the guest's memory at 0x%llx: %s",
                                 (unsigned long long)region->gpa, strerror(errno));
        return 0;
}

int memory_add(struct guest_memory *memory, uint64_t gpa, uint64_t size, bool huge, bool readonly,
               struct guest_region **ret_region, struct error *err)
{
        struct guest_region region = {
            .gpa = gpa, .size = size, .shared = !readonly, .huge = huge, .slot = memory->n};
        int flags = MAP_SHARED | MAP_NORESERVE;
        unsigned at = memory->n;
        int r;

        assert(memory->n < MEMORY_REGIONS_MAX);
        region.fd = make_file(memory, size, huge, readonly, err);
        if (region.fd < 0)
                return region.fd;
        /* Huge pages that are not there would be a SIGBUS in the guest's midst: they are taken now. */
        if (huge)
                flags = MAP_SHARED | MAP_POPULATE;
        region.host = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, region.fd, 0);
        if (region.host == MAP_FAILED) {
                r = error_set(err, -errno, "cannot map %llu MiB of memory for the guest: %s",
                              (unsigned long long)(size >> 20), strerror(errno));
                if (huge)
                        error_hint(err, "huge pages are reserved by /proc/sys/vm/nr_hugepages");
                close(region.fd);
                return r;
        }
        madvise(region.host, size, MADV_DONTDUMP);
        r = tell_kvm(memory, &region, readonly, err);
        if (r < 0) {
                munmap(region.host, size);
                close(region.fd);
                return r;
        }
        while (at > 0 && memory->regions[at - 1].gpa > gpa) {
                memory->regions[at] = memory->regions[at - 1];
                at--;
        }
        memory->regions[at] = region;
        memory->n++;
        if (ret_region)
                *ret_region = &memory->regions[at];
        return 0;
}

int memory_new(struct guest_memory *memory, int vm, uint64_t size, bool huge, struct error *err)
{
        uint64_t low = size < LAYOUT_RAM_LOW_MAX ? size : LAYOUT_RAM_LOW_MAX;
        int r;

        assert(size >= LAYOUT_RAM_MIN && size <= LAYOUT_RAM_MAX && size % LAYOUT_RAM_UNIT == 0);
        *memory = (struct guest_memory){.vm = vm, .low_size = low, .high_size = size - low};
        r = memory_add(memory, 0, low, huge, false, NULL, err);
        if (r == 0 && size > low)
                r = memory_add(memory, LAYOUT_RAM_HIGH, size - low, huge, false, NULL, err);
        if (r < 0)
                memory_free(memory);
        return r;
}

int memory_give_to_kvm(struct guest_memory *memory, int vm, struct error *err)
{
        int r = 0;

        assert(memory->vm == MEMORY_KVM_LATER);
        memory->vm = vm;
        for (unsigned i = 0; r == 0 && i < memory->n; i++)
                r = tell_kvm(memory, &memory->regions[i], !memory->regions[i].shared, err);
        return r;
}

void memory_free(struct guest_memory *memory)
{
        for (unsigned i = 0; i < memory->n; i++) {
                munmap(memory->regions[i].host, memory->regions[i].size);
                close(memory->regions[i].fd);
        }
        memory->n = 0;
}

void *guest_range(const struct guest_memory *memory, uint64_t gpa, uint64_t length)
{
        for (unsigned i = 0; i < memory->n; i++) {
                const struct guest_region *region = &memory->regions[i];

                if (region->shared && gpa >= region->gpa && gpa - region->gpa < region->size)
                        return length > 0 && length <= region->size - (gpa - region->gpa)
                                   ? region->host + (gpa - region->gpa)
                                   : NULL;
        }
        return NULL;
}

bool memory_next_touched(const struct guest_region *region, uint64_t *at, uint64_t *ret_end)
{
        off_t begin, end;

        if (*at >= region->size)
                return false;
        begin = lseek(region->fd, (off_t)*at, SEEK_DATA);
        if (begin < 0 && errno == ENXIO)
                return false;
        /* Who does not say has touched all of it. */
        if (begin < 0)
                begin = (off_t)*at;
        end = lseek(region->fd, begin, SEEK_HOLE);
        if (end < 0)
                end = (off_t)region->size;
        *at = (uint64_t)begin & ~(MEMORY_LOG_PAGE - 1);
        /* Somebody may have given the page back meanwhile: there is an end to this anyway. */
        if (end <= begin)
                end = begin + 1;
        *ret_end = ((uint64_t)end + MEMORY_LOG_PAGE - 1) & ~(MEMORY_LOG_PAGE - 1);
        return true;
}

/* Whether those of @region from @start to @end, which are whole pages, hold no memory now. */
static bool give_back(const struct guest_region *region, uint64_t start, uint64_t end)
{
        return fallocate(region->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)start,
                         (off_t)(end - start)) == 0;
}

const struct guest_region *memory_region_of(const struct guest_memory *memory, const void *host,
                                            uint64_t length, uint64_t *ret_start)
{
        for (unsigned i = 0; i < memory->n; i++) {
                const struct guest_region *region = &memory->regions[i];
                uint64_t start = (uint64_t)((uintptr_t)host - (uintptr_t)region->host);

                if (start >= region->size)
                        continue;
                assert(length <= region->size - start);
                *ret_start = start;
                return region;
        }
        return NULL;
}

/* Of huge pages a hole would give the reservation back, and whoever touches one then may get a SIGBUS, or
 * the guest its end. */
void memory_discard(const struct guest_memory *memory, const void *host, uint64_t length)
{
        uint64_t start, end;
        const struct guest_region *region = memory_region_of(memory, host, length, &start);

        if (!region || region->huge)
                return;
        end = (start + length) / KIB(4) * KIB(4);
        start = (start + KIB(4) - 1) / KIB(4) * KIB(4);
        if (start < end)
                give_back(region, start, end);
        memory_mark(memory, host, length);
}

void memory_zero(const struct guest_memory *memory, void *host, uint64_t length)
{
        uint64_t start, end, first, last;
        const struct guest_region *region = memory_region_of(memory, host, length, &start);

        if (!region)
                return;
        end = start + length;
        first = (start + KIB(4) - 1) / KIB(4) * KIB(4);
        last = end / KIB(4) * KIB(4);
        if (region->huge || first >= last || !give_back(region, first, last)) {
                memset(host, 0, length);
        } else {
                memset(host, 0, first - start);
                memset((uint8_t *)host + (last - start), 0, end - last);
        }
        memory_mark(memory, host, length);
}
