/* snapshot.c - tarn snapshot ... */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/list.h"
#include "server/state.h"

/* ---- create ---- */

/* All of one pool: a group is cut in one pool at one instant. */
static int collect_names(const struct cli_args *args, char **ret_pool, json_t *names,
                         struct error *err)
{
        for (int i = 0; i < args->n_words; i++) {
                const char *rest;
                char *pool;
                int r = cli_split(args->words[i], &pool, &rest, err);

                if (r < 0)
                        return r;
                if (*ret_pool && !cli_same_pool(*ret_pool, pool)) {
                        free(pool);
                        return error_set(err, -EXDEV,
                                         "'%s' and '%s' are in different pools: one snapshot is of "
                                         "one pool",
                                         args->words[0], args->words[i]);
                }
                free(*ret_pool);
                *ret_pool = pool;
                json_array_append_new(names, json_string(rest));
        }
        return 0;
}

static int run_create(const struct cli_verb *verb, const struct cli_args *args)
{
        json_t *names = json_array(), *reply = NULL;
        struct error e = ERROR_INIT;
        char *pool = NULL;
        int r;

        r = collect_names(args, &pool, names, &e);
        if (r == 0) {
                const struct cli_call call = {
                    .pool = pool,
                    .request =
                        json_pack("{s:s, s:O}", "command", "snapshot-create", "names", names)};
                r = cli_try(&call, &reply, &e);
                json_decref(reply);
        }
        json_decref(names);
        free(pool);
        if (r < 0)
                return cli_fail(&e);
        for (int i = 0; i < args->n_words; i++)
                printf("%s'%s'",
                       i > 0               ? ", "
                       : args->n_words > 1 ? "created snapshots "
                                           : "created snapshot ",
                       args->words[i]);
        printf("\n");
        return EXIT_SUCCESS;
}

/* ---- list ---- */

struct tree {
        struct cli_table *table;
        json_t *nodes;    /* name -> object, of what is shown */
        json_t *children; /* name, or "" for the top -> names */
};

static bool is_shown(json_t *node, const char *volume)
{
        return !volume || strcmp(cli_text(node, "volume"), volume) == 0;
}

/* A volume that neither has snapshots nor grew from one. */
static bool is_lone(json_t *node)
{
        return !json_object_get(node, "clones") && cli_number(node, "snapshots") == 0 &&
               !json_is_string(json_object_get(node, "parent"));
}

static void keep_nodes(struct tree *t, json_t *array, const char *volume)
{
        json_t *node;
        size_t i;

        json_array_foreach (array, i, node)
                if (is_shown(node, volume) && !is_lone(node))
                        json_object_set(t->nodes, cli_text(node, "name"), node);
}

static void connect_nodes(struct tree *t)
{
        const char *name;
        json_t *node;

        json_object_foreach (t->nodes, name, node) {
                const char *parent = cli_text(node, "parent");
                json_t *list;

                if (!json_object_get(t->nodes, parent))
                        parent = "";
                list = json_object_get(t->children, parent);
                if (!list) {
                        list = json_array();
                        json_object_set_new(t->children, parent, list);
                }
                json_array_append(list, json_object_get(node, "name"));
        }
}

static struct cli_line *add_line(struct tree *t, json_t *node, struct cli_line *parent)
{
        struct cli_line *line = cli_table_line(t->table, parent);
        json_t *clones = json_object_get(node, "clones"), *clone;
        char text[512] = "";
        size_t i;

        json_array_foreach (clones, i, clone) {
                size_t used = strlen(text);

                snprintf(text + used, sizeof(text) - used, "%s%s", used ? " " : "",
                         json_string_value(clone));
        }
        cli_table_cell(line, 0, cli_text(node, "name"));
        cli_table_cell(line, 1, clones ? "snapshot" : "volume");
        cli_table_cell(line, 2, cli_time(node, "created"));
        cli_table_cell(line, 3, cli_size(node, "size"));
        cli_table_cell(line, 4, cli_size(node, "referenced"));
        cli_table_cell(line, 5, cli_size(node, "freed_if_deleted"));
        cli_table_cell(line, 6, text);
        return line;
}

