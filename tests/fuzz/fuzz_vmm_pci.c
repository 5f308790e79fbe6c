/* fuzz_vmm_pci.c - a hostile guest at the PCI bus: configuration space, BARs, MSI-X, virtio registers and
 * rings, of the devices that are processed here, while they are paused, saved, restored, ejected. */
#include <linux/virtio_config.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "tests/fuzz/fuzz_loop.h"
#include "tests/fuzz/input.h"
#include "tests/vmm/guest.h"
#include "vmm-glue/vmm/pci.h"
#include "vmm-glue/vmm/virtio.h"
#include "vmm-glue/vmm/virtio_pci.h"

#define MEMORY       MIB(32)
#define RINGS        MIB(1) /* each device's, 64 KiB apart; its indirect table behind them */
#define TABLE        UINT64_C(0x8000)
#define RING_SIZE    16u
#define SEED_SECTORS 32u
#define SLOTS        4u /* bridge, entropy, seed, entropy that comes and goes */
#define GOING        3u
#define ACTS_MAX     400u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct play {
        struct machine_fixture *f;
        struct loop *loop;
        struct input *in;
        int seed;
};

static struct machine_fixture *new_machine(const struct play *p)
{
        struct machine_fixture *f = fixture_new(MEMORY, p->loop);

        f->config.seed = p->seed;
        if (pci_create(&f->machine, NULL) < 0 || virtio_rng_create(&f->machine, NULL) < 0 ||
            seed_blk_create(&f->machine, NULL) < 0 || virtio_rng_create(&f->machine, NULL) < 0)
                abort();
        return f;
}

static void free_machine(const struct play *p, struct machine_fixture *f)
{
        fixture_free(f);
        fuzz_loop_settle(p->loop);
}

static unsigned a_size(struct input *in)
{
        return 1u << (input_u8(in) & 3);
}

static unsigned a_slot(struct input *in)
{
        return 1 + input_u8(in) % (SLOTS - 1);
}

static struct guest_device device(const struct play *p, unsigned slot)
{
        uint64_t bar = GUEST_BAR + (slot - 1) * 0x10000u;

        return (struct guest_device){p->f, slot, bar, bar + 0x8000};
}

/* ---- what a guest does ---- */

static void port(struct play *p)
{
        uint8_t which = input_u8(p->in);
        uint16_t at = which & 0x80 ? (uint16_t)(PORT_PCI_HOTPLUG + which % 16)
                                   : (uint16_t)(PORT_PCI_ADDRESS + which % 8);
        unsigned size = a_size(p->in);

        if (which & 0x40)
                fixture_in(p->f, at, size);
        else
                fixture_out(p->f, at, input_number(p->in, 0x80000800), size);
}

static void config(struct play *p)
{
        uint8_t what = input_u8(p->in);
        unsigned slot = what % SLOTS, offset = input_u8(p->in), size = a_size(p->in);

        if (what & 0x80)
                guest_config_read(p->f, slot, offset, size);
        else
                guest_config_write(p->f, slot, offset, size,
                                   (uint32_t)input_number(p->in, GUEST_BAR));
}

/* In the pages of the BARs that devices have registers in. */
static void bar(struct play *p)
{
        uint8_t what = input_u8(p->in);
        struct guest_device d = device(p, 1 + what % (SLOTS - 1));
        uint64_t page = (what >> 2 & 7) * VIRTIO_PCI_PAGE;
        uint64_t at = (page < VIRTIO_PCI_BAR_SIZE ? d.bar + page : d.msix_bar);
        unsigned size = a_size(p->in);

        at += what & 0x20 ? input_u16(p->in) % VIRTIO_PCI_PAGE : input_u8(p->in);
        if (what & 0x80)
                fixture_read(p->f, at, size);
        else
                fixture_write(p->f, at, input_number(p->in, RINGS), size);
}

/* As a driver does it, but with features as the input says. */
static void bring_up(struct play *p)
{
        unsigned slot = a_slot(p->in);
        uint64_t features = input_u64(p->in);
        struct guest_device d;

        if (guest_config_read(p->f, slot, PCI_VENDOR_ID, 2) == 0xffff)
                return;
        d = guest_device(p->f, slot);
        if (guest_common(&d, VIRTIO_PCI_COMMON_NUMQ, 2) != 1)
                return; /* it lies below another one's BAR */
        guest_begin(&d, features);
        if (features & 1)
                guest_msix_on(&d, 2);
        guest_set_common(&d, VIRTIO_PCI_COMMON_Q_SELECT, 2, 0);
        if (features & 1)
                guest_set_common(&d, VIRTIO_PCI_COMMON_Q_MSIX, 2, 1);
        guest_ring(&d, 0, RING_SIZE, RINGS + slot * 0x10000);
        guest_ready(&d);
}

static void descriptor(struct play *p)
{
        uint8_t what = input_u8(p->in);
        uint64_t at = RINGS + (1 + what % (SLOTS - 1)) * 0x10000u + (what & 0x80 ? TABLE : 0);
        struct vring_desc *d = guest_memory_at(p->f, at + (what >> 3 & 15) * sizeof(*d), 16);

        d->addr = htole64(input_number(p->in, RINGS + (1 + what % (SLOTS - 1)) * 0x10000u + TABLE));
        d->len = htole32((uint32_t)input_number(p->in, MEMORY));
        d->flags = htole16(input_u8(p->in) & 7);
        d->next = htole16(input_u8(p->in) % (RING_SIZE + 2));
}

