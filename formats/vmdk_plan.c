/* vmdk_plan.c - what a call to write has to write, and small things that all variants need. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/vmdk_write.h"

int vmdk_plan_add(struct vmdk_plan *plan, struct image *file, const void *data, size_t length,
                  uint64_t offset, struct error *err)
{
        struct vmdk_plan_run *last = plan->n_runs ? &plan->runs[plan->n_runs - 1] : NULL, *grown;

        if (last && last->file == file && (const char *)last->data + last->length == data &&
            last->offset + last->length == offset) {
                last->length += length;
                return 0;
        }
        if (plan->n_runs == plan->n_allocated) {
                size_t n = plan->n_allocated ? 2 * plan->n_allocated : 8;

                grown = reallocarray(plan->runs, n, sizeof(*grown));
                if (!grown)
                        return error_set(err, -ENOMEM, "out of memory");
                plan->runs = grown;
                plan->n_allocated = n;
        }
        plan->runs[plan->n_runs++] = (struct vmdk_plan_run){file, data, length, offset};
        return 0;
}

int vmdk_plan_own(struct vmdk_plan *plan, void *data, struct error *err)
{
        void **grown = data ? reallocarray(plan->owned, plan->n_owned + 1, sizeof(*grown)) : NULL;

        if (!grown) {
                free(data);
                return error_set(err, -ENOMEM, "out of memory");
        }
        plan->owned = grown;
        plan->owned[plan->n_owned++] = data;
        return 0;
}

int co_vmdk_plan_write(struct vmdk_plan *plan, struct error *err)
{
        int r = 0;

        for (size_t i = 0; r == 0 && i < plan->n_runs; i++) {
                const struct vmdk_plan_run *run = &plan->runs[i];

                r = co_image_pwrite(run->file, run->data, run->length, run->offset, err);
        }
        return r;
}

void vmdk_plan_clear(struct vmdk_plan *plan)
{
        for (size_t i = 0; i < plan->n_owned; i++)
                free(plan->owned[i]);
        free(plan->owned);
        free(plan->runs);
        *plan = (struct vmdk_plan){0};
}

void vmdk_header_init(struct vmdk_header_disk *h, uint32_t version, uint32_t flags,
                      uint64_t capacity_sectors, uint32_t grain_bytes)
{
        *h = (struct vmdk_header_disk){
            .magic = le32_make(VMDK_MAGIC),
            .version = le32_make(version),
            .flags = le32_make(flags | VMDK_FLAG_NEWLINES),
            .capacity = le64_make(capacity_sectors),
            .grain_size = le64_make(grain_bytes / VMDK_SECTOR),
            .gtes_per_gt = le32_make(VMDK_GTES),
            .newlines = {'\n', ' ', '\r', '\n'},
        };
}

int co_vmdk_mark_unfinished(struct image *file, struct error *err)
{
        struct vmdk_header_disk h;

        vmdk_header_init(&h, VMDK_UNFINISHED, 0, 0, VMDK_GRAIN);
        return co_image_pwrite(file, &h, sizeof(h), 0, err);
}

int vmdk_set_length(struct image *file, uint64_t length, struct error *err)
{
        if (ftruncate(file->fd, (off_t)length) < 0)
                return error_set(err, -errno, "cannot make '%s' %llu bytes long: %s", file->path,
                                 (unsigned long long)length, strerror(errno));
        return 0;
}

int co_vmdk_sync(struct image *file, struct error *err)
{
        struct loop_io io = {.op = LOOP_FDATASYNC, .fd = file->fd};
        int r = co_io(&io);

        if (r < 0)
                return error_set(err, r, "cannot write '%s' to its disk: %s", file->path,
                                 strerror(-r));
        return 0;
}
