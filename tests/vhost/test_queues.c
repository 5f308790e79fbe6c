/* test_queues.c - rules 6, 9, 11, 12 and 13 of the vhost-user-blk device (README.md): what is
 * offered and agreed on, the states of queues, and the config space. Over volumes in memory. */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "tests/vhost/raw.h"
#include "tests/vhost/server.h"

#define WRITE_BACK_OFFSET offsetof(struct virtio_blk_config, wce)

static struct fake_counts counts_of(void **state)
{
        return fake_counts(server_volume(*state, SERVER_VOL));
}

static bool is_answered(struct disk *d)
{
        struct pollfd fd = {.fd = d->front->fd, .events = POLLIN};

        return poll(&fd, 1, 0) > 0;
}

/* ---- 6: gates ---- */

static void rule_6_without_a_flush_agreed_on_each_write_is_durable(void **state)
{
        const uint64_t withouts[] = {0, VF_BLK_CONFIG_WCE, VF_BLK_FLUSH | VF_BLK_CONFIG_WCE};
        uint8_t data[4096] = {1};
        struct virtio_blk_discard_write_zeroes range = {.num_sectors = 8};

        for (unsigned i = 0; i < 3; i++) {
                struct disk *d = check_open((struct disk_options){.without = withouts[i]});
                struct fake_counts before = counts_of(state);
                check_write(d, 0, data, sizeof(data));
                assert_int_equal(
                    check_status(d, VIRTIO_BLK_T_WRITE_ZEROES, 0, &range, sizeof(range)),
                    VIRTIO_BLK_S_OK);
                struct fake_counts after = counts_of(state);
                bool durable = i == 2;
                assert_int_equal(after.fua[VOLUME_WRITE] - before.fua[VOLUME_WRITE], durable);
                assert_int_equal(after.fua[VOLUME_ZERO] - before.fua[VOLUME_ZERO] +
                                     after.fua[VOLUME_DISCARD] - before.fua[VOLUME_DISCARD],
                                 durable);
                disk_close(d);
        }
}

static void rule_6_the_guest_turns_the_write_cache_off_and_on(void **state)
{
        struct disk *d = check_open((struct disk_options){0});
        uint8_t data[512] = {1}, wce;

        for (unsigned i = 0; i < 4; i++) {
                wce = i % 2;
                ok(front_set_config(d->front, WRITE_BACK_OFFSET, 1, &wce, &check_err));
                ok(disk_read_config(d, &check_err));
                assert_int_equal(d->config.wce, wce);
                unsigned before = counts_of(state).fua[VOLUME_WRITE];
                check_write(d, 0, data, sizeof(data));
                assert_int_equal(counts_of(state).fua[VOLUME_WRITE] - before, !wce);
        }
        disk_close(d);
}

static void rule_6_what_was_not_agreed_on_is_not_served(void **state)
{
        const struct {
                uint64_t feature;
                uint32_t type;
        } cases[] = {{VF_BLK_DISCARD, VIRTIO_BLK_T_DISCARD},
                     {VF_BLK_WRITE_ZEROES, VIRTIO_BLK_T_WRITE_ZEROES}};
        struct virtio_blk_discard_write_zeroes range = {.num_sectors = 8};
        static uint8_t ones[4096], back[4096];

        memset(ones, 1, sizeof(ones));
        for (unsigned i = 0; i < 2; i++) {
                struct disk *d = check_open((struct disk_options){.without = cases[i].feature});
                check_write(d, 0, ones, sizeof(ones));
                assert_int_equal(check_status(d, cases[i].type, 0, &range, sizeof(range)),
                                 VIRTIO_BLK_S_UNSUPP);
                check_read(d, 0, back, sizeof(back));
                assert_memory_equal(ones, back, sizeof(back));
                disk_close(d);
        }
}

static void rule_6_features_that_were_not_offered_are_refused(void **state)
{
        struct disk *d = check_open((struct disk_options){.stopped = true});

        check_err = ERROR_INIT;
        assert_true(front_tell_u64(d->front, VU_SET_FEATURES, d->front->features | VF_BIT(60),
                                   &check_err) < 0);
        disk_close(d);
}

