/* vmdk_descriptor.c - the text that says what a VMDK consists of ("The Descriptor File"). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "formats/vmdk_internal.h"

#define LINE_MAX_BYTES 4096u
#define SECTORS_MAX    (IMAGE_SIZE_MAX / VMDK_SECTOR)

struct parser {
        struct vmdk_descriptor *d;
        const char *path;
        uint64_t line_offset; /* in the file */
};

static bool is_blank(char c)
{
        return c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v';
}

static const char *skip_blanks(const char *p)
{
        while (is_blank(*p))
                p++;
        return p;
}

static int bad_line(const struct parser *p, const char *what, struct error *err)
{
        return error_set(err, -EBADMSG, "'%s': the descriptor's line at offset %llu %s", p->path,
                         (unsigned long long)p->line_offset, what);
}

static int replace(char **field, const char *begin, size_t length, struct error *err)
{
        free(*field);
        *field = strndup(begin, length);
        return *field ? 0 : error_set(err, -ENOMEM, "out of memory");
}

/* A word that ends at a blank, a '=' or the line's end. */
static size_t word_length(const char *p)
{
        size_t n = 0;

        while (p[n] && !is_blank(p[n]) && p[n] != '=')
                n++;
        return n;
}

static bool word_is(const char *p, size_t n, const char *word)
{
        return n == strlen(word) && strncasecmp(p, word, n) == 0;
}

/* A value is in quotes or ends with the line; blanks around it do not count. */
static int parse_value(const struct parser *p, const char *text, const char **ret_begin,
                       size_t *ret_length, struct error *err)
{
        const char *end;

        text = skip_blanks(text);
        if (*text == '"') {
                end = strchr(++text, '"');
                if (!end)
                        return bad_line(p, "has a quote that does not end", err);
        } else {
                end = text + strlen(text);
                while (end > text && is_blank(end[-1]))
                        end--;
        }
        *ret_begin = text;
        *ret_length = (size_t)(end - text);
        return 0;
}

static int parse_cid(const struct parser *p, const char *text, size_t length, uint32_t *ret,
                     struct error *err)
{
        uint32_t cid = 0;

        if (length == 0 || length > 8)
                return bad_line(p, "has no content id of 1 to 8 hexadecimal digits", err);
        for (size_t i = 0; i < length; i++) {
                const char *digits = "0123456789abcdef", *digit;

                digit = strchr(digits, text[i] | 0x20);
                if (!digit || (text[i] < 'A' && (text[i] < '0' || text[i] > '9')))
                        return bad_line(p, "has no content id of 1 to 8 hexadecimal digits", err);
                cid = cid << 4 | (uint32_t)(digit - digits);
        }
        *ret = cid;
        return 0;
}

/* A line "KEY = VALUE". Keys that nobody knows here, and those of the disk data base, are skipped. */
static int parse_setting(const struct parser *p, const char *key, size_t n, const char *text,
                         struct error *err)
{
        struct vmdk_descriptor *d = p->d;
        const char *value;
        size_t length;
        int r;

        if (!word_is(key, n, "version") && !word_is(key, n, "CID") &&
            !word_is(key, n, "parentCID") && !word_is(key, n, "createType") &&
            !word_is(key, n, "parentFileNameHint"))
                return 0;
        r = parse_value(p, text, &value, &length, err);
        if (r < 0)
                return r;
        if (word_is(key, n, "version")) {
                if (length != 1 || value[0] < '1' || value[0] > '4')
                        return error_set(err, -ENOTSUP,
                                         "'%s' has a descriptor of version %.*s, which is not "
                                         "known",
                                         p->path, (int)(length < 20 ? length : 20), value);
                return 0;
        }
        if (word_is(key, n, "CID"))
                return parse_cid(p, value, length, &d->cid, err);
        if (word_is(key, n, "parentCID"))
                return parse_cid(p, value, length, &d->parent_cid, err);
        if (word_is(key, n, "createType"))
                return replace(&d->create_type, value, length, err);
        return replace(&d->parent_hint, value, length, err);
}

static int parse_number(const struct parser *p, const char **at, uint64_t *ret, struct error *err)
{
        const char *c = skip_blanks(*at);
        uint64_t n = 0;

        if (*c < '0' || *c > '9')
                return bad_line(p, "has no number where one must be", err);
        for (; *c >= '0' && *c <= '9'; c++) {
                n = n * 10 + (uint64_t)(*c - '0');
                if (n > SECTORS_MAX)
                        return bad_line(p, "has a number of sectors that is too large", err);
        }
        if (*c && !is_blank(*c))
                return bad_line(p, "has no number where one must be", err);
        *at = c;
        *ret = n;
        return 0;
}

static int parse_kind(const struct parser *p, const char *text, size_t n,
                      enum vmdk_extent_kind *ret, struct error *err)
{
        static const struct {
                const char *name;
                int kind; /* -1: known, and not read */
        } kinds[] = {
            {"FLAT", VMDK_FLAT},
            {"VMFS", VMDK_FLAT},
            {"SPARSE", VMDK_SPARSE},
            {"VMFSSPARSE", VMDK_VMFS_SPARSE},
            {"ZERO", VMDK_ZERO_EXTENT},
            {"SESPARSE", -1},
            {"VMFSRDM", -1},
            {"VMFSRAW", -1},
            {"VMFSRDMP", -1},
        };

