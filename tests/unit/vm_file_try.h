/* vm_file_try.h - for tests of VM files: texts that are read, and texts that are refused. The file is
 * called web.yaml, and lies in /srv/vms.
 *
 * Units      none.
 * Threads    one.
 * Errors     the test fails.
 * Ownership  what parse() returns is the caller's.
 */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "vm/file.h"

#define MINIMAL "name: web\nkernel: vmlinuz\n"

static inline struct vm_file *parse(const char *text)
{
        struct vm_file *file = NULL;
        struct error e = ERROR_INIT;

        if (vm_file_parse(text, strlen(text), "web.yaml", "/srv/vms", &file, &e) < 0)
                fail_msg("%s", e.message);
        return file;
}

/* The text is refused, with a sentence that begins with @message, and a hint that has @hint. */
static inline void refused(const char *text, const char *message, const char *hint)
{
        struct vm_file *file = NULL;
        struct error e = ERROR_INIT;
        int r = vm_file_parse(text, strlen(text), "web.yaml", "/srv/vms", &file, &e);

        if (r != -EINVAL || e.code != r || file ||
            strncmp(e.message, message, strlen(message)) != 0)
                fail_msg("%d: '%s' where '%s' belongs, of:\n%s", r, e.message, message, text);
        if (hint ? !strstr(e.hint, hint) : e.hint[0])
                fail_msg("hint '%s' where '%s' belongs, of:\n%s", e.hint, hint ? hint : "", text);
        assert_int_equal(vm_file_parse(text, strlen(text), "web.yaml", "/srv/vms", &file, NULL), r);
}

/* The same behind a machine that is right, in lines 1 and 2. */
static inline void refused_line(const char *line, const char *message, const char *hint)
{
        char text[16384];

        snprintf(text, sizeof(text), MINIMAL "%s\n", line);
        refused(text, message, hint);
}
