/* test_inflight.c - rule 7 of the vhost-user-blk device (README.md): the region that tells the next
 * server what this one had begun. Over volumes in memory.
 *
 * A server that is killed cannot be had inside a test's process. Its death is played by keeping a
 * copy of all that outlives it, the rings and the region, while the volume holds requests back:
 * when the connection has ended in order, the copy is put back, and the next server finds what the
 * dead one would have left. tests/vhost/kill.sh kills for real. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>
#include "tests/vhost/raw.h"
#include "tests/vhost/server.h"

#define REQUESTS 6u

static uint8_t *map_region(struct disk *d)
{
        void *p = mmap(NULL, d->inflight.size, PROT_READ | PROT_WRITE, MAP_SHARED, d->inflight_fd,
                       (off_t)d->inflight.offset);

        assert_true(p != MAP_FAILED);
        return p;
}

/* ---- what outlives a server ---- */

struct remains {
        uint8_t *region, *descriptors, *driver, *device;
};

static void *copy_of(const void *from, size_t n_bytes)
{
        void *p = malloc(n_bytes);

        assert_non_null(p);
        return memcpy(p, from, n_bytes);
}

static struct remains remember(struct disk *d, const uint8_t *region)
{
        struct ring *r = &d->rings[0];

        return (struct remains){
            copy_of(region, d->inflight.size),
            copy_of(guest_at(d->memory, r->descriptors), r->descriptors_bytes),
            copy_of(guest_at(d->memory, r->driver), r->driver_bytes),
            copy_of(guest_at(d->memory, r->device), r->device_bytes),
        };
}

/* The connection ends, and leaves what was remembered. */
static void die(struct server *s, struct disk *d, uint8_t *region, struct remains *remains)
{
        struct ring *r = &d->rings[0];
        unsigned n = server_n_clients(s);

        fake_release_all(server_volume(s, SERVER_VOL));
        front_close(d->front);
        d->front = NULL;
        server_wait_clients(s, n - 1);
        memcpy(region, remains->region, d->inflight.size);
        memcpy(guest_at(d->memory, r->descriptors), remains->descriptors, r->descriptors_bytes);
        memcpy(guest_at(d->memory, r->driver), remains->driver, r->driver_bytes);
        memcpy(guest_at(d->memory, r->device), remains->device, r->device_bytes);
        free(remains->region);
        free(remains->descriptors);
        free(remains->driver);
        free(remains->device);
}

/* ---- a queue of writes, held back ---- */

struct writes {
        struct disk_op ops[REQUESTS];
        struct disk_flight flights[REQUESTS];
        uint8_t data[REQUESTS][512];
};

/* All to sector @sector, or to one after the other. */
static struct writes *add_writes(struct disk *d, uint64_t sector, bool same)
{
        struct writes *w = calloc(1, sizeof(*w));

        assert_non_null(w);
        for (unsigned i = 0; i < REQUESTS; i++) {
                check_pattern(w->data[i], 512, 50 + i);
                w->ops[i] = (struct disk_op){.type = VIRTIO_BLK_T_OUT,
                                             .sector = sector + (same ? 0 : i),
                                             .data = w->data[i],
                                             .n_bytes = 512};
                ok(disk_add(d, 0, &w->ops[i], &w->flights[i], &check_err));
        }
        return w;
}

/* Each is used once, with success. */
static void take_writes(struct disk *d, struct writes *w, unsigned n)
{
        bool seen[REQUESTS] = {false};
        uint32_t n_bytes;
        void *cookie;

        for (unsigned i = 0; i < n; i++) {
                ok(ring_wait(&d->rings[0], RAW_WAIT_MS, &cookie, &n_bytes, &check_err));
                unsigned at = (unsigned)((struct disk_flight *)cookie - w->flights);
                disk_finish(d, cookie, n_bytes);
                assert_int_equal(w->ops[at].status, VIRTIO_BLK_S_OK);
                assert_false(seen[at]);
                seen[at] = true;
        }
        assert_int_equal(ring_take(&d->rings[0], &cookie, &n_bytes, &check_err), 0);
}

static unsigned n_submitted(void **state)
{
        return fake_counts(server_volume(*state, SERVER_VOL)).submitted[VOLUME_WRITE];
}

/* ---- split rings, entry by entry ---- */

