/* sim_image.c - persistent radix tree of pages. */
#include "tests/sim/sim_image.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/sim/sim_memory.h"
#include "tests/sim/sim_random.h"

#define FANOUT_BITS 6u
#define FANOUT      (1u << FANOUT_BITS)

/* Both kinds begin alike. hash is 0 while it is not known. */
struct part {
        uint64_t refs;
        uint64_t hash;
};

struct page {
        struct part part;
        uint8_t data[SIM_PAGE];
};

struct node {
        struct part part;
        struct part *child[FANOUT]; /* nodes above level 0, pages at level 0; NULL: zeroes */
};

struct sim_image {
        uint64_t size_bytes;
        unsigned top_level; /* of root */
        struct node *root;  /* NULL: zeroes */
};

static struct node *as_node(struct part *part)
{
        return (struct node *)part;
}

static struct page *as_page(struct part *part)
{
        return (struct page *)part;
}

static struct part *part_ref(struct part *part)
{
        if (part)
                part->refs++;
        return part;
}

/* @level is that of the node that holds @part; a node's root is held by level top_level + 1. */
static void part_unref(struct part *part, unsigned level)
{
        if (!part || --part->refs)
                return;
        if (level > 0)
                for (unsigned i = 0; i < FANOUT; i++)
                        part_unref(as_node(part)->child[i], level - 1);
        free(part);
}

/* The node at *slot, made if there is none and copied if somebody else sees it too. */
static struct node *node_own(struct node **slot)
{
        struct node *old = *slot, *node;

        if (old && old->part.refs == 1) {
                old->part.hash = 0;
                return old;
        }
        node = sim_must(calloc(1, sizeof(*node)));
        node->part.refs = 1;
        if (old) {
                for (unsigned i = 0; i < FANOUT; i++)
                        node->child[i] = part_ref(old->child[i]);
                old->part.refs--;
        }
        *slot = node;
        return node;
}

static struct page *page_own(struct part **slot)
{
        struct page *old = as_page(*slot), *page;

        if (old && old->part.refs == 1) {
                old->part.hash = 0;
                return old;
        }
        page = sim_must(malloc(sizeof(*page)));
        page->part = (struct part){.refs = 1};
        if (old) {
                memcpy(page->data, old->data, SIM_PAGE);
                old->part.refs--;
        } else {
                memset(page->data, 0, SIM_PAGE);
        }
        *slot = &page->part;
        return page;
}

static unsigned index_at(uint64_t page_index, unsigned level)
{
        return page_index >> (level * FANOUT_BITS) & (FANOUT - 1);
}

/* NULL where the page is zeroes. */
static const struct page *page_find(const struct sim_image *image, uint64_t page_index)
{
        struct node *node = image->root;

        for (unsigned level = image->top_level; node && level > 0; level--)
                node = as_node(node->child[index_at(page_index, level)]);
        return node ? as_page(node->child[index_at(page_index, 0)]) : NULL;
}

/* The place that refers to a page, on a path nobody else sees. */
static struct part **page_slot(struct sim_image *image, uint64_t page_index)
{
        struct node **slot = &image->root;

        for (unsigned level = image->top_level; level > 0; level--)
                slot = (struct node **)&node_own(slot)->child[index_at(page_index, level)];
        return &node_own(slot)->child[index_at(page_index, 0)];
}

static void page_drop(struct sim_image *image, uint64_t page_index)
{
        struct part **slot;

        if (!page_find(image, page_index))
                return;
        slot = page_slot(image, page_index);
        part_unref(*slot, 0);
        *slot = NULL;
}

static bool all_zero(const uint8_t *data, size_t length)
{
        return data[0] == 0 && memcmp(data, data + 1, length - 1) == 0;
}

struct sim_image *sim_image_new(uint64_t size_bytes)
{
        struct sim_image *image = sim_must(calloc(1, sizeof(*image)));

        assert(size_bytes > 0 && size_bytes % SIM_PAGE == 0);
        image->size_bytes = size_bytes;
        while ((size_bytes / SIM_PAGE - 1) >> ((image->top_level + 1) * FANOUT_BITS))
                image->top_level++;
        return image;
}

struct sim_image *sim_image_clone(const struct sim_image *image)
{
        struct sim_image *clone = sim_must(malloc(sizeof(*clone)));

        *clone = *image;
        if (clone->root)
                clone->root->part.refs++;
        return clone;
}

void sim_image_free(struct sim_image *image)
{
        if (!image)
                return;
        if (image->root)
                part_unref(&image->root->part, image->top_level + 1);
        free(image);
}

uint64_t sim_image_size(const struct sim_image *image)
{
        return image->size_bytes;
}

