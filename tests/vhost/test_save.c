/* test_save.c - front ends of the vhost-user-blk device that go from one server to the next and do
 * not notice. Over volumes in memory. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "tests/vhost/raw.h"
#include "tests/vhost/server.h"

static void pass_on(struct server *s)
{
        server_save(s, SERVER_VOL);
        server_wait_saved(s, SERVER_VOL);
        server_restore(s, SERVER_VOL);
        server_go(s, SERVER_VOL);
}

static bool is_readable(int fd)
{
        struct pollfd p = {.fd = fd, .events = POLLIN};

        return poll(&p, 1, 0) > 0 && (p.revents & POLLIN);
}

static void a_front_end_goes_on_with_the_next_server(void **state)
{
        for (unsigned i = 0; i < 8; i++) {
                struct disk *d = check_open((struct disk_options){
                    .packed = i & 1, .without_inflight = i & 2, .by_slots = i & 4});
                for (unsigned n = 0; n < 10; n++) {
                        check_alive(d);
                        pass_on(*state);
                }
                check_alive(d);
                assert_true(front_is_open(d->front));
                disk_close(d);
        }
}

static void two_front_ends_of_one_memory_go_on(void **state)
{
        struct disk *a = check_open((struct disk_options){0});
        struct disk *b = check_open((struct disk_options){.packed = true});

        check_alive(a);
        check_alive(b);
        pass_on(*state);
        check_alive(a);
        check_alive(b);
        disk_close(a);
        pass_on(*state);
        check_alive(b);
        disk_close(b);
}

static void saving_waits_for_what_is_in_flight(void **state)
{
        struct volume *volume = server_volume(*state, SERVER_VOL);

        for (unsigned packed = 0; packed < 2; packed++) {
                struct raw *r = raw_open((struct disk_options){.packed = packed});

                fake_hold(volume);
                raw_show(r, 0);
                fake_wait_held(volume, 1);
                server_save(*state, SERVER_VOL);
                server_turn(*state);
                assert_false(server_is_saved(*state, SERVER_VOL));
                fake_release_all(volume);
                server_wait_saved(*state, SERVER_VOL);
                assert_int_equal(raw_outcome(r), RAW_OK);
                server_restore(*state, SERVER_VOL);
                server_go(*state, SERVER_VOL);
                raw_close(r);
                check_server_alive();
        }
}

/* A kick that is taken by a server which then does not come to serve would be lost. */
static void nothing_runs_and_no_kick_is_taken_before_the_server_goes(void **state)
{
        struct volume *volume = server_volume(*state, SERVER_VOL);

        for (unsigned packed = 0; packed < 2; packed++) {
                struct raw *r = raw_open((struct disk_options){.packed = packed});
                uint64_t before = fake_counts(volume).submitted[VOLUME_READ];

                server_save(*state, SERVER_VOL);
                server_wait_saved(*state, SERVER_VOL);
                raw_show(r, 0);
                server_restore(*state, SERVER_VOL);
                server_turn(*state);
                assert_true(is_readable(r->ring->kick));
                assert_int_equal(fake_counts(volume).submitted[VOLUME_READ], before);
                server_go(*state, SERVER_VOL);
                assert_int_equal(raw_outcome(r), RAW_OK);
                raw_close(r);
        }
}

/* Shown while there is no server, and the kick is gone with the one before. */
static void show_without_kick(struct disk *d, uint64_t *ret_status)
{
        const struct virtio_blk_outhdr header = {.type = VIRTIO_BLK_T_IN};
        const uint8_t none = DISK_STATUS_NONE;
        uint64_t at = guest_take(d->memory, 0, sizeof(header), 16), value;
        struct ring_buffer buffers[] = {{at, sizeof(header), false},
                                        {guest_take(d->memory, 0, 4096, 4096), 4096, true},
                                        {guest_take(d->memory, 0, 1, 1), 1, true}};

        *ret_status = buffers[2].guest;
        guest_write(d->memory, at, &header, sizeof(header));
        guest_write(d->memory, *ret_status, &none, 1);
        assert_true(ring_add(&d->rings[0], buffers, 3, 0, d));
        ring_publish(&d->rings[0]);
        if (is_readable(d->rings[0].kick))
                assert_int_equal(read(d->rings[0].kick, &value, sizeof(value)), sizeof(value));
}

