/* fuzz_vmm_ports.c - a guest that does anything with the ports of the devices that every machine has:
 * serial port, clock, ACPI registers, fw_cfg with its DMA, PCI's registers, resets. And who is at the
 * serial port's other end, time, and states of machines that were never saved.
 *
 * Time is the loop's, the host's clock too: what happens is decided by the input alone. */
#include <assert.h>
#include <endian.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tests/fuzz/fuzz_loop.h"
#include "tests/fuzz/input.h"
#include "tests/vmm/machine_fixture.h"
#include "vmm-glue/vmm/acpi_pm.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int __real_clock_gettime(clockid_t clock, struct timespec *ret_time);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ret_time);

#define ACTS_MAX     300u
#define MEMORY       LAYOUT_RAM_MIN
#define BEGIN_SECOND INT64_C(1700000000) /* of the host's clock: in 2023 */
#define CLOCK_SPAN_S (1u << 31)          /* what the host's clock is set to: 1989 to 2057 */
#define MINUTE_NS    UINT64_C(60000000000)
#define IMAGE_SIZE   (16u << 10)

static struct loop *loop;
static int64_t clock_offset_s; /* of the host's clock: it may be set */

static int (*const creators[])(struct machine *machine, struct error *err) = {
    pci_create,      acpi_pm_create, serial_create, rtc_create,
    keyboard_create, pvpanic_create, fw_cfg_create,
};
static const char *const ids[] = {"acpi", "serial", "rtc", "keyboard", "pvpanic", "fw_cfg"};

static const struct {
        uint16_t first, n;
} ports[] = {
    {PORT_COM1, 8},    {PORT_RTC, 2},         {PORT_PM1_EVENT, 12},
    {PORT_GPE0, 4},    {PORT_FW_CFG, 12},     {PORT_KEYBOARD, 1},
    {PORT_PVPANIC, 1}, {PORT_PCI_ADDRESS, 8}, {PORT_PCI_HOTPLUG, 12},
};

struct play {
        struct input in;
        struct machine_fixture *f;
        int outside; /* the serial port's other end; -1: gone */
        bool paused;
};

/* The devices' clock is the play's; libFuzzer's own is the system's. */
int __wrap_clock_gettime(clockid_t clock, struct timespec *ret_time)
{
        uint64_t now_ns;

        if (clock != CLOCK_REALTIME || !loop)
                return __real_clock_gettime(clock, ret_time);
        now_ns = loop_now_ns(loop);
        *ret_time = (struct timespec){.tv_sec = BEGIN_SECOND + clock_offset_s +
                                                (time_t)(now_ns / 1000000000),
                                      .tv_nsec = (long)(now_ns % 1000000000)};
        return 0;
}

static void make(struct play *p)
{
        struct error err = ERROR_INIT;
        int pair[2];

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
                abort();
        p->outside = pair[0];
        p->paused = false;
        p->f = fixture_new(MEMORY, loop);
        p->f->config.serial = pair[1];
        for (size_t i = 0; i < sizeof(creators) / sizeof(creators[0]); i++)
                if (creators[i](&p->f->machine, &err) < 0)
                        abort();
}

static void end(struct play *p)
{
        if (p->f->config.firmware >= 0)
                close(p->f->config.firmware);
        fixture_free(p->f);
        if (p->outside >= 0)
                close(p->outside);
        fuzz_loop_settle(loop);
}

/* ---- what the guest does ---- */

static unsigned access_size(struct play *p)
{
        return 1u << input_u8(&p->in) % 3;
}

static uint16_t any_port(struct play *p)
{
        size_t i = input_u8(&p->in) % (sizeof(ports) / sizeof(ports[0]));

        return (uint16_t)(ports[i].first + input_u8(&p->in) % ports[i].n);
}

/* In ones above its size no value is right. */
static void in(struct play *p)
{
        uint16_t port = any_port(p);
        unsigned size = access_size(p);
        uint64_t value = fixture_in(p->f, port, size);

        assert(value >> (8 * size) == 0);
}

static void out(struct play *p)
{
        uint16_t port = any_port(p);

        fixture_out(p->f, port, input_u32(&p->in), access_size(p));
}

static void clock_register(struct play *p)
{
        fixture_out(p->f, PORT_RTC, input_u8(&p->in), 1);
        fixture_out(p->f, PORT_RTC + 1, input_u8(&p->in), 1);
}

static uint64_t place(struct play *p)
{
        return input_number(&p->in, MEMORY);
}

/* The descriptor where there is memory for it, or nearly; what is beyond is never written. */
static void dma(struct play *p)
{
        const uint64_t at = place(p), to = place(p);
        const uint32_t control = input_u32(&p->in);
        uint64_t length = input_number(&p->in, MEMORY);
        const uint32_t words[4] = {htobe32(control), htobe32((uint32_t)length),
                                   htobe32((uint32_t)(to >> 32)), htobe32((uint32_t)to)};
        uint8_t *descriptor = guest_range(&p->f->machine.memory, at, sizeof(words));

        if (descriptor)
                memcpy(descriptor, words, sizeof(words));
        fixture_out(p->f, PORT_FW_CFG + 4, htobe32((uint32_t)(at >> 32)), 4);
        fixture_out(p->f, PORT_FW_CFG + 8, htobe32((uint32_t)at), 4);
}

