/* options.c - the options of the negotiation and their replies. Handlers see an option whole, and
 * add to the replies; they receive and send nothing. */
#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include "nbd-server/internal.h"

/* ---- replies ---- */

void replies_add(struct option_replies *replies, const void *data, size_t length)
{
        if (replies->failed)
                return;
        if (replies->length + length > replies->capacity) {
                size_t capacity = replies->capacity ? replies->capacity : 512;
                while (capacity < replies->length + length)
                        capacity *= 2;
                uint8_t *grown =
                    capacity <= 2 * LIST_REPLY_MAX ? realloc(replies->data, capacity) : NULL;
                if (!grown) {
                        replies->failed = true;
                        return;
                }
                replies->data = grown;
                replies->capacity = capacity;
        }
        if (length > 0)
                memcpy(replies->data + replies->length, data, length);
        replies->length += length;
}

void replies_option(struct option_replies *replies, uint32_t option, uint32_t type, uint32_t length)
{
        struct nbd_option_reply reply = {
            .magic = be64_make(NBD_OPTION_REP_MAGIC),
            .option = be32_make(option),
            .type = be32_make(type),
            .length = be32_make(length),
        };
        replies_add(replies, &reply, sizeof(reply));
}

/* A text must be UTF-8 and for people to read; what is echoed may be neither, and may be cut in the
 * middle of a character. All names that there are have letters of ASCII only. */
static void make_printable(char *text, size_t length)
{
        for (size_t i = 0; i < length; i++)
                if (text[i] < ' ' || text[i] > '~')
                        text[i] = '?';
}

void replies_error(struct option_replies *replies, uint32_t option, uint32_t type,
                   const char *format, ...)
{
        char text[512]; /* so that what is echoed is cut (CVE-2017-15118) */
        va_list arguments;

        va_start(arguments, format);
        int n = vsnprintf(text, sizeof(text), format, arguments);
        va_end(arguments);
        size_t length = n < 0 ? 0 : (size_t)n < sizeof(text) ? (size_t)n : sizeof(text) - 1;
        make_printable(text, length);
        replies_option(replies, option, type, (uint32_t)length);
        replies_add(replies, text, length);
}

static enum option_outcome acknowledge(struct option_replies *replies, const struct option *option,
                                       enum option_outcome outcome)
{
        replies_option(replies, option->number, NBD_REP_ACK, 0);
        return outcome;
}

static enum option_outcome invalid(struct option_replies *replies, const struct option *option,
                                   const char *why)
{
        replies_error(replies, option->number, NBD_REP_ERR_INVALID, "%s", why);
        return OPTION_CONTINUE;
}

/* ---- names and exports ---- */

static int copy_name(const uint8_t *name, size_t length, char **ret_name)
{
        if (length > NBD_STRING_MAX)
                return -E2BIG;
        if (length > 0 && memchr(name, 0, length))
                return -EINVAL;
        char *copy = malloc(length + 1);
        if (!copy)
                return -ENOMEM;
        if (length > 0)
                memcpy(copy, name, length);
        copy[length] = 0;
        *ret_name = copy;
        return 0;
}

int option_name(struct option_replies *replies, const struct option *option, const uint8_t *name,
                size_t length, char **ret_name)
{
        int r = copy_name(name, length, ret_name);

        if (r == -E2BIG)
                replies_error(replies, option->number, NBD_REP_ERR_TOO_BIG,
                              "the export's name is longer than %u bytes", NBD_STRING_MAX);
        else if (r == -EINVAL)
                replies_error(replies, option->number, NBD_REP_ERR_INVALID,
                              "the export's name holds a NUL");
        else if (r < 0)
                replies_error(replies, option->number, NBD_REP_ERR_TOO_BIG,
                              "no memory for the export's name");
        return r;
}

static uint32_t reply_from_errno(int error)
{
        switch (-error) {
        case EPERM:
        case EACCES:
        case EBUSY:
                return NBD_REP_ERR_POLICY;
        case ESHUTDOWN:
                return NBD_REP_ERR_SHUTDOWN;
        case E2BIG:
        case ENOMEM:
                return NBD_REP_ERR_TOO_BIG;
        default:
                return NBD_REP_ERR_UNKNOWN;
        }
}

void replies_errno(struct option_replies *replies, const struct option *option, int error,
                   const struct error *err, const char *otherwise)
{
        replies_error(replies, option->number, reply_from_errno(error), "%s",
                      err->code ? err->message : otherwise);
}