        for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
                if (!word_is(text, n, kinds[i].name))
                        continue;
                if (kinds[i].kind < 0)
                        return error_set(err, -ENOTSUP,
                                         "'%s' has an extent of the kind %s, which is not read "
                                         "here",
                                         p->path, kinds[i].name);
                *ret = (enum vmdk_extent_kind)kinds[i].kind;
                return 0;
        }
        return bad_line(p, "has an extent of an unknown kind", err);
}

static int add_extent(const struct parser *p, const struct vmdk_extent_line *line,
                      struct error *err)
{
        struct vmdk_descriptor *d = p->d;
        struct vmdk_extent_line *grown;

        if (d->n_extents == VMDK_EXTENTS_MAX)
                return error_set(err, -EBADMSG, "'%s' has more than %u extents", p->path,
                                 VMDK_EXTENTS_MAX);
        grown = reallocarray(d->extents, d->n_extents + 1, sizeof(*grown));
        if (!grown)
                return error_set(err, -ENOMEM, "out of memory");
        d->extents = grown;
        d->extents[d->n_extents++] = *line;
        return 0;
}

/* ACCESS SECTORS KIND "FILE" [OFFSET ...]; what stands behind the offset (a partition's uuid, a
 * device) does not count. */
static int parse_extent(const struct parser *p, const char *access, size_t access_length,
                        const char *text, struct error *err)
{
        struct vmdk_extent_line line = {0};
        const char *name;
        size_t n;
        int r;

        if (word_is(access, access_length, "NOACCESS"))
                return error_set(err, -ENOTSUP,
                                 "'%s' has an extent that must not be read (NOACCESS)", p->path);
        r = parse_number(p, &text, &line.sectors, err);
        if (r < 0)
                return r;
        text = skip_blanks(text);
        n = word_length(text);
        r = parse_kind(p, text, n, &line.kind, err);
        if (r < 0)
                return r;
        text = skip_blanks(text + n);
        if (line.kind == VMDK_ZERO_EXTENT)
                return add_extent(p, &line, err);
        if (*text != '"')
                return bad_line(p, "has no file name in quotes", err);
        r = parse_value(p, text, &name, &n, err);
        if (r < 0)
                return r;
        text = skip_blanks(name + n + 1);
        if (n == 0)
                return bad_line(p, "has an empty file name", err);
        if (*text && line.kind == VMDK_FLAT) {
                r = parse_number(p, &text, &line.offset_sector, err);
                if (r < 0)
                        return r;
        }
        line.name = strndup(name, n);
        r = line.name ? add_extent(p, &line, err) : error_set(err, -ENOMEM, "out of memory");
        if (r < 0)
                free(line.name);
        return r;
}

static int parse_line(const struct parser *p, const char *line, struct error *err)
{
        size_t n;

        line = skip_blanks(line);
        if (!*line || *line == '#')
                return 0;
        n = word_length(line);
        if (*skip_blanks(line + n) == '=')
                return parse_setting(p, line, n, skip_blanks(line + n) + 1, err);
        if (word_is(line, n, "RW") || word_is(line, n, "RDONLY") || word_is(line, n, "NOACCESS"))
                return parse_extent(p, line, n, line + n, err);
        return 0; /* something that is not known here */
}

int vmdk_descriptor_parse(struct vmdk_descriptor *d, const char *text, size_t length,
                          const char *path, uint64_t base, struct error *err)
{
        struct parser p = {.d = d, .path = path};
        const char *begin = text, *end = text + strnlen(text, length);
        char *line;
        int r = 0;

        d->parent_cid = VMDK_NO_PARENT;
        line = malloc(LINE_MAX_BYTES + 1);
        if (!line)
                return error_set(err, -ENOMEM, "out of memory");
        while (r == 0 && begin < end) {
                const char *newline = memchr(begin, '\n', (size_t)(end - begin));
                size_t n = (size_t)((newline ? newline : end) - begin);

                p.line_offset = base + (uint64_t)(begin - text);
                if (n > LINE_MAX_BYTES) {
                        r = bad_line(&p, "is longer than 4096 bytes", err);
                        break;
                }
                memcpy(line, begin, n);
                line[n] = 0;
                r = parse_line(&p, line, err);
                begin += n + 1;
        }
        free(line);
        return r;
}

void vmdk_descriptor_clear(struct vmdk_descriptor *d)
{
        for (size_t i = 0; i < d->n_extents; i++)
                free(d->extents[i].name);
        free(d->extents);
        free(d->create_type);
        free(d->parent_hint);
        *d = (struct vmdk_descriptor){0};
}

/* Its first line with anything in it is a comment, "# Disk DescriptorFile", in any case and with any
 * blanks: VMware writes it so, others change it. */
bool vmdk_descriptor_probe(const char *text, size_t length)
{
        static const char word[] = "DiskDescriptorFile";
        size_t i = 0, n = 0;

        if (length >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) /* a mark of UTF-8 */
                i = 3;
        while (i < length && (is_blank(text[i]) || text[i] == '\n'))
                i++;
        if (i == length || text[i] != '#')
                return false;
        for (i++; i < length && n < sizeof(word) - 1; i++) {
                if (is_blank(text[i]))
                        continue;
                if ((text[i] | 0x20) != (word[n] | 0x20))
                        return false;
                n++;
        }
        return n == sizeof(word) - 1;
}
