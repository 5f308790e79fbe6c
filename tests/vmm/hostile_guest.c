/* hostile_guest.c - a guest that does to the machine what no driver does: every port and register, with
 * every size, misaligned, by instructions that nobody uses there, and devices that are told nonsense.
 *
 * Its command line: seed=N chooses what it does, acts=N how much. 'ports' reads and writes every port
 * instead, in order. 'wild' also does what may end the machine: resets, and interrupts that no guest of
 * sound mind sends itself.
 *
 * In the end it says "hostile: done" on COM1 and switches the machine off; what the processor does not
 * let it do it tells, and resets the machine.
 *
 * A PVH kernel (hostile_entry.S), freestanding: the machine is at least 64 MiB large, and the guest's
 * own memory ends at 16 MiB. Devices are told to write from SCRATCH on only, unless it is wild.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm-glue/vmm/layout.h"

void hostile_main(void);
void hostile_exception(uint64_t number, uint64_t rip);

extern uint8_t handlers[];
extern uint64_t window_directory[512];
extern uint32_t start_info;

#define SCRATCH      MIB(32) /* up to the end of memory: what devices may write to */
#define SCRATCH_SIZE MIB(16)
#define WINDOW       GIB(4) /* two pages of 2 MiB, of anything */
#define PAGE_LARGE   MIB(2)

static uint64_t seed = 1;
static bool wild;
static uint64_t memory_end, address_bits;

/* ---- numbers ---- */

static uint64_t any(void)
{
        /* splitmix64 */
        uint64_t z = seed += UINT64_C(0x9e3779b97f4a7c15);

        z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
        return z ^ z >> 31;
}

static uint64_t below(uint64_t limit)
{
        return any() % limit;
}

/* A value as it hurts: an edge, a small one, a single bit, anything. */
static uint64_t value(void)
{
        switch (below(8)) {
        case 0:
                return 0;
        case 1:
                return UINT64_MAX;
        case 2:
                return below(16);
        case 3:
                return UINT64_C(1) << below(64);
        case 4:
                return (UINT64_C(1) << below(64)) - 1;
        case 5:
                return SCRATCH + below(SCRATCH_SIZE);
        default:
                return any();
        }
}

static unsigned size_of_access(void)
{
        return 1u << below(4);
}

/* ---- instructions ---- */

static void out(uint16_t port, uint32_t data, unsigned size)
{
        if (size == 1)
                __asm__ volatile("outb %b0, %w1" ::"a"(data), "d"(port));
        else if (size == 2)
                __asm__ volatile("outw %w0, %w1" ::"a"(data), "d"(port));
        else
                __asm__ volatile("outl %0, %w1" ::"a"(data), "d"(port));
}

static uint32_t in(uint16_t port, unsigned size)
{
        uint32_t data = 0;

        if (size == 1)
                __asm__ volatile("inb %w1, %b0" : "+a"(data) : "d"(port));
        else if (size == 2)
                __asm__ volatile("inw %w1, %w0" : "+a"(data) : "d"(port));
        else
                __asm__ volatile("inl %w1, %0" : "=a"(data) : "d"(port));
        return data;
}

/* @data: what is stored, or memory of at least @count * @size bytes for the others. */
enum string { INS, OUTS, STOS, MOVS_FROM, MOVS_TO };

#define REP(instruction)                                                                           \
        __asm__ volatile("rep " instruction                                                        \
                         : "+D"(to), "+S"(from), "+c"(count)                                       \
                         : "a"(x), "d"(port)                                                       \
                         : "memory")

