/* loop_uring.c - the event loop over io_uring(7). The only file that includes liburing.
 *
 * loop_submit() fills a submission entry at once; poll() hands all of them to the kernel and waits
 * in one io_uring_enter(2), then runs the callbacks of all completions in one pass. Nothing is
 * allocated for an operation: its user_data is the loop_io. What finds the submission queue full
 * waits in a list (backlog).
 */
#include <assert.h>
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "common/eventfd_add.h"
#include "common/log.h"
#include "common/loop_core.h"
#include "common/sanitizers.h"
#if WITH_TSAN
#include <sanitizer/tsan_interface.h>
#endif

/* What one iteration can hand over in one system call; more takes further calls, nothing worse. */
#define SQ_ENTRIES 1024u
/* Completions that outgrow the queue are kept by the kernel (IORING_FEAT_NODROP), at a price. */
#define CQ_ENTRIES 4096u

/* user_data that is no loop_io. */
#define DATA_IGNORED UINT64_C(0)
#define DATA_WAKE    UINT64_C(1)

/* loop_io.state; 0 while the back end does not hold the operation. */
enum {
        IO_SUBMITTED = 1,      /* it has a submission entry, or its completion is on the way */
        IO_BACKLOG = 2,        /* in uring.backlog by its link */
        IO_ENDED = 4,          /* in core.ended by its link */
        IO_CANCEL = 8,         /* an early end is asked for */
        IO_CANCEL_LISTED = 16, /* in uring.cancels by its link; together with IO_SUBMITTED */
};

struct uring {
        struct loop_core core;
        struct io_uring ring;
        unsigned enter_flags;
        bool enabled; /* by the thread that runs the loop (IORING_SETUP_R_DISABLED) */
        bool wake_armed;
        struct eventfd_adder adder;
        struct list backlog; /* found the submission queue full; in order */
        struct list cancels; /* to be asked for at the next poll */
};

static struct uring *uring_of(struct loop *loop)
{
        return container_of(loop, struct uring, core.loop);
}

/* Submission */

static void prepare_rw(struct io_uring_sqe *sqe, struct loop_io *io)
{
        bool write = io->op == LOOP_WRITEV;

        if (io->n_iov == 1 && io->iov->iov_len <= INT32_MAX) {
                /* Spares the kernel the copy of the vector. */
                if (write)
                        io_uring_prep_write(sqe, io->fd, io->iov->iov_base,
                                            (unsigned)io->iov->iov_len, io->offset);
                else
                        io_uring_prep_read(sqe, io->fd, io->iov->iov_base,
                                           (unsigned)io->iov->iov_len, io->offset);
        } else if (write) {
                io_uring_prep_writev(sqe, io->fd, io->iov, io->n_iov, io->offset);
        } else {
                io_uring_prep_readv(sqe, io->fd, io->iov, io->n_iov, io->offset);
        }
        /* Otherwise what lies in the page cache is copied by this thread, within the system call. */
        if (io->bulk)
                io_uring_sqe_set_flags(sqe, IOSQE_ASYNC);
}

static void prepare_sendmsg(struct io_uring_sqe *sqe, struct loop_io *io)
{
        io->msg = (struct msghdr){
            .msg_iov = (struct iovec *)io->iov,
            .msg_iovlen = io->n_iov,
        };
        io_uring_prep_sendmsg(sqe, io->fd, &io->msg, io->flags | MSG_NOSIGNAL);
}

static void prepare_recvmsg(struct io_uring_sqe *sqe, struct loop_io *io)
{
        io->msg.msg_iov = (struct iovec *)io->iov;
        io->msg.msg_iovlen = 1;
        io_uring_prep_recvmsg(sqe, io->fd, &io->msg, io->flags | MSG_CMSG_CLOEXEC);
}

static void prepare(struct io_uring_sqe *sqe, struct loop_io *io)
{
        static const uint64_t one = 1;

        switch (io->op) {
        case LOOP_READV:
        case LOOP_WRITEV:
                prepare_rw(sqe, io);
                break;
        case LOOP_SIGNAL:
                io_uring_prep_write(sqe, io->fd, &one, sizeof(one), UINT64_MAX);
                break;
        case LOOP_FDATASYNC:
                io_uring_prep_fsync(sqe, io->fd, IORING_FSYNC_DATASYNC);
                break;
        case LOOP_FALLOCATE:
                io_uring_prep_fallocate(sqe, io->fd, (int)io->flags, (off_t)io->offset,
                                        (off_t)io->length);
                break;
        case LOOP_RECV:
                io_uring_prep_recv(sqe, io->fd, io->iov->iov_base, io->iov->iov_len,
                                   (int)io->flags);
                break;
        case LOOP_RECVMSG:
                prepare_recvmsg(sqe, io);
                break;
        case LOOP_SENDMSG:
                prepare_sendmsg(sqe, io);
                break;
        case LOOP_ACCEPT:
                io_uring_prep_accept(sqe, io->fd, NULL, NULL, SOCK_CLOEXEC);
                break;
        case LOOP_POLL:
                io_uring_prep_poll_add(sqe, io->fd, io->flags);
                break;
        }
        io_uring_sqe_set_data64(sqe, (uint64_t)(uintptr_t)io);
}

