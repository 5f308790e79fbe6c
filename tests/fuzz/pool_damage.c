/* pool_damage.c - metadata that says something else: a word, some bytes of another page, all of them;
 * pages that are rotten or cannot be read. */
#include "tests/fuzz/pool_world.h"
#include <errno.h>

static const struct spot *a_spot(struct pool_world *w)
{
        const struct sample *sample = w->sample;
        uint8_t kind = input_u8(w->in);
        uint16_t number = input_u16(w->in);
        size_t first = sample->first[kind % SPOT_KINDS];
        size_t n = sample->first[kind % SPOT_KINDS + 1] - first;

        /* Of some kinds there may be none. */
        return n ? &sample->spot[first + number % n] : &sample->spot[number % sample->n_spots];
}

static void page_read(const struct pool_world *w, const struct spot *spot, uint8_t page[BLOCK])
{
        sim_image_read(w->image[spot->disk], spot->offset, page, BLOCK);
}

static void page_write(struct pool_world *w, const struct spot *spot, const uint8_t page[BLOCK],
                       bool both)
{
        sim_image_write(w->image[spot->disk], spot->offset, page, BLOCK);
        if (both && spot->has_other)
                sim_image_write(w->image[spot->other_disk], spot->other_offset, page, BLOCK);
}

/* A place in the page: any, or one where something is, as most of most pages is zeroes. */
static size_t a_place(struct input *in, const uint8_t page[BLOCK])
{
        uint16_t number = input_u16(in);
        size_t at = 4 * (size_t)(number % (BLOCK / 4));

        if (number & 0x8000)
                return at;
        at = 0;
        for (unsigned left = number, tries = 0; tries < BLOCK / 4; tries++, at += 4)
                if ((page[at] | page[at + 1] | page[at + 2] | page[at + 3]) && left-- == 0)
                        break;
        return at % BLOCK;
}

static void change_word(struct pool_world *w, const struct spot *spot, size_t length)
{
        uint8_t page[BLOCK];
        uint64_t word = 0;
        size_t at;

        page_read(w, spot, page);
        at = a_place(w->in, page);
        if (length > BLOCK - at)
                length = BLOCK - at;
        memcpy(&word, page + at, length);
        word = pw_word(w->in, word);
        memcpy(page + at, &word, length);
        page_write(w, spot, page, true);
}

/* An entry, a record, or whatever lies there. */
static void copy_piece(struct pool_world *w, const struct spot *to, const struct spot *from)
{
        static const size_t lengths[] = {4, 8, 16, 32, 40, 64, 128, BLOCK};
        uint8_t page[BLOCK], other[BLOCK];
        size_t length = lengths[input_u8(w->in) % 8], at, from_at;

        page_read(w, to, page);
        page_read(w, from, other);
        if (length == BLOCK) {
                page_write(w, to, other, true);
                return;
        }
        at = a_place(w->in, page) / length * length;
        from_at = a_place(w->in, other) / length * length;
        if (at + length <= BLOCK && from_at + length <= BLOCK)
                memcpy(page + at, other + from_at, length);
        page_write(w, to, page, true);
}

static void rot(struct pool_world *w, const struct spot *spot, bool both)
{
        uint8_t page[BLOCK];

        page_read(w, spot, page);
        /* The checksum of a log's page begins behind its magic number. */
        memcpy(page + (spot->kind == SPOT_LOG ? 8 : 0), PW_ROTTEN, sizeof(PW_ROTTEN));
        page_write(w, spot, page, both);
}

static void add_fault(struct pool_world *w, unsigned disk, const struct sim_fault *fault)
{
        if (w->n_faults == PW_FAULTS)
                return;
        w->fault_disk[w->n_faults] = disk;
        w->fault[w->n_faults++] = *fault;
}

static void unreadable(struct pool_world *w, const struct spot *spot, bool both)
{
        struct sim_fault fault = {.kind = SIM_FAULT_ERROR,
                                  .ops = SIM_OP(MEMBER_READ),
                                  .offset = spot->offset,
                                  .length = BLOCK,
                                  .error = -EIO};

        add_fault(w, spot->disk, &fault);
        fault.offset = spot->other_offset;
        if (both && spot->has_other)
                add_fault(w, spot->other_disk, &fault);
}

/* Some operations of a disk fail, wherever they go. */
static void failing(struct pool_world *w)
{
        static const enum member_op ops[] = {MEMBER_READ, MEMBER_WRITE, MEMBER_FLUSH,
                                             MEMBER_DISCARD};
        uint8_t kind = input_u8(w->in);
        struct sim_fault fault = {.kind = SIM_FAULT_ERROR,
                                  .ops = SIM_OP(ops[kind & 3]),
                                  .skip = input_u8(w->in),
                                  .count = 1 + (kind >> 4),
                                  .error = kind & 8 ? -ENOSPC : -EIO};

        add_fault(w, kind >> 2 & 1, &fault);
}

void pw_damage(struct pool_world *w)
{
        const struct spot *spot;
        uint8_t kind;

        while (w->in->left > 0)
                switch ((kind = input_u8(w->in)) & 7) {
                case 0:
                case 1:
                        change_word(w, a_spot(w), 8);
                        break;
                case 2:
                        change_word(w, a_spot(w), 4);
                        break;
                case 3:
                        change_word(w, a_spot(w), 1);
                        break;
                case 4:
                        spot = a_spot(w);
                        copy_piece(w, spot, a_spot(w));
                        break;
                case 5:
                        rot(w, a_spot(w), kind & 8);
                        break;
                case 6:
                        if (kind & 0x80)
                                failing(w);
                        else
                                unreadable(w, a_spot(w), kind & 8);
                        break;
                case 7:
                        return;
                }
}
