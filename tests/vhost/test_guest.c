/* test_guest.c - rules 2 and 8 of the vhost-user-blk device (README.md), and the dirty log: guest
 * memory that comes, goes, shrinks, and changes while it is read. Over volumes in memory. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>
#include "tests/vhost/raw.h"
#include "tests/vhost/server.h"

#define READS 8u

/* ---- 8: memory that comes and goes ---- */

/* Reads of 4 KiB each to guest address @at and on, added and shown. */
static void start_reads(struct disk *d, uint64_t at, uint64_t *ret_status)
{
        const struct virtio_blk_outhdr header = {.type = VIRTIO_BLK_T_IN};
        const uint8_t none = DISK_STATUS_NONE;
        uint64_t header_at = guest_take(d->memory, 0, sizeof(header), 16);

        guest_write(d->memory, header_at, &header, sizeof(header));
        *ret_status = guest_take(d->memory, 0, READS, 1);
        for (unsigned i = 0; i < READS; i++) {
                const struct ring_buffer buffers[] = {{header_at, sizeof(header), false},
                                                      {at + i * 4096, 4096, true},
                                                      {*ret_status + i, 1, true}};
                guest_write(d->memory, *ret_status + i, &none, 1);
                assert_true(ring_add(&d->rings[0], buffers, 3, 0, d));
        }
        ring_publish(&d->rings[0]);
}

static void take_reads(struct disk *d)
{
        uint32_t n_bytes;
        void *cookie;

        for (unsigned i = 0; i < READS; i++)
                ok(ring_wait(&d->rings[0], RAW_WAIT_MS, &cookie, &n_bytes, &check_err));
}

static void rule_8_a_new_table_is_taken_with_requests_in_flight(void **state)
{
        struct volume *volume = server_volume(*state, SERVER_VOL);
        uint64_t status;

        for (unsigned packed = 0; packed < 2; packed++)
                for (unsigned region = 0; region < 3; region++) {
                        struct disk *d = check_open((struct disk_options){.packed = packed});
                        uint64_t at = guest_take(d->memory, region, READS * 4096, 4096);
                        struct vu_table table = {.n_regions = 3};
                        struct front_reply reply;
                        int fds[3];
                        check_alive(d);
                        fake_hold(volume);
                        start_reads(d, at, &status);
                        fake_wait_held(volume, READS);
                        /* The same memory, by the same files: the guest has merely said so again. */
                        for (unsigned i = 0; i < 3; i++) {
                                table.regions[i] = d->memory->regions[i].address;
                                fds[i] = d->memory->regions[i].fd;
                        }
                        ok(front_send(d->front, VU_SET_MEM_TABLE, VU_VERSION | VU_NEED_REPLY,
                                      &table, 8 + 3 * sizeof(struct vu_region), fds, 3,
                                      &check_err));
                        server_turn(*state); /* the server may answer now, or when all is done */
                        fake_release_all(volume);
                        ok(front_reply(d->front, VU_SET_MEM_TABLE, &reply, &check_err));
                        assert_int_equal(reply.u64, 0);
                        take_reads(d);
                        check_alive(d);
                        disk_close(d);
                }
}

static void rule_8_rings_are_looked_up_again_in_a_new_table(void **state)
{
        for (unsigned packed = 0; packed < 2; packed++) {
                struct disk *d = check_open((struct disk_options){.packed = packed});
                for (unsigned i = 0; i < 10; i++) {
                        check_alive(d);
                        /* The old file stays as it was: who still uses it answers nobody. */
                        ok(guest_replace(d->memory, 0, &check_err));
                        ok(front_set_memory(d->front, d->memory, false, &check_err));
                        /* The server's wish to be kicked may have come too late for the copy. */
                        ring_kick(&d->rings[0]);
                        check_alive(d);
                }
                disk_close(d);
        }
}

