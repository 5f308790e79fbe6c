/* control_error.c - what both ends of the control socket need: JSON as a line, a struct error as JSON,
 * and back; and a look at what is to be parsed. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "server/control.h"

#define DEPTH_MAX 16u
#define ERRNO_MAX 133 /* EHWPOISON, the highest on Linux */

char *control_line(const json_t *value, size_t *ret_length)
{
        char *text = value ? json_dumps(value, JSON_COMPACT) : NULL;

        if (!text)
                return NULL;
        *ret_length = strlen(text) + 1;
        text[*ret_length - 1] = '\n'; /* in the place of the NUL */
        return text;
}

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
        error_set(err, r, "%s", message && message[0] ? message : "the server gives no reason");
        if (hint)
                error_hint(err, "%s", hint);
        return r;
}

/* jansson descends by recursion, and a coroutine's stack is small: brackets are counted first.
 * Requests nest three deep. */
bool control_is_shallow(const char *line, size_t length)
{
        unsigned depth = 0;
        bool in_string = false;

        for (size_t i = 0; i < length; i++) {
                if (in_string && line[i] == '\\')
                        i++;
                else if (line[i] == '"')
                        in_string = !in_string;
                else if (!in_string && (line[i] == '{' || line[i] == '['))
                        depth++;
                else if (!in_string && (line[i] == '}' || line[i] == ']') && depth > 0)
                        depth--;
                if (depth > DEPTH_MAX)
                        return false;
        }
        return true;
}
