/* terminal.h - keys of a terminal that is a machine's console.
 *
 * Ctrl-] and another key is for tarn; Ctrl-] twice is one for the guest.
 *
 * Threads    one at a time.
 * Errors     terminal_raw(): none where it is no terminal.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TERMINAL_ESCAPE 0x1d
#define TERMINAL_HELP                                                                              \
        "\n  Ctrl-] q  end: stop the machine by force ('console': leave it)\n"                     \
        "  Ctrl-] p  press the power button\n"                                                     \
        "  Ctrl-] r  reset\n"                                                                      \
        "  Ctrl-] ]  send Ctrl-] to the guest\n"                                                   \
        "  Ctrl-] ?  this\n"

/* Standard input becomes the guest's keyboard, until terminal_restore(). True: it is a terminal. */
bool terminal_raw(void);
void terminal_restore(void);

enum terminal_action {
        TERMINAL_NONE,
        TERMINAL_QUIT,
        TERMINAL_POWER_BUTTON,
        TERMINAL_RESET,
        TERMINAL_SHOW_HELP,
};

/* Zeroed at first. */
struct terminal_keys {
        bool escaped;
};
/* What is for the guest stays in @data, *ret_n bytes of it; one action at most is returned, and what
 * was typed behind it is looked at in the next call: *ret_used bytes were taken. */
enum terminal_action terminal_keys_take(struct terminal_keys *keys, uint8_t *data, size_t n,
                                        size_t *ret_n, size_t *ret_used);
