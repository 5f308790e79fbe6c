/* stat.c - tarn stat: rates and latencies of volumes, exports and members, as iostat shows them.
 *
 * The server's counters only grow (docs/control.md): a report is the difference of two answers, and
 * the first one that of the answer and the pool's opening. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cli/cli.h"
#include "server/state.h"

#define INTERVAL_MIN_S     0.1
#define INTERVAL_MAX_S     86400.0
#define INTERVAL_DEFAULT_S 1.0
#define MIB                1048576.0

/* ---- one thing in one interval ---- */

struct rates {
        double seconds;
        double reads, writes, flushes, discards, errors; /* a second */
        double read_bytes, write_bytes;
        double read_ms, write_ms, p99_ms;
        double depth, busy; /* means: requests; share of the time, 0 to 1 */
        uint64_t waiting;   /* for limits, now */
};

static double number(const json_t *object, const char *kind, const char *key)
{
        const json_t *at = kind ? json_object_get(object, kind) : object;

        return (double)cli_number(at, key);
}

/* How much it grew; @old NULL: from nothing. */
static double grown(const json_t *new, const json_t *old, const char *kind, const char *key)
{
        return number(new, kind, key) - (old ? number(old, kind, key) : 0);
}

static double mean_ms(const json_t *new, const json_t *old, const char *kind)
{
        double n = grown(new, old, kind, "requests");

        return n > 0 ? grown(new, old, kind, "latency_ns") / n / 1e6 : 0;
}

static json_t *histogram(const json_t *object, const char *kind)
{
        return json_object_get(json_object_get(object, kind), "histogram");
}

/* The count of the bucket that ends at @end_ns; INFINITY: the last. */
static double count_at(json_t *buckets, double end_ns)
{
        json_t *bucket;
        size_t i;

        json_array_foreach (buckets, i, bucket) {
                const json_t *end = json_array_get(bucket, 0);
                double at = json_is_null(end) ? (double)INFINITY : json_number_value(end);

                if (at >= end_ns)
                        return at > end_ns ? 0 : json_number_value(json_array_get(bucket, 1));
        }
        return 0;
}

/* The smallest end of a bucket after @end_ns in any of the histograms; NAN: there is none. */
static double next_end(json_t *const *buckets, size_t n, double end_ns)
{
        double next = (double)NAN;

        for (size_t k = 0; k < n; k++) {
                json_t *bucket;
                size_t i;

                json_array_foreach (buckets[k], i, bucket) {
                        const json_t *end = json_array_get(bucket, 0);
                        double at = json_is_null(end) ? (double)INFINITY : json_number_value(end);

                        if (at > end_ns && !(at >= next))
                                next = at;
                }
        }
        return next;
}

/* 99 of 100 reads and writes took less; INFINITY where they took longer than is told apart. */
static double p99_ms(const json_t *new, const json_t *old)
{
        json_t *now[] = {histogram(new, "read"), histogram(new, "write")};
        json_t *then[] = {histogram(old, "read"), histogram(old, "write")};
        double n = grown(new, old, "read", "requests") + grown(new, old, "write", "requests");
        double wanted = ceil(n * 0.99), seen = 0, end = 0;

        while (n > 0) {
                end = next_end(now, 2, end);
                if (isnan(end))
                        break;
                for (size_t k = 0; k < 2; k++)
                        seen += count_at(now[k], end) - count_at(then[k], end);
                if (seen >= wanted)
                        return end / 1e6;
        }
        return 0;
}

