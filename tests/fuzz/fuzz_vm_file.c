/* fuzz_vm_file.c - a virtual machine's file: read; and where it is one, held against every limit,
 * written, and read again. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "tests/fuzz/input.h"
#include "vm/file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const words[] = {
    "name: web\n",
    "kernel: k\n",
    "initrd: i\n",
    "cmdline: ",
    "firmware: seabios\n",
    "uuid: 00112233-4455-6677-8899-aabbccddeeff\n",
    "cpus: ",
    "cpu-weight: ",
    "cpu-max: ",
    "memory: ",
    "memory-max: ",
    "hugepages: ",
    "disks:\n",
    "- volume: t/v",
    "volume: t/w@s",
    "readonly: ",
    "serial: ",
    "queues: ",
    "boot: ",
    "from: ",
    "size: ",
    "network:\n",
    "- type: user\n",
    "- type: tap\n",
    "  tap: t0\n",
    "  mac: 52:54:00:12:34:56\n",
    "  forward:\n",
    "  - tcp:80:8080\n",
    "  - udp:[::1]:53:53\n",
    "vsock: {cid: ",
    "rng: ",
    "balloon: ",
    "seed: {",
    "hostname: ",
    "ssh-keys: [ssh-rsa AAAA",
    "user-data: u",
    "meta-data: m",
    "network-config: n",
    "console-log: ",
    "autostart: ",
    "on-crash: reboot\n",
    "true",
    "off",
    "1",
    "64",
    "G",
    "M",
    "%",
    "t/v",
    "@s",
    "\n",
    "\n  ",
    "\n    ",
    "- ",
    ": ",
    ", ",
    "{",
    "}",
    "[",
    "]",
    "'",
    "\"",
    "\\x",
    "|\n",
    ">-\n",
    "&a ",
    "*a",
    "!!str ",
    "? ",
    "#",
    "---\n",
    "\t",
    "\xc3\xa4",
    "\xff\xfe",
    "\xef\xbb\xbf",
};

static void check_disk(const struct vm_disk *d)
{
        assert(d->pool[0] && d->volume[0]);
        assert(!d->snapshot[0] || (d->readonly && !d->from_image && !d->from_volume[0]));
        assert(!d->from_image || (d->from_image[0] == '/' && !d->from_volume[0]));
        assert(!d->from_volume[0] == !d->from_snapshot[0]);
        assert(d->size_bytes <= VOLUME_SIZE_MAX && d->size_bytes % 512 == 0);
        assert(d->n_queues <= VM_DISK_QUEUES_MAX && d->boot <= VM_DISKS_MAX);
        for (const char *p = d->serial; *p; p++)
                assert(*p >= ' ' && *p <= '~');
}

static void check_nic(const struct vm_nic *n)
{
        assert(n->type == VM_NIC_TAP ? n->tap[0] && n->n_forwards == 0 : !n->tap[0]);
        assert(!n->has_mac || !(n->mac[0] & 1));
        assert(n->n_forwards <= VM_FORWARDS_MAX);
        for (size_t i = 0; i < n->n_forwards; i++)
                assert(n->forwards[i].host_port && n->forwards[i].guest_port);
}

static void check(const struct vm_file *f)
{
        assert(f->name[0] && f->n_cpus >= 1 && f->n_cpus <= VM_CPUS_MAX);
        assert(f->memory_bytes >= VM_MEMORY_MIN && f->memory_bytes <= f->memory_max_bytes);
        assert(f->memory_max_bytes <= VM_MEMORY_MAX);
        assert(f->memory_bytes % VM_MEMORY_UNIT == 0 && f->memory_max_bytes % VM_MEMORY_UNIT == 0);
        assert(f->kernel ? !f->firmware : f->n_disks > 0 && !f->initrd && !f->cmdline);
        assert(!f->kernel || f->kernel[0] == '/');
        assert(!f->cmdline || strlen(f->cmdline) <= VM_CMDLINE_MAX);
        assert(f->n_disks <= VM_DISKS_MAX && f->n_nics <= VM_NICS_MAX);
        assert(f->cpu_weight <= VM_CPU_WEIGHT_MAX && f->cpu_max_percent <= VM_CPU_MAX_PERCENT_MAX);
        assert(f->vsock_cid == 0 || (f->vsock_cid >= VM_CID_MIN && f->vsock_cid <= VM_CID_MAX));
        for (size_t i = 0; i < f->n_disks; i++)
                check_disk(&f->disks[i]);
        for (size_t i = 0; i < f->n_nics; i++)
                check_nic(&f->nics[i]);
        if (f->seed)
                assert(f->seed->n_ssh_keys <= VM_SSH_KEYS_MAX);
}

/* What could be read is what is read again. */
static void write_and_read(const struct vm_file *file)
{
        struct vm_file *again = NULL;
        char *first, *second;
        int r = vm_file_write(file, &first, NULL);

        assert(r == 0);
        if (strlen(first) <= VM_FILE_MAX) { /* paths have grown */
                r = vm_file_parse(first, strlen(first), "first", "/elsewhere", &again, NULL);
                assert(r == 0);
                r = vm_file_write(again, &second, NULL);
                assert(r == 0 && strcmp(first, second) == 0);
                free(second);
        }
        vm_file_free(again);
        free(first);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static struct output out;
        struct input in = {data, size};
        struct vm_file *file = NULL;
        struct error err = ERROR_INIT;

        for (out.n = 0; in.left > 0;)
                input_words(&in, words, sizeof(words) / sizeof(words[0]), &out);
        int r = vm_file_parse(out.bytes, out.n, "web.yaml", "/srv", &file, &err);
        if (r == 0) {
                check(file);
                write_and_read(file);
                vm_file_free(file);
        } else {
                assert(r < 0 && !file && r == err.code);
                assert(strncmp(err.message, "web.yaml:", 9) == 0);
        }
        return 0;
}
