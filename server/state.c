/* state.c - a pool's state file: to and from JSON, found, saved, locked. */
#include "server/state.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define SUFFIX ".json"

void uuid_format(const uint8_t uuid[16], char text[UUID_TEXT_SIZE])
{
        char *p = text;

        for (int i = 0; i < 16; i++) {
                if (i == 4 || i == 6 || i == 8 || i == 10)
                        *p++ = '-';
                p += sprintf(p, "%02x", uuid[i]);
        }
}

int uuid_parse_text(const char *text, uint8_t uuid[16])
{
        uint8_t result[16];

        for (int i = 0; i < 16; i++) {
                unsigned byte;
                int used = 0;

                if ((i == 4 || i == 6 || i == 8 || i == 10) && *text++ != '-')
                        return -EINVAL;
                if (sscanf(text, "%2x%n", &byte, &used) != 1 || used != 2)
                        return -EINVAL;
                result[i] = (uint8_t)byte;
                text += 2;
        }
        if (*text != '\0')
                return -EINVAL;
        memcpy(uuid, result, 16);
        return 0;
}

struct pool_state *state_new(const char *name, const uint8_t uuid[16])
{
        struct pool_state *s = calloc(1, sizeof(*s));

        if (!s)
                return NULL;
        snprintf(s->name, sizeof(s->name), "%s", name);
        memcpy(s->uuid, uuid, 16);
        return s;
}

void state_clear_server(struct pool_state *state)
{
        for (size_t i = 0; i < state->n_server_nbd; i++)
                free(state->server_nbd[i]);
        free(state->server_nbd);
        free(state->server_control);
        state->server_nbd = NULL;
        state->n_server_nbd = 0;
        state->server_control = NULL;
        state->server_pid = 0;
        state->server_while_used = false;
}

void state_free(struct pool_state *state)
{
        if (!state)
                return;
        state_clear_server(state);
        for (size_t i = 0; i < state->n_members; i++)
                free(state->members[i].path);
        free(state->members);
        for (size_t i = 0; i < state->n_attachments; i++)
                free(state->attachments[i].path);
        free(state->attachments);
        free(state);
}

int state_set_member(struct pool_state *state, const char *path, const uint8_t uuid[16])
{
        struct state_member *members;
        char *copy = strdup(path);

        if (!copy)
                return -ENOMEM;
        for (size_t i = 0; i < state->n_members; i++)
                if (memcmp(state->members[i].uuid, uuid, 16) == 0) {
                        free(state->members[i].path);
                        state->members[i].path = copy;
                        return 0;
                }
        members = reallocarray(state->members, state->n_members + 1, sizeof(*members));
        if (!members) {
                free(copy);
                return -ENOMEM;
        }
        state->members = members;
        members[state->n_members].path = copy;
        memcpy(members[state->n_members].uuid, uuid, 16);
        state->n_members++;
        return 0;
}

void state_drop_member(struct pool_state *state, const uint8_t uuid[16])
{
        for (size_t i = 0; i < state->n_members; i++)
                if (memcmp(state->members[i].uuid, uuid, 16) == 0) {
                        free(state->members[i].path);
                        memmove(&state->members[i], &state->members[i + 1],
                                (state->n_members - i - 1) * sizeof(*state->members));
                        state->n_members--;
                        return;
                }
}

int state_set_server(struct pool_state *state, const char *control, pid_t pid, char *const *nbd,
                     size_t n_nbd)
{
        state_clear_server(state);
        state->server_control = strdup(control);
        state->server_nbd = calloc(n_nbd + 1, sizeof(char *));
        state->server_pid = pid;
        for (size_t i = 0; state->server_nbd && i < n_nbd; i++) {
                state->server_nbd[i] = strdup(nbd[i]);
                if (!state->server_nbd[i])
                        break;
                state->n_server_nbd++;
        }
        if (!state->server_control || !state->server_nbd || state->n_server_nbd < n_nbd) {
                state_clear_server(state);
                return -ENOMEM;
        }
        return 0;
}

struct state_attachment *state_find_attachment(const struct pool_state *state, const char *target)
{
        for (size_t i = 0; i < state->n_attachments; i++)
                if (strcmp(state->attachments[i].target, target) == 0)
                        return &state->attachments[i];
        return NULL;
}

int state_set_attachment(struct pool_state *state, const struct state_attachment *attachment)
{
        struct state_attachment *a = state_find_attachment(state, attachment->target), *more;
        char *path;

        if (!a && state->n_attachments >= STATE_ATTACHMENTS_MAX)
                return -ENOSPC;
        path = strdup(attachment->path);
        if (!path)
                return -ENOMEM;
        if (!a) {
                more = reallocarray(state->attachments, state->n_attachments + 1, sizeof(*more));
                if (!more) {
                        free(path);
                        return -ENOMEM;
                }
                state->attachments = more;
                a = &more[state->n_attachments++];
        } else {
                free(a->path);
        }
        *a = *attachment;
        a->path = path;
        return 0;
}

