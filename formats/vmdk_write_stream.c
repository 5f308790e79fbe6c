/* vmdk_write_stream.c - stream-optimized files ("Stream-Optimized Compressed Sparse Extents"): written
 * from the beginning to the end. Grains in ascending order, each with its marker; a grain table behind
 * the grains that it names; then the grain directory, the footer, and the mark of the end. Only the
 * first sectors, with header and descriptor, come last: until then the file says that it is not
 * finished. */
#include <errno.h>
#include <isa-l/igzip_lib.h>
#include <stdlib.h>
#include <string.h>

#include "common/offload.h"
#include "formats/vmdk_write.h"

#define LEVEL        2u /* of ISA-L's 0 to 3 */
#define LEVEL_BYTES  ISAL_DEF_LVL2_DEFAULT
#define FIRST_SECTOR 128u /* of data: VMware's */
/* What cannot be compressed is stored, in blocks of at most 65,535 bytes with 5 more each; then the
 * zlib header and checksum; and the marker, and up to a sector's end. */
#define GRAIN_ROOM(bytes) ((bytes) + (bytes) / 64 + (size_t)2 * VMDK_SECTOR)

struct deflated {
        uint64_t grain;
        size_t at, length; /* in the job's buffer, with the marker, in whole sectors */
};

struct job {
        const uint8_t *data;
        size_t length;
        uint64_t offset;
        size_t grain_bytes;
        uint8_t *out; /* room for each grain */
        size_t n_out;
        struct deflated *grains;
        size_t n_grains;
        bool failed;
};

static size_t deflate(struct isal_zstream *stream, uint8_t *level_room, const uint8_t *data,
                      size_t length, uint8_t *out, size_t room)
{
        isal_deflate_stateless_init(stream);
        stream->level = LEVEL;
        stream->level_buf = level_room;
        stream->level_buf_size = LEVEL_BYTES;
        stream->gzip_flag = IGZIP_ZLIB;
        stream->end_of_stream = 1;
        stream->flush = NO_FLUSH;
        stream->next_in = (uint8_t *)data;
        stream->avail_in = (uint32_t)length;
        stream->next_out = out;
        stream->avail_out = (uint32_t)room;
        if (isal_deflate_stateless(stream) != COMP_OK)
                return 0;
        return room - stream->avail_out;
}

static void deflate_grain(struct job *j, struct isal_zstream *stream, uint8_t *level_room,
                          const uint8_t *data, uint64_t grain)
{
        size_t room = GRAIN_ROOM((size_t)j->grain_bytes) - VMDK_GRAIN_MARKER, n, padded;
        uint8_t *out = j->out + j->n_out;
        le64 lba = le64_make(grain * (j->grain_bytes / VMDK_SECTOR));
        le32 size;

        n = deflate(stream, level_room, data, j->grain_bytes, out + VMDK_GRAIN_MARKER, room);
        if (n == 0) {
                j->failed = true;
                return;
        }
        size = le32_make((uint32_t)n);
        memcpy(out, &lba, sizeof(lba));
        memcpy(out + 8, &size, sizeof(size));
        n += VMDK_GRAIN_MARKER;
        padded = (n + VMDK_SECTOR - 1) / VMDK_SECTOR * VMDK_SECTOR;
        memset(out + n, 0, padded - n);
        j->grains[j->n_grains++] = (struct deflated){grain, j->n_out, padded};
        j->n_out += padded;
}

static void deflate_job(void *arg)
{
        struct job *j = arg;
        struct isal_zstream *stream = malloc(sizeof(*stream));
        uint8_t *level_room = malloc(LEVEL_BYTES), *whole = NULL;

        j->failed = !stream || !level_room;
        for (size_t at = 0; !j->failed && at < j->length; at += j->grain_bytes) {
                const uint8_t *data = j->data + at;
                size_t n = j->length - at < j->grain_bytes ? j->length - at : j->grain_bytes;

                if (image_is_zero(data, n))
                        continue;
                if (n < j->grain_bytes) { /* the disk ends in it */
                        whole = calloc(1, j->grain_bytes);
                        j->failed = !whole;
                        if (!whole)
                                break;
                        data = memcpy(whole, data, n);
                }
                deflate_grain(j, stream, level_room, data, (j->offset + at) / j->grain_bytes);
        }
        free(whole);
        free(level_room);
        free(stream);
}