static void rule_7_a_request_is_marked_before_it_is_submitted_and_until_it_is_used(void **state)
{
        struct volume *volume = server_volume(*state, SERVER_VOL);
        struct disk *d = check_open((struct disk_options){0});
        struct vu_inflight_split *region = (struct vu_inflight_split *)map_region(d);
        uint64_t counter = 0;

        fake_hold(volume);
        struct writes *w = add_writes(d, 0, false);
        ring_publish(&d->rings[0]);
        fake_wait_held(volume, REQUESTS);
        assert_int_equal(region->version, 1);
        assert_int_equal(region->desc_num, d->rings[0].size);
        for (unsigned i = 0; i < REQUESTS; i++) {
                struct vu_inflight_split_desc *e =
                    &region->desc[ring_available(&d->rings[0])->ring[i]];
                assert_int_equal(e->inflight, 1);
                assert_true(i == 0 || e->counter > counter);
                counter = e->counter;
        }
        fake_release_all(volume);
        take_writes(d, w, REQUESTS);
        server_turn(*state);
        for (unsigned i = 0; i < region->desc_num; i++)
                assert_int_equal(region->desc[i].inflight, 0);
        assert_int_equal(region->used_idx, ring_used(&d->rings[0])->idx);
        munmap(region, d->inflight.size);
        free(w);
        disk_close(d);
}

/* What a server had begun, with its marks set by hand: @order says when. Returns the disk, not yet
 * started. */
static struct disk *begun(const unsigned *order, struct writes **ret_writes,
                          struct vu_inflight_split **ret_region)
{
        struct disk *d = check_open((struct disk_options){.stopped = true});
        struct vu_inflight_split *region = (struct vu_inflight_split *)map_region(d);
        struct writes *w = add_writes(d, 0, true);

        ring_publish(&d->rings[0]);
        region->version = 1;
        region->desc_num = d->rings[0].size;
        for (unsigned i = 0; i < REQUESTS; i++) {
                struct vu_inflight_split_desc *e =
                    &region->desc[ring_available(&d->rings[0])->ring[i]];
                e->inflight = 1;
                e->counter = 100 + order[i];
        }
        *ret_writes = w;
        *ret_region = region;
        return d;
}

static void start_again(struct disk *d)
{
        ok(front_tell(d->front, VU_SET_INFLIGHT_FD, &d->inflight, VU_INFLIGHT_SIZE, &d->inflight_fd,
                      1, &check_err));
        ok(disk_start(d, &check_err));
        ring_kick(&d->rings[0]);
}

static void rule_7_what_was_begun_is_done_again_in_the_order_of_its_counters(void **state)
{
        const unsigned orders[][REQUESTS] = {
            {0, 1, 2, 3, 4, 5}, {5, 4, 3, 2, 1, 0}, {2, 0, 5, 1, 4, 3}};

        for (unsigned o = 0; o < 3; o++) {
                struct vu_inflight_split *region;
                struct writes *w;
                struct disk *d = begun(orders[o], &w, &region);
                uint8_t back[512];
                unsigned before = n_submitted(state), last = 0;
                start_again(d);
                take_writes(d, w, REQUESTS);
                assert_int_equal(n_submitted(state) - before, REQUESTS);
                for (unsigned i = 0; i < REQUESTS; i++)
                        last = orders[o][i] == REQUESTS - 1 ? i : last;
                check_read(d, 0, back, sizeof(back));
                assert_memory_equal(back, w->data[last], sizeof(back));
                munmap(region, d->inflight.size);
                free(w);
                disk_close(d);
        }
}

/* The base lies behind them: the front end does not hand them out again. */
static void rule_7_a_queue_stopped_at_once_has_done_what_was_begun(void **state)
{
        const unsigned order[REQUESTS] = {0, 1, 2, 3, 4, 5};

        for (unsigned i = 0; i < 50; i++) {
                struct vu_inflight_split *region;
                struct writes *w;
                struct disk *d = begun(order, &w, &region);
                struct vu_vring_state off = {.index = 0, .num = 0};
                uint32_t base;
                start_again(d);
                if (i % 2)
                        ok(front_tell(d->front, VU_SET_VRING_ENABLE, &off, sizeof(off), NULL, 0,
                                      &check_err));
                ok(ring_stop(&d->rings[0], d->front, 0, &base, &check_err));
                if (base == REQUESTS)
                        take_writes(d, w, REQUESTS);
                else
                        assert_int_equal(base, 0); /* the kick was not heard yet */
                munmap(region, d->inflight.size);
                free(w);
                disk_close(d);
        }
}

