/* sim_disk.c - operations of the simulated disk, from submission to durability. */
#include "tests/sim/sim_disk.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim_disk_internal.h"
#include "tests/sim/sim_memory.h"

#define DEFAULT_LATENCY_MIN_NS 20000u
#define DEFAULT_LATENCY_MAX_NS 200000u
/* What a failed read leaves in the buffer: not zeroes, which could pass for a hole. */
#define READ_RUBBISH 0xee

struct sim_member {
        struct member base;
        struct sim_disk *disk;
};

static struct sim_member *sim_member_of(struct member *m)
{
        return container_of(m, struct sim_member, base);
}

static bool changes_disk(enum member_op op)
{
        return op == MEMBER_WRITE || op == MEMBER_DISCARD;
}

/* ---- trace ---- */

static void trace_add(struct sim_disk *disk, uint64_t value)
{
        disk->trace = sim_mix(disk->trace * 31 + value);
}

static void trace_data(struct sim_disk *disk, const uint8_t *data, uint64_t length)
{
        uint64_t word;

        for (uint64_t at = 0; at < length; at += 64) {
                memcpy(&word, data + at, sizeof(word));
                trace_add(disk, word);
        }
}

static void event(struct sim_op *op, bool completed)
{
        struct sim_disk *disk = op->disk;
        struct sim_event e = {
            .number = ++disk->n_events,
            .time_ns = loop_now_ns(disk->member->base.loop),
            .op = op->pending.op,
            .completed = completed,
            .operation = op->pending.number,
            .offset = op->pending.offset,
            .length = op->pending.length,
            .result = completed ? op->result : 0,
        };

        trace_add(disk, e.time_ns);
        trace_add(disk, e.operation * 16 + e.op * 2 + e.completed);
        trace_add(disk, e.offset);
        trace_add(disk, e.length * 4096 + (unsigned)-e.result);
        if (disk->hook && op->pending.op != MEMBER_READ)
                disk->hook(disk->hook_arg, disk, &e);
}

/* ---- data of requests ---- */

static void gather(uint8_t *to, const struct iovec *iov, unsigned n_iov)
{
        for (unsigned i = 0; i < n_iov; i++) {
                memcpy(to, iov[i].iov_base, iov[i].iov_len);
                to += iov[i].iov_len;
        }
}

static bool unchanged(const uint8_t *data, const struct iovec *iov, unsigned n_iov)
{
        for (unsigned i = 0; i < n_iov; i++) {
                if (memcmp(data, iov[i].iov_base, iov[i].iov_len) != 0)
                        return false;
                data += iov[i].iov_len;
        }
        return true;
}

static void check_request(const struct member *m, const struct member_io *io)
{
        uint64_t total = 0;

        if (io->op == MEMBER_FLUSH)
                return;
        assert(io->length > 0 && io->offset % 4096 == 0 && io->length % 4096 == 0);
        assert(io->offset <= m->size_bytes && io->length <= m->size_bytes - io->offset);
        if (io->op == MEMBER_DISCARD)
                return;
        for (unsigned i = 0; i < io->n_iov; i++) {
                assert((uintptr_t)io->iov[i].iov_base % MEMBER_BUFFER_ALIGN == 0);
                assert(io->iov[i].iov_len % MEMBER_BUFFER_ALIGN == 0);
                total += io->iov[i].iov_len;
        }
        assert(total == io->length);
}

/* ---- completion ---- */

static void op_free(struct sim_op *op)
{
        list_remove(&op->link);
        sim_buffer_unref(op->pending.buffer);
        free(op);
}

static void complete_read(struct sim_op *op)
{
        uint64_t offset = op->pending.offset;

        for (unsigned i = 0; i < op->io->n_iov; i++) {
                const struct iovec *iov = &op->io->iov[i];

                if (op->result < 0)
                        memset(iov->iov_base, READ_RUBBISH, iov->iov_len);
                else
                        sim_image_read(op->disk->visible, offset, iov->iov_base, iov->iov_len);
                offset += iov->iov_len;
                trace_data(op->disk, iov->iov_base, iov->iov_len);
        }
}

