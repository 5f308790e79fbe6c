/* log.c - one sink for the messages of the whole process. */
#include "common/log.h"
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LOG_LINE_MAX 1024

/* One write(2) a line, so that the lines of several threads do not mix. */
static void sink_stderr(enum log_level level, const char *message)
{
        char line[LOG_LINE_MAX + 16];
        int length = snprintf(line, sizeof(line), "tarn: %s\n", message);
        ssize_t ignored;

        if (length < 0)
                return;
        ignored = write(STDERR_FILENO, line, (size_t)length);
        (void)ignored; /* there is nowhere left to report it */
}

static log_sink *_Atomic current_sink = sink_stderr;
static _Atomic(enum log_level) highest_level = LOG_LEVEL_INFO;

void log_set_sink(log_sink *sink)
{
        atomic_store(&current_sink, sink);
}

void log_set_level(enum log_level highest)
{
        atomic_store(&highest_level, highest);
}

/* Nobody who names a file or an export writes a line of his own, or moves a terminal's cursor; U+0080 to
 * U+009F do that as well. */
static void make_one_line(char *message)
{
        for (unsigned char *p = (unsigned char *)message; *p; p++) {
                if (*p < 0x20 || *p == 0x7f)
                        *p = '?';
                else if (*p == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0)
                        p[0] = p[1] = '?';
        }
}

void log_write(enum log_level level, const char *format, ...)
{
        log_sink *sink = atomic_load_explicit(&current_sink, memory_order_relaxed);
        char message[LOG_LINE_MAX];
        va_list args;
        int length;

        if (!sink || level > atomic_load_explicit(&highest_level, memory_order_relaxed))
                return;
        va_start(args, format);
        length = vsnprintf(message, sizeof(message), format, args);
        va_end(args);
        if (length < 0)
                return;
        if ((size_t)length >= sizeof(message))
                memcpy(message + sizeof(message) - 4, "...", 4);
        make_one_line(message);
        sink(level, message);
}

bool log_limit_admits(struct log_limit *limit, uint64_t now_ns, const char *who, const char *about)
{
        uint64_t second = now_ns / UINT64_C(1000000000);

        if (second != limit->second) {
                if (limit->n_left_out > 0)
                        log_warning("%s: %u more messages about %s were left out", who,
                                    limit->n_left_out, about);
                *limit = (struct log_limit){.second = second};
        }
        if (limit->n_logged >= LOG_LIMIT_LINES) {
                limit->n_left_out++;
                return false;
        }
        limit->n_logged++;
        return true;
}
