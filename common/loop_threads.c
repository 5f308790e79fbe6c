/* loop_threads.c - the event loop where io_uring is refused: sockets by poll(2), file operations by
 * a pool of worker threads.
 *
 * Locking    threads.lock guards work, finished and the workers' counters; all else is the loop
 *            thread's.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "common/all_threads.h"
#include "common/eventfd_add.h"
#include "common/log.h"
#include "common/loop_core.h"

/* As many as requests that a disk can use at once, within what a process may decently start. */
#define WORKERS_MAX        16
#define WORKER_STACK_BYTES ((size_t)256 << 10)

/* loop_io.state; 0 while the back end does not hold the operation. */
enum {
        IO_WORK = 1,   /* a worker's, or on its way there and back */
        IO_FRESH = 2,  /* in threads.fresh: not tried yet */
        IO_POLLED = 4, /* in the waits of its descriptor */
        IO_ENDED = 8,  /* in core.ended with its result */
};

/* The operations that wait on one descriptor, in order. poll(2) sees each descriptor once, since it
 * takes no more of them than a process may open. */
struct waits {
        struct list ios;
        size_t index; /* in threads.fds while ios is not empty */
};

struct threads {
        struct loop_core core;
        struct list batch; /* file operations of this iteration, handed to the workers together */
        struct list fresh; /* socket operations of this iteration, and signals */
        struct eventfd_adder adder;

        struct pollfd *fds; /* 0 is the wake descriptor */
        size_t n_fds, fds_capacity;
        struct waits **waits; /* by descriptor; NULL where none has waited yet */
        size_t waits_capacity;

        pthread_mutex_t lock;
        pthread_cond_t work_there;
        struct list work, finished;
        size_t n_work;
        unsigned n_workers, n_idle;
        bool stopping;
        pthread_t workers[WORKERS_MAX];
};

static struct threads *threads_of(struct loop *loop)
{
        return container_of(loop, struct threads, core.loop);
}

static void end_io(struct threads *t, struct loop_io *io, int result)
{
        io->state = IO_ENDED;
        io->result = result;
        list_append(&t->core.ended, &io->link);
}

/* Workers */

/* Where there is no AIO. One that is full is signalled already; whoever fills it just then, and reads
 * no more of it, holds the worker up. */
static ssize_t signal_by_write(int fd)
{
        static const uint64_t one = 1;
        struct pollfd p = {.fd = fd, .events = POLLOUT};

        return poll(&p, 1, 0) == 0 ? 0 : write(fd, &one, sizeof(one));
}

static ssize_t file_call(struct loop_io *io)
{
        switch (io->op) {
        case LOOP_READV:
                return preadv(io->fd, io->iov, (int)io->n_iov, (off_t)io->offset);
        case LOOP_WRITEV:
                return pwritev(io->fd, io->iov, (int)io->n_iov, (off_t)io->offset);
        case LOOP_SIGNAL:
                return signal_by_write(io->fd);
        case LOOP_FDATASYNC:
                return fdatasync(io->fd);
        default:
                assert(io->op == LOOP_FALLOCATE);
                return fallocate(io->fd, (int)io->flags, (off_t)io->offset, (off_t)io->length);
        }
}

static int run_file_io(struct loop_io *io)
{
        ssize_t n;

        do
                n = file_call(io);
        while (n < 0 && errno == EINTR);
        return n < 0 ? -errno : (int)n;
}

static void *worker_main(void *arg)
{
        struct threads *t = arg;

        pthread_mutex_lock(&t->lock);
        for (;;) {
                struct loop_io *io;

                while (list_empty(&t->work) && !t->stopping) {
                        t->n_idle++;
                        pthread_cond_wait(&t->work_there, &t->lock);
                        t->n_idle--;
                }
                if (list_empty(&t->work))
                        break;
                io = container_of(t->work.next, struct loop_io, link);
                list_remove(&io->link);
                t->n_work--;
                pthread_mutex_unlock(&t->lock);
                io->result = run_file_io(io);
                pthread_mutex_lock(&t->lock);
                list_append(&t->finished, &io->link);
                pthread_mutex_unlock(&t->lock);
                loop_core_wake(&t->core);
                pthread_mutex_lock(&t->lock);
        }
        pthread_mutex_unlock(&t->lock);
        return NULL;
}