static void marker_init(struct vmdk_marker_disk *m, uint64_t value, uint32_t type)
{
        *m = (struct vmdk_marker_disk){.value = le64_make(value), .type = le32_make(type)};
}

int co_vmdk_stream_begin(struct vmdk_stream_out *o, struct error *err)
{
        uint64_t per_gde = (uint64_t)VMDK_GTES * (o->grain_bytes / VMDK_SECTOR);
        int r;

        co_queue_init(&o->waiting);
        o->n_gdes = (o->capacity_sectors + per_gde - 1) / per_gde;
        o->next_sector = FIRST_SECTOR;
        o->gd = calloc(o->n_gdes + VMDK_SECTOR / 4, sizeof(*o->gd)); /* and up to a sector's end */
        if (!o->gd)
                return error_set(err, -ENOMEM, "out of memory");
        r = vmdk_set_length(o->file, 0, err);
        return r < 0 ? r : co_vmdk_mark_unfinished(o->file, err);
}

static int put_table(struct vmdk_stream_out *o, struct vmdk_plan *plan, struct error *err)
{
        struct {
                struct vmdk_marker_disk marker;
                le32 gtes[VMDK_GTES];
        } * t;
        int r;

        if (!o->table_used)
                return 0;
        t = malloc(sizeof(*t));
        r = vmdk_plan_own(plan, t, err);
        if (r < 0)
                return r;
        marker_init(&t->marker, VMDK_GT_SECTORS, VMDK_MARKER_GT);
        memcpy(t->gtes, o->table, sizeof(t->gtes));
        r = vmdk_plan_add(plan, o->file, t, sizeof(*t), o->next_sector * VMDK_SECTOR, err);
        o->gd[o->gde] = le32_make((uint32_t)o->next_sector + 1);
        o->next_sector += 1 + VMDK_GT_SECTORS;
        o->table_used = false;
        memset(o->table, 0, sizeof(o->table));
        return r;
}

/* Where what was deflated goes; tables come between. */
static int place(struct vmdk_stream_out *o, struct vmdk_plan *plan, const struct job *j,
                 struct error *err)
{
        int r = 0;

        for (size_t i = 0; r == 0 && i < j->n_grains; i++) {
                const struct deflated *d = &j->grains[i];

                if (o->table_used && o->gde != d->grain / VMDK_GTES)
                        r = put_table(o, plan, err);
                if (r < 0)
                        break;
                if (o->next_sector > UINT32_MAX - 2 * VMDK_GRAIN_MAX / VMDK_SECTOR)
                        return error_set(err, -EFBIG,
                                         "'%s' would be longer than 2 TiB, which a VMDK file "
                                         "cannot be",
                                         o->file->path);
                o->gde = d->grain / VMDK_GTES;
                o->table_used = true;
                o->table[d->grain % VMDK_GTES] = le32_make((uint32_t)o->next_sector);
                r = vmdk_plan_add(plan, o->file, j->out + d->at, d->length,
                                  o->next_sector * VMDK_SECTOR, err);
                o->next_sector += d->length / VMDK_SECTOR;
        }
        return r;
}

