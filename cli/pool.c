/* pool.c - tarn pool ... */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "server/client.h"
#include "server/session.h"
#include "server/setup.h"

/* ---- create ---- */

struct create_work {
        struct session_work work;
        struct pool_setup setup;
        char note[SETUP_NOTE_SIZE];
};

static int co_create(struct loop *loop, struct session_work *work, struct error *err)
{
        struct create_work *w = container_of(work, struct create_work, work);

        return co_setup_create(loop, &w->setup, w->note, err);
}

static int parse_layout(const char *text, enum pool_layout *ret, struct error *err)
{
        if (!text || strcmp(text, "stripe") == 0) {
                *ret = POOL_LAYOUT_STRIPE;
                return 0;
        }
        if (strcmp(text, "concat") == 0) {
                *ret = POOL_LAYOUT_CONCAT;
                return 0;
        }
        if (strcmp(text, "mirror") == 0)
                return error_set(err, -ENOTSUP, "layout 'mirror' is not built yet");
        error_set(err, -EINVAL, "there is no layout '%s'", text);
        return error_hint(err, "layouts are stripe and concat");
}

/* Sizes of zero mean 'not given' below this line. */
static int parse_file_size(const struct cli_args *args, uint64_t *ret, struct error *err)
{
        int r;

        if (!args->file_size)
                return 0;
        r = size_parse(args->file_size, ret, err);
        if (r < 0)
                return error_prefix(err, "--file-size");
        return *ret == 0 ? error_set(err, -EINVAL, "--file-size is zero") : 0;
}

static int run_create(const struct cli_verb *verb, const struct cli_args *args)
{
        struct create_work w = {.work = {.co_run = co_create},
                                .setup = {.name = args->words[0],
                                          .paths = (const char *const *)args->words + 1,
                                          .n_paths = (size_t)args->n_words - 1,
                                          .force = args->given & CLI_FORCE}};
        struct error e = ERROR_INIT;

        if (parse_layout(args->layout, &w.setup.layout, &e) < 0 ||
            parse_file_size(args, &w.setup.file_bytes, &e) < 0 || session_do(&w.work, &e) < 0)
                return cli_fail(&e);
        if (w.note[0])
                cli_note("%s", w.note);
        printf("created pool '%s' of %zu member%s\n", w.setup.name, w.setup.n_paths,
               w.setup.n_paths == 1 ? "" : "s");
        return EXIT_SUCCESS;
}

/* ---- status and list ---- */

static json_t *status_request(void)
{
        return json_pack("{s:s}", "command", "pool-status");
}

static void print_members(json_t *status)
{
        static const struct cli_column columns[] = {
            {"MEMBER", CLI_LEFT}, {"SIZE", CLI_RIGHT},   {"USED", CLI_RIGHT},   {"FREE", CLI_RIGHT},
            {"READS", CLI_RIGHT}, {"WRITES", CLI_RIGHT}, {"ERRORS", CLI_RIGHT}, {"UUID", CLI_LEFT}};
        struct cli_table *t = cli_table_new(columns, 8);
        json_t *m;
        size_t i;

        json_array_foreach (json_object_get(status, "members"), i, m) {
                static const char *const counters[] = {"reads", "writes", "errors"};
                struct cli_line *line = cli_table_line(t, NULL);

                cli_table_cell(line, 0, cli_text(m, "path"));
                cli_table_cell(line, 1, cli_size(m, "size"));
                cli_table_cell(line, 2, cli_size(m, "used"));
                cli_table_cell(line, 3, cli_size(m, "free"));
                for (size_t k = 0; k < 3; k++)
                        cli_table_cell(line, 4 + k, cli_count(m, counters[k]));
                cli_table_cell(line, 7, cli_text(m, "uuid"));
        }
        cli_table_finish(t);
}

