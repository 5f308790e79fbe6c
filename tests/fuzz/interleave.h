/* interleave.h - another processor, that changes memory while the code under test reads it; between
 * two comparisons of its own choice, so that what it finds can be repeated.
 *
 * clang has the code call the fuzzer at each comparison of integers; the linker leads these calls
 * through here (--wrap). So a change can come between any check and the use of what was checked.
 *
 * Units      time is counted in comparisons.
 * Threads    one.
 * Errors     none.
 * Ownership  none.
 */
#pragma once
#include <stdint.h>

#define INTERLEAVE_MAX 16u

/* Call back when this many comparisons more were made while it runs; from inside of the code under
 * test. Where there are too many such calls already, never. */
void interleave_at(unsigned n_comparisons, void (*change)(uint64_t arg), uint64_t arg);
void interleave_forget(void); /* all that are to come */
/* Time goes on, or stands still. */
void interleave_run(void);
void interleave_stop(void);
