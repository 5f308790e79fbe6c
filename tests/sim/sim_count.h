/* sim_count.h - what a simulation counts: figures, faults that hit, and ways that recovery took.
 *
 * Ways are told by what the engine itself says: its log, its events, its errors.
 *
 * Threads    one; counters may lie in memory that processes share, each with its own.
 */
#pragma once
#include <stdint.h>
#include "common/log.h"

#define SIM_FIGURES(X)                                                                             \
        X(IOS, "I/Os of volumes")                                                                  \
        X(DISK_IOS, "writes, discards and flushes of disks")                                       \
        X(OPERATIONS, "operations on the catalog")                                                 \
        X(POOLS, "pools")                                                                          \
        X(LIVES, "lives of a pool")                                                                \
        X(RECOVERIES, "recoveries")                                                                \
        X(CHECKS, "checks")                                                                        \
        X(ROUNDS, "pools filled and freed")

#define SIM_FAULTS(X)                                                                              \
        X(POWER_CUT, "power cut")                                                                  \
        X(WRITE_LOST, "unflushed write lost")                                                      \
        X(WRITE_TORN, "unflushed write torn")                                                      \
        X(WRITE_REORDERED, "later write kept, earlier one lost")                                   \
        X(RECOVERY_CUT, "power cut during recovery")                                               \
        X(KILLED, "process killed")                                                                \
        X(MISDIRECTED, "write misdirected")                                                        \
        X(WRITE_DROPPED, "write answered and not done")                                            \
        X(ROT_DATA, "bit rot in data")                                                             \
        X(ROT_METADATA, "bit rot in metadata")                                                     \
        X(EIO_READ, "EIO of a read")                                                               \
        X(EIO_WRITE, "EIO of a write")                                                             \
        X(EIO_FLUSH, "EIO of a flush")                                                             \
        X(DISK_DEAD, "disk dead for good")                                                         \
        X(HOST_FULL, "ENOSPC of a disk")                                                           \
        X(POOL_FULL, "request without space in the pool")                                          \
        X(NO_MEMORY, "allocation failed")                                                          \
        X(DISK_STALE, "disk came back stale")                                                      \
        X(IMAGE_EIO, "EIO of an image")                                                            \
        X(IMAGE_AWAY, "images away")                                                               \
        X(FLUSH_LIED, "flush lied")                                                                \
        X(SLOW, "disk slow, up to a minute a request")