static void rule_6_a_read_only_device_takes_no_writes(void **state)
{
        uint8_t data[512] = {1};
        struct virtio_blk_discard_write_zeroes range = {.num_sectors = 1};

        for (unsigned i = 0; i < 2; i++) {
                struct disk *d = check_open((struct disk_options){
                    .path = server_path(*state, SERVER_READONLY), .without = i ? VF_BLK_RO : 0});
                const uint32_t types[] = {VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES};
                assert_int_not_equal(d->front->offered & VF_BLK_RO, 0);
                assert_int_equal(check_status(d, VIRTIO_BLK_T_OUT, 0, data, sizeof(data)),
                                 VIRTIO_BLK_S_IOERR);
                for (unsigned t = 0; t < 2; t++)
                        assert_int_not_equal(check_status(d, types[t], 0, &range, sizeof(range)),
                                             VIRTIO_BLK_S_OK);
                check_read(d, 0, data, sizeof(data));
                check_flush(d);
                disk_close(d);
        }
        struct fake_counts counts = fake_counts(server_volume(*state, SERVER_READONLY));
        assert_int_equal(counts.submitted[VOLUME_WRITE] + counts.submitted[VOLUME_ZERO] +
                             counts.submitted[VOLUME_DISCARD],
                         0);
}

static unsigned n_submitted(void **state)
{
        struct fake_counts counts = fake_counts(server_volume(*state, SERVER_VOL));
        unsigned n = 0;

        for (unsigned op = 0; op <= VOLUME_ZERO; op++)
                n += counts.submitted[op];
        return n;
}

/* Also where a sector's byte is beyond 64 bits. */
static void what_lies_behind_the_end_never_reaches_the_engine(void **state)
{
        const uint64_t end = SERVER_BYTES / 512, wraps = UINT64_C(1) << 55;
        const uint64_t sectors[] = {end, end - 1, wraps, wraps + 1, UINT64_MAX, UINT64_MAX - 1};
        const uint32_t types[] = {VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_DISCARD,
                                  VIRTIO_BLK_T_WRITE_ZEROES};
        struct disk *d = check_open((struct disk_options){0});
        uint8_t data[1024] = {1};
        unsigned before = n_submitted(state);

        for (unsigned i = 0; i < sizeof(sectors) / sizeof(sectors[0]); i++)
                for (unsigned t = 0; t < 4; t++) {
                        struct virtio_blk_discard_write_zeroes range = {sectors[i], 2, 0};
                        bool ranges = t >= 2;
                        assert_int_equal(
                            check_status(d, types[t], ranges ? 0 : sectors[i],
                                         ranges ? (void *)&range : data,
                                         ranges ? (uint32_t)sizeof(range) : sizeof(data)),
                            VIRTIO_BLK_S_IOERR);
                }
        assert_int_equal(n_submitted(state), before);
        disk_close(d);
}

/* Reads of 1 MiB, of pieces that are all the same. */
static void bytes_in_flight_are_bounded_and_all_are_served(void **state)
{
        enum { N = 80, PIECES = 256 };
        const uint64_t most = UINT64_C(64) << 20; /* vhost_user.h */
        struct volume *volume = server_volume(*state, SERVER_VOL);
        struct raw *r = raw_open((struct disk_options){.queue_size = 128});

        raw_entry(r, 0, r->header, sizeof(struct virtio_blk_outhdr), VRING_DESC_F_NEXT, 1);
        for (uint16_t i = 1; i <= PIECES; i++)
                raw_entry(r, i, r->data, 4096, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT,
                          (uint16_t)(i + 1));
        raw_entry(r, PIECES + 1, r->status, 1, VRING_DESC_F_WRITE, 0);
        for (uint16_t i = 0; i < N; i++)
                raw_desc(r, i, r->table, (PIECES + 2) * 16, VRING_DESC_F_INDIRECT, 0);
        fake_hold(volume);
        for (uint16_t i = 0; i < N; i++)
                raw_show(r, i);
        fake_wait_held(volume, 50);
        server_turn(*state);
        server_turn(*state);
        fake_release_all(volume);
        while (__atomic_load_n(&ring_used(r->ring)->idx, __ATOMIC_ACQUIRE) != N)
                assert_true(ring_wait_call(r->ring, RAW_WAIT_MS));
        assert_int_equal(fake_counts(volume).submitted[VOLUME_READ], N);
        assert_in_range(fake_counts(volume).bytes_in_flight_max, most / 2, most);
        raw_close(r);
}

static void more_ranges_than_were_promised_are_refused(void **state)
{
        static struct virtio_blk_discard_write_zeroes ranges[256];
        struct disk *d = check_open((struct disk_options){0});
        unsigned before = n_submitted(state), n = d->config.max_discard_seg + 1;

        assert_true(n < 256);
        for (unsigned i = 0; i < 256; i++)
                ranges[i] = (struct virtio_blk_discard_write_zeroes){8 * i, 8, 0};
        for (; n <= 256; n++)
                assert_int_equal(check_status(d, VIRTIO_BLK_T_DISCARD, 0, ranges,
                                              n * (uint32_t)sizeof(ranges[0])),
                                 VIRTIO_BLK_S_IOERR);
        assert_int_equal(n_submitted(state), before);
        disk_close(d);
}

