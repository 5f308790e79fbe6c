/* Messages between supervisor and VMM: orders arrive whole, with their descriptor; of what a VMM says
 * only that is taken which makes sense. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>
#include "vm/channel.h"

static int open_channel(void **state)
{
        static int fds[2];

        *state = fds;
        return channel_open(fds, NULL);
}

static int close_channel(void **state)
{
        int *fds = *state;

        close(fds[0]);
        if (fds[1] >= 0)
                close(fds[1]);
        return 0;
}

static struct channel_message event(enum channel_kind kind)
{
        return (struct channel_message){.kind = kind, .id = "disk0", .text = "words"};
}

static void an_order_arrives_with_its_descriptor(void **state)
{
        const int *fds = *state;
        struct channel_message order = {.kind = CHANNEL_DISK_CONNECT, .number = 7, .id = "disk1"};
        struct channel_message got;
        int pipe_fds[2], fd;
        char c = 'x';

        assert_int_equal(pipe(pipe_fds), 0);
        assert_int_equal(channel_receive_order(fds[1], &got, &fd), -EAGAIN);
        assert_int_equal(channel_send(fds[0], &order, pipe_fds[1], false), 0);
        assert_int_equal(channel_receive_order(fds[1], &got, &fd), 1);
        assert_memory_equal(&got, &order, sizeof(got));
        assert_true(fd >= 0);
        assert_int_equal(write(fd, &c, 1), 1);
        assert_int_equal(read(pipe_fds[0], &c, 1), 1);
        close(fd);
        assert_int_equal(channel_send(fds[0], &order, -1, false), 0);
        assert_int_equal(channel_receive_order(fds[1], &got, &fd), 1);
        assert_int_equal(fd, -1);
        close(pipe_fds[0]);
        close(pipe_fds[1]);
}

static void a_channel_that_nobody_reads_is_not_waited_for(void **state)
{
        const int *fds = *state;
        struct channel_message order = {.kind = CHANNEL_RESET};
        int r = 0;

        for (unsigned i = 0; r == 0 && i < 100000; i++)
                r = channel_send(fds[0], &order, -1, false);
        assert_int_equal(r, -EAGAIN);
}

static void an_event_arrives_and_then_the_end(void **state)
{
        int *fds = *state;
        struct channel_message sent = event(CHANNEL_DISK_LOST), got;

        assert_int_equal(channel_send(fds[1], &sent, -1, true), 0);
        assert_int_equal(channel_receive_event(fds[0], &got), 1);
        assert_memory_equal(&got, &sent, sizeof(got));
        assert_int_equal(channel_receive_event(fds[0], &got), -EAGAIN);
        close(fds[1]);
        fds[1] = -1;
        assert_int_equal(channel_receive_event(fds[0], &got), 0);
}

static void descriptors_that_come_with_an_event_are_dropped(void **state)
{
        const int *fds = *state;
        struct channel_message sent = event(CHANNEL_READY), got;
        int lowest = dup(0), next;

        close(lowest);
        assert_int_equal(channel_send(fds[1], &sent, fds[1], true), 0);
        assert_int_equal(channel_receive_event(fds[0], &got), 1);
        next = dup(0);
        close(next);
        assert_int_equal(next, lowest);
}

static void what_makes_no_sense_is_refused(void **state)
{
        const int *fds = *state;
        struct channel_message m = event(CHANNEL_READY), got;
        uint8_t longer[sizeof(m) + 1] = {0};

        assert_int_equal(send(fds[1], "nonsense", 8, 0), 8);
        assert_int_equal(channel_receive_event(fds[0], &got), -EBADMSG);
        memcpy(longer, &m, sizeof(m));
        assert_int_equal(send(fds[1], longer, sizeof(longer), 0), sizeof(longer));
        assert_int_equal(channel_receive_event(fds[0], &got), -EBADMSG);
        m = event(CHANNEL_START); /* an order */
        assert_int_equal(channel_check_event(&m, sizeof(m), &got), -EBADMSG);
        m = event(CHANNEL_MEMORY_COPIED + 1);
        assert_int_equal(channel_check_event(&m, sizeof(m), &got), -EBADMSG);
        m = event(CHANNEL_DISK_LOST);
        memset(m.id, 'a', sizeof(m.id));
        assert_int_equal(channel_check_event(&m, sizeof(m), &got), -EBADMSG);
        memcpy(m.id, "../x", 5);
        assert_int_equal(channel_check_event(&m, sizeof(m), &got), -EBADMSG);
        m = event(CHANNEL_ANSWER);
        m.result = 1;
        assert_int_equal(channel_check_event(&m, sizeof(m), &got), -EBADMSG);
        m.result = INT32_MIN;
        assert_int_equal(channel_check_event(&m, sizeof(m), &got), -EBADMSG);
        m.result = -EIO;
        assert_int_equal(channel_check_event(&m, sizeof(m), &got), 1);
}

static void texts_are_ended_and_obeyed_by_no_terminal(void **state)
{
        struct channel_message m = event(CHANNEL_ENDED), got;
        struct error e = ERROR_INIT;

        memset(m.text, 'x', sizeof(m.text));
        memcpy(m.text, "a\033[2Jb\n\xff", 8);
        memcpy(m.hint, "\a", 2);
        m.result = -EIO;
        assert_int_equal(channel_check_event(&m, sizeof(m), &got), 1);
        assert_memory_equal(got.text, "a?[2Jb??x", 9);
        assert_int_equal(strlen(got.text), sizeof(got.text) - 1);
        assert_int_equal(channel_error(&got, &e), -EIO);
        assert_string_equal(e.hint, "?");
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, open_channel, close_channel)
        const struct CMUnitTest tests[] = {
            T(an_order_arrives_with_its_descriptor),
            T(a_channel_that_nobody_reads_is_not_waited_for),
            T(an_event_arrives_and_then_the_end),
            T(descriptors_that_come_with_an_event_are_dropped),
            T(what_makes_no_sense_is_refused),
            T(texts_are_ended_and_obeyed_by_no_terminal),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
