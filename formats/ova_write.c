/* ova_write.c - OVA files: writing. The descriptor's first block is written last: until then the file
 * begins with zeroes, which are the end of an archive. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/coroutine.h"
#include "common/offload.h"
#include "formats/ova.h"

#define CHUNK      ((size_t)1 << 20)
#define SCSI_MAX   15u
#define SATA_MAX   30u
#define NICS_MAX   8u /* of VirtualBox, and less than VMware's 10 */
#define MEMBER_MAX 100u

struct writing {
        struct image *file;
        struct offload *offload;
        struct ovf_machine machine; /* with our names; shares strings with the caller's */
        struct image **disks;
        uint64_t *file_bytes;
        char *base;            /* of all names */
        char *manifest;        /* its text, with a line for each file */
        size_t manifest_bytes; /* which are known before the digests are */
        uint64_t at;
        struct ova_watch *watch; /* of the disks' bytes */
        uint64_t done, total;
        uint64_t mtime_s;
        uint8_t first[TAR_BLOCK];
};

/* ---- what is given ---- */

static int check_machine(const struct ovf_machine *m, const char *path, struct error *err)
{
        size_t most = SCSI_MAX;

        for (size_t i = 0; i < m->n_disks; i++)
                if (m->disks[i].controller != OVF_SCSI)
                        most = SATA_MAX;
        if (!m->name || !m->name[0])
                return error_set(err, -EINVAL, "'%s': the machine has no name", path);
        if (m->n_cpus == 0 || m->memory_bytes < 1u << 20)
                return error_set(err, -EINVAL, "'%s': the machine has no processors or memory",
                                 path);
        if (m->n_disks > most || m->n_nics > NICS_MAX)
                return error_set(err, -EINVAL,
                                 "'%s': an OVA has at most %zu disks and %u network cards", path,
                                 most, NICS_MAX);
        return 0;
}

