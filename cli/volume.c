/* volume.c - tarn volume ... */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/list.h"
#include "server/control.h"
#include "server/listen.h"

__attribute__((format(printf, 3, 4))) static int done(int r, json_t *reply, const char *format, ...)
{
        va_list ap;

        if (r < 0)
                return EXIT_FAILURE;
        json_decref(reply);
        va_start(ap, format);
        vprintf(format, ap);
        va_end(ap);
        return EXIT_SUCCESS;
}

static int parse_size(const char *text, uint64_t *ret)
{
        struct error e = ERROR_INIT;
        int r = size_parse(text, ret, &e);

        if (r < 0)
                cli_fail(&e);
        return r;
}

/* ---- list and show ---- */

static void print_volumes(json_t *volumes)
{
        static const struct cli_column columns[] = {{"VOLUME", CLI_LEFT},     {"SIZE", CLI_RIGHT},
                                                    {"USED", CLI_RIGHT},      {"OWN", CLI_RIGHT},
                                                    {"SNAPSHOTS", CLI_RIGHT}, {"CREATED", CLI_LEFT},
                                                    {"ORIGIN", CLI_LEFT}};
        struct cli_table *t = cli_table_new(columns, 7);
        json_t *v;
        size_t i;

        json_array_foreach (volumes, i, v) {
                struct cli_line *line = cli_table_line(t, NULL);

                cli_table_cell(line, 0, cli_text(v, "name"));
                cli_table_cell(line, 1, cli_size(v, "size"));
                cli_table_cell(line, 2, cli_size(v, "referenced"));
                cli_table_cell(line, 3, cli_size(v, "freed_if_deleted"));
                cli_table_cell(line, 4, cli_count(v, "snapshots"));
                cli_table_cell(line, 5, cli_time(v, "created"));
                cli_table_cell(line, 6, cli_text(v, "parent"));
        }
        cli_table_finish(t);
}

static int run_list(const struct cli_verb *verb, const struct cli_args *args)
{
        json_t *all = NULL, *volumes;
        int status = cli_collect("volume-list", args->n_words ? args->words[0] : NULL, "volumes",
                                 NULL, &all);

        volumes = json_object_get(all, "volumes");
        if (args->given & CLI_JSON)
                cli_print_json(all);
        else if (json_array_size(volumes) > 0)
                print_volumes(volumes);
        else if (status == EXIT_SUCCESS)
                cli_note(
                    "there are no volumes; 'tarn volume create' makes one, 'tarn image import' "
                    "fills one");
        json_decref(all);
        return status;
}

static void print_attachments(json_t *attached)
{
        json_t *a, *client;
        size_t i, k;

        json_array_foreach (attached, i, a) {
                printf("%-12s %s (queues: %llu%s)", i == 0 ? "attached at" : "",
                       cli_text(a, "path"), (unsigned long long)cli_number(a, "queues"),
                       json_is_true(json_object_get(a, "readonly")) ? ", read-only" : "");
                json_array_foreach (json_object_get(a, "clients"), k, client) {
                        printf("%s ", k == 0 ? ", connected:" : ",");
                        if (json_is_string(json_object_get(a, "machine")))
                                printf("machine '%s' ", cli_text(a, "machine"));
                        printf("pid %llu", (unsigned long long)cli_number(client, "pid"));
                }
                printf("\n");
        }
}

static void print_base(json_t *base)
{
        if (!base)
                return;
        cli_say("base         %s (%s, %s)", cli_text(base, "path"), cli_text(base, "format"),
                cli_size(base, "size"));
        if (json_is_true(json_object_get(base, "complete")))
                printf("             all of it is in the pool, and the image is not needed\n");
        else
                printf("             %s of data copied%s\n", cli_size(base, "copied"),
                       json_is_true(json_object_get(base, "hydrating")) ? ", and going on" : "");
        if (json_is_string(json_object_get(base, "problem")))
                cli_say("             %s", cli_text(base, "problem"));
}

