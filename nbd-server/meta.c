/* meta.c - LIST_META_CONTEXT and SET_META_CONTEXT. There is one context, base:allocation; "base:"
 * stands for all of its namespace, in LIST only (proto.md, "The `base:` metadata namespace"). */
#include <errno.h>
#include <stdlib.h>
#include "nbd-server/internal.h"

static const char allocation[] = "base:allocation";
static const char wildcard[] = "base:";

void co_meta_forget(struct nbd_client *client)
{
        free(client->meta_name);
        free(client->contexts);
        client->meta_name = NULL;
        client->contexts = NULL;
        client->n_contexts = 0;
}

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

static bool equals(const uint8_t *query, size_t length, const char *name)
{
        return length == strlen(name) && memcmp(query, name, length) == 0;
}

/* Do the queries name base:allocation? -EINVAL where they do not fill the option exactly. */
static int match_queries(struct cursor *cursor, bool list, bool *ret_match)
{
        const uint8_t *query;
        uint32_t n, length;
        bool match;

        if (!take_number(cursor, &n))
                return -EINVAL;
        match = list && n == 0;
        for (uint32_t i = 0; i < n; i++) {
                if (!take_string(cursor, &query, &length))
                        return -EINVAL;
                match |=
                    equals(query, length, allocation) || (list && equals(query, length, wildcard));
        }
        if (cursor->left > 0)
                return -EINVAL;
        *ret_match = match;
        return 0;
}

static void reply_context(struct option_replies *replies, uint32_t option, uint32_t id)
{
        be32 wire_id = be32_make(id);

        replies_option(replies, option, NBD_REP_META_CONTEXT,
                       (uint32_t)(sizeof(wire_id) + strlen(allocation)));
        replies_add(replies, &wire_id, sizeof(wire_id));
        replies_add(replies, allocation, strlen(allocation));
}

static enum option_outcome invalid(struct option_replies *replies, const struct option *option,
                                   const char *why)
{
        replies_error(replies, option->number, NBD_REP_ERR_INVALID, "%s", why);
        return OPTION_CONTINUE;
}

/* Data: export's name, 32 bits number of queries, queries; each string behind 32 bits of its
 * length. */
enum option_outcome co_option_meta_context(struct nbd_client *client, const struct option *option,
                                           struct option_replies *replies)
{
        bool list = option->number == NBD_OPT_LIST_META_CONTEXT, match;
        struct cursor cursor = {option->data, option->length};
        struct nbd_export export;
        const uint8_t *name;
        uint32_t length;
        char *copy;

        if (!list)
                co_meta_forget(client); /* whatever becomes of this one */
        if (!client->structured)
                return invalid(replies, option, "metadata contexts need structured replies");
        if (!take_string(&cursor, &name, &length))
                return invalid(replies, option, "the export's name is longer than the option");
        if (match_queries(&cursor, list, &match) < 0)
                return invalid(replies, option, "the queries do not fit the option");
        if (option_name(replies, option, name, length, &copy) < 0)
                return OPTION_CONTINUE;
        if (co_option_open(client, replies, option, copy, &export) < 0) {
                free(copy);
                return OPTION_CONTINUE;
        }
        co_option_close(client, &export);
        if (match)
                reply_context(replies, option->number, list ? 0 : 1);
        replies_option(replies, option->number, NBD_REP_ACK, 0);
        if (match && !list) {
                client->contexts = calloc(CONTEXTS_MAX, sizeof(*client->contexts));
                client->n_contexts = client->contexts != NULL;
                client->meta_name = copy;
        } else {
                free(copy);
        }
        return OPTION_CONTINUE;
}
