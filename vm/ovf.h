/* ovf.h - VM files and OVF descriptors: one in the other's terms.
 *
 * What only one of them can say is lost on the way. A descriptor knows nothing of kernels that are booted
 * directly, seeds, forwarded ports, limits of CPU time; a VM file nothing of kinds of controllers and
 * network cards, as its guests have virtio.
 *
 * Units      bytes.
 * Threads    [any thread]
 * Errors     0 or -errno with a sentence.
 * Ownership  ret_* is the caller's: vm_file_free(), ovf_machine_clear().
 */
#pragma once
#include "formats/ovf.h"
#include "vm/file.h"

/* A name that pools and machines can have, of what letters @text has: "My VM (2)" is "My-VM-2". Empty
 * where there is none. */
void vm_ovf_name(const char *text, char name[POOL_NAME_MAX + 1]);

/* What the volume of disk @i of @n is called: @base where it is the only one, else "BASE-1" and so on. */
int vm_ovf_volume(const char *base, size_t i, size_t n, char volume[POOL_NAME_MAX + 1],
                  struct error *err);

/* The machine called @name with the volumes of that @base in @pool. Network cards are of type user, and
 * keep their addresses. What the descriptor does not state is as by default; a machine of more
 * processors than VM_CPUS_MAX gets so many, and memory is rounded up to VM_MEMORY_UNIT. Of a machine
 * with EFI the firmware is left open.
 *
 * -EINVAL  it has no disk, or more of something than a VM file can have */
int vm_file_from_ovf(const struct ovf_machine *machine, const char *name, const char *pool,
                     const char *base, struct vm_file **ret_file, struct error *err);

/* Disks are on SATA, in the file's order; network cards of type user are on "NAT", taps on "Bridged",
 * names that VirtualBox has for these. The firmware counts as EFI where its image is one. */
int vm_file_to_ovf(const struct vm_file *file, struct ovf_machine *ret_machine, struct error *err);
