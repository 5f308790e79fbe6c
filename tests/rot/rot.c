/* rot.c - bit rot: see README.md. Exit status 0: nothing found; 1: a promise is broken, with the
 * damage that shows it; 2: usage. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "tests/crash/number.h"
#include "tests/crash/process.h"
#include "tests/rot/judge.h"
#include "tests/rot/table.h"
#include "tests/sim/sim_random.h"

#define JOBS_MAX      64u
#define DATA_BYTES    16u /* of a block of data, each of two ways: its checksum is one for all */
#define TRIAL_SECONDS 60u /* of a processor: more is a hang */
#define ROW_SHARE     10u /* where not all is tried, one in so many of a row is */
#define USE_ONE_IN    64u /* of the flipped bytes: opened for writing as well */

static const char usage[] =
    "usage: rot [OPTION]...\n"
    "Damage each block of a small pool on simulated disks in every way; open, read, check.\n"
    "  --bytes N        flip about so many bytes of each shape, spread over all (default 20000)\n"
    "  --one-in N       damage one block in N only (of a row one in 10 N)\n"
    "  --all            flip every byte of metadata, in two ways\n"
    "  --shape NAME     one, stripe, concat or row only\n"
    "  --seed N         of which bits are flipped, and which bytes (default 1)\n"
    "  --jobs N         processes (default: as many as there are processors)\n"
    "  --replay DAMAGE  do that one, as printed, and tell what comes of it\n";

struct options {
        uint64_t n_bytes; /* 0: all */
        uint64_t seed;
        unsigned n_jobs, one_in;
        const char *shape, *replay;
};

/* ---- items ---- */

/* A row costs ten times as much as a family, and has one kind of block more. */
static bool is_wanted(const struct options *options, const struct sample *sample, size_t spot)
{
        unsigned share = options->one_in * (sample->shape->row ? ROW_SHARE : 1);

        return spot % share == 0 || sample->spot[spot].kind == KIND_BUCKETS;
}

/* Flips of bytes are numbered through, block by block. */
static uint64_t flips_of(const struct options *options, const struct sample *sample, size_t spot)
{
        if (!is_wanted(options, sample, spot))
                return 0;
        return sample->spot[spot].kind == KIND_DATA ? 2 * DATA_BYTES : 2 * POOL_BLOCK;
}

static struct damage flip_at(const struct options *options, const struct sample *sample,
                             uint64_t number)
{
        struct damage damage = {0};
        struct sim_random random;

        while (number >= flips_of(options, sample, damage.spot))
                number -= flips_of(options, sample, damage.spot++);
        damage.way = number % 2 ? WAY_BYTE : WAY_BIT;
        damage.byte = (unsigned)(number / 2);
        if (sample->spot[damage.spot].kind == KIND_DATA) {
                sim_random_init(&random, sim_mix(options->seed) ^
                                             sim_mix(number + damage.spot * POOL_BLOCK));
                damage.byte = (unsigned)sim_random_below(&random, POOL_BLOCK);
        }
        return damage;
}

static uint64_t count_flips(const struct options *options, const struct sample *sample)
{
        uint64_t n = 0;

        for (size_t i = 0; i < sample->n_spots; i++)
                n += flips_of(options, sample, i);
        return n;
}

/* ---- work ---- */

static void try(const struct sample *sample, const struct damage *damage, bool use, uint64_t seed,
                struct worker *worker)
{
        const struct spot *spot = &sample->spot[damage->spot];
        char reason[REASON_BYTES] = "";
        enum verdict verdict;
        bool mended;

        damage_print(sample, damage, worker->damage);
        process_watch(TRIAL_SECONDS);
        verdict = judge_look(sample, damage, seed, reason);
        if (verdict != VERDICT_NONE)
                worker_count(worker, spot->kind, damage->way, verdict, reason);
        if (use && verdict != VERDICT_NONE && verdict != VERDICT_WRONG) {
                verdict = judge_use(sample, damage, seed, &mended, reason);
                worker_count_use(worker, spot->kind, verdict, mended, reason);
        }
        process_watch(0);
}

static void work(const struct options *options, const struct sample *sample, unsigned job,
                 struct worker *worker)
{
        uint64_t n = count_flips(options, sample), step = 1;
        struct sim_random random;

        for (size_t i = job; i < sample->n_spots; i += options->n_jobs)
                for (unsigned way = WAY_UNREADABLE; way < WAYS && is_wanted(options, sample, i);
                     way++)
                        try(sample, &(struct damage){.spot = i, .way = way}, true, options->seed,
                            worker);
        if (options->n_bytes > 0)
                step = 1 + n / options->n_bytes;
        for (uint64_t at = job * step, k = 0; at < n; at += options->n_jobs * step, k++) {
                uint64_t number;

                sim_random_init(&random, sim_mix(options->seed) + at);
                number = at + sim_random_below(&random, step);
                if (number < n) {
                        struct damage damage = flip_at(options, sample, number);

                        try(sample, &damage, k % USE_ONE_IN == 0, options->seed, worker);
                }
        }
}