static uint64_t count_pages(const struct node *node, unsigned level)
{
        uint64_t n = 0;

        for (unsigned i = 0; i < FANOUT; i++)
                if (node->child[i])
                        n += level ? count_pages(as_node(node->child[i]), level - 1) : 1;
        return n;
}

uint64_t sim_image_used(const struct sim_image *image)
{
        return image->root ? count_pages(image->root, image->top_level) * SIM_PAGE : 0;
}

static size_t piece_length(uint64_t offset, uint64_t length)
{
        uint64_t room = SIM_PAGE - offset % SIM_PAGE;

        return length < room ? length : room;
}

static void check_range(const struct sim_image *image, uint64_t offset, uint64_t length)
{
        assert(offset <= image->size_bytes && length <= image->size_bytes - offset);
}

void sim_image_read(const struct sim_image *image, uint64_t offset, void *buffer, size_t length)
{
        uint8_t *to = buffer;

        check_range(image, offset, length);
        while (length) {
                size_t n = piece_length(offset, length);
                const struct page *page = page_find(image, offset / SIM_PAGE);

                if (page)
                        memcpy(to, page->data + offset % SIM_PAGE, n);
                else
                        memset(to, 0, n);
                to += n;
                offset += n;
                length -= n;
        }
}

void sim_image_write(struct sim_image *image, uint64_t offset, const void *data, size_t length)
{
        const uint8_t *from = data;

        check_range(image, offset, length);
        while (length) {
                size_t n = piece_length(offset, length);
                uint64_t index = offset / SIM_PAGE;

                if (!all_zero(from, n) || (n < SIM_PAGE && page_find(image, index))) {
                        struct page *page = page_own(page_slot(image, index));

                        memcpy(page->data + offset % SIM_PAGE, from, n);
                        if (n < SIM_PAGE && all_zero(page->data, SIM_PAGE))
                                page_drop(image, index);
                } else if (n == SIM_PAGE) {
                        page_drop(image, index);
                }
                from += n;
                offset += n;
                length -= n;
        }
}

void sim_image_zero(struct sim_image *image, uint64_t offset, uint64_t length)
{
        static const uint8_t zeroes[SIM_PAGE];

        check_range(image, offset, length);
        while (length) {
                size_t n = piece_length(offset, length);

                sim_image_write(image, offset, zeroes, n);
                offset += n;
                length -= n;
        }
}

/* Four lanes, so that the multiplications overlap. */
static uint64_t page_hash(const struct page *page)
{
        uint64_t lane[4] = {1, 2, 3, 4}, words[4];

        for (size_t at = 0; at < SIM_PAGE; at += sizeof(words)) {
                memcpy(words, page->data + at, sizeof(words));
                for (unsigned i = 0; i < 4; i++) {
                        lane[i] = (lane[i] ^ words[i]) * UINT64_C(0x9e3779b97f4a7c15);
                        lane[i] ^= lane[i] >> 29;
                }
        }
        return sim_mix(lane[0] ^ sim_mix(lane[1] ^ sim_mix(lane[2] ^ sim_mix(lane[3]))));
}

/* The hash of a subtree; that of zeroes, at any level, is 0, whether nodes are there or not. */
static uint64_t part_hash(struct part *part, unsigned level)
{
        uint64_t hash = 0;

        if (!part || part->hash)
                return part ? part->hash : 0;
        if (level == 0) {
                hash = page_hash(as_page(part));
                return part->hash = hash ? hash : 1;
        }
        for (unsigned i = 0; i < FANOUT; i++) {
                uint64_t child = part_hash(as_node(part)->child[i], level - 1);

                if (child)
                        hash += sim_mix(child + (i + 1) * UINT64_C(0x9e3779b97f4a7c15));
        }
        return part->hash = hash;
}

uint64_t sim_image_hash(struct sim_image *image)
{
        return image->root ? part_hash(&image->root->part, image->top_level + 1) : 0;
}

static int save_pages(const struct sim_image *image, int fd)
{
        for (uint64_t index = 0; index < image->size_bytes / SIM_PAGE; index++) {
                const struct page *page = page_find(image, index);

                if (!page)
                        continue;
                ssize_t n = pwrite(fd, page->data, SIM_PAGE, (off_t)(index * SIM_PAGE));
                if (n < 0)
                        return -errno;
                if (n != SIM_PAGE)
                        return -EIO;
        }
        return 0;
}

int sim_image_save(const struct sim_image *image, const char *path)
{
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644), r;

        if (fd < 0)
                return -errno;
        r = ftruncate(fd, (off_t)image->size_bytes) < 0 ? -errno : save_pages(image, fd);
        if (close(fd) < 0 && r == 0)
                r = -errno;
        return r;
}
