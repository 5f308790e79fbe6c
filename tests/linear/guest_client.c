/* guest_client.c - a client over vhost-user, as a virtual machine is one: its requests outlive the server, and are
 * submitted anew to the next. Now and then it is another machine that begins with nothing in flight. */
#include <errno.h>
#include <linux/virtio_blk.h>
#include <stdio.h>
#include <stdlib.h>
#include "tests/linear/client.h"
#include "tests/vhost/disk.h"

#define DEPTH        4u /* of a queue */
#define MEMORY_BYTES (UINT64_C(64) << 20)
#define MEMORY_LEFT                                                                                \
        (UINT64_C(1) << 20) /* of its first half, which is enough for all that is in flight */

struct guest_request {
        struct disk_flight flight;
        struct disk_op op;
        struct client_request request;
        struct virtio_blk_discard_write_zeroes range;
        bool in_flight;
};

struct guest_client {
        struct client *client;
        char path[256];
        struct disk *disk;
        uint64_t mark;                  /* memory taken by what is not requests */
        struct guest_request *requests; /* DEPTH a queue */
        unsigned n_in_flight;
        bool rests; /* until nothing is in flight, as memory is used up */
};

static unsigned n_requests(const struct guest_client *g)
{
        return DEPTH * g->client->n_queues;
}

/* ---- requests ---- */

static void shape(struct guest_client *g, struct disk_shape *s)
{
        struct client *c = g->client;

        *s = (struct disk_shape){.indirect = disk_has(g->disk, VF_INDIRECT) && client_random(c, 2)};
        if (client_random(c, 4) == 0)
                s->segments = 1 + client_random(c, 4);
}

static int submit(struct guest_client *g, unsigned queue, struct guest_request *q)
{
        static const uint32_t types[] = {VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
                                         VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_T_DISCARD,
                                         VIRTIO_BLK_T_FLUSH};
        struct client_request *r = &q->request;
        uint64_t sector = client_offset(r) / DISK_SECTOR;

        q->op = (struct disk_op){.type = types[r->action]};
        switch (r->action) {
        case CLIENT_READ:
        case CLIENT_WRITE:
                q->op.sector = sector;
                q->op.data = r->data;
                q->op.n_bytes = client_length(r);
                shape(g, &q->op.shape);
                break;
        case CLIENT_ZERO:
        case CLIENT_DISCARD:
                q->range = (struct virtio_blk_discard_write_zeroes){
                    .sector = sector, .num_sectors = client_length(r) / DISK_SECTOR};
                q->op.data = &q->range;
                q->op.n_bytes = sizeof(q->range);
                break;
        case CLIENT_FLUSH:
                break;
        }
        int result = client_begin(g->client, r);
        if (result == 0)
                result = disk_add(g->disk, queue, &q->op, &q->flight, &g->client->err);
        if (result < 0)
                return result;
        q->in_flight = true;
        g->n_in_flight++;
        return 0;
}

static int fill(struct guest_client *g)
{
        struct client *c = g->client;
        int r = 0;

        if (g->rests && g->n_in_flight == 0) {
                disk_release(g->disk, g->mark);
                g->rests = false;
        }
        for (unsigned i = 0; r == 0 && i < n_requests(g); i++) {
                if (disk_mark(g->disk) > MEMORY_BYTES / 2 - MEMORY_LEFT)
                        g->rests = true;
                if (g->requests[i].in_flight || g->rests || world_stopping(c->world) ||
                    world_mood(c->world) != WORLD_ALL)
                        continue;
                client_draw(c, &g->requests[i].request);
                r = submit(g, i / DEPTH, &g->requests[i]);
                ring_publish(&g->disk->rings[i / DEPTH]);
                client_pace(c);
        }
        return r;
}

