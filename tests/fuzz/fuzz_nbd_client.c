/* fuzz_nbd_client.c - an NBD server whose export is opened as an image, read and written: it answers what
 * it was asked, late, wrongly or never. And the texts that URIs are. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "formats/nbd.h"
#include "formats/nbd_uri.h"
#include "tests/fuzz/fuzz_loop.h"
#include "tests/fuzz/input.h"

#define USERS_MAX   16u
#define LENGTH_MAX  (UINT64_C(256) << 10)
#define STEPS_MAX   16u /* of a walk over the map */
#define MAP_MAX     600u
#define SAID_MAX    (512u << 10)
#define END_NS      UINT64_C(60000000000)
#define URI         "nbd+unix:///web?socket=/s"
#define CONTEXT     "base:allocation"
#define SIZE        (UINT64_C(1) << 20)
#define REQUEST_LEN 28u
#define OPTION_LEN  16u

/* proto.md's numbers. */
enum {
        OPT_EXPORT_NAME = 1,
        OPT_INFO = 6,
        OPT_GO = 7,
        OPT_STRUCTURED = 8,
        OPT_LIST_META = 9,
        OPT_SET_META = 10
};
enum { REP_ACK = 1, REP_INFO = 3, REP_META_CONTEXT = 4 };
enum { CMD_READ = 0, CMD_WRITE = 1, CMD_BLOCK_STATUS = 7 };
enum { CHUNK_NONE = 0, CHUNK_DATA = 1, CHUNK_HOLE = 2, CHUNK_STATUS = 5, CHUNK_ERROR = 32769 };
#define REP_ERR_UNSUP UINT32_C(0x80000001)

enum stage { GREETING, FLAGS, OPTIONS, REQUESTS };

