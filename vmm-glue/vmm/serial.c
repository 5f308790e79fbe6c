/* serial.c - a 16550A at COM1, between the guest and a descriptor.
 *
 * It is infinitely fast: a byte that is written is gone, and the transmitter always empty. Bytes are
 * gathered, so that not each costs a system call of the vCPU, and written after SERIAL_GATHER_NS. What
 * the descriptor does not take waits in the same buffer, of SERIAL_OUT_MAX bytes, of which the oldest go
 * when it is full: a guest never waits for a reader. Bytes for the guest are read only while its FIFO has
 * room. A descriptor that has ended, or hung up, is not read any more.
 *
 * The process ignores SIGPIPE.
 *
 * Source     National Semiconductor, PC16550D data sheet: registers, FIFO interrupt mode operation.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm-glue/vmm/byte_ports.h"
#include "vmm-glue/vmm/later.h"
#include "vmm-glue/vmm/machine.h"

#define SERIAL_PORTS     8u
#define SERIAL_FIFO      16u
#define SERIAL_OUT_MAX   (64u << 10)
#define SERIAL_GATHER_NS UINT64_C(1000000)

/* Registers, and bits of them. */
enum { REG_DATA, REG_IER, REG_IIR_FCR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCRATCH };
#define IER_RECEIVED     0x01u
#define IER_TRANSMITTER  0x02u
#define IER_LINE         0x04u
#define IER_MODEM        0x08u
#define IER_MASK         0x0fu
#define IIR_MODEM        0x00u
#define IIR_NONE         0x01u
#define IIR_TRANSMITTER  0x02u
#define IIR_RECEIVED     0x04u
#define IIR_LINE         0x06u
#define IIR_TIMEOUT      0x0cu
#define IIR_FIFO         0xc0u
#define FCR_ENABLE       0x01u
#define FCR_CLEAR_RX     0x02u
#define FCR_TRIGGER_BIT  6
#define FCR_KEPT         0xc9u /* the others act, and are forgotten */
#define LCR_DLAB         0x80u
#define MCR_DTR          0x01u
#define MCR_RTS          0x02u
#define MCR_OUT1         0x04u
#define MCR_OUT2         0x08u /* on a PC: interrupts are let through */
#define MCR_LOOP         0x10u
#define MCR_MASK         0x1fu
#define LSR_READY        0x01u
#define LSR_OVERRUN      0x02u
#define LSR_EMPTY        0x60u /* both the holding register and the transmitter */
#define MSR_CTS          0x10u
#define MSR_DSR          0x20u
#define MSR_RI           0x40u
#define MSR_DCD          0x80u
#define MSR_DELTA_RI     0x04u
#define MSR_DELTA        0x0fu
#define MSR_CONNECTED    (MSR_CTS | MSR_DSR | MSR_DCD)
#define DIVISOR_AT_RESET 12u /* 9600 bits a second */

/* An event of the descriptor that is waited for, with a descriptor of its own: both outlive the device
 * where the loop cannot let go of them yet. */
struct serial_poll {
        struct loop_io io;
        struct serial *serial; /* NULL: gone */
        bool armed;
        void (*ready)(struct serial *serial, int events);
};

struct serial {
        struct device device;
        struct bus_range range;
        struct irq_line irq;
        int fd;
        struct later *turn; /* of the loop's thread: to begin what is wanted now */
        struct serial_poll *in, *out;
        struct loop_timer gather;
        bool in_ended, paused;
        bool sending;   /* the loop's thread knows that bytes wait, or soon does, */
        bool gathering; /* and waits a little for more */

        uint8_t ier, fcr, lcr, mcr, scratch, overrun, modem_delta;
        uint8_t divisor[2];
        bool transmitter_emptied; /* its interrupt was not told yet */
        uint8_t fifo[SERIAL_FIFO];
        unsigned fifo_first, fifo_n;

        uint8_t waiting[SERIAL_OUT_MAX];
        unsigned waiting_first, waiting_n;
};

/* ---- what the guest is interrupted for ---- */

static unsigned fifo_depth(const struct serial *serial)
{
        return serial->fcr & FCR_ENABLE ? SERIAL_FIFO : 1;
}