static void submit_or_queue(struct uring *u, struct loop_io *io)
{
        struct io_uring_sqe *sqe = list_empty(&u->backlog) ? io_uring_get_sqe(&u->ring) : NULL;

        if (!sqe) {
                io->state |= IO_BACKLOG;
                list_append(&u->backlog, &io->link);
                return;
        }
        io->state |= IO_SUBMITTED;
        prepare(sqe, io);
}

static void uring_submit(struct loop *loop, struct loop_io *io)
{
        struct uring *u = uring_of(loop);

        io->state = 0;
        u->core.in_flight++;
        if (io->op == LOOP_SIGNAL && eventfd_adder_ready(&u->adder)) {
                io->state = IO_ENDED;
                io->result = eventfd_add(&u->adder, io->fd);
                list_append(&u->core.ended, &io->link);
        } else {
                submit_or_queue(u, io);
        }
}

static void uring_cancel(struct loop *loop, struct loop_io *io)
{
        struct uring *u = uring_of(loop);

        if (io->state == 0 || (io->state & (IO_CANCEL | IO_ENDED)))
                return;
        io->state |= IO_CANCEL;
        if (io->state & IO_BACKLOG) {
                list_remove(&io->link);
                io->state = IO_ENDED;
                io->result = -ECANCELED;
                list_append(&u->core.ended, &io->link);
                return;
        }
        /* Asked for at the next poll, and forgotten if the operation ends before: a later operation
         * in the same memory cannot be hit. */
        io->state |= IO_CANCEL_LISTED;
        list_append(&u->cancels, &io->link);
}

static bool emit_cancels(struct uring *u)
{
        list_for_each_safe (it, &u->cancels) {
                struct loop_io *io = container_of(it, struct loop_io, link);
                struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);

                if (!sqe)
                        return false;
                io_uring_prep_cancel64(sqe, (uint64_t)(uintptr_t)io, 0);
                io_uring_sqe_set_data64(sqe, DATA_IGNORED);
                list_remove(it);
                io->state &= ~(uint32_t)IO_CANCEL_LISTED;
        }
        return true;
}

static bool emit_backlog(struct uring *u)
{
        list_for_each_safe (it, &u->backlog) {
                struct loop_io *io = container_of(it, struct loop_io, link);
                struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);

                if (!sqe)
                        return false;
                list_remove(it);
                io->state = (io->state & ~(uint32_t)IO_BACKLOG) | IO_SUBMITTED;
                prepare(sqe, io);
        }
        return true;
}

static bool arm_wake(struct uring *u)
{
        struct io_uring_sqe *sqe;

        if (u->wake_armed)
                return true;
        sqe = io_uring_get_sqe(&u->ring);
        if (!sqe)
                return false;
        io_uring_prep_poll_add(sqe, u->core.wake_fd, POLLIN);
        io_uring_sqe_set_data64(sqe, DATA_WAKE);
        u->wake_armed = true;
        return true;
}

/* Completion */

static void complete(struct uring *u, struct loop_io *io, int result)
{
        if (io->state & IO_CANCEL_LISTED)
                list_remove(&io->link);
        if ((result == -EINTR || result == -EAGAIN) && (io->state & IO_CANCEL))
                result = -ECANCELED;
        loop_core_finish(&u->core, io, result);
}

static void reap(struct uring *u)
{
        struct io_uring_cq *cq = &u->ring.cq;
        unsigned tail = io_uring_smp_load_acquire(cq->ktail);
        unsigned mask = cq->ring_mask;

        for (unsigned head = *cq->khead; head != tail && !u->core.stopped;) {
                const struct io_uring_cqe *cqe = &cq->cqes[head & mask];
                uint64_t data = cqe->user_data;
                int result = cqe->res;

                /* Before the callback, so that a stop in it leaves the rest for the next run. */
                io_uring_smp_store_release(cq->khead, ++head);
                if (data == DATA_WAKE) {
                        loop_core_drain_wake(&u->core);
                        u->wake_armed = false;
                } else if (data != DATA_IGNORED)
                        complete(u, (struct loop_io *)(uintptr_t)data, result);
        }
}

/* The system call */

