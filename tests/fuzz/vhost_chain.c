/* vhost_chain.c - the guest's driver, as the input says: it makes requests as they are right, and
 * then spoils what the input wants spoiled. */
#include <endian.h>
#include <string.h>
#include "tests/fuzz/vhost_world.h"

#define DESCS_MAX 40u
#define DATA_AT   UINT64_C(0x9000) /* offset in the memory of what requests carry */
#define DATA_END  VW_BYTES

/* Either kind of ring has these in its descriptors. */
struct part {
        uint64_t addr;
        uint32_t len;
        uint16_t flags, next, id;
};

/* Written by the driver, and therefore worth changing. */
static void put(struct vhost_world *w, uint64_t offset, const void *data, size_t length)
{
        w->written[w->n_written++ % VW_WRITTEN] = offset;
        vw_write(w, offset, data, length);
}

/* Room in the memory, over and over again. */
static uint64_t room(struct vhost_world *w, uint32_t length)
{
        uint64_t at;

        if (w->data < DATA_AT || w->data >= DATA_END || length > DATA_END - w->data)
                w->data = DATA_AT;
        at = w->data;
        w->data += length < DATA_END - DATA_AT ? length : 0;
        return at;
}

static unsigned add(struct part *parts, unsigned n, uint64_t addr, uint32_t len, bool writable)
{
        if (n < DESCS_MAX)
                parts[n++] = (struct part){
                    .addr = addr, .len = len, .flags = writable ? VRING_DESC_F_WRITE : 0};
        return n;
}

static unsigned add_header(struct vhost_world *w, struct input *in, struct part *parts,
                           uint8_t kind, uint32_t *ret_type)
{
        static const uint32_t types[] = {VIRTIO_BLK_T_IN,      VIRTIO_BLK_T_OUT,
                                         VIRTIO_BLK_T_FLUSH,   VIRTIO_BLK_T_GET_ID,
                                         VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES,
                                         2 /* SCSI */,         0};
        uint32_t type = types[kind & 7];
        struct virtio_blk_outhdr header;
        uint64_t at = room(w, sizeof(header));

        if ((kind & 7) == 7)
                type = input_u8(in);
        header = (struct virtio_blk_outhdr){
            .type = htole32(type), .sector = htole64(input_number(in, VW_VOL_BYTES / 512))};
        put(w, at, &header, sizeof(header));
        *ret_type = type;
        if (kind & 8) { /* in two pieces */
                add(parts, 0, VW_GUEST + at, 7, false);
                return add(parts, 1, VW_GUEST + at + 7, sizeof(header) - 7, false);
        }
        return add(parts, 0, VW_GUEST + at, sizeof(header), false);
}

static unsigned add_ranges(struct vhost_world *w, struct input *in, struct part *parts, unsigned n)
{
        unsigned n_ranges = input_u8(in) % 20;
        struct virtio_blk_discard_write_zeroes range;
        uint64_t at = room(w, n_ranges * (uint32_t)sizeof(range));

        for (unsigned i = 0; i < n_ranges; i++) {
                range = (struct virtio_blk_discard_write_zeroes){
                    .sector = htole64(input_number(in, VW_VOL_BYTES / 512)),
                    .num_sectors = htole32((uint32_t)input_number(in, VW_VOL_BYTES / 512)),
                    .flags = htole32(input_u8(in) & 3)};
                put(w, at + i * sizeof(range), &range, sizeof(range));
        }
        return add(parts, n, VW_GUEST + at, n_ranges * (uint32_t)sizeof(range), false);
}

static unsigned add_data(struct vhost_world *w, struct input *in, struct part *parts, unsigned n,
                         bool writable)
{
        unsigned n_pieces = input_u8(in);

        for (unsigned i = 0; i < (n_pieces & 31); i++) {
                uint32_t length = n_pieces & 0x80 ? (uint32_t)input_number(in, 4096)
                                                  : 512u << (n_pieces >> 5 & 3);
                n = add(parts, n, VW_GUEST + room(w, length), length, writable);
        }
        return n;
}

static unsigned make_request(struct vhost_world *w, struct input *in, struct part *parts)
{
        uint8_t kind = input_u8(in);
        uint32_t type;
        unsigned n = add_header(w, in, parts, kind, &type);

        if (type == VIRTIO_BLK_T_DISCARD || type == VIRTIO_BLK_T_WRITE_ZEROES)
                n = add_ranges(w, in, parts, n);
        else if (type != VIRTIO_BLK_T_FLUSH)
                n = add_data(w, in, parts, n, type != VIRTIO_BLK_T_OUT);
        if (!(kind & 16))
                return add(parts, n, VW_GUEST + room(w, 1), 1, true);
        if (n > 0 && n < DESCS_MAX && type == VIRTIO_BLK_T_IN)
                parts[n - 1].len++; /* the status at the end of the data */
        return n;
}

