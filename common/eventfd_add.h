/* eventfd_add.h - adding one to an eventfd that others hold as well, without ever waiting.
 *
 * write(2) to an eventfd that is full waits, unless the file is O_NONBLOCK, and that is said by a flag
 * that all who have it share: another can take it away at any time. Linux AIO signals an eventfd at
 * the end of an operation (io_submit(2), IOCB_FLAG_RESFD) as the kernel's own devices do: one that
 * is full stays so, and nobody waits.
 *
 * Threads    one at a time.
 * Errors     0 or -errno.
 * Ownership  release with eventfd_adder_fini(); one that is zeroed is fine.
 */
#pragma once

struct eventfd_adder {
        unsigned long context; /* aio_context_t; 0: none */
        unsigned n_ended;      /* not yet taken away */
        int ready_fd;
};

/* @ready_fd is borrowed: something that can always be written to. -ENOSYS, -EPERM, -EAGAIN, -ENOMEM:
 * there is no AIO to be had. */
int eventfd_adder_init(struct eventfd_adder *adder, int ready_fd);
void eventfd_adder_fini(struct eventfd_adder *adder);
/* -EINVAL: it is no eventfd; -EBADF; -ENOMEM */
int eventfd_add(struct eventfd_adder *adder, int fd);
