/* linear - clients of both protocols at work on the same few blocks, while their server is killed and followed by
 * others; what they saw is judged at the end. README.md says more. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/bench/args.h"
#include "tests/linear/client.h"
#include "tests/linear/judge.h"
#include "tests/linear/world.h"

#define MOOD_MS       150u
#define EACH_ANSWERED 40u /* requests after each event, at least */

static const char help_text[] =
    "usage: linear --tarn PATH --pool POOL --folder FOLDER [OPTION]...\n"
    "       linear --judge FILE\n"
    "Have clients work on the volumes 'mixed', 'guest' and 'lossy' of a pool, which hold zeroes, "
    "while things happen to\n"
    "its server, and judge what they saw.\n"
    "\n"
    "  --tarn PATH      the command\n"
    "  --folder FOLDER  sockets and servers' logs lie there\n"
    "  --events LIST    of kill, twice (the next server is killed at its start, too) and takeover, "
    "with\n"
    "                   commas; default kill,takeover,kill\n"
    "  --seconds N      between two of them, up to; default 2\n"
    "  --threads N      of the server\n"
    "  --seed N\n"
    "  --history FILE   write the history there\n"
    "  --judge FILE     only judge such a history\n";

struct options {
        struct world world;
        const char *events, *history, *judge;
        uint64_t pause_ns;
};

static int parse(int argc, char **argv, struct options *o, struct error *err)
{
        enum { TARN = 1, POOL, FOLDER, EVENTS, SECONDS, THREADS, SEED, HISTORY, JUDGE, HELP };
        static const struct option options[] = {
            {"tarn", required_argument, NULL, TARN},
            {"pool", required_argument, NULL, POOL},
            {"folder", required_argument, NULL, FOLDER},
            {"events", required_argument, NULL, EVENTS},
            {"seconds", required_argument, NULL, SECONDS},
            {"threads", required_argument, NULL, THREADS},
            {"seed", required_argument, NULL, SEED},
            {"history", required_argument, NULL, HISTORY},
            {"judge", required_argument, NULL, JUDGE},
            {"help", no_argument, NULL, HELP},
            {0},
        };
        const char **const texts[] = {
            [TARN] = &o->world.tarn, [POOL] = &o->world.pool,       [FOLDER] = &o->world.folder,
            [EVENTS] = &o->events,   [THREADS] = &o->world.threads, [HISTORY] = &o->history,
            [JUDGE] = &o->judge};
        int option, r = 0;

        while (r == 0 && (option = getopt_long(argc, argv, "", options, NULL)) != -1) {
                if (option == HELP) {
                        fputs(help_text, stdout);
                        exit(0);
                }
                if (option == SECONDS)
                        r = args_seconds(optarg, &o->pause_ns, err);
                else if (option == SEED)
                        r = args_number(optarg, 0, UINT32_MAX, &o->world.seed, err);
                else if (option == '?')
                        r = -EINVAL; /* getopt has said why */
                else
                        *texts[option] = optarg;
        }
        if (r == 0 && optind != argc)
                r = error_set(err, -EINVAL, "'%s' is not an option", argv[optind]);
        if (r == 0 && !o->judge && !(o->world.tarn && o->world.pool && o->world.folder))
                r = error_set(err, -EINVAL, "--tarn, --pool and --folder are needed");
        return r;
}

/* ---- clients ---- */

/* Volumes have several clients of one kind, and of both. */
static struct client clients[] = {
    {.volume = 0, .volume_name = "mixed"},
    {.volume = 0, .volume_name = "mixed"},
    {.volume = 0, .volume_name = "mixed"},
    {.volume = 0, .volume_name = "mixed", .n_queues = 2},
    {.volume = 1, .volume_name = "guest"},
    {.volume = 1, .volume_name = "guest", .n_queues = 3, .packed = true},
    {.volume = 2, .volume_name = "lossy"},
    {.volume = 2, .volume_name = "lossy"},
    /* these read everything at the end */
    {.volume = 0, .volume_name = "mixed"},
    {.volume = 1, .volume_name = "guest"},
    {.volume = 2, .volume_name = "lossy"},
};

