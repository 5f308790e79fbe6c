/* host.c - pools open in this process: opening, closing, who uses a volume. */
#include "server/host.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/coroutine.h"
#include "common/log.h"
#include "server/attach.h"
#include "server/connector.h"
#include "server/events.h"
#include "server/image_base.h"
#include "server/members.h"

#define LEAVERS_WAIT_MS 1000u

void host_init(struct host *host, struct loop *loop)
{
        *host = (struct host){.loop = loop};
        list_init(&host->pools);
        list_init(&host->subscribers);
        list_init(&host->image_files);
        host->vhost_group = (gid_t)-1;
        host->connector_fd = CONNECTOR_NONE;
}

int host_find(struct host *host, const char *pool_name, struct host_pool **ret_pool,
              struct error *err)
{
        list_for_each (it, &host->pools) {
                struct host_pool *hp = container_of(it, struct host_pool, link);

                if (strcmp(hp->name, pool_name) == 0) {
                        *ret_pool = hp;
                        return 0;
                }
        }
        return error_set(err, -ENOENT, "pool '%s' is not open here", pool_name);
}

/* ---- open and close ---- */

static bool same_places(const struct pool_state *a, const struct pool_state *b)
{
        if (a->n_members != b->n_members)
                return false;
        for (size_t i = 0; i < a->n_members; i++)
                if (memcmp(a->members[i].uuid, b->members[i].uuid, 16) != 0 ||
                    strcmp(a->members[i].path, b->members[i].path) != 0)
                        return false;
        return true;
}

void host_pool_save(struct host_pool *hp)
{
        struct error e = ERROR_INIT;
        struct pool_state *known = NULL, *now = NULL;
        struct pool_info info;
        int lock, r = 0;

        lock = state_lock(&e);
        if (lock < 0)
                goto out;
        /* A pool that was opened by a path and never imported has no file, and gets none. */
        if (state_load(hp->name, &known, NULL) < 0 || memcmp(known->uuid, hp->uuid, 16) != 0)
                goto out;
        now = state_new(known->name, known->uuid);
        if (!now)
                r = -ENOMEM;
        pool_get_info(hp->pool, &info);
        for (size_t i = 0; r == 0 && i < info.n_members; i++) {
                struct pool_member_info m;

                pool_get_member_info(hp->pool, i, &m);
                r = state_set_member(now, m.path, m.uuid);
        }
        for (size_t i = 0; r == 0 && i < known->n_attachments; i++)
                r = state_set_attachment(now, &known->attachments[i]);
        if (r == 0 && known->server_control)
                r = state_set_server(now, known->server_control, known->server_pid,
                                     known->server_nbd, known->n_server_nbd);
        if (r == 0)
                now->server_while_used = known->server_while_used;
        if (r < 0)
                error_set(&e, r, "out of memory");
        else if (!same_places(known, now))
                r = state_save(now, &e);
        if (r == 0) {
                struct pool_state *old = hp->state;

                hp->state = now;
                now = old;
        }
out:
        if (e.code < 0)
                log_warning("the places of pool '%s' are not written down: %s", hp->name,
                            e.message);
        state_free(known);
        state_free(now);
        state_unlock(lock);
}

/* "cannot open pool 'tank': ..." also where the engine's sentence begins with the pool. */
static int cannot_open(const char *name, struct error *err)
{
        char pool[POOL_NAME_MAX + 16];
        size_t length = (size_t)snprintf(pool, sizeof(pool), "pool '%s': ", name);

        if (err && strncmp(err->message, pool, length) == 0)
                memmove(err->message, err->message + length, strlen(err->message + length) + 1);
        return error_prefix(err, "cannot open pool '%s'", name);
}

static struct host_pool *host_pool_new(struct host *host, struct loop *loop,
                                       const struct pool_state *state)
{
        struct host_pool *hp = calloc(1, sizeof(*hp));

        if (!hp)
                return NULL;
        hp->host = host;
        hp->loop = loop;
        snprintf(hp->name, sizeof(hp->name), "%s", state->name);
        memcpy(hp->uuid, state->uuid, sizeof(hp->uuid));
        list_init(&hp->exports);
        list_init(&hp->attachments);
        list_init(&hp->bars);
        list_init(&hp->openings);
        list_init(&hp->imports);
        list_init(&hp->image_bases);
        co_mutex_init(&hp->bases_lock);
        co_queue_init(&hp->opened);
        return hp;
}