/* Depth first without recursion: a chain may be a million snapshots long. */
static void add_all(struct tree *t)
{
        struct entry {
                json_t *list;
                size_t next;
                struct cli_line *line;
        } * stack;
        size_t depth = 1;

        stack = calloc(json_object_size(t->nodes) + 2, sizeof(*stack));
        if (!stack)
                cli_no_memory();
        stack[0].list = json_object_get(t->children, "");
        while (depth > 0) {
                struct entry *top = &stack[depth - 1];
                const char *name;

                if (top->next >= json_array_size(top->list)) {
                        depth--;
                        continue;
                }
                name = json_string_value(json_array_get(top->list, top->next++));
                stack[depth].line = add_line(t, json_object_get(t->nodes, name), top->line);
                stack[depth].list = json_object_get(t->children, name);
                stack[depth].next = 0;
                depth++;
        }
        free(stack);
}

static void print_tree(json_t *all, const char *volume)
{
        static const struct cli_column columns[] = {
            {"NAME", CLI_TREE},  {"KIND", CLI_LEFT},  {"CREATED", CLI_LEFT},
            {"SIZE", CLI_RIGHT}, {"USED", CLI_RIGHT}, {"FREED IF DELETED", CLI_RIGHT},
            {"CLONES", CLI_LEFT}};
        struct tree t = {
            .table = cli_table_new(columns, 7), .nodes = json_object(), .children = json_object()};

        keep_nodes(&t, json_object_get(all, "snapshots"), volume);
        keep_nodes(&t, json_object_get(all, "volumes"), volume);
        connect_nodes(&t);
        add_all(&t);
        cli_table_finish(t.table);
        json_decref(t.nodes);
        json_decref(t.children);
}

/* Of the snapshots only those of @volume, of the volumes only the one. */
static void keep_volume(json_t *array, const char *volume)
{
        for (size_t i = json_array_size(array); i-- > 0;)
                if (!is_shown(json_array_get(array, i), volume))
                        json_array_remove(array, i);
}

static int run_list(const struct cli_verb *verb, const struct cli_args *args)
{
        const char *word = args->n_words ? args->words[0] : NULL, *volume = NULL;
        char *pool = NULL;
        struct error e = ERROR_INIT;
        json_t *all = NULL;
        int status;

        if (word && strchr(word, '/') && !cli_is_member_path(word) &&
            cli_split(word, &pool, &volume, &e) < 0)
                return cli_fail(&e);
        status = cli_collect("snapshot-list", pool ? pool : word, "snapshots", "volumes", &all);
        if (volume) {
                keep_volume(json_object_get(all, "snapshots"), volume);
                keep_volume(json_object_get(all, "volumes"), volume);
        }
        if (volume && status == EXIT_SUCCESS &&
            json_array_size(json_object_get(all, "volumes")) == 0) {
                error_set(&e, -ENOENT, "there is no volume '%s'", word);
                status = cli_fail(&e);
        } else if (args->given & CLI_JSON) {
                json_object_del(all, "volumes");
                cli_print_json(all);
        } else if (json_array_size(json_object_get(all, "snapshots")) > 0) {
                print_tree(all, volume);
        } else if (status == EXIT_SUCCESS) {
                cli_note(
                    "there are no snapshots; 'tarn snapshot create POOL/VOLUME@NAME' makes one");
        }
        json_decref(all);
        free(pool);
        return status;
}

/* ---- restore, delete ---- */

/* 0 where @name (VOLUME@SNAPSHOT) is among a volume's snapshots (POOL/VOLUME@SNAPSHOT). */
static int find_snapshot(const json_t *volume, const char *word, const char *name,
                         struct error *err)
{
        json_t *snapshot;
        size_t i;