static struct rates rates_of(const json_t *new, const json_t *old, double seconds)
{
        static const char *const kinds[] = {"read", "write", "flush", "discard", "zero"};
        struct rates r = {.seconds = seconds,
                          .reads = grown(new, old, "read", "requests") / seconds,
                          .writes = grown(new, old, "write", "requests") / seconds,
                          .flushes = grown(new, old, "flush", "requests") / seconds,
                          .read_bytes = grown(new, old, "read", "bytes") / seconds,
                          .write_bytes = grown(new, old, "write", "bytes") / seconds,
                          .read_ms = mean_ms(new, old, "read"),
                          .write_ms = mean_ms(new, old, "write"),
                          .p99_ms = p99_ms(new, old),
                          .depth = grown(new, old, NULL, "depth_ns") / seconds / 1e9,
                          .busy = grown(new, old, NULL, "busy_ns") / seconds / 1e9,
                          .waiting = cli_number(json_object_get(new, "throttle"), "waiting")};

        /* Zeroes are discards to who looks at disks. */
        r.discards =
            (grown(new, old, "discard", "requests") + grown(new, old, "zero", "requests")) /
            seconds;
        for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++)
                r.errors += grown(new, old, kinds[k], "errors") / seconds;
        return r;
}

/* ---- the answers ---- */

/* The same thing in the answer before, if it is: one of the same name that has counted less is
 * another. */
static json_t *find_before(const json_t *before, const char *section, const json_t *item)
{
        static const char *const keys[] = {"name", "user", "path"};
        json_t *other;
        size_t i;

        json_array_foreach (json_object_get(before, section), i, other) {
                bool same = true;

                for (size_t k = 0; k < sizeof(keys) / sizeof(keys[0]); k++)
                        same =
                            same && strcmp(cli_text(item, keys[k]), cli_text(other, keys[k])) == 0;
                if (same)
                        return grown(item, other, NULL, "depth_ns") < 0 ||
                                       grown(item, other, "read", "requests") < 0 ||
                                       grown(item, other, "write", "requests") < 0
                                   ? NULL
                                   : other;
        }
        return NULL;
}

/* Of one pool: its name and the last two answers. */
struct source {
        char *pool;
        json_t *before, *now;
};

struct report {
        struct source *source;
        size_t n_sources;
        const char *volume; /* NULL: all of the pool's */
        unsigned options;
};

/* The answer before, if the pool has been open since. */
static const json_t *before_of(const struct source *s)
{
        if (s->before && cli_number(s->before, "opened_ns") == cli_number(s->now, "opened_ns"))
                return s->before;
        return NULL;
}

static double seconds_of(const struct source *s)
{
        const json_t *before = before_of(s);
        uint64_t from = before ? cli_number(before, "time_ns") : cli_number(s->now, "opened_ns");
        double seconds = (double)(cli_number(s->now, "time_ns") - from) / 1e9;
        return seconds > 1e-9 ? seconds : 1e-9;
}

/* Call @each for all of a section, of all pools. */
static void each_item(const struct report *report, const char *section,
                      void (*each)(const json_t *item, const struct rates *rates, void *arg),
                      void *arg)
{
        for (size_t p = 0; p < report->n_sources; p++) {
                const struct source *s = &report->source[p];
                const json_t *before = before_of(s);
                json_t *item;
                size_t i;

                json_array_foreach (json_object_get(s->now, section), i, item) {
                        const json_t *old = before ? find_before(before, section, item) : NULL;
                        struct rates rates = rates_of(item, old, seconds_of(s));

                        each(item, &rates, arg);
                }
        }
}

/* A pool's cache of map nodes: bytes, now. */
static const char *const cache_sizes[] = {"size", "dirty", "max"};
#define N_CACHE_SIZES (sizeof(cache_sizes) / sizeof(cache_sizes[0]))

/* What was found in it in one interval, and what had to be read, a second. */
static void cache_rates(const struct source *s, double *ret_hits, double *ret_misses)
{
        const json_t *before = before_of(s);

        *ret_hits = grown(s->now, before, "cache", "hits") / seconds_of(s);
        *ret_misses = grown(s->now, before, "cache", "misses") / seconds_of(s);
}

/* ---- shown ---- */

