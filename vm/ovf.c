/* ovf.c - VM files and OVF descriptors: one in the other's terms. */
#include "vm/ovf.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NUMBER_MAX (sizeof("-16") - 1) /* behind a base: VM_DISKS_MAX */

/* ---- names ---- */

void vm_ovf_name(const char *text, char name[POOL_NAME_MAX + 1])
{
        size_t n = 0;

        for (; *text && n < POOL_NAME_MAX - NUMBER_MAX; text++) {
                unsigned char c = (unsigned char)*text;

                if (c < 0x80 && (isalnum(c) || (n > 0 && (c == '.' || c == '_'))))
                        name[n++] = (char)c;
                else if (n > 0 && name[n - 1] != '-')
                        name[n++] = '-';
        }
        while (n > 0 && name[n - 1] == '-')
                n--;
        name[n] = '\0';
}

int vm_ovf_volume(const char *base, size_t i, size_t n, char volume[POOL_NAME_MAX + 1],
                  struct error *err)
{
        char text[2 * (POOL_NAME_MAX + 1)];
        int r;

        if (n == 1)
                snprintf(text, sizeof(text), "%s", base);
        else
                snprintf(text, sizeof(text), "%.*s-%zu", (int)(POOL_NAME_MAX + 1), base, i + 1);
        r = pool_name_check(text, "volume", err);
        if (r == 0)
                memcpy(volume, text, strlen(text) + 1);
        return r;
}

/* ---- from a descriptor ---- */

/* Six bytes in hexadecimal, with colons, dashes or nothing between them. */
static bool parse_mac(const char *text, uint8_t mac[6])
{
        for (size_t i = 0; i < 6; i++) {
                char byte[3] = "";

                if (i > 0 && (*text == ':' || *text == '-'))
                        text++;
                if (!isxdigit((unsigned char)text[0]) || !isxdigit((unsigned char)text[1]))
                        return false;
                memcpy(byte, text, 2);
                mac[i] = (uint8_t)strtoul(byte, NULL, 16);
                text += 2;
        }
        return *text == '\0';
}

/* One that no card can have, or that another one has already, is no more than none. */
static void take_mac(struct vm_file *file, size_t i, const char *text)
{
        static const uint8_t none[6];
        struct vm_nic *nic = &file->nics[i];

        if (!text || !parse_mac(text, nic->mac) || nic->mac[0] & 1 ||
            memcmp(nic->mac, none, sizeof(none)) == 0)
                return;
        for (size_t k = 0; k < i; k++)
                if (file->nics[k].has_mac &&
                    memcmp(file->nics[k].mac, nic->mac, sizeof(nic->mac)) == 0)
                        return;
        nic->has_mac = true;
}

static uint64_t memory_of(const struct ovf_machine *m)
{
        uint64_t bytes = m->memory_bytes ? m->memory_bytes : VM_MEMORY_DEFAULT;

        if (bytes < VM_MEMORY_MIN)
                return VM_MEMORY_MIN;
        if (bytes > VM_MEMORY_MAX) /* refused below; rounded it might be a little again */
                return bytes;
        return (bytes + VM_MEMORY_UNIT - 1) / VM_MEMORY_UNIT * VM_MEMORY_UNIT;
}

static int check_counts(const struct ovf_machine *m, const char *name, struct error *err)
{
        if (m->n_disks == 0)
                return error_set(err, -EINVAL, "machine '%s' has no disk", name);
        if (m->n_disks > VM_DISKS_MAX || m->n_nics > VM_NICS_MAX)
                return error_set(err, -EINVAL,
                                 "machine '%s' has %zu disks and %zu network cards: at most %u and "
                                 "%u can be",
                                 name, m->n_disks, m->n_nics, VM_DISKS_MAX, VM_NICS_MAX);
        if (memory_of(m) > VM_MEMORY_MAX)
                return error_set(err, -EINVAL, "machine '%s' has more memory than 1 TiB", name);
        return 0;
}

