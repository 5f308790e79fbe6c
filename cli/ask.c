/* ask.c - questions before something is destroyed. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

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