static const struct cli_column columns[] = {
    {NULL, CLI_LEFT},       {"r/s", CLI_RIGHT}, {"w/s", CLI_RIGHT},    {"rMB/s", CLI_RIGHT},
    {"wMB/s", CLI_RIGHT},   {"f/s", CLI_RIGHT}, {"d/s", CLI_RIGHT},    {"r_await", CLI_RIGHT},
    {"w_await", CLI_RIGHT}, {"p99", CLI_RIGHT}, {"aqu-sz", CLI_RIGHT}, {"%util", CLI_RIGHT},
};
#define N_COLUMNS (sizeof(columns) / sizeof(columns[0]))

static void cell(struct cli_line *line, size_t column, double value)
{
        char text[32];

        if (isinf(value))
                snprintf(text, sizeof(text), "long");
        else
                snprintf(text, sizeof(text), "%.2f", value);
        cli_table_cell(line, column, text);
}

static void add_line(const json_t *item, const struct rates *r, void *arg)
{
        struct cli_line *line = cli_table_line(arg, NULL);
        const char *name = cli_text(item, "path");
        char text[512];

        if (!name[0])
                name = cli_text(item, "name");
        snprintf(text, sizeof(text), "%s%s%s", name, json_object_get(item, "user") ? " " : "",
                 cli_text(item, "user"));
        cli_table_cell(line, 0, text);
        const double values[N_COLUMNS - 1] = {
            r->reads,   r->writes,   r->read_bytes / MIB, r->write_bytes / MIB,
            r->flushes, r->discards, r->read_ms,          r->write_ms,
            r->p99_ms,  r->depth,    r->busy * 100};
        for (size_t i = 0; i < N_COLUMNS - 1; i++)
                cell(line, i + 1, values[i]);
}

static void print_section(const struct report *report, const char *section, const char *title)
{
        struct cli_column named[N_COLUMNS];
        struct cli_table *table;

        memcpy(named, columns, sizeof(columns));
        named[0].name = title;
        table = cli_table_new(named, N_COLUMNS);
        each_item(report, section, add_line, table);
        cli_table_finish(table);
        printf("\n");
}

static void print_caches(const struct report *report)
{
        static const struct cli_column cache_columns[] = {
            {"pool", CLI_LEFT},   {"hit/s", CLI_RIGHT},   {"miss/s", CLI_RIGHT},
            {"%hit", CLI_RIGHT},  {"cacheMB", CLI_RIGHT}, {"dirtyMB", CLI_RIGHT},
            {"maxMB", CLI_RIGHT},
        };
        struct cli_table *table =
            cli_table_new(cache_columns, sizeof(cache_columns) / sizeof(cache_columns[0]));

        for (size_t p = 0; p < report->n_sources; p++) {
                const struct source *s = &report->source[p];
                struct cli_line *line = cli_table_line(table, NULL);
                double hits, misses;

                cache_rates(s, &hits, &misses);
                cli_table_cell(line, 0, cli_text(s->now, "name"));
                cell(line, 1, hits);
                cell(line, 2, misses);
                if (hits + misses > 0)
                        cell(line, 3, hits / (hits + misses) * 100);
                else
                        cli_table_cell(line, 3, "-");
                for (size_t i = 0; i < N_CACHE_SIZES; i++)
                        cell(line, 4 + i, number(s->now, "cache", cache_sizes[i]) / MIB);
        }
        cli_table_finish(table);
        printf("\n");
}

static void print_report(const struct report *report)
{
        print_section(report, "volumes", "volume");
        print_caches(report);
        if (report->options & CLI_EXPORTS)
                print_section(report, "exports", "export");
        if (report->options & CLI_MEMBERS)
                print_section(report, "members", "member");
}

static json_t *json_rate(double value)
{
        return isfinite(value) ? json_real(round(value * 1000) / 1000) : json_null();
}

