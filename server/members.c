/* members.c - finding and opening the members of a pool. */
#include "server/members.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/coroutine.h"
#include "pool/disk.h"

#define LOCK_STEP_MS 500u
#define BY_ID        "/dev/disk/by-id"
#define SYS_BLOCK    "/sys/class/block"

int member_path(const char *path, char *ret_path, size_t size, struct error *err)
{
        char real[PATH_MAX];

        if (strncmp(path, "/dev/", 5) == 0) {
                if ((size_t)snprintf(ret_path, size, "%s", path) >= size)
                        return error_set(err, -ENAMETOOLONG, "the path is too long: '%s'", path);
                return 0;
        }
        if (!realpath(path, real))
                return error_set(err, -errno, "cannot find '%s': %s", path, strerror(errno));
        if ((size_t)snprintf(ret_path, size, "%s", real) >= size)
                return error_set(err, -ENAMETOOLONG, "the path is too long: '%s'", path);
        return 0;
}

void members_close(struct member **members, size_t n)
{
        for (size_t i = 0; i < n; i++)
                member_close(members[i]);
        free(members);
}

/* What the label at @path says, without a lock. */
static int co_look(struct loop *loop, const char *path, struct pool_label *ret_label,
                   struct error *err)
{
        const struct disk_options options = {.readonly = true};
        struct member *m = NULL;
        int r;

        r = co_disk_open(loop, path, &options, &m, err);
        if (r < 0)
                return r;
        r = co_pool_read_label(m, ret_label, err);
        member_close(m);
        return r;
}

/* Which of two that say they are the same member is the right one, only the user can know. */
static int refuse_copy(const struct pool_state *state, const char *path, const uint8_t uuid[16],
                       struct error *err)
{
        for (size_t i = 0; i < state->n_members; i++)
                if (memcmp(state->members[i].uuid, uuid, 16) == 0) {
                        error_set(err, -EEXIST,
                                  "'%s' and '%s' are the same member of pool '%s': one is a copy",
                                  state->members[i].path, path, state->name);
                        return error_hint(err, "name only the one that is to be used");
                }
        return 0;
}

int co_state_from_paths(struct loop *loop, const char *const *paths, size_t n_paths,
                        struct pool_state **ret_state, struct error *err)
{
        struct pool_state *state = NULL;
        int r = 0;

        for (size_t i = 0; r == 0 && i < n_paths; i++) {
                char path[PATH_MAX];
                struct pool_label label;

                r = member_path(paths[i], path, sizeof(path), err);
                if (r == 0)
                        r = co_look(loop, path, &label, err);
                if (r == -ENODATA) {
                        error_set(err, r, "'%s' is not a member of a pool", path);
                        break;
                }
                if (r < 0)
                        break;
                if (state && memcmp(state->uuid, label.pool_uuid, 16) != 0)
                        r = error_set(err, -EMEDIUMTYPE,
                                      "'%s' is a member of pool '%s', '%s' of another pool '%s'",
                                      state->members[0].path, state->name, path, label.pool_name);
                if (r == 0 && !state)
                        state = state_new(label.pool_name, label.pool_uuid);
                if (r == 0 && state)
                        r = refuse_copy(state, path, label.member_uuid, err);
                if (r == 0 && (!state || state_set_member(state, path, label.member_uuid) < 0))
                        r = error_set(err, -ENOMEM, "out of memory");
        }
        if (r < 0) {
                state_free(state);
                return r;
        }
        *ret_state = state;
        return 0;
}

int co_pool_resolve(struct loop *loop, const char *name_or_path, struct pool_state **ret_state,
                    struct error *err)
{
        bool is_name = pool_name_check(name_or_path, "pool", NULL) == 0;
        struct pool_state *state = NULL;
        int r = -ENOENT;

        if (is_name) {
                r = state_load(name_or_path, ret_state, err);
                if (r != -ENOENT || access(name_or_path, F_OK) != 0)
                        return r;
        } else if (!strchr(name_or_path, '/') && access(name_or_path, F_OK) != 0) {
                return pool_name_check(name_or_path, "pool", err);
        } else if (access(name_or_path, F_OK) != 0 && (errno == ENOENT || errno == ENOTDIR)) {
                error_set(err, -ENOENT, "'%s' is neither a pool nor the path of a member",
                          name_or_path);
                return error_hint(err, "a pool is named by its name alone, without a volume, or by "
                                       "the path of any of its members");
        }
        r = co_state_from_paths(loop, &name_or_path, 1, &state, err);
        if (r < 0)
                return r;
        /* The state file knows the other members, and who serves the pool. */
        if (state_find_uuid(state->uuid, ret_state, NULL) == 0)
                state_free(state);
        else
                *ret_state = state;
        return 0;
}

