/* test_vmm_serial.c - COM1, as drivers and firmware use it: probing, both directions, interrupts, a
 * reader that does not read, saved state. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/vmm/machine_fixture.h"

enum { DATA, IER, IIR, LCR, MCR, LSR, MSR, SCRATCH };

struct port {
        struct machine_fixture *f;
        int fd; /* the outside's end */
};

static int setup(void **state)
{
        static struct port port;
        int pair[2];

        signal(SIGPIPE, SIG_IGN);
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
                return -1;
        fcntl(pair[1], F_SETFL, O_NONBLOCK);
        port.f = fixture_new(LAYOUT_RAM_MIN, NULL);
        port.fd = pair[0];
        port.f->config.serial = pair[1];
        if (serial_create(&port.f->machine, NULL) < 0)
                return -1;
        *state = &port;
        return 0;
}

static int teardown(void **state)
{
        struct port *port = *state;

        fixture_free(port->f);
        if (port->fd >= 0)
                close(port->fd);
        return 0;
}

static void out(struct port *port, unsigned reg, uint8_t value)
{
        fixture_out(port->f, (uint16_t)(PORT_COM1 + reg), value, 1);
}

static uint8_t in(struct port *port, unsigned reg)
{
        return (uint8_t)fixture_in(port->f, (uint16_t)(PORT_COM1 + reg), 1);
}

static bool interrupted(const struct port *port)
{
        return port->f->machine.irqs.high[GSI_COM1] != 0;
}

/* All that has come out. */
static size_t heard(const struct port *port, char *text, size_t room)
{
        ssize_t n = recv(port->fd, text, room, MSG_DONTWAIT);

        return n > 0 ? (size_t)n : 0;
}

/* The steps of Linux's autoconfig() and of SeaBIOS's detect_serial(). */
static void test_drivers_see_a_16550a(void **state)
{
        struct port *port = *state;

        out(port, IER, 0);
        assert_int_equal(in(port, IER), 0);
        out(port, IER, 0xff);
        assert_int_equal(in(port, IER), 0x0f);
        out(port, IER, 0);
        out(port, MCR, 0x1a); /* loop back, OUT2, RTS */
        assert_int_equal(in(port, MSR) & 0xf0, 0x90);
        out(port, MCR, 0);
        assert_int_equal(in(port, MSR) & 0xf0, 0xb0);
        out(port, IIR, 0x01);
        assert_int_equal(in(port, IIR) >> 6, 3);
        out(port, IIR, 0x21); /* no FIFO of 64 bytes */
        assert_int_equal(in(port, IIR) >> 5, 6);
        out(port, IIR, 0);
        assert_int_equal(in(port, IIR), 0x01);
        out(port, SCRATCH, 0xa5);
        assert_int_equal(in(port, SCRATCH), 0xa5);
        out(port, LCR, 0x83);
        out(port, DATA, 0x01);
        out(port, IER, 0x02);
        assert_int_equal(in(port, DATA), 0x01);
        assert_int_equal(in(port, IER), 0x02);
        out(port, LCR, 0x03);
        assert_int_equal(in(port, IER), 0);
        assert_int_equal(in(port, LSR), 0x60);
        out(port, IER, 0x02); /* SeaBIOS */
        assert_int_equal(in(port, IIR) & 0x3f, 0x02);
        assert_int_equal(in(port, IIR) & 0x3f, 0x01);
}

static void test_what_the_guest_says_comes_out(void **state)
{
        struct port *port = *state;
        char text[64] = "";

        for (const char *c = "hello\r\n"; *c; c++)
                out(port, DATA, (uint8_t)*c);
        fixture_run(port->f);
        assert_int_equal(heard(port, text, sizeof(text)), 7);
        assert_string_equal(text, "hello\r\n");
}

static void test_last_words_come_out_as_well(void **state)
{
        struct port *port = *state;
        char text[8] = "";

        out(port, DATA, '!');
        fixture_free(port->f);
        assert_int_equal(heard(port, text, sizeof(text)), 1);
        port->f = fixture_new(LAYOUT_RAM_MIN, NULL);
}

static void test_what_is_typed_comes_in(void **state)
{
        static const char typed[] = "0123456789abcdefghijklmnopqrstuvwxyz";
        struct port *port = *state;
        char got[sizeof(typed)] = "";
        size_t n = 0;

        out(port, IIR, 0x01);
        out(port, MCR, 0x0b);
        out(port, IER, 0x01);
        assert_int_equal(write(port->fd, typed, sizeof(typed) - 1), sizeof(typed) - 1);
        for (unsigned turns = 0; turns < 10; turns++) {
                fixture_run(port->f);
                assert_true(interrupted(port) == (n < sizeof(typed) - 1));
                for (unsigned i = 0; i < 20 && in(port, LSR) & 0x01; i++) {
                        assert_true(n < sizeof(typed) - 1);
                        got[n++] = (char)in(port, DATA);
                }
                assert_false(interrupted(port));
        }
        assert_string_equal(got, typed);
}

