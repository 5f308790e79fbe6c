/* acpi_pm.c - ACPI's fixed hardware: power management events and control, its timer, general purpose
 * events, the reset register. Always in ACPI mode (there is no SMI command port), so SCI_EN is 1.
 *
 * Source     ACPI 6.5, sections 4.8.2 (power button), 4.8.3 (PM1, PM timer), 4.8.4 (GPE0); 4.8.3.6
 *            (reset register).
 */
#include "vmm-glue/vmm/acpi_pm.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/le.h"
#include "vmm-glue/vmm/later.h"
#include "vmm-glue/vmm/machine.h"

/* PM1_STS and PM1_EN: the same bits. */
#define PM1_TIMER        0x0001u
#define PM1_GLOBAL       0x0020u
#define PM1_POWER_BUTTON 0x0100u
#define PM1_RTC          0x0400u
#define PM1_EVENTS       (PM1_TIMER | PM1_GLOBAL | PM1_POWER_BUTTON | PM1_RTC)
/* PM1_CNT */
#define PM1_SCI_ENABLE  0x0001u
#define PM1_BUS_MASTER  0x0002u
#define PM1_SLEEP_SHIFT 10
#define PM1_SLEEP_MASK  0x1c00u
#define PM1_SLEEP       0x2000u /* write only */

#define RESET_SYSTEM  0x02u
#define RESET_CPU     0x04u
#define RESET_FULL    0x08u
#define TIMER_CARRY   (UINT64_C(1) << 31) /* the bit whose changes PM1_TIMER tells of */
#define NS_PER_SECOND UINT64_C(1000000000)
#define TIMER_ROUND   (NS_PER_SECOND << 32) /* a whole number of the timer's 2^32 ticks */

/* The registers as bytes, from PORT_PM1_EVENT on. */
#define PM_SIZE 12u
struct pm_registers {
        le16 status, enable, control, zero;
        le32 timer;
};
static_assert(sizeof(struct pm_registers) == PM_SIZE, "PORT_PM1_CONTROL, PORT_PM_TIMER");

struct acpi_pm {
        struct device device;
        struct bus_range pm, gpe;
        struct irq_line sci;
        struct later *timer_wanted;
        struct loop_timer timer;
        bool paused;
        uint16_t status, enable, control;
        uint16_t gpe_status, gpe_enable;
        uint8_t reset_control;
        uint64_t begun_ns;   /* when the PM timer was 0 */
        uint64_t last_carry; /* ticks / TIMER_CARRY, of which PM1_TIMER has told */
};

static const struct device_ops pm_ops;

static struct acpi_pm *pm_of(struct machine *machine)
{
        list_for_each (it, &machine->devices) {
                struct device *device = container_of(it, struct device, link);

                if (device->ops == &pm_ops)
                        return container_of(device, struct acpi_pm, device);
        }
        return NULL;
}

/* ---- the timer ---- */

static uint64_t now_ns(const struct acpi_pm *pm)
{
        return loop_now_ns(pm->device.machine->loop);
}

/* Split, as the product of nanoseconds and hertz leaves 64 bits within two hours. */
static uint64_t ticks_of(uint64_t ns)
{
        return ns / NS_PER_SECOND * PM_TIMER_HZ + ns % NS_PER_SECOND * PM_TIMER_HZ / NS_PER_SECOND;
}

static uint64_t ns_of(uint64_t ticks)
{
        return ticks / PM_TIMER_HZ * NS_PER_SECOND +
               (ticks % PM_TIMER_HZ * NS_PER_SECOND + PM_TIMER_HZ - 1) / PM_TIMER_HZ;
}

static uint64_t timer_ticks(const struct acpi_pm *pm)
{
        return ticks_of(now_ns(pm) - pm->begun_ns);
}

/* ---- the interrupt ---- */

static void update(struct acpi_pm *pm)
{
        uint64_t carry = timer_ticks(pm) / TIMER_CARRY;

        if (carry != pm->last_carry) {
                pm->last_carry = carry;
                pm->status |= PM1_TIMER;
        }
        irq_line_set(&pm->sci,
                     (pm->status & pm->enable) != 0 || (pm->gpe_status & pm->gpe_enable) != 0);
        if (pm->enable & PM1_TIMER)
                later_ask(pm->timer_wanted);
}

