/* vmdk_write.c - making VMDK images: variants, their files, and who gets what is written. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "formats/vmdk_write.h"

#define FLAT_UNIT      4096u
#define NAME_MAX_BYTES 255u

static const char *const variants[] = {"monolithicSparse", "streamOptimized", "monolithicFlat",
                                       "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"};
#define N_VARIANTS (sizeof(variants) / sizeof(variants[0]))

const char *vmdk_variant_name(enum vmdk_variant variant)
{
        return variants[variant];
}

static bool is_flat(const struct vmdk_out *out)
{
        return out->variant == VMDK_MONOLITHIC_FLAT || out->variant == VMDK_SPLIT_FLAT;
}

static bool is_split(const struct vmdk_out *out)
{
        return out->variant == VMDK_SPLIT_SPARSE || out->variant == VMDK_SPLIT_FLAT;
}

/* All in one file, the descriptor inside. */
static bool is_one_file(const struct vmdk_out *out)
{
        return out->variant == VMDK_MONOLITHIC_SPARSE || out->variant == VMDK_STREAM;
}

/* ---- options ---- */

static int take_variant(struct vmdk_out *out, const struct image_create_options *options,
                        struct error *err)
{
        size_t i = 0;

        while (options->variant && i < N_VARIANTS && strcmp(options->variant, variants[i]) != 0)
                i++;
        if (i == N_VARIANTS) {
                error_set(err, -EINVAL, "there is no variant '%s' of VMDK", options->variant);
                return error_hint(err, "variants are %s", image_vmdk.variants);
        }
        out->variant = (enum vmdk_variant)i;
        if (!options->compression)
                return 0;
        if (strcmp(options->compression, "zlib") != 0)
                return error_set(err, -EINVAL, "VMDK has no compression '%s', only zlib",
                                 options->compression);
        if (options->variant && out->variant != VMDK_STREAM) {
                error_set(err, -EINVAL, "VMDK's variant '%s' is not compressed", options->variant);
                return error_hint(err, "streamOptimized is");
        }
        out->variant = VMDK_STREAM;
        return 0;
}

static int take_grain(struct image *image, const struct vmdk_out *out,
                      const struct image_create_options *options, struct error *err)
{
        uint32_t grain = options->cluster_bytes ? options->cluster_bytes : VMDK_GRAIN;

        if (is_flat(out)) {
                if (options->cluster_bytes)
                        return error_set(err, -EINVAL, "VMDK's flat variants have no clusters");
                grain = FLAT_UNIT;
        } else if ((grain & (grain - 1)) || grain < VMDK_GRAIN_MIN || grain > VMDK_GRAIN_MAX) {
                return error_set(err, -EINVAL,
                                 "VMDK has clusters of a power of two from 8 KiB to 2 MiB");
        }
        if (is_split(out) && grain > 1u << 20)
                return error_set(err, -EINVAL,
                                 "the split variants of VMDK have clusters of at most 1 MiB");
        image->write_unit = grain;
        return 0;
}

/* ---- files ---- */

/* NAME of the descriptor "DIR/NAME.vmdk", with something else in place of its end. */
static char *part_name(const struct image *image, const char *suffix)
{
        const char *slash = strrchr(image->path, '/'), *base = slash ? slash + 1 : image->path;
        size_t n = strlen(base);
        char *name = NULL;

        if (n > 5 && strcmp(base + n - 5, ".vmdk") == 0)
                n -= 5;
        return asprintf(&name, "%.*s%s.vmdk", (int)n, base, suffix) < 0 ? NULL : name;
}

static int name_part(const struct image *image, const struct vmdk_out *out, size_t i, char **ret,
                     struct error *err)
{
        char suffix[32] = "";