static int co_open(struct nbd_client *client, const char *name, bool to_use,
                   struct nbd_export *ret_export, struct error *err)
{
        const struct nbd_exports *exports = &client->server->exports;

        *ret_export = (struct nbd_export){0};
        int r = exports->co_open(exports->arg, name, to_use, client, ret_export, err);
        assert(r <= 0 && (r < 0 || ret_export->volume));
        return r;
}

static void co_close(struct nbd_client *client, struct nbd_export *export)
{
        const struct nbd_exports *exports = &client->server->exports;

        exports->co_close(exports->arg, export);
}

int co_option_open(struct nbd_client *client, struct option_replies *replies,
                   const struct option *option, const char *name, struct nbd_export *ret_export)
{
        struct error err = ERROR_INIT;
        int r = co_open(client, name, option->number == NBD_OPT_GO, ret_export, &err);

        if (r < 0)
                replies_errno(replies, option, r, &err, "the export cannot be opened");
        return r;
}

void co_option_close(struct nbd_client *client, struct nbd_export *export)
{
        co_close(client, export);
}

/* Contexts hold for the export that they were selected for, by the name the client gave. */
static bool contexts_hold(const struct nbd_client *client, const char *name)
{
        return client->meta_name && strcmp(client->meta_name, name) == 0;
}

/* Of the export that the client calls @name: what INFO says and what GO says are the same. */
static uint16_t transmission_flags(const struct nbd_client *client, const char *name,
                                   const struct nbd_export *export)
{
        /* MULTI_CONN: one engine serves all connections, and its flush covers the writes of all of
         * them. */
        unsigned flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
                         NBD_FLAG_CAN_MULTI_CONN | NBD_FLAG_SEND_CACHE;

        if (export->readonly)
                flags |= NBD_FLAG_READ_ONLY;
        else
                flags |= NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO;
        if (!export->readonly && volume_discards(export->volume))
                flags |= NBD_FLAG_SEND_TRIM;
        if (client->structured)
                flags |= NBD_FLAG_SEND_DF;
        if (client->extended && contexts_hold(client, name))
                flags |= NBD_FLAG_BLOCK_STATUS_PAYLOAD;
        return (uint16_t)flags;
}

static void co_choose(struct nbd_client *client, const char *name, const struct nbd_export *export,
                      uint64_t size)
{
        client->export = *export;
        client->size = size;
        client->has_export = true;
        if (!contexts_hold(client, name))
                co_meta_forget(client);
}

/* ---- the options ---- */

static enum option_outcome co_option_export_name(struct nbd_client *client,
                                                 const struct option *option,
                                                 struct option_replies *replies)
{
        struct nbd_export export;
        char *name;

        /* There is no reply for a failure: the connection is closed. With extended headers it MUST
         * NOT be asked for. */
        if (client->extended || copy_name(option->data, option->length, &name) < 0)
                return OPTION_CLOSE;
        int r = co_open(client, name, true, &export, NULL);
        if (r == 0) {
                uint64_t size = volume_size(export.volume);
                co_choose(client, name, &export, size);
                struct nbd_export_name_reply reply = {
                    .size = be64_make(size),
                    .flags = be16_make(transmission_flags(client, name, &export)),
                };
                replies_add(replies, &reply,
                            client->no_zeroes ? sizeof(reply) - sizeof(reply.zeroes)
                                              : sizeof(reply));
        }
        free(name);
        return r == 0 ? OPTION_TRANSMIT : OPTION_CLOSE;
}

static enum option_outcome co_option_abort(struct nbd_client *client, const struct option *option,
                                           struct option_replies *replies)
{
        return acknowledge(replies, option, OPTION_CLOSE);
}

struct list_walk {
        struct option_replies *replies;
        bool too_big;
};

static int list_each(const char *name, const char *description, void *arg)
{
        struct list_walk *walk = arg;
        size_t name_length = strlen(name),
               description_length = description ? strlen(description) : 0;
        size_t length = sizeof(be32) + name_length + description_length;
        be32 wire_length = be32_make((uint32_t)name_length);

        if (walk->replies->length + sizeof(struct nbd_option_reply) + length > LIST_REPLY_MAX) {
                walk->too_big = true;
                return 1;
        }
        replies_option(walk->replies, NBD_OPT_LIST, NBD_REP_SERVER, (uint32_t)length);
        replies_add(walk->replies, &wire_length, sizeof(wire_length));
        replies_add(walk->replies, name, name_length);
        replies_add(walk->replies, description, description_length);
        return 0;
}