void state_drop_attachment(struct pool_state *state, const char *target)
{
        struct state_attachment *a = state_find_attachment(state, target);

        if (!a)
                return;
        free(a->path);
        *a = state->attachments[--state->n_attachments];
}

/* ---- JSON ---- */

/* All of these are whole, or NULL where there is no memory: a state that lacks a member or an
 * attachment would be taken for one that has none. */

static json_t *attachments_to_json(const struct pool_state *state)
{
        json_t *attachments = json_array();
        int r = attachments ? 0 : -1;

        for (size_t i = 0; i < state->n_attachments && r == 0; i++) {
                const struct state_attachment *a = &state->attachments[i];

                r = json_array_append_new(attachments,
                                          json_pack("{s:s, s:s, s:i, s:b, s:s*}", "name", a->target,
                                                    "path", a->path, "queues", (int)a->n_queues,
                                                    "readonly", (int)a->readonly, "group",
                                                    a->group[0] ? a->group : NULL));
        }
        if (r == 0)
                return attachments;
        json_decref(attachments);
        return NULL;
}

static json_t *members_to_json(const struct pool_state *state)
{
        json_t *members = json_array();
        char uuid[UUID_TEXT_SIZE];
        int r = members ? 0 : -1;

        for (size_t i = 0; i < state->n_members && r == 0; i++) {
                uuid_format(state->members[i].uuid, uuid);
                r = json_array_append_new(
                    members, json_pack("{s:s, s:s}", "path", state->members[i].path, "uuid", uuid));
        }
        if (r == 0)
                return members;
        json_decref(members);
        return NULL;
}

static json_t *server_to_json(const struct pool_state *state)
{
        json_t *nbd = json_array();
        int r = nbd ? 0 : -1;

        for (size_t i = 0; i < state->n_server_nbd && r == 0; i++)
                r = json_array_append_new(nbd, json_string(state->server_nbd[i]));
        if (r == 0)
                return json_pack("{s:s, s:i, s:o, s:b}", "control", state->server_control, "pid",
                                 (int)state->server_pid, "nbd", nbd, "while_used",
                                 (int)state->server_while_used);
        json_decref(nbd);
        return NULL;
}

static json_t *to_json(const struct pool_state *state)
{
        char uuid[UUID_TEXT_SIZE];
        json_t *root;
        int r;

        uuid_format(state->uuid, uuid);
        root = json_pack("{s:i, s:s, s:s, s:o}", "version", 1, "name", state->name, "uuid", uuid,
                         "members", members_to_json(state));
        r = root ? 0 : -1;
        if (r == 0 && state->server_control)
                r = json_object_set_new(root, "server", server_to_json(state));
        if (r == 0 && state->n_attachments > 0)
                r = json_object_set_new(root, "attachments", attachments_to_json(state));
        if (r == 0)
                return root;
        json_decref(root);
        return NULL;
}

static int server_from_json(struct pool_state *state, json_t *server)
{
        const char *control = json_string_value(json_object_get(server, "control"));
        json_t *nbd = json_object_get(server, "nbd");
        char *sockets[STATE_SOCKETS_MAX];
        size_t n = 0;
        int r;

        if (!control)
                return -EINVAL;
        for (size_t i = 0; i < json_array_size(nbd) && n < STATE_SOCKETS_MAX; i++) {
                const char *text = json_string_value(json_array_get(nbd, i));

                if (text)
                        sockets[n++] = (char *)text;
        }
        r = state_set_server(state, control,
                             (pid_t)json_integer_value(json_object_get(server, "pid")), sockets, n);
        if (r == 0)
                state->server_while_used = json_is_true(json_object_get(server, "while_used"));
        return r;
}

static int attachment_from_json(struct pool_state *state, json_t *json)
{
        const char *target = json_string_value(json_object_get(json, "name"));
        const char *path = json_string_value(json_object_get(json, "path"));
        const char *group = json_string_value(json_object_get(json, "group"));
        json_int_t n_queues = json_integer_value(json_object_get(json, "queues"));
        struct state_attachment a = {.path = (char *)path,
                                     .readonly = json_is_true(json_object_get(json, "readonly"))};

        if (!target || !path || path[0] != '/' || strlen(target) >= sizeof(a.target) ||
            n_queues < 1 || n_queues > UINT16_MAX || (group && strlen(group) >= sizeof(a.group)))
                return -EINVAL;
        if (group)
                memcpy(a.group, group, strlen(group) + 1);
        memcpy(a.target, target, strlen(target) + 1);
        a.n_queues = (unsigned)n_queues;
        return state_set_attachment(state, &a);
}