/* ---- searching ---- */

struct search {
        struct loop *loop;
        const uint8_t *pool_uuid;
        unsigned n_looked;
        /* Answers true to go on. */
        bool (*found)(struct search *s, const char *path, const struct pool_label *label);
        void *arg;
};

static bool is_candidate(const char *path)
{
        struct stat st;

        if (stat(path, &st) < 0)
                return false;
        return S_ISBLK(st.st_mode) || (S_ISREG(st.st_mode) && st.st_size >= (off_t)MEMBER_SIZE_MIN);
}

/* Answers true to go on. */
static bool co_search_path(struct search *s, const char *path)
{
        struct pool_label label;

        if (!is_candidate(path))
                return true;
        s->n_looked++;
        return co_look(s->loop, path, &label, NULL) < 0 ||
               memcmp(label.pool_uuid, s->pool_uuid, 16) != 0 || s->found(s, path, &label);
}

static bool co_search_folder(struct search *s, const char *folder)
{
        struct dirent *entry;
        DIR *dir = opendir(folder);
        bool go_on = true;

        while (dir && go_on && s->n_looked < MEMBERS_SEARCH_MAX && (entry = readdir(dir))) {
                char path[PATH_MAX];

                if ((size_t)snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name) <
                    sizeof(path))
                        go_on = co_search_path(s, path);
        }
        if (dir)
                closedir(dir);
        return go_on;
}

/* Left out is what is made of files or memory, takes seconds to answer, or may never: the server of
 * an NBD device may be the one that is starting here. */
static bool is_kernel_disk(const char *name, bool partition)
{
        static const char *const others[] = {".",   "fd",  "loop", "mtdblock",
                                             "nbd", "ram", "sr",   "zram"};
        char path[PATH_MAX];

        for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
                if (strncmp(name, others[i], strlen(others[i])) == 0)
                        return false;
        snprintf(path, sizeof(path), SYS_BLOCK "/%s/partition", name);
        return (access(path, F_OK) == 0) == partition;
}

/* The disks that the kernel lists, or their partitions: for those that have no name by id, as
 * virtual disks without a serial number, and for systems where nobody makes such names. */
static bool co_search_kernel(struct search *s, bool partitions)
{
        struct dirent *entry;
        DIR *dir = opendir(SYS_BLOCK);
        bool go_on = true;

        while (dir && go_on && s->n_looked < MEMBERS_SEARCH_MAX && (entry = readdir(dir))) {
                char path[sizeof("/dev/") + sizeof(entry->d_name)];

                if (!is_kernel_disk(entry->d_name, partitions))
                        continue;
                snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
                for (char *p = path; (p = strchr(p, '!'));) /* stands for '/' in sysfs */
                        *p = '/';
                go_on = co_search_path(s, path);
        }
        if (dir)
                closedir(dir);
        return go_on;
}

static void folder_of(const char *path, char *folder, size_t size)
{
        const char *slash = strrchr(path, '/');

        if (!slash)
                snprintf(folder, size, ".");
        else if (slash == path)
                snprintf(folder, size, "/");
        else
                snprintf(folder, size, "%.*s", (int)(slash - path), path);
}

/* All folders in which members of @state were last seen, once each, then the disks: by id, which
 * makes the better record, then as the kernel has them; before the partition in which its member
 * lies the disk. */
static void co_search(struct search *s, const struct pool_state *state)
{
        for (size_t i = 0; i < state->n_members; i++) {
                char folder[PATH_MAX], earlier[PATH_MAX];
                bool seen = false;

                folder_of(state->members[i].path, folder, sizeof(folder));
                for (size_t j = 0; j < i && !seen; j++) {
                        folder_of(state->members[j].path, earlier, sizeof(earlier));
                        seen = strcmp(folder, earlier) == 0;
                }
                /* What is in /dev and below comes later. */
                if (!seen && strncmp(folder, "/dev", 4) != 0 && !co_search_folder(s, folder))
                        return;
        }
        if (co_search_folder(s, BY_ID) && co_search_kernel(s, false))
                co_search_kernel(s, true);
}