/* Not more is taken from outside than the guest can hold: the rest waits there. */
static void test_a_guest_that_does_not_read_loses_nothing(void **state)
{
        struct port *port = *state;

        fixture_run(port->f);
        assert_int_equal(write(port->fd, "abc", 3), 3);
        for (unsigned i = 0; i < 3; i++)
                fixture_run(port->f);
        assert_int_equal(in(port, DATA), 'a'); /* without a FIFO: one byte */
        assert_int_equal(in(port, LSR) & 0x03, 0);
        fixture_run(port->f);
        assert_int_equal(in(port, DATA), 'b');
        fixture_run(port->f);
        assert_int_equal(in(port, DATA), 'c');
}

static void test_interrupts_have_an_order(void **state)
{
        struct port *port = *state;

        out(port, IIR, 0x81); /* trigger level 8 */
        out(port, IER, 0x0f);
        out(port, MCR, 0x08);
        assert_true(interrupted(port)); /* the transmitter is empty */
        assert_int_equal(in(port, IIR) & 0x0f, 0x02);
        assert_false(interrupted(port));
        out(port, MCR, 0x18);            /* loop back: the modem's lines change */
        assert_false(interrupted(port)); /* OUT2 does not reach the PC's bus now */
        assert_int_equal(in(port, IIR) & 0x0f, 0x00);
        for (unsigned i = 0; i < 7; i++)
                out(port, DATA, 'x');
        assert_int_equal(in(port, IIR) & 0x0f, 0x0c); /* below the level: timed out */
        out(port, DATA, 'x');
        assert_int_equal(in(port, IIR) & 0x0f, 0x04);
        for (unsigned i = 8; i < 16; i++)
                out(port, DATA, 'x');
        out(port, DATA, 'y'); /* one too many */
        assert_int_equal(in(port, IIR) & 0x0f, 0x06);
        assert_int_equal(in(port, LSR) & 0x03, 0x03);
        assert_int_equal(in(port, LSR) & 0x03, 0x01);
        out(port, IIR, 0x83); /* empty it */
        assert_int_equal(in(port, IIR) & 0x0f, 0x02);
        assert_int_equal(in(port, MSR) & 0x0f, 0x03);
        assert_int_equal(in(port, IIR) & 0x0f, 0x01);
        out(port, MCR, 0x08);
        assert_true(interrupted(port));
        out(port, MCR, 0x00);
        assert_false(interrupted(port));
}

/* 64 KiB wait, and of more than that the oldest are gone. */
static void test_a_reader_that_does_not_read_stops_nobody(void **state)
{
        struct port *port = *state;
        const unsigned waiting = 64u << 10;
        static uint8_t all[1 << 20];
        uint32_t sent = 0;
        size_t n = 0;

        /* As much as the socket takes, and twice the buffer. */
        for (unsigned i = 0; i < 400; i++) {
                for (unsigned j = 0; j < 1024; j++, sent++)
                        out(port, DATA, (uint8_t)(sent % 251));
                if (i % 16 == 0)
                        fixture_run(port->f);
        }
        for (unsigned quiet = 0; quiet < 3;) {
                ssize_t got = recv(port->fd, all + n, sizeof(all) - n, MSG_DONTWAIT);

                fixture_run(port->f);
                quiet = got > 0 ? 0 : quiet + 1;
                n += got > 0 ? (size_t)got : 0;
        }
        assert_in_range(n, waiting, sent - 1); /* some are lost */
        for (unsigned i = 0; i < waiting; i++)
                assert_int_equal(all[n - waiting + i], (sent - waiting + i) % 251);
        out(port, DATA, 'z');
        fixture_run(port->f);
        assert_int_equal(recv(port->fd, all, sizeof(all), MSG_DONTWAIT), 1);
}