static void make_available(struct play *p)
{
        uint8_t what = input_u8(p->in), head = input_u8(p->in);
        struct guest_device d = device(p, 1 + what % (SLOTS - 1));
        uint64_t gpa = RINGS + d.slot * 0x10000u + 16u * RING_SIZE;
        struct vring_avail *available = guest_memory_at(p->f, gpa, 6 + 2 * RING_SIZE);
        struct guest_ring r = {.d = &d, .size = RING_SIZE, .available = available};

        guest_make_available(&r, head % (RING_SIZE + 1));
        if (what & 0x80)
                guest_kick(&r);
}

static void write_memory(struct play *p)
{
        uint64_t at = input_number(p->in, RINGS + 0x10000) % (MEMORY - 64), value;
        const uint8_t *bytes;
        size_t n = input_take(p->in, input_u8(p->in) % 64, &bytes);

        value = input_u64(p->in);
        if (n > 0)
                memcpy(guest_memory_at(p->f, at, n), bytes, n);
        memcpy(guest_memory_at(p->f, at + n % 56, 8), &value, 8);
}

/* ---- what the machine does ---- */

static void spoil(struct play *p, struct state_writer *w)
{
        for (unsigned n = input_u8(p->in) % 8; n > 0 && w->size > 0; n--) {
                size_t at = input_u16(p->in) % w->size;

                w->data[at] = input_u8(p->in);
        }
}

/* Another machine goes on with what this one had, or with what the input makes of that. */
static void move(struct play *p)
{
        struct machine_fixture *other;
        struct list *to;
        bool good = true;

        if (pci_slot_used_mask(&p->f->machine) != (1u << SLOTS) - 1)
                return; /* something is leaving */
        fixture_pause(p->f);
        other = new_machine(p);
        to = other->machine.devices.next;
        list_for_each (it, &p->f->machine.devices) {
                struct device *from = container_of(it, struct device, link);
                struct device *into = container_of(to, struct device, link);
                struct state_writer w = {0};
                struct state_reader r;

                from->ops->save(from, &w);
                spoil(p, &w);
                r = (struct state_reader){.data = w.data, .left = w.size, .version = 1};
                if (into->ops->restore(into, &r, NULL) < 0 || state_finish(&r, "", NULL) < 0)
                        good = false;
                state_writer_free(&w);
                to = to->next;
        }
        if (good) {
                memcpy(guest_memory_at(other, RINGS, 0x40000),
                       guest_memory_at(p->f, RINGS, 0x40000), 0x40000);
                struct machine_fixture *old = p->f;

                p->f = other;
                other = old;
        }
        free_machine(p, other);
        fixture_resume(p->f);
}

static void machine(struct play *p)
{
        switch (input_u8(p->in) % 8) {
        case 0:
                fixture_pause(p->f);
                break;
        case 1:
                fixture_resume(p->f);
                break;
        case 2:
                fixture_reset(p->f);
                break;
        case 3:
                pci_assign_bars(&p->f->machine);
                break;
        case 4:
                list_for_each (it, &p->f->machine.devices) {
                        struct device *d = container_of(it, struct device, link);

                        if (d->link.next == &p->f->machine.devices && strcmp(d->id, "rng") == 0 &&
                            (pci_slot_used_mask(&p->f->machine) & 1u << GOING))
                                virtio_detach(container_of(d, struct virtio_pci, device)->v, NULL);
                }
                break;
        case 5:
                fuzz_loop_settle(p->loop); /* the one that was there is gone */
                if (!(pci_slot_used_mask(&p->f->machine) & 1u << GOING) &&
                    virtio_rng_create(&p->f->machine, NULL) < 0)
                        abort();
                break;
        default:
                move(p);
        }
}

static void act(struct play *p)
{
        switch (input_u8(p->in) % 12) {
        case 0:
                port(p);
                break;
        case 1:
                config(p);
                break;
        case 2:
        case 3:
                bar(p);
                break;
        case 4:
                bring_up(p);
                break;
        case 5:
        case 6:
                descriptor(p);
                break;
        case 7:
                make_available(p);
                break;
        case 8:
                write_memory(p);
                break;
        case 9:
                fuzz_loop_settle(p->loop);
                break;
        case 10:
                fixture_deliver(p->f);
                break;
        default:
                machine(p);
        }
}

static int make_seed(void)
{
        uint8_t sector[512] = {0};
        int fd = memfd_create("seed", MFD_CLOEXEC);

        for (unsigned i = 0; i < SEED_SECTORS; i++)
                if (write(fd, sector, sizeof(sector)) != sizeof(sector))
                        abort();
        return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static struct loop *loop;
        static int seed = -1;
        struct input in = {data, size};
        struct play p = {.in = &in};
        int lowest;

        fuzz_quiet();
        if (!loop) {
                loop = fuzz_loop_new();
                seed = make_seed();
        }
        lowest = fuzz_lowest_fd();
        fuzz_loop_reset(loop);
        fuzz_loop_allow_busy(loop, true); /* rings may lie on one another */
        p.loop = loop;
        p.seed = seed;
        p.f = new_machine(&p);
        for (unsigned i = 0; i < ACTS_MAX && in.left > 0; i++)
                act(&p);
        fuzz_loop_settle(loop);
        free_machine(&p, p.f);
        if (fuzz_lowest_fd() != lowest)
                abort();
        return 0;
}
