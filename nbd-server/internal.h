/* internal.h - what the files of nbd-server share: the server, its clients, their requests.
 *
 * A client is one connection. One coroutine goes with it from accept to close: it negotiates, then
 * sleeps while requests are served by callbacks alone, and wakes for the few that may have to wait
 * (BLOCK_STATUS, CACHE) and for the end. README.md has the numbered rules that comments cite.
 *
 * Units      bytes.
 * Threads    a client negotiates, and ends, on the server's loop, and is served on its worker's
 *            (worker.c). What a client has belongs to the loop where it is, but for what struct
 *            nbd_client says otherwise.
 * Errors     -errno inside; numbers of the protocol (uint32_t, errno.c) towards the peer.
 * Ownership  a server owns its clients, a client its requests; a request's buffer is the server's.
 */
#pragma once
#include "common/buffers.h"
#include "common/coroutine.h"
#include "common/log.h"
#include "nbd-server/nbd_server.h"
#include "nbd-server/protocol.h"

/* Ceilings on what a peer may ask of us; README.md, rules 3, 4 and 9. */
#define OPTION_LENGTH_MAX  (64u << 10) /* bytes of one option's data */
#define OPTIONS_MAX        64u         /* options a connection */
#define LIST_REPLY_MAX     (1u << 20)  /* bytes of all the replies to one option */
#define PAYLOAD_MAX        (32u << 20) /* advertised; proto.md calls less than this no attack */
#define RECEIVE_BUFFER     (256u << 10)
#define SMALL_PAYLOAD_MAX  (64u << 10) /* up to this received with the headers and copied */
#define STATUS_EXTENTS_MAX 2048u       /* in one BLOCK_STATUS reply, over all its contexts */
#define CONTEXTS_MAX       64u         /* selected on a connection; a bit each in a request */
#define CACHED_BYTES_MAX   (16u << 20) /* of unused buffers the server keeps while it is busy */
#define ERROR_TEXT_MAX     120u
#define REPLY_IOV_MAX      1024u /* UIO_MAXIOV: of one sendmsg */

static_assert(PAYLOAD_MAX <= VOLUME_REQUEST_MAX, "a request goes to the engine whole");
static_assert(SMALL_PAYLOAD_MAX + sizeof(struct nbd_extended_request) <= RECEIVE_BUFFER,
              "receive.c");

static_assert((BUFFERS_PAGE << (BUFFERS_CLASSES - 1)) == PAYLOAD_MAX,
              "largest payload, largest class");
static_assert(BUFFERS_PAGE == POOL_BLOCK, "the engine takes them as they are");

/* ---- metadata contexts (meta.c) ---- */

enum context_kind {
        CONTEXT_ALLOCATION, /* base:allocation */
        CONTEXT_DEPTH,      /* qemu:allocation-depth */
        CONTEXT_CHANGED,    /* qemu:dirty-bitmap:SNAP */
};
struct meta_context {
        enum context_kind kind;
        struct volume
            *since; /* CONTEXT_CHANGED: the snapshot, held open; deleted, it is there still */
        char snapshot[POOL_NAME_MAX + 1]; /* its name as it was asked for; else empty */
};

/* ---- requests ---- */

/* Of an error's chunk in the longer form; no other head is as long. */
#define REPLY_HEAD_MAX                                                                             \
        (sizeof(struct nbd_extended_chunk) + sizeof(struct nbd_payload_error) + ERROR_TEXT_MAX)

struct nbd_request {
        /* in the client's free, slow or replies list; in none while the engine has it */
        struct list link;
        struct nbd_client *client;
        be64 cookie;
        uint16_t flags, type;
        uint64_t offset, length; /* of the effect */
        uint64_t wire_payload;   /* bytes that follow the header */
        uint64_t contexts;       /* of a BLOCK_STATUS: bit i for the client's context i */
        struct volume_request io;
        struct iovec iov;
        uint64_t done_bytes; /* of what is done slice by slice */
        void *buffer;        /* of buffers_class_bytes(class); NULL where it needs none */
        unsigned class;
        /* The reply: head, then payload_bytes of buffer. */
        unsigned head_bytes;
        size_t payload_bytes;
        uint8_t head[REPLY_HEAD_MAX];
};

/* ---- clients ---- */

enum client_state {
        CLIENT_NEGOTIATING, /* from accept: the coroutine exchanges options */
        CLIENT_RUNNING,     /* set by client_transmit(): requests are received and served */
        /* set on DISC and end of stream: none are received, replies still go out */
        CLIENT_FINISHING,
        CLIENT_DEAD, /* set where the socket failed or was cut: waits for engine and kernel only */
};

