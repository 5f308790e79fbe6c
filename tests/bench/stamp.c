#include "tests/bench/stamp.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define STAMP_MAGIC UINT64_C(0x706d6174736e7261) /* in every unit */
#define BOOK_MAGIC  UINT64_C(0x6b6f6f626e726174) /* at the start of the book */

struct stamp {
        uint64_t magic, seed, unit;
        uint64_t version;
};

/* The book's file: this header, then one entry a unit. Host byte order: it never leaves the
 * machine. */
struct book_header {
        uint64_t magic, range_offset, range_bytes, seed;
        uint32_t unit_bytes, zero;
};

struct book_entry {
        uint32_t submitted, answered, flushed;
        uint32_t zeroed;    /* the last version that is zeroes */
        uint32_t in_flight; /* requests; void in a book that is opened again */
};

/* Answered, but not covered by a flush yet. */
struct unflushed {
        uint64_t unit;
        uint32_t version;
};

struct stamp_book {
        struct book_header *header;
        struct book_entry *entries;
        size_t mapped_bytes;
        uint64_t n_units;
        /* Ring-less queue of answered writes: tickets are positions counted from the beginning of
         * the run. */
        struct unflushed *queue;
        uint64_t queue_first, queue_len, queue_max;
};

static int map_book(const char *path, size_t bytes, bool *ret_is_new, void **ret_map,
                    struct error *err)
{
        struct stat st;
        int r, fd = -1, flags = MAP_SHARED | MAP_ANONYMOUS;

        *ret_is_new = true;
        if (path) {
                fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
                if (fd < 0 || fstat(fd, &st) < 0)
                        goto fail;
                *ret_is_new = st.st_size == 0;
                if (!*ret_is_new && (uint64_t)st.st_size != bytes) {
                        close(fd);
                        return error_set(err, -EINVAL, "'%s' is a book of another range or unit",
                                         path);
                }
                if (*ret_is_new && ftruncate(fd, (off_t)bytes) < 0)
                        goto fail;
                flags = MAP_SHARED;
        }
        *ret_map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
        if (*ret_map == MAP_FAILED)
                goto fail;
        if (fd >= 0)
                close(fd);
        return 0;
fail:
        r = error_set(err, -errno, "cannot keep the book of stamps%s%s: %s", path ? " in " : "",
                      path ? path : "", strerror(errno));
        if (fd >= 0)
                close(fd);
        return r;
}

int stamp_open(const char *path, uint64_t range_offset, uint64_t range_bytes, uint32_t unit_bytes,
               uint64_t seed, struct stamp_book **ret_book, struct error *err)
{
        struct book_header wanted = {.magic = BOOK_MAGIC,
                                     .range_offset = range_offset,
                                     .range_bytes = range_bytes,
                                     .seed = seed,
                                     .unit_bytes = unit_bytes};
        bool is_new;
        void *map;

        assert(unit_bytes >= STAMP_UNIT_MIN && unit_bytes <= STAMP_UNIT_MAX && unit_bytes % 8 == 0);
        assert(range_bytes % unit_bytes == 0 && range_offset % unit_bytes == 0);
        uint64_t n_units = range_bytes / unit_bytes;
        size_t bytes = sizeof(struct book_header) + n_units * sizeof(struct book_entry);
        struct stamp_book *b = calloc(1, sizeof(*b));
        if (!b)
                return error_set(err, -ENOMEM, "out of memory for the stamps");
        int r = map_book(path, bytes, &is_new, &map, err);
        if (r < 0) {
                free(b);
                return r;
        }
        b->header = map;
        b->entries = (struct book_entry *)(b->header + 1);
        b->mapped_bytes = bytes;
        b->n_units = n_units;
        if (is_new)
                *b->header = wanted;
        if (memcmp(b->header, &wanted, sizeof(wanted)) != 0) {
                stamp_close(b);
                return error_set(err, -EINVAL, "'%s' is a book of another range, unit or seed",
                                 path);
        }
        for (uint64_t i = 0; i < n_units && !is_new; i++)
                b->entries[i].in_flight = 0;
        *ret_book = b;
        return 0;
}

void stamp_close(struct stamp_book *b)
{
        if (!b)
                return;
        munmap(b->header, b->mapped_bytes);
        free(b->queue);
        free(b);
}

