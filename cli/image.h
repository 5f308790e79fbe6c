/* image.h - what the files of 'tarn image ...' share.
 *
 * Threads    blocking.
 * Errors     verbs return an exit status; the others 0 or -errno with a sentence.
 */
#pragma once
#include "cli/cli.h"
#include "cli/files.h"
#include "formats/image.h"

int cli_image_import(const struct cli_verb *verb, const struct cli_args *args);
int cli_image_export(const struct cli_verb *verb, const struct cli_args *args);
int cli_image_info(const struct cli_verb *verb, const struct cli_args *args);
int cli_image_map(const struct cli_verb *verb, const struct cli_args *args);
int cli_image_check(const struct cli_verb *verb, const struct cli_args *args);
int cli_image_convert(const struct cli_verb *verb, const struct cli_args *args);

/* A file or device to be read; the descriptor is the caller's. */
int image_open_input(const char *path, struct error *err);
/* The same, or an export of an NBD server: then *ret_fd is -1, and co_image_open_place() connects;
 * @cancelled as in nbd.h. */
int image_open_place(const struct cli_args *args, const char *path, int *ret_fd, struct error *err);
int co_image_open_place(int fd, const char *path, const struct image_options *options,
                        const atomic_bool *cancelled, struct image **ret_image, struct error *err);
/* Connected to an export of an NBD server; the request tells its name. */
int image_open_export(const char *uri, json_t **request, struct error *err);
/* An export is raw, and has nothing inside: options about that are refused. */
int image_check_export(const struct cli_args *args, const char *uri, struct error *err);
/* Open the image once, to learn which other files it needs; put what the server wants to know into
 * @request and fds[] (files.h). */
int image_put_files(const struct cli_args *args, const char *path, const char *format, int fd,
                    struct files *files, json_t **request, int fds[FILES_MAX + 1], size_t *ret_n,
                    struct error *err);
/* A note of what image_flaw() says of the file; NULL: none. */
void image_tell_flaw(const char *path, const char *flaw);
/* What a file holds, its names too, need not be text: what is not, is shown with its bytes as
 * characters. NULL becomes null. */
json_t *image_text(const char *bytes);
/* Whether the server has verified what it was to: -ENOTSUP from one that knows nothing of that yet. */
int image_check_verified(const struct cli_args *args, const json_t *reply, struct error *err);
/* Whether the second word can be written as the options say: a file of a format that can be written; an
 * export of an NBD server, which is raw, and whose content is lost. */
int image_check_output(const struct cli_args *args, struct error *err);
/* What the option says; 0: nothing. */
int image_cluster_size(const struct cli_args *args, uint32_t *ret_bytes, struct error *err);
