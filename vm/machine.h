/* machine.h - a running virtual machine as its supervisor sees it: for the files of vm/ only.
 *
 * The supervisor is one thread with a loop: a coroutine listens to the VMM, one serves the console,
 * one accepts clients, each client has its own, and a disk or passt that is lost has one until it is back.
 * None of them holds up another: what comes from a client, from the VMM or from a pool's server is
 * waited for with a limit, by co_machine_io() and co_machine_wait(), which end when the machine does.
 *
 * Units      times are nanoseconds; sizes bytes.
 * Threads    the loop's.
 * Errors     0 or -errno with a sentence.
 * Ownership  run.c makes and frees a struct machine; all else borrows it.
 */
#pragma once
#include <jansson.h>

#include "common/coroutine.h"
#include "common/log.h"
#include "vm/channel.h"
#include "vm/child.h"
#include "vm/console.h"
#include "vm/known.h"

#define MACHINE_SECOND_NS     UINT64_C(1000000000)
#define MACHINE_IDENTITY_SIZE 128u
/* For others who hold the guest: a snapshot's pause may wait for a pool's server. */
#define MACHINE_HOLD_WAIT_NS (120 * MACHINE_SECOND_NS)

enum machine_state {
        MACHINE_STARTING,
        MACHINE_RUNNING,
        MACHINE_PAUSED,
        MACHINE_ENDED, /* set when the VMM's process has ended, and by nothing else */
};

struct machine_disk {
        struct list link;
        unsigned number; /* no other disk has had it since the start: */
        char id[CHANNEL_ID_SIZE];
        const struct vm_disk *disk;           /* one of m->started's, or @later */
        struct vm_disk later;                 /* attached since the start; it points to nothing */
        char target[2 * (POOL_NAME_MAX + 1)]; /* VOL or VOL@SNAP */
        bool connected, reconnecting;
        unsigned n_lost; /* how often the VMM has said so */
        /* Its connection, which is the VMM's too; -1: none. The kernel keeps what a process had polled by
         * io_uring open for some milliseconds after its end: by this the server hears of it at once. */
        int fd;
        /* What the server says that it is connected to, since the first time; empty: it does not. */
        char identity[MACHINE_IDENTITY_SIZE];
        char problem[sizeof(((struct error *)0)->message)]; /* why it is not; empty: not known */
        bool coming;         /* the VMM was told of it, and has not answered */
        bool gone;           /* no more among the machine's; who reconnects it frees it */
        uint64_t spawned_ns; /* when a server was started for its pool; 0: never */
};

/* Of its file's, in that order. */
struct machine_nic {
        bool restarting;
        uint64_t started_ns; /* when passt was started in another's place; 0: never */
        uint64_t pause_ns;   /* before that */
};

struct machine {
        struct loop *loop;
        struct known *known;
        enum machine_state state;
        bool ending;                /* everybody gives up what he waits for */
        bool ready, stopping;       /* the VMM has said so; somebody has asked for the end */
        uint64_t stop_deadline_ns;  /* then by force: of who asked last */
        bool quit;                  /* by force, and at once */
        bool panicked, after_panic; /* since its last reset; a coroutine sees to that */
        struct log_limit panic_lines;
        uint64_t n_resets;
        struct vm_file *started; /* its file, as it was started */
        bool saving;             /* a snapshot is being taken */
        bool held;               /* somebody sees to whether the guest runs */
        bool copied; /* the VMM has written the memory, but for the rest; or has failed: */
        struct error copy_error; /* code 0: it has not */
        struct list waits;       /* co_machine_io()'s */
        struct co_queue changed; /* woken by whatever happens to the machine */
        unsigned n_coroutines;

        int channel;
        bool channel_open;
        pid_t vmm_pid, server_pid;
        uint32_t last_number;
        struct list orders;
        struct error end; /* why it has ended; code 0: it was switched off */
        bool end_told;

        struct list disks; /* those that it has now */
        bool disks_locked;
        unsigned next_disk_number;
        struct machine_nic nics[VM_NICS_MAX];
        struct console console;
        int control; /* that it listens on; -1: none */
        unsigned n_clients;
};

/* ---- limits.c ---- */

struct machine_limits {
        uint64_t stop_ns;   /* after a signal, until it is by force */
        uint64_t answer_ns; /* for the VMM's answers: what it does at an order is quick, but for: */
        uint64_t memory_ns; /* all of the memory, as fast as the disk below the state folder goes */
};
extern const struct machine_limits machine_limits;

/* ---- machine.c ---- */

/* co_spawn(), counted: co_machine_end() waits for it. @entry calls machine_left() last. */
int machine_spawn(struct machine *m, co_entry *entry, void *arg);
void machine_left(struct machine *m);
/* LOOP_POLL and its like.
 *
 * -ECANCELED  the machine ends
 * -ETIMEDOUT  @timeout_ns, where it is not 0 */
