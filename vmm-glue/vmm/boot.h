/* boot.h - what the ways to boot share.
 *
 * Units      bytes, guest-physical addresses.
 * Threads    under the machine's lock, with the vCPUs at rest.
 * Errors     0 or -errno with a sentence: files are not believed.
 * Ownership  descriptors stay the configuration's.
 */
#pragma once
#include "vmm-glue/vmm/machine.h"

/* By firmware, or the kernel given: whichever kind it is. */
int boot_load(struct machine *machine, struct vcpu_start *ret_start, struct error *err);

/* The part of boot_load() that takes long and is the same whatever the devices are, ahead of it: what is
 * large in a bzImage and its initrd. The next boot_load() does not read that again. Another thread may do
 * it while the machine is made, once it has memory. */
int boot_preload(struct machine *machine, struct error *err);

/* Exactly @size bytes of @fd from @offset. @name: of what, in the sentence. */
int boot_read(int fd, uint64_t offset, void *data, size_t size, const char *name,
              struct error *err);
/* The same into guest memory: -EINVAL where that is not RAM. */
int boot_read_guest(struct machine *machine, int fd, uint64_t offset, uint64_t gpa, uint64_t size,
                    const char *name, struct error *err);
int boot_file_size(int fd, const char *name, uint64_t *ret_size, struct error *err);

/* What can be used of RAM below 4 GiB ends here; ACPI's tables follow. */
uint64_t boot_ram_end(const struct machine *machine);
/* The initrd, as high as can be below @end; 0 bytes where there is none. @kernel_end: where the
 * kernel's memory ends. */
int boot_load_initrd(struct machine *machine, uint64_t kernel_end, uint64_t end, uint64_t *ret_gpa,
                     uint64_t *ret_size, struct error *err);
/* The command line, with its NUL, at BOOT_CMDLINE. @max: bytes that the kernel takes. */
int boot_put_cmdline(struct machine *machine, size_t max, struct error *err);
