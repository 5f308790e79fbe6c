/* Superblocks that were torn by a crash, damaged, or cannot be read: which one a pool is opened by. */
#include <errno.h>
#include "common/log.h"
#include "pool/codec.h"
#include "tests/unit/open_try.h"

#define MOMENTS_MAX 512u
#define TORN_WAYS   24u
#define SUPER_MAX   (4u * POOL_BLOCK) /* of so small a pool */

struct moments {
        struct sim_snapshot *at[MOMENTS_MAX];
        unsigned n;
};

static void keep_moment(void *arg, struct sim_disk *disk, const struct sim_event *event)
{
        struct moments *m = arg;
        if (m->n < MOMENTS_MAX)
                m->at[m->n++] = sim_disk_snapshot(disk);
}

static void moments_forget(struct moments *m)
{
        while (m->n > 0)
                sim_snapshot_free(m->at[--m->n]);
}

/* A superblock at the first end of the disk. */
static const struct sim_pending *pending_super(const struct sim_snapshot *at)
{
        for (size_t i = 0; i < at->n_pending; i++) {
                const struct sim_pending *p = &at->pending[i];
                if (p->op == MEMBER_WRITE && p->offset >= SUPER_RING_OFFSET &&
                    p->offset < SUPER_RING_OFFSET + SUPER_SLOTS * SUPER_SLOT_BYTES)
                        return p;
        }
        return NULL;
}

/* Whether @bytes lie there when the power fails now. */
static bool is_found(const struct sim_snapshot *at, uint8_t way, uint64_t offset, const void *bytes,
                     size_t length)
{
        uint8_t choice[1024], found[SUPER_MAX];
        memset(choice, way, sizeof(choice));
        struct sim_image *image = sim_snapshot_crash(at, choice);
        sim_image_read(image, offset, found, length);
        sim_image_free(image);
        return memcmp(found, bytes, length) == 0;
}

/* The power fails while a superblock is being written, and again at every moment of what follows.
 * The second time nothing may be found that is the first one, whole: blocks that it names have come
 * to be in other use. */
static void co_torn_twice(void *arg)
{
        struct sim_pool *s = arg;
        struct moments *m = calloc(1, sizeof(*m));
        struct sim_image *image = NULL;
        uint8_t super[SUPER_MAX];
        uint64_t offset = 0;
        size_t length = 0;
        expect(s, m && co_sim_pool_create(s) == 0);
        expect(s, co_volume_create(s->pool, "v", 1 << 20, NULL) == 0);
        expect(s, co_sim_pool_write(s, "v", 0, 8) == 0);
        sim_disk_set_hook(s->disk[0], keep_moment, m);
        expect(s, co_pool_checkpoint(s->pool, NULL) == 0);
        sim_disk_set_hook(s->disk[0], NULL, NULL);
        for (unsigned i = 0; i < m->n && !image; i++) {
                const struct sim_pending *p = pending_super(m->at[i]);
                if (!p)
                        continue;
                offset = p->offset;
                length = p->length;
                expect(s, length <= sizeof(super));
                memcpy(super, p->data, length);
                /* Of it and of nothing else its first sector is there. */
                image = sim_snapshot_crash(m->at[i], NULL);
                sim_image_write(image, offset, super, 512);
        }
        moments_forget(m);
        expect(s, image);
        expect(s, co_sim_pool_close(s) == 0);
        sim_disk_free(s->disk[0]);
        s->disk[0] = sim_pool_disk(image, 0);
        sim_image_free(image);

        sim_disk_set_hook(s->disk[0], keep_moment, m);
        expect(s, co_sim_pool_open(s, false) == 0);
        expect(s, co_sim_pool_write(s, "v", 8, 8) == 0);
        expect(s, co_pool_checkpoint(s->pool, NULL) == 0);
        sim_disk_set_hook(s->disk[0], NULL, NULL);
        expect(s, m->n > 0 && m->n < MOMENTS_MAX);
        bool again = false;
        for (unsigned i = 0; i < m->n; i++) {
                const struct sim_pending *p = pending_super(m->at[i]);
                again = again || (p && p->offset == offset);
                expect(s, m->at[i]->n_pending <= 1024);
                for (uint8_t way = SIM_LOST; way < TORN_WAYS; way++)
                        expect(s, !is_found(m->at[i], way, offset, super, length));
        }
        expect(s, again);
        moments_forget(m);
        free(m);
        expect(s, co_sim_pool_close(s) == 0);
}

