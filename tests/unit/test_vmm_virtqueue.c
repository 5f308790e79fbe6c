/* test_vmm_virtqueue.c - split rings, as obedient drivers and hostile ones make them. */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "tests/vmm/probe.h"
#include "vmm-glue/vmm/virtqueue.h"
#include "vmm-glue/vmm/watch.h"

#define TEST_SECONDS 60u /* a chain without an end */

#define SIZE     16u
#define BUFFERS  MIB(4)
#define TABLE    MIB(6)
#define INDIRECT (UINT64_C(1) << VIRTIO_RING_F_INDIRECT_DESC)
#define EVENTS   (UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX)

struct world {
        struct probe_world *p;
        struct guest_ring r;
        struct virtqueue vq;
        struct virtqueue_chain chain;
};

static void begin(struct world *w, uint64_t features)
{
        struct error err = ERROR_INIT;

        w->r = probe_bring_up(w->p);
        w->p->probe.v.features |= features;
        if (virtqueue_start(&w->vq, &w->p->probe.v, 0, &err) < 0)
                fail_msg("%s", err.message);
}

static int setup(void **state)
{
        struct world *w = calloc(1, sizeof(*w));

        alarm(TEST_SECONDS);
        w->p = probe_world_new(true);
        begin(w, 0);
        *state = w;
        return 0;
}

static int teardown(void **state)
{
        struct world *w = *state;

        probe_world_free(w->p);
        free(w);
        return 0;
}

static bool needs_reset(struct world *w)
{
        return guest_status(&w->p->d) & VIRTIO_CONFIG_S_NEEDS_RESET;
}

static void put_descriptor(void *table, unsigned at, uint64_t gpa, uint32_t length, uint16_t flags,
                           uint16_t next)
{
        const struct vring_desc d = {htole64(gpa), htole32(length), htole16(flags), htole16(next)};

        memcpy((uint8_t *)table + at * sizeof(d), &d, sizeof(d)); /* it may be unaligned */
}

/* The driver's chain that begins at descriptor 0 is refused, and nothing comes after it. */
static void expect_broken(struct world *w)
{
        guest_make_available(&w->r, 0);
        assert_false(virtqueue_pop(&w->vq, &w->chain));
        assert_true(needs_reset(w));
        guest_make_available(&w->r, 1);
        assert_false(virtqueue_pop(&w->vq, &w->chain));
        assert_false(virtqueue_want_kicks(&w->vq));
}

/* ---- obedient drivers ---- */

static void a_chain_comes_in_pieces(void **state)
{
        struct world *w = *state;
        const struct guest_piece pieces[] = {
            {BUFFERS, 10, false}, {BUFFERS + 100, 20, false}, {BUFFERS + 200, 30, true}};
        uint16_t head = guest_add(&w->r, pieces, 3);

        assert_true(virtqueue_pop(&w->vq, &w->chain));
        assert_int_equal(w->chain.head, head);
        assert_int_equal(w->chain.n_out, 2);
        assert_int_equal(w->chain.n_in, 1);
        assert_int_equal(w->chain.out_bytes, 30);
        assert_int_equal(w->chain.in_bytes, 30);
        assert_ptr_equal(w->chain.iov[1].iov_base, guest_memory_at(w->p->f, BUFFERS + 100, 20));
        assert_ptr_equal(virtqueue_in(&w->chain)->iov_base,
                         guest_memory_at(w->p->f, BUFFERS + 200, 30));
        assert_false(virtqueue_pop(&w->vq, &w->chain));
        assert_false(needs_reset(w));
}

static void what_is_pushed_is_seen_at_the_flush(void **state)
{
        struct world *w = *state;
        const struct guest_piece piece = {BUFFERS, 100, true};
        uint32_t id, length;

        for (unsigned i = 0; i < 2; i++) {
                guest_add(&w->r, &piece, 1);
                assert_true(virtqueue_pop(&w->vq, &w->chain));
                virtqueue_push(&w->vq, &w->chain, 10 + i);
        }
        assert_false(guest_used(&w->r, &id, &length));
        virtqueue_flush(&w->vq);
        for (unsigned i = 0; i < 2; i++) {
                assert_true(guest_used(&w->r, &id, &length));
                assert_int_equal(id, i);
                assert_int_equal(length, 10 + i);
        }
        assert_false(guest_used(&w->r, &id, &length));
}