static void add_json(const json_t *item, const struct rates *r, void *arg)
{
        static const char *const keys[] = {"name", "user", "path"};
        json_t *j = json_object();

        for (size_t k = 0; k < sizeof(keys) / sizeof(keys[0]); k++)
                if (json_object_get(item, keys[k]))
                        json_object_set(j, keys[k], json_object_get(item, keys[k]));
        json_object_set_new(j, "reads", json_rate(r->reads));
        json_object_set_new(j, "writes", json_rate(r->writes));
        json_object_set_new(j, "flushes", json_rate(r->flushes));
        json_object_set_new(j, "discards", json_rate(r->discards));
        json_object_set_new(j, "errors", json_rate(r->errors));
        json_object_set_new(j, "read_bytes", json_rate(r->read_bytes));
        json_object_set_new(j, "write_bytes", json_rate(r->write_bytes));
        json_object_set_new(j, "read_ms", json_rate(r->read_ms));
        json_object_set_new(j, "write_ms", json_rate(r->write_ms));
        json_object_set_new(j, "p99_ms", json_rate(r->p99_ms));
        json_object_set_new(j, "depth", json_rate(r->depth));
        json_object_set_new(j, "busy", json_rate(r->busy));
        if (json_object_get(item, "throttle"))
                json_object_set_new(j, "waiting", json_integer((json_int_t)r->waiting));
        json_array_append_new(arg, j);
}

static json_t *pools_json(const struct report *report)
{
        json_t *pools = json_array();

        for (size_t p = 0; p < report->n_sources; p++) {
                const struct source *s = &report->source[p];
                json_t *cache = json_object();
                double hits, misses;

                cache_rates(s, &hits, &misses);
                json_object_set_new(cache, "hits", json_rate(hits));
                json_object_set_new(cache, "misses", json_rate(misses));
                for (size_t i = 0; i < N_CACHE_SIZES; i++)
                        json_object_set(
                            cache, cache_sizes[i],
                            json_object_get(json_object_get(s->now, "cache"), cache_sizes[i]));
                json_array_append_new(pools, json_pack("{s:s, s:o}", "name",
                                                       cli_text(s->now, "name"), "cache", cache));
        }
        return pools;
}

static void print_json(const struct report *report)
{
        static const char *const sections[] = {"volumes", "exports", "members"};
        json_t *all = json_object();

        json_object_set_new(all, "seconds", json_real(seconds_of(&report->source[0])));
        for (size_t i = 0; i < sizeof(sections) / sizeof(sections[0]); i++) {
                json_t *items = json_array();

                each_item(report, sections[i], add_json, items);
                json_object_set_new(all, sections[i], items);
        }
        json_object_set_new(all, "pools", pools_json(report));
        cli_print_json_line(all);
        json_decref(all);
}

/* ---- asked ---- */

static int ask(struct source *s, const char *volume, struct error *err)
{
        json_t *request = json_pack("{s:s}", "command", "stats"), *reply;
        int r;

        if (volume)
                cli_put(&request, "volume", json_string(volume));
        r = cli_try(&(struct cli_call){.pool = s->pool, .request = request, .served_only = true},
                    &reply, err);
        if (r < 0)
                return r;
        json_decref(s->before);
        s->before = s->now;
        s->now = reply;
        return 0;
}

static int add_source(struct report *report, const char *pool, struct error *err)
{
        struct source s = {.pool = strdup(pool)};
        struct source *grown_to =
            realloc(report->source, (report->n_sources + 1) * sizeof(*grown_to));

        if (grown_to)
                report->source = grown_to;
        if (!s.pool || !grown_to) {
                free(s.pool);
                return error_set(err, -ENOMEM, "out of memory");
        }
        report->source[report->n_sources++] = s;
        return 0;
}