        if (is_split(out))
                snprintf(suffix, sizeof(suffix), "-%c%03zu",
                         out->variant == VMDK_SPLIT_FLAT ? 'f' : 's', i + 1);
        else if (is_flat(out))
                snprintf(suffix, sizeof(suffix), "-flat");
        *ret = part_name(image, suffix);
        if (!*ret)
                return error_set(err, -ENOMEM, "out of memory");
        if (strlen(*ret) > NAME_MAX_BYTES)
                return error_set(err, -ENAMETOOLONG, "'%s' has a name that is too long",
                                 image->path);
        for (const char *c = *ret; *c; c++)
                if (*c == '"' || (unsigned char)*c < ' ')
                        return error_set(err, -EINVAL,
                                         "'%s' has a character in its name that a VMDK descriptor "
                                         "cannot have",
                                         image->path);
        return 0;
}

static int co_begin_part(struct image *image, struct vmdk_out *out, struct vmdk_out_part *p,
                         struct error *err)
{
        const struct image_options raw = {.format = "raw", .opener = image->opener};
        int r = 0;

        if (!is_one_file(out))
                r = co_image_open_other(image, p->name, IMAGE_NEW_PART, &raw, &p->part, err);
        if (r < 0)
                return r;
        if (is_flat(out)) {
                r = vmdk_set_length(p->part, 0, err);
                return r < 0 ? r : vmdk_set_length(p->part, p->length, err);
        }
        if (out->variant == VMDK_STREAM) {
                out->stream.file = image;
                out->stream.capacity_sectors = out->capacity_sectors;
                out->stream.grain_bytes = image->write_unit;
                return co_vmdk_stream_begin(&out->stream, err);
        }
        p->sparse.file = p->part ? p->part : image;
        p->sparse.capacity_sectors = p->length / VMDK_SECTOR;
        p->sparse.grain_bytes = image->write_unit;
        p->sparse.embeds = out->variant == VMDK_MONOLITHIC_SPARSE;
        return co_vmdk_sparse_begin(&p->sparse, err);
}

static int co_begin_parts(struct image *image, struct vmdk_out *out, struct error *err)
{
        uint64_t most = is_split(out) ? VMDK_PART_SECTORS * VMDK_SECTOR : IMAGE_SIZE_MAX;
        uint64_t total = out->capacity_sectors * VMDK_SECTOR,
                 n = total ? (total - 1) / most + 1 : 1;
        int r = 0;

        if (n > VMDK_EXTENTS_MAX)
                return error_set(err, -EFBIG, "VMDK's split variants hold at most %llu bytes",
                                 (unsigned long long)(VMDK_EXTENTS_MAX * most));
        out->parts = calloc(n, sizeof(*out->parts));
        if (!out->parts)
                return error_set(err, -ENOMEM, "out of memory");
        for (size_t i = 0; r == 0 && i < n; i++) {
                struct vmdk_out_part *p = &out->parts[i];

                p->begin = i * most;
                p->length = total - p->begin < most ? total - p->begin : most;
                out->n_parts++;
                r = name_part(image, out, i, &p->name, err);
                if (r == 0)
                        r = co_begin_part(image, out, p, err);
        }
        return r;
}

/* Where the descriptor is a file of its own, it names nothing until co_finish(), and cannot be opened. */
static int co_begin_descriptor(struct image *image, struct error *err)
{
        static const char text[] = "# Disk DescriptorFile\n# not written to its end\n";
        int r = vmdk_set_length(image, 0, err);

        return r < 0 ? r : co_image_pwrite(image, text, sizeof(text) - 1, 0, err);
}

int co_vmdk_create(struct image *image, const struct image_create_options *options,
                   struct error *err)
{
        struct vmdk_out *out = calloc(1, sizeof(*out));
        int r;