static void rings_go_round(void **state)
{
        struct world *w = *state;
        const struct guest_piece piece = {BUFFERS, 100, true};
        uint32_t id, length;

        /* past the wrap of the index itself */
        for (unsigned i = 0; i < 70000; i++) {
                uint16_t head = guest_add(&w->r, &piece, 1);

                assert_true(virtqueue_pop(&w->vq, &w->chain));
                virtqueue_push(&w->vq, &w->chain, 1);
                virtqueue_flush(&w->vq);
                assert_true(guest_used(&w->r, &id, &length));
                assert_int_equal(id, head);
        }
}

static void a_chain_can_be_put_back(void **state)
{
        struct world *w = *state;
        const struct guest_piece piece = {BUFFERS, 100, true};

        guest_add(&w->r, &piece, 1);
        assert_true(virtqueue_pop(&w->vq, &w->chain));
        virtqueue_unpop(&w->vq);
        assert_true(virtqueue_pop(&w->vq, &w->chain));
        assert_int_equal(w->chain.head, 0);
        assert_false(virtqueue_pop(&w->vq, &w->chain));
}

static void an_indirect_table_is_followed(void **state)
{
        struct world *w = *state;
        void *table = guest_memory_at(w->p->f, TABLE + 4, 3 * 16);

        begin(w, INDIRECT);
        put_descriptor(w->r.descriptors, 0, BUFFERS, 5, VRING_DESC_F_NEXT, 9);
        put_descriptor(w->r.descriptors, 9, TABLE + 4, 3 * 16, VRING_DESC_F_INDIRECT, 0);
        put_descriptor(table, 0, BUFFERS + 10, 6, VRING_DESC_F_NEXT, 2);
        put_descriptor(table, 2, BUFFERS + 20, 7, VRING_DESC_F_WRITE, 0);
        guest_make_available(&w->r, 0);
        assert_true(virtqueue_pop(&w->vq, &w->chain));
        assert_int_equal(w->chain.n_out, 2);
        assert_int_equal(w->chain.out_bytes, 11);
        assert_int_equal(w->chain.in_bytes, 7);
}

static void a_buffer_may_lie_in_two_regions(void **state)
{
        struct world *w = *state;
        struct guest_memory *memory = &w->p->f->machine.memory;
        const struct guest_piece piece = {MIB(32) - 100, 300, true};

        assert_int_equal(memory_add(memory, MIB(32), MIB(2), false, false, NULL, NULL), 0);
        guest_add(&w->r, &piece, 1);
        assert_true(virtqueue_pop(&w->vq, &w->chain));
        assert_int_equal(w->chain.n_in, 2);
        assert_int_equal(w->chain.in_bytes, 300);
        assert_int_equal(w->chain.iov[0].iov_len, 100);
}

static void a_queue_that_is_not_enabled_is_empty(void **state)
{
        struct world *w = *state;
        struct virtqueue vq;

        w->p->probe.v.queues[1].enabled = false;
        assert_int_equal(virtqueue_start(&vq, &w->p->probe.v, 1, NULL), 0);
        assert_false(virtqueue_pop(&vq, &w->chain));
        assert_false(virtqueue_want_kicks(&vq));
        virtqueue_want_no_kicks(&vq);
        virtqueue_flush(&vq);
        assert_false(needs_reset(w));
}

static void it_goes_on_where_it_was(void **state)
{
        struct world *w = *state;
        const struct guest_piece piece = {BUFFERS, 100, true};
        uint32_t id, length;

        guest_add(&w->r, &piece, 1);
        guest_add(&w->r, &piece, 1);
        assert_true(virtqueue_pop(&w->vq, &w->chain));
        virtqueue_push(&w->vq, &w->chain, 1);
        virtqueue_flush(&w->vq);
        assert_int_equal(virtqueue_start(&w->vq, &w->p->probe.v, 0, NULL), 0);
        eventfd_take(w->p->probe.v.queues[0].call);
        virtqueue_flush(&w->vq); /* nothing was pushed since */
        assert_false(eventfd_take(w->p->probe.v.queues[0].call));
        assert_true(virtqueue_pop(&w->vq, &w->chain));
        assert_int_equal(w->chain.head, 1);
        virtqueue_push(&w->vq, &w->chain, 1);
        virtqueue_flush(&w->vq);
        assert_true(guest_used(&w->r, &id, &length) && id == 0);
        assert_true(guest_used(&w->r, &id, &length) && id == 1);
}

