/* internal.h - what the files of vhost-user share: the server, its devices, front ends, queues and
 * requests. README.md has the numbered rules that comments cite.
 *
 * A front end (struct vhost_client) is one connection. One coroutine goes with it from accept to
 * close and handles its messages; requests run by callbacks alone.
 *
 * Units      bytes. Guest addresses are guest-physical, user addresses the front end's own.
 * Threads    all on the server's loop, but for the SIGBUS handler of guard.c.
 * Errors     -errno inside, with a sentence where the log gets one.
 * Ownership  server > devices > clients > queues > requests. A request holds the memory table that
 *            it was parsed with; tables hold their regions.
 */
#pragma once
#include <endian.h>
#include <stdatomic.h>
#include "common/buffers.h"
#include "common/coroutine.h"
#include "common/log.h"
#include "vmm-glue/vhost-user/protocol.h"
#include "vmm-glue/vhost-user/vhost_user.h"

/* Ceilings on what a front end or a guest may ask of us; README.md, rules 3, 4 and 5. */
#define QUEUE_SIZE_MAX    1024u /* descriptors; seg_max needs no more */
#define SEGMENTS_MAX      1030u /* pieces of memory of one request, through indirect tables too */
#define SEGMENTS_INLINE   18u
#define SEG_MAX           126u /* offered: fits a ring of 128 with header and status */
#define SLICE_MAX         (UINT64_C(2) << 20) /* bytes that one request has with the engine at once */
#define RANGES_MAX        16u                 /* of one discard or write-zeroes */
#define RANGE_SECTORS_MAX (UINT32_C(1) << 22) /* 2 GiB, in each of them */
#define MEMORY_SLOTS_MAX  64u
#define CLIENT_MEMORY_MAX (UINT64_C(16) << 40) /* mapped for one front end */
#define TOTAL_MEMORY_MAX  (UINT64_C(64) << 40) /* mapped for all: an address space has 128 TiB */
/* Of one front end, with those that only requests in flight still hold: each is a descriptor, too. */
#define CLIENT_MAPPINGS_MAX 256u
#define MESSAGE_FDS_MAX     16u
/* Descriptors of a device's front ends that are on their way to be closed, which some are long in: above
 * this nothing more is taken from them. One message brings at most 253. */
#define CLOSING_MAX    256u
#define CLOSER_LOOK_NS UINT64_C(10000000)
/* How long it may take to learn what kind of file is said to be memory. */
#define LOOK_WAIT_NS     UINT64_C(1000000000)
#define COROUTINE_BYTES  (UINT64_C(128) << 10) /* what the engine's slower ways take */
#define CACHED_BYTES_MAX (UINT64_C(16) << 20)  /* of unused buffers the server keeps */

static_assert(SLICE_MAX <= VOLUME_REQUEST_MAX, "a slice goes to the engine whole");

/* ---- guard.c: memory that others can take away ---- */

struct guard;
/* Watch a mapping: where an access faults because the file behind it shrank, all of it becomes
 * private zeroes and *hit true. -ENOMEM */
int guard_watch(void *start, size_t length, atomic_bool *hit, struct guard **ret_guard);
void guard_release(struct guard *guard); /* before the mapping goes; NULL is fine */
int guard_init(void);

/* ---- memory.c: the guest's memory ---- */

/* A mapping of a descriptor that a front end sent. */
struct mapping {
        uint8_t *start; /* at the offset asked for */
        void *base;
        size_t length;
        int fd; /* our own, for the next server (save.c) */
        dev_t device;
        ino_t inode;
        struct guard *guard;
        struct vhost_client *client; /* who sent it, and for whom it counts */
};
/* @length bytes from @offset of @fd, which is only borrowed, and which co_look() has found good.
 *
 * -EINVAL  empty, overflowing, or beyond the file's end
 * -ENOSPC  more than is mapped for one front end, or for all
 * -EPERM   not memory: a kind of file that may keep its readers waiting */
int mapping_open(struct vhost_client *client, struct mapping *mapping, int fd, uint64_t offset,
                 uint64_t length, struct error *err);
void mapping_close(struct mapping *mapping); /* one that is zeroed is fine */
/* Asks the file system, which may take as long as it likes where it is another's. */
bool memory_is_local(int fd);

/* look.c: before anything else is asked of what may be memory.
 *
 * -EPERM      it is no file of a kind whose use waits for nobody
 * -ETIMEDOUT  whoever serves it does not say; -ENOMEM, -EMFILE */
