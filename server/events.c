/* events.c - what happens to the pools of a server, for who subscribes. */
#include "server/events.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/log.h"
#include "server/command.h"

/* Between two lines in the log about a pool without space. */
#define FULL_LOG_NS UINT64_C(60000000000)

struct event_line {
        struct list link;
        char *text;
};

/* ---- queues ---- */

static bool queue(struct subscriber *s, char *text)
{
        struct event_line *line = text ? malloc(sizeof(*line)) : NULL;

        if (!line) {
                free(text);
                return false;
        }
        line->text = text;
        list_append(&s->lines, &line->link);
        s->n_lines++;
        return true;
}

static char *lost_text(uint64_t n)
{
        char text[64];

        snprintf(text, sizeof(text), "{\"event\":\"events-lost\",\"count\":%llu}",
                 (unsigned long long)n);
        return strdup(text);
}

/* Once some were lost, all are until that is told: after what is queued, where they would have
 * been. */
static void queue_event(struct subscriber *s, const char *text)
{
        if (s->n_lost > 0 || s->n_lines >= EVENTS_QUEUE_MAX ||
            !queue(s, text ? strdup(text) : NULL))
                s->n_lost++;
        if (s->co)
                co_wake(s->co);
        s->co = NULL;
}

void events_subscribe(struct subscriber *s, struct host_pool *hp)
{
        *s = (struct subscriber){.hp = hp};
        list_init(&s->lines);
        list_append(&hp->host->subscribers, &s->link);
        hp->n_subscribers++;
}

char *events_next(struct subscriber *s)
{
        struct event_line *line;
        char *text;

        if (list_empty(&s->lines)) {
                text = s->n_lost > 0 ? lost_text(s->n_lost) : NULL;
                if (text)
                        s->n_lost = 0;
                return text;
        }
        line = container_of(s->lines.next, struct event_line, link);
        text = line->text;
        list_remove(&line->link);
        s->n_lines--;
        free(line);
        return text;
}

void events_unsubscribe(struct subscriber *s)
{
        list_remove(&s->link);
        s->hp->n_subscribers--;
        s->n_lost = 0;
        for (char *text; (text = events_next(s));)
                free(text);
}

/* ---- events ---- */

static json_t *now_json(void)
{
        struct timespec now;
        char text[40];
        struct tm tm;

        clock_gettime(CLOCK_REALTIME, &now);
        if (!gmtime_r(&now.tv_sec, &tm) ||
            strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm) == 0)
                return json_null();
        return json_sprintf("%s.%03ldZ", text, now.tv_nsec / 1000000);
}

/* On its way from the pool's loop to the host's. */
struct message {
        struct loop_task task;
        struct host_pool *hp;
        char *text;
};

static void deliver(struct loop_task *task)
{
        struct message *m = container_of(task, struct message, task);

        list_for_each (it, &m->hp->host->subscribers) {
                struct subscriber *s = container_of(it, struct subscriber, link);

                if (s->hp == m->hp)
                        queue_event(s, m->text);
        }
        free(m->text);
        free(m);
}

static bool has_subscribers(const struct host_pool *hp)
{
        return hp->n_subscribers > 0;
}

void events_emit(struct host_pool *hp, const char *name, json_t *event)
{
        struct message *m = NULL;

        if (event && has_subscribers(hp) && (m = calloc(1, sizeof(*m)))) {
                json_object_set_new(event, "event", json_string(name));
                json_object_set_new(event, "time", now_json());
                json_object_set_new(event, "pool", json_string(hp->name));
                *m = (struct message){
                    .task.run = deliver, .hp = hp, .text = json_dumps(event, JSON_COMPACT)};
        }
        json_decref(event);
        if (m)
                loop_post_remote(hp->host->loop, &m->task);
}

/* ---- of commands ---- */

static const struct {
        const char *command, *event;
        const char *keys[4]; /* of the request, or of the reply */
} told[] = {
    {"pool-add", "members-added", {"paths"}},
    {"volume-create", "volume-created", {"volume", "size"}},
    {"volume-clone", "volume-created", {"volume", "snapshot"}},
    {"image-import", "volume-created", {"volume", "size"}},
    {"volume-resize", "volume-resized", {"volume", "size"}},
    {"volume-rename", "volume-renamed", {"volume", "new_name"}},
    {"volume-delete", "volume-deleted", {"volume"}},
    {"volume-set", "volume-set", {"volume", "properties"}},
    {"volume-attach", "volume-attached", {"volume", "path"}},
    {"volume-detach", "volume-detached", {"volume", "path"}},
    {"snapshot-create", "snapshots-created", {"names"}},
    {"snapshot-restore", "snapshot-restored", {"snapshot", "kept"}},
    {"snapshot-delete", "snapshot-deleted", {"snapshot"}},
};

void events_emit_command(const struct command *c, const char *command)
{
        for (size_t i = 0; i < sizeof(told) / sizeof(told[0]); i++) {
                json_t *event;

                if (strcmp(told[i].command, command) != 0)
                        continue;
                event = json_object();
                for (size_t k = 0; k < 4 && told[i].keys[k]; k++) {
                        json_t *value = json_object_get(c->reply, told[i].keys[k]);

                        if (!value)
                                value = json_object_get(c->request, told[i].keys[k]);
                        if (value)
                                json_object_set(event, told[i].keys[k], value);
                }
                events_emit(c->hp, told[i].event, event);
        }
}

/* ---- of the engine ---- */

/* A guest that waits looks broken to who does not know why. One that fills the pool and discards
 * over and over makes no more lines than this. */
static void log_full(struct host_pool *hp)
{
        uint64_t now_ns = loop_now_ns(hp->loop);

        if (!hp->vhost) /* a command of its own: it says itself what it has to say */
                return;
        if (hp->full_logged_ns && now_ns - hp->full_logged_ns < FULL_LOG_NS)
                return;
        hp->full_logged_ns = now_ns;
        log_warning("pool '%s' has no space left: virtual machines wait for it, and other writers "
                    "get an error, where their volumes' property on-full says nothing else",
                    hp->name);
}

static void pass_on(const struct pool_event *event, void *arg)
{
        static const char *const names[] = {
            [POOL_EVENT_FILLING] = "pool-filling", [POOL_EVENT_FULL] = "pool-full",
            [POOL_EVENT_SPACE] = "space-again",    [POOL_EVENT_CHECKSUM] = "checksum-error",
            [POOL_EVENT_MEMBER] = "member-error",  [POOL_EVENT_STOPPED] = "writing-stopped"};
        struct host_pool *hp = arg;
        json_t *j;

        if (event->kind == POOL_EVENT_FILLING && hp->vhost)
                log_warning("pool '%s': %s; 'tarn pool add' gives it more, deleting snapshots "
                            "('tarn snapshot list' says which free how much) or volumes, too",
                            hp->name, event->sentence);
        if (event->kind == POOL_EVENT_FULL)
                log_full(hp);
        if (!has_subscribers(hp))
                return;
        j = json_pack("{s:s}", "message", event->sentence);
        if (event->percent)
                json_object_set_new(j, "percent", json_integer((json_int_t)event->percent));
        if (event->volume) {
                json_object_set_new(j, "volume", json_string(event->volume));
                json_object_set_new(j, "offset", json_integer((json_int_t)event->offset));
        }
        if (event->member) {
                json_object_set_new(j, "member", json_string(event->member));
                json_object_set_new(j, "member_offset",
                                    json_integer((json_int_t)event->member_offset));
        }
        events_emit(hp, names[event->kind], j);
}

void events_observe(struct host_pool *hp)
{
        pool_observe(hp->pool, pass_on, hp);
}
