/* The serial console: readers at their own speed; keys of a terminal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "vm/console.h"
#include "vm/terminal.h"

static int make_console(void **state)
{
        struct console *c = calloc(1, sizeof(*c));

        if (!c)
                return -1;
        console_init(c, -1, -1);
        *state = c;
        return 0;
}

static int free_console(void **state)
{
        free(*state);
        return 0;
}

/* The guest says @n bytes, which count on from those before; as many as there is room for. */
static size_t say(struct console *c, size_t n)
{
        size_t said = 0, room;
        uint8_t *place;

        while (said < n && (room = console_room(c, &place)) > 0) {
                if (room > n - said)
                        room = n - said;
                for (size_t i = 0; i < room; i++)
                        place[i] = (uint8_t)(c->end + i);
                console_add(c, room);
                said += room;
        }
        return said;
}

/* All that there is, checked to count on from @at. */
static size_t hear(struct console_reader *r, uint64_t at)
{
        const uint8_t *data;
        size_t n, heard = 0;

        while ((n = console_peek(r, &data)) > 0) {
                for (size_t i = 0; i < n; i++)
                        assert_int_equal(data[i], (uint8_t)(at + heard + i));
                console_take(r, n);
                heard += n;
        }
        return heard;
}

static void a_reader_begins_with_what_was_said_last(void **state)
{
        struct console *c = *state;
        struct console_reader r = {0};

        assert_int_equal(say(c, CONSOLE_KEPT + 1000), CONSOLE_KEPT + 1000);
        console_open(c, &r);
        assert_int_equal(hear(&r, 1000), CONSOLE_KEPT);
        assert_int_equal(say(c, 10), 10);
        assert_int_equal(hear(&r, CONSOLE_KEPT + 1000), 10);
        console_close(&r);
}

static void a_slow_reader_loses_the_oldest_and_holds_up_nobody(void **state)
{
        struct console *c = *state;
        struct console_reader slow = {0}, fast = {0};

        console_open(c, &slow);
        console_open(c, &fast);
        for (unsigned i = 0; i < 30; i++) {
                assert_int_equal(say(c, 10000), 10000);
                assert_int_equal(hear(&fast, 10000 * i), 10000);
        }
        assert_int_equal(hear(&slow, 300000 - CONSOLE_KEPT), CONSOLE_KEPT);
        console_close(&slow);
        console_close(&fast);
}

static void who_is_waited_for_loses_nothing(void **state)
{
        struct console *c = *state;
        struct console_reader r = {.waited_for = true};

        console_open(c, &r);
        assert_int_equal(say(c, 2 * CONSOLE_KEPT), CONSOLE_KEPT);
        assert_int_equal(say(c, 1), 0);
        assert_int_equal(hear(&r, 0), CONSOLE_KEPT);
        assert_int_equal(say(c, 5), 5);
        assert_int_equal(hear(&r, CONSOLE_KEPT), 5);
        console_close(&r);
        assert_int_equal(say(c, 2 * CONSOLE_KEPT), 2 * CONSOLE_KEPT);
}

/* What @typed is to the guest, and the first action. */
static void expect_keys(struct terminal_keys *keys, const char *typed, const char *guest,
                        enum terminal_action action, size_t used)
{
        uint8_t data[32];
        size_t n, taken;

        memcpy(data, typed, strlen(typed));
        assert_int_equal(terminal_keys_take(keys, data, strlen(typed), &n, &taken), action);
        assert_int_equal(n, strlen(guest));
        assert_memory_equal(data, guest, n);
        assert_int_equal(taken, used);
}

static void keys_behind_the_escape_are_not_the_guests(void **state)
{
        struct terminal_keys keys = {0};

        expect_keys(&keys, "abc\003", "abc\003", TERMINAL_NONE, 4);
        expect_keys(&keys, "a\035qb", "a", TERMINAL_QUIT, 3);
        expect_keys(&keys, "a\035", "a", TERMINAL_NONE, 2);
        expect_keys(&keys, "p", "", TERMINAL_POWER_BUTTON, 1);
        expect_keys(&keys, "\035r", "", TERMINAL_RESET, 2);
        expect_keys(&keys, "\035?", "", TERMINAL_SHOW_HELP, 2);
        expect_keys(&keys, "\035]x\035\035", "\035x\035", TERMINAL_NONE, 5);
        expect_keys(&keys, "\035zy", "y", TERMINAL_NONE, 3);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, make_console, free_console)
        const struct CMUnitTest tests[] = {
            T(a_reader_begins_with_what_was_said_last),
            T(a_slow_reader_loses_the_oldest_and_holds_up_nobody),
            T(who_is_waited_for_loses_nothing),
            cmocka_unit_test(keys_behind_the_escape_are_not_the_guests),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
