/* fw_cfg.h - what firmware asks the machine for: numbers by key, files by name.
 *
 * Units      bytes.
 * Threads    under the machine's lock.
 * Errors     0 or -errno with a sentence.
 * Ownership  fw_cfg has copies of its own.
 * Source     QEMU, docs/specs/fw_cfg.rst.
 */
#pragma once
#include <stddef.h>
#include "common/error.h"

struct machine;

#define FW_CFG_NAME_MAX  55u
#define FW_CFG_FILES_MAX 16u
/* At most so much by one access: larger than anything that we have. */
#define FW_CFG_DMA_MAX (16u << 20)

/* A file; one of this name is replaced.
 *
 * -ENOSPC  there are FW_CFG_FILES_MAX */
int fw_cfg_add(struct machine *machine, const char *name, const void *data, size_t size,
               struct error *err);