static void rule_6_an_error_of_the_volume_is_the_requests(void **state)
{
        struct disk *d = check_open((struct disk_options){0});
        uint8_t data[512] = {1};

        for (unsigned op = VOLUME_READ; op <= VOLUME_FLUSH; op++) {
                const uint32_t types[] = {VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_FLUSH};
                uint32_t n_bytes = op == VOLUME_FLUSH ? 0 : sizeof(data);
                fake_fail(server_volume(*state, SERVER_VOL), op, -EIO);
                assert_int_equal(check_status(d, types[op], 0, data, n_bytes), VIRTIO_BLK_S_IOERR);
                fake_fail(server_volume(*state, SERVER_VOL), op, 0);
                assert_int_equal(check_status(d, types[op], 0, data, n_bytes), VIRTIO_BLK_S_OK);
        }
        disk_close(d);
}

/* ---- 9: the states of a queue ---- */

/* Put @n reads into the ring, not yet shown. */
static void add_reads(struct disk *d, unsigned queue, struct disk_op *ops,
                      struct disk_flight *flights, unsigned n)
{
        static uint8_t block[512];

        for (unsigned i = 0; i < n; i++) {
                ops[i] = (struct disk_op){
                    .type = VIRTIO_BLK_T_IN, .sector = i, .data = block, .n_bytes = sizeof(block)};
                ok(disk_add(d, queue, &ops[i], &flights[i], &check_err));
        }
}

static void rule_9_a_stop_waits_for_what_is_in_flight(void **state)
{
        enum { N = 3 };
        static struct disk_flight flights[N];
        struct volume *volume = server_volume(*state, SERVER_VOL);

        for (unsigned k = 0; k < 2; k++) {
                struct disk *d = check_open((struct disk_options){.packed = k});
                struct vu_vring_state which = {.index = 0};
                struct disk_op ops[N];
                struct front_reply reply;
                void *cookie;
                uint32_t n_bytes;
                fake_hold(volume);
                add_reads(d, 0, ops, flights, N);
                ring_publish(&d->rings[0]);
                fake_wait_held(volume, N);
                ok(front_send(d->front, VU_GET_VRING_BASE, VU_VERSION, &which, sizeof(which), NULL,
                              0, &check_err));
                server_turn(*state);
                assert_false(is_answered(d));
                fake_release_all(volume);
                ok(front_reply(d->front, VU_GET_VRING_BASE, &reply, &check_err));
                for (unsigned i = 0; i < N; i++) /* all were used before the answer */
                        assert_int_equal(ring_take(&d->rings[0], &cookie, &n_bytes, &check_err), 1);
                if (!k)
                        assert_int_equal(reply.state.num, N);
                else /* 3 of 3 descriptors each, in the ring's first turn */
                        assert_int_equal(reply.state.num, (9 | 1u << 15) * 0x10001u);
                disk_close(d);
        }
}

static void rule_9_a_ring_starts_at_its_kick(void **state)
{
        static struct disk_flight flight;

        for (unsigned k = 0; k < 2; k++) {
                struct disk *d = check_open((struct disk_options){.packed = k});
                struct disk_op op;
                void *cookie;
                uint32_t n_bytes;
                unsigned before = counts_of(state).submitted[VOLUME_READ];
                add_reads(d, 0, &op, &flight, 1);
                /* Shown, and nobody told. */
                ring_disarm(&d->rings[0]);
                int kick = d->rings[0].kick;
                d->rings[0].kick = d->rings[0].error;
                ring_publish(&d->rings[0]);
                d->rings[0].kick = kick;
                server_turn(*state);
                assert_int_equal(counts_of(state).submitted[VOLUME_READ], before);
                ring_kick(&d->rings[0]);
                ok(ring_wait(&d->rings[0], RAW_WAIT_MS, &cookie, &n_bytes, &check_err));
                disk_close(d);
        }
}

