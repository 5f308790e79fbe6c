/* ova.c - OVA files, and OVF with disks beside it: reading. */
#include "formats/ova.h"

#include <errno.h>
#include <libxml/uri.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#define MANIFEST_MAX ((size_t)1 << 20)
#define CHUNK        ((size_t)1 << 20)

bool ova_is_probed(const struct image_driver *driver)
{
        return strcmp(driver->name, "tar") == 0 || strcmp(driver->name, "ovf") == 0;
}

int ova_watch_look(struct ova_watch *watch, uint64_t done, uint64_t total, struct error *err)
{
        if (watch && watch->cancelled && *watch->cancelled)
                return error_set(err, -ECANCELED, "interrupted");
        if (watch && watch->progress)
                watch->progress(watch->arg, done, total);
        return 0;
}

/* ---- its files ---- */

void ova_place_clear(struct ova_place *place)
{
        if (place->is_ours)
                close(place->fd);
        free(place->path);
        *place = (struct ova_place){.fd = -1};
}

static int find_member(const struct ova *o, const char *name, struct ova_place *ret,
                       struct error *err)
{
        const struct tar_member *m = tar_find(&o->files, name);

        if (!m)
                return error_set(err, -ENOENT, "'%s' has no '%s' in it", o->path, name);
        *ret = (struct ova_place){.fd = o->fd, .offset = m->offset, .length = m->length};
        if (asprintf(&ret->path, "%s(%s)", o->path, m->name) >= 0)
                return 0;
        ret->path = NULL;
        return error_set(err, -ENOMEM, "out of memory");
}

static int find_beside(const struct ova *o, const char *name, struct ova_place *ret,
                       struct error *err)
{
        struct stat st;
        int r;

        *ret = (struct ova_place){.fd = -1};
        if (!o->opener)
                return error_set(err, -EPERM, "'%s' needs another file, '%s'", o->path, name);
        r = o->opener->open(o->opener, o->path, name, IMAGE_PART, &ret->fd, &ret->path, err);
        if (r < 0)
                return r;
        ret->is_ours = true;
        if (fstat(ret->fd, &st) < 0) {
                r = error_set(err, -errno, "cannot look at '%s': %s", ret->path, strerror(errno));
                ova_place_clear(ret);
                return r;
        }
        ret->length = (uint64_t)st.st_size;
        return 0;
}

static int find_exactly(const struct ova *o, const char *name, struct ova_place *ret,
                        struct error *err)
{
        return o->is_archive ? find_member(o, name, ret, err) : find_beside(o, name, ret, err);
}

/* -ENOENT  it is not there. Names are URIs by the specification, where a blank is "%20"; many packers
 * write them as they are. */
static int find_file(const struct ova *o, const char *name, struct ova_place *ret,
                     struct error *err)
{
        struct error e = ERROR_INIT;
        char *plain;
        int r = find_exactly(o, name, ret, &e);

        if (r == -ENOENT && strchr(name, '%')) {
                plain = xmlURIUnescapeString(name, 0, NULL);
                if (plain && find_exactly(o, plain, ret, NULL) == 0)
                        r = 0;
                xmlFree(plain);
        }
        if (r < 0 && err)
                *err = e;
        return r;
}

static int co_open_bytes(const struct ova_place *place, struct image **ret_image, struct error *err)
{
        const struct image_options raw = {.format = "raw"};

        return co_image_open_within(place->fd, place->path, place->offset, place->length, &raw,
                                    ret_image, err);
}

static int co_read_text(const struct ova_place *place, size_t most, char **ret_text,
                        struct error *err)
{
        struct image *bytes = NULL;
        char *text = NULL;
        int r;

        if (place->length > most)
                return error_set(err, -EBADMSG, "'%s' has more than %zu bytes", place->path, most);
        text = calloc(1, place->length + 1);
        if (!text)
                return error_set(err, -ENOMEM, "out of memory");
        r = co_open_bytes(place, &bytes, err);
        if (r == 0)
                r = co_image_pread(bytes, text, place->length, 0, err);
        image_close(bytes);
        if (r < 0)
                free(text);
        else
                *ret_text = text;
        return r;
}

