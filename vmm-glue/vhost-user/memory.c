/* memory.c - the guest's memory: regions of descriptors that the front end sent, mapped here.
 *
 * A table is never changed: requests that were parsed with one hold it until they have ended, so
 * that memory which the front end takes away stays mapped as long as the engine may touch it. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>
#include "common/closer.h"
#include "vmm-glue/vhost-user/internal.h"

#ifndef XFS_SUPER_MAGIC
#define XFS_SUPER_MAGIC 0x58465342
#endif

/* ---- mappings ---- */

/* Memory of memfd_create(2), of /dev/shm and of huge pages; and files on disks, which QEMU and
 * libvirt offer as well. Not what another process or host serves (FUSE, NFS): each access to it
 * would wait for them, and with it everybody whom this loop serves. */
bool memory_is_local(int fd)
{
        static const long kinds[] = {TMPFS_MAGIC,      HUGETLBFS_MAGIC,   RAMFS_MAGIC,
                                     EXT4_SUPER_MAGIC, BTRFS_SUPER_MAGIC, XFS_SUPER_MAGIC};
        struct statfs fs;

        if (fstatfs(fd, &fs) < 0)
                return false;
        for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
                if ((long)fs.f_type == kinds[i])
                        return true;
        return false;
}

/* Huge pages are mapped in whole ones. */
static uint64_t page_bytes(int fd, const struct stat *st)
{
        struct statfs fs;

        if (fstatfs(fd, &fs) == 0 && fs.f_type == HUGETLBFS_MAGIC)
                return (uint64_t)st->st_blksize;
        return (uint64_t)sysconf(_SC_PAGESIZE);
}

/* Of all servers of the process, which share its addresses. */
static _Atomic uint64_t total_bytes;

static void uncount(struct vhost_client *client, uint64_t bytes)
{
        client->n_mappings--;
        client->memory_bytes -= bytes;
        client->device->server->memory_bytes -= bytes;
        atomic_fetch_sub(&total_bytes, bytes);
}

static int count(struct vhost_client *client, uint64_t bytes, struct error *err)
{
        if (client->n_mappings >= CLIENT_MAPPINGS_MAX)
                return error_set(err, -ENOSPC,
                                 "it sent memory %u times that requests in flight still use",
                                 CLIENT_MAPPINGS_MAX);
        if (bytes > CLIENT_MEMORY_MAX - client->memory_bytes)
                return error_set(err, -ENOSPC, "it sent more memory than is mapped for anybody");
        client->n_mappings++;
        client->memory_bytes += bytes;
        client->device->server->memory_bytes += bytes;
        if (atomic_fetch_add(&total_bytes, bytes) <= TOTAL_MEMORY_MAX - bytes)
                return 0;
        uncount(client, bytes);
        return error_set(err, -ENOSPC, "more memory was sent than is mapped for all");
}