static void print_server(json_t *server)
{
        json_t *nbd, *client, *machine;
        size_t i;

        if (!json_is_object(server)) {
                printf("served       no\n");
                return;
        }
        printf("served       by process %llu\n", (unsigned long long)cli_number(server, "pid"));
        json_array_foreach (json_object_get(server, "nbd"), i, nbd)
                printf("             at %s\n", json_string_value(nbd));
        json_array_foreach (json_object_get(server, "clients"), i, client)
                printf("client       %s on %s%s\n", cli_text(client, "peer"),
                       json_is_string(json_object_get(client, "export"))
                           ? cli_text(client, "export")
                           : "(negotiating)",
                       json_is_true(json_object_get(client, "readonly")) ? ", read-only" : "");
        json_array_foreach (json_object_get(server, "machines"), i, machine)
                printf("%-12s %s\n", i == 0 ? "machines" : "", json_string_value(machine));
}

static void print_status(json_t *s)
{
        const char *failed = json_string_value(json_object_get(s, "failed"));

        printf("pool         %s\n", cli_text(s, "name"));
        printf("uuid         %s\n", cli_text(s, "uuid"));
        printf("layout       %s\n", cli_text(s, "layout"));
        if (failed)
                printf("state        stopped: %s\n", failed);
        else
                printf("state        %s\n",
                       json_is_true(json_object_get(s, "readonly")) ? "read-only" : "good");
        if (cli_number(s, "checksum_errors") > 0)
                printf("checksums    %llu failed, %llu repaired\n",
                       (unsigned long long)cli_number(s, "checksum_errors"),
                       (unsigned long long)cli_number(s, "repaired_errors"));
        printf("size         %s\n", cli_size(s, "size"));
        printf("provisioned  %s; volumes: %llu, snapshots: %llu\n", cli_size(s, "provisioned"),
               (unsigned long long)cli_number(s, "volumes"),
               (unsigned long long)cli_number(s, "snapshots"));
        printf("used         %s, and %s of metadata\n", cli_size(s, "used"),
               cli_size(s, "metadata_used"));
        printf("free         %s\n", cli_size(s, "free"));
        if (cli_number(s, "freeing") > 0)
                printf("freeing      %s\n", cli_size(s, "freeing"));
        print_server(json_object_get(s, "server"));
        printf("\n");
        print_members(s);
}

/* Every pool known; those that cannot be looked at are told of on stderr, after the rest. */
static int status_of_all(bool as_json)
{
        json_t *pools = json_array(), *status;
        struct error e = ERROR_INIT;
        char **names;
        size_t n, i;
        int result = EXIT_SUCCESS;

        if (state_names(&names, &n, &e) < 0) {
                json_decref(pools);
                return cli_fail(&e);
        }
        for (i = 0; i < n; i++) {
                const struct cli_call call = {
                    .pool = names[i], .request = status_request(), .wait_ms = CLI_LIST_WAIT_MS};

                if (cli_call(&call, &status) < 0)
                        result = EXIT_FAILURE;
                else
                        json_array_append_new(pools, status);
        }
        if (as_json) {
                json_t *all = json_pack("{s:O}", "pools", pools);

                cli_print_json(all);
                json_decref(all);
        } else {
                json_array_foreach (pools, i, status) {
                        if (i > 0)
                                printf("\n");
                        print_status(status);
                }
        }
        json_decref(pools);
        state_names_free(names, n);
        return result;
}

static int run_status(const struct cli_verb *verb, const struct cli_args *args)
{
        bool as_json = args->given & CLI_JSON;
        struct cli_call call = {.request = NULL};
        json_t *status;

        if (args->n_words == 0)
                return status_of_all(as_json);
        call.pool = args->words[0];
        call.request = status_request();
        if (cli_call(&call, &status) < 0)
                return EXIT_FAILURE;
        if (as_json)
                cli_print_json(status);
        else
                print_status(status);
        json_decref(status);
        return EXIT_SUCCESS;
}

