/* content.c - see content.h */
#include <string.h>
#include "tests/crash/content.h"
#include "tests/sim/sim_random.h"

#define WORDS (GRAIN / sizeof(uint64_t))
#define MARK                                                                                       \
        UINT64_C(0x7461726e) /* so that a version's first word is never small, hence never zero */

static uint64_t content_word(uint32_t version, unsigned grain, unsigned index)
{
        return index == 0 ? MARK << 32 | version
                          : ((uint64_t)version << 12 ^ (uint64_t)grain << 6 ^ index) *
                                UINT64_C(0x9e3779b97f4a7c15);
}

void content_fill(void *bytes, uint32_t version, unsigned grain)
{
        uint64_t words[WORDS];

        for (unsigned i = 0; i < WORDS; i++)
                words[i] = version == VERSION_ZERO ? 0 : content_word(version, grain, i);
        memcpy(bytes, words, sizeof(words));
}

uint32_t content_decode(const void *bytes, unsigned grain)
{
        uint64_t words[WORDS], expected[WORDS];
        uint32_t version;

        memcpy(words, bytes, sizeof(words));
        version = words[0] >> 32 == MARK ? (uint32_t)words[0] : VERSION_ZERO;
        content_fill(expected, version, grain);
        return memcmp(words, expected, sizeof(words)) == 0 ? version : VERSION_DAMAGE;
}

#define IMAGES_MAX   (UINT32_C(1) << 10)
#define IMAGE_BLOCKS (UINT32_C(1) << 20)

uint64_t image_bytes(uint32_t image)
{
        return image % 2 == 1 ? 24 * BLOCK_SIZE + 512 : 270 * BLOCK_SIZE;
}

struct content image_content(uint32_t image, uint64_t block, uint64_t end_bytes)
{
        struct content content = {{VERSION_ZERO}};

        if (block % 3 == 1 || (block >= 30 && block < 258))
                return content;
        if (end_bytes > image_bytes(image))
                end_bytes = image_bytes(image);
        for (unsigned g = 0; g < BLOCK_GRAINS; g++)
                if (block * BLOCK_SIZE + (g + 1) * GRAIN <= end_bytes)
                        content.grain[g] = VERSION_IMAGE | image % IMAGES_MAX * IMAGE_BLOCKS |
                                           (uint32_t)(block % IMAGE_BLOCKS);
        return content;
}

bool content_is_image(uint32_t version, uint64_t *ret_block)
{
        *ret_block = version % IMAGE_BLOCKS;
        return version >= VERSION_IMAGE && version < VERSION_UNREADABLE;
}
