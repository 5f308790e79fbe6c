/* eventfd_add.h - adding one to an eventfd that others hold as well, without ever waiting.
 *
 * write(2) to an eventfd that is full waits, unless the file is O_NONBLOCK, and that is said by a flag
 * that all who have it share: another can take it away at any time. Linux AIO signals an eventfd at
 * the end of an operation (io_submit(2), IOCB_FLAG_RESFD) as the kernel's own devices do: one that
 * is full stays so, and nobody waits.
 *
 * AIO's context is made when the first is to be added to: the end of one takes some 20 ms, as io_destroy(2)
 * waits for the other processors.
 *
 * Threads    one at a time.
 * Errors     0 or -errno.
 * Ownership  begin with EVENTFD_ADDER_INIT; release with eventfd_adder_fini().
 */
#pragma once
#include <stdbool.h>

struct eventfd_adder {
        int ready_fd;          /* borrowed: something that can always be written to */
        bool tried;            /* whether there is AIO to be had is known */
        unsigned long context; /* aio_context_t; 0: none */
        unsigned n_ended;      /* not yet taken away */
};

#define EVENTFD_ADDER_INIT(fd) ((struct eventfd_adder){.ready_fd = (fd)})

/* Whether it can add. Where not, there is no AIO here, or no more of it (aio(7), /proc/sys/fs/aio-max-nr). */
bool eventfd_adder_ready(struct eventfd_adder *adder);
void eventfd_adder_fini(struct eventfd_adder *adder);
/* Once it is ready. -EINVAL: it is no eventfd; -EBADF; -ENOMEM */
int eventfd_add(struct eventfd_adder *adder, int fd);
