/* shim.h - what a program's allocations and disks do, ordered by another program through a file that
 * both have mapped; for LD_PRELOAD.
 *
 * $SHIM names the file, of SHIM_BYTES. The fields are told apart by number: tests write them from
 * Python (shim.py).
 *
 * Threads    [any thread]
 * Errors     those ordered.
 */
#pragma once
#include <stdatomic.h>
#include <stdint.h>

enum shim_field {
        SHIM_FAIL_AT,     /* the so-many-th allocation from main() on fails; 0: none */
        SHIM_ALLOCATIONS, /* counted so far */
        SHIM_STRUCK,      /* how many failed */
        SHIM_INODE,       /* of the file whose operations are meant by what follows; 0: none */
        SHIM_READ_ERROR,  /* errno of a read; 0: none */
        SHIM_WRITE_ERROR,
        SHIM_FLUSH_ERROR,
        SHIM_TIMES,      /* so many more operations fail */
        SHIM_DELAY_NS,   /* each operation takes so much longer */
        SHIM_OPERATIONS, /* on that file so far */
        SHIM_FIELDS,
};
#define SHIM_BYTES 4096u

struct shim {
        _Atomic uint64_t field[SHIM_FIELDS];
};
