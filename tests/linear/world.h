/* world.h - the server that clients speak to, and its ends: by kill -9 and by takeover.
 *
 * Units      bytes and milliseconds, as the names say.
 * Threads    one of them kills and starts; world_enter(), world_leave(), world_stopping() [any thread].
 * Errors     0 or -errno with a sentence.
 * Ownership  a struct world is the caller's; release what it holds with world_free(). Its strings stay the caller's.
 */
#pragma once
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "common/error.h"

#define WORLD_PATIENCE_MS 60000 /* for whatever must come at last */

/* What clients ask for. Each write of a guest, each flush and each FUA write has the log written, with all that was
 * answered and not promised: where only one of them is at work, a promise that it does not keep shows. */
enum world_mood {
        WORLD_ALL,
        WORLD_FLUSHES, /* guests rest, and NBD clients use no FUA */
        WORLD_FUA,     /* guests rest, and NBD clients do not flush */
};

struct world {
        const char *tarn, *pool, *folder; /* the command; its pool; where sockets and logs lie */
        const char *threads;              /* the server's --threads; NULL: its default */
        uint64_t seed;
        pthread_rwlock_t lock;
        unsigned
            life; /* goes up when a server is dead that was killed, and before the next is started */
        pid_t server;
        unsigned n_servers;
        atomic_bool stopping;
        atomic_int mood;
};

int world_init(struct world *w, struct error *err);
void world_free(struct world *w); /* kills the server if there is one */

/* A connection that is made between these two is to a server of the life that is returned: lives do not change
 * meanwhile. Not for waiting in. */
unsigned world_enter(struct world *w);
void world_leave(struct world *w);
bool world_stopping(const struct world *w);
enum world_mood world_mood(const struct world *w);

/* The first server, or the next after a kill. Waits until it serves. */
int world_start(struct world *w, struct error *err);
/* The same, and does not wait. */
int world_begin(struct world *w, struct error *err);
int world_kill(struct world *w, struct error *err);
/* A new server takes over from the one that runs. */
int world_take_over(struct world *w, struct error *err);
/* SIGTERM; it must end in order. */
int world_end(struct world *w, struct error *err);

uint64_t world_clock_ns(void);
void world_sleep_ms(unsigned ms);
