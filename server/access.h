/* access.h - which exports a TLS identity may open: a list in a file, read once.
 *
 * A line is IDENTITY EXPORT [ro], both with * ? [] as the shell has them, where * stands for '/'
 * and '@' too. The first line that fits both decides; where none does, there is no such export for
 * that client.
 *
 * IDENTITY   KIND:NAME as nbd_client_identity() gives it, or NAME of any kind; "-" is a client
 *            without identity. In double quotes where it has blanks.
 * EXPORT     POOL/VOLUME or POOL/VOLUME@SNAPSHOT.
 *
 * Threads    [any thread] once it is made: nothing changes it.
 * Errors     0 or -errno with a sentence that names file and line.
 * Ownership  counted: access_load() gives the first reference.
 */
#pragma once
#include <stddef.h>

#include "common/error.h"

enum access_right { ACCESS_NONE, ACCESS_READ, ACCESS_WRITE };

struct access_list;

int access_load(const char *path, struct access_list **ret_list, struct error *err);
/* NULL is fine. access_ref() returns @list. */
struct access_list *access_ref(struct access_list *list);
void access_unref(struct access_list *list);

/* What a client that has these names may do with the export of this canonical name. Without a list
 * (NULL) everything. */
enum access_right access_decide(const struct access_list *list, const char *const *names,
                                size_t n_names, const char *export);