/* On the loop's thread: be there at the next carry, while somebody wants to hear of it. */
static void begin_timer(void *owner)
{
        struct acpi_pm *pm = owner;

        if (pm->enable & PM1_TIMER && !(pm->status & PM1_TIMER) && !pm->paused)
                loop_timer_set(pm->device.machine->loop, &pm->timer,
                               pm->begun_ns + ns_of((pm->last_carry + 1) * TIMER_CARRY));
        else
                loop_timer_cancel(pm->device.machine->loop, &pm->timer);
}

static void timer_fired(struct loop_timer *timer)
{
        struct acpi_pm *pm = container_of(timer, struct acpi_pm, timer);
        struct machine *machine = pm->device.machine;

        machine_lock(machine);
        if (!pm->paused)
                update(pm);
        machine_unlock(machine);
}

/* ---- ports ---- */

static struct pm_registers pm_registers(const struct acpi_pm *pm)
{
        return (struct pm_registers){
            .status = le16_make(pm->status),
            .enable = le16_make(pm->enable),
            .control = le16_make(pm->control | PM1_SCI_ENABLE),
            .timer = le32_make((uint32_t)timer_ticks(pm)),
        };
}

static uint64_t pm_read(void *owner, uint64_t offset, unsigned size)
{
        struct acpi_pm *pm = owner;
        struct pm_registers registers;
        uint64_t value = 0;

        update(pm);
        registers = pm_registers(pm);
        memcpy(&value, (const uint8_t *)&registers + offset, size);
        return value;
}

static void set_control(struct acpi_pm *pm, uint16_t value)
{
        pm->control = value & (PM1_SLEEP_MASK | PM1_BUS_MASTER);
        if (value & PM1_SLEEP && (value & PM1_SLEEP_MASK) >> PM1_SLEEP_SHIFT == ACPI_PM_SLEEP_S5)
                machine_ask_power_off(pm->device.machine);
}

/* Bytes that are not written keep their value; of the status, where ones clear, that is 0. */
static void pm_write(void *owner, uint64_t offset, unsigned size, uint64_t value)
{
        struct acpi_pm *pm = owner;
        struct pm_registers registers;

        update(pm);
        registers = pm_registers(pm);
        registers.status = le16_make(0);
        memcpy((uint8_t *)&registers + offset, &value, size);
        pm->status &= (uint16_t)~le16_get(registers.status);
        pm->enable = le16_get(registers.enable) & PM1_EVENTS;
        if (offset < PORT_PM1_CONTROL + 2 - PORT_PM1_EVENT &&
            offset + size > PORT_PM1_CONTROL - PORT_PM1_EVENT)
                set_control(pm, le16_get(registers.control));
        update(pm);
}

static uint64_t gpe_read(void *owner, uint64_t offset, unsigned size)
{
        const struct acpi_pm *pm = owner;
        uint32_t both = pm->gpe_status | (uint32_t)pm->gpe_enable << 16;

        return both >> (8 * offset) & (UINT64_MAX >> (64 - 8 * size));
}

static void gpe_write(void *owner, uint64_t offset, unsigned size, uint64_t value)
{
        struct acpi_pm *pm = owner;
        uint32_t mask = (uint32_t)(UINT64_MAX >> (64 - 8 * size) << (8 * offset));
        uint32_t bits = (uint32_t)(value << (8 * offset));

        pm->gpe_status &= (uint16_t)~bits;
        pm->gpe_enable = (uint16_t)((pm->gpe_enable & ~(mask >> 16)) | ((bits & mask) >> 16));
        update(pm);
}

static const struct bus_ops pm_ports = {pm_read, pm_write};
static const struct bus_ops gpe_ports = {gpe_read, gpe_write};

uint8_t acpi_pm_reset_read(struct machine *machine)
{
        const struct acpi_pm *pm = pm_of(machine);

        return pm ? pm->reset_control : 0;
}

void acpi_pm_reset_write(struct machine *machine, uint8_t value)
{
        struct acpi_pm *pm = pm_of(machine);

        if (!pm)
                return;
        if (value & RESET_CPU && !(pm->reset_control & RESET_CPU))
                machine_ask_reset(machine);
        pm->reset_control = value & (RESET_SYSTEM | RESET_CPU | RESET_FULL);
}

void acpi_pm_power_button(struct machine *machine)
{
        struct acpi_pm *pm = pm_of(machine);

        if (!pm)
                return;
        pm->status |= PM1_POWER_BUTTON;
        update(pm);
}

