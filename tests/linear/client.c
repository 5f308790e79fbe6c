/* client.c - see client.h. */
#include "tests/linear/client.h"
#include <assert.h>
#include <string.h>
#include "tests/bench/stamp.h"

#define ANSWERS_A_SECOND 1200u
#define HANGS_UP_EVERY   3000u /* answers, about */

void client_init(struct client *c)
{
        const struct plan_options any = {.n_blocks = 1, .seed = c->world->seed * 1000 + c->number};

        plan_init(&c->random, &any);
}

void client_free(struct client *c)
{
        history_free(&c->history);
}

unsigned client_random(struct client *c, unsigned limit)
{
        return (unsigned)(plan_random(&c->random) % limit);
}

/* ---- what to ask for ---- */

static enum client_action draw_action(struct client *c)
{
        unsigned draw = client_random(c, 100);

        if (draw < 45)
                return CLIENT_READ;
        if (draw < 85)
                return CLIENT_WRITE;
        if (draw < 92)
                return CLIENT_ZERO;
        return draw < 97 ? CLIENT_DISCARD : CLIENT_FLUSH;
}

void client_draw(struct client *c, struct client_request *q)
{
        unsigned draw = client_random(c, 10);
        bool whole = draw >= 3; /* blocks */

        q->action = draw_action(c);
        q->fua = client_random(c, 10) == 0 && world_mood(c->world) != WORLD_FLUSHES;
        if (q->action == CLIENT_FLUSH && world_mood(c->world) == WORLD_FUA)
                q->action = CLIENT_WRITE;
        q->n_units = draw < 3 ? 1 : draw < 7 ? 2 : 1 + client_random(c, CLIENT_REQUEST_UNITS);
        /* What is discarded is whole blocks: of others a part need not be. */
        if (q->action == CLIENT_DISCARD || whole)
                q->n_units = (q->n_units + 1) / 2 * 2;
        /* Half of all is in a few places, so that they meet. */
        unsigned n_places = client_random(c, 2) ? CLIENT_UNITS : CLIENT_UNITS / 4;
        q->unit = CLIENT_UNITS / 2 - n_places / 2 + client_random(c, n_places - q->n_units + 1);
        if (q->n_units % 2 == 0 && (q->action == CLIENT_DISCARD || whole))
                q->unit -= q->unit % 2;
}

/* ---- what is written down ---- */

static uint64_t stamped_unit(const struct client *c, unsigned unit)
{
        return (uint64_t)c->volume << 32 | unit;
}

int client_begin(struct client *c, struct client_request *q)
{
        bool is_flush = q->action == CLIENT_FLUSH, is_read = q->action == CLIENT_READ;
        unsigned n = is_flush ? 1 : q->n_units;
        uint64_t value = 0;
        int r = 0;

        if (q->action == CLIENT_WRITE) {
                value = (uint64_t)(c->number + 1) << 32 | ++c->n_values;
                for (unsigned i = 0; i < n; i++)
                        stamp_fill(c->world->seed, stamped_unit(c, q->unit + i), value,
                                   q->data + (size_t)i * CLIENT_UNIT, CLIENT_UNIT);
        }
        struct history_op op = {.begin_ns = world_clock_ns(),
                                .end_ns = HISTORY_NEVER,
                                .value = value,
                                .volume = (uint16_t)c->volume,
                                .client = (uint16_t)c->number,
                                .first_life = (uint16_t)c->life,
                                .last_life = (uint16_t)c->life,
                                .kind = is_flush  ? HISTORY_FLUSH
                                        : is_read ? HISTORY_READ
                                                  : HISTORY_WRITE,
                                .durable = !is_read && !is_flush && (q->fua || c->n_queues > 0)};
        for (unsigned i = 0; r == 0 && i < n; i++) {
                op.unit = is_flush ? HISTORY_ALL : q->unit + i;
                r = history_add(&c->history, &op, i == 0 ? &q->first : NULL, &c->err);
        }
        return r;
}

static uint64_t value_of(const struct client *c, unsigned unit, const uint8_t *bytes)
{
        static const uint8_t zeroes[CLIENT_UNIT];
        uint8_t wanted[CLIENT_UNIT];
        uint64_t value;

        if (memcmp(bytes, zeroes, CLIENT_UNIT) == 0)
                return 0;
        if (!stamp_claims(c->world->seed, stamped_unit(c, unit), bytes, &value))
                return HISTORY_RUBBISH;
        stamp_fill(c->world->seed, stamped_unit(c, unit), value, wanted, CLIENT_UNIT);
        return memcmp(bytes, wanted, CLIENT_UNIT) == 0 ? value : HISTORY_RUBBISH;
}

void client_end(struct client *c, struct client_request *q)
{
        uint64_t now_ns = world_clock_ns();
        struct history_op *ops = &c->history.ops[q->first];
        unsigned n = q->action == CLIENT_FLUSH ? 1 : q->n_units;

        for (unsigned i = 0; i < n; i++) {
                assert(ops[i].end_ns == HISTORY_NEVER);
                ops[i].end_ns = now_ns;
                if (q->action == CLIENT_READ)
                        ops[i].value = value_of(c, q->unit + i, q->data + (size_t)i * CLIENT_UNIT);
        }
        atomic_fetch_add(&c->n_answered, 1);
}

void client_carry(struct client *c, struct client_request *q, unsigned life)
{
        unsigned n = q->action == CLIENT_FLUSH ? 1 : q->n_units;

        for (unsigned i = 0; i < n; i++)
                c->history.ops[q->first + i].last_life = (uint16_t)life;
}

/* ---- when ---- */

void client_pace(struct client *c)
{
        uint64_t now_ns = world_clock_ns();

        /* What was not asked for in time is not made up for. */
        if (c->paid_ns + 50 * UINT64_C(1000000) < now_ns)
                c->paid_ns = now_ns;
        c->paid_ns += UINT64_C(1000000000) / ANSWERS_A_SECOND;
        if (c->paid_ns > now_ns + 5 * UINT64_C(1000000))
                world_sleep_ms(5);
}

bool client_hangs_up(struct client *c)
{
        return client_random(c, HANGS_UP_EVERY) == 0;
}
