/* limits.c - how long a machine's supervisor waits: apart, so that a test's can be shorter. */
#include "vm/machine.h"

const struct machine_limits machine_limits = {.stop_ns = 60 * MACHINE_SECOND_NS,
                                              .answer_ns = 30 * MACHINE_SECOND_NS,
                                              .memory_ns = 1800 * MACHINE_SECOND_NS};