struct nbd_client {
        /* the server's loop: these, has_export and export.name */
        struct list link; /* server->clients */
        bool placed;      /* on its worker's loop, or on the way there or back */
        bool returned;    /* it has ended there: nothing of it is left to be cut or stopped */
        bool told_to_stop, told_to_end;
        struct loop_task stop_task, end_task; /* posted to the worker's loop */
        const char *end_why;

        struct nbd_server *server;
        struct nbd_worker *worker; /* the server's first while it negotiates */
        struct list worker_link;   /* worker->clients */
        uint64_t id;
        int fd;
        struct rights *rights; /* NULL: the socket passes no descriptors */
        enum client_state state;
        char peer[128];
        const char *ended_by; /* why the connection ended, for the log; NULL: the client's wish */
        struct loop_timer deadline; /* of the negotiation */

        /* negotiation (negotiate.c, options.c, meta.c) */
        struct loop_io *negotiation_io; /* in flight; for the deadline to cancel */
        bool between_options; /* nothing of the next one, or of the client's flags, has come */
        bool tls_required;    /* and no option but STARTTLS is served before it */
        struct tls *tls;      /* NULL: a plain connection */
        unsigned n_options;
        bool fixed_newstyle; /* it says that it speaks it; without, TLS is not for it */
        bool no_zeroes;
        bool structured; /* replies in chunks are agreed */
        bool extended;   /* with headers of 64-bit lengths; then structured is set, too */
        /* selected for the export meta_name: up to CONTEXTS_MAX, malloc'ed; NULL: none. Their ids
         * on the wire are their places, from 1. */
        struct meta_context *contexts;
        unsigned n_contexts;
        char *meta_name;

        /* the export, from GO or EXPORT_NAME on */
        bool has_export;
        struct nbd_export export;
        uint64_t size; /* that the client was told: what it may address, whatever is there by now */

        /* receiving (receive.c) */
        uint8_t *receive_buffer;           /* RECEIVE_BUFFER bytes, mapped */
        size_t receive_start, receive_end; /* received and not yet parsed */
        struct loop_io receive_io;
        struct iovec receive_iov;
        bool receiving;
        bool stalled;    /* the next request waits for a slot or for bytes */
        bool unanswered; /* a request was given up at the server's stop: the connection is to end */
        bool hung_up;    /* the stream ended without a DISC: what takes long is not finished */
        /* the last write was large: do not take the next one's payload into the buffer */
        bool large_last;
        uint64_t skip_bytes; /* payload of a refused request, still to be taken off the wire */
        /* and the request: answered once that is done, as libnbd takes no reply to what it is still
         * sending */
        struct nbd_request *refused;
        struct nbd_request *payload; /* a large write whose payload is being received in place */
        size_t payload_have;

        /* requests */
        struct nbd_request *requests; /* options.max_requests of them */
        struct list free, slow, replies;
        unsigned n_slots_used;    /* those behind were never taken: not in free, not touched */
        unsigned n_requests;      /* taken and not yet released */
        uint64_t bytes_in_flight; /* their buffers */
        struct list starved; /* in worker->starved while it waits for others to give memory back */

        /* sending (reply.c) */
        struct loop_task send_task;
        struct loop_io send_io;
        struct iovec *send_iov; /* two a request */
        bool sending;
        size_t sent_bytes; /* of the first in replies */

        /* the coroutine sleeps here during transmission */
        struct co_queue wake;
        /* between two ticks of memory.c */
        bool active; /* something came in */
        /* over the socket, in all; and as of the last tick at which it moved enough */
        uint64_t moved_bytes, tick_moved_bytes;
        unsigned stuck_ticks;
        struct loop_timer idle; /* idle.c's, these three; moved_bytes as of its last look */
        uint64_t idle_moved_bytes;
        unsigned idle_looks; /* in a row at which nothing had happened */

        /* changed on the worker's loop by counter_add(), read on any */
        uint64_t reads, writes, flushes, read_bytes, write_bytes;
};

static inline void counter_add(uint64_t *counter, uint64_t n)
{
        __atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}
