/* tar.c - tar archives: what is in one and where. */
#include "formats/tar.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXTENDED_MAX ((size_t)64 << 10) /* of an extended header, or a long name */

/* "ustar Header Block" */
struct header {
        char name[100]; /*   0 */
        char mode[8], uid[8], gid[8];
        char size[12];  /* 124 */
        char mtime[12]; /* 136 */
        char checksum[8];
        char type; /* 156 */
        char link[100];
        char magic[6]; /* 257 */
        char version[2];
        char owner[32], group[32], major[8], minor[8];
        char prefix[155]; /* 345 */
        char pad[12];
};
_Static_assert(sizeof(struct header) == TAR_BLOCK, "one block");

/* What an extended header says of the member behind it. */
struct extended {
        char *name; /* NULL: nothing */
        bool has_size;
        uint64_t size;
};

static int bad(const struct image *archive, uint64_t at, const char *what, struct error *err)
{
        return error_set(err, -EBADMSG, "'%s': the tar header at offset %llu %s", archive->path,
                         (unsigned long long)at, what);
}

/* Octal digits among blanks and NULs; or, with the first bit set, a number in base 256. */
static bool parse_number(const char *field, size_t length, uint64_t *ret)
{
        const uint8_t *p = (const uint8_t *)field;
        uint64_t n = 0;
        size_t i = 0;

        if (p[0] & 0x80) {
                n = p[0] & 0x7f;
                for (i = 1; i < length; i++) {
                        if (n >> 56)
                                return false;
                        n = n << 8 | p[i];
                }
                *ret = n;
                return true;
        }
        while (i < length && p[i] == ' ')
                i++;
        for (; i < length && p[i] >= '0' && p[i] <= '7'; i++)
                n = n << 3 | (uint64_t)(p[i] - '0'); /* 12 digits at most */
        *ret = n;
        return i == length || p[i] == 0 || p[i] == ' ';
}

/* The field itself counts as blanks. Old programs add signed bytes. */
static bool checksum_is_right(const struct header *h)
{
        const char *p = (const char *)h;
        uint64_t want;
        long plain = 0, with_signs = 0;

        for (size_t i = 0; i < TAR_BLOCK; i++) {
                bool of_sum =
                    i >= offsetof(struct header, checksum) && i < offsetof(struct header, type);

                plain += of_sum ? ' ' : (uint8_t)p[i];
                with_signs += of_sum ? ' ' : (int8_t)p[i];
        }
        return parse_number(h->checksum, sizeof(h->checksum), &want) &&
               ((long)want == plain || (long)want == with_signs);
}

/* Records "LENGTH KEY=VALUE\n"; the length is the record's. */
static int parse_extended(const struct image *archive, uint64_t at, char *text, size_t length,
                          struct extended *x, struct error *err)
{
        while (length > 0) {
                char *blank = memchr(text, ' ', length), *equals, *end;
                unsigned long record = strtoul(text, &end, 10);

                if (!blank || end != blank || record > length || text + record <= blank + 1 ||
                    text[record - 1] != '\n')
                        return bad(archive, at, "has an extended record that breaks the rules",
                                   err);
                text[record - 1] = 0;
                equals = strchr(blank, '=');
                if (!equals)
                        return bad(archive, at, "has an extended record that breaks the rules",
                                   err);
                if (strncmp(blank + 1, "path=", 5) == 0) {
                        free(x->name);
                        x->name = strdup(equals + 1);
                        if (!x->name)
                                return error_set(err, -ENOMEM, "out of memory");
                } else if (strncmp(blank + 1, "size=", 5) == 0) {
                        x->size = strtoull(equals + 1, &end, 10);
                        x->has_size = true;
                        if (*end || equals[1] < '0' || equals[1] > '9')
                                return bad(archive, at, "has an extended size that is no number",
                                           err);
                } else if (strncmp(blank + 1, "GNU.sparse", 10) == 0) {
                        return error_set(err, -ENOTSUP,
                                         "'%s': the member at offset %llu is stored as a sparse "
                                         "file, which is not read here",
                                         archive->path, (unsigned long long)at);
                }
                text += record;
                length -= record;
        }
        return 0;
}

static int co_take_extended(struct image *archive, const struct header *h, uint64_t at,
                            uint64_t size, struct extended *x, struct error *err)
{
        char *text;
        int r;

        if (size > EXTENDED_MAX)
                return bad(archive, at, "has an extended header of more than 64 KiB", err);
        text = calloc(1, size + 1);
        if (!text)
                return error_set(err, -ENOMEM, "out of memory");
        r = co_image_pread(archive, text, size, at + TAR_BLOCK, err);
        if (r == 0 && h->type == 'x')
                r = parse_extended(archive, at, text, size, x, err);
        if (r < 0 || h->type == 'x') {
                free(text);
                return r;
        }
        free(x->name); /* 'L': a long name, as it is */
        x->name = text;
        return 0;
}

