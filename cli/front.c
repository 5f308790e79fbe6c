/* front.c - the program 'tarn': it runs virtual machines itself, and for everything else becomes
 * 'tarn-engine'.
 *
 * A machine is to start quickly, and its two processes are to need little memory. The engine, TLS and
 * tables bring some twenty libraries, of which a machine needs none: what it has to do with pools their
 * servers do. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/vm.h"

#define ENGINE "tarn-engine"

/* Words that leave nothing to be said: the engine explains what is wrong with any others. */
static bool is_word(const char *word)
{
        return word[0] != '-' && cli_is_text(word);
}

static bool is_machine(int argc, char **argv)
{
        return argc == 4 && strcmp(argv[1], "vm") == 0 &&
               (strcmp(argv[2], "run") == 0 || strcmp(argv[2], "start") == 0) && is_word(argv[3]);
}

static bool is_autostart(int argc, char **argv)
{
        return (argc == 4 || (argc == 5 && is_word(argv[4]))) && strcmp(argv[1], "vm") == 0 &&
               strcmp(argv[2], "start") == 0 && strcmp(argv[3], "--autostart") == 0;
}

static int become(const char *folder, const char *rest, char **argv)
{
        char path[PATH_MAX];

        if ((size_t)snprintf(path, sizeof(path), "%s%s/" ENGINE, folder, rest) >= sizeof(path))
                return -ENAMETOOLONG;
        execv(path, argv);
        return -errno;
}

/* Beside this program, as it is built; where it is installed, also as a tree that lies elsewhere; and
 * where it is to be installed. */
static int become_engine(char **argv)
{
        char self[PATH_MAX] = "", *slash;
        int r = -ENOENT;

        if (readlink("/proc/self/exe", self, sizeof(self) - 1) > 0 &&
            (slash = strrchr(self, '/'))) {
                *slash = '\0';
                r = become(self, "", argv);
                if (r == -ENOENT)
                        r = become(self, "/" ENGINE_FROM_HERE, argv);
        }
        if (r == -ENOENT)
                r = become(ENGINE_FOLDER, "", argv);
        fprintf(stderr, "tarn: cannot run '%s': %s\n", ENGINE_FOLDER "/" ENGINE, strerror(-r));
        return EXIT_FAILURE;
}

int main(int argc, char **argv)
{
        cli_begin();
        if (is_machine(argc, argv))
                return cli_end(cli_run_machine(argv[3], strcmp(argv[2], "start") == 0));
        if (is_autostart(argc, argv))
                return cli_end(cli_autostart(argv[4]));
        return become_engine(argv);
}
