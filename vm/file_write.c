/* file_write.c - a struct vm_file as a text: what is as by default is left away. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/state.h"
#include "vm/file_internal.h"

/* @failed: memory ran out; what is there until then is released as any struct raw_file. */
struct writer {
        bool failed;
};

static void __attribute__((format(printf, 3, 4)))
put(struct writer *w, char **slot, const char *format, ...)
{
        va_list args;

        va_start(args, format);
        if (vasprintf(slot, format, args) < 0) {
                *slot = NULL;
                w->failed = true;
        }
        va_end(args);
}

static void put_text(struct writer *w, char **slot, const char *text)
{
        if (text && text[0])
                put(w, slot, "%s", text);
}

static void put_bool(struct writer *w, char **slot, bool value, bool by_default)
{
        if (value != by_default)
                put(w, slot, "%s", value ? "true" : "false");
}

static void put_number(struct writer *w, char **slot, unsigned value)
{
        if (value)
                put(w, slot, "%u", value);
}

/* In the largest unit that leaves no rest. */
static void put_size(struct writer *w, char **slot, uint64_t bytes)
{
        static const char units[] = "KMGT";
        int unit = -1;

        while (bytes && bytes % 1024 == 0 && unit < 3) {
                bytes /= 1024;
                unit++;
        }
        if (unit < 0)
                put(w, slot, "%llu", (unsigned long long)bytes);
        else
                put(w, slot, "%llu%c", (unsigned long long)bytes, units[unit]);
}

static void *put_list(struct writer *w, size_t n, size_t size)
{
        void *list = n ? calloc(n, size) : NULL;

        if (n && !list)
                w->failed = true;
        return list;
}

static void write_disk(struct writer *w, const struct vm_disk *disk, struct raw_disk *raw)
{
        char text[VM_DISK_TEXT_SIZE];

        put(w, &raw->volume, "%s", vm_disk_text(disk, text));
        put_bool(w, &raw->readonly, disk->readonly, disk->snapshot[0] != '\0');
        put_text(w, &raw->serial, disk->serial);
        put_number(w, &raw->queues, disk->n_queues);
        put_number(w, &raw->boot, disk->boot);
        put_text(w, &raw->from, disk->from_image);
        if (disk->from_volume[0])
                put(w, &raw->from, "%s/%s@%s", disk->pool, disk->from_volume, disk->from_snapshot);
        if (disk->size_bytes)
                put_size(w, &raw->size, disk->size_bytes);
}

static void write_forward(struct writer *w, const struct vm_forward *forward, char **raw)
{
        const char *protocol = forward->udp ? "udp" : "tcp";
        bool six = strchr(forward->address, ':') != NULL;

        put(w, raw, "%s:%s%s%s%s%u:%u", protocol, six ? "[" : "", forward->address, six ? "]" : "",
            forward->address[0] ? ":" : "", forward->host_port, forward->guest_port);
}

static void write_nic(struct writer *w, const struct vm_nic *nic, struct raw_nic *raw)
{
        const uint8_t *mac = nic->mac;

        put(w, &raw->type, "%s", nic->type == VM_NIC_TAP ? "tap" : "user");
        put_text(w, &raw->tap, nic->tap);
        if (nic->has_mac)
                put(w, &raw->mac, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3],
                    mac[4], mac[5]);
        raw->forward = put_list(w, nic->n_forwards, sizeof(char *));
        if (!raw->forward)
                return;
        raw->forward_count = (unsigned)nic->n_forwards;
        for (size_t i = 0; i < nic->n_forwards; i++)
                write_forward(w, &nic->forwards[i], &raw->forward[i]);
}

static void write_seed(struct writer *w, const struct vm_seed *seed, struct raw_seed **ret_raw)
{
        struct raw_seed *raw = put_list(w, 1, sizeof(*raw));

        *ret_raw = raw;
        if (!raw)
                return;
        put_text(w, &raw->hostname, seed->hostname);
        put_text(w, &raw->user_data, seed->user_data);
        put_text(w, &raw->meta_data, seed->meta_data);
        put_text(w, &raw->network_config, seed->network_config);
        raw->ssh_keys = put_list(w, seed->n_ssh_keys, sizeof(char *));
        if (!raw->ssh_keys)
                return;
        raw->ssh_keys_count = (unsigned)seed->n_ssh_keys;
        for (size_t i = 0; i < seed->n_ssh_keys; i++)
                put(w, &raw->ssh_keys[i], "%s", seed->ssh_keys[i]);
}

static void write_lists(struct writer *w, const struct vm_file *file, struct raw_file *raw)
{
        raw->disks = put_list(w, file->n_disks, sizeof(*raw->disks));
        if (raw->disks)
                raw->disks_count = (unsigned)file->n_disks;
        for (unsigned i = 0; i < raw->disks_count; i++)
                write_disk(w, &file->disks[i], &raw->disks[i]);
        raw->network = put_list(w, file->n_nics, sizeof(*raw->network));
        if (raw->network)
                raw->network_count = (unsigned)file->n_nics;
        for (unsigned i = 0; i < raw->network_count; i++)
                write_nic(w, &file->nics[i], &raw->network[i]);
}

static void write_machine(struct writer *w, const struct vm_file *file, struct raw_file *raw)
{
        static const uint8_t none[16];
        char uuid[UUID_TEXT_SIZE];

        put(w, &raw->name, "%s", file->name);
        if (memcmp(file->uuid, none, 16) != 0) {
                uuid_format(file->uuid, uuid);
                put_text(w, &raw->uuid, uuid);
        }
        put_number(w, &raw->cpus, file->n_cpus);
        put_number(w, &raw->cpu_weight, file->cpu_weight);
        if (file->cpu_max_percent)
                put(w, &raw->cpu_max, "%u%%", file->cpu_max_percent);
        put_size(w, &raw->memory, file->memory_bytes);
        if (file->memory_max_bytes != file->memory_bytes)
                put_size(w, &raw->memory_max, file->memory_max_bytes);
        put_bool(w, &raw->hugepages, file->hugepages, false);
        put_text(w, &raw->firmware, file->firmware);
        put_text(w, &raw->kernel, file->kernel);
        put_text(w, &raw->initrd, file->initrd);
        put_text(w, &raw->cmdline, file->cmdline);
}

static void write_rest(struct writer *w, const struct vm_file *file, struct raw_file *raw)
{
        if (file->vsock_cid) {
                raw->vsock = put_list(w, 1, sizeof(*raw->vsock));
                if (raw->vsock)
                        put_number(w, &raw->vsock->cid, file->vsock_cid);
        }
        put_bool(w, &raw->rng, file->rng, true);
        put_bool(w, &raw->balloon, file->balloon, true);
        if (file->seed)
                write_seed(w, file->seed, &raw->seed);
        put_text(w, &raw->console_log, file->console_log);
        put_bool(w, &raw->autostart, file->autostart, false);
        if (file->on_crash == VM_ON_CRASH_REBOOT)
                put(w, &raw->on_crash, "reboot");
}

int vm_file_write(const struct vm_file *file, char **ret_text, struct error *err)
{
        struct raw_file *raw = calloc(1, sizeof(*raw));
        struct writer w = {.failed = !raw};
        int r;

        if (raw) {
                write_machine(&w, file, raw);
                write_lists(&w, file, raw);
                write_rest(&w, file, raw);
        }
        r = w.failed ? error_set(err, -ENOMEM, "out of memory") : raw_save(raw, ret_text, err);
        raw_free(raw);
        return r;
}
