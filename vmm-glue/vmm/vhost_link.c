/* vhost_link.c - see vhost_link.h. */
#include "vmm-glue/vmm/vhost_link.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

static void watch(struct vhost_watch *w, int fd, uint32_t events)
{
        w->io.op = LOOP_POLL;
        w->io.fd = fd;
        w->io.flags = events;
        w->pending = true;
        loop_submit(w->link->loop, &w->io);
}

static void cancel(struct vhost_watch *w)
{
        if (w->pending)
                loop_cancel(w->link->loop, &w->io);
}

static void free_ended(struct vhost_link *link)
{
        if (!link->ended || link->hang_up.pending || link->channel.pending || link->error.pending)
                return;
        vhost_front_close(&link->front);
        close(link->broken);
        free(link);
}

/* Who owns it, with the machine's lock held; NULL: nobody, without. A link that is dropped outside the
 * loop's thread is so under the lock; and the machine ends on the loop's thread, as this one is. */
static struct vhost_link_owner *lock_owner(struct vhost_link *link)
{
        struct vhost_link_owner *owner = atomic_load(&link->owner);

        if (!owner)
                return NULL;
        machine_lock(link->machine);
        owner = atomic_load(&link->owner);
        if (!owner)
                machine_unlock(link->machine);
        return owner;
}

/* Nothing but its end wakes this one: what is answered is read by who has asked. */
static void hung_up(struct loop_io *io, int result)
{
        struct vhost_link *link = container_of(io, struct vhost_watch, io)->link;
        struct machine *machine = link->machine;
        struct vhost_link_owner *owner = lock_owner(link);
        char id[STATE_ID_MAX];

        if (owner) {
                vhost_front_fail(&link->front);
                atomic_store(&link->owner, NULL);
                owner->lost(owner, id);
                machine_unlock(machine);
        }
        link->hang_up.pending = false;
        link->ended = true;
        cancel(&link->channel);
        cancel(&link->error);
        free_ended(link);
        /* Who is told may connect another, or end the machine. */
        if (owner && machine->events->disk_lost)
                machine->events->disk_lost(machine->events_arg, id);
}

static void spoken(struct loop_io *io, int result)
{
        struct vhost_link *link = container_of(io, struct vhost_watch, io)->link;
        struct vhost_link_owner *owner = result < 0 ? NULL : lock_owner(link);
        struct error e = ERROR_INIT;
        bool changed = false;

        link->channel.pending = false;
        if (owner) {
                int r = vhost_front_listen(&link->front, &changed, &e);

                if (changed)
                        owner->changed(owner);
                /* Of a back end that is gone the channel ends as well, and may do so first. */
                if (r < 0 && vhost_front_is_up(&link->front))
                        owner->silent(owner, &e);
                if (r == 0)
                        watch(&link->channel, link->front.channel, POLLIN);
                machine_unlock(link->machine);
        }
        free_ended(link);
}

/* The back end has it as well, and may have read it first. */
static void drain(int fd)
{
        uint64_t value;
        struct iovec iov = {&value, sizeof(value)};

        if (preadv2(fd, &iov, 1, -1, RWF_NOWAIT) < 0)
                return;
}

static void gone_wrong(struct loop_io *io, int result)
{
        struct vhost_link *link = container_of(io, struct vhost_watch, io)->link;
        struct vhost_link_owner *owner = result < 0 ? NULL : lock_owner(link);

        link->error.pending = false;
        if (owner) {
                drain(link->broken);
                owner->broken(owner);
                watch(&link->error, link->broken, POLLIN);
                machine_unlock(link->machine);
        }
        free_ended(link);
}

int vhost_link_new(struct machine *machine, int fd, struct vhost_link **ret_link, struct error *err)
{
        struct vhost_link *link = calloc(1, sizeof(*link));
        int r;

        if (!link) {
                close(fd);
                return error_set(err, -ENOMEM, "no memory for a disk's connection");
        }
        link->machine = machine;
        link->loop = machine->loop;
        r = vhost_front_open(&link->front, fd, VHOST_PATIENCE_MS, err);
        if (r < 0) {
                free(link);
                return r;
        }
        link->broken = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (link->broken < 0) {
                r = error_set(err, -errno, "cannot make an eventfd: %s", strerror(errno));
                vhost_front_close(&link->front);
                free(link);
                return r;
        }
        link->hang_up = (struct vhost_watch){.link = link, .io = {.done = hung_up}};
        link->channel = (struct vhost_watch){.link = link, .io = {.done = spoken}};
        link->error = (struct vhost_watch){.link = link, .io = {.done = gone_wrong}};
        watch(&link->hang_up, link->front.fd, POLLRDHUP);
        watch(&link->error, link->broken, POLLIN);
        if (link->front.channel >= 0)
                watch(&link->channel, link->front.channel, POLLIN);
        *ret_link = link;
        return 0;
}

void vhost_link_set_owner(struct vhost_link *link, struct vhost_link_owner *owner)
{
        atomic_store(&link->owner, owner);
}

void vhost_link_drop(struct vhost_link *link)
{
        if (!link)
                return;
        vhost_front_fail(&link->front);
        /* The last that is done to it here: the loop may be about to free it. */
        atomic_store(&link->owner, NULL);
}