        image->state = out;
        image->write_unit = VMDK_GRAIN; /* marks the state as a writer's */
        if (!out)
                return error_set(err, -ENOMEM, "out of memory");
        if (image->is_block_device)
                return error_set(err, -EINVAL, "VMDK is not written to a block device");
        if (image->virtual_bytes > VMDK_WRITE_MAX)
                return error_set(err, -EFBIG, "VMDK images hold at most 64 TiB");
        out->capacity_sectors = (image->virtual_bytes + VMDK_SECTOR - 1) / VMDK_SECTOR;
        do { /* these two have a meaning of their own */
                if (getrandom(&out->cid, sizeof(out->cid), 0) != sizeof(out->cid))
                        return error_set(err, -EIO, "no random number for a content id");
        } while (out->cid >= UINT32_MAX - 1);
        r = take_variant(out, options, err);
        if (r == 0)
                r = take_grain(image, out, options, err);
        if (r == 0 && !is_one_file(out))
                r = co_begin_descriptor(image, err);
        return r < 0 ? r : co_begin_parts(image, out, err);
}

void vmdk_write_close(struct image *image)
{
        struct vmdk_out *out = image->state;

        if (!out)
                return;
        for (size_t i = 0; i < out->n_parts; i++) {
                vmdk_sparse_release(&out->parts[i].sparse);
                image_close(out->parts[i].part);
                free(out->parts[i].name);
        }
        vmdk_stream_release(&out->stream);
        free(out->parts);
        free(out);
}

/* ---- writing ---- */

static int place(struct vmdk_out *out, struct vmdk_plan *plan, const uint8_t *data, size_t length,
                 uint64_t offset, struct error *err)
{
        uint64_t most = out->parts[0].length;
        int r = 0;

        while (r == 0 && length > 0) {
                struct vmdk_out_part *p = &out->parts[offset / most];
                uint64_t in_part = offset - p->begin, n = p->length - in_part;

                n = n < length ? n : length;
                if (is_flat(out))
                        r = vmdk_plan_add(plan, p->part, data, n, in_part, err);
                else
                        r = vmdk_sparse_place(&p->sparse, plan, data, n, in_part, err);
                data += n;
                offset += n;
                length -= n;
        }
        return r;
}

int co_vmdk_write(struct image *image, const void *buffer, size_t length, uint64_t offset,
                  struct error *err)
{
        struct vmdk_out *out = image->state;
        struct vmdk_plan plan = {0};
        int r;

        if (length == 0)
                return 0;
        if (out->variant == VMDK_STREAM) {
                r = co_vmdk_stream_write(&out->stream, image->offload, buffer, length, offset, err);
        } else {
                r = place(out, &plan, buffer, length, offset, err);
                if (r == 0)
                        r = co_vmdk_plan_write(&plan, err);
                vmdk_plan_clear(&plan);
        }
        out->failed = out->failed || r < 0;
        return r;
}

int co_vmdk_zero(struct image *image, uint64_t offset, uint64_t length, struct error *err)
{
        return 0; /* everything that is not written is */
}

int co_vmdk_finish(struct image *image, struct error *err)
{
        struct vmdk_out *out = image->state;
        char *text = NULL;
        size_t length;
        int r;

        if (out->failed)
                return error_set(err, -EIO, "'%s' was not written whole", image->path);
        r = vmdk_descriptor_text(out, is_one_file(out) ? VMDK_DESCRIPTOR_ROOM * VMDK_SECTOR : 0,
                                 &text, &length, err);
        if (r == 0 && out->variant == VMDK_STREAM)
                r = co_vmdk_stream_finish(&out->stream, text, err);
        for (size_t i = 0; r == 0 && out->variant != VMDK_STREAM && i < out->n_parts; i++)
                r = is_flat(out) ? co_vmdk_sync(out->parts[i].part, err)
                                 : co_vmdk_sparse_finish(&out->parts[i].sparse, text, err);
        if (r == 0 && !is_one_file(out)) {
                r = vmdk_set_length(image, 0, err);
                if (r == 0)
                        r = co_image_pwrite(image, text, length, 0, err);
                if (r == 0)
                        r = co_vmdk_sync(image, err);
        }
        free(text);
        return r;
}