#define N_CLIENTS (sizeof(clients) / sizeof(clients[0]))
#define N_WORKING (N_CLIENTS - 3)

static void take_error(const struct client *c, struct error *err)
{
        *err = c->err;
        error_prefix(err, "client %u on '%s'", c->number, c->volume_name);
}

static int start_clients(unsigned *n_started, struct error *err)
{
        for (unsigned i = 0; i < N_WORKING; i++) {
                struct client *c = &clients[i];
                int r = pthread_create(&c->thread, NULL,
                                       c->n_queues ? guest_client_main : nbd_client_main, c);

                if (r)
                        return error_set(err, -r, "cannot start a thread: %s", strerror(r));
                ++*n_started;
        }
        return 0;
}

static int join_clients(struct world *w, unsigned n, struct error *err)
{
        int r = 0;

        atomic_store(&w->stopping, true);
        for (unsigned i = 0; i < n; i++)
                pthread_join(clients[i].thread, NULL);
        for (unsigned i = 0; r == 0 && i < n; i++) {
                r = clients[i].result;
                if (r < 0)
                        take_error(&clients[i], err);
        }
        return r;
}

/* Each client has been answered some: an event that nobody lives to see shows nothing. */
static int wait_for_progress(struct error *err)
{
        uint64_t end_ns = world_clock_ns() + WORLD_PATIENCE_MS * UINT64_C(1000000);
        unsigned long before[N_WORKING];

        for (unsigned i = 0; i < N_WORKING; i++)
                before[i] = atomic_load(&clients[i].n_answered);
        for (unsigned i = 0; i < N_WORKING; i++)
                while (atomic_load(&clients[i].n_answered) < before[i] + EACH_ANSWERED) {
                        if (world_clock_ns() > end_ns)
                                return error_set(err, -ETIMEDOUT,
                                                 "client %u on '%s' gets no further", i,
                                                 clients[i].volume_name);
                        world_sleep_ms(10);
                }
        return 0;
}

/* ---- what happens ---- */

static int happen(struct world *w, struct plan *random, const char *event, struct error *err)
{
        if (strcmp(event, "takeover") == 0)
                return world_take_over(w, err);
        /* One mood after the other. */
        atomic_store(&w->mood, (int)(w->life % 3));
        world_sleep_ms(MOOD_MS);
        int r = world_kill(w, err);
        atomic_store(&w->mood, WORLD_ALL);
        if (r == 0 && strcmp(event, "twice") == 0) {
                r = world_begin(w, err);
                if (r == 0) {
                        world_sleep_ms((unsigned)(plan_random(random) % 200));
                        r = world_kill(w, err);
                }
        }
        return r < 0 ? r : world_start(w, err);
}

static int check_events(const char *list, struct error *err)
{
        for (const char *event = list; *event;
             event += strcspn(event, ","), event += *event == ',') {
                size_t length = strcspn(event, ",");

                if (!(length == 4 && strncmp(event, "kill", 4) == 0) &&
                    !(length == 5 && strncmp(event, "twice", 5) == 0) &&
                    !(length == 8 && strncmp(event, "takeover", 8) == 0))
                        return error_set(err, -EINVAL, "'%.*s' is no event", (int)length, event);
        }
        return 0;
}

static int run_events(struct options *o, struct error *err)
{
        const struct plan_options any = {.n_blocks = 1, .seed = o->world.seed};
        char *list = strdup(o->events), *rest = NULL;
        struct plan random;
        int r = list ? wait_for_progress(err) : error_set(err, -ENOMEM, "out of memory");

        plan_init(&random, &any);
        for (char *event = list ? strtok_r(list, ",", &rest) : NULL; r == 0 && event;
             event = strtok_r(NULL, ",", &rest)) {
                world_sleep_ms((unsigned)(plan_random(&random) % (o->pause_ns / 1000000 + 1)));
                r = happen(&o->world, &random, event, err);
                if (r == 0)
                        r = wait_for_progress(err);
                if (r < 0)
                        error_prefix(err, "event '%s', server %u", event, o->world.n_servers);
        }
        free(list);
        return r;
}

