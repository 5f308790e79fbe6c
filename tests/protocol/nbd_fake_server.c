/* nbd_fake_server.c - the NBD server over a volume in memory, for real clients and for measuring
 * the server alone: nbd_fake_server SECONDS. Prints its socket's path, and ends at the end of its
 * input or after SECONDS, whichever is first. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "tests/protocol/fixture.h"

int main(int argc, char **argv)
{
        if (argc != 2) {
                fprintf(stderr, "usage: nbd_fake_server SECONDS\n");
                return 2;
        }
        struct fixture *fixture = fixture_start(NULL);
        printf("%s\n", fixture_path(fixture));
        fflush(stdout);
        struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
        poll(&input, 1, atoi(argv[1]) * 1000);
        fixture_stop(fixture, 1000);
        return 0;
}
