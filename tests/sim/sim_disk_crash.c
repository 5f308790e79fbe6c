/* sim_disk_crash.c - what is found on the disk after a power loss. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim_disk_internal.h"
#include "tests/sim/sim_memory.h"

struct sim_buffer *sim_buffer_new(size_t length)
{
        struct sim_buffer *buffer = sim_must(malloc(sizeof(*buffer) + length));

        buffer->refs = 1;
        return buffer;
}

void sim_buffer_unref(struct sim_buffer *buffer)
{
        if (buffer && --buffer->refs == 0)
                free(buffer);
}

/* Did the piece at @index happen, by lot? The lot is a function of its arguments only, so that a
 * choice means the same at every replay. */
static bool lot(uint64_t operation, uint64_t index, uint8_t choice)
{
        return sim_mix(operation * UINT64_C(0x9e3779b97f4a7c15) + index * 256 + choice) & 1;
}

/* A discarded page of a SIM_DISCARD_RANDOM disk: zeroes, or still what it was? Not the crash's
 * choice, so that reads before and after agree. */
static bool discard_zeroes(const struct sim_disk_options *options,
                           const struct sim_pending *pending, uint64_t page)
{
        if (options->discard == SIM_DISCARD_RANDOM)
                return lot(sim_mix(options->seed) + pending->number, page, 0);
        return options->discard == SIM_DISCARD_ZERO;
}

static void apply_range(const struct sim_disk_options *options, const struct sim_pending *pending,
                        struct sim_image *image, uint64_t from, uint64_t to)
{
        if (pending->op == MEMBER_WRITE) {
                sim_image_write(image, pending->offset + from, pending->data + from, to - from);
                return;
        }
        for (uint64_t at = from; at < to; at += SIM_PAGE)
                if (discard_zeroes(options, pending, (pending->offset + at) / SIM_PAGE))
                        sim_image_zero(image, pending->offset + at, SIM_PAGE);
}

void sim_pending_apply(const struct sim_disk_options *options, const struct sim_pending *pending,
                       struct sim_image *image, uint8_t choice)
{
        uint64_t grain = pending->op == MEMBER_WRITE ? SIM_SECTOR : SIM_PAGE;
        uint64_t half = pending->length / grain / 2 * grain;

        switch (choice) {
        case SIM_LOST:
                return;
        case SIM_WHOLE:
                apply_range(options, pending, image, 0, pending->length);
                return;
        case SIM_FIRST_HALF:
                apply_range(options, pending, image, 0, half);
                return;
        case SIM_SECOND_HALF:
                apply_range(options, pending, image, half, pending->length);
                return;
        default:
                for (uint64_t at = 0; at < pending->length; at += grain)
                        if (lot(pending->number, at / grain, choice))
                                apply_range(options, pending, image, at, at + grain);
        }
}

static size_t list_length(const struct list *list)
{
        size_t n = 0;

        for (const struct list *it = list->next; it != list; it = it->next)
                n++;
        return n;
}

static bool is_pending(const struct sim_op *op)
{
        return op->pending.op == MEMBER_WRITE || op->pending.op == MEMBER_DISCARD;
}

/* Call @each for every pending operation, in order. */
static void walk_pending(struct sim_disk *disk, void (*each)(struct sim_op *op, void *arg),
                         void *arg)
{
        list_for_each (it, &disk->completed)
                each(container_of(it, struct sim_op, link), arg);
        list_for_each (it, &disk->in_flight)
                if (is_pending(container_of(it, struct sim_op, link)))
                        each(container_of(it, struct sim_op, link), arg);
}

size_t sim_disk_n_pending(const struct sim_disk *disk)
{
        size_t n = list_length(&disk->completed);

        for (const struct list *it = disk->in_flight.next; it != &disk->in_flight; it = it->next)
                n += is_pending(container_of(it, struct sim_op, link));
        return n;
}

struct find {
        size_t left;
        const struct sim_pending *found;
};

static void find_one(struct sim_op *op, void *arg)
{
        struct find *find = arg;

        if (!find->found && find->left-- == 0)
                find->found = &op->pending;
}

const struct sim_pending *sim_disk_pending(struct sim_disk *disk, size_t index)
{
        struct find find = {.left = index};

        walk_pending(disk, find_one, &find);
        assert(find.found);
        return find.found;
}

static void keep_one(struct sim_op *op, void *arg)
{
        struct sim_snapshot *snapshot = arg;

        snapshot->pending[snapshot->n_pending++] = op->pending;
        if (op->pending.buffer)
                op->pending.buffer->refs++;
}

/* A snapshot as it is held: the options decide what discards leave behind. */
struct snapshot {
        struct sim_snapshot base;
        struct sim_disk_options options;
};

struct sim_snapshot *sim_disk_snapshot(struct sim_disk *disk)
{
        struct snapshot *s = sim_must(calloc(1, sizeof(*s)));
        size_t n = sim_disk_n_pending(disk);

        s->options = disk->options;
        s->options.name = NULL;
        s->base.durable = sim_image_clone(disk->durable);
        s->base.pending = sim_must(calloc(n ? n : 1, sizeof(struct sim_pending)));
        walk_pending(disk, keep_one, &s->base);
        assert(s->base.n_pending == n);
        return &s->base;
}

struct sim_image *sim_snapshot_crash(const struct sim_snapshot *snapshot, const uint8_t *choice)
{
        const struct snapshot *s = container_of(snapshot, struct snapshot, base);
        struct sim_image *image = sim_image_clone(snapshot->durable);

        for (size_t i = 0; choice && i < snapshot->n_pending; i++)
                sim_pending_apply(&s->options, &snapshot->pending[i], image, choice[i]);
        return image;
}

void sim_snapshot_free(struct sim_snapshot *snapshot)
{
        if (!snapshot)
                return;
        for (size_t i = 0; i < snapshot->n_pending; i++)
                sim_buffer_unref(snapshot->pending[i].buffer);
        free(snapshot->pending);
        sim_image_free(snapshot->durable);
        free(container_of(snapshot, struct snapshot, base));
}

struct sim_image *sim_disk_crash(struct sim_disk *disk, const uint8_t *choice)
{
        struct sim_snapshot *snapshot = sim_disk_snapshot(disk);
        struct sim_image *image = sim_snapshot_crash(snapshot, choice);

        sim_snapshot_free(snapshot);
        return image;
}

struct sim_image *sim_disk_durable(const struct sim_disk *disk)
{
        return sim_image_clone(disk->durable);
}

struct sim_image *sim_disk_visible(const struct sim_disk *disk)
{
        return sim_image_clone(disk->visible);
}
