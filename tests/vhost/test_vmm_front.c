/* test_vmm_front.c - the front end's messages (vmm-glue/vmm/vhost_front.h) to back ends that are right,
 * and to those that are wrong in one answer: at each message, in each way. Every failure comes in time,
 * says what it is, ends the connection, and leaves no descriptor open. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>
#include "tests/vhost/backend.h"
#include "tests/vhost/server.h"
#include "vmm-glue/vmm/layout.h"
#include "vmm-glue/vmm/vhost_front.h"

#define SHORT_MS 60u
#define LONG_MS  30000u

/* Of one connection that is told everything; and the places of some among them. */
#define MESSAGES        21u
#define AT_SET_PROTOCOL 3u  /* not answered */
#define AT_SET_LOG      11u /* its answer may say anything */
#define AT_GET_INFLIGHT 12u

struct peer {
        struct backend backend;
        pthread_t thread;
        unsigned wrong_at; /* message; 0: none */
        enum backend_fault fault;
};

static void *serve(void *arg)
{
        struct peer *peer = arg;

        while (backend_answer(&peer->backend, peer->backend.n_messages + 1 == peer->wrong_at
                                                  ? peer->fault
                                                  : BACKEND_RIGHT))
                ;
        return NULL;
}

/* Our end of the connection. */
static int peer_start(struct peer *peer, unsigned wrong_at, enum backend_fault fault)
{
        int ends[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
        backend_init(&peer->backend, ends[1]);
        peer->wrong_at = wrong_at;
        peer->fault = fault;
        return ends[0];
}

static void peer_run(struct peer *peer)
{
        assert_int_equal(pthread_create(&peer->thread, NULL, serve, peer), 0);
}

/* The front end has gone, or will have. */
static void peer_end(struct peer *peer)
{
        pthread_join(peer->thread, NULL);
        backend_close(&peer->backend);
}

/* ---- one of everything ---- */

struct everything {
        struct guest_memory memory;
        int kick, call, error;
};

static int say_everything(struct vhost_front *front, const struct everything *all,
                          struct error *err)
{
        struct vhost_ring ring = {.index = 1,
                                  .size = 128,
                                  .descriptors = (uintptr_t)all->memory.regions[0].host,
                                  .kick = all->kick,
                                  .call = all->call,
                                  .error = all->error};
        struct vhost_inflight inflight;
        uint8_t config[60], byte = 1;
        uint16_t base = 1;
        int fd = -1, r = vhost_front_set_features(front, front->features, err);

        if (r == 0)
                r = vhost_front_get_config(front, config, sizeof(config), err);
        if (r == 0)
                r = vhost_front_set_config(front, 32, &byte, 1, err);
        if (r == 0)
                r = vhost_front_set_memory(front, &all->memory, err);
        if (r == 0)
                r = vhost_front_set_log(front, all->memory.log, err);
        if (r == 0)
                r = vhost_front_get_inflight(front, 2, 128, &inflight, &fd, err);
        if (r == 0)
                r = vhost_front_set_inflight(front, &inflight, fd, err);
        if (fd >= 0)
                close(fd);
        if (r == 0)
                r = vhost_front_start_ring(front, &ring, err);
        if (r == 0)
                r = vhost_front_stop_ring(front, 1, &base, err);
        if (r == 0) {
                assert_int_equal(base, 0);
                assert_int_equal(inflight.mmap_size, 4096);
                assert_int_equal(config[12], 126);
        }
        return r;
}

static int setup(void **state)
{
        struct everything *all = calloc(1, sizeof(*all));

        assert_non_null(all);
        assert_int_equal(memory_new(&all->memory, -1, LAYOUT_RAM_MIN, false, NULL), 0);
        assert_int_equal(memory_log_begin(&all->memory, NULL), 0);
        all->kick = eventfd(0, EFD_CLOEXEC);
        all->call = eventfd(0, EFD_CLOEXEC);
        all->error = eventfd(0, EFD_CLOEXEC);
        *state = all;
        alarm(120);
        return 0;
}

static int teardown(void **state)
{
        struct everything *all = *state;

        memory_log_end(&all->memory);
        memory_free(&all->memory);
        close(all->kick);
        close(all->call);
        close(all->error);
        free(all);
        alarm(0);
        return 0;
}

/* From the connection on, with one answer wrong. How many messages there were. */
static unsigned converse(void **state, unsigned wrong_at, enum backend_fault fault, int *ret_result)
{
        struct peer peer;
        struct vhost_front front;
        struct error err = ERROR_INIT;
        unsigned n_fds = server_n_fds(0);
        int fd = peer_start(&peer, wrong_at, fault);
        bool silent = fault == BACKEND_SILENT || fault == BACKEND_HEADER;
        int r;

        peer_run(&peer);
        r = vhost_front_open(&front, fd, silent ? SHORT_MS : LONG_MS, &err);
        if (r == 0)
                r = say_everything(&front, *state, &err);
        if (r < 0) {
                assert_true(err.message[0]);
                assert_false(vhost_front_is_up(&front));
                /* It stays so. */
                if (front.fd >= 0)
                        assert_int_equal(vhost_front_set_features(&front, 0, NULL), -ECONNRESET);
        }
        vhost_front_close(&front);
        peer_end(&peer);
        server_wait_fds(0, n_fds);
        *ret_result = r;
        return peer.backend.n_messages;
}

static void a_back_end_that_is_right_is_told_everything(void **state)
{
        int r;

        assert_int_equal(converse(state, 0, BACKEND_RIGHT, &r), MESSAGES);
        assert_int_equal(r, 0);
        for (unsigned i = 1; i <= MESSAGES; i++) {
                assert_int_equal(converse(state, i, BACKEND_PIECES, &r), MESSAGES);
                assert_int_equal(r, 0);
        }
}

/* What the failure is, at a message that is answered. */
static int expected(enum backend_fault fault)
{
        switch (fault) {
        case BACKEND_SILENT:
        case BACKEND_HEADER:
                return -ETIMEDOUT;
        case BACKEND_CLOSES:
        case BACKEND_HALF:
                return -ECONNRESET;
        default:
                return -EPROTO;
        }
}

static void an_answer_that_is_wrong_ends_it(void **state)
{
        static const enum backend_fault wrong[] = {
            BACKEND_SILENT,  BACKEND_CLOSES,   BACKEND_HALF,    BACKEND_HEADER,
            BACKEND_REQUEST, BACKEND_NO_REPLY, BACKEND_VERSION, BACKEND_HUGE,
        };

        for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
                for (unsigned at = 1; at <= MESSAGES; at++) {
                        int r;

                        /* SET_PROTOCOL_FEATURES is not answered, nor has it to be taken. */
                        converse(state, at, wrong[i], &r);
                        if (at != AT_SET_PROTOCOL)
                                assert_int_equal(r, expected(wrong[i]));
                        else
                                assert_true(r == 0 || r == -ECONNRESET || r == -ETIMEDOUT);
                }
}

/* Refused where it is a yes or no, absurd where it is a number; and what is more than was asked for. */
static void answers_that_make_no_sense_end_it(void **state)
{
        /* features, queues, configuration: read by others, or looked at in other tests */
        for (unsigned at = AT_SET_PROTOCOL + 1; at <= MESSAGES; at++) {
                int r;

                converse(state, at, BACKEND_ONES, &r);
                assert_true(r == -EBADMSG || r == -EPROTO || at == AT_SET_LOG);
                converse(state, at, BACKEND_LONG, &r);
                assert_true(r == -EPROTO || at == AT_SET_LOG);
                converse(state, at, BACKEND_EMPTY, &r);
                assert_true(r == -EPROTO || at == AT_SET_LOG);
                /* An answer that nobody asked for is the next one's. */
                converse(state, at, BACKEND_TWICE, &r);
                assert_true(r == -EPROTO || at == MESSAGES);
        }
}

static void surplus_descriptors_are_closed(void **state)
{
        for (unsigned at = 1; at <= MESSAGES; at++) {
                int r;

                converse(state, at, BACKEND_FDS, &r);
                assert_int_equal(r, 0);
                converse(state, at, BACKEND_NO_FD, &r);
                assert_int_equal(r, at == AT_GET_INFLIGHT ? -EPROTO : 0);
        }
}

/* ---- what a back end has to offer ---- */

static int open_with(uint64_t features, uint64_t protocol, uint64_t n_queues, unsigned *ret_queues)
{
        struct peer peer;
        struct vhost_front front;
        struct error err = ERROR_INIT;
        int fd = peer_start(&peer, 0, BACKEND_RIGHT), r;

        peer.backend.features &= ~features;
        peer.backend.protocol &= ~protocol;
        peer.backend.n_queues = n_queues;
        peer_run(&peer);
        r = vhost_front_open(&front, fd, LONG_MS, &err);
        *ret_queues = front.n_queues;
        vhost_front_close(&front);
        peer_end(&peer);
        return r;
}

static void what_a_back_end_has_to_know_is_asked_for(void **state)
{
        unsigned n;

        assert_int_equal(open_with(VF_VERSION_1, 0, 4, &n), -EOPNOTSUPP);
        assert_int_equal(open_with(VF_PROTOCOL_FEATURES, 0, 4, &n), -EOPNOTSUPP);
        assert_int_equal(open_with(0, VP_REPLY_ACK, 4, &n), -EOPNOTSUPP);
        assert_int_equal(open_with(0, VP_CONFIG, 4, &n), -EOPNOTSUPP);
        assert_int_equal(open_with(0, VP_INFLIGHT_SHMFD, 4, &n), -EOPNOTSUPP);
        assert_int_equal(open_with(0, VP_MQ, 4, &n), 0);
        assert_int_equal(n, 1);
        assert_int_equal(open_with(0, VP_BACKEND_REQ, 4, &n), 0);
        assert_int_equal(n, 4);
        assert_int_equal(open_with(0, 0, 0, &n), -EPROTO);
        assert_int_equal(open_with(0, 0, UINT64_C(1) << 32, &n), -EPROTO);
        assert_int_equal(open_with(0, 0, 1025, &n), -EPROTO);
}

static void only_a_connected_unix_socket_is_one(void **state)
{
        struct vhost_front front;
        int ends[2];

        assert_int_equal(vhost_front_open(&front, socket(AF_INET, SOCK_STREAM, 0), SHORT_MS, NULL),
                         -ENOTSOCK);
        assert_int_equal(vhost_front_open(&front, eventfd(0, 0), SHORT_MS, NULL), -ENOTSOCK);
        assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends), 0);
        assert_int_equal(vhost_front_open(&front, ends[0], SHORT_MS, NULL), -ENOTSOCK);
        close(ends[1]);
        assert_true(vhost_front_open(&front, socket(AF_UNIX, SOCK_STREAM, 0), SHORT_MS, NULL) < 0);
}