static void rule_9_a_disabled_ring_waits_until_it_is_enabled(void **state)
{
        static struct disk_flight flight;

        for (unsigned k = 0; k < 2; k++) {
                struct disk *d = check_open((struct disk_options){.packed = k});
                struct vu_vring_state off = {0, 0}, on = {0, 1};
                struct disk_op op;
                void *cookie;
                uint32_t n_bytes;
                check_alive(d);
                unsigned before = counts_of(state).submitted[VOLUME_READ];
                ok(front_tell(d->front, VU_SET_VRING_ENABLE, &off, sizeof(off), NULL, 0,
                              &check_err));
                add_reads(d, 0, &op, &flight, 1);
                ring_publish(&d->rings[0]);
                ring_kick(&d->rings[0]);
                server_turn(*state);
                assert_int_equal(counts_of(state).submitted[VOLUME_READ], before);
                ok(front_tell(d->front, VU_SET_VRING_ENABLE, &on, sizeof(on), NULL, 0, &check_err));
                ok(ring_wait(&d->rings[0], RAW_WAIT_MS, &cookie, &n_bytes, &check_err));
                disk_close(d);
        }
}

static void rule_9_a_ring_goes_on_where_it_was_stopped(void **state)
{
        uint32_t base;

        for (unsigned k = 0; k < 2; k++) {
                struct disk *d = check_open((struct disk_options){.packed = k, .queue_size = 8});
                for (unsigned round = 0; round < 10; round++) {
                        check_alive(d);
                        ok(ring_stop(&d->rings[0], d->front, 0, &base, &check_err));
                        assert_int_equal(base, ring_base(&d->rings[0]));
                        ok(ring_start(&d->rings[0], d->front, 0, false, &check_err));
                        ring_kick(&d->rings[0]);
                }
                disk_close(d);
        }
}

static void rule_9_after_a_start_one_call_comes_though_none_was_asked_for(void **state)
{
        struct disk *d = check_open((struct disk_options){0});

        ring_disarm(&d->rings[0]);
        ring_kick(&d->rings[0]);
        assert_true(ring_wait_call(&d->rings[0], RAW_WAIT_MS));
        server_turn(*state);
        assert_false(ring_wait_call(&d->rings[0], 0));
        disk_close(d);
}

static void rule_9_descriptors_may_be_replaced_while_the_ring_runs(void **state)
{
        struct disk *d = check_open((struct disk_options){.n_queues = 2});
        struct ring *a = &d->rings[0], *b = &d->rings[1];

        for (unsigned i = 0; i < 20; i++) {
                uint64_t index = 0;
                int kick = a->kick, call = a->call;
                check_alive(d);
                a->kick = b->kick;
                a->call = b->call;
                b->kick = kick;
                b->call = call;
                ok(front_tell(d->front, VU_SET_VRING_KICK, &index, 8, &a->kick, 1, &check_err));
                ok(front_tell(d->front, VU_SET_VRING_CALL, &index, 8, &a->call, 1, &check_err));
                index = 1;
                ok(front_tell(d->front, VU_SET_VRING_KICK, &index, 8, &b->kick, 1, &check_err));
                ok(front_tell(d->front, VU_SET_VRING_CALL, &index, 8, &b->call, 1, &check_err));
                check_alive(d);
        }
        disk_close(d);
}

static void rule_9_a_ring_without_a_call_descriptor_is_served(void **state)
{
        for (unsigned k = 0; k < 2; k++) {
                struct disk *d = check_open((struct disk_options){.packed = k});
                uint64_t none = VU_VRING_NO_FD;
                static struct disk_flight flight;
                struct disk_op op;
                uint32_t n_bytes;
                void *cookie;
                int r;
                ok(front_tell(d->front, VU_SET_VRING_CALL, &none, sizeof(none), NULL, 0,
                              &check_err));
                add_reads(d, 0, &op, &flight, 1);
                ring_publish(&d->rings[0]);
                /* Ends with the test's time where it is not. */
                while ((r = ring_take(&d->rings[0], &cookie, &n_bytes, &check_err)) == 0)
                        sched_yield();
                assert_int_equal(r, 1);
                disk_close(d);
        }
}

/* As in a migration. */
static void rule_9_two_front_ends_are_served_at_once(void **state)
{
        uint8_t data[4096], back[4096];
        struct disk *a = check_open((struct disk_options){0});
        struct disk *b = check_open((struct disk_options){.packed = true});

        for (unsigned i = 0; i < 50; i++) {
                check_pattern(data, sizeof(data), i);
                check_write(i % 2 ? a : b, 8 * i, data, sizeof(data));
                check_read(i % 2 ? b : a, 8 * i, back, sizeof(back));
                assert_memory_equal(data, back, sizeof(back));
        }
        disk_close(a);
        check_alive(b);
        disk_close(b);
}

