/* ask.c - questions before something is destroyed. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

int cli_refuse_used(const struct cli_args *args, const char *verb, const char *name,
                    const json_t *volume)
{
        struct error e = ERROR_INIT;
        const char *users = cli_text(volume, "used_by");

        if (!users[0] || (args->given & CLI_FORCE))
                return 0;
        error_set(&e, -EBUSY, "cannot %s '%s': it is in use by %s", verb, name, users);
        error_hint(&e, "disconnect %s, or give --force, which cuts %s off",
                   cli_number(volume, "users") == 1 ? "it" : "them",
                   cli_number(volume, "users") == 1 ? "it" : "them");
        cli_fail(&e);
        return e.code;
}

bool cli_confirm(const struct cli_args *args, const char *format, ...)
{
        char question[512], answer[16];
        va_list ap;

        if (args->given & CLI_YES)
                return true;
        va_start(ap, format);
        vsnprintf(question, sizeof(question), format, ap);
        va_end(ap);
        if (!isatty(STDIN_FILENO) || !isatty(STDERR_FILENO)) {
                fprintf(stderr,
                        "tarn: this needs a yes: %s\nhint: give --yes where nobody can be "
                        "asked\n",
                        question);
                return false;
        }
        fprintf(stderr, "%s [y/N] ", question);
        fflush(stderr);
        if (fgets(answer, sizeof(answer), stdin) &&
            (strcasecmp(answer, "y\n") == 0 || strcasecmp(answer, "yes\n") == 0))
                return true;
        fprintf(stderr, "tarn: nothing was changed\n");
        return false;
}
