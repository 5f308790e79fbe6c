/* test_orders.c - in what order a queue stores what others read: after every single store, what is
 * left for the next server (rule 7 of the vhost-user-blk device, README.md), and what a driver sees
 * that is about to sleep. The rings' code alone, over rings in the test's memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "tests/vhost/stores.h"
#include "vmm-glue/vhost-user/internal.h"

#define SIZE         8u /* descriptors */
#define SHARED_BYTES 1536u
#define DRIVER_AT    256u
#define DEVICE_AT    512u
#define REGION_AT    1024u
#define DESC_AVAIL   (1u << VRING_PACKED_DESC_F_AVAIL)
#define DESC_USED    (1u << VRING_PACKED_DESC_F_USED)
#define WRAP_BIT     (1u << VRING_PACKED_EVENT_F_WRAP_CTR)

/* The rings and the in-flight region: all that outlives a server. */
static _Alignas(64) uint8_t shared[SHARED_BYTES];

/* ---- the device ---- */

struct device {
        struct vhost_server server;
        struct vhost_device device;
        struct vhost_client client;
        struct queue queue;
        struct vhost_req requests[SIZE];
        bool head_busy[SIZE];
};

static struct loop *loop; /* whose time is looked at before anything is logged */

static int make_loop(void **state)
{
        log_set_sink(NULL);
        return loop_new(LOOP_BACKEND_THREADS, &loop, NULL);
}

static int drop_loop(void **state)
{
        loop_free(loop);
        return 0;
}

/* As a server begins that knows nothing but what is shared. */
static void device_start(struct device *d, bool packed, bool event_idx)
{
        struct queue *q = &d->queue;

        memset(d, 0, sizeof(*d));
        d->server.loop = loop;
        d->device = (struct vhost_device){.server = &d->server, .name = "orders"};
        d->client = (struct vhost_client){.device = &d->device, .memory = memory_none()};
        assert_non_null(d->client.memory);
        d->client.features = packed ? UINT64_C(1) << VIRTIO_F_RING_PACKED : 0;
        d->client.inflight.base = d->client.inflight.start = shared + REGION_AT;
        d->client.inflight_is = (struct vhost_inflight){
            .mmap_size = SHARED_BYTES - REGION_AT, .n_queues = 1, .queue_size = SIZE};
        *q = (struct queue){.client = &d->client, .size = SIZE, .event_idx = event_idx};
        q->ops = packed ? &packed_ops : &split_ops;
        q->head_busy = d->head_busy;
        list_init(&q->done);
        if (packed) {
                q->packed.desc = (void *)shared;
                q->packed.driver = (void *)(shared + DRIVER_AT);
                q->packed.device = (void *)(shared + DEVICE_AT);
        } else {
                q->split.desc = (void *)shared;
                q->split.avail = (void *)(shared + DRIVER_AT);
                q->split.used = (void *)(shared + DEVICE_AT);
                q->base = ring_load16(&q->split.used->idx);
        }
        assert_int_equal(inflight_attach(q, NULL), 0);
        assert_int_equal(q->ops->start(q, NULL), 0);
}

static void device_end(struct device *d)
{
        inflight_detach(&d->queue);
        memory_unref(d->client.memory);
}

/* Takes one request more, as the @n-th; its head or buffer id, or -1. */
static int device_pop(struct device *d, unsigned n)
{
        struct vhost_req *req = &d->requests[n];
        int r;

        *req = (struct vhost_req){.queue = &d->queue, .memory = d->client.memory};
        r = d->queue.ops->pop(&d->queue, req, NULL);
        assert_true(r >= 0);
        return r > 0 ? req->head : -1;
}

static void device_has_done(struct device *d, unsigned n)
{
        list_append(&d->queue.done, &d->requests[n].link);
}

/* True: the driver is signalled. */
static bool device_give_back(struct device *d)
{
        bool signal = d->queue.ops->publish(&d->queue);

        list_init(&d->queue.done);
        return signal;
}

/* ---- the driver ---- */

struct driver {
        bool packed, event_idx;
        uint16_t avail, used;       /* split: indices; packed: places */
        bool avail_wrap, used_wrap; /* packed */
        int waits[SIZE];            /* for these, in the order in which they were made available */
        unsigned n_waits;
};

/* Packed chains are of one or two descriptors. */
static unsigned length_of(const struct driver *d, int id)
{
        return d->packed && id % 2 ? 2 : 1;
}