/* The next server finds it: the status of the request. */
static uint8_t found_by_the_next(struct server *s, struct disk *d)
{
        uint64_t at;
        uint32_t n_bytes;
        uint8_t status;
        void *cookie;

        server_save(s, SERVER_VOL);
        server_wait_saved(s, SERVER_VOL);
        show_without_kick(d, &at);
        server_restore(s, SERVER_VOL);
        server_go(s, SERVER_VOL);
        ok(ring_wait(&d->rings[0], RAW_WAIT_MS, &cookie, &n_bytes, &check_err));
        guest_read(d->memory, at, &status, 1);
        return status;
}

static void what_is_in_the_ring_is_found_without_a_kick(void **state)
{
        for (unsigned i = 0; i < 4; i++) {
                struct disk *d =
                    check_open((struct disk_options){.packed = i & 1, .without_inflight = i & 2});

                check_alive(d);
                assert_int_equal(found_by_the_next(*state, d), VIRTIO_BLK_S_OK);
                check_alive(d);
                disk_close(d);
        }
}

/* Its base is that of a ring which has never run, after 65,536 requests. */
static void a_ring_that_has_come_round_goes_on_too(void **state)
{
        struct disk *d = check_open((struct disk_options){.without_inflight = true});

        for (unsigned i = 0; i < 65536; i++)
                check_flush(d);
        assert_int_equal(found_by_the_next(*state, d), VIRTIO_BLK_S_OK);
        check_alive(d);
        disk_close(d);
}

static void half_a_message_goes_along(void **state)
{
        const uint32_t message[] = {VU_GET_FEATURES, VU_VERSION, 0};

        for (unsigned n = 1; n < sizeof(message); n++) {
                struct disk *d = check_open((struct disk_options){0});
                struct front_reply reply;

                ok(front_send_bytes(d->front, message, n, NULL, 0, &check_err));
                server_turn(*state);
                pass_on(*state);
                ok(front_send_bytes(d->front, (const uint8_t *)message + n, sizeof(message) - n,
                                    NULL, 0, &check_err));
                ok(front_reply(d->front, VU_GET_FEATURES, &reply, &check_err));
                check_alive(d);
                disk_close(d);
        }
}

static void half_a_message_keeps_its_descriptors(void **state)
{
        for (unsigned n = 1; n < 12 + 8 + 3 * sizeof(struct vu_region); n += 5) {
                struct disk *d = check_open((struct disk_options){0});
                struct {
                        uint32_t head[3];
                        uint8_t table[8 + 3 * sizeof(struct vu_region)];
                } message = {.head = {VU_SET_MEM_TABLE, VU_VERSION | VU_NEED_REPLY,
                                      8 + 3 * sizeof(struct vu_region)}};
                struct vu_table table = {.n_regions = 3};
                struct front_reply reply;
                int fds[3];

                for (unsigned i = 0; i < 3; i++) {
                        table.regions[i] = d->memory->regions[i].address;
                        fds[i] = d->memory->regions[i].fd;
                }
                memcpy(message.table, &table, sizeof(message.table));
                check_alive(d);
                ok(front_send_bytes(d->front, &message, n, fds, 3, &check_err));
                server_turn(*state);
                pass_on(*state);
                ok(front_send_bytes(d->front, (const uint8_t *)&message + n, sizeof(message) - n,
                                    NULL, 0, &check_err));
                ok(front_reply(d->front, VU_SET_MEM_TABLE, &reply, &check_err));
                assert_int_equal(reply.u64, 0);
                check_alive(d);
                disk_close(d);
        }
}

static void who_comes_meanwhile_is_served_by_the_next(void **state)
{
        struct front *front;
        uint64_t features;

        server_save(*state, SERVER_VOL);
        server_wait_saved(*state, SERVER_VOL);
        ok(front_connect(server_path(*state, SERVER_VOL), &front, &check_err));
        server_restore(*state, SERVER_VOL);
        server_turn(*state);
        assert_int_equal(server_n_clients(*state), 0);
        server_go(*state, SERVER_VOL);
        ok(front_ask_u64(front, VU_GET_FEATURES, &features, &check_err));
        front_close(front);
}

static void who_leaves_meanwhile_is_gone(void **state)
{
        struct disk *d = check_open((struct disk_options){0});

        check_alive(d);
        server_save(*state, SERVER_VOL);
        server_wait_saved(*state, SERVER_VOL);
        disk_close(d);
        server_restore(*state, SERVER_VOL);
        server_go(*state, SERVER_VOL);
        server_wait_clients(*state, 0);
}

