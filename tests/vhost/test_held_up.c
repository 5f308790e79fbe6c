/* test_held_up.c - front ends of the vhost-user-blk device whose descriptors answer nobody: files of a
 * file system that does not reply, and sockets that are long in closing. Whoever sent them waits, and
 * nobody else. Over volumes in memory.
 *
 * The file system is a FUSE or NFS one as the server sees it: fstat(2) and fstatfs(2) of one file
 * come here first, and do not return before the test lets them. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>
#include "tests/vhost/raw.h"
#include "tests/vhost/server.h"

#define AT_ONCE_MS 900 /* before the server stops to wait for an answer */
#define TRIES      20u /* a busy machine is slow now and then; who waits is so each time */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t answered = PTHREAD_COND_INITIALIZER;
static _Atomic(ino_t) silent, on_disk; /* 0: none */

static ino_t inode_of(int fd)
{
        struct stat st;

        return fstatat(fd, "", &st, AT_EMPTY_PATH) < 0 ? 0 : st.st_ino;
}

static void ask(int fd)
{
        ino_t inode = inode_of(fd);

        pthread_mutex_lock(&mutex);
        while (silent && inode == silent)
                pthread_cond_wait(&answered, &mutex);
        pthread_mutex_unlock(&mutex);
}

static void answer(void)
{
        pthread_mutex_lock(&mutex);
        silent = 0;
        pthread_cond_broadcast(&answered);
        pthread_mutex_unlock(&mutex);
}

int fstat(int fd, struct stat *ret)
{
        ask(fd);
        return fstatat(fd, "", ret, AT_EMPTY_PATH);
}

int fstatfs(int fd, struct statfs *ret)
{
        int r;

        ask(fd);
        r = (int)syscall(SYS_fstatfs, fd, ret);
        if (r == 0 && on_disk && inode_of(fd) == on_disk)
                ret->f_type = EXT4_SUPER_MAGIC;
        return r;
}

/* One that does not say itself that it is memory. */
static int file_new(off_t n_bytes)
{
        static const char *const folders[] = {"/tmp", ".", "/var/tmp"};

        for (unsigned i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
                char path[64];
                int fd;

                snprintf(path, sizeof(path), "%s/tarn-vhost-file-XXXXXX", folders[i]);
                fd = mkostemp(path, O_CLOEXEC);
                if (fd < 0)
                        continue;
                unlink(path);
                assert_int_equal(ftruncate(fd, n_bytes), 0);
                if (fcntl(fd, F_GET_SEALS) < 0)
                        return fd;
                close(fd);
        }
        printf("SKIP: all that can be written to is memory here\n");
        skip();
        return -1;
}

static int teardown(void **state)
{
        answer(); /* whatever has failed */
        on_disk = 0;
        return server_teardown(state);
}

