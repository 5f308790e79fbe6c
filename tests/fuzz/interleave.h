/* interleave.h - another processor, that changes memory while the code under test reads it; between
 * two comparisons of its own choice, so that what it finds can be repeated.
 *
 * clang has the code call the fuzzer at each comparison of integers; the linker leads these calls
 * through here (--wrap). So a change can come between any check and the use of what was checked.
 *
 * Units      time is counted in comparisons.
 * Threads    one. Comparisons of others are not counted.
 * Errors     none.
 * Ownership  none.
 */
#pragma once
#include <stdint.h>

#define INTERLEAVE_MAX 16u

/* Call change(arg, turn) when @after comparisons more were made while time runs, and then after each
 * @period of them again, @n_turns times in all, from inside of the code under test. Turns count from
 * 0. Where there are too many such calls already, never. */
void interleave_at(unsigned after, unsigned period, unsigned n_turns,
                   void (*change)(unsigned arg, unsigned turn), unsigned arg);
void interleave_forget(void); /* all that are to come */
/* Time goes on, or stands still. */
void interleave_run(void);
void interleave_stop(void);
