/* vhdx_log.c - a log that was not written back [2.3]: its active sequence is found, and what it says
 * lies over the file for all who read. The file itself is not touched.
 *
 * The log is a ring of sectors of 4 KiB. An entry is a header with descriptors, filled up to whole
 * sectors, and a data sector for each data descriptor. No sector within an entry can be taken for
 * the first of another, and that is looked at before an entry's checksum: so no byte is summed up
 * more than once, whatever the log says. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/crc32c.h"
#include "formats/vhdx_internal.h"

#define DESCRIPTORS_MAX (VHDX_LOG_SECTOR / sizeof(struct vhdx_descriptor_disk))

struct search {
        struct image *image;
        const struct vhdx_guid *guid;
        uint8_t *ring;
        uint32_t n_sectors;
        uint32_t *lengths; /* in sectors, of the valid entry that begins at each; 0: none does */
        bool *continues;   /* the entry follows another */
};

/* A run of entries, each following the one before. */
struct sequence {
        uint32_t first, head; /* the sectors at which the first and the last begin */
        uint32_t tail;        /* where the head says that replay begins */
        uint64_t n_entries, number;
};

static uint8_t *sector_at(const struct search *s, uint32_t sector)
{
        return s->ring + (size_t)(sector % s->n_sectors) * VHDX_LOG_SECTOR;
}

static const struct vhdx_entry_disk *entry_at(const struct search *s, uint32_t sector)
{
        return (const struct vhdx_entry_disk *)sector_at(s, sector);
}

/* Descriptor @i of the entry at @sector: the header takes the place of the first two. */
static const struct vhdx_descriptor_disk *descriptor_at(const struct search *s, uint32_t sector,
                                                        uint32_t i)
{
        const struct vhdx_descriptor_disk *d;

        i += sizeof(struct vhdx_entry_disk) / sizeof(*d);
        d = (const void *)sector_at(s, sector + i / (uint32_t)DESCRIPTORS_MAX);
        return &d[i % DESCRIPTORS_MAX];
}

static bool is_data(const struct vhdx_descriptor_disk *d)
{
        return memcmp(d->signature, "desc", 4) == 0;
}

static bool descriptor_is_right(const struct vhdx_descriptor_disk *d, uint64_t sequence)
{
        uint64_t offset = le64_get(d->offset), length = VHDX_LOG_SECTOR;

        if (!is_data(d)) {
                length = le64_get(d->leading);
                if (memcmp(d->signature, "zero", 4) != 0)
                        return false;
        }
        return le64_get(d->sequence) == sequence && offset % VHDX_LOG_SECTOR == 0 &&
               length % VHDX_LOG_SECTOR == 0 && length <= INT64_MAX && offset <= INT64_MAX;
}

/* [2.3.1.4] The sequence number's halves are at both ends: a torn sector shows. */
static bool data_is_right(const uint8_t *sector, uint64_t sequence)
{
        le32 high, low;

        memcpy(&high, sector + 4, sizeof(high));
        memcpy(&low, sector + VHDX_LOG_SECTOR - 4, sizeof(low));
        return memcmp(sector, "data", 4) == 0 && le32_get(high) == sequence >> 32 &&
               le32_get(low) == (uint32_t)sequence;
}

static bool entry_sum_is_right(const struct search *s, uint32_t sector, uint32_t n_sectors)
{
        static const uint8_t zeroes[4];
        const uint8_t *first = sector_at(s, sector);
        uint32_t sum = crc32c(0, first, 4);

        sum = crc32c(sum, zeroes, sizeof(zeroes));
        sum = crc32c(sum, first + 8, VHDX_LOG_SECTOR - 8);
        for (uint32_t i = 1; i < n_sectors; i++)
                sum = crc32c(sum, sector_at(s, sector + i), VHDX_LOG_SECTOR);
        return sum == le32_get(entry_at(s, sector)->checksum);
}

