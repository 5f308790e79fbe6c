/* fuzz_loop.c - see fuzz_loop.h. Operations are tried in the order in which they were submitted. */
#include "tests/fuzz/fuzz_loop.h"
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>
#include "common/timer_heap.h"

#define START_NS                                                                                   \
        UINT64_C(1000000000) /* not 0, so that code which takes 0 for "never" is found out */
#define STEP_NS UINT64_C(1000)
/* Moves that are made small when the input asks for it: not for ever, or MiBs go byte by byte. */
#define SMALL_MOVES 256u
/* An input of a few KiB has no more to do than this. */
#define STEPS_MAX 200000u

enum io_state { IO_IDLE = 0, IO_WAITING, IO_CANCELLED };

struct fuzz_loop {
        struct loop loop;
        uint64_t now_ns;
        struct timer_heap timers;
        struct list ios;
        struct loop_task *tasks, **tasks_end;
        size_t io_max;
        unsigned n_small; /* moves left that io_max is for */
        uint64_t n_happened;
        bool allow_busy;
};

static struct fuzz_loop *of(struct loop *loop)
{
        return container_of(loop, struct fuzz_loop, loop);
}

static uint64_t now_ns(struct loop *loop)
{
        return of(loop)->now_ns;
}

static void submit(struct loop *loop, struct loop_io *io)
{
        io->state = IO_WAITING;
        list_append(&of(loop)->ios, &io->link);
}

static void cancel(struct loop *loop, struct loop_io *io)
{
        if (io->state == IO_WAITING) /* not one that has ended, as ever */
                io->state = IO_CANCELLED;
}

static void timer_cancel(struct loop *loop, struct loop_timer *timer)
{
        if (timer->state == LOOP_TIMER_ARMED)
                timer_heap_remove(&of(loop)->timers, timer);
        timer->state = LOOP_TIMER_IDLE;
}

static void timer_set(struct loop *loop, struct loop_timer *timer, uint64_t deadline_ns)
{
        timer_cancel(loop, timer);
        timer_heap_insert(&of(loop)->timers, timer, deadline_ns);
}

static void post(struct loop *loop, struct loop_task *task)
{
        struct fuzz_loop *f = of(loop);

        if (task->queued)
                return;
        task->queued = true;
        task->next = NULL;
        *f->tasks_end = task;
        f->tasks_end = &task->next;
}

static void never(struct loop *loop)
{
        abort(); /* fuzzers step */
}

static const struct loop_ops ops = {.now_ns = now_ns,
                                    .submit = submit,
                                    .cancel = cancel,
                                    .timer_set = timer_set,
                                    .timer_cancel = timer_cancel,
                                    .post = post,
                                    .post_remote = post,
                                    .run = never,
                                    .stop = never,
                                    .free = never};

struct loop *fuzz_loop_new(void)
{
        struct fuzz_loop *f = calloc(1, sizeof(*f));

        if (!f)
                abort();
        f->loop.ops = &ops;
        list_init(&f->loop.idle_coroutines);
        list_init(&f->ios);
        f->tasks_end = &f->tasks;
        f->now_ns = START_NS;
        return &f->loop;
}

void fuzz_loop_reset(struct loop *loop)
{
        struct fuzz_loop *f = of(loop);

        assert(list_empty(&f->ios) && !f->tasks && !timer_heap_first(&f->timers));
        f->now_ns = START_NS;
        f->timers = (struct timer_heap){0};
        f->io_max = 0;
        f->allow_busy = false;
}

void fuzz_loop_set_io_max(struct loop *loop, size_t n_bytes)
{
        of(loop)->io_max = n_bytes;
        of(loop)->n_small = SMALL_MOVES;
}

/* What @n_bytes are to be this time. */
static size_t move_bytes(struct fuzz_loop *f, size_t n_bytes)
{
        if (f->io_max == 0 || f->n_small == 0 || n_bytes <= f->io_max)
                return n_bytes;
        f->n_small--;
        return f->io_max;
}

/* ---- operations ---- */

static ssize_t try_receive(struct fuzz_loop *f, struct loop_io *io)
{
        return recv(io->fd, io->iov[0].iov_base, move_bytes(f, io->iov[0].iov_len),
                    (int)io->flags | MSG_DONTWAIT);
}

