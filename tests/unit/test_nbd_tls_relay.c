/* test_nbd_tls_relay.c - the process that does TLS to an NBD server: how it ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <gnutls/gnutls.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "common/be.h"
#include "formats/nbd_tls.h"

#define GREETING       "NBDMAGICIHAVEOPT\0\3"
#define GREETING_BYTES 18u
#define OPTION_BYTES   20u
#define OPT_STARTTLS   5u
#define REP_ACK        1u
#define REPLY_MAGIC    UINT64_C(0x3e889045565a9)
#define PRIORITY       "NORMAL:-VERS-ALL:+VERS-TLS1.3:+ECDHE-PSK:+PSK"
#define KEY            "000102030405060708090a0b0c0d0e0f"
#define USER           "alice"

/* What is written is taken by the pipes between until they are full; and for how long one tries. */
#define WRITE_BYTES 65536u
#define WRITE_TRIES 20u
#define TRY_US      50000u
/* A process that has nothing to do takes far less of a processor, and has ended by then. */
#define CPU_US_MOST 1500000
#define END_S       15u

static int give_key(gnutls_session_t session, const char *user, gnutls_datum_t *key)
{
        static const uint8_t bytes[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

        key->data = gnutls_malloc(sizeof(bytes));
        key->size = sizeof(bytes);
        memcpy(key->data, bytes, sizeof(bytes));
        return 0;
}

/* An NBD server that shakes hands in TLS, and reads nothing of what comes then. */
static _Noreturn void serve_deaf(int fd)
{
        const struct {
                be64 magic;
                be32 option, type, length;
        } ack = {be64_make(REPLY_MAGIC), be32_make(OPT_STARTTLS), be32_make(REP_ACK), {{0}}};
        gnutls_psk_server_credentials_t keys;
        gnutls_session_t session;
        uint8_t asked[OPTION_BYTES];
        int r;

        gnutls_psk_allocate_server_credentials(&keys);
        gnutls_psk_set_server_credentials_function(keys, give_key);
        gnutls_init(&session, GNUTLS_SERVER);
        gnutls_priority_set_direct(session, PRIORITY, NULL);
        gnutls_credentials_set(session, GNUTLS_CRD_PSK, keys);
        gnutls_transport_set_int(session, fd);
        if (send(fd, GREETING, GREETING_BYTES, 0) != GREETING_BYTES ||
            recv(fd, asked, sizeof(asked), MSG_WAITALL) != sizeof(asked) ||
            send(fd, &ack, sizeof(ack), 0) != sizeof(ack))
                _exit(1);
        do
                r = gnutls_handshake(session);
        while (r < 0 && !gnutls_error_is_fatal(r));
        if (r < 0)
                _exit(1);
        pause();
        _exit(0);
}

static pid_t serve(int *ret_fd)
{
        int ends[2];
        pid_t pid;

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves nobody behind */
                close(ends[1]);
                serve_deaf(ends[0]);
        }
        close(ends[0]);
        *ret_fd = ends[1];
        return pid;
}

static void write_key(char *path)
{
        int fd = mkstemp(path);

        assert_true(fd >= 0);
        assert_true(write(fd, USER ":" KEY "\n", strlen(USER ":" KEY "\n")) > 0);
        close(fd);
}

/* Until nobody takes any more. */
static void fill(int fd)
{
        static const uint8_t data[WRITE_BYTES];

        for (unsigned i = 0; i < WRITE_TRIES; i++) {
                while (send(fd, data, sizeof(data), MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
                        ;
                assert_int_equal(errno, EAGAIN);
                usleep(TRY_US);
        }
}

static void it_ends_when_its_user_goes_and_the_peer_takes_nothing(void **state)
{
        char path[] = "/tmp/tarn-nbd-tls-XXXXXX", greeting[GREETING_BYTES];
        struct nbd_tls_peer peer = {.uri = "nbds://peer", .psk_file = path, .user = USER};
        const be32 flags = be32_make(3);
        struct error err = ERROR_INIT;
        struct rusage used;
        pid_t server, relay;
        int fd, plain_fd, status;

        server = serve(&fd);
        write_key(path);
        plain_fd = nbd_tls_relay(&peer, fd, &err);
        unlink(path);
        close(fd);
        if (plain_fd < 0)
                fail_msg("%s", err.message);
        assert_int_equal(recv(plain_fd, greeting, sizeof(greeting), MSG_WAITALL), sizeof(greeting));
        assert_int_equal(send(plain_fd, &flags, sizeof(flags), 0), sizeof(flags));
        fill(plain_fd);
        close(plain_fd);
        alarm(END_S);
        do
                relay = wait4(-1, &status, 0, &used);
        while (relay < 0 && errno == EINTR);
        alarm(0);
        assert_true(relay > 0 && relay != server);
        assert_int_equal(status, 0);
        assert_true(used.ru_utime.tv_sec == 0 && used.ru_stime.tv_sec == 0 &&
                    used.ru_utime.tv_usec + used.ru_stime.tv_usec < CPU_US_MOST);
        kill(server, SIGKILL);
        waitpid(server, NULL, 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(it_ends_when_its_user_goes_and_the_peer_takes_nothing),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
