/* vm.c - tarn vm ... */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/vm.h"
#include "server/state.h"
#include "vm/change.h"
#include "vm/saved.h"
#include "vm/vm.h"

/* ---- run and start ---- */

static int run_run(const struct cli_verb *verb, const struct cli_args *args)
{
        return cli_run_machine(args->words[0], false);
}

static int run_start(const struct cli_verb *verb, const struct cli_args *args)
{
        return args->given & CLI_AUTOSTART ? cli_autostart(args->words[0])
                                           : cli_run_machine(args->words[0], true);
}

/* ---- list and show ---- */

static json_t *disks_of(const struct vm_file *file)
{
        json_t *all = json_array();

        for (size_t i = 0; i < file->n_disks; i++) {
                char text[VM_DISK_TEXT_SIZE];

                json_array_append_new(all, json_pack("{s:s, s:b}", "volume",
                                                     vm_disk_text(&file->disks[i], text),
                                                     "readonly", (int)file->disks[i].readonly));
        }
        return all;
}

/* One that does not run, as its file has it. */
static int show_file(const char *name, json_t **ret, struct error *err)
{
        char uuid[UUID_TEXT_SIZE];
        json_t *snapshots;
        struct known *k;
        int r = known_open(name, &k, err);

        if (r < 0)
                return r;
        r = saved_list(name, &snapshots, err);
        if (r < 0) {
                known_free(k);
                return r;
        }
        uuid_format(k->file->uuid, uuid);
        *ret = json_pack("{s:s, s:s, s:s, s:i, s:I, s:b, s:o, s:o}", "name", name, "uuid", uuid,
                         "state", "off", "cpus", (int)k->file->n_cpus, "memory",
                         (json_int_t)k->file->memory_bytes, "autostart", (int)k->file->autostart,
                         "disks", disks_of(k->file), "snapshots", snapshots);
        known_free(k);
        return *ret ? 0 : error_set(err, -ENOMEM, "out of memory");
}

static int show(const char *name, json_t **ret, struct error *err)
{
        int r = vm_ask(name, json_pack("{s:s}", "command", "show"), ret, err);

        if (r != -ENOTCONN)
                return r;
        r = show_file(name, ret, err);
        /* It is about to run, or to end. */
        if (r == 0 && known_runner(name) > 0)
                json_object_set_new(*ret, "state", json_string("starting"));
        return r;
}

static void print_list(json_t *machines)
{
        static const struct cli_column columns[] = {{"NAME", CLI_LEFT},   {"STATE", CLI_LEFT},
                                                    {"CPUS", CLI_RIGHT},  {"MEMORY", CLI_RIGHT},
                                                    {"DISKS", CLI_RIGHT}, {"AUTOSTART", CLI_LEFT},
                                                    {"PID", CLI_RIGHT}};
        struct cli_table *t = cli_table_new(columns, sizeof(columns) / sizeof(columns[0]));
        json_t *machine;
        size_t i;

        json_array_foreach (machines, i, machine) {
                struct cli_line *line = cli_table_line(t, NULL);
                char disks[24];

                snprintf(disks, sizeof(disks), "%zu",
                         json_array_size(json_object_get(machine, "disks")));
                cli_table_cell(line, 0, cli_text(machine, "name"));
                cli_table_cell(line, 1, cli_text(machine, "state"));
                cli_table_cell(line, 2, cli_count(machine, "cpus"));
                cli_table_cell(line, 3, cli_size(machine, "memory"));
                cli_table_cell(line, 4, disks);
                cli_table_cell(line, 5,
                               json_is_true(json_object_get(machine, "autostart")) ? "yes" : "no");
                cli_table_cell(line, 6,
                               json_object_get(machine, "pid") ? cli_count(machine, "pid") : "");
        }
        cli_table_finish(t);
}

static int run_list(const struct cli_verb *verb, const struct cli_args *args)
{
        json_t *machines = json_array(), *all = json_pack("{s:o}", "machines", machines);
        struct error e = ERROR_INIT;
        char **names = NULL;
        size_t n = 0;
        int status = EXIT_SUCCESS;

        if (known_names(&names, &n, &e) < 0)
                status = cli_fail(&e);
        for (size_t i = 0; i < n; i++) {
                json_t *machine = NULL;

                if (show(names[i], &machine, &e) < 0)
                        status = cli_fail(&e);
                else
                        json_array_append_new(machines, machine);
        }
        if (args->given & CLI_JSON)
                cli_print_json(all);
        else if (json_array_size(machines) > 0)
                print_list(machines);
        else if (status == EXIT_SUCCESS)
                cli_note("there are no machines; 'tarn vm run FILE' starts one");
        state_names_free(names, n);
        json_decref(all);
        return status;
}

