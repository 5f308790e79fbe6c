/* super.c - labels and superblocks on their members: two label areas, a ring of slots in each. */
#include <errno.h>
#include <stdlib.h>
#include "pool/codec.h"

static uint64_t area_offset(const struct member *m, unsigned end)
{
        return end ? m->size_bytes - LABEL_AREA_BYTES : 0;
}

int co_label_write(struct member *m, const struct label *label, struct error *err)
{
        void *page = page_alloc();
        if (!page)
                return error_set(err, -ENOMEM, "out of memory");
        label_encode(label, page);
        int r = 0;
        for (unsigned end = 0; end < 2 && r == 0; end++)
                r = co_member_write(m, page, BLOCK, area_offset(m, end));
        free(page);
        return r == 0
                   ? 0
                   : error_set(err, r, "cannot write a label to '%s': %s", m->path, strerror(-r));
}

int co_label_read(struct member *m, struct label *ret_label, struct error *err)
{
        if (m->size_bytes < 2 * LABEL_AREA_BYTES)
                return error_set(err, -ENODATA, "'%s' is too small to be a member", m->path);
        void *page = page_alloc();
        if (!page)
                return error_set(err, -ENOMEM, "out of memory");
        int worst = -ENODATA;
        struct error first = ERROR_INIT;
        for (unsigned end = 0; end < 2; end++) {
                struct error e = ERROR_INIT;
                int r = co_member_read(m, page, BLOCK, area_offset(m, end));
                if (r < 0)
                        error_set(&e, r, "its label cannot be read: %s", strerror(-r));
                else
                        r = label_decode(page, ret_label, &e);
                if (r == 0) {
                        free(page);
                        return 0;
                }
                /* A label that says "newer" or "damaged" tells more than one that is not there. */
                if (end == 0 || worst == -ENODATA) {
                        worst = r;
                        first = e;
                }
        }
        free(page);
        if (worst == -ENODATA) {
                error_set(err, -ENODATA, "'%s' is not a member of a tarn pool", m->path);
                return error_hint(
                    err, "was the file or disk replaced? 'tarn pool status' shows the members");
        }
        error_set(err, worst, "'%s': %s", m->path, first.message);
        return first.hint[0] ? error_hint(err, "%s", first.hint) : worst;
}

static uint64_t slot_offset(const struct member *m, unsigned end, uint64_t generation)
{
        return area_offset(m, end) + SUPER_RING_OFFSET +
               generation % SUPER_SLOTS * SUPER_SLOT_BYTES;
}

/* Read one slot; takes its content where it is newer than what is there. What cannot be read is -EIO
 * whatever the disk calls it: some say -ENODATA of a bad sector, which is no empty slot. */
static int co_slot_read(struct member *m, uint64_t offset, void *image, struct super *newest,
                        unsigned *n_ends, struct error *err)
{
        int r = co_member_read(m, image, BLOCK, offset);
        if (r < 0)
                return error_set(err, -EIO, "a superblock cannot be read: %s", strerror(-r));
        size_t length = super_peek_length(image);
        if (!length)
                return error_set(err, -ENODATA, "no superblock");
        if (length > BLOCK)
                r = co_member_read(m, (char *)image + BLOCK, length - BLOCK, offset + BLOCK);
        if (r < 0)
                return error_set(err, -EIO, "a superblock cannot be read: %s", strerror(-r));
        struct super s;
        r = super_decode(image, length, &s, err);
        if (r < 0)
                return r;
        if (newest->member && s.generation == newest->generation)
                ++*n_ends;
        if (!newest->member || s.generation > newest->generation) {
                super_free(newest);
                *newest = s;
                *n_ends = 1;
        } else {
                super_free(&s);
        }
        return 0;
}

