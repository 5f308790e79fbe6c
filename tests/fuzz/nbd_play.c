/* nbd_play.c - what clients, engine, clock and operator do, as the input says. Lengths and magics
 * are right unless the input wants them wrong; so most of what it says gets far into the server. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "tests/fuzz/engine_play.h"
#include "tests/fuzz/nbd_world.h"

#define DATA_MAX (80u << 10) /* an option's data: more than the server takes */

/* ---- the wire ---- */

static struct world_client *speaker(struct world *w)
{
        return &w->clients[w->at];
}

static void take_replies(struct world_client *c)
{
        static uint8_t buffer[256 << 10];
        ssize_t n;

        while (c->fd >= 0 && (n = recv(c->fd, buffer, sizeof(buffer), MSG_DONTWAIT)) > 0)
                nbd_replies_take(&c->replies, buffer, (size_t)n);
}

void world_flush(struct world *w)
{
        struct world_client *c = speaker(w);
        size_t at = 0;

        for (bool moved = true; moved;) {
                ssize_t n = -1;

                if (c->fd >= 0 && at < w->out.n)
                        n = send(c->fd, w->out.bytes + at, w->out.n - at,
                                 MSG_DONTWAIT | MSG_NOSIGNAL);
                at += n > 0 ? (size_t)n : 0;
                fuzz_loop_settle(w->loop);
                take_replies(c);
                moved = n > 0;
        }
        fuzz_loop_settle(w->loop);
        take_replies(c);
        if (at < w->out.n && (at > 0 || w->begun))
                c->replies.lost = true;
        w->out.n = 0;
        w->begun = false;
}

/* Where half of a message is sent, what comes next is taken for its other half. */
static void drop(struct world *w)
{
        if (w->begun)
                speaker(w)->replies.lost = true;
        w->out.n = 0;
        w->begun = false;
}

/* ---- options ---- */

void world_put_option(struct world *w, uint32_t option, const void *data, size_t length)
{
        struct nbd_option head = {.magic = be64_make(NBD_OPTION_MAGIC),
                                  .option = be32_make(option),
                                  .length = be32_make((uint32_t)length)};

        output_put(&w->out, &head, sizeof(head));
        output_put(&w->out, data, length);
}

struct data {
        uint8_t *bytes;
        size_t n;
};

static void data_put(struct data *d, const void *from, size_t length)
{
        if (length > DATA_MAX - d->n)
                length = DATA_MAX - d->n;
        if (length > 0)
                memcpy(d->bytes + d->n, from, length);
        d->n += length;
}

static void data_put32(struct data *d, uint32_t value)
{
        be32 wire = be32_make(value);

        data_put(d, &wire, sizeof(wire));
}

static void data_put16(struct data *d, uint16_t value)
{
        be16 wire = be16_make(value);

        data_put(d, &wire, sizeof(wire));
}

static void data_fill(struct data *d, uint8_t byte, size_t length)
{
        if (length > DATA_MAX - d->n)
                length = DATA_MAX - d->n;
        memset(d->bytes + d->n, byte, length);
        d->n += length;
}

/* A word of the table, bytes of the input, or many of one. */
static void put_text(struct data *d, struct input *in, const char *const *words, unsigned n_words)
{
        uint8_t kind = input_u8(in);
        const uint8_t *at;
        size_t n;

        if (kind < n_words) {
                data_put(d, words[kind], strlen(words[kind]));
        } else if (kind >= 0xf8) {
                data_fill(d, input_u8(in), (size_t)(kind & 7) << 11 | input_u8(in));
        } else {
                n = input_take(in, kind & 31, &at);
                data_put(d, at, n);
        }
}

static void put_name(struct data *d, struct input *in)
{
        static const char *const names[] = {"",         "vol",    "pool/vol", "pool/vol@snap",
                                            "pool/big", "secret", "pool/no"};

        put_text(d, in, names, sizeof(names) / sizeof(names[0]));
}

static void put_query(struct data *d, struct input *in)
{
        static const char *const queries[] = {"base:allocation",
                                              "base:",
                                              "qemu:",
                                              "qemu:allocation-depth",
                                              "qemu:dirty-bitmap:snap",
                                              "qemu:dirty-bitmap:",
                                              "qemu:dirty-bitmap:locked",
                                              "qemu:dirty-bitmap:none",
                                              "x:y",
                                              ""};

        put_text(d, in, queries, sizeof(queries) / sizeof(queries[0]));
}

/* With its length before it; for one in sixteen that is another. */
static void put_counted(struct data *d, struct input *in,
                        void (*put)(struct data *d, struct input *in))
{
        size_t at = d->n, end;
        uint8_t tamper = input_u8(in);

        data_put32(d, 0);
        if (d->n < at + 4)
                return;
        put(d, in);
        end = d->n;
        d->n = at;
        data_put32(d, tamper >= 0xf0 ? (uint32_t)input_number(in, end - at)
                                     : (uint32_t)(end - at - 4));
        d->n = end;
}

