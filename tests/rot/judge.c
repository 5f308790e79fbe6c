/* judge.c - see judge.h */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include "tests/rot/judge.h"

const char *const verdict_name[VERDICTS] = {
    "refused", "read-only", "EIO", "other copy", "check", "window", "unfelt", "WRONG",
};

/* Whether damage to what is on it must be noticed: by who reads it or by the check. */
static bool carries(const struct spot *spot)
{
        switch (spot->kind) {
        case KIND_SUPER_OLD:
        case KIND_COPY:
        case KIND_LOG_IDLE:
        case KIND_REPLACED:
        case KIND_FREE:
                return false;
        case KIND_LOG: /* the last page may be on one member only after a crash */
                return !spot->last;
        default:
                return true;
        }
}

static enum verdict __attribute__((format(printf, 2, 3)))
wrong(char reason[REASON_BYTES], const char *format, ...)
{
        va_list ap;

        va_start(ap, format);
        vsnprintf(reason, REASON_BYTES, format, ap);
        va_end(ap);
        return VERDICT_WRONG;
}

static enum verdict judge(const struct spot *spot, const struct outcome *o, bool in_window,
                          char reason[REASON_BYTES])
{
        bool log = spot->kind == KIND_LOG || spot->kind == KIND_LOG_IDLE;

        if (o->hang != NULL)
                return wrong(reason, "%s", o->hang);
        if (!o->opened && o->refusal[0] == '\0')
                return wrong(reason, "refused without a sentence");
        if (!o->opened)
                return spot->redundant ? wrong(reason, "refused: %s", o->refusal) : VERDICT_REFUSED;
        if (o->damaged)
                return log && !spot->redundant ? VERDICT_READONLY
                                               : wrong(reason, "opened read-only");
        if (o->seen.n_wrong > 0)
                return wrong(reason, "%s", o->seen.wrong);
        if (o->check < 0)
                return wrong(reason, "the check gives up");
        if (in_window)
                return VERDICT_WINDOW;
        if (o->seen.n_errors > 0 && spot->redundant)
                return wrong(reason, "an error though there is another copy");
        if (o->seen.n_errors > 0)
                return o->logged || o->named ? VERDICT_EIO
                                             : wrong(reason, "an error whose place is not told");
        if (o->n_findings > 0 && !o->named && !o->logged)
                return wrong(reason, "the check finds something else: %s", o->finding);
        if (o->logged)
                return VERDICT_COPY;
        if (o->named)
                return VERDICT_CHECK;
        return carries(spot) ? wrong(reason, "nobody notices it") : VERDICT_UNFELT;
}

/* ---- damaged disks ---- */

struct disks {
        struct sim_image *image[SAMPLE_MEMBERS_MAX];
        struct place place;
};

static bool disks_make(const struct sample *sample, const struct damage *damage, uint64_t seed,
                       struct disks *d)
{
        const struct spot *spot = &sample->spot[damage->spot];

        for (unsigned i = 0; i < sample->shape->n_members; i++)
                d->image[i] = sim_image_clone(sample->image[i]);
        d->place =
            (struct place){spot->member, spot->offset, spot->named, damage->way == WAY_UNREADABLE};
        return damage_do(sample, damage, seed, d->image[spot->member]);
}

static void disks_free(const struct sample *sample, struct disks *d)
{
        for (unsigned i = 0; i < sample->shape->n_members; i++)
                sim_image_free(d->image[i]);
}

/* What the pool holds where the block at @spot was not written before the power failed. */
static void truth_without(const struct sample *sample, const struct spot *spot,
                          struct truth *ret_truth)
{
        struct sim_image *image[SAMPLE_MEMBERS_MAX];
        uint8_t page[POOL_BLOCK];

        for (unsigned i = 0; i < sample->shape->n_members; i++)
                image[i] = sim_image_clone(sample->image[i]);
        sim_image_read(sample->before[spot->member], spot->offset, page, POOL_BLOCK);
        sim_image_write(image[spot->member], spot->offset, page, POOL_BLOCK);
        trial_truth(image, sample->shape->n_members, ret_truth);
        for (unsigned i = 0; i < sample->shape->n_members; i++)
                sim_image_free(image[i]);
}

/* ---- looking ---- */

enum verdict judge_look(const struct sample *sample, const struct damage *damage, uint64_t seed,
                        char reason[REASON_BYTES])
{
        const struct spot *spot = &sample->spot[damage->spot];
        struct outcome o;
        struct disks d;
        bool in_window = false;
        enum verdict verdict = VERDICT_NONE;

        if (disks_make(sample, damage, seed, &d)) {
                trial_look(d.image, sample, &sample->truth, &d.place, &o);
                if (spot->tail && o.seen.n_wrong > 0) {
                        struct truth other;

                        truth_without(sample, spot, &other);
                        trial_look(d.image, sample, &other, &d.place, &o);
                        truth_free(&other);
                        in_window = true;
                }
                verdict = judge(spot, &o, in_window, reason);
        }
        disks_free(sample, &d);
        return verdict;
}

enum verdict judge_use(const struct sample *sample, const struct damage *damage, uint64_t seed,
                       bool *ret_mended, char reason[REASON_BYTES])
{
        const struct spot *spot = &sample->spot[damage->spot];
        struct outcome o, after;
        struct disks d;
        struct truth other = {0};
        enum verdict verdict = VERDICT_UNFELT;

        *ret_mended = true;
        if (disks_make(sample, damage, seed, &d)) {
                trial_use(d.image, sample, &sample->truth, &d.place, &o, &after);
                if (spot->tail && o.seen.n_wrong > 0) {
                        truth_without(sample, spot, &other);
                        trial_use(d.image, sample, &other, &d.place, &o, &after);
                        truth_free(&other);
                }
                if (o.hang != NULL || (after.hang != NULL && o.opened))
                        verdict = wrong(reason, "%s", o.hang ? o.hang : after.hang);
                else if (!o.opened)
                        verdict = o.refusal[0] == '\0' || spot->redundant
                                      ? wrong(reason, "refused: %s", o.refusal)
                                      : VERDICT_REFUSED;
                else if (o.damaged || after.damaged)
                        verdict =
                            spot->redundant ? wrong(reason, "opened read-only") : VERDICT_READONLY;
                else if (o.seen.n_wrong > 0 || after.seen.n_wrong > 0)
                        verdict =
                            wrong(reason, "%s", o.seen.n_wrong ? o.seen.wrong : after.seen.wrong);
                else if (!after.opened)
                        verdict = wrong(reason, "it does not open again: %s", after.refusal);
                else if (spot->redundant && o.seen.n_errors + after.seen.n_errors > 0)
                        verdict = wrong(reason, "an error though there is another copy");
                *ret_mended = after.opened && !after.damaged && after.seen.n_errors == 0 &&
                              after.n_findings == 0 && after.n_bad == 0;
        }
        disks_free(sample, &d);
        return verdict;
}