/* A pool that cannot be opened is listed with the reason. */
static json_t *list_entry(const char *name, struct error *e)
{
        const struct cli_call call = {
            .pool = name, .request = status_request(), .wait_ms = CLI_LIST_WAIT_MS};
        struct pool_state *state = NULL;
        json_t *status = NULL, *entry;
        bool served;

        if (cli_try(&call, &status, e) == 0) {
                served = json_is_object(json_object_get(status, "server"));
                entry = json_pack("{s:s, s:O, s:s, s:O, s:O, s:O, s:O, s:O, s:i}", "name", name,
                                  "uuid", json_object_get(status, "uuid"), "state",
                                  json_is_string(json_object_get(status, "failed")) ? "stopped"
                                  : served                                          ? "served"
                                                                                    : "idle",
                                  "size", json_object_get(status, "size"), "used",
                                  json_object_get(status, "used"), "free",
                                  json_object_get(status, "free"), "provisioned",
                                  json_object_get(status, "provisioned"), "volumes",
                                  json_object_get(status, "volumes"), "members",
                                  (int)json_array_size(json_object_get(status, "members")));
                json_decref(status);
                return entry;
        }
        /* Without a state file that can be read, nobody knows its members. */
        state_load(name, &state, NULL);
        entry = json_pack("{s:s, s:s, s:s, s:i}", "name", name, "state",
                          e->code == -EBUSY ? "busy" : "unavailable", "error", e->message,
                          "members", state ? (int)state->n_members : 0);
        state_free(state);
        return entry;
}

static void print_list(json_t *pools)
{
        static const struct cli_column columns[] = {
            {"NAME", CLI_LEFT},     {"STATE", CLI_LEFT},   {"SIZE", CLI_RIGHT},
            {"USED", CLI_RIGHT},    {"FREE", CLI_RIGHT},   {"PROVISIONED", CLI_RIGHT},
            {"VOLUMES", CLI_RIGHT}, {"MEMBERS", CLI_RIGHT}};
        static const char *const sizes[] = {"size", "used", "free", "provisioned"};
        struct cli_table *t = cli_table_new(columns, 8);
        json_t *p;
        size_t i;

        json_array_foreach (pools, i, p) {
                struct cli_line *line = cli_table_line(t, NULL);

                cli_table_cell(line, 0, cli_text(p, "name"));
                cli_table_cell(line, 1, cli_text(p, "state"));
                for (size_t k = 0; k < 4 && json_object_get(p, "size"); k++)
                        cli_table_cell(line, 2 + k, cli_size(p, sizes[k]));
                if (json_object_get(p, "size"))
                        cli_table_cell(line, 6, cli_count(p, "volumes"));
                cli_table_cell(line, 7, cli_count(p, "members"));
        }
        cli_table_finish(t);
        json_array_foreach (pools, i, p)
                if (json_object_get(p, "error"))
                        cli_note("%s", cli_text(p, "error"));
}

static int run_list(const struct cli_verb *verb, const struct cli_args *args)
{
        json_t *pools = json_array();
        struct error e = ERROR_INIT;
        char **names;
        size_t n;

        if (state_names(&names, &n, &e) < 0) {
                json_decref(pools);
                return cli_fail(&e);
        }
        for (size_t i = 0; i < n; i++) {
                struct error why = ERROR_INIT;

                json_array_append_new(pools, list_entry(names[i], &why));
        }
        state_names_free(names, n);
        if (args->given & CLI_JSON) {
                json_t *all = json_pack("{s:O}", "pools", pools);

                cli_print_json(all);
                json_decref(all);
        } else if (json_array_size(pools) > 0) {
                print_list(pools);
        } else {
                cli_note("no pool is known here; 'tarn pool create' makes one, 'tarn pool import' "
                         "finds one");
        }
        json_decref(pools);
        return EXIT_SUCCESS;
}

/* ---- add ---- */

struct check_work {
        struct session_work work;
        const char *const *paths;
        size_t n;
};

static int co_check_disks(struct loop *loop, struct session_work *work, struct error *err)
{
        struct check_work *w = container_of(work, struct check_work, work);

        for (size_t i = 0; i < w->n; i++) {
                int r = co_setup_check_disk(loop, w->paths[i], err);

                if (r < 0)
                        return r;
        }
        return 0;
}