static void halves_of_two_superblocks_never_make_the_first(void **state)
{
        sim_pool_run(1, 1, co_torn_twice);
}

static void co_super_damaged(void *arg)
{
        struct sim_pool *s = arg;
        struct error err;
        co_new(s);
        /* All of them at one end: the other end has them. */
        sim_disk_corrupt(s->disk[0], SUPER_RING_OFFSET, SUPER_SLOTS * SUPER_SLOT_BYTES, 0x42);
        expect(s, co_try_all(s, &err) == 0);
        sim_disk_corrupt(s->disk[1], SUPER_RING_OFFSET, SUPER_SLOTS * SUPER_SLOT_BYTES, 0x42);
        sim_disk_corrupt(s->disk[1], SIM_MEMBER_SIZE - LABEL_AREA_BYTES + SUPER_RING_OFFSET,
                         SUPER_SLOTS * SUPER_SLOT_BYTES, 0x42);
        expect(s, co_try_all(s, &err) == -EUCLEAN);
        expect(s, strstr(err.message, "'disk1' has no readable superblock"));
}

static void a_superblock_lives_at_both_ends(void **state)
{
        sim_pool_run(2, 1, co_super_damaged);
}

/* All that holds a superblock on @disk. */
static void superblocks_unreadable(struct sim_disk *disk, int error)
{
        for (unsigned end = 0; end < 2; end++)
                sim_disk_add_fault(
                    disk, &(struct sim_fault){.kind = SIM_FAULT_ERROR,
                                              .ops = SIM_OP(MEMBER_READ),
                                              .offset = end * (SIM_MEMBER_SIZE - LABEL_AREA_BYTES) +
                                                        SUPER_RING_OFFSET,
                                              .length = SUPER_SLOTS * SUPER_SLOT_BYTES,
                                              .error = error});
}

/* A disk that fails is not one without a superblock, whatever it calls a bad sector. */
static void co_super_unreadable(void *arg)
{
        static const int errors[] = {-EIO, -ENODATA};
        struct sim_pool *s = arg;
        uint8_t(*uuids)[16];
        size_t n_uuids;
        for (unsigned i = 0; i < 2; i++) {
                struct member *member;
                struct pool_label label;
                struct error err = ERROR_INIT;
                s->n_disks = 2;
                expect(s, i > 0 || co_sim_pool_create(s) == 0);
                expect(s, i == 0 || co_sim_pool_open(s, false) == 0);
                superblocks_unreadable(s->disk[0], errors[i]);
                expect(s, sim_disk_open(s->disk[2], s->loop, &member) == 0);
                expect(s, co_pool_add(s->pool, &member, 1, &err) == -EIO);
                expect(s, strstr(err.message, "'disk0'"));
                member_close(member);
                expect(s, co_sim_pool_close(s) == 0);
                expect(s, co_try_all(s, &err) == -EIO);
                expect(s, strstr(err.message, "'disk0' has no readable superblock"));
                expect(s, sim_disk_open(s->disk[0], s->loop, &member) == 0);
                expect(s, co_pool_read_membership(member, &uuids, &n_uuids, &err) == -EIO);
                expect(s, co_pool_read_label(member, &label, &err) == 0 && label.generation == 0);
                member_close(member);
                sim_disk_clear_faults(s->disk[0]);
        }
        struct error err;
        expect(s, co_try_all(s, &err) == 0);
}

static void superblocks_that_cannot_be_read_are_an_error_of_the_disk(void **state)
{
        sim_pool_run(3, 1, co_super_unreadable);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(halves_of_two_superblocks_never_make_the_first),
            cmocka_unit_test(a_superblock_lives_at_both_ends),
            cmocka_unit_test(superblocks_that_cannot_be_read_are_an_error_of_the_disk),
        };
        log_set_sink(NULL);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