static bool stop_at_first(struct search *s, const char *path, const struct pool_label *label)
{
        *(bool *)s->arg = true;
        return false;
}

static bool is_gone(int code)
{
        return code == -ENOENT || code == -ENOTDIR || code == -ENXIO || code == -ENODEV ||
               code == -ENOMEDIUM;
}

bool co_state_alive(struct loop *loop, const struct pool_state *state)
{
        bool alive = false;
        struct search s = {
            .loop = loop, .pool_uuid = state->uuid, .found = stop_at_first, .arg = &alive};

        for (size_t i = 0; i < state->n_members; i++) {
                struct pool_label label;
                struct error e = ERROR_INIT;
                int r = co_look(loop, state->members[i].path, &label, &e);

                if (r == 0 && memcmp(label.pool_uuid, state->uuid, 16) == 0)
                        return true;
                /* A disk that is there and cannot be looked at, or whose label is damaged or of a
                 * newer format, may well be the member. -EINVAL: too small, or no disk at all. */
                if (r < 0 && r != -ENODATA && r != -EINVAL && !is_gone(r))
                        return true;
        }
        co_search(&s, state);
        return alive;
}

/* ---- opening ---- */

struct opening {
        struct loop *loop;
        struct pool_state *state;
        unsigned wait_ms;
        const atomic_bool *cancelled;
        struct member **members;
        uint8_t (*uuids)[16]; /* of the members opened, in their order */
        size_t n, room;
};

/* Waits in steps, so that whoever waits can be told to stop. */
static int co_open_locked(struct opening *o, const char *path, struct member **ret_member,
                          struct error *err)
{
        unsigned waited_ms = 0;
        int r;

        for (;;) {
                struct disk_options options = {.lock_wait_ms = LOCK_STEP_MS};

                if (o->cancelled && *o->cancelled)
                        return error_set(err, -ECANCELED, "interrupted");
                if (options.lock_wait_ms > o->wait_ms - waited_ms)
                        options.lock_wait_ms = o->wait_ms - waited_ms;
                r = co_disk_open(o->loop, path, &options, ret_member, err);
                waited_ms += options.lock_wait_ms;
                if (r != -EBUSY || waited_ms >= o->wait_ms)
                        return r;
                /* Not every -EBUSY waited by itself (a mounted disk does not). */
                co_sleep_ns(1000000);
        }
}

static int opening_keep(struct opening *o, struct member *m, const uint8_t uuid[16],
                        struct error *err)
{
        if (o->n == o->room) {
                size_t room = o->room ? o->room * 2 : 8;
                struct member **members = reallocarray(o->members, room, sizeof(*members));
                uint8_t(*uuids)[16];

                if (members)
                        o->members = members;
                uuids = reallocarray(o->uuids, room, sizeof(*uuids));
                if (uuids)
                        o->uuids = uuids;
                if (!members || !uuids) {
                        member_close(m);
                        return error_set(err, -ENOMEM, "out of memory");
                }
                o->room = room;
        }
        o->members[o->n] = m;
        memcpy(o->uuids[o->n], uuid, 16);
        o->n++;
        return 0;
}

static bool opening_has(const struct opening *o, const uint8_t uuid[16])
{
        for (size_t i = 0; i < o->n; i++)
                if (memcmp(o->uuids[i], uuid, 16) == 0)
                        return true;
        return false;
}

/* Open what lies at @path if it is a member of this pool (with @uuid, where that is given).
 * -ENODATA  it is not */
static int co_open_member(struct opening *o, const char *path, const uint8_t *uuid,
                          struct error *err)
{
        struct pool_label label;
        struct member *m = NULL;
        int r;

        /* Looked at before it is locked:
         * another pool's disk at this path is none of our business. */
        r = co_look(o->loop, path, &label, err);
        if (r == 0 && (memcmp(label.pool_uuid, o->state->uuid, 16) != 0 ||
                       (uuid && memcmp(label.member_uuid, uuid, 16) != 0)))
                r = error_set(err, -ENODATA, "'%s' is not that member any more", path);
        if (r == 0)
                r = co_open_locked(o, path, &m, err);
        if (r < 0)
                return r;
        if (m->size_bytes < label.size_bytes) {
                r = error_set(
                    err, -EUCLEAN, "member '%s' was cut short: it has %llu bytes, and had %llu",
                    path, (unsigned long long)m->size_bytes, (unsigned long long)label.size_bytes);
                member_close(m);
                return r;
        }
        if (opening_has(o, label.member_uuid)) {
                member_close(m);
                return 0;
        }
        r = opening_keep(o, m, label.member_uuid, err);
        if (r == 0 && state_set_member(o->state, path, label.member_uuid) < 0)
                r = error_set(err, -ENOMEM, "out of memory");
        return r;
}