/* ---- interrupts and kicks ---- */

static bool signalled(struct world *w)
{
        return eventfd_take(w->p->probe.v.queues[0].call);
}

static void use_one(struct world *w)
{
        const struct guest_piece piece = {BUFFERS, 100, true};

        guest_add(&w->r, &piece, 1);
        assert_true(virtqueue_pop(&w->vq, &w->chain));
        virtqueue_push(&w->vq, &w->chain, 0);
        virtqueue_flush(&w->vq);
}

static void the_driver_is_interrupted_when_it_wants(void **state)
{
        struct world *w = *state;

        virtqueue_flush(&w->vq);
        assert_false(signalled(w)); /* nothing was pushed */
        use_one(w);
        assert_true(signalled(w));
        w->r.available->flags = htole16(VRING_AVAIL_F_NO_INTERRUPT);
        use_one(w);
        assert_false(signalled(w));
        w->r.available->flags = 0;
        use_one(w);
        assert_true(signalled(w));
}

static void with_event_idx_it_says_at_which(void **state)
{
        struct world *w = *state;
        uint16_t *used_event = &w->r.available->ring[SIZE];

        begin(w, EVENTS);
        *used_event = htole16(2);
        use_one(w);
        use_one(w);
        assert_false(signalled(w));
        use_one(w);
        assert_true(signalled(w));
        use_one(w);
        assert_false(signalled(w));
}

static void kicks_are_wanted_or_not(void **state)
{
        struct world *w = *state;
        const struct guest_piece piece = {BUFFERS, 100, true};

        assert_false(virtqueue_want_kicks(&w->vq));
        assert_int_equal(le16toh(w->r.used->flags), 0);
        virtqueue_want_no_kicks(&w->vq);
        assert_int_equal(le16toh(w->r.used->flags), VRING_USED_F_NO_NOTIFY);
        guest_add(&w->r, &piece, 1);
        assert_true(virtqueue_want_kicks(&w->vq)); /* there is something already */
        assert_int_equal(le16toh(w->r.used->flags), 0);
}

static void with_event_idx_a_kick_is_wanted_at_the_next(void **state)
{
        struct world *w = *state;
        const uint16_t *available_event;

        begin(w, EVENTS);
        available_event = (const uint16_t *)&w->r.used->ring[SIZE];
        use_one(w);
        use_one(w);
        assert_int_equal(le16toh(*available_event), 0);
        assert_false(virtqueue_want_kicks(&w->vq));
        assert_int_equal(le16toh(*available_event), 2);
}

static void what_is_written_is_marked(void **state)
{
        struct world *w = *state;
        const struct guest_piece piece = {BUFFERS, 8192, true};
        const uint8_t *bits;

        assert_int_equal(memory_log_begin(&w->p->f->machine.memory, NULL), 0);
        bits = w->p->f->machine.memory.log->bits;
        guest_add(&w->r, &piece, 1);
        assert_true(virtqueue_pop(&w->vq, &w->chain));
        virtqueue_push(&w->vq, &w->chain, 4097);
        virtqueue_flush(&w->vq);
        assert_int_equal(bits[BUFFERS / 4096 / 8], 3);
        assert_int_equal(bits[PROBE_RING / 4096 / 8] & 1, 1); /* the used ring */
        memory_log_end(&w->p->f->machine.memory);
}

/* ---- hostile drivers ---- */

static void rings_outside_ram_are_refused(void **state)
{
        struct world *w = *state;
        struct virtio_queue *queue = &w->p->probe.v.queues[0];
        const struct virtio_queue before = *queue;
        const uint64_t wrong[] = {MIB(32), MIB(32) - 16, LAYOUT_ECAM, UINT64_MAX - 15};

        for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
                *queue = before;
                queue->descriptors = wrong[i];
                assert_int_equal(virtqueue_start(&w->vq, &w->p->probe.v, 0, NULL), -EFAULT);
                *queue = before;
                queue->available = wrong[i];
                assert_int_equal(virtqueue_start(&w->vq, &w->p->probe.v, 0, NULL), -EFAULT);
                *queue = before;
                queue->used = wrong[i];
                assert_int_equal(virtqueue_start(&w->vq, &w->p->probe.v, 0, NULL), -EFAULT);
        }
        *queue = before;
}

