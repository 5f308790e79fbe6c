/* setup.c - create, import, forget, destroy. */
#include "server/setup.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "common/size.h"
#include "pool/disk.h"
#include "server/client.h"
#include "server/host.h"

#define CREATE_LOCK_WAIT_MS 1000u

/* A name is free when nobody has it, or when all members of the pool that had it are gone. */
static int co_check_name(struct loop *loop, const char *name, const uint8_t *same_uuid,
                         char ret_note[SETUP_NOTE_SIZE], struct error *err)
{
        struct pool_state *state = NULL;
        struct error e = ERROR_INIT;
        int r = state_load(name, &state, &e);

        if (r == -ENOENT)
                return 0;
        if (r < 0) {
                if (err)
                        *err = e;
                return r;
        }
        if (same_uuid && memcmp(state->uuid, same_uuid, 16) == 0) {
                r = 0;
        } else if (co_state_alive(loop, state)) {
                r = error_set(err, -EEXIST, "a pool '%s' exists (its first member is '%s')", name,
                              state->n_members ? state->members[0].path : "?");
                error_hint(err,
                           same_uuid ? "'tarn pool forget %s' makes room for this one"
                                     : "take another name, or 'tarn pool forget %s' first",
                           name);
        } else {
                snprintf(ret_note, SETUP_NOTE_SIZE,
                         "the earlier pool '%s', whose members are all gone, is forgotten", name);
                r = 0;
        }
        state_free(state);
        return r;
}

/* ---- create ---- */

/* Of the same pool, which was known already. */
static int keep_attachments(struct pool_state *state, struct error *err)
{
        struct pool_state *known = NULL;
        int r = 0;

        if (state_load(state->name, &known, NULL) < 0)
                return 0;
        if (memcmp(known->uuid, state->uuid, sizeof(known->uuid)) == 0)
                for (size_t i = 0; r == 0 && i < known->n_attachments; i++)
                        r = state_set_attachment(state, &known->attachments[i]);
        state_free(known);
        return r < 0 ? error_set(err, r, "out of memory") : 0;
}

/* A second look under the lock: another create may have been quicker. */
static int co_save_new(struct loop *loop, struct pool_state *state, struct error *err)
{
        char note[SETUP_NOTE_SIZE];
        int lock, r;

        lock = state_lock(err);
        if (lock < 0)
                return lock;
        r = co_check_name(loop, state->name, state->uuid, note, err);
        if (r == 0)
                r = keep_attachments(state, err);
        if (r == 0)
                r = state_save(state, err);
        state_unlock(lock);
        return r;
}

static int co_open_new(struct loop *loop, const struct pool_setup *setup, struct member **members,
                       struct error *err)
{
        const struct disk_options options = {.lock_wait_ms = CREATE_LOCK_WAIT_MS};

        for (size_t i = 0; i < setup->n_paths; i++) {
                char path[PATH_MAX];
                int r = member_path(setup->paths[i], path, sizeof(path), err);

                /* Opened for writing first: in use or mounted says more than what is on it. */
                if (r == 0)
                        r = setup_refuse_backing(path, err);
                if (r == 0)
                        r = co_disk_open(loop, path, &options, &members[i], err);
                if (r == 0 && !setup->force)
                        r = co_setup_check_disk(loop, path, err);
                if (r < 0)
                        return r;
        }
        /* Only now that none is refused is anything written. */
        for (size_t i = 0; i < setup->n_paths; i++) {
                int r = co_disk_format(members[i], err);

                if (r < 0)
                        return r;
        }
        return 0;
}

static int co_record_new(struct loop *loop, const struct pool_setup *setup,
                         struct member *const *members, struct error *err)
{
        struct pool_state *state = NULL;
        int r = 0;

        for (size_t i = 0; r == 0 && i < setup->n_paths; i++) {
                struct pool_label label;

                r = co_pool_read_label(members[i], &label, err);
                if (r == 0 && !state)
                        state = state_new(label.pool_name, label.pool_uuid);
                if (r == 0 &&
                    (!state || state_set_member(state, members[i]->path, label.member_uuid) < 0))
                        r = error_set(err, -ENOMEM, "out of memory");
        }
        if (r == 0)
                r = co_save_new(loop, state, err);
        state_free(state);
        return r;
}

static int check_setup(const struct pool_setup *setup, struct error *err)
{
        char least[SIZE_TEXT_MAX];
        int r = pool_name_check(setup->name, "pool", err);

        if (r < 0)
                return r;
        if (setup->n_paths > POOL_MEMBERS_MAX)
                return error_set(err, -EINVAL, "a pool has at most %u members", POOL_MEMBERS_MAX);
        if (setup->file_bytes > 0 && setup->file_bytes < MEMBER_SIZE_MIN)
                return error_set(err, -EINVAL, "--file-size: a member has at least %s",
                                 size_format(MEMBER_SIZE_MIN, least));
        return setup_check_distinct(setup->paths, setup->n_paths, err);
}