/* Used, and killed before the marks were taken away: the guest knows already. */
static void rule_7_the_last_batch_is_not_done_again_when_the_guest_was_told(void **state)
{
        const unsigned order[REQUESTS] = {0, 1, 2, 3, 4, 5};
        struct vu_inflight_split *region;
        struct writes *w;
        struct disk *d = begun(order, &w, &region);
        struct ring *r = &d->rings[0];
        uint8_t status = 0;
        unsigned before = n_submitted(state);

        region->used_idx = 0;
        for (unsigned i = 0; i < 2; i++) {
                uint16_t head = ring_available(r)->ring[3 + i];
                ring_used(r)->ring[i] = (struct vring_used_elem){head, 1};
                guest_write(d->memory, w->flights[3 + i].status, &status, 1);
                region->desc[head].next = region->last_batch_head;
                region->last_batch_head = head;
        }
        ring_used(r)->idx = 2;
        start_again(d);
        take_writes(d, w, REQUESTS);
        assert_int_equal(n_submitted(state) - before, REQUESTS - 2);
        munmap(region, d->inflight.size);
        free(w);
        disk_close(d);
}

/* Listed as a batch, and killed before the guest was told. */
static void rule_7_the_last_batch_is_done_again_when_the_guest_was_not_told(void **state)
{
        const unsigned order[REQUESTS] = {0, 1, 2, 3, 4, 5};
        struct vu_inflight_split *region;
        struct writes *w;
        struct disk *d = begun(order, &w, &region);
        unsigned before = n_submitted(state);

        for (unsigned i = 0; i < 2; i++) {
                uint16_t head = ring_available(&d->rings[0])->ring[3 + i];
                region->desc[head].next = region->last_batch_head;
                region->last_batch_head = head;
        }
        start_again(d);
        take_writes(d, w, REQUESTS);
        assert_int_equal(n_submitted(state) - before, REQUESTS);
        munmap(region, d->inflight.size);
        free(w);
        disk_close(d);
}

/* ---- both kinds: a death that is played ---- */

/* @n_done requests are answered before the server dies, from the last one. */
static void die_after(void **state, struct disk_options options, unsigned n_done)
{
        struct server *s = *state;
        struct volume *volume = server_volume(s, SERVER_VOL);
        struct disk *d = check_open(options);
        uint8_t *region = map_region(d);
        unsigned before;

        check_alive(d); /* the ring is not at its beginning */
        fake_hold(volume);
        struct writes *w = add_writes(d, 64, false);
        ring_publish(&d->rings[0]);
        fake_wait_held(volume, REQUESTS);
        for (unsigned i = 0; i < n_done; i++)
                fake_release_last(volume);
        take_writes(d, w, n_done);
        server_turn(s);
        struct remains remains = remember(d, region);
        die(s, d, region, &remains);
        before = n_submitted(state);
        ok(disk_reconnect(d, RAW_WAIT_MS, &check_err));
        take_writes(d, w, REQUESTS - n_done);
        assert_int_equal(n_submitted(state) - before, REQUESTS - n_done);
        for (unsigned i = 0; i < REQUESTS; i++) {
                uint8_t back[512];
                check_read(d, 64 + i, back, sizeof(back));
                assert_memory_equal(back, w->data[i], sizeof(back));
        }
        for (unsigned i = 0; i < 3u * d->rings[0].size; i++) /* round the ring */
                check_alive(d);
        munmap(region, d->inflight.size);
        free(w);
        disk_close(d);
}

static void rule_7_a_guest_sees_no_error_when_its_server_dies(void **state)
{
        for (unsigned packed = 0; packed < 2; packed++)
                for (unsigned n_done = 0; n_done <= REQUESTS; n_done++)
                        for (unsigned event = 0; event < 2; event++)
                                die_after(
                                    state,
                                    (struct disk_options){.packed = packed,
                                                          .queue_size = 32,
                                                          .without = event ? 0 : VF_EVENT_IDX},
                                    n_done);
}

/* A packed region's batch is written first and confirmed last; the ring's flags come in between. The
 * server dies there: @told, when the guest has seen one request used, or just before. */
