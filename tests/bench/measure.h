/* measure.h - clocks: the time, and what processes have spent.
 *
 * Units      nanoseconds.
 * Threads    [any thread]
 * Errors     none: what cannot be read is 0.
 * Ownership  none.
 */
#pragma once
#include <stdint.h>
#include <sys/types.h>

uint64_t measure_clock_ns(void); /* CLOCK_MONOTONIC */
uint64_t measure_own_cpu_ns(void);
/* User and system time of a process with all its threads, io_uring's workers among them; 0 for pid
 * 0. */
uint64_t measure_cpu_ns(pid_t pid);