int co_look(struct vhost_client *client, int fd, struct error *err);

struct region {
        unsigned refs;
        struct vhost_region at;
        struct mapping mapping;
};
/* Never changed once made; a change of the guest's memory makes another. */
struct memory {
        unsigned refs;
        unsigned n;
        struct region *regions[MEMORY_SLOTS_MAX]; /* by guest address; none overlap */
};
static inline struct memory *memory_ref(struct memory *memory)
{
        memory->refs++;
        return memory;
}
struct memory *memory_none(void);         /* without regions; NULL: out of memory */
void memory_unref(struct memory *memory); /* NULL is fine */
/* @old with one region more, or one less. */
int memory_with(struct vhost_client *client, const struct memory *old,
                const struct vhost_region *at, int fd, struct memory **ret_memory,
                struct error *err);
int memory_without(const struct memory *old, const struct vhost_region *at,
                   struct memory **ret_memory, struct error *err);
/* Where guest address @guest is here, and how much of *length lies there in one piece. NULL: it is
 * in no region. */
uint8_t *memory_at(const struct memory *memory, uint64_t guest, uint64_t *length);
/* All of @length bytes at a user address, in one region; NULL: they are not. */
uint8_t *memory_at_user(const struct memory *memory, uint64_t user, uint64_t length);
/* Copy from guest memory, once; -EFAULT. */
int memory_read(const struct memory *memory, uint64_t guest, void *data, size_t length);
/* Back from a pointer into a region. */
bool memory_guest_address(const struct memory *memory, const void *host, uint64_t *ret_guest);
/* Is a region of that file in it? */
bool memory_has_file(const struct memory *memory, dev_t device, ino_t inode);

/* ---- requests ---- */

struct request_range {
        uint64_t offset, length;
        enum volume_op op;
};

struct vhost_req {
        struct list link; /* in the queue's done list; in no list while the engine has it */
        struct vhost_req *next_free;
        struct queue *queue;
        struct memory *memory;
        uint16_t head;    /* split: first descriptor; packed: the buffer's id */
        uint16_t n_descs; /* packed: places it takes in the ring */
        uint16_t entry;   /* packed: its first entry in the in-flight region */
        /* chain.c: iov holds n_out pieces to read from, then n_in to write to */
        struct iovec *iov; /* iov_inline, or the request's part of queue->arena */
        unsigned n_out, n_in;
        uint64_t out_bytes, in_bytes;
        uint8_t *status; /* the last byte that the device may write; NULL: none can be reached */
        bool malformed;
        /* request.c */
        struct volume_request io;
        uint32_t used_bytes;
        struct iovec *data; /* the pieces of iov that are left */
        unsigned n_data;
        uint64_t offset,
            left;             /* of the volume: what is still to do, the slice under way included */
        uint64_t slice_bytes; /* under way */
        uint64_t cut_bytes;   /* that its last piece has beyond it */
        void *buffer; /* of buffers_class_bytes(class); NULL: straight from or to the guest */
        unsigned class;
        struct iovec buffer_iov;
        uint64_t cost; /* what it counts in the bytes in flight */
        unsigned n_ranges, at_range;
        struct request_range ranges[RANGES_MAX];
        struct iovec iov_inline[SEGMENTS_INLINE];
};

/* ---- queues ---- */

/* What differs between split and packed rings. Only called while the queue is ready. */
struct ring_ops {
        /* Find the rings at their user addresses, with a sentence.
         *
         * -EFAULT  no memory is there, just now
         * -EINVAL  they make no sense, whatever memory there is */
        int (*translate)(struct queue *queue, struct error *err);
        /* Where to go on: from the base that the front end gave and the in-flight region. */
        int (*start)(struct queue *queue, struct error *err);
        bool (*has_work)(const struct queue *queue);
        /* The next available buffer, its chain parsed, marked in flight. 0: none; 1; negative: the
         * ring makes no sense, and the queue is broken. */
        int (*pop)(struct queue *queue, struct vhost_req *req, struct error *err);
        /* Give all of queue->done back, in one step; true: the driver wants to hear of it. */
        bool (*publish)(struct queue *queue);
        /* Whether the driver is to kick. */
        void (*notify)(struct queue *queue, bool on);
        uint32_t (*base)(const struct queue *queue);
};
extern const struct ring_ops split_ops, packed_ops;
/* Two parts of a ring, by user addresses inside the guest's memory. */
static inline bool parts_overlap(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes)
{
        return a < b + b_bytes && b < a + a_bytes;
}

