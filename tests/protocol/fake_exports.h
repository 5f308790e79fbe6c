/* fake_exports.h - the exports of the NBD server's tests, over volumes in memory.
 *
 * Exports: "pool/vol" ("vol" and "" mean the same), described; "pool/vol@snap", read-only;
 * "pool/big"; opening "secret" is not permitted. Snapshots of both "pool/vol" and "pool/vol@snap",
 * for what changed since: "snap", and "s0", "s1" and so on, as many as are wanted, which are the
 * same; opening "locked" is not permitted.
 *
 * Threads    the server's loop.
 * Errors     those of struct nbd_exports; a close without its open aborts.
 * Ownership  all is the maker's.
 */
#pragma once
#include "nbd-server/nbd_server.h"

struct fake_exports {
        struct volume *volume, *snapshot, *big;
        const char *description; /* of pool/vol */
        unsigned n_extra;        /* this many exports more are listed */
        unsigned n_snapshots;    /* s0, s1 ... */
        unsigned n_open;         /* exports opened and not closed */
        unsigned n_held;         /* snapshots, likewise */
        unsigned n_asked;        /* times that an export was to be opened */
        char identities[8][600]; /* of who asked last; empty behind them */
};

/* Calls that serve @exports. */
struct nbd_exports fake_exports_calls(struct fake_exports *exports);
