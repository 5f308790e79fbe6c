/* machine.h - a machine without KVM that has one disk (vmm-glue/vmm/vhost_blk.c), and a driver for it.
 *
 * What virtio_pci.c and machine.c do otherwise is done here: queues and their eventfds, the lock. The
 * machine's loop has a thread of its own; the test's thread plays the vCPU and the guest.
 *
 * Units      bytes; sectors of 512 bytes; times are milliseconds.
 * Threads    the test's own calls.
 * Errors     what fails fails the running cmocka test; rig_* that return int give -errno and leave
 *            their sentence in rig->err.
 * Ownership  rig_free() releases all.
 */
#pragma once
#include <linux/virtio_blk.h>
#include <stdatomic.h>
#include "vmm-glue/vmm/machine.h"
#include "vmm-glue/vmm/virtio.h"

#define RIG_QUEUES_MAX 4u
#define RIG_SLOTS      64u /* requests in flight in one queue */
#define RIG_DATA       4096u
#define RIG_WAIT_MS    30000

struct rig_queue {
        uint16_t next, last_used;
        bool done[RIG_SLOTS];
        unsigned next_slot;
};

struct rig {
        struct machine machine;
        struct vmm_config config;
        struct vmm_events events;
        struct loop_thread *thread;
        struct error err;
        struct virtio_device *v; /* NULL: there is none */
        struct virtio_queue queues[RIG_QUEUES_MAX];
        struct rig_queue rings[RIG_QUEUES_MAX];
        void (*removed)(struct virtio_device *v);
        atomic_uint n_lost, n_removed, n_changed, n_needs_reset;
};

struct rig *rig_new(void);
void rig_free(struct rig *rig); /* with its disk, if there is one */

/* A disk "disk0" of @n_queues, connected to the socket @path; another back end for it; and away. */
int rig_create(struct rig *rig, const char *path, bool readonly, unsigned n_queues);
int rig_connect(struct rig *rig, const char *path);
int rig_connect_fd(struct rig *rig, const char *id, int fd);
int rig_remove(struct rig *rig);
void rig_eject(struct rig *rig); /* the guest has agreed */
int rig_socket(const char *path);

/* The driver sets its queues up anew, with all that is offered but @without, and starts; a pause and what
 * follows it; a reset. */
int rig_start(struct rig *rig, uint64_t without);
void rig_pause(struct rig *rig);
int rig_resume(struct rig *rig);
void rig_reset(struct rig *rig);
int rig_log(struct rig *rig, bool on);

struct virtio_blk_config rig_config(struct rig *rig);
void rig_write_config(struct rig *rig, uint32_t offset, const void *data, uint32_t size);
void rig_save(struct rig *rig, struct state_writer *w);
int rig_restore(struct rig *rig, const struct state_writer *w);

/* Add a request of RIG_DATA bytes, filled with @fill where it is written from, and kick. Its slot. */
unsigned rig_submit(struct rig *rig, unsigned queue, uint32_t type, uint64_t sector, uint8_t fill);
/* Wait until it is answered: its status. */
uint8_t rig_wait(struct rig *rig, unsigned queue, unsigned slot);
bool rig_is_done(struct rig *rig, unsigned queue, unsigned slot);
const uint8_t *rig_data(struct rig *rig, unsigned queue, unsigned slot);
uint64_t rig_data_gpa(unsigned queue, unsigned slot);
/* One request from beginning to end, which succeeds. */
void rig_write(struct rig *rig, unsigned queue, uint64_t sector, uint8_t fill);
void rig_check(struct rig *rig, unsigned queue, uint64_t sector, uint8_t fill);
struct vring_avail *rig_available(struct rig *rig, unsigned queue);
struct vring_used *rig_used(struct rig *rig, unsigned queue);
void rig_kick(struct rig *rig, unsigned queue);

/* Wait until a counter of the rig has come to @n. */
void rig_wait_for(atomic_uint *counter, unsigned n);