        json_array_foreach (json_object_get(volume, "snapshots"), i, snapshot)
                if (strcmp(strrchr(json_string_value(snapshot), '/') + 1, name) == 0)
                        return 0;
        return error_set(err, -ENOENT, "there is no snapshot '%s'", word);
}

/* Before a question about a snapshot: what would be refused anyway is not asked about.
 * ret_volume: the reply of volume-show. */
static int look_at(const char *word, json_t **ret_volume)
{
        struct error e = ERROR_INIT;
        const char *rest;
        char *pool = NULL;
        int r = cli_split(word, &pool, &rest, &e);

        if (r == 0 && !strchr(rest, '@'))
                r = error_set(&e, -EINVAL,
                              "'%s' is not a snapshot: snapshots are named POOL/VOLUME@SNAPSHOT",
                              word);
        if (r == 0) {
                const struct cli_call call = {.pool = pool,
                                              .request =
                                                  json_pack("{s:s, s:s%}", "command", "volume-show",
                                                            "volume", rest, strcspn(rest, "@"))};
                r = cli_try(&call, ret_volume, &e);
        }
        if (r == 0) {
                r = find_snapshot(*ret_volume, word, rest, &e);
                if (r < 0)
                        json_decref(*ret_volume);
        }
        free(pool);
        if (r < 0)
                cli_fail(&e);
        return r;
}

static bool confirm_restore(const struct cli_args *args)
{
        json_t *volume = NULL;
        bool yes;

        if (args->given & CLI_YES)
                return true;
        if (look_at(args->words[0], &volume) < 0)
                return false;
        yes = cli_refuse_used(args, "restore", cli_text(volume, "name"), volume) == 0 &&
              cli_confirm(args, "restore '%s' and lose what the volume holds now?", args->words[0]);
        json_decref(volume);
        return yes;
}

static bool confirm_delete(const struct cli_args *args)
{
        json_t *volume = NULL;

        if (args->given & CLI_YES)
                return true;
        if (look_at(args->words[0], &volume) < 0)
                return false;
        json_decref(volume);
        return cli_confirm(args, "delete snapshot '%s'?", args->words[0]);
}

static int run_restore(const struct cli_verb *verb, const struct cli_args *args)
{
        bool discard = args->given & CLI_DISCARD_CURRENT;
        json_t *request, *reply = NULL;

        if (discard && !confirm_restore(args))
                return EXIT_FAILURE;
        request = cli_request_with_force("snapshot-restore", args);
        cli_put(&request, "discard_current", json_boolean(discard));
        if (cli_call_about(args->words[0], "snapshot", request, &reply) < 0)
                return EXIT_FAILURE;
        if (json_is_string(json_object_get(reply, "kept")))
                printf("restored '%s'; what the volume held before is kept as '%s'\n",
                       args->words[0], cli_text(reply, "kept"));
        else
                printf("restored '%s'\n", args->words[0]);
        json_decref(reply);
        return EXIT_SUCCESS;
}

static int run_delete(const struct cli_verb *verb, const struct cli_args *args)
{
        json_t *reply = NULL;

        if (!confirm_delete(args))
                return EXIT_FAILURE;
        if (cli_call_about(args->words[0], "snapshot",
                           cli_request_with_force("snapshot-delete", args), &reply) < 0)
                return EXIT_FAILURE;
        json_decref(reply);
        printf("deleted snapshot '%s'\n", args->words[0]);
        return EXIT_SUCCESS;
}

/* ---- diff ---- */

static void print_diff(json_t *diff)
{
        static const struct cli_column columns[] = {{"OFFSET", CLI_RIGHT}, {"LENGTH", CLI_RIGHT}};
        json_t *ranges = json_object_get(diff, "ranges"), *range;
        struct cli_table *t;
        size_t i;

        if (json_array_size(ranges) > 0) {
                t = cli_table_new(columns, 2);
                json_array_foreach (ranges, i, range) {
                        struct cli_line *line = cli_table_line(t, NULL);

                        cli_table_cell(line, 0, cli_count(range, "offset"));
                        cli_table_cell(line, 1, cli_count(range, "length"));
                }
                cli_table_finish(t);
        }
        printf("%s changed, in %zu place%s\n", cli_size(diff, "changed_bytes"),
               json_array_size(ranges), json_array_size(ranges) == 1 ? "" : "s");
}

