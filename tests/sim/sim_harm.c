/* sim_harm.c - faults: doing them, and keeping account of what they excuse.
 *
 * What a fault may cost is what the pool promises no more than that to survive: a block of data, of
 * which there is one copy, may become unreadable; metadata is damaged on one member only, so that
 * the other leg is whole; what was not answered may have happened or not. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "pool/format.h"
#include "tests/crash/model_impl.h"
#include "tests/sim/sim_run_impl.h"
#include "tests/sim/sim_shortage.h"

#define PAGES_TRIED 600u
#define MINUTE_NS   UINT64_C(60000000000)

/* ---- what is on a page ---- */

enum page_kind { PAGE_EMPTY, PAGE_DATA, PAGE_OTHER };

static enum page_kind page_kind(const uint8_t *page, struct content *content)
{
        bool any = false;

        for (unsigned g = 0; g < BLOCK_GRAINS; g++) {
                content->grain[g] = content_decode(page + g * GRAIN, g);
                if (content->grain[g] == VERSION_DAMAGE)
                        return PAGE_OTHER;
                any = any || content->grain[g] != VERSION_ZERO;
        }
        return any ? PAGE_DATA : PAGE_EMPTY;
}

/* Zeroes do not say which write they are from: any of the block's that have left some of those in
 * the page. */
static void weaken_zeroes(struct sim_run *run, uint64_t block, uint16_t zeroes)
{
        const struct model *model = run->model;

        for (size_t i = model->first + 1; i < model->n_versions; i++) {
                const struct version *v = model_version(model, (uint32_t)i);

                if (v->zeroes && v->block == block && (v->mask & zeroes) != 0)
                        model_weaken(run->model, (uint32_t)i);
        }
}

void sim_note_page(struct sim_run *run, const uint8_t *page)
{
        uint64_t block = MODEL_NEVER, of_image = MODEL_NEVER, at;
        uint16_t zeroes = 0;

        run->tainted = true;
        for (unsigned g = 0; g < BLOCK_GRAINS; g++) {
                uint32_t version = content_decode(page + g * GRAIN, g);

                zeroes |= (uint16_t)((version == VERSION_ZERO) << g);
                if (content_is_image(version, &at))
                        of_image = at;
                if (version == VERSION_ZERO || version >= run->block_of_room)
                        continue;
                block = run->block_of[version];
                model_weaken(run->model, version);
                model_damage(run->model, block);
        }
        if (of_image != MODEL_NEVER && block == MODEL_NEVER)
                sim_lose_image_block(run, of_image);
        if (zeroes != 0 && block != MODEL_NEVER)
                weaken_zeroes(run, block, zeroes);
}

void sim_note_pages(struct sim_run *run, const uint8_t *bytes, uint64_t length)
{
        for (uint64_t at = 0; at + SIM_PAGE <= length; at += SIM_PAGE)
                sim_note_page(run, bytes + at);
}

bool sim_may_be_unreadable(const struct sim_run *run, const char *root, uint64_t block)
{
        struct content content;

        if (!run->tainted || !sim_root_exists(run, root))
                return false;
        for (unsigned g = 0; g < BLOCK_GRAINS; g++)
                content.grain[g] = VERSION_UNREADABLE;
        return model_read_allowed(run->model, root, block, 1, &content, 0) ||
               model_read_allowed(run->model, root, block, 1u << 15, &content, 0);
}

/* ---- accounts ---- */

static void note_range(struct sim_run *run, struct sim_disk *disk, uint64_t offset, uint64_t length)
{
        struct sim_image *image = sim_disk_visible(disk);
        uint64_t end = offset + length;
        uint8_t page[SIM_PAGE];

        for (uint64_t at = offset / SIM_PAGE * SIM_PAGE; at < end; at += SIM_PAGE) {
                sim_image_read(image, at, page, sizeof(page));
                sim_note_page(run, page);
        }
        sim_image_free(image);
        for (size_t i = 0; i < sim_disk_n_pending(disk); i++) {
                const struct sim_pending *p = sim_disk_pending(disk, i);

                if (p->op == MEMBER_WRITE && p->offset < end && offset < p->offset + p->length)
                        sim_note_pages(run, p->data, p->length);
        }
}