/* How many sectors the valid entry at @sector has; 0: there is none. */
static uint32_t entry_length(const struct search *s, uint32_t sector)
{
        const struct vhdx_entry_disk *e = entry_at(s, sector);
        uint64_t sequence = le64_get(e->sequence);
        uint32_t length = le32_get(e->length), tail = le32_get(e->tail);
        uint32_t n = le32_get(e->n_descriptors), n_data = 0, n_first;

        if (memcmp(e->signature, "loge", 4) != 0 || !vhdx_guid_equal(&e->log, s->guid) ||
            sequence == 0 || length % VHDX_LOG_SECTOR != 0 || tail % VHDX_LOG_SECTOR != 0)
                return 0;
        length /= VHDX_LOG_SECTOR;
        if (length == 0 || length > s->n_sectors || tail / VHDX_LOG_SECTOR >= s->n_sectors ||
            n > (uint64_t)length * DESCRIPTORS_MAX)
                return 0;
        n_first = (uint32_t)((n + 2 + DESCRIPTORS_MAX - 1) / DESCRIPTORS_MAX);
        for (uint32_t i = 0; i < n; i++) {
                const struct vhdx_descriptor_disk *d = descriptor_at(s, sector, i);

                if (!descriptor_is_right(d, sequence))
                        return 0;
                n_data += is_data(d);
        }
        if (n_first + (uint64_t)n_data != length)
                return 0;
        for (uint32_t i = n_first; i < length; i++)
                if (!data_is_right(sector_at(s, sector + i), sequence))
                        return 0;
        return entry_sum_is_right(s, sector, length) ? length : 0;
}

/* [2.3.2] The longest sequence that begins at @first; false where it is not valid: its head must
 * name one of its entries as the tail. */
static bool sequence_at(const struct search *s, uint32_t first, struct sequence *ret)
{
        struct sequence q = {.first = first};
        uint32_t at = first;
        bool has_tail = false;

        while (s->lengths[at] > 0 &&
               (q.n_entries == 0 || le64_get(entry_at(s, at)->sequence) == q.number + 1)) {
                q.number = le64_get(entry_at(s, at)->sequence);
                q.head = at;
                q.n_entries++;
                at = (at + s->lengths[at]) % s->n_sectors;
        }
        if (q.n_entries == 0)
                return false;
        q.tail = le32_get(entry_at(s, q.head)->tail) / VHDX_LOG_SECTOR;
        at = first;
        for (uint64_t i = 0; i < q.n_entries && !has_tail; i++) {
                has_tail = at == q.tail;
                at = (at + s->lengths[at]) % s->n_sectors;
        }
        *ret = q;
        return has_tail;
}

/* [2.3.3] Of the valid sequences the one whose head has the greatest number. One that begins
 * within another ends where that does, so that only beginnings are followed. */
static bool find_active(const struct search *s, struct sequence *ret_active)
{
        struct sequence q;
        bool found = false;

        for (uint32_t i = 0; i < s->n_sectors; i++) {
                uint32_t next = (i + s->lengths[i]) % s->n_sectors;

                if (s->lengths[i] > 0 && s->lengths[next] > 0 &&
                    le64_get(entry_at(s, next)->sequence) == le64_get(entry_at(s, i)->sequence) + 1)
                        s->continues[next] = true;
        }
        for (uint32_t i = 0; i < s->n_sectors; i++)
                if (s->lengths[i] > 0 && !s->continues[i] && sequence_at(s, i, &q) &&
                    (!found || q.number > ret_active->number)) {
                        *ret_active = q;
                        found = true;
                }
        return found;
}

/* The parts of a data sector that the ring's own marks lie on come from the descriptor. */
static const uint8_t *mend_data(uint8_t *sector, const struct vhdx_descriptor_disk *d)
{
        memcpy(sector, &d->leading, sizeof(d->leading));
        memcpy(sector + VHDX_LOG_SECTOR - sizeof(d->trailing), d->trailing, sizeof(d->trailing));
        return sector;
}

static int take_entry(struct search *s, uint32_t sector, struct vhdx_replayed *records, size_t *n,
                      struct error *err)
{
        uint32_t n_descriptors = le32_get(entry_at(s, sector)->n_descriptors);
        uint32_t data = sector + (n_descriptors + 2 + (uint32_t)DESCRIPTORS_MAX - 1) /
                                     (uint32_t)DESCRIPTORS_MAX;

        for (uint32_t i = 0; i < n_descriptors; i++) {
                const struct vhdx_descriptor_disk *d = descriptor_at(s, sector, i);
                uint64_t begin = le64_get(d->offset);
                struct vhdx_replayed *record = &records[*n];

                *record = (struct vhdx_replayed){begin, begin + VHDX_LOG_SECTOR, NULL};
                if (is_data(d))
                        record->data = mend_data(sector_at(s, data++), d);
                else
                        record->end = begin + le64_get(d->leading);
                if (record->begin < record->end && record->begin < VHDX_TABLE_OFFSET(0))
                        return error_set(err, -EBADMSG,
                                         "entry %llu of the log of '%s' writes to offset %llu: the "
                                         "headers there cannot be changed through it",
                                         (unsigned long long)le64_get(d->sequence), s->image->path,
                                         (unsigned long long)begin);
                *n += record->begin < record->end;
        }
        return 0;
}

