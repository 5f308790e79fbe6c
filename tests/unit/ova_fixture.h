/* ova_fixture.h - for tests of OVA files: archives made by hand, and disks for those that are written. */
#pragma once
#include "formats/ova.h"
#include "tests/unit/vmdk_fixture.h"

struct archive {
        int fd;
        uint64_t at;
};

static inline void add(struct archive *a, const char *name, const void *data, size_t length)
{
        uint8_t header[TAR_BLOCK];

        tar_header(header, name, length, 0);
        put_at(a->fd, header, sizeof(header), a->at);
        put_at(a->fd, data, length, a->at + TAR_BLOCK);
        a->at += TAR_BLOCK + (length + TAR_BLOCK - 1) / TAR_BLOCK * TAR_BLOCK;
        assert_int_equal(ftruncate(a->fd, (off_t)a->at + 1024), 0);
}

static inline void add_text(struct archive *a, const char *name, const char *text)
{
        add(a, name, text, strlen(text));
}

#define ONE_DISK                                                                                   \
        "<Envelope><References><File id='f' href='x.img'/></References>"                           \
        "<DiskSection><Disk diskId='d' fileRef='f' capacity='4096'/></DiskSection>"                \
        "<VirtualSystem id='a'><VirtualHardwareSection><Item><ResourceType>17</ResourceType>"      \
        "<HostResource>ovf:/disk/d</HostResource></Item></VirtualHardwareSection>"                 \
        "</VirtualSystem></Envelope>"

static inline void co_refused(struct fixture *f, int code, const char *words)
{
        struct ova *ova = NULL;
        struct error e = ERROR_INIT;

        assert_int_equal(co_ova_open(f->fd, "x.ova", NULL, NULL, &ova, &e), code);
        if (!strstr(e.message, words))
                fail_msg("'%s' is not in: %s", words, e.message);
        assert_null(ova);
}

static inline int co_make_disk(uint64_t bytes, const uint8_t *data, const char *variant)
{
        struct image_create_options options = {
            .format = "vmdk", .virtual_bytes = bytes, .variant = variant};
        int fd = memfd_create("disk", MFD_CLOEXEC);
        struct image *image;

        assert_int_equal(co_image_create(fd, "disk.vmdk", &options, &image, NULL), 0);
        assert_int_equal(image->driver->co_write(image, data, bytes, 0, NULL), 0);
        assert_int_equal(image->driver->co_finish(image, NULL), 0);
        image_close(image);
        return fd;
}

static inline struct ovf_machine a_machine(struct ovf_disk *disks, struct ovf_nic *nics)
{
        return (struct ovf_machine){.name = (char *)"web <1> \"&\"",
                                    .n_cpus = 3,
                                    .memory_bytes = UINT64_C(2) << 30,
                                    .is_efi = true,
                                    .disks = disks,
                                    .n_disks = 2,
                                    .nics = nics,
                                    .n_nics = 2};
}

#define ova_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
