/* state.c - sections of saved state. */
#include "vmm-glue/vmm/state.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/crc32c.h"
#include "common/le.h"

struct section_disk {
        uint8_t id[STATE_ID_MAX]; /*  0  NUL to its end */
        le32 version;             /* 48 */
        le32 length;              /* 52  of what follows */
        le32 crc32c;              /* 56  of the head with zero here, and of what follows */
        le32 zero;                /* 60 */
};
static_assert(sizeof(struct section_disk) == 64, "saved state");

void state_writer_free(struct state_writer *w)
{
        free(w->data);
        *w = (struct state_writer){0};
}

void state_put(struct state_writer *w, const void *data, size_t size)
{
        if (w->failed)
                return;
        if (size > STATE_SIZE_MAX - w->size) {
                w->failed = true; /* nobody would restore it */
                return;
        }
        if (size > w->room - w->size) {
                size_t room = (w->size + size) * 2;
                uint8_t *more = realloc(w->data, room);

                if (!more) {
                        w->failed = true;
                        return;
                }
                w->data = more;
                w->room = room;
        }
        memcpy(w->data + w->size, data, size);
        w->size += size;
}

void state_put8(struct state_writer *w, uint8_t value)
{
        state_put(w, &value, sizeof(value));
}

void state_put16(struct state_writer *w, uint16_t value)
{
        const uint8_t bytes[2] = {(uint8_t)value, (uint8_t)(value >> 8)};

        state_put(w, bytes, sizeof(bytes));
}

void state_put32(struct state_writer *w, uint32_t value)
{
        const le32 le = le32_make(value);

        state_put(w, &le, sizeof(le));
}

void state_put64(struct state_writer *w, uint64_t value)
{
        const le64 le = le64_make(value);

        state_put(w, &le, sizeof(le));
}

void state_begin(struct state_writer *w, const char *id, uint32_t version)
{
        struct section_disk head = {.version = le32_make(version)};

        assert(!w->open && strlen(id) < STATE_ID_MAX);
        memcpy(head.id, id, strlen(id));
        w->open = true;
        w->section = w->size;
        state_put(w, &head, sizeof(head));
}

void state_end(struct state_writer *w)
{
        struct section_disk head;

        assert(w->open);
        w->open = false;
        if (w->failed)
                return;
        memcpy(&head, w->data + w->section, sizeof(head));
        head.length = le32_make((uint32_t)(w->size - w->section - sizeof(head)));
        memcpy(w->data + w->section, &head, sizeof(head));
        head.crc32c = le32_make(crc32c(0, w->data + w->section, w->size - w->section));
        memcpy(w->data + w->section, &head, sizeof(head));
}

/* The section at @data, with its head checked. */
static int look(const uint8_t *data, size_t size, struct section_disk *ret_head, struct error *err)
{
        struct section_disk head, plain;

        if (size < sizeof(head))
                return error_set(err, -EINVAL, "the saved state ends too early");
        memcpy(&head, data, sizeof(head));
        if (le32_get(head.length) > size - sizeof(head) || head.id[STATE_ID_MAX - 1] != 0)
                return error_set(err, -EINVAL, "the saved state is damaged");
        plain = head;
        plain.crc32c = le32_make(0);
        if (crc32c(crc32c(0, &plain, sizeof(plain)), data + sizeof(head), le32_get(head.length)) !=
            le32_get(head.crc32c))
                return error_set(err, -EINVAL, "the saved state of '%s' is damaged",
                                 (const char *)head.id);
        *ret_head = head;
        return 0;
}

int state_find(const void *data, size_t size, const char *id, uint32_t version,
               struct state_reader *ret_reader, struct error *err)
{
        const uint8_t *at = data;

        while (size > 0) {
                struct section_disk head;
                int r = look(at, size, &head, err);
                uint32_t length;

                if (r < 0)
                        return r;
                length = le32_get(head.length);
                if (strcmp((const char *)head.id, id) == 0) {
                        if (le32_get(head.version) == 0 || le32_get(head.version) > version)
                                return error_set(err, -EINVAL,
                                                 "the saved state of '%s' is of version %u, and "
                                                 "this tarn knows those up to %u",
                                                 id, le32_get(head.version), version);
                        *ret_reader = (struct state_reader){.data = at + sizeof(head),
                                                            .left = length,
                                                            .version = le32_get(head.version)};
                        return 0;
                }
                at += sizeof(head) + length;
                size -= sizeof(head) + length;
        }
        return error_set(err, -ENOENT, "the saved state has nothing of '%s'", id);
}

int state_finish(const struct state_reader *r, const char *id, struct error *err)
{
        if (r->failed || r->left > 0)
                return error_set(err, -EINVAL, "the saved state of '%s' is too %s", id,
                                 r->failed ? "short" : "long");
        return 0;
}

void state_get(struct state_reader *r, void *data, size_t size)
{
        if (r->failed || size > r->left) {
                r->failed = true;
                memset(data, 0, size);
                return;
        }
        memcpy(data, r->data, size);
        r->data += size;
        r->left -= size;
}

uint8_t state_get8(struct state_reader *r)
{
        uint8_t value;

        state_get(r, &value, sizeof(value));
        return value;
}

uint16_t state_get16(struct state_reader *r)
{
        uint8_t bytes[2];

        state_get(r, bytes, sizeof(bytes));
        return (uint16_t)(bytes[0] | bytes[1] << 8);
}

uint32_t state_get32(struct state_reader *r)
{
        le32 le;

        state_get(r, &le, sizeof(le));
        return le32_get(le);
}

uint64_t state_get64(struct state_reader *r)
{
        le64 le;

        state_get(r, &le, sizeof(le));
        return le64_get(le);
}
