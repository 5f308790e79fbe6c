/* control.h - the control socket of 'tarn serve': JSON, one object a line, descriptors by
 * SCM_RIGHTS.
 *
 * A client sends a request and gets, perhaps after lines of progress, one reply; then it may send
 * another:
 *
 *         {"progress":{"done":..,"total":..}}     and "verifying":true while a copy is compared
 *         {"ok":true,...} or {"error":{"code","message","hint"}}
 *
 * Units      a line is bytes up to and with its newline.
 * Threads    the host's loop. What stands under "both ends" is for [any thread], and blocks.
 * Errors     0 or -errno. What a client sends is never an error of the server: it is answered, or
 *            the client is dropped.
 * Limits     CONTROL_CLIENTS_MAX clients; CONTROL_LINE_MAX bytes a line; COMMAND_FDS_MAX
 *            descriptors a request. A client that hangs up holds up nobody: short commands end,
 *            long ones are cancelled.
 * Ownership  a control owns its socket and its clients; descriptors that came with a request are
 *            closed once it is answered.
 * Source     docs/control.md is the reference.
 */
#pragma once
#include "server/command.h"
#include "server/handover.h"

#define CONTROL_CLIENTS_MAX 64u
#define CONTROL_LINE_MAX    (1u << 20)
/* Lists of a million volumes are replies of some 300 bytes an entry. */
#define CONTROL_REPLY_MAX (UINT64_C(512) << 20)

struct control;

/* Serve @host on the listening socket @fd, which it takes over also on failure. */
int control_new(struct host *host, int fd, struct control **ret_control, struct error *err);
/* Accept nobody else, cancel what can be cancelled, wait until every command has been answered. */
void co_control_stop(struct control *control);
void control_free(struct control *control); /* after stop; NULL is fine */

/* How many are connected. */
unsigned control_n_clients(const struct control *control);
/* And have been, since the server began. */
uint64_t control_n_seen(const struct control *control);
/* How often a command that changes something has begun, or ended. */
uint64_t control_n_changes(const struct control *control);

/* ---- a server that goes on in another process (takeover.h) ---- */

/* Who may ask for it: only the process's own user and root. True: @takeover has taken over the
 * connection, and a reference to the request; false: another takeover is under way. */
void control_on_takeover(struct control *control,
                         bool (*takeover)(void *arg, int fd, json_t *request), void *arg);
/* The listening socket, which stays the control's. */
int control_fd(const struct control *control);
/* Begin no more commands, and wait for those that run; accept nobody.
 *
 * -EBUSY  one has not ended after @wait_ms: named, and all goes on */
int co_control_pause(struct control *control, unsigned wait_ms, struct error *err);
void control_resume(struct control *control);
/* While it is paused: the clients, with what they have sent and nobody has answered yet. No
 * sentence. */
int control_save(const struct control *control, struct handover *h, json_t **ret_clients);
/* A client that cannot be taken is dropped. */
void control_restore(struct control *control, struct handover *h, const json_t *clients);

/* ---- both ends ---- */

/* @value as the line to be sent, with its newline and without a NUL; NULL when out of memory, for which
 * a @value of NULL stands, too. Release with free(). */
char *control_line(const json_t *value, size_t *ret_length);
/* {"error":{...}} of @e; NULL when out of memory. */
json_t *control_error_json(const struct error *e);
/* Is text from another process nested no deeper than a coroutine's stack lets jansson descend? */
bool control_is_shallow(const char *line, size_t length);
/* Back: fills *err and returns the code. */
int control_error_parse(const json_t *reply, struct error *err);

/* Listen on a Unix socket of mode 0600, or 0660 of @group where that is not (gid_t)-1. It appears
 * only once it is listened on. One that nobody listens on any more is replaced.
 *
 * -EADDRINUSE  somebody listens there */
int socket_listen_unix(const char *path, gid_t group, int *ret_fd, struct error *err);
/* Takes the socket at @path away, where nobody listens on it any more. */
void socket_remove_left(const char *path);
/* Connected, blocking. No sentence.
 *
 * -ECONNREFUSED, -ENOENT  nobody is there */
int socket_connect_unix(const char *path, int *ret_fd);
/* After it was connected: is nobody there? The kernel closes the sockets of a process that has ended
 * when it has ended its io_uring, a little later, and connects to them until then. Waits for it,
 * where @pid has ended (0: it is not known) and who began to listen has, too. */
bool socket_is_left(int fd, pid_t pid);
/* "127.0.0.1:10809", "[::1]:10809", "host:10809". */
int socket_listen_tcp(const char *address, int *ret_fd, struct error *err);
/* "PORT", "CID:PORT". */
int socket_listen_vsock(const char *address, int *ret_fd, struct error *err);
/* Do others than this host's users reach it: other hosts, or virtual machines? */
bool socket_is_exposed(int fd);