/* A ring's fields of 16 bits: read once, at places that are even (sections 2.7 and 2.8). */
static inline uint16_t ring_load16(const void *from)
{
        return le16toh(__atomic_load_n((const uint16_t *)from, __ATOMIC_ACQUIRE));
}
static inline void ring_store16(void *to, uint16_t value)
{
        __atomic_store_n((uint16_t *)to, htole16(value), __ATOMIC_RELEASE);
}

/* An eventfd that is signalled by the loop, which it cannot hold up. */
struct signal {
        struct queue *queue;
        int fd; /* -1: none */
        bool busy, again;
        struct loop_io io;
};

struct queue {
        struct vhost_client *client;
        unsigned index;
        /* set by messages */
        unsigned size; /* descriptors; 0: not set */
        bool has_addr, enabled;
        struct vhost_vring_addr addr;
        bool has_base;
        uint32_t base;
        int kick_fd; /* -1: none */
        struct signal call, error;
        /* running */
        bool started; /* kicked, or it goes on where another left off */
        bool stopping, broken, draining;
        bool ring_lost; /* the rings are not mapped any more; they may come back, or it is broken */
        bool kick_armed; /* kick_io is in flight */
        struct loop_io kick_io;
        struct loop_task task;
        struct co_queue idle; /* woken when the last request or I/O ended */
        struct list starved;  /* in server->starved: no bytes left for it */

        const struct ring_ops *ops;
        bool event_idx, log_ring;
        union {
                struct {
                        struct vring_desc *desc;
                        struct vring_avail *avail;
                        struct vring_used *used;
                } split;
                struct {
                        struct vring_packed_desc *desc;
                        struct vring_packed_desc_event *driver, *device;
                } packed;
        };
        uint16_t last_avail, last_used; /* split: free-running; packed: places in the ring */
        bool avail_wrap, used_wrap;     /* packed */
        bool signalled;                 /* once since it started: before, event_idx says nothing */

        /* the in-flight region, of which nothing is believed after the start (inflight.c) */
        struct vhost_region_split *inflight_split;
        struct vhost_region_packed *inflight_packed;
        uint64_t inflight_counter;
        uint16_t inflight_batch; /* split: head of the list of the last batch */
        /* packed: our own lists of entries. A chain's go on from its first by next to last. */
        uint16_t *inflight_next, *inflight_last;
        uint16_t inflight_free; /* QUEUE_SIZE_MAX: none */
        uint16_t *resubmit;     /* heads, or entries, to be done again first */
        unsigned n_resubmit, at_resubmit;

        struct vhost_req *requests; /* size of them */
        struct iovec *arena;        /* SEGMENTS_MAX for each: for long chains */
        bool arena_touched;
        struct vhost_req *free;
        unsigned n_slots_used;
        bool *head_busy; /* split: by descriptor */
        unsigned n_in_flight;
        struct list done;

        /* polling; queue.c */
        bool notifying; /* the driver is to kick */
        uint64_t poll_ns, poll_until_ns, slept_ns;
};

/* ---- front ends ---- */

/* As it comes in: what has come of it so far outlives the wait for more. */
struct message {
        struct vhost_header header;
        union vhost_payload payload;
        size_t n_bytes; /* of both, so far */
        int fds[MESSAGE_FDS_MAX];
        unsigned n_fds;
};

struct vhost_client {
        struct list link; /* device->clients */
        struct vhost_device *device;
        uint64_t id;
        int fd;
        pid_t pid;
        bool dead;            /* no more is read from it, and no request begun */
        bool told;            /* the server ends the connection, and it is still there */
        bool leaves;          /* it ends: what waits stays marked in the in-flight region */
        const char *ended_by; /* why the connection ended, for the log; NULL: its wish */
        char why[256];
        struct loop_io *waiting; /* the poll under way; for vhost_vhost_client_cut() */
        struct loop_task
            cut_task;           /* vhost_vhost_client_cut() from where queues may not be touched */
        struct message message; /* the one that is being read or handled */

        bool has_volume;
        struct vhost_volume volume;
        uint64_t offered, features; /* acknowledged */
        uint64_t protocol_features;
        uint8_t status;
        bool writeback; /* by the configuration space; where CONFIG_WCE is acknowledged */

