/* closer.h - closing descriptors that others made, which may take as long as they like.
 *
 * close(2) waits for a TCP socket that lingers, for whoever serves a FUSE file, for the release of
 * what lies in a Unix socket's queue, and for that of a large memory file's pages. A loop that
 * serves others cannot.
 *
 * Threads    [any thread]; the descriptor is closed by another, which ends when there are no more.
 * Errors     none: with no memory or no thread the caller waits after all.
 * Ownership  the descriptor is taken. It is open for a while yet, and closed no later than at the
 *            end of the process.
 */
#pragma once

void close_elsewhere(int fd);