/* Signals are for the threads that the program made. */
static int start_worker(struct threads *t)
{
        pthread_attr_t attr;
        sigset_t all, old;
        int r;

        r = pthread_attr_init(&attr);
        if (r != 0)
                return -r;
        pthread_attr_setstacksize(&attr, WORKER_STACK_BYTES);
        all_threads_blocked(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old);
        r = pthread_create(&t->workers[t->n_workers], &attr, worker_main, t);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        pthread_attr_destroy(&attr);
        if (r == 0)
                t->n_workers++;
        return -r;
}

/* With no worker at all (the system refuses threads) the loop's thread does the work. */
static void work_here(struct threads *t)
{
        while (!list_empty(&t->work)) {
                struct loop_io *io = container_of(t->work.next, struct loop_io, link);

                list_remove(&io->link);
                t->n_work--;
                end_io(t, io, run_file_io(io));
        }
}

static void hand_over_batch(struct threads *t)
{
        size_t missing;

        if (list_empty(&t->batch))
                return;
        pthread_mutex_lock(&t->lock);
        list_for_each (it, &t->batch)
                t->n_work++;
        list_splice(&t->work, &t->batch);
        missing = t->n_work > t->n_idle ? t->n_work - t->n_idle : 0;
        while (missing > 0 && t->n_workers < WORKERS_MAX && start_worker(t) == 0)
                missing--;
        if (t->n_workers == 0)
                work_here(t);
        else if (t->n_work > 1)
                pthread_cond_broadcast(&t->work_there);
        else
                pthread_cond_signal(&t->work_there);
        pthread_mutex_unlock(&t->lock);
}

static bool take_finished(struct threads *t)
{
        struct list finished;

        list_init(&finished);
        pthread_mutex_lock(&t->lock);
        list_splice(&finished, &t->finished);
        pthread_mutex_unlock(&t->lock);
        list_for_each (it, &finished)
                container_of(it, struct loop_io, link)->state = IO_ENDED;
        list_splice(&t->core.ended, &finished);
        return !list_empty(&t->core.ended);
}

/* Sockets */

static ssize_t socket_call(struct loop_io *io)
{
        switch (io->op) {
        case LOOP_RECV:
                return recv(io->fd, io->iov->iov_base, io->iov->iov_len,
                            (int)io->flags | MSG_DONTWAIT);
        case LOOP_RECVMSG:
                io->msg.msg_iov = (struct iovec *)io->iov;
                io->msg.msg_iovlen = 1;
                return recvmsg(io->fd, &io->msg, (int)io->flags | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        case LOOP_SENDMSG:
                io->msg = (struct msghdr){
                    .msg_iov = (struct iovec *)io->iov,
                    .msg_iovlen = io->n_iov,
                };
                return sendmsg(io->fd, &io->msg, (int)io->flags | MSG_DONTWAIT | MSG_NOSIGNAL);
        default:
                assert(io->op == LOOP_ACCEPT);
                return accept4(io->fd, NULL, NULL, SOCK_CLOEXEC);
        }
}

/* Whether the operation has ended, well or not; false where it has to wait. */
static bool try_socket(struct loop_io *io, int *ret_result)
{
        bool may_wait = io->op == LOOP_ACCEPT || !(io->flags & MSG_DONTWAIT);
        ssize_t n;

        do
                n = socket_call(io);
        while (n < 0 && errno == EINTR);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) && may_wait)
                return false;
        *ret_result = n < 0 ? -errno : (int)n;
        return true;
}

/* Waiting on descriptors */

static int reserve_fds(struct threads *t, size_t n)
{
        size_t capacity = t->fds_capacity ? t->fds_capacity : 64;
        struct pollfd *fds;

        if (n <= t->fds_capacity)
                return 0;
        while (capacity < n)
                capacity *= 2;
        fds = reallocarray(t->fds, capacity, sizeof(*fds));
        if (!fds)
                return -ENOMEM;
        t->fds = fds;
        t->fds_capacity = capacity;
        return 0;
}

/* An open descriptor: what can be asked for is bounded by RLIMIT_NOFILE. */
static struct waits *waits_of(struct threads *t, int fd)
{
        size_t index = (size_t)fd, capacity = t->waits_capacity ? t->waits_capacity : 64;

        if (index >= t->waits_capacity) {
                struct waits **waits;

                while (capacity <= index)
                        capacity *= 2;
                waits = reallocarray(t->waits, capacity, sizeof(*waits));
                if (!waits)
                        return NULL;
                for (size_t i = t->waits_capacity; i < capacity; i++)
                        waits[i] = NULL;
                t->waits = waits;
                t->waits_capacity = capacity;
        }
        if (!t->waits[index]) {
                t->waits[index] = malloc(sizeof(struct waits));
                if (t->waits[index])
                        list_init(&t->waits[index]->ios);
        }
        return t->waits[index];
}