static inline uint64_t counter_get(const uint64_t *counter)
{
        return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

/* A loop on which clients are served. */
struct nbd_worker {
        struct nbd_server *server;
        struct loop *loop;
        unsigned n_placed;   /* clients. The server's loop */
        struct list clients; /* that are being served here */
        /* memory.c */
        struct buffers buffers;
        uint64_t bytes_in_flight; /* of all its clients */
        uint64_t max_bytes;       /* its share of max_total_bytes */
        struct list starved;      /* clients that wait for bytes, in turn */
        struct loop_task starved_task;
        struct loop_timer tick;
        bool ticking;
};

struct nbd_server {
        struct loop *loop;
        struct nbd_server_options options; /* no zeroes left */
        struct nbd_exports exports;
        struct list listeners;
        struct list clients;
        struct nbd_worker *workers; /* the first is on the server's own loop */
        unsigned n_workers;
        unsigned n_clients, n_negotiating;
        uint64_t last_id;
        struct log_limit log_limit;
        atomic_bool stopping;
        atomic_bool leaving; /* others go on where it stops: what has not begun is not answered */
        struct loop_timer timer; /* accept again; while stopping: cut off */
        struct co_queue gone;    /* woken whenever a client or a listener goes */
};

/* server.c */
void server_client_add(struct nbd_client *client); /* negotiating */
/* one negotiation less, for good or ill */
void server_client_negotiated(struct nbd_server *server);
void server_client_gone(struct nbd_client *client); /* off the lists */
/* Asked before each line that a peer can cause; false: there have been LOG_LIMIT_LINES this second.
 */
bool server_may_log(struct nbd_server *server);

/* client.c */
/* Takes over @fd. On failure it is closed, and the reason logged. */
void client_new(struct nbd_server *server, int fd);
/* No more from this socket: whatever is in flight ends soon. @why NULL: nothing to report. Frees
 * nothing at once, and may be called from anywhere on the client's loop. */
void client_cut(struct nbd_client *client, const char *why);
/* The server stops: end what idles, let others finish. */
void client_stop(struct nbd_client *client);
/* Has anything come that was not looked at yet? */
bool client_input_waits(const struct nbd_client *client);
/* Closed, or shut both ways: unlike one who only sends no more, he waits for no answer. */
bool client_peer_is_gone(const struct nbd_client *client);
/* Called whenever something of the client ended; wakes its coroutine where that was the last. */
void client_check_end(struct nbd_client *client);
/* It is idle: give back what memory can be done without. */
void client_trim(struct nbd_client *client);
/* Nobody waits for the rest of what it asked for. */
static inline bool client_is_gone(const struct nbd_client *client)
{
        return client->state == CLIENT_DEAD || client->hung_up;
}
static inline bool client_has_slot(const struct nbd_client *client)
{
        return client->n_requests < client->server->options.max_requests;
}
struct nbd_request *client_take_slot(struct nbd_client *client);

/* worker.c */
int workers_new(struct nbd_server *server, struct error *err);
void workers_free(struct nbd_server *server);
/* All clients have ended. */
void co_workers_stop(struct nbd_server *server);
/* The client has negotiated: take it, with the calling coroutine, to the worker that will serve it.
 * -ENOMEM */
int co_worker_take(struct nbd_client *client);
/* And back to the server's loop. */
void co_worker_return(struct nbd_client *client);
/* client_cut() and client_stop(), from the server's loop, wherever the client is. */
void worker_cut(struct nbd_client *client, const char *why);
void worker_stop_client(struct nbd_client *client);

/* memory.c */
void memory_start(struct nbd_worker *worker);
void co_memory_stop(struct nbd_worker *worker); /* no client is left */
/* May a request with a buffer of @length begin? Where others must give back first, the client waits
 * in turn and receive_resume() is called. */
bool memory_admits(struct nbd_client *client, size_t length);
int memory_take(struct nbd_request *request, size_t length); /* -ENOMEM */
void memory_give(struct nbd_request *request);               /* its buffer, if it has one */
void memory_withdraw(struct nbd_client *client);             /* it waits no more */
void memory_touch(struct nbd_client *client);                /* something came in */

/* idle.c, on the worker's loop: from the beginning of transmission to its end */
void idle_start(struct nbd_client *client);
void idle_stop(struct nbd_client *client);

/* negotiate.c: 0 with the export chosen, or negative: close the connection. */
int co_negotiate(struct nbd_client *client);

/* options.c */
/* Replies to options, gathered to be sent at once; bounded by LIST_REPLY_MAX. */
struct option_replies {
        uint8_t *data;
        size_t length, capacity;
        bool failed; /* no memory, or too long */
};
void replies_add(struct option_replies *replies, const void *data, size_t length);
void replies_option(struct option_replies *replies, uint32_t option, uint32_t type,
                    uint32_t length);
void replies_error(struct option_replies *replies, uint32_t option, uint32_t type,
                   const char *format, ...) __attribute__((format(printf, 4, 5)));

enum option_outcome {
        OPTION_CONTINUE,
        OPTION_TRANSMIT,  /* after the replies: transmission */
        OPTION_CLOSE,     /* after the replies: close */
        OPTION_START_TLS, /* after the reply: TLS */
};
struct option {
        uint32_t number;
        const uint8_t *data;
        uint32_t length;
};
/* The reply that says why it failed: err's sentence where there is one. */
void replies_errno(struct option_replies *replies, const struct option *option, int error,
                   const struct error *err, const char *otherwise);
/* A name of the option's data: malloc'ed, with NUL. A failure has been replied.
 *
 * -EINVAL  it holds a NUL
 * -E2BIG   longer than a string may be
 * -ENOMEM */
int option_name(struct option_replies *replies, const struct option *option, const uint8_t *name,
                size_t length, char **ret_name);
/* Open the export for the option; where that fails, replies and returns a negative errno. */
int co_option_open(struct nbd_client *client, struct option_replies *replies,
                   const struct option *option, const char *name, struct nbd_export *ret_export);
void co_option_close(struct nbd_client *client, struct nbd_export *export);
enum option_outcome co_option(struct nbd_client *client, const struct option *option,
                              struct option_replies *replies);

/* meta.c */
enum option_outcome co_option_meta_context(struct nbd_client *client, const struct option *option,
                                           struct option_replies *replies);
void co_meta_forget(struct nbd_client *client);

/* receive.c */
void receive_start(struct nbd_client *client);
/* A slot or bytes came free. */
void receive_resume(struct nbd_client *client);

/* rights.c */
/* A listening socket: those who connect from now on pass no descriptors, where the kernel is new
 * enough. */
void rights_refuse(int listener);
/* A new client, who may pass some. -ENOMEM */
int rights_expect(struct nbd_client *client);
/* Before a receive of the client's is submitted for the first time. */
void rights_arm(const struct nbd_client *client, struct loop_io *io);
/* When it has ended: what came is closed, the client is cut off for it, and it is armed anew. */
void rights_take(struct nbd_client *client, struct loop_io *io, int result);
void rights_close(int fd); /* a client's socket, in whose queue some may lie */

/* execute.c */
/* Check everything about a request but its payload. 0 or an NBD error, with a sentence. */
uint32_t request_check(const struct nbd_request *request, char text[ERROR_TEXT_MAX]);
/* What the client may address now: as much as it was told, unless the volume has shrunk since. */
uint64_t request_limit(const struct nbd_client *client);
/* Bytes of buffer that the request will take; 0 where it will be refused anyhow. */
size_t request_buffer_bytes(uint16_t type, uint64_t length);
/* Hand a checked request with its buffer over to the engine. */
void request_execute(struct nbd_request *request);
/* From the client's coroutine: the requests that may have to wait. */
void co_request_execute_slow(struct nbd_request *request);
/* The engine failed it. */
void request_fail(struct nbd_request *request, int result);

/* status.c */
#define STATUS_BYTES                                                                               \
        (STATUS_EXTENTS_MAX * sizeof(struct volume_extent) +                                       \
         CONTEXTS_MAX *                                                                            \
             (sizeof(struct nbd_extended_chunk) + sizeof(struct nbd_payload_status_ext)))
/* The payload of a BLOCK_STATUS, all of it: effect length and contexts go to the request. */
uint32_t status_take_payload(struct nbd_request *request, const uint8_t *payload,
                             char text[ERROR_TEXT_MAX]);
void co_block_status(struct nbd_request *request);

/* reply.c */
/* A reply that is formed goes out. */
void reply_queue(struct nbd_request *request);
void reply_success(struct nbd_request *request);
void reply_error(struct nbd_request *request, uint32_t error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void reply_read(struct nbd_request *request);
/* None: the server stops, and who connects again asks the next one. */
void reply_never(struct nbd_request *request);
/* The chunks of the reply lie at the start of the request's buffer, ready. */
void reply_chunks(struct nbd_request *request, size_t length);
/* Write the head of a chunk at @at, in the form that the client agreed on; its length. */
size_t reply_put_chunk(const struct nbd_request *request, void *at, uint16_t flags, uint16_t type,
                       size_t length);
void reply_send_task(struct loop_task *task);
void reply_send_done(struct loop_io *io, int result);
void request_release(struct nbd_request *request);
/* Give up all replies that are not sent. */
void reply_drop_all(struct nbd_client *client);

/* errno.c */
uint32_t nbd_error_from_errno(int error, bool fast_zero);
