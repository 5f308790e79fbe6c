/* rtc.c - an MC146818: the host's time of day as UTC, and 128 bytes of CMOS in which firmware finds
 * how much memory there is.
 *
 * The guest's time is the host's, plus what the guest has set it off by, and stays between 1970 and 2242:
 * where the host's clock is set so that it would leave these years, it stops at their edge. Flags are made when somebody
 * looks, or when an interrupt that is enabled is due: then a timer of the loop is there, one at a time,
 * and none for a cause that the guest has not acknowledged yet.
 *
 * Source     Motorola, MC146818A data sheet. The bytes with sizes of memory and the number of
 *            processors: SeaBIOS, src/hw/rtc.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "vmm-glue/vmm/byte_ports.h"
#include "vmm-glue/vmm/later.h"
#include "vmm-glue/vmm/machine.h"

#define RTC_BYTES 128u

enum {
        RTC_SECONDS,
        RTC_SECONDS_ALARM,
        RTC_MINUTES,
        RTC_MINUTES_ALARM,
        RTC_HOURS,
        RTC_HOURS_ALARM,
        RTC_DAY_OF_WEEK,
        RTC_DAY,
        RTC_MONTH,
        RTC_YEAR,
        RTC_A,
        RTC_B,
        RTC_C,
        RTC_D,
        RTC_CENTURY = 0x32,
};
#define A_UPDATING  0x80u
#define A_DIVIDER   0x70u
#define A_RATE      0x0fu
#define A_AT_RESET  0x26u /* 32768 Hz, 1024 a second */
#define B_SET       0x80u
#define B_BINARY    0x04u
#define B_24_HOURS  0x02u
#define C_PERIODIC  0x40u /* of the same places as the bits of B that enable them */
#define C_ALARM     0x20u
#define C_UPDATE    0x10u
#define C_CAUSES    (C_PERIODIC | C_ALARM | C_UPDATE)
#define C_INTERRUPT 0x80u
#define D_VALID     0x80u
#define HOURS_PM    0x80u
#define ALARM_ANY   0xc0u /* an alarm's byte from here on fits all */

#define CMOS_DISK_FIRST  0x02u /* in 0x3d */
#define NS_PER_SECOND    INT64_C(1000000000)
#define NS_UPDATING      INT64_C(244000) /* before each second */
#define PERIODIC_HZ      32768
#define SECONDS_PER_DAY  86400
#define SECOND_MAX       (INT64_C(1) << 33) /* in the year 2242: its nanoseconds still fit */
#define NOTHING_EXPECTED INT64_MAX

struct rtc {
        struct device device;
        struct bus_range range;
        struct irq_line irq;
        struct later *timer_wanted;
        struct loop_timer timer;
        bool paused;
        uint8_t index;
        uint8_t bytes[RTC_BYTES]; /* the time's among them count only while B_SET is set */
        int64_t offset_s;         /* guest's time - host's */
        int64_t seen_ns;          /* the guest's time up to which C's flags are made */
};

/* ---- time ---- */

/* Not time(), which lags by a tick. */
static struct timespec host_time(void)
{
        struct timespec now;

        clock_gettime(CLOCK_REALTIME, &now);
        return now;
}

/* Its seconds are those that fitting_offset() lets through, wherever the host's clock was set meanwhile. */
static int64_t guest_ns(const struct rtc *rtc)
{
        struct timespec now = host_time();
        int64_t second = now.tv_sec + rtc->offset_s;

        if (second < 0)
                second = 0;
        else if (second > SECOND_MAX)
                second = SECOND_MAX;
        return second * NS_PER_SECOND + now.tv_nsec;
}

static int64_t second_of(int64_t ns)
{
        return ns / NS_PER_SECOND;
}

static uint8_t encode(const struct rtc *rtc, int value)
{
        unsigned v = (unsigned)value % 100;

        return (uint8_t)(rtc->bytes[RTC_B] & B_BINARY ? v : v / 10 << 4 | v % 10);
}