static uint64_t clock_ns(clockid_t clock)
{
        struct timespec time;

        clock_gettime(clock, &time);
        return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* A descriptor that has hung up costs nothing from then on: the loop rests. */
static void test_who_hangs_up_is_forgotten(void **state)
{
        struct port *port = *state;
        uint64_t begin, used;

        fixture_run(port->f);
        close(port->fd);
        port->fd = -1;
        fixture_run(port->f);
        begin = clock_ns(CLOCK_MONOTONIC);
        used = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
        for (unsigned i = 0; i < 20; i++)
                fixture_run(port->f);
        used = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - used;
        assert_in_range(used, 0, (clock_ns(CLOCK_MONOTONIC) - begin) / 3);
        for (unsigned i = 0; i < 100000; i++)
                out(port, DATA, 'x');
        fixture_run(port->f);
        assert_int_equal(in(port, LSR), 0x60);
}

static void test_nobody_may_listen(void **state)
{
        struct machine_fixture *f = fixture_new(LAYOUT_RAM_MIN, NULL);

        assert_int_equal(serial_create(&f->machine, NULL), 0);
        for (unsigned i = 0; i < 100; i++)
                fixture_out(f, PORT_COM1, 'x', 1);
        assert_int_equal(fixture_in(f, PORT_COM1, 1), 0);
        fixture_reset(f);
        fixture_pause(f);
        fixture_resume(f);
        fixture_run(f);
        fixture_free(f);
}

static void test_a_paused_port_takes_nothing(void **state)
{
        struct port *port = *state;

        fixture_run(port->f);
        fixture_pause(port->f);
        assert_int_equal(write(port->fd, "a", 1), 1);
        fixture_run(port->f);
        assert_int_equal(in(port, LSR) & 0x01, 0);
        fixture_resume(port->f);
        fixture_run(port->f);
        assert_int_equal(in(port, DATA), 'a');
}

static void test_state_goes_on_in_another_machine(void **state)
{
        struct port *port = *state, other;
        struct state_writer w = {0};
        void *next = NULL;

        out(port, LCR, 0x83);
        out(port, DATA, 0x17);
        out(port, LCR, 0x03);
        out(port, IIR, 0x41);
        out(port, IER, 0x05);
        out(port, SCRATCH, 0x77);
        out(port, MCR, 0x1f);
        for (unsigned i = 0; i < 17; i++)
                out(port, DATA, (uint8_t)('a' + i));
        assert_int_equal(in(port, DATA), 'a');
        fixture_save(port->f, &w);
        teardown(state);
        assert_int_equal(setup(&next), 0);
        other = *(struct port *)next;
        assert_int_equal(fixture_restore(other.f, w.data, w.size, NULL), 0);
        assert_int_equal(in(&other, SCRATCH), 0x77);
        assert_int_equal(in(&other, MCR), 0x1f);
        assert_int_equal(in(&other, IIR), 0xc6);
        assert_int_equal(in(&other, LSR), 0x63);
        for (unsigned i = 1; i < 16; i++)
                assert_int_equal(in(&other, DATA), 'a' + i);
        assert_int_equal(in(&other, LSR), 0x60);
        out(&other, MCR, 0x08);
        out(&other, DATA, '!');
        out(&other, LCR, 0x80);
        assert_int_equal(in(&other, DATA), 0x17);
        state_writer_free(&w);
}

static void test_state_that_cannot_be_is_refused(void **state)
{
        struct port *port = *state;
        struct state_writer w = {0};

        state_begin(&w, "serial", 1);
        for (unsigned i = 0; i < 10; i++)
                state_put8(&w, 0xff);
        state_put8(&w, 17); /* bytes in the FIFO */
        for (unsigned i = 0; i < 16; i++)
                state_put8(&w, 0);
        state_end(&w);
        assert_int_equal(fixture_restore(port->f, w.data, w.size, NULL), -EINVAL);
        assert_int_equal(in(port, LSR) & 0x01, 0);
        state_writer_free(&w);
}

static void test_wide_accesses_are_bytes(void **state)
{
        struct port *port = *state;
        char text[8] = "";

        fixture_out(port->f, PORT_COM1 + LCR, 0x0a03, 2); /* and MCR */
        assert_int_equal(fixture_in(port->f, PORT_COM1 + LCR, 4), 0xb0600a03);
        fixture_out(port->f, PORT_COM1, 0x0141, 2); /* a byte, and IER */
        assert_int_equal(in(port, IER), 0x01);
        fixture_run(port->f);
        assert_int_equal(heard(port, text, sizeof(text)), 1);
        assert_string_equal(text, "A");
}

#define port_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            port_test(test_drivers_see_a_16550a),
            port_test(test_what_the_guest_says_comes_out),
            port_test(test_last_words_come_out_as_well),
            port_test(test_what_is_typed_comes_in),
            port_test(test_a_guest_that_does_not_read_loses_nothing),
            port_test(test_interrupts_have_an_order),
            port_test(test_a_reader_that_does_not_read_stops_nobody),
            port_test(test_who_hangs_up_is_forgotten),
            cmocka_unit_test(test_nobody_may_listen),
            port_test(test_a_paused_port_takes_nothing),
            port_test(test_state_goes_on_in_another_machine),
            port_test(test_state_that_cannot_be_is_refused),
            port_test(test_wide_accesses_are_bytes),
        };

        alarm(120);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
