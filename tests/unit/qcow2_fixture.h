/* qcow2_fixture.h - for tests of reading qcow2: a sample image in a file, opened, read in every way, and
 * compared with what it should hold. */
#pragma once
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include "common/offload.h"
#include "formats/qcow2.h"
#include "tests/unit/image_fixture.h"
#include "tests/unit/qcow2_sample.h"

/* Numbers that are the same in every run. */
static inline uint32_t next_number(uint32_t *state)
{
        *state = *state * 1664525u + 1013904223u;
        return *state >> 8;
}

static inline void fill(uint8_t *data, size_t n, uint32_t seed)
{
        for (size_t i = 0; i < n; i++)
                data[i] = (uint8_t)(i % 64 < 40 ? seed : next_number(&seed));
}

static inline struct image *co_open_sample(struct fixture *f, const struct qcow2_sample *s,
                                           const struct image_options *options)
{
        struct image *image = NULL;
        struct error e = ERROR_INIT;

        qcow2_sample_save(s, f->fd);
        if (co_image_open(f->fd, "x.qcow2", options, &image, &e) < 0)
                fail_msg("%s", e.message);
        return image;
}

/* The sentence of a failure to open; its code is @code. */
static inline void co_refused(struct fixture *f, const struct qcow2_sample *s,
                              const struct image_options *options, int code, struct error *ret)
{
        struct image *image = NULL;

        qcow2_sample_save(s, f->fd);
        *ret = ERROR_INIT;
        assert_int_equal(co_image_open(f->fd, "x.qcow2", options, &image, ret), code);
        assert_null(image);
        assert_non_null(strstr(ret->message, "x.qcow2"));
}

static inline void co_expect_extent(struct image *image, uint64_t offset,
                                    const struct image_extent *wanted)
{
        struct image_extent is;

        assert_int_equal(image->driver->co_extent(image, offset, &is, NULL), 0);
        assert_int_equal(is.length, wanted->length);
        assert_int_equal(is.zero, wanted->zero);
        assert_int_equal(is.present, wanted->present);
        assert_int_equal(is.compressed, wanted->compressed);
        assert_int_equal(is.depth, wanted->depth);
        assert_int_equal(is.has_offset, wanted->has_offset);
        if (wanted->has_offset)
                assert_int_equal(is.file_offset, wanted->file_offset);
}

/* Extents cover the image, and where they say zero it is. */
static inline void co_expect_extents(struct image *image, const uint8_t *wanted)
{
        struct image_extent extent;

        for (uint64_t at = 0; at < image->virtual_bytes; at += extent.length) {
                assert_int_equal(image->driver->co_extent(image, at, &extent, NULL), 0);
                assert_true(extent.length > 0);
                assert_true(extent.length <= image->virtual_bytes - at);
                if (extent.zero)
                        assert_true(image_is_zero(wanted + at, extent.length));
        }
}

/* The bytes of a compressed cluster of 1 << @cluster_bits bytes; how many. */
static inline size_t pack(unsigned cluster_bits, uint64_t features, const void *data, uint8_t *to,
                          size_t room)
{
        struct qcow2_sample s;
        uint64_t entry, at;
        size_t n;

        qcow2_sample_init(&s, 3, cluster_bits, UINT64_C(1) << cluster_bits, features);
        qcow2_sample_pack(&s, 0, data);
        entry = qcow2_get64(s.bytes + qcow2_sample_entry(&s, s.l1, 0));
        at = qcow2_compressed_offset(entry, cluster_bits);
        n = (size_t)(s.used - at);
        assert_true(n <= room);
        memcpy(to, s.bytes + at, n);
        qcow2_sample_free(&s);
        return n;
}

/* All at once, and in pieces of odd lengths. */
static inline void co_expect_content(struct image *image, const uint8_t *wanted)
{
        size_t n = (size_t)image->virtual_bytes;
        uint8_t *is = malloc(n + 1);
        struct error e = ERROR_INIT;
        uint32_t seed = 1;

        assert_non_null(is);
        if (image->driver->co_read(image, is, n, 0, &e) < 0)
                fail_msg("%s", e.message);
        assert_memory_equal(is, wanted, n);
        memset(is, 0x55, n + 1);
        for (size_t at = 0, piece; at < n; at += piece) {
                piece = 1 + next_number(&seed) % (n / 7 + 1);
                if (piece > n - at)
                        piece = n - at;
                assert_int_equal(image->driver->co_read(image, is + at, piece, at, NULL), 0);
                assert_int_equal(is[at + piece], 0x55);
        }
        assert_memory_equal(is, wanted, n);
        free(is);
        co_expect_extents(image, wanted);
}