/* Opened here, as the user; the pool's server only gets the descriptors. */
static int open_disks(const char *const *paths, size_t n, int *fds, json_t *absolute,
                      struct error *err)
{
        for (size_t i = 0; i < n; i++) {
                char path[PATH_MAX];
                struct stat st;
                int r = member_path(paths[i], path, sizeof(path), err);

                if (r == 0)
                        r = setup_refuse_backing(path, err);
                if (r < 0)
                        return r;
                if (stat(path, &st) < 0)
                        return error_set(err, -errno, "cannot open '%s': %s", path,
                                         strerror(errno));
                fds[i] = open(path, O_RDWR | O_CLOEXEC | (S_ISBLK(st.st_mode) ? O_EXCL : 0));
                if (fds[i] < 0)
                        return error_set(err, -errno, "cannot open '%s': %s", path,
                                         strerror(errno));
                json_array_append_new(absolute, json_string(path));
        }
        return 0;
}

/* *ret_asked: from then on the pool may need the disks, whatever is answered. */
static int add_disks(const struct cli_args *args, const char *const *paths, size_t n, int *fds,
                     bool *ret_asked, struct error *err)
{
        json_t *absolute = json_array(), *reply = NULL;
        struct check_work w = {.work = {.co_run = co_check_disks}, .paths = paths, .n = n};
        struct cli_call call = {.pool = args->words[0], .fds = fds, .n_fds = n};
        int r = 0;

        if (!(args->given & CLI_FORCE))
                r = session_do(&w.work, err);
        if (r == 0)
                r = open_disks(paths, n, fds, absolute, err);
        if (r == 0) {
                call.request = json_pack("{s:s, s:O}", "command", "pool-add", "paths", absolute);
                *ret_asked = true;
                r = cli_try(&call, &reply, err);
                json_decref(reply);
        }
        for (size_t i = 0; i < n; i++)
                if (fds[i] >= 0)
                        close(fds[i]);
        json_decref(absolute);
        return r;
}

static void leave_files(const char *const *paths, size_t n, const bool *made)
{
        for (size_t i = 0; i < n; i++)
                if (made[i])
                        cli_note(
                            "'%s' is left: remove it only if 'tarn pool status' shows that it is "
                            "no member",
                            paths[i]);
}

static int run_add(const struct cli_verb *verb, const struct cli_args *args)
{
        const char *const *paths = (const char *const *)args->words + 1;
        size_t n = (size_t)args->n_words - 1;
        bool made[COMMAND_FDS_MAX] = {false}, asked = false;
        int fds[COMMAND_FDS_MAX], r = 0;
        struct pool_state *state = NULL;
        struct error e = ERROR_INIT;
        uint64_t bytes = 0;

        if (n > COMMAND_FDS_MAX)
                r = error_set(&e, -E2BIG, "at most %u members can be added at a time",
                              COMMAND_FDS_MAX);
        for (size_t i = 0; r == 0 && i < n; i++)
                fds[i] = -1;
        if (r == 0)
                r = parse_file_size(args, &bytes, &e);
        if (r == 0)
                r = setup_check_distinct(paths, n, &e);
        if (r == 0)
                r = session_resolve(args->words[0], &state, &e);
        if (r == 0)
                r = setup_make_files(paths, n, bytes, made, &e);
        if (r == 0) {
                r = add_disks(args, paths, n, fds, &asked, &e);
                if (r < 0 && !asked)
                        setup_remove_files(paths, n, made);
                else if (r < 0)
                        leave_files(paths, n, made);
        }
        state_free(state);
        if (r < 0)
                return cli_fail(&e);
        printf("added %zu member%s to pool '%s'\n", n, n == 1 ? "" : "s", args->words[0]);
        return EXIT_SUCCESS;
}

/* ---- check ---- */

