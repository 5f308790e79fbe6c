/* error.h - what failed, as one sentence for the operator, and a hint.
 *
 * Functions return 0 or -errno and fill *err (which may be NULL) only on failure. error_set()
 * returns its code so that detecting is one statement:
 *
 *         return error_set(err, -EINVAL, "'%s' is not a size", text);
 *
 * Units      codes are -errno; texts are bytes with NUL.
 * Threads    a struct error belongs to whoever declared it.
 * Errors     nothing here fails.
 * Ownership  a struct error lives on the caller's stack and owns no memory.
 */
#pragma once
#include <stdarg.h>

struct error {
        int code; /* -errno; 0 while nothing failed */
        char message[512];
        char hint[256]; /* empty where there is none */
};

#define ERROR_INIT ((struct error){0})

/* Set code and sentence, dropping any hint; returns code. err may be NULL.
 * Long sentences are cut. */
int error_set(struct error *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Put "PREFIX: " in front of the sentence that is there; returns the code that is there. Where err
 * is NULL nobody knows the code: the answer is -EIO, so that it is never taken for success; a
 * caller to whom the code matters keeps it. The same goes for error_hint(). */
int error_prefix(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* What the operator might do about it; shown as "hint: ...". Returns the code that is there. */
int error_hint(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));
