/* spots.h - what lies on which block of a sample's disks, by the engine's own structures.
 *
 * Threads    one.
 * Ownership  release with spots_free().
 */
#pragma once
#include "tests/rot/sample.h"

struct pool;
struct spots;

struct spots *spots_new(void);
void spots_free(struct spots *spots);
/* A checkpoint has just been committed and nothing was done since. */
void spots_note_checkpoint(struct spots *spots, const struct pool *pool);
/* Fill in the spots of @sample, whose images and truth are there. */
void spots_find(struct spots *spots, struct sample *sample);
