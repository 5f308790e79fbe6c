/* disk_merge.c - writes that lie one behind the other become one call.
 *
 * The engine gives new blocks out in order, whatever their places in a volume: what arrives
 * together is mostly adjacent on the disk. Writes submitted in one round of the loop wait for its
 * end; runs of them go to the disk as one. Should such a call fail, its parts are tried one by one,
 * so that an error stays with whom it concerns. */
#include "pool/disk_internal.h"

#include <stdlib.h>

#include "common/coroutine.h"

#define MERGE_PIECES 64u
#define MERGE_BYTES  (UINT64_C(256) << 10)
#define SPARE_MAX    16u

struct merged {
        struct member_io io;
        struct list link;  /* while spare */
        struct list parts; /* member_io.link */
        struct iovec iov[MERGE_PIECES];
};

static struct member_io *first_of(const struct list *writes)
{
        return container_of(writes->next, struct member_io, link);
}

static struct merged *merged_new(struct disk *d)
{
        struct merged *m;

        if (d->n_spare_merged) {
                m = container_of(d->spare_merged.next, struct merged, link);
                list_remove(&m->link);
                d->n_spare_merged--;
        } else {
                m = malloc(sizeof(*m));
        }
        return m;
}

static void merged_free(struct disk *d, struct merged *m)
{
        if (d->n_spare_merged >= SPARE_MAX) {
                free(m);
                return;
        }
        list_append(&d->spare_merged, &m->link);
        d->n_spare_merged++;
}

static void merged_done(struct member_io *io, int result)
{
        struct merged *m = container_of(io, struct merged, io);
        struct disk *d = disk_of(io->member);
        struct list parts = LIST_INIT(parts);

        list_splice(&parts, &m->parts);
        merged_free(d, m);
        while (!list_empty(&parts)) {
                struct member_io *part = first_of(&parts);

                list_remove(&part->link);
                if (result < 0)
                        disk_start(d, part);
                else
                        member_answer(part, 0);
        }
}

void disk_answer(struct member_io *io, int result)
{
        if (io->done == merged_done)
                io->done(io, result); /* its parts are what counts */
        else
                member_answer(io, result);
}

/* @io joins where it continues what is there and there is room for its pieces. */
static bool joins(const struct merged *m, const struct member_io *io)
{
        return io->offset == m->io.offset + m->io.length &&
               m->io.length + io->length <= MERGE_BYTES && m->io.n_iov + io->n_iov <= MERGE_PIECES;
}

static void join(struct merged *m, struct member_io *io)
{
        for (unsigned i = 0; i < io->n_iov; i++)
                m->iov[m->io.n_iov++] = io->iov[i];
        m->io.length += io->length;
        list_remove(&io->link);
        list_append(&m->parts, &io->link);
}

/* Start the first write that waits, with those that continue it. */
static void start_first(struct disk *d)
{
        struct member_io *io = first_of(&d->writes);
        struct member_io *next = io->link.next == &d->writes
                                     ? NULL
                                     : container_of(io->link.next, struct member_io, link);
        struct merged *m = NULL;

        if (next && next->offset == io->offset + io->length && io->n_iov <= MERGE_PIECES / 2)
                m = merged_new(d);
        if (!m) {
                list_remove(&io->link);
                disk_start(d, io);
                return;
        }
        m->io = (struct member_io){.op = MEMBER_WRITE,
                                   .offset = io->offset,
                                   .iov = m->iov,
                                   .done = merged_done,
                                   .member = &d->base};
        list_init(&m->parts);
        do {
                join(m, first_of(&d->writes));
        } while (!list_empty(&d->writes) && joins(m, first_of(&d->writes)));
        disk_start(d, &m->io);
}

static void merge_run(struct loop_task *task)
{
        struct disk *d = container_of(task, struct disk, merge_task);

        d->many_writes = disk_many(d, d->n_small_writes);
        d->n_small_writes = 0;
        while (!list_empty(&d->writes))
                start_first(d);
        d->many_writes = false;
}

void disk_merge_init(struct disk *d)
{
        list_init(&d->writes);
        list_init(&d->spare_merged);
        d->merge_task.run = merge_run;
}

void disk_merge_destroy(struct disk *d)
{
        list_for_each_safe (it, &d->spare_merged)
                free(container_of(it, struct merged, link));
}

void disk_write(struct disk *d, struct member_io *io)
{
        list_append(&d->writes, &io->link);
        d->n_small_writes += io->length <= COPY_SMALL;
        loop_post(d->base.loop, &d->merge_task);
}
