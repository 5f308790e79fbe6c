/* log.h - messages for the operator's log. Libraries never print: they log, and the program that
 * embeds them chooses where that goes (log_set_sink).
 *
 * Units      a message is one line of at most 1023 bytes; longer ones are cut, and end in "...". A name
 *            that it quotes can be anybody's: a control character in it becomes a question mark.
 * Threads    [any thread]; the sink is called by whoever logs, several of them at once.
 * Errors     none: what cannot be written is lost.
 * Ownership  a message lives during the sink's call.
 */
#pragma once
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

typedef void log_sink(enum log_level level, const char *message);

/* NULL: drop everything. The default sink writes "tarn: MESSAGE" to stderr. Set before threads
 * start. */
void log_set_sink(log_sink *sink);
void log_set_level(enum log_level highest);

void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));
#define log_error(...)   log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_write(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...)    log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)   log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)

/* Of lines that others cause, who so decide how many there would be: LOG_LIMIT_LINES a second. A
 * zeroed one is valid; one thread's. */
#define LOG_LIMIT_LINES 20u
struct log_limit {
        uint64_t second;
        unsigned n_logged, n_left_out;
};
/* Asked before each such line; what was left out is told in the next second: "@who: 3 more messages
 * about @about were left out". */
bool log_limit_admits(struct log_limit *limit, uint64_t now_ns, const char *who, const char *about);