static int add_member(struct tar_list *list, const struct image *archive, const struct header *h,
                      uint64_t at, uint64_t size, struct extended *x, struct error *err)
{
        struct tar_member *grown;
        char *name = x->name;

        if (list->n == TAR_MEMBERS_MAX)
                return error_set(err, -EBADMSG, "'%s' has more than %u members", archive->path,
                                 TAR_MEMBERS_MAX);
        x->name = NULL;
        if (!name && asprintf(&name, "%.*s%s%.*s", (int)sizeof(h->prefix),
                              memcmp(h->magic, "ustar", 6) == 0 ? h->prefix : "",
                              memcmp(h->magic, "ustar", 6) == 0 && h->prefix[0] ? "/" : "",
                              (int)sizeof(h->name), h->name) < 0)
                name = NULL;
        grown = name ? reallocarray(list->members, list->n + 1, sizeof(*grown)) : NULL;
        if (!grown) {
                free(name);
                return error_set(err, -ENOMEM, "out of memory");
        }
        list->members = grown;
        list->members[list->n++] = (struct tar_member){name, at + TAR_BLOCK, size};
        if (strlen(name) > TAR_NAME_MAX)
                return bad(archive, at, "has a name that is too long", err);
        return 0;
}

/* One header; *at becomes the next one's offset. */
static int co_take_header(struct image *archive, const struct header *h, uint64_t *at,
                          struct extended *x, struct tar_list *list, struct error *err)
{
        bool is_file = h->type == '0' || h->type == 0 || h->type == '7', is_more = false;
        uint64_t size, begin = *at + TAR_BLOCK;
        int r = 0;

        if (!checksum_is_right(h))
                return bad(archive, *at, "has a wrong checksum", err);
        if (!parse_number(h->size, sizeof(h->size), &size))
                return bad(archive, *at, "has a size that is no number", err);
        if (is_file && x->has_size)
                size = x->size;
        if (size > archive->file_bytes - begin)
                return bad(archive, *at, "has a member that is not whole", err);
        if (h->type == 'x' || h->type == 'L') {
                is_more = true;
                r = co_take_extended(archive, h, *at, size, x, err);
        } else if (h->type == 'S') {
                r = error_set(err, -ENOTSUP,
                              "'%s': the member at offset %llu is stored as a sparse file, which "
                              "is not read here",
                              archive->path, (unsigned long long)*at);
        } else if (is_file) {
                r = add_member(list, archive, h, *at, size, x, err);
        }
        if (!is_more) {
                free(x->name);
                *x = (struct extended){0};
        }
        *at = begin + (size + TAR_BLOCK - 1) / TAR_BLOCK * TAR_BLOCK;
        return r;
}

int co_tar_list(struct image *archive, struct tar_list *list, struct error *err)
{
        struct extended x = {0};
        unsigned left = 4 * TAR_MEMBERS_MAX; /* headers of all kinds */
        uint64_t at = 0;
        int r = 0;

        *list = (struct tar_list){0};
        while (r == 0 && archive->file_bytes >= TAR_BLOCK &&
               at <= archive->file_bytes - TAR_BLOCK) {
                struct header h;

                r = co_image_pread(archive, &h, sizeof(h), at, err);
                if (r < 0 || image_is_zero(&h, sizeof(h))) /* the end */
                        break;
                if (left-- == 0)
                        r = error_set(err, -EBADMSG, "'%s' has too many tar headers",
                                      archive->path);
                else
                        r = co_take_header(archive, &h, &at, &x, list, err);
        }
        free(x.name);
        return r;
}

void tar_list_clear(struct tar_list *list)
{
        for (size_t i = 0; i < list->n; i++)
                free(list->members[i].name);
        free(list->members);
        *list = (struct tar_list){0};
}

static const char *without_dot(const char *name)
{
        return strncmp(name, "./", 2) == 0 ? name + 2 : name;
}

const struct tar_member *tar_find(const struct tar_list *list, const char *name)
{
        for (size_t i = 0; i < list->n; i++)
                if (strcmp(without_dot(list->members[i].name), without_dot(name)) == 0)
                        return &list->members[i];
        return NULL;
}

/* Octal digits and a NUL; larger numbers in base 256, as GNU tar and others have it. */
static void put_number(char *field, size_t length, uint64_t n)
{
        if (n >> (3 * (length - 1)) == 0) {
                for (size_t i = length - 1; i-- > 0; n >>= 3)
                        field[i] = (char)('0' + (n & 7));
                field[length - 1] = 0;
                return;
        }
        for (size_t i = length; i-- > 0; n >>= 8)
                field[i] = (char)(n & 0xff);
        field[0] = (char)0x80;
}

void tar_header(uint8_t header[TAR_BLOCK], const char *name, uint64_t length, uint64_t mtime_s)
{
        struct header *h = (struct header *)header;
        uint64_t sum = 0;

        memset(h, 0, sizeof(*h));
        memcpy(h->name, name, strnlen(name, sizeof(h->name)));
        put_number(h->mode, sizeof(h->mode), 0644);
        put_number(h->uid, sizeof(h->uid), 0);
        put_number(h->gid, sizeof(h->gid), 0);
        put_number(h->size, sizeof(h->size), length);
        put_number(h->mtime, sizeof(h->mtime), mtime_s);
        h->type = '0';
        memcpy(h->magic, "ustar", 6);
        memcpy(h->version, "00", 2);
        put_number(h->major, sizeof(h->major), 0);
        put_number(h->minor, sizeof(h->minor), 0);
        memset(h->checksum, ' ', sizeof(h->checksum));
        for (size_t i = 0; i < TAR_BLOCK; i++)
                sum += header[i];
        put_number(h->checksum, 7, sum);
}