static void step(uint16_t *place, bool *wrap)
{
        if (++*place == SIZE) {
                *place = 0;
                *wrap = !*wrap;
        }
}

static void driver_add(struct driver *d, int id)
{
        d->waits[d->n_waits++] = id;
        if (!d->packed) {
                struct vring_avail *avail = (void *)(shared + DRIVER_AT);

                memset(shared + (size_t)id * sizeof(struct vring_desc), 0,
                       sizeof(struct vring_desc));
                avail->ring[d->avail++ % SIZE] = (uint16_t)id;
                avail->idx = d->avail;
                return;
        }
        for (unsigned left = length_of(d, id); left > 0; left--) {
                struct vring_packed_desc *desc = (struct vring_packed_desc *)shared + d->avail;

                *desc = (struct vring_packed_desc){.id = (uint16_t)id};
                desc->flags = (uint16_t)((d->avail_wrap ? DESC_AVAIL : DESC_USED) |
                                         (left > 1 ? VRING_DESC_F_NEXT : 0));
                step(&d->avail, &d->avail_wrap);
        }
}

/* The next request that is given back, or -1. */
static int driver_sees(const struct driver *d)
{
        if (d->packed) {
                const struct vring_packed_desc *desc = (struct vring_packed_desc *)shared + d->used;

                return !!(desc->flags & DESC_AVAIL) == d->used_wrap &&
                               !!(desc->flags & DESC_USED) == d->used_wrap
                           ? desc->id
                           : -1;
        }
        const struct vring_used *used = (void *)(shared + DEVICE_AT);

        return used->idx == d->used ? -1 : (int)used->ring[d->used % SIZE].id;
}

static void driver_takes_back(struct driver *d)
{
        for (int id; (id = driver_sees(d)) >= 0;) {
                unsigned at = 0;

                while (at < d->n_waits && d->waits[at] != id)
                        at++;
                assert_true(at < d->n_waits); /* it is one of those that are waited for */
                memmove(&d->waits[at], &d->waits[at + 1], (--d->n_waits - at) * sizeof(int));
                if (!d->packed)
                        d->used++;
                else
                        for (unsigned left = length_of(d, id); left > 0; left--)
                                step(&d->used, &d->used_wrap);
        }
}

static struct driver begin(bool packed, bool event_idx)
{
        memset(shared, 0, sizeof(shared));
        return (struct driver){
            .packed = packed, .event_idx = event_idx, .avail_wrap = true, .used_wrap = true};
}

/* ---- crashes ---- */

/* What one store more or less leaves. */
struct moments {
        const struct driver *driver;
        unsigned n, n_max;
        struct moment {
                uint8_t shared[SHARED_BYTES];
                struct driver driver;
        } * at;
};

static void keep_moment(void *arg)
{
        struct moments *all = arg;

        if (all->n > 0 && memcmp(all->at[all->n - 1].shared, shared, sizeof(shared)) == 0)
                return;
        if (all->n == all->n_max) {
                all->n_max = all->n_max ? 2 * all->n_max : 256;
                all->at = realloc(all->at, all->n_max * sizeof(*all->at));
                assert_non_null(all->at);
        }
        memcpy(all->at[all->n].shared, shared, sizeof(shared));
        all->at[all->n++].driver = *all->driver;
}

/* The next server takes what was not given back, each once and in the order in which it was made
 * available, and gives it back. @again: where it crashes, too, but for while it gives back. */
static void next_server_does_the_rest(const struct moment *m, struct moments *again)
{
        struct driver driver = m->driver;
        struct device d;
        unsigned n = 0;

        memcpy(shared, m->shared, sizeof(shared));
        driver_takes_back(&driver);
        if (again) {
                again->driver = &driver;
                stores_watch(shared, sizeof(shared), keep_moment, again);
        }
        device_start(&d, driver.packed, false);
        for (int id; (id = device_pop(&d, n)) >= 0; n++) {
                assert_true(n < driver.n_waits);
                assert_int_equal(id, driver.waits[n]);
        }
        stores_unwatch();
        assert_int_equal(n, driver.n_waits);
        for (unsigned i = n; i-- > 0;)
                device_has_done(&d, i);
        if (n > 0)
                device_give_back(&d);
        driver_takes_back(&driver);
        assert_int_equal(driver.n_waits, 0);
        device_end(&d);
}

