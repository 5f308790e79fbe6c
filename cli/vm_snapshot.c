/* vm_snapshot.c - tarn vm snapshot, restore, clone, delete NAME@SNAPSHOT. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/vm.h"
#include "vm/restore.h"
#include "vm/vm.h"

int cli_run_vm_snapshot(const struct cli_verb *verb, const struct cli_args *args)
{
        const char *name = args->words[0], *snapshot = args->words[1];
        json_t *reply = NULL;
        struct error e = ERROR_INIT;
        struct known *k;
        int r = vm_ask(name,
                       json_pack("{s:s, s:s, s:b}", "command", "snapshot", "snapshot", snapshot,
                                 "disks_only", (int)!!(args->given & CLI_DISKS_ONLY)),
                       &reply, &e);

        if (r == 0) {
                printf("took snapshot '%s' of '%s', which was paused for %llu ms\n", snapshot, name,
                       (unsigned long long)cli_number(reply, "pause_ms"));
                json_decref(reply);
                return EXIT_SUCCESS;
        }
        if (r != -ENOTCONN)
                return cli_fail(&e);
        e = ERROR_INIT;
        r = known_lock(name, &k, &e);
        if (r == 0) {
                r = restore_take_disks(k, snapshot, &e);
                known_free(k);
        }
        if (r < 0)
                return cli_fail(&e);
        printf("took snapshot '%s' of the disks of '%s', which does not run\n", snapshot, name);
        return EXIT_SUCCESS;
}

/* What it is doing is given up. */
static int lock_stopped(const char *name, struct known **ret, struct error *err)
{
        json_t *reply = NULL;
        int r;

        if (known_runner(name) > 0) {
                r = vm_ask(name, json_pack("{s:s, s:b}", "command", "stop", "force", 1), &reply,
                           err);
                json_decref(reply);
                if (r < 0 && r != -ENOTCONN && r != -ECONNRESET)
                        return r;
                cli_vm_await_end(name);
        }
        return known_lock(name, ret, err);
}

int cli_run_vm_restore(const struct cli_verb *verb, const struct cli_args *args)
{
        const char *name = args->words[0], *snapshot = args->words[1];
        const struct prepare_progress progress = {0};
        struct error e = ERROR_INIT;
        struct vm_file *file;
        struct known *k;
        int r = saved_load(name, snapshot, &file, &e);

        if (r < 0)
                return cli_fail(&e);
        vm_file_free(file);
        if (known_runner(name) > 0 &&
            !cli_confirm(args, "Machine '%s' runs. End it, and go back to '%s'?", name, snapshot))
                return EXIT_FAILURE;
        if (lock_stopped(name, &k, &e) < 0)
                return cli_fail(&e);
        r = restore_machine(k, snapshot, &e);
        if (r == 0 && k->resume[0])
                r = vm_start(k, &progress, &e);
        if (r == 0)
                printf("restored '%s' to '%s': %s\n", name, snapshot,
                       k->resume[0] ? "it runs on from there" : "it does not run");
        known_free(k);
        return r < 0 ? cli_fail(&e) : EXIT_SUCCESS;
}

int cli_run_vm_clone(const struct cli_verb *verb, const struct cli_args *args)
{
        const struct prepare_progress progress = {0};
        struct error e = ERROR_INIT;
        struct known *k;
        int r = restore_clone(args->words[0], args->words[1], args->words[2], &k, &e);

        if (r < 0)
                return cli_fail(&e);
        r = vm_start(k, &progress, &e);
        if (r == 0)
                printf("started '%s', a clone of '%s@%s'\n", args->words[2], args->words[0],
                       args->words[1]);
        known_free(k);
        return r < 0 ? cli_fail(&e) : EXIT_SUCCESS;
}

int cli_vm_delete_snapshot(const struct cli_args *args, const char *word)
{
        const char *at = strchr(word, '@');
        struct error e = ERROR_INIT;
        char *name = strndup(word, (size_t)(at - word));
        int status = EXIT_SUCCESS;

        if (!name) {
                error_set(&e, -ENOMEM, "out of memory");
                return cli_fail(&e);
        }
        if (!cli_confirm(args, "Delete snapshot '%s' of machine '%s' and of its volumes?", at + 1,
                         name))
                status = EXIT_FAILURE;
        else if (restore_delete(name, at + 1, &e) < 0)
                status = cli_fail(&e);
        else
                printf("deleted '%s'\n", word);
        free(name);
        return status;
}