struct scene {
        struct loop *loop;
        int lowest_fd, server; /* -1: it has hung up */
        int client;
        struct image *image;
        bool opening, write, structured;
        enum stage stage;
        atomic_bool cancelled;
        unsigned n_users;
        /* What the client has said, and was not answered yet. */
        uint8_t said[SAID_MAX];
        size_t n_said;
        struct output out;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- the image's users ---- */

static void check_result(int r, const struct error *e)
{
        assert(r <= 0);
        assert(r == 0 || (e->code == r && e->message[0]));
}

static void co_open(void *arg)
{
        struct scene *s = arg;
        const struct nbd_target target = {
            .uri = URI, .fd = s->client, .export_name = "web", .cancelled = &s->cancelled};
        struct error e = ERROR_INIT;
        struct image *image = NULL;
        int r = co_nbd_open(&target, s->write, &image, &e);

        check_result(r, &e);
        if (r == 0) {
                assert(image->virtual_bytes <= IMAGE_SIZE_MAX);
                (void)nbd_offer(image);
                s->image = image;
        }
        s->opening = false;
}

struct user {
        struct scene *s;
        uint8_t kind;
        uint64_t offset, length;
};

static int co_walk(struct image *image, uint64_t offset, struct error *e)
{
        int r = 0;

        for (unsigned i = 0; r == 0 && i < STEPS_MAX && offset < image->virtual_bytes; i++) {
                struct image_extent extent;

                r = image->driver->co_extent(image, offset, &extent, e);
                if (r < 0)
                        break;
                assert(extent.length > 0 && extent.length <= image->virtual_bytes - offset);
                assert(!extent.has_offset || extent.file_offset == offset);
                offset += extent.length;
        }
        return r;
}

/* From the heap, so that what is written beside it is seen. */
static int co_transfer(struct image *image, const struct user *u, bool write, struct error *e)
{
        void *buffer = calloc(1, u->length);
        int r;

        if (!buffer)
                abort();
        r = write ? image->driver->co_write(image, buffer, u->length, u->offset, e)
                  : image->driver->co_read(image, buffer, u->length, u->offset, e);
        free(buffer);
        return r;
}

static void co_use(void *arg)
{
        struct user *u = arg;
        struct image *image = u->s->image;
        struct error e = ERROR_INIT;
        int r = 0;

        switch (u->kind) {
        case 0:
                r = co_walk(image, u->offset, &e);
                break;
        case 1:
                r = co_transfer(image, u, false, &e);
                break;
        case 2:
                r = co_transfer(image, u, true, &e);
                break;
        case 3:
                r = image->driver->co_zero(image, u->offset, u->length, &e);
                break;
        default:
                r = image->driver->co_finish(image, &e);
        }
        check_result(r, &e);
        if (--u->s->n_users == 0 && nbd_is_lost(image)) {
                /* At once: a request that has ended leaves nothing under way. */
                u->s->image = NULL;
                image_close(image);
        }
        free(u);
}

/* A piece of the image: for who writes, of whole units. */
static void play_user(struct scene *s, struct input *in)
{
        struct image *image = s->image;
        uint8_t kind = input_u8(in);
        uint64_t offset = input_number(in, image ? image->virtual_bytes : 0);
        uint64_t length = input_number(in, LENGTH_MAX);
        struct user *u;

        if (!image || image->virtual_bytes == 0 || s->n_users == USERS_MAX)
                return;
        kind %= s->write ? 5 : 2;
        offset %= image->virtual_bytes;
        length = 1 + length % LENGTH_MAX;
        if (kind >= 2) {
                offset -= offset % image->write_unit;
                length += image->write_unit - 1;
                length -= length % image->write_unit;
        }
        if (length > image->virtual_bytes - offset)
                length = image->virtual_bytes - offset;
        u = malloc(sizeof(*u));
        if (!u)
                abort();
        *u = (struct user){.s = s, .kind = kind, .offset = offset, .length = length};
        s->n_users++;
        if (co_spawn(s->loop, co_use, u) < 0)
                abort();
}

/* ---- the server ---- */

static void put(struct scene *s, uint64_t value, unsigned size)
{
        uint8_t bytes[8];

        for (unsigned i = 0; i < size; i++)
                bytes[i] = (uint8_t)(value >> (8 * (size - 1 - i)));
        output_put(&s->out, bytes, size);
}

static uint64_t get(const struct scene *s, size_t at, unsigned size)
{
        uint64_t value = 0;

        for (unsigned i = 0; i < size; i++)
                value = value << 8 | s->said[at + i];
        return value;
}

static void forget(struct scene *s, size_t n)
{
        s->n_said -= n;
        memmove(s->said, s->said + n, s->n_said);
}

static void send_all(struct scene *s)
{
        size_t at = 0;

        while (s->server >= 0 && at < s->out.n) {
                ssize_t n =
                    send(s->server, s->out.bytes + at, s->out.n - at, MSG_DONTWAIT | MSG_NOSIGNAL);

                if (n <= 0)
                        break;
                at += (size_t)n;
                fuzz_loop_settle(s->loop);
        }
        s->out.n = 0;
        fuzz_loop_settle(s->loop);
}

static void listen_to(struct scene *s)
{
        ssize_t n;

        fuzz_loop_settle(s->loop);
        while (s->server >= 0 && s->n_said < SAID_MAX &&
               (n = recv(s->server, s->said + s->n_said, SAID_MAX - s->n_said, MSG_DONTWAIT)) > 0) {
                s->n_said += (size_t)n;
                fuzz_loop_settle(s->loop);
        }
}

static void greet(struct scene *s, uint8_t how)
{
        output_put(&s->out, "NBDMAGIC", 8);
        if (how & 0x40) { /* the handshake of old */
                put(s, UINT64_C(0x00420281861253), 8);
                put(s, SIZE, 8);
                put(s, 1, 4);
                output_fill(&s->out, 0, 124);
                s->stage = REQUESTS;
                return;
        }
        output_put(&s->out, "IHAVEOPT", 8);
        put(s, how & 0x20 ? 1 : 3, 2);
        s->stage = FLAGS;
}

static void reply(struct scene *s, uint32_t option, uint32_t kind, uint32_t length)
{
        put(s, UINT64_C(0x3e889045565a9), 8);
        put(s, option, 4);
        put(s, kind, 4);
        put(s, length, 4);
}

/* The export: any size and flags where the input wants that. */
static void put_export(struct scene *s, struct input *in, uint8_t how)
{
        put(s, how & 0x10 ? input_number(in, IMAGE_SIZE_MAX) : SIZE, 8);
        put(s, how & 0x08 ? input_u16(in) : 0x7d, 2);
}

static void reply_to_go(struct scene *s, struct input *in, uint32_t option, uint8_t how)
{
        if (how & 0x04) {
                reply(s, option, REP_INFO, 14);
                put(s, 3, 2); /* the sizes of blocks */
                for (unsigned i = 0; i < 3; i++)
                        put(s, input_number(in, 4096), 4);
        }
        reply(s, option, REP_INFO, 12);
        put(s, 0, 2);
        put_export(s, in, how);
        reply(s, option, REP_ACK, 0);
        if (option == OPT_GO)
                s->stage = REQUESTS;
}

static void reply_context(struct scene *s, struct input *in, uint32_t option, uint8_t how)
{
        if (how & 0x10) { /* of another name, any length */
                const uint8_t *name;
                size_t n = input_take(in, how & 15, &name);

                reply(s, option, REP_META_CONTEXT, 4 + (uint32_t)n);
                put(s, 2, 4);
                output_put(&s->out, name, n);
        }
        reply(s, option, REP_META_CONTEXT, 4 + sizeof(CONTEXT) - 1);
        put(s, 1, 4);
        output_put(&s->out, CONTEXT, sizeof(CONTEXT) - 1);
        reply(s, option, REP_ACK, 0);
}

static void answer_option(struct scene *s, struct input *in, uint8_t how)
{
        uint32_t option = (uint32_t)get(s, 8, 4), length = (uint32_t)get(s, 12, 4);

        if (s->n_said - OPTION_LEN < length)
                return;
        forget(s, OPTION_LEN + length);
        if (how & 0x40) {
                const uint8_t *text;
                size_t n = input_take(in, how & 15, &text);

                reply(s, option, how & 0x20 ? input_u32(in) : REP_ERR_UNSUP, (uint32_t)n);
                output_put(&s->out, text, n);
                return;
        }
        switch (option) {
        case OPT_EXPORT_NAME:
                put_export(s, in, how);
                output_fill(&s->out, 0, how & 1 ? 124 : 0);
                s->stage = REQUESTS;
                break;
        case OPT_INFO:
        case OPT_GO:
                reply_to_go(s, in, option, how);
                break;
        case OPT_STRUCTURED:
                s->structured = true;
                reply(s, option, REP_ACK, 0);
                break;
        case OPT_LIST_META:
        case OPT_SET_META:
                reply_context(s, in, option, how);
                break;
        default:
                reply(s, option, REP_ERR_UNSUP, 0);
        }
}

static void chunk(struct scene *s, uint64_t cookie, uint16_t flags, uint16_t kind, uint32_t length)
{
        put(s, 0x668e33ef, 4);
        put(s, flags, 2);
        put(s, kind, 2);
        put(s, cookie, 8);
        put(s, length, 4);
}

/* In two pieces where there are two: data, or a hole. */
static void answer_read(struct scene *s, uint64_t cookie, uint64_t offset, uint32_t length,
                        uint8_t how)
{
        uint32_t first = how & 1 ? length / 2 : 0;

        if (first > 0) {
                chunk(s, cookie, 0, CHUNK_DATA, 8 + first);
                put(s, offset, 8);
                output_fill(&s->out, 1, first);
        }
        if (how & 2) {
                chunk(s, cookie, 1, CHUNK_HOLE, 12);
                put(s, offset + first, 8);
                put(s, length - first, 4);
        } else {
                chunk(s, cookie, 1, CHUNK_DATA, 8 + length - first);
                put(s, offset + first, 8);
                output_fill(&s->out, 2, length - first);
        }
}

/* How much there is of what, as the input says; or the same again and again, more than are kept. */
static void answer_status(struct scene *s, struct input *in, uint64_t cookie, uint8_t how)
{
        unsigned n = how & 8 ? MAP_MAX : how & 7;
        uint64_t length = 0;
        uint32_t flags = 0;

        chunk(s, cookie, 1, CHUNK_STATUS, 4 + 8 * n);
        put(s, how & 0x10 ? 2 : 1, 4);
        for (unsigned i = 0; i < n; i++) {
                if (i == 0 || !(how & 8)) {
                        length = input_number(in, UINT32_MAX);
                        flags = input_u8(in);
                }
                put(s, length, 4);
                put(s, flags, 4);
        }
}

static void answer_request(struct scene *s, struct input *in, uint8_t how)
{
        uint16_t kind = (uint16_t)get(s, 6, 2);
        uint64_t cookie = get(s, 8, 8), offset = get(s, 16, 8);
        uint32_t length = (uint32_t)get(s, 24, 4);
        size_t more = kind == CMD_WRITE ? length : 0;

        if (s->n_said - REQUEST_LEN < more)
                return;
        forget(s, REQUEST_LEN + more);
        if (how & 0x80) /* for another one */
                cookie += input_u8(in);
        if (!s->structured || (how & 0x20 && kind != CMD_READ && kind != CMD_BLOCK_STATUS)) {
                put(s, 0x67446698, 4);
                put(s, how & 0x40 ? input_u8(in) : 0, 4);
                put(s, cookie, 8);
                if (kind == CMD_READ && !(how & 0x40))
                        output_fill(&s->out, 1, length);
        } else if (how & 0x40) {
                chunk(s, cookie, 1, CHUNK_ERROR, 6);
                put(s, input_u8(in), 4);
                put(s, 0, 2);
        } else if (kind == CMD_READ) {
                answer_read(s, cookie, offset, length, how);
        } else if (kind == CMD_BLOCK_STATUS) {
                answer_status(s, in, cookie, how);
        } else {
                chunk(s, cookie, 1, CHUNK_NONE, 0);
        }
}

/* What is due next, if the client has said enough. */
static void play_answer(struct scene *s, struct input *in)
{
        uint8_t how = input_u8(in);

        listen_to(s);
        if (s->stage == GREETING) {
                greet(s, how);
        } else if (s->stage == FLAGS && s->n_said >= 4) {
                forget(s, 4);
                s->stage = OPTIONS;
        }
        if (s->stage == OPTIONS && s->n_said >= OPTION_LEN)
                answer_option(s, in, how);
        else if (s->stage == REQUESTS && s->n_said >= REQUEST_LEN)
                answer_request(s, in, how);
}

/* All is answered as is right, for one step or many. */
static void serve(struct scene *s, unsigned n)
{
        const uint8_t end = 0;
        struct input none = {&end, 0};

        while (n-- > 0) {
                play_answer(s, &none);
                send_all(s);
        }
}

/* One byte or more of what is to be sent says something else. */
static void spoil(struct scene *s, struct input *in)
{
        size_t at = input_number(in, s->out.n);
        const uint8_t *bytes;
        size_t n = input_take(in, 1 + (input_u8(in) & 7), &bytes);

        for (size_t i = 0; i < n && at + i < s->out.n; i++)
                s->out.bytes[at + i] = bytes[i];
}

static void say(struct scene *s, struct input *in)
{
        uint8_t kind = input_u8(in);
        const uint8_t *bytes;
        size_t n = input_take(in, kind & 31, &bytes);

        output_put(&s->out, bytes, n);
        if (n > 0 && kind >= 0xe0)
                output_fill(&s->out, bytes[0], n << 12);
}

static void hang_up(struct scene *s)
{
        if (s->server >= 0)
                close(s->server);
        s->server = -1;
}

/* ---- the play ---- */

static void play_end(struct scene *s, struct input *in)
{
        switch (input_u8(in) & 7) {
        case 0: /* with its last words, heard of at once with that */
                if (s->server >= 0)
                        (void)!send(s->server, s->out.bytes, s->out.n, MSG_DONTWAIT | MSG_NOSIGNAL);
                s->out.n = 0;
                hang_up(s);
                break;
        case 1:
                if (s->server >= 0)
                        shutdown(s->server, SHUT_WR);
                break;
        case 2:
                s->cancelled = true;
                break;
        case 3:
                if (s->image)
                        nbd_cut(s->image);
                break;
        }
}

static void play(struct scene *s, struct input *in)
{
        while (in->left > 0)
                switch (input_u8(in) & 15) {
                case 0 ... 2:
                        play_user(s, in);
                        break;
                case 3 ... 5:
                        play_answer(s, in);
                        break;
                case 6:
                        send_all(s);
                        break;
                case 7:
                        serve(s, input_u8(in) & 31);
                        break;
                case 8:
                        spoil(s, in);
                        break;
                case 9:
                        say(s, in);
                        break;
                case 10: /* a part of it now */
                        s->out.n = s->out.n * input_u8(in) / 256;
                        send_all(s);
                        break;
                case 11:
                        if (s->image)
                                nbd_forget_map(s->image);
                        break;
                case 12:
                        play_end(s, in);
                        break;
                case 13:
                        fuzz_loop_step(s->loop);
                        break;
                case 14:
                        fuzz_loop_settle(s->loop);
                        break;
                case 15:
                        fuzz_loop_advance(s->loop, input_u8(in) * UINT64_C(1000000000));
                }
}

static void begin(struct scene *s, bool write)
{
        int ends[2];

        if (!s->loop) {
                fuzz_quiet();
                s->loop = fuzz_loop_new();
        }
        s->lowest_fd = fuzz_lowest_fd();
        fuzz_loop_reset(s->loop);
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0)
                abort();
        s->client = ends[0];
        s->server = ends[1];
        s->image = NULL;
        s->opening = true;
        s->write = write;
        s->structured = false;
        s->cancelled = false;
        s->stage = GREETING;
        s->n_users = 0;
        s->n_said = s->out.n = 0;
        if (co_spawn(s->loop, co_open, s) < 0)
                abort();
}

