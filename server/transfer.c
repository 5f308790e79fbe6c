/* transfer.c - copying a disk's content.
 *
 * A few coroutines take pieces in order and read them side by side. Each waits for its turn to
 * write, and lets the next one have it as soon as its own last call has begun. */
#include "server/transfer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/coroutine.h"
#include "server/transfer_side.h"

#define PIECE_SIZE (UINT64_C(1) << 20)
#define WORKERS    8u
/* Calls under way beside those of the workers. */
#define PUTS_MAX 32u
/* What reads as zeroes and is shorter is read along with the data around it. */
#define SKIP_LEAST (UINT64_C(64) << 10)
/* Between two looks at whether to go on. */
#define ZEROES_MOST      (UINT64_C(1) << 30)
#define PROGRESS_STEP_NS UINT64_C(100000000)

struct transfer {
        struct transfer_side from, to;
        const struct side_ops *from_ops, *to_ops;
        struct transfer_watch *watch;
        uint64_t from_bytes, bytes;
        uint32_t unit;
        uint64_t piece_bytes;

        struct co_mutex next_lock;  /* of the four below */
        uint64_t next_offset;       /* of the next piece */
        struct image_extent extent; /* what is left of the one there; no length: not known */
        uint64_t n_pieces;

        uint64_t turn; /* the number of the piece that may be written */
        struct co_queue turns;
        unsigned n_puts;
        unsigned n_running;
        struct co_queue ended;
        uint64_t done_bytes, progress_ns;
        int result;
        struct error error;
};

struct piece {
        uint64_t number, offset, length;
        bool zero;
};

struct worker {
        struct transfer *transfer;
        unsigned n_puts;
        struct co_queue put_ended;
};

/* A call that goes on while its worker makes the next one. */
struct put {
        struct worker *worker;
        const uint8_t *data;
        uint64_t offset;
        size_t length;
};

/* Only the first failure counts. */
static void transfer_fail(struct transfer *t, int code, const struct error *e)
{
        if (t->result < 0)
                return;
        t->result = code;
        t->error = *e;
}

/* ---- pieces ---- */

/* Have t->extent say what is at @offset. */
static int co_know_extent(struct transfer *t, uint64_t offset)
{
        struct error e = ERROR_INIT;
        int r;

        if (t->extent.length > 0)
                return 0;
        if (offset >= t->from_bytes) {
                t->extent = (struct image_extent){.length = t->bytes - offset, .zero = true};
                return 0;
        }
        r = t->from_ops->co_extent(&t->from, offset, &t->extent, &e);
        if (r == 0 && t->extent.length == 0)
                r = error_set(&e, -EIO, "'%s' has an extent of no length at offset %llu",
                              side_name(&t->from), (unsigned long long)offset);
        if (r < 0)
                transfer_fail(t, r, &e);
        else if (t->extent.length > t->bytes - offset)
                t->extent.length = t->bytes - offset;
        return r;
}

static void take(struct transfer *t, struct piece *p, uint64_t length)
{
        if (length > t->bytes - t->next_offset)
                length = t->bytes - t->next_offset;
        if (length > t->extent.length && t->extent.length > 0)
                length = t->extent.length;
        p->length += length;
        t->next_offset += length;
        t->extent.length -= length;
}

/* Zeroes in whole units; the rest goes with what follows. */
static uint64_t zeroes_to_skip(const struct transfer *t)
{
        uint64_t n = t->extent.length;

        if (!t->extent.zero)
                return 0;
        if (n > ZEROES_MOST)
                return ZEROES_MOST;
        return t->next_offset + n == t->bytes ? n : n - n % t->unit;
}

/* Data up to the next multiple of a piece's size or to zeroes worth skipping, over extents of all
 * kinds. */
static int co_take_data(struct transfer *t, struct piece *p)
{
        uint64_t limit = p->offset - p->offset % t->piece_bytes + t->piece_bytes;

        while (t->next_offset < limit && t->next_offset < t->bytes) {
                uint64_t least = t->unit > SKIP_LEAST ? t->unit : SKIP_LEAST;
                int r = co_know_extent(t, t->next_offset);

                if (r < 0)
                        return r;
                if (p->length > 0 && t->extent.zero && t->extent.length >= least) {
                        uint64_t over = t->next_offset % t->unit;

                        if (over > 0)
                                take(t, p, t->unit - over);
                        return 0;
                }
                take(t, p, limit - t->next_offset);
        }
        return 0;
}