static void print_snapshots(json_t *snapshots)
{
        json_t *snapshot;
        size_t i;

        json_array_foreach (snapshots, i, snapshot) {
                bool memory = !json_is_null(json_object_get(snapshot, "memory"));

                printf("%-12s %s, %s, %s%s\n", i == 0 ? "snapshots" : "",
                       cli_text(snapshot, "name"), cli_time(snapshot, "created"),
                       memory ? "memory " : "disks only",
                       memory ? cli_size(snapshot, "memory") : "");
        }
}

static void print_disk(const json_t *disk, const char *title)
{
        const char *problem = json_string_value(json_object_get(disk, "problem"));
        bool waits = json_is_false(json_object_get(disk, "connected"));

        printf("%-12s %s%s%s%s%s%s\n", title, cli_text(disk, "volume"),
               json_is_true(json_object_get(disk, "readonly")) ? " (read-only)" : "",
               json_is_true(json_object_get(disk, "attached")) ? ", attached since its start" : "",
               waits ? ", waiting for its server" : "", waits && problem ? ": " : "",
               waits && problem ? problem : "");
}

static void print_machine(json_t *machine)
{
        json_t *disk;
        size_t i;

        printf("machine      %s\n", cli_text(machine, "name"));
        printf("uuid         %s\n", cli_text(machine, "uuid"));
        printf("state        %s%s\n", cli_text(machine, "state"),
               json_is_true(json_object_get(machine, "panicked")) ? ", its kernel has panicked"
                                                                  : "");
        printf("cpus         %s\n", cli_count(machine, "cpus"));
        printf("memory       %s\n", cli_size(machine, "memory"));
        printf("autostart    %s\n",
               json_is_true(json_object_get(machine, "autostart")) ? "yes" : "no");
        if (json_object_get(machine, "pid"))
                printf("processes    %llu, %llu of the guest\n",
                       (unsigned long long)cli_number(machine, "pid"),
                       (unsigned long long)cli_number(machine, "vmm_pid"));
        json_array_foreach (json_object_get(machine, "disks"), i, disk)
                print_disk(disk, i == 0 ? "disks" : "");
        print_snapshots(json_object_get(machine, "snapshots"));
}

static int run_show(const struct cli_verb *verb, const struct cli_args *args)
{
        struct error e = ERROR_INIT;
        json_t *machine = NULL;

        if (show(args->words[0], &machine, &e) < 0)
                return cli_fail(&e);
        if (args->given & CLI_JSON)
                cli_print_json(machine);
        else
                print_machine(machine);
        json_decref(machine);
        return EXIT_SUCCESS;
}

/* ---- while it runs ---- */

static int tell(const char *name, json_t *request, json_t **ret_reply, const char *done)
{
        struct error e = ERROR_INIT;

        if (vm_ask(name, request, ret_reply, &e) < 0)
                return cli_fail(&e);
        if (done)
                printf("%s '%s'\n", done, name);
        return EXIT_SUCCESS;
}

static int run_reset(const struct cli_verb *verb, const struct cli_args *args)
{
        return tell(args->words[0], json_pack("{s:s}", "command", "reset"), NULL, "reset");
}

static int run_pause(const struct cli_verb *verb, const struct cli_args *args)
{
        return tell(args->words[0], json_pack("{s:s}", "command", "pause"), NULL, "paused");
}

static int run_resume(const struct cli_verb *verb, const struct cli_args *args)
{
        return tell(args->words[0], json_pack("{s:s}", "command", "resume"), NULL, "resumed");
}

/* ---- its file ---- */

struct change {
        struct vm_disk disk;
        int (*apply)(struct known *k, const struct vm_disk *disk, struct error *err);
};

/* By its supervisor where it runs; else here. */
static int change_disk(const char *command, const struct cli_args *args, struct change *change,
                       struct error *err)
{
        bool readonly = args->given & CLI_READONLY;
        struct known *k;
        int r = change_parse_disk(args->words[1], readonly, &change->disk, err);

        if (r == 0)
                r = vm_ask(args->words[0],
                           json_pack("{s:s, s:s, s:b}", "command", command, "volume",
                                     args->words[1], "readonly", (int)readonly),
                           NULL, err);
        if (r != -ENOTCONN)
                return r;
        r = known_lock(args->words[0], &k, err);
        if (r < 0)
                return r;
        r = change->apply(k, &change->disk, err);
        known_free(k);
        return r;
}

static int run_attach(const struct cli_verb *verb, const struct cli_args *args)
{
        struct change change = {.apply = change_add_disk};
        struct error e = ERROR_INIT;

        if (change_disk("attach", args, &change, &e) < 0)
                return cli_fail(&e);
        printf("attached '%s' to '%s'\n", args->words[1], args->words[0]);
        return EXIT_SUCCESS;
}