static uint64_t mix(uint64_t x) /* the finalizer of splitmix64 */
{
        x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
        return x ^ (x >> 31);
}

/* Each 64-bit word depends on all four fields, so that no other unit's or version's bytes pass for
 * it. */
void stamp_fill(uint64_t seed, uint64_t unit, uint64_t version, void *buffer, uint32_t bytes)
{
        struct stamp s = {STAMP_MAGIC, seed, unit, version};
        uint64_t state = mix(mix(s.seed + unit * UINT64_C(0x9e3779b97f4a7c15)) + version);
        uint64_t words[STAMP_UNIT_MAX / 8];

        assert(bytes >= sizeof(s) && bytes <= STAMP_UNIT_MAX && bytes % 8 == 0);
        memcpy(words, &s, sizeof(s));
        for (uint32_t i = sizeof(s) / 8; i < bytes / 8; i++) {
                state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
                words[i] = state ^ (state >> 29);
        }
        memcpy(buffer, words, bytes);
}

bool stamp_claims(uint64_t seed, uint64_t unit, const void *bytes, uint64_t *ret_version)
{
        struct stamp s;

        memcpy(&s, bytes, sizeof(s));
        *ret_version = s.version;
        return s.magic == STAMP_MAGIC && s.seed == seed && s.unit == unit;
}

static void fill_unit(const struct stamp_book *b, uint64_t unit, uint32_t version, void *buffer)
{
        if (version == b->entries[unit].zeroed) /* 0 where none was */
                memset(buffer, 0, b->header->unit_bytes);
        else
                stamp_fill(b->header->seed, unit, version, buffer, b->header->unit_bytes);
}

static uint64_t first_unit(const struct stamp_book *b, uint64_t offset)
{
        assert(offset >= b->header->range_offset);
        return (offset - b->header->range_offset) / b->header->unit_bytes;
}

static uint64_t end_unit(const struct stamp_book *b, uint64_t offset, uint64_t length)
{
        uint64_t end = first_unit(b, offset) + length / b->header->unit_bytes;
        assert(length % b->header->unit_bytes == 0 && end <= b->n_units);
        return end;
}

bool stamp_is_busy(const struct stamp_book *b, uint64_t offset, uint64_t length)
{
        for (uint64_t u = first_unit(b, offset); u < end_unit(b, offset, length); u++)
                if (b->entries[u].in_flight)
                        return true;
        return false;
}

void stamp_begin_write(struct stamp_book *b, uint64_t offset, uint64_t length, void *buffer)
{
        uint8_t *p = buffer;

        for (uint64_t u = first_unit(b, offset); u < end_unit(b, offset, length); u++) {
                struct book_entry *e = &b->entries[u];
                assert(!e->in_flight);
                e->in_flight = 1;
                e->submitted++;
                fill_unit(b, u, e->submitted, p);
                p += b->header->unit_bytes;
        }
}

void stamp_begin_zero(struct stamp_book *b, uint64_t offset, uint64_t length)
{
        for (uint64_t u = first_unit(b, offset); u < end_unit(b, offset, length); u++) {
                struct book_entry *e = &b->entries[u];
                assert(!e->in_flight);
                e->in_flight = 1;
                e->zeroed = ++e->submitted;
        }
}

static int queue_unflushed(struct stamp_book *b, uint64_t unit, uint32_t version)
{
        if (b->queue_len == b->queue_max) {
                uint64_t max = b->queue_max ? b->queue_max * 2 : 4096;
                struct unflushed *queue = realloc(b->queue, max * sizeof(*queue));
                if (!queue)
                        return -ENOMEM;
                b->queue = queue;
                b->queue_max = max;
        }
        b->queue[b->queue_len++] = (struct unflushed){unit, version};
        return 0;
}

int stamp_end_write(struct stamp_book *b, uint64_t offset, uint64_t length, bool fua)
{
        for (uint64_t u = first_unit(b, offset); u < end_unit(b, offset, length); u++) {
                struct book_entry *e = &b->entries[u];
                e->in_flight = 0;
                e->answered = e->submitted;
                if (fua)
                        e->flushed = e->answered;
                else if (queue_unflushed(b, u, e->answered) < 0)
                        return -ENOMEM;
        }
        return 0;
}