        struct memory *memory; /* never NULL */
        uint64_t memory_bytes; /* mapped: regions, log, in-flight region */
        unsigned n_mappings;
        atomic_bool memory_lost; /* guard.c: a mapping shrank */
        struct mapping log, inflight;
        uint64_t log_bytes, log_offset;
        struct vhost_inflight inflight_is;
        struct queue *queues; /* device->n_queues */

        int backend_fd; /* -1: none */
        struct loop_io backend_io;
        struct iovec backend_iov;
        bool backend_busy, backend_again;
        struct co_queue quiet; /* woken when backend_io or a signal ended */

        uint64_t reads, writes, flushes, read_bytes, write_bytes;
};

struct vhost_device {
        struct list link; /* server->devices */
        struct vhost_server *server;
        char name[160];
        unsigned n_queues;
        struct vhost_volumes volumes;
        int fd;
        struct closer *closer; /* of what its front ends sent */
        bool accepting, stopping;
        struct loop_io accept_io;
        struct loop_timer retry;
        struct list clients;
        unsigned n_clients;
        unsigned n_disconnecting; /* coroutines that wait for clients to go */
        uint64_t bytes_in_flight;
        struct co_queue gone; /* woken when a client went, or accepting ended */
        /* save.c */
        bool held; /* front ends are being restored: nobody is accepted, no queue starts */
        struct co_queue released;
        bool saving;
        void (*saved)(struct vhost_saved *saved, void *arg);
        void *saved_arg;
};

struct vhost_server {
        struct loop *loop;
        struct vhost_server_options options; /* no zeroes left */
        struct list devices;
        struct buffers buffers;
        uint64_t bytes_in_flight, memory_bytes;
        struct list starved; /* queues */
        struct loop_task starved_task;
        uint64_t last_id;
        struct log_limit log_limit;
};

/* device.c */
/* Asked before each line that a front end can cause. */
bool vhost_may_log(struct vhost_server *server);
void device_client_gone(struct vhost_client *client);
void device_accept(struct vhost_device *device);

/* client.c */
void vhost_client_new(struct vhost_device *device, int fd);
/* No more from this front end; what is in flight ends first. Frees nothing at once, and may be
 * called from anywhere. @why NULL: nothing to report; else it is copied. */
void vhost_client_cut(struct vhost_client *client, const char *why);
/* Another connection of the same guest that has not ended yet may still complete requests of its
 * memory: wait for it. */
void co_vhost_client_await_predecessors(struct vhost_client *client, dev_t device, ino_t inode);
static inline bool client_has(const struct vhost_client *client, unsigned feature)
{
        return client->features & (UINT64_C(1) << feature);
}

/* A front end that has just connected, in its device's list and not served yet; the descriptor is its
 * own on success. NULL: out of memory. */
struct vhost_client *vhost_client_add(struct vhost_device *device, int fd);
/* -errno: the volume cannot be opened, or no memory */
int co_vhost_client_open(struct vhost_client *client, struct error *err);
/* Handle its messages until it ends. -ENOMEM */
int vhost_client_serve(struct vhost_client *client);
void co_vhost_client_end(struct vhost_client *client); /* and free it */

/* save.c */
/* Stop its queues and tell device->saved what makes it anew. Where that cannot be done it is cut. */
void co_client_save(struct vhost_client *client);

/* message.c */
/* Those that nobody has taken. */
void message_close_fds(struct vhost_client *client, struct message *message);
/* Take one message's effect without a word to the front end: it was sent to another server. Closes
 * what is left of the message's descriptors. */
int co_message_apply(struct vhost_client *client, struct message *message, struct error *err);
/* Take one message's effect and reply to it where that is due. Negative: the connection is to end,
 * for the reason in *err. Closes what is left of the message's descriptors. */
int co_message_handle(struct vhost_client *client, struct message *message, struct error *err);

/* config.c */
uint64_t config_features(const struct vhost_client *client); /* what is offered */
void config_read(const struct vhost_client *client, uint32_t offset, uint8_t *data, uint32_t size);
int config_write(struct vhost_client *client, uint32_t offset, const uint8_t *data, uint32_t size,
                 bool migration, struct error *err);
void config_changed(struct vhost_client *client);
void config_changed_done(struct loop_io *io, int result);
bool config_writes_through(const struct vhost_client *client);