/* Of bytes that come from outside. */
static unsigned fifo_room(const struct serial *serial)
{
        if (serial->paused || serial->mcr & MCR_LOOP || serial->fifo_n >= fifo_depth(serial))
                return 0;
        return fifo_depth(serial) - serial->fifo_n;
}

static uint8_t modem_lines(const struct serial *serial)
{
        if (!(serial->mcr & MCR_LOOP))
                return MSR_CONNECTED;
        return (uint8_t)((serial->mcr & MCR_RTS ? MSR_CTS : 0) |
                         (serial->mcr & MCR_DTR ? MSR_DSR : 0) |
                         (serial->mcr & MCR_OUT1 ? MSR_RI : 0) |
                         (serial->mcr & MCR_OUT2 ? MSR_DCD : 0));
}

/* The most urgent reason, in the data sheet's order. The time after which bytes below the trigger level
 * are told of has always passed: the line is infinitely fast. */
static uint8_t interrupt_reason(const struct serial *serial)
{
        static const uint8_t triggers[4] = {1, 4, 8, 14};

        if (serial->ier & IER_LINE && serial->overrun)
                return IIR_LINE;
        if (serial->ier & IER_RECEIVED && serial->fifo_n > 0) {
                if (!(serial->fcr & FCR_ENABLE) ||
                    serial->fifo_n >= triggers[serial->fcr >> FCR_TRIGGER_BIT])
                        return IIR_RECEIVED;
                return IIR_TIMEOUT;
        }
        if (serial->ier & IER_TRANSMITTER && serial->transmitter_emptied)
                return IIR_TRANSMITTER;
        if (serial->ier & IER_MODEM && serial->modem_delta)
                return IIR_MODEM;
        return IIR_NONE;
}

static void update_interrupt(struct serial *serial)
{
        bool connected = (serial->mcr & (MCR_OUT2 | MCR_LOOP)) == MCR_OUT2;

        irq_line_set(&serial->irq, connected && interrupt_reason(serial) != IIR_NONE);
}

/* ---- the descriptor ---- */

/* As much as goes now. Where nobody will read it any more, all has gone. */
static void write_waiting(struct serial *serial)
{
        while (serial->waiting_n > 0) {
                unsigned n = SERIAL_OUT_MAX - serial->waiting_first;
                ssize_t done;

                if (n > serial->waiting_n)
                        n = serial->waiting_n;
                done = write(serial->fd, serial->waiting + serial->waiting_first, n);
                if (done < 0 && errno == EINTR)
                        continue;
                if (done < 0 && errno == EAGAIN)
                        return;
                if (done <= 0) {
                        serial->waiting_n = 0;
                        return;
                }
                serial->waiting_first = (serial->waiting_first + (unsigned)done) % SERIAL_OUT_MAX;
                serial->waiting_n -= (unsigned)done;
        }
}

static void poll_again(struct serial_poll *poll)
{
        if (poll->armed)
                return;
        poll->armed = true;
        loop_submit(poll->serial->device.machine->loop, &poll->io);
}

/* What was sent may have ended; where it has not, by the next poll. */
static void send_waiting(struct serial *serial)
{
        write_waiting(serial);
        serial->sending = serial->waiting_n > 0;
        if (serial->sending)
                poll_again(serial->out);
}

static void gathered(struct loop_timer *timer)
{
        struct serial *serial = container_of(timer, struct serial, gather);
        struct machine *machine = serial->device.machine;

        machine_lock(machine);
        serial->gathering = false;
        send_waiting(serial);
        machine_unlock(machine);
}

/* On the loop's thread. */
static void take_turn(void *owner)
{
        struct serial *serial = owner;
        struct loop *loop = serial->device.machine->loop;

        if (serial->sending && !serial->gathering && !serial->out->armed) {
                serial->gathering = true;
                loop_timer_set(loop, &serial->gather, loop_now_ns(loop) + SERIAL_GATHER_NS);
        }
        if (!serial->in_ended && fifo_room(serial) > 0)
                poll_again(serial->in);
}