static int from_json(json_t *root, struct pool_state **ret_state)
{
        const char *name = json_string_value(json_object_get(root, "name"));
        const char *text = json_string_value(json_object_get(root, "uuid"));
        json_t *members = json_object_get(root, "members"),
               *server = json_object_get(root, "server"),
               *attachments = json_object_get(root, "attachments");
        struct pool_state *state;
        uint8_t uuid[16];
        int r = 0;

        if (!name || pool_name_check(name, "pool", NULL) < 0 || !text ||
            uuid_parse_text(text, uuid) < 0 || json_array_size(members) > POOL_MEMBERS_MAX)
                return -EINVAL;
        state = state_new(name, uuid);
        if (!state)
                return -ENOMEM;
        for (size_t i = 0; r == 0 && i < json_array_size(members); i++) {
                json_t *m = json_array_get(members, i);
                const char *path = json_string_value(json_object_get(m, "path"));

                text = json_string_value(json_object_get(m, "uuid"));
                r = path && text ? uuid_parse_text(text, uuid) : -EINVAL;
                if (r == 0)
                        r = state_set_member(state, path, uuid);
        }
        if (r == 0 && json_is_object(server))
                r = server_from_json(state, server);
        for (size_t i = 0; r == 0 && i < json_array_size(attachments); i++)
                r = attachment_from_json(state, json_array_get(attachments, i));
        if (r < 0) {
                state_free(state);
                return r;
        }
        *ret_state = state;
        return 0;
}

/* ---- files ---- */

static int file_path(const char *name, const char *suffix, char *ret_path, size_t size,
                     struct error *err)
{
        char dir[PATH_MAX];
        int r = state_dir(dir, sizeof(dir), err);

        if (r < 0)
                return r;
        if ((size_t)snprintf(ret_path, size, "%s/%s%s", dir, name, suffix) >= size)
                return error_set(err, -ENAMETOOLONG, "the state folder's path is too long: '%s'",
                                 dir);
        return 0;
}

/* As a whole: jansson would read it byte by byte. NULL: it is no JSON, or cannot be read. */
static json_t *read_json(int fd, size_t size)
{
        char *text = malloc(size + 1);
        size_t length = 0;
        json_t *root = NULL;
        ssize_t n = -1;

        while (text && length < size) {
                n = read(fd, text + length, size - length);
                if (n == 0 || (n < 0 && errno != EINTR))
                        break;
                length += n > 0 ? (size_t)n : 0;
        }
        if (text && length == size)
                root = json_loadb(text, length, JSON_REJECT_DUPLICATES, NULL);
        free(text);
        return root;
}

static int load_file(const char *path, struct pool_state **ret_state, struct error *err)
{
        struct stat st;
        json_t *root;
        int fd, r;

        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return error_set(err, -errno, "cannot open '%s': %s", path, strerror(errno));
        if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > (off_t)STATE_FILE_MAX) {
                close(fd);
                return error_set(err, -EINVAL, "'%s' is not a state file of tarn", path);
        }
        root = read_json(fd, (size_t)st.st_size);
        close(fd);
        r = root ? from_json(root, ret_state) : -EINVAL;
        json_decref(root);
        if (r < 0) {
                error_set(err, r, "'%s' is not a state file of tarn", path);
                error_hint(err, "move it away; 'tarn pool import MEMBER...' makes it anew");
        }
        return r;
}

int state_load(const char *name, struct pool_state **ret_state, struct error *err)
{
        char path[PATH_MAX];
        int r;

        r = pool_name_check(name, "pool", err);
        if (r == 0)
                r = file_path(name, SUFFIX, path, sizeof(path), err);
        if (r < 0)
                return r;
        r = load_file(path, ret_state, err);
        if (r == -ENOENT) {
                error_set(err, -ENOENT, "there is no pool '%s'", name);
                error_hint(err, "'tarn pool list' shows the pools known here; "
                                "'tarn pool import MEMBER...' makes another known");
        }
        return r;
}

int state_find_uuid(const uint8_t uuid[16], struct pool_state **ret_state, struct error *err)
{
        char **names;
        size_t n;
        int r;

        r = state_names(&names, &n, err);
        if (r < 0)
                return r;
        r = -ENOENT;
        for (size_t i = 0; r == -ENOENT && i < n; i++) {
                struct pool_state *state = NULL;

                if (state_load(names[i], &state, NULL) < 0)
                        continue;
                if (memcmp(state->uuid, uuid, 16) == 0) {
                        *ret_state = state;
                        r = 0;
                } else {
                        state_free(state);
                }
        }
        state_names_free(names, n);
        if (r < 0) {
                char text[UUID_TEXT_SIZE];

                uuid_format(uuid, text);
                return error_set(err, r, "no pool with uuid %s is known here", text);
        }
        return 0;
}