static void string(enum string what, uint16_t port, uint64_t to, uint64_t from, uint64_t count,
                   uint64_t x, unsigned size)
{
        switch (what) {
        case INS:
                if (size == 1)
                        REP("insb");
                else if (size == 2)
                        REP("insw");
                else
                        REP("insl");
                break;
        case OUTS:
                if (size == 1)
                        REP("outsb");
                else if (size == 2)
                        REP("outsw");
                else
                        REP("outsl");
                break;
        case STOS:
                if (size == 1)
                        REP("stosb");
                else if (size == 2)
                        REP("stosw");
                else if (size == 4)
                        REP("stosl");
                else
                        REP("stosq");
                break;
        default:
                if (size == 1)
                        REP("movsb");
                else if (size == 2)
                        REP("movsw");
                else if (size == 4)
                        REP("movsl");
                else
                        REP("movsq");
        }
}

static void store(uint64_t address, uint64_t x, unsigned size)
{
        if (size == 1)
                __asm__ volatile("movb %b0, (%1)" ::"r"(x), "r"(address) : "memory");
        else if (size == 2)
                __asm__ volatile("movw %w0, (%1)" ::"r"(x), "r"(address) : "memory");
        else if (size == 4)
                __asm__ volatile("movl %k0, (%1)" ::"r"(x), "r"(address) : "memory");
        else
                __asm__ volatile("movq %0, (%1)" ::"r"(x), "r"(address) : "memory");
}

static uint64_t load(uint64_t address, unsigned size)
{
        uint64_t x = 0;

        if (size == 1)
                __asm__ volatile("movb (%1), %b0" : "+r"(x) : "r"(address) : "memory");
        else if (size == 2)
                __asm__ volatile("movw (%1), %w0" : "+r"(x) : "r"(address) : "memory");
        else if (size == 4)
                __asm__ volatile("movl (%1), %k0" : "+r"(x) : "r"(address) : "memory");
        else
                __asm__ volatile("movq (%1), %0" : "+r"(x) : "r"(address) : "memory");
        return x;
}

/* ---- the console ---- */

static void console_begin(void)
{
        out(PORT_COM1 + 3, 0x80, 1); /* divisor 1 */
        out(PORT_COM1 + 0, 1, 1);
        out(PORT_COM1 + 1, 0, 1);
        out(PORT_COM1 + 3, 3, 1); /* 8n1 */
        out(PORT_COM1 + 1, 0, 1); /* no interrupts */
        out(PORT_COM1 + 4, 3, 1); /* no loop */
}

static void print(const char *text)
{
        for (; *text; text++) {
                /* Nobody may be there to read it. */
                for (unsigned left = 1000; left > 0 && !(in(PORT_COM1 + 5, 1) & 0x20); left--)
                        ;
                out(PORT_COM1, (uint8_t)*text, 1);
        }
}

static void print_hex(uint64_t x)
{
        char text[19] = "0x";

        for (unsigned i = 0; i < 16; i++)
                text[2 + i] = "0123456789abcdef"[x >> (60 - 4 * i) & 15];
        text[18] = '\0';
        print(text);
}

static void __attribute__((noreturn)) reset(void)
{
        static const struct {
                uint16_t limit;
                uint64_t base;
        } __attribute__((packed)) nothing = {0, 0};

        out(PORT_RESET, 2, 1);
        out(PORT_RESET, 6, 1);
        __asm__ volatile("lidt %0; int3" ::"m"(nothing));
        for (;;)
                __asm__ volatile("hlt");
}

static void __attribute__((noreturn)) power_off(void)
{
        out(PORT_PM1_CONTROL, 5u << 10 | 1u << 13, 2); /* acpi_pm.h: ACPI_PM_SLEEP_S5 */
        for (;;)
                __asm__ volatile("hlt");
}

void hostile_exception(uint64_t number, uint64_t rip)
{
        console_begin();
        print("\nhostile: exception ");
        print_hex(number);
        print(" at ");
        print_hex(rip);
        print("\n");
        reset();
}

/* ---- what would end the machine ---- */

/* Of a value that is to be written to a device's registers: no bits that make an interrupt message, or
 * a line of the interrupt controllers, an INIT or an SMI. They are the lowest three of each dword's
 * second byte. */