static void can_write(struct serial *serial, int events)
{
        unsigned before = serial->waiting_n;

        write_waiting(serial);
        /* Who has hung up and yet takes nothing would wake us for ever. */
        if (serial->waiting_n == before && events & (POLLHUP | POLLERR | POLLNVAL))
                serial->waiting_n = 0;
        send_waiting(serial);
}

static void can_read(struct serial *serial, int events)
{
        uint8_t bytes[SERIAL_FIFO];
        unsigned room = fifo_room(serial);
        ssize_t n;

        if (room == 0) /* what was, when the wait began, is not any more */
                return;
        n = read(serial->fd, bytes, room);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
                serial->in_ended = true;
                return;
        }
        for (ssize_t i = 0; i < n; i++)
                serial->fifo[(serial->fifo_first + serial->fifo_n++) % SERIAL_FIFO] = bytes[i];
        if (n > 0)
                update_interrupt(serial);
        take_turn(serial);
}

static void poll_free(struct serial_poll *poll)
{
        if (poll && poll->armed) {
                loop_cancel(poll->serial->device.machine->loop, &poll->io);
                poll->serial = NULL;
        } else if (poll) {
                if (poll->io.fd >= 0)
                        close(poll->io.fd);
                free(poll);
        }
}

static void poll_done(struct loop_io *io, int result)
{
        struct serial_poll *poll = container_of(io, struct serial_poll, io);
        struct serial *serial = poll->serial;
        struct machine *machine;

        if (!serial) {
                poll->armed = false;
                poll_free(poll);
                return;
        }
        machine = serial->device.machine;
        machine_lock(machine);
        poll->armed = false;
        poll->ready(serial, result < 0 ? POLLERR : result);
        machine_unlock(machine);
}

static int poll_new(struct serial *serial, uint32_t events,
                    void (*ready)(struct serial *serial, int events), struct serial_poll **ret_poll,
                    struct error *err)
{
        int fd = serial->fd < 0 ? -1 : fcntl(serial->fd, F_DUPFD_CLOEXEC, 0);
        struct serial_poll *poll;

        if (serial->fd >= 0 && fd < 0)
                return error_set(err, -errno, "cannot watch the serial port: %s", strerror(errno));
        poll = malloc(sizeof(*poll));
        if (!poll) {
                if (fd >= 0)
                        close(fd);
                return error_set(err, -ENOMEM, "no memory for a device");
        }
        *poll = (struct serial_poll){
            .io = {.op = LOOP_POLL, .fd = fd, .flags = events, .done = poll_done},
            .serial = serial,
            .ready = ready,
        };
        *ret_poll = poll;
        return 0;
}

/* ---- what the guest does ---- */

static void receive_own(struct serial *serial, uint8_t value)
{
        if (serial->fifo_n >= fifo_depth(serial)) {
                serial->overrun = LSR_OVERRUN;
                return;
        }
        serial->fifo[(serial->fifo_first + serial->fifo_n++) % SERIAL_FIFO] = value;
}

static void transmit(struct serial *serial, uint8_t value)
{
        serial->transmitter_emptied = true;
        if (serial->mcr & MCR_LOOP) {
                receive_own(serial, value);
                return;
        }
        if (serial->fd < 0)
                return;
        if (serial->waiting_n == SERIAL_OUT_MAX) {
                serial->waiting_first = (serial->waiting_first + 1) % SERIAL_OUT_MAX;
                serial->waiting_n--;
        }
        serial->waiting[(serial->waiting_first + serial->waiting_n++) % SERIAL_OUT_MAX] = value;
        if (!serial->sending) {
                serial->sending = true;
                later_ask(serial->turn);
        }
}

static uint8_t receive(struct serial *serial)
{
        uint8_t value;

        if (serial->fifo_n == 0)
                return 0;
        value = serial->fifo[serial->fifo_first];
        serial->fifo_first = (serial->fifo_first + 1) % SERIAL_FIFO;
        serial->fifo_n--;
        /* Not for each byte: the loop's thread is woken for that. */
        if (serial->fifo_n <= fifo_depth(serial) / 2 && serial->fd >= 0 && !serial->in_ended &&
            !serial->in->armed)
                later_ask(serial->turn);
        return value;
}

