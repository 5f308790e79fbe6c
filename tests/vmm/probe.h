/* probe.h - a virtio device that does nothing but notice, in a machine without KVM.
 *
 * Threads    one.
 * Errors     fail the running cmocka test.
 * Ownership  a world owns its machine; the probe is part of it, and counts how often it is freed.
 */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "tests/vmm/guest.h"
#include "vmm-glue/vmm/virtio_pci.h"

#define PROBE_TYPE       42u
#define PROBE_QUEUES     3u
#define PROBE_QUEUE_SIZE 64u
#define PROBE_FEATURES   (UINT64_C(1) << 3 | UINT64_C(1) << 35)
#define PROBE_RING       MIB(1)

struct probe {
        struct virtio_device v;
        uint8_t config[8]; /* 0xc0 to 0xc7 */
        unsigned n_starts, n_stops, n_resets, n_frees, kicks[PROBE_QUEUES];
        unsigned n_logs, n_log_ends;
        int start_result, log_result;
        uint32_t own; /* saved state */
};

struct probe_world {
        struct machine_fixture *f;
        struct probe probe;
        struct guest_device d; /* slot 1 */
};

extern const struct virtio_ops probe_virtio_ops;

/* The machine, with the probe attached; a driver may have placed its BARs. */
struct probe_world *probe_world_new(bool placed);
void probe_world_free(struct probe_world *w);
void probe_attach(struct probe_world *w, bool hotplugged);
/* For cmocka: *state is a world. */
int probe_setup(void **state);
int probe_teardown(void **state);

/* A driver that is ready, with all queues; the first of them. */
struct guest_ring probe_bring_up(struct probe_world *w);
/* The loop's turn; what was kicked before is not counted. */
void probe_forget_kicks(struct probe_world *w);