/* Rounds of requests that overtake each other, some times around the ring. */
static void serve(struct driver *driver, struct device *d)
{
        int of_slot[SIZE];
        uint32_t random = 7;

        for (unsigned i = 0; i < SIZE; i++)
                of_slot[i] = -1;
        for (unsigned round = 0; round < 100; round++) {
                for (int id = 0; id < 4; id++) {
                        bool busy = false;

                        random = random * 1103515245u + 12345u;
                        for (unsigned i = 0; i < driver->n_waits; i++)
                                busy |= driver->waits[i] == id;
                        if (!busy && random >> 16 & 1)
                                driver_add(driver, id);
                }
                for (unsigned slot = 0; slot < SIZE; slot++)
                        if (of_slot[slot] < 0)
                                of_slot[slot] = device_pop(d, slot);
                for (unsigned slot = SIZE; slot-- > 0;) {
                        random = random * 1103515245u + 12345u;
                        if (of_slot[slot] >= 0 && random >> 16 & 1) {
                                device_has_done(d, slot);
                                of_slot[slot] = -1;
                        }
                }
                if (!list_empty(&d->queue.done))
                        device_give_back(d);
                driver_takes_back(driver);
        }
}

static void crash_after_every_store(bool packed)
{
        struct driver driver = begin(packed, false);
        struct moments once = {.driver = &driver}, twice = {.n = 0};
        struct device d;

        driver_add(&driver, 5);
        stores_watch(shared, sizeof(shared), keep_moment, &once);
        device_start(&d, packed, false);
        serve(&driver, &d);
        stores_unwatch();
        device_end(&d);
        assert_true(once.n > 500);
        for (unsigned i = 0; i < once.n; i++)
                next_server_does_the_rest(&once.at[i], &twice);
        for (unsigned i = 0; i < twice.n; i++)
                next_server_does_the_rest(&twice.at[i], NULL);
        print_message("%u states, %u in the recovery from them\n", once.n, twice.n);
        free(once.at);
        free(twice.at);
}

static void rule_7_after_every_store_a_split_ring_is_gone_on_with(void **state)
{
        crash_after_every_store(false);
}

static void rule_7_after_every_store_a_packed_ring_is_gone_on_with(void **state)
{
        crash_after_every_store(true);
}

/* ---- a region that lies ---- */

/* Chains that lead out of the region, in a circle, or into each other: what is in such a region is not
 * done, and it is begun anew. */
static void rule_7_a_packed_list_that_makes_no_sense_is_not_followed(void **state)
{
        for (unsigned kind = 0; kind < 5; kind++) {
                struct driver driver = begin(true, false);
                struct vhost_region_packed *region = (void *)(shared + REGION_AT);
                unsigned n_marked = 0;
                uint16_t first, second;
                struct device d;

                device_start(&d, true, false);
                driver_add(&driver, 1);
                driver_add(&driver, 3);
                assert_int_equal(device_pop(&d, 0), 1);
                assert_int_equal(device_pop(&d, 1), 3);
                first = d.requests[0].entry;
                second = d.requests[1].entry;
                device_end(&d);
                if (kind > 0)
                        region->desc[first].next =
                            (uint16_t[]){first, second, SIZE, SIZE + 1}[kind - 1];
                device_start(&d, true, false);
                assert_int_equal(d.queue.n_resubmit, kind > 0 ? 0 : 2);
                for (unsigned i = 0; i < SIZE; i++)
                        n_marked += region->desc[i].inflight;
                assert_int_equal(n_marked, kind > 0 ? 0 : 2);
                device_end(&d);
        }
}

/* ---- who sleeps ---- */

/* The driver acts between two accesses of the device's, or after the last. */
struct act {
        struct driver *driver;
        void (*act)(struct driver *driver, bool *ret_sleeps);
        unsigned at, n;
        bool done, sleeps;
};

static void act_in_turn(void *arg)
{
        struct act *a = arg;

        if (a->n++ == a->at && !a->done) {
                a->done = true;
                a->act(a->driver, &a->sleeps);
        }
}

/* Its wish first, its look second; its stores are out at once, as behind a fence. */
static void wish_and_look(struct driver *d, bool *ret_sleeps)
{
        struct vring_packed_desc_event *event = (void *)(shared + DRIVER_AT);
        struct vring_avail *avail = (void *)(shared + DRIVER_AT);

        if (d->packed && d->event_idx) {
                event->off_wrap = (uint16_t)(d->used | (d->used_wrap ? WRAP_BIT : 0));
                event->flags = VRING_PACKED_EVENT_FLAG_DESC;
        } else if (d->packed) {
                event->flags = VRING_PACKED_EVENT_FLAG_ENABLE;
        } else if (d->event_idx) {
                avail->ring[SIZE] = d->used;
        } else {
                avail->flags = 0;
        }
        *ret_sleeps = driver_sees(d) < 0;
}