/* Every pool that is served now; the first answers are theirs. */
static int find_served(struct report *report, struct error *err)
{
        char **names;
        size_t n;
        int r = state_names(&names, &n, err);

        if (r < 0)
                return r;
        for (size_t i = 0; r == 0 && i < n; i++) {
                r = add_source(report, names[i], err);
                if (r == 0)
                        r = ask(&report->source[report->n_sources - 1], NULL, err);
                if (r == -ENOTCONN) {
                        free(report->source[--report->n_sources].pool);
                        r = 0;
                }
        }
        state_names_free(names, n);
        if (r == 0 && report->n_sources == 0) {
                error_set(err, -ENOTCONN, "no pool is being served");
                error_hint(err, "'tarn serve POOL' serves one; what is counted, its server counts");
                r = -ENOTCONN;
        }
        return r;
}

static int ask_again(struct report *report, struct error *err)
{
        int r = 0;

        for (size_t i = 0; r == 0 && i < report->n_sources; i++)
                r = ask(&report->source[i], report->volume, err);
        return r;
}

static void report_release(struct report *report)
{
        for (size_t i = 0; i < report->n_sources; i++) {
                free(report->source[i].pool);
                json_decref(report->source[i].before);
                json_decref(report->source[i].now);
        }
        free(report->source);
}

/* ---- the command ---- */

struct pace {
        double interval_s;
        uint64_t count; /* 0: for ever */
};

static int parse_pace(const struct cli_args *args, struct pace *pace, struct error *err)
{
        char *end;

        pace->interval_s = INTERVAL_DEFAULT_S;
        pace->count = args->given & CLI_INTERVAL ? 0 : 1;
        if (args->given & CLI_INTERVAL) {
                pace->interval_s = strtod(args->interval, &end);
                if (end == args->interval || *end || !(pace->interval_s >= INTERVAL_MIN_S) ||
                    pace->interval_s > INTERVAL_MAX_S)
                        return error_set(err, -EINVAL,
                                         "'%s' is no interval: seconds, from %.1f to %.0f",
                                         args->interval, INTERVAL_MIN_S, INTERVAL_MAX_S);
        }
        if (args->given & CLI_COUNT) {
                pace->count = strtoull(args->count, &end, 10);
                if (end == args->count || *end || args->count[0] == '-' || pace->count == 0)
                        return error_set(err, -EINVAL, "'%s' is no number of reports", args->count);
        }
        return 0;
}

/* Until the next multiple of the interval after @begin: reports do not drift. */
static void wait_for_next(struct timespec *next, double interval_s)
{
        double whole;
        double part = modf(interval_s, &whole);

        next->tv_sec += (time_t)whole;
        next->tv_nsec += (long)(part * 1e9);
        if (next->tv_nsec >= 1000000000) {
                next->tv_nsec -= 1000000000;
                next->tv_sec++;
        }
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, next, NULL) == EINTR)
                ;
}

static int run_reports(struct report *report, const struct pace *pace, bool asked,
                       struct error *err)
{
        struct timespec next;
        int r = asked ? 0 : ask_again(report, err);

        clock_gettime(CLOCK_MONOTONIC, &next);
        for (uint64_t i = 1; r == 0; i++) {
                if (report->options & CLI_JSON)
                        print_json(report);
                else
                        print_report(report);
                /* Who reads it from a pipe reads it now, or has gone. */
                if (fflush(stdout) != 0 || i == pace->count)
                        break;
                wait_for_next(&next, pace->interval_s);
                r = ask_again(report, err);
        }
        return r;
}

int cli_run_stat(const struct cli_verb *verb, const struct cli_args *args)
{
        const char *word = args->n_words ? args->words[0] : NULL;
        struct report report = {.options = args->given};
        struct error e = ERROR_INIT;
        struct pace pace;
        char *pool = NULL;
        int r = parse_pace(args, &pace, &e);

        if (r == 0 && word && strchr(word, '/') && !cli_is_member_path(word))
                r = cli_split(word, &pool, &report.volume, &e);
        if (r == 0)
                r = word ? add_source(&report, pool ? pool : word, &e) : find_served(&report, &e);
        if (r == 0)
                r = run_reports(&report, &pace, !word, &e);
        report_release(&report);
        free(pool);
        return r < 0 ? cli_fail(&e) : EXIT_SUCCESS;
}
