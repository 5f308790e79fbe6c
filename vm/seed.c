/* seed.c - cloud-init's files, and the image that they are in. */
#include "vm/seed.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vm/file_internal.h"
#include "vm/iso9660.h"

struct content {
        char *data; /* malloc'ed */
        size_t length;
};

static int no_memory(struct error *err)
{
        return error_set(err, -ENOMEM, "cannot make the seed: out of memory");
}

/* ---- Files ---- */

static int read_file(const char *key, const char *path, struct content *ret, struct error *err)
{
        char *data = malloc(VM_SEED_FILE_MAX + 1);
        int fd;
        ssize_t n;

        if (!data)
                return no_memory(err);
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
        n = fd < 0 ? -errno : vm_read_all(fd, data, VM_SEED_FILE_MAX + 1);
        if (fd >= 0)
                close(fd);
        if (n >= 0 && n <= (ssize_t)VM_SEED_FILE_MAX) {
                *ret = (struct content){data, (size_t)n};
                return 0;
        }
        free(data);
        if (n >= 0)
                return error_set(err, -EFBIG, "%s '%s' is larger than %u MiB", key, path,
                                 VM_SEED_FILE_MAX >> 20);
        return error_set(err, (int)n, "cannot read %s '%s': %s", key, path, strerror((int)-n));
}

/* ---- Texts ---- */

/* A double-quoted scalar, YAML 1.1, 5.7 and 9.1.1; what is above ASCII stays as it is. */
static void put_quoted(FILE *out, const char *text)
{
        fputc('"', out);
        for (const char *p = text; *p; p++) {
                unsigned char letter = (unsigned char)*p;

                if (letter < ' ' || letter == 0x7f)
                        fprintf(out, "\\x%02x", letter);
                else if (letter == '"' || letter == '\\')
                        fprintf(out, "\\%c", letter);
                else
                        fputc(letter, out);
        }
        fputc('"', out);
}

static void put_value(FILE *out, const char *key, const char *text)
{
        fprintf(out, "%s: ", key);
        put_quoted(out, text);
        fputc('\n', out);
}

static void put_keys(FILE *out, const char *key, const struct vm_seed *seed)
{
        if (seed->n_ssh_keys == 0)
                return;
        fprintf(out, "%s:\n", key);
        for (size_t i = 0; i < seed->n_ssh_keys; i++) {
                fputs("  - ", out);
                put_quoted(out, seed->ssh_keys[i]);
                fputc('\n', out);
        }
}

/* The name of a VM may be what no host's is: "a_b" gives "a-b", "a." gives "a". */
static const char *hostname_of(const struct vm_file *file, char name[POOL_NAME_MAX + 1])
{
        size_t n = 0;

        if (file->seed->hostname[0])
                return file->seed->hostname;
        for (const char *p = file->name; *p; p++) {
                const char letter = (char)(*p == '_' ? '-' : *p);

                /* No label begins or ends with a hyphen. */
                if (letter == '-' && n > 0 && name[n - 1] == '.')
                        continue;
                while (letter == '.' && n > 0 && (name[n - 1] == '-' || name[n - 1] == '.'))
                        n--;
                name[n++] = letter;
        }
        while (n > 0 && (name[n - 1] == '-' || name[n - 1] == '.'))
                n--;
        name[n] = '\0';
        return name;
}

static void put_user_data(FILE *out, const struct vm_file *file, const char *hostname)
{
        fputs("#cloud-config\n", out);
        put_value(out, "hostname", hostname);
        put_keys(out, "ssh_authorized_keys", file->seed);
}

static void put_meta_data(FILE *out, const struct vm_file *file, const char *hostname,
                          const char *instance_id)
{
        put_value(out, "instance-id", instance_id);
        put_value(out, "local-hostname", hostname);
        if (file->seed->user_data)
                put_keys(out, "public-keys", file->seed);
}

/* Either text: @instance_id NULL is user-data. */
static int make_text(const struct vm_file *file, const char *instance_id, struct content *ret,
                     struct error *err)
{
        char name[POOL_NAME_MAX + 1];
        const char *hostname = hostname_of(file, name);
        struct content text = {0};
        FILE *out = open_memstream(&text.data, &text.length);
        bool failed;

        if (!out)
                return no_memory(err);
        if (instance_id)
                put_meta_data(out, file, hostname, instance_id);
        else
                put_user_data(out, file, hostname);
        failed = ferror(out) != 0;
        if (fclose(out) != 0 || failed) {
                free(text.data);
                return no_memory(err);
        }
        *ret = text;
        return 0;
}

/* ---- The image ---- */

enum { META_DATA, NETWORK_CONFIG, USER_DATA, N_CONTENTS };

static int gather(const struct vm_file *file, const char *instance_id,
                  struct content contents[N_CONTENTS], struct error *err)
{
        const struct vm_seed *seed = file->seed;
        int r;

        if (seed->user_data)
                r = read_file("user-data", seed->user_data, &contents[USER_DATA], err);
        else
                r = make_text(file, NULL, &contents[USER_DATA], err);
        if (r < 0)
                return r;
        if (seed->meta_data)
                r = read_file("meta-data", seed->meta_data, &contents[META_DATA], err);
        else
                r = make_text(file, instance_id, &contents[META_DATA], err);
        if (r == 0 && seed->network_config)
                r = read_file("network-config", seed->network_config, &contents[NETWORK_CONFIG],
                              err);
        return r;
}

static int make_image(const struct content contents[N_CONTENTS], int *ret_fd,
                      uint64_t *ret_size_bytes, struct error *err)
{
        static const char *const names[N_CONTENTS] = {"meta-data", "network-config", "user-data"};
        struct iso_file files[N_CONTENTS];
        size_t n = 0;
        int fd, r;

        for (size_t i = 0; i < N_CONTENTS; i++)
                if (contents[i].data)
                        files[n++] =
                            (struct iso_file){names[i], contents[i].data, contents[i].length};
        fd = memfd_create("cidata", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (fd < 0)
                return error_set(err, -errno, "cannot make the seed: %s", strerror(errno));
        r = iso_write(fd, "cidata", files, n, ret_size_bytes, err);
        if (r == 0 &&
            fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0)
                r = error_set(err, -errno, "cannot seal the seed: %s", strerror(errno));
        if (r < 0) {
                close(fd);
                return r;
        }
        *ret_fd = fd;
        return 0;
}

int vm_seed_make(const struct vm_file *file, const char *instance_id, int *ret_fd,
                 uint64_t *ret_size_bytes, struct error *err)
{
        struct content contents[N_CONTENTS] = {0};
        int r;

        assert(file->seed);
        r = gather(file, instance_id, contents, err);
        if (r == 0)
                r = make_image(contents, ret_fd, ret_size_bytes, err);
        for (size_t i = 0; i < N_CONTENTS; i++)
                free(contents[i].data);
        return r;
}
