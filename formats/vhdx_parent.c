/* vhdx_parent.c - a differencing file's parent: its locator [2.6.2.6], and opening it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "formats/vhdx_internal.h"

#define LOCATOR_MAX (1u << 20)
/* Keys that are longer are none of ours, and are not looked at: 65,535 of them could share one text
 * of 64 KiB. */
#define KEY_MAX 256u

struct locator_disk { /* [2.6.2.6.1] */
        struct vhdx_guid type;
        le16 reserved;
        le16 n_pairs;
};
struct pair_disk { /* [2.6.2.6.2] offsets from the locator's beginning, lengths in bytes */
        le32 key_offset, value_offset;
        le16 key_length, value_length;
};
static_assert(sizeof(struct locator_disk) == 20 && sizeof(struct pair_disk) == 12,
              "MS-VHDX 2.6.2.6");

/* In the order in which paths are tried [2.6.2.6.3]. */
enum { RELATIVE, VOLUME, ABSOLUTE, LINKAGE, LINKAGE_2, N_KEYS };
#define N_PATHS (ABSOLUTE + 1)
static const char *const keys[N_KEYS] = {"relative_path", "volume_path", "absolute_win32_path",
                                         "parent_linkage", "parent_linkage2"};

struct locator {
        struct image *image;
        uint64_t offset;
        uint32_t length;
        uint8_t *bytes;
        char *values[N_KEYS];
};

static int refuse(const struct locator *l, const char *why, struct error *err)
{
        return error_set(err, -EBADMSG, "the parent locator of '%s' at %llu %s", l->image->path,
                         (unsigned long long)l->offset, why);
}

static int take_text(const struct locator *l, uint32_t offset, uint32_t length, char **ret_text,
                     struct error *err)
{
        char *text;

        if (length == 0 || offset > l->length || length > l->length - offset)
                return refuse(l, "has a key or a value that is empty or not within it", err);
        text = vhdx_utf16(l->bytes + offset, length);
        if (!text && errno == ENOMEM)
                return error_set(err, -ENOMEM, "out of memory");
        if (!text)
                return refuse(l, "has a key or a value that is not UTF-16 text", err);
        *ret_text = text;
        return 0;
}

static int take_pair(struct locator *l, uint32_t i, struct error *err)
{
        struct pair_disk pair;
        char *key = NULL, *value = NULL;
        int r, k = 0;

        memcpy(&pair, l->bytes + sizeof(struct locator_disk) + i * sizeof(pair), sizeof(pair));
        if (le16_get(pair.key_length) > KEY_MAX && le32_get(pair.key_offset) <= l->length &&
            le16_get(pair.key_length) <= l->length - le32_get(pair.key_offset))
                return 0;
        r = take_text(l, le32_get(pair.key_offset), le16_get(pair.key_length), &key, err);
        if (r < 0)
                return r;
        while (k < N_KEYS && strcmp(key, keys[k]) != 0)
                k++;
        free(key);
        if (k == N_KEYS)
                return 0;
        if (l->values[k])
                return refuse(l, "has a key twice", err);
        r = take_text(l, le32_get(pair.value_offset), le16_get(pair.value_length), &value, err);
        l->values[k] = value;
        return r;
}

static int take_pairs(struct locator *l, struct error *err)
{
        struct locator_disk head;
        char guid[VHDX_GUID_TEXT];
        uint32_t n;
        int r = 0;

        memcpy(&head, l->bytes, sizeof(head));
        n = le16_get(head.n_pairs);
        if (!vhdx_guid_equal(&head.type, &VHDX_LOCATOR_VHDX)) {
                vhdx_guid_format(&head.type, guid);
                return error_set(err, -ENOTSUP,
                                 "'%s' names its parent by a locator of type %s; only those for "
                                 "VHDX files can be read",
                                 l->image->path, guid);
        }
        if (n > (l->length - sizeof(head)) / sizeof(struct pair_disk))
                return refuse(l, "has more entries than fit into it", err);
        for (uint32_t i = 0; r == 0 && i < n; i++)
                r = take_pair(l, i, err);
        if (r == 0 && !l->values[RELATIVE] && !l->values[VOLUME] && !l->values[ABSOLUTE])
                r = refuse(l, "has no path", err);
        if (r == 0 && !l->values[LINKAGE])
                r = refuse(l, "has no parent_linkage", err);
        return r;
}

