/* command_stat.c - what volumes, exports and members did since the pool was opened. */
#include <stdio.h>
#include <string.h>

#include "server/command.h"

static void put(json_t *object, const char *key, uint64_t value)
{
        json_object_set_new(object, key, json_integer((json_int_t)value));
}

/* Only buckets that hold something: [end, count]. */
static json_t *histogram_json(const struct meter_line *line)
{
        json_t *buckets = json_array();

        for (unsigned i = 0; i < METER_BUCKETS; i++) {
                uint64_t end = meter_bucket_end_ns(i);

                if (line->bucket[i] == 0)
                        continue;
                json_array_append_new(
                    buckets,
                    json_pack("[o, I]",
                              end == UINT64_MAX ? json_null() : json_integer((json_int_t)end),
                              (json_int_t)line->bucket[i]));
        }
        return buckets;
}

static json_t *line_json(const struct meter_line *line)
{
        json_t *j = json_object();

        put(j, "requests", line->requests);
        put(j, "bytes", line->bytes);
        put(j, "errors", line->errors);
        put(j, "latency_ns", line->latency_ns);
        json_object_set_new(j, "histogram", histogram_json(line));
        return j;
}

static void put_meter(json_t *j, const struct meter_stats *meter, unsigned n_kinds)
{
        static const char *const names[METER_KINDS] = {"read", "write", "flush", "discard", "zero"};

        for (unsigned k = 0; k < n_kinds; k++)
                json_object_set_new(j, names[k], line_json(&meter->line[k]));
        put(j, "depth", meter->depth);
        put(j, "depth_ns", meter->depth_ns);
        put(j, "busy_ns", meter->busy_ns);
}

struct telling {
        const char *pool;
        const char *volume; /* only this one and its snapshots; NULL: all */
        json_t *volumes, *exports;
};

static bool is_asked_for(const struct telling *t, const char *name)
{
        return !t->volume || host_name_is_of(name, t->volume);
}

static json_t *throttle_json(const struct volume_stats *stats)
{
        json_t *j = json_object();

        put(j, "iops", stats->limits.iops);
        put(j, "iops_burst", stats->limits.iops_burst);
        put(j, "bandwidth", stats->limits.bandwidth);
        put(j, "bandwidth_burst", stats->limits.bandwidth_burst);
        put(j, "requests", stats->throttled);
        put(j, "waited_ns", stats->throttled_ns);
        put(j, "waiting", stats->n_waiting);
        return j;
}

static void tell_volume(const struct volume_stats *stats, void *arg)
{
        struct telling *t = arg;
        json_t *j;

        if (!is_asked_for(t, stats->name))
                return;
        j = json_pack("{s:o, s:i}", "name", json_sprintf("%s/%s", t->pool, stats->name), "open",
                      (int)stats->n_handles);
        put_meter(j, &stats->meter, METER_KINDS);
        json_object_set_new(j, "throttle", throttle_json(stats));
        put(j, "waiting_for_space", stats->n_full);
        json_array_append_new(t->volumes, j);
}

static void tell_handle(const struct handle_stats *stats, void *arg)
{
        struct telling *t = arg;
        json_t *j;

        if (!is_asked_for(t, stats->name))
                return;
        j = json_pack("{s:o, s:s, s:b}", "name", json_sprintf("%s/%s", t->pool, stats->name),
                      "user", stats->user, "readonly", stats->readonly);
        put_meter(j, &stats->meter, METER_KINDS);
        json_array_append_new(t->exports, j);
}

static json_t *members_json(struct pool *pool)
{
        json_t *members = json_array();
        struct pool_info info;

        pool_get_info(pool, &info);
        for (size_t i = 0; i < info.n_members; i++) {
                struct pool_member_info m;
                struct meter_stats stats;
                json_t *j;

                pool_get_member_info(pool, i, &m);
                pool_get_member_stats(pool, i, &stats);
                j = json_pack("{s:s, s:o}", "path", m.path, "uuid", json_uuid(m.uuid));
                put_meter(j, &stats, METER_ZERO); /* a member is told of no zeroes */
                json_array_append_new(members, j);
        }
        return members;
}

static int root_exists(const struct root_info *info, void *arg)
{
        return 0;
}

int co_stats(struct command *c, struct error *err)
{
        struct telling t = {.pool = c->hp->name};
        struct pool *pool = c->hp->pool;
        json_t *cache = json_object();
        struct pool_stats stats;
        int r = 0;

        json_object_set_new(c->reply, "cache", cache);
        if (json_object_get(c->request, "volume"))
                r = command_volume(c, "volume", &t.volume, err);
        /* What was never opened has nothing to tell, but there must be one. */
        if (r == 0 && t.volume)
                r = co_root_get(pool, t.volume, root_exists, NULL, err);
        if (r < 0)
                return r;
        t.volumes = json_array();
        t.exports = json_array();
        pool_get_stats(pool, &stats);
        pool_each_volume_stats(pool, tell_volume, &t);
        pool_each_handle_stats(pool, tell_handle, &t);
        json_object_set_new(c->reply, "name", json_string(t.pool));
        put(c->reply, "time_ns", stats.time_ns);
        put(c->reply, "opened_ns", stats.opened_ns);
        put(c->reply, "checkpoints", stats.checkpoints);
        put(cache, "hits", stats.cache_hits);
        put(cache, "misses", stats.cache_misses);
        put(cache, "size", stats.cache_bytes);
        put(cache, "dirty", stats.cache_dirty_bytes);
        put(cache, "max", stats.cache_max_bytes);
        json_object_set_new(c->reply, "volumes", t.volumes);
        json_object_set_new(c->reply, "exports", t.exports);
        json_object_set_new(c->reply, "members", members_json(pool));
        return 0;
}
