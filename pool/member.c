/* member.c - what is the same for every kind of member: counting, and waiting in a coroutine. */
#include "pool/member.h"

#include "common/coroutine.h"

void member_lend(struct member *m, struct member_io *io)
{
        io->member = m;
        io->began_ns = loop_time_ns(m->loop);
        meter_queue_begin(&m->meter.queue, io->began_ns);
}

void member_submit(struct member *m, struct member_io *io)
{
        member_lend(m, io);
        m->ops->submit(m, io);
}

void member_fetch(struct member_io *io, struct loop *loop)
{
        io->member->ops->fetch(io->member, io, loop);
}

void member_begin_anew(struct member_io *io)
{
        io->member->ops->submit(io->member, io);
}

void member_answer(struct member_io *io, int result)
{
        struct member *m = io->member;
        uint64_t now_ns = loop_time_ns(m->loop);

        meter_count(&m->meter.line[io->op], io->length, result, now_ns - io->began_ns);
        meter_queue_end(&m->meter.queue, now_ns);
        io->done(io, result);
}

void member_close(struct member *m)
{
        if (m)
                m->ops->close(m);
}

struct waiting_io {
        struct member_io io;
        struct co *co;
        bool done;
        int result;
};

static void wake(struct member_io *io, int result)
{
        struct waiting_io *w = container_of(io, struct waiting_io, io);

        w->result = result;
        w->done = true;
        co_wake(w->co);
}

static int co_submit(struct member *m, struct waiting_io *w)
{
        w->io.done = wake;
        w->co = co_self();
        member_submit(m, &w->io);
        while (!w->done)
                co_suspend();
        return w->result;
}

int co_member_read(struct member *m, void *buffer, size_t length, uint64_t offset)
{
        struct iovec iov = {.iov_base = buffer, .iov_len = length};
        struct waiting_io w = {
            .io = {.op = MEMBER_READ, .offset = offset, .length = length, .iov = &iov, .n_iov = 1},
        };

        return co_submit(m, &w);
}

int co_member_write(struct member *m, const void *buffer, size_t length, uint64_t offset)
{
        struct iovec iov = {.iov_base = (void *)buffer, .iov_len = length};
        struct waiting_io w = {
            .io = {.op = MEMBER_WRITE, .offset = offset, .length = length, .iov = &iov, .n_iov = 1},
        };

        return co_submit(m, &w);
}

int co_member_flush(struct member *m)
{
        struct waiting_io w = {.io = {.op = MEMBER_FLUSH}};

        return co_submit(m, &w);
}

int co_member_discard(struct member *m, uint64_t offset, uint64_t length)
{
        struct waiting_io w = {.io = {.op = MEMBER_DISCARD, .offset = offset, .length = length}};

        return co_submit(m, &w);
}
