/* vhdx.c - Hyper-V's VHDX. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "formats/vhdx_internal.h"

static bool probe(const struct image_sample *s)
{
        return image_starts_with(s, 0, VHDX_IDENTIFIER, sizeof(VHDX_IDENTIFIER) - 1);
}

static int co_vhdx_open(struct image *image, const struct image_options *options, struct error *err)
{
        struct vhdx *v = image->state = calloc(1, sizeof(*v));
        struct vhdx_item locator = {0};
        struct vhdx_guid log_guid = {{0}};
        int r;

        if (!v)
                return error_set(err, -ENOMEM, "out of memory");
        v->alone = options->alone;
        if (options->snapshot)
                return error_set(err, -ENOTSUP,
                                 "VHDX images have no snapshots inside, and '%s' is "
                                 "asked for of '%s'",
                                 options->snapshot, image->path);
        r = co_vhdx_headers(image, &log_guid, err);
        if (r == 0)
                r = co_vhdx_replay(image, &log_guid, err);
        if (r == 0)
                r = co_vhdx_regions(image, err);
        if (r == 0)
                r = co_vhdx_metadata(image, &locator, err);
        if (r == 0 && v->has_parent)
                r = co_vhdx_parent(image, &locator, options, err);
        if (r < 0)
                return r;
        image->info.variant = v->has_parent ? "differencing" : v->fixed ? "fixed" : "dynamic";
        strcpy(image->info.version, "1");
        return 0;
}

static void vhdx_close(struct image *image)
{
        struct vhdx *v = image->state;

        if (!v)
                return;
        image_close(v->parent);
        vhdx_writer_free(v->writer);
        for (size_t i = 0; i < VHDX_PAGES_MAX; i++)
                free(v->pages[i].bytes);
        free(v->log_bytes);
        free(v->replayed);
        free(v->regions);
        free(v);
}

const struct image_driver image_vhdx = {
    .name = "vhdx",
    .description = "Hyper-V VHDX",
    .variants = "dynamic, fixed",
    .dirty_is_whole = true, /* the log has it */
    .probe = probe,
    .co_open = co_vhdx_open,
    .co_extent = co_vhdx_extent,
    .co_read = co_vhdx_read,
    .co_check = co_vhdx_check,
    .co_create = co_vhdx_create,
    .co_write = co_vhdx_write,
    .co_zero = co_vhdx_zero,
    .co_finish = co_vhdx_finish,
    .close = vhdx_close,
};
