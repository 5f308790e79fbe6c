/* nbd_replies.c - see nbd_replies.h. A cookie is, from its lowest bit: 32 bits of length, 16 of the
 * request's number, 15 of its type. */
#include "tests/fuzz/nbd_replies.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAYLOAD_MAX ((UINT64_C(32) << 20) + 8)

uint64_t nbd_replies_cookie(struct nbd_replies *r, uint16_t type, uint64_t length)
{
        assert(r->n_requests < REPLIES_REQUESTS_MAX);
        return (uint64_t)(type & 0x7fff) << 48 | (uint64_t)r->n_requests++ << 32 |
               (length & UINT32_MAX);
}

static void wrong(const char *what)
{
        fprintf(stderr, "the server's reply is wrong: %s\n", what);
        abort();
}

static void must(bool is_so, const char *what)
{
        if (!is_so)
                wrong(what);
}

/* ---- negotiation ---- */

static void greeting(struct nbd_replies *r)
{
        struct nbd_greeting g;

        memcpy(&g, r->head, sizeof(g));
        must(be64_get(g.magic) == NBD_MAGIC && be64_get(g.option_magic) == NBD_OPTION_MAGIC,
             "greeting");
        r->greeted = true;
}

static void option_reply(struct nbd_replies *r)
{
        struct nbd_option_reply reply;

        memcpy(&reply, r->head, sizeof(reply));
        r->n_skip = be32_get(reply.length);
        must(r->n_skip <= (1u << 20), "an option's reply of more than a MiB");
        if (be32_get(reply.type) != NBD_REP_ACK)
                return;
        must(r->n_skip == 0, "an ACK with data");
        switch (be32_get(reply.option)) {
        case NBD_OPT_GO:
                r->transmission = true;
                break;
        case NBD_OPT_STRUCTURED_REPLY:
                r->structured = true;
                break;
        case NBD_OPT_EXTENDED_HEADERS:
                r->structured = r->extended = true;
                break;
        case NBD_OPT_STARTTLS:
                r->lost = true;
                break;
        }
}

static bool is_option_reply(const struct nbd_replies *r)
{
        be64 magic;

        memcpy(&magic, r->head, sizeof(magic));
        return be64_get(magic) == NBD_OPTION_REP_MAGIC;
}

/* ---- transmission ---- */

static uint32_t magic_of(const struct nbd_replies *r)
{
        be32 magic;

        memcpy(&magic, r->head, sizeof(magic));
        return be32_get(magic);
}

/* Once for each request, and for none that was not sent. */
static void answer(struct nbd_replies *r, uint64_t cookie, bool done)
{
        unsigned number = (unsigned)(cookie >> 32) & 0xffff;

        must(number < r->n_requests, "a cookie that nobody sent");
        must(!(r->answered[number / 8] & (1u << number % 8)), "one request is answered twice");
        if (done)
                r->answered[number / 8] |= (uint8_t)(1u << number % 8);
}

static void simple_reply(struct nbd_replies *r)
{
        struct nbd_simple_reply reply;

        memcpy(&reply, r->head, sizeof(reply));
        uint64_t cookie = be64_get(reply.cookie);
        bool is_read = cookie >> 48 == NBD_CMD_READ;
        must(!r->extended && !(r->structured && is_read), "a simple reply to a read");
        answer(r, cookie, true);
        if (is_read && be32_get(reply.error) == 0)
                r->n_skip = (uint32_t)cookie;
}