static uint64_t tame(uint64_t address, uint64_t x)
{
        for (unsigned i = 0; !wild && i < 8; i++)
                if (((address + i) & 3) == 1)
                        x &= ~(UINT64_C(7) << 8 * i);
        return x;
}

static bool covers(uint16_t port, unsigned size, uint16_t from, uint16_t to)
{
        return port <= to && port + size > from;
}

/* Of a value for a port; false: not this port. */
static bool tame_port(uint16_t port, unsigned size, uint32_t *x)
{
        /* DMA to anywhere; do_fw_cfg() does it to somewhere. */
        if (covers(port, size, PORT_FW_CFG + 4, PORT_FW_CFG + 11))
                return wild;
        if (wild)
                return true;
        if (covers(port, size, PORT_RESET, PORT_RESET) && !(port == PORT_PCI_ADDRESS && size == 4))
                return false;
        if (covers(port, size, PORT_KEYBOARD, PORT_KEYBOARD))
                *x &= ~UINT32_C(0x02020202); /* no 0xfe */
        if (covers(port, size, PORT_PM1_CONTROL, PORT_PM1_CONTROL + 1))
                *x &= ~UINT32_C(0x20202020); /* no sleep */
        return true;
}

/* ---- ports ---- */

static const struct {
        uint16_t from, to;
} devices[] = {
    {0x20, 0x21},
    {0x40, 0x43},
    {0x60, 0x64},
    {PORT_RTC, PORT_RTC + 1},
    {0xa0, 0xa1},
    {0x3f8, 0x3ff},
    {0x4d0, 0x4d1},
    {PORT_PVPANIC, PORT_PVPANIC},
    {PORT_FW_CFG, PORT_FW_CFG + 11},
    {PORT_PM1_EVENT, PORT_PM1_EVENT + 0x30},
    {PORT_PCI_HOTPLUG, PORT_PCI_HOTPLUG + 0x20},
    {PORT_PCI_ADDRESS, PORT_PCI_DATA + 3},
};

static uint16_t any_port(void)
{
        size_t which = below(2 * sizeof(devices) / sizeof(devices[0]));

        if (which >= sizeof(devices) / sizeof(devices[0]))
                return (uint16_t)any();
        return (uint16_t)(devices[which].from - 2 +
                          below(devices[which].to - devices[which].from + 5));
}

static void do_port(void)
{
        const unsigned size = 1u << below(3);
        const uint16_t port = any_port();
        const uint64_t scratch = SCRATCH + below(4096);
        uint32_t x = (uint32_t)value();

        switch (below(6)) {
        case 0:
                string(INS, port, scratch, 0, 1 + below(40), 0, size);
                break;
        case 1:
                for (unsigned i = 0; i < 40; i++) {
                        if (!tame_port(port, size, &x))
                                return;
                        store(scratch + i * size, x, size);
                }
                string(OUTS, port, 0, scratch, 1 + below(40), 0, size);
                break;
        case 2:
        case 3:
                in(port, size);
                break;
        default:
                if (tame_port(port, size, &x))
                        out(port, x, size);
        }
}

static void sweep_ports(void)
{
        for (unsigned size = 1; size <= 4; size *= 2)
                for (uint32_t port = 0; port <= 0xffff; port += size) {
                        uint32_t x = (uint32_t)value();

                        in((uint16_t)port, size);
                        if (tame_port((uint16_t)port, size, &x))
                                out((uint16_t)port, x, size);
                }
}

/* ---- memory that is none ---- */