static void set_fifo_control(struct serial *serial, uint8_t value)
{
        if ((value ^ serial->fcr) & FCR_ENABLE || value & FCR_CLEAR_RX)
                serial->fifo_n = 0;
        serial->fcr = value & FCR_ENABLE ? value & FCR_KEPT : 0;
        if (serial->fd >= 0)
                later_ask(serial->turn);
}

static void set_modem_control(struct serial *serial, uint8_t value)
{
        uint8_t before = modem_lines(serial), changed;

        serial->mcr = value & MCR_MASK;
        changed = before ^ modem_lines(serial);
        /* The ring indicator's bit is set by its end only. */
        if (changed & MSR_RI && !(before & MSR_RI))
                changed &= (uint8_t)~MSR_RI;
        serial->modem_delta |= changed >> 4;
        if (serial->fd >= 0)
                later_ask(serial->turn);
}

static uint8_t read_reason(struct serial *serial)
{
        uint8_t reason = interrupt_reason(serial);

        if (reason == IIR_TRANSMITTER)
                serial->transmitter_emptied = false;
        return reason | (serial->fcr & FCR_ENABLE ? IIR_FIFO : 0);
}

static uint8_t take(uint8_t *bits)
{
        uint8_t value = *bits;

        *bits = 0;
        return value;
}

static uint8_t read_register(void *owner, unsigned port)
{
        struct serial *serial = owner;

        if (port <= REG_IER && serial->lcr & LCR_DLAB)
                return serial->divisor[port];
        switch (port) {
        case REG_DATA:
                return receive(serial);
        case REG_IER:
                return serial->ier;
        case REG_IIR_FCR:
                return read_reason(serial);
        case REG_LCR:
                return serial->lcr;
        case REG_MCR:
                return serial->mcr;
        case REG_LSR:
                return (uint8_t)(LSR_EMPTY | (serial->fifo_n > 0 ? LSR_READY : 0) |
                                 take(&serial->overrun));
        case REG_MSR:
                return modem_lines(serial) | take(&serial->modem_delta);
        default:
                return serial->scratch;
        }
}

static void write_register(void *owner, unsigned port, uint8_t value)
{
        struct serial *serial = owner;

        if (port <= REG_IER && serial->lcr & LCR_DLAB) {
                serial->divisor[port] = value;
                return;
        }
        switch (port) {
        case REG_DATA:
                transmit(serial, value);
                break;
        case REG_IER:
                /* Whoever begins to want that interrupt gets it: the transmitter is empty. */
                if (value & ~serial->ier & IER_TRANSMITTER)
                        serial->transmitter_emptied = true;
                serial->ier = value & IER_MASK;
                break;
        case REG_IIR_FCR:
                set_fifo_control(serial, value);
                break;
        case REG_LCR:
                serial->lcr = value;
                break;
        case REG_MCR:
                set_modem_control(serial, value);
                break;
        case REG_SCRATCH:
                serial->scratch = value;
                break;
        default: /* the status registers are read only */
                break;
        }
}

static uint64_t serial_read(void *owner, uint64_t offset, unsigned size)
{
        uint64_t value = byte_ports_read(owner, offset, size, read_register);

        update_interrupt(owner);
        return value;
}

static void serial_write(void *owner, uint64_t offset, unsigned size, uint64_t value)
{
        byte_ports_write(owner, offset, size, value, write_register);
        update_interrupt(owner);
}

static const struct bus_ops serial_ports = {serial_read, serial_write};

/* ---- the device ---- */

/* What waits to be written is the outside's, and stays. */
static void serial_reset(struct device *device)
{
        struct serial *serial = container_of(device, struct serial, device);

        serial->ier = serial->fcr = serial->lcr = serial->mcr = serial->scratch = 0;
        serial->overrun = serial->modem_delta = 0;
        serial->divisor[0] = DIVISOR_AT_RESET;
        serial->divisor[1] = 0;
        serial->transmitter_emptied = false;
        serial->fifo_n = serial->fifo_first = 0;
        update_interrupt(serial);
        if (serial->fd >= 0)
                later_ask(serial->turn);
}

