/* pool_log.c - the log of a pool, page by page: headers that continue the chain and records as the
 * engine writes them, and each of their fields otherwise where the input wants it. */
#include "tests/fuzz/pool_world.h"
#include <assert.h>

#define PAGES_MAX 12u

struct forger {
        struct pool_world *w;
        struct input *in;
        struct log_page_disk first, page; /* the sample's first page; the one being filled */
        uint32_t used, last;              /* bytes of records; where the last record begins */
        unsigned n_pages, room;
        uint64_t n_records; /* in the pages before */
        unsigned n_here;    /* in this one */
};

/* ---- pages ---- */

static void page_put(struct forger *f, unsigned number, const struct log_page_disk *page)
{
        const struct spot *log = &f->w->sample->log;
        uint64_t shift = (uint64_t)number * BLOCK;

        sim_image_write(f->w->image[log->disk], log->offset + shift, page, BLOCK);
        if (log->has_other)
                sim_image_write(f->w->image[log->other_disk], log->other_offset + shift, page,
                                BLOCK);
}

static void page_begin(struct forger *f)
{
        f->page = f->first;
        memset(f->page.records, 0, sizeof(f->page.records));
        f->page.sequence = le64_make(le64_get(f->first.sequence) + f->n_pages);
        f->page.first_record = le64_make(le64_get(f->first.first_record) + f->n_records);
        f->used = f->n_here = 0;
}

/* A header that is not as it should be. */
static void page_spoil(struct forger *f)
{
        uint8_t kind = input_u8(f->in);
        le64 *const field[] = {&f->page.incarnation, &f->page.generation, &f->page.epoch,
                               &f->page.sequence,    &f->page.mark,       &f->page.first_record};

        if (kind % 8 < 6)
                *field[kind % 8] = le64_make(pw_word(f->in, le64_get(*field[kind % 8])));
        else if (kind % 8 == 6)
                f->page.used = le16_make((uint16_t)pw_word(f->in, f->used));
        else
                f->page.chain = le32_make((uint32_t)pw_word(f->in, 0));
}

static void page_end(struct forger *f, bool spoilt)
{
        if (f->n_pages == f->room)
                return;
        f->page.used = le16_make((uint16_t)f->used);
        if (spoilt)
                page_spoil(f);
        page_put(f, f->n_pages++, &f->page);
        f->n_records += f->n_here;
        page_begin(f);
}

/* ---- records ---- */

/* Room for a record, at the end of the page or of the next one; zeroes. */
static void *record_new(struct forger *f, uint8_t type, size_t length, bool more)
{
        struct log_head_disk *head;

        if (f->used + length > sizeof(f->page.records))
                page_end(f, false);
        if (f->used + length > sizeof(f->page.records)) /* there is no next one */
                page_begin(f);
        f->last = f->used;
        head = (void *)(f->page.records + f->used);
        f->used += (uint32_t)length;
        f->n_here++;
        memset(head, 0, length);
        head->type = type;
        head->flags = more ? LOG_MORE : 0;
        head->length = le16_make((uint16_t)length);
        return head;
}

/* Roots are numbered from 1; some 60 are there. */
static le64 a_root(struct forger *f)
{
        uint8_t number = input_u8(f->in);

        return le64_make(number < 0xf0 ? number : input_u64(f->in));
}

static le64 a_block(struct forger *f)
{
        return le64_make(input_number(f->in, LEAF_BLOCKS));
}

/* Free ones in their order, or any. */
static le64 an_address(struct forger *f)
{
        uint8_t number = input_u8(f->in);

        return le64_make(number < 0xe0 ? f->w->sample->free_block + number
                                       : input_number(f->in, f->w->sample->free_block));
}

static void add_write(struct forger *f, bool more)
{
        uint8_t kind = input_u8(f->in);
        uint32_t n = kind < 0xf0 ? kind % 64 : 255 + (kind & 1);
        struct log_write_disk *d = record_new(f, LOG_WRITE, LOG_WRITE_BYTES(n), more);

        d->n_blocks = le32_make(n);
        d->root_id = a_root(f);
        d->block = a_block(f);
        d->address = an_address(f);
        kind = input_u8(f->in); /* those that have not arrived */
        for (uint32_t i = 0; i < n; i++)
                d->crc32c[i] = le32_make(kind >> i % 8 & 1);
}

static void add_clear(struct forger *f, bool more)
{
        struct log_clear_disk *d = record_new(f, LOG_CLEAR, sizeof(*d), more);
        uint8_t type = input_u8(f->in);

        d->type = le32_make(type < 0xf0 ? type & 1 : type);
        d->root_id = a_root(f);
        d->block = a_block(f);
        d->n_blocks = a_block(f);
}

