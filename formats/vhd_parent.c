/* vhd_parent.c - the parent of a differencing VHD: how it is named, and whether it is that one.
 *
 * "Differencing Hard Disk Image", "Parent Locator Entries". Names are tried in this order, as far as the
 * opener says that there is no such file: W2ru, MacX, Wi2r, the header's "Parent Unicode Name", W2ku,
 * Wi2k. Of a path of Windows that begins with a drive or a server only the last part can mean something
 * here: a file beside this one.
 *
 * The parent's time stamp is not compared: it is that of the file, which changes as it is copied.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "formats/vhd.h"

#define LOCATOR_MAX 8192u /* bytes; no path is longer */
#define NAME_MAX_N  (VHD_LOCATORS + 1)

struct names {
        char *name[NAME_MAX_N];
        unsigned n;
};

static void names_clear(struct names *names)
{
        for (unsigned i = 0; i < names->n; i++)
                free(names->name[i]);
}

static char *put_utf8(char *to, uint32_t c)
{
        if (c < 0x80) {
                *to++ = (char)c;
        } else if (c < 0x800) {
                *to++ = (char)(0xc0 | c >> 6);
                *to++ = (char)(0x80 | (c & 0x3f));
        } else if (c < 0x10000) {
                *to++ = (char)(0xe0 | c >> 12);
                *to++ = (char)(0x80 | (c >> 6 & 0x3f));
                *to++ = (char)(0x80 | (c & 0x3f));
        } else {
                *to++ = (char)(0xf0 | c >> 18);
                *to++ = (char)(0x80 | (c >> 12 & 0x3f));
                *to++ = (char)(0x80 | (c >> 6 & 0x3f));
                *to++ = (char)(0x80 | (c & 0x3f));
        }
        return to;
}

static uint32_t unit_at(const uint8_t *p, bool big_endian)
{
        return big_endian ? (uint32_t)p[0] << 8 | p[1] : (uint32_t)p[1] << 8 | p[0];
}

/* Up to a NUL or the end. NULL: half a surrogate pair (then it is no name), or no memory. */
static char *from_utf16(const uint8_t *p, size_t length, bool big_endian)
{
        char *text = malloc(length * 2 + 1), *to = text;

        for (size_t i = 0; text && i + 2 <= length; i += 2) {
                uint32_t c = unit_at(p + i, big_endian), low;

                if (c == 0)
                        break;
                if (c >= 0xd800 && c < 0xe000) {
                        low = i + 4 <= length ? unit_at(p + i + 2, big_endian) : 0;
                        if (c >= 0xdc00 || low < 0xdc00 || low >= 0xe000) {
                                free(text);
                                return NULL;
                        }
                        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
                        i += 2;
                }
                to = put_utf8(to, c);
        }
        if (text)
                *to = 0;
        return text;
}

/* The deprecated ones were in the writer's code page: nobody knows which. */
static char *from_ascii(const uint8_t *p, size_t length)
{
        size_t n = strnlen((const char *)p, length);

        for (size_t i = 0; i < n; i++)
                if (p[i] >= 0x80)
                        return NULL;
        return strndup((const char *)p, n);
}

static int hex_digit(char c)
{
        return c >= '0' && c <= '9'   ? c - '0'
               : c >= 'a' && c <= 'f' ? c - 'a' + 10
               : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                      : -1;
}

/* Xen writes "file://./parent.vhd"; others, "file://localhost/..." and "file:///...". */
static char *from_url(const uint8_t *p, size_t length)
{
        char *text = strndup((const char *)p, length), *to = text;
        const char *from = text;

        if (!text || strncasecmp(text, "file://", 7) != 0) {
                free(text);
                return NULL;
        }
        from += 7;
        if (strncasecmp(from, "localhost/", 10) == 0)
                from += 9;
        while (*from) {
                int high = *from == '%' ? hex_digit(from[1]) : -1;
                int low = high >= 0 ? hex_digit(from[2]) : -1;

                if (low >= 0 && high * 16 + low != 0) {
                        *to++ = (char)(high * 16 + low);
                        from += 3;
                } else {
                        *to++ = *from++;
                }
        }
        *to = 0;
        return text;
}

/* Takes @name over; NULL and the empty one are none. */
static void add_name(struct names *names, char *name, bool windows)
{
        if (name && windows)
                image_path_from_windows(name);
        for (unsigned i = 0; name && i < names->n; i++)
                if (strcmp(names->name[i], name) == 0)
                        name[0] = 0;
        if (!name || name[0] == 0 || names->n == NAME_MAX_N) {
                free(name);
                return;
        }
        names->name[names->n++] = name;
}