static void wish_for_silence(const struct driver *d)
{
        struct vring_packed_desc_event *event = (void *)(shared + DRIVER_AT);
        struct vring_avail *avail = (void *)(shared + DRIVER_AT);

        if (d->packed)
                event->flags = VRING_PACKED_EVENT_FLAG_DISABLE;
        else if (d->event_idx)
                avail->ring[SIZE] = (uint16_t)(d->used - 1); /* it has been passed */
        else
                avail->flags = VRING_AVAIL_F_NO_INTERRUPT;
}

/* The request first, the look whether a kick is due second. */
static void add_and_look(struct driver *d, bool *ret_sleeps)
{
        const struct vring_packed_desc_event *event = (void *)(shared + DEVICE_AT);
        const struct vring_used *used = (void *)(shared + DEVICE_AT);
        uint16_t before = d->avail;
        bool kicks;

        driver_add(d, 2);
        if (d->packed && d->event_idx)
                kicks = event->flags == VRING_PACKED_EVENT_FLAG_DESC &&
                        event->off_wrap == (before | WRAP_BIT);
        else if (d->packed)
                kicks = event->flags == VRING_PACKED_EVENT_FLAG_ENABLE;
        else if (d->event_idx)
                kicks = vring_need_event(used->ring[SIZE].id & 0xffff, d->avail, before);
        else
                kicks = !(used->flags & VRING_USED_F_NO_NOTIFY);
        *ret_sleeps = !kicks; /* the request is left to a device that looks by itself */
}

/* A ring that has been in use: two requests were taken, and one is given back. */
static struct driver in_use(struct device *device, bool packed, bool event_idx)
{
        struct driver driver = begin(packed, event_idx);

        device_start(device, packed, event_idx);
        device->queue.ops->notify(&device->queue, true);
        driver_add(&driver, 0);
        driver_add(&driver, 4);
        assert_int_equal(device_pop(device, 0), 0);
        assert_int_equal(device_pop(device, 1), 4);
        device->queue.ops->notify(&device->queue, false);
        device_has_done(device, 0);
        device_give_back(device);
        driver_takes_back(&driver);
        return driver;
}

/* Either side sleeps only where the other side will wake it. */
static void wake_ups_are_not_lost(bool of_device)
{
        for (unsigned kind = 0; kind < 4; kind++) {
                struct act a = {.done = true};

                for (unsigned at = 0; a.done || at == 0; at++) {
                        struct device device;
                        struct driver driver = in_use(&device, kind & 1, kind & 2);
                        struct queue *q = &device.queue;
                        bool noticed;

                        wish_for_silence(&driver);
                        device_has_done(&device, 1);
                        a = (struct act){.driver = &driver,
                                         .act = of_device ? add_and_look : wish_and_look,
                                         .at = at};
                        stores_hold();
                        stores_watch(shared, sizeof(shared), act_in_turn, &a);
                        if (of_device) {
                                q->ops->notify(q, true);
                                noticed = q->ops->has_work(q);
                        } else {
                                noticed = device_give_back(&device);
                        }
                        stores_unwatch();
                        if (!a.done) /* before the last stores are out */
                                a.act(&driver, &a.sleeps);
                        stores_let_go();
                        assert_true(noticed || !a.sleeps);
                        device_end(&device);
                }
        }
}

static void a_driver_that_goes_to_sleep_sees_the_request_or_is_signalled(void **state)
{
        wake_ups_are_not_lost(false);
}

static void a_device_that_goes_to_sleep_sees_the_request_or_is_kicked(void **state)
{
        wake_ups_are_not_lost(true);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(rule_7_after_every_store_a_split_ring_is_gone_on_with),
            cmocka_unit_test(rule_7_after_every_store_a_packed_ring_is_gone_on_with),
            cmocka_unit_test(rule_7_a_packed_list_that_makes_no_sense_is_not_followed),
            cmocka_unit_test(a_driver_that_goes_to_sleep_sees_the_request_or_is_signalled),
            cmocka_unit_test(a_device_that_goes_to_sleep_sees_the_request_or_is_kicked),
        };

        return cmocka_run_group_tests_name("vhost_orders", tests, make_loop, drop_loop);
}