static int decode(const struct rtc *rtc, uint8_t byte)
{
        return rtc->bytes[RTC_B] & B_BINARY ? byte : (byte >> 4) * 10 + (byte & 15);
}

static uint8_t encode_hours(const struct rtc *rtc, int hours)
{
        if (rtc->bytes[RTC_B] & B_24_HOURS)
                return encode(rtc, hours);
        return encode(rtc, hours % 12 == 0 ? 12 : hours % 12) |
               (uint8_t)(hours >= 12 ? HOURS_PM : 0);
}

static int decode_hours(const struct rtc *rtc, uint8_t byte)
{
        if (rtc->bytes[RTC_B] & B_24_HOURS)
                return decode(rtc, byte);
        return decode(rtc, byte & (uint8_t)~HOURS_PM) % 12 + (byte & HOURS_PM ? 12 : 0);
}

/* The guest's time is between 1970 and SECOND_MAX. */
static int64_t fitting_offset(int64_t offset_s)
{
        int64_t second = host_time().tv_sec;

        if (offset_s < -second)
                return -second;
        return offset_s > SECOND_MAX - second ? SECOND_MAX - second : offset_s;
}

/* The time's bytes, as of now. */
static void fill_time(struct rtc *rtc)
{
        time_t seconds = (time_t)second_of(guest_ns(rtc));
        struct tm tm;
        int year;

        gmtime_r(&seconds, &tm);
        year = tm.tm_year + 1900;
        rtc->bytes[RTC_SECONDS] = encode(rtc, tm.tm_sec);
        rtc->bytes[RTC_MINUTES] = encode(rtc, tm.tm_min);
        rtc->bytes[RTC_HOURS] = encode_hours(rtc, tm.tm_hour);
        rtc->bytes[RTC_DAY_OF_WEEK] = encode(rtc, tm.tm_wday + 1);
        rtc->bytes[RTC_DAY] = encode(rtc, tm.tm_mday);
        rtc->bytes[RTC_MONTH] = encode(rtc, tm.tm_mon + 1);
        rtc->bytes[RTC_YEAR] = encode(rtc, year % 100);
        rtc->bytes[RTC_CENTURY] = encode(rtc, year / 100);
}

/* Make the time's bytes the guest's time. Any bytes are some time: what is too large carries, and what
 * is not between 1970 and SECOND_MAX becomes that. */
static void take_time(struct rtc *rtc)
{
        struct tm tm = {
            .tm_sec = decode(rtc, rtc->bytes[RTC_SECONDS]),
            .tm_min = decode(rtc, rtc->bytes[RTC_MINUTES]),
            .tm_hour = decode_hours(rtc, rtc->bytes[RTC_HOURS]),
            .tm_mday = decode(rtc, rtc->bytes[RTC_DAY]),
            .tm_mon = decode(rtc, rtc->bytes[RTC_MONTH]) - 1,
            .tm_year = decode(rtc, rtc->bytes[RTC_CENTURY]) * 100 +
                       decode(rtc, rtc->bytes[RTC_YEAR]) - 1900,
        };

        rtc->offset_s = fitting_offset(timegm(&tm) - host_time().tv_sec);
        rtc->seen_ns = guest_ns(rtc);
}

static bool is_time(unsigned index)
{
        switch (index) {
        case RTC_SECONDS:
        case RTC_MINUTES:
        case RTC_HOURS:
        case RTC_DAY_OF_WEEK:
        case RTC_DAY:
        case RTC_MONTH:
        case RTC_YEAR:
        case RTC_CENTURY:
                return true;
        default:
                return false;
        }
}

/* ---- interrupts ---- */

/* 0: none. The two fastest rates of a 32768 Hz clock are those of two slower ones. */
static int64_t period_ns(const struct rtc *rtc)
{
        unsigned rate = rtc->bytes[RTC_A] & A_RATE;

        if (rate == 0)
                return 0;
        if (rate <= 2)
                rate += 7;
        return (NS_PER_SECOND << (rate - 1)) / PERIODIC_HZ;
}

