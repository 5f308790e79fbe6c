/* run.h - whether the vCPUs run, and what the guest has asked for.
 *
 * Threads    vCPUs rest at a condition variable; the loop's thread lets them go and makes them rest.
 * Errors     none.
 * Ownership  a machine has one.
 */
#pragma once
#include <pthread.h>
#include <stdbool.h>

#include "common/loop.h"

struct machine;
struct vcpu;

/* What waits for the loop's thread. */
enum run_asked {
        RUN_ASKED_RESET = 1,
        RUN_ASKED_POWER_OFF = 2,
        RUN_ASKED_PANIC = 4,
        RUN_ASKED_FAILURE = 8,
};

struct run {
        pthread_mutex_t mutex; /* of all below; taken after the machine's lock, where both are */
        pthread_cond_t changed;
        bool go;            /* the vCPUs may run */
        bool quit;          /* their threads end */
        unsigned n_resting; /* threads that do not run the guest */
        unsigned n_threads;
        unsigned asked;        /* of enum run_asked */
        char sentence[256];    /* of RUN_ASKED_FAILURE */
        struct loop_task task; /* serves what was asked */
        bool paused;           /* by the caller of vmm_pause(). The loop's thread */
        bool ended;            /* nothing runs any more. The loop's thread */
        void *whole;           /* not NULL: the machine is gone, but for this. The loop's thread */
};

void run_init(struct machine *machine);
/* And free @whole, which the machine is in: now, or when the loop has come to what was asked last. */
void run_destroy(struct machine *machine, void *whole);

/* [loop thread] Start the threads, resting. */
int run_start_threads(struct machine *machine, struct error *err);
void run_end_threads(struct machine *machine);
/* [loop thread] All rest when it returns. The machine's lock must not be held: a vCPU may wait for it. */
void run_rest(struct machine *machine);
void run_go(struct machine *machine);

/* [a vCPU's thread] Rest until it may go on; false: end. */
bool run_wait(struct vcpu *vcpu);

/* [any thread] The vCPUs stop where they are, and the loop's thread is told. */
void run_ask(struct machine *machine, enum run_asked what);
/* What was asked and is not served yet. */
unsigned run_pending(struct machine *machine);
