/* vhdx_metadata.c - what a VHDX file says of its disk [2.6]. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "formats/vhdx_internal.h"

#define ITEM_MAX       (1u << 20)
#define USER_ITEMS_MAX 1024u

enum known { PARAMETERS, SIZE, PAGE_83, LOGICAL_SECTOR, PHYSICAL_SECTOR, PARENT, N_KNOWN };

static const struct {
        struct vhdx_guid id;
        const char *name;
        uint32_t length; /* 0: any */
} known[N_KNOWN] = {
    [PARAMETERS] = {VHDX_ITEM_PARAMETERS, "file parameters", 8},
    [SIZE] = {VHDX_ITEM_SIZE, "virtual disk size", 8},
    [PAGE_83] = {VHDX_ITEM_PAGE_83, "page 83 data", 16},
    [LOGICAL_SECTOR] = {VHDX_ITEM_LOGICAL_SECTOR, "logical sector size", 4},
    [PHYSICAL_SECTOR] = {VHDX_ITEM_PHYSICAL_SECTOR, "physical sector size", 4},
    [PARENT] = {VHDX_ITEM_PARENT, "parent locator", 0},
};

struct table {
        struct image *image;
        uint8_t *bytes;
        uint32_t n;
        struct vhdx_item items[N_KNOWN];
        bool found[N_KNOWN];
};

static struct vhdx_item_disk item_at(const struct table *t, uint32_t i)
{
        struct vhdx_item_disk item;

        memcpy(&item, t->bytes + sizeof(struct vhdx_metadata_disk) + i * sizeof(item),
               sizeof(item));
        return item;
}

static int which(const struct vhdx_item_disk *d)
{
        int i = 0;

        if (le32_get(d->flags) & VHDX_ITEM_USER)
                return N_KNOWN;
        while (i < N_KNOWN && !vhdx_guid_equal(&d->id, &known[i].id))
                i++;
        return i;
}

static int refuse_item(const struct table *t, const struct vhdx_item_disk *d, const char *why,
                       struct error *err)
{
        char guid[VHDX_GUID_TEXT];

        vhdx_guid_format(&d->id, guid);
        return error_set(err, -EBADMSG, "metadata item %s of '%s', at %u and %u bytes long, %s",
                         guid, t->image->path, le32_get(d->offset), le32_get(d->length), why);
}

static int take_item(struct table *t, uint32_t i, struct error *err)
{
        const struct vhdx *v = t->image->state;
        struct vhdx_item_disk d = item_at(t, i);
        uint32_t offset = le32_get(d.offset), length = le32_get(d.length);
        int k = which(&d);
        char guid[VHDX_GUID_TEXT];

        if (k == N_KNOWN && le32_get(d.flags) & VHDX_ITEM_REQUIRED) {
                vhdx_guid_format(&d.id, guid);
                return error_set(err, -ENOTSUP,
                                 "'%s' has a metadata item %s that whoever reads it must know; "
                                 "tarn does not",
                                 t->image->path, guid);
        }
        if (length == 0 ? offset != 0
                        : offset < VHDX_TABLE_SIZE || length > ITEM_MAX ||
                              offset > v->metadata.length || length > v->metadata.length - offset)
                return refuse_item(t, &d, "is not within the metadata region", err);
        if (k == N_KNOWN)
                return 0;
        if (t->found[k])
                return refuse_item(t, &d, "is there twice", err);
        if (known[k].length > 0 && length != known[k].length)
                return refuse_item(t, &d, "has another length than the specification says", err);
        t->found[k] = true;
        t->items[k] = (struct vhdx_item){v->metadata.offset + offset, length};
        return 0;
}

static int by_offset(const void *a, const void *b)
{
        uint32_t x = le32_get(((const struct vhdx_item_disk *)a)->offset);
        uint32_t y = le32_get(((const struct vhdx_item_disk *)b)->offset);

        return x < y ? -1 : x > y;
}