/* ---- the channel ---- */

#define CHANGE 2u

struct on_channel {
        struct vhost_front front;
        struct peer peer;
};

static void open_channel(struct on_channel *c)
{
        int fd = peer_start(&c->peer, 0, BACKEND_RIGHT);

        peer_run(&c->peer);
        assert_int_equal(vhost_front_open(&c->front, fd, LONG_MS, NULL), 0);
        assert_true(c->front.channel >= 0);
}

static void close_channel(struct on_channel *c)
{
        vhost_front_close(&c->front);
        peer_end(&c->peer);
}

static int listen_to(struct on_channel *c, const void *data, uint32_t size, bool *ret_changed)
{
        if (size > 0)
                backend_say(&c->peer.backend, data, size);
        return vhost_front_listen(&c->front, ret_changed, NULL);
}

static void a_change_is_heard_and_answered(void **state)
{
        struct vu_header change = {CHANGE, VU_VERSION, 0},
                         other = {1, VU_VERSION | VU_NEED_REPLY, 0};
        struct {
                struct vu_header header;
                uint32_t value[2];
        } answer;
        struct on_channel c;
        bool changed;

        open_channel(&c);
        assert_int_equal(listen_to(&c, NULL, 0, &changed), 0);
        assert_false(changed);
        assert_int_equal(listen_to(&c, &change, sizeof(change), &changed), 0);
        assert_true(changed);
        change.flags |= VU_NEED_REPLY;
        for (unsigned i = 0; i < sizeof(change); i++) {
                assert_int_equal(listen_to(&c, (uint8_t *)&change + i, 1, &changed), 0);
                assert_int_equal(changed, i + 1 == sizeof(change));
        }
        assert_int_equal(recv(c.peer.backend.channel, &answer, sizeof(answer), 0), sizeof(answer));
        assert_int_equal(answer.header.request, CHANGE);
        assert_int_equal(answer.header.flags, VU_VERSION | VU_REPLY);
        assert_int_equal(answer.value[0], 0);
        assert_int_equal(listen_to(&c, &other, sizeof(other), &changed), 0);
        assert_false(changed);
        assert_int_equal(recv(c.peer.backend.channel, &answer, sizeof(answer), 0), sizeof(answer));
        assert_int_equal(answer.value[0], 1);
        close_channel(&c);
}

