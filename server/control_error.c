/* control_error.c - a struct error as JSON, and back. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "server/control.h"

#define ERRNO_MAX 133 /* EHWPOISON, the highest on Linux */

json_t *control_error_json(const struct error *e)
{
        const char *code = strerrorname_np(e->code < 0 ? -e->code : EIO);
        json_t *inner = json_pack("{s:s, s:s%}", "code", code ? code : "EIO", "message", e->message,
                                  strnlen(e->message, sizeof(e->message)));

        if (!inner) /* a sentence may quote what is not UTF-8 */
                inner = json_pack("{s:s, s:s}", "code", code ? code : "EIO", "message",
                                  code ? code : "EIO");
        if (inner && e->hint[0])
                json_object_set_new(inner, "hint", json_string(e->hint));
        return inner ? json_pack("{s:o}", "error", inner) : NULL;
}

int control_error_parse(const json_t *reply, struct error *err)
{
        const json_t *e = json_object_get(reply, "error");
        const char *code = json_string_value(json_object_get(e, "code"));
        const char *message = json_string_value(json_object_get(e, "message"));
        const char *hint = json_string_value(json_object_get(e, "hint"));
        int r = -EIO;

        for (int i = 1; code && i <= ERRNO_MAX; i++) {
                const char *name = strerrorname_np(i);

                if (name && strcmp(name, code) == 0)
                        r = -i;
        }
        error_set(err, r, "%s", message ? message : "the server gives no reason");
        if (hint)
                error_hint(err, "%s", hint);
        return r;
}