void acpi_pm_raise_gpe(struct machine *machine, unsigned bit)
{
        struct acpi_pm *pm = pm_of(machine);

        if (!pm)
                return;
        pm->gpe_status |= (uint16_t)(1u << bit);
        update(pm);
}

/* ---- the device ---- */

/* The timer goes on: it counts from when the machine was made. */
static void pm_reset(struct device *device)
{
        struct acpi_pm *pm = container_of(device, struct acpi_pm, device);

        pm->last_carry = timer_ticks(pm) / TIMER_CARRY;
        pm->status = pm->enable = pm->control = 0;
        pm->gpe_status = pm->gpe_enable = 0;
        pm->reset_control = 0;
        update(pm);
        later_ask(pm->timer_wanted);
}

static void pm_pause(struct device *device)
{
        struct acpi_pm *pm = container_of(device, struct acpi_pm, device);

        update(pm);
        pm->paused = true;
}

static void pm_resume(struct device *device)
{
        struct acpi_pm *pm = container_of(device, struct acpi_pm, device);

        pm->paused = false;
        update(pm);
}

static void pm_save(struct device *device, struct state_writer *w)
{
        const struct acpi_pm *pm = container_of(device, struct acpi_pm, device);

        state_put16(w, pm->status);
        state_put16(w, pm->enable);
        state_put16(w, pm->control);
        state_put16(w, pm->gpe_status);
        state_put16(w, pm->gpe_enable);
        state_put8(w, pm->reset_control);
        state_put64(w, now_ns(pm) - pm->begun_ns);
}

/* The timer goes on where it was: who restores may have been started later than who saved, so that
 * begun_ns lies before the clock's own beginning, and wraps. Whole rounds are not seen, and left out: no
 * sum with what is left leaves 64 bits. */
static int pm_restore(struct device *device, struct state_reader *r, struct error *err)
{
        struct acpi_pm *pm = container_of(device, struct acpi_pm, device);
        uint64_t age_ns;

        pm->status = state_get16(r) & PM1_EVENTS;
        pm->enable = state_get16(r) & PM1_EVENTS;
        pm->control = state_get16(r) & (PM1_SLEEP_MASK | PM1_BUS_MASTER);
        pm->gpe_status = state_get16(r);
        pm->gpe_enable = state_get16(r);
        pm->reset_control = state_get8(r) & (RESET_SYSTEM | RESET_CPU | RESET_FULL);
        age_ns = state_get64(r) % TIMER_ROUND;
        pm->begun_ns = now_ns(pm) - age_ns;
        pm->last_carry = ticks_of(age_ns) / TIMER_CARRY;
        update(pm);
        return 0;
}

static void pm_free(struct device *device)
{
        struct acpi_pm *pm = container_of(device, struct acpi_pm, device);

        loop_timer_cancel(device->machine->loop, &pm->timer);
        bus_remove(&device->machine->ports, &pm->pm);
        bus_remove(&device->machine->ports, &pm->gpe);
        later_free(pm->timer_wanted);
        free(pm);
}

static const struct device_ops pm_ops = {
    .version = 1,
    .reset = pm_reset,
    .pause = pm_pause,
    .resume = pm_resume,
    .save = pm_save,
    .restore = pm_restore,
    .free = pm_free,
};

int acpi_pm_create(struct machine *machine, struct error *err)
{
        struct acpi_pm *pm = calloc(1, sizeof(*pm));
        int r;

        if (!pm)
                return error_set(err, -ENOMEM, "no memory for a device");
        pm->device = (struct device){&pm_ops, machine, .id = "acpi"};
        pm->pm = (struct bus_range){PORT_PM1_EVENT, PM_SIZE, &pm_ports, pm};
        pm->gpe = (struct bus_range){PORT_GPE0, PORT_GPE0_SIZE, &gpe_ports, pm};
        pm->sci = (struct irq_line){machine, GSI_SCI};
        pm->timer.fire = timer_fired;
        pm->begun_ns = now_ns(pm);
        r = later_new(machine, begin_timer, pm, &pm->timer_wanted, err);
        if (r == 0)
                r = bus_add(&machine->ports, &pm->pm, err);
        if (r == 0)
                r = bus_add(&machine->ports, &pm->gpe, err);
        if (r < 0) {
                pm_free(&pm->device);
                return r;
        }
        machine_add_device(machine, &pm->device);
        return 0;
}
