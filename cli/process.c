/* process.c - the beginning and the end of the process. */
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "server/json_memory.h"

/* Where a standard stream is closed, the next file that is opened would take its place, and a
 * message be written into a disk. What stands in for it fails as a closed one does: it is open the
 * wrong way round. */
static void hold_standard_streams(void)
{
        for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
                if (fcntl(fd, F_GETFD) < 0 &&
                    open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
                        abort();
}

void cli_begin(void)
{
        hold_standard_streams();
        json_memory_watch();
        setlocale(LC_ALL, "");
        signal(SIGPIPE, SIG_IGN);
        /* Whom a service manager started is told by SIGHUP to read its files anew. A server that has
         * none goes on as it is. */
        if (getenv("NOTIFY_SOCKET"))
                signal(SIGHUP, SIG_IGN);
}

void cli_no_memory(void)
{
        static const char text[] = "tarn: out of memory for what is to be printed\n";

        (void)!write(STDERR_FILENO, text, sizeof(text) - 1);
        _exit(EXIT_FAILURE);
}

int cli_end(int status)
{
        /* Output that did not arrive is a failure: a full disk behind a redirection. */
        if ((fflush(stdout) != 0 || ferror(stdout)) && errno != EPIPE && status == EXIT_SUCCESS) {
                fprintf(stderr, "tarn: cannot write the output: %s\n", strerror(errno));
                status = EXIT_FAILURE;
        }
        return status;
}
