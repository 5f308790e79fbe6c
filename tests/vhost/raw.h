/* raw.h - requests written into a ring by hand, right or wrong, and what the device makes of them.
 *
 * Each is made on a disk of its own, whose ring is at its beginning. The zeroed options are a read
 * of RAW_BYTES at sector 0 in three descriptors, 0 the header, 1 the data, 2 the status, which a
 * test then spoils.
 *
 * Units      bytes; addresses are the guest's.
 * Threads    one.
 * Errors     what fails fails the running cmocka test.
 * Ownership  release with raw_close().
 */
#pragma once
#include "tests/vhost/check.h"

#define RAW_BYTES   4096u
#define RAW_WAIT_MS 30000

struct raw {
        struct disk *disk;
        struct ring *ring;
        uint64_t header, data, status, table; /* @table: room for 1100 descriptors */
        uint16_t shown;                       /* heads in the available ring */
};

struct raw *raw_open(struct disk_options options);
void raw_close(struct raw *r);
/* The device was told to do this. */
void raw_header(struct raw *r, uint32_t type, uint64_t sector);
/* Descriptor @i of the ring's table; for a packed ring @next says nothing, and the flags are
 * completed by what makes it available. */
void raw_desc(struct raw *r, uint16_t i, uint64_t guest, uint32_t n_bytes, uint16_t flags,
              uint16_t next);
/* Entry @i of the table at raw.table, and descriptor 0 that names @n_bytes of it. */
void raw_entry(struct raw *r, uint16_t i, uint64_t guest, uint32_t n_bytes, uint16_t flags,
               uint16_t next);
void raw_indirect(struct raw *r, uint32_t n_bytes, uint16_t more_flags);
/* Show @head (split rings; packed ones begin at 0), and kick. */
void raw_show(struct raw *r, uint16_t head);

enum raw_outcome {
        RAW_OK,
        RAW_IOERR,
        RAW_UNSUPP,
        RAW_NO_STATUS, /* used, and nothing written where the status should be */
        RAW_BROKEN,    /* the ring's error descriptor was signalled: the queue is stopped */
        RAW_CLOSED,    /* the connection was */
        RAW_SILENT,
};
/* Wait for it. */
enum raw_outcome raw_outcome(struct raw *r);
/* Of what the device used first. */
uint32_t raw_n_written(struct raw *r);
/* It failed and the server did no more: the request, or its queue, or the connection. */
#define raw_expect_refused(r)                                                                      \
        do {                                                                                       \
                enum raw_outcome outcome_ = raw_outcome(r);                                        \
                if (outcome_ == RAW_OK || outcome_ == RAW_SILENT)                                  \
                        fail_msg("outcome %d", outcome_);                                          \
        } while (0)

/* A TCP socket with more to send than its peer takes, which its close waits for. */
int raw_lingering(int *ret_peer);