static enum option_outcome co_option_list(struct nbd_client *client, const struct option *option,
                                          struct option_replies *replies)
{
        const struct nbd_exports *exports = &client->server->exports;
        struct list_walk walk = {replies, false};
        struct error err = ERROR_INIT;
        int r = exports->co_list(exports->arg, client, list_each, &walk, &err);

        if (walk.too_big)
                replies_error(replies, option->number, NBD_REP_ERR_TOO_BIG,
                              "there are too many exports to list");
        else if (r < 0)
                replies_errno(replies, option, r, &err, "the exports cannot be listed");
        else
                acknowledge(replies, option, OPTION_CONTINUE);
        return OPTION_CONTINUE;
}

static void reply_info_text(struct option_replies *replies, uint32_t option, uint16_t type,
                            const char *text)
{
        be16 wire_type = be16_make(type);

        replies_option(replies, option, NBD_REP_INFO, (uint32_t)(sizeof(wire_type) + strlen(text)));
        replies_add(replies, &wire_type, sizeof(wire_type));
        replies_add(replies, text, strlen(text));
}

/* @wanted has a bit for each type of information asked for. */
static void reply_info(struct option_replies *replies, uint32_t option,
                       const struct nbd_export *export, uint64_t size, uint16_t flags,
                       unsigned wanted)
{
        struct nbd_info_export info = {
            .type = be16_make(NBD_INFO_EXPORT),
            .size = be64_make(size),
            .flags = be16_make(flags),
        };
        struct nbd_info_block_size sizes = {
            .type = be16_make(NBD_INFO_BLOCK_SIZE),
            .minimum = be32_make(1),
            .preferred = be32_make(POOL_BLOCK),
            .maximum = be32_make(PAYLOAD_MAX),
        };

        replies_option(replies, option, NBD_REP_INFO, sizeof(info));
        replies_add(replies, &info, sizeof(info));
        if (wanted & (1u << NBD_INFO_BLOCK_SIZE)) {
                replies_option(replies, option, NBD_REP_INFO, sizeof(sizes));
                replies_add(replies, &sizes, sizeof(sizes));
        }
        if (wanted & (1u << NBD_INFO_NAME))
                reply_info_text(replies, option, NBD_INFO_NAME, export->name);
        if ((wanted & (1u << NBD_INFO_DESCRIPTION)) && export->description[0])
                reply_info_text(replies, option, NBD_INFO_DESCRIPTION, export->description);
}

static unsigned wanted_info(const uint8_t *requests, size_t n)
{
        unsigned wanted = 0;

        for (size_t i = 0; i < n; i++) {
                be16 type;
                memcpy(&type, requests + i * sizeof(type), sizeof(type));
                if (be16_get(type) <= NBD_INFO_BLOCK_SIZE)
                        wanted |= 1u << be16_get(type);
        }
        return wanted;
}

/* INFO and GO. Data: 32 bits length of name, name, 16 bits n, n requests of 16 bits;
 * nothing else. */
static enum option_outcome co_option_info(struct nbd_client *client, const struct option *option,
                                          struct option_replies *replies)
{
        struct nbd_export export;
        be32 name_length;
        be16 n_requests;
        char *name;

        if (option->length < sizeof(name_length) + sizeof(n_requests))
                return invalid(replies, option, "the option is shorter than its fixed part");
        memcpy(&name_length, option->data, sizeof(name_length));
        size_t length = be32_get(name_length);
        if (length > option->length - sizeof(name_length) - sizeof(n_requests))
                return invalid(replies, option, "the export's name is longer than the option");
        memcpy(&n_requests, option->data + sizeof(name_length) + length, sizeof(n_requests));
        size_t fixed = sizeof(name_length) + length + sizeof(n_requests);
        if (option->length - fixed != be16_get(n_requests) * sizeof(be16))
                return invalid(replies, option,
                               "the number of information requests does not fit the option");

        if (option_name(replies, option, option->data + sizeof(name_length), length, &name) < 0)
                return OPTION_CONTINUE;
        enum option_outcome outcome = OPTION_CONTINUE;
        if (co_option_open(client, replies, option, name, &export) == 0) {
                uint64_t size = volume_size(export.volume);
                if (option->number == NBD_OPT_GO)
                        co_choose(client, name, &export, size);
                reply_info(replies, option->number, &export, size,
                           transmission_flags(client, name, &export),
                           wanted_info(option->data + fixed, be16_get(n_requests)));
                replies_option(replies, option->number, NBD_REP_ACK, 0);
                if (option->number == NBD_OPT_GO)
                        outcome = OPTION_TRANSMIT;
                else
                        co_close(client, &export);
        }
        free(name);
        return outcome;
}