static void put_info(struct data *d, struct input *in)
{
        unsigned n;

        put_counted(d, in, put_name);
        n = input_u8(in);
        data_put16(d, (uint16_t)(n >= 0xf0 ? input_u16(in) : n & 15));
        for (unsigned i = 0; i < (n & 15); i++)
                data_put16(d, (uint16_t)input_number(in, 4));
}

static void put_meta(struct data *d, struct input *in)
{
        unsigned n;

        put_counted(d, in, put_name);
        n = input_u8(in);
        data_put32(d, n >= 0xf0 ? input_u32(in) : n & 15);
        for (unsigned i = 0; i < (n & 15); i++)
                put_counted(d, in, put_query);
        for (unsigned i = 0; n >= 0xe0 && i < 80; i++) { /* more than are allowed */
                data_put32(d, 15);
                data_put(d, "base:allocation", 15);
        }
}

static void put_option_data(struct data *d, struct input *in, uint32_t option)
{
        const uint8_t *at;
        size_t n;

        switch (option) {
        case NBD_OPT_EXPORT_NAME:
                put_name(d, in);
                break;
        case NBD_OPT_INFO:
        case NBD_OPT_GO:
                put_info(d, in);
                break;
        case NBD_OPT_LIST_META_CONTEXT:
        case NBD_OPT_SET_META_CONTEXT:
                put_meta(d, in);
                break;
        default:
                n = input_u8(in);
                if (n < 0xe0)
                        n = n >= 0xc0 ? n & 31 : 0;
                else if (n >= 0xfc)
                        data_fill(d, 0, 40000);
                n = input_take(in, n & 31, &at);
                data_put(d, at, n);
        }
}

static void play_option(struct world *w, struct input *in)
{
        static uint8_t bytes[DATA_MAX];
        struct data d = {.bytes = bytes};
        uint8_t kind = input_u8(in);
        uint32_t option = kind < 0xf8 ? kind & 15 : input_u32(in);

        put_option_data(&d, in, option);
        if (kind >= 0xf0) { /* rubbish in its head */
                struct nbd_option head = {.magic = be64_make(kind & 1 ? NBD_OPTION_MAGIC : 1),
                                          .option = be32_make(option),
                                          .length = be32_make((uint32_t)input_number(in, d.n))};
                output_put(&w->out, &head, sizeof(head));
                output_put(&w->out, d.bytes, d.n);
        } else {
                world_put_option(w, option, d.bytes, d.n);
        }
        if (kind & 0x40)
                world_flush(w);
}

/* ---- requests ---- */

static void put_request(struct world *w, bool extended, uint16_t flags, uint16_t type,
                        uint64_t cookie, uint64_t offset, uint64_t length)
{
        struct nbd_request_header plain = {.magic = be32_make(NBD_REQUEST_MAGIC),
                                           .flags = be16_make(flags),
                                           .type = be16_make(type),
                                           .cookie = be64_make(cookie),
                                           .offset = be64_make(offset),
                                           .length = be32_make((uint32_t)length)};
        struct nbd_extended_request longer = {.magic = be32_make(NBD_EXTENDED_REQUEST_MAGIC),
                                              .flags = be16_make(flags),
                                              .type = be16_make(type),
                                              .cookie = be64_make(cookie),
                                              .offset = be64_make(offset),
                                              .length = be64_make(length)};

        if (extended)
                output_put(&w->out, &longer, sizeof(longer));
        else
                output_put(&w->out, &plain, sizeof(plain));
}

/* BLOCK_STATUS with a payload: the length of its effect, and ids of contexts. */
static uint64_t put_status_payload(struct data *d, struct input *in)
{
        unsigned n = input_u8(in) & 15;
        be64 length = be64_make(input_number(in, WORLD_VOL_BYTES));

        data_put(d, &length, sizeof(length));
        for (unsigned i = 0; i < n; i++)
                data_put32(d, (uint32_t)input_number(in, 64));
        return d->n;
}

static void play_request(struct world *w, struct input *in)
{
        struct world_client *c = speaker(w);
        uint8_t bytes[128], kind = input_u8(in), how = input_u8(in);
        struct data d = {.bytes = bytes};
        uint16_t type = kind < 0xf0 ? kind & 7 : input_u16(in);
        uint16_t flags = how < 0xf0 ? how & 63 : input_u16(in);
        bool extended = kind >= 0xf8 ? kind & 1 : c->replies.extended, with_payload;
        uint64_t offset = input_number(in, WORLD_VOL_BYTES);
        uint64_t length = input_number(in, WORLD_VOL_BYTES), payload = 0;

        if (c->replies.n_requests >= REPLIES_REQUESTS_MAX)
                return;
        if (type == NBD_CMD_WRITE && extended && how < 0xc0)
                flags |= NBD_CMD_FLAG_PAYLOAD_LEN;
        with_payload = extended ? flags & NBD_CMD_FLAG_PAYLOAD_LEN : type == NBD_CMD_WRITE;
        if (with_payload && type == NBD_CMD_BLOCK_STATUS)
                length = put_status_payload(&d, in);
        else if (with_payload)
                payload = length;
        /* Rubbish behind the header, which will be taken for more headers. */
        if (type == NBD_CMD_DISC || (kind & 0x80 && payload > 0))
                c->replies.lost = true;
        if (kind & 0x80)
                payload = payload > 512 ? payload / 2 : payload + 1;
        put_request(w, extended, flags, type, nbd_replies_cookie(&c->replies, type, length), offset,
                    length);
        output_put(&w->out, d.bytes, d.n);
        output_fill(&w->out, kind, payload > OUTPUT_MAX ? OUTPUT_MAX : (size_t)payload);
        if (kind & 0x40)
                world_flush(w);
}