static int by_id(const void *a, const void *b)
{
        const struct vhdx_item_disk *x = a, *y = b;
        int order = memcmp(&x->id, &y->id, sizeof(x->id));

        return order != 0 ? order
                          : (int)(le32_get(x->flags) & VHDX_ITEM_USER) -
                                (int)(le32_get(y->flags) & VHDX_ITEM_USER);
}

/* Item and kind are unique, none lies on another, and there are not too many of users'. */
static int check_items(const struct table *t, struct error *err)
{
        struct vhdx_item_disk *items = calloc(t->n + 1, sizeof(*items));
        uint32_t n_user = 0;
        int r = 0;

        if (!items)
                return error_set(err, -ENOMEM, "out of memory");
        for (uint32_t i = 0; i < t->n; i++) {
                items[i] = item_at(t, i);
                n_user += le32_get(items[i].flags) & VHDX_ITEM_USER;
        }
        if (n_user > USER_ITEMS_MAX)
                r = error_set(err, -EBADMSG, "'%s' has %u items of users' metadata, not %u",
                              t->image->path, n_user, USER_ITEMS_MAX);
        qsort(items, t->n, sizeof(items[0]), by_id);
        for (uint32_t i = 1; r == 0 && i < t->n; i++)
                if (by_id(&items[i - 1], &items[i]) == 0)
                        r = refuse_item(t, &items[i], "is there twice", err);
        qsort(items, t->n, sizeof(items[0]), by_offset);
        for (uint32_t i = 1; r == 0 && i < t->n; i++)
                if (le32_get(items[i - 1].length) >
                    le32_get(items[i].offset) - le32_get(items[i - 1].offset))
                        r = refuse_item(t, &items[i], "lies on another", err);
        free(items);
        return r;
}

static int co_read_table(struct table *t, struct error *err)
{
        struct image *image = t->image;
        const struct vhdx *v = image->state;
        struct vhdx_metadata_disk head;
        int r = 0;

        if (v->metadata.length < VHDX_TABLE_SIZE)
                return error_set(err, -EBADMSG, "'%s' has no space for its metadata table",
                                 image->path);
        r = co_vhdx_pread(image, t->bytes, VHDX_TABLE_SIZE, v->metadata.offset, err);
        if (r < 0)
                return r;
        memcpy(&head, t->bytes, sizeof(head));
        t->n = le16_get(head.n_entries);
        if (memcmp(head.signature, "metadata", sizeof(head.signature)) != 0 ||
            t->n > VHDX_ENTRIES_MAX)
                return error_set(err, -EBADMSG,
                                 "the metadata table of '%s' at %llu has a wrong signature or too "
                                 "many entries",
                                 image->path, (unsigned long long)v->metadata.offset);
        for (uint32_t i = 0; r == 0 && i < t->n; i++)
                r = take_item(t, i, err);
        return r < 0 ? r : check_items(t, err);
}

/* The value of a known item; zero where it is not there. */
static int co_number(const struct table *t, enum known k, uint64_t *ret_number, struct error *err)
{
        le64 number = {{0}};
        int r = 0;

        if (t->found[k])
                r = co_vhdx_pread(t->image, &number, t->items[k].length, t->items[k].offset, err);
        *ret_number = le64_get(number);
        return r;
}

static int refuse_number(const struct table *t, enum known k, uint64_t number, struct error *err)
{
        return error_set(err, -EBADMSG,
                         "the %s of '%s', at %llu, is %llu: the format has none such",
                         known[k].name, t->image->path, (unsigned long long)t->items[k].offset,
                         (unsigned long long)number);
}