int mapping_open(struct vhost_client *client, struct mapping *mapping, int fd, uint64_t offset,
                 uint64_t length, struct error *err)
{
        uint64_t page, first, end;
        struct stat st;
        void *base;
        int own, r;

        if (!memory_is_local(fd) || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
                return error_set(err, -EPERM, "it sent a descriptor that is not of shared memory");
        if (length == 0 || offset > (uint64_t)st.st_size || length > (uint64_t)st.st_size - offset)
                return error_set(err, -EINVAL,
                                 "it sent memory of %llu bytes and wants %llu of them at %llu",
                                 (unsigned long long)st.st_size, (unsigned long long)length,
                                 (unsigned long long)offset);
        page = page_bytes(fd, &st);
        first = offset / page * page;
        end = (offset + length + page - 1) / page * page;
        r = count(client, end - first, err);
        if (r < 0)
                return r;
        own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        if (own < 0) {
                r = error_set(err, -errno, "cannot keep its memory's descriptor: %s",
                              strerror(errno));
                goto fail;
        }
        base = mmap(NULL, end - first, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd,
                    (off_t)first);
        if (base == MAP_FAILED) {
                r = error_set(err, -errno, "cannot map %llu bytes of its memory: %s",
                              (unsigned long long)length, strerror(errno));
                goto fail;
        }
        r = guard_watch(base, end - first, &client->memory_lost, &mapping->guard);
        if (r < 0) {
                munmap(base, end - first);
                error_set(err, r, "no memory to watch its memory");
                goto fail;
        }
        /* A guest's memory is no business of a core file. */
        madvise(base, end - first, MADV_DONTDUMP);
        mapping->base = base;
        mapping->length = end - first;
        mapping->start = (uint8_t *)base + (offset - first);
        mapping->fd = own;
        mapping->device = st.st_dev;
        mapping->inode = st.st_ino;
        mapping->client = client;
        return 0;
fail:
        if (own >= 0)
                close(own);
        uncount(client, end - first);
        return r;
}

void mapping_close(struct mapping *mapping)
{
        if (!mapping->base)
                return;
        guard_release(mapping->guard);
        munmap(mapping->base, mapping->length);
        close_elsewhere(mapping->client->device->closer, mapping->fd);
        uncount(mapping->client, mapping->length);
        *mapping = (struct mapping){0};
}

/* ---- regions ---- */

static void region_unref(struct region *region)
{
        if (--region->refs)
                return;
        mapping_close(&region->mapping);
        free(region);
}

static int region_new(struct vhost_client *client, const struct vhost_region *at, int fd,
                      struct region **ret_region, struct error *err)
{
        struct region *region;
        int r;

        if (at->size == 0 || at->guest + at->size < at->guest || at->user + at->size < at->user)
                return error_set(err, -EINVAL,
                                 "it sent a memory region that ends before it begins");
        region = calloc(1, sizeof(*region));
        if (!region)
                return error_set(err, -ENOMEM, "no memory for a memory region");
        r = mapping_open(client, &region->mapping, fd, at->mmap_offset, at->size, err);
        if (r < 0) {
                free(region);
                return r;
        }
        region->refs = 1;
        region->at = *at;
        *ret_region = region;
        return 0;
}

/* ---- tables ---- */

void memory_unref(struct memory *memory)
{
        if (!memory || --memory->refs)
                return;
        for (unsigned i = 0; i < memory->n; i++)
                region_unref(memory->regions[i]);
        free(memory);
}

struct memory *memory_none(void)
{
        struct memory *memory = calloc(1, sizeof(*memory));

        if (memory)
                memory->refs = 1;
        return memory;
}

static struct memory *memory_copy(const struct memory *old)
{
        struct memory *memory = memory_none();

        for (unsigned i = 0; memory && i < old->n; i++) {
                memory->regions[memory->n++] = old->regions[i];
                old->regions[i]->refs++;
        }
        return memory;
}

static bool overlaps(const struct vhost_region *a, const struct vhost_region *b)
{
        return a->guest < b->guest + b->size && b->guest < a->guest + a->size;
}

int memory_with(struct vhost_client *client, const struct memory *old,
                const struct vhost_region *at, int fd, struct memory **ret_memory,
                struct error *err)
{
        struct region *region = NULL;
        struct memory *memory;
        unsigned place;
        int r;

        if (old->n >= MEMORY_SLOTS_MAX)
                return error_set(err, -ENOSPC, "it has more than %u memory regions",
                                 MEMORY_SLOTS_MAX);
        for (unsigned i = 0; i < old->n; i++)
                if (overlaps(&old->regions[i]->at, at))
                        return error_set(err, -EINVAL, "its memory regions overlap");
        r = region_new(client, at, fd, &region, err);
        if (r < 0)
                return r;
        memory = memory_copy(old);
        if (!memory) {
                region_unref(region);
                return error_set(err, -ENOMEM, "no memory for a table of memory regions");
        }
        for (place = memory->n++; place > 0; place--) {
                if (memory->regions[place - 1]->at.guest < at->guest)
                        break;
                memory->regions[place] = memory->regions[place - 1];
        }
        memory->regions[place] = region;
        *ret_memory = memory;
        return 0;
}

int memory_without(const struct memory *old, const struct vhost_region *at,
                   struct memory **ret_memory, struct error *err)
{
        struct memory *memory;
        unsigned i;

        for (i = 0; i < old->n; i++)
                if (old->regions[i]->at.guest == at->guest &&
                    old->regions[i]->at.user == at->user && old->regions[i]->at.size == at->size)
                        break;
        if (i == old->n)
                return error_set(err, -ENOENT, "it removes a memory region that it never added");
        memory = memory_copy(old);
        if (!memory)
                return error_set(err, -ENOMEM, "no memory for a table of memory regions");
        region_unref(memory->regions[i]);
        memory->n--;
        memmove(&memory->regions[i], &memory->regions[i + 1],
                (memory->n - i) * sizeof(memory->regions[0]));
        *ret_memory = memory;
        return 0;
}

/* ---- translation ---- */

uint8_t *memory_at(const struct memory *memory, uint64_t guest, uint64_t *length)
{
        unsigned low = 0, high = memory->n;
        const struct region *region;
        uint64_t inside;

        while (low < high) { /* the last region that begins no later than guest */
                unsigned middle = (low + high) / 2;

                if (memory->regions[middle]->at.guest <= guest)
                        low = middle + 1;
                else
                        high = middle;
        }
        if (low == 0)
                return NULL;
        region = memory->regions[low - 1];
        inside = guest - region->at.guest;
        if (inside >= region->at.size)
                return NULL;
        if (*length > region->at.size - inside)
                *length = region->at.size - inside;
        return region->mapping.start + inside;
}

uint8_t *memory_at_user(const struct memory *memory, uint64_t user, uint64_t length)
{
        for (unsigned i = 0; i < memory->n; i++) {
                const struct region *region = memory->regions[i];

                if (user >= region->at.user && user - region->at.user < region->at.size &&
                    length <= region->at.size - (user - region->at.user))
                        return region->mapping.start + (user - region->at.user);
        }
        return NULL;
}

int memory_read(const struct memory *memory, uint64_t guest, void *data, size_t length)
{
        uint8_t *to = data;

        while (length > 0) {
                uint64_t here = length;
                const uint8_t *from = memory_at(memory, guest, &here);

                if (!from)
                        return -EFAULT;
                memcpy(to, from, here);
                to += here;
                guest += here;
                length -= here;
        }
        /* What was copied is not looked up again where it came from. */
        atomic_signal_fence(memory_order_seq_cst);
        return 0;
}

bool memory_guest_address(const struct memory *memory, const void *host, uint64_t *ret_guest)
{
        for (unsigned i = 0; i < memory->n; i++) {
                const struct region *region = memory->regions[i];
                uintptr_t start = (uintptr_t)region->mapping.start;

                if ((uintptr_t)host >= start && (uintptr_t)host - start < region->at.size) {
                        *ret_guest = region->at.guest + ((uintptr_t)host - start);
                        return true;
                }
        }
        return false;
}

bool memory_has_file(const struct memory *memory, dev_t device, ino_t inode)
{
        for (unsigned i = 0; memory && i < memory->n; i++)
                if (memory->regions[i]->mapping.device == device &&
                    memory->regions[i]->mapping.inode == inode)
                        return true;
        return false;
}
