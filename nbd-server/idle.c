/* idle.c - connections with nothing in flight for too long are ended, where the embedder asks for
 * that (idle_timeout_ms).
 *
 * A timer looks LOOKS times in that time whether anything was moved over the socket, or is under
 * way. So requests pay nothing for it, and a connection is ended at most a part of LOOKS later than
 * it might. */
#include "nbd-server/internal.h"

#define LOOKS 8u

static void look_again(struct nbd_client *client)
{
        struct loop *loop = client->worker->loop;
        uint64_t timeout_ns = client->server->options.idle_timeout_ms * UINT64_C(1000000);

        loop_timer_set(loop, &client->idle, loop_now_ns(loop) + timeout_ns / LOOKS);
}

static void look(struct loop_timer *timer)
{
        struct nbd_client *client = container_of(timer, struct nbd_client, idle);
        bool idle = client->moved_bytes == client->idle_moved_bytes && client->n_requests == 0 &&
                    client->skip_bytes == 0;

        if (client->state != CLIENT_RUNNING)
                return;
        client->idle_moved_bytes = client->moved_bytes;
        client->idle_looks = idle ? client->idle_looks + 1 : 0;
        if (client->idle_looks >= LOOKS)
                client_cut(client, "it asked for nothing for too long");
        else
                look_again(client);
}

void idle_start(struct nbd_client *client)
{
        list_init(&client->idle.link);
        client->idle.fire = look;
        if (client->server->options.idle_timeout_ms > 0)
                look_again(client);
}

void idle_stop(struct nbd_client *client)
{
        loop_timer_cancel(client->worker->loop, &client->idle);
}