static void rule_9_a_reset_device_begins_anew(void **state)
{
        for (unsigned packed = 0; packed < 2; packed++) {
                struct disk *d = check_open((struct disk_options){.packed = packed});

                for (unsigned i = 0; i < 3; i++) {
                        check_alive(d);
                        ok(front_tell(d->front, VU_RESET_DEVICE, NULL, 0, NULL, 0, &check_err));
                        ring_reset(&d->rings[0]);
                        ok(front_tell_u64(d->front, VU_SET_FEATURES, d->front->features,
                                          &check_err));
                        ok(disk_start(d, &check_err));
                }
                check_alive(d);
                disk_close(d);
        }
}

static void rule_9_a_stop_of_the_server_leaves_what_was_not_begun_in_the_ring(void **state)
{
        struct disk *d = check_open((struct disk_options){0});

        check_alive(d);
        server_disconnect(*state, SERVER_VOL);
        assert_true(front_is_closed(d->front));
        ok(disk_reconnect(d, RAW_WAIT_MS, &check_err));
        check_alive(d);
        disk_close(d);
}

/* ---- rings over one another ---- */

static bool is_stopped(struct ring *r)
{
        struct pollfd p = {.fd = r->error, .events = POLLIN};

        return poll(&p, 1, RAW_WAIT_MS) == 1;
}

/* Parts are given by SET_VRING_ADDR while the ring is stopped, and it is kicked. */
static void start_with(struct disk *d, const struct vu_vring_addr *a, uint32_t base)
{
        struct vu_vring_state state = {0, base};

        ok(front_tell(d->front, VU_SET_VRING_BASE, &state, sizeof(state), NULL, 0, &check_err));
        ok(front_tell(d->front, VU_SET_VRING_ADDR, a, sizeof(*a), NULL, 0, &check_err));
        ok(front_tell(d->front, VU_SET_VRING_KICK, &(uint64_t){0}, sizeof(uint64_t),
                      &d->rings[0].kick, 1, &check_err));
        ring_kick(&d->rings[0]);
}

/* What the device writes into would become what it reads from. */
static void rings_whose_parts_overlap_are_stopped(void **state)
{
        for (unsigned k = 0; k < 8; k++) {
                struct disk *d = check_open((struct disk_options){.packed = k & 1});
                struct ring *r = &d->rings[0];
                struct vu_vring_addr a = {.descriptor = guest_user(d->memory, r->descriptors),
                                          .available = guest_user(d->memory, r->driver),
                                          .used = guest_user(d->memory, r->device)};
                const uint64_t over[] = {a.descriptor, a.descriptor + r->descriptors_bytes - 4,
                                         a.available, (a.available + r->driver_bytes - 1) & ~3ul};
                struct vu_vring_addr apart = a;
                uint32_t base;
                ok(ring_stop(r, d->front, 0, &base, &check_err));
                a.used = over[k / 2];
                start_with(d, &a, base);
                assert_true(is_stopped(r));
                ok(ring_stop(r, d->front, 0, &(uint32_t){0}, &check_err));
                start_with(d, &apart, base);
                check_alive(d);
                disk_close(d);
        }
}

/* Who does this harms itself: each queue takes what it finds, and the others have their turn. */
static void two_queues_on_one_ring_hold_up_nobody(void **state)
{
        for (unsigned packed = 0; packed < 2; packed++) {
                struct disk *d = check_open((struct disk_options){.packed = packed, .n_queues = 2});
                struct disk *other = check_open((struct disk_options){
                    .path = server_path(*state, SERVER_OTHER), .packed = packed});
                struct ring *r = &d->rings[0];
                struct vu_vring_addr a = {.index = 1,
                                          .descriptor = guest_user(d->memory, r->descriptors),
                                          .available = guest_user(d->memory, r->driver),
                                          .used = guest_user(d->memory, r->device)};
                static struct disk_flight flights[8];
                struct disk_op ops[8];
                uint8_t data[512];
                check_err = ERROR_INIT;
                (void)front_tell(d->front, VU_SET_VRING_ADDR, &a, sizeof(a), NULL, 0, &check_err);
                for (unsigned i = 0; i < 8; i++) {
                        ops[i] = (struct disk_op){
                            .type = VIRTIO_BLK_T_IN, .data = data, .n_bytes = sizeof(data)};
                        ok(disk_add(d, 0, &ops[i], &flights[i], &check_err));
                }
                ring_publish(r);
                ring_kick(r);
                ring_kick(&d->rings[1]);
                for (unsigned i = 0; i < 20; i++)
                        check_alive(other);
                disk_close(other);
                disk_close(d);
        }
}

/* ---- 11 and 12: the config space ---- */