static int co_load(struct locator *l, struct error *err)
{
        int r;

        if (l->length < sizeof(struct locator_disk) || l->length > LOCATOR_MAX)
                return refuse(l, "is too short", err);
        l->bytes = malloc(l->length);
        if (!l->bytes)
                return error_set(err, -ENOMEM, "out of memory");
        r = co_vhdx_pread(l->image, l->bytes, l->length, l->offset, err);
        return r < 0 ? r : take_pairs(l, err);
}

/* The parent must be as it was when this file was begun: its header says so. */
static int check_linkage(const struct locator *l, const struct image *parent, struct error *err)
{
        const struct vhdx *p = parent->state;
        bool same = false;
        char guid[VHDX_GUID_TEXT];

        for (int k = LINKAGE; k <= LINKAGE_2; k++) {
                struct vhdx_guid linkage;

                if (!l->values[k])
                        continue;
                if (!vhdx_guid_parse(l->values[k], &linkage))
                        return refuse(l, "has a parent_linkage that is no GUID", err);
                same |= vhdx_guid_equal(&linkage, &p->data_write);
        }
        if (same)
                return 0;
        vhdx_guid_format(&p->data_write, guid);
        return error_set(err, -EBADMSG,
                         "'%s' was made for another content of its parent '%s': it names %s, and "
                         "that has {%s}",
                         l->image->path, parent->path, l->values[LINKAGE], guid);
}

/* The paths one after the other, until one is there. What is said of the first counts where none
 * is. */
static int co_open_parent(const struct locator *l, const struct image_options *options,
                          struct error *err)
{
        struct vhdx *v = l->image->state;
        struct image_options below = *options;
        struct error *said = calloc(2, sizeof(*said)); /* a chain is long, and a stack is not */
        int r = -ENOENT;

        if (!said)
                return error_set(err, -ENOMEM, "out of memory");
        below.format = "vhdx";
        below.snapshot = NULL;
        for (int k = 0; r == -ENOENT && k < N_PATHS; k++) {
                char *name = l->values[k] ? strdup(l->values[k]) : NULL;

                if (!l->values[k])
                        continue;
                said[1] = ERROR_INIT;
                if (name)
                        image_path_from_windows(name);
                if (name)
                        r = co_image_open_other(l->image, name, IMAGE_BACKING, &below, &v->parent,
                                                &said[1]);
                else
                        r = error_set(&said[1], -ENOMEM, "out of memory");
                free(name);
                if (said[0].code == 0 || r != -ENOENT)
                        said[0] = said[1];
        }
        if (r < 0 && err)
                *err = said[0];
        free(said);
        return r < 0 ? r : check_linkage(l, v->parent, err);
}

int co_vhdx_parent(struct image *image, const struct vhdx_item *item,
                   const struct image_options *options, struct error *err)
{
        struct vhdx *v = image->state;
        struct locator l = {.image = image, .offset = item->offset, .length = item->length};
        int r = co_load(&l, err);

        for (int k = 0; r == 0 && k < N_PATHS && !image->info.backing; k++)
                if (l.values[k] && !(image->info.backing = strdup(l.values[k])))
                        r = error_set(err, -ENOMEM, "out of memory");
        if (r == 0 && !(image->info.backing_format = strdup("vhdx")))
                r = error_set(err, -ENOMEM, "out of memory");
        if (r == 0 && !v->alone)
                r = co_open_parent(&l, options, err);
        for (int k = 0; k < N_KEYS; k++)
                free(l.values[k]);
        free(l.bytes);
        return r;
}
