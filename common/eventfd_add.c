/* eventfd_add.c - adding one to an eventfd by the end of an operation of Linux AIO: of a poll that has
 * ended when it begins. */
#include "common/eventfd_add.h"
#include <errno.h>
#include <linux/aio_abi.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"

#define EVENTS 128 /* one is under way at a time; what has ended is taken away now and then */

bool eventfd_adder_ready(struct eventfd_adder *adder)
{
        if (!adder->tried && syscall(SYS_io_setup, EVENTS, &adder->context) < 0)
                log_debug("no AIO to signal eventfds by: %s", strerror(errno));
        adder->tried = true;
        return adder->context != 0;
}

void eventfd_adder_fini(struct eventfd_adder *adder)
{
        if (adder->context)
                syscall(SYS_io_destroy, adder->context);
        adder->context = 0;
}

int eventfd_add(struct eventfd_adder *adder, int fd)
{
        struct iocb iocb = {.aio_lio_opcode = IOCB_CMD_POLL,
                            .aio_fildes = (uint32_t)adder->ready_fd,
                            .aio_buf = POLLOUT,
                            .aio_flags = IOCB_FLAG_RESFD,
                            .aio_resfd = (uint32_t)fd};
        struct iocb *iocbs[] = {&iocb};
        struct io_event events[EVENTS];
        struct timespec now = {0};

        if (syscall(SYS_io_submit, adder->context, 1, iocbs) != 1)
                return -errno;
        if (++adder->n_ended >= EVENTS / 2)
                adder->n_ended -=
                    (unsigned)syscall(SYS_io_getevents, adder->context, 0, EVENTS, events, &now);
        return 0;
}
