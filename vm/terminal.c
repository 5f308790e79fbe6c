/* terminal.c - keys of a terminal that is a machine's console. */
#include "vm/terminal.h"

#include <termios.h>
#include <unistd.h>

static struct termios before;
static bool is_raw;

/* Output is still cooked, so that our own lines begin at the left. */
bool terminal_raw(void)
{
        struct termios raw;

        if (!isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &before) < 0)
                return false;
        raw = before;
        cfmakeraw(&raw);
        raw.c_oflag = before.c_oflag;
        if (tcsetattr(STDIN_FILENO, TCSANOW, &raw) < 0)
                return false;
        is_raw = true;
        return true;
}

void terminal_restore(void)
{
        if (is_raw)
                tcsetattr(STDIN_FILENO, TCSANOW, &before);
        is_raw = false;
}

static enum terminal_action action_of(uint8_t key)
{
        switch (key) {
        case 'q':
                return TERMINAL_QUIT;
        case 'p':
                return TERMINAL_POWER_BUTTON;
        case 'r':
                return TERMINAL_RESET;
        case '?':
                return TERMINAL_SHOW_HELP;
        default:
                return TERMINAL_NONE;
        }
}

enum terminal_action terminal_keys_take(struct terminal_keys *keys, uint8_t *data, size_t n,
                                        size_t *ret_n, size_t *ret_used)
{
        enum terminal_action action = TERMINAL_NONE;
        size_t kept = 0, i = 0;

        for (; i < n && action == TERMINAL_NONE; i++) {
                uint8_t key = data[i];

                if (keys->escaped) {
                        keys->escaped = false;
                        action = action_of(key);
                        if (key == ']' || key == TERMINAL_ESCAPE)
                                data[kept++] = TERMINAL_ESCAPE;
                } else if (key == TERMINAL_ESCAPE) {
                        keys->escaped = true;
                } else {
                        data[kept++] = key;
                }
        }
        *ret_n = kept;
        *ret_used = i;
        return action;
}
