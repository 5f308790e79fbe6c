/* fuzz_vdi.c - VDI images as they are right, with parents, and then spoilt: opened, walked, read, checked. And such as are
 * written here. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "formats/vdi_format.h"
#include "tests/fuzz/image_play.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define BLOCKS_MAX 64u
#define HEAD       (4096u + 1024u) /* where headers and maps are */

static struct image_play play;

static void put(unsigned file, const void *bytes, size_t n, uint64_t at)
{
        if (pwrite(play.fd[file], bytes, n, (off_t)at) != (ssize_t)n)
                abort();
}

/* File @file's UUIDs are all its number: so the parent of one is the next. */
static void put_header1(struct input *in, unsigned file, uint32_t n_blocks, uint32_t block)
{
        uint64_t bytes = (uint64_t)n_blocks * block;
        uint32_t type = 1 + input_u8(in) % 4;
        uint64_t less = input_u8(in) % (bytes ? bytes : 1);
        uint32_t extra = input_u8(in) & 1 ? 512 : 0, n_allocated = input_u8(in) % (n_blocks + 1);
        struct vdi_header_disk d = {
            .pre.signature = le32_make(VDI_SIGNATURE),
            .pre.major = le16_make(1),
            .pre.minor = le16_make(1),
            .header_bytes = le32_make(400),
            .type = le32_make(type),
            .map_offset = le32_make(512),
            .data_offset = le32_make(1024),
            .disk_bytes = le64_make(bytes - less),
            .block_bytes = le32_make(block),
            .extra_bytes = le32_make(extra),
            .n_blocks = le32_make(n_blocks),
            .n_allocated = le32_make(n_allocated),
        };

        memset(d.uuid, (int)file, 16);
        memset(d.modified_uuid, (int)file, 16);
        memset(d.parent_uuid, (int)file + 1, 16);
        memset(d.parent_modified_uuid, input_u8(in) & 1 ? (int)file + 1 : 0, 16);
        put(file, &d, sizeof(d), 0);
}

static void put_header0(struct input *in, unsigned file, uint32_t n_blocks, uint32_t block)
{
        struct vdi_header0_disk d = {
            .pre.signature = le32_make(VDI_SIGNATURE),
            .pre.minor = le16_make(2),
            .type = le32_make(1 + input_u8(in) % 4),
            .disk_bytes = le64_make((uint64_t)n_blocks * block),
            .block_bytes = le32_make(block),
            .n_blocks = le32_make(n_blocks),
        };

        memset(d.uuid, (int)file, 16);
        memset(d.parent_uuid, (int)file + 1, 16);
        put(file, &d, sizeof(d), 0);
}

static void make_image(struct input *in, unsigned file)
{
        static uint8_t block_bytes[4096];
        uint32_t block = 512u << input_u8(in) % 4, n_blocks = input_u8(in) % (BLOCKS_MAX + 1);
        bool old = (input_u8(in) & 7) == 7;

        if ((input_u8(in) & 15) == 15)
                block = 1u << input_u8(in) % 32;
        (old ? put_header0 : put_header1)(in, file, n_blocks, block);
        for (uint32_t i = 0; i < n_blocks; i++) {
                uint8_t kind = input_u8(in);
                le32 entry = le32_make(kind >= 0xf0   ? input_u32(in)
                                       : kind >= 0xc0 ? VDI_BLOCK_FREE
                                       : kind >= 0xa0 ? VDI_BLOCK_ZERO
                                                      : kind & 0x3f);

                put(file, &entry, 4, (old ? 420 : 512) + i * 4);
        }
        memset(block_bytes, 0x11 * ((int)file + 1), sizeof(block_bytes));
        for (unsigned n = input_u8(in) & 31; n > 0; n--)
                put(file, block_bytes, sizeof(block_bytes), 1024 + n * sizeof(block_bytes));
        if (lseek(play.fd[file], 0, SEEK_END) < 1024 && ftruncate(play.fd[file], 1024) < 0)
                abort();
        image_play_poke(&play, file, HEAD);
        image_play_resize(&play, file);
}

static void co_play(void *arg)
{
        static char names[PLAY_FILES][40];
        struct input *in = arg;

        if ((input_u8(in) & 15) == 15) {
                co_image_play_write(&play, "vdi");
                return;
        }
        for (unsigned i = 0; i < PLAY_FILES; i++) {
                snprintf(names[i], sizeof(names[i]),
                         "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", i,
                         i, i, i, i, i, i, i, i, i, i, i, i, i, i, i);
                play.name[i] = names[i];
                if (i == 0 || input_u8(in) & 1)
                        make_image(in, i);
        }
        if (input_u8(in) == 1)
                play.name[1] = NULL; /* the parent is lost */
        co_image_play_read(&play, "vdi");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        return image_play_run(&play, co_play, data, size);
}