static int take_numbers(const struct table *t, const uint64_t *n, struct error *err)
{
        struct image *image = t->image;
        struct vhdx *v = image->state;
        uint64_t block = n[PARAMETERS] & UINT32_MAX, flags = n[PARAMETERS] >> 32;

        if (block < VHDX_BLOCK_MIN || block > VHDX_BLOCK_MAX || (block & (block - 1)) != 0)
                return error_set(err, -EBADMSG,
                                 "'%s' has blocks of %llu bytes: the format has powers of two from "
                                 "1 to 256 MiB",
                                 image->path, (unsigned long long)block);
        if (n[LOGICAL_SECTOR] != 512 && n[LOGICAL_SECTOR] != 4096)
                return refuse_number(t, LOGICAL_SECTOR, n[LOGICAL_SECTOR], err);
        if (t->found[PHYSICAL_SECTOR] && n[PHYSICAL_SECTOR] != 512 && n[PHYSICAL_SECTOR] != 4096)
                return refuse_number(t, PHYSICAL_SECTOR, n[PHYSICAL_SECTOR], err);
        if (n[SIZE] > VHDX_VIRTUAL_MAX || n[SIZE] % n[LOGICAL_SECTOR] != 0)
                return refuse_number(t, SIZE, n[SIZE], err);
        image->virtual_bytes = n[SIZE];
        image->info.cluster_bytes = block;
        v->block_bytes = block;
        v->sector_bytes = (uint32_t)n[LOGICAL_SECTOR];
        v->chunk_blocks = VHDX_SECTORS_PER_CHUNK * v->sector_bytes / block;
        v->fixed = flags & VHDX_LEAVE_ALLOCATED;
        v->has_parent = flags & VHDX_HAS_PARENT;
        v->lacks_items = !t->found[PAGE_83] || !t->found[PHYSICAL_SECTOR];
        return 0;
}

/* [2.5] In a differencing file a chunk is there with its sector bitmap's entry, in others the last
 * block's entry is the last one. */
static int size_bat(struct image *image, struct error *err)
{
        struct vhdx *v = image->state;

        v->n_blocks = (image->virtual_bytes + v->block_bytes - 1) / v->block_bytes;
        if (v->n_blocks == 0)
                v->n_entries = 0;
        else if (v->has_parent)
                v->n_entries = vhdx_bitmap_entry(v, v->n_blocks - 1) + 1;
        else
                v->n_entries = vhdx_block_entry(v, v->n_blocks - 1) + 1;
        if (v->n_entries * 8 > v->bat.length)
                return error_set(err, -EBADMSG,
                                 "the block allocation table of '%s' at %llu has %llu bytes; for a "
                                 "disk of %llu bytes %llu are needed",
                                 image->path, (unsigned long long)v->bat.offset,
                                 (unsigned long long)v->bat.length,
                                 (unsigned long long)image->virtual_bytes,
                                 (unsigned long long)v->n_entries * 8);
        return 0;
}

int co_vhdx_metadata(struct image *image, struct vhdx_item *ret_locator, struct error *err)
{
        struct table t = {.image = image, .bytes = malloc(VHDX_TABLE_SIZE)};
        struct vhdx *v = image->state;
        uint64_t numbers[N_KNOWN] = {0};
        int r;

        if (!t.bytes)
                return error_set(err, -ENOMEM, "out of memory");
        r = co_read_table(&t, err);
        free(t.bytes);
        for (int k = 0; r == 0 && k < N_KNOWN; k++) {
                bool needed = k == PARAMETERS || k == SIZE || k == LOGICAL_SECTOR;

                if (needed && !t.found[k])
                        r = error_set(err, -EBADMSG, "the metadata of '%s' has no %s", image->path,
                                      known[k].name);
                else if (known[k].length > 0 && known[k].length <= 8)
                        r = co_number(&t, k, &numbers[k], err);
        }
        if (r == 0)
                r = take_numbers(&t, numbers, err);
        if (r == 0)
                r = size_bat(image, err);
        if (r == 0 && v->has_parent && !t.found[PARENT])
                r = error_set(err, -EBADMSG,
                              "'%s' says that it has a parent, and has no parent locator",
                              image->path);
        if (r == 0)
                *ret_locator = t.items[PARENT];
        return r;
}