static void rule_8_regions_come_and_go_under_load(void **state)
{
        for (unsigned packed = 0; packed < 2; packed++) {
                struct disk *d =
                    check_open((struct disk_options){.packed = packed, .by_slots = true});
                for (unsigned i = 0; i < 200; i++) {
                        uint64_t mark = disk_mark(d), status;
                        ok(guest_add(d->memory, (UINT64_C(2) << 32) + i * (UINT64_C(1) << 20),
                                     READS * 4096, &check_err));
                        struct guest_part *region = &d->memory->regions[3];
                        ok(front_add_region(d->front, region, &check_err));
                        start_reads(d, region->address.guest, &status);
                        /* In flight, or not even looked at. */
                        ok(front_remove_region(d->front, region, &check_err));
                        take_reads(d);
                        for (unsigned r = 0; r < READS; r++) {
                                uint8_t byte;
                                guest_read(d->memory, status + r, &byte, 1);
                                assert_true(byte == VIRTIO_BLK_S_OK || byte == VIRTIO_BLK_S_IOERR);
                        }
                        guest_drop(d->memory);
                        disk_release(d, mark);
                }
                check_alive(d);
                disk_close(d);
        }
}

static void rule_8_as_many_slots_as_promised_are_taken_and_no_more(void **state)
{
        struct disk *d = check_open((struct disk_options){.by_slots = true});
        uint64_t n_slots, n = 3;

        ok(front_ask_u64(d->front, VU_GET_MAX_MEM_SLOTS, &n_slots, &check_err));
        assert_true(n_slots >= 32);
        ok(guest_add(d->memory, UINT64_C(2) << 32, 65536, &check_err));
        struct guest_part region = d->memory->regions[3];
        for (unsigned i = 0; i < 5000; i++) {
                region.address.guest += 65536;
                region.address.user += 65536;
                check_err = ERROR_INIT;
                if (front_add_region(d->front, &region, &check_err) < 0)
                        break;
                n++;
        }
        assert_int_equal(n, n_slots);
        disk_close(d);
}

static void rule_8_a_removed_region_that_held_the_rings_stops_them(void **state)
{
        for (unsigned packed = 0; packed < 2; packed++) {
                struct disk *d =
                    check_open((struct disk_options){.packed = packed, .by_slots = true});
                struct guest_part region = d->memory->regions[0];
                check_alive(d);
                check_err = ERROR_INIT;
                (void)front_remove_region(d->front, &region, &check_err);
                ring_kick(&d->rings[0]);
                (void)front_sync(d->front, &check_err);
                disk_close(d);
        }
}

static bool is_signalled(int fd, int timeout_ms)
{
        struct pollfd p = {.fd = fd, .events = POLLIN};

        return poll(&p, 1, timeout_ms) > 0;
}

/* Memory that is away may come back; rings that lie over one another make no sense wherever they are. */
static void rule_8_rings_without_memory_wait_and_rings_that_make_no_sense_are_stopped(void **state)
{
        for (unsigned packed = 0; packed < 2; packed++) {
                struct disk *d =
                    check_open((struct disk_options){.packed = packed, .by_slots = true});
                struct guest_part region = d->memory->regions[0];
                struct ring *r = &d->rings[0];
                struct vu_vring_addr a = {.descriptor = guest_user(d->memory, r->descriptors),
                                          .available = guest_user(d->memory, r->driver),
                                          .used = guest_user(d->memory, r->driver)};
                eventfd_t count;

                check_alive(d);
                ok(front_remove_region(d->front, &region, &check_err));
                ring_kick(r);
                server_turn(*state);
                assert_false(is_signalled(r->error, 0));
                ok(front_add_region(d->front, &region, &check_err));
                check_alive(d);
                for (unsigned odd = 0; odd < 2; odd++) {
                        a.used = guest_user(d->memory, r->driver) + odd;
                        ok(front_tell(d->front, VU_SET_VRING_ADDR, &a, sizeof(a), NULL, 0,
                                      &check_err));
                        assert_true(is_signalled(r->error, RAW_WAIT_MS));
                        assert_int_equal(eventfd_read(r->error, &count), 0);
                        ok(ring_set_address(r, d->front, 0, false, &check_err));
                        const uint64_t index = 0; /* starts it anew */
                        ok(front_tell(d->front, VU_SET_VRING_KICK, &index, sizeof(index), &r->kick,
                                      1, &check_err));
                        check_alive(d);
                }
                disk_close(d);
        }
}

