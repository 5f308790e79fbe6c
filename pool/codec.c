/* codec.c - the only reader and writer of the structs in format.h. Every field that is read is
 * checked against a named limit before it leaves this file. */
#include <errno.h>
#include <stdlib.h>
#include "pool/codec.h"

/* ---- names ---- */

static bool name_copy(char *to, const char *from, size_t room, bool may_be_empty)
{
        size_t n = strnlen(from, room);
        if (n == room || n > POOL_NAME_MAX)
                return false;
        memcpy(to, from, n);
        to[n] = 0;
        return n ? pool_name_check(to, "", NULL) == 0 : may_be_empty;
}

/* ---- labels ---- */

void label_encode(const struct label *label, void *page)
{
        struct label_disk *d = memset(page, 0, BLOCK);
        d->magic = le64_make(LABEL_MAGIC);
        d->version = le32_make(FORMAT_VERSION);
        d->index = le32_make(label->index);
        memcpy(d->pool_uuid, label->pool_uuid, 16);
        memcpy(d->member_uuid, label->member_uuid, 16);
        d->size_bytes = le64_make(label->size_bytes);
        d->created_ns = le64_make((uint64_t)label->created_ns);
        memcpy(d->pool_name, label->pool_name, strlen(label->pool_name));
        d->crc32c = le32_make(crc32c(0, d, BLOCK - 4));
}

static int features_check(uint64_t incompat, struct error *err)
{
        uint64_t unknown = incompat & ~FEATURES_INCOMPAT_KNOWN;
        if (!unknown)
                return 0;
        error_set(err, -ENOTSUP, "it uses feature %#llx, which this version does not know",
                  (unsigned long long)(unknown & -unknown));
        return error_hint(err, "a newer tarn can open it");
}

int label_decode(const void *page, struct label *label, struct error *err)
{
        const struct label_disk *d = page;
        if (le64_get(d->magic) != LABEL_MAGIC)
                return error_set(err, -ENODATA, "no tarn label");
        if (le32_get(d->crc32c) != crc32c(0, d, BLOCK - 4))
                return error_set(err, -EUCLEAN, "its label fails its checksum");
        if (le32_get(d->version) != FORMAT_VERSION) {
                error_set(err, -ENOTSUP, "its format is version %u, this tarn knows version %u",
                          le32_get(d->version), FORMAT_VERSION);
                return error_hint(err, "a newer tarn can open it");
        }
        int r = features_check(le64_get(d->incompat), err);
        if (r < 0)
                return r;
        label->ro_compat = le64_get(d->ro_compat);
        label->index = le32_get(d->index);
        label->size_bytes = le64_get(d->size_bytes);
        label->created_ns = (int64_t)le64_get(d->created_ns);
        if (!name_copy(label->pool_name, d->pool_name, sizeof(d->pool_name), false) ||
            label->index >= POOL_MEMBERS_MAX || label->size_bytes % BLOCK ||
            label->size_bytes < 2 * LABEL_AREA_BYTES)
                return error_set(err, -EUCLEAN, "its label holds impossible values");
        memcpy(label->pool_uuid, d->pool_uuid, 16);
        memcpy(label->member_uuid, d->member_uuid, 16);
        return 0;
}

/* ---- extents and slabs ---- */

void extent_encode(const struct slab_extent *x, struct extent_disk *d)
{
        memset(d, 0, sizeof(*d));
        d->n_legs = (uint8_t)x->n_legs;
        d->copy = x->copy;
        d->crc32c = le32_make(x->crc);
        for (unsigned i = 0; i < x->n_legs; i++) {
                d->member[i] = le16_make((uint16_t)x->leg[i].member);
                d->offset[i] = le64_make(x->leg[i].offset);
        }
}

int extent_decode(const struct extent_disk *d, size_t n_disks, struct slab_extent *x,
                  struct error *err)
{
        x->n_legs = d->n_legs;
        x->copy = d->copy;
        x->crc = le32_get(d->crc32c);
        x->dirty = false;
        if (x->n_legs < 1 || x->n_legs > 2 || x->copy >= MAP_COPIES)
                return error_set(err, -EUCLEAN,
                                 "an extent of the slab table holds impossible values");
        for (unsigned i = 0; i < x->n_legs; i++) {
                x->leg[i].member = le16_get(d->member[i]);
                x->leg[i].offset = le64_get(d->offset[i]);
                if (x->leg[i].member >= n_disks || x->leg[i].offset % BLOCK)
                        return error_set(err, -EUCLEAN, "an extent of the slab table lies nowhere");
        }
        return 0;
}