int co_vmdk_stream_write(struct vmdk_stream_out *o, struct offload *offload, const uint8_t *data,
                         size_t length, uint64_t offset, struct error *err)
{
        size_t n = (length + o->grain_bytes - 1) / o->grain_bytes;
        struct job j = {
            .data = data, .length = length, .offset = offset, .grain_bytes = o->grain_bytes};
        struct vmdk_plan plan = {0};
        uint64_t ticket = o->next_ticket++;
        int r = 0;

        j.out = malloc(n * GRAIN_ROOM((size_t)o->grain_bytes));
        j.grains = calloc(n, sizeof(*j.grains));
        if (j.out && j.grains)
                co_offload(offload, deflate_job, &j);
        else
                j.failed = true;
        while (o->turn != ticket)
                co_wait(&o->waiting);
        if (j.failed)
                r = error_set(err, -ENOMEM, "out of memory");
        else if (o->failed) /* the tables lack what an earlier call had */
                r = error_set(err, -EIO, "'%s' was not written after a failure", o->file->path);
        else
                r = place(o, &plan, &j, err);
        o->failed = o->failed || r < 0;
        o->turn++;
        co_wake_all(&o->waiting);
        if (r == 0)
                r = co_vmdk_plan_write(&plan, err);
        vmdk_plan_clear(&plan);
        free(j.out);
        free(j.grains);
        return r;
}

static void header_init(const struct vmdk_stream_out *o, struct vmdk_header_disk *h,
                        uint64_t gd_sector)
{
        vmdk_header_init(h, 3, VMDK_FLAG_COMPRESSED | VMDK_FLAG_MARKERS, o->capacity_sectors,
                         o->grain_bytes);
        h->descriptor_offset = le64_make(1);
        h->descriptor_size = le64_make(VMDK_DESCRIPTOR_ROOM);
        h->gd_offset = le64_make(gd_sector);
        h->overhead = le64_make(FIRST_SECTOR);
        h->compress_algorithm = le16_make(VMDK_COMPRESS_DEFLATE);
}

/* The directory, the footer and the mark of the end. */
static int co_write_end(struct vmdk_stream_out *o, struct error *err)
{
        uint64_t gd_sectors = (o->n_gdes * 4 + VMDK_SECTOR - 1) / VMDK_SECTOR;
        struct vmdk_marker_disk marker;
        struct {
                struct vmdk_marker_disk marker;
                struct vmdk_header_disk header;
                struct vmdk_marker_disk end;
        } footer = {0};
        int r;

        marker_init(&marker, gd_sectors, VMDK_MARKER_GD);
        r = co_image_pwrite(o->file, &marker, sizeof(marker), o->next_sector * VMDK_SECTOR, err);
        o->next_sector++;
        if (r == 0)
                r = co_image_pwrite(o->file, o->gd, gd_sectors * VMDK_SECTOR,
                                    o->next_sector * VMDK_SECTOR, err);
        marker_init(&footer.marker, 1, VMDK_MARKER_FOOTER);
        header_init(o, &footer.header, o->next_sector);
        o->next_sector += gd_sectors;
        if (r == 0)
                r = co_image_pwrite(o->file, &footer, sizeof(footer), o->next_sector * VMDK_SECTOR,
                                    err);
        return r;
}

int co_vmdk_stream_finish(struct vmdk_stream_out *o, const char *text, struct error *err)
{
        struct vmdk_plan plan = {0};
        struct vmdk_header_disk h;
        int r = 0;

        r = put_table(o, &plan, err);
        if (r == 0)
                r = co_vmdk_plan_write(&plan, err);
        vmdk_plan_clear(&plan);
        if (r == 0)
                r = co_write_end(o, err);
        if (r == 0)
                r = co_image_pwrite(o->file, text, (size_t)VMDK_DESCRIPTOR_ROOM * VMDK_SECTOR,
                                    VMDK_SECTOR, err);
        if (r == 0)
                r = co_vmdk_sync(o->file, err);
        header_init(o, &h, VMDK_GD_AT_END);
        if (r == 0)
                r = co_image_pwrite(o->file, &h, sizeof(h), 0, err);
        return r < 0 ? r : co_vmdk_sync(o->file, err);
}

void vmdk_stream_release(struct vmdk_stream_out *o)
{
        free(o->gd);
}
