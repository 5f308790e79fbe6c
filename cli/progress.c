/* progress.c - a bar for long work, on a terminal only. */
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"

#define BAR_WIDTH    20 /* all of the line fits into 80 columns */
#define SHOW_STEP_NS UINT64_C(100000000)

static uint64_t now_ns(void)
{
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void cli_progress_begin(struct cli_progress *p, const char *label, bool is_share)
{
        *p = (struct cli_progress){.label = label,
                                   .is_share = is_share,
                                   .begin_ns = now_ns(),
                                   .on_terminal = isatty(STDERR_FILENO)};
}

void cli_progress_label(struct cli_progress *p, const char *label, uint64_t done)
{
        if (p->label == label)
                return;
        p->label = label;
        p->begin_ns = now_ns();
        p->begin_done = done;
        p->shown = false;
}

static void show(const struct cli_progress *p, uint64_t now, uint64_t done, uint64_t total)
{
        double seconds = (double)(now - p->begin_ns) / 1e9;
        double rate = seconds > 0 ? (double)(done - p->begin_done) / seconds : 0;
        double share = total > 0 ? (double)done / (double)total : 1;
        uint64_t left_s = rate > 0 ? (uint64_t)((double)(total - done) / rate) : 0;
        char bar[BAR_WIDTH + 1], a[SIZE_TEXT_MAX], b[SIZE_TEXT_MAX], c[SIZE_TEXT_MAX];

        for (int i = 0; i < BAR_WIDTH; i++)
                bar[i] = (double)i < share * BAR_WIDTH ? '#' : '-';
        bar[BAR_WIDTH] = '\0';
        fprintf(stderr, "\r%s [%s] %3d%%", p->label, bar, (int)(share * 100));
        if (!p->is_share)
                fprintf(stderr, "  %s of %s  %s/s", size_format(done, a), size_format(total, b),
                        size_format((uint64_t)rate, c));
        if (rate > 0)
                fprintf(stderr, "  %llu:%02llu left", (unsigned long long)(left_s / 60),
                        (unsigned long long)(left_s % 60));
        fprintf(stderr, "\033[K");
        fflush(stderr);
}

void cli_progress_show(void *progress, uint64_t done, uint64_t total)
{
        struct cli_progress *p = progress;
        uint64_t now = now_ns();

        if (!p->on_terminal || done > total || (p->shown && now < p->shown_ns + SHOW_STEP_NS))
                return;
        p->shown = true;
        p->shown_ns = now;
        show(p, now, done, total);
}

void cli_progress_end(struct cli_progress *p)
{
        if (p->shown)
                fprintf(stderr, "\r\033[K");
        p->shown = false;
}
