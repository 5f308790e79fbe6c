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
#include "server/members.h"

void host_init(struct host *host, struct loop *loop)
{
        *host = (struct host){.loop = loop};
        list_init(&host->pools);
        list_init(&host->exports);
        list_init(&host->bars);
        list_init(&host->openings);
        list_init(&host->attachments);
        host->vhost_group = (gid_t)-1;
        co_queue_init(&host->opened);
}

int host_find(struct host *host, const char *pool_name, struct host_pool **ret_pool,
              struct error *err)
{
        list_for_each (it, &host->pools) {
                struct host_pool *hp = container_of(it, struct host_pool, link);

                if (strcmp(hp->state->name, pool_name) == 0) {
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
        if (state_load(hp->state->name, &known, NULL) < 0 ||
            memcmp(known->uuid, hp->state->uuid, 16) != 0)
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
                log_warning("the places of pool '%s' are not written down: %s", hp->state->name,
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

int co_host_open(struct host *host, struct pool_state **state, const struct pool_options *options,
                 unsigned wait_ms, const bool *cancelled, struct host_pool **ret_pool,
                 struct error *err)
{
        struct host_pool *hp = calloc(1, sizeof(*hp));
        struct member **members = NULL;
        size_t n = 0;
        int r;

        if (!hp)
                return error_set(err, -ENOMEM, "out of memory");
        r = co_members_open(host->loop, *state, wait_ms, cancelled, &members, &n, err);
        if (r == 0) {
                r = co_pool_open(host->loop, members, n, options, &hp->pool, err);
                if (r < 0)
                        members_close(members, n);
                else
                        free(members);
        }
        if (r < 0) {
                free(hp);
                return cannot_open((*state)->name, err);
        }
        hp->host = host;
        hp->state = *state;
        *state = NULL;
        list_append(&host->pools, &hp->link);
        host_pool_save(hp);
        *ret_pool = hp;
        return 0;
}

int co_host_close(struct host_pool *hp, struct error *err)
{
        int r;

        list_remove(&hp->link);
        r = co_pool_close(hp->pool, err);
        if (r < 0)
                error_prefix(err, "closing pool '%s'", hp->state->name);
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

void host_exports_rename(struct host_pool *hp)
{
        list_for_each (it, &hp->host->exports) {
                struct host_export *e = container_of(it, struct host_export, link);

                if (e->pool != hp)
                        continue;
                snprintf(e->name, sizeof(e->name), "%s/%s", hp->state->name,
                         volume_name(e->volume));
                nbd_client_rename_export(e->client, e->name);
        }
}

static bool writes_to(const struct host_export *e, const struct host_pool *hp, const char *volume)
{
        return e->pool == hp && !e->readonly && strcmp(volume_name(e->volume), volume) == 0;
}

struct user_search {
        const char *export_name;
        char *text;
        size_t size;
        unsigned n;
};

static void add_user(const struct nbd_client_info *info, void *arg)
{
        struct user_search *s = arg;
        size_t used = strlen(s->text);

        if (!info->export_name || strcmp(info->export_name, s->export_name) != 0)
                return;
        if (used < s->size)
                snprintf(s->text + used, s->size - used, "%sNBD client %s", used ? ", " : "",
                         info->peer);
        s->n++;
}

unsigned host_users(struct host_pool *hp, const char *volume, char *text, size_t size)
{
        struct user_search s = {.text = text, .size = size};

        text[0] = '\0';
        list_for_each (it, &hp->host->exports) {
                struct host_export *e = container_of(it, struct host_export, link);
                bool counted = false;

                if (!writes_to(e, hp, volume))
                        continue;
                /* Clients of one export are found together; it may be open several times. */
                for (struct list *before = hp->host->exports.next; before != it;
                     before = before->next) {
                        struct host_export *b = container_of(before, struct host_export, link);

                        if (writes_to(b, hp, volume) && strcmp(b->name, e->name) == 0)
                                counted = true;
                }
                if (counted)
                        continue;
                s.export_name = e->name;
                if (hp->host->nbd)
                        nbd_server_each_client(hp->host->nbd, add_user, &s);
        }
        return s.n + attach_users(hp, volume, text, size);
}

static void co_disconnect(struct host_pool *hp, const char *volume)
{
        bool again = true;

        while (again) {
                again = false;
                list_for_each (it, &hp->host->exports) {
                        struct host_export *e = container_of(it, struct host_export, link);
                        char name[sizeof(e->name)];

                        if (e->pool != hp || strcmp(volume_name(e->volume), volume) != 0)
                                continue;
                        memcpy(name, e->name, sizeof(name));
                        /* The list changes meanwhile: look again from its beginning. */
                        co_nbd_server_disconnect(hp->host->nbd, name);
                        again = true;
                        break;
                }
        }
        co_attach_disconnect(hp, volume);
}

bool host_name_is_of(const char *name, const char *volume)
{
        size_t length = strcspn(name, "@");

        return strlen(volume) == length && memcmp(volume, name, length) == 0;
}

static bool is_being_opened(const struct host_pool *hp, const char *volume)
{
        list_for_each (it, &hp->host->openings) {
                const struct host_opening *o = container_of(it, struct host_opening, link);

                if (o->pool == hp && host_name_is_of(o->target, volume))
                        return true;
        }
        return false;
}

int co_host_bar(struct host_bar *bar, struct host_pool *hp, const char *volume, const char *verb,
                bool force, struct error *err)
{
        char users[256];
        unsigned n;

        *bar = (struct host_bar){.pool = hp, .volume = volume};
        list_append(&hp->host->bars, &bar->link);
        /* Who is about to open it holds it already, finds the bar then, and lets go. */
        while (is_being_opened(hp, volume))
                co_wait(&hp->host->opened);
        n = host_users(hp, volume, users, sizeof(users));
        if (n > 0 && !force) {
                host_unbar(bar);
                error_set(err, -EBUSY, "cannot %s '%s/%s': it is in use by %s", verb,
                          hp->state->name, volume, users);
                return error_hint(err, "disconnect %s, or give --force, which cuts %s off",
                                  n == 1 ? "it" : "them", n == 1 ? "it" : "them");
        }
        if (n > 0)
                co_disconnect(hp, volume);
        return 0;
}

void host_unbar(struct host_bar *bar)
{
        list_remove(&bar->link);
}