static int run_check(const struct cli_verb *verb, const struct cli_args *args)
{
        const struct cli_call call = {.pool = args->words[0],
                                      .request = json_pack("{s:s, s:b}", "command", "pool-check",
                                                           "data", (int)(args->given & CLI_DATA)),
                                      .progress = "checking",
                                      .progress_is_share = true};
        json_t *reply, *finding;
        uint64_t n;
        size_t i;

        if (cli_call(&call, &reply) < 0)
                return EXIT_NOT_CHECKED;
        n = cli_number(reply, "n_findings");
        if (args->given & CLI_JSON) {
                cli_print_json(reply);
        } else {
                json_array_foreach (json_object_get(reply, "findings"), i, finding)
                        printf("%s\n", json_string_value(finding));
                if (n > json_array_size(json_object_get(reply, "findings")))
                        printf("... and %llu more\n",
                               (unsigned long long)(n - json_array_size(
                                                            json_object_get(reply, "findings"))));
                if (n == 0)
                        printf("pool '%s' is clean\n", args->words[0]);
                else
                        printf("%llu finding%s\n", (unsigned long long)n, n == 1 ? "" : "s");
        }
        json_decref(reply);
        return n == 0 ? EXIT_SUCCESS : EXIT_FINDINGS;
}

/* ---- import, forget, destroy ---- */

struct import_work {
        struct session_work work;
        const char *const *paths;
        size_t n;
        struct pool_state *state;
        char note[SETUP_NOTE_SIZE];
};

static int co_import(struct loop *loop, struct session_work *work, struct error *err)
{
        struct import_work *w = container_of(work, struct import_work, work);

        return co_setup_import(loop, w->paths, w->n, &work->cancelled, &w->state, w->note, err);
}

static int run_import(const struct cli_verb *verb, const struct cli_args *args)
{
        struct import_work w = {.work = {.co_run = co_import},
                                .paths = (const char *const *)args->words,
                                .n = (size_t)args->n_words};
        struct error e = ERROR_INIT;

        if (session_do(&w.work, &e) < 0)
                return cli_fail(&e);
        if (w.note[0])
                cli_note("%s", w.note);
        printf("imported pool '%s' with its %zu member%s\n", w.state->name, w.state->n_members,
               w.state->n_members == 1 ? "" : "s");
        state_free(w.state);
        return EXIT_SUCCESS;
}

static int run_forget(const struct cli_verb *verb, const struct cli_args *args)
{
        struct pool_state *state = NULL;
        struct error e = ERROR_INIT;
        int r;

        r = session_resolve(args->words[0], &state, &e);
        if (r == 0)
                r = setup_forget(state->name, &e);
        if (r == 0)
                printf("forgot pool '%s'; 'tarn pool import %s' makes it known again\n",
                       state->name, state->n_members ? state->members[0].path : "MEMBER...");
        state_free(state);
        return r < 0 ? cli_fail(&e) : EXIT_SUCCESS;
}

struct destroy_work {
        struct session_work work;
        struct pool_state *state;
};

static int co_destroy(struct loop *loop, struct session_work *work, struct error *err)
{
        struct destroy_work *w = container_of(work, struct destroy_work, work);

        return co_setup_destroy(loop, &w->state, &work->cancelled, err);
}

static int run_destroy(const struct cli_verb *verb, const struct cli_args *args)
{
        struct destroy_work w = {.work = {.co_run = co_destroy}};
        struct error e = ERROR_INIT;
        char name[POOL_NAME_MAX + 1];
        int fd, r;

        r = session_resolve(args->words[0], &w.state, &e);
        if (r < 0)
                return cli_fail(&e);
        memcpy(name, w.state->name, sizeof(name));
        /* What is refused anyway is not asked about. */
        r = client_connect(w.state, &fd, NULL);
        if (r == 0)
                close(fd);
        if (r == -ENOENT &&
            !cli_confirm(args, "destroy pool '%s', all its volumes and snapshots?", name)) {
                state_free(w.state);
                return EXIT_FAILURE;
        }
        r = session_do(&w.work, &e);
        state_free(w.state);
        if (r < 0)
                return cli_fail(&e);
        printf("destroyed pool '%s'\n", name);
        return EXIT_SUCCESS;
}