static void nonsense_ends_the_channel_alone(void **state)
{
        const struct vu_header wrong[] = {
            {CHANGE, VU_VERSION, 9}, {CHANGE, VU_VERSION, UINT32_MAX}, {CHANGE, 0, 0}};
        struct on_channel c;
        bool changed;

        for (unsigned i = 0; i < 3; i++) {
                open_channel(&c);
                assert_int_equal(listen_to(&c, &wrong[i], sizeof(wrong[i]), &changed), -EPROTO);
                assert_int_equal(c.front.channel, -1);
                assert_int_equal(vhost_front_set_features(&c.front, 0, NULL), 0);
                close_channel(&c);
        }
        open_channel(&c);
        close(c.peer.backend.channel);
        c.peer.backend.channel = -1;
        assert_int_equal(listen_to(&c, NULL, 0, &changed), -ECONNRESET);
        close_channel(&c);
}

/* Not all that there is at a time. */
static void who_says_much_is_heard_in_turns(void **state)
{
        const struct vu_header change = {CHANGE, VU_VERSION, 0};
        struct on_channel c;
        unsigned n = 0;
        bool changed;

        open_channel(&c);
        for (unsigned i = 0; i < 100; i++)
                backend_say(&c.peer.backend, &change, sizeof(change));
        for (changed = true; changed; n += changed)
                assert_int_equal(listen_to(&c, NULL, 0, &changed), 0);
        assert_in_range(n, 2, 99);
        close_channel(&c);
}

#define test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            test(a_back_end_that_is_right_is_told_everything),
            test(an_answer_that_is_wrong_ends_it),
            test(answers_that_make_no_sense_end_it),
            test(surplus_descriptors_are_closed),
            test(what_a_back_end_has_to_know_is_asked_for),
            test(only_a_connected_unix_socket_is_one),
            test(a_change_is_heard_and_answered),
            test(nonsense_ends_the_channel_alone),
            test(who_says_much_is_heard_in_turns),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
