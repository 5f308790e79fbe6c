/* prepare.h - what a virtual machine needs before it runs: a server for each of its pools, and
 * volumes that do not exist yet.
 *
 * Threads    blocking; from the only thread of the process (server/session.h).
 * Errors     0 or -errno with a sentence.
 * Ownership  nothing is kept.
 */
#pragma once
#include "vm/file.h"

struct prepare_progress {
        void (*show)(void *arg, uint64_t done, uint64_t total); /* NULL: nobody looks */
        void *arg;
};

/* Each pool of the file is served: one that nobody serves gets a server, which ends by itself when
 * nobody uses it any more. */
int prepare_servers(const struct vm_file *file, struct error *err);
/* Volumes of the file that do not exist and have a source are made, by the servers of their pools. */
int prepare_volumes(const struct vm_file *file, const struct prepare_progress *progress,
                    struct error *err);

/* Start a server for @pool, as above, and do not wait. *ret_pid is a child of this process. */
int server_spawn(const char *pool, pid_t *ret_pid, struct error *err);
/* The last thing it said; empty: nothing. */
void server_last_words(const char *pool, char *text, size_t size);