int co_super_read(struct member *m, struct super *ret_super, unsigned *ret_n_ends,
                  struct error *err)
{
        void *image = aligned_alloc(BLOCK, SUPER_SLOT_BYTES);
        if (!image)
                return error_set(err, -ENOMEM, "out of memory");
        struct super newest = {0};
        struct error last = ERROR_INIT;
        unsigned n_ends = 0;
        bool unreadable = false;
        int r = -ENODATA;
        for (unsigned end = 0; end < 2 && r != -ENOTSUP; end++) {
                for (unsigned slot = 0; slot < SUPER_SLOTS && r != -ENOTSUP; slot++) {
                        struct error e = ERROR_INIT;
                        r = co_slot_read(m, slot_offset(m, end, slot), image, &newest, &n_ends, &e);
                        if (r < 0 && r != -ENODATA)
                                last = e;
                        unreadable = unreadable || r == -EIO;
                }
        }
        free(image);
        if (r == -ENOTSUP) {
                super_free(&newest);
                error_set(err, r, "'%s': %s", m->path, last.message);
                return error_hint(err, "%s", last.hint);
        }
        if (!newest.member)
                return error_set(err, unreadable ? -EIO : -ENODATA,
                                 "'%s' has a label and no readable superblock", m->path);
        *ret_super = newest;
        if (ret_n_ends)
                *ret_n_ends = n_ends;
        return 0;
}

/* A superblock that was being written when the power went may be there in part. Were the same
 * generation written again with other content over it, and torn in its turn, the halves could add
 * up to the first one, which names blocks that are in other use by now. So what is left of it goes
 * first. */
static int co_slot_forget(struct disk *disk, uint64_t offset, uint64_t generation, void *page)
{
        int r = co_member_read(disk->member, page, BLOCK, offset);
        if (r < 0 || super_peek_generation(page) != generation)
                return 0;
        memset(page, 0, BLOCK);
        return co_disk_write(disk, page, BLOCK, offset);
}

int co_super_forget(struct pool *pool, uint64_t generation, struct error *err)
{
        void *page = page_alloc();
        if (!page)
                return error_set(err, -ENOMEM, "out of memory");
        int r = 0;
        for (size_t i = 0; i < pool->n_disks * 2 && r == 0; i++) {
                struct disk *disk = pool->disk[i / 2];
                r = co_slot_forget(disk, slot_offset(disk->member, i % 2, generation), generation,
                                   page);
                if (r < 0)
                        error_set(err, r, "cannot write to '%s': %s", disk->member->path,
                                  strerror(-r));
        }
        free(page);
        return r;
}

int co_super_write(struct pool *pool, const struct super *super, size_t from, size_t to,
                   struct error *err)
{
        void *image;
        size_t length, n = (to - from) * 2;
        int r = super_encode(super, &image, &length);
        struct batch_io *ios = calloc(n ? n : 1, sizeof(*ios));
        if (r < 0 || !ios) {
                free(ios);
                if (r == 0)
                        free(image);
                return error_set(err, -ENOMEM, "out of memory");
        }
        for (size_t i = 0; i < n; i++) {
                struct disk *disk = pool->disk[from + i / 2];
                ios[i].disk = disk;
                ios[i].io.op = MEMBER_WRITE;
                ios[i].io.offset = slot_offset(disk->member, i % 2, super->generation);
                ios[i].io.length = length;
                ios[i].iov.iov_base = image;
        }
        co_batch(ios, n);
        for (size_t i = 0; i < n; i++)
                if (ios[i].result < 0)
                        r = error_set(err, ios[i].result, "cannot write a superblock to '%s': %s",
                                      ios[i].disk->member->path, strerror(-ios[i].result));
        free(ios);
        free(image);
        return r;
}

/* Members that the superblock before did not name come last: one that has this superblock while no
 * old member has it would be of a pool that never was. */
int co_super_write_all(struct pool *pool, const struct super *super, struct error *err)
{
        size_t old = pool->n_disks_committed;
        int r = old ? co_super_write(pool, super, 0, old, err) : 0;
        if (r == 0 && old && old < pool->n_disks && co_flush_members(pool) < 0)
                return error_set(err, -EIO, "%s", pool->failed);
        return r < 0 ? r : co_super_write(pool, super, old, pool->n_disks, err);
}