/* The member that is furthest ahead says who belongs to the pool. */
static int co_read_membership(struct opening *o, uint8_t (**ret_uuids)[16], size_t *ret_n,
                              struct error *err)
{
        uint64_t newest = 0;
        size_t at = 0;

        for (size_t i = 0; i < o->n; i++) {
                struct pool_label label;

                if (co_pool_read_label(o->members[i], &label, NULL) == 0 &&
                    label.generation > newest) {
                        newest = label.generation;
                        at = i;
                }
        }
        return co_pool_read_membership(o->members[at], ret_uuids, ret_n, err);
}

/* Why a member was not where it was last seen: of the first one. */
struct reason {
        uint8_t uuid[16];
        struct error error;
};

struct wanted {
        struct opening *o;
        const uint8_t (*uuids)[16];
        size_t n, n_missing;
        int result;
        struct error *err;
};

static bool co_take_missing(struct search *s, const char *path, const struct pool_label *label)
{
        struct wanted *w = s->arg;

        if (opening_has(w->o, label->member_uuid))
                return true;
        for (size_t i = 0; i < w->n; i++)
                if (memcmp(w->uuids[i], label->member_uuid, 16) == 0) {
                        w->result = co_open_member(w->o, path, label->member_uuid, w->err);
                        if (w->result == 0)
                                w->n_missing--;
                        return w->result == 0 && w->n_missing > 0;
                }
        return true;
}

static int missing_error(const struct opening *o, const uint8_t uuid[16], size_t index,
                         const struct reason *why, struct error *err)
{
        char text[UUID_TEXT_SIZE];
        const char *path = NULL;

        uuid_format(uuid, text);
        for (size_t i = 0; i < o->state->n_members; i++)
                if (memcmp(o->state->members[i].uuid, uuid, 16) == 0)
                        path = o->state->members[i].path;
        if (path && why->error.code < 0 && why->error.code != -ENOENT &&
            memcmp(why->uuid, uuid, 16) == 0)
                error_set(err, -ENXIO, "member %zu (%s) is missing: %s", index, text,
                          why->error.message);
        else if (path)
                error_set(err, -ENXIO, "member %zu (%s) is missing: it was last seen at '%s'",
                          index, text, path);
        else
                error_set(err, -ENXIO, "member %zu (%s) is missing", index, text);
        return error_hint(err, "if it has moved: 'tarn pool import PATH...' with the paths of all "
                               "members");
}

/* After the known paths: search for members that were not there. */
static int co_open_missing(struct opening *o, const uint8_t (*uuids)[16], size_t n,
                           const struct reason *why, struct error *err)
{
        struct wanted w = {.o = o, .uuids = uuids, .n = n, .err = err};
        struct search s = {
            .loop = o->loop, .pool_uuid = o->state->uuid, .found = co_take_missing, .arg = &w};

        for (size_t i = 0; i < n; i++)
                if (!opening_has(o, uuids[i]))
                        w.n_missing++;
        if (w.n_missing > 0)
                co_search(&s, o->state);
        if (w.result < 0)
                return w.result;
        for (size_t i = 0; i < n; i++)
                if (!opening_has(o, uuids[i]))
                        return missing_error(o, uuids[i], i, why, err);
        return 0;
}

/* Let go of what carries a label of the pool and is no member (an 'add' that never took effect). */
static void drop_strangers(struct opening *o, const uint8_t (*uuids)[16], size_t n)
{
        for (size_t i = 0; i < o->n;) {
                bool belongs = false;

                for (size_t j = 0; j < n && !belongs; j++)
                        belongs = memcmp(o->uuids[i], uuids[j], 16) == 0;
                if (belongs) {
                        i++;
                        continue;
                }
                state_drop_member(o->state, o->uuids[i]);
                member_close(o->members[i]);
                memmove(&o->members[i], &o->members[i + 1], (o->n - i - 1) * sizeof(*o->members));
                memmove(&o->uuids[i], &o->uuids[i + 1], (o->n - i - 1) * sizeof(*o->uuids));
                o->n--;
        }
}

