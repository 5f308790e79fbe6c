/* memory_size.h - how much memory the guest has, while it runs: below what it was started with by the
 * balloon, above by virtio-mem.
 *
 * Both ask the guest, which gives and takes at its leisure, or not at all.
 *
 * Units      bytes, multiples of LAYOUT_RAM_UNIT.
 * Threads    under the machine's lock.
 * Errors     0 or -errno with a sentence.
 * Ownership  the devices are the machine's.
 */
#pragma once
#include <stdint.h>
#include "common/error.h"

struct machine;
struct virtio_device;

/* The guest is to have @bytes.
 *
 * -EINVAL      more than memory_max, less than LAYOUT_RAM_MIN, or no multiple
 * -EOPNOTSUPP  it would take a balloon, and the machine has none */
int machine_memory_set(struct machine *machine, uint64_t bytes, struct error *err);
/* What it has now. */
uint64_t machine_memory_size(const struct machine *machine);

/* ---- machine->balloon (virtio_balloon.c) ---- */

/* @bytes of the guest's memory are to be in the balloon; how many it says that there are. */
void virtio_balloon_want(struct virtio_device *v, uint64_t bytes);
uint64_t virtio_balloon_size(const struct virtio_device *v);

/* ---- machine->mem (virtio_mem.c) ---- */

/* @bytes are to be plugged; how many are. */
void virtio_mem_want(struct virtio_device *v, uint64_t bytes);
uint64_t virtio_mem_size(const struct virtio_device *v);