void stamp_begin_read(struct stamp_book *b, uint64_t offset, uint64_t length)
{
        for (uint64_t u = first_unit(b, offset); u < end_unit(b, offset, length); u++)
                b->entries[u].in_flight = 1;
}

/* Which version of the unit do these bytes claim to be? */
static bool claimed_version(const struct stamp_book *b, uint64_t unit, const void *bytes,
                            uint32_t *ret_version)
{
        static const uint8_t zeroes[sizeof(struct stamp)];
        uint64_t version;

        /* Of several zeroed versions the last is as good as any: it is the newest. */
        if (memcmp(bytes, zeroes, sizeof(zeroes)) == 0) {
                *ret_version = b->entries[unit].zeroed;
                return true;
        }
        if (!stamp_claims(b->header->seed, unit, bytes, &version) || version > UINT32_MAX)
                return false;
        *ret_version = (uint32_t)version;
        return true;
}

static int describe_stranger(const struct stamp_book *b, uint64_t unit, const void *bytes,
                             struct error *err)
{
        uint64_t offset = b->header->range_offset + unit * b->header->unit_bytes;
        struct stamp s;

        memcpy(&s, bytes, sizeof(s));
        if (s.magic == STAMP_MAGIC)
                return error_set(err, -EILSEQ,
                                 "offset %" PRIu64 " holds version %" PRIu64 " of unit %" PRIu64
                                 " of seed %" PRIu64 " instead of its own unit %" PRIu64,
                                 offset, s.version, s.unit, s.seed, unit);
        return error_set(err, -EILSEQ, "offset %" PRIu64 " holds bytes that were never written",
                         offset);
}

static int check_unit(struct stamp_book *b, uint64_t unit, const void *bytes,
                      enum stamp_since since, struct error *err)
{
        struct book_entry *e = &b->entries[unit];
        uint64_t offset = b->header->range_offset + unit * b->header->unit_bytes;
        uint32_t version, low = since == STAMP_SINCE_CRASH ? e->flushed : e->answered;
        uint32_t high = since == STAMP_SINCE_ANSWERED ? e->answered : e->submitted;
        uint8_t wanted[STAMP_UNIT_MAX];

        if (!claimed_version(b, unit, bytes, &version))
                return describe_stranger(b, unit, bytes, err);
        if (version < low || version > high)
                return error_set(err, -EILSEQ,
                                 "offset %" PRIu64 " holds version %u; allowed are %u to %u",
                                 offset, version, low, high);
        fill_unit(b, unit, version, wanted);
        if (memcmp(wanted, bytes, b->header->unit_bytes) != 0)
                return error_set(err, -EILSEQ,
                                 "offset %" PRIu64 " holds a mixture: version %u at its start only",
                                 offset, version);
        if (since != STAMP_SINCE_ANSWERED)
                e->answered = version;
        if (since == STAMP_SINCE_CRASH)
                e->flushed = version;
        return 0;
}

int stamp_end_read(struct stamp_book *b, uint64_t offset, uint64_t length, const void *buffer,
                   enum stamp_since since, struct error *err)
{
        const uint8_t *p = buffer;
        int result = 0;

        for (uint64_t u = first_unit(b, offset); u < end_unit(b, offset, length); u++) {
                b->entries[u].in_flight = 0;
                if (result == 0)
                        result = check_unit(b, u, p, since, err);
                p += b->header->unit_bytes;
        }
        return result;
}

uint64_t stamp_flush_ticket(const struct stamp_book *b)
{
        return b->queue_first + b->queue_len;
}

void stamp_flushed(struct stamp_book *b, uint64_t ticket)
{
        if (ticket <= b->queue_first)
                return; /* a later flush was answered first */
        uint64_t n = ticket - b->queue_first;
        assert(n <= b->queue_len);
        for (uint64_t i = 0; i < n; i++) {
                struct book_entry *e = &b->entries[b->queue[i].unit];
                if (b->queue[i].version > e->flushed)
                        e->flushed = b->queue[i].version;
        }
        memmove(b->queue, b->queue + n, (b->queue_len - n) * sizeof(*b->queue));
        b->queue_first = ticket;
        b->queue_len -= n;
}
