/* fuzz_vhd.c - VHD images as they are right, with parents and names of them, and then spoilt, their checksums mended:
 * opened, walked, read, checked. And such as are written here. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "formats/vhd_format.h"
#include "tests/fuzz/image_play.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define BLOCKS_MAX 64u
#define HEADER_AT  512u
#define TABLE_AT   1536u
#define NAMES_AT   2048u
#define BLOCKS_AT  4096u

static struct image_play play;

static void put(unsigned file, const void *bytes, size_t n, uint64_t at)
{
        if (pwrite(play.fd[file], bytes, n, (off_t)at) != (ssize_t)n)
                abort();
}

static void mend(void *bytes, size_t n, be32 *checksum)
{
        const uint8_t *p = bytes;
        uint32_t sum = 0;

        *checksum = be32_make(0);
        for (size_t i = 0; i < n; i++)
                sum += p[i];
        *checksum = be32_make(~sum);
}

/* Spoilt before its checksum is made, as it seldom would be after. */
static void spoil(struct input *in, void *bytes, size_t n)
{
        for (unsigned k = input_u8(in) & 3; k > 0; k--) {
                uint8_t *at = (uint8_t *)bytes + input_u16(in) % n;
                uint64_t value = __builtin_bswap64(input_number(in, 1u << 16));
                size_t length = 1u << (input_u8(in) & 3);

                if (at + length <= (uint8_t *)bytes + n)
                        memcpy(at, (uint8_t *)&value + 8 - length, length);
        }
}

static struct vhd_footer_disk make_footer(struct input *in, unsigned file, uint64_t bytes)
{
        static const char creators[][5] = {"win ", "vpc ", "qemu", "qem2", "tap\0", "vs  "};
        uint32_t type = 2 + input_u8(in) % 3;
        uint16_t cylinders = input_u8(in);
        struct vhd_footer_disk d = {
            .features = be32_make(2),
            .version = be32_make(VHD_VERSION),
            .type = be32_make(type),
            .data_offset = be64_make(HEADER_AT),
            .current_bytes = be64_make(bytes),
            .cylinders = be16_make(cylinders),
            .heads = 4,
            .sectors_per_track = 17,
        };

        memcpy(d.cookie, VHD_COOKIE, 8);
        memcpy(d.creator, creators[input_u8(in) % 6], 4);
        memset(d.uuid, (int)file, 16);
        spoil(in, &d, sizeof(d));
        mend(&d, sizeof(d), &d.checksum);
        return d;
}

/* The parent of a file is the next one, and called so: by its number. */
static void put_names(struct input *in, unsigned file, struct vhd_header_disk *d)
{
        static const uint32_t platforms[] = {VHD_W2RU, VHD_W2KU, VHD_WI2R,
                                             VHD_WI2K, VHD_MACX, 0x4d616320};
        unsigned n = input_u8(in) & 3;

        if (n == 0) {
                d->parent_name[1] = (uint8_t)('1' + file);
                return;
        }
        for (unsigned i = 0; i < n; i++) {
                uint8_t text[64] = {(uint8_t)('1' + file)};
                uint32_t length = 1 + input_u8(in) % 40, platform = platforms[input_u8(in) % 6];
                const uint8_t *more;
                size_t n_more;

                if (platform == VHD_MACX)
                        length = (uint32_t)sprintf((char *)text, "file://%%%02x", '1' + file);
                if (input_u8(in) & 1) {
                        n_more = input_take(in, length, &more);
                        if (n_more > 0)
                                memcpy(text, more, n_more);
                }
                put(file, text, sizeof(text), NAMES_AT + i * 64);
                d->locators[i] = (struct vhd_locator_disk){.platform = be32_make(platform),
                                                           .length = be32_make(length),
                                                           .offset = be64_make(NAMES_AT + i * 64)};
        }
}

static void put_header(struct input *in, unsigned file, uint32_t n_blocks, uint32_t block)
{
        struct vhd_header_disk d = {
            .next = be64_make(VHD_NO_OFFSET),
            .table_offset = be64_make(TABLE_AT),
            .version = be32_make(VHD_VERSION),
            .n_entries = be32_make(n_blocks),
            .block_bytes = be32_make(block),
        };

        memcpy(d.cookie, VHD_HEADER_COOKIE, 8);
        memset(d.parent_uuid, (int)file + 1, 16);
        put_names(in, file, &d);
        spoil(in, &d, sizeof(d));
        mend(&d, sizeof(d), &d.checksum);
        put(file, &d, sizeof(d), HEADER_AT);
}

/* A table entry; blocks are placed anyhow. */
static uint32_t entry_of(struct input *in, uint32_t block)
{
        uint8_t kind = input_u8(in);

        return kind >= 0xf0   ? input_u32(in)
               : kind >= 0xa0 ? VHD_BLOCK_ABSENT
                              : BLOCKS_AT / 512 + (kind & 0x1f) * (1 + block / 512);
}

static void put_blocks(struct input *in, unsigned file, uint32_t block)
{
        static uint8_t bytes[512 + 16384];

        for (unsigned n = input_u8(in) & 15; n > 0 && block <= 16384; n--) {
                memset(bytes, 0, 512);
                memset(bytes, input_u8(in), 3);
                bytes[1] ^= input_u8(in);
                memset(bytes + 512, 0x11 * ((int)file + 1), block);
                put(file, bytes, 512 + block, BLOCKS_AT + n * (512 + block));
        }
}

static void make_image(struct input *in, unsigned file)
{
        uint32_t block = 512u << input_u8(in) % 6, n_blocks = input_u8(in) % (BLOCKS_MAX + 1);
        uint64_t bytes = (uint64_t)n_blocks * block, end;
        struct vhd_footer_disk footer;
        uint8_t how;

        if ((input_u8(in) & 15) == 15)
                block = 1u << input_u8(in) % 32;
        footer = make_footer(in, file, bytes - input_u16(in) % (bytes ? bytes : 1));
        put(file, &footer, sizeof(footer), 0);
        put_header(in, file, n_blocks, block);
        for (uint32_t i = 0; i < n_blocks; i++) {
                be32 entry = be32_make(entry_of(in, block));

                put(file, &entry, 4, TABLE_AT + i * 4);
        }
        put_blocks(in, file, block);
        image_play_resize(&play, file);
        how = input_u8(in);
        end = (uint64_t)lseek(play.fd[file], 0, SEEK_END);
        if ((how & 7) != 7 && end < (1u << 30))
                put(file, &footer, (how & 0x18) == 0x18 ? 511 : 512, end);
        image_play_poke(&play, file, BLOCKS_AT);
}

static void co_play(void *arg)
{
        static const char *const names[PLAY_FILES] = {"0", "1", "2"};
        struct input *in = arg;

        if ((input_u8(in) & 15) == 15) {
                co_image_play_write(&play, "vhd");
                return;
        }
        for (unsigned i = 0; i < PLAY_FILES; i++) {
                play.name[i] = names[i];
                if (i == 0 || input_u8(in) & 1)
                        make_image(in, i);
        }
        if (input_u8(in) == 1)
                play.name[1] = NULL; /* the parent is lost */
        co_image_play_read(&play, "vhd");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        return image_play_run(&play, co_play, data, size);
}
