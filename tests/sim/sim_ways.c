/* sim_ways.c - see sim_ways.h */
#include <assert.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include "pool/codec.h"
#include "tests/sim/sim_count.h"
#include "tests/sim/sim_ways.h"

/* ---- labels and superblocks ---- */

/* What one disk holds of them. */
struct heads {
        bool label[2];
        uint64_t newest[2];
};

static void read_slot(const struct sim_image *image, uint64_t offset, uint64_t *newest,
                      struct sim_found *found)
{
        static uint8_t page[SUPER_SLOT_BYTES] __attribute__((aligned(POOL_BLOCK)));
        struct super super;
        size_t length;

        sim_image_read(image, offset, page, POOL_BLOCK);
        length = super_peek_length(page);
        if (length > POOL_BLOCK)
                sim_image_read(image, offset, page, length);
        if (super_decode(page, length, &super, NULL) < 0)
                return;
        if (super.generation > *newest)
                *newest = super.generation;
        if (super.generation > found->generation) {
                found->generation = super.generation;
                found->log_incarnation = super.log_incarnation;
                found->log_start = super.log_start;
        }
        super_free(&super);
}

static void read_heads(const struct sim_image *image, struct heads *heads, struct sim_found *found)
{
        for (unsigned end = 0; end < 2; end++) {
                uint64_t at = end == 0 ? 0 : sim_image_size(image) - LABEL_AREA_BYTES;
                uint8_t page[POOL_BLOCK];
                struct label label;

                sim_image_read(image, at, page, sizeof(page));
                heads->label[end] = label_decode(page, &label, NULL) == 0;
                heads->newest[end] = 0;
                for (unsigned slot = 0; slot < SUPER_SLOTS; slot++)
                        read_slot(image, at + SUPER_RING_OFFSET + slot * SUPER_SLOT_BYTES,
                                  &heads->newest[end], found);
        }
}

/* The place of the next superblock, which a checkpoint that was cut has begun to write. */
static bool has_next(const struct sim_image *image, uint64_t generation)
{
        uint64_t slot = SUPER_RING_OFFSET + generation % SUPER_SLOTS * SUPER_SLOT_BYTES;

        for (unsigned end = 0; end < 2; end++) {
                uint8_t page[POOL_BLOCK];

                sim_image_read(image,
                               slot + (end == 0 ? 0 : sim_image_size(image) - LABEL_AREA_BYTES),
                               page, sizeof(page));
                if (super_peek_generation(page) == generation)
                        return true;
        }
        return false;
}

void sim_ways_before(struct sim_disk *const *disks, unsigned n_disks, struct sim_found *found)
{
        struct heads *heads = calloc(n_disks, sizeof(*heads));

        *found = (struct sim_found){.generation = 0};
        for (unsigned i = 0; i < n_disks; i++) {
                struct sim_image *image = sim_disk_visible(disks[i]);

                read_heads(image, &heads[i], found);
                sim_image_free(image);
        }
        for (unsigned i = 0; i < n_disks; i++) {
                struct sim_image *image = sim_disk_visible(disks[i]);
                const struct heads *h = &heads[i];

                found->n_labels_lost += h->label[0] != h->label[1];
                found->n_behind += h->newest[0] < found->generation &&
                                   h->newest[1] < found->generation && h->newest[0] > 0;
                found->n_ends_lost +=
                    (h->newest[0] == found->generation) != (h->newest[1] == found->generation);
                found->torn = found->torn || has_next(image, found->generation + 1);
                sim_image_free(image);
        }
        free(heads);
}

/* ---- the log ---- */

enum page_state { PAGE_OTHER, PAGE_TORN, PAGE_SOUND };

/* What @image holds at the place of @sequence. */
static enum page_state page_read(const struct pool *pool, const struct sim_found *found,
                                 const struct sim_image *image, uint64_t offset, uint64_t sequence,
                                 struct log_page_disk *page)
{
        sim_image_read(image, offset, page, sizeof(*page));
        if (le32_get(page->magic) != LOG_MAGIC || memcmp(page->pool_uuid, pool->uuid, 16) != 0 ||
            le64_get(page->incarnation) != found->log_incarnation ||
            le64_get(page->sequence) != sequence)
                return PAGE_OTHER;
        return le32_get(page->crc32c) == crc32c(0, (const char *)page + 8, POOL_BLOCK - 8)
                   ? PAGE_SOUND
                   : PAGE_TORN;
}