void slab_encode(const struct slab *s, struct slab_disk *d)
{
        memset(d, 0, sizeof(*d));
        d->kind = s->kind;
        d->n_legs = s->n_legs;
        d->map_copy = s->map_copy;
        d->free_blocks = le32_make(s->live_free);
        d->map_crc32c = le32_make(s->map_crc);
        d->log_index = le32_make(s->log_index);
        for (unsigned i = 0; i < MAP_COPIES; i++)
                d->map_address[i] = le64_make(s->map_address[i]);
        for (unsigned i = 0; i < s->n_legs; i++) {
                d->leg[i].member = le16_make((uint16_t)s->leg[i].member);
                d->leg[i].offset = le64_make(s->leg[i].offset);
        }
        d->touched[0] = le64_make(s->touched[0]);
        d->touched[1] = le64_make(s->touched[1]);
}

int slab_decode(const struct slab_disk *d, size_t n_disks, uint32_t slab_blocks, struct slab *s,
                struct error *err)
{
        s->kind = d->kind;
        s->n_legs = d->n_legs;
        s->map_copy = d->map_copy;
        s->live_free = le32_get(d->free_blocks);
        s->map_crc = le32_get(d->map_crc32c);
        s->log_index = le32_get(d->log_index);
        s->touched[0] = le64_get(d->touched[0]);
        s->touched[1] = le64_get(d->touched[1]);
        if (s->kind == SLAB_NONE)
                return 0;
        if (s->kind > SLAB_DATA)
                return error_set(err, -ENOTSUP,
                                 "slab %u is of kind %u, which this version does not know",
                                 s->index, s->kind);
        if (s->n_legs < 1 || s->n_legs > SLAB_LEGS_MAX || s->map_copy >= MAP_COPIES ||
            s->live_free > slab_blocks)
                return error_set(err, -EUCLEAN, "the record of slab %u holds impossible values",
                                 s->index);
        for (unsigned i = 0; i < MAP_COPIES; i++) {
                s->map_address[i] = le64_get(d->map_address[i]);
                if (s->map_address[i] > ADDRESS_MAX)
                        return error_set(err, -EUCLEAN, "the space map of slab %u lies nowhere",
                                         s->index);
        }
        for (unsigned i = 0; i < s->n_legs; i++) {
                s->leg[i].member = le16_get(d->leg[i].member);
                s->leg[i].offset = le64_get(d->leg[i].offset);
                if (s->leg[i].member >= n_disks)
                        return error_set(err, -EUCLEAN,
                                         "slab %u lies on member %u, and there are %zu", s->index,
                                         s->leg[i].member, n_disks);
        }
        return 0;
}

/* ---- superblocks ---- */

void super_free(struct super *s)
{
        free(s->member);
        free(s->index);
        s->member = NULL;
        s->index = NULL;
}

static size_t super_length(uint32_t n_members, uint32_t n_index)
{
        size_t n = sizeof(struct super_disk) + n_members * sizeof(struct super_member_disk) +
                   n_index * sizeof(struct extent_disk);
        return (n + BLOCK - 1) / BLOCK * BLOCK;
}

static void super_encode_head(const struct super *s, size_t length, struct super_disk *d)
{
        d->magic = le64_make(SUPER_MAGIC);
        d->version = le32_make(FORMAT_VERSION);
        d->length = le32_make((uint32_t)length);
        d->n_members = le32_make(s->n_members);
        d->generation = le64_make(s->generation);
        d->epoch = le64_make(s->epoch);
        d->incompat = le64_make(s->incompat);
        d->ro_compat = le64_make(s->ro_compat);
        d->compat = le64_make(s->compat);
        memcpy(d->pool_uuid, s->pool_uuid, 16);
        memcpy(d->name, s->name, strlen(s->name));
        d->created_ns = le64_make((uint64_t)s->created_ns);
        d->layout = le32_make(s->layout);
        d->stripe_blocks = le32_make(s->stripe_blocks);
        d->slab_blocks = le32_make(s->slab_blocks);
        d->n_slabs = le32_make(s->n_slabs);
        d->n_index = le32_make(s->n_index);
        d->log_pages = le32_make(s->log_pages);
        d->log_incarnation = le64_make(s->log_incarnation);
        d->log_start = le64_make(s->log_start);
        d->log_chain = le32_make(s->log_chain);
        d->catalog_height = le32_make(s->catalog_height);
        entry_put(&d->catalog, &s->catalog);
        d->next_root_id = le64_make(s->next_root_id);
        d->next_record = le64_make(s->next_record);
}