/* An address at which there is no RAM. */
static uint64_t any_hole(void)
{
        switch (below(10)) {
        case 0:
                return LAYOUT_ECAM + below(LAYOUT_ECAM_SIZE + 64);
        case 1:
        case 2:
                return LAYOUT_PCI32 + below(LAYOUT_PCI32_END - LAYOUT_PCI32);
        case 3: /* where do_bar() puts most of them */
                return LAYOUT_PCI32 + below(0x20000);
        case 4:
                return LAYOUT_IOAPIC + below(0x50);
        case 5:
                return LAYOUT_LAPIC + below(0x400);
        case 6:
                return LAYOUT_PCI32_END + below(GIB(4) - LAYOUT_PCI32_END - 16);
        case 7:
                return memory_end + below(LAYOUT_ECAM - memory_end);
        case 8: /* across the end of a page */
                return LAYOUT_PCI32 - 8 + (below(8) << 12) + below(16);
        default: /* beyond 4 GiB: by the window */
                return GIB(4) + below((UINT64_C(1) << address_bits) - GIB(5));
        }
}

/* Where that can be accessed. What lies behind it is another hole. */
static uint64_t address_of(uint64_t hole)
{
        if (hole < GIB(4))
                return hole;
        window_directory[0] = (hole & ~(PAGE_LARGE - 1)) | 0x83;
        window_directory[1] = (LAYOUT_PCI32 + below(8) * PAGE_LARGE) | 0x83;
        __asm__ volatile("invlpg (%0); invlpg (%1)" ::"r"(WINDOW), "r"(WINDOW + PAGE_LARGE)
                         : "memory");
        return WINDOW + (below(4) == 0 ? PAGE_LARGE - below(9) : hole & (PAGE_LARGE - 1));
}

static void do_uncommon(uint64_t address, uint64_t x)
{
        switch (below(7)) {
        case 0:
                __asm__ volatile("lock xaddq %0, (%1)" : "+r"(x) : "r"(address) : "memory");
                break;
        case 1:
                __asm__ volatile("xchgq %0, (%1)" : "+r"(x) : "r"(address) : "memory");
                break;
        case 2:
                __asm__ volatile("orw %w0, (%1)" ::"r"(x & 0xf8f8), "r"(address) : "memory");
                break;
        case 3:
                __asm__ volatile("lock andl %k0, (%1)" ::"r"(x), "r"(address) : "memory");
                break;
        case 4:
                __asm__ volatile("movups (%0), %%xmm0" ::"r"(address) : "memory");
                break;
        case 5:
                __asm__ volatile("movups %%xmm0, (%0)" ::"r"(address) : "memory");
                break;
        default:
                __asm__ volatile("testb $0x80, (%0)" ::"r"(address) : "memory");
        }
}

static void do_memory(void)
{
        const unsigned size = size_of_access();
        const uint64_t address = address_of(any_hole()), scratch = SCRATCH + below(4096);
        const uint64_t x = tame(address, value());

        switch (below(8)) {
        case 0:
        case 1:
                load(address, size);
                break;
        case 2:
        case 3:
                store(address, x, size);
                break;
        case 4: /* in steps: what is tame at one place is not at the next */
                string(STOS, 0, address, 0, 1 + below(20),
                       wild ? x : x & UINT64_C(0xf8f8f8f8f8f8f8f8), size);
                break;
        case 5:
                string(MOVS_FROM, 0, scratch, address, 1 + below(20), 0, size);
                break;
        case 6:
                for (unsigned i = 0; i < 160; i += 8)
                        store(scratch + i, wild ? any() : any() & UINT64_C(0xf8f8f8f8f8f8f8f8), 8);
                string(MOVS_TO, 0, address, scratch, 1 + below(20), 0, size);
                break;
        default:
                do_uncommon(address, x);
        }
}

/* ---- PCI ---- */

static uint32_t config_address(unsigned slot, unsigned offset)
{
        return UINT32_C(0x80000000) | slot << 11 | (offset & 0xfc);
}

static uint32_t config_read(unsigned slot, unsigned offset, unsigned size)
{
        out(PORT_PCI_ADDRESS, config_address(slot, offset), 4);
        return in((uint16_t)(PORT_PCI_DATA + (offset & 3)), size);
}

