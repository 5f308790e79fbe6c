/* json_memory.h - whether a JSON value lacks something for want of memory.
 *
 * jansson's functions that build values say so one by one, and what they build is made of dozens of calls:
 * whoever prints or sends the whole asks once instead.
 *
 * Threads    [any thread]; json_memory_watch() before the first value is made.
 * Errors     none.
 * Ownership  none.
 */
#pragma once

void json_memory_watch(void);
/* How many allocations of the process's JSON values have failed so far. */
unsigned json_memory_failures(void);