static void rule_8_odd_regions_are_refused_and_the_old_memory_stays(void **state)
{
        struct disk *d = check_open((struct disk_options){.by_slots = true});
        const uint64_t page = 4096, high = UINT64_C(2) << 32;
        struct guest_part first = d->memory->regions[0];
        uint64_t user = UINT64_C(0x7000000000000);
        disk_close(d);
        const struct vu_region odd[] = {
            {first.address.guest, page, user, 0}, /* overlaps */
            {first.address.guest + first.address.size - 1, page, user, 0},
            {high, 0, user, 0},                     /* empty */
            {UINT64_MAX - page + 2, page, user, 0}, /* wraps */
            {high, page, UINT64_MAX - page + 2, 0},
            {high, page, user, UINT64_MAX - page + 1},
            {high, UINT64_MAX, user, 0},
            {high, UINT64_MAX - page + 1, user, page},
            {high, UINT64_C(1) << 62, user, 0},  /* huge */
            {high, UINT64_C(64) << 20, user, 0}, /* beyond the file's end */
            {high, page, user, UINT64_C(1) << 40},
        };
        for (unsigned i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
                d = check_open((struct disk_options){.by_slots = true});
                ok(guest_add(d->memory, high, 65536, &check_err));
                struct guest_part region = d->memory->regions[3];
                region.address = odd[i];
                check_err = ERROR_INIT;
                int r = front_add_region(d->front, &region, &check_err);
                if (r == 0)
                        fail_msg("region %u was taken", i);
                if (r == -EBADMSG)
                        check_alive(d);
                disk_close(d);
        }
}

static void rule_8_memory_that_is_no_memory_is_refused(void **state)
{
        int pipe_ends[2];
        char path[] = "/tmp/tarn-vhost-file-XXXXXX";

        assert_int_equal(pipe2(pipe_ends, O_CLOEXEC), 0);
        int file = mkstemp(path);
        unlink(path);
        const int fds[] = {pipe_ends[0],
                           pipe_ends[1],
                           file, /* empty */
                           open("/dev/null", O_RDWR | O_CLOEXEC),
                           open("/dev/zero", O_RDWR | O_CLOEXEC),
                           open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC),
                           open("/tmp", O_PATH | O_CLOEXEC),
                           memfd_create("empty", MFD_CLOEXEC)};
        for (unsigned i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
                struct disk *d = check_open((struct disk_options){.by_slots = true});
                struct guest_part region = {
                    .address = {UINT64_C(2) << 32, 65536, UINT64_C(0x7000000000000), 0},
                    .fd = fds[i]};
                check_err = ERROR_INIT;
                int r = front_add_region(d->front, &region, &check_err);
                if (r == 0) /* it may be mapped, if the server can touch it and live */
                        check_alive(d);
                else if (r == -EBADMSG)
                        check_alive(d);
                disk_close(d);
                close(fds[i]);
        }
}

static void rule_8_surplus_descriptors_are_closed(void **state)
{
        struct disk *d = check_open((struct disk_options){0});
        struct vu_table table = {.n_regions = 1, .regions = {d->memory->regions[0].address}};
        int fds[8];

        check_alive(d);
        unsigned before = server_n_fds(0);
        for (unsigned i = 0; i < 8; i++)
                fds[i] = d->memory->regions[0].fd;
        for (unsigned i = 0; i < 50; i++) {
                uint64_t no_fd = VU_VRING_NO_FD;
                struct disk *other = check_open((struct disk_options){0});
                check_err = ERROR_INIT;
                (void)front_send(other->front, VU_GET_FEATURES, VU_VERSION, NULL, 0, fds, 8,
                                 &check_err);
                (void)front_send(other->front, VU_SET_VRING_CALL, VU_VERSION, &no_fd, 8, fds, 3,
                                 &check_err);
                (void)front_send(other->front, VU_SET_MEM_TABLE, VU_VERSION, &table,
                                 8 + sizeof(struct vu_region), fds, 8, &check_err);
                (void)front_sync(other->front, &check_err);
                disk_close(other);
        }
        server_wait_clients(*state, 1);
        for (unsigned ms = 0; server_n_fds(0) > before && ms < RAW_WAIT_MS; ms++)
                usleep(1000); /* some are closed by another thread */
        assert_in_range(server_n_fds(0), 0, before);
        check_alive(d);
        disk_close(d);
}

