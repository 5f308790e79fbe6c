/* vhdx_text.c - GUIDs and UTF-16, as VHDX has them. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/vhdx_internal.h"

bool vhdx_guid_equal(const struct vhdx_guid *a, const struct vhdx_guid *b)
{
        return memcmp(a, b, sizeof(*a)) == 0;
}

bool vhdx_guid_is_zero(const struct vhdx_guid *guid)
{
        return image_is_zero(guid, sizeof(*guid));
}

/* Where in the file the bytes are, in the order in which they are written down. */
static const uint8_t places[16] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};

static bool dash_before(size_t i)
{
        return i == 4 || i == 6 || i == 8 || i == 10;
}

void vhdx_guid_format(const struct vhdx_guid *guid, char text[VHDX_GUID_TEXT])
{
        char *at = text;

        for (size_t i = 0; i < 16; i++)
                at += sprintf(at, "%s%02x", dash_before(i) ? "-" : "", guid->b[places[i]]);
}

static int digit(char c)
{
        if (c >= '0' && c <= '9')
                return c - '0';
        if (c >= 'a' && c <= 'f')
                return c - 'a' + 10;
        return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool vhdx_guid_parse(const char *text, struct vhdx_guid *ret_guid)
{
        struct vhdx_guid guid;

        if (*text++ != '{')
                return false;
        for (size_t i = 0; i < 16; i++) {
                int high, low;

                if (dash_before(i) && *text++ != '-')
                        return false;
                if ((high = digit(text[0])) < 0 || (low = digit(text[1])) < 0)
                        return false;
                guid.b[places[i]] = (uint8_t)(high << 4 | low);
                text += 2;
        }
        if (strcmp(text, "}") != 0)
                return false;
        *ret_guid = guid;
        return true;
}

static char *put_utf8(char *out, uint32_t c)
{
        if (c < 0x80) {
                *out++ = (char)c;
        } else if (c < 0x800) {
                *out++ = (char)(0xc0 | c >> 6);
                *out++ = (char)(0x80 | (c & 0x3f));
        } else if (c < 0x10000) {
                *out++ = (char)(0xe0 | c >> 12);
                *out++ = (char)(0x80 | (c >> 6 & 0x3f));
                *out++ = (char)(0x80 | (c & 0x3f));
        } else {
                *out++ = (char)(0xf0 | c >> 18);
                *out++ = (char)(0x80 | (c >> 12 & 0x3f));
                *out++ = (char)(0x80 | (c >> 6 & 0x3f));
                *out++ = (char)(0x80 | (c & 0x3f));
        }
        return out;
}

static uint32_t unit_at(const uint8_t *bytes, size_t i)
{
        return (uint32_t)bytes[2 * i] | (uint32_t)bytes[2 * i + 1] << 8;
}

char *vhdx_utf16(const uint8_t *bytes, size_t length)
{
        size_t n = length / 2;
        char *text = malloc(3 * n + 1), *out = text;

        if (!text)
                return NULL;
        if (length % 2 != 0)
                goto invalid;
        for (size_t i = 0; i < n; i++) {
                uint32_t c = unit_at(bytes, i);

                if (c < 0x20 || c == 0x7f || (c >= 0xdc00 && c < 0xe000))
                        goto invalid;
                if (c >= 0xd800 && c < 0xdc00) { /* the first half of a pair */
                        uint32_t low = i + 1 < n ? unit_at(bytes, ++i) : 0;

                        if (low < 0xdc00 || low >= 0xe000)
                                goto invalid;
                        c = 0x10000 + ((c & 0x3ff) << 10 | (low & 0x3ff));
                }
                out = put_utf8(out, c);
        }
        *out = 0;
        return text;
invalid:
        free(text);
        errno = EINVAL;
        return NULL;
}
