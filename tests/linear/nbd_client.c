/* nbd_client.c - a client over NBD: a connection that is made again when it ends. What was in flight then is never
 * answered. */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>
#include "tests/bench/conn.h"
#include "tests/bench/link.h"
#include "tests/bench/nbd_wire.h"
#include "tests/linear/client.h"

#define DEPTH 4u
#define NEEDED                                                                                     \
        (NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_CAN_MULTI_CONN)

struct nbd_client {
        struct client *client;
        struct link_target target;
        struct link link;
        struct conn *conn;
        struct client_request requests[DEPTH]; /* conn_index() is theirs, too */
};

static void on_done(void *arg, struct request *r)
{
        struct nbd_client *n = arg;

        client_end(n->client, &n->requests[conn_index(n->conn, r)]);
}

/* Until there is a server again. */
static int connect_anew(struct nbd_client *n)
{
        struct client *c = n->client;
        uint64_t end_ns = world_clock_ns() + WORLD_PATIENCE_MS * UINT64_C(1000000);

        for (;;) {
                c->life = world_enter(c->world);
                int r = link_open(&n->target, true, &n->link, &c->err);
                world_leave(c->world);
                if (r == 0)
                        break;
                if (world_clock_ns() > end_ns)
                        return r;
                world_sleep_ms(10);
        }
        c->n_connections++;
        int r = conn_new(&n->link, DEPTH, on_done, n, &n->conn, &c->err);
        if (r == 0 && (n->link.flags & NEEDED) != NEEDED)
                r = error_set(&c->err, -ENOTSUP, "the export lacks what is needed: flags %#x",
                              n->link.flags);
        return r;
}

/* Politely, or as one that is killed: with requests in flight. */
static void disconnect(struct nbd_client *n, bool politely)
{
        conn_free(n->conn);
        n->conn = NULL;
        if (politely)
                link_close(&n->link);
        else if (n->link.fd >= 0)
                close(n->link.fd);
        n->link.fd = -1;
}

static int submit(struct nbd_client *n, struct request *r)
{
        static const uint16_t commands[] = {NBD_CMD_READ, NBD_CMD_WRITE, NBD_CMD_WRITE_ZEROES,
                                            NBD_CMD_TRIM, NBD_CMD_FLUSH};
        struct client_request *q = &n->requests[conn_index(n->conn, r)];
        bool is_change = q->action != CLIENT_READ && q->action != CLIENT_FLUSH;
        int result = client_begin(n->client, q);

        if (result < 0)
                return result;
        r->command = commands[q->action];
        r->flags = is_change && q->fua ? NBD_CMD_FLAG_FUA : 0;
        if (q->action != CLIENT_FLUSH) {
                r->offset = client_offset(q);
                r->length = client_length(q);
        }
        r->payload = q->data;
        r->data = q->action == CLIENT_READ ? q->data : NULL;
        conn_queue(n->conn, r);
        return 0;
}

/* 0: something may have come. What the two calls of conn.h fail with, the end of the connection among it. */
static int exchange(struct nbd_client *n)
{
        struct client *c = n->client;
        int r = conn_send(n->conn, &c->err);

        if (r < 0)
                return r;
        struct pollfd fd = {.fd = conn_fd(n->conn), .events = POLLIN};
        if (conn_wants_send(n->conn))
                fd.events |= POLLOUT;
        if (poll(&fd, 1, WORLD_PATIENCE_MS) == 0)
                return error_set(&c->err, -ETIMEDOUT, "the server does not answer");
        return fd.revents & ~POLLOUT ? conn_receive(n->conn, false, &c->err) : 0;
}

static bool is_lost(int result)
{
        return result == -ECONNRESET || result == -EPIPE;
}

/* 0: the connection has ended, and another may follow. */
static int use_connection(struct nbd_client *n)
{
        struct client *c = n->client;
        struct request *r;
        int result = 0;

        while (result == 0) {
                while (result == 0 && !world_stopping(c->world) && (r = conn_begin(n->conn))) {
                        client_draw(c, &n->requests[conn_index(n->conn, r)]);
                        result = submit(n, r);
                        client_pace(c);
                }
                if (conn_in_flight(n->conn) == 0)
                        return result; /* it stops */
                if (result == 0)
                        result = exchange(n);
                if (result == 0 && client_hangs_up(c)) {
                        c->n_hung_up++;
                        return 0;
                }
        }
        return is_lost(result) ? 0 : result;
}

static int start(struct nbd_client *n, struct client *c)
{
        n->client = c;
        n->link.fd = -1;
        snprintf(n->target.socket_path, sizeof(n->target.socket_path), "%s/nbd.sock",
                 c->world->folder);
        snprintf(n->target.export_name, sizeof(n->target.export_name), "%s/%s", c->world->pool,
                 c->volume_name);
        return connect_anew(n);
}

void *nbd_client_main(void *client)
{
        struct client *c = client;
        struct nbd_client n = {0};

        c->result = start(&n, c);
        while (c->result == 0) {
                c->result = use_connection(&n);
                if (c->result < 0 || world_stopping(c->world))
                        break;
                disconnect(&n, client_random(c, 2));
                c->result = connect_anew(&n);
        }
        disconnect(&n, true);
        return NULL;
}

int nbd_client_read_all(struct client *c)
{
        struct nbd_client n = {0};
        int result = start(&n, c);

        for (unsigned unit = 0; result == 0 && unit < CLIENT_UNITS; unit++) {
                struct request *r = conn_begin(n.conn);

                n.requests[conn_index(n.conn, r)] =
                    (struct client_request){.action = CLIENT_READ, .unit = unit, .n_units = 1};
                result = submit(&n, r);
                while (result == 0 && conn_in_flight(n.conn) > 0)
                        result = exchange(&n);
        }
        disconnect(&n, true);
        return result;
}
