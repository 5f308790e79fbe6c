/* fuzz_vmm_state.c - saved machines that nobody saved: a state as it is written, with any of its bytes
 * changed under right checksums, sections longer, shorter, missing, of other versions; and what a guest
 * does with the devices then. */
#include <assert.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "tests/fuzz/fuzz_loop.h"
#include "tests/fuzz/input.h"
#include "tests/vmm/machine_fixture.h"
#include "vmm-glue/vmm/vcpu.h"
#include "vmm-glue/vmm/virtio.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define HEAD         64u /* bytes of a section's head */
#define CHANGES_MAX  32u
#define ACCESSES_MAX 200u

static struct loop *loop;
static int seed;

static struct machine_fixture *make(void)
{
        static int (*const devices[])(struct machine *, struct error *) = {
            pci_create,     acpi_pm_create, serial_create,     rtc_create,     keyboard_create,
            pvpanic_create, fw_cfg_create,  virtio_rng_create, seed_blk_create};
        struct machine_fixture *f = fixture_new(LAYOUT_RAM_MIN, loop);

        f->config.seed = seed;
        run_init(&f->machine);
        for (size_t i = 0; i < sizeof(devices) / sizeof(devices[0]); i++)
                assert(devices[i](&f->machine, NULL) == 0);
        return f;
}

/* The machine is the loop's until what was asked is served; and that is nothing without vCPUs. */
static void end(struct machine_fixture *f)
{
        f->machine.run.ended = true;
        fuzz_loop_settle(loop);
        run_destroy(&f->machine, NULL);
        fixture_free(f);
        fuzz_loop_settle(loop);
}

/* As machine_save() writes it; but the chips and the vCPUs, which only KVM has. */
static void save(struct machine_fixture *f, struct state_writer *w)
{
        state_begin(w, "machine", 1);
        state_put32(w, f->machine.n_vcpus);
        state_put64(w, f->machine.memory.low_size);
        state_put64(w, f->machine.memory.high_size);
        state_put64(w, f->machine.acpi_gpa);
        state_put64(w, f->machine.rsdp_gpa);
        state_put32(w, 0);
        state_end(w);
        fixture_save(f, w);
}

/* Copy the sections, each changed as the input says. */
static void spoil(struct input *in, const struct state_writer *w, struct state_writer *ret_spoilt)
{
        const uint8_t touched = input_u8(in);
        unsigned index = 0;

        for (size_t at = 0; at < w->size; index++) {
                uint32_t length, version;
                const char *id = (const char *)w->data + at;
                uint8_t *bytes;

                memcpy(&version, w->data + at + 48, 4);
                memcpy(&length, w->data + at + 52, 4);
                bytes = malloc(length + 256);
                assert(bytes);
                memset(bytes, 0, length + 256);
                memcpy(bytes, w->data + at + HEAD, length);
                at += HEAD + length;
                if (touched >> (index % 8) & 1) {
                        const uint8_t how = input_u8(in);

                        if (how >= 0xfc) {
                                free(bytes);
                                continue;
                        }
                        if (how >= 0xf8)
                                version = (uint32_t)input_number(in, version);
                        if (how >= 0xf0)
                                length += input_u8(in);
                        else if (how >= 0xe8)
                                length -= length < how ? length : how;
                        for (unsigned i = 0; i < how % CHANGES_MAX && length > 0; i++) {
                                const uint64_t value = input_number(in, LAYOUT_RAM_MIN);
                                const size_t to = input_u16(in) % length;

                                for (unsigned k = 0; k < 1u << (input_u8(in) & 3); k++)
                                        bytes[(to + k) % length] = (uint8_t)(value >> 8 * k);
                        }
                }
                state_begin(ret_spoilt, id, version);
                state_put(ret_spoilt, bytes, length);
                state_end(ret_spoilt);
                free(bytes);
        }
}

static void use(struct input *in, struct machine_fixture *f)
{
        fixture_resume(f);
        for (unsigned i = 0; i < ACCESSES_MAX && in->left > 0; i++) {
                const uint8_t what = input_u8(in);
                const unsigned size = 1u << (what >> 4 & 3);
                const uint64_t address = LAYOUT_PCI32 + input_u16(in),
                               value = input_number(in, 4096);
                const uint16_t port = (uint16_t)address;

                switch (what & 7) {
                case 0:
                        fixture_read(f, address, size);
                        break;
                case 1:
                        fixture_write(f, address, value, size);
                        break;
                case 2:
                        fixture_read(f, LAYOUT_ECAM + ((address & 3) << 15 | (value & 0xfff)),
                                     size);
                        break;
                case 3:
                        fixture_write(f, LAYOUT_ECAM + ((address & 3) << 15 | (value & 0xff)),
                                      value >> 8, size);
                        break;
                case 4:
                        fixture_in(f, port, size & 7 ? size : 4);
                        break;
                case 5:
                        fixture_out(f, port, value, size & 7 ? size : 4);
                        break;
                case 6:
                        fuzz_loop_settle(loop);
                        break;
                default:
                        fixture_reset(f);
                }
        }
        fixture_pause(f);
}

/* A vCPU's, by itself: its registers are KVM's to judge, and what lies behind them is ours. */
static void read_vcpu(struct input *in)
{
        static struct vcpu_state vcpu;
        static uint8_t bytes[offsetof(struct vcpu_state, n_msrs) + 4096];
        const uint8_t *tail;
        const size_t registers = sizeof(vcpu.regs) + sizeof(vcpu.sregs) + sizeof(vcpu.xcrs) +
                                 sizeof(vcpu.debugregs) + sizeof(vcpu.events) + sizeof(vcpu.lapic) +
                                 sizeof(vcpu.mp_state);
        const size_t n = input_take(in, sizeof(bytes) - registers, &tail);
        struct state_reader r = {.data = bytes, .left = registers + n};

        if (n > 0)
                memcpy(bytes + registers, tail, n);
        if (vcpu_state_restore(&vcpu, &r, NULL) == 0)
                assert(vcpu.n_msrs <= VCPU_MSRS_MAX && vcpu.xsave_size <= VCPU_XSAVE_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct input in = {data, size};
        struct state_writer w = {0}, spoilt = {0};
        struct machine_fixture *f;
        struct error err = ERROR_INIT;
        int fd;

        if (!loop) {
                fuzz_quiet();
                signal(SIGPIPE, SIG_IGN); /* as whoever runs a machine does */
                loop = fuzz_loop_new();
                seed = memfd_create("seed", MFD_CLOEXEC);
                assert(seed >= 0 && ftruncate(seed, 1 << 16) == 0);
        }
        fd = fuzz_lowest_fd();
        fuzz_loop_reset(loop);
        f = make();
        save(f, &w);
        end(f);
        if (input_u8(&in) == 0xff) {
                read_vcpu(&in);
                state_writer_free(&w);
                return 0;
        }
        spoil(&in, &w, &spoilt);
        state_writer_free(&w);

        f = make();
        machine_lock(&f->machine);
        /* Without KVM's chips it fails at the end, at the latest. */
        assert(machine_restore(&f->machine, spoilt.data, spoilt.size, &err) < 0);
        machine_unlock(&f->machine);
        assert(err.message[0] != '\0');
        use(&in, f);
        fixture_save(f, &w);
        state_writer_free(&w);
        state_writer_free(&spoilt);
        end(f);
        assert(fuzz_lowest_fd() == fd);
        return 0;
}