static uint64_t now_ms(void)
{
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* One of the messages that bring memory, without waiting for what comes of it. */
static void send_memory(struct disk *d, unsigned which, int fd)
{
        struct vu_region region = {UINT64_C(2) << 32, 65536, UINT64_C(0x7000000000000), 0};
        struct vu_table table = {.n_regions = 1, .regions = {region}};
        struct vu_single_region single = {.region = region};
        struct vu_log log = {.size = 65536};
        struct vu_inflight inflight = {.size = 65536, .n_queues = 1, .queue_size = 128};
        const struct {
                uint32_t request, n_bytes;
                const void *payload;
        } messages[] = {{VU_SET_MEM_TABLE, 8 + sizeof(region), &table},
                        {VU_ADD_MEM_REG, sizeof(single), &single},
                        {VU_SET_LOG_BASE, sizeof(log), &log},
                        {VU_SET_INFLIGHT_FD, VU_INFLIGHT_SIZE, &inflight}};

        ok(front_send(d->front, messages[which].request, VU_VERSION, messages[which].payload,
                      messages[which].n_bytes, &fd, 1, &check_err));
}

/* Whether @other was served at once. */
static bool serves_another(void **state, struct disk *other, unsigned which, int fd)
{
        struct disk *d = check_open((struct disk_options){.stopped = true});
        uint64_t began_ms = now_ms(), took_ms;

        silent = inode_of(fd);
        send_memory(d, which, fd);
        server_turn(*state);
        check_alive(other);
        took_ms = now_ms() - began_ms;
        assert_true(front_is_closed(d->front)); /* after a while, and no answer yet */
        disk_close(d);
        answer();
        return took_ms <= AT_ONCE_MS;
}

static void a_file_system_that_does_not_answer_holds_up_nobody_else(void **state)
{
        int fd = file_new(65536);
        struct disk *other =
            check_open((struct disk_options){.path = server_path(*state, SERVER_OTHER)});

        for (unsigned which = 0; which < 4; which++)
                for (unsigned n = 1; !serves_another(state, other, which, fd); n++)
                        assert_in_range(n, 1, TRIES);
        close(fd);
        disk_close(other);
}

static bool is_hung_up_on(void **state, int fd)
{
        struct disk *d = check_open((struct disk_options){.stopped = true});
        uint64_t began_ms, took_ms;

        silent = inode_of(fd);
        send_memory(d, 0, fd);
        server_turn(*state);
        began_ms = now_ms();
        server_disconnect(*state, SERVER_VOL);
        took_ms = now_ms() - began_ms;
        disk_close(d);
        answer();
        return took_ms <= AT_ONCE_MS;
}

static void who_waits_for_such_an_answer_can_be_hung_up_on(void **state)
{
        int fd = file_new(65536);

        for (unsigned n = 1; !is_hung_up_on(state, fd); n++)
                assert_in_range(n, 1, TRIES);
        close(fd);
}

/* The ring starts while the region that it is to have is looked at: it has the one before. */
static void a_region_is_not_taken_away_from_a_ring_that_starts_meanwhile(void **state)
{
        for (unsigned packed = 0; packed < 2; packed++) {
                const uint64_t bytes = 1 << 20;
                int fd = file_new((off_t)bytes);
                struct disk *d = check_open((struct disk_options){.packed = packed});
                struct vu_inflight inflight = {.size = bytes, .n_queues = 1, .queue_size = 128};
                struct front_reply reply;
                uint32_t base;

                ok(ring_stop(&d->rings[0], d->front, 0, &base, &check_err));
                ring_reset(&d->rings[0]);
                /* As a new ring's: it waits for its kick. */
                ok(front_tell(d->front, VU_RESET_DEVICE, NULL, 0, NULL, 0, &check_err));
                ok(front_tell_u64(d->front, VU_SET_FEATURES, d->front->features, &check_err));
                ok(disk_start(d, &check_err));
                silent = on_disk = inode_of(fd);
                ok(front_send(d->front, VU_SET_INFLIGHT_FD, VU_VERSION | VU_NEED_REPLY, &inflight,
                              VU_INFLIGHT_SIZE, &fd, 1, &check_err));
                server_turn(*state);
                ring_kick(&d->rings[0]);
                server_turn(*state);
                answer();
                ok(front_reply(d->front, VU_SET_INFLIGHT_FD, &reply, &check_err));
                assert_int_not_equal(reply.u64, 0);
                check_alive(d);
                disk_close(d);
                close(fd);
        }
}

static void a_file_on_a_disk_is_memory(void **state)
{
        struct guest_part region = {
            .address = {UINT64_C(2) << 32, 65536, UINT64_C(0x7000000000000), 0},
            .fd = file_new(65536)};
        struct disk *d = check_open((struct disk_options){.by_slots = true});

        on_disk = inode_of(region.fd);
        ok(front_add_region(d->front, &region, &check_err));
        ok(front_remove_region(d->front, &region, &check_err));
        check_alive(d);
        disk_close(d);
        close(region.fd);
}

/* Who has the socket as well may keep a TCP one locked while we write to it. */
static void a_channel_that_others_can_lock_is_refused(void **state)
{
        struct disk *d = check_open((struct disk_options){0});
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        refused(-EBADMSG, front_tell(d->front, VU_SET_BACKEND_REQ_FD, NULL, 0, &fd, 1, &check_err));
        check_alive(d);
        close(fd);
        disk_close(d);
}

/* ---- descriptors that are long in closing ---- */

#define EACH  150u /* to a message */
#define TIMES 6u   /* messages */

static void allow_descriptors(void)
{
        struct rlimit limit;

        assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
        if (limit.rlim_cur < 4 * EACH * TIMES) {
                printf("SKIP: no more than %llu descriptors may be open\n",
                       (unsigned long long)limit.rlim_cur);
                skip();
        }
}

/* One byte of a message each time, which never comes to its end. */
static void who_sends_more_than_can_be_closed_waits(void **state)
{
        static int peers[EACH * TIMES];
        struct disk *other =
            check_open((struct disk_options){.path = server_path(*state, SERVER_OTHER)});
        struct disk *d = check_open((struct disk_options){0});
        unsigned before, taken = 0, n_alive;

        allow_descriptors();
        before = server_n_fds(0);
        for (unsigned i = 0; i < TIMES; i++) {
                int fds[EACH];

                for (unsigned n = 0; n < EACH; n++)
                        fds[n] = raw_lingering(&peers[i * EACH + n]);
                server_halt(*state); /* its descriptors are to be the last */
                ok(front_send_bytes(d->front, "\1", 1, fds, EACH, &check_err));
                for (unsigned n = 0; n < EACH; n++)
                        close(fds[n]);
                server_go_on(*state);
                for (unsigned turns = 0; turns < 10; turns++)
                        server_turn(*state);
                taken = server_n_fds(0) - before - (i + 1) * EACH;
        }
        assert_in_range(taken, EACH, 3 * EACH); /* those of the third message at most */
        /* What others send is closed, and they come and go, as ever. */
        n_alive = server_n_fds(0);
        for (unsigned i = 0; i < 20; i++) {
                struct disk *more =
                    check_open((struct disk_options){.path = server_path(*state, SERVER_OTHER)});
                check_alive(more);
                disk_close(more);
        }
        server_wait_fds(0, n_alive);
        check_alive(other);
        for (unsigned i = 0; i < EACH * TIMES; i++)
                close(peers[i]);
        front_close(d->front);
        d->front = NULL;
        disk_close(d);
        disk_close(other);
}

/* Those for whom there is no room bring what they like, too. */
static void front_ends_that_are_refused_and_long_in_closing(void **state)
{
        struct disk *other =
            check_open((struct disk_options){.path = server_path(*state, SERVER_OTHER)});
        struct front *fronts[VHOST_CLIENTS_MAX], *f;
        uint64_t features;
        int peer, fd = raw_lingering(&peer);

        for (unsigned i = 0; i < VHOST_CLIENTS_MAX; i++) {
                ok(front_connect(check_path(), &fronts[i], &check_err));
                ok(front_ask_u64(fronts[i], VU_GET_FEATURES, &features, &check_err));
        }
        server_halt(*state);
        ok(front_connect(check_path(), &f, &check_err));
        ok(front_send_bytes(f, "", 1, &fd, 1, &check_err));
        close(fd);
        server_go_on(*state);
        check_alive(other);
        close(peer);
        assert_true(front_is_closed(f));
        front_close(f);
        for (unsigned i = 0; i < VHOST_CLIENTS_MAX; i++)
                front_close(fronts[i]);
        disk_close(other);
}

/* It is gone though nothing of what it sent is closed yet, and its guest is served anew. */
static void who_leaves_while_it_waits_to_send_more_is_gone(void **state)
{
        static int peers[3 * EACH];
        struct disk *d = check_open((struct disk_options){0});

        allow_descriptors();
        for (unsigned i = 0; i < 3; i++) {
                int fds[EACH];

                for (unsigned n = 0; n < EACH; n++)
                        fds[n] = raw_lingering(&peers[i * EACH + n]);
                server_halt(*state);
                ok(front_send_bytes(d->front, "\1", 1, fds, EACH, &check_err));
                for (unsigned n = 0; n < EACH; n++)
                        close(fds[n]);
                server_go_on(*state);
        }
        front_close(d->front);
        d->front = NULL;
        server_wait_clients(*state, 0);
        for (unsigned i = 0; i < 3 * EACH; i++)
                close(peers[i]);
        disk_close(d);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, server_setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            TEST(a_file_system_that_does_not_answer_holds_up_nobody_else),
            TEST(who_waits_for_such_an_answer_can_be_hung_up_on),
            TEST(a_region_is_not_taken_away_from_a_ring_that_starts_meanwhile),
            TEST(a_file_on_a_disk_is_memory),
            TEST(a_channel_that_others_can_lock_is_refused),
            TEST(who_sends_more_than_can_be_closed_waits),
            TEST(who_leaves_while_it_waits_to_send_more_is_gone),
            TEST(front_ends_that_are_refused_and_long_in_closing),
        };
        return cmocka_run_group_tests_name("vhost held up", tests, NULL, NULL);
}
