/* change.c - changes to a machine's file. */
#include "vm/change.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Those with one value. "name" and "uuid" are what makes it this machine. */
static const char *const keys[] = {
    "cpus",   "cpu-weight", "cpu-max", "memory",  "memory-max",  "hugepages", "firmware", "kernel",
    "initrd", "cmdline",    "rng",     "balloon", "console-log", "autostart", "on-crash"};

/* Of these the value is a path. */
static const char *const path_keys[] = {"firmware", "kernel", "initrd", "console-log"};

static bool is_one_of(const char *const *list, size_t n, const char *word, size_t length)
{
        for (size_t i = 0; i < n; i++)
                if (strlen(list[i]) == length && strncmp(list[i], word, length) == 0)
                        return true;
        return false;
}

static bool is_key(const char *word, size_t length)
{
        return is_one_of(keys, sizeof(keys) / sizeof(keys[0]), word, length);
}

/* KEY=VALUE, of which the value is a path, and not an absolute one. */
static bool is_relative(const char *word)
{
        size_t length = strcspn(word, "=");
        const char *value = word + length + 1;

        return word[length] == '=' && value[0] && value[0] != '/' &&
               is_one_of(path_keys, sizeof(path_keys) / sizeof(path_keys[0]), word, length) &&
               strcmp(word, "firmware=seabios") != 0;
}

int change_absolute(const char *word, char **ret_word, struct error *err)
{
        size_t length = strcspn(word, "=");
        char folder[PATH_MAX];
        int n;

        if (!is_relative(word)) {
                *ret_word = strdup(word);
                return *ret_word ? 0 : error_set(err, -ENOMEM, "out of memory");
        }
        if (!getcwd(folder, sizeof(folder)))
                return error_set(err, -errno, "the working folder has no name");
        n = asprintf(ret_word, "%.*s=%s/%s", (int)length, word,
                     strcmp(folder, "/") == 0 ? "" : folder, word + length + 1);
        return n < 0 ? error_set(err, -ENOMEM, "out of memory") : 0;
}

/* In double quotes, as YAML 1.1 has them (section 5.6): any byte but these two stands for itself. */
static void put_value(FILE *out, const char *key, size_t key_length, const char *value)
{
        fprintf(out, "%.*s: \"", (int)key_length, key);
        for (; *value; value++) {
                if (*value == '"' || *value == '\\')
                        fputc('\\', out);
                fputc(*value, out);
        }
        fputs("\"\n", out);
}

/* The text without the key's lines, which begin with it and go on where a line is indented, and with
 * its new value: none where that is empty, so that the default counts. */
static int rewrite(const char *text, const char *key, size_t key_length, const char *value,
                   char **ret_text)
{
        bool dropping = false;
        size_t size = 0;
        FILE *out = open_memstream(ret_text, &size);

        if (!out)
                return -ENOMEM;
        while (*text) {
                size_t length = strcspn(text, "\n");

                if (text[length] == '\n')
                        length++;
                if (*text != ' ')
                        dropping = strncmp(text, key, key_length) == 0 && text[key_length] == ':';
                if (!dropping && strncmp(text, "...", 3) != 0)
                        fwrite(text, 1, length, out);
                text += length;
        }
        if (*value)
                put_value(out, key, key_length, value);
        if (fclose(out) == 0)
                return 0;
        free(*ret_text);
        return -ENOMEM;
}

/* @text is taken over. All paths in it are absolute. */
static int take_text(struct known *k, char *text, struct error *err)
{
        struct vm_file *file = NULL, *before = k->file;
        int r = vm_file_parse(text, strlen(text), k->name, "/", &file, err);

        free(text);
        if (r < 0)
                return r;
        k->file = file;
        r = known_save(k, err);
        if (r < 0) {
                k->file = before;
                vm_file_free(file);
        } else {
                vm_file_free(before);
        }
        return r;
}

