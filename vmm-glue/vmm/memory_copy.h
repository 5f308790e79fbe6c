/* memory_copy.h - the guest's memory into a file, and back: what vmm.h says, for its functions of these
 * names.
 *
 * Threads    the loop's, without the machine's lock.
 */
#pragma once
#include "vmm-glue/vmm/machine.h"

int memory_copy_begin(struct machine *machine, int fd,
                      void (*copied)(void *arg, int result, const char *sentence), void *arg,
                      struct error *err);
int memory_copy_finish(struct machine *machine, uint64_t *ret_bytes, struct error *err);
void memory_copy_cancel(struct machine *machine);
int memory_copy_load(struct machine *machine, int fd, struct error *err);