/* Writes and discards begin alike. */
static bool is_of_base(const struct pool *pool, const struct log_head_disk *head)
{
        const struct log_write_disk *record = (const void *)head;
        uint64_t id = le64_get(record->root_id);

        static_assert(offsetof(struct log_write_disk, root_id) ==
                          offsetof(struct log_clear_disk, root_id),
                      "both");
        for (uint32_t i = 0; i < pool->n_slots; i++)
                if (pool->slot[i] != NULL && pool->slot[i]->id == id)
                        return pool->slot[i]->state == ROOT_BASE;
        return false;
}

static void count_records(const struct pool *pool, const struct log_page_disk *page)
{
        for (unsigned at = 0; at + sizeof(struct log_head_disk) <= le16_get(page->used);) {
                const struct log_head_disk *head = (const void *)(page->records + at);
                unsigned length = le16_get(head->length);

                if (length < sizeof(*head) || at + length > le16_get(page->used))
                        return;
                if ((head->type == LOG_WRITE || head->type == LOG_CLEAR) && is_of_base(pool, head))
                        sim_count(SIM_REPLAYED_COPY);
                else
                        sim_count(head->type == LOG_WRITE   ? SIM_REPLAYED_WRITE
                                  : head->type == LOG_CLEAR ? SIM_REPLAYED_CLEAR
                                  : head->type == LOG_SLAB  ? SIM_REPLAYED_SLAB
                                  : head->type == LOG_BASE  ? SIM_REPLAYED_BASE
                                                            : SIM_REPLAYED_CATALOG);
                at += length;
        }
}

/* The pages of the log that was there before, in order, as a replay looks at them. */
static void count_log(struct pool *pool, const struct sim_found *found)
{
        static struct log_page_disk page;
        struct sim_image **images = calloc(pool->n_disks, sizeof(struct sim_image *));
        bool ended = false, beyond = false;

        for (size_t i = 0; i < pool->n_disks; i++)
                images[i] = sim_disk_visible(sim_disk_of(pool->disk[i]->member));
        for (uint64_t s = found->log_start; s < found->log_start + pool->log.ring_pages; s++) {
                enum page_state state = PAGE_OTHER;
                uint64_t shift;
                unsigned n_legs;
                const struct leg *legs = log_page_legs(pool, s, &n_legs, &shift);

                for (unsigned i = 0; i < n_legs && state != PAGE_SOUND; i++) {
                        enum page_state here = page_read(pool, found, images[legs[i].member],
                                                         legs[i].offset + shift, s, &page);

                        sim_count_add(SIM_LOG_OTHER_LEG, i > 0 && here == PAGE_SOUND && !ended);
                        state = here > state ? here : state;
                }
                if (!ended && state == PAGE_SOUND)
                        count_records(pool, &page);
                sim_count_add(SIM_LOG_TAIL_TORN, !ended && state == PAGE_TORN);
                beyond = beyond || (ended && state == PAGE_SOUND);
                ended = ended || state != PAGE_SOUND;
        }
        sim_count_add(SIM_LOG_BEYOND, beyond);
        for (size_t i = 0; i < pool->n_disks; i++)
                sim_image_free(images[i]);
        free(images);
}

void sim_ways_after(struct pool *pool, const struct sim_found *found)
{
        sim_count_add(SIM_LABEL_FALLBACK, found->n_labels_lost);
        sim_count_add(SIM_SUPER_FALLBACK, found->n_ends_lost);
        sim_count_add(SIM_MEMBER_BEHIND, found->n_behind);
        sim_count_add(SIM_SUPER_TORN, found->torn);
        for (uint32_t i = 0; i < pool->n_slots; i++) {
                const struct root *root = pool->slot[i];

                if (root == NULL)
                        continue;
                sim_count_add(SIM_DELETION_RESUMED, root->state == ROOT_ORPHAN);
                sim_count_add(SIM_SHRINK_RESUMED, root->state == ROOT_LIVE && root->loaded &&
                                                      root->body->high_bytes > 0);
        }
        if (pool->log.incarnation != found->log_incarnation)
                count_log(pool, found);
}