static int co_take_piece(struct transfer *t, struct piece *p)
{
        uint64_t skip;
        int r = co_know_extent(t, t->next_offset);

        if (r < 0)
                return r;
        *p = (struct piece){.number = t->n_pieces++, .offset = t->next_offset};
        skip = zeroes_to_skip(t);
        if (skip == 0)
                return co_take_data(t, p);
        p->zero = true;
        take(t, p, skip);
        return 0;
}

/* False at the end, and after a failure. */
static bool co_next_piece(struct transfer *t, struct piece *p)
{
        bool some = false;

        co_lock(&t->next_lock);
        if (t->watch->cancelled && *t->watch->cancelled) {
                struct error e = ERROR_INIT;

                transfer_fail(t, error_set(&e, -ECANCELED, "interrupted"), &e);
        }
        if (t->result == 0 && t->next_offset < t->bytes)
                some = co_take_piece(t, p) == 0;
        co_unlock(&t->next_lock);
        return some;
}

/* ---- writing ---- */

static void co_wait_turn(struct transfer *t, uint64_t number)
{
        while (t->turn != number)
                co_wait(&t->turns);
}

/* The next one begins once this coroutine suspends, and so after the call that it makes now. */
static void pass_turn(struct transfer *t)
{
        t->turn++;
        co_wake_all(&t->turns);
}

static void co_write(struct transfer *t, const uint8_t *data, size_t length, uint64_t offset)
{
        struct error e = ERROR_INIT;
        int r = t->to_ops->co_write(&t->to, data, length, offset, &e);

        if (r < 0)
                transfer_fail(t, r, &e);
}

static void co_zero(struct transfer *t, uint64_t offset, uint64_t length)
{
        struct error e = ERROR_INIT;
        int r = t->to_ops->co_zero(&t->to, offset, length, &e);

        if (r < 0)
                transfer_fail(t, r, &e);
}

static void co_put(void *arg)
{
        struct put *put = arg;
        struct worker *w = put->worker;

        co_write(w->transfer, put->data, put->length, put->offset);
        free(put);
        w->n_puts--;
        w->transfer->n_puts--;
        co_wake_one(&w->put_ended);
}

/* Begin to write, in a coroutine of its own; or write, where there can be no more of them. */
static void co_begin_write(struct worker *w, const uint8_t *data, size_t length, uint64_t offset)
{
        struct transfer *t = w->transfer;
        struct put *put = t->n_puts < PUTS_MAX ? malloc(sizeof(*put)) : NULL;

        if (put) {
                *put = (struct put){.worker = w, .data = data, .offset = offset, .length = length};
                w->n_puts++;
                t->n_puts++;
                if (co_spawn(co_loop(), co_put, put) == 0)
                        return;
                w->n_puts--;
                t->n_puts--;
                free(put);
        }
        co_write(t, data, length, offset);
}

/* How much from @at on is zero, or is not, in whole units. */
static uint64_t run_length(const struct transfer *t, const uint8_t *data, const struct piece *p,
                           uint64_t at, bool *ret_zero)
{
        uint64_t begin = at;

        while (at < p->length) {
                uint64_t n = p->length - at < t->unit ? p->length - at : t->unit;
                bool zero = image_is_zero(data + at, n);

                if (at == begin)
                        *ret_zero = zero;
                else if (zero != *ret_zero)
                        break;
                at += n;
        }
        return at - begin;
}

static void co_write_piece(struct worker *w, const uint8_t *data, const struct piece *p)
{
        struct transfer *t = w->transfer;
        bool passed = false;

        for (uint64_t at = 0, n; at < p->length && t->result == 0; at += n) {
                bool zero = false;

                n = run_length(t, data, p, at, &zero);
                passed = at + n == p->length;
                if (passed)
                        pass_turn(t);
                if (zero)
                        co_zero(t, p->offset + at, n);
                else if (passed)
                        co_write(t, data + at, n, p->offset + at);
                else
                        co_begin_write(w, data + at, n, p->offset + at);
        }
        if (!passed)
                pass_turn(t);
        while (w->n_puts > 0)
                co_wait(&w->put_ended);
}