static bool alarm_fits(const struct rtc *rtc, unsigned alarm, int value)
{
        uint8_t byte = rtc->bytes[alarm];

        if (byte >= ALARM_ANY)
                return true;
        return (alarm == RTC_HOURS_ALARM ? decode_hours(rtc, byte) : decode(rtc, byte)) == value;
}

/* The first second after @second at which the alarm goes off, NOTHING_EXPECTED where it never does.
 * Hours, then minutes that do not fit are passed in one step, so that this takes some 150 steps. */
static int64_t next_alarm(const struct rtc *rtc, int64_t second)
{
        int64_t end = second + SECONDS_PER_DAY;
        int64_t at = second + 1;

        while (at <= end) {
                int of_day = (int)(at % SECONDS_PER_DAY);

                if (!alarm_fits(rtc, RTC_HOURS_ALARM, of_day / 3600))
                        at += 3600 - of_day % 3600;
                else if (!alarm_fits(rtc, RTC_MINUTES_ALARM, of_day / 60 % 60))
                        at += 60 - of_day % 60;
                else if (!alarm_fits(rtc, RTC_SECONDS_ALARM, of_day % 60))
                        at++;
                else
                        return at;
        }
        return NOTHING_EXPECTED;
}

/* Make the flags of what has happened since the last time. */
static void catch_up(struct rtc *rtc)
{
        int64_t now = guest_ns(rtc), period = period_ns(rtc);

        /* A host's clock that is set back: what it shows a second time counts anew. */
        if (now < rtc->seen_ns)
                rtc->seen_ns = now;
        if (period && now / period != rtc->seen_ns / period)
                rtc->bytes[RTC_C] |= C_PERIODIC;
        if (!(rtc->bytes[RTC_B] & B_SET) && second_of(now) != second_of(rtc->seen_ns)) {
                rtc->bytes[RTC_C] |= C_UPDATE;
                if (next_alarm(rtc, second_of(rtc->seen_ns)) <= second_of(now))
                        rtc->bytes[RTC_C] |= C_ALARM;
        }
        rtc->seen_ns = now;
}

static bool is_due(const struct rtc *rtc)
{
        return (rtc->bytes[RTC_B] & rtc->bytes[RTC_C] & C_CAUSES) != 0;
}

/* When the next thing happens that the guest wants to be interrupted for, in its time. Where it has
 * an interrupt already, that is when it has read C. */
static int64_t next_ns(const struct rtc *rtc)
{
        uint8_t wanted = rtc->bytes[RTC_B] & C_CAUSES;
        int64_t next = NOTHING_EXPECTED, period = period_ns(rtc);

        if (is_due(rtc))
                return next;
        if (wanted & C_PERIODIC && period)
                next = (rtc->seen_ns / period + 1) * period;
        if (!(rtc->bytes[RTC_B] & B_SET)) {
                int64_t second = second_of(rtc->seen_ns), at = NOTHING_EXPECTED;

                if (wanted & C_UPDATE)
                        at = second + 1;
                else if (wanted & C_ALARM)
                        at = next_alarm(rtc, second);
                if (at != NOTHING_EXPECTED && at * NS_PER_SECOND < next)
                        next = at * NS_PER_SECOND;
        }
        return next;
}

static void update(struct rtc *rtc)
{
        catch_up(rtc);
        irq_line_set(&rtc->irq, is_due(rtc));
        if (rtc->bytes[RTC_B] & C_CAUSES)
                later_ask(rtc->timer_wanted);
}

/* On the loop's thread. At most a minute ahead: the host's clock may be set. */
static void begin_timer(void *owner)
{
        struct rtc *rtc = owner;
        struct loop *loop = rtc->device.machine->loop;
        int64_t next = next_ns(rtc), wait;

        if (next == NOTHING_EXPECTED || rtc->paused) {
                loop_timer_cancel(loop, &rtc->timer);
                return;
        }
        wait = next - guest_ns(rtc);
        if (wait > 60 * NS_PER_SECOND)
                wait = 60 * NS_PER_SECOND;
        loop_timer_set(loop, &rtc->timer, loop_now_ns(loop) + (uint64_t)(wait > 0 ? wait : 0));
}