static void die_unconfirmed(void **state, bool told)
{
        struct server *s = *state;
        struct volume *volume = server_volume(s, SERVER_VOL);
        struct disk *d = check_open((struct disk_options){.packed = true, .queue_size = 32});
        struct vu_inflight_packed *region = (struct vu_inflight_packed *)map_region(d);
        struct ring *r = &d->rings[0];

        fake_hold(volume);
        struct writes *w = add_writes(d, 64, false);
        ring_publish(r);
        fake_wait_held(volume, REQUESTS);
        struct remains before = remember(d, (uint8_t *)region);
        const struct ring driver = *r;
        struct ring_entry entries[32];
        uint16_t free_list[32];
        memcpy(entries, r->entries, sizeof(entries));
        memcpy(free_list, r->free_list, sizeof(free_list));
        const struct vu_inflight_packed *old = (struct vu_inflight_packed *)before.region;
        fake_release_last(volume);
        take_writes(d, w, 1);
        server_turn(s);
        struct remains after = remember(d, (uint8_t *)region);
        struct vu_inflight_packed *new = (struct vu_inflight_packed *)after.region;
        assert_int_not_equal(new->used_idx, old->used_idx);
        new->old_free_head = old->old_free_head;
        new->old_used_idx = old->old_used_idx;
        new->old_used_wrap_counter = old->old_used_wrap_counter;
        for (unsigned i = 0; i < new->desc_num; i++)
                new->desc[i].inflight |= old->desc[i].inflight;
        if (!told) { /* the ring is as it was, and the driver has taken nothing */
                memcpy(after.descriptors, before.descriptors, r->descriptors_bytes);
                *r = driver;
                memcpy(r->entries, entries, sizeof(entries));
                memcpy(r->free_list, free_list, sizeof(free_list));
        }
        free(before.region);
        free(before.descriptors);
        free(before.driver);
        free(before.device);
        die(s, d, (uint8_t *)region, &after);
        unsigned n = n_submitted(state), left = REQUESTS - told;
        ok(disk_reconnect(d, RAW_WAIT_MS, &check_err));
        take_writes(d, w, left);
        assert_int_equal(n_submitted(state) - n, left);
        for (unsigned i = 0; i < 100; i++) /* round the ring */
                check_alive(d);
        munmap(region, d->inflight.size);
        free(w);
        disk_close(d);
}

static void rule_7_a_packed_batch_is_not_done_again_when_the_guest_was_told(void **state)
{
        die_unconfirmed(state, true);
}

static void rule_7_a_packed_batch_is_done_again_when_the_guest_was_not_told(void **state)
{
        die_unconfirmed(state, false);
}

static void rule_7_indirect_requests_are_done_again_too(void **state)
{
        struct server *s = *state;
        struct volume *volume = server_volume(s, SERVER_VOL);
        static uint8_t data[32 * 512], back[sizeof(data)];

        for (unsigned packed = 0; packed < 2; packed++) {
                static struct disk_flight flight;
                struct disk *d = check_open((struct disk_options){.packed = packed});
                uint8_t *region = map_region(d);
                struct disk_op op = {.type = VIRTIO_BLK_T_OUT,
                                     .data = data,
                                     .n_bytes = sizeof(data),
                                     .shape = {.indirect = true, .segments = 32}};
                uint32_t n_bytes;
                void *cookie;
                check_pattern(data, sizeof(data), 700 + packed);
                fake_hold(volume);
                ok(disk_add(d, 0, &op, &flight, &check_err));
                ring_publish(&d->rings[0]);
                fake_wait_held(volume, 1);
                struct remains remains = remember(d, region);
                die(s, d, region, &remains);
                ok(disk_reconnect(d, RAW_WAIT_MS, &check_err));
                ok(ring_wait(&d->rings[0], RAW_WAIT_MS, &cookie, &n_bytes, &check_err));
                disk_finish(d, cookie, n_bytes);
                assert_int_equal(op.status, VIRTIO_BLK_S_OK);
                check_read(d, 0, back, sizeof(back));
                assert_memory_equal(data, back, sizeof(back));
                munmap(region, d->inflight.size);
                disk_close(d);
        }
}

/* Marks that were left when the rings' memory was away, of requests that the driver has forgotten. */
static void rule_7_what_was_begun_before_a_reset_is_not_done_again(void **state)
{
        struct volume *volume = server_volume(*state, SERVER_VOL);

        for (unsigned packed = 0; packed < 2; packed++) {
                struct disk *d =
                    check_open((struct disk_options){.packed = packed, .by_slots = true});
                struct guest_part region = d->memory->regions[0];
                struct ring *r = &d->rings[0];

                fake_hold(volume);
                struct writes *w = add_writes(d, 0, false);
                ring_publish(r);
                fake_wait_held(volume, REQUESTS);
                ok(front_remove_region(d->front, &region, &check_err));
                fake_release_all(volume);
                ok(front_tell(d->front, VU_RESET_DEVICE, NULL, 0, NULL, 0, &check_err));
                ok(front_add_region(d->front, &region, &check_err));
                unsigned before = n_submitted(state);
                ring_reset(r);
                ok(front_tell_u64(d->front, VU_SET_FEATURES, d->front->features, &check_err));
                ok(disk_start(d, &check_err));
                check_alive(d);
                assert_int_equal(n_submitted(state) - before, 1);
                free(w);
                disk_close(d);
        }
}

