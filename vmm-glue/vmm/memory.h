/* memory.h - the guest's memory: memfds, shared with those who process its queues.
 *
 * guest_range() is the only way in. What it gives is memory that the guest, and who else has the
 * memfd, may change at any moment: read each thing once, and decide by the copy.
 *
 * Units      bytes; gpa: guest-physical addresses.
 * Threads    guest_range() [any thread]; regions are added before the machine runs, or with its
 *            vCPUs at rest.
 * Errors     -errno with a sentence; guest_range() says NULL.
 * Ownership  a struct guest_memory owns its mappings and descriptors.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/error.h"

#define MEMORY_REGIONS_MAX 8u

struct guest_region {
        uint64_t gpa, size;
        uint8_t *host;
        int fd;      /* memfd; its offset 0 is @gpa */
        bool shared; /* given to back ends: RAM, not firmware */
        bool huge;   /* of pages of 2 MiB */
        unsigned slot;
};

/* Which pages were written since it was last looked at: one bit for each 4 KiB from address 0. Those
 * who write guest memory beside the vCPUs set them: devices by memory_mark(), other processes by
 * themselves, as vhost's log of dirty pages is just this. */
#define MEMORY_LOG_PAGE UINT64_C(4096)
struct memory_log {
        uint8_t *bits;
        uint64_t size; /* bytes */
        int fd;        /* memfd, to be shared */
};

struct guest_memory {
        int vm;                 /* KVM's descriptor; -1: none (tests); MEMORY_KVM_LATER */
        struct memory_log *log; /* NULL: nobody wants to know. Under the machine's lock */
        struct guest_region regions[MEMORY_REGIONS_MAX]; /* by gpa */
        unsigned n;
        uint64_t low_size;  /* RAM from 0 */
        uint64_t high_size; /* RAM from 4 GiB */
};

/* RAM of @size bytes, below and above the hole. @huge: of 2 MiB pages of the kernel's pool. @vm
 * MEMORY_KVM_LATER: there is none yet, and memory_give_to_kvm() will say.
 *
 * -ENOMEM  there is not enough, or not enough huge pages */
#define MEMORY_KVM_LATER (-2)
int memory_new(struct guest_memory *memory, int vm, uint64_t size, bool huge, struct error *err);
/* The guest of @vm has it from now on. */
int memory_give_to_kvm(struct guest_memory *memory, int vm, struct error *err);
/* One region more. @readonly: for the guest. */
int memory_add(struct guest_memory *memory, uint64_t gpa, uint64_t size, bool huge, bool readonly,
               struct guest_region **ret_region, struct error *err);
void memory_free(struct guest_memory *memory);

/* @length bytes at @gpa, in one region of RAM (firmware is none); NULL where not all of it is. An
 * empty range is NULL, too. */
void *guest_range(const struct guest_memory *memory, uint64_t gpa, uint64_t length);

/* The region that has the @length bytes at @host, which guest_range() gave, from *ret_start on; NULL: none. */
const struct guest_region *memory_region_of(const struct guest_memory *memory, const void *host,
                                            uint64_t length, uint64_t *ret_start);

/* The next pages of @region from *at on that were ever touched: they become *at to *ret_end. The others
 * are zero, and hold no memory. */
bool memory_next_touched(const struct guest_region *region, uint64_t *at, uint64_t *ret_end);

/* Give back the pages that lie wholly in the @length bytes at @host, which guest_range() gave: they read
 * as zeroes from then on, and cost nothing until they are written again. Memory that the kernel does
 * not take back, and that of huge pages, stays as it is. */
void memory_discard(const struct guest_memory *memory, const void *host, uint64_t length);
/* The same, and all of it reads as zeroes whatever the kernel takes back. */
void memory_zero(const struct guest_memory *memory, void *host, uint64_t length);

/* ---- the log ---- */

/* From now on: what is written is noted, by KVM and in memory->log. -ENOMEM, -errno: it is off. */
int memory_log_begin(struct guest_memory *memory, struct error *err);
void memory_log_end(struct guest_memory *memory);
/* A device has written @length bytes at @host, which guest_range() gave. After it has: whoever takes the
 * log copies the page then. */
void memory_mark(const struct guest_memory *memory, const void *host, size_t length);
/* All that was ever written counts as written now: of those who cannot say what they wrote. */
void memory_log_touched(const struct guest_memory *memory);
/* Take what was written of @region: a bit for each of its pages, added to @bits, and forgotten. */
int memory_log_take(struct guest_memory *memory, const struct guest_region *region, uint64_t *bits,
                    struct error *err);