static void rule_8_memory_that_shrinks_under_a_request_is_survived(void **state)
{
        struct volume *volume = server_volume(*state, SERVER_VOL);
        uint64_t status;

        server_take_sigbus();
        for (unsigned packed = 0; packed < 2; packed++)
                for (unsigned region = 0; region < 3; region++) {
                        struct disk *d = check_open((struct disk_options){.packed = packed});
                        uint64_t at = guest_take(d->memory, region, READS * 4096, 4096);
                        check_alive(d);
                        fake_hold(volume);
                        start_reads(d, at, &status);
                        fake_wait_held(volume, READS);
                        ok(guest_shrink(d->memory, d->memory->regions[region].address.guest,
                                        &check_err));
                        fake_release_all(volume);
                        if (region == 0) /* the rings are gone with it */
                                (void)front_sync(d->front, &check_err);
                        server_turn(*state);
                        disk_close(d);
                }
}

static void rule_8_memory_that_shrinks_between_requests_is_survived(void **state)
{
        server_take_sigbus();
        for (unsigned packed = 0; packed < 2; packed++)
                for (unsigned what = 0; what < 3; what++) {
                        struct disk *d = check_open((struct disk_options){.packed = packed});
                        uint64_t data = guest_take(d->memory, what, READS * 4096, 4096), status;
                        check_alive(d);
                        start_reads(d, data, &status);
                        ok(guest_shrink(d->memory, d->memory->regions[what].address.guest,
                                        &check_err));
                        ring_kick(&d->rings[0]);
                        (void)front_sync(d->front, &check_err);
                        server_turn(*state);
                        disk_close(d);
                }
}

/* Sparse files cost nothing, and addresses to map them are all guests'. */
static void rule_8_log_and_inflight_region_are_bounded_as_memory_is(void **state)
{
        const uint64_t huge = UINT64_C(17) << 40;
        struct vu_log log = {.size = huge};
        struct disk *d =
            check_open((struct disk_options){.without_inflight = true, .stopped = true});
        struct vu_inflight inflight = {.size = huge, .n_queues = 1, .queue_size = 128};
        int fd = memfd_create("huge", MFD_CLOEXEC);

        assert_int_equal(ftruncate(fd, (off_t)huge), 0);
        refused(-EBADMSG, front_tell(d->front, VU_SET_INFLIGHT_FD, &inflight, VU_INFLIGHT_SIZE, &fd,
                                     1, &check_err));
        check_err = ERROR_INIT;
        assert_true(front_tell(d->front, VU_SET_LOG_BASE, &log, sizeof(log), &fd, 1, &check_err) <
                    0);
        assert_true(front_is_closed(d->front)); /* its reply cannot say no */
        close(fd);
        disk_close(d);
}

/* ---- 2: memory that changes while it is read ---- */

struct flipper {
        pthread_t thread;
        bool stop;
        void *where[4];
        uint64_t values[4][2];
        unsigned n;
};

static void *flip(void *arg)
{
        struct flipper *f = arg;

        for (unsigned i = 0; !__atomic_load_n(&f->stop, __ATOMIC_RELAXED); i++)
                for (unsigned n = 0; n < f->n; n++)
                        __atomic_store_n((uint64_t *)f->where[n], f->values[n][(i + n) & 1],
                                         __ATOMIC_RELAXED);
        return NULL;
}

static void start_flipping(struct flipper *f)
{
        f->stop = false;
        assert_int_equal(pthread_create(&f->thread, NULL, flip, f), 0);
}

static void stop_flipping(struct flipper *f)
{
        __atomic_store_n(&f->stop, true, __ATOMIC_RELAXED);
        pthread_join(f->thread, NULL);
}