int super_encode(const struct super *s, void **ret_image, size_t *ret_length)
{
        size_t length = super_length(s->n_members, s->n_index);
        assert(length <= SUPER_SLOT_BYTES);
        struct super_disk *d = aligned_alloc(BLOCK, length);
        if (!d)
                return -ENOMEM;
        memset(d, 0, length);
        super_encode_head(s, length, d);
        struct super_member_disk *m = (void *)(d + 1);
        for (uint32_t i = 0; i < s->n_members; i++) {
                memcpy(m[i].uuid, s->member[i].uuid, 16);
                m[i].index = le32_make(s->member[i].index);
                m[i].state = le32_make(s->member[i].state);
                m[i].size_bytes = le64_make(s->member[i].size_bytes);
        }
        struct extent_disk *x = (void *)(m + s->n_members);
        for (uint32_t i = 0; i < s->n_index; i++)
                extent_encode(&s->index[i], &x[i]);
        d->crc32c = le32_make(crc32c(0, d, length));
        *ret_image = d;
        *ret_length = length;
        return 0;
}

size_t super_peek_length(const void *first_page)
{
        const struct super_disk *d = first_page;
        size_t length = le32_get(d->length);
        if (le64_get(d->magic) != SUPER_MAGIC || length < BLOCK || length > SUPER_SLOT_BYTES ||
            length % BLOCK)
                return 0;
        return length;
}

uint64_t super_peek_generation(const void *first_page)
{
        const struct super_disk *d = first_page;
        return le64_get(d->magic) == SUPER_MAGIC ? le64_get(d->generation) : 0;
}

static bool super_crc_ok(const struct super_disk *d, size_t length)
{
        struct super_disk head = *d;
        head.crc32c = le32_make(0);
        uint32_t crc = crc32c(0, &head, sizeof(head));
        return le32_get(d->crc32c) == crc32c(crc, d + 1, length - sizeof(head));
}

static int super_decode_head(const struct super_disk *d, struct super *s, struct error *err)
{
        *s = (struct super){
            .generation = le64_get(d->generation),
            .epoch = le64_get(d->epoch),
            .incompat = le64_get(d->incompat),
            .ro_compat = le64_get(d->ro_compat),
            .compat = le64_get(d->compat),
            .created_ns = (int64_t)le64_get(d->created_ns),
            .layout = le32_get(d->layout),
            .stripe_blocks = le32_get(d->stripe_blocks),
            .slab_blocks = le32_get(d->slab_blocks),
            .n_slabs = le32_get(d->n_slabs),
            .log_pages = le32_get(d->log_pages),
            .log_chain = le32_get(d->log_chain),
            .catalog_height = le32_get(d->catalog_height),
            .log_incarnation = le64_get(d->log_incarnation),
            .log_start = le64_get(d->log_start),
            .catalog = entry_get(&d->catalog),
            .next_root_id = le64_get(d->next_root_id),
            .next_record = le64_get(d->next_record),
            .n_members = le32_get(d->n_members),
            .n_index = le32_get(d->n_index),
        };
        memcpy(s->pool_uuid, d->pool_uuid, 16);
        int r = features_check(s->incompat, err);
        if (r < 0)
                return r;
        uint64_t slab_bytes = (uint64_t)s->slab_blocks * BLOCK;
        if (s->generation < 1 || s->generation > COUNTER_MAX || s->epoch < 1 ||
            s->log_incarnation > COUNTER_MAX || s->log_start > COUNTER_MAX ||
            s->next_record > COUNTER_MAX || s->next_root_id < 1 || s->next_root_id > COUNTER_MAX)
                return error_set(err, -EUCLEAN, "its superblock holds impossible counters");
        if (!name_copy(s->name, d->name, sizeof(d->name), false) || s->n_members < 1 ||
            s->n_members > POOL_MEMBERS_MAX || s->n_index > INDEX_PAGES_MAX ||
            s->layout > POOL_LAYOUT_CONCAT || s->epoch > BIRTH_MAX || slab_bytes < SLAB_BYTES_MIN ||
            slab_bytes > SLAB_BYTES_MAX || (slab_bytes & (slab_bytes - 1)) ||
            s->stripe_blocks < 1 || s->stripe_blocks > s->slab_blocks || s->log_pages < 1 ||
            s->log_pages % s->slab_blocks || s->log_pages / s->slab_blocks > s->n_slabs ||
            s->catalog_height != CATALOG_HEIGHT ||
            s->n_slabs > (uint64_t)s->n_index * EXTENTS_PER_PAGE * SLABS_PER_PAGE)
                return error_set(err, -EUCLEAN, "its superblock holds impossible values");
        return 0;
}

