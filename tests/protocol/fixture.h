/* fixture.h - an NBD server over volumes in memory, on a loop and thread of its own, for tests that
 * speak to it over a real socket.
 *
 * The exports are fake_exports.h's; "pool/vol" has VOL_BYTES, "pool/big" BIG_BYTES.
 *
 * Units      bytes; times are milliseconds.
 * Threads    the test's own calls; the server's loop runs on the fixture's thread.
 * Errors     what fails fails the running cmocka test.
 * Ownership  volumes are the fixture's; fixture_stop() releases all.
 */
#pragma once
#include "nbd-server/nbd_server.h"
#include "tests/protocol/fake_pool.h"

#define VOL_BYTES           (UINT64_C(64) << 20)
#define BIG_BYTES           (UINT64_C(16) << 30)
#define FIXTURE_DESCRIPTION "the test's volume"

struct fixture;

/* @options may be NULL; with further loops, the volumes are on the first of them. Listens on a Unix socket, and on TCP on the loopback. */
struct fixture *fixture_start(const struct nbd_server_options *options);
/* Stops the server with @timeout_ms, and checks that it has let go of all that it opened. */
void fixture_stop(struct fixture *fixture, unsigned timeout_ms);
/* Begin to stop, and return once the server has begun; fixture_stop() then waits for the end. */
void fixture_begin_stop(struct fixture *fixture, unsigned timeout_ms);
/* The same for co_nbd_server_leave(). */
void fixture_begin_leave(struct fixture *fixture, unsigned timeout_ms);
void fixture_wait_stopped(struct fixture *fixture);

const char *fixture_path(const struct fixture *fixture); /* of the Unix socket */
unsigned fixture_port(const struct fixture *fixture);    /* on 127.0.0.1 */
struct volume *fixture_volume(struct fixture *fixture);  /* pool/vol */
struct volume *fixture_snapshot(struct fixture *fixture);
struct volume *fixture_big(struct fixture *fixture);

/* Run f(arg) on the server's loop, and wait for it; for co_: as a coroutine. */
void fixture_run(struct fixture *fixture, void (*f)(void *arg), void *arg);
void fixture_run_co(struct fixture *fixture, void (*co_f)(void *arg), void *arg);
struct loop *fixture_loop(struct fixture *fixture);
struct nbd_server *fixture_server(struct fixture *fixture);
/* Cut off the clients of an export, and return when that has begun. */
void fixture_begin_cut(struct fixture *fixture, const char *export_name);
unsigned fixture_n_clients(struct fixture *fixture);
unsigned fixture_n_left(struct fixture *fixture);  /* of those, that have hung up */
unsigned fixture_n_open(struct fixture *fixture);  /* exports opened and not closed */
unsigned fixture_n_held(struct fixture *fixture);  /* snapshots of contexts, likewise */
unsigned fixture_n_asked(struct fixture *fixture); /* times that one was to be opened */
/* The @i-th identity of the client that opened an export last; "" behind the last. */
const char *fixture_identity(struct fixture *fixture, unsigned i);
/* Have this many snapshots more. */
void fixture_snapshots_extra(struct fixture *fixture, unsigned n);
/* Wait until no more than @n are connected. */
void fixture_wait_left(struct fixture *fixture, unsigned n);
/* Wait until nobody is: then no export is open. */
void fixture_wait_gone(struct fixture *fixture);
/* For cmocka: *state is a fixture with the options' defaults. */
int fixture_setup(void **state);
int fixture_teardown(void **state);
/* List this many exports more. */
void fixture_list_extra(struct fixture *fixture, unsigned n);
