/* machine_fixture.h - a struct machine without KVM, for tests and fuzzers of its devices: memory,
 * buses and a loop are real; what machine.c, irq.c and acpi_pm.c do is faked, and can be looked at.
 *
 * The fakes are weak: a test that uses one of these files for real gets that file's functions.
 *
 * Units      bytes.
 * Threads    one, the loop's.
 * Errors     what must not fail aborts.
 * Ownership  one machine at a time; fixture_free() frees its devices, in reverse order.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "vmm-glue/vmm/machine.h"

#define FIXTURE_MESSAGES   64u
#define FIXTURE_FDS        256u
#define FIXTURE_IOEVENTFDS 256u

struct machine_fixture {
        struct machine machine;
        struct vmm_config config;
        struct vmm_events events;
        unsigned depth;                      /* of machine_lock() */
        void (*run_loop)(struct loop *loop); /* of a loop that is not the fixture's; NULL: nobody */

        /* what devices asked for */
        unsigned n_resets, n_power_offs, n_panics, n_failed;
        uint32_t gpes; /* raised, one bit each */
        uint8_t reset_register;

        /* irq.c's */
        struct fixture_message {
                uint64_t address;
                uint32_t data;
        } messages[FIXTURE_MESSAGES]; /* sent, the first of them */
        unsigned n_messages;
        struct fixture_irqfd {
                unsigned gsi;
                int fd;
        } irqfds[FIXTURE_FDS];
        unsigned n_irqfds;
        struct fixture_ioeventfd {
                bool port;
                uint64_t address;
                unsigned size;
                int fd;
        } ioeventfds[FIXTURE_IOEVENTFDS];
        unsigned n_ioeventfds;
        bool refuse_ioeventfds, refuse_irqfds;
};

/* @memory: of RAM. @loop: NULL for one of threads, which is the fixture's then. */
struct machine_fixture *fixture_new(uint64_t memory, struct loop *loop);
void fixture_free(struct machine_fixture *f);

/* Run the loop until nothing happens: for some milliseconds, where it is the fixture's own, so that a test
 * has to be ready for more to happen later; with a fuzz_loop, which a test makes itself, and run_loop =
 * fuzz_loop_settle, all that can happen has. */
void fixture_run(struct machine_fixture *f);
/* What irqfds would do: each eventfd that was signalled is read, and its message sent. */
void fixture_deliver(struct machine_fixture *f);
/* As KVM does: a write to an address with an eventfd signals that, any other goes to the bus. */
void fixture_write(struct machine_fixture *f, uint64_t address, uint64_t value, unsigned size);
uint64_t fixture_read(struct machine_fixture *f, uint64_t address, unsigned size);
void fixture_out(struct machine_fixture *f, uint16_t port, uint64_t value, unsigned size);
uint64_t fixture_in(struct machine_fixture *f, uint16_t port, unsigned size);

/* Each device's, as the machine's own do it; all devices. Devices that fail abort. */
void fixture_reset(struct machine_fixture *f);
void fixture_pause(struct machine_fixture *f);
void fixture_resume(struct machine_fixture *f);
void fixture_save(struct machine_fixture *f, struct state_writer *w);
int fixture_restore(struct machine_fixture *f, const void *data, size_t size, struct error *err);