static int run(struct options *o, struct error *err)
{
        unsigned n_started = 0;
        int r = world_start(&o->world, err);

        if (r == 0)
                r = start_clients(&n_started, err);
        if (r == 0)
                r = run_events(o, err);
        struct error more = ERROR_INIT;
        int joined = join_clients(&o->world, n_started, &more);
        if (joined < 0) { /* the cause, where the events do not go on either */
                *err = more;
                r = joined;
        }
        for (unsigned i = N_WORKING; r == 0 && i < N_CLIENTS; i++) {
                r = nbd_client_read_all(&clients[i]);
                if (r < 0)
                        take_error(&clients[i], err);
        }
        return r < 0 ? r : world_end(&o->world, err);
}

/* ---- what it came to ---- */

static int keep(const char *path, const struct history *h, struct error *err)
{
        FILE *file = fopen(path, "w");

        if (!file)
                return error_set(err, -errno, "cannot write '%s': %s", path, strerror(errno));
        int r = history_write(h, file, err);
        fclose(file);
        return r;
}

/* 0: in order; 1: not. */
static int judge_and_tell(const struct history *h, struct error *err)
{
        struct judgement j;
        int r = judge(h, &j, err);

        if (r < 0)
                return r;
        judgement_print(&j, stdout);
        r = j.good ? 0 : 1;
        judgement_free(&j);
        return r;
}

static int judge_file(const char *path, struct error *err)
{
        struct history h;
        FILE *file = fopen(path, "r");

        if (!file)
                return error_set(err, -errno, "cannot read '%s': %s", path, strerror(errno));
        int r = history_read(file, &h, err);
        fclose(file);
        if (r == 0) {
                r = judge_and_tell(&h, err);
                history_free(&h);
        }
        return r;
}

static int judge_clients(struct options *o, struct error *err)
{
        struct history all = {0};
        size_t n_unanswered = 0, n_carried = 0;
        unsigned n_connections = 0, n_hung_up = 0;
        int r = 0;

        for (unsigned i = 0; r == 0 && i < N_CLIENTS; i++) {
                r = history_append(&all, &clients[i].history, err);
                n_connections += clients[i].n_connections;
                n_hung_up += clients[i].n_hung_up;
        }
        for (size_t i = 0; i < all.n; i++) {
                n_unanswered += all.ops[i].end_ns == HISTORY_NEVER;
                n_carried += all.ops[i].last_life != all.ops[i].first_life;
        }
        if (r == 0 && o->history)
                r = keep(o->history, &all, err);
        if (r == 0)
                r = judge_and_tell(&all, err);
        if (r >= 0)
                printf("seed %" PRIu64 ": %u servers, %u killed; %u connections, %u hung up on; "
                       "%zu operations unanswered, %zu submitted anew\n",
                       o->world.seed, o->world.n_servers, o->world.life, n_connections, n_hung_up,
                       n_unanswered, n_carried);
        history_free(&all);
        return r;
}

int main(int argc, char **argv)
{
        struct options o = {.events = "kill,takeover,kill", .pause_ns = UINT64_C(2000000000)};
        struct error err = ERROR_INIT;
        int r = parse(argc, argv, &o, &err);

        if (r == 0)
                r = check_events(o.events, &err);
        if (r < 0) {
                fprintf(stderr, "linear: %s\nTry 'linear --help'.\n", err.message);
                return 2;
        }
        if (o.judge) {
                r = judge_file(o.judge, &err);
        } else {
                r = world_init(&o.world, &err);
                for (unsigned i = 0; r == 0 && i < N_CLIENTS; i++) {
                        clients[i].world = &o.world;
                        clients[i].number = i;
                        client_init(&clients[i]);
                }
                if (r == 0) {
                        r = run(&o, &err);
                        if (r == 0)
                                r = judge_clients(&o, &err);
                        for (unsigned i = 0; i < N_CLIENTS; i++)
                                client_free(&clients[i]);
                        world_free(&o.world);
                }
        }
        if (r < 0)
                fprintf(stderr, "linear: %s\n", err.message);
        return r == 0 ? 0 : 1;
}
