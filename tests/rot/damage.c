/* damage.c - see damage.h */
#include <stdio.h>
#include <string.h>
#include "pool/pool.h"
#include "tests/rot/damage.h"
#include "tests/sim/sim_random.h"

const char *const way_name[WAYS] = {
    "bit",         "byte", "unreadable", "zeroes", "rubbish",   "sector",
    "two-sectors", "torn", "older",      "oldest", "neighbour", "twin",
};

/* ---- what may come in its place ---- */

static void rubbish(struct sim_random *random, uint8_t *at, size_t length)
{
        for (size_t i = 0; i < length; i += 8) {
                uint64_t word = sim_random_next(random);

                memcpy(at + i, &word, 8);
        }
}

static void earlier(const struct sample *sample, const struct spot *spot, bool first, uint8_t *page)
{
        uint8_t now[POOL_BLOCK];
        size_t n = sample->n_history;

        memcpy(now, page, sizeof(now));
        /* The newest moment is that before the log's tail. */
        sim_image_read(sample->before[spot->member], spot->offset, page, POOL_BLOCK);
        for (size_t i = 0; i < n && (first || memcmp(page, now, POOL_BLOCK) == 0); i++) {
                size_t moment = first ? i : n - 1 - i;
                static const uint8_t zeroes[POOL_BLOCK];

                sim_image_read(sample->history[spot->member][moment], spot->offset, page,
                               POOL_BLOCK);
                if (first && memcmp(page, zeroes, POOL_BLOCK) != 0)
                        return;
        }
}

/* The next block of the kind on the disk. */
static void twin(const struct sample *sample, size_t index, uint8_t *page)
{
        const struct spot *spot = &sample->spot[index];
        uint8_t now[POOL_BLOCK];

        memcpy(now, page, sizeof(now));
        for (size_t i = 1; i < sample->n_spots && memcmp(page, now, POOL_BLOCK) == 0; i++) {
                const struct spot *other = &sample->spot[(index + i) % sample->n_spots];

                if (other->kind == spot->kind && other->member == spot->member)
                        sim_image_read(sample->image[other->member], other->offset, page,
                                       POOL_BLOCK);
        }
}

static void page_change(const struct sample *sample, const struct damage *damage,
                        struct sim_random *random, uint8_t *page)
{
        const struct spot *spot = &sample->spot[damage->spot];
        unsigned sector = (unsigned)sim_random_below(random, POOL_BLOCK / SIM_SECTOR);
        uint64_t next = (spot->offset + POOL_BLOCK) % sim_image_size(sample->image[spot->member]);

        switch (damage->way) {
        case WAY_BIT:
                page[damage->byte] ^= (uint8_t)(1u << sim_random_below(random, 8));
                break;
        case WAY_BYTE:
                page[damage->byte] ^= 0xff;
                break;
        case WAY_ZEROES:
                memset(page, 0, POOL_BLOCK);
                break;
        case WAY_RUBBISH:
                rubbish(random, page, POOL_BLOCK);
                break;
        case WAY_SECTORS:
                rubbish(random, page + (sector + 3) % 8 * SIM_SECTOR, SIM_SECTOR);
                rubbish(random, page + sector * SIM_SECTOR, SIM_SECTOR);
                break;
        case WAY_SECTOR:
                rubbish(random, page + sector * SIM_SECTOR, SIM_SECTOR);
                break;
        case WAY_TORN:
                memset(page + POOL_BLOCK / 2, 0, POOL_BLOCK / 2);
                break;
        case WAY_OLDER:
        case WAY_OLDEST:
                earlier(sample, spot, damage->way == WAY_OLDEST, page);
                break;
        case WAY_NEIGHBOUR:
                sim_image_read(sample->image[spot->member], next, page, POOL_BLOCK);
                break;
        case WAY_TWIN:
                twin(sample, damage->spot, page);
                break;
        case WAY_UNREADABLE: /* the disk's doing (trial.c) */
        case WAYS:
                break;
        }
}

bool damage_do(const struct sample *sample, const struct damage *damage, uint64_t seed,
               struct sim_image *image)
{
        const struct spot *spot = &sample->spot[damage->spot];
        uint8_t page[POOL_BLOCK], before[POOL_BLOCK];
        struct sim_random random;

        if (damage->way == WAY_UNREADABLE)
                return true;
        sim_random_init(&random,
                        sim_mix(seed ^ sim_mix(spot->offset ^ spot->member)) + damage->byte);
        sim_image_read(image, spot->offset, page, POOL_BLOCK);
        memcpy(before, page, POOL_BLOCK);
        page_change(sample, damage, &random, page);
        sim_image_write(image, spot->offset, page, POOL_BLOCK);
        return memcmp(before, page, POOL_BLOCK) != 0;
}

/* ---- names ---- */

void damage_print(const struct sample *sample, const struct damage *damage,
                  char name[DAMAGE_NAME_MAX])
{
        const struct spot *spot = &sample->spot[damage->spot];
        int n = snprintf(name, DAMAGE_NAME_MAX, "%s:%u:%llu:%s", sample->shape->name, spot->member,
                         (unsigned long long)spot->offset, way_name[damage->way]);

        if (damage->way <= WAY_BYTE)
                snprintf(name + n, DAMAGE_NAME_MAX - (size_t)n, ":%u", damage->byte);
}

bool damage_parse(const struct sample *sample, const char *name, struct damage *ret)
{
        unsigned member, byte = 0;
        unsigned long long offset;
        char way[20];

        if (sscanf(name, "%u:%llu:%19[a-z-]:%u", &member, &offset, way, &byte) < 3 ||
            byte >= POOL_BLOCK)
                return false;
        *ret = (struct damage){.byte = byte, .spot = sample->n_spots, .way = WAYS};
        for (size_t i = 0; i < sample->n_spots; i++)
                if (sample->spot[i].member == member && sample->spot[i].offset == offset)
                        ret->spot = i;
        for (unsigned i = 0; i < WAYS; i++)
                if (strcmp(way_name[i], way) == 0)
                        ret->way = i;
        return ret->spot < sample->n_spots && ret->way < WAYS;
}