static void rule_11_the_config_reply_has_the_size_asked_for(void **state)
{
        struct disk *d = check_open((struct disk_options){0});
        uint8_t all[VU_CONFIG_MAX], part[VU_CONFIG_MAX];

        ok(front_get_config(d->front, 0, 60, all, &check_err));
        for (uint32_t offset = 0; offset < 60; offset += 7)
                for (uint32_t size = 1; size <= 60 - offset; size += 5) {
                        ok(front_get_config(d->front, offset, size, part, &check_err));
                        assert_memory_equal(all + offset, part, size);
                }
        /* What lies behind the fields of today reads as zeroes. */
        ok(front_get_config(d->front, 0, VU_CONFIG_MAX, part, &check_err));
        assert_memory_equal(all, part, 60);
        disk_close(d);
}

static void rule_11_the_config_is_answered_when_the_volume_fails(void **state)
{
        struct disk *d = check_open((struct disk_options){0});

        for (unsigned op = VOLUME_READ; op <= VOLUME_ZERO; op++)
                fake_fail(server_volume(*state, SERVER_VOL), op, -EIO);
        ok(disk_read_config(d, &check_err));
        assert_int_equal(disk_size(d), SERVER_BYTES);
        for (unsigned op = VOLUME_READ; op <= VOLUME_ZERO; op++)
                fake_fail(server_volume(*state, SERVER_VOL), op, 0);
        disk_close(d);
}

static void rule_11_fields_that_are_read_only_stay(void **state)
{
        struct disk *d = check_open((struct disk_options){0});
        uint64_t capacity = 1;

        check_err = ERROR_INIT;
        (void)front_set_config(d->front, 0, sizeof(capacity), &capacity, &check_err);
        struct disk *other = check_open((struct disk_options){0});
        assert_int_equal(disk_size(other), SERVER_BYTES);
        disk_close(other);
        disk_close(d);
}

static void rule_12_a_resize_reaches_the_guest(void **state)
{
        struct disk *d = check_open((struct disk_options){0});
        uint8_t block[512];
        uint32_t request;

        assert_int_not_equal(d->front->protocol & VP_BACKEND_REQ, 0);
        for (uint64_t size = SERVER_BYTES / 2; size <= SERVER_BYTES; size *= 2) {
                server_resize(*state, SERVER_VOL, size);
                ok(front_channel_next(d->front, RAW_WAIT_MS, &request, &check_err));
                assert_int_equal(request, VU_BACKEND_CONFIG_CHANGE);
                ok(disk_read_config(d, &check_err));
                assert_int_equal(disk_size(d), size);
                assert_int_equal(
                    check_status(d, VIRTIO_BLK_T_IN, size / 512 - 1, block, sizeof(block)),
                    VIRTIO_BLK_S_OK);
                assert_int_equal(check_status(d, VIRTIO_BLK_T_IN, size / 512, block, sizeof(block)),
                                 VIRTIO_BLK_S_IOERR);
        }
        disk_close(d);
}

static void rule_12_who_has_no_channel_sees_a_resize_when_it_asks(void **state)
{
        struct disk *d = check_open((struct disk_options){.without_protocol = VP_BACKEND_REQ});

        server_resize(*state, SERVER_VOL, SERVER_BYTES / 2);
        ok(disk_read_config(d, &check_err));
        assert_int_equal(disk_size(d), SERVER_BYTES / 2);
        server_resize(*state, SERVER_VOL, SERVER_BYTES);
        check_alive(d);
        disk_close(d);
}

static void rule_12_a_channel_that_nobody_reads_holds_nothing_up(void **state)
{
        struct disk *d = check_open((struct disk_options){0});

        for (unsigned i = 0; i < 5000; i++)
                server_resize(*state, SERVER_VOL, i % 2 ? SERVER_BYTES : SERVER_BYTES / 2);
        check_alive(d);
        disk_close(d);
}

static void rule_12_discard_is_not_offered_where_it_is_turned_off(void **state)
{
        struct disk *d =
            check_open((struct disk_options){.path = server_path(*state, SERVER_NO_DISCARD)});

        assert_int_equal(d->front->offered & VF_BLK_DISCARD, 0);
        assert_int_not_equal(d->front->offered & VF_BLK_WRITE_ZEROES, 0);
        disk_close(d);
}