static short wanted_events(const struct loop_io *io)
{
        if (io->op == LOOP_POLL)
                return (short)io->flags;
        return io->op == LOOP_SENDMSG ? POLLOUT : POLLIN;
}

static void wait_on_fd(struct threads *t, struct loop_io *io)
{
        struct waits *waits = NULL;

        /* The other operations have been tried and so have told a descriptor that is not open. */
        if (io->op == LOOP_POLL && fcntl(io->fd, F_GETFD) < 0) {
                end_io(t, io, -errno);
                return;
        }
        if (reserve_fds(t, t->n_fds + 1) == 0)
                waits = waits_of(t, io->fd);
        if (!waits) {
                end_io(t, io, -ENOMEM);
                return;
        }
        if (list_empty(&waits->ios)) {
                waits->index = t->n_fds++;
                t->fds[waits->index] = (struct pollfd){.fd = io->fd};
        }
        t->fds[waits->index].events |= wanted_events(io);
        list_append(&waits->ios, &io->link);
        io->state = IO_POLLED;
}

/* Take the descriptor out of the array when nothing waits on it any more. */
static void forget_fd_if_idle(struct threads *t, struct waits *waits)
{
        size_t last = t->n_fds - 1;

        if (!list_empty(&waits->ios))
                return;
        if (waits->index != last) {
                t->fds[waits->index] = t->fds[last];
                t->waits[t->fds[last].fd]->index = waits->index;
        }
        t->n_fds = last;
}

static void start_fresh(struct threads *t)
{
        while (!list_empty(&t->fresh)) {
                struct loop_io *io = container_of(t->fresh.next, struct loop_io, link);
                int result;

                list_remove(&io->link);
                if (io->op == LOOP_SIGNAL)
                        end_io(t, io, eventfd_add(&t->adder, io->fd));
                else if (io->op != LOOP_POLL && try_socket(io, &result))
                        end_io(t, io, result);
                else
                        wait_on_fd(t, io);
        }
}

/* The operations that the events concern end or go on waiting. What is asked of poll(2) is made up
 * anew: it may still hold what a cancelled one wanted. */
static void fd_ready(struct threads *t, struct pollfd *pollfd)
{
        struct waits *waits = t->waits[pollfd->fd];
        short revents = pollfd->revents;
        const short always = POLLERR | POLLHUP | POLLNVAL;

        pollfd->events = 0;
        list_for_each_safe (it, &waits->ios) {
                struct loop_io *io = container_of(it, struct loop_io, link);
                short wanted = wanted_events(io);
                int result = revents & (wanted | always);
                bool ended = result != 0;

                if (ended && io->op != LOOP_POLL)
                        ended = try_socket(io, &result);
                if (!ended) {
                        pollfd->events |= wanted;
                        continue;
                }
                list_remove(it);
                end_io(t, io, revents & POLLNVAL ? -EBADF : result);
        }
        forget_fd_if_idle(t, waits);
}

/* From the end, since forgetting one moves the last, which has been looked at, to its place. */
static void take_ready(struct threads *t, int n_ready)
{
        for (size_t i = t->n_fds; i-- > 1 && n_ready > 0;) {
                if (t->fds[i].revents == 0)
                        continue;
                n_ready--;
                fd_ready(t, &t->fds[i]);
        }
}

/* The vtable */

static void threads_submit(struct loop *loop, struct loop_io *io)
{
        struct threads *t = threads_of(loop);

        t->core.in_flight++;
        switch (io->op) {
        case LOOP_SIGNAL:
                if (eventfd_adder_ready(&t->adder))
                        break;
                /* fall through */
        case LOOP_READV:
        case LOOP_WRITEV:
        case LOOP_FDATASYNC:
        case LOOP_FALLOCATE:
                io->state = IO_WORK;
                list_append(&t->batch, &io->link);
                return;
        case LOOP_ACCEPT: {
                /* A connection that goes away between poll and accept must not block the loop. */
                int flags = fcntl(io->fd, F_GETFL);

                if (flags >= 0 && !(flags & O_NONBLOCK))
                        fcntl(io->fd, F_SETFL, flags | O_NONBLOCK);
        } break;
        case LOOP_RECV:
        case LOOP_RECVMSG:
        case LOOP_SENDMSG:
        case LOOP_POLL:
                break;
        }
        io->state = IO_FRESH;
        list_append(&t->fresh, &io->link);
}