static unsigned flush_sq(struct uring *u)
{
        struct io_uring_sq *sq = &u->ring.sq;

        sq->sqe_head = sq->sqe_tail;
        io_uring_smp_store_release(sq->ktail, sq->sqe_tail);
        return sq->sqe_tail - io_uring_smp_load_acquire(sq->khead);
}

/* Whether there is anything for the kernel to do or to tell. Asking costs two loads, the call 200
 * ns. */
static bool must_enter(struct uring *u, unsigned to_submit, uint64_t timeout_ns)
{
        unsigned flags = __atomic_load_n(u->ring.sq.kflags, __ATOMIC_RELAXED);

        if (to_submit > 0 || timeout_ns > 0)
                return true;
        return (flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0;
}

/* The kernel is out of memory or of room for completions: reaping helps, and a moment's rest. */
static void back_off(void)
{
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
}

static void enter(struct uring *u, uint64_t timeout_ns)
{
        struct __kernel_timespec ts = {
            .tv_sec = (int64_t)(timeout_ns / 1000000000u),
            .tv_nsec = (long long)(timeout_ns % 1000000000u),
        };
        struct io_uring_getevents_arg arg = {.sigmask_sz = _NSIG / 8};
        unsigned to_submit = flush_sq(u);
        int r;

        if (!must_enter(u, to_submit, timeout_ns))
                return;
        if (timeout_ns > 0 && timeout_ns != LOOP_WAIT_FOREVER)
                arg.ts = (uint64_t)(uintptr_t)&ts;
        r = io_uring_enter2((unsigned)u->ring.enter_ring_fd, to_submit, timeout_ns > 0,
                            IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG | u->enter_flags,
                            (void *)&arg, sizeof(arg));
        if (r >= 0 || r == -ETIME || r == -EINTR)
                return;
        if (r == -EAGAIN || r == -EBUSY || r == -ENOMEM) {
                back_off();
                return;
        }
        /* Anything else is misuse of the ring by this file, or a run on a second thread. */
        log_error("io_uring_enter failed: %s", strerror(-r));
        abort();
}

/* The ring belongs to the thread that enables it (IORING_SETUP_SINGLE_ISSUER): the one that runs
 * the loop. */
static void enable(struct uring *u)
{
        int r;

        u->enabled = true;
        /* liburing 2.3 declares io_uring_enable_rings() and forgets to export it. */
        r = io_uring_register((unsigned)u->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
        assert(r >= 0);
        /* Spares a descriptor look-up in each call; without it all works the same. */
        r = io_uring_register_ring_fd(&u->ring);
        if (r == 1)
                u->enter_flags |= IORING_ENTER_REGISTERED_RING;
}

static void uring_poll(struct loop_core *core, uint64_t timeout_ns)
{
        struct uring *u = container_of(core, struct uring, core);
        bool all;

        if (!u->enabled)
                enable(u);
        /* What does not fit now goes with the next poll, when completions have been reaped. */
        all = arm_wake(u) && emit_cancels(u) && emit_backlog(u);
        if (!all || !list_empty(&u->core.ended) ||
            *u->ring.cq.khead != io_uring_smp_load_acquire(u->ring.cq.ktail))
                timeout_ns = 0;
        if (timeout_ns > 0 && !loop_core_may_sleep(core))
                timeout_ns = 0;
        enter(u, timeout_ns);
        loop_core_awake(core);
        loop_core_run_ended(&u->core);
        reap(u);
}

/* Making one */

static const uint8_t needed_ops[] = {
    IORING_OP_READ,   IORING_OP_WRITE,     IORING_OP_READV,        IORING_OP_WRITEV,
    IORING_OP_FSYNC,  IORING_OP_FALLOCATE, IORING_OP_RECV,         IORING_OP_SENDMSG,
    IORING_OP_ACCEPT, IORING_OP_POLL_ADD,  IORING_OP_ASYNC_CANCEL, IORING_OP_RECVMSG,
};

static int probe_ops(struct io_uring *ring, struct error *err)
{
        struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
        int r = 0;

        if (!probe)
                return error_set(err, -ENOSYS, "io_uring does not say which operations it has");
        for (size_t i = 0; i < sizeof(needed_ops) && r == 0; i++)
                if (!io_uring_opcode_supported(probe, needed_ops[i]))
                        r = error_set(err, -ENOSYS, "io_uring lacks operation %u", needed_ops[i]);
        io_uring_free_probe(probe);
        return r;
}

/* What passes seccomp(2) by, as it is no system call: a ring does what this file asks of it and no
 * more (no files opened, no sockets connected), whoever may have taken over the process. It holds from
 * the ring's enabling on. */
static void restrict_ring(struct io_uring *ring)
{
        static const uint8_t register_ops[] = {
            IORING_REGISTER_ENABLE_RINGS, IORING_REGISTER_RING_FDS, IORING_UNREGISTER_RING_FDS};
        struct io_uring_restriction list[sizeof(needed_ops) + sizeof(register_ops) + 1] = {0};
        size_t n = 0;
        int r;

        for (size_t i = 0; i < sizeof(needed_ops); i++)
                list[n++] = (struct io_uring_restriction){.opcode = IORING_RESTRICTION_SQE_OP,
                                                          .sqe_op = needed_ops[i]};
        for (size_t i = 0; i < sizeof(register_ops); i++)
                list[n++] = (struct io_uring_restriction){.opcode = IORING_RESTRICTION_REGISTER_OP,
                                                          .register_op = register_ops[i]};
        list[n++] = (struct io_uring_restriction){.opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED,
                                                  .sqe_flags = IOSQE_ASYNC};
        r = io_uring_register((unsigned)ring->ring_fd, IORING_REGISTER_RESTRICTIONS, list,
                              (unsigned)n);
        if (r < 0)
                log_debug("io_uring is not restricted: %s", strerror(-r));
}

/* Linux 6.1. Deferred task work hands completions over in batches, inside io_uring_enter() only,
 * and interrupts nobody; in return the ring belongs to one thread. All features that this file
 * relies on are older (of note: since 5.17 a socket operation waits on a descriptor that is
 * O_NONBLOCK, too). Older kernels get the worker threads. */
#define SETUP_FLAGS                                                                                \
        (IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG |     \
         IORING_SETUP_R_DISABLED | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE |                 \
         IORING_SETUP_CLAMP)

/* ThreadSanitizer does not see liburing map and unmap: where one thread's ring was, another's comes
 * later, by the kernel's order. */
static void order_mappings(bool mapped)
{
#if WITH_TSAN
        static char order;

        if (mapped)
                __tsan_acquire(&order);
        else
                __tsan_release(&order);
#else
        (void)mapped;
#endif
}

static void end_ring(struct io_uring *ring)
{
        order_mappings(false);
        io_uring_queue_exit(ring);
}

static int make_ring(struct io_uring *ring, struct error *err)
{
        struct io_uring_params params = {.flags = SETUP_FLAGS, .cq_entries = CQ_ENTRIES};
        int r = io_uring_queue_init_params(SQ_ENTRIES, ring, &params);

        if (r == -EINVAL)
                return error_set(err, -ENOSYS, "this kernel's io_uring is older than Linux 6.1");
        if (r < 0)
                return error_set(err, -ENOSYS, "io_uring is refused here: %s", strerror(-r));
        order_mappings(true);
        return 0;
}

static void uring_free(struct loop *loop)
{
        struct uring *u = uring_of(loop);

        assert(u->core.in_flight == 0);
        eventfd_adder_fini(&u->adder);
        end_ring(&u->ring);
        loop_core_fini(&u->core);
        free(u);
}

static const struct loop_driver uring_driver = {.poll = uring_poll};

static const struct loop_ops uring_ops = {
    .batches = true,
    .now_ns = loop_core_now_ns,
    .submit = uring_submit,
    .cancel = uring_cancel,
    .timer_set = loop_core_timer_set,
    .timer_cancel = loop_core_timer_cancel,
    .post = loop_core_post,
    .post_remote = loop_core_post_remote,
    .run = loop_core_run,
    .stop = loop_core_stop,
    .free = uring_free,
};

int loop_uring_new(struct loop **ret_loop, struct error *err)
{
        struct uring *u = aligned_alloc(_Alignof(struct uring), sizeof(*u));
        int r;

        if (!u)
                return error_set(err, -ENOMEM, "out of memory for an event loop");
        memset(u, 0, sizeof(*u));
        list_init(&u->backlog);
        list_init(&u->cancels);
        u->core.loop.ops = &uring_ops;
        u->core.driver = &uring_driver;
        r = loop_core_init(&u->core, err);
        if (r < 0)
                goto free_loop;
        r = make_ring(&u->ring, err);
        if (r < 0)
                goto free_core;
        r = probe_ops(&u->ring, err);
        if (r < 0)
                goto free_ring;
        restrict_ring(&u->ring);
        if (u->ring.sq.array)
                for (unsigned i = 0; i < u->ring.sq.ring_entries; i++)
                        u->ring.sq.array[i] = i; /* enter() publishes entries in ring order */
        u->adder = EVENTFD_ADDER_INIT(u->core.wake_fd);
        log_debug("event loop on io_uring");
        *ret_loop = &u->core.loop;
        return 0;
free_ring:
        end_ring(&u->ring);
free_core:
        loop_core_fini(&u->core);
free_loop:
        free(u);
        return r;
}