static void rule_12_a_discard_changes_nothing_once_it_is_turned_off(void **state)
{
        struct virtio_blk_discard_write_zeroes range = {.sector = 0, .num_sectors = 8};
        struct volume *volume = server_volume(*state, SERVER_VOL);
        struct disk *d = check_open((struct disk_options){0});
        static const uint8_t zeroes[4096];
        uint8_t data[4096], back[4096];

        assert_int_not_equal(d->front->features & VF_BLK_DISCARD, 0);
        check_pattern(data, sizeof(data), 12);
        check_write(d, 0, data, sizeof(data));
        fake_keep(volume, true);
        assert_int_equal(check_status(d, VIRTIO_BLK_T_DISCARD, 0, &range, sizeof(range)),
                         VIRTIO_BLK_S_OK);
        check_read(d, 0, back, sizeof(back));
        assert_memory_equal(back, data, sizeof(data));
        assert_int_equal(counts_of(state).submitted[VOLUME_DISCARD], 0);
        /* What is wrong with one is still said. */
        range.flags = VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
        assert_int_equal(check_status(d, VIRTIO_BLK_T_DISCARD, 0, &range, sizeof(range)),
                         VIRTIO_BLK_S_UNSUPP);
        /* And zeroes are no hint. */
        assert_int_equal(check_status(d, VIRTIO_BLK_T_WRITE_ZEROES, 0, &range, sizeof(range)),
                         VIRTIO_BLK_S_OK);
        check_read(d, 0, back, sizeof(back));
        assert_memory_equal(back, zeroes, sizeof(back));
        check_write(d, 0, data, sizeof(data));
        fake_keep(volume, false);
        range.flags = 0;
        assert_int_equal(check_status(d, VIRTIO_BLK_T_DISCARD, 0, &range, sizeof(range)),
                         VIRTIO_BLK_S_OK);
        check_read(d, 0, back, sizeof(back));
        assert_memory_equal(back, zeroes, sizeof(back));
        disk_close(d);
}

/* ---- 13: what is offered ---- */

/* QEMU's message has its structure's padding, the document's has not. */
static void rule_13_an_in_flight_region_is_described_as_in_the_document_or_as_by_qemu(void **state)
{
        for (uint32_t size = VU_INFLIGHT_SIZE; size <= sizeof(struct vu_inflight); size += 4) {
                struct disk *d =
                    check_open((struct disk_options){.without_inflight = true, .stopped = true});
                struct vu_inflight wanted = {.n_queues = 1, .queue_size = d->rings[0].size};
                struct front_reply reply;
                ok(front_send(d->front, VU_GET_INFLIGHT_FD, VU_VERSION, &wanted, size, NULL, 0,
                              &check_err));
                ok(front_reply(d->front, VU_GET_INFLIGHT_FD, &reply, &check_err));
                assert_int_equal(reply.header.size, size);
                assert_int_equal(reply.n_fds, 1);
                ok(front_tell(d->front, VU_SET_INFLIGHT_FD, &reply.inflight, size, reply.fds, 1,
                              &check_err));
                close(reply.fds[0]);
                ok(disk_start(d, &check_err));
                check_alive(d);
                disk_close(d);
        }
}

static void rule_13_all_features_are_offered(void **state)
{
        const uint64_t features = VF_BLK_SEG_MAX | VF_BLK_SIZE | VF_BLK_FLUSH | VF_BLK_TOPOLOGY |
                                  VF_BLK_CONFIG_WCE | VF_BLK_MQ | VF_BLK_DISCARD |
                                  VF_BLK_WRITE_ZEROES | VF_LOG_ALL | VF_INDIRECT | VF_EVENT_IDX |
                                  VF_PROTOCOL_FEATURES | VF_VERSION_1 | VF_RING_PACKED;
        struct disk *d = check_open((struct disk_options){.packed = true});

        assert_int_equal(d->front->offered & features, features);
        assert_int_equal(d->front->offered & VF_BLK_RO, 0);
        assert_int_equal(d->front->offered_protocol & DISK_PROTOCOL, DISK_PROTOCOL);
        disk_close(d);
}

static void rule_13_the_config_says_what_the_features_promise(void **state)
{
        struct disk *d = check_open((struct disk_options){0});
        const struct virtio_blk_config *c = &d->config;
        uint64_t n_queues, status = 0;

        assert_int_equal(disk_size(d), SERVER_BYTES);
        assert_int_equal(c->blk_size, 512);
        assert_int_equal(c->blk_size << c->physical_block_exp, 4096);
        assert_true(c->seg_max >= 126 && c->seg_max <= 1024);
        assert_int_equal(c->num_queues, SERVER_QUEUES);
        assert_true(c->max_discard_sectors > 0 && c->max_discard_seg > 0);
        assert_true(c->max_write_zeroes_sectors > 0 && c->max_write_zeroes_seg > 0);
        assert_int_equal(c->write_zeroes_may_unmap, 1);
        ok(front_ask_u64(d->front, VU_GET_QUEUE_NUM, &n_queues, &check_err));
        assert_int_equal(n_queues, SERVER_QUEUES);
        ok(front_tell_u64(d->front, VU_SET_STATUS, 15, &check_err));
        ok(front_ask_u64(d->front, VU_GET_STATUS, &status, &check_err));
        assert_int_equal(status, 15);
        disk_close(d);
}