static const struct sim_pending *pending_of(struct sim_disk *disk, const struct sim_event *event)
{
        for (size_t i = sim_disk_n_pending(disk); i-- > 0;)
                if (sim_disk_pending(disk, i)->number == event->operation)
                        return sim_disk_pending(disk, i);
        return NULL;
}

/* The write of this event went astray, or nowhere: what it brought is lost, and what lay where it
 * went. */
static void note_stray(struct sim_run *run, struct sim_disk *disk, const struct sim_event *event)
{
        const struct sim_pending *p = pending_of(disk, event);

        if (p == NULL)
                return;
        sim_note_pages(run, p->data, p->data_length);
        note_range(run, disk, p->offset, p->length);
        run->stray = (struct sim_stray){
            .disk = disk, .operation = p->number, .offset = p->offset, .length = p->length};
}

/* Until it has arrived there, what is written to that place is lost with it. */
static void note_under_stray(struct sim_run *run, struct sim_disk *disk,
                             const struct sim_event *event)
{
        const struct sim_stray *stray = &run->stray;
        const struct sim_pending *p;

        if (stray->disk != disk)
                return;
        if (event->completed && event->operation == stray->operation)
                run->stray.disk = NULL;
        else if (!event->completed && event->op == MEMBER_WRITE &&
                 event->offset < stray->offset + stray->length &&
                 stray->offset < event->offset + event->length &&
                 (p = pending_of(disk, event)) != NULL)
                sim_note_pages(run, p->data, p->data_length);
}

/* A flush that lies, or that fails after one that lied: what it should have covered may be gone. */
static void note_pending(struct sim_run *run, struct sim_disk *disk)
{
        for (size_t i = 0; i < sim_disk_n_pending(disk); i++) {
                const struct sim_pending *p = sim_disk_pending(disk, i);

                if (p->data != NULL)
                        sim_note_pages(run, p->data, p->data_length);
        }
}

void sim_take_moment(struct sim_run *run)
{
        run->moment.taken = true;
        run->moment.time = model_tick(run->model);
        run->moment.n_disks = run->n_disks;
        for (unsigned i = 0; i < run->n_disks; i++)
                run->moment.disks[i] = sim_disk_snapshot(run->disks[i]);
        co_wake_all(&run->changed);
}

void sim_on_event(void *arg, struct sim_disk *disk, const struct sim_event *event)
{
        struct sim_run *run = arg;
        struct sim_disk_stats now;
        unsigned i = 0;

        note_under_stray(run, disk, event);
        /* A fault strikes when a request is submitted, and is felt when it is answered. */
        if (event->completed) {
                run->hits += event->result < 0;
                return;
        }
        sim_count(SIM_DISK_IOS);
        while (i < run->n_disks && run->disks[i] != disk)
                i++;
        if (i < run->n_disks) {
                sim_disk_get_stats(disk, &now);
                if (now.misdirected > run->seen[i].misdirected || now.lost > run->seen[i].lost)
                        note_stray(run, disk, event);
                if (event->op == MEMBER_FLUSH && i == run->character.bad &&
                    (run->lied || now.lies > run->seen[i].lies))
                        note_pending(run, disk);
                sim_harm_look(run);
        }
        if (event->op != MEMBER_FLUSH && run->cut_in > 0 && --run->cut_in == 0)
                sim_take_moment(run);
}