int co_setup_create(struct loop *loop, const struct pool_setup *setup,
                    char ret_note[SETUP_NOTE_SIZE], struct error *err)
{
        const struct pool_create_options options = {.name = setup->name, .layout = setup->layout};
        struct member **members;
        bool *made;
        int r;

        r = check_setup(setup, err);
        if (r == 0)
                r = co_check_name(loop, setup->name, NULL, ret_note, err);
        if (r < 0)
                return r;
        members = calloc(setup->n_paths, sizeof(*members));
        made = calloc(setup->n_paths, sizeof(*made));
        if (!members || !made)
                r = error_set(err, -ENOMEM, "out of memory");
        else
                r = setup_make_files(setup->paths, setup->n_paths, setup->file_bytes, made, err);
        if (r == 0) {
                r = co_open_new(loop, setup, members, err);
                if (r == 0)
                        r = co_pool_create(members, setup->n_paths, &options, err);
                if (r == 0)
                        r = co_record_new(loop, setup, members, err);
                if (r < 0)
                        setup_remove_files(setup->paths, setup->n_paths, made);
        }
        free(made);
        if (members)
                members_close(members, setup->n_paths);
        return r;
}

/* ---- import ---- */

/* Opened once, writing nothing: what is made known works. */
static int co_try(struct loop *loop, struct pool_state *state, const atomic_bool *cancelled,
                  struct error *err)
{
        const struct pool_options options = {.readonly = true};
        struct member **members = NULL;
        struct pool *pool = NULL;
        size_t n = 0;
        int r;

        r = co_members_open(loop, state, MEMBERS_LOCK_WAIT_MS, cancelled, &members, &n, err);
        if (r < 0)
                return r;
        r = co_pool_open(loop, members, n, &options, &pool, err);
        if (r < 0) {
                members_close(members, n);
                return r;
        }
        free(members);
        return co_pool_close(pool, err);
}

int co_setup_import(struct loop *loop, const char *const *paths, size_t n_paths,
                    const atomic_bool *cancelled, struct pool_state **ret_state,
                    char ret_note[SETUP_NOTE_SIZE], struct error *err)
{
        struct pool_state *state = NULL;
        int r;

        r = setup_check_distinct(paths, n_paths, err);
        if (r == 0)
                r = co_state_from_paths(loop, paths, n_paths, &state, err);
        if (r == 0)
                r = co_check_name(loop, state->name, state->uuid, ret_note, err);
        if (r == 0) {
                r = co_try(loop, state, cancelled, err);
                if (r < 0)
                        r = error_prefix(err, "cannot import pool '%s'", state->name);
        }
        if (r == 0)
                r = co_save_new(loop, state, err);
        if (r < 0) {
                state_free(state);
                return r;
        }
        *ret_state = state;
        return 0;
}

/* ---- forget and destroy ---- */

static int refuse_served(const struct pool_state *state, const char *verb, struct error *err)
{
        int fd, r = client_connect(state, &fd, NULL);

        if (r == -ENOENT)
                return 0;
        if (r == 0)
                close(fd);
        error_set(err, -EBUSY, "cannot %s pool '%s': it is being served by process %d", verb,
                  state->name, (int)state->server_pid);
        return error_hint(err, "stop the server first: kill %d", (int)state->server_pid);
}

int setup_forget(const char *name, struct error *err)
{
        struct pool_state *state = NULL;
        int lock, r;

        lock = state_lock(err);
        if (lock < 0)
                return lock;
        r = state_load(name, &state, err);
        if (r == 0)
                r = refuse_served(state, "forget", err);
        if (r == 0)
                r = state_remove(name, err);
        state_free(state);
        state_unlock(lock);
        return r;
}

/* The partition table of a whole disk goes too; the pool is gone whether or not that works. */
static void co_wipe(struct loop *loop, const struct pool_state *state)
{
        for (size_t i = 0; i < state->n_members; i++) {
                const struct disk_options options = {.lock_wait_ms = CREATE_LOCK_WAIT_MS};
                struct member *m = NULL;
                struct error e = ERROR_INIT;
                int r = co_disk_open(loop, state->members[i].path, &options, &m, &e);

                if (r == 0)
                        r = co_disk_wipe(m, &e);
                if (r < 0)
                        log_warning("'%s' is no member any more, but not all was wiped: %s",
                                    state->members[i].path, e.message);
                member_close(m);
        }
}

/* A pool that was named by a member's path may have no file, and its name may be another's. */
static void remove_state_of(const struct pool_state *gone)
{
        struct pool_state *known = NULL;
        int lock = state_lock(NULL);

        if (lock >= 0 && state_load(gone->name, &known, NULL) == 0 &&
            memcmp(known->uuid, gone->uuid, 16) == 0)
                state_remove(gone->name, NULL);
        state_free(known);
        state_unlock(lock);
}

int co_setup_destroy(struct loop *loop, struct pool_state **state, const atomic_bool *cancelled,
                     struct error *err)
{
        const struct pool_options options = {0};
        struct host_pool *hp = NULL;
        struct host host;
        int r;

        r = refuse_served(*state, "destroy", err);
        if (r < 0)
                return r;
        host_init(&host, loop);
        r = co_host_open(&host, loop, state, &options, CREATE_LOCK_WAIT_MS, cancelled, &hp, err);
        if (r < 0)
                return r;
        *state = hp->state;
        list_remove(&hp->link);
        r = co_pool_destroy(hp->pool, err);
        free(hp);
        if (r < 0)
                return r;
        co_wipe(loop, *state);
        remove_state_of(*state);
        state_free(*state);
        *state = NULL;
        return 0;
}
