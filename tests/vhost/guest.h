/* guest.h - a guest's memory, shared by memfd: regions with gaps between them, and three addresses
 * for each byte, all different: the guest's, the "user" one that the protocol's ring addresses
 * use, and where it is mapped here.
 *
 * Units      bytes.
 * Threads    one; what lies in the memory is shared with the back end.
 * Errors     0 or -errno with a sentence.
 * Ownership  release with guest_free(). A region's descriptor stays the memory's.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/error.h"
#include "tests/vhost/message.h"

#define GUEST_REGIONS_MAX 64u

struct guest_part {
        struct vu_region address;
        int fd;
        uint8_t *here;
        uint64_t taken; /* by guest_take(), from its start */
};

struct guest {
        struct guest_part regions[GUEST_REGIONS_MAX];
        unsigned n_regions;
        uint64_t next_user;
};

/* @n_bytes in three regions: half of it at guest address 0, and two quarters that are neighbours
 * above 4 GiB: a buffer may lie across their border, and is then in two mappings. */
int guest_new(uint64_t n_bytes, struct guest **ret_guest, struct error *err);
void guest_free(struct guest *m); /* NULL is fine */

/* One region more, not yet shown to a back end; its index. */
int guest_add(struct guest *m, uint64_t guest, uint64_t n_bytes, struct error *err);
/* Another file in the place of region @index, with the same content at the same addresses. */
int guest_replace(struct guest *m, unsigned index, struct error *err);
/* Take all of the file away from under the region, from guest address @guest on. */
int guest_shrink(struct guest *m, uint64_t guest, struct error *err);
/* Forget the last region. */
void guest_drop(struct guest *m);

/* Room for the test's use, in region @index: never given back but with guest_reset(). The guest
 * address; aborts where there is none left. */
uint64_t guest_take(struct guest *m, unsigned index, uint64_t n_bytes, uint64_t align);
/* All of it free again from @taken on, which memory_region.taken was before. */
void guest_reset(struct guest *m, unsigned index, uint64_t taken);
/* The guest address where the second and third region meet. */
uint64_t guest_border(const struct guest *m);

/* Where a guest address is mapped; NULL where no region has it. Good up to the region's end. */
void *guest_at(const struct guest *m, uint64_t guest);
/* The user address of a guest address in a region. */
uint64_t guest_user(const struct guest *m, uint64_t guest);
/* Copy, across regions too. */
void guest_write(struct guest *m, uint64_t guest, const void *data, size_t n_bytes);
void guest_read(const struct guest *m, uint64_t guest, void *data, size_t n_bytes);
void guest_fill(struct guest *m, uint64_t guest, uint8_t byte, size_t n_bytes);
