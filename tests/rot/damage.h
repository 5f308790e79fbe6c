/* damage.h - ways in which a block of a disk can be wrong, each with a number and a name.
 *
 * Units      bytes; a byte's number is its place in the block.
 * Threads    one.
 */
#pragma once
#include "tests/rot/sample.h"

enum way {
        WAY_BIT,  /* one bit of a byte */
        WAY_BYTE, /* a byte becomes its complement */
        /* of whole blocks */
        WAY_UNREADABLE, /* EIO */
        WAY_ZEROES,
        WAY_RUBBISH,
        WAY_SECTOR,    /* rubbish in one sector of 512 bytes */
        WAY_SECTORS,   /* in two */
        WAY_TORN,      /* the second half is not there: zeroes */
        WAY_OLDER,     /* what was there before the last write: it never arrived */
        WAY_OLDEST,    /* and the first thing that ever was there */
        WAY_NEIGHBOUR, /* what belongs into the block behind: it was misdirected */
        WAY_TWIN,      /* what belongs into another block of the kind on the disk */
        WAYS,
};
extern const char *const way_name[WAYS];

struct damage {
        size_t spot; /* of the sample */
        enum way way;
        unsigned byte; /* of WAY_BIT and WAY_BYTE */
};

/* Apply it to @image, a clone of that of the spot's member. False: it changes nothing there. */
bool damage_do(const struct sample *sample, const struct damage *damage, uint64_t seed,
               struct sim_image *image);

#define DAMAGE_NAME_MAX 80
/* SHAPE:MEMBER:OFFSET:WAY[:BYTE] */
void damage_print(const struct sample *sample, const struct damage *damage,
                  char name[DAMAGE_NAME_MAX]);
/* False where @name, without its shape, names none. */
bool damage_parse(const struct sample *sample, const char *name, struct damage *ret);