static int run_diff(const struct cli_verb *verb, const struct cli_args *args)
{
        const char *a, *b;
        char *pool_a = NULL, *pool_b = NULL;
        struct error e = ERROR_INIT;
        json_t *diff = NULL;
        int r;

        r = cli_split(args->words[0], &pool_a, &a, &e);
        if (r == 0)
                r = cli_split(args->words[1], &pool_b, &b, &e);
        if (r == 0 && !cli_same_pool(pool_a, pool_b))
                r = error_set(&e, -EXDEV, "'%s' and '%s' are in different pools", args->words[0],
                              args->words[1]);
        if (r == 0) {
                const struct cli_call call = {
                    .pool = pool_a,
                    .request =
                        json_pack("{s:s, s:s, s:s}", "command", "snapshot-diff", "a", a, "b", b)};
                r = cli_try(&call, &diff, &e);
        }
        free(pool_a);
        free(pool_b);
        if (r < 0)
                return cli_fail(&e);
        if (args->given & CLI_JSON)
                cli_print_json(diff);
        else
                print_diff(diff);
        json_decref(diff);
        return EXIT_SUCCESS;
}

const struct cli_verb snapshot_verbs[] = {
    {"snapshot", "create", "POOL/VOLUME@SNAPSHOT...", "keep what volumes hold at this instant",
     "Takes milliseconds and no space; works while the volume is in use. Several volumes of a\n"
     "pool are cut at one instant, all or none.\n\n"
     "Example:\n"
     "  tarn snapshot create tank/web@monday tank/db@monday\n",
     0, 1, -1, run_create},
    {"snapshot", "list", "[POOL[/VOLUME]] [--json]", "the tree of snapshots, volumes and clones",
     "A snapshot stands below the one that it grew from. FREED IF DELETED is exact; 0 where\n"
     "later snapshots or clones still hold everything.\n\n"
     "  --json   {\"snapshots\": [...]}; docs/control.md has the fields\n",
     CLI_JSON, 0, 1, run_list},
    {"snapshot", "restore", "POOL/VOLUME@SNAPSHOT [--discard-current] [--force] [--yes]",
     "take a volume back to a snapshot",
     "Any snapshot, at once; the others stay. What the volume held is kept as\n"
     "@before-restore-YYYYMMDD-HHMMSS. Refused while the volume is in use.\n\n"
     "  --discard-current   do not keep it; asks first\n"
     "  --force             although the volume is in use; clients are cut off\n"
     "  --yes               do not ask\n",
     CLI_DISCARD_CURRENT | CLI_FORCE | CLI_YES, 1, 1, run_restore},
    {"snapshot", "delete", "POOL/VOLUME@SNAPSHOT [--force] [--yes]", "delete a snapshot",
     "Also one that has clones or later branches: its name goes now, its space with the last\n"
     "that needs it. Refused while a guest has it as a disk; whoever reads it over NBD goes on.\n\n"
     "  --force   although a guest has it, which loses its disk\n"
     "  --yes     do not ask\n",
     CLI_FORCE | CLI_YES, 1, 1, run_delete},
    {"snapshot", "diff", "A B [--json]", "where two snapshots, or a snapshot and a volume, differ",
     "A and B are POOL/VOLUME or POOL/VOLUME@SNAPSHOT, of one pool.\n\n"
     "  --json   {\"a\", \"b\", \"changed_bytes\", \"ranges\": [{\"offset\", \"length\"}]}\n",
     CLI_JSON, 2, 2, run_diff},
    {0},
};