/* Write all of @text to a new file, durably. */
static int write_file(const char *path, const char *text)
{
        size_t left = strlen(text);
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

        if (fd < 0)
                return -errno;
        while (left > 0) {
                ssize_t n = write(fd, text, left);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0) {
                        int r = -errno;

                        close(fd);
                        return r;
                }
                text += n;
                left -= (size_t)n;
        }
        if (fsync(fd) < 0) {
                int r = -errno;

                close(fd);
                return r;
        }
        return close(fd) < 0 ? -errno : 0;
}

/* A rename lasts once the folder itself is on the disk. */
static int sync_folder(void)
{
        char dir[PATH_MAX];
        int fd, r = state_dir(dir, sizeof(dir), NULL);

        if (r < 0)
                return r;
        fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        r = fsync(fd) < 0 ? -errno : 0;
        close(fd);
        return r;
}

int state_save(const struct pool_state *state, struct error *err)
{
        char path[PATH_MAX], tmp[PATH_MAX], suffix[32];
        json_t *root;
        char *text;
        int r;

        snprintf(suffix, sizeof(suffix), SUFFIX ".%d", (int)getpid());
        r = file_path(state->name, SUFFIX, path, sizeof(path), err);
        if (r == 0)
                r = file_path(state->name, suffix, tmp, sizeof(tmp), err);
        if (r < 0)
                return r;
        root = to_json(state);
        text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
        json_decref(root);
        if (!text)
                return error_set(err, -ENOMEM, "out of memory");
        r = write_file(tmp, text);
        free(text);
        if (r == 0 && rename(tmp, path) < 0)
                r = -errno;
        if (r == 0)
                r = sync_folder();
        if (r < 0) {
                unlink(tmp);
                return error_set(err, r, "cannot write '%s': %s", path, strerror(-r));
        }
        return 0;
}

int state_remove(const char *name, struct error *err)
{
        char path[PATH_MAX];
        int r = file_path(name, SUFFIX, path, sizeof(path), err);

        if (r < 0)
                return r;
        if (unlink(path) < 0)
                return error_set(err, -errno, "cannot remove '%s': %s", path, strerror(errno));
        return sync_folder();
}

void state_names_free(char **names, size_t n)
{
        for (size_t i = 0; i < n; i++)
                free(names[i]);
        free(names);
}

static int is_state_file(const struct dirent *entry)
{
        char name[POOL_NAME_MAX + 1];
        size_t length = strlen(entry->d_name), suffix = strlen(SUFFIX);

        if (length <= suffix || length - suffix > POOL_NAME_MAX ||
            strcmp(entry->d_name + length - suffix, SUFFIX) != 0)
                return 0;
        memcpy(name, entry->d_name, length - suffix);
        name[length - suffix] = '\0';
        return pool_name_check(name, "pool", NULL) == 0;
}

int state_names(char ***ret_names, size_t *ret_n, struct error *err)
{
        struct dirent **entries;
        char dir[PATH_MAX];
        char **names;
        int n, r;

        r = state_dir(dir, sizeof(dir), err);
        if (r < 0)
                return r;
        n = scandir(dir, &entries, is_state_file, alphasort);
        if (n < 0)
                return error_set(err, -errno, "cannot list '%s': %s", dir, strerror(errno));
        names = calloc((size_t)n + 1, sizeof(*names));
        for (int i = 0; i < n; i++) {
                if (names)
                        names[i] = strndup(entries[i]->d_name,
                                           strlen(entries[i]->d_name) - strlen(SUFFIX));
                if (!names || !names[i])
                        r = -ENOMEM;
                free(entries[i]);
        }
        free(entries);
        if (!names || r < 0) {
                if (names)
                        state_names_free(names, (size_t)n);
                return error_set(err, -ENOMEM, "out of memory");
        }
        *ret_names = names;
        *ret_n = (size_t)n;
        return 0;
}

int state_lock(struct error *err)
{
        char path[PATH_MAX];
        int fd, r = file_path("", ".lock", path, sizeof(path), err);

        if (r < 0)
                return r;
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (fd < 0)
                return error_set(err, -errno, "cannot open '%s': %s", path, strerror(errno));
        /* Whoever can open it can lock it, and servers wait for it. */
        (void)fchmod(fd, 0600);
        while (flock(fd, LOCK_EX) < 0)
                if (errno != EINTR) {
                        r = -errno;
                        close(fd);
                        return error_set(err, r, "cannot lock '%s': %s", path, strerror(-r));
                }
        return fd;
}

void state_unlock(int lock)
{
        if (lock >= 0)
                close(lock);
}