/* dirty.c: the log of pages written, for live migration */
void dirty_guest(struct vhost_client *client, uint64_t guest, uint64_t length);
/* The same by a pointer into guest memory; nothing where no log is kept. */
void dirty_host(struct vhost_client *client, const struct memory *memory, const void *host,
                uint64_t length);
static inline bool dirty_logging(const struct vhost_client *client)
{
        return client->log.base && client_has(client, VHOST_F_LOG_ALL);
}

/* queue.c */
void queue_init(struct queue *queue, struct vhost_client *client, unsigned index);
/* Begin, where all it needs has come; also after any of it has changed. A queue that cannot is
 * broken, and the front end is told by its error descriptor. */
void queue_update(struct queue *queue);
/* Rings lie elsewhere: find them again. */
void queue_translate(struct queue *queue);
/* Begin no more, and wait for what is in flight; what waits for the volume's limits or for space does
 * so no longer (rule 13). Its base is where it has come to; it may be started again. Forgets the kick
 * descriptor, as kicks that are left in it would start the ring. */
void co_queue_stop(struct queue *queue);
/* Take over @fd (-1: none), after the I/O of the one before has ended. */
void co_queue_set_kick(struct queue *queue, int fd);
/* The same for signals. What is under way is waited for until @until_ns: one that takes longer than
 * SIGNAL_WAIT_NS is held up by a front end that fills the eventfd. */
#define SIGNAL_WAIT_NS UINT64_C(250000000)
void co_queue_set_signal(struct queue *queue, struct signal *signal, int fd, uint64_t until_ns);
void queue_signal(struct signal *signal);
/* The device is held no more. */
void queue_go(struct queue *queue);
/* A request has ended: it is given back once the iteration's callbacks have run. */
void queue_done(struct vhost_req *req);
/* It has ended without having been done, and stays marked in flight for the next server. */
void queue_left(struct vhost_req *req);
void queue_run_soon(struct queue *queue);

/* chain.c: from descriptors to pieces of memory */
struct chain {
        struct vhost_req *req;
        unsigned n;          /* descriptors so far */
        uint64_t next_guest; /* where the last piece ends */
};
void chain_begin(struct chain *chain, struct vhost_req *req);
void chain_add(struct chain *chain, uint64_t guest, uint32_t length, bool writable);
/* It has no end: nobody can say which byte is the status. */
void chain_unending(struct vhost_req *req);
/* Take bytes off the front of the readable pieces: copied once. False: there are fewer. */
bool chain_take(struct vhost_req *req, void *data, size_t length);
/* Copy to and from the first pieces of @iov. */
void iov_gather(const struct iovec *iov, void *data, size_t length);
void iov_scatter(const struct iovec *iov, const void *data, size_t length);

/* request.c */
/* A parsed chain: check it, and do it. */
void vhost_request_execute(struct vhost_req *req);

/* inflight.c */
/* Bytes of one queue's part, whatever the kind of ring. */
uint64_t inflight_queue_bytes(unsigned queue_size);
/* True where an earlier server left its marks for this queue. */
bool inflight_has_state(const struct queue *queue);
/* The ring begins anew: what the region says of it is of another. */
void inflight_forget(struct queue *queue);
/* The queue's part of the client's region, if it has one. -EINVAL: it does not fit. -ENOMEM */
int inflight_attach(struct queue *queue, struct error *err);
void inflight_detach(struct queue *queue);
/* What an earlier server left in flight: fills resubmit, in order. *ret_valid false: there was
 * nothing of use, and the region is begun anew. -ENOMEM */
int inflight_recover_split(struct queue *queue, uint16_t ring_used, bool *ret_valid);
/* The same; sets last_used and used_wrap. */
int inflight_recover_packed(struct queue *queue, bool *ret_valid);
/* A head was taken; heads are being given back; the used index has been stored. */
void inflight_split_begin(struct queue *queue, uint16_t head);
void inflight_split_batch(struct queue *queue, uint16_t head);
void inflight_split_end(struct queue *queue);
/* The same for chains of packed rings. -ENOSPC: more are in flight than the ring has places. */
int inflight_packed_begin(struct queue *queue, struct vhost_req *req,
                          const struct vring_packed_desc *descs, unsigned n);
void inflight_packed_batch(struct queue *queue, const struct vhost_req *req);
void inflight_packed_commit(struct queue *queue);
void inflight_packed_end(struct queue *queue);
unsigned inflight_packed_length(const struct queue *queue, uint16_t entry);
