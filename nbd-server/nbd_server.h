/* nbd_server.h - volumes over NBD, fixed newstyle negotiation.
 *
 * Units      bytes; times are milliseconds where the name says _ms.
 * Threads    a server lives on one loop: all functions and callbacks here are of that. Connections
 *            are served there or on others, as its options say.
 * Errors     0 or -errno with a sentence. What a peer sends is never an error of the server: it is
 *            answered, or the connection is dropped and the reason logged.
 * Ownership  the embedding program says what names mean (struct nbd_exports) and owns the pools.
 * Source     doc/proto.md of NetworkBlockDevice/nbd.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "common/error.h"
#include "common/loop.h"
#include "nbd-server/nbd_tls.h"
#include "pool/pool.h"

struct nbd_server;
struct nbd_client;

/* One opened export; filled by co_open, given back to co_close. */
struct nbd_export {
        struct volume *volume;
        bool readonly;
        char name[256];        /* canonical: POOL/VOL or POOL/VOL@SNAP */
        char description[256]; /* empty where there is none */
        void *priv;            /* the embedder's */
};

struct nbd_exports {
        /* Resolve an export's name and open it: @to_use, for the rest of the connection, or for one
         * answer about it, and then it is closed at once.
         *
         * -ENOENT  unknown
         * -EPERM   not for this client */
        int (*co_open)(void *arg, const char *name, bool to_use, struct nbd_client *client,
                       struct nbd_export *ret_export, struct error *err);
        void (*co_close)(void *arg, struct nbd_export *export);
        /* Every export for NBD_OPT_LIST; a non-zero answer of each() ends the walk. */
        int (*co_list)(void *arg, struct nbd_client *client,
                       int (*each)(const char *name, const char *description, void *each_arg),
                       void *each_arg, struct error *err);
        /* A snapshot of the export's volume by its own name (SNAP of VOL@SNAP), for what changed since.
         * The export may be closed before it is.
         *
         * -ENOENT  there is none */
        int (*co_snapshot_open)(void *arg, const struct nbd_export *export, const char *snapshot,
                                struct volume **ret_volume, struct error *err);
        void (*co_snapshot_close)(void *arg, struct volume *snapshot);
        /* Every snapshot of the export's volume; a non-zero answer of each() ends the walk and is
         * returned. */
        int (*co_snapshot_list)(void *arg, const struct nbd_export *export,
                                int (*each)(const char *snapshot, void *each_arg), void *each_arg,
                                struct error *err);
        void *arg;
};

/* Zero means the default in brackets, where there is one. */
struct nbd_server_options {
        unsigned max_connections;      /* [1024] */
        unsigned max_handshakes;       /* connections still negotiating [64] */
        unsigned handshake_timeout_ms; /* for the whole negotiation [10,000] */
        unsigned idle_timeout_ms;      /* of a connection with nothing in flight; 0: none */
        unsigned max_requests;         /* in flight a connection [128] */
        uint64_t max_bytes;            /* in flight a connection [64 MiB] */
        uint64_t max_total_bytes;      /* in flight on all of them [512 MiB] */
        /* Loops, beside the server's own, on which connections may be served: the array is for
         * nbd_server_new() only, the loops in use until co_nbd_server_stop() has returned. Each loop
         * has its share of max_total_bytes. */
        struct loop *const *loops;
        unsigned n_loops;
        enum nbd_tls_mode tls_mode; /* [off] */
        struct nbd_tls *tls;        /* the server takes its own reference */
};

int nbd_server_new(struct loop *loop, const struct nbd_server_options *options,
                   const struct nbd_exports *exports, struct nbd_server **ret_server,
                   struct error *err);

/* Accept on a listening stream socket; the server owns the descriptor from now on,
 * also on failure. */
int nbd_server_listen(struct nbd_server *server, int fd, struct error *err);

/* The sockets that it accepts on, in the order in which they came, which stay its own; their number.
 */
size_t nbd_server_sockets(const struct nbd_server *server, int *ret_fds, size_t max);

/* Credentials for connections that come from now on. */
void nbd_server_set_tls(struct nbd_server *server, struct nbd_tls *tls);

/* Stop accepting, let each connection finish what it has in flight, answer what comes with
 * ESHUTDOWN, close; connections that have not ended after @timeout_ms are cut off. Nothing of the
 * server runs afterwards. */
void co_nbd_server_stop(struct nbd_server *server, unsigned timeout_ms);
/* The same where another server may go on with the exports: requests that have begun are answered, the
 * others are not, and the connections end. Clients that connect again repeat them; to an ESHUTDOWN
 * they would believe that there is nobody to repeat it to. */
void co_nbd_server_leave(struct nbd_server *server, unsigned timeout_ms);
void nbd_server_free(struct nbd_server *server); /* after stop; NULL is fine */

/* Who is connected. Valid during the call. */
struct nbd_client_info {
        struct nbd_client *client;
        uint64_t id;
        char peer[128];          /* "unix pid 4711", "127.0.0.1:40022" */
        const char *export_name; /* NULL while negotiating */
        bool readonly;
        uint64_t reads, writes, flushes, read_bytes, write_bytes;
};
void nbd_server_each_client(struct nbd_server *server,
                            void (*each)(const struct nbd_client_info *info, void *arg), void *arg);
/* What the client has proved to be by TLS, in turn, NULL behind the last: "psk:NAME" of a key;
 * "dn:", "cn:", "dns:", "email:", "uri:" of a certificate. None without TLS, or without either. */
const char *nbd_client_identity(const struct nbd_client *client, unsigned i);
const char *nbd_client_peer(const struct nbd_client *client); /* "unix pid 4711" */
/* It has closed its end, or ours is shut: what it had open is closed in a moment. Any thread, while an
 * export of the client's is open. */
bool nbd_client_has_left(const struct nbd_client *client);
/* The export @old_name, and those named @old_name@..., have other names from now on. */
void nbd_server_rename_exports(struct nbd_server *server, const char *old_name,
                               const char *new_name);
/* Cut off every client of the export whose canonical name is @export_name, and wait until they are
 * gone. */
void co_nbd_server_disconnect(struct nbd_server *server, const char *export_name);
