/* image_ova.h - machines in OVA and OVF files: what 'tarn image' does with them.
 *
 * Threads    blocking; co_image_describe_machine() in a coroutine.
 * Errors     0 or -errno with a sentence; image_import_machine() an exit status.
 */
#pragma once
#include "cli/cli.h"

/* Whether the file at @path looks like one. False also where it cannot be read. */
bool image_is_machine(const char *path);
int image_import_machine(const struct cli_args *args);

/* What such a file says, for --json: its own disks' files are not looked at. */
int co_image_describe_machine(int fd, const char *path, json_t **ret_info, struct error *err);
/* The same for people. */
void image_print_machine(const json_t *info);