/* What stands where a member was last seen. The first reason why one is not there is kept for
 * messages. */
static int co_open_known(struct opening *o, struct reason *why, struct error *err)
{
        size_t n = o->state->n_members;

        for (size_t i = 0; i < n; i++) {
                uint8_t uuid[16];
                struct error e = ERROR_INIT;
                char *path = strdup(o->state->members[i].path);
                int r;

                memcpy(uuid, o->state->members[i].uuid, 16);
                r = path ? co_open_member(o, path, uuid, &e)
                         : error_set(&e, -ENOMEM, "out of memory");
                free(path);
                if (r == -EBUSY || r == -ECANCELED || r == -ENOMEM || r == -ENOTSUP ||
                    r == -EUCLEAN || r == -EACCES) {
                        if (err)
                                *err = e;
                        return r;
                }
                if (r < 0 && why->error.code == 0) {
                        why->error = e;
                        memcpy(why->uuid, uuid, 16);
                }
        }
        return 0;
}

int co_members_open(struct loop *loop, struct pool_state *state, unsigned wait_ms,
                    const atomic_bool *cancelled, struct member ***ret_members, size_t *ret_n,
                    struct error *err)
{
        struct opening o = {
            .loop = loop, .state = state, .wait_ms = wait_ms, .cancelled = cancelled};
        struct reason why = {.error = ERROR_INIT};
        uint8_t(*uuids)[16] = NULL;
        size_t n_uuids = 0;
        int r;

        r = co_open_known(&o, &why, err);
        if (r == 0 && o.n == 0) { /* not one in its place: search by what the state file knows */
                n_uuids = state->n_members;
                uuids = calloc(n_uuids + 1, sizeof(*uuids));
                if (!uuids)
                        r = error_set(err, -ENOMEM, "out of memory");
                for (size_t i = 0; r == 0 && i < n_uuids; i++)
                        memcpy(uuids[i], state->members[i].uuid, 16);
                if (r == 0)
                        r = co_open_missing(&o, (const uint8_t(*)[16])uuids, n_uuids, &why, err);
                free(uuids);
                uuids = NULL;
                if (r == 0 && o.n == 0) {
                        r = error_set(err, -EUCLEAN, "the state file of pool '%s' names no members",
                                      state->name);
                        error_hint(err, "'tarn pool import MEMBER...' writes it anew");
                }
        }
        if (r == 0)
                r = co_read_membership(&o, &uuids, &n_uuids, err);
        if (r == 0)
                r = co_open_missing(&o, (const uint8_t(*)[16])uuids, n_uuids, &why, err);
        if (r == 0)
                drop_strangers(&o, (const uint8_t(*)[16])uuids, n_uuids);
        free(uuids);
        free(o.uuids);
        if (r < 0) {
                members_close(o.members, o.n);
                return r;
        }
        *ret_members = o.members;
        *ret_n = o.n;
        return 0;
}

/* ---- from another process ---- */

static int co_take(struct loop *loop, struct pool_state *state, int fd, const char *path,
                   struct member **ret_member, struct error *err)
{
        const struct disk_options options = {0};
        struct pool_label label;
        int r = co_disk_open_fd(loop, fd, path, &options, ret_member, err);

        if (r == 0)
                r = co_pool_read_label(*ret_member, &label, err);
        if (r == 0 && memcmp(label.pool_uuid, state->uuid, 16) != 0)
                r = error_set(err, -EMEDIUMTYPE, "'%s' is not a member of pool '%s'", path,
                              state->name);
        if (r == 0 && state_set_member(state, path, label.member_uuid) < 0)
                r = error_set(err, -ENOMEM, "out of memory");
        return r;
}

int co_members_take(struct loop *loop, struct pool_state *state, const int *fds,
                    const char *const *paths, size_t n, struct member ***ret_members,
                    struct error *err)
{
        struct member **members = calloc(n + 1, sizeof(struct member *));
        int r = members ? 0 : error_set(err, -ENOMEM, "out of memory");

        for (size_t i = 0; i < n; i++) {
                if (r < 0)
                        close(fds[i]);
                else
                        r = co_take(loop, state, fds[i], paths[i], &members[i], err);
        }
        if (r < 0 && members)
                members_close(members, n);
        else if (r == 0)
                *ret_members = members;
        return r;
}