/* The device does as much at once as it says it does. */
static void rule_13_as_many_segments_as_are_offered_are_served(void **state)
{
        static uint8_t data[1024 * 512], back[sizeof(data)];
        struct virtio_blk_discard_write_zeroes ranges[256];

        for (unsigned k = 0; k < 2; k++) {
                struct disk *d = check_open((struct disk_options){.packed = k});
                unsigned n = d->config.seg_max;
                struct disk_op op = {.type = VIRTIO_BLK_T_OUT,
                                     .data = data,
                                     .n_bytes = n * 512,
                                     .shape = {.indirect = true, .segments = n}};
                check_pattern(data, sizeof(data), k);
                ok(disk_do(d, 0, &op, &check_err));
                assert_int_equal(op.status, VIRTIO_BLK_S_OK);
                check_read(d, 0, back, op.n_bytes);
                assert_memory_equal(data, back, op.n_bytes);
                n = d->config.max_discard_seg < 256 ? d->config.max_discard_seg : 256;
                for (unsigned i = 0; i < n; i++) /* every other sector */
                        ranges[i] = (struct virtio_blk_discard_write_zeroes){2 * i, 1, 0};
                assert_int_equal(check_status(d, VIRTIO_BLK_T_DISCARD, 0, ranges,
                                              n * (uint32_t)sizeof(ranges[0])),
                                 VIRTIO_BLK_S_OK);
                check_read(d, 0, back, 2 * n * 512);
                for (unsigned i = 0; i < n; i++) {
                        memset(data + 2 * i * 512, 0, 512);
                        assert_memory_equal(back + 2 * i * 512, data + 2 * i * 512, 1024);
                }
                disk_close(d);
        }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, server_setup, server_teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            TEST(rule_6_without_a_flush_agreed_on_each_write_is_durable),
            TEST(rule_6_the_guest_turns_the_write_cache_off_and_on),
            TEST(rule_6_what_was_not_agreed_on_is_not_served),
            TEST(rule_6_features_that_were_not_offered_are_refused),
            TEST(rule_6_a_read_only_device_takes_no_writes),
            TEST(what_lies_behind_the_end_never_reaches_the_engine),
            TEST(bytes_in_flight_are_bounded_and_all_are_served),
            TEST(more_ranges_than_were_promised_are_refused),
            TEST(rule_6_an_error_of_the_volume_is_the_requests),
            TEST(rule_9_a_stop_waits_for_what_is_in_flight),
            TEST(rule_9_a_ring_starts_at_its_kick),
            TEST(rule_9_a_disabled_ring_waits_until_it_is_enabled),
            TEST(rule_9_a_ring_goes_on_where_it_was_stopped),
            TEST(rule_9_after_a_start_one_call_comes_though_none_was_asked_for),
            TEST(rule_9_descriptors_may_be_replaced_while_the_ring_runs),
            TEST(rule_9_a_ring_without_a_call_descriptor_is_served),
            TEST(rule_9_two_front_ends_are_served_at_once),
            TEST(rule_9_a_reset_device_begins_anew),
            TEST(rule_9_a_stop_of_the_server_leaves_what_was_not_begun_in_the_ring),
            TEST(rings_whose_parts_overlap_are_stopped),
            TEST(two_queues_on_one_ring_hold_up_nobody),
            TEST(rule_11_the_config_reply_has_the_size_asked_for),
            TEST(rule_11_the_config_is_answered_when_the_volume_fails),
            TEST(rule_11_fields_that_are_read_only_stay),
            TEST(rule_12_a_resize_reaches_the_guest),
            TEST(rule_12_who_has_no_channel_sees_a_resize_when_it_asks),
            TEST(rule_12_a_channel_that_nobody_reads_holds_nothing_up),
            TEST(rule_12_discard_is_not_offered_where_it_is_turned_off),
            TEST(rule_12_a_discard_changes_nothing_once_it_is_turned_off),
            TEST(rule_13_an_in_flight_region_is_described_as_in_the_document_or_as_by_qemu),
            TEST(rule_13_all_features_are_offered),
            TEST(rule_13_the_config_says_what_the_features_promise),
            TEST(rule_13_as_many_segments_as_are_offered_are_served),
        };
        return cmocka_run_group_tests_name("vhost queues", tests, NULL, NULL);
}