/* On the pool's loop; takes over @members, where it succeeds. */
static int co_open_here(struct host_pool *hp, struct pool_state **state,
                        const struct pool_options *options, struct member **members, size_t n,
                        struct error *err)
{
        int r = co_pool_open(hp->loop, members, n, options, &hp->pool, err);
        if (r < 0) {
                members_close(members, n);
                return r;
        }
        free(members);
        hp->state = *state;
        *state = NULL;
        events_observe(hp);
        host_pool_save(hp);
        co_image_bases_open(hp);
        return 0;
}

/* The last step of opening, on the host's loop. @state is NULL after success. */
static int opened(struct host_pool *hp, const struct pool_state *state, int r,
                  struct host_pool **ret_pool, struct error *err)
{
        if (r < 0) {
                free(hp);
                return cannot_open(state->name, err);
        }
        list_append(&hp->host->pools, &hp->link);
        hp->host->n_pools++;
        *ret_pool = hp;
        return 0;
}

int co_host_open(struct host *host, struct loop *loop, struct pool_state **state,
                 const struct pool_options *options, unsigned wait_ms, const atomic_bool *cancelled,
                 struct host_pool **ret_pool, struct error *err)
{
        struct host_pool *hp = host_pool_new(host, loop, *state);
        struct member **members = NULL;
        size_t n = 0;
        int r;

        if (!hp)
                return error_set(err, -ENOMEM, "out of memory");
        co_move(loop);
        r = co_members_open(loop, *state, wait_ms, cancelled, &members, &n, err);
        if (r == 0)
                r = co_open_here(hp, state, options, members, n, err);
        co_move(host->loop);
        return opened(hp, *state, r, ret_pool, err);
}

int co_host_take(struct host *host, struct loop *loop, struct pool_state **state,
                 const struct pool_options *options, const struct host_members *members,
                 struct host_pool **ret_pool, struct error *err)
{
        struct host_pool *hp = host_pool_new(host, loop, *state);
        struct member **taken = NULL;
        int r;

        if (!hp) {
                for (size_t i = 0; i < members->n; i++)
                        close(members->fds[i]);
                return error_set(err, -ENOMEM, "out of memory");
        }
        co_move(loop);
        r = co_members_take(loop, *state, members->fds, members->paths, members->n, &taken, err);
        if (r == 0)
                r = co_open_here(hp, state, options, taken, members->n, err);
        co_move(host->loop);
        return opened(hp, *state, r, ret_pool, err);
}

int co_host_close(struct host_pool *hp, struct error *err)
{
        struct loop *from;
        int r;

        list_remove(&hp->link);
        hp->host->n_pools--;
        from = co_move(hp->loop);
        co_image_bases_close(hp);
        r = co_pool_close(hp->pool, err);
        co_move(from);
        if (r < 0)
                error_prefix(err, "closing pool '%s'", hp->name);
        state_free(hp->state);
        free(hp);
        return r;
}

int co_host_close_all(struct host *host, struct error *err)
{
        int result = 0;

        while (!list_empty(&host->pools)) {
                struct error e = ERROR_INIT;
                int r = co_host_close(container_of(host->pools.next, struct host_pool, link), &e);

                if (r < 0 && result == 0) {
                        result = r;
                        if (err)
                                *err = e;
                }
        }
        return result;
}

/* ---- in use ---- */

void co_host_renamed(struct host_pool *hp, const char *old_name, const char *new_name)
{
        char old_full[FULL_NAME_MAX], new_full[FULL_NAME_MAX];
        struct host *host = hp->host;

        if (!host->nbd)
                return;
        snprintf(old_full, sizeof(old_full), "%s/%s", hp->name, old_name);
        snprintf(new_full, sizeof(new_full), "%s/%s", hp->name, new_name);
        co_move(host->loop);
        nbd_server_rename_exports(host->nbd, old_full, new_full);
        co_move(hp->loop);
}

static bool writes_to(const struct host_export *e, const char *volume)
{
        return e->to_use && !e->readonly && strcmp(volume_name(e->volume), volume) == 0;
}