/* Whatever was answered: how many, or -errno. */
static int take_all(struct guest_client *g)
{
        struct client *c = g->client;
        uint32_t n_bytes;
        void *cookie;
        int r = 0, n = 0;

        for (unsigned queue = 0; queue < c->n_queues; queue++)
                while ((r = ring_take(&g->disk->rings[queue], &cookie, &n_bytes, &c->err)) > 0) {
                        struct guest_request *q = cookie;

                        disk_finish(g->disk, &q->flight, n_bytes);
                        if (q->op.status != VIRTIO_BLK_S_OK)
                                return error_set(&c->err, -EIO,
                                                 "a request of type %u has status %u", q->op.type,
                                                 q->op.status);
                        client_end(c, &q->request);
                        q->in_flight = false;
                        g->n_in_flight--;
                        n++;
                }
        return r < 0 ? r : n;
}

/* ---- connections ---- */

static int open_disk(struct guest_client *g)
{
        struct client *c = g->client;
        const struct disk_options options = {.path = g->path,
                                             .packed = c->packed,
                                             .n_queues = c->n_queues,
                                             .memory_bytes = MEMORY_BYTES,
                                             .without_protocol = VP_BACKEND_REQ};
        uint64_t end_ns = world_clock_ns() + WORLD_PATIENCE_MS * UINT64_C(1000000);
        int r;

        for (;;) {
                c->life = world_enter(c->world);
                r = disk_open(&options, &g->disk, &c->err);
                world_leave(c->world);
                if (r == 0 || world_clock_ns() > end_ns)
                        break;
                world_sleep_ms(10);
        }
        if (r < 0)
                return r;
        c->n_connections++;
        g->mark = disk_mark(g->disk);
        g->rests = false;
        return disk_has(g->disk, VF_BLK_FLUSH | VF_BLK_DISCARD | VF_BLK_WRITE_ZEROES) &&
                       (g->disk->front->protocol & VP_INFLIGHT_SHMFD)
                   ? 0
                   : error_set(&c->err, -ENOTSUP, "the device lacks what is needed");
}

/* The server is gone; it answers nothing more, and what it has answered is taken first. Each one that was tried may have
 * begun with what is in flight. */
static int go_on(struct guest_client *g)
{
        struct client *c = g->client;
        uint64_t end_ns = world_clock_ns() + WORLD_PATIENCE_MS * UINT64_C(1000000);
        int r = take_all(g);

        while (r >= 0) {
                c->life = world_enter(c->world);
                for (unsigned i = 0; i < n_requests(g); i++)
                        if (g->requests[i].in_flight)
                                client_carry(c, &g->requests[i].request, c->life);
                r = disk_reconnect(g->disk, 0, &c->err);
                world_leave(c->world);
                if (r == 0 || world_clock_ns() > end_ns)
                        break;
                r = take_all(g);
                world_sleep_ms(10);
        }
        c->n_connections++;
        return r < 0 ? r : 0;
}

static int hang_up(struct guest_client *g)
{
        g->client->n_hung_up++;
        disk_close(g->disk);
        g->disk = NULL;
        for (unsigned i = 0; i < n_requests(g); i++)
                g->requests[i].in_flight = false;
        g->n_in_flight = 0;
        return open_disk(g);
}

static int turn(struct guest_client *g)
{
        bool is_lost = false;
        int r = fill(g);

        if (r == 0 && g->n_in_flight > 0)
                r = take_all(g);
        if (r == 0 && g->n_in_flight == 0 && world_mood(g->client->world) != WORLD_ALL)
                world_sleep_ms(5);
        if (r == 0 && g->n_in_flight > 0)
                r = disk_wait(g->disk, WORLD_PATIENCE_MS, &is_lost, &g->client->err);
        if (r >= 0 && is_lost)
                r = go_on(g);
        else if (r >= 0 && client_hangs_up(g->client))
                r = hang_up(g);
        return r < 0 ? r : 0;
}

void *guest_client_main(void *client)
{
        struct client *c = client;
        struct guest_client g = {.client = c};

        snprintf(g.path, sizeof(g.path), "%s/vhost/%s.sock", c->world->folder, c->volume_name);
        g.requests = calloc(n_requests(&g), sizeof(*g.requests));
        c->result =
            g.requests ? open_disk(&g) : error_set(&c->err, -ENOMEM, "out of memory for a guest");
        while (c->result == 0 && !(world_stopping(c->world) && g.n_in_flight == 0))
                c->result = turn(&g);
        disk_close(g.disk);
        free(g.requests);
        return NULL;
}
