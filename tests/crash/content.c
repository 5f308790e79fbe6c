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
