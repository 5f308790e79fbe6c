/* look.c - what kind of file a front end sent as memory.
 *
 * A file says that it is memory itself (fcntl(2), F_GET_SEALS): that of memfd_create(2), of /dev/shm
 * and of huge pages, and asking is a look into the kernel's own. Of all others it is the file system
 * that knows, and that may be a process or a host which does not answer, on purpose or not. So these
 * are asked by another thread, and not waited for longer than LOOK_WAIT_NS; one that is held up goes
 * on to count among what the device's closer has to do. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "common/closer.h"
#include "vmm-glue/vhost-user/internal.h"

#define LOOK_AGAIN_NS UINT64_C(200000) /* a disk's file system answers at once */

enum answer { ANSWER_NONE, ANSWER_LOCAL, ANSWER_OTHER };

struct look {
        atomic_uint refs;
        atomic_int answer;
        int fd; /* our own */
};

static void look_unref(struct look *look)
{
        if (atomic_fetch_sub(&look->refs, 1) == 1)
                free(look);
}

static void look_elsewhere(void *arg)
{
        struct look *look = arg;

        atomic_store(&look->answer, memory_is_local(look->fd) ? ANSWER_LOCAL : ANSWER_OTHER);
        close(look->fd);
        look_unref(look);
}

static int look_begin(struct vhost_client *client, int fd, struct look **ret_look)
{
        struct look *look = malloc(sizeof(*look));
        int r = -ENOMEM;

        if (!look)
                return r;
        atomic_init(&look->refs, 2);
        atomic_init(&look->answer, ANSWER_NONE);
        look->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        if (look->fd < 0)
                r = -errno;
        else if (closer_run(client->device->closer, look_elsewhere, look))
                r = 0;
        if (r < 0) {
                if (look->fd >= 0)
                        close_elsewhere(client->device->closer, look->fd);
                free(look);
                return r;
        }
        *ret_look = look;
        return 0;
}

int co_look(struct vhost_client *client, int fd, struct error *err)
{
        struct loop *loop = client->device->server->loop;
        uint64_t until_ns = loop_now_ns(loop) + LOOK_WAIT_NS;
        struct look *look;
        int answer, r;

        if (fcntl(fd, F_GET_SEALS) >= 0)
                return 0;
        r = look_begin(client, fd, &look);
        if (r < 0)
                return error_set(err, r, "cannot look at its memory's file: %s", strerror(-r));
        while ((answer = atomic_load(&look->answer)) == ANSWER_NONE && !client->dead &&
               loop_now_ns(loop) < until_ns)
                co_sleep_ns(LOOK_AGAIN_NS);
        look_unref(look);
        if (answer == ANSWER_LOCAL)
                return 0;
        if (answer == ANSWER_OTHER)
                return error_set(err, -EPERM, "it sent a descriptor that is not of shared memory");
        return error_set(err, -ETIMEDOUT, "the file that it sent as memory does not answer");
}