/* Two servers of one ring would be worse than a wait. */
static void rule_7_who_comes_back_waits_for_what_its_last_connection_has_begun(void **state)
{
        struct volume *volume = server_volume(*state, SERVER_VOL);
        struct disk *d = check_open((struct disk_options){0});
        const uint64_t features = d->front->features;
        struct front_reply reply;

        fake_hold(volume);
        struct writes *w = add_writes(d, 0, false);
        ring_publish(&d->rings[0]);
        fake_wait_held(volume, REQUESTS);
        unsigned before = n_submitted(state);
        front_close(d->front);
        ok(front_connect(check_path(), &d->front, &check_err));
        ok(front_negotiate(d->front, features, DISK_PROTOCOL, &check_err));
        ok(front_send(d->front, VU_SET_INFLIGHT_FD, VU_VERSION | VU_NEED_REPLY, &d->inflight,
                      VU_INFLIGHT_SIZE, &d->inflight_fd, 1, &check_err));
        for (unsigned i = 0; i < 100; i++)
                server_turn(*state);
        struct pollfd answer = {.fd = d->front->fd, .events = POLLIN};
        assert_int_equal(poll(&answer, 1, 0), 0);
        fake_release_all(volume);
        ok(front_reply(d->front, VU_SET_INFLIGHT_FD, &reply, &check_err));
        assert_int_equal(reply.u64, 0);
        take_writes(d, w, REQUESTS);
        assert_int_equal(n_submitted(state), before);
        free(w);
        disk_close(d);
}

/* ---- a region that lies ---- */

/* Connects with a region of rubbish: refused, or served; the server lives. */
static void offer_region(struct disk *d)
{
        check_err = ERROR_INIT;
        int r = front_tell(d->front, VU_SET_INFLIGHT_FD, &d->inflight, VU_INFLIGHT_SIZE,
                           &d->inflight_fd, 1, &check_err);
        if (r == 0)
                r = disk_start(d, &check_err);
        if (r < 0)
                return;
        ring_kick(&d->rings[0]);
        /* The answer to this comes once the kick has been looked at. */
        (void)front_sync(d->front, &check_err);
}

static void rule_7_a_region_of_rubbish_is_survived(void **state)
{
        for (unsigned i = 0; i < 200; i++) {
                struct disk *d =
                    check_open((struct disk_options){.packed = i % 2, .stopped = true});
                uint8_t *region = map_region(d);
                uint16_t version = 1, size = d->rings[0].size;
                check_pattern(region, d->inflight.size, i);
                if (i % 4 > 1) { /* as far as it is looked at first, it is good */
                        memset(region, 0, 8);
                        memcpy(region + 8, &version, 2);
                        memcpy(region + 10, &size, 2);
                }
                offer_region(d);
                munmap(region, d->inflight.size);
                disk_close(d);
        }
}

static void rule_7_lists_that_loop_or_point_outside_are_survived(void **state)
{
        const uint16_t values[] = {0, 1, 127, 128, 129, 32767, 65535};
        const unsigned order[REQUESTS] = {0};

        for (unsigned i = 0; i < 7; i++)
                for (unsigned j = 0; j < 7; j++) {
                        struct vu_inflight_split *region;
                        struct writes *w;
                        struct disk *d = begun(order, &w, &region);
                        region->last_batch_head = values[i];
                        region->used_idx = values[j];
                        for (unsigned e = 0; e < region->desc_num; e++) {
                                region->desc[e].next = values[(i + j + e) % 7];
                                region->desc[e].inflight = (uint8_t)(e % 3);
                        }
                        offer_region(d);
                        munmap(region, d->inflight.size);
                        free(w);
                        disk_close(d);
                }
}

