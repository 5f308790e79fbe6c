/* vm.h - what the files of 'tarn vm' share.
 *
 * Threads    the program has one.
 * Errors     exit statuses, after a message, but where it says otherwise.
 */
#pragma once
#include "cli/cli.h"
#include "vm/known.h"

/* Of a file, or the name of a machine that was started before. */
int cli_run_machine(const char *word, bool background);
/* @known is taken over. 0 or -errno with a sentence, which is not printed; -ECANCELED: by a signal. */
int cli_run_known(struct known *known, bool background, struct error *err);
/* In the background those whose file says so: the files in @folder (NULL: none), and what is known. */
int cli_autostart(const char *folder);
int cli_run_vm_stop(const struct cli_verb *verb, const struct cli_args *args);
int cli_run_vm_snapshot(const struct cli_verb *verb, const struct cli_args *args);
int cli_run_vm_restore(const struct cli_verb *verb, const struct cli_args *args);
int cli_run_vm_export(const struct cli_verb *verb, const struct cli_args *args);
int cli_run_vm_clone(const struct cli_verb *verb, const struct cli_args *args);
/* @word is NAME@SNAPSHOT. */
int cli_vm_delete_snapshot(const struct cli_args *args, const char *word);
/* The guest has ended; its supervisor is about to. Whoever starts it next is not to find it there. */
void cli_vm_await_end(const char *name);