static void spoil(struct input *in, struct part *parts, unsigned n, unsigned size)
{
        unsigned n_spoiled = input_u8(in) & 7;

        for (unsigned i = 0; i < n_spoiled && n > 0; i++) {
                struct part *p = &parts[input_u8(in) % n];

                switch (input_u8(in) % 5) {
                case 0:
                        p->addr = input_number(in, VW_GUEST + VW_BYTES);
                        break;
                case 1:
                        p->len = (uint32_t)input_number(in, VW_FIRST_BYTES);
                        break;
                case 2:
                        p->flags ^= (uint16_t)(1u << (input_u8(in) & 15));
                        break;
                case 3:
                        p->next = (uint16_t)input_number(in, size);
                        break;
                case 4:
                        p->id = (uint16_t)input_number(in, size);
                }
        }
}

static void write_split(struct vhost_world *w, uint64_t table, unsigned place, const struct part *p)
{
        struct vring_desc d = {.addr = htole64(p->addr),
                               .len = htole32(p->len),
                               .flags = htole16(p->flags),
                               .next = htole16(p->next)};

        put(w, table + place * sizeof(d), &d, sizeof(d));
}

static void write_packed(struct vhost_world *w, uint64_t table, unsigned place,
                         const struct part *p)
{
        struct vring_packed_desc d = {.addr = htole64(p->addr),
                                      .len = htole32(p->len),
                                      .flags = htole16(p->flags),
                                      .id = htole16(p->id)};

        put(w, table + place * sizeof(d), &d, sizeof(d));
}

/* The parts become a table, and one part stands for it. */
static unsigned make_indirect(struct vhost_world *w, struct part *parts, unsigned n)
{
        uint64_t at = (room(w, n * 16 + 16) + 15) & ~UINT64_C(15);

        for (unsigned i = 0; i < n; i++)
                if (w->packed)
                        write_packed(w, at, i, &parts[i]);
                else
                        write_split(w, at, i, &parts[i]);
        parts[0] = (struct part){.addr = VW_GUEST + at,
                                 .len = n * 16,
                                 .flags = VRING_DESC_F_INDIRECT,
                                 .id = parts[0].id};
        return 1;
}

static void chain_up(struct part *parts, unsigned n, unsigned first, unsigned size)
{
        for (unsigned i = 0; i + 1 < n; i++) {
                parts[i].flags |= VRING_DESC_F_NEXT;
                parts[i].next = (uint16_t)((first + i + 1) % size);
        }
}

static void publish_split(struct vhost_world *w, struct vw_queue *q, const struct part *parts,
                          unsigned n, uint8_t how, struct input *in)
{
        uint16_t head = htole16((uint16_t)q->desc), index;

        for (unsigned i = 0; i < n; i++)
                write_split(w, q->at[0], (q->desc + i) % q->size, &parts[i]);
        if (how & 1) {
                q->desc = (q->desc + n) % q->size;
                put(w, q->at[1] + 4 + 2 * (q->avail % q->size), &head, sizeof(head));
                q->avail++;
        } else { /* the same place, once more */
                q->avail = (uint16_t)(q->avail + (int8_t)input_u8(in));
        }
        index = htole16(q->avail);
        put(w, q->at[1] + 2, &index, sizeof(index));
}

static void publish_packed(struct vhost_world *w, struct vw_queue *q, struct part *parts,
                           unsigned n, uint8_t how)
{
        uint16_t id = (uint16_t)q->desc++;

        for (unsigned i = 0; i < n; i++) {
                uint16_t bits =
                    q->wrap ? 1u << VRING_PACKED_DESC_F_AVAIL : 1u << VRING_PACKED_DESC_F_USED;
                parts[i].flags ^= bits;
                if (!(how & 0x40))
                        parts[i].id = (uint16_t)(id % q->size);
                write_packed(w, q->at[0], q->avail, &parts[i]);
                if (++q->avail >= q->size) {
                        q->avail = 0;
                        q->wrap = !q->wrap;
                }
        }
}

void vw_play_chain(struct vhost_world *w, struct input *in)
{
        uint8_t how = input_u8(in);
        struct vw_queue *q = &w->queues[how >> 7];
        struct part parts[DESCS_MAX];
        unsigned n;

        if (q->size == 0)
                q = &w->queues[0];
        if (q->size == 0)
                return;
        memset(parts, 0, sizeof(parts));
        n = make_request(w, in, parts);
        chain_up(parts, n, how & 2 ? 0 : q->desc % q->size, q->size);
        if (how & 2)
                for (unsigned i = 0; i < n; i++)
                        parts[i].next = (uint16_t)(i + 1);
        if (how & 4)
                spoil(in, parts, n, q->size);
        if (how & 2) {
                n = make_indirect(w, parts, n);
                if (how & 8)
                        spoil(in, parts, n, q->size);
        }
        if (w->packed)
                publish_packed(w, q, parts, n, how);
        else
                publish_split(w, q, parts, n, (uint8_t)~how >> 4, in);
}