/* Writes whose header says sector 8 in one moment and a place far beyond the end in the next: a
 * server that checks one and uses the other writes to where no request may. */
static void rule_2_a_header_that_changes_is_read_once(void **state)
{
        for (unsigned round = 0; round < 300; round++) {
                struct raw *r = raw_open((struct disk_options){.packed = round % 2});
                struct virtio_blk_outhdr *header = guest_at(r->disk->memory, r->header);
                struct flipper f = {
                    .where = {&header->sector, header},
                    .values = {{8, SERVER_BYTES / 512 - 1}, {VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_IN}},
                    .n = 2};
                raw_header(r, VIRTIO_BLK_T_OUT, 8);
                raw_desc(r, 1, r->data, RAW_BYTES,
                         round % 4 < 2 ? VRING_DESC_F_NEXT : VRING_DESC_F_NEXT | VRING_DESC_F_WRITE,
                         2);
                start_flipping(&f);
                raw_show(r, 0);
                assert_true(raw_outcome(r) != RAW_SILENT);
                stop_flipping(&f);
                raw_close(r);
        }
}

static void rule_2_descriptors_that_change_are_read_once(void **state)
{
        const uint64_t far_away = UINT64_C(0x5000000000);

        for (unsigned round = 0; round < 300; round++) {
                struct raw *r = raw_open((struct disk_options){.packed = round % 2});
                struct vring_desc *d = ring_table(r->ring);
                uint64_t length[2] = {RAW_BYTES, 0xfffff000};
                /* The word of length, flags and next (or id and flags) as it is, with the other. */
                uint64_t word;
                memcpy(&word, (uint8_t *)&d[1] + 8, 8);
                struct flipper f = {.where = {&d[1].addr, (uint8_t *)&d[1] + 8},
                                    .values = {{r->data, far_away},
                                               {word, (word & ~UINT64_C(0xffffffff)) | length[1]}},
                                    .n = 2};
                start_flipping(&f);
                raw_show(r, 0);
                assert_true(raw_outcome(r) != RAW_SILENT);
                stop_flipping(&f);
                raw_close(r);
        }
}

static void rule_2_a_discard_segment_that_changes_is_read_once(void **state)
{
        struct volume *volume = server_volume(*state, SERVER_VOL);

        /* What lies behind the one sector that may be discarded stays as it is. */
        fake_fill(volume, 0, 0x5a, 4096);
        for (unsigned round = 0; round < 200; round++) {
                struct raw *r = raw_open((struct disk_options){.packed = round % 2});
                struct virtio_blk_discard_write_zeroes range = {.sector = 0, .num_sectors = 1};
                guest_write(r->disk->memory, r->data, &range, sizeof(range));
                uint64_t *word = guest_at(r->disk->memory, r->data);
                struct flipper f = {.where = {word, word + 1},
                                    .values = {{0, UINT64_MAX / 512}, {1, 0xffffffff}},
                                    .n = 2};
                raw_header(r, VIRTIO_BLK_T_DISCARD, 0);
                raw_desc(r, 1, r->data, sizeof(range), VRING_DESC_F_NEXT, 2);
                start_flipping(&f);
                raw_show(r, 0);
                assert_true(raw_outcome(r) != RAW_SILENT);
                stop_flipping(&f);
                raw_close(r);
                const uint8_t *data = fake_data(volume);
                for (unsigned i = 512; i < 4096; i++)
                        assert_int_equal(data[i], 0x5a);
        }
}

