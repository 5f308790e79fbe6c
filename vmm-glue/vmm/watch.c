/* watch.c - be called when a descriptor can be read from. */
#include "vmm-glue/vmm/watch.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include "common/log.h"
#include "vmm-glue/vmm/machine.h"

struct watch {
        struct loop_io io;
        struct machine *machine; /* may be gone when free() was called */
        struct loop *loop;
        void (*readable)(void *arg);
        void *arg;
        bool freed, polling;
};

static void end(struct watch *watch)
{
        close(watch->io.fd);
        free(watch);
}

static void done(struct loop_io *io, int result)
{
        struct watch *watch = container_of(io, struct watch, io);

        watch->polling = false;
        if (!watch->freed && result >= 0) {
                machine_lock(watch->machine);
                watch->readable(watch->arg);
                machine_unlock(watch->machine);
        }
        if (watch->freed) {
                end(watch);
        } else if (result >= 0) {
                watch->polling = true;
                loop_submit(watch->loop, &watch->io);
        }
}

int watch_new(struct machine *machine, int fd, void (*readable)(void *arg), void *arg,
              struct watch **ret_watch, struct error *err)
{
        struct watch *watch = calloc(1, sizeof(*watch));

        if (!watch) {
                close(fd);
                return error_set(err, -ENOMEM, "no memory to wait for a descriptor");
        }
        *watch = (struct watch){
            .io = {.op = LOOP_POLL, .fd = fd, .flags = POLLIN, .done = done},
            .machine = machine,
            .loop = machine->loop,
            .readable = readable,
            .arg = arg,
            .polling = true,
        };
        loop_submit(watch->loop, &watch->io);
        *ret_watch = watch;
        return 0;
}

void watch_free(struct watch *watch)
{
        if (!watch)
                return;
        watch->freed = true;
        /* Inside its own readable() it is not polling: done() ends it then. */
        if (watch->polling)
                loop_cancel(watch->loop, &watch->io);
}

/* ---- eventfds ---- */

int eventfd_new(struct error *err)
{
        int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

        return fd >= 0 ? fd : error_set(err, -errno, "cannot make an eventfd: %s", strerror(errno));
}

/* Back ends have the same file, may have made it blocking, and filled it: whoever looks at it then finds it
 * signalled. */
void eventfd_signal(int fd)
{
        struct pollfd p = {.fd = fd, .events = POLLOUT};
        const uint64_t one = 1;

        if (poll(&p, 1, 0) == 1 && (p.revents & POLLOUT) && write(fd, &one, sizeof(one)) < 0)
                log_debug("vmm: an eventfd cannot be signalled: %s", strerror(errno));
}

/* The same here. */
bool eventfd_take(int fd)
{
        uint64_t value;
        struct iovec iov = {&value, sizeof(value)};

        return preadv2(fd, &iov, 1, -1, RWF_NOWAIT) == (ssize_t)sizeof(value);
}