static void work_all(const struct options *options, const struct sample *sample,
                     struct worker *workers)
{
        pid_t pids[JOBS_MAX];

        for (unsigned i = 0; i < options->n_jobs; i++) {
                pids[i] = process_start();
                if (pids[i] == 0) {
                        work(options, sample, i, &workers[i]);
                        _exit(0);
                }
        }
        for (unsigned i = 0; i < options->n_jobs; i++) {
                char text[REASON_BYTES];
                int signal;

                if (!process_finish(pids[i], &signal, text, sizeof(text)))
                        worker_died(&workers[i], text);
        }
}

static void run_shape(const struct options *options, const struct shape *shape,
                      struct worker *workers)
{
        struct sample sample;

        sample_make(shape, &sample);
        table_note_sample(&sample);
        work_all(options, &sample, workers);
        sample_free(&sample);
}

static int replay(const struct options *options)
{
        for (unsigned i = 0; i < n_shapes; i++) {
                size_t length = strlen(shapes[i].name);
                char reason[REASON_BYTES] = "";
                struct sample sample;
                struct damage damage;
                enum verdict verdict;
                bool mended;

                if (strncmp(options->replay, shapes[i].name, length) != 0 ||
                    options->replay[length] != ':')
                        continue;
                sample_make(&shapes[i], &sample);
                if (!damage_parse(&sample, options->replay + length + 1, &damage))
                        break;
                trial_show_log();
                printf("%s of %s\n", way_name[damage.way],
                       kind_name[sample.spot[damage.spot].kind]);
                verdict = judge_look(&sample, &damage, options->seed, reason);
                if (verdict == VERDICT_NONE) {
                        printf("it changes nothing there\n");
                        return 0;
                }
                printf("looked at: %s %s\n", verdict_name[verdict], reason);
                verdict = judge_use(&sample, &damage, options->seed, &mended, reason);
                printf("used: %s %s, %s\n",
                       verdict == VERDICT_UNFELT ? "as it should be" : verdict_name[verdict],
                       reason, mended ? "no trace of it is left" : "it is still there");
                sample_free(&sample);
                return verdict == VERDICT_WRONG;
        }
        fprintf(stderr, "rot: '%s' names no damage\n", options->replay);
        return 2;
}

/* ---- options ---- */

static bool parse_option(int c, const char *text, struct options *options)
{
        uint64_t n;

        switch (c) {
        case 'a':
                options->n_bytes = 0;
                return true;
        case 'r':
                options->replay = text;
                return true;
        case 'h':
                options->shape = text;
                for (unsigned i = 0; i < n_shapes; i++)
                        if (strcmp(shapes[i].name, text) == 0)
                                return true;
                return false;
        }
        if (text == NULL || !number_parse(text, &n))
                return false;
        switch (c) {
        case 'b':
                options->n_bytes = n;
                return n > 0;
        case 's':
                options->seed = n;
                return true;
        case 'o':
                options->one_in = (unsigned)n;
                return n >= 1 && n <= 1000;
        case 'j':
                options->n_jobs = (unsigned)n;
                return n >= 1 && n <= JOBS_MAX;
        }
        return false;
}

int main(int argc, char **argv)
{
        static const struct option long_options[] = {
            {"bytes", 1, NULL, 'b'},  {"all", 0, NULL, 'a'},  {"shape", 1, NULL, 'h'},
            {"seed", 1, NULL, 's'},   {"jobs", 1, NULL, 'j'}, {"replay", 1, NULL, 'r'},
            {"one-in", 1, NULL, 'o'}, {NULL, 0, NULL, 0},
        };
        long n_processors = sysconf(_SC_NPROCESSORS_ONLN);
        struct options options = {.n_bytes = 20000, .seed = 1, .n_jobs = 1, .one_in = 1};
        struct worker *workers = process_share(JOBS_MAX * sizeof(*workers));
        int c;

        if (n_processors > 1)
                options.n_jobs = n_processors < JOBS_MAX ? (unsigned)n_processors : JOBS_MAX;
        while ((c = getopt_long(argc, argv, "", long_options, NULL)) != -1)
                if (c == '?' || !parse_option(c, optarg, &options)) {
                        fputs(usage, stderr);
                        return 2;
                }
        if (optind < argc) {
                fputs(usage, stderr);
                return 2;
        }
        setvbuf(stdout, NULL, _IOLBF, 0);
        if (options.replay != NULL)
                return replay(&options);
        for (unsigned i = 0; i < n_shapes; i++)
                if (options.shape == NULL || strcmp(options.shape, shapes[i].name) == 0)
                        run_shape(&options, &shapes[i], workers);
        return table_print(workers, options.n_jobs) > 0;
}