static int run_detach(const struct cli_verb *verb, const struct cli_args *args)
{
        struct change change = {.apply = change_drop_disk};
        struct error e = ERROR_INIT;

        if (change_disk("detach", args, &change, &e) < 0)
                return cli_fail(&e);
        printf("detached '%s' from '%s'\n", args->words[1], args->words[0]);
        return EXIT_SUCCESS;
}

static int set_here(const char *name, json_t *words, struct error *err)
{
        struct known *k;
        json_t *word;
        size_t i;
        int r = known_lock(name, &k, err);

        if (r < 0)
                return r;
        json_array_foreach (words, i, word) {
                r = change_set(k, json_string_value(word), err);
                if (r < 0)
                        break;
        }
        known_free(k);
        return r;
}

/* What is set, for a process that works elsewhere. */
static int take_words(const struct cli_args *args, json_t **ret_words, struct error *err)
{
        json_t *words = json_array();
        int r = 0;

        for (int i = 1; r == 0 && i < args->n_words; i++) {
                char *word = NULL;

                r = change_absolute(args->words[i], &word, err);
                if (r == 0 && json_array_append_new(words, json_string(word)) < 0)
                        r = error_set(err, -EINVAL, "'%s' is not text in UTF-8", word);
                free(word);
        }
        *ret_words = words;
        return r;
}

static int run_set(const struct cli_verb *verb, const struct cli_args *args)
{
        json_t *words, *reply = NULL;
        struct error e = ERROR_INIT;
        int r = take_words(args, &words, &e);

        if (r == 0)
                r = vm_ask(args->words[0],
                           json_pack("{s:s, s:O}", "command", "set", "properties", words), &reply,
                           &e);
        if (r == -ENOTCONN)
                r = set_here(args->words[0], words, &e);
        else if (r == 0 && json_is_true(json_object_get(reply, "later")))
                cli_note("this counts when '%s' is started next", args->words[0]);
        json_decref(words);
        json_decref(reply);
        return r < 0 ? cli_fail(&e) : EXIT_SUCCESS;
}

/* Those that no other machine is likely to need: snapshots stay, with what they are of. */
static int delete_volumes(const struct vm_file *file)
{
        for (size_t i = 0; i < file->n_disks; i++) {
                const struct vm_disk *disk = &file->disks[i];
                struct error e = ERROR_INIT;
                json_t *reply = NULL;
                struct cli_call call = {.pool = disk->pool};
                int r;

                if (disk->readonly)
                        continue;
                call.request =
                    json_pack("{s:s, s:s}", "command", "volume-delete", "volume", disk->volume);
                r = cli_try(&call, &reply, &e);
                json_decref(reply);
                if (r < 0 && r != -ENOENT)
                        return cli_fail(&e);
        }
        return EXIT_SUCCESS;
}

static int run_delete(const struct cli_verb *verb, const struct cli_args *args)
{
        bool volumes = args->given & CLI_VOLUMES;
        struct error e = ERROR_INIT;
        int status = EXIT_SUCCESS;
        struct known *k;

        if (strchr(args->words[0], '@'))
                return cli_vm_delete_snapshot(args, args->words[0]);
        if (known_lock(args->words[0], &k, &e) < 0)
                return cli_fail(&e);
        if (volumes && !cli_confirm(args, "Delete machine '%s' and its %zu volumes?", k->name,
                                    k->file->n_disks))
                status = EXIT_FAILURE;
        if (status == EXIT_SUCCESS && volumes)
                status = delete_volumes(k->file);
        if (status == EXIT_SUCCESS &&
            (saved_remove_all(k->name, &e) < 0 || known_remove(k, &e) < 0))
                status = cli_fail(&e);
        if (status == EXIT_SUCCESS)
                printf("deleted '%s'\n", k->name);
        known_free(k);
        return status;
}