/* A write's data may change under way; the volume then holds either, and the server minds not. */
/* The checksum is of what is written: between the two nothing may change. */
static void rule_2_what_is_written_is_what_it_was_when_it_was_taken(void **state)
{
        struct volume *volume = server_volume(*state, SERVER_VOL);
        static const uint8_t changed[4096] = {0xee};

        for (unsigned packed = 0; packed < 2; packed++) {
                struct raw *r = raw_open((struct disk_options){.packed = packed});
                uint8_t data[4096];
                uint64_t at = (r->data + 4095) / 4096 * 4096;
                check_pattern(data, sizeof(data), 70 + packed);
                guest_write(r->disk->memory, at, data, sizeof(data));
                raw_header(r, VIRTIO_BLK_T_OUT, 0);
                raw_desc(r, 1, at, sizeof(data), VRING_DESC_F_NEXT, 2);
                fake_wait_for(volume, FAKE_WAIT_LIMITS);
                raw_show(r, 0);
                fake_wait_held(volume, 1);
                guest_write(r->disk->memory, at, changed, sizeof(changed));
                fake_release_all(volume);
                assert_int_equal(raw_outcome(r), RAW_OK);
                assert_memory_equal(fake_data(volume), data, sizeof(data));
                raw_close(r);
                /* Its end cancels what waits, which the next round's write is not to be. */
                server_wait_clients(*state, 0);
        }
}

/* Whether the engine was given the guest's own memory: what the guest stores there, it sees. */
static bool engine_has_guest_memory(struct server *s, uint32_t type, unsigned misalign)
{
        struct volume *volume = server_volume(s, SERVER_VOL);
        struct disk *d = check_open((struct disk_options){0});
        uint8_t data[4096] = {0}, byte;
        struct disk_op op = {
            .type = type, .data = data, .n_bytes = sizeof(data), .shape = {.misalign = misalign}};
        struct disk_flight flight;
        uint32_t n_written;
        void *cookie;
        bool same = true;

        fake_hold(volume);
        ok(disk_add(d, 0, &op, &flight, &check_err));
        ring_publish(&d->rings[0]);
        fake_wait_held(volume, 1);
        const uint8_t *there = fake_counts(volume).data;
        for (unsigned i = 0; i < sizeof(data); i += 512) {
                byte = (uint8_t)(0xa0 + i / 512);
                guest_write(d->memory, flight.data + i, &byte, 1);
                same = same && __atomic_load_n(there + i, __ATOMIC_SEQ_CST) == byte;
        }
        fake_release_all(volume);
        ok(ring_wait(&d->rings[0], RAW_WAIT_MS, &cookie, &n_written, &check_err));
        disk_finish(d, &flight, n_written);
        assert_int_equal(op.status, VIRTIO_BLK_S_OK);
        disk_close(d);
        return same;
}

static void reads_go_straight_into_guest_memory_where_it_suits_the_engine(void **state)
{
        assert_true(engine_has_guest_memory(*state, VIRTIO_BLK_T_IN, 0));
        assert_false(engine_has_guest_memory(*state, VIRTIO_BLK_T_IN, 4));
}

static void who_has_hung_up_is_told_from_who_has_not_while_requests_end(void **state)
{
        struct volume *volume = server_volume(*state, SERVER_VOL);
        struct disk *d = check_open((struct disk_options){0}), *other;
        uint64_t status;

        other = check_open((struct disk_options){0});
        fake_hold(volume);
        start_reads(d, guest_take(d->memory, 0, READS * 4096, 4096), &status);
        fake_wait_held(volume, READS);
        assert_int_equal(server_n_left(*state), 0);
        disk_close(d);
        assert_int_equal(server_n_left(*state), 1);
        assert_int_equal(server_n_clients(*state), 2);
        fake_release_all(volume);
        server_wait_clients(*state, 1);
        assert_int_equal(server_n_left(*state), 0);
        disk_close(other);
}

static void rule_2_writes_are_of_a_copy(void **state)
{
        assert_false(engine_has_guest_memory(*state, VIRTIO_BLK_T_OUT, 0));
}

static void rule_2_data_that_changes_is_no_error(void **state)
{
        for (unsigned round = 0; round < 100; round++) {
                struct raw *r = raw_open((struct disk_options){.packed = round % 2});
                uint64_t *word = guest_at(r->disk->memory, r->data);
                struct flipper f = {
                    .where = {word, word + 511}, .values = {{1, 2}, {3, 4}}, .n = 2};
                raw_header(r, VIRTIO_BLK_T_OUT, 0);
                raw_desc(r, 1, r->data, RAW_BYTES, VRING_DESC_F_NEXT, 2);
                start_flipping(&f);
                raw_show(r, 0);
                assert_int_equal(raw_outcome(r), RAW_OK);
                stop_flipping(&f);
                raw_close(r);
        }
}