static void rule_7_a_region_that_shrinks_is_survived(void **state)
{
        server_take_sigbus();
        for (unsigned i = 0; i < 4; i++) {
                struct disk *d =
                    check_open((struct disk_options){.packed = i % 2, .stopped = i >= 2});
                /* A region of the server's own making may be sealed. */
                if (ftruncate(d->inflight_fd, 0) == 0) {
                        uint8_t block[512];
                        struct disk_op op = {
                            .type = VIRTIO_BLK_T_IN, .data = block, .n_bytes = sizeof(block)};
                        static struct disk_flight flight;
                        offer_region(d);
                        ok(disk_add(d, 0, &op, &flight, &check_err));
                        ring_publish(&d->rings[0]);
                        (void)front_sync(d->front, &check_err);
                }
                disk_close(d);
        }
        /* Ours are not. */
        for (unsigned i = 0; i < 4; i++) {
                struct disk *d = check_open((struct disk_options){
                    .packed = i % 2, .without_inflight = true, .stopped = true});
                d->inflight = (struct vu_inflight){
                    .size = 1 << 20, .n_queues = 1, .queue_size = d->rings[0].size};
                d->inflight_fd = memfd_create("region", MFD_CLOEXEC);
                assert_int_equal(ftruncate(d->inflight_fd, 1 << 20), 0);
                if (i >= 2)
                        assert_int_equal(ftruncate(d->inflight_fd, 100), 0);
                offer_region(d);
                assert_int_equal(ftruncate(d->inflight_fd, 0), 0);
                static struct disk_flight flight;
                uint8_t block[512];
                struct disk_op op = {
                    .type = VIRTIO_BLK_T_IN, .data = block, .n_bytes = sizeof(block)};
                ok(disk_add(d, 0, &op, &flight, &check_err));
                ring_publish(&d->rings[0]);
                (void)front_sync(d->front, &check_err);
                disk_close(d);
        }
}

static void rule_7_odd_descriptions_of_a_region_are_refused_or_survived(void **state)
{
        const uint64_t sizes[] = {0, 1, 16, 4096, 1 << 20, UINT64_MAX, UINT64_MAX / 2};
        const uint16_t numbers[] = {0, 1, 3, 128, 1024, 32768, 65535};

        for (unsigned i = 0; i < 7; i++)
                for (unsigned j = 0; j < 7; j++) {
                        struct disk *d = check_open((struct disk_options){.stopped = true});
                        struct front_reply reply;
                        struct vu_inflight odd = {.size = sizes[i],
                                                  .offset = sizes[j],
                                                  .n_queues = numbers[i],
                                                  .queue_size = numbers[j]};
                        check_err = ERROR_INIT;
                        if (front_send(d->front, VU_GET_INFLIGHT_FD, VU_VERSION, &odd,
                                       VU_INFLIGHT_SIZE, NULL, 0, &check_err) == 0 &&
                            front_reply(d->front, VU_GET_INFLIGHT_FD, &reply, &check_err) == 0)
                                while (reply.n_fds > 0)
                                        close(reply.fds[--reply.n_fds]);
                        disk_close(d);
                        d = check_open((struct disk_options){.stopped = true});
                        uint64_t size = d->inflight.size;
                        d->inflight = odd;
                        offer_region(d);
                        d->inflight.size = size;
                        disk_close(d);
                }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, server_setup, server_teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            TEST(rule_7_a_request_is_marked_before_it_is_submitted_and_until_it_is_used),
            TEST(rule_7_what_was_begun_is_done_again_in_the_order_of_its_counters),
            TEST(rule_7_a_queue_stopped_at_once_has_done_what_was_begun),
            TEST(rule_7_the_last_batch_is_not_done_again_when_the_guest_was_told),
            TEST(rule_7_the_last_batch_is_done_again_when_the_guest_was_not_told),
            TEST(rule_7_a_guest_sees_no_error_when_its_server_dies),
            TEST(rule_7_a_packed_batch_is_not_done_again_when_the_guest_was_told),
            TEST(rule_7_a_packed_batch_is_done_again_when_the_guest_was_not_told),
            TEST(rule_7_indirect_requests_are_done_again_too),
            TEST(rule_7_who_comes_back_waits_for_what_its_last_connection_has_begun),
            TEST(rule_7_what_was_begun_before_a_reset_is_not_done_again),
            TEST(rule_7_a_region_of_rubbish_is_survived),
            TEST(rule_7_lists_that_loop_or_point_outside_are_survived),
            TEST(rule_7_a_region_that_shrinks_is_survived),
            TEST(rule_7_odd_descriptions_of_a_region_are_refused_or_survived),
        };
        return cmocka_run_group_tests_name("vhost in-flight", tests, NULL, NULL);
}