static void complete_change(struct sim_op *op)
{
        struct sim_disk *disk = op->disk;

        if (op->result < 0 && op->pending.op == MEMBER_WRITE && op->result == -EIO)
                sim_fault_tear(disk, &op->pending);
        else if (op->result < 0)
                op->pending.length = 0;
        sim_pending_apply(&disk->options, &op->pending, disk->visible, SIM_WHOLE);
        op->pending.completed = true;
        op->completion = ++disk->n_completions;
        list_remove(&op->link);
        list_append(&disk->completed, &op->link);
}

static void complete_flush(struct sim_op *op)
{
        struct sim_disk *disk = op->disk;

        if (op->result < 0) {
                sim_fault_drop(disk, op->flush_covers);
                return;
        }
        if (op->lies)
                return;
        while (!list_empty(&disk->completed)) {
                struct sim_op *change = container_of(disk->completed.next, struct sim_op, link);

                if (change->completion > op->flush_covers)
                        break;
                sim_pending_apply(&disk->options, &change->pending, disk->durable, SIM_WHOLE);
                op_free(change);
        }
}

static void complete(struct loop_timer *timer)
{
        struct sim_op *op = container_of(timer, struct sim_op, timer);
        struct sim_disk *disk = op->disk;
        struct member_io *io = op->io;
        int result = op->result;

        if (io->op == MEMBER_WRITE && op->pending.buffer &&
            !unchanged(op->pending.data, io->iov, io->n_iov))
                disk->stats.changed_buffers++;
        if (io->op == MEMBER_READ)
                complete_read(op);
        else if (io->op == MEMBER_FLUSH)
                complete_flush(op);
        else
                complete_change(op);
        event(op, true);
        op->io = NULL;
        if (!changes_disk(io->op))
                op_free(op);
        member_answer(io, result);
}

/* ---- submission ---- */

static uint64_t draw_deadline(struct sim_disk *disk, uint64_t now_ns)
{
        const struct sim_disk_options *o = &disk->options;
        uint64_t deadline_ns =
            now_ns + o->latency_min_ns +
            sim_random_below(&disk->random, o->latency_max_ns - o->latency_min_ns + 1);

        if (o->in_order && deadline_ns <= disk->last_deadline_ns)
                deadline_ns = disk->last_deadline_ns + 1;
        disk->last_deadline_ns = deadline_ns;
        return deadline_ns;
}

static void count_overlaps(struct sim_disk *disk, const struct member_io *io)
{
        if (!changes_disk(io->op))
                return;
        list_for_each (it, &disk->in_flight) {
                const struct member_io *other = container_of(it, struct sim_op, link)->io;

                if (changes_disk(other->op) && io->offset < other->offset + other->length &&
                    other->offset < io->offset + io->length)
                        disk->stats.overlapping_writes++;
        }
}

static void misdirect(struct sim_disk *disk, struct sim_pending *pending, int64_t delta)
{
        uint64_t to = pending->offset + (uint64_t)delta;
        uint64_t size_bytes = sim_image_size(disk->durable);

        if (to > size_bytes || pending->length > size_bytes - to)
                pending->length = 0;
        else
                pending->offset = to;
}

static void take_fault(struct sim_op *op, const struct sim_fault *fault)
{
        if (!fault)
                return;
        switch (fault->kind) {
        case SIM_FAULT_ERROR:
                op->result = fault->error;
                break;
        case SIM_FAULT_MISDIRECT:
                misdirect(op->disk, &op->pending, fault->delta);
                break;
        case SIM_FAULT_LOSE:
                op->pending.length = 0;
                break;
        case SIM_FAULT_LIE:
                op->lies = true;
                break;
        }
}