static void timer_fired(struct loop_timer *timer)
{
        struct rtc *rtc = container_of(timer, struct rtc, timer);
        struct machine *machine = rtc->device.machine;

        machine_lock(machine);
        if (!rtc->paused)
                update(rtc);
        machine_unlock(machine);
}

/* ---- ports ---- */

static uint8_t read_a(const struct rtc *rtc)
{
        int64_t left = NS_PER_SECOND - 1 - guest_ns(rtc) % NS_PER_SECOND;
        bool updating = !(rtc->bytes[RTC_B] & B_SET) && left < NS_UPDATING;

        return rtc->bytes[RTC_A] | (uint8_t)(updating ? A_UPDATING : 0);
}

static uint8_t read_c(struct rtc *rtc)
{
        uint8_t value;

        catch_up(rtc);
        value = rtc->bytes[RTC_C] | (uint8_t)(is_due(rtc) ? C_INTERRUPT : 0);
        rtc->bytes[RTC_C] = 0;
        update(rtc);
        return value;
}

/* Port 0 can only be written; it reads as ones, as a bus without anybody does. */
static uint8_t rtc_read_byte(void *owner, unsigned port)
{
        struct rtc *rtc = owner;

        if (port == 0)
                return 0xff;
        if (is_time(rtc->index) && !(rtc->bytes[RTC_B] & B_SET))
                fill_time(rtc);
        switch (rtc->index) {
        case RTC_A:
                return read_a(rtc);
        case RTC_C:
                return read_c(rtc);
        case RTC_D:
                return D_VALID;
        default:
                return rtc->bytes[rtc->index];
        }
}

static void write_b(struct rtc *rtc, uint8_t value)
{
        uint8_t before = rtc->bytes[RTC_B];

        catch_up(rtc);
        /* The bytes are made by the old form, and are the guest's to change, before it changes. */
        if (value & B_SET && !(before & B_SET))
                fill_time(rtc);
        rtc->bytes[RTC_B] = value;
        if (before & B_SET && !(value & B_SET))
                take_time(rtc);
        update(rtc);
}

static void write_time(struct rtc *rtc, uint8_t value)
{
        bool running = !(rtc->bytes[RTC_B] & B_SET);

        if (running)
                fill_time(rtc);
        rtc->bytes[rtc->index] = value;
        if (running)
                take_time(rtc);
}

static void rtc_write_byte(void *owner, unsigned port, uint8_t value)
{
        struct rtc *rtc = owner;

        if (port == 0) {
                rtc->index =
                    value & (RTC_BYTES - 1); /* bit 7 masks the NMI, which there is none of */
        } else if (is_time(rtc->index)) {
                write_time(rtc, value);
        } else if (rtc->index == RTC_B) {
                write_b(rtc, value);
        } else if (rtc->index != RTC_C && rtc->index != RTC_D) {
                catch_up(rtc);
                rtc->bytes[rtc->index] = rtc->index == RTC_A ? value & (uint8_t)~A_UPDATING : value;
                update(rtc);
        }
}

static uint64_t rtc_read(void *owner, uint64_t offset, unsigned size)
{
        return byte_ports_read(owner, offset, size, rtc_read_byte);
}

static void rtc_write(void *owner, uint64_t offset, unsigned size, uint64_t value)
{
        byte_ports_write(owner, offset, size, value, rtc_write_byte);
}

static const struct bus_ops rtc_ports = {rtc_read, rtc_write};

/* ---- the device ---- */

static void put_size(struct rtc *rtc, unsigned index, uint64_t value, uint64_t max, unsigned bytes)
{
        if (value > max)
                value = max;
        for (unsigned i = 0; i < bytes; i++)
                rtc->bytes[index + i] = (uint8_t)(value >> (8 * i));
}