static void print_volume(json_t *v)
{
        json_t *value, *snapshots = json_object_get(v, "snapshots");
        const char *key;
        size_t i;

        printf("volume       %s\n", cli_text(v, "name"));
        printf("uuid         %s\n", cli_text(v, "uuid"));
        printf("size         %s (%llu bytes)\n", cli_size(v, "size"),
               (unsigned long long)cli_number(v, "size"));
        printf("used         %s; deleting it frees %s\n", cli_size(v, "referenced"),
               cli_size(v, "freed_if_deleted"));
        printf("created      %s\n", cli_time(v, "created"));
        if (json_is_string(json_object_get(v, "parent")))
                printf("origin       %s\n", cli_text(v, "parent"));
        print_base(json_object_get(v, "base"));
        if (cli_text(v, "used_by")[0])
                printf("in use by    %s\n", cli_text(v, "used_by"));
        print_attachments(json_object_get(v, "attached"));
        json_object_foreach (json_object_get(v, "properties"), key, value)
                printf("%-12s %s\n", key, json_string_value(value));
        json_array_foreach (snapshots, i, value)
                printf("%-12s %s\n", i == 0 ? "snapshots" : "", json_string_value(value));
}

static int run_show(const struct cli_verb *verb, const struct cli_args *args)
{
        json_t *v = NULL;

        if (cli_call_about(args->words[0], "volume", json_pack("{s:s}", "command", "volume-show"),
                           &v) < 0)
                return EXIT_FAILURE;
        if (args->given & CLI_JSON)
                cli_print_json(v);
        else
                print_volume(v);
        json_decref(v);
        return EXIT_SUCCESS;
}

/* ---- change ---- */

static int run_resize(const struct cli_verb *verb, const struct cli_args *args)
{
        json_t *request, *v = NULL, *reply = NULL;
        char text[SIZE_TEXT_MAX];
        bool shrink;
        uint64_t size;
        int r;

        if (parse_size(args->words[1], &size) < 0 ||
            cli_call_about(args->words[0], "volume", json_pack("{s:s}", "command", "volume-show"),
                           &v) < 0)
                return EXIT_FAILURE;
        shrink = size < cli_number(v, "size");
        if (shrink && size > 0) {
                bool yes =
                    cli_refuse_used(args, "shrink", args->words[0], v) == 0 &&
                    cli_confirm(args,
                                "shrink '%s' from %s to %s? The %llu bytes behind the new end are "
                                "lost.",
                                args->words[0], cli_size(v, "size"), size_format(size, text),
                                (unsigned long long)(cli_number(v, "size") - size));

                if (!yes) {
                        json_decref(v);
                        return EXIT_FAILURE;
                }
        }
        json_decref(v);
        request = cli_request_with_force("volume-resize", args);
        cli_put(&request, "size", json_integer((json_int_t)size));
        cli_put(&request, "shrink", json_boolean(shrink));
        r = cli_call_about(args->words[0], "volume", request, &reply);
        return done(r, reply, "volume '%s' has %s now\n", args->words[0], size_format(size, text));
}

/* NEW may be written with the pool, as the volume is. */
static int new_name(const char *word, const char *volume, const char **ret)
{
        struct error e = ERROR_INIT;
        const char *rest;
        char *pool = NULL, *new_pool = NULL;
        int r = 0;

        *ret = word;
        if (strchr(word, '/')) {
                r = cli_split(word, &new_pool, ret, &e);
                if (r == 0)
                        r = cli_split(volume, &pool, &rest, &e);
                if (r == 0 && !cli_same_pool(pool, new_pool))
                        r = error_set(&e, -EXDEV,
                                      "'%s' is in another pool: a volume stays in its pool", word);
        }
        free(pool);
        free(new_pool);
        if (r < 0)
                cli_fail(&e);
        return r;
}

static int run_rename(const struct cli_verb *verb, const struct cli_args *args)
{
        json_t *reply = NULL;
        const char *name;
        int r;

        if (new_name(args->words[1], args->words[0], &name) < 0)
                return EXIT_FAILURE;
        r = cli_call_about(args->words[0], "volume",
                           json_pack("{s:s, s:s}", "command", "volume-rename", "new_name", name),
                           &reply);
        return done(r, reply, "renamed volume '%s' to '%s'\n", args->words[0], name);
}

static int run_delete(const struct cli_verb *verb, const struct cli_args *args)
{
        json_t *request, *reply = NULL, *v = NULL;
        size_t n_snapshots;
        bool with_snapshots = args->given & CLI_SNAPSHOTS, yes;
        int r;

        if (cli_call_about(args->words[0], "volume", json_pack("{s:s}", "command", "volume-show"),
                           &v) < 0)
                return EXIT_FAILURE;
        n_snapshots = json_array_size(json_object_get(v, "snapshots"));
        r = cli_refuse_used(args, "delete", args->words[0], v);
        json_decref(v);
        if (r < 0)
                return EXIT_FAILURE;
        if (n_snapshots > 0 && !with_snapshots)
                yes = true; /* refused below, with a better sentence */
        else if (n_snapshots > 0)
                yes = cli_confirm(args, "delete volume '%s' and its %zu snapshot%s?",
                                  args->words[0], n_snapshots, n_snapshots == 1 ? "" : "s");
        else
                yes = cli_confirm(args, "delete volume '%s'?", args->words[0]);
        if (!yes)
                return EXIT_FAILURE;
        request = cli_request_with_force("volume-delete", args);
        cli_put(&request, "snapshots", json_boolean(with_snapshots));
        r = cli_call_about(args->words[0], "volume", request, &reply);
        return done(r, reply, "deleted volume '%s'\n", args->words[0]);
}

