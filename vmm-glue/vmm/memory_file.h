/* memory_file.h - the files that a guest's memory is in.
 *
 * Units      bytes.
 * Threads    the one that makes the machine, before the process has given up its rights.
 * Errors     -errno with a sentence where there is an @err.
 * Ownership  the descriptors are the caller's.
 * Source     Linux, Documentation/admin-guide/mm/transhuge.rst, "Hugepages in tmpfs/shmem";
 *            user_namespaces(7).
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "common/error.h"

/* A memfd that keeps its size. @hugetlb: of 2 MiB pages of the kernel's pool. */
int memory_file_new(uint64_t size, bool hugetlb, struct error *err);

/* A file in a tmpfs of its own, which the kernel puts together of pages of 2 MiB where it has some; a
 * back end that shrinks it ends us. -errno: there cannot be one, which is no error of anybody's. */
int memory_file_huge(uint64_t size);