static void look_at_disk(struct sim_run *run, unsigned i)
{
        struct sim_disk_stats *seen = &run->seen[i], now;

        sim_disk_get_stats(run->disks[i], &now);
        sim_count_add(SIM_EIO_READ, now.read_errors - seen->read_errors);
        sim_count_add(SIM_EIO_WRITE, now.write_errors - seen->write_errors);
        sim_count_add(SIM_EIO_FLUSH, now.flush_errors - seen->flush_errors);
        sim_count_add(SIM_HOST_FULL, now.no_space - seen->no_space);
        sim_count_add(SIM_MISDIRECTED, now.misdirected - seen->misdirected);
        sim_count_add(SIM_WRITE_DROPPED, now.lost - seen->lost);
        sim_count_add(SIM_FLUSH_LIED, now.lies - seen->lies);
        run->hits += now.errors - seen->errors;
        run->flush_failed = run->flush_failed || now.flush_errors > seen->flush_errors;
        run->lied = run->lied || now.lies > seen->lies;
        /* A leg that could not be written is behind. */
        run->tainted = run->tainted || now.write_errors > seen->write_errors ||
                       now.misdirected > seen->misdirected || now.lost > seen->lost ||
                       now.no_space > seen->no_space || now.lies > seen->lies;
        if (now.changed_buffers > 0 || now.overlapping_writes > 0)
                sim_fail(run, "step %u: %s under way on disk %u", run->step,
                         now.changed_buffers > 0 ? "data of a write were changed"
                                                 : "two writes to the same bytes were",
                         i);
        *seen = now;
}

void sim_harm_look(struct sim_run *run)
{
        static uint64_t n_seen; /* failed allocations */
        uint64_t n = shortage_hits();

        for (unsigned i = 0; i < run->n_disks; i++)
                look_at_disk(run, i);
        sim_count_add(SIM_NO_MEMORY, n - n_seen);
        run->hits += n - n_seen;
        n_seen = n;
        sim_count_add(SIM_IMAGE_EIO, run->images.n_failed - run->image_failures_seen);
        run->image_failures_seen = run->images.n_failed;
}

struct sim_excuse sim_excuse(struct sim_run *run)
{
        sim_harm_look(run);
        return (struct sim_excuse){.hits = run->hits,
                                   .n_disks = run->n_disks,
                                   .adding = run->adding,
                                   .image_hits = sim_image_hits(run),
                                   .away = run->away};
}

bool sim_pool_has_failed(const struct sim_run *run)
{
        struct pool_info info;

        if (run->pool == NULL)
                return true;
        pool_get_info(run->pool, &info);
        return info.failed != NULL;
}

bool sim_is_excused(struct sim_run *run, const struct sim_excuse *excuse, int error)
{
        sim_harm_look(run);
        /* What an operation without an answer did may be seen, and not what the model says. */
        if (error == -ENOSPC || (run->uncertain && sim_pool_has_failed(run)))
                return true;
        if (error == -ECANCELED)
                return run->hurried;
        if (error != -EIO && error != -ENOMEM && error != -EUCLEAN && error != -EROFS)
                return false;
        return run->hits > excuse->hits || (run->hits > 0 && sim_pool_has_failed(run));
}

/* ---- doing them ---- */

static void add_error(struct sim_disk *disk, unsigned ops, uint64_t skip, uint64_t count, int error)
{
        sim_disk_add_fault(
            disk,
            &(struct sim_fault){
                .kind = SIM_FAULT_ERROR, .ops = ops, .skip = skip, .count = count, .error = error});
}

/* Is there the same page on another member? */
static bool has_twin(const struct sim_run *run, unsigned disk, const uint8_t *page)
{
        uint8_t other[SIM_PAGE], start[64];
        bool found = false;

        for (unsigned i = 0; i < run->n_disks && !found; i++) {
                struct sim_image *image = i == disk ? NULL : sim_disk_visible(run->disks[i]);

                for (uint64_t at = 0; image != NULL && at < sim_image_size(image) && !found;
                     at += SIM_PAGE) {
                        sim_image_read(image, at, start, sizeof(start));
                        if (memcmp(start, page, sizeof(start)) != 0)
                                continue;
                        sim_image_read(image, at, other, sizeof(other));
                        found = memcmp(other, page, SIM_PAGE) == 0;
                }
                sim_image_free(image);
        }
        return found;
}