static void sim_member_submit(struct member *m, struct member_io *io)
{
        struct sim_disk *disk = sim_member_of(m)->disk;
        struct sim_op *op = sim_must(calloc(1, sizeof(*op)));

        check_request(m, io);
        count_overlaps(disk, io);
        op->disk = disk;
        op->io = io;
        op->pending.op = io->op;
        op->pending.number = ++disk->n_operations;
        op->flush_covers = disk->n_completions;
        if (io->op != MEMBER_FLUSH) {
                op->pending.offset = io->offset;
                op->pending.length = io->length;
        }
        if (io->op == MEMBER_WRITE) {
                op->pending.buffer = sim_buffer_new(io->length);
                op->pending.data_length = io->length;
                op->pending.data = op->pending.buffer->data;
                gather(op->pending.buffer->data, io->iov, io->n_iov);
                trace_data(disk, op->pending.data, io->length);
        }
        if (io->op == MEMBER_DISCARD && !m->can_discard)
                op->pending.length = 0;
        take_fault(op, sim_fault_match(disk, io));
        list_append(&disk->in_flight, &op->link);
        op->timer.fire = complete;
        loop_timer_set(m->loop, &op->timer, draw_deadline(disk, loop_now_ns(m->loop)));
        event(op, false);
}

/* ---- the disk and its member ---- */

static void sim_member_close(struct member *m)
{
        struct sim_member *sm = sim_member_of(m);

        assert(list_empty(&sm->disk->in_flight));
        sm->disk->member = NULL;
        free(m->path);
        free(sm);
}

static const struct member_ops sim_member_ops = {
    .submit = sim_member_submit,
    .close = sim_member_close,
};

struct sim_disk *sim_disk_new(const struct sim_image *image, const struct sim_disk_options *options)
{
        struct sim_disk *disk = sim_must(calloc(1, sizeof(*disk)));

        if (options)
                disk->options = *options;
        disk->name = sim_must(strdup(disk->options.name ? disk->options.name : "sim"));
        disk->options.name = disk->name;
        if (disk->options.latency_max_ns == 0) {
                disk->options.latency_min_ns = DEFAULT_LATENCY_MIN_NS;
                disk->options.latency_max_ns = DEFAULT_LATENCY_MAX_NS;
        }
        assert(disk->options.latency_min_ns <= disk->options.latency_max_ns);
        sim_random_init(&disk->random, disk->options.seed);
        disk->durable = sim_image_clone(image);
        disk->visible = sim_image_clone(image);
        list_init(&disk->in_flight);
        list_init(&disk->completed);
        list_init(&disk->faults);
        return disk;
}

static void free_ops(struct list *ops)
{
        while (!list_empty(ops))
                op_free(container_of(ops->next, struct sim_op, link));
}

void sim_disk_free(struct sim_disk *disk)
{
        if (!disk)
                return;
        free_ops(&disk->in_flight);
        free_ops(&disk->completed);
        sim_disk_clear_faults(disk);
        if (disk->member)
                sim_member_close(&disk->member->base);
        sim_image_free(disk->durable);
        sim_image_free(disk->visible);
        free(disk->name);
        free(disk);
}

int sim_disk_open(struct sim_disk *disk, struct loop *loop, struct member **ret_member)
{
        struct sim_member *sm;

        assert(!disk->member);
        sm = calloc(1, sizeof(*sm));
        if (!sm)
                return -ENOMEM;
        sm->base.path = strdup(disk->name);
        if (!sm->base.path) {
                free(sm);
                return -ENOMEM;
        }
        sm->base.ops = &sim_member_ops;
        sm->base.loop = loop;
        sm->base.size_bytes = sim_image_size(disk->durable);
        sm->base.can_discard = disk->options.discard != SIM_DISCARD_UNSUPPORTED;
        sm->disk = disk;
        disk->member = sm;
        *ret_member = &sm->base;
        return 0;
}

struct sim_disk *sim_disk_of(struct member *member)
{
        assert(member->ops == &sim_member_ops);
        return sim_member_of(member)->disk;
}

void sim_disk_set_hook(struct sim_disk *disk, sim_disk_hook *hook, void *arg)
{
        disk->hook = hook;
        disk->hook_arg = arg;
}

uint64_t sim_disk_trace(const struct sim_disk *disk)
{
        return disk->trace;
}