static void config_write(unsigned slot, unsigned offset, uint32_t x, unsigned size)
{
        out(PORT_PCI_ADDRESS, config_address(slot, offset), 4);
        out((uint16_t)(PORT_PCI_DATA + (offset & 3)), x, size);
}

static unsigned any_slot(void)
{
        return (unsigned)below(below(4) ? 8 : 32);
}

static void do_config(void)
{
        unsigned size = 1u << below(3);
        uint64_t ecam =
            LAYOUT_ECAM + ((uint64_t)any_slot() << 15 | (below(16) ? 0 : below(8)) << 12 |
                           below(below(4) ? 0x110 : 4096));

        switch (below(5)) {
        case 0: /* with nonsense in it: other buses, functions, registers, misaligned */
                out(PORT_PCI_ADDRESS, (uint32_t)value() | (below(2) ? UINT32_C(0x80000000) : 0), 4);
                in((uint16_t)(PORT_PCI_DATA + below(4)), size);
                break;
        case 1:
                config_write(any_slot(), (unsigned)below(256), (uint32_t)value(), size);
                break;
        case 2:
                size = size_of_access();
                store(ecam, tame(ecam, value()), size);
                break;
        case 3:
                load(ecam, size_of_access());
                break;
        default:
                config_read(any_slot(), (unsigned)below(256), size);
        }
}

/* Where a BAR is put: in its place, over another, over what is none of the bus's, in the middle of
 * RAM. */
static void do_bar(void)
{
        const unsigned slot = any_slot(), bar = (unsigned)below(6);
        static const uint32_t odd[] = {(uint32_t)SCRATCH,
                                       0,
                                       (uint32_t)LAYOUT_ECAM,
                                       (uint32_t)LAYOUT_IOAPIC,
                                       0xffffffff,
                                       (uint32_t)LAYOUT_LAPIC,
                                       (uint32_t)LAYOUT_PCI32_END - 0x1000,
                                       0xfffff000};
        const uint32_t place = below(4) ? (uint32_t)(LAYOUT_PCI32 + below(32) * 0x1000)
                                        : odd[below(sizeof(odd) / sizeof(odd[0]))];

        if (below(4) == 0)
                config_write(slot, 4, (uint32_t)below(8), 2);
        config_write(slot, 0x10 + 4 * bar, place, 4);
        config_write(slot, 4, below(8) ? 6 : (uint32_t)value(), 2);
}

/* ---- virtio ---- */

enum {
        COMMON_STATUS = 0x14,
        COMMON_QUEUE = 0x16,
        COMMON_SIZE = 0x18,
        COMMON_VECTOR = 0x1a,
        COMMON_ENABLE = 0x1c,
        COMMON_DESCRIPTORS = 0x20,
        COMMON_AVAILABLE = 0x28,
        COMMON_USED = 0x30
};
#define NOTIFY 0x3000u

/* An address for a device: nonsense, or of memory that is ours to lose. */
static uint64_t address_for_device(void)
{
        switch (below(8)) {
        case 0:
                return wild ? value() : memory_end - below(64);
        case 1:
                return LAYOUT_ECAM + below(GIB(2));
        case 2:
                return UINT64_MAX - below(4096);
        default:
                return SCRATCH + (below(64) << 12) + (below(4) ? 0 : below(4096));
        }
}

static uint32_t length_for_device(void)
{
        switch (below(4)) {
        case 0:
                return 0;
        case 1:
                return UINT32_MAX - (uint32_t)below(16);
        default:
                return (uint32_t)below(20000);
        }
}

/* Rings of nonsense: chains that end nowhere, or never; indices that jump. */
static void fill_rings(uint64_t descriptors, uint64_t available)
{
        for (unsigned i = 0; i < 64; i++) {
                store(descriptors + i * 16, address_for_device(), 8);
                store(descriptors + i * 16 + 8, length_for_device(), 4);
                store(descriptors + i * 16 + 12, below(4) ? 2 + below(2) : below(8), 2);
                store(descriptors + i * 16 + 14, below(8) ? below(64) : any(), 2);
                store(available + 4 + i * 2, below(8) ? below(64) : any(), 2);
        }
        store(available, any() & 1, 2);
        store(available + 2, below(2) ? below(64) : any(), 2);
}

