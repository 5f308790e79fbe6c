/* passed.h - listening sockets that systemd made and passed on (socket activation).
 *
 * Threads    blocking; at the start, before there are others.
 * Errors     0 or -errno with a sentence.
 * Ownership  the descriptors are the caller's from then on. The sockets' files stay systemd's: they
 *            are neither changed nor removed.
 * Source     sd_listen_fds(3), systemd.socket(5): FileDescriptorName=nbd or control.
 */
#pragma once
#include "server/listen.h"

/* Take what was passed into @s: sockets called "nbd", and one called "control". No sockets are
 * fine.
 *
 * -EINVAL  one is called otherwise, or is no listening stream socket, or of another family */
int passed_take(struct sockets *s, struct error *err);
