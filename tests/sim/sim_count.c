/* sim_count.c - see sim_count.h */
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include "tests/sim/sim_count.h"

const char *const sim_counter_texts[SIM_N_COUNTERS] = {
#define SIM_TEXT(name, text) [SIM_##name] = text,
    SIM_FIGURES(SIM_TEXT) SIM_FAULTS(SIM_TEXT) SIM_WAYS(SIM_TEXT) SIM_FILLS(SIM_TEXT)
#undef SIM_TEXT
};

static struct sim_counters *counters;

void sim_count_into(struct sim_counters *into)
{
        counters = into;
}

void sim_count_add(enum sim_counter counter, uint64_t n)
{
        if (counters != NULL)
                counters->count[counter] += n;
}

uint64_t sim_counted(enum sim_counter counter)
{
        return counters != NULL ? counters->count[counter] : 0;
}

static void count_stop(const char *message)
{
        static const struct {
                const char *words;
                enum sim_counter counter;
        } reasons[] = {
            {"a flush of member", SIM_STOPPED_FLUSH},    {"out of memory", SIM_STOPPED_MEMORY},
            {"the log cannot", SIM_STOPPED_LOG},         {"superblock", SIM_STOPPED_SUPER},
            {"block of metadata", SIM_STOPPED_METADATA}, {"metadata", SIM_STOPPED_METADATA},
        };

        for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++)
                if (strstr(message, reasons[i].words) != NULL) {
                        sim_count(reasons[i].counter);
                        return;
                }
        sim_count(SIM_STOPPED_OTHER);
}

static void count_replay(const char *message)
{
        const char *blocks = strstr(message, " replayed, ");
        unsigned long long n;

        sim_count(SIM_LOG_REPLAYED);
        if (blocks != NULL && sscanf(blocks, " replayed, %llu", &n) == 1)
                sim_count_add(SIM_BLOCKS_DROPPED, n);
}

void sim_count_log(enum log_level level, const char *message)
{
        static const struct {
                const char *words;
                enum sim_counter counter;
        } lines[] = {
            {"cannot read the log on", SIM_LOG_PAGE_UNREADABLE},
            {"its log is damaged", SIM_LOG_DAMAGED},
            {"a block that was written last cannot be read", SIM_REPLAY_UNREADABLE},
            {"cannot write metadata", SIM_LEG_UNWRITABLE},
            {"cannot write data", SIM_DATA_UNWRITABLE},
            {"an image that volumes stand on cannot be read", SIM_IMAGE_UNREADABLE},
            {"an image that volumes stand on is not there", SIM_IMAGE_MISSING},
        };
        bool data = strstr(message, ", volume '") != NULL;

        if (strstr(message, "has stopped writing") != NULL)
                count_stop(message);
        else if (strstr(message, "was not closed: ") != NULL)
                count_replay(message);
        else if (strstr(message, "fails its checksum") != NULL)
                sim_count(data ? SIM_DATA_CHECKSUM : SIM_LEG_CHECKSUM);
        else if (data)
                sim_count(SIM_DATA_UNREADABLE);
        else if (strstr(message, ": cannot read ") != NULL && strstr(message, "the log") == NULL)
                sim_count(SIM_LEG_UNREADABLE);
        for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
                if (strstr(message, lines[i].words) != NULL)
                        sim_count(lines[i].counter);
}