static void add_slab(struct forger *f, bool more)
{
        struct log_slab_disk *d = record_new(f, LOG_SLAB, (sizeof(*d) + 7) & ~(size_t)7, more);
        uint8_t kind = input_u8(f->in), legs = input_u8(f->in);

        d->index = le32_make((uint32_t)(f->w->sample->n_table + (kind >> 4)));
        d->slab.kind = kind & 7;
        d->slab.n_legs = legs & 7;
        d->slab.map_copy = legs >> 3 & 3;
        d->slab.free_blocks = le32_make((uint32_t)input_number(f->in, 64));
        d->slab.log_index = le32_make((uint32_t)(legs >> 6));
        for (unsigned i = 0; i < MAP_COPIES; i++)
                d->slab.map_address[i] = le64_make(input_number(f->in, f->w->sample->free_block));
        for (unsigned i = 0; i < (legs & 3u); i++) {
                uint8_t unit = input_u8(f->in);

                d->slab.leg[i].member = le16_make(unit & 1);
                d->slab.leg[i].offset =
                    le64_make(LABEL_AREA_BYTES + (uint64_t)(unit >> 1) * SIM_SLAB_BYTES);
        }
}

static void add_catalog(struct forger *f, bool more)
{
        static const char *const names[] = {"new", "web", "copy", "row", "s7", "one", "", "a b"};
        struct log_catalog_disk *d;
        uint8_t type = input_u8(f->in), name = input_u8(f->in);

        d = record_new(f, (uint8_t)(LOG_CREATE + type % 7), sizeof(*d), more);
        d->root_id = a_root(f);
        d->new_id = a_root(f);
        d->from_id = a_root(f);
        d->size_bytes = le64_make(512 * input_number(f->in, 1u << 13));
        snprintf(d->name, sizeof(d->name), "%s", names[name % 8]);
        if (name >= 0xf0)
                memset(d->name, 'x', sizeof(d->name));
}

static void add_property(struct forger *f, bool more)
{
        static const char *const keys[] = {"iops", "on-full", "discard", "x", ""};
        static const char *const values[] = {"100", "wait", "off", ""};
        struct log_property_disk *d = record_new(f, LOG_PROPERTY, sizeof(*d), more);
        uint8_t kind = input_u8(f->in);

        d->root_id = a_root(f);
        snprintf(d->key, sizeof(d->key), "%s%u", keys[kind % 5], kind >> 4);
        snprintf(d->value, sizeof(d->value), "%s", values[kind / 5 % 4]);
        if (kind >= 0xf0)
                memset(d->key, 'x', sizeof(d->key));
}

static void add_bytes(struct forger *f, bool more)
{
        const uint8_t *bytes;
        size_t n = input_take(f->in, input_u8(f->in) % 64, &bytes);
        struct log_head_disk *d = record_new(f, 0, (n + 11) & ~(size_t)7, more);

        if (n > 0)
                memcpy(d, bytes, n);
}

/* A word of the last record. */
static void spoil_record(struct forger *f)
{
        uint32_t at = f->last + input_u8(f->in);
        uint64_t word;

        if (at + sizeof(word) > sizeof(f->page.records))
                return;
        memcpy(&word, f->page.records + at, sizeof(word));
        word = pw_word(f->in, word);
        memcpy(f->page.records + at, &word, sizeof(word));
}

static void begin(struct forger *f, struct pool_world *w)
{
        const struct sample *sample = w->sample;
        static const struct log_page_disk nothing;

        *f = (struct forger){.w = w, .in = w->in};
        sim_image_read(w->image[sample->log.disk], sample->log.offset, &f->first, BLOCK);
        f->room = (unsigned)(SIM_SLAB_BYTES / BLOCK -
                             le64_get(f->first.sequence) % (SIM_SLAB_BYTES / BLOCK));
        assert(le32_get(f->first.magic) == LOG_MAGIC && f->room > 2 && sample->n_log <= f->room);
        if (f->room > PAGES_MAX)
                f->room = PAGES_MAX;
        for (unsigned i = 0; i < sample->n_log; i++)
                page_put(f, i, &nothing);
        page_begin(f);
}

void pw_forge_log(struct pool_world *w)
{
        struct forger f;
        uint8_t kind = 0;

        begin(&f, w);
        while (w->in->left > 0 && (kind & 15) != 15) {
                bool more = (kind = input_u8(w->in)) & 0x10;

                switch (kind & 7) {
                case 0:
                        add_write(&f, more);
                        break;
                case 1:
                        add_clear(&f, more);
                        break;
                case 2:
                        add_slab(&f, more);
                        break;
                case 3:
                        add_catalog(&f, more);
                        break;
                case 4:
                        add_property(&f, more);
                        break;
                case 5:
                        add_bytes(&f, more);
                        break;
                case 6:
                        spoil_record(&f);
                        break;
                case 7: /* 15 ends all */
                        page_end(&f, more);
                }
        }
        if (f.n_here > 0)
                page_end(&f, false);
}
