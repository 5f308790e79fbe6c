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
/* From one server to the next, of this process: begin to save the front ends; wait for that to end;
 * have them again, held; go on. Between the end of saving and server_restore() there is no device. */
void server_save(struct server *s, enum server_device device);
bool server_is_saved(struct server *s, enum server_device device);
void server_wait_saved(struct server *s, enum server_device device);
void server_restore(struct server *s, enum server_device device);
void server_go(struct server *s, enum server_device device);
/* Restore the one front end that was saved from the first @n_bytes of what was kept of it, on other
 * descriptors of the same files, and hang up on it. How much was kept is returned. */
size_t server_restore_part(struct server *s, enum server_device device, size_t n_bytes);
const uint8_t *server_saved_bytes(struct server *s, enum server_device device);
/* The same from @n_records records of any kind, each of @n_bytes bytes of payload and with @n_fds
 * descriptors, behind the first @n_kept bytes of what was kept of it. */
void server_restore_odd(struct server *s, enum server_device device, size_t n_kept,
                        uint32_t request, unsigned n_records, uint32_t n_bytes, uint32_t n_fds);
/* What the device offers to who comes from now on. */
void server_set_discard(struct server *s, enum server_device device, bool discard);
/* Front ends connected, to any device; and those of them that have hung up. */
unsigned server_n_clients(struct server *s);
unsigned server_n_left(struct server *s);
/* Wait until as many are connected. */
void server_wait_clients(struct server *s, unsigned n);
/* Nothing of it runs, from the return of the first to the call of the second. */
void server_halt(struct server *s);
void server_go_on(struct server *s);
/* Return once the loop has come round: it has seen what was there before the call. */
void server_turn(struct server *s);
/* Call @f(@arg) in its thread. */
void server_run(struct server *s, void (*f)(void *arg), void *arg);

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
