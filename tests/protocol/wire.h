/* wire.h - an NBD client that does just what a test says, byte by byte, right or wrong.
 *
 * Units      bytes.
 * Threads    one a connection; blocking.
 * Errors     what the server must not do fails the running cmocka test; so does a server that stays
 *            silent for HANG_S seconds. uint32_t results are errors of the protocol.
 * Ownership  release a connection with wire_close().
 * Source     doc/proto.md of NetworkBlockDevice/nbd, master and branch extension-ext-header. Debian 12
 *            has no other client of extended headers (libnbd 1.14), so these are tested by this alone.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "nbd-server/protocol.h"

#define HANG_S 30

/* What stands between the bytes and the socket, where something does: as recv(2) and send(2), with
 * errno. */
struct wire_layer {
        ssize_t (*receive)(void *arg, void *data, size_t length);
        ssize_t (*send)(void *arg, const void *data, size_t length);
        void *arg;
};

struct wire {
        int fd;
        bool structured;                /* replies in chunks are agreed on */
        bool extended;                  /* and headers of the longer form, both ways */
        const struct wire_layer *layer; /* NULL: nothing; the layer's maker owns it */
};

struct wire *wire_connect(const char *path);
struct wire *wire_connect_tcp(unsigned port);
void wire_close(struct wire *w);

void wire_send(struct wire *w, const void *data, size_t length);
/* As wire_send(), but the server may have closed: then false. */
bool wire_try_send(struct wire *w, const void *data, size_t length);
void wire_receive(struct wire *w, void *data, size_t length);
/* As wire_receive(), but the server may have closed: then false. */
bool wire_try_receive(struct wire *w, void *data, size_t length);
/* The server closes; nothing more comes before. */
void wire_expect_closed(struct wire *w);
/* Read whatever comes until the server closes. */
void wire_drain(struct wire *w);
/* Has the server closed? Does not wait; nothing else may come. */
bool wire_ended(struct wire *w);
void wire_shutdown_send(struct wire *w);
/* Has anything come that is not yet read? Does not wait. */
bool wire_pending(struct wire *w);
/* Bytes that the server has not received yet. */
size_t wire_unsent(struct wire *w);

/* ---- handshake ---- */

/* Take the greeting, check it, and answer with @client_flags. */
void wire_greet(struct wire *w, uint32_t client_flags);
/* Connected, and greeted as clients of today do. */
struct wire *wire_greeted(const char *path);
void wire_option(struct wire *w, uint32_t option, const void *data, size_t length);

struct wire_reply {
        uint32_t type, length;
        uint8_t data[8192]; /* with a NUL behind it */
};
void wire_reply(struct wire *w, uint32_t option, struct wire_reply *ret_reply);
/* Skip what comes before the final reply; its type. */
uint32_t wire_final(struct wire *w, uint32_t option);
/* Send an option and return the type of its one reply. */
uint32_t wire_ask(struct wire *w, uint32_t option, const void *data, size_t length);

/* Data of INFO and GO; *ret_length bytes in @data. */
size_t wire_info_data(uint8_t *data, const char *name, const uint16_t *requests, uint16_t n);
/* Data of LIST_META_CONTEXT and SET_META_CONTEXT; queries end with NULL. */
size_t wire_meta_data(uint8_t *data, const char *name, const char *const *queries);
/* Select base:allocation for the export. */
void wire_set_meta(struct wire *w, const char *name);
void wire_structured(struct wire *w);
void wire_extended(struct wire *w); /* agree on extended headers */
/* GO, and the size and flags that it gives. */
void wire_go(struct wire *w, const char *name, uint64_t *ret_size, uint16_t *ret_flags);

/* Connect, greet, agree on structured replies where asked, select base:allocation with them, go. */
struct wire *wire_open(const char *path, const char *name, bool structured);
/* The same with extended headers. */
struct wire *wire_open_extended(const char *path, const char *name);

/* ---- transmission ---- */

/* In the form agreed on. */
void wire_request(struct wire *w, uint16_t type, uint16_t flags, uint64_t cookie, uint64_t offset,
                  uint64_t length);
void wire_write(struct wire *w, uint16_t flags, uint64_t cookie, uint64_t offset, const void *data,
                uint32_t length);

struct wire_answer {
        bool structured;
        uint16_t flags, type; /* of the chunk */
        uint64_t cookie;
        uint64_t request_offset; /* extended: the request's */
        uint32_t error;          /* simple reply, or error chunk */
        uint32_t length;         /* of the chunk's payload */
        uint64_t offset;         /* OFFSET_DATA */
        char text[4097];         /* of an error chunk */
};
/* The head of the next reply. Of error chunks all is read, of OFFSET_DATA the offset, of others
 * nothing. */
void wire_answer(struct wire *w, struct wire_answer *ret_answer);
/* A reply without data, to @cookie, that ends it: its error. */
uint32_t wire_result(struct wire *w, uint64_t cookie);
/* A request without payload in either direction, and a write; awaited: the error. */
uint32_t wire_command(struct wire *w, uint16_t type, uint16_t flags, uint64_t offset,
                      uint32_t length);
uint32_t wire_write_wait(struct wire *w, uint16_t flags, uint64_t offset, const void *data,
                         uint32_t length);
/* Read and wait: the error, or the data in full. */
uint32_t wire_read(struct wire *w, uint16_t flags, uint64_t offset, void *data, uint32_t length);
/* The reply to a read of @length that is on its way, likewise. */
uint32_t wire_read_result(struct wire *w, uint64_t cookie, uint64_t offset, void *data,
                          uint32_t length);
/* Block status of a connection with one context and wait: the error, or the number of extents. */
uint32_t wire_status(struct wire *w, uint16_t flags, uint64_t offset, uint32_t length,
                     struct nbd_status_descriptor *extents, unsigned n_max, unsigned *ret_n);

/* One chunk of a block status, in either form, with numbers of this host. */
struct wire_extent {
        uint64_t length, flags;
};
struct wire_context {
        uint32_t id;
        bool last; /* the reply ends with it */
        unsigned n;
        struct wire_extent extents[2048];
};
/* The next chunk of the reply to @cookie: the error, or 0 and the chunk. */
uint32_t wire_status_chunk(struct wire *w, uint64_t cookie, struct wire_context *ret_context);
/* One that works: the connection is alive. */
void wire_expect_alive(struct wire *w);