const struct cli_verb vm_verbs[] = {
    {"vm", "run", "FILE", "run a machine, with its console on this terminal",
     "FILE is described in tarn-vm-file(5); the name of a machine that was started before serves\n"
     "too. Volumes with 'from:' or 'size:' that do not exist are made. A pool that nobody serves\n"
     "gets a server, which ends by itself when nobody uses it any more.\n\n"
     "Ends when the guest switches itself off. SIGTERM presses the power button; a second one,\n"
     "or 60 seconds, stop the machine by force. On a terminal keys go to the guest, but for\n"
     "Ctrl-] and another one: q stops it by force, p presses the power button, r resets it.\n\n"
     "Example:\n"
     "  tarn vm run web.yaml\n",
     0, 1, 1, run_run},
    {"vm", "start", "FILE|--autostart [FOLDER]", "start a machine in the background",
     "Returns when the guest runs. 'vm console' shows what it says. FILE as in 'vm run'.\n\n"
     "  --autostart   all machines whose file says 'autostart: yes', one after the other: those\n"
     "                that were started before, and those of the files *.yaml in FOLDER\n",
     CLI_AUTOSTART, 1, 1, run_start},
    {"vm", "list", "[--json]", "the machines that were started before, and which of them run",
     "  --json   {\"machines\": [...]}; docs/control.md has the fields\n", CLI_JSON, 0, 0,
     run_list},
    {"vm", "show", "NAME [--json]", "all about one machine",
     "  --json   an object; docs/control.md has the fields\n", CLI_JSON, 1, 1, run_show},
    {"vm", "console", "NAME", "the serial console of a machine that runs",
     "Begins with what the guest has said last, up to 64 KiB. Several may look on, and type.\n"
     "Ctrl-] q leaves it, Ctrl-] ? lists the other keys.\n",
     0, 1, 1, cli_run_console},
    {"vm", "stop", "NAME|--autostart [--force] [--timeout S]",
     "press the power button, and wait for the end",
     "  --autostart   all that run and whose file says 'autostart: yes', at the same time\n"
     "  --force       do not ask the guest: what it has not written is lost\n"
     "  --timeout S   seconds after which it is stopped by force (default 60)\n",
     CLI_AUTOSTART | CLI_FORCE | CLI_TIMEOUT, 1, 1, cli_run_vm_stop},
    {"vm", "reset", "NAME", "start a machine anew, as its reset button does",
     "The guest is not asked: what it has not written is lost.\n", 0, 1, 1, run_reset},
    {"vm", "pause", "NAME", "hold a machine's processors", "", 0, 1, 1, run_pause},
    {"vm", "resume", "NAME", "let a machine go on that was paused", "", 0, 1, 1, run_resume},
    {"vm", "attach", "NAME POOL/VOLUME[@SNAPSHOT] [--readonly]", "give a machine another disk",
     "At once where it runs, and at its next starts.\n\n"
     "  --readonly   the guest cannot write to it\n",
     CLI_READONLY, 2, 2, run_attach},
    {"vm", "detach", "NAME POOL/VOLUME[@SNAPSHOT]", "take a disk away from a machine",
     "Where it runs the guest is asked to let go of it, and has 30 seconds for that.\n", 0, 2, 2,
     run_detach},
    {"vm", "set", "NAME KEY=VALUE...", "change a machine",
     "KEY is one of its file that has one value: cpus, memory, cmdline and others. An empty\n"
     "value takes the default again. Memory changes at once where the machine runs: up to its\n"
     "memory-max, and below what it was started with by asking the guest to give it back.\n\n"
     "Example, of one that was started with memory-max: 2G or more:\n"
     "  tarn vm set web cpus=4 memory=2G\n",
     0, 2, -1, run_set},
    {"vm", "snapshot", "NAME SNAPSHOT [--disks-only]",
     "take a snapshot of a machine: memory, devices and disks",
     "All at one instant. Where the machine runs, it is paused for a moment only. Of one that "
     "does\n"
     "not run the disks are taken. Each of its volumes gets a snapshot of that name.\n\n"
     "  --disks-only   the disks alone: going back to them is as after a power cut\n",
     CLI_DISKS_ONLY, 2, 2, cli_run_vm_snapshot},
    {"vm", "restore", "NAME SNAPSHOT [--yes]", "go back to a snapshot of a machine",
     "It runs on from that instant, where its memory was taken, with the disks that it had then.\n"
     "If it runs now, it is ended first.\n"
     "What its volumes hold now is kept, as snapshots before-restore-TIME.\n\n"
     "  --yes   do not ask whether a machine that runs may be ended\n",
     CLI_YES, 2, 2, cli_run_vm_restore},
    {"vm", "clone", "NAME SNAPSHOT NEW", "start another machine from a snapshot's disks",
     "Its volumes are clones, NEW and NEW-VOLUME; it has MAC addresses of its own, and boots.\n", 0,
     3, 3, cli_run_vm_clone},
    {"vm", "export", "NAME FILE [--force]", "make an OVA of a machine, for other hypervisors",
     "With all of its disks, as they were at one instant: where it runs, it is paused for a "
     "moment.\n"
     "The file has its name only once all of it is there; on the way it takes its space twice.\n\n"
     "  --force   overwrite a file that exists\n",
     CLI_FORCE, 2, 2, cli_run_vm_export},
    {"vm", "delete", "NAME[@SNAPSHOT] [--volumes] [--yes]",
     "forget a machine that does not run, or delete a snapshot",
     "A machine's snapshots go with it; those of its volumes stay. With @SNAPSHOT that snapshot "
     "is\n"
     "deleted, of the machine and of its volumes.\n\n"
     "  --volumes   delete its volumes as well, but for those that it only reads\n"
     "  --yes       do not ask\n",
     CLI_VOLUMES | CLI_YES, 1, 1, run_delete},
    {0},
};