const struct cli_verb pool_verbs[] = {
    {"pool", "create", "NAME MEMBER... [--layout stripe|concat] [--file-size SIZE] [--force]",
     "make a pool of disks or files",
     "MEMBER is a whole disk (/dev/disk/by-id/...), a partition, or a file of at least 64 MiB.\n"
     "A disk that holds data, is mounted or belongs to a pool is refused.\n\n"
     "  --layout stripe     spread over all members in turn (the default)\n"
     "  --layout concat     fill member after member\n"
     "  --file-size SIZE    members that do not exist are made, as sparse files of this size\n"
     "  --force             take disks that hold data; what is on them is lost\n\n"
     "Example:\n"
     "  tarn pool create tank /srv/d1.img /srv/d2.img --file-size 20G\n"
     "  tarn pool create tank /dev/disk/by-id/nvme-A /dev/disk/by-id/nvme-B\n",
     CLI_LAYOUT | CLI_FILE_SIZE | CLI_FORCE, 2, -1, run_create},
    {"pool", "list", "[--json]", "the pools known here, and how full they are",
     "  --json   {\"pools\": [{\"name\", \"uuid\", \"state\", \"size\", \"used\", \"free\",\n"
     "           \"provisioned\", \"volumes\", \"members\"}]}; a pool that cannot be opened has\n"
     "           \"error\" instead of sizes\n",
     CLI_JSON, 0, 0, run_list},
    {"pool", "status", "[NAME] [--json]",
     "what is provisioned, used and free, by member and in all",
     "NAME is a pool's name or the path of any of its members. Without it: all pools.\n\n"
     "  --json   with NAME an object, without {\"pools\": [...]}; docs/control.md has the fields\n",
     CLI_JSON, 0, 1, run_status},
    {"pool", "add", "NAME MEMBER... [--file-size SIZE] [--force]",
     "give a pool more disks, also while it is in use",
     "  --file-size SIZE   members that do not exist are made, as sparse files of this size\n"
     "  --force            take disks that hold data; what is on them is lost\n",
     CLI_FILE_SIZE | CLI_FORCE, 2, -1, run_add},
    {"pool", "check", "NAME [--data] [--json]", "walk everything and report what is wrong",
     "A diagnosis: nothing is changed, and nothing needs it after a crash.\n\n"
     "  --data   read every block of data too, and compare it with its checksum\n"
     "  --json   {\"n_findings\": N, \"findings\": [\"...\"]}\n\n"
     "Exit status: 0 clean, 1 findings, 3 it could not be checked.\n",
     CLI_DATA | CLI_JSON, 1, 1, run_check},
    {"pool", "events", "NAME [--json]", "tell what happens to a pool, as it happens",
     "Of a pool that is served: volumes and snapshots made, changed and deleted, clients that "
     "come\n"
     "and go, a pool that is full, members that fail. Ends when the server ends.\n\n"
     "  --json   one object a line; docs/control.md has the events\n",
     CLI_JSON, 1, 1, cli_run_events},
    {"pool", "import", "MEMBER...", "make a pool known by the labels on its members",
     "Members that are not named are searched for beside those that are, and among the disks\n"
     "of this machine. Also after members have moved.\n",
     0, 1, -1, run_import},
    {"pool", "forget", "NAME", "forget where a pool is; its members stay as they are", "", 0, 1, 1,
     run_forget},
    {"pool", "destroy", "NAME [--yes]", "make the members no members any more; all data is lost",
     "Asks first. Refused while the pool is being served. Files stay, empty of the pool.\n\n"
     "  --yes   do not ask\n",
     CLI_YES, 1, 1, run_destroy},
    {"pool", "remove", "NAME MEMBER", "take a disk out of a pool", "", 0, 0, -1, NULL},
    {"pool", "replace", "NAME OLD NEW", "put one disk in another's place", "", 0, 0, -1, NULL},
    {"pool", "grow", "NAME MEMBER", "use a member that has become larger", "", 0, 0, -1, NULL},
    {"pool", "scrub", "NAME", "read everything and repair what can be", "", 0, 0, -1, NULL},
    {0},
};