static bool is_ram(uint64_t address)
{
        return address >= SCRATCH && address < SCRATCH + SCRATCH_SIZE;
}

static void set_64(uint64_t at, uint64_t x)
{
        store(at, (uint32_t)x, 4);
        store(at + 4, x >> 32, 4);
}

static void start_device(uint64_t base)
{
        const uint16_t queues = (uint16_t)load(base + 0x12, 2);

        store(base + COMMON_STATUS, 0, 1);
        for (unsigned left = 100; left > 0 && load(base + COMMON_STATUS, 1) != 0; left--)
                ;
        store(base + COMMON_STATUS, 3, 1);
        for (unsigned i = 0; i < 2; i++) {
                uint64_t offered;

                store(base, i, 4);
                offered = load(base + 4, 4);
                store(base + 8, i, 4);
                /* Most of what there is, and VERSION_1. */
                store(base + 12, (offered & (below(2) ? UINT64_MAX : any())) | i, 4);
        }
        store(base + COMMON_STATUS, 11, 1);
        for (unsigned i = 0; i < queues && i < 8; i++) {
                const uint64_t descriptors = address_for_device(), available = address_for_device();

                store(base + COMMON_QUEUE, i, 2);
                if (below(2))
                        store(base + COMMON_SIZE, below(8) ? 64 : value(), 2);
                if (below(2))
                        store(base + COMMON_VECTOR, below(4), 2);
                set_64(base + COMMON_DESCRIPTORS, descriptors & ~UINT64_C(15));
                set_64(base + COMMON_AVAILABLE, available & ~UINT64_C(1));
                set_64(base + COMMON_USED, address_for_device() & ~UINT64_C(3));
                if (is_ram(descriptors) && is_ram(available))
                        fill_rings(descriptors & ~UINT64_C(15), available & ~UINT64_C(1));
                store(base + COMMON_ENABLE, 1, 2);
        }
        store(base + COMMON_STATUS, 15, 1);
}

static void do_virtio(void)
{
        const unsigned slot = any_slot();
        uint64_t base = LAYOUT_PCI32 + slot * UINT64_C(0x8000);

        if ((config_read(slot, 0, 4) & 0xffff) != 0x1af4)
                return;
        config_write(slot, 0x10, (uint32_t)base, 4);
        config_write(slot, 0x14, (uint32_t)base + 0x4000, 4);
        config_write(slot, 4, 6, 2);
        start_device(base);
        for (unsigned i = 0; i < 50; i++) {
                switch (below(8)) {
                case 0:
                        store(base + COMMON_STATUS, below(2) ? 15 : value(), 1);
                        break;
                case 1: /* a register of any of its pages */
                {
                        const uint64_t at = base + below(6) * 0x1000 + below(0x80);

                        store(at, tame(at, value()), size_of_access());
                        break;
                }
                case 2:
                        store(base + COMMON_QUEUE, below(8) ? below(4) : any(), 2);
                        break;
                case 3: /* a ring goes on while it is looked at */
                        for (unsigned n = 0; n < 16; n++)
                                store(SCRATCH + below(64 * 4096), any(), 2);
                        break;
                default:
                        store(base + NOTIFY + 4 * below(8), below(8), below(4) ? 2 : 4);
                }
        }
}

/* ---- fw_cfg ---- */

static void store_be(uint64_t at, uint64_t x, unsigned size)
{
        store(at, __builtin_bswap64(x) >> (64 - 8 * size), size);
}