int co_machine_io(struct machine *m, struct loop_io *io, uint64_t timeout_ns);
int co_machine_poll(struct machine *m, int fd, uint32_t events, uint64_t timeout_ns);
/* Until something changes, or it is @deadline_ns. */
void co_machine_wait(struct machine *m, uint64_t deadline_ns);

/* Tell the VMM, and wait for its answer. @fd -1: none; it stays the caller's.
 *
 * -ECANCELED  the machine is to end, and it is not quick
 * -ESRCH      it has ended
 * -ETIMEDOUT  it does not answer */
struct machine_order {
        enum channel_kind kind;
        const char *id;
        int fd;
        bool readonly;
        uint64_t value;
        uint64_t wait_ns; /* for what is not quick: so long, unless the machine is to end; else 0 */
        bool past_stop;   /* that also while it is being stopped, unless by force */
};
int co_machine_order(struct machine *m, const struct machine_order *order, struct error *err);
/* Without more than a kind. */
int co_machine_say(struct machine *m, enum channel_kind kind, struct error *err);

/* Whoever lets the guest run or not, or resets it, holds it meanwhile; a snapshot does from its pause
 * until it goes on, so that all that is saved is of one instant.
 *
 * -EBUSY  somebody else holds it at @deadline_ns
 * -ESRCH  the machine has ended, or is ended by force */
int co_machine_hold(struct machine *m, uint64_t deadline_ns, struct error *err);
void machine_let_go(struct machine *m);
/* CHANNEL_PAUSE, CHANNEL_RESUME or CHANNEL_RESET of a machine that runs, holding it. */
int co_machine_turn(struct machine *m, enum channel_kind kind, struct error *err);

/* Listen to the VMM until it has ended: a coroutine. */
void co_machine_listen(void *machine);
/* Press the power button, and after @timeout_ns (0: at once) stop by force; returns when the VMM's
 * process has ended. Who asks last says for all when that is. True: by force. */
bool co_machine_stop(struct machine *m, uint64_t timeout_ns);
/* Everybody gives up, when a snapshot that is under way has failed and taken back what it had made;
 * returns when all coroutines have. */
void co_machine_end(struct machine *m);

/* ---- disks.c ---- */

/* Those that it is started with, not connected. */
int machine_disks_init(struct machine *m, struct error *err);
void machine_disks_free(struct machine *m);
/* The VMM has ended: no server is to wait until the kernel has closed what it had. */
void machine_disks_hang_up(struct machine *m);
/* Connect all, before the start. */
int co_machine_disks_connect(struct machine *m, struct error *err);
/* What the VMM says. */
void machine_disk_lost(struct machine *m, const char *id);
void machine_disk_removed(struct machine *m, const char *id);
/* Whoever changes which disks there are, or saves them, holds this, so that what is saved is what
 * there is.
 *
 * -EBUSY  somebody else has it, and keeps it for long */
int co_machine_disks_lock(struct machine *m, struct error *err);
void machine_disks_unlock(struct machine *m);
/* While it runs, locked.
 *
 * -EEXIST, -ENOENT
 * -ENOSPC     it has as many as there may be
 * -ETIMEDOUT  the guest does not let go of it */
int co_machine_disk_add(struct machine *m, const struct vm_disk *disk, struct error *err);
int co_machine_disk_remove(struct machine *m, const char *pool, const char *target,
                           struct error *err);
json_t *machine_disks_json(const struct machine *m);
/* -ENODEV  one of them is away: its name need not be that of what the guest has */
int machine_disks_check(const struct machine *m, struct error *err);
/* What it was started as, but with the disks that it has now, as a text; and their numbers, in its order.
 * Release with free(). */
int machine_disks_write(const struct machine *m, char **ret_text, unsigned numbers[VM_DISKS_MAX],
                        struct error *err);
/* Ask the server of @pool; @fd goes along, -1: none. The request stays the caller's.
 *
 * -ENOTCONN  nobody serves it */
int co_machine_ask_server(struct machine *m, const char *pool, json_t *request, int fd,
                          struct error *err);

/* ---- nics.c ---- */

/* What the VMM says. */
void machine_nic_lost(struct machine *m, const char *id);

/* ---- snapshot.c ---- */

/* Of its disks, and with @memory of all of it. ret_pause_ns: how long the guest was paused.
 *
 * -EEXIST  there is one of that name, of the machine or of a volume */
int co_machine_snapshot(struct machine *m, const char *name, bool memory, uint64_t *ret_pause_ns,
                        struct error *err);

/* ---- control.c, commands.c ---- */

/* Accept clients on m->control until the end: a coroutine. */
void co_machine_control(void *machine);
/* One request, to a reply. */
int co_machine_command(struct machine *m, json_t *request, json_t **ret_reply, struct error *err);

/* ---- run.c ---- */

/* Give the guest's serial port what somebody has typed. */
int co_machine_type(struct machine *m, const void *data, size_t n);

/* ---- foreground.c ---- */

/* The machine's console on standard input and output. */
int machine_terminal_start(struct machine *m, struct error *err);
