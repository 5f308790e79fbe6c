/* fuzz_vhost_saved.c - a server that takes over another's front ends, and is told what the input wants of
 * them: records left out, twice, changed, made up; descriptors that are others, or missing. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "tests/fuzz/vhost_world.h"

#define ACTS_BEFORE 8u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* As save.c has it: descriptors, request, flags, bytes of payload. */
struct record {
        uint32_t n_fds, request, flags, size;
};

/* Where the record that the input names begins, and the length of it. */
static size_t a_record(const struct vhost_saved *saved, struct input *in, size_t *ret_length)
{
        unsigned left = input_u8(in) & 63;
        struct record record;
        size_t at = 0;

        for (;;) {
                if (saved->n_bytes - at < sizeof(record))
                        break;
                memcpy(&record, saved->bytes + at, sizeof(record));
                if (saved->n_bytes - at - sizeof(record) < record.size)
                        break;
                if (left-- == 0) {
                        *ret_length = sizeof(record) + record.size;
                        return at;
                }
                at += sizeof(record) + record.size;
        }
        *ret_length = 0;
        return saved->n_bytes;
}

static void insert(struct vhost_saved *saved, size_t at, const void *data, size_t length)
{
        uint8_t *bytes = malloc(saved->n_bytes + length + 1);

        if (!bytes)
                abort();
        memcpy(bytes, saved->bytes, at);
        memcpy(bytes + at, data, length);
        memcpy(bytes + at + length, saved->bytes + at, saved->n_bytes - at);
        free(saved->bytes);
        saved->bytes = bytes;
        saved->n_bytes += length;
}

static void take_out(struct vhost_saved *saved, size_t at, size_t length)
{
        memmove(saved->bytes + at, saved->bytes + at + length, saved->n_bytes - at - length);
        saved->n_bytes -= length;
}

static void change_word(struct vhost_saved *saved, struct input *in)
{
        size_t length, at = a_record(saved, in, &length);
        uint8_t where = input_u8(in), n_bytes = where & 0x80 ? 8 : 4;
        uint64_t word = 0;

        at += 4 * (size_t)(where & 31);
        if (at + n_bytes > saved->n_bytes)
                return;
        memcpy(&word, saved->bytes + at, n_bytes);
        word = input_number(in, word);
        memcpy(saved->bytes + at, &word, n_bytes);
}

static void add_record(struct vhost_saved *saved, struct input *in)
{
        uint8_t bytes[sizeof(struct record) + 64];
        uint8_t kind = input_u8(in);
        struct record record = {.n_fds = kind >> 6, .request = kind & 63, .flags = VHOST_VERSION};
        size_t length, at = a_record(saved, in, &length);
        const uint8_t *payload;

        if (record.request >= 60) /* those that are no messages */
                record.request = 0x10000u + record.request % 4;
        record.size = (uint32_t)input_take(in, input_u8(in) & 63, &payload);
        memcpy(bytes, &record, sizeof(record));
        if (record.size > 0)
                memcpy(bytes + sizeof(record), payload, record.size);
        insert(saved, at, bytes, sizeof(record) + record.size);
}

static void double_record(struct vhost_saved *saved, struct input *in)
{
        size_t length, at = a_record(saved, in, &length), to_length;
        size_t to = a_record(saved, in, &to_length);
        uint8_t *copy = malloc(length + 1);

        if (!copy)
                abort();
        memcpy(copy, saved->bytes + at, length);
        insert(saved, to, copy, length);
        free(copy);
}

static void change_fd(struct vhost_saved *saved, struct vhost_world *w, struct input *in)
{
        uint8_t which = input_u8(in), kind = input_u8(in);

        if (kind & 0x80) { /* one more */
                saved->fds = reallocarray(saved->fds, saved->n_fds + 1, sizeof(*saved->fds));
                if (!saved->fds)
                        abort();
                saved->fds[saved->n_fds++] = dup(w->files[kind % VW_FILES]);
        } else if (saved->n_fds > 0) {
                int *fd = &saved->fds[which % saved->n_fds];

                if (*fd >= 0)
                        close(*fd);
                *fd = kind & 0x40 ? -1 : dup(w->files[kind % VW_FILES]);
        }
        w->foreign = true; /* shown as something else than it is */
}

static bool changed;

static void change(struct vhost_saved *saved, struct vhost_world *w, struct input *in)
{
        size_t length, at;
        uint8_t kind;

        while (in->left > 0 && ((kind = input_u8(in)) & 7) != 7) {
                changed = true;
                switch (kind & 7) {
                case 0:
                case 1:
                        change_word(saved, in);
                        break;
                case 2:
                        add_record(saved, in);
                        break;
                case 3:
                        double_record(saved, in);
                        break;
                case 4:
                        at = a_record(saved, in, &length);
                        take_out(saved, at, length);
                        break;
                case 5:
                        change_fd(saved, w, in);
                        break;
                case 6: /* cut off anywhere */
                        at = input_u16(in) % (saved->n_bytes + 1);
                        take_out(saved, at, saved->n_bytes - at);
                }
                w->foreign = true; /* regions may lie elsewhere */
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct input in = {data, size};
        struct vhost_world *w = vw_new(&in);

        vw_set_up(w, &in);
        vw_play_some(w, &in, input_u8(&in) % ACTS_BEFORE);
        changed = false;
        bool all = vw_pass_on(w, &in, change);
        /* Memory that is gone cannot be shown again. */
        if (!all && !changed && !w->shrunk && !w->foreign) {
                fprintf(stderr, "what was saved cannot be restored\n");
                abort();
        }
        vw_play(w, &in);
        vw_free(w);
        return 0;
}