static unsigned name_users(struct host_pool *hp, const char *volume, bool writers, char *text,
                           size_t size)
{
        unsigned n = 0;

        text[0] = '\0';
        list_for_each (it, &hp->exports) {
                const struct host_export *e = container_of(it, struct host_export, link);
                size_t used = strlen(text);

                if (!writes_to(e, volume))
                        continue;
                if (used < size)
                        snprintf(text + used, size - used, "%sNBD client %s", used ? ", " : "",
                                 e->peer);
                n++;
        }
        return n + attach_users(hp, volume, writers, text, size);
}

unsigned host_users(struct host_pool *hp, const char *volume, char *text, size_t size)
{
        return name_users(hp, volume, false, text, size);
}

unsigned host_writers(struct host_pool *hp, const char *volume, char *text, size_t size)
{
        return name_users(hp, volume, true, text, size);
}

/* Whoever has it open, for reading, too. Nobody else comes: the volume is barred. */
static void co_disconnect(struct host_pool *hp, const char *volume)
{
        char name[FULL_NAME_MAX];
        struct host *host = hp->host;

        snprintf(name, sizeof(name), "%s/%s", hp->name, volume);
        co_move(host->loop);
        co_nbd_server_disconnect(host->nbd, name);
        co_move(hp->loop);
        co_attach_disconnect(hp, volume);
}

static bool is_left(struct host_pool *hp, const char *volume)
{
        list_for_each (it, &hp->exports) {
                const struct host_export *e = container_of(it, struct host_export, link);

                if (e->to_use && host_name_is_of(volume_name(e->volume), volume) &&
                    nbd_client_has_left(e->client))
                        return true;
        }
        return attach_is_left(hp, volume);
}

void co_host_await_leavers(struct host_pool *hp, const char *target)
{
        char volume[POOL_NAME_MAX + 1];

        snprintf(volume, sizeof(volume), "%.*s", (int)strcspn(target, "@"), target);
        for (unsigned ms = 0; ms < LEAVERS_WAIT_MS && is_left(hp, volume); ms++)
                co_sleep_ns(1000000);
}

bool host_name_is_of(const char *name, const char *volume)
{
        size_t length = strcspn(name, "@");

        return strlen(volume) == length && memcmp(volume, name, length) == 0;
}

static bool is_being_opened(const struct host_pool *hp, const char *volume)
{
        list_for_each (it, &hp->openings) {
                const struct host_opening *o = container_of(it, struct host_opening, link);

                if (host_name_is_of(o->target, volume))
                        return true;
        }
        list_for_each (it, &hp->exports) {
                const struct host_export *e = container_of(it, struct host_export, link);

                if (!e->to_use && host_name_is_of(volume_name(e->volume), volume))
                        return true;
        }
        return false;
}

int host_refuse_used(const struct host_pool *hp, const char *verb, const char *target, unsigned n,
                     const char *users, struct error *err)
{
        if (n == 0)
                return 0;
        error_set(err, -EBUSY, "cannot %s '%s/%s': it is in use by %s", verb, hp->name, target,
                  users);
        return error_hint(err, "disconnect %s, or give --force, which cuts %s off",
                          n == 1 ? "it" : "them", n == 1 ? "it" : "them");
}

bool host_is_barred(const struct host_pool *hp, const char *name)
{
        list_for_each (it, &hp->bars) {
                const struct host_bar *bar = container_of(it, struct host_bar, link);

                if (host_name_is_of(name, bar->volume))
                        return true;
        }
        return false;
}

int co_host_bar(struct host_bar *bar, struct host_pool *hp, const char *volume, const char *verb,
                bool force, struct error *err)
{
        char users[256];
        unsigned n;

        if (host_is_barred(hp, volume))
                return error_set(err, -EBUSY, "cannot %s '%s/%s': it is being changed, or exported",
                                 verb, hp->name, volume);
        *bar = (struct host_bar){.volume = volume};
        list_append(&hp->bars, &bar->link);
        /* Who is about to open it holds it already, finds the bar then, and lets go; so does who only
         * asks about it. */
        while (is_being_opened(hp, volume))
                co_wait(&hp->opened);
        if (!force)
                co_host_await_leavers(hp, volume);
        n = host_users(hp, volume, users, sizeof(users));
        if (n > 0 && !force) {
                host_unbar(bar);
                return host_refuse_used(hp, verb, volume, n, users, err);
        }
        if (n > 0)
                co_disconnect(hp, volume);
        return 0;
}

void host_unbar(struct host_bar *bar)
{
        list_remove(&bar->link);
}