static void more_than_the_ring_holds_is_refused(void **state)
{
        struct world *w = *state;

        w->r.available->idx = htole16(SIZE + 1);
        assert_false(virtqueue_pop(&w->vq, &w->chain));
        assert_true(needs_reset(w));
}

static void a_full_ring_is_none_too_many(void **state)
{
        struct world *w = *state;
        const struct guest_piece piece = {BUFFERS, 1, true};

        for (unsigned i = 0; i < SIZE; i++)
                guest_add(&w->r, &piece, 1);
        for (unsigned i = 0; i < SIZE; i++)
                assert_true(virtqueue_pop(&w->vq, &w->chain));
        assert_false(virtqueue_pop(&w->vq, &w->chain));
        assert_false(needs_reset(w));
}

static void a_head_outside_the_table_is_refused(void **state)
{
        struct world *w = *state;

        guest_make_available(&w->r, SIZE);
        assert_false(virtqueue_pop(&w->vq, &w->chain));
        assert_true(needs_reset(w));
}

static void a_chain_that_leads_out_of_the_table_is_refused(void **state)
{
        struct world *w = *state;

        put_descriptor(w->r.descriptors, 0, BUFFERS, 1, VRING_DESC_F_NEXT, SIZE);
        expect_broken(w);
}

static void a_chain_in_a_circle_is_refused(void **state)
{
        struct world *w = *state;

        put_descriptor(w->r.descriptors, 0, BUFFERS, 1, VRING_DESC_F_NEXT, 1);
        put_descriptor(w->r.descriptors, 1, BUFFERS, 1, VRING_DESC_F_NEXT, 0);
        expect_broken(w);
}

static void a_circle_of_empty_pieces_is_refused(void **state)
{
        struct world *w = *state;

        put_descriptor(w->r.descriptors, 0, BUFFERS, 0, VRING_DESC_F_NEXT, 0);
        expect_broken(w);
}

static void what_is_not_ram_is_refused(void **state)
{
        static const uint64_t wrong[][2] = {
            {MIB(32) - 1, 2}, {MIB(32), 1}, {LAYOUT_ECAM, 1}, {UINT64_MAX, 2}, {0, UINT32_MAX}};
        struct world *w = *state;

        for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
                begin(w, 0);
                put_descriptor(w->r.descriptors, 0, wrong[i][0], (uint32_t)wrong[i][1],
                               VRING_DESC_F_WRITE, 0);
                expect_broken(w);
        }
}

static void a_readable_piece_behind_a_writable_one_is_refused(void **state)
{
        struct world *w = *state;

        put_descriptor(w->r.descriptors, 0, BUFFERS, 1, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 1);
        put_descriptor(w->r.descriptors, 1, BUFFERS, 1, 0, 0);
        expect_broken(w);
}

static void an_indirect_table_that_was_not_agreed_on_is_refused(void **state)
{
        struct world *w = *state;

        put_descriptor(w->r.descriptors, 0, TABLE, 16, VRING_DESC_F_INDIRECT, 0);
        expect_broken(w);
}

static void indirect_tables_are_checked(void **state)
{
        static const uint64_t wrong[][2] = {
            {TABLE, 0},         {TABLE, 15},       {TABLE, 24},
            {MIB(32) - 16, 32}, {LAYOUT_ECAM, 16}, {TABLE, (VIRTQUEUE_PIECES_MAX + 1) * 16}};
        struct world *w = *state;

        for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
                begin(w, INDIRECT);
                put_descriptor(w->r.descriptors, 0, wrong[i][0], (uint32_t)wrong[i][1],
                               VRING_DESC_F_INDIRECT, 0);
                expect_broken(w);
        }
        begin(w, INDIRECT);
        put_descriptor(w->r.descriptors, 0, TABLE, 16, VRING_DESC_F_INDIRECT | VRING_DESC_F_NEXT,
                       1);
        expect_broken(w);
}