/* What firmware wants to know of the machine. */
static void fill_sizes(struct rtc *rtc)
{
        const struct guest_memory *memory = &rtc->device.machine->memory;
        uint64_t low = memory->low_size;

        put_size(rtc, 0x15, 640, UINT16_MAX, 2);
        put_size(rtc, 0x17, (low - MIB(1)) / KIB(1), UINT16_MAX, 2);
        put_size(rtc, 0x30, (low - MIB(1)) / KIB(1), UINT16_MAX, 2);
        put_size(rtc, 0x34, low > MIB(16) ? (low - MIB(16)) / KIB(64) : 0, UINT16_MAX, 2);
        put_size(rtc, 0x5b, memory->high_size / KIB(64), 0xffffff, 3);
        rtc->bytes[0x3d] = CMOS_DISK_FIRST;
        rtc->bytes[0x5f] = (uint8_t)(rtc->device.machine->config->cpus - 1);
}

/* As the chip's RESET#: its time and its memory stay. */
static void rtc_reset(struct device *device)
{
        struct rtc *rtc = container_of(device, struct rtc, device);

        if (rtc->bytes[RTC_B] & B_SET)
                take_time(rtc);
        rtc->bytes[RTC_A] = A_AT_RESET;
        rtc->bytes[RTC_B] = B_24_HOURS;
        rtc->bytes[RTC_C] = 0;
        rtc->index = 0;
        rtc->seen_ns = guest_ns(rtc);
        fill_sizes(rtc);
        update(rtc);
        later_ask(rtc->timer_wanted);
}

static void rtc_pause(struct device *device)
{
        container_of(device, struct rtc, device)->paused = true;
}

static void rtc_resume(struct device *device)
{
        struct rtc *rtc = container_of(device, struct rtc, device);

        rtc->paused = false;
        update(rtc);
}

static void rtc_save(struct device *device, struct state_writer *w)
{
        const struct rtc *rtc = container_of(device, struct rtc, device);

        state_put8(w, rtc->index);
        state_put(w, rtc->bytes, sizeof(rtc->bytes));
        state_put64(w, (uint64_t)rtc->offset_s);
}

/* The time is that of now: what has passed meanwhile has passed for this clock, too. */
static int rtc_restore(struct device *device, struct state_reader *r, struct error *err)
{
        struct rtc *rtc = container_of(device, struct rtc, device);

        rtc->index = state_get8(r) & (RTC_BYTES - 1);
        state_get(r, rtc->bytes, sizeof(rtc->bytes));
        rtc->offset_s = fitting_offset((int64_t)state_get64(r));
        rtc->bytes[RTC_A] &= (uint8_t)~A_UPDATING;
        rtc->bytes[RTC_C] &= C_CAUSES;
        rtc->seen_ns = guest_ns(rtc);
        update(rtc);
        return 0;
}

static void rtc_free(struct device *device)
{
        struct rtc *rtc = container_of(device, struct rtc, device);

        loop_timer_cancel(device->machine->loop, &rtc->timer);
        bus_remove(&device->machine->ports, &rtc->range);
        later_free(rtc->timer_wanted);
        free(rtc);
}

static const struct device_ops rtc_ops = {
    .version = 1,
    .reset = rtc_reset,
    .pause = rtc_pause,
    .resume = rtc_resume,
    .save = rtc_save,
    .restore = rtc_restore,
    .free = rtc_free,
};

int rtc_create(struct machine *machine, struct error *err)
{
        struct rtc *rtc = calloc(1, sizeof(*rtc));
        int r;

        if (!rtc)
                return error_set(err, -ENOMEM, "no memory for a device");
        rtc->device = (struct device){&rtc_ops, machine, .id = "rtc"};
        rtc->range = (struct bus_range){PORT_RTC, 2, &rtc_ports, rtc};
        rtc->irq = (struct irq_line){machine, GSI_RTC};
        rtc->timer.fire = timer_fired;
        r = later_new(machine, begin_timer, rtc, &rtc->timer_wanted, err);
        if (r == 0)
                r = bus_add(&machine->ports, &rtc->range, err);
        if (r < 0) {
                rtc_free(&rtc->device);
                return r;
        }
        rtc_reset(&rtc->device);
        machine_add_device(machine, &rtc->device);
        return 0;
}
