/* vm.h - running a virtual machine, from its file to its end.
 *
 * The calling process becomes the machine's supervisor: it makes what is missing, starts servers for
 * pools that nobody serves, opens what the machine needs, forks its VMM (child.h), connects its disks
 * and stays until it has ended. Others ask it over its control socket (known_socket()).
 *
 * Threads    blocking; the only thread of the process. SIGTERM and SIGINT are blocked in it from here
 *            on: the first presses the power button, a second one ends the machine by force.
 * Errors     0 or -errno with a sentence.
 * Ownership  all stays the caller's.
 */
#pragma once
#include <jansson.h>

#include "vm/known.h"
#include "vm/prepare.h"

struct vm_run {
        struct known *known; /* with its lock */
        int log;             /* what the VMM logs; -1: standard error */
        bool foreground;     /* its console is standard input and output */
        struct prepare_progress progress;
        void (*running)(void *arg); /* the guest runs; may be NULL */
        void *arg;
};
/* 0 when the guest has switched itself off, or was stopped.
 *
 * -ENOENT, -EACCES  /dev/kvm is not there, or not for us */
int vm_run(const struct vm_run *run, struct error *err);

/* The same in a process of its own, in the background: returns when the guest runs, or why it does
 * not. What is said later is in its log.
 *
 * -ECANCELED  SIGINT or SIGTERM: what was begun ends */
int vm_start(struct known *known, const struct prepare_progress *progress, struct error *err);

/* Ask the supervisor of a machine that runs.
 *
 * -ENOTCONN  it does not run */
int vm_connect(const char *name, int *ret_fd, struct error *err);
/* The request is taken over. */
int vm_ask(const char *name, json_t *request, json_t **ret_reply, struct error *err);
