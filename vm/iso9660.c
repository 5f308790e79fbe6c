/* iso9660.c - an ISO 9660 image: descriptors, path tables, two root folders (one with Rock Ridge,
 * one of Joliet), files. */
#include "vm/iso9660.h"

#include <assert.h>
#include <ctype.h>
#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/le.h"

/* Where things lie, in sectors; the first 16 are the system's (6.2.1) and empty. */
enum {
        SECTOR_PRIMARY = 16,
        SECTOR_JOLIET,
        SECTOR_TERMINATOR,
        SECTOR_PATHS, /* little-endian and big-endian; then the same of Joliet */
        SECTOR_ROOT = SECTOR_PATHS + 4,
        SECTOR_JOLIET_ROOT,
        SECTOR_FILES,
};

/* Both-byte-order numbers: 7.2.3 and 7.3.3. */
typedef struct {
        le16 little;
        uint8_t big[2];
} both16;
typedef struct {
        le32 little;
        uint8_t big[4];
} both32;

/* A folder's record, 9.1; the name follows, and what Rock Ridge has to say. */
struct record_disk {
        uint8_t length; /* of all */
        uint8_t extended_length;
        both32 sector;
        both32 length_bytes;
        uint8_t time[7];
        uint8_t flags;
        uint8_t interleave[2];
        both16 volume;
        uint8_t name_length;
};
static_assert(sizeof(struct record_disk) == 33, "ECMA-119, 9.1");
#define RECORD_FOLDER 2u

/* Primary and supplementary volume descriptor, 8.4 and 8.5. */
struct volume_disk {
        uint8_t type;
        char magic[5];
        uint8_t version;
        uint8_t flags;
        char system[32];
        char label[32];
        uint8_t unused1[8];
        both32 size_sectors;
        uint8_t escapes[32]; /* Joliet: which letters */
        both16 set_size, number, sector_size;
        both32 paths_length;
        le32 paths_little, paths_little_2;
        uint8_t paths_big[4], paths_big_2[4];
        struct record_disk root;
        uint8_t root_name;
        char set[128], publisher[128], preparer[128], application[128];
        char copyright[37], abstract[37], bibliography[37];
        char times[4][17]; /* made, changed, expires, effective: 8.4.26.1 */
        uint8_t structure_version;
        uint8_t unused2[1166];
};
static_assert(sizeof(struct volume_disk) == ISO_SECTOR_SIZE, "ECMA-119, 8.4");
#define VOLUME_PRIMARY       1u
#define VOLUME_SUPPLEMENTARY 2u
#define VOLUME_TERMINATOR    255u

/* The only entry of a path table, 9.4. */
struct path_disk {
        uint8_t name_length, extended_length;
        uint8_t sector[4];
        uint8_t parent[2];
        uint8_t name, padding;
};
static_assert(sizeof(struct path_disk) == 10, "ECMA-119, 9.4");

struct image {
        int fd;
        const char *label;
        const struct iso_file *files;
        size_t n_files;
        uint32_t n_sectors;
};

static both16 both16_make(uint16_t value)
{
        uint16_t big = htobe16(value);
        both16 both = {.little = le16_make(value)};

        memcpy(both.big, &big, sizeof(big));
        return both;
}

static void big32_put(uint8_t bytes[4], uint32_t value)
{
        uint32_t big = htobe32(value);

        memcpy(bytes, &big, sizeof(big));
}

static both32 both32_make(uint32_t value)
{
        both32 both = {.little = le32_make(value)};

        big32_put(both.big, value);
        return both;
}

static uint32_t sectors_of(size_t length)
{
        return (uint32_t)((length + ISO_SECTOR_SIZE - 1) / ISO_SECTOR_SIZE);
}

static int put(int fd, const void *data, size_t length, struct error *err)
{
        const char *at = data;

        while (length > 0) {
                ssize_t n = write(fd, at, length);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return error_set(err, -errno, "cannot write a disk image: %s",
                                         strerror(errno));
                at += n;
                length -= (size_t)n;
        }
        return 0;
}

/* A part that fits a sector, and zeroes up to its end. */
static int put_sector(int fd, const void *data, size_t length, struct error *err)
{
        uint8_t sector[ISO_SECTOR_SIZE] = {0};

        assert(length <= sizeof(sector));
        if (length > 0)
                memcpy(sector, data, length);
        return put(fd, sector, sizeof(sector), err);
}

/* ---- Names ---- */

/* Joliet's letters: UCS-2, big-endian. */
static size_t to_ucs2(const char *name, uint8_t *ucs2)
{
        size_t n = strlen(name);

        for (size_t i = 0; i < n; i++) {
                ucs2[2 * i] = 0;
                ucs2[2 * i + 1] = (uint8_t)name[i];
        }
        return 2 * n;
}