static int run_set(const struct cli_verb *verb, const struct cli_args *args)
{
        json_t *properties = json_object(), *reply = NULL, *note;
        size_t i;

        for (int w = 1; w < args->n_words; w++) {
                const char *equals = strchr(args->words[w], '=');
                char key[64];

                if (!equals || equals == args->words[w] ||
                    (size_t)(equals - args->words[w]) >= sizeof(key)) {
                        struct error e = ERROR_INIT;

                        json_decref(properties);
                        error_set(&e, -EINVAL, "'%s' is not a property and its value",
                                  args->words[w]);
                        error_hint(&e, "write PROPERTY=VALUE");
                        return cli_fail(&e);
                }
                snprintf(key, sizeof(key), "%.*s", (int)(equals - args->words[w]), args->words[w]);
                json_object_set_new(properties, key, json_string(equals + 1));
        }
        if (cli_call_about(
                args->words[0], "volume",
                json_pack("{s:s, s:o}", "command", "volume-set", "properties", properties),
                &reply) < 0)
                return EXIT_FAILURE;
        json_array_foreach (json_object_get(reply, "notes"), i, note)
                cli_note("%s", json_string_value(note));
        json_decref(reply);
        return EXIT_SUCCESS;
}

static int run_clone(const struct cli_verb *verb, const struct cli_args *args)
{
        json_t *reply = NULL;
        const char *name;
        int r;

        if (new_name(args->words[1], args->words[0], &name) < 0)
                return EXIT_FAILURE;
        r = cli_call_about(args->words[0], "snapshot",
                           json_pack("{s:s, s:s}", "command", "volume-clone", "volume", name),
                           &reply);
        return done(r, reply, "cloned '%s' as volume '%s'\n", args->words[0], args->words[1]);
}

/* ---- attach ---- */

static int usage(const char *sentence, const char *hint)
{
        struct error e = ERROR_INIT;

        error_set(&e, -EINVAL, "%s", sentence);
        error_hint(&e, "%s", hint);
        cli_fail(&e);
        return EXIT_USAGE;
}

static int parse_queues(const char *text, uint64_t *ret)
{
        struct error e = ERROR_INIT;

        if (size_parse(text, ret, &e) < 0 || *ret < 1 || *ret > VHOST_QUEUES_MAX) {
                error_set(&e, -EINVAL, "a device has 1 to %u queues, not '%s'", VHOST_QUEUES_MAX,
                          text);
                cli_fail(&e);
                return -EINVAL;
        }
        return 0;
}

/* As the next server would make it: for the server's group too. */
static void give_to_group(const char *path, json_t *reply)
{
        json_t *group = json_object_get(reply, "group");

        if (json_is_integer(group) &&
            (chown(path, (uid_t)-1, (gid_t)json_integer_value(group)) < 0 || chmod(path, 0660) < 0))
                cli_note("the socket cannot be given to the server's group: %s", strerror(errno));
}

/* The socket is made here, by whoever types the command, and passed on. @request is taken. */
static int attach(const struct cli_args *args, const char *path, json_t *request)
{
        struct error e = ERROR_INIT;
        const char *volume;
        json_t *reply = NULL;
        gid_t group;
        char *pool;
        int fd, r;

        if (group_find(args->group, &group, &e) < 0 ||
            cli_split(args->words[0], &pool, &volume, &e) < 0) {
                json_decref(request);
                return cli_fail(&e);
        }
        cli_put(&request, "volume", json_string(volume));
        r = socket_listen_unix(path, group, &fd, &e);
        if (r < 0) {
                json_decref(request);
                free(pool);
                return cli_fail(&e);
        }
        r = cli_call(&(struct cli_call){.pool = pool, .request = request, .fds = &fd, .n_fds = 1},
                     &reply);
        if (r < 0)
                unlink(path);
        else
                give_to_group(path, reply);
        close(fd);
        free(pool);
        return done(r, reply, "attached '%s' at '%s'\n", args->words[0], path);
}

