/* service_manager.h - what a service and who started it tell each other: readiness, and listening sockets
 * that were passed on.
 *
 * Units      none.
 * Threads    from one thread, as the environment is read, and changed.
 * Errors     0 or -errno; no sentence.
 * Ownership  descriptors that were passed are the caller's.
 * Source     sd_notify(3), sd_listen_fds(3) of systemd, "Notes": both protocols are part of its interface
 *            that stays, and may be spoken without its library.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>

/* Tell who started this process: lines NAME=VALUE. Where nobody wants to know nothing happens; what
 * cannot be sent is no concern of a service's. */
void service_notify(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The descriptors that were passed to this process, which are *ret_first and those that follow, and are
 * made close-on-exec; their number, or -errno. ret_names: as many names, in one allocation to be freed;
 * those that have none are called "unknown". The environment does not speak of them any more. */
int service_passed_fds(int *ret_first, const char ***ret_names);
/* Is @fd a stream socket that is listened on? */
bool service_is_listening(int fd);
