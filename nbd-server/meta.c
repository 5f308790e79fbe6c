/* meta.c - metadata contexts: LIST_META_CONTEXT and SET_META_CONTEXT (proto.md, "Metadata querying").
 *
 *     base:allocation         what takes space, and what reads as zeroes
 *     qemu:allocation-depth   whose the data are: 1 the volume's own, n+1 of the n-th snapshot above
 *     qemu:dirty-bitmap:SNAP  what changed since the volume's snapshot SNAP
 *
 * The last two are QEMU's names, as its own tools know them. What a name ends in its colon stands
 * for is all that begin with it, in LIST only. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include "nbd-server/internal.h"

static const char allocation[] = "base:allocation";
static const char depth[] = "qemu:allocation-depth";
static const char changed[] = "qemu:dirty-bitmap:"; /* a snapshot's name follows */

/* ---- contexts ---- */

static void co_release(struct nbd_client *client, struct meta_context *contexts, unsigned n)
{
        const struct nbd_exports *exports = &client->server->exports;

        for (unsigned i = 0; i < n; i++)
                if (contexts[i].since)
                        exports->co_snapshot_close(exports->arg, contexts[i].since);
        free(contexts);
}

void co_meta_forget(struct nbd_client *client)
{
        struct meta_context *contexts = client->contexts;
        unsigned n = client->n_contexts;

        free(client->meta_name);
        client->meta_name = NULL;
        client->contexts = NULL;
        client->n_contexts = 0;
        co_release(client, contexts, n);
}

/* ---- what the option holds ---- */

struct cursor {
        const uint8_t *at;
        size_t left;
};

static bool take(struct cursor *cursor, size_t length, const uint8_t **ret_data)
{
        if (length > cursor->left)
                return false;
        *ret_data = cursor->at;
        cursor->at += length;
        cursor->left -= length;
        return true;
}

static bool take_number(struct cursor *cursor, uint32_t *ret_number)
{
        const uint8_t *data;
        be32 number;

        if (!take(cursor, sizeof(number), &data))
                return false;
        memcpy(&number, data, sizeof(number));
        *ret_number = be32_get(number);
        return true;
}

static bool take_string(struct cursor *cursor, const uint8_t **ret_string, uint32_t *ret_length)
{
        return take_number(cursor, ret_length) && take(cursor, *ret_length, ret_string);
}

/* Do the queries fill the option exactly? */
static bool queries_fit(struct cursor cursor)
{
        const uint8_t *query;
        uint32_t n, length;

        if (!take_number(&cursor, &n))
                return false;
        for (uint32_t i = 0; i < n; i++)
                if (!take_string(&cursor, &query, &length))
                        return false;
        return cursor.left == 0;
}

static bool equals(const uint8_t *query, size_t length, const char *name)
{
        return length == strlen(name) && memcmp(query, name, length) == 0;
}

/* ---- choosing ---- */

struct selection {
        struct nbd_client *client;
        struct nbd_export *export; /* open meanwhile */
        bool list;
        bool every_snapshot; /* LIST: all of them, by name */
        bool by_wildcard;    /* and it was asked for with their own wildcard */
        struct meta_context *contexts;
        unsigned n;
        struct error err;
};

static const struct meta_context *find(const struct selection *s, enum context_kind kind,
                                       const char *snapshot)
{
        for (unsigned i = 0; i < s->n; i++)
                if (s->contexts[i].kind == kind && strcmp(s->contexts[i].snapshot, snapshot) == 0)
                        return &s->contexts[i];
        return NULL;
}

static int select_one(struct selection *s, enum context_kind kind, const char *snapshot,
                      struct volume *since)
{
        struct meta_context *context = &s->contexts[s->n];

        if (s->n == CONTEXTS_MAX)
                return error_set(&s->err, -E2BIG, "at most %u contexts can be asked for",
                                 CONTEXTS_MAX);
        context->kind = kind;
        context->since = since;
        snprintf(context->snapshot, sizeof(context->snapshot), "%s", snapshot);
        s->n++;
        return 0;
}

static int select_plain(struct selection *s, enum context_kind kind)
{
        return find(s, kind, "") ? 0 : select_one(s, kind, "", NULL);
}

/* A snapshot that there is not is a context that there is not: it is left out. */
static int co_select_snapshot(struct selection *s, const uint8_t *name, size_t length)
{
        const struct nbd_exports *exports = &s->client->server->exports;
        char snapshot[POOL_NAME_MAX + 1];
        struct volume *since;

        if (length > POOL_NAME_MAX || memchr(name, 0, length))
                return 0;
        snprintf(snapshot, sizeof(snapshot), "%.*s", (int)length, (const char *)name);
        if (find(s, CONTEXT_CHANGED, snapshot))
                return 0;
        int r = exports->co_snapshot_open(exports->arg, s->export, snapshot, &since, &s->err);
        if (r == -ENOENT) {
                s->err = ERROR_INIT;
                return 0;
        }
        if (r < 0)
                return r;
        r = select_one(s, CONTEXT_CHANGED, snapshot, since);
        if (r < 0)
                exports->co_snapshot_close(exports->arg, since);
        return r;
}

static int co_select_query(struct selection *s, const uint8_t *query, size_t length)
{
        size_t prefix = strlen(changed);

        if (equals(query, length, allocation) || (s->list && equals(query, length, "base:")))
                return select_plain(s, CONTEXT_ALLOCATION);
        if (equals(query, length, depth))
                return select_plain(s, CONTEXT_DEPTH);
        if (s->list && equals(query, length, "qemu:")) {
                s->every_snapshot = true;
                return select_plain(s, CONTEXT_DEPTH);
        }
        if (s->list && equals(query, length, changed))
                s->every_snapshot = s->by_wildcard = true;
        else if (length > prefix && memcmp(query, changed, prefix) == 0)
                return co_select_snapshot(s, query + prefix, length - prefix);
        return 0; /* of a namespace that is not known, or not in it */
}