/* ---- the dirty log ---- */

#define LOG_BYTES (UINT64_C(1) << 18) /* 8 GiB of guest */

static bool is_dirty(const uint8_t *log, uint64_t guest)
{
        uint64_t page = guest / VU_LOG_PAGE;

        return log[page / 8] >> page % 8 & 1;
}

static unsigned n_dirty(const uint8_t *log)
{
        unsigned n = 0;

        for (uint64_t i = 0; i < LOG_BYTES; i++)
                n += (unsigned)__builtin_popcount(log[i]);
        return n;
}

static uint8_t *start_log(struct disk *d, int *ret_fd)
{
        struct vu_log log = {.size = LOG_BYTES};
        int fd = memfd_create("log", MFD_CLOEXEC);

        assert_int_equal(ftruncate(fd, (off_t)LOG_BYTES), 0);
        uint8_t *here = mmap(NULL, LOG_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        assert_true(here != MAP_FAILED);
        ok(front_tell(d->front, VU_SET_LOG_BASE, &log, sizeof(log), &fd, 1, &check_err));
        ok(front_tell_u64(d->front, VU_SET_FEATURES, d->front->features | VF_LOG_ALL, &check_err));
        ok(ring_set_address(&d->rings[0], d->front, 0, true, &check_err));
        *ret_fd = fd;
        return here;
}

static void the_dirty_log_names_every_page_that_was_written(void **state)
{
        for (unsigned packed = 0; packed < 2; packed++) {
                struct disk *d = check_open((struct disk_options){.packed = packed});
                struct ring *ring = &d->rings[0];
                uint64_t used = packed ? ring->descriptors : ring->device;
                uint8_t data[3 * 4096];
                int fd;
                struct disk_op op = {.type = VIRTIO_BLK_T_IN,
                                     .data = data,
                                     .n_bytes = sizeof(data),
                                     .shape = {.across_border = true}};
                check_alive(d);
                uint8_t *log = start_log(d, &fd);
                ok(disk_do(d, 0, &op, &check_err));
                assert_int_equal(op.status, VIRTIO_BLK_S_OK);
                uint64_t first =
                    guest_take(d->memory, 0, 1, 1); /* where the request's parts were */
                assert_true(is_dirty(log, used));
                for (uint64_t at = guest_border(d->memory) - sizeof(data) / 2;
                     at < guest_border(d->memory) + sizeof(data) / 2; at += 512)
                        assert_true(is_dirty(log, at));
                assert_true(is_dirty(log, first) || is_dirty(log, first + 4096));
                /* The data's pages, those of ring and status, and no others. */
                assert_true(n_dirty(log) <= 4 + 4);
                /* A write makes the guest's memory no dirtier than its status and ring. */
                memset(log, 0, LOG_BYTES);
                op.type = VIRTIO_BLK_T_OUT;
                ok(disk_do(d, 0, &op, &check_err));
                assert_int_equal(op.status, VIRTIO_BLK_S_OK);
                assert_false(is_dirty(log, guest_border(d->memory)));
                assert_true(is_dirty(log, used));
                assert_true(n_dirty(log) >= 1 && n_dirty(log) <= 4);
                /* Over: nothing more is written there. */
                ok(front_tell_u64(d->front, VU_SET_FEATURES, d->front->features, &check_err));
                ok(ring_set_address(ring, d->front, 0, false, &check_err));
                memset(log, 0, LOG_BYTES);
                check_alive(d);
                assert_int_equal(n_dirty(log), 0);
                munmap(log, LOG_BYTES);
                close(fd);
                disk_close(d);
        }
}

static void the_dirty_log_names_the_page_that_only_a_status_was_written_to(void **state)
{
        for (unsigned packed = 0; packed < 2; packed++) {
                struct raw *r = raw_open((struct disk_options){.packed = packed});
                int fd;
                uint8_t *log = start_log(r->disk, &fd);
                r->status = r->table + 8192;
                raw_header(r, VIRTIO_BLK_T_OUT, 0);
                raw_desc(r, 1, r->data, RAW_BYTES, VRING_DESC_F_NEXT, 2);
                raw_desc(r, 2, r->status, 1, VRING_DESC_F_WRITE, 0);
                raw_show(r, 0);
                assert_int_equal(raw_outcome(r), RAW_OK);
                assert_true(is_dirty(log, r->status));
                munmap(log, LOG_BYTES);
                close(fd);
                raw_close(r);
        }
}

static void a_log_that_is_too_small_or_shrinks_is_survived(void **state)
{
        server_take_sigbus();
        for (unsigned packed = 0; packed < 2; packed++)
                for (unsigned how = 0; how < 4; how++) {
                        const uint64_t sizes[] = {0, 1, 4096, LOG_BYTES};
                        struct disk *d = check_open((struct disk_options){.packed = packed});
                        struct vu_log log = {.size = sizes[how]};
                        int fd = memfd_create("log", MFD_CLOEXEC);
                        static struct disk_flight flight;
                        uint8_t block[512];
                        struct disk_op op = {
                            .type = VIRTIO_BLK_T_IN, .data = block, .n_bytes = sizeof(block)};
                        assert_int_equal(ftruncate(fd, (off_t)sizes[how]), 0);
                        check_err = ERROR_INIT;
                        int r = front_tell(d->front, VU_SET_LOG_BASE, &log, sizeof(log), &fd, 1,
                                           &check_err);
                        if (r == 0 &&
                            front_tell_u64(d->front, VU_SET_FEATURES,
                                           d->front->features | VF_LOG_ALL, &check_err) == 0) {
                                (void)ring_set_address(&d->rings[0], d->front, 0, true, &check_err);
                                assert_int_equal(ftruncate(fd, 0), 0);
                                ok(disk_add(d, 0, &op, &flight, &check_err));
                                ring_publish(&d->rings[0]);
                                (void)front_sync(d->front, &check_err);
                        }
                        close(fd);
                        disk_close(d);
                }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, server_setup, server_teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            TEST(rule_8_a_new_table_is_taken_with_requests_in_flight),
            TEST(rule_8_rings_are_looked_up_again_in_a_new_table),
            TEST(rule_8_regions_come_and_go_under_load),
            TEST(rule_8_as_many_slots_as_promised_are_taken_and_no_more),
            TEST(rule_8_a_removed_region_that_held_the_rings_stops_them),
            TEST(rule_8_rings_without_memory_wait_and_rings_that_make_no_sense_are_stopped),
            TEST(rule_8_odd_regions_are_refused_and_the_old_memory_stays),
            TEST(rule_8_memory_that_is_no_memory_is_refused),
            TEST(rule_8_surplus_descriptors_are_closed),
            TEST(rule_8_memory_that_shrinks_under_a_request_is_survived),
            TEST(rule_8_memory_that_shrinks_between_requests_is_survived),
            TEST(rule_8_log_and_inflight_region_are_bounded_as_memory_is),
            TEST(rule_2_a_header_that_changes_is_read_once),
            TEST(rule_2_descriptors_that_change_are_read_once),
            TEST(rule_2_a_discard_segment_that_changes_is_read_once),
            TEST(rule_2_what_is_written_is_what_it_was_when_it_was_taken),
            TEST(reads_go_straight_into_guest_memory_where_it_suits_the_engine),
            TEST(who_has_hung_up_is_told_from_who_has_not_while_requests_end),
            TEST(rule_2_writes_are_of_a_copy),
            TEST(rule_2_data_that_changes_is_no_error),
            TEST(the_dirty_log_names_every_page_that_was_written),
            TEST(the_dirty_log_names_the_page_that_only_a_status_was_written_to),
            TEST(a_log_that_is_too_small_or_shrinks_is_survived),
        };
        return cmocka_run_group_tests_name("vhost guest memory", tests, NULL, NULL);
}