/* ---- bytes ---- */

static void play_bytes(struct world *w, struct input *in)
{
        uint8_t kind = input_u8(in);
        const uint8_t *at;
        size_t n = input_take(in, kind & 127, &at);

        speaker(w)->replies.lost = true;
        if (kind & 128)
                output_fill(&w->out, at ? at[0] : 0, n << 8);
        else
                output_put(&w->out, at, n);
}

/* Client flags. */
static void play_flags(struct world *w, struct input *in)
{
        be32 flags = be32_make((uint32_t)input_number(in, 3));

        output_put(&w->out, &flags, sizeof(flags));
}

/* Send what there is but its last bytes. */
static void play_part(struct world *w, struct input *in)
{
        static uint8_t rest[256];
        size_t n = input_u8(in);

        if (n > w->out.n)
                n = w->out.n;
        memcpy(rest, w->out.bytes + w->out.n - n, n);
        w->out.n -= n;
        world_flush(w);
        output_put(&w->out, rest, n);
        w->begun = n > 0;
}

/* ---- clients ---- */

static void play_client(struct world *w, struct input *in)
{
        uint8_t kind = input_u8(in);
        struct world_client *c;

        drop(w);
        w->at = (kind >> 4) % WORLD_CLIENTS;
        c = speaker(w);
        switch (kind & 3) {
        case 0:
                if (c->fd >= 0)
                        close(c->fd);
                *c = (struct world_client){.fd = -1};
                break;
        case 1:
                if (c->fd >= 0)
                        shutdown(c->fd, kind & 4 ? SHUT_RDWR : SHUT_WR);
                break;
        case 2:
                if (c->fd < 0 && !w->stopping)
                        *c = (struct world_client){.fd = fuzz_connect(w->listen_fd)};
                break;
        case 3:
                if (c->fd >= 0) { /* it reads slowly */
                        int bytes = 4096;
                        setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
                }
        }
        fuzz_loop_step(w->loop);
}

/* ---- engine, clock, operator ---- */

static void play_engine(struct world *w, struct input *in)
{
        uint8_t kind = input_u8(in);

        if (kind & 0x80)
                engine_play(w->exports.big, WORLD_BIG_BYTES, kind, in);
        else
                engine_play(w->exports.volume, WORLD_VOL_BYTES, kind, in);
}

static void co_stop(void *arg)
{
        struct world *w = arg;

        co_nbd_server_stop(w->server, 1000);
        w->n_stopping--;
}

static void co_cut(void *arg)
{
        struct world *w = arg;

        co_nbd_server_disconnect(w->server, "pool/vol");
        w->n_stopping--;
}

static void play_operator(struct world *w, struct input *in)
{
        uint8_t kind = input_u8(in);
        bool stop = kind % 4 == 0;

        if (kind % 4 == 3) {
                nbd_server_rename_exports(w->server, "pool/vol", "pool/vol");
                return;
        }
        if (kind % 4 == 2) {
                fuzz_loop_set_io_max(w->loop, kind >> 2);
                return;
        }
        if (w->stopping || w->n_stopping > 4)
                return;
        w->stopping = stop;
        w->n_stopping++;
        if (co_spawn(w->loop, stop ? co_stop : co_cut, w) < 0)
                abort();
}

void world_play(struct world *w, struct input *in)
{
        while (in->left > 0) {
                uint8_t what = input_u8(in);

                switch (what & 15) {
                case 0:
                case 1:
                case 2:
                        play_option(w, in);
                        break;
                case 3:
                case 4:
                case 5:
                case 6:
                        play_request(w, in);
                        break;
                case 7:
                        play_flags(w, in);
                        break;
                case 8:
                        play_bytes(w, in);
                        break;
                case 9:
                        play_part(w, in);
                        break;
                case 10:
                        world_flush(w);
                        break;
                case 11:
                        fuzz_loop_step(w->loop);
                        break;
                case 12:
                        fuzz_loop_advance(w->loop, input_u8(in) * UINT64_C(100000000));
                        break;
                case 13:
                        play_client(w, in);
                        break;
                case 14:
                        play_engine(w, in);
                        break;
                case 15:
                        play_operator(w, in);
                }
        }
}