static int co_select(struct selection *s, struct cursor cursor)
{
        const uint8_t *query = NULL;
        uint32_t n = 0, length = 0;
        int r = 0;

        take_number(&cursor, &n);
        if (n == 0 && s->list) {
                s->every_snapshot = true;
                r = select_plain(s, CONTEXT_ALLOCATION);
                return r < 0 ? r : select_plain(s, CONTEXT_DEPTH);
        }
        for (uint32_t i = 0; i < n && r == 0; i++) {
                take_string(&cursor, &query, &length);
                r = co_select_query(s, query, length);
        }
        return r;
}

/* ---- replies ---- */

static void reply_context(struct option_replies *replies, uint32_t option, uint32_t id,
                          const char *name, const char *snapshot)
{
        be32 wire_id = be32_make(id);

        replies_option(replies, option, NBD_REP_META_CONTEXT,
                       (uint32_t)(sizeof(wire_id) + strlen(name) + strlen(snapshot)));
        replies_add(replies, &wire_id, sizeof(wire_id));
        replies_add(replies, name, strlen(name));
        replies_add(replies, snapshot, strlen(snapshot));
}

static void reply_selected(struct option_replies *replies, const struct selection *s)
{
        static const char *const names[] = {[CONTEXT_ALLOCATION] = allocation,
                                            [CONTEXT_DEPTH] = depth,
                                            [CONTEXT_CHANGED] = changed};

        for (unsigned i = 0; i < s->n; i++) {
                const struct meta_context *context = &s->contexts[i];
                if (s->list && s->every_snapshot && context->kind == CONTEXT_CHANGED)
                        continue; /* it comes with the others */
                reply_context(replies,
                              s->list ? NBD_OPT_LIST_META_CONTEXT : NBD_OPT_SET_META_CONTEXT,
                              s->list ? 0 : i + 1, names[context->kind], context->snapshot);
        }
}

static int list_snapshot(const char *snapshot, void *arg)
{
        struct option_replies *replies = arg;
        size_t length = sizeof(struct nbd_option_reply) + sizeof(be32) + strlen(changed);

        if (replies->length + length + strlen(snapshot) > LIST_REPLY_MAX)
                return -E2BIG;
        reply_context(replies, NBD_OPT_LIST_META_CONTEXT, 0, changed, snapshot);
        return 0;
}

static int co_reply(struct option_replies *replies, struct selection *s)
{
        const struct nbd_exports *exports = &s->client->server->exports;

        reply_selected(replies, s);
        if (!s->every_snapshot)
                return 0;
        size_t before = replies->length;
        int r = exports->co_snapshot_list(exports->arg, s->export, list_snapshot, replies, &s->err);
        if (r == -E2BIG && s->by_wildcard)
                return error_set(&s->err, r, "there are too many snapshots to list");
        if (r == -E2BIG) { /* proto.md: to ask for all contexts should not fail as too big */
                replies->length = before;
                reply_context(replies, NBD_OPT_LIST_META_CONTEXT, 0, changed, "");
                r = 0;
        }
        return r;
}

/* ---- the options ---- */

static enum option_outcome invalid(struct option_replies *replies, const struct option *option,
                                   const char *why)
{
        replies_error(replies, option->number, NBD_REP_ERR_INVALID, "%s", why);
        return OPTION_CONTINUE;
}

/* With the export open. What was selected and replied becomes the client's. */
static void co_choose_contexts(struct selection *s, struct option_replies *replies,
                               const struct option *option, struct cursor queries, char **name)
{
        s->contexts = calloc(CONTEXTS_MAX, sizeof(*s->contexts));
        int r = s->contexts ? co_select(s, queries) : -ENOMEM;

        if (r == 0)
                r = co_reply(replies, s);
        if (r < 0) {
                replies_errno(replies, option, r, &s->err, "the contexts cannot be selected");
                return;
        }
        replies_option(replies, option->number, NBD_REP_ACK, 0);
        if (s->list || s->n == 0)
                return;
        s->client->contexts = s->contexts;
        s->client->n_contexts = s->n;
        s->client->meta_name = *name;
        s->contexts = NULL;
        s->n = 0;
        *name = NULL;
}

/* Data: export's name, 32 bits number of queries, queries; each string behind 32 bits of its
 * length. */
enum option_outcome co_option_meta_context(struct nbd_client *client, const struct option *option,
                                           struct option_replies *replies)
{
        struct nbd_export export;
        struct selection s = {.client = client,
                              .export = &export,
                              .list = option->number == NBD_OPT_LIST_META_CONTEXT,
                              .err = ERROR_INIT};
        struct cursor cursor = {option->data, option->length};
        const uint8_t *name;
        uint32_t length;
        char *copy;

        if (!s.list)
                co_meta_forget(client); /* whatever becomes of this one */
        if (!client->structured)
                return invalid(replies, option, "metadata contexts need structured replies");
        if (!take_string(&cursor, &name, &length))
                return invalid(replies, option, "the export's name is longer than the option");
        if (!queries_fit(cursor))
                return invalid(replies, option, "the queries do not fit the option");
        if (option_name(replies, option, name, length, &copy) < 0)
                return OPTION_CONTINUE;
        if (co_option_open(client, replies, option, copy, &export) == 0) {
                co_choose_contexts(&s, replies, option, cursor, &copy);
                co_release(client, s.contexts, s.n);
                co_option_close(client, &export);
        }
        free(copy);
        return OPTION_CONTINUE;
}