/* d-characters, an empty extension and the version 1: 7.5.1. */
static size_t to_plain(const char *name, uint8_t *plain)
{
        static const uint8_t end[] = {'.', ';', '1'};
        size_t n = strlen(name);

        for (size_t i = 0; i < n; i++)
                plain[i] = name[i] == '-' ? '_' : (uint8_t)toupper(name[i]);
        memcpy(plain + n, end, sizeof(end));
        return n + sizeof(end);
}

/* ---- Rock Ridge ---- */

/* SUSP 5.3: the system use fields begin at once, and are in use. */
static const uint8_t susp_begin[] = {'S', 'P', 7, 1, 0xbe, 0xef, 0};
/* SUSP 5.5: whose fields these are; the description and its source are left empty. */
static const uint8_t susp_rock_ridge[] = {'E', 'R', 18,  1,   10,  0,   0,   1,   'R',
                                          'R', 'I', 'P', '_', '1', '9', '9', '1', 'A'};

static size_t add(uint8_t *use, const void *field, size_t length)
{
        memcpy(use, field, length);
        return length;
}

/* RRIP 4.1.1, PX: mode and links, of the user and group 0. */
static size_t add_mode(uint8_t *use, uint32_t mode, uint32_t links)
{
        struct {
                uint8_t head[4];
                both32 mode, links, user, group;
        } px = {.head = {'P', 'X', sizeof(px), 1},
                .mode = both32_make(mode),
                .links = both32_make(links)};

        static_assert(sizeof(px) == 36, "RRIP 1.10, 4.1.1");
        return add(use, &px, sizeof(px));
}

/* RRIP 4.1.4, NM. */
static size_t add_name(uint8_t *use, const char *name)
{
        uint8_t head[5] = {'N', 'M', (uint8_t)(5 + strlen(name)), 1, 0};

        add(use, head, sizeof(head));
        return sizeof(head) + add(use + sizeof(head), name, strlen(name));
}

/* ---- Folders ---- */

#define USE_MAX 128u

/* Append a record to @folder, which has room; how long it is. */
static size_t add_record(uint8_t *folder, struct record_disk head, const uint8_t *name,
                         size_t name_length, const uint8_t *use, size_t use_length)
{
        size_t padding = (sizeof(head) + name_length) % 2; /* 9.1.12 */
        size_t length = sizeof(head) + name_length + padding + use_length;

        length += length % 2; /* 9.1.13 */
        assert(length <= UINT8_MAX && use_length <= USE_MAX);
        head.length = (uint8_t)length;
        head.name_length = (uint8_t)name_length;
        memcpy(folder, &head, sizeof(head));
        memcpy(folder + sizeof(head), name, name_length);
        memcpy(folder + sizeof(head) + name_length + padding, use, use_length);
        return length;
}

static struct record_disk record(uint32_t sector, uint32_t length_bytes, uint8_t flags)
{
        return (struct record_disk){
            .sector = both32_make(sector),
            .length_bytes = both32_make(length_bytes),
            .time = {80, 1, 1}, /* 1980: any will do, if only it is always the same */
            .flags = flags,
            .volume = both16_make(1),
        };
}

static struct record_disk root_record(bool joliet)
{
        return record(joliet ? SECTOR_JOLIET_ROOT : SECTOR_ROOT, ISO_SECTOR_SIZE, RECORD_FOLDER);
}

/* The root, which is its own parent: 6.8.2.2. Only the primary tree has Rock Ridge. */
static size_t add_dots(uint8_t *folder, bool joliet)
{
        static const uint8_t self = 0, parent = 1;
        uint8_t use[USE_MAX] = {0};
        size_t n = 0, length;

        if (!joliet) {
                n = add(use, susp_begin, sizeof(susp_begin));
                n += add_mode(use + n, 040555, 2);
                n += add(use + n, susp_rock_ridge, sizeof(susp_rock_ridge));
        }
        length = add_record(folder, root_record(joliet), &self, 1, use, n);
        n = joliet ? 0 : add_mode(use, 040555, 2);
        return length + add_record(folder + length, root_record(joliet), &parent, 1, use, n);
}

static int put_root(const struct image *image, bool joliet, struct error *err)
{
        uint8_t folder[ISO_SECTOR_SIZE] = {0}, name[2 * ISO_NAME_MAX + 3], use[USE_MAX] = {0};
        size_t at = add_dots(folder, joliet);
        uint32_t sector = SECTOR_FILES;

        for (size_t i = 0; i < image->n_files; i++) {
                const struct iso_file *file = &image->files[i];
                size_t n = joliet ? to_ucs2(file->name, name) : to_plain(file->name, name);
                size_t used = joliet ? 0 : add_mode(use, 0100444, 1);

                if (!joliet)
                        used += add_name(use + used, file->name);
                at += add_record(folder + at, record(sector, (uint32_t)file->length, 0), name, n,
                                 use, used);
                sector += sectors_of(file->length);
        }
        return put_sector(image->fd, folder, at, err);
}