/* ---- what others do ---- */

static void outside(struct play *p)
{
        uint8_t how = input_u8(&p->in), bytes[512];
        const uint8_t *data;
        size_t n;

        if (p->outside < 0)
                return;
        switch (how % 4) {
        case 0:
                close(p->outside);
                p->outside = -1;
                break;
        case 1:
                while (recv(p->outside, bytes, sizeof(bytes), 0) > 0)
                        ;
                break;
        default:
                n = input_take(&p->in, how / 4, &data);
                if (n > 0)
                        send(p->outside, data, n, MSG_NOSIGNAL);
                break;
        }
}

static void pass_time(struct play *p)
{
        uint8_t how = input_u8(&p->in);

        if (how % 8 == 7)
                clock_offset_s = (int64_t)(input_number(&p->in, CLOCK_SPAN_S) % CLOCK_SPAN_S) -
                                 (int64_t)(CLOCK_SPAN_S / 2);
        else
                fuzz_loop_advance(loop, input_number(&p->in, 1000000000) % MINUTE_NS);
}

static void press(struct play *p)
{
        uint8_t which = input_u8(&p->in);

        machine_lock(&p->f->machine);
        if (which % 2)
                acpi_pm_power_button(&p->f->machine);
        else
                acpi_pm_raise_gpe(&p->f->machine, which / 2 % 16);
        machine_unlock(&p->f->machine);
}

static void pause_or_go(struct play *p)
{
        if (p->paused)
                fixture_resume(p->f);
        else
                fixture_pause(p->f);
        p->paused = !p->paused;
}

static void boot(struct play *p)
{
        struct vcpu_start start;

        if (p->f->config.firmware < 0) {
                p->f->config.firmware = memfd_create("firmware", MFD_CLOEXEC);
                if (p->f->config.firmware < 0 || ftruncate(p->f->config.firmware, IMAGE_SIZE) < 0)
                        abort();
        }
        machine_lock(&p->f->machine);
        if (boot_firmware(&p->f->machine, &start, NULL) < 0)
                abort();
        machine_unlock(&p->f->machine);
}

/* What was saved restores, and what is saved then is the same. */
static void move(struct play *p)
{
        struct state_writer before = {0}, after = {0};

        fixture_pause(p->f);
        fixture_save(p->f, &before);
        end(p);
        make(p);
        if (fixture_restore(p->f, before.data, before.size, NULL) < 0)
                abort();
        fixture_save(p->f, &after);
        assert(after.size == before.size);
        state_writer_free(&before);
        state_writer_free(&after);
}

/* A state of one device that nobody has saved: it is refused, or the machine goes on with it. */
static void wrong_state(struct play *p)
{
        const char *id = ids[input_u8(&p->in) % (sizeof(ids) / sizeof(ids[0]))];
        struct state_writer w = {0};
        const uint8_t *bytes;
        size_t n = input_take(&p->in, input_u8(&p->in), &bytes);

        end(p);
        make(p);
        state_begin(&w, id, 1);
        if (n > 0)
                state_put(&w, bytes, n);
        state_end(&w);
        list_for_each (it, &p->f->machine.devices) {
                struct device *device = container_of(it, struct device, link);
                struct state_reader reader;

                if (strcmp(device->id, id) != 0 ||
                    state_find(w.data, w.size, id, device->ops->version, &reader, NULL) < 0)
                        continue;
                machine_lock(&p->f->machine);
                device->ops->restore(device, &reader, NULL);
                machine_unlock(&p->f->machine);
        }
        state_writer_free(&w);
}

static void act(struct play *p)
{
        static void (*const acts[])(struct play * p) = {
            in,        out,   out,         clock_register, dma,  outside,
            pass_time, press, pause_or_go, boot,           move, wrong_state,
        };
        uint8_t which = input_u8(&p->in);

        if (which >= 0xf0)
                fixture_reset(p->f);
        else
                acts[which % (sizeof(acts) / sizeof(acts[0]))](p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct play p = {.in = {data, size}};
        int fd = fuzz_lowest_fd();

        if (!loop) {
                fuzz_quiet();
                signal(SIGPIPE, SIG_IGN); /* as whoever runs a machine does */
                loop = fuzz_loop_new();
        }
        fuzz_loop_reset(loop);
        clock_offset_s = 0;
        make(&p);
        for (unsigned i = 0; i < ACTS_MAX && p.in.left > 0; i++)
                act(&p);
        fuzz_loop_settle(loop);
        end(&p);
        assert(fuzz_lowest_fd() == fd);
        return 0;
}