static int check_lengths(struct image *image, const struct vhdx_entry_disk *head, struct error *err)
{
        struct vhdx *v = image->state;
        uint64_t flushed = le64_get(head->flushed), last = le64_get(head->last);

        if (image->file_bytes < flushed)
                return error_set(err, -EBADMSG,
                                 "'%s' is truncated: it has %llu bytes, and its log says that it "
                                 "had %llu",
                                 image->path, (unsigned long long)image->file_bytes,
                                 (unsigned long long)flushed);
        if (last > IMAGE_SIZE_MAX)
                return error_set(err, -EBADMSG, "the log of '%s' makes it %llu bytes long",
                                 image->path, (unsigned long long)last);
        last = (last + VHDX_MIB - 1) & ~(VHDX_MIB - 1);
        if (v->file_end < last)
                v->file_end = last;
        return 0;
}

static int replay(struct search *s, const struct sequence *active, struct error *err)
{
        struct vhdx *v = s->image->state;
        size_t n = 0, n_records = 0;
        uint32_t at = active->tail;
        struct vhdx_replayed *records;
        int r = check_lengths(s->image, entry_at(s, active->head), err);

        if (r < 0)
                return r;
        for (bool more = true; more; at = (at + s->lengths[at]) % s->n_sectors) {
                n_records += le32_get(entry_at(s, at)->n_descriptors);
                v->n_log_entries++;
                more = at != active->head;
        }
        records = calloc(n_records + 1, sizeof(*records));
        if (!records)
                return error_set(err, -ENOMEM, "out of memory");
        at = active->tail;
        for (bool more = true; r == 0 && more; at = (at + s->lengths[at]) % s->n_sectors) {
                r = take_entry(s, at, records, &n, err);
                more = at != active->head;
        }
        if (r < 0) {
                free(records);
                return r;
        }
        return vhdx_overlay(v, records, n, err);
}

static int co_load(struct image *image, struct error *err)
{
        struct vhdx *v = image->state;

        if (v->log.length == 0 || v->log.offset > image->file_bytes ||
            v->log.length > image->file_bytes - v->log.offset)
                return error_set(err, -EBADMSG,
                                 "the header of '%s' says that its log is in use, at %llu and %llu "
                                 "bytes long: that is not within the file",
                                 image->path, (unsigned long long)v->log.offset,
                                 (unsigned long long)v->log.length);
        if (v->log.length > VHDX_LOG_MAX)
                return error_set(err, -ENOTSUP,
                                 "the log of '%s' is in use and has %llu bytes; at most %u can be "
                                 "read",
                                 image->path, (unsigned long long)v->log.length, VHDX_LOG_MAX);
        v->log_bytes = malloc(v->log.length);
        if (!v->log_bytes)
                return error_set(err, -ENOMEM, "out of memory");
        return co_image_pread(image, v->log_bytes, v->log.length, v->log.offset, err);
}

int co_vhdx_replay(struct image *image, const struct vhdx_guid *log_guid, struct error *err)
{
        struct vhdx *v = image->state;
        struct search s = {.image = image, .guid = log_guid};
        struct sequence active = {0};
        int r;

        if (vhdx_guid_is_zero(log_guid))
                return 0;
        image->info.dirty = true;
        r = co_load(image, err);
        if (r < 0)
                return r;
        s.ring = v->log_bytes;
        s.n_sectors = (uint32_t)(v->log.length / VHDX_LOG_SECTOR);
        s.lengths = calloc(s.n_sectors, sizeof(s.lengths[0]));
        s.continues = calloc(s.n_sectors, sizeof(s.continues[0]));
        if (!s.lengths || !s.continues)
                r = error_set(err, -ENOMEM, "out of memory");
        for (uint32_t i = 0; r == 0 && i < s.n_sectors; i++)
                s.lengths[i] = entry_length(&s, i);
        if (r == 0 && find_active(&s, &active))
                r = replay(&s, &active, err);
        else if (r == 0)
                r = error_set(err, -EBADMSG,
                              "the log of '%s' at %llu is in use and has no valid sequence of "
                              "entries: what was being changed is lost",
                              image->path, (unsigned long long)v->log.offset);
        free(s.lengths);
        free(s.continues);
        return r;
}