static void serial_pause(struct device *device)
{
        container_of(device, struct serial, device)->paused = true;
}

static void serial_resume(struct device *device)
{
        struct serial *serial = container_of(device, struct serial, device);

        serial->paused = false;
        if (serial->fd >= 0)
                later_ask(serial->turn);
}

static void serial_save(struct device *device, struct state_writer *w)
{
        const struct serial *serial = container_of(device, struct serial, device);

        state_put8(w, serial->ier);
        state_put8(w, serial->fcr);
        state_put8(w, serial->lcr);
        state_put8(w, serial->mcr);
        state_put8(w, serial->scratch);
        state_put8(w, serial->overrun);
        state_put8(w, serial->modem_delta);
        state_put(w, serial->divisor, sizeof(serial->divisor));
        state_put8(w, serial->transmitter_emptied);
        state_put8(w, (uint8_t)serial->fifo_n);
        for (unsigned i = 0; i < SERIAL_FIFO; i++)
                state_put8(w, serial->fifo[(serial->fifo_first + i) % SERIAL_FIFO]);
}

static int serial_restore(struct device *device, struct state_reader *r, struct error *err)
{
        struct serial *serial = container_of(device, struct serial, device);

        serial->ier = state_get8(r) & IER_MASK;
        serial->fcr = state_get8(r) & FCR_KEPT;
        serial->lcr = state_get8(r);
        serial->mcr = state_get8(r) & MCR_MASK;
        serial->scratch = state_get8(r);
        serial->overrun = state_get8(r) & LSR_OVERRUN;
        serial->modem_delta = state_get8(r) & MSR_DELTA;
        state_get(r, serial->divisor, sizeof(serial->divisor));
        serial->transmitter_emptied = state_get8(r) != 0;
        serial->fifo_first = 0;
        serial->fifo_n = state_get8(r);
        state_get(r, serial->fifo, sizeof(serial->fifo));
        if (serial->fifo_n > fifo_depth(serial)) {
                serial->fifo_n = 0;
                return error_set(err, -EINVAL, "its serial port holds more bytes than it can");
        }
        update_interrupt(serial);
        if (serial->fd >= 0)
                later_ask(serial->turn);
        return 0;
}

static void serial_free(struct device *device)
{
        struct serial *serial = container_of(device, struct serial, device);

        bus_remove(&device->machine->ports, &serial->range);
        if (serial->fd >= 0)
                write_waiting(serial); /* a guest's last words */
        loop_timer_cancel(device->machine->loop, &serial->gather);
        later_free(serial->turn);
        poll_free(serial->in);
        poll_free(serial->out);
        if (serial->fd >= 0)
                close(serial->fd);
        free(serial);
}

static const struct device_ops serial_ops = {
    .version = 1,
    .reset = serial_reset,
    .pause = serial_pause,
    .resume = serial_resume,
    .save = serial_save,
    .restore = serial_restore,
    .free = serial_free,
};

int serial_create(struct machine *machine, struct error *err)
{
        struct serial *serial = calloc(1, sizeof(*serial));
        int r;

        if (!serial) {
                if (machine->config->serial >= 0)
                        close(machine->config->serial);
                return error_set(err, -ENOMEM, "no memory for a device");
        }
        serial->device = (struct device){&serial_ops, machine, .id = "serial"};
        serial->range = (struct bus_range){PORT_COM1, SERIAL_PORTS, &serial_ports, serial};
        serial->irq = (struct irq_line){machine, GSI_COM1};
        serial->fd = machine->config->serial;
        serial->gather.fire = gathered;
        r = poll_new(serial, POLLIN, can_read, &serial->in, err);
        if (r == 0)
                r = poll_new(serial, POLLOUT, can_write, &serial->out, err);
        if (r == 0)
                r = later_new(machine, take_turn, serial, &serial->turn, err);
        if (r == 0)
                r = bus_add(&machine->ports, &serial->range, err);
        if (r < 0) {
                serial_free(&serial->device);
                return r;
        }
        serial_reset(&serial->device);
        machine_add_device(machine, &serial->device);
        return 0;
}