static int run_attach(const struct cli_verb *verb, const struct cli_args *args)
{
        uint64_t n_queues = 0;
        json_t *request;
        char *path;
        int status;

        if (!args->vhost_user)
                return usage("'attach' needs the path of a socket", "write --vhost-user PATH");
        if (args->queues && parse_queues(args->queues, &n_queues) < 0)
                return EXIT_FAILURE;
        path = absolute_path(args->vhost_user);
        request = json_pack("{s:s, s:s?, s:b}", "command", "volume-attach", "path", path,
                            "readonly", (int)((args->given & CLI_READONLY) != 0));
        if (args->group)
                cli_put(&request, "group", json_string(args->group));
        if (args->queues)
                cli_put(&request, "queues", json_integer((json_int_t)n_queues));
        if (path && request) {
                status = attach(args, path, request);
        } else {
                status = cli_fail(&(struct error){.code = -ENOMEM, .message = "out of memory"});
                json_decref(request);
        }
        free(path);
        return status;
}

static int run_detach(const struct cli_verb *verb, const struct cli_args *args)
{
        json_t *reply = NULL;
        const char *path;
        int r = cli_call_about(args->words[0], "volume",
                               cli_request_with_force("volume-detach", args), &reply);

        /* Whoever made the socket takes it away; a server has done so with its own, and there may be
         * another's by now. */
        path = json_string_value(json_object_get(reply, "path"));
        if (r == 0 && path)
                socket_remove_left(path);
        return done(r, reply, "detached '%s'\n", args->words[0]);
}

