/* access.c - see access.h. */
#include "server/access.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINES_MAX 100000u /* each is looked at for each name in a listing */

struct access_line {
        char *identity, *export; /* of the line's own text */
        char *text;
        enum access_right right;
};

struct access_list {
        atomic_uint n_refs;
        struct access_line *lines;
        size_t n, capacity;
};

struct access_list *access_ref(struct access_list *list)
{
        if (list)
                atomic_fetch_add(&list->n_refs, 1);
        return list;
}

void access_unref(struct access_list *list)
{
        if (!list || atomic_fetch_sub(&list->n_refs, 1) > 1)
                return;
        for (size_t i = 0; i < list->n; i++)
                free(list->lines[i].text);
        free(list->lines);
        free(list);
}

/* ---- reading ---- */

/* The next word, ended by a NUL; NULL where there is none. -EINVAL for quotes without end. */
static int next_word(char **at, char **ret_word)
{
        char *word = *at + strspn(*at, " \t\r\n");
        bool quoted = *word == '"';
        char *end;

        *ret_word = NULL;
        if (*word == '\0' || *word == '#')
                return 0;
        if (quoted) {
                end = strchr(++word, '"');
                if (!end || !strchr(" \t\r\n", end[1])) /* or the end of the line */
                        return -EINVAL;
        } else {
                end = word + strcspn(word, " \t\r\n");
        }
        *at = *end != '\0' ? end + 1 : end;
        *end = '\0';
        *ret_word = word;
        return 0;
}

/* 0 and no identity: there is nothing in the line. */
static int parse_line(struct access_line *line)
{
        char *at = line->text, *right, *more = NULL;

        if (next_word(&at, &line->identity) < 0)
                return -EINVAL;
        if (!line->identity)
                return 0;
        if (next_word(&at, &line->export) < 0 || !line->export || next_word(&at, &right) < 0)
                return -EINVAL;
        line->right = right ? ACCESS_READ : ACCESS_WRITE;
        if (right && strcmp(right, "ro") != 0)
                return -EINVAL;
        return next_word(&at, &more) < 0 || more ? -EINVAL : 0;
}

static int add_line(struct access_list *list, const struct access_line *line)
{
        if (list->n == list->capacity) {
                size_t capacity = list->capacity ? 2 * list->capacity : 16;
                struct access_line *grown =
                    reallocarray(list->lines, capacity, sizeof(*list->lines));

                if (!grown)
                        return -ENOMEM;
                list->lines = grown;
                list->capacity = capacity;
        }
        list->lines[list->n++] = *line;
        return 0;
}

static int read_line(struct access_list *list, char *text, const char *path, unsigned number,
                     struct error *err)
{
        struct access_line line = {.text = strdup(text)};
        int r;

        if (!line.text)
                return error_set(err, -ENOMEM, "no memory for '%s'", path);
        r = parse_line(&line);
        if (r == 0 && line.identity && list->n == LINES_MAX)
                r = error_set(err, -EINVAL, "'%s' has more than %u lines", path, LINES_MAX);
        else if (r == 0 && line.identity && add_line(list, &line) < 0)
                r = error_set(err, -ENOMEM, "no memory for '%s'", path);
        else if (r == 0 && line.identity)
                return 0;
        else if (r < 0) {
                error_set(err, r, "line %u of '%s' does not say who may open what", number, path);
                error_hint(err, "lines are IDENTITY POOL/VOLUME[@SNAPSHOT] [ro]");
        }
        free(line.text);
        return r;
}

int access_load(const char *path, struct access_list **ret_list, struct error *err)
{
        struct access_list *list;
        char *text = NULL;
        size_t size = 0;
        unsigned number = 0;
        FILE *file = fopen(path, "re");
        int r = 0;

        if (!file)
                return error_set(err, -errno, "cannot open '%s': %s", path, strerror(errno));
        list = calloc(1, sizeof(*list));
        if (list)
                atomic_init(&list->n_refs, 1);
        else
                r = error_set(err, -ENOMEM, "no memory for '%s'", path);
        while (r == 0 && getline(&text, &size, file) >= 0)
                r = read_line(list, text, path, ++number, err);
        if (r == 0 && ferror(file))
                r = error_set(err, -EIO, "cannot read '%s'", path);
        free(text);
        fclose(file);
        if (r < 0)
                access_unref(list);
        else
                *ret_list = list;
        return r;
}

/* ---- deciding ---- */

static bool has_kind(const char *identity)
{
        static const char *const kinds[] = {"psk:", "dn:", "cn:", "dns:", "email:", "uri:"};

        for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
                if (strncmp(identity, kinds[i], strlen(kinds[i])) == 0)
                        return true;
        return false;
}

/* Backslashes stand for themselves: distinguished names have them. */
static bool fits(const char *pattern, const char *text)
{
        return fnmatch(pattern, text, FNM_NOESCAPE) == 0;
}

static bool is_for(const struct access_line *line, const char *const *names, size_t n)
{
        bool with_kind = has_kind(line->identity);

        if (n == 0 || strcmp(line->identity, "-") == 0)
                return n == 0 && strcmp(line->identity, "-") == 0;
        for (size_t i = 0; i < n; i++) {
                const char *colon = strchr(names[i], ':');

                if (fits(line->identity, with_kind || !colon ? names[i] : colon + 1))
                        return true;
        }
        return false;
}

enum access_right access_decide(const struct access_list *list, const char *const *names,
                                size_t n_names, const char *export)
{
        if (!list)
                return ACCESS_WRITE;
        for (size_t i = 0; i < list->n; i++)
                if (fits(list->lines[i].export, export) && is_for(&list->lines[i], names, n_names))
                        return list->lines[i].right;
        return ACCESS_NONE;
}