static void threads_cancel(struct loop *loop, struct loop_io *io)
{
        struct threads *t = threads_of(loop);

        if (io->state != IO_FRESH && io->state != IO_POLLED)
                return;
        list_remove(&io->link);
        if (io->state == IO_POLLED)
                forget_fd_if_idle(t, t->waits[io->fd]);
        end_io(t, io, -ECANCELED);
}

static void wait_for_events(struct threads *t, uint64_t timeout_ns)
{
        struct timespec ts;
        int n;

        if (timeout_ns > 0 && (!loop_core_may_sleep(&t->core) || take_finished(t)))
                timeout_ns = 0;
        ts.tv_sec = (time_t)(timeout_ns / 1000000000u); /* 584 years are for ever */
        ts.tv_nsec = (long)(timeout_ns % 1000000000u);
        n = ppoll(t->fds, t->n_fds, &ts, NULL);
        loop_core_awake(&t->core);
        if (n <= 0)
                /* nothing, or a signal, or out of memory in the kernel: the next iteration asks
                 * again */
                return;
        if (t->fds[0].revents)
                loop_core_drain_wake(&t->core);
        take_ready(t, n);
}

static void threads_poll(struct loop_core *core, uint64_t timeout_ns)
{
        struct threads *t = container_of(core, struct threads, core);

        hand_over_batch(t);
        start_fresh(t);
        wait_for_events(t, list_empty(&t->core.ended) ? timeout_ns : 0);
        take_finished(t);
        loop_core_run_ended(&t->core);
}

static void threads_free(struct loop *loop)
{
        struct threads *t = threads_of(loop);

        assert(t->core.in_flight == 0);
        pthread_mutex_lock(&t->lock);
        t->stopping = true;
        pthread_cond_broadcast(&t->work_there);
        pthread_mutex_unlock(&t->lock);
        for (unsigned i = 0; i < t->n_workers; i++)
                pthread_join(t->workers[i], NULL);
        pthread_cond_destroy(&t->work_there);
        pthread_mutex_destroy(&t->lock);
        eventfd_adder_fini(&t->adder);
        loop_core_fini(&t->core);
        for (size_t i = 0; i < t->waits_capacity; i++)
                free(t->waits[i]);
        free(t->waits);
        free(t->fds);
        free(t);
}

static const struct loop_driver threads_driver = {.poll = threads_poll};

static const struct loop_ops threads_ops = {
    .now_ns = loop_core_now_ns,
    .submit = threads_submit,
    .cancel = threads_cancel,
    .timer_set = loop_core_timer_set,
    .timer_cancel = loop_core_timer_cancel,
    .post = loop_core_post,
    .post_remote = loop_core_post_remote,
    .run = loop_core_run,
    .stop = loop_core_stop,
    .free = threads_free,
};

int loop_threads_new(struct loop **ret_loop, struct error *err)
{
        struct threads *t = aligned_alloc(_Alignof(struct threads), sizeof(*t));
        int r;

        if (!t)
                return error_set(err, -ENOMEM, "out of memory for an event loop");
        memset(t, 0, sizeof(*t));
        list_init(&t->batch);
        list_init(&t->fresh);
        list_init(&t->work);
        list_init(&t->finished);
        pthread_mutex_init(&t->lock, NULL);
        pthread_cond_init(&t->work_there, NULL);
        t->core.loop.ops = &threads_ops;
        t->core.driver = &threads_driver;
        r = loop_core_init(&t->core, err);
        if (r < 0)
                goto fail;
        if (reserve_fds(t, 1) < 0) {
                r = error_set(err, -ENOMEM, "out of memory for an event loop");
                goto fail;
        }
        t->fds[0] = (struct pollfd){.fd = t->core.wake_fd, .events = POLLIN};
        t->n_fds = 1;
        t->adder = EVENTFD_ADDER_INIT(t->core.wake_fd);
        log_debug("event loop on poll and worker threads");
        *ret_loop = &t->core.loop;
        return 0;
fail:
        loop_core_fini(&t->core);
        free(t->fds);
        pthread_cond_destroy(&t->work_there);
        pthread_mutex_destroy(&t->lock);
        free(t);
        return r;
}