#define SIM_WAYS(X)                                                                                \
        X(LOG_REPLAYED, "log replayed")                                                            \
        X(LOG_NONE, "nothing to replay")                                                           \
        X(BLOCKS_DROPPED, "logged blocks dropped, whose data never came")                          \
        X(REPLAYED_WRITE, "record replayed: a write")                                              \
        X(REPLAYED_CLEAR, "record replayed: a discard")                                            \
        X(REPLAYED_SLAB, "record replayed: a slab made")                                           \
        X(REPLAYED_CATALOG, "record replayed: an operation on the catalog")                        \
        X(REPLAYED_COPY, "record replayed: a copy of an image's block, or its zeroes")             \
        X(REPLAYED_BASE, "record replayed: a base made, moved or completed")                       \
        X(LOG_TAIL_TORN, "log ends in a page that is torn")                                        \
        X(LOG_BEYOND, "log pages behind a lost one left out")                                      \
        X(LOG_OTHER_LEG, "log page read from the other leg")                                       \
        X(LABEL_FALLBACK, "label read from the other end of a disk")                               \
        X(SUPER_FALLBACK, "newest superblock read from the other end of a disk")                   \
        X(MEMBER_BEHIND, "member a superblock behind brought up to date")                          \
        X(SUPER_TORN, "what a cut left of a next superblock removed")                              \
        X(DELETION_RESUMED, "deletion resumed")                                                    \
        X(SHRINK_RESUMED, "shrink resumed")                                                        \
        X(LOG_PAGE_UNREADABLE, "log page unreadable on a leg")                                     \
        X(LOG_DAMAGED, "log found damaged: open read-only")                                        \
        X(REPLAY_UNREADABLE, "logged block unreadable at replay")                                  \
        X(LEG_CHECKSUM, "metadata failed its checksum on a leg")                                   \
        X(LEG_UNREADABLE, "metadata unreadable on a leg")                                          \
        X(LEG_REPAIRED, "leg repaired from the other")                                             \
        X(LEG_UNWRITABLE, "metadata unwritable on a leg")                                          \
        X(DATA_CHECKSUM, "data failed its checksum: EIO")                                          \
        X(DATA_UNREADABLE, "data unreadable: EIO")                                                 \
        X(DATA_UNWRITABLE, "data unwritable")                                                      \
        X(STOPPED_FLUSH, "pool stopped: flush failed")                                             \
        X(STOPPED_LOG, "pool stopped: log")                                                        \
        X(STOPPED_SUPER, "pool stopped: superblock")                                               \
        X(STOPPED_MEMORY, "pool stopped: out of memory")                                           \
        X(STOPPED_METADATA, "pool stopped: metadata")                                              \
        X(STOPPED_OTHER, "pool stopped: other")                                                    \
        X(STALE_REFUSED, "stale member refused")                                                   \
        X(DEAD_REFUSED, "pool without a member refused")                                           \
        X(LIE_REFUSED, "lost by a lying flush: refused")                                           \
        X(OPEN_FAILED, "open failed under a fault, and later succeeded")                           \
        X(WAITED, "write waited for space")                                                        \
        X(SPACE_BACK, "space came back to a full pool")                                            \
        X(RELIEF_ADD, "full pool: member added")                                                   \
        X(RELIEF_DELETE, "full pool: snapshot deleted")                                            \
        X(RELIEF_HURRY, "full pool: waiting requests cancelled")                                   \
        X(FINDINGS, "check named damage")                                                          \
        X(IMAGE_UNREADABLE, "image that cannot be read: EIO")                                      \
        X(IMAGE_MISSING, "image that is away: EIO")                                                \
        X(IMAGE_BACK, "images back, and read again")                                               \
        X(IMAGE_MOVED, "image read elsewhere")                                                     \
        X(COMPLETED, "image copied as a whole, and not needed any more")                           \
        X(COPY_FAILED, "copying ended by its image")                                               \
        X(COPY_FULL, "copying ended by a full pool")

/* Of the rounds of sim_fill.c. */
#define SIM_FILLS(X)                                                                               \
        X(FREED_DISCARD, "freed by a discard")                                                     \
        X(FREED_VOLUME, "freed by deleting the volume")                                            \
        X(FREED_SNAPSHOT, "freed by deleting the snapshot")                                        \
        X(FREED_RESTORE, "freed by restoring")                                                     \
        X(FREED_SHRINK, "freed by shrinking")                                                      \
        X(FREED_ADD, "member added, and filled again")                                             \
        X(FILLED, "full: no block for data left")                                                  \
        X(FILLED_METADATA, "full: no metadata left")                                               \
        X(FILLED_WAITED, "writers waited, and went on when space came")

enum sim_counter {
#define SIM_ENUM(name, text) SIM_##name,
        SIM_FIGURES(SIM_ENUM) SIM_FAULTS(SIM_ENUM) SIM_WAYS(SIM_ENUM) SIM_FILLS(SIM_ENUM)
#undef SIM_ENUM
            SIM_N_COUNTERS,
};

struct sim_counters {
        uint64_t count[SIM_N_COUNTERS];
};

extern const char *const sim_counter_texts[SIM_N_COUNTERS];

/* The counters of this process; NULL: none. */
void sim_count_into(struct sim_counters *counters);
void sim_count_add(enum sim_counter counter, uint64_t n);
uint64_t sim_counted(enum sim_counter counter);
static inline void sim_count(enum sim_counter counter)
{
        sim_count_add(counter, 1);
}
/* A sink for the engine's log, which counts what it says. */
void sim_count_log(enum log_level level, const char *message);
