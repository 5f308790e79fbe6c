/* test_attach_handover.c - attachments on their way to another server while memory is short. Nobody
 * has connected; what was saved of front ends is made up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>
#include "common/coroutine.h"
#include "common/log.h"
#include "server/attach_internal.h"
#include "tests/unit/open_fds.h"

#define ATTACHMENTS 3u
#define FRONT_ENDS  2u /* of each */

static unsigned n_until_failure; /* 0: memory is never short */
static bool has_failed;

static void *short_malloc(size_t n_bytes)
{
        if (n_until_failure > 0 && --n_until_failure == 0) {
                has_failed = true;
                return NULL;
        }
        return malloc(n_bytes);
}

static void fail_at(unsigned n)
{
        n_until_failure = n;
        has_failed = false;
}

static int listening(void)
{
        struct sockaddr_un any = {.sun_family = AF_UNIX}; /* a name of the kernel's choice */
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        assert_int_equal(bind(fd, (struct sockaddr *)&any, sizeof(sa_family_t)), 0);
        assert_int_equal(listen(fd, 1), 0);
        return fd;
}

static void make_up_front_ends(struct attachment *a)
{
        a->saved = calloc(FRONT_ENDS, sizeof(*a->saved));
        a->n_saved = FRONT_ENDS;
        for (unsigned i = 0; i < FRONT_ENDS; i++) {
                struct vhost_saved *s = &a->saved[i];

                *s = (struct vhost_saved){calloc(1, 4), 4, calloc(2, sizeof(int)), 2};
                s->fds[0] = dup(2);
                s->fds[1] = dup(2);
        }
}

static void make_pool(struct host_pool *hp, struct loop *loop)
{
        *hp = (struct host_pool){.loop = loop, .name = "tank"};
        list_init(&hp->attachments);
        assert_int_equal(vhost_server_new(loop, NULL, &hp->vhost, NULL), 0);
        for (unsigned i = 0; i < ATTACHMENTS; i++) {
                struct state_attachment wanted = {.path = (char *)"/run/sock", .n_queues = 1};
                struct attachment *a;

                snprintf(wanted.target, sizeof(wanted.target), "vol%u", i);
                assert_int_equal(attachment_new(hp, &wanted, listening(), true, false, &a, NULL),
                                 0);
                snprintf(a->identity, sizeof(a->identity), "identity of %u", i);
        }
}

static bool is_listening(int fd)
{
        int value = 0;
        socklen_t length = sizeof(value);

        return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &value, &length) == 0 && value;
}

/* Every attachment is there with its socket; returns how many front ends are. */
static size_t expect_attachments(struct handover *h, const json_t *all)
{
        size_t n = 0;

        assert_int_equal(json_array_size(all), ATTACHMENTS);
        for (unsigned i = 0; i < ATTACHMENTS; i++) {
                const json_t *one = json_array_get(all, i);
                int fd = handover_take(h, json_object_get(one, "fd"));
                char name[16], identity[ATTACH_IDENTITY_SIZE];

                snprintf(name, sizeof(name), "vol%u", i);
                snprintf(identity, sizeof(identity), "identity of %u", i);
                assert_string_equal(json_string_value(json_object_get(one, "target")), name);
                assert_string_equal(json_string_value(json_object_get(one, "identity")), identity);
                assert_true(is_listening(fd));
                close(fd);
                n += json_array_size(json_object_get(one, "clients"));
        }
        return n;
}

static void co_hand_over(void *arg)
{
        bool more = true;

        for (unsigned n = 1; more; n++) {
                struct handover h = HANDOVER_INIT;
                struct host_pool hp;
                json_t *all;
                size_t n_clients;
                int r;

                make_pool(&hp, co_loop());
                all = attach_prepare(&hp, &h);
                assert_non_null(all);
                attach_save_begin(&hp);
                list_for_each (it, &hp.attachments)
                        make_up_front_ends(container_of(it, struct attachment, link));
                fail_at(n);
                r = co_attach_save(&hp, &h, NULL);
                more = has_failed;
                fail_at(0);
                n_clients = expect_attachments(&h, all);
                if (more) {
                        assert_int_equal(r, -ENOMEM);
                        assert_int_equal(n_clients, ATTACHMENTS * FRONT_ENDS - 1);
                } else {
                        assert_int_equal(r, 0);
                        assert_int_equal(n_clients, ATTACHMENTS * FRONT_ENDS);
                }
                json_decref(all);
                handover_free(&h);
        }
}

static void no_attachment_is_lost_for_want_of_memory_and_a_lost_front_end_is_told(void **state)
{
        struct loop *loop;
        unsigned before, left_ms = 10000;

        assert_int_equal(loop_new(LOOP_BACKEND_AUTO, &loop, NULL), 0);
        before = count_open_fds();
        assert_int_equal(co_run(loop, co_hand_over, NULL), 0);
        while (count_open_fds() > before && left_ms-- > 0)
                usleep(1000); /* some are closed by another thread */
        assert_int_equal(count_open_fds(), before);
        loop_free(loop);
}

/* Before anything has stopped, so that all go on. */
static void co_prepare(void *arg)
{
        struct handover h = HANDOVER_INIT;
        struct host_pool hp;
        struct host host;
        json_t *all = NULL;

        host_init(&host, co_loop());
        make_pool(&hp, co_loop());
        list_append(&host.pools, &hp.link);
        for (unsigned n = 1; !all; n++) {
                fail_at(n);
                all = attach_prepare(&hp, &h);
                assert_true(has_failed ? !all : json_array_size(all) == ATTACHMENTS);
                fail_at(0);
        }
        json_decref(all);
        handover_free(&h);
        co_attach_stop(&host);
}

static void preparing_without_memory_fails_and_leaves_all_as_it_is(void **state)
{
        struct loop *loop;

        assert_int_equal(loop_new(LOOP_BACKEND_AUTO, &loop, NULL), 0);
        assert_int_equal(co_run(loop, co_prepare, NULL), 0);
        loop_free(loop);
}

static void quiet(enum log_level level, const char *message)
{
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(no_attachment_is_lost_for_want_of_memory_and_a_lost_front_end_is_told),
            cmocka_unit_test(preparing_without_memory_fails_and_leaves_all_as_it_is),
        };

        log_set_sink(quiet);
        json_set_alloc_funcs(short_malloc, free);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