static void what_stands_in_indirect_tables_is_checked(void **state)
{
        static const struct {
                uint16_t flags, next;
        } wrong[] = {
            {VRING_DESC_F_INDIRECT, 0}, /* a table in a table */
            {VRING_DESC_F_NEXT, 0},     /* a circle */
            {VRING_DESC_F_NEXT, 2},     /* out of it */
        };
        struct world *w = *state;
        void *table = guest_memory_at(w->p->f, TABLE, 32);

        for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
                begin(w, INDIRECT);
                put_descriptor(w->r.descriptors, 0, TABLE, 32, VRING_DESC_F_INDIRECT, 0);
                put_descriptor(table, 0, BUFFERS, 16, wrong[i].flags, wrong[i].next);
                expect_broken(w);
        }
}

static void pieces_come_to_an_end(void **state)
{
        struct world *w = *state;
        void *table = guest_memory_at(w->p->f, TABLE, VIRTQUEUE_PIECES_MAX * 16);

        begin(w, INDIRECT);
        for (unsigned i = 0; i < VIRTQUEUE_PIECES_MAX; i++)
                put_descriptor(table, i, BUFFERS, 1,
                               i + 1 < VIRTQUEUE_PIECES_MAX ? VRING_DESC_F_NEXT : 0,
                               (uint16_t)(i + 1));
        put_descriptor(w->r.descriptors, 0, TABLE, VIRTQUEUE_PIECES_MAX * 16, VRING_DESC_F_INDIRECT,
                       0);
        guest_make_available(&w->r, 0);
        assert_true(virtqueue_pop(&w->vq, &w->chain));
        assert_int_equal(w->chain.n_out, VIRTQUEUE_PIECES_MAX);
        /* and one more */
        put_descriptor(w->r.descriptors, 1, TABLE, VIRTQUEUE_PIECES_MAX * 16, VRING_DESC_F_INDIRECT,
                       0);
        put_descriptor(w->r.descriptors, 0, BUFFERS, 1, VRING_DESC_F_NEXT, 1);
        expect_broken(w);
}

/* ---- copying ---- */

static void pieces_are_copied_from_and_to(void **state)
{
        char a[] = "abc", b[] = "defgh", to[16] = {0};
        const struct iovec iov[] = {{a, 3}, {NULL, 0}, {b, 5}};

        assert_int_equal(virtqueue_gather(iov, 3, 0, to, sizeof(to)), 8);
        assert_string_equal(to, "abcdefgh");
        memset(to, 0, sizeof(to));
        assert_int_equal(virtqueue_gather(iov, 3, 2, to, 3), 3);
        assert_string_equal(to, "cde");
        assert_int_equal(virtqueue_gather(iov, 3, 8, to, 3), 0);
        assert_int_equal(virtqueue_scatter(iov, 3, 1, "12345678", 8), 7);
        assert_string_equal(a, "a12");
        assert_string_equal(b, "34567");
        assert_int_equal(virtqueue_scatter(iov, 3, 99, "x", 1), 0);
}

#define ring_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            ring_test(a_chain_comes_in_pieces),
            ring_test(what_is_pushed_is_seen_at_the_flush),
            ring_test(rings_go_round),
            ring_test(a_chain_can_be_put_back),
            ring_test(an_indirect_table_is_followed),
            ring_test(a_buffer_may_lie_in_two_regions),
            ring_test(a_queue_that_is_not_enabled_is_empty),
            ring_test(it_goes_on_where_it_was),
            ring_test(the_driver_is_interrupted_when_it_wants),
            ring_test(with_event_idx_it_says_at_which),
            ring_test(kicks_are_wanted_or_not),
            ring_test(with_event_idx_a_kick_is_wanted_at_the_next),
            ring_test(what_is_written_is_marked),
            ring_test(rings_outside_ram_are_refused),
            ring_test(more_than_the_ring_holds_is_refused),
            ring_test(a_full_ring_is_none_too_many),
            ring_test(a_head_outside_the_table_is_refused),
            ring_test(a_chain_that_leads_out_of_the_table_is_refused),
            ring_test(a_chain_in_a_circle_is_refused),
            ring_test(a_circle_of_empty_pieces_is_refused),
            ring_test(what_is_not_ram_is_refused),
            ring_test(a_readable_piece_behind_a_writable_one_is_refused),
            ring_test(an_indirect_table_that_was_not_agreed_on_is_refused),
            ring_test(indirect_tables_are_checked),
            ring_test(what_stands_in_indirect_tables_is_checked),
            ring_test(pieces_come_to_an_end),
            ring_test(pieces_are_copied_from_and_to),
        };

        return cmocka_run_group_tests_name("vmm_virtqueue", tests, NULL, NULL);
}