int change_set(struct known *k, const char *word, struct error *err)
{
        size_t key_length = strcspn(word, "=");
        char *text = NULL, *changed = NULL;
        int r;

        if (word[key_length] != '=' || strpbrk(word, "\n\r"))
                return error_set(err, -EINVAL, "'%s' is not KEY=VALUE", word);
        if (!is_key(word, key_length)) {
                error_set(err, -EINVAL, "'%.*s' cannot be set", (int)key_length, word);
                return error_hint(err,
                                  "cpus, memory, memory-max, cmdline, autostart and others can; "
                                  "tarn-vm-file(5) has them all");
        }
        if (is_relative(word))
                return error_set(err, -EINVAL, "'%s' does not name an absolute path", word);
        r = vm_file_write(k->file, &text, err);
        if (r < 0)
                return r;
        r = rewrite(text, word, key_length, word + key_length + 1, &changed);
        free(text);
        return r < 0 ? error_set(err, r, "out of memory") : take_text(k, changed, err);
}

/* ---- disks ---- */

static int take_name(char to[POOL_NAME_MAX + 1], const char *from, size_t length, const char *what,
                     struct error *err)
{
        if (length > POOL_NAME_MAX)
                return error_set(err, -EINVAL, "'%.*s' is too long for a %s's name", 100, from,
                                 what);
        memcpy(to, from, length);
        to[length] = '\0';
        return pool_name_check(to, what, err);
}

int change_parse_disk(const char *word, bool readonly, struct vm_disk *ret, struct error *err)
{
        size_t pool = strcspn(word, "/"), volume;
        const char *rest = word + pool + 1;
        int r;

        *ret = (struct vm_disk){.readonly = readonly};
        if (word[pool] != '/') {
                error_set(err, -EINVAL, "'%s' does not name a pool and a volume", word);
                return error_hint(err, "write POOL/VOLUME, or POOL/VOLUME@SNAPSHOT");
        }
        volume = strcspn(rest, "@");
        r = take_name(ret->pool, word, pool, "pool", err);
        if (r == 0)
                r = take_name(ret->volume, rest, volume, "volume", err);
        if (r == 0 && rest[volume] == '@') {
                ret->readonly = true;
                r = take_name(ret->snapshot, rest + volume + 1, strlen(rest + volume + 1),
                              "snapshot", err);
        }
        return r;
}

static size_t find(const struct vm_file *file, const struct vm_disk *disk)
{
        size_t i = 0;

        while (i < file->n_disks && !vm_disk_is_same(&file->disks[i], disk))
                i++;
        return i;
}

int change_add_disk(struct known *k, const struct vm_disk *disk, struct error *err)
{
        struct vm_file *file = k->file;
        struct vm_disk *more;
        char *text = NULL;
        int r;

        if (find(file, disk) < file->n_disks)
                return 0;
        more = reallocarray(file->disks, file->n_disks + 1, sizeof(*more));
        if (!more)
                return error_set(err, -ENOMEM, "out of memory");
        file->disks = more;
        more[file->n_disks++] = *disk;
        /* Read again, as it may be one too many. */
        r = vm_file_write(file, &text, err);
        if (r == 0)
                r = take_text(k, text, err);
        if (r < 0)
                file->n_disks--;
        return r;
}

int change_drop_disk(struct known *k, const struct vm_disk *disk, struct error *err)
{
        struct vm_file *file = k->file;
        size_t i = find(file, disk);
        struct vm_disk gone;
        char *text = NULL;
        int r;

        if (i == file->n_disks)
                return 0;
        gone = file->disks[i];
        file->n_disks--;
        memmove(&file->disks[i], &file->disks[i + 1], (file->n_disks - i) * sizeof(gone));
        r = vm_file_write(file, &text, err);
        if (r == 0)
                r = take_text(k, text, err);
        if (r < 0) {
                memmove(&file->disks[i + 1], &file->disks[i], (file->n_disks - i) * sizeof(gone));
                file->disks[i] = gone;
                file->n_disks++;
        } else {
                free(gone.from_image);
        }
        return r;
}
