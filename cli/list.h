/* list.h - one list over several pools. */
#pragma once
#include "cli/cli.h"

/* Ask @pool, or every pool known where it is NULL, and put what the replies hold under @key (and
 * @other_key, which may be NULL) into one object of arrays, also after a failure: which is printed,
 * and gives the exit status. */
int cli_collect(const char *command, const char *pool, const char *key, const char *other_key,
                json_t **ret_all);