static enum option_outcome co_option_structured_reply(struct nbd_client *client,
                                                      const struct option *option,
                                                      struct option_replies *replies)
{
        if (client->extended) { /* they take precedence */
                replies_error(replies, option->number, NBD_REP_ERR_EXT_HEADER_REQD,
                              "extended headers are agreed on already");
                return OPTION_CONTINUE;
        }
        client->structured = true;
        return acknowledge(replies, option, OPTION_CONTINUE);
}

static enum option_outcome co_option_extended_headers(struct nbd_client *client,
                                                      const struct option *option,
                                                      struct option_replies *replies)
{
        client->structured = client->extended = true;
        return acknowledge(replies, option, OPTION_CONTINUE);
}

/* What was agreed in plain text may have been another's words (CVE-2021-3716). */
static enum option_outcome co_option_starttls(struct nbd_client *client,
                                              const struct option *option,
                                              struct option_replies *replies)
{
        if (client->tls)
                return invalid(replies, option, "TLS is spoken already");
        client->structured = client->extended = false;
        co_meta_forget(client);
        return acknowledge(replies, option, OPTION_START_TLS);
}

/* ---- dispatch ---- */

struct option_kind {
        enum option_outcome (*co_handle)(struct nbd_client *client, const struct option *option,
                                         struct option_replies *replies);
        bool no_data; /* the client MUST NOT send any */
};

static const struct option_kind kinds[] = {
    [NBD_OPT_EXPORT_NAME] = {co_option_export_name, false},
    [NBD_OPT_ABORT] = {co_option_abort, false},
    [NBD_OPT_LIST] = {co_option_list, true},
    [NBD_OPT_STARTTLS] = {co_option_starttls, true},
    [NBD_OPT_INFO] = {co_option_info, false},
    [NBD_OPT_GO] = {co_option_info, false},
    [NBD_OPT_STRUCTURED_REPLY] = {co_option_structured_reply, true},
    [NBD_OPT_LIST_META_CONTEXT] = {co_option_meta_context, false},
    [NBD_OPT_SET_META_CONTEXT] = {co_option_meta_context, false},
    [NBD_OPT_EXTENDED_HEADERS] = {co_option_extended_headers, true},
};

static enum option_outcome while_stopping(const struct option *option,
                                          struct option_replies *replies)
{
        if (option->number == NBD_OPT_ABORT)
                return acknowledge(replies, option, OPTION_CLOSE);
        if (option->number != NBD_OPT_EXPORT_NAME)
                replies_error(replies, option->number, NBD_REP_ERR_SHUTDOWN,
                              "the server is shutting down");
        return OPTION_CLOSE;
}

/* proto.md, "FORCEDTLS mode". Who does not speak fixed newstyle must not hear of TLS. */
static enum option_outcome refuse_plain(const struct nbd_client *client,
                                        const struct option *option, struct option_replies *replies)
{
        if (option->number == NBD_OPT_EXPORT_NAME)
                return OPTION_CLOSE;
        if (client->fixed_newstyle)
                replies_error(replies, option->number, NBD_REP_ERR_TLS_REQD,
                              "this server requires TLS");
        else
                replies_error(replies, option->number, NBD_REP_ERR_POLICY,
                              "this server is for clients that speak fixed newstyle, and TLS");
        return OPTION_CONTINUE;
}

static bool is_known(const struct nbd_client *client, uint32_t option)
{
        if (option == NBD_OPT_STARTTLS) /* proto.md, "Server-side requirements" of TLS */
                return client->server->options.tls_mode != NBD_TLS_OFF && client->fixed_newstyle;
        return option < sizeof(kinds) / sizeof(kinds[0]) && kinds[option].co_handle;
}

enum option_outcome co_option(struct nbd_client *client, const struct option *option,
                              struct option_replies *replies)
{
        if (client->server->stopping)
                return while_stopping(option, replies);
        if (client->tls_required && !client->tls && option->number != NBD_OPT_STARTTLS &&
            option->number != NBD_OPT_ABORT)
                return refuse_plain(client, option, replies);
        if (!is_known(client, option->number)) {
                replies_error(replies, option->number, NBD_REP_ERR_UNSUP,
                              "option %u is not supported", option->number);
                return OPTION_CONTINUE;
        }
        if (kinds[option->number].no_data && option->length > 0)
                return invalid(replies, option, "this option takes no data");
        return kinds[option->number].co_handle(client, option, replies);
}
