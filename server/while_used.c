/* while_used.c - a server that was started for a virtual machine ends when nobody uses it any more:
 * also after everybody else was killed. */
#include "common/log.h"
#include "server/attach.h"
#include "server/serve_internal.h"

#define LOOK_NS UINT64_C(250000000)
/* Before the first client, between a client's commands and its first use, and after the last use. */
#define FIRST_CLIENT_WAIT_NS UINT64_C(30000000000)
#define FIRST_USE_WAIT_NS    UINT64_C(10000000000)
#define LAST_USE_WAIT_NS     UINT64_C(3000000000)

static bool has_export(const struct host_pool *hp)
{
        list_for_each (it, &hp->exports)
                if (container_of(it, struct host_export, link)->to_use)
                        return true;
        return false;
}

static bool co_is_used(struct server *s)
{
        bool used = false;

        s->looking_at_use = true;
        list_for_each (it, &s->host.pools) {
                struct host_pool *hp = container_of(it, struct host_pool, link);

                co_move(hp->loop);
                used = used || has_export(hp) || attach_is_used(hp);
                co_move(s->host.loop);
        }
        s->looking_at_use = false;
        return used;
}

static bool is_ending(const struct server *s)
{
        return s->stopping || s->given;
}

/* Who only looks does not keep the server: it does not end under him, and that is all. Who changes something
 * may be about to use it, as may be whoever came first. */
void co_server_watch_use(void *server)
{
        struct server *s = server;
        uint64_t since_ns = loop_now_ns(s->host.loop), wait_ns = FIRST_CLIENT_WAIT_NS,
                 n_changes = 0;

        while (!is_ending(s)) {
                uint64_t now_ns, n_changes_before = n_changes;

                co_sleep_ns(LOOK_NS);
                /* While pools go to another server or come back nobody looks at them. */
                if (is_ending(s) || s->taker_fd >= 0 || s->channel)
                        continue;
                now_ns = loop_now_ns(s->host.loop);
                n_changes = control_n_changes(s->control);
                if (co_is_used(s)) {
                        since_ns = now_ns;
                        wait_ns = LAST_USE_WAIT_NS;
                } else if (n_changes != n_changes_before ||
                           (wait_ns == FIRST_CLIENT_WAIT_NS && control_n_seen(s->control) > 0)) {
                        since_ns = now_ns;
                        if (wait_ns > FIRST_USE_WAIT_NS)
                                wait_ns = FIRST_USE_WAIT_NS;
                } else if (now_ns - since_ns >= wait_ns && control_n_clients(s->control) == 0) {
                        log_info("nobody uses the server any more: it ends");
                        s->stopping = true;
                }
        }
        s->watching_use = false;
        if (s->co)
                co_wake(s->co);
}
