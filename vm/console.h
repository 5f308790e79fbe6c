/* console.h - a machine's serial console: what the guest has said last, for any number of readers.
 *
 * Readers read at their own speed. One that is slower than the guest loses what is older than the
 * CONSOLE_KEPT bytes that are kept, but for one that must not (`waited_for`): the guest's serial port
 * waits for that.
 *
 * Units      bytes; positions count from the guest's first.
 * Threads    the loop's.
 * Errors     none: a console that has ended gives nothing more.
 * Ownership  a struct console is the machine's; readers are their owners'.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/coroutine.h"

#define CONSOLE_KEPT (UINT32_C(64) << 10)

struct console {
        int serial; /* our end, non-blocking */
        int log;    /* a file that gets all of it; -1: none */
        uint64_t end;
        bool ended;
        struct co_queue more; /* woken when there is, or a reader has read */
        struct list readers;
        uint8_t kept[CONSOLE_KEPT];
};

struct console_reader {
        struct list link;
        struct console *console;
        uint64_t at;
        bool waited_for;
};

void console_init(struct console *c, int serial, int log);
/* Nothing more comes: readers get what there is, and then the end. */
void console_end(struct console *c);

/* From the oldest byte that is kept. */
void console_open(struct console *c, struct console_reader *reader);
void console_close(struct console_reader *reader);
/* What comes next, in one piece, without taking it; 0: none is there. */
size_t console_peek(struct console_reader *reader, const uint8_t **ret_data);
void console_take(struct console_reader *reader, size_t n);

/* Room for what the guest says: 0 while a reader is waited for. */
size_t console_room(struct console *c, uint8_t **ret_place);
void console_add(struct console *c, size_t n);
