#include "tests/bench/measure.h"
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static uint64_t read_clock(clockid_t clock)
{
        struct timespec t;
        clock_gettime(clock, &t);
        return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t measure_clock_ns(void)
{
        return read_clock(CLOCK_MONOTONIC);
}

uint64_t measure_own_cpu_ns(void)
{
        return read_clock(CLOCK_PROCESS_CPUTIME_ID);
}

/* proc(5), fields 14 and 15 of /proc/PID/stat. */
uint64_t measure_cpu_ns(pid_t pid)
{
        char path[64], text[1024];
        unsigned long user, system;

        if (pid == 0)
                return 0;
        snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
        FILE *f = fopen(path, "re");
        if (!f)
                return 0;
        size_t n = fread(text, 1, sizeof(text) - 1, f);
        fclose(f);
        text[n] = 0;
        char *after_name = strrchr(text, ')'); /* the name may hold anything */
        if (!after_name ||
            sscanf(after_name + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user,
                   &system) != 2)
                return 0;
        return (uint64_t)(user + system) * (1000000000u / (unsigned long)sysconf(_SC_CLK_TCK));
}