static bool ends_in(const char *name, const char *end)
{
        size_t n = strlen(name), k = strlen(end);

        return n > k && strcasecmp(name + n - k, end) == 0;
}

/* "The OVF descriptor is the first file"; the manifest has its name. Some packers mind neither, so that
 * the first one of each counts. */
static int find_parts(struct ova *o, struct error *err)
{
        const char *descriptor = NULL, *manifest = NULL;

        for (size_t i = 0; i < o->files.n; i++) {
                const char *name = o->files.members[i].name;

                if (!descriptor && ends_in(name, ".ovf"))
                        descriptor = name;
                else if (!manifest && ends_in(name, ".mf"))
                        manifest = name;
        }
        if (!descriptor)
                return error_set(err, -EBADMSG, "'%s' is no OVA: there is no .ovf in it", o->path);
        o->descriptor = strdup(descriptor);
        o->manifest = manifest ? strdup(manifest) : NULL;
        if (!o->descriptor || (manifest && !o->manifest))
                return error_set(err, -ENOMEM, "out of memory");
        return 0;
}

/* "X.mf" beside "X.ovf", where there is one. */
static int find_manifest_beside(struct ova *o, struct error *err)
{
        const char *slash = strrchr(o->path, '/'), *name = slash ? slash + 1 : o->path;
        struct ova_place place;
        struct error e = ERROR_INIT;
        int r;

        o->descriptor = strdup(name);
        if (asprintf(&o->manifest, "%.*s.mf",
                     (int)(strlen(name) - (ends_in(name, ".ovf") ? sizeof(".ovf") - 1 : 0)),
                     name) < 0)
                o->manifest = NULL;
        if (!o->descriptor || !o->manifest)
                return error_set(err, -ENOMEM, "out of memory");
        r = o->opener ? find_beside(o, o->manifest, &place, &e) : -ENOENT;
        if (r == 0)
                ova_place_clear(&place);
        if (r == -ENOENT) {
                free(o->manifest);
                o->manifest = NULL;
                return 0;
        }
        if (r < 0 && err)
                *err = e;
        return r;
}

/* ---- digests ---- */

/* A look at the manifest: at all of its lines, or at those of one file. */
struct verifying {
        struct ova *ova;
        const char *only;
        bool measuring; /* how much there is to read */
        uint64_t done, total;
        struct ova_watch *watch;
};

static int co_digest(struct verifying *v, const struct ova_place *place, struct ova_hash *hash,
                     struct error *err)
{
        struct image *bytes = NULL;
        void *chunk = malloc(CHUNK);
        int r =
            chunk ? co_open_bytes(place, &bytes, err) : error_set(err, -ENOMEM, "out of memory");

        for (uint64_t at = 0, n; r == 0 && at < place->length; at += n) {
                n = place->length - at < CHUNK ? place->length - at : CHUNK;
                r = co_image_pread(bytes, chunk, n, at, err);
                if (r < 0)
                        break;
                co_ova_hash_add(hash, v->ova->offload, chunk, n);
                v->done += n;
                r = ova_watch_look(v->watch, v->done, v->total, err);
        }
        image_close(bytes);
        free(chunk);
        return r;
}

/* "SHA256(NAME)= DIGEST", with or without blanks. False: it breaks the rules. */
static bool parse_line(char *line, enum ova_digest *ret_digest, const char **ret_name,
                       const char **ret_hex)
{
        char *open = strchr(line, '('), *close = strrchr(line, ')'), *hex;
        size_t n;

        if (!open || !close || close < open)
                return false;
        if (strncasecmp(line, "SHA256", 6) == 0)
                *ret_digest = OVA_SHA256;
        else if (strncasecmp(line, "SHA1", 4) == 0)
                *ret_digest = OVA_SHA1;
        else
                return false;
        *close = 0;
        hex = close + 1 + strspn(close + 1, " \t");
        if (*hex++ != '=')
                return false;
        hex += strspn(hex, " \t");
        n = strspn(hex, "0123456789abcdefABCDEF");
        if (n != (*ret_digest == OVA_SHA1 ? 40 : 64) || hex[n + strspn(hex + n, " \t\r")])
                return false;
        hex[n] = 0;
        *ret_name = open + 1;
        *ret_hex = hex;
        return true;
}

