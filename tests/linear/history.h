/* history.h - what clients asked of volumes and were answered, with the instants of both.
 *
 * A volume is cut into units, each a register of its own: a request of several is one operation on each. Values are
 * numbers, one for each write; 0 is zeroes, which is what all hold at the beginning.
 *
 * A life is the time between one kill of the server and the next. Requests to a virtual machine's disk are begun in one
 * life and may be answered in a later one, as they are submitted anew.
 *
 * Units      nanoseconds of one clock, as the names say.
 * Threads    a history belongs to one thread.
 * Errors     0 or -errno with a sentence.
 * Ownership  a struct history is the caller's; release what it holds with history_free().
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include "common/error.h"

#define HISTORY_NEVER   UINT64_MAX /* as an end: was not answered */
#define HISTORY_ALL     UINT32_MAX /* as a unit: a flush is of the whole volume */
#define HISTORY_RUBBISH UINT64_MAX /* as a value: what nobody has written */
#define HISTORY_LIVES   4096u

enum history_kind { HISTORY_READ, HISTORY_WRITE, HISTORY_FLUSH };

struct history_op {
        uint64_t begin_ns, end_ns;
        uint64_t value; /* written or read */
        uint32_t unit;
        uint16_t volume, client;
        uint16_t first_life, last_life;
        uint8_t kind;
        bool durable; /* a write that survives kill -9 once it is answered */
};

struct history {
        struct history_op *ops;
        size_t n, max;
};

/* The index of the new one in @ret_index. */
int history_add(struct history *h, const struct history_op *op, size_t *ret_index,
                struct error *err);
int history_append(struct history *h, const struct history *other, struct error *err);
void history_free(struct history *h);

/* One line an operation: KIND VOLUME UNIT CLIENT LIVES DURABILITY BEGIN END VALUE
 *     KIND        r, w or f
 *     UNIT        * for a flush
 *     LIVES       3, or 3-4 where it was begun in life 3 and answered, or not answered, in life 4
 *     DURABILITY  d or -
 *     END         - where it was not answered
 * Empty lines and those that begin with # are skipped. */
int history_write(const struct history *h, FILE *file, struct error *err);
int history_read(FILE *file, struct history *ret_history, struct error *err);
