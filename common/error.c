/* error.c - filling struct error. */
#include "common/error.h"
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Format by way of a local buffer, since an argument may be err->message itself. What does not fit
 * ends in "..." so that nobody takes a cut sentence for a whole one. */
static void format_into(char *target, size_t size, const char *format, va_list args)
{
        char text[sizeof(((struct error *)NULL)->message)];
        int length = vsnprintf(text, sizeof(text), format, args);
        size_t kept;

        if (length < 0)
                strcpy(text, "(a message that cannot be formatted)");
        kept = strnlen(text, size - 1);
        memcpy(target, text, kept);
        target[kept] = '\0';
        if (length >= 0 && (size_t)length >= size)
                memcpy(target + size - 4, "...", 4);
}

int error_set(struct error *err, int code, const char *format, ...)
{
        va_list args;

        assert(code < 0);
        if (!err)
                return code;
        va_start(args, format);
        format_into(err->message, sizeof(err->message), format, args);
        va_end(args);
        err->hint[0] = '\0';
        err->code = code;
        return code;
}

int error_prefix(struct error *err, const char *format, ...)
{
        char prefix[sizeof(err->message)], old[sizeof(err->message)];
        va_list args;

        if (!err)
                return -EIO;
        assert(err->code < 0);
        va_start(args, format);
        format_into(prefix, sizeof(prefix), format, args);
        va_end(args);
        memcpy(old, err->message, sizeof(old));
        if (snprintf(err->message, sizeof(err->message), "%s: %s", prefix, old) >=
            (int)sizeof(err->message))
                memcpy(err->message + sizeof(err->message) - 4, "...", 4);
        return err->code;
}

int error_hint(struct error *err, const char *format, ...)
{
        va_list args;

        if (!err)
                return -EIO;
        assert(err->code < 0);
        va_start(args, format);
        format_into(err->hint, sizeof(err->hint), format, args);
        va_end(args);
        return err->code;
}