int super_decode(const void *image, size_t length, struct super *s, struct error *err)
{
        const struct super_disk *d = image;
        *s = (struct super){0};
        if (length < BLOCK || super_peek_length(image) != length)
                return error_set(err, -ENODATA, "no superblock");
        if (!super_crc_ok(d, length))
                return error_set(err, -EUCLEAN, "a superblock fails its checksum");
        if (le32_get(d->version) != FORMAT_VERSION) {
                error_set(err, -ENOTSUP, "its format is version %u, this tarn knows version %u",
                          le32_get(d->version), FORMAT_VERSION);
                return error_hint(err, "a newer tarn can open it");
        }
        int r = super_decode_head(d, s, err);
        if (r < 0)
                return r;
        if (super_length(s->n_members, s->n_index) != length)
                return error_set(err, -EUCLEAN, "a superblock's length does not fit its tables");
        s->member = calloc(s->n_members, sizeof(*s->member));
        s->index = calloc(s->n_index ? s->n_index : 1, sizeof(*s->index));
        if (!s->member || !s->index) {
                super_free(s);
                return error_set(err, -ENOMEM, "out of memory");
        }
        const struct super_member_disk *m = (const void *)(d + 1);
        for (uint32_t i = 0; i < s->n_members; i++) {
                memcpy(s->member[i].uuid, m[i].uuid, 16);
                s->member[i].index = le32_get(m[i].index);
                s->member[i].state = le32_get(m[i].state);
                s->member[i].size_bytes = le64_get(m[i].size_bytes);
                if (s->member[i].index != i || s->member[i].state != MEMBER_STATE_IN)
                        r = error_set(err, -EUCLEAN,
                                      "a superblock's member table holds impossible values");
        }
        const struct extent_disk *x = (const void *)(m + s->n_members);
        for (uint32_t i = 0; i < s->n_index && r == 0; i++)
                r = extent_decode(&x[i], s->n_members, &s->index[i], err);
        if (r < 0)
                super_free(s);
        return r;
}

/* ---- catalog ---- */

void index_encode(const struct root *root, struct index_disk *d)
{
        memset(d, 0, sizeof(*d));
        memcpy(d->name, root->name, strlen(root->name));
        d->id = le64_make(root->id);
        d->volume_id = le64_make(root->volume_id);
        d->parent_id = le64_make(root->parent ? root->parent->id : 0);
        d->epoch = le64_make(root->epoch);
        d->state = root->state;
        if (root->loaded ? root->body->high_bytes > 0 : root->shrinking)
                d->flags = INDEX_SHRINKING;
        if (root->complete)
                d->flags |= INDEX_COMPLETE;
        d->base_id = le64_make(root->base ? root->base->id : 0);
}

int index_decode(const struct index_disk *d, struct index *x, struct error *err)
{
        *x = (struct index){.state = d->state};
        if (x->state == ROOT_FREE)
                return 0;
        x->id = le64_get(d->id);
        x->volume_id = le64_get(d->volume_id);
        x->parent_id = le64_get(d->parent_id);
        x->epoch = le64_get(d->epoch);
        x->shrinking = d->flags & INDEX_SHRINKING;
        x->complete = d->flags & INDEX_COMPLETE;
        x->base_id = le64_get(d->base_id);
        if (x->state > ROOT_BASE || !x->id || x->epoch > BIRTH_MAX ||
            !name_copy(x->name, d->name, sizeof(d->name), x->state != ROOT_LIVE))
                return error_set(err, -EUCLEAN, "an entry of the catalog holds impossible values");
        return 0;
}

void bucket_encode(const struct bucket *b, struct bucket_disk *d)
{
        d->key = le64_make(b->key);
        entry_put(&d->head, &b->head);
        d->n_blocks = le64_make(b->n_blocks);
        d->n_pages = le32_make(b->n_pages);
        d->flags = le32_make(b->flags);
}

int bucket_decode(const struct bucket_disk *d, struct bucket *b)
{
        b->key = le64_get(d->key);
        b->head = entry_get(&d->head);
        b->n_blocks = le64_get(d->n_blocks);
        b->n_pages = le32_get(d->n_pages);
        b->flags = le32_get(d->flags);
        bool ok = b->key <= BIRTH_MAX &&
                  (b->head.type == ENTRY_NODE || b->head.type == ENTRY_ABSENT) &&
                  (b->flags & ~BUCKET_PAGES_ONLY) == 0;
        return ok ? 0 : -EUCLEAN;
}