static int fill(struct vm_file *file, const struct ovf_machine *m, const char *pool,
                const char *base, struct error *err)
{
        file->disks = calloc(m->n_disks, sizeof(*file->disks));
        file->nics = calloc(m->n_nics + 1, sizeof(*file->nics));
        if (!file->disks || !file->nics)
                return error_set(err, -ENOMEM, "out of memory");
        file->n_nics = m->n_nics;
        for (size_t i = 0; i < m->n_nics; i++)
                take_mac(file, i, m->nics[i].mac);
        file->n_disks = m->n_disks;
        for (size_t i = 0; i < m->n_disks; i++) {
                struct vm_disk *disk = &file->disks[i];
                int r = vm_ovf_volume(base, i, m->n_disks, disk->volume, err);

                if (r < 0)
                        return r;
                snprintf(disk->pool, sizeof(disk->pool), "%s", pool);
        }
        return 0;
}

int vm_file_from_ovf(const struct ovf_machine *machine, const char *name, const char *pool,
                     const char *base, struct vm_file **ret_file, struct error *err)
{
        struct vm_file *file;
        int r = pool_name_check(name, "machine", err);

        if (r == 0)
                r = check_counts(machine, name, err);
        if (r < 0)
                return r;
        file = calloc(1, sizeof(*file));
        if (!file)
                return error_set(err, -ENOMEM, "out of memory");
        snprintf(file->name, sizeof(file->name), "%s", name);
        file->n_cpus = machine->n_cpus == 0            ? 1
                       : machine->n_cpus > VM_CPUS_MAX ? VM_CPUS_MAX
                                                       : (unsigned)machine->n_cpus;
        file->memory_bytes = file->memory_max_bytes = memory_of(machine);
        file->rng = file->balloon = true;
        r = fill(file, machine, pool, base, err);
        if (r < 0)
                vm_file_free(file);
        else
                *ret_file = file;
        return r;
}

/* ---- to a descriptor ---- */

/* UEFI PI 1.7, volume 3, 3.2.1: a firmware volume has its signature at offset 40. */
static bool is_efi(const char *firmware)
{
        char head[44];
        int fd = firmware ? open(firmware, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
        bool is = fd >= 0 && read(fd, head, sizeof(head)) == sizeof(head) &&
                  memcmp(head + 40, "_FVH", 4) == 0;

        if (fd >= 0)
                close(fd);
        return is;
}

static bool put_nic(const struct vm_nic *nic, struct ovf_nic *ret)
{
        const uint8_t *mac = nic->mac;

        ret->network = strdup(nic->type == VM_NIC_TAP ? "Bridged" : "NAT");
        if (nic->has_mac && asprintf(&ret->mac, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1],
                                     mac[2], mac[3], mac[4], mac[5]) < 0) {
                ret->mac = NULL;
                return false;
        }
        return ret->network != NULL;
}

int vm_file_to_ovf(const struct vm_file *file, struct ovf_machine *ret_machine, struct error *err)
{
        struct ovf_machine m = {.name = strdup(file->name),
                                .n_cpus = file->n_cpus,
                                .memory_bytes = file->memory_bytes,
                                .is_efi = is_efi(file->firmware),
                                .disks = calloc(file->n_disks + 1, sizeof(*m.disks)),
                                .nics = calloc(file->n_nics + 1, sizeof(*m.nics))};
        bool done = m.name && m.disks && m.nics;

        for (size_t i = 0; done && i < file->n_disks; i++)
                m.disks[m.n_disks++].controller = OVF_SATA;
        for (size_t i = 0; done && i < file->n_nics; i++)
                done = put_nic(&file->nics[i], &m.nics[m.n_nics++]);
        if (!done) {
                ovf_machine_clear(&m);
                return error_set(err, -ENOMEM, "out of memory");
        }
        *ret_machine = m;
        return 0;
}
