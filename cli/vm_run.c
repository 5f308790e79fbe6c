/* vm_run.c - tarn vm run, tarn vm start: without their words, which main.c and front.c have taken apart. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/vm.h"
#include "vm/vm.h"

/* A file, or the name of a machine that was started before. */
static int take_machine(const char *word, struct known **ret, struct error *err)
{
        struct vm_file *file;
        int r;

        if (!strchr(word, '/') && access(word, F_OK) < 0 && errno == ENOENT &&
            known_lock(word, ret, err) == 0)
                return 0;
        if (err && err->code == -EBUSY)
                return err->code;
        r = vm_file_load(word, &file, err);
        return r < 0 ? r : known_take(file, ret, err);
}

int cli_run_known(struct known *known, bool background, struct error *err)
{
        struct cli_progress progress;
        struct vm_run run = {.known = known, .log = -1, .foreground = true};
        int r;

        cli_progress_begin(&progress, "importing", false);
        run.progress = (struct prepare_progress){cli_progress_show, &progress};
        if (!background && isatty(STDIN_FILENO))
                cli_note("Ctrl-] ? lists the keys that are not for the guest");
        r = background ? vm_start(known, &run.progress, err) : vm_run(&run, err);
        cli_progress_end(&progress);
        if (r == 0 && background)
                printf("started '%s'\n", known->name);
        known_free(known);
        return r;
}

int cli_run_machine(const char *word, bool background)
{
        struct error e = ERROR_INIT;
        struct known *known;
        int r = take_machine(word, &known, &e);

        if (r == 0)
                r = cli_run_known(known, background, &e);
        return r < 0 ? cli_fail(&e) : EXIT_SUCCESS;
}