static void do_fw_cfg(void)
{
        static const uint16_t keys[] = {0,    1,    2,    4,    5,    0xe,   0xf,
                                        0x19, 0x20, 0x21, 0x22, 0x23, 0xffff};
        const uint16_t key =
            below(4) ? keys[below(sizeof(keys) / sizeof(keys[0]))] : (uint16_t)any();
        uint64_t at = SCRATCH + below(4096);

        switch (below(4)) {
        case 0:
                out(PORT_FW_CFG, key, 2);
                string(INS, PORT_FW_CFG + 1, SCRATCH, 0, 1 + below(200), 0, 1);
                return;
        case 1: /* what tells where to is not there, or half */
                at = below(2) ? memory_end - below(17) : LAYOUT_ECAM + below(GIB(3));
                break;
        default:
                store_be(at, (uint64_t)key << 16 | below(32), 4);
                store_be(at + 4, length_for_device(), 4);
                store_be(at + 8, address_for_device(), 8);
        }
        out(PORT_FW_CFG + 4,
            __builtin_bswap32((uint32_t)(at >> 32) | (below(8) ? 0 : (uint32_t)any())), 4);
        out(PORT_FW_CFG + 8, __builtin_bswap32((uint32_t)at), 4);
}

/* ---- all of it ---- */

static void load_handlers(void)
{
        static struct {
                uint16_t low, selector, type, middle;
                uint32_t high, zero;
        } idt[32];
        const struct {
                uint16_t limit;
                uint64_t base;
        } __attribute__((packed)) idt_register = {sizeof(idt) - 1, (uint64_t)idt};

        for (unsigned i = 0; i < 32; i++) {
                const uint64_t at = (uint64_t)handlers + 16 * i;

                idt[i].low = (uint16_t)at;
                idt[i].selector = 8;
                idt[i].type = 0x8e00;
                idt[i].middle = (uint16_t)(at >> 16);
        }
        __asm__ volatile("lidt %0" ::"m"(idt_register));
}

static bool begins(const char *text, const char *word)
{
        while (*word)
                if (*text++ != *word++)
                        return false;
        return true;
}

/* The number behind @word on the command line; @otherwise where it is not. */
static uint64_t option(const char *cmdline, const char *word, uint64_t otherwise)
{
        for (; *cmdline; cmdline++)
                if (begins(cmdline, word)) {
                        uint64_t x = 0;

                        while (*word++)
                                cmdline++;
                        for (; *cmdline >= '0' && *cmdline <= '9'; cmdline++)
                                x = x * 10 + (uint64_t)(*cmdline - '0');
                        return x;
                }
        return otherwise;
}

/* The end of RAM below 4 GiB: the largest entry of the map that lies there. */
static uint64_t find_memory_end(uint64_t info)
{
        const uint64_t map = load(info + 40, 8), n = load(info + 48, 4);
        uint64_t end = 0;

        for (uint64_t i = 0; i < n; i++) {
                const uint64_t start = load(map + i * 24, 8), size = load(map + i * 24 + 8, 8);

                if (start + size <= LAYOUT_RAM_LOW_MAX && start + size > end)
                        end = start + size;
        }
        return end;
}

static void (*const acts[])(void) = {do_port,   do_port,   do_memory, do_memory, do_memory,
                                     do_config, do_config, do_bar,    do_virtio, do_fw_cfg};

void hostile_main(void)
{
        const char *cmdline = (const char *)load(start_info + 24, 8);
        uint64_t n = option(cmdline, "acts=", 1000);
        uint32_t eax = 0x80000008, ebx, ecx, edx;

        load_handlers();
        console_begin();
        __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "=c"(ecx), "=d"(edx));
        address_bits = eax & 0xff;
        memory_end = find_memory_end(start_info);
        seed = option(cmdline, "seed=", 1);
        wild = option(cmdline, "wild", 1) == 0;
        print("hostile: begins\n");
        if (option(cmdline, "ports", 1) == 0)
                sweep_ports();
        else
                while (n-- > 0)
                        acts[below(sizeof(acts) / sizeof(acts[0]))]();
        console_begin();
        print("\nhostile: done\n");
        power_off();
}
