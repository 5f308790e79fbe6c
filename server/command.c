/* command.c - from a request to the function that does it; what requests hold. */
#include "server/command.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "server/events.h"
#include "server/image_base.h"
#include "server/json_memory.h"

static const struct {
        const char *name;
        co_command *co_run;
        bool readonly;
        bool frees; /* settled by a one-shot */
        bool tells; /* its reply is all there is of it */
} commands[] = {
    {"pool-status", co_pool_status, true, .tells = true},
    {"pool-add", co_pool_add_members, false},
    {"pool-check", co_pool_check_all, true, .tells = true},
    {"volume-create", co_volume_create_one, false},
    {"volume-list", co_volume_list_all, true, .tells = true},
    {"volume-show", co_volume_show, true, .tells = true},
    {"volume-resize", co_volume_resize_one, false, true},
    {"volume-rename", co_volume_rename_one, false},
    {"volume-delete", co_volume_delete_one, false, true},
    {"volume-set", co_volume_set_all, false},
    {"volume-clone", co_volume_clone_one, false},
    {"volume-hydrate", co_volume_hydrate, false},
    {"volume-rebase", co_volume_rebase, false},
    {"volume-attach", co_volume_attach, false},
    {"volume-detach", co_volume_detach, false},
    {"snapshot-create", co_snapshot_create_all, false},
    {"snapshot-list", co_snapshot_list_all, true, .tells = true},
    {"snapshot-restore", co_snapshot_restore_one, false, true},
    {"snapshot-delete", co_snapshot_delete_one, false, true},
    {"snapshot-diff", co_snapshot_diff, true, .tells = true},
    {"stats", co_stats, true, .tells = true},
    {"image-import", co_image_import, false, true},
    {"image-export", co_image_export, true},
};
#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

bool command_is_readonly(const char *name)
{
        for (size_t i = 0; i < N_COMMANDS; i++)
                if (strcmp(commands[i].name, name) == 0)
                        return commands[i].readonly;
        return false;
}

bool command_frees_space(const char *name)
{
        for (size_t i = 0; i < N_COMMANDS; i++)
                if (strcmp(commands[i].name, name) == 0)
                        return commands[i].frees;
        return false;
}

int co_command_run(struct host *host, json_t *request, const int *fds, size_t n_fds,
                   struct command_caller *caller, json_t **ret_reply, struct error *err)
{
        struct command c = {
            .host = host, .request = request, .fds = fds, .n_fds = n_fds, .caller = caller};
        const char *name, *pool;
        unsigned n_failures = json_memory_failures();
        size_t i;
        int r;

        r = command_string(&c, "command", &name, err);
        if (r == 0)
                r = command_string(&c, "pool", &pool, err);
        if (r < 0)
                return r;
        for (i = 0; i < N_COMMANDS && strcmp(commands[i].name, name) != 0; i++)
                ;
        if (i == N_COMMANDS)
                return error_set(err, -EOPNOTSUPP, "there is no command '%.64s'", name);
        r = host_find(host, pool, &c.hp, err);
        if (r < 0)
                return r;
        c.reply = json_object();
        if (!c.reply)
                return error_set(err, -ENOMEM, "out of memory");
        co_move(c.hp->loop);
        r = commands[i].co_run(&c, err);
        if (r == 0) {
                co_image_bases_tidy(c.hp);
                events_emit_command(&c, name);
        }
        co_move(host->loop);
        if (r == 0 && commands[i].tells && json_memory_failures() != n_failures)
                r = error_set(err, -ENOMEM, "out of memory");
        if (r < 0) {
                json_decref(c.reply);
                return r;
        }
        *ret_reply = c.reply;
        return 0;
}

int command_string(const struct command *c, const char *key, const char **ret, struct error *err)
{
        const char *value = json_string_value(json_object_get(c->request, key));

        if (!value)
                return error_set(err, -EINVAL, "the request lacks the text '%s'", key);
        *ret = value;
        return 0;
}

int command_size(const struct command *c, const char *key, uint64_t *ret, struct error *err)
{
        json_t *value = json_object_get(c->request, key);

        if (!json_is_integer(value) || json_integer_value(value) < 0)
                return error_set(err, -EINVAL, "the request lacks the number '%s'", key);
        *ret = (uint64_t)json_integer_value(value);
        return 0;
}

bool command_flag(const struct command *c, const char *key)
{
        return json_is_true(json_object_get(c->request, key));
}

int command_volume(const struct command *c, const char *key, const char **ret, struct error *err)
{
        int r = command_string(c, key, ret, err);

        return r < 0 ? r : pool_name_check(*ret, "volume", err);
}

int snapshot_name_parse(const char *text, struct snapshot_name *ret, struct error *err)
{
        const char *at = strchr(text, '@');
        int r;

        if (!at)
                return error_set(err, -EINVAL,
                                 "'%.130s' is not a snapshot: snapshots are named "
                                 "VOLUME@SNAPSHOT",
                                 text);
        if ((size_t)(at - text) > POOL_NAME_MAX)
                return error_set(err, -EINVAL, "'%.130s' is too long for a volume's name", text);
        memcpy(ret->volume, text, (size_t)(at - text));
        ret->volume[at - text] = '\0';
        r = pool_name_check(ret->volume, "volume", err);
        if (r == 0)
                r = pool_name_check(at + 1, "snapshot", err);
        if (r == 0)
                memcpy(ret->snapshot, at + 1, strlen(at + 1) + 1);
        return r;
}

int command_snapshot(const struct command *c, const char *key, const char **ret_name,
                     struct snapshot_name *ret, struct error *err)
{
        int r = command_string(c, key, ret_name, err);

        return r < 0 ? r : snapshot_name_parse(*ret_name, ret, err);
}

int command_root(const struct command *c, const char *key, const char **ret, struct error *err)
{
        struct snapshot_name parsed;
        int r = command_string(c, key, ret, err);

        if (r < 0)
                return r;
        return strchr(*ret, '@') ? snapshot_name_parse(*ret, &parsed, err)
                                 : pool_name_check(*ret, "volume", err);
}

int command_progress(const struct command *c, uint64_t done, uint64_t total, struct error *err)
{
        if (*c->caller->cancelled)
                return error_set(err, -ECANCELED, "interrupted");
        if (c->caller->progress)
                c->caller->progress(c->caller, done, total, false);
        return 0;
}