/* What is not flushed yet would be laid over the rot, and the page be whole again. */
static bool is_pending(struct sim_disk *disk, uint64_t offset)
{
        for (size_t i = 0; i < sim_disk_n_pending(disk); i++) {
                const struct sim_pending *p = sim_disk_pending(disk, i);

                if (p->offset < offset + SIM_PAGE && offset < p->offset + p->length)
                        return true;
        }
        return false;
}

/* Look for a page of data, or one of metadata of which there is another leg, and let it rot. Labels
 * and superblocks rot at the low end only. */
static void rot(struct sim_run *run, bool data, struct sim_random *random)
{
        unsigned i = data ? (unsigned)sim_random_below(random, run->n_disks) : run->character.bad;
        struct sim_image *image = sim_disk_visible(run->disks[i]);
        uint64_t n_pages = sim_image_size(image) / SIM_PAGE, labels = LABEL_AREA_BYTES / SIM_PAGE;
        uint64_t limit = n_pages - labels;
        uint64_t start = !data && sim_random_chance(random, 4)
                             ? sim_random_below(random, labels)
                             : labels + sim_random_below(random, limit - labels);

        for (unsigned k = 0; k < PAGES_TRIED; k++) {
                uint64_t at = (start + k) % limit * SIM_PAGE;
                uint8_t page[SIM_PAGE];
                struct content content;
                enum page_kind kind;

                sim_image_read(image, at, page, sizeof(page));
                kind = page_kind(page, &content);
                if (kind != (data ? PAGE_DATA : PAGE_OTHER) || is_pending(run->disks[i], at) ||
                    (!data && at >= LABEL_AREA_BYTES && !has_twin(run, i, page)))
                        continue;
                if (data)
                        sim_note_page(run, page);
                run->tainted = true;
                at += sim_random_below(random, SIM_PAGE - 8);
                sim_disk_corrupt(run->disks[i], at, 1 + sim_random_below(random, 8),
                                 (uint8_t)(1 + sim_random_below(random, 255)));
                sim_count(data ? SIM_ROT_DATA : SIM_ROT_METADATA);
                break;
        }
        sim_image_free(image);
}

/* Writes of the bad member between its labels, which lie at both ends. */
static void stray(struct sim_run *run, enum sim_fault_kind kind, struct sim_random *random)
{
        struct sim_disk *disk = run->disks[run->character.bad];
        struct sim_image *image = sim_disk_visible(disk);
        uint64_t range = LABEL_AREA_BYTES;
        int64_t delta = (int64_t)(sim_random_below(random, range / SIM_SECTOR) * SIM_SECTOR);

        sim_disk_add_fault(disk, &(struct sim_fault){
                                     .kind = kind,
                                     .offset = 2 * range,
                                     .length = sim_image_size(image) - 4 * range,
                                     .skip = sim_random_below(random, 6),
                                     .count = 1,
                                     .delta = sim_random_chance(random, 2) ? delta : -delta,
                                 });
        sim_image_free(image);
}

static void slow_down(struct sim_run *run, struct sim_random *random)
{
        /* Not so slow that a request waits for thousands of checkpoints that have nothing to do. */
        uint64_t most_ns = run->character.checkpoint_interval_ms * UINT64_C(2000000000);
        uint64_t max_ns =
            (most_ns < MINUTE_NS ? most_ns : MINUTE_NS) >> sim_random_below(random, 12);
        unsigned only = (unsigned)sim_random_below(random, 2 * run->n_disks);

        for (unsigned i = 0; i < run->n_disks; i++)
                if (only >= run->n_disks || only == i)
                        sim_disk_set_latency(run->disks[i], 20000, max_ns);
        sim_count(SIM_SLOW);
}