static int co_compare(struct verifying *v, const struct ova_place *place, enum ova_digest digest,
                      const char *hex, struct error *err)
{
        char is[OVA_DIGEST_TEXT];
        struct ova_hash *hash;
        int r = ova_hash_new(digest, &hash, err);

        if (r < 0)
                return r;
        r = co_digest(v, place, hash, err);
        ova_hash_end(hash, is);
        if (r == 0 && strcasecmp(is, hex) != 0)
                return error_set(err, -EBADMSG, "'%s' is damaged: its digest is not the manifest's",
                                 place->path);
        return r;
}

static int co_verify_line(struct verifying *v, const char *name, enum ova_digest digest,
                          const char *hex, struct error *err)
{
        struct error e = ERROR_INIT;
        struct ova_place place;
        int r = find_file(v->ova, name, &place, &e);

        if (r == -ENOENT)
                return error_set(err, -EBADMSG, "'%s': the manifest names '%s', which is not there",
                                 v->ova->path, name);
        if (r < 0) {
                if (err)
                        *err = e;
                return r;
        }
        if (v->measuring)
                v->total += place.length;
        else
                r = co_compare(v, &place, digest, hex, err);
        ova_place_clear(&place);
        return r;
}

static bool is_about(const struct verifying *v, const char *name)
{
        if (strncmp(name, "./", 2) == 0)
                name += 2;
        return !v->only || strcmp(name, v->only + (strncmp(v->only, "./", 2) == 0 ? 2 : 0)) == 0;
}

static int co_verify_lines(struct verifying *v, const char *manifest, struct error *err)
{
        char *text = strdup(manifest), *line, *rest = text;
        unsigned n_line = 0;
        int r = text ? 0 : error_set(err, -ENOMEM, "out of memory");

        while (r == 0 && (line = strsep(&rest, "\n"))) {
                enum ova_digest digest;
                const char *name, *hex;

                n_line++;
                if (line[strspn(line, " \t\r")] == 0)
                        continue;
                if (!parse_line(line, &digest, &name, &hex))
                        r = error_set(err, -EBADMSG,
                                      "'%s': line %u of the manifest '%s' is no digest",
                                      v->ova->path, n_line, v->ova->manifest);
                else if (is_about(v, name))
                        r = co_verify_line(v, name, digest, hex, err);
        }
        free(text);
        return r;
}

/* Compare the digest of one file, or of all. One that no line names is not compared. */
static int co_verify(struct ova *o, const char *only, struct ova_watch *watch, struct error *err)
{
        struct verifying v = {.ova = o, .only = only, .watch = watch, .measuring = true};
        struct ova_place place;
        char *text = NULL;
        int r = find_file(o, o->manifest, &place, err);

        if (r < 0)
                return r;
        r = co_read_text(&place, MANIFEST_MAX, &text, err);
        ova_place_clear(&place);
        if (r == 0)
                r = co_verify_lines(&v, text, err);
        v.measuring = false;
        if (r == 0)
                r = co_verify_lines(&v, text, err);
        free(text);
        return r;
}

int co_ova_verify(struct ova *ova, struct ova_watch *watch, struct error *err)
{
        if (!ova->manifest)
                return error_set(err, -ENOENT, "'%s' has no manifest", ova->path);
        return co_verify(ova, NULL, watch, err);
}

/* ---- opening ---- */

/* What the descriptor names is there. Of a file in several pieces there is none of its own name. */
static int find_disks(struct ova *o, struct error *err)
{
        for (size_t i = 0; i < o->machine.n_disks; i++) {
                const struct ovf_disk *d = &o->machine.disks[i];
                const char *file = d->is_chunked ? NULL : d->file;
                struct ova_place place;
                struct error e = ERROR_INIT;
                int r = file ? find_file(o, file, &place, &e) : 0;

                if (file && r == 0)
                        ova_place_clear(&place);
                if (r == -ENOENT && o->is_archive)
                        return error_set(err, -EBADMSG,
                                         "'%s' has a disk in '%s', which is not in the archive",
                                         o->path, file);
                if (r < 0) {
                        if (err)
                                *err = e;
                        return r;
                }
        }
        return 0;
}

