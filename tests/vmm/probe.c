/* probe.c - a virtio device that does nothing but notice. */
#include "tests/vmm/probe.h"

#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "tests/fuzz/fuzz_loop.h"

static struct probe *of(struct virtio_device *v)
{
        return container_of(v, struct probe, v);
}

static uint64_t features(struct virtio_device *v)
{
        return PROBE_FEATURES;
}

static void read_config(struct virtio_device *v, uint32_t offset, void *data, uint32_t size)
{
        memset(data, 0, size);
        for (uint32_t i = 0; i < size && offset + i < 8; i++)
                ((uint8_t *)data)[i] = of(v)->config[offset + i];
}

static void write_config(struct virtio_device *v, uint32_t offset, const void *data, uint32_t size)
{
        for (uint32_t i = 0; i < size && offset + i < 8; i++)
                of(v)->config[offset + i] = ((const uint8_t *)data)[i];
}

static int start(struct virtio_device *v, struct error *err)
{
        if (of(v)->start_result < 0)
                return error_set(err, of(v)->start_result, "it does not want to");
        assert_false(v->started);
        of(v)->n_starts++;
        return 0;
}

static void stop(struct virtio_device *v)
{
        assert_true(v->started);
        of(v)->n_stops++;
}

static void kick(struct virtio_device *v, unsigned queue)
{
        assert_true(v->started);
        of(v)->kicks[queue]++;
}

static int probe_log(struct virtio_device *v, bool on, struct error *err)
{
        assert_true(v->started);
        if (on)
                of(v)->n_logs++;
        else
                of(v)->n_log_ends++;
        return on && of(v)->log_result < 0
                   ? error_set(err, of(v)->log_result, "it does not note what it writes")
                   : 0;
}

static void probe_reset(struct virtio_device *v)
{
        of(v)->n_resets++;
}

static void save(struct virtio_device *v, struct state_writer *w)
{
        state_put32(w, of(v)->own);
}

static int restore(struct virtio_device *v, struct state_reader *r, struct error *err)
{
        of(v)->own = state_get32(r);
        return 0;
}

static void probe_free(struct virtio_device *v)
{
        of(v)->n_frees++;
}

const struct virtio_ops probe_virtio_ops = {
    .type = PROBE_TYPE,
    .features = features,
    .read_config = read_config,
    .write_config = write_config,
    .start = start,
    .stop = stop,
    .kick = kick,
    .log = probe_log,
    .reset = probe_reset,
    .save = save,
    .restore = restore,
    .free = probe_free,
};

void probe_attach(struct probe_world *w, bool hotplugged)
{
        static const uint16_t sizes[PROBE_QUEUES] = {PROBE_QUEUE_SIZE, PROBE_QUEUE_SIZE,
                                                     PROBE_QUEUE_SIZE};
        const struct virtio_options options = {.boot_order = 1,
                                               .hotplugged = hotplugged,
                                               .queue_sizes = sizes,
                                               .n_queues = PROBE_QUEUES};
        struct error err = ERROR_INIT;

        w->probe = (struct probe){.v = {.ops = &probe_virtio_ops, .id = "probe0"}};
        for (unsigned i = 0; i < 8; i++)
                w->probe.config[i] = (uint8_t)(0xc0 + i);
        if (virtio_attach(&w->f->machine, &w->probe.v, &options, &err) < 0)
                fail_msg("%s", err.message);
}

struct probe_world *probe_world_new(bool placed)
{
        static struct loop *loop;
        struct probe_world *w = calloc(1, sizeof(*w));

        log_set_sink(NULL);
        assert_non_null(w);
        if (!loop)
                loop = fuzz_loop_new();
        w->f = fixture_new(MIB(32), loop);
        w->f->run_loop = fuzz_loop_settle;
        assert_int_equal(pci_create(&w->f->machine, NULL), 0);
        probe_attach(w, false);
        if (placed)
                w->d = guest_device(w->f, 1);
        else
                w->d = (struct guest_device){w->f, 1, GUEST_BAR, GUEST_BAR + 0x8000};
        return w;
}

void probe_world_free(struct probe_world *w)
{
        fixture_free(w->f);
        assert_int_equal(w->probe.n_frees, 1);
        free(w);
}

int probe_setup(void **state)
{
        *state = probe_world_new(true);
        return 0;
}

int probe_teardown(void **state)
{
        probe_world_free(*state);
        return 0;
}

struct guest_ring probe_bring_up(struct probe_world *w)
{
        struct guest_ring first;

        guest_begin(&w->d, UINT64_MAX);
        first = guest_ring(&w->d, 0, 16, PROBE_RING);
        guest_ring(&w->d, 1, 16, PROBE_RING + 0x4000);
        guest_ring(&w->d, 2, 16, PROBE_RING + 0x8000);
        guest_ready(&w->d);
        return first;
}

void probe_forget_kicks(struct probe_world *w)
{
        fixture_run(w->f);
        memset(w->probe.kicks, 0, sizeof(w->probe.kicks));
}