static void chunk(struct nbd_replies *r, uint16_t flags, uint16_t type, uint64_t cookie,
                  uint64_t length)
{
        bool is_read = cookie >> 48 == NBD_CMD_READ;

        must(!(flags & ~NBD_REPLY_FLAG_DONE), "flags of a chunk");
        must(length <= PAYLOAD_MAX, "a chunk that is too long");
        answer(r, cookie, flags & NBD_REPLY_FLAG_DONE);
        r->n_skip = length;
        switch (type) {
        case NBD_REPLY_TYPE_NONE:
                must(length == 0 && (flags & NBD_REPLY_FLAG_DONE), "a chunk of nothing");
                break;
        case NBD_REPLY_TYPE_OFFSET_DATA:
                must(is_read && length > 8 && length - 8 <= (uint32_t)cookie, "a chunk of data");
                break;
        case NBD_REPLY_TYPE_OFFSET_HOLE:
                must(is_read && length == 12, "a chunk that is a hole");
                break;
        case NBD_REPLY_TYPE_BLOCK_STATUS:
                must(!r->extended && length >= 12 && length % 8 == 4, "a block status");
                break;
        case NBD_REPLY_TYPE_BLOCK_STATUS_EXT:
                must(r->extended && length >= 24 && length % 16 == 8, "an extended block status");
                break;
        case NBD_REPLY_TYPE_ERROR:
                must(length >= 6, "an error without a code");
                break;
        case NBD_REPLY_TYPE_ERROR_OFFSET:
                must(length >= 14, "an error without an offset");
                break;
        default:
                wrong("a chunk of an unknown type");
        }
}

static void structured_reply(struct nbd_replies *r)
{
        struct nbd_chunk c;

        memcpy(&c, r->head, sizeof(c));
        must(r->structured && !r->extended, "a structured reply, which was not agreed");
        chunk(r, be16_get(c.flags), be16_get(c.type), be64_get(c.cookie), be32_get(c.length));
}

static void extended_reply(struct nbd_replies *r)
{
        struct nbd_extended_chunk c;

        memcpy(&c, r->head, sizeof(c));
        must(r->extended, "an extended reply, which was not agreed");
        chunk(r, be16_get(c.flags), be16_get(c.type), be64_get(c.cookie), be64_get(c.length));
}

/* ---- the stream ---- */

static size_t head_bytes(const struct nbd_replies *r)
{
        if (!r->greeted)
                return sizeof(struct nbd_greeting);
        if (!r->transmission) {
                if (r->n_head < 8)
                        return 8;
                return is_option_reply(r) ? sizeof(struct nbd_option_reply) : 10;
        }
        if (r->n_head < 4)
                return 4;
        switch (magic_of(r)) {
        case NBD_SIMPLE_REPLY_MAGIC:
                return sizeof(struct nbd_simple_reply);
        case NBD_STRUCTURED_REPLY_MAGIC:
                return sizeof(struct nbd_chunk);
        case NBD_EXTENDED_REPLY_MAGIC:
                return sizeof(struct nbd_extended_chunk);
        default:
                wrong("no reply at all");
                return 0;
        }
}

static void take_head(struct nbd_replies *r)
{
        if (!r->greeted)
                greeting(r);
        else if (!r->transmission && is_option_reply(r))
                option_reply(r);
        else if (!r->transmission) /* EXPORT_NAME's, which has no magic */
                r->transmission = r->zeroes_due = true;
        else if (magic_of(r) == NBD_SIMPLE_REPLY_MAGIC)
                simple_reply(r);
        else if (magic_of(r) == NBD_STRUCTURED_REPLY_MAGIC)
                structured_reply(r);
        else
                extended_reply(r);
        r->n_head = 0;
}

/* No reply begins with a zero. */
static bool skip_zeroes(struct nbd_replies *r, uint8_t first)
{
        bool due = r->zeroes_due;

        r->zeroes_due = false;
        if (due && first == 0)
                r->n_skip = sizeof(((struct nbd_export_name_reply *)0)->zeroes);
        return due && first == 0;
}

void nbd_replies_take(struct nbd_replies *r, const uint8_t *data, size_t length)
{
        while (length > 0 && !r->lost) {
                size_t n;

                if (r->n_skip == 0 && skip_zeroes(r, *data))
                        continue;
                if (r->n_skip > 0) {
                        n = r->n_skip < length ? (size_t)r->n_skip : length;
                        r->n_skip -= n;
                } else {
                        size_t head = head_bytes(r);
                        n = head - r->n_head < length ? head - r->n_head : length;
                        memcpy(r->head + r->n_head, data, n);
                        r->n_head += n;
                        /* Of some the length is known when they have begun. */
                        if (r->n_head == head && head_bytes(r) == head)
                                take_head(r);
                }
                data += n;
                length -= n;
        }
}
