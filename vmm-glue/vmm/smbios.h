/* smbios.h - tables that say who the machine is.
 *
 * Units      none.
 * Threads    under the machine's lock.
 * Errors     0 or -errno with a sentence.
 * Ownership  the machine's memory, and its fw_cfg, have them.
 */
#pragma once
#include "common/error.h"

struct machine;

/* Into guest memory, where a kernel looks for them that was not booted by firmware. */
void smbios_write(struct machine *machine);
/* By fw_cfg, to firmware, which places them. */
int smbios_tell(struct machine *machine, struct error *err);
