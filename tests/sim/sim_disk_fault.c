/* sim_disk_fault.c - what goes wrong, and what it leaves behind. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim_disk_internal.h"
#include "tests/sim/sim_memory.h"

static unsigned ops_of(const struct sim_fault *fault)
{
        switch (fault->kind) {
        case SIM_FAULT_MISDIRECT:
        case SIM_FAULT_LOSE:
                return SIM_OP(MEMBER_WRITE);
        case SIM_FAULT_LIE:
                return SIM_OP(MEMBER_FLUSH);
        case SIM_FAULT_ERROR:
                break;
        }
        return fault->ops ? fault->ops : ~0u;
}

static bool touches(const struct sim_fault *fault, const struct member_io *io)
{
        if (!(ops_of(fault) & SIM_OP(io->op)))
                return false;
        if (io->op == MEMBER_FLUSH || fault->length == 0)
                return true;
        return io->offset < fault->offset + fault->length &&
               fault->offset < io->offset + io->length;
}

static void count_error(struct sim_disk_stats *stats, int error, enum member_op op)
{
        stats->errors++;
        stats->no_space += error == -ENOSPC;
        stats->read_errors += op == MEMBER_READ;
        stats->write_errors += op == MEMBER_WRITE && error != -ENOSPC;
        stats->flush_errors += op == MEMBER_FLUSH;
}

static void count_hit(struct sim_disk_stats *stats, const struct sim_fault *fault,
                      enum member_op op)
{
        switch (fault->kind) {
        case SIM_FAULT_ERROR:
                count_error(stats, fault->error, op);
                break;
        case SIM_FAULT_MISDIRECT:
                stats->misdirected++;
                break;
        case SIM_FAULT_LOSE:
                stats->lost++;
                break;
        case SIM_FAULT_LIE:
                stats->lies++;
                break;
        }
}

const struct sim_fault *sim_fault_match(struct sim_disk *disk, const struct member_io *io)
{
        list_for_each (it, &disk->faults) {
                struct sim_fault_entry *entry = container_of(it, struct sim_fault_entry, link);
                const struct sim_fault *fault = &entry->fault;

                if (!touches(fault, io))
                        continue;
                entry->seen++;
                if (entry->seen <= fault->skip ||
                    (fault->count && entry->seen > fault->skip + fault->count))
                        continue;
                count_hit(&disk->stats, fault, io->op);
                return fault;
        }
        return NULL;
}

void sim_fault_tear(struct sim_disk *disk, struct sim_pending *pending)
{
        struct sim_buffer *torn = sim_buffer_new(pending->length);

        sim_image_read(disk->visible, pending->offset, torn->data, pending->length);
        for (uint64_t at = 0; at < pending->length; at += SIM_SECTOR)
                if (sim_random_chance(&disk->random, 2))
                        memcpy(torn->data + at, pending->data + at, SIM_SECTOR);
        sim_buffer_unref(pending->buffer);
        pending->buffer = torn;
        pending->data = torn->data;
}

void sim_fault_drop(struct sim_disk *disk, uint64_t covers)
{
        list_for_each_safe (it, &disk->completed) {
                struct sim_op *op = container_of(it, struct sim_op, link);

                if (op->completion > covers)
                        break;
                if (sim_random_chance(&disk->random, 2))
                        sim_pending_apply(&disk->options, &op->pending, disk->durable, SIM_WHOLE);
                list_remove(it);
                sim_buffer_unref(op->pending.buffer);
                free(op);
        }
}

void sim_disk_add_fault(struct sim_disk *disk, const struct sim_fault *fault)
{
        struct sim_fault_entry *entry = sim_must(calloc(1, sizeof(*entry)));

        assert(fault->kind != SIM_FAULT_ERROR || fault->error < 0);
        entry->fault = *fault;
        list_append(&disk->faults, &entry->link);
}

void sim_disk_clear_faults(struct sim_disk *disk)
{
        list_for_each_safe (it, &disk->faults)
                free(container_of(it, struct sim_fault_entry, link));
        list_init(&disk->faults);
}

static void flip(struct sim_image *image, uint64_t offset, uint64_t length, uint8_t bits)
{
        for (uint64_t at = offset; at < offset + length; at++) {
                uint8_t byte;

                sim_image_read(image, at, &byte, 1);
                byte ^= bits;
                sim_image_write(image, at, &byte, 1);
        }
}

void sim_disk_corrupt(struct sim_disk *disk, uint64_t offset, uint64_t length, uint8_t bits)
{
        flip(disk->durable, offset, length, bits);
        flip(disk->visible, offset, length, bits);
        disk->stats.corrupted++;
}

void sim_disk_set_latency(struct sim_disk *disk, uint64_t min_ns, uint64_t max_ns)
{
        assert(min_ns <= max_ns);
        disk->options.latency_min_ns = min_ns;
        disk->options.latency_max_ns = max_ns;
}

void sim_disk_get_stats(const struct sim_disk *disk, struct sim_disk_stats *ret_stats)
{
        *ret_stats = disk->stats;
}
