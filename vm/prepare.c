/* prepare.c - volumes that are made on the first start, by the pools' servers. */
#include "vm/prepare.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "server/session.h"

/* What a machine's start makes is not verified. */
static void show(void *arg, uint64_t done, uint64_t total, bool verifying)
{
        const struct prepare_progress *progress = arg;

        progress->show(progress->arg, done, total);
}

/* Run @request, which is taken over. */
static int ask(const struct vm_disk *disk, json_t *request, const int *fd,
               const struct prepare_progress *progress, json_t **ret_reply, struct error *err)
{
        const struct session session = {.pool = disk->pool,
                                        .request = request,
                                        .fds = fd,
                                        .n_fds = fd ? 1 : 0,
                                        .progress = progress && progress->show ? show : NULL,
                                        .arg = (void *)progress};
        json_t *reply = NULL;
        int r = session_run_served(&session, &reply, err);

        json_decref(request);
        if (ret_reply)
                *ret_reply = reply;
        else
                json_decref(reply);
        return r;
}

static int import(const struct vm_disk *disk, const struct prepare_progress *progress,
                  struct error *err)
{
        int fd = open(disk->from_image, O_RDONLY | O_CLOEXEC | O_NONBLOCK), r;
        json_t *request;

        if (fd < 0)
                return error_set(err, -errno, "cannot open '%s': %s", disk->from_image,
                                 strerror(errno));
        request = json_pack("{s:s, s:s, s:s}", "command", "image-import", "path", disk->from_image,
                            "volume", disk->volume);
        if (request && disk->size_bytes &&
            json_object_set_new(request, "size", json_integer((json_int_t)disk->size_bytes)) < 0) {
                json_decref(request);
                request = NULL;
        }
        r = ask(disk, request, &fd, progress, NULL, err);
        close(fd);
        return r;
}

static int clone(const struct vm_disk *disk, struct error *err)
{
        char snapshot[2 * (POOL_NAME_MAX + 1)];
        json_t *reply = NULL;
        uint64_t size;
        int r;

        snprintf(snapshot, sizeof(snapshot), "%s@%s", disk->from_volume, disk->from_snapshot);
        r = ask(disk,
                json_pack("{s:s, s:s, s:s}", "command", "volume-clone", "snapshot", snapshot,
                          "volume", disk->volume),
                NULL, NULL, NULL, err);
        if (r < 0 || !disk->size_bytes)
                return r;
        r = ask(disk, json_pack("{s:s, s:s}", "command", "volume-show", "volume", disk->volume),
                NULL, NULL, &reply, err);
        size = (uint64_t)json_integer_value(json_object_get(reply, "size"));
        json_decref(reply);
        if (r < 0 || size >= disk->size_bytes)
                return r;
        return ask(disk,
                   json_pack("{s:s, s:s, s:I}", "command", "volume-resize", "volume", disk->volume,
                             "size", (json_int_t)disk->size_bytes),
                   NULL, NULL, NULL, err);
}

static int make(const struct vm_disk *disk, const struct prepare_progress *progress,
                struct error *err)
{
        if (disk->from_image)
                return import(disk, progress, err);
        if (disk->from_volume[0])
                return clone(disk, err);
        return ask(disk,
                   json_pack("{s:s, s:s, s:I}", "command", "volume-create", "volume", disk->volume,
                             "size", (json_int_t)disk->size_bytes),
                   NULL, NULL, NULL, err);
}

int prepare_volumes(const struct vm_file *file, const struct prepare_progress *progress,
                    struct error *err)
{
        int r = 0;

        for (size_t i = 0; r == 0 && i < file->n_disks; i++) {
                const struct vm_disk *disk = &file->disks[i];
                struct error e = ERROR_INIT;

                if (disk->snapshot[0] ||
                    (!disk->from_image && !disk->from_volume[0] && !disk->size_bytes))
                        continue;
                r = ask(disk,
                        json_pack("{s:s, s:s}", "command", "volume-show", "volume", disk->volume),
                        NULL, NULL, NULL, &e);
                if (r == -ENOENT)
                        r = make(disk, progress, &e);
                if (r < 0 && err)
                        *err = e;
        }
        return r;
}