void sim_harm(struct sim_run *run, const struct sim_step *step)
{
        struct sim_disk *bad = run->disks[run->character.bad];
        struct sim_random random;
        uint64_t skip;

        sim_random_init(&random, step->random);
        skip = sim_random_below(&random, 1u << sim_random_below(&random, 8));
        switch (step->harm) {
        case SIM_HARM_ROT_DATA:
        case SIM_HARM_ROT_METADATA:
                rot(run, step->harm == SIM_HARM_ROT_DATA, &random);
                return;
        case SIM_HARM_EIO_READ:
                add_error(run->disks[sim_random_below(&random, run->n_disks)], SIM_OP(MEMBER_READ),
                          skip, 1 + sim_random_below(&random, 3), -EIO);
                return;
        case SIM_HARM_EIO_WRITE:
                add_error(bad, SIM_OP(MEMBER_WRITE), skip, 1 + sim_random_below(&random, 2), -EIO);
                return;
        case SIM_HARM_EIO_FLUSH:
                add_error(bad, SIM_OP(MEMBER_FLUSH), skip % 4, 1, -EIO);
                return;
        case SIM_HARM_DEAD:
                add_error(bad, 0, skip, 0, -EIO);
                sim_count(SIM_DISK_DEAD);
                return;
        case SIM_HARM_HOST_FULL:
                add_error(bad, SIM_OP(MEMBER_WRITE), skip % 8, 1, -ENOSPC);
                return;
        case SIM_HARM_NO_MEMORY:
                shortage_arm(sim_random_below(&random, 1u << sim_random_below(&random, 11)),
                             1 + sim_random_below(&random, 4));
                return;
        case SIM_HARM_MISDIRECT:
                stray(run, SIM_FAULT_MISDIRECT, &random);
                return;
        case SIM_HARM_DROP_WRITE:
                stray(run, SIM_FAULT_LOSE, &random);
                return;
        case SIM_HARM_LIE:
                sim_disk_add_fault(bad, &(struct sim_fault){.kind = SIM_FAULT_LIE,
                                                            .skip = skip % 6,
                                                            .count = 1 + skip % 3});
                return;
        case SIM_HARM_SLOW:
                slow_down(run, &random);
                return;
        case SIM_N_HARMS:
                return;
        }
}

void sim_harm_clear(struct sim_run *run)
{
        shortage_off();
        run->images.n_failing = run->images.slow_ns = 0;
        for (unsigned i = 0; i < run->n_disks; i++) {
                sim_disk_clear_faults(run->disks[i]);
                sim_disk_set_latency(run->disks[i], 20000, 200000);
        }
}

/* ---- the pool's check ---- */

struct findings {
        const struct sim_run *run;
        char *text;
        size_t text_size;
        uint64_t n, n_wrong;
};

/* Damage on a disk is named as such; what was lost or mixed up beyond that would be the pool's own
 * doing. */
static bool is_damage(const char *sentence)
{
        static const char *const words[] = {
            "fails its checksum",     "cannot be read",      "is damaged or missing on member",
            "is different on member", "the label of member", "not everything could be read",
        };

        for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
                if (strstr(sentence, words[i]) != NULL)
                        return true;
        return false;
}

static void on_finding(void *arg, const char *sentence)
{
        struct findings *findings = arg;

        findings->n++;
        if (findings->run->tainted && is_damage(sentence))
                return;
        if (findings->n_wrong++ == 0)
                snprintf(findings->text, findings->text_size, "%s", sentence);
}

int co_sim_check(struct sim_run *run, char *text, size_t text_size)
{
        struct findings findings = {.run = run, .text = text, .text_size = text_size};
        struct pool_check_callbacks callbacks = {.finding = on_finding, .arg = &findings};
        struct sim_excuse excuse = sim_excuse(run);
        struct error err = ERROR_INIT;
        uint64_t n = 0;
        int r = co_pool_check(run->pool, true, &callbacks, &n, &err);

        sim_count(SIM_CHECKS);
        sim_trace(run, n);
        sim_harm_look(run);
        if (r == -EAGAIN) /* low on space: allowed to give up */
                return 0;
        if (run->hits > excuse.hits) /* it may have been told of an error that came and went */
                return r == -EUCLEAN ? 0 : r;
        if (r < 0) {
                snprintf(text, text_size, "check failed: %s", err.message);
                return r;
        }
        if (n > 0 && findings.n_wrong == 0)
                sim_count(SIM_FINDINGS);
        return findings.n_wrong > 0 ? -EUCLEAN : 0;
}