/* Names of files: the machine's, in letters that every system takes. */
static char *base_name(const char *name)
{
        char *base = strndup(name, MEMBER_MAX - sizeof("-disk00.vmdk"));

        for (char *c = base; c && *c; c++)
                if (!((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') ||
                      (*c >= '0' && *c <= '9') || *c == '-' || *c == '_' ||
                      (*c == '.' && c > base)))
                        *c = '_';
        return base;
}

static int co_open_disk(struct writing *w, size_t i, int fd, struct error *err)
{
        const struct image_options options = {.format = "vmdk"};
        struct ovf_disk *d = &w->machine.disks[i];
        struct image *image;
        int r;

        if (asprintf(&d->file, "%s-disk%zu.vmdk", w->base, i + 1) < 0) {
                d->file = NULL;
                return error_set(err, -ENOMEM, "out of memory");
        }
        r = co_image_open(fd, d->file, &options, &w->disks[i], err);
        if (r < 0)
                return r;
        image = w->disks[i];
        if (!image->info.variant || strcmp(image->info.variant, "streamOptimized") != 0)
                return error_set(err, -EINVAL, "'%s' is not a stream-optimized VMDK", d->file);
        d->capacity_bytes = image->virtual_bytes;
        w->file_bytes[i] = image->file_bytes;
        w->total += image->file_bytes;
        return 0;
}

static int co_prepare(struct writing *w, const struct ovf_machine *m, const int *disk_fds,
                      struct error *err)
{
        int r = 0;

        w->machine = *m;
        w->machine.disks = calloc(m->n_disks + 1, sizeof(*w->machine.disks));
        w->disks = calloc(m->n_disks + 1, sizeof(struct image *));
        w->file_bytes = calloc(m->n_disks + 1, sizeof(*w->file_bytes));
        w->base = base_name(m->name);
        if (!w->machine.disks || !w->disks || !w->file_bytes || !w->base) {
                w->machine.n_disks = 0;
                return error_set(err, -ENOMEM, "out of memory");
        }
        for (size_t i = 0; i < m->n_disks; i++)
                w->machine.disks[i].controller = m->disks[i].controller;
        for (size_t i = 0; r == 0 && i < m->n_disks; i++)
                r = co_open_disk(w, i, disk_fds[i], err);
        return r;
}

static void release(struct writing *w)
{
        for (size_t i = 0; w->disks && i < w->machine.n_disks; i++) {
                image_close(w->disks[i]);
                free(w->machine.disks[i].file);
        }
        free(w->machine.disks);
        free(w->disks);
        free(w->file_bytes);
        free(w->base);
        free(w->manifest);
        image_close(w->file);
}

/* ---- members ---- */

static uint64_t padded(uint64_t n)
{
        return (n + TAR_BLOCK - 1) / TAR_BLOCK * TAR_BLOCK;
}

static int co_put(struct writing *w, const void *data, size_t length, struct error *err)
{
        int r = co_image_pwrite(w->file, data, length, w->at, err);

        w->at += length;
        return r;
}

static int co_pad(struct writing *w, uint64_t length, struct error *err)
{
        static const uint8_t zeroes[TAR_BLOCK];

        return co_put(w, zeroes, padded(length) - length, err);
}

static int co_put_header(struct writing *w, const char *name, uint64_t length, struct error *err)
{
        uint8_t header[TAR_BLOCK];

        tar_header(header, name, length, w->mtime_s);
        if (w->at > 0)
                return co_put(w, header, sizeof(header), err);
        memcpy(w->first, header, sizeof(header));
        w->at = TAR_BLOCK;
        return 0;
}

static void manifest_add(struct writing *w, size_t *n, const char *name, const char *digest)
{
        *n += (size_t)sprintf(w->manifest + *n, "SHA256(%s)= %s\n", name, digest);
}

/* So long is the manifest, whatever the digests will be. */
static int make_manifest(struct writing *w, const char *descriptor, struct error *err)
{
        size_t line = sizeof("SHA256()= \n") - 1 + OVA_DIGEST_TEXT - 1;

        w->manifest_bytes = line + strlen(descriptor);
        for (size_t i = 0; i < w->machine.n_disks; i++)
                w->manifest_bytes += line + strlen(w->machine.disks[i].file);
        w->manifest = calloc(1, w->manifest_bytes + 1);
        return w->manifest ? 0 : error_set(err, -ENOMEM, "out of memory");
}

static int co_put_text(struct writing *w, const char *name, const char *text, size_t length,
                       char digest[OVA_DIGEST_TEXT], struct error *err)
{
        struct ova_hash *hash;
        int r = ova_hash_new(OVA_SHA256, &hash, err);

        if (r < 0)
                return r;
        co_ova_hash_add(hash, w->offload, text, length);
        ova_hash_end(hash, digest);
        r = co_put_header(w, name, length, err);
        if (r == 0)
                r = co_put(w, text, length, err);
        return r < 0 ? r : co_pad(w, length, err);
}

static int co_put_disk(struct writing *w, size_t i, char digest[OVA_DIGEST_TEXT], struct error *err)
{
        struct image *disk = w->disks[i];
        struct ova_hash *hash = NULL;
        uint64_t left = disk->file_bytes;
        void *chunk = malloc(CHUNK);
        int r =
            chunk ? ova_hash_new(OVA_SHA256, &hash, err) : error_set(err, -ENOMEM, "out of memory");

        if (r == 0)
                r = co_put_header(w, w->machine.disks[i].file, left, err);
        while (r == 0 && left > 0) {
                size_t n = left < CHUNK ? left : CHUNK;

                r = co_image_pread(disk, chunk, n, disk->file_bytes - left, err);
                if (r < 0)
                        break;
                co_ova_hash_add(hash, w->offload, chunk, n);
                r = co_put(w, chunk, n, err);
                left -= n;
                w->done += n;
                if (r == 0)
                        r = ova_watch_look(w->watch, w->done, w->total, err);
        }
        if (hash)
                ova_hash_end(hash, digest);
        free(chunk);
        return r < 0 ? r : co_pad(w, disk->file_bytes, err);
}

/* The end of the archive, the manifest in the place that was kept for it, and the first block. */
static int co_end(struct writing *w, uint64_t manifest_at, struct error *err)
{
        static const uint8_t zeroes[2 * TAR_BLOCK];
        struct loop_io sync = {.op = LOOP_FDATASYNC, .fd = w->file->fd};
        int r = co_put(w, zeroes, sizeof(zeroes), err);

        if (r == 0)
                r = co_image_pwrite(w->file, w->manifest, w->manifest_bytes, manifest_at, err);
        for (unsigned i = 0; r == 0 && i < 2; i++) { /* all before the first block; then that */
                if (i == 1)
                        r = co_image_pwrite(w->file, w->first, sizeof(w->first), 0, err);
                if (r == 0) {
                        struct loop_io io = sync;

                        r = co_io(&io);
                        if (r < 0)
                                error_set(err, r, "cannot write '%s' to its disk: %s",
                                          w->file->path, strerror(-r));
                }
        }
        return r;
}

static int co_put_members(struct writing *w, struct error *err)
{
        char name[MEMBER_MAX + 8], digest[OVA_DIGEST_TEXT], *text = NULL;
        uint64_t manifest_at;
        size_t length, n = 0;
        int r = ovf_print(&w->machine, w->file_bytes, &text, &length, err);

        snprintf(name, sizeof(name), "%s.ovf", w->base);
        if (r == 0)
                r = make_manifest(w, name, err);
        if (r == 0)
                r = co_put_text(w, name, text, length, digest, err);
        free(text);
        if (r < 0)
                return r;
        manifest_add(w, &n, name, digest);
        snprintf(name, sizeof(name), "%s.mf", w->base);
        r = co_put_header(w, name, w->manifest_bytes, err);
        manifest_at = w->at;
        w->at += w->manifest_bytes;
        if (r == 0)
                r = co_pad(w, w->manifest_bytes, err);
        for (size_t i = 0; r == 0 && i < w->machine.n_disks; i++) {
                r = co_put_disk(w, i, digest, err);
                if (r == 0)
                        manifest_add(w, &n, w->machine.disks[i].file, digest);
        }
        return r < 0 ? r : co_end(w, manifest_at, err);
}

int co_ova_write(int fd, const char *path, const struct ovf_machine *machine, const int *disk_fds,
                 struct offload *offload, struct ova_watch *watch, struct error *err)
{
        const struct image_options raw = {.format = "raw"};
        struct writing w = {.offload = offload, .watch = watch, .mtime_s = (uint64_t)time(NULL)};
        int r = check_machine(machine, path, err);

        if (r == 0 && ftruncate(fd, 0) < 0)
                r = error_set(err, -errno, "cannot write '%s': %s", path, strerror(errno));
        if (r == 0)
                r = co_image_open(fd, path, &raw, &w.file, err);
        if (r == 0)
                r = co_prepare(&w, machine, disk_fds, err);
        if (r == 0)
                r = co_put_members(&w, err);
        release(&w);
        return r;
}