static void co_read(struct transfer *t, uint8_t *buffer, const struct piece *p)
{
        uint64_t n = 0;
        struct error e = ERROR_INIT;
        int r;

        if (p->offset < t->from_bytes)
                n = t->from_bytes - p->offset < p->length ? t->from_bytes - p->offset : p->length;
        memset(buffer + n, 0, p->length - n);
        r = n > 0 ? t->from_ops->co_read(&t->from, buffer, n, p->offset, &e) : 0;
        if (r < 0)
                transfer_fail(t, r, &e);
}

/* Every piece that was taken has its turn, whatever fails: others wait for it to pass. */
static void co_do_piece(struct worker *w, uint8_t *buffer, const struct piece *p)
{
        struct transfer *t = w->transfer;

        if (!p->zero)
                co_read(t, buffer, p);
        co_wait_turn(t, p->number);
        if (t->result < 0) {
                pass_turn(t);
        } else if (p->zero) {
                pass_turn(t);
                co_zero(t, p->offset, p->length);
        } else {
                co_write_piece(w, buffer, p);
        }
}

/* ---- all of it ---- */

static void report_progress(struct transfer *t, const struct piece *p)
{
        uint64_t now = loop_now_ns(co_loop());

        t->done_bytes += p->length;
        if (!t->watch->progress ||
            (now < t->progress_ns + PROGRESS_STEP_NS && t->done_bytes < t->bytes))
                return;
        t->progress_ns = now;
        t->watch->progress(t->watch, t->done_bytes, t->bytes);
}

static void co_worker(void *arg)
{
        struct transfer *t = arg;
        struct worker w = {.transfer = t};
        struct piece p;
        void *buffer = NULL;

        co_queue_init(&w.put_ended);
        if (posix_memalign(&buffer, 4096, t->piece_bytes) != 0) {
                struct error e = ERROR_INIT;

                buffer = NULL;
                transfer_fail(t, error_set(&e, -ENOMEM, "out of memory"), &e);
        }
        while (buffer && co_next_piece(t, &p)) {
                co_do_piece(&w, buffer, &p);
                if (t->result == 0)
                        report_progress(t, &p);
        }
        free(buffer);
        t->n_running--;
        co_wake_one(&t->ended);
}

static void co_copy(struct transfer *t)
{
        co_mutex_init(&t->next_lock);
        co_queue_init(&t->turns);
        co_queue_init(&t->ended);
        for (unsigned i = 0; i < WORKERS; i++) {
                t->n_running++;
                if (co_spawn(co_loop(), co_worker, t) < 0) {
                        struct error e = ERROR_INIT;

                        t->n_running--;
                        transfer_fail(t, error_set(&e, -ENOMEM, "out of memory"), &e);
                        break;
                }
        }
        while (t->n_running > 0)
                co_wait(&t->ended);
}

int co_transfer(struct transfer_side from, struct transfer_side to, struct transfer_watch *watch,
                struct error *err)
{
        struct transfer t = {.from = from,
                             .to = to,
                             .from_ops = side_ops(&from),
                             .to_ops = side_ops(&to),
                             .watch = watch,
                             .from_bytes = side_bytes(&from),
                             .bytes = side_bytes(&to),
                             .unit = side_unit(&to)};

        if (t.bytes < t.from_bytes)
                return error_set(err, -EFBIG, "'%s' holds %llu bytes, and '%s' needs %llu",
                                 side_name(&to), (unsigned long long)t.bytes, side_name(&from),
                                 (unsigned long long)t.from_bytes);
        t.piece_bytes = t.unit > PIECE_SIZE ? t.unit : PIECE_SIZE;
        co_copy(&t);
        if (t.result < 0) {
                if (err)
                        *err = t.error;
                return t.result;
        }
        return t.to_ops->co_finish(&t.to, err);
}