static void add_locator(struct names *names, uint32_t platform, const uint8_t *bytes, size_t length)
{
        if (platform == VHD_W2RU || platform == VHD_W2KU)
                add_name(names, from_utf16(bytes, length, false), true);
        else if (platform == VHD_MACX)
                add_name(names, from_url(bytes, length), false);
        else
                add_name(names, from_ascii(bytes, length), true);
}

/* All locators of @platform. */
static int co_read_locators(struct image *image, const struct vhd *vhd, uint32_t platform,
                            struct names *names, struct error *err)
{
        uint8_t bytes[LOCATOR_MAX];

        for (unsigned i = 0; i < VHD_LOCATORS; i++) {
                const struct vhd_locator_disk *locator = &vhd->header.locators[i];
                uint64_t offset = be64_get(locator->offset);
                uint32_t length = be32_get(locator->length);
                int r;

                if (be32_get(locator->platform) != platform || length == 0)
                        continue;
                if (offset > image->file_bytes || length > image->file_bytes - offset ||
                    length > LOCATOR_MAX)
                        return error_set(err, -EBADMSG,
                                         "'%s' is no valid VHD image: a name of its parent, %u "
                                         "bytes at offset %llu, does not lie in the file or is "
                                         "longer than any",
                                         image->path, length, (unsigned long long)offset);
                r = co_image_pread(image, bytes, length, offset, err);
                if (r < 0)
                        return r;
                add_locator(names, platform, bytes, length);
        }
        return 0;
}

static int co_read_names(struct image *image, const struct vhd *vhd, struct names *names,
                         struct error *err)
{
        static const uint32_t before[] = {VHD_W2RU, VHD_MACX, VHD_WI2R},
                              after[] = {VHD_W2KU, VHD_WI2K};
        int r = 0;

        for (size_t i = 0; r == 0 && i < sizeof(before) / sizeof(before[0]); i++)
                r = co_read_locators(image, vhd, before[i], names, err);
        add_name(names, from_utf16(vhd->header.parent_name, sizeof(vhd->header.parent_name), true),
                 true);
        for (size_t i = 0; r == 0 && i < sizeof(after) / sizeof(after[0]); i++)
                r = co_read_locators(image, vhd, after[i], names, err);
        if (r == 0 && names->n == 0)
                r = error_set(err, -EBADMSG,
                              "'%s' is a differencing VHD image that names no parent in a way that "
                              "is understood",
                              image->path);
        return r;
}

static int check_parent(const struct image *image, const struct vhd *vhd, struct error *err)
{
        const struct image *parent = vhd->parent;
        const struct vhd *other = parent->state;

        if (memcmp(other->footer.uuid, vhd->header.parent_uuid, 16) != 0)
                return error_set(err, -EBADMSG,
                                 "'%s' is not the parent of '%s': its UUID at offset %llu is "
                                 "another",
                                 parent->path, image->path,
                                 (unsigned long long)(other->footer_offset +
                                                      offsetof(struct vhd_footer_disk, uuid)));
        return 0;
}

/* Where no name leads to a file, the first one's failure is told. Errors do not lie on the stack: chains
 * are opened by recursion. */
static int co_open_first(struct image *image, struct vhd *vhd, const struct image_options *below,
                         const struct names *names, struct error *err)
{
        struct error *tried = calloc(2, sizeof(*tried));
        unsigned i = 0;
        int r;

        if (!tried)
                return error_set(err, -ENOMEM, "out of memory");
        do
                r = co_image_open_other(image, names->name[i], IMAGE_BACKING, below, &vhd->parent,
                                        &tried[i > 0]);
        while (r == -ENOENT && ++i < names->n);
        if (r < 0 && err)
                *err = tried[r != -ENOENT && i > 0];
        free(tried);
        return r;
}

int co_vhd_open_parent(struct image *image, struct vhd *vhd, const struct image_options *options,
                       struct error *err)
{
        struct image_options below = *options;
        struct names names = {0};
        int r = co_read_names(image, vhd, &names, err);

        below.format = "vhd";
        below.snapshot = NULL;
        if (r == 0 && !(image->info.backing = strdup(names.name[0])))
                r = error_set(err, -ENOMEM, "out of memory");
        if (r == 0 && !options->alone) {
                r = co_open_first(image, vhd, &below, &names, err);
                if (r == 0)
                        r = check_parent(image, vhd, err);
        }
        names_clear(&names);
        return r;
}