void root_encode(const struct root *root, const struct entry *more, void *page)
{
        const struct root_body *b = root->body;
        struct root_disk *d = memset(page, 0, BLOCK);
        d->magic = le64_make(ROOT_MAGIC);
        d->id = le64_make(root->id);
        memcpy(d->uuid, b->uuid, 16);
        d->created_ns = le64_make((uint64_t)b->created_ns);
        d->size_bytes = le64_make(b->size_bytes);
        d->high_bytes = le64_make(b->high_bytes);
        entry_put(&d->map, &b->map.root);
        d->height = b->map.height;
        d->block_shift = BLOCK_SHIFT;
        d->n_properties = (uint8_t)b->n_properties;
        d->n_buckets = le32_make((uint32_t)b->n_buckets);
        d->data_blocks = le64_make(b->data_blocks);
        d->own_blocks = le64_make(b->own_blocks);
        d->cursor = le64_make(b->cursor);
        d->base_bytes = le64_make(b->base_bytes);
        if (b->description)
                memcpy(d->description, b->description, strlen(b->description));
        entry_put(&d->more, more);
        for (size_t i = 0; i < b->n_buckets && i < ROOT_BUCKETS; i++)
                bucket_encode(&b->bucket[i], &d->bucket[i]);
        memcpy(d->property, b->property, b->n_properties * sizeof(b->property[0]));
}

static bool body_plausible(const struct root_disk *d, const struct root_body *b)
{
        if (b->map.height < 1 || b->map.height > HEIGHT_MAX || d->block_shift != BLOCK_SHIFT ||
            d->entry_format || b->n_properties > ROOT_PROPERTIES ||
            b->size_bytes > VOLUME_SIZE_MAX || b->size_bytes % VOLUME_SECTOR ||
            b->high_bytes > VOLUME_SIZE_MAX ||
            tree_span(b->map.height) * BLOCK < max_u64(b->size_bytes, b->high_bytes))
                return false;
        if (b->map.root.type != ENTRY_NODE && !entry_is_hole(&b->map.root))
                return false;
        for (unsigned i = 0; i < b->n_properties; i++) {
                const struct property_disk *p = &b->property[i];
                if (!memchr(p->key, 0, sizeof(p->key)) || !memchr(p->value, 0, sizeof(p->value)))
                        return false;
        }
        return true;
}

int root_decode(const void *page, uint64_t id, struct root_body *b, size_t *ret_n_buckets,
                struct entry *ret_more, struct error *err)
{
        const struct root_disk *d = page;
        if (le64_get(d->magic) != ROOT_MAGIC || le64_get(d->id) != id)
                return error_set(err, -EUCLEAN, "the block of root %llu is of something else",
                                 (unsigned long long)id);
        memcpy(b->uuid, d->uuid, 16);
        b->created_ns = (int64_t)le64_get(d->created_ns);
        b->size_bytes = le64_get(d->size_bytes);
        b->high_bytes = le64_get(d->high_bytes);
        b->map.root = entry_get(&d->map);
        b->map.height = d->height;
        b->n_properties = d->n_properties;
        b->data_blocks = le64_get(d->data_blocks);
        b->own_blocks = le64_get(d->own_blocks);
        b->cursor = le64_get(d->cursor);
        b->base_bytes = le64_get(d->base_bytes);
        memcpy(b->property, d->property, sizeof(b->property));
        size_t n = le32_get(d->n_buckets);
        if (!body_plausible(d, b) || n > SLOTS_MAX)
                return error_set(err, -EUCLEAN, "the block of root %llu holds impossible values",
                                 (unsigned long long)id);
        b->bucket = calloc(n ? n : 1, sizeof(*b->bucket));
        if (d->description[0])
                b->description = strndup(d->description, sizeof(d->description) - 1);
        if (!b->bucket || (d->description[0] && !b->description))
                return error_set(err, -ENOMEM, "out of memory");
        b->bucket_room = n ? n : 1;
        b->n_buckets = n < ROOT_BUCKETS ? n : ROOT_BUCKETS;
        for (size_t i = 0; i < b->n_buckets; i++)
                if (bucket_decode(&d->bucket[i], &b->bucket[i]) < 0)
                        return error_set(err, -EUCLEAN,
                                         "a deadlist of root %llu holds impossible values",
                                         (unsigned long long)id);
        *ret_n_buckets = n;
        *ret_more = entry_get(&d->more);
        return 0;
}
