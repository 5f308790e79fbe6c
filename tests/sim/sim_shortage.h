/* sim_shortage.h - memory that runs out for the engine, and clocks and random numbers that are
 * always the same.
 *
 * The engine's allocations are counted and fail by number, so that a seed always hits the same one.
 * The simulator's own, and the model's, are made by other functions (meson.build renames them) and
 * end the program when they fail.
 *
 * Threads    one.
 * Errors     none.
 */
#pragma once
#include <stdint.h>

/* Let @skip allocations of the engine pass, then @count fail. */
void shortage_arm(uint64_t skip, uint64_t count);
void shortage_off(void);
/* Failed so far, since the program began. */
uint64_t shortage_hits(void);
/* While the simulator calls what would fail for it and not for the engine: none fails, none is
 * counted. Nests. */
void shortage_pause(void);
void shortage_resume(void);

/* What getrandom() and the wall clock tell the engine from now on follows from @seed. */
void shortage_seed(uint64_t seed);
