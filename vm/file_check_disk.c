/* file_check_disk.c - the disks of a VM file. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/size.h"
#include "vm/file_internal.h"

/* Take the name up to @end (where there is no @end, all of it) out of @text. */
static int take_name(const char *text, const char *end, const char *what,
                     char name[POOL_NAME_MAX + 1], struct error *err)
{
        size_t n = end ? (size_t)(end - text) : strlen(text);

        if (n > POOL_NAME_MAX)
                return error_set(err, -EINVAL,
                                 "the name of the %s has %zu characters, at most %u are allowed",
                                 what, n, POOL_NAME_MAX);
        memcpy(name, text, n);
        name[n] = '\0';
        return pool_name_check(name, what, err);
}

/* POOL/VOLUME[@SNAPSHOT]; without a snapshot, @snapshot is empty. */
static int take_target(const char *text, char pool[POOL_NAME_MAX + 1],
                       char volume[POOL_NAME_MAX + 1], char snapshot[POOL_NAME_MAX + 1],
                       struct error *err)
{
        const char *slash = strchr(text, '/'), *at = strchr(text, '@');
        int r;

        snapshot[0] = '\0';
        if (!slash || (at && at < slash))
                return error_set(err, -EINVAL,
                                 "'%.80s' is not POOL/VOLUME or "
                                 "POOL/VOLUME@SNAPSHOT",
                                 text);
        r = take_name(text, slash, "pool", pool, err);
        if (r == 0)
                r = take_name(slash + 1, at, "volume", volume, err);
        if (r == 0 && at)
                r = take_name(at + 1, NULL, "snapshot", snapshot, err);
        return r;
}

static int check_volume(const struct check *c, const struct raw_disk *raw, struct vm_disk *disk)
{
        if (take_target(raw->volume, disk->pool, disk->volume, disk->snapshot, c->err) < 0)
                return check_place(c, "volume");
        disk->readonly = disk->snapshot[0] != '\0';
        int r = check_bool(c, "readonly", raw->readonly, &disk->readonly);
        if (r == 0 && disk->snapshot[0] && !disk->readonly) {
                check_failed(c, "readonly", "nobody can write to a snapshot");
                error_hint(c->err,
                           "a volume of its own is made by 'volume: %.63s/NEW' with "
                           "'from: %.80s'",
                           disk->pool, raw->volume);
                return -EINVAL;
        }
        return r;
}

/* What is POOL/VOLUME@SNAPSHOT to the letter is a snapshot; all else is a path. */
static int check_from(const struct check *c, const struct raw_disk *raw, struct vm_disk *disk)
{
        char pool[POOL_NAME_MAX + 1], volume[POOL_NAME_MAX + 1], snapshot[POOL_NAME_MAX + 1];

        if (!raw->from)
                return 0;
        if (disk->snapshot[0])
                return check_failed(c, "from", "a snapshot is not made from anything");
        if (take_target(raw->from, pool, volume, snapshot, NULL) < 0 || !snapshot[0])
                return check_path(c, "from", raw->from, &disk->from_image);
        if (strcmp(pool, disk->pool) != 0) {
                check_failed(c, "from",
                             "a volume of pool '%s' cannot be a clone of a snapshot of "
                             "pool '%s'",
                             disk->pool, pool);
                error_hint(c->err, "where an image file is meant, begin with './'");
                return -EINVAL;
        }
        memcpy(disk->from_volume, volume, sizeof(volume));
        memcpy(disk->from_snapshot, snapshot, sizeof(snapshot));
        return 0;
}

static int check_size(const struct check *c, const struct raw_disk *raw, struct vm_disk *disk)
{
        uint64_t bytes;

        if (!raw->size)
                return 0;
        if (disk->snapshot[0])
                return check_failed(c, "size", "a snapshot keeps its size");
        if (size_parse(raw->size, &bytes, c->err) < 0)
                return check_place(c, "size");
        if (bytes == 0 || bytes > VOLUME_SIZE_MAX)
                return check_failed(c, "size", "%s is not between 512 and 4P", raw->size);
        if (bytes % 512 != 0)
                return check_failed(c, "size", "%s is not a multiple of 512", raw->size);
        disk->size_bytes = bytes;
        return 0;
}

static int check_serial(const struct check *c, const struct raw_disk *raw, struct vm_disk *disk)
{
        if (!raw->serial)
                return 0;
        for (const char *p = raw->serial; *p; p++)
                if (*p < ' ' || *p > '~') /* bytes of UTF-8 are one or the other */
                        return check_failed(c, "serial", "'%s' is not printable ASCII",
                                            raw->serial);
        memcpy(disk->serial, raw->serial, strlen(raw->serial) + 1); /* the schema has the length */
        return 0;
}

/* What no two disks may have in common. */
static int check_others(const struct check *c, const struct vm_disk *disks, size_t i)
{
        const struct vm_disk *disk = &disks[i];

        for (size_t k = 0; k < i; k++) {
                const struct vm_disk *other = &disks[k];

                if (strcmp(disk->pool, other->pool) == 0 &&
                    strcmp(disk->volume, other->volume) == 0 &&
                    strcmp(disk->snapshot, other->snapshot) == 0)
                        return check_failed(c, "volume", "another disk has this volume already");
                if (disk->serial[0] && strcmp(disk->serial, other->serial) == 0)
                        return check_failed(c, "serial", "another disk has '%s' already",
                                            disk->serial);
                if (disk->boot && disk->boot == other->boot)
                        return check_failed(c, "boot", "another disk has %u already", disk->boot);
        }
        return 0;
}

static int check_disk(const struct check *c, const struct raw_disk *raw, struct vm_disk *disk)
{
        int r = check_volume(c, raw, disk);

        if (r == 0)
                r = check_serial(c, raw, disk);
        if (r == 0)
                r = check_number(c, "queues", raw->queues, 1, VM_DISK_QUEUES_MAX, &disk->n_queues);
        if (r == 0)
                r = check_number(c, "boot", raw->boot, 1, VM_DISKS_MAX, &disk->boot);
        if (r == 0)
                r = check_from(c, raw, disk);
        if (r == 0)
                r = check_size(c, raw, disk);
        return r;
}

int check_disks(const struct check *c, const struct raw_file *raw, struct vm_file *file)
{
        const struct vm_yaml_node *list = vm_yaml_child(c->node, "disks");
        struct check inner = *c;
        int r = 0;

        if (raw->disks_count == 0)
                return 0;
        file->disks = calloc(raw->disks_count, sizeof(*file->disks));
        if (!file->disks)
                return error_set(c->err, -ENOMEM, "out of memory");
        for (unsigned i = 0; i < raw->disks_count && r == 0; i++) {
                inner.node = vm_yaml_item(list, i);
                file->n_disks++;
                r = check_disk(&inner, &raw->disks[i], &file->disks[i]);
                if (r == 0)
                        r = check_others(&inner, file->disks, i);
        }
        return r;
}
