/* vmdk_fixture.h - for tests of VMDK: an image made by hand, and files that images name. */
#pragma once
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include "formats/vmdk_internal.h"
#include "tests/unit/image_fixture.h"

/* Files by their names; what is to be made is made in memory. */
#define NAMED_MAX 8u
struct named_files {
        struct image_opener opener;
        struct {
                char name[64];
                int fd;
        } files[NAMED_MAX];
        unsigned n;
};

static inline int named_find(struct named_files *n, const char *name)
{
        for (unsigned i = 0; i < n->n; i++)
                if (strcmp(n->files[i].name, name) == 0)
                        return n->files[i].fd;
        return -1;
}

static inline int named_add(struct named_files *n, const char *name)
{
        int fd = memfd_create(name, MFD_CLOEXEC);

        assert_true(fd >= 0 && n->n < NAMED_MAX);
        snprintf(n->files[n->n].name, sizeof(n->files[n->n].name), "%s", name);
        n->files[n->n++].fd = fd;
        return fd;
}

static inline int named_open(struct image_opener *opener, const char *from, const char *name,
                             enum image_use use, int *ret_fd, char **ret_path, struct error *err)
{
        struct named_files *n = (struct named_files *)opener;
        int fd = use == IMAGE_NEW_PART ? named_add(n, name) : named_find(n, name);

        if (fd < 0)
                return error_set(err, -ENOENT, "'%s' names '%s', which is not there", from, name);
        *ret_fd = dup(fd);
        *ret_path = strdup(name);
        return 0;
}

static inline void named_init(struct named_files *n)
{
        memset(n, 0, sizeof(*n));
        n->opener.open = named_open;
}

static inline void named_close(struct named_files *n)
{
        for (unsigned i = 0; i < n->n; i++)
                close(n->files[i].fd);
}

/* A sparse file of 8 grains of 64 KiB, made by hand: the second one has data, the third is marked as
 * zeroes, the fourth lies in front of the second. */
#define HAND_BYTES (512 * KIB)
#define HAND_FILE  (256 * KIB)
#define HAND_RGD   3u
#define HAND_RGT   4u
#define HAND_GD    8u
#define HAND_GT    9u
#define HAND_TEXT                                                                                  \
        "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n"                     \
        "createType=\"monolithicSparse\"\nRW 1024 SPARSE \"x.vmdk\"\n"

static inline struct vmdk_header_disk hand_header(void)
{
        return (struct vmdk_header_disk){
            .magic = le32_make(VMDK_MAGIC),
            .version = le32_make(2),
            .flags = le32_make(VMDK_FLAG_NEWLINES | VMDK_FLAG_REDUNDANT | VMDK_FLAG_ZERO_GRAINS),
            .capacity = le64_make(HAND_BYTES / 512),
            .grain_size = le64_make(128),
            .descriptor_offset = le64_make(1),
            .descriptor_size = le64_make(2),
            .gtes_per_gt = le32_make(512),
            .rgd_offset = le64_make(HAND_RGD),
            .gd_offset = le64_make(HAND_GD),
            .overhead = le64_make(128),
            .newlines = {'\n', ' ', '\r', '\n'},
        };
}

static inline void put_at(int fd, const void *data, size_t length, uint64_t at)
{
        assert_int_equal(pwrite(fd, data, length, (off_t)at), (ssize_t)length);
}

static inline void put32(int fd, uint32_t value, uint64_t at)
{
        le32 v = le32_make(value);

        put_at(fd, &v, sizeof(v), at);
}

static inline void hand_make(int fd, const char *text)
{
        static uint8_t grain[64 * KIB];
        struct vmdk_header_disk h = hand_header();

        assert_int_equal(ftruncate(fd, 0), 0);
        assert_int_equal(ftruncate(fd, HAND_FILE), 0);
        put_at(fd, &h, sizeof(h), 0);
        put_at(fd, text, strlen(text), 512);
        put32(fd, HAND_RGT, HAND_RGD * 512);
        put32(fd, HAND_GT, HAND_GD * 512);
        for (unsigned copy = 0; copy < 2; copy++) {
                uint64_t gt = (copy ? HAND_GT : HAND_RGT) * 512;

                put32(fd, 256, gt + 4);
                put32(fd, VMDK_GTE_ZERO, gt + 8);
                put32(fd, 128, gt + 12);
        }
        memset(grain, 0xa1, sizeof(grain));
        put_at(fd, grain, sizeof(grain), 256 * 512);
        memset(grain, 0xa3, sizeof(grain));
        put_at(fd, grain, sizeof(grain), 128 * 512);
}

/* Byte k of what hand_make() made. */
static inline uint8_t hand_byte(uint64_t k)
{
        return k / (64 * KIB) == 1 ? 0xa1 : k / (64 * KIB) == 3 ? 0xa3 : 0;
}
