/* name.c - what pools, volumes and machines may be called. */
#include <errno.h>
#include <string.h>

#include "pool/pool.h"

int pool_name_check(const char *name, const char *what, struct error *err)
{
        size_t n = strlen(name);
        if (n == 0)
                return error_set(err, -EINVAL, "the name of the %s is empty", what);
        if (n > POOL_NAME_MAX)
                return error_set(err, -EINVAL,
                                 "the name of the %s has %zu characters, at most %u are allowed",
                                 what, n, POOL_NAME_MAX);
        for (size_t i = 0; i < n; i++) {
                char c = name[i];
                bool alphanumeric =
                    (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
                if (alphanumeric || (i > 0 && (c == '.' || c == '_' || c == '-')))
                        continue;
                error_set(err, -EINVAL, "'%.80s' is no name for a %s", name, what);
                return error_hint(err, "names begin with a letter or digit and hold letters, "
                                       "digits, '.', '_' and '-'");
        }
        return 0;
}