static int put_paths(const struct image *image, uint32_t root, struct error *err)
{
        struct path_disk path = {.name_length = 1};
        le32 little = le32_make(root);
        int r;

        memcpy(path.sector, &little, sizeof(little));
        path.parent[0] = 1;
        r = put_sector(image->fd, &path, sizeof(path), err);
        if (r < 0)
                return r;
        big32_put(path.sector, root);
        path.parent[0] = 0;
        path.parent[1] = 1;
        return put_sector(image->fd, &path, sizeof(path), err);
}

/* ---- Descriptors ---- */

/* Texts end in blanks, 7.4.3.2; Joliet's too. */
static void put_text(char *field, size_t size, const char *text, bool joliet)
{
        for (size_t i = 0; i < size; i++) {
                if (joliet && i % 2 == 0)
                        field[i] = '\0';
                else
                        field[i] = (char)(*text ? *text++ : ' ');
        }
}

static int put_volume(const struct image *image, bool joliet, struct error *err)
{
        uint32_t paths = joliet ? SECTOR_PATHS + 2 : SECTOR_PATHS;
        struct volume_disk v = {
            .type = joliet ? VOLUME_SUPPLEMENTARY : VOLUME_PRIMARY,
            .magic = {'C', 'D', '0', '0', '1'},
            .version = 1,
            .size_sectors = both32_make(image->n_sectors),
            .set_size = both16_make(1),
            .number = both16_make(1),
            .sector_size = both16_make(ISO_SECTOR_SIZE),
            .paths_length = both32_make(sizeof(struct path_disk)),
            .paths_little = le32_make(paths),
            .root = root_record(joliet),
            .structure_version = 1,
        };

        big32_put(v.paths_big, paths + 1);
        v.root.length = sizeof(v.root) + sizeof(v.root_name);
        v.root.name_length = sizeof(v.root_name);
        if (joliet)
                memcpy(v.escapes, "%/E", 3); /* UCS-2 level 3 */
        put_text(v.system, sizeof(v.system), joliet ? "" : "LINUX", joliet);
        put_text(v.label, sizeof(v.label), image->label, joliet);
        put_text(v.set, sizeof(v.set), "", joliet);
        put_text(v.publisher, sizeof(v.publisher), "", joliet);
        put_text(v.preparer, sizeof(v.preparer), "", joliet);
        put_text(v.application, sizeof(v.application), "TARN", joliet);
        put_text(v.copyright, sizeof(v.copyright), "", joliet);
        put_text(v.abstract, sizeof(v.abstract), "", joliet);
        put_text(v.bibliography, sizeof(v.bibliography), "", joliet);
        /* Not said: digits of zero, and a zone of 0. */
        for (size_t i = 0; i < 4; i++)
                memset(v.times[i], '0', sizeof(v.times[i]) - 1);
        return put_sector(image->fd, &v, sizeof(v), err);
}

static int put_descriptors(const struct image *image, struct error *err)
{
        static const uint8_t terminator[7] = {VOLUME_TERMINATOR, 'C', 'D', '0', '0', '1', 1};
        int r = 0;

        for (unsigned i = 0; i < SECTOR_PRIMARY && r == 0; i++)
                r = put_sector(image->fd, NULL, 0, err);
        if (r == 0)
                r = put_volume(image, false, err);
        if (r == 0)
                r = put_volume(image, true, err);
        if (r == 0)
                r = put_sector(image->fd, terminator, sizeof(terminator), err);
        return r;
}

static int put_file(const struct image *image, const struct iso_file *file, struct error *err)
{
        size_t whole = file->length - file->length % ISO_SECTOR_SIZE;
        int r = put(image->fd, file->data, whole, err);

        if (r == 0 && whole < file->length)
                r = put_sector(image->fd, (const uint8_t *)file->data + whole, file->length - whole,
                               err);
        return r;
}

int iso_write(int fd, const char *label, const struct iso_file *files, size_t n_files,
              uint64_t *ret_size_bytes, struct error *err)
{
        struct image image = {fd, label, files, n_files, SECTOR_FILES};
        int r;

        assert(n_files <= ISO_FILES_MAX && strlen(label) <= ISO_LABEL_MAX);
        for (size_t i = 0; i < n_files; i++) {
                assert(strlen(files[i].name) <= ISO_NAME_MAX);
                assert(i == 0 || strcmp(files[i - 1].name, files[i].name) < 0); /* 9.3 */
                image.n_sectors += sectors_of(files[i].length);
        }
        r = put_descriptors(&image, err);
        if (r == 0)
                r = put_paths(&image, SECTOR_ROOT, err);
        if (r == 0)
                r = put_paths(&image, SECTOR_JOLIET_ROOT, err);
        if (r == 0)
                r = put_root(&image, false, err);
        if (r == 0)
                r = put_root(&image, true, err);
        for (size_t i = 0; i < n_files && r == 0; i++)
                r = put_file(&image, &files[i], err);
        if (r == 0)
                *ret_size_bytes = (uint64_t)image.n_sectors * ISO_SECTOR_SIZE;
        return r;
}