static void what_was_offered_stays_offered(void **state)
{
        struct disk *d = check_open((struct disk_options){0}), *other;

        server_save(*state, SERVER_VOL);
        server_wait_saved(*state, SERVER_VOL);
        server_set_discard(*state, SERVER_VOL, false);
        server_restore(*state, SERVER_VOL);
        server_go(*state, SERVER_VOL);
        check_alive(d);
        other = check_open((struct disk_options){0});
        assert_true(disk_has(d, VF_BLK_DISCARD));
        assert_false(disk_has(other, VF_BLK_DISCARD));
        server_set_discard(*state, SERVER_VOL, true);
        disk_close(d);
        disk_close(other);
}

static void a_resize_reaches_the_guest_through_the_next_server(void **state)
{
        struct disk *d = check_open((struct disk_options){0});
        uint32_t request;

        pass_on(*state);
        server_resize(*state, SERVER_VOL, SERVER_BYTES / 2);
        ok(front_channel_next(d->front, RAW_WAIT_MS, &request, &check_err));
        ok(disk_read_config(d, &check_err));
        assert_int_equal(disk_size(d), SERVER_BYTES / 2);
        server_resize(*state, SERVER_VOL, SERVER_BYTES);
        disk_close(d);
}

static void rubbish_in_place_of_what_was_saved_is_refused(void **state)
{
        struct disk *d = check_open((struct disk_options){.packed = true});
        size_t n_bytes;

        check_alive(d);
        server_save(*state, SERVER_VOL);
        server_wait_saved(*state, SERVER_VOL);
        n_bytes = server_restore_part(*state, SERVER_VOL, 0);
        for (size_t n = 1; n < n_bytes; n++)
                server_restore_part(*state, SERVER_VOL, n);
        server_restore(*state, SERVER_VOL);
        server_go(*state, SERVER_VOL);
        check_alive(d);
        disk_close(d);
}

/* Numbers that save.c gives to what is no message. */
#define SAVED_REST    0x10001u
#define FACTS_SIZE_AT 12

/* Out of order, twice, or of no bytes. */
static void descriptors_of_rubbish_are_closed(void **state)
{
        static const uint32_t requests[] = {VU_GET_FEATURES, VU_SET_MEM_TABLE, SAVED_REST};
        static const uint32_t sizes[] = {0, 8, 13};
        struct disk *d = check_open((struct disk_options){0});
        uint32_t facts_bytes;
        unsigned before;

        check_alive(d);
        server_save(*state, SERVER_VOL);
        server_wait_saved(*state, SERVER_VOL);
        memcpy(&facts_bytes, server_saved_bytes(*state, SERVER_VOL) + FACTS_SIZE_AT, 4);
        before = server_n_fds(0);
        for (unsigned facts = 0; facts < 2; facts++)
                for (unsigned r = 0; r < 3; r++)
                        for (unsigned i = 0; i < 3; i++) {
                                server_restore_odd(*state, SERVER_VOL, facts ? 16 + facts_bytes : 0,
                                                   requests[r], 2, sizes[i], 3);
                                server_wait_fds(0, before);
                        }
        server_restore(*state, SERVER_VOL);
        server_go(*state, SERVER_VOL);
        check_alive(d);
        disk_close(d);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, server_setup, server_teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            TEST(a_front_end_goes_on_with_the_next_server),
            TEST(two_front_ends_of_one_memory_go_on),
            TEST(saving_waits_for_what_is_in_flight),
            TEST(nothing_runs_and_no_kick_is_taken_before_the_server_goes),
            TEST(what_is_in_the_ring_is_found_without_a_kick),
            TEST(a_ring_that_has_come_round_goes_on_too),
            TEST(half_a_message_goes_along),
            TEST(half_a_message_keeps_its_descriptors),
            TEST(who_comes_meanwhile_is_served_by_the_next),
            TEST(who_leaves_meanwhile_is_gone),
            TEST(what_was_offered_stays_offered),
            TEST(a_resize_reaches_the_guest_through_the_next_server),
            TEST(rubbish_in_place_of_what_was_saved_is_refused),
            TEST(descriptors_of_rubbish_are_closed),
        };
        return cmocka_run_group_tests_name("vhost save", tests, NULL, NULL);
}