/* With its server gone nothing is waited for; without a connection an image is closed at once. */
static void end(struct scene *s)
{
        send_all(s);
        hang_up(s);
        fuzz_loop_settle(s->loop);
        assert(!s->opening && s->n_users == 0);
        close(s->client);
        image_close(s->image);
        fuzz_loop_reset(s->loop);
        assert(fuzz_lowest_fd() == s->lowest_fd);
}

/* ---- texts ---- */

static const char *const words[] = {
    "nbd://",
    "nbds://",
    "nbd+unix://",
    "nbds+unix://",
    "nbd+vsock://",
    "localhost",
    ":10809",
    "/",
    "web",
    "?socket=",
    "/run/nbd.sock",
    "&",
    "tls-psk-file=",
    "tls-certificates=",
    "tls-hostname=",
    "%00",
    "%2f",
    "%",
    "[::1]",
    "alice@",
    "#",
    "?",
    "=",
    "tank/web@monday",
};

static void check_uri(struct input *in, struct output *out)
{
        struct error e = ERROR_INIT;
        char *name = NULL;
        int r;

        out->n = 0;
        while (in->left > 0)
                input_words(in, words, sizeof(words) / sizeof(words[0]), out);
        if (out->n == OUTPUT_MAX)
                out->n--;
        output_put(out, "", 1);
        if (!nbd_is_uri((char *)out->bytes))
                return;
        r = nbd_uri_check((char *)out->bytes, &name, &e);
        check_result(r, &e);
        assert((r == 0) == (name != NULL));
        free(name);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static struct scene scene; /* one at a time */
        struct input in = {data, size};
        uint8_t kind = input_u8(&in);

        if (kind & 2) {
                check_uri(&in, &scene.out);
                return 0;
        }
        begin(&scene, kind & 1);
        play(&scene, &in);
        end(&scene);
        return 0;
}
