/* server.h - the vhost-user-blk server over volumes in memory (tests/protocol/fake_pool.h), on a
 * loop and thread of its own, for tests that speak to it over real sockets.
 *
 * Devices: SERVER_VOL, of SERVER_BYTES and 4 queues, is the socket under test; SERVER_OTHER, the
 * same, for tests that watch a neighbour; SERVER_READONLY; SERVER_NO_DISCARD.
 *
 * Units      bytes; times are milliseconds.
 * Threads    the test's own calls; the server's loop runs on the fixture's thread.
 * Errors     what fails fails the running cmocka test.
 * Ownership  volumes are the fixture's; server_stop() releases all, and checks that nothing is left
 *            open: no volume, no descriptor, no mapping.
 */
#pragma once
#include "tests/protocol/fake_pool.h"
#include "vmm-glue/vhost-user/vhost_user.h"

#define SERVER_BYTES  (UINT64_C(64) << 20)
#define SERVER_QUEUES 4u

enum server_device { SERVER_VOL, SERVER_OTHER, SERVER_READONLY, SERVER_NO_DISCARD, SERVER_DEVICES };

struct server;

/* @options may be NULL. */
struct server *server_start(const struct vhost_server_options *options);
void server_stop(struct server *s);
const char *server_path(const struct server *s, enum server_device device);
struct volume *server_volume(struct server *s, enum server_device device);
/* The device's size is another from now on: volume and guests learn of it. */
void server_resize(struct server *s, enum server_device device, uint64_t n_bytes);
/* Hang up on the front ends, as a stop in order does. */
void server_disconnect(struct server *s, enum server_device device);
/* Front ends connected, to any device. */
unsigned server_n_clients(struct server *s);
/* Wait until as many are connected. */
void server_wait_clients(struct server *s, unsigned n);
/* Return once the loop has come round: it has seen what was there before the call. */
void server_turn(struct server *s);

/* For cmocka: *state is the server, and SERVER_VOL the socket under test. At the end another device
 * is served, and then nothing may be left open. */
int server_setup(void **state);
int server_teardown(void **state);

/* For a test that takes guest memory away: give the server its SIGBUS handler back, in whose place
 * cmocka has put its own for the time of the test. */
void server_take_sigbus(void);

/* Of a process, 0 being this one: descriptors that are open, and pieces of memory that are mapped. */
unsigned server_n_fds(pid_t pid);
unsigned server_n_mappings(pid_t pid);
/* Wait until as many descriptors are open in it. */
void server_wait_fds(pid_t pid, unsigned n);