static int descriptor_place(const struct ova *o, struct ova_place *ret, struct error *err)
{
        struct stat st;

        if (o->is_archive)
                return find_member(o, o->descriptor, ret, err);
        if (fstat(o->fd, &st) < 0)
                return error_set(err, -errno, "cannot look at '%s': %s", o->path, strerror(errno));
        *ret = (struct ova_place){
            .fd = o->fd, .path = strdup(o->path), .length = (uint64_t)st.st_size};
        return ret->path ? 0 : error_set(err, -ENOMEM, "out of memory");
}

static int co_read_machine(struct ova *o, struct error *err)
{
        struct ova_place place;
        char *text = NULL;
        int r = descriptor_place(o, &place, err);

        if (r < 0)
                return r;
        r = co_read_text(&place, OVF_BYTES_MAX, &text, err);
        if (r == 0)
                r = ovf_parse(text, place.length, place.path, &o->machine, err);
        ova_place_clear(&place);
        free(text);
        return r == 0 && (o->is_archive || o->opener) ? find_disks(o, err) : r;
}

static int co_list_archive(struct ova *o, struct error *err)
{
        const struct image_options raw = {.format = "raw"};
        struct image *archive = NULL;
        int r = co_image_open(o->fd, o->path, &raw, &archive, err);

        if (r == 0)
                r = co_tar_list(archive, &o->files, err);
        image_close(archive);
        return r < 0 ? r : find_parts(o, err);
}

static int co_open_parts(struct ova *o, struct error *err)
{
        const struct image_driver *driver;
        bool guessed;
        int r = co_image_probe(o->fd, o->path, &driver, &guessed, err);

        if (r < 0)
                return r;
        o->is_archive = strcmp(driver->name, "ovf") != 0;
        r = o->is_archive ? co_list_archive(o, err) : find_manifest_beside(o, err);
        if (r == 0 && o->manifest)
                r = co_verify(o, o->descriptor, NULL, err);
        return r < 0 ? r : co_read_machine(o, err);
}

int co_ova_open(int fd, const char *path, struct offload *offload, struct image_opener *opener,
                struct ova **ret_ova, struct error *err)
{
        struct ova *o = calloc(1, sizeof(*o));
        int r;

        if (!o || !(o->path = strdup(path))) {
                free(o);
                return error_set(err, -ENOMEM, "out of memory");
        }
        o->fd = fd;
        o->offload = offload;
        o->opener = opener;
        r = co_open_parts(o, err);
        if (r < 0)
                ova_close(o);
        else
                *ret_ova = o;
        return r;
}

void ova_close(struct ova *ova)
{
        if (!ova)
                return;
        ovf_machine_clear(&ova->machine);
        tar_list_clear(&ova->files);
        free(ova->descriptor);
        free(ova->manifest);
        free(ova->path);
        free(ova);
}

/* ---- disks ---- */

int ova_disk_place(struct ova *ova, size_t i, struct ova_place *ret_place, struct error *err)
{
        const struct ovf_disk *d = &ova->machine.disks[i];

        if (!d->file)
                return error_set(err, -ENOENT, "'%s': disk '%s' is an empty one", ova->path, d->id);
        if (d->is_compressed || d->is_chunked)
                return error_set(err, -ENOTSUP, "'%s': '%s' is %s, which is not read here",
                                 ova->path, d->file,
                                 d->is_compressed ? "compressed as a whole" : "in several pieces");
        return find_file(ova, d->file, ret_place, err);
}

int co_ova_open_disk(struct ova *ova, size_t i, struct image **ret_image, struct error *err)
{
        const struct image_options options = {.offload = ova->offload};
        struct ova_place place;
        int r = ova_disk_place(ova, i, &place, err);

        if (r < 0)
                return r;
        r = co_image_open_within(place.fd, place.path, place.offset, place.length, &options,
                                 ret_image, err);
        if (r == 0) {
                (*ret_image)->owns_fd = place.is_ours;
                place.is_ours = false;
        }
        ova_place_clear(&place);
        return r;
}
