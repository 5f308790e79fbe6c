/* console.c - what the guest has said last. */
#include "vm/console.h"

#include <errno.h>
#include <unistd.h>

#include "common/log.h"

void console_init(struct console *c, int serial, int log)
{
        c->serial = serial;
        c->log = log;
        c->end = 0;
        c->ended = false;
        co_queue_init(&c->more);
        list_init(&c->readers);
}

void console_end(struct console *c)
{
        c->ended = true;
        co_wake_all(&c->more);
}

/* ---- reading ---- */

static uint64_t oldest(const struct console *c)
{
        return c->end > CONSOLE_KEPT ? c->end - CONSOLE_KEPT : 0;
}

void console_open(struct console *c, struct console_reader *reader)
{
        reader->console = c;
        reader->at = oldest(c);
        list_append(&c->readers, &reader->link);
}

void console_close(struct console_reader *reader)
{
        list_remove(&reader->link);
        co_wake_all(&reader->console->more);
}

size_t console_peek(struct console_reader *reader, const uint8_t **ret_data)
{
        struct console *c = reader->console;
        size_t place, n;

        if (reader->at < oldest(c))
                reader->at = oldest(c);
        place = reader->at % CONSOLE_KEPT;
        n = c->end - reader->at;
        *ret_data = c->kept + place;
        return n < CONSOLE_KEPT - place ? n : CONSOLE_KEPT - place;
}

void console_take(struct console_reader *reader, size_t n)
{
        reader->at += n;
        co_wake_all(&reader->console->more);
}

/* ---- writing ---- */

size_t console_room(struct console *c, uint8_t **ret_place)
{
        size_t place = c->end % CONSOLE_KEPT, room = CONSOLE_KEPT - place;

        *ret_place = c->kept + place;
        list_for_each (it, &c->readers) {
                const struct console_reader *reader = container_of(it, struct console_reader, link);
                size_t left = CONSOLE_KEPT - (c->end - reader->at);

                if (reader->waited_for && left < room)
                        room = left;
        }
        return room;
}

static void write_log(struct console *c, const uint8_t *data, size_t n)
{
        while (c->log >= 0 && n > 0) {
                ssize_t written = write(c->log, data, n);

                if (written < 0 && errno == EINTR)
                        continue;
                if (written <= 0) {
                        log_warning("the console's log is not written any more");
                        close(c->log);
                        c->log = -1;
                        return;
                }
                data += written;
                n -= (size_t)written;
        }
}

void console_add(struct console *c, size_t n)
{
        write_log(c, c->kept + c->end % CONSOLE_KEPT, n);
        c->end += n;
        co_wake_all(&c->more);
}