const struct cli_verb volume_verbs[] = {
    {"volume", "create",
     "POOL/VOLUME [SIZE] [--base FILE|URI] [--format F] [--backing-format F] [--snapshot NAME] "
     "[--allow PATH]... [--hydrate] [--bandwidth SIZE]",
     "make a volume, empty or on an image",
     "SIZE takes K, M, G, T (1024); it is a multiple of 512. Space is taken as it is written:\n"
     "volumes may add up to more than the pool has.\n\n"
     "On an image it is there at once: what is not written yet is read from FILE, which has to\n"
     "stay as it is until all of it was copied into the pool. Without SIZE it is as large as the\n"
     "image. Snapshots and clones share what is copied.\n\n"
     "  --base FILE|URI    a disk image of any format that 'tarn image info' knows, or an NBD\n"
     "                     export: nbd://HOST[:PORT]/NAME, nbd+unix:///NAME?socket=PATH, "
     "nbds://...\n"
     "  --format F         take the file as this format, whatever it looks like\n"
     "  --backing-format F, --snapshot NAME, --allow PATH   as for 'tarn image import'\n"
     "  --hydrate          copy the image in the background; see 'tarn volume hydrate'\n"
     "  --bandwidth SIZE   at most so many bytes a second of it\n\n"
     "Examples:\n"
     "  tarn volume create tank/web 40G\n"
     "  tarn volume create tank/web --base golden.qcow2 --hydrate\n"
     "  tarn volume create tank/copy --base nbd://other.example/web@monday\n",
     CLI_BASE | CLI_FORMAT | CLI_BACKING_FORMAT | CLI_SNAPSHOT | CLI_ALLOW | CLI_HYDRATE |
         CLI_BANDWIDTH,
     1, 2, cli_run_create},
    {"volume", "hydrate", "POOL/VOLUME [--bandwidth SIZE] [--stop]",
     "copy the image that a volume stands on into the pool",
     "A server does it in the background, and goes on when it is started again; without one it is\n"
     "done here. When all of it is there the image is not needed any more.\n\n"
     "  --bandwidth SIZE   at most so many bytes a second; without, as fast as it goes\n"
     "  --stop             not any further for now\n",
     CLI_BANDWIDTH | CLI_STOP, 1, 1, cli_run_hydrate},
    {"volume", "rebase",
     "POOL/VOLUME FILE|URI [--format F] [--backing-format F] [--snapshot NAME] [--allow PATH]...",
     "say where the image is now that a volume stands on",
     "It has been moved, or converted, or is served elsewhere. What a guest would read of it has "
     "to\n"
     "be the same: the size, the beginning, the end and places between are compared. What was\n"
     "copied stays, and all volumes on the image find it there from now on.\n\n"
     "  --format F, --backing-format F, --snapshot NAME, --allow PATH   as for 'create'\n",
     CLI_FORMAT | CLI_BACKING_FORMAT | CLI_SNAPSHOT | CLI_ALLOW, 2, 2, cli_run_rebase},
    {"volume", "list", "[POOL] [--json]", "the volumes, their sizes and what they take",
     "USED is the data that a volume refers to, OWN what comes back when it is deleted; the\n"
     "difference is shared with snapshots and clones.\n\n"
     "  --json   {\"volumes\": [...]}; docs/control.md has the fields\n",
     CLI_JSON, 0, 1, run_list},
    {"volume", "show", "POOL/VOLUME [--json]", "all about one volume, with its properties",
     "  --json   an object; docs/control.md has the fields\n", CLI_JSON, 1, 1, run_show},
    {"volume", "resize", "POOL/VOLUME SIZE [--yes] [--force]", "make a volume larger or smaller",
     "Growing works while the volume is in use. Shrinking loses what lies behind the new end,\n"
     "asks first, and is refused while the volume is in use.\n\n"
     "  --yes     do not ask\n"
     "  --force   shrink although it is in use; clients are cut off\n",
     CLI_YES | CLI_FORCE, 2, 2, run_resize},
    {"volume", "rename", "POOL/VOLUME NEW", "give a volume another name",
     "Its snapshots go with it. NEW is the name alone, or POOL/NEW.\n", 0, 2, 2, run_rename},
    {"volume", "delete", "POOL/VOLUME [--snapshots] [--yes] [--force]",
     "delete a volume; its space comes back in the background",
     "  --snapshots   delete its snapshots too\n"
     "  --yes         do not ask\n"
     "  --force       although it is in use; clients are cut off\n",
     CLI_SNAPSHOTS | CLI_YES | CLI_FORCE, 1, 1, run_delete},
    {"volume", "set", "POOL/VOLUME PROPERTY=VALUE...", "change properties",
     "  iops=N, bandwidth=SIZE         what all its clients together may do a second: requests\n"
     "                                 other than flushes, and bytes read and written; 0 or none\n"
     "                                 takes a limit away\n"
     "  iops-burst=N, bandwidth-burst=SIZE\n"
     "                                 how much of it at once after a pause (default: a tenth of\n"
     "                                 a second's)\n"
     "  on-full=wait|enospc|auto       what a writer does when the pool is full: wait until there\n"
     "                                 is space, or get an error (default: virtual machines\n"
     "                                 wait, NBD clients get an error)\n"
     "  discard=on|off                 whether guests may give space back; off: not offered, and\n"
     "                                 what they discard all the same stays\n"
     "  compression=off|zstd\n\n"
     "Changes are in force at once, for clients that are connected as well. An empty value takes\n"
     "the default again. A note says where this version of tarn remembers\n"
     "a value and does not act on it yet.\n",
     0, 2, -1, run_set},
    {"volume", "clone", "POOL/VOLUME@SNAPSHOT POOL/NEW", "make a writable copy of a snapshot",
     "Takes milliseconds and no space, whatever the size.\n", 0, 2, 2, run_clone},
    {"volume", "attach",
     "POOL/VOLUME[@SNAPSHOT] --vhost-user PATH [--queues N] [--readonly] [--group G]",
     "offer a volume to virtual machines over vhost-user",
     "The pool must be served. The volume is offered on a Unix socket until it is detached, also\n"
     "after the server was started again: QEMU's vhost-user-blk-pci, Cloud Hypervisor and others\n"
     "connect to it. Snapshots are read-only.\n\n"
     "  --vhost-user PATH   where the socket is made\n"
     "  --queues N          the most queues that a guest may use (default and limit: 16)\n"
     "  --readonly          nobody writes\n"
     "  --group G           who may connect beside you: this group (default: the one of 'serve\n"
     "                      --group', if any)\n\n"
     "Example:\n"
     "  tarn volume attach tank/web --vhost-user /run/tarn/web.sock\n"
     "  qemu-system-x86_64 -object memory-backend-memfd,id=m,size=1G,share=on \\\n"
     "      -machine q35,memory-backend=m -m 1G \\\n"
     "      -chardev socket,id=c,path=/run/tarn/web.sock,reconnect=1 \\\n"
     "      -device vhost-user-blk-pci,chardev=c\n",
     CLI_VHOST_USER | CLI_QUEUES | CLI_READONLY | CLI_GROUP, 1, 1, run_attach},
    {"volume", "detach", "POOL/VOLUME[@SNAPSHOT] [--force]", "end an attachment",
     "Refused while a virtual machine is connected.\n\n"
     "  --force   cut it off\n",
     CLI_FORCE, 1, 1, run_detach},
    {0},
};