static ssize_t try_receive_beside(struct fuzz_loop *f, struct loop_io *io)
{
        struct iovec iov = {io->iov[0].iov_base, move_bytes(f, io->iov[0].iov_len)};

        io->msg.msg_iov = &iov;
        io->msg.msg_iovlen = 1;
        return recvmsg(io->fd, &io->msg, (int)io->flags | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
}

static ssize_t try_send(struct fuzz_loop *f, struct loop_io *io)
{
        struct iovec part = io->n_iov ? io->iov[0] : (struct iovec){0};
        struct msghdr msg = {.msg_iov = (struct iovec *)io->iov, .msg_iovlen = io->n_iov};
        size_t length = move_bytes(f, part.iov_len);

        if (length < part.iov_len) {
                part.iov_len = length;
                msg.msg_iov = &part;
                msg.msg_iovlen = 1;
        }
        return sendmsg(io->fd, &msg, (int)io->flags | MSG_DONTWAIT | MSG_NOSIGNAL);
}

static ssize_t try_read_at(struct fuzz_loop *f, const struct loop_io *io)
{
        return pread(io->fd, io->iov[0].iov_base, move_bytes(f, io->iov[0].iov_len),
                     (off_t)io->offset);
}

static ssize_t try_write_at(struct fuzz_loop *f, const struct loop_io *io)
{
        return pwrite(io->fd, io->iov[0].iov_base, move_bytes(f, io->iov[0].iov_len),
                      (off_t)io->offset);
}

static bool is_ready(const struct loop_io *io, short events)
{
        struct pollfd p = {.fd = io->fd, .events = events};

        return poll(&p, 1, 0) > 0;
}

static ssize_t not_yet(void)
{
        errno = EAGAIN;
        return -1;
}

/* Looked at first, as accept4() makes a socket before it looks. */
static ssize_t try_accept(const struct loop_io *io)
{
        if (!is_ready(io, POLLIN))
                return not_yet();
        return accept4(io->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
}

static ssize_t try_signal(const struct loop_io *io)
{
        if (!is_ready(io, POLLOUT))
                return not_yet();
        return eventfd_write(io->fd, 1);
}

static ssize_t try_poll(const struct loop_io *io)
{
        struct pollfd p = {.fd = io->fd, .events = (short)io->flags};

        if (poll(&p, 1, 0) == 0)
                return not_yet();
        return p.revents;
}

/* The result, or -EAGAIN: not yet. */
static int try(struct fuzz_loop *f, struct loop_io *io)
{
        ssize_t n;

        if (io->state == IO_CANCELLED)
                return -ECANCELED;
        switch (io->op) {
        case LOOP_RECV:
                n = try_receive(f, io);
                break;
        case LOOP_RECVMSG:
                n = try_receive_beside(f, io);
                break;
        case LOOP_SENDMSG:
                n = try_send(f, io);
                break;
        case LOOP_ACCEPT:
                n = try_accept(io);
                break;
        case LOOP_SIGNAL:
                n = try_signal(io);
                break;
        case LOOP_POLL:
                n = try_poll(io);
                break;
        case LOOP_READV:
                n = try_read_at(f, io);
                break;
        case LOOP_WRITEV:
                n = try_write_at(f, io);
                break;
        case LOOP_FDATASYNC:
                n = 0;
                break;
        default:
                abort(); /* what no server asks for on its sockets, nor who reads or writes images */
        }
        return n < 0 ? -errno : (int)n;
}

static void run_ios(struct fuzz_loop *f)
{
        struct list tried;

        list_init(&tried);
        list_splice(&tried, &f->ios);
        while (!list_empty(&tried)) {
                struct loop_io *io = container_of(tried.next, struct loop_io, link);
                int result = try(f, io);

                list_remove(&io->link);
                if (result == -EAGAIN) {
                        list_append(&f->ios, &io->link);
                        continue;
                }
                f->n_happened++;
                io->state = IO_IDLE;
                io->done(io, result);
        }
}

/* ---- stepping ---- */

static void run_timers(struct fuzz_loop *f)
{
        struct loop_timer *timer;

        while ((timer = timer_heap_first(&f->timers)) && timer->deadline_ns <= f->now_ns) {
                timer_heap_remove(&f->timers, timer);
                timer->state = LOOP_TIMER_IDLE;
                f->n_happened++;
                timer->fire(timer);
        }
}

/* Those that are there now: what they post waits for the next step. */
static void run_tasks(struct fuzz_loop *f)
{
        struct loop_task *task = f->tasks;

        f->tasks = NULL;
        f->tasks_end = &f->tasks;
        while (task) {
                struct loop_task *next = task->next;

                task->queued = false;
                f->n_happened++;
                task->run(task);
                task = next;
        }
}

bool fuzz_loop_step(struct loop *loop)
{
        struct fuzz_loop *f = of(loop);
        uint64_t before = f->n_happened;

        loop->time_ns = 0;
        run_ios(f);
        loop->time_ns = 0;
        run_timers(f);
        run_tasks(f);
        f->now_ns += STEP_NS;
        return f->n_happened != before;
}

void fuzz_loop_allow_busy(struct loop *loop, bool allow)
{
        of(loop)->allow_busy = allow;
}

void fuzz_loop_settle(struct loop *loop)
{
        for (unsigned n = 0; fuzz_loop_step(loop); n++) {
                if (of(loop)->allow_busy && n >= FUZZ_BUSY_STEPS)
                        return;
                if (n >= STEPS_MAX) {
                        fprintf(stderr, "the loop never rests\n");
                        abort();
                }
        }
}

/* To the next timer, @end_ns at the latest. */
static void pass_time(struct fuzz_loop *f, uint64_t end_ns)
{
        const struct loop_timer *first = timer_heap_first(&f->timers);
        uint64_t to_ns = first && first->deadline_ns < end_ns ? first->deadline_ns : end_ns;

        if (f->now_ns < to_ns)
                f->now_ns = to_ns;
}

void fuzz_loop_advance(struct loop *loop, uint64_t ns)
{
        struct fuzz_loop *f = of(loop);
        uint64_t end_ns = f->now_ns + ns;

        while (f->now_ns < end_ns) {
                pass_time(f, end_ns);
                fuzz_loop_settle(loop);
        }
}

struct main_co {
        co_entry *entry;
        void *arg;
        bool ended;
};

static void co_main(void *arg)
{
        struct main_co *m = arg;

        m->entry(m->arg);
        m->ended = true;
}

void fuzz_loop_co_run(struct loop *loop, co_entry *entry, void *arg, uint64_t limit_ns)
{
        struct fuzz_loop *f = of(loop);
        struct main_co m = {.entry = entry, .arg = arg};
        uint64_t end_ns = f->now_ns + limit_ns;

        if (co_spawn(loop, co_main, &m) < 0)
                abort();
        fuzz_loop_settle(loop);
        while (!m.ended && f->now_ns < end_ns) {
                pass_time(f, end_ns);
                fuzz_loop_settle(loop);
        }
        if (!m.ended) {
                fprintf(stderr, "a coroutine never ends\n");
                abort();
        }
}
