/* model_check.c - what a read may return and a crash may leave: see model.h */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/crash/model_impl.h"

#define WALK_MAX       64u /* versions of a block whose order is open */
#define FLIGHT_MAX     8u  /* catalog operations in flight at once */
#define CANDIDATES_MAX 64u /* contents that a clone's block may begin with */

/* The world as it is at a time, with a guess of which operations in flight then have happened. */
struct view {
        const struct model *model;
        uint64_t time;
        bool live; /* no crash: what was answered is there, durable or not */
        uint32_t flight[FLIGHT_MAX];
        unsigned n_flight;
        unsigned happened; /* bit i: flight[i] */
        struct model_roots roots;
};

enum when { WHEN_NO, WHEN_IN_FLIGHT, WHEN_DONE };

/* Has @operation happened; WHEN_IN_FLIGHT: yes, but unanswered. */
static enum when view_operation(const struct view *view, uint32_t operation)
{
        const struct operation *op = &view->model->operations[operation];

        if (op->answered <= view->time)
                return op->succeeded ? WHEN_DONE : WHEN_NO;
        for (unsigned i = 0; i < view->n_flight; i++)
                if (view->flight[i] == operation)
                        return view->happened >> i & 1 ? WHEN_IN_FLIGHT : WHEN_NO;
        return WHEN_NO;
}

/* ---- the contents that a block's writes may leave ---- */

/* Which writes are surely part of what is read, and which may be. */
struct scope {
        uint64_t answered_before;  /* those are included */
        uint64_t durable_by;       /* and those, where they were also answered before */
        uint64_t durable_before;   /* this */
        uint64_t requested_before; /* only those can be */
};

struct step {
        uint64_t requested, answered;
        uint32_t value;
        uint16_t mask;
        bool must;     /* it is surely there */
        bool optional; /* it failed: it may be left out for ever, but does not come late */
        /* by a shrink, which makes nothing durable: what came before may be left out */
        bool cut_off;
};

/* Called with each content that a beginning of the history leaves, and the span of instants at
 * which it may be so. True: enough. */
typedef bool visit_content(void *arg, const struct content *content, uint64_t from, uint64_t to);

struct walk {
        struct step steps[WALK_MAX]; /* in the order requested */
        unsigned n;
        visit_content *visit;
        void *arg;
};

static void content_apply(struct content *content, const struct step *step)
{
        for (unsigned g = 0; g < BLOCK_GRAINS; g++)
                if (step->mask >> g & 1)
                        content->grain[g] = step->value;
}

/* May step @next be the next one, when those in @done are? */
static bool walk_may_follow(const struct walk *walk, uint64_t done, unsigned next)
{
        const struct step *step = &walk->steps[next];

        for (unsigned i = 0; i < walk->n; i++) {
                const struct step *other = &walk->steps[i];

                if (i == next)
                        continue;
                if (done >> i & 1 ? step->answered < other->requested
                                  : !other->optional && !(step->cut_off && !other->must) &&
                                        other->answered < step->requested)
                        return false;
        }
        return true;
}

static bool walk_from(const struct walk *walk, uint64_t done, const struct content *content)
{
        uint64_t from = 0, to = MODEL_NEVER;
        bool complete = true;

        for (unsigned i = 0; i < walk->n; i++) {
                const struct step *step = &walk->steps[i];

                if (done >> i & 1)
                        from = step->requested > from ? step->requested : from;
                else if (!step->optional && step->answered < to)
                        to = step->answered;
                complete = complete && (!step->must || done >> i & 1);
        }
        if (complete && walk->visit(walk->arg, content, from, to))
                return true;
        for (unsigned i = 0; i < walk->n; i++) {
                struct content next = *content;

                if (done >> i & 1 || !walk_may_follow(walk, done, i))
                        continue;
                content_apply(&next, &walk->steps[i]);
                if (walk_from(walk, done | UINT64_C(1) << i, &next))
                        return true;
        }
        return false;
}

/* Is step @n surely there, after all steps before it and before all that follow? */
static bool walk_barrier(const struct walk *walk, unsigned n)
{
        const struct step *step = &walk->steps[n];

        for (unsigned i = 0; i < n; i++)
                if (walk->steps[i].answered >= step->requested)
                        return false;
        return step->must && (n + 1 == walk->n || step->answered < walk->steps[n + 1].requested);
}

/* Apply at once what comes first whatever the order of the rest; nothing before a whole block
 * surely written matters. */
static void walk_fold(struct walk *walk, struct content *base)
{
        unsigned n = 0;

        for (unsigned i = walk->n; i-- > 0 && n == 0;)
                if (walk->steps[i].mask == ALL_GRAINS && walk_barrier(walk, i)) {
                        content_apply(base, &walk->steps[i]);
                        n = i + 1;
                }
        while (n < walk->n && walk->steps[n].must &&
               (n + 1 == walk->n || walk->steps[n].answered < walk->steps[n + 1].requested))
                content_apply(base, &walk->steps[n++]);
        memmove(walk->steps, walk->steps + n, (walk->n - n) * sizeof(*walk->steps));
        walk->n -= n;
}

static void walk_add(const struct view *view, struct walk *walk, struct content *base,
                     const struct scope *scope, uint32_t id)
{
        const struct version *v = model_version(view->model, id);
        struct step step = {
            .requested = v->requested,
            .answered = v->answered <= view->time ? v->answered : MODEL_NEVER,
            .value = v->zeroes ? VERSION_ZERO : id,
            .mask = v->mask,
        };

        if (v->requested > scope->requested_before)
                return;
        step.optional = v->failed && v->answered <= view->time;
        step.must = !v->failed &&
                    (step.answered < scope->answered_before ||
                     (v->durable <= scope->durable_by && v->answered < scope->durable_before));
        step.cut_off = v->operation != MODEL_NONE;
        if (step.cut_off) {
                enum when when = view_operation(view, v->operation);

                if (when == WHEN_NO)
                        return;
                step.must = step.must || when == WHEN_IN_FLIGHT;
        }
        if (walk->n == WALK_MAX)
                walk_fold(walk, base);
        assert(walk->n < WALK_MAX);
        walk->steps[walk->n++] = step;
}

struct candidates {
        struct content content[CANDIDATES_MAX];
        unsigned n;
};

static bool collect(void *arg, const struct content *content, uint64_t from, uint64_t to)
{
        struct candidates *set = arg;

        for (unsigned i = 0; i < set->n; i++)
                if (memcmp(&set->content[i], content, sizeof(*content)) == 0)
                        return false;
        assert(set->n < CANDIDATES_MAX);
        set->content[set->n++] = *content;
        return false;
}

static bool cut_walk(const struct view *view, uint32_t cut, uint64_t block, visit_content *visit,
                     void *arg);

static bool branch_walk(const struct view *view, uint32_t id, uint64_t block,
                        const struct scope *scope, visit_content *visit, void *arg)
{
        const struct branch *branch = &view->model->branches[id];
        const struct block_history *history = branch_block(branch, block);
        struct candidates bases = {.n = 0};

        if (branch->parent == MODEL_NONE)
                bases.content[bases.n++] = *branch_base(branch, block);
        else
                cut_walk(view, branch->parent, block, collect, &bases);
        for (unsigned b = 0; b < bases.n; b++) {
                struct walk walk = {.visit = visit, .arg = arg};

                for (size_t i = 0; history != NULL && i < history->n_versions; i++)
                        walk_add(view, &walk, &bases.content[b], scope, history->versions[i]);
                walk_fold(&walk, &bases.content[b]);
                if (walk_from(&walk, 0, &bases.content[b]))
                        return true;
        }
        return false;
}

static bool cut_answered(const struct view *view, const struct cut *cut)
{
        return cut->operation == MODEL_NONE || view_operation(view, cut->operation) == WHEN_DONE;
}

static bool cut_walk(const struct view *view, uint32_t id, uint64_t block, visit_content *visit,
                     void *arg)
{
        const struct cut *cut = &view->model->cuts[id];
        struct scope scope = {.requested_before = 0}; /* from before a crash: its base, no more */

        if (cut->operation != MODEL_NONE) {
                scope.answered_before = view->model->operations[cut->operation].requested;
                scope.requested_before = view->model->operations[cut->operation].answered;
        }
        /* Promises nothing yet beyond what is durable; and a write that ended while it was taken may
         * have come behind it. */
        if (!cut_answered(view, cut))
                scope = (struct scope){.durable_by = view->time,
                                       .durable_before = scope.answered_before,
                                       .requested_before = view->time};
        return branch_walk(view, cut->branch, block, &scope, visit, arg);
}

static bool root_walk(const struct view *view, const struct model_root *root, uint64_t block,
                      visit_content *visit, void *arg)
{
        struct scope scope = {
            .answered_before = view->live ? view->time : 0,
            .durable_by = view->time,
            .durable_before = MODEL_NEVER,
            .requested_before = view->time,
        };

        if (root->is_snapshot)
                return cut_walk(view, root->id, block, visit, arg);
        return branch_walk(view, root->id, block, &scope, visit, arg);
}

/* ---- comparing ---- */

/* Is the content among those visited, and at which instants may it have been? */
struct match {
        const struct content *content;
        uint16_t mask;
        bool found, first_will_do;
        uint64_t from, to; /* their hull */
};

static bool match_content(void *arg, const struct content *content, uint64_t from, uint64_t to)
{
        struct match *match = arg;

        for (unsigned g = 0; g < BLOCK_GRAINS; g++)
                if (match->mask >> g & 1 && content->grain[g] != match->content->grain[g])
                        return false;
        match->from = match->found && match->from < from ? match->from : from;
        match->to = match->found && match->to > to ? match->to : to;
        match->found = true;
        return match->first_will_do;
}

static bool is_unreadable(const struct content *content)
{
        return content->grain[0] == VERSION_UNREADABLE;
}

bool model_read_allowed(const struct model *model, const char *name, uint64_t block, uint16_t mask,
                        const struct content *content, uint64_t requested)
{
        struct view view = {.model = model, .time = model->clock};
        struct scope scope = {.answered_before = requested, .requested_before = model->clock};
        const struct model_root *root = model_roots_find(&model->now, name);
        struct match match = {.content = content, .mask = mask, .first_will_do = true};

        assert(root != NULL);
        if (is_unreadable(content) && model_is_damaged(model, block))
                return true;
        if (root->is_snapshot)
                cut_walk(&view, root->id, block, match_content, &match);
        else
                branch_walk(&view, root->id, block, &scope, match_content, &match);
        return match.found;
}

/* The grains of @block that lie inside @size_bytes. */
static uint16_t inside(uint64_t block, uint64_t size_bytes)
{
        uint64_t start = block * BLOCK_SIZE;

        if (start >= size_bytes)
                return 0;
        if (size_bytes - start >= BLOCK_SIZE)
                return ALL_GRAINS;
        return (uint16_t)((1u << (size_bytes - start) / GRAIN) - 1);
}

/* The instants at which a snapshot's group may have been taken, by the blocks looked at so far. */
struct instants {
        uint32_t operation;
        uint64_t from, to;
};

struct compare {
        const struct view *view;
        const struct model_root *root;
        /* of the snapshot's group; NULL where that is not to be looked at */
        struct instants *instants;
        char *text;
        size_t text_size;
};

static void print_content(const struct content *content, char *text, size_t text_size)
{
        size_t at = 0;

        for (unsigned g = 0, run = 0; g < BLOCK_GRAINS && at < text_size; g += run) {
                uint32_t version = content->grain[g];

                for (run = 1; g + run < BLOCK_GRAINS && content->grain[g + run] == version;)
                        run++;
                if (version == VERSION_DAMAGE || version == VERSION_UNREADABLE)
                        at += (size_t)snprintf(text + at, text_size - at, "%s%s", at > 0 ? " " : "",
                                               version == VERSION_DAMAGE ? "damage" : "an error");
                else
                        at += (size_t)snprintf(text + at, text_size - at, "%s%u", at > 0 ? " " : "",
                                               version);
                if (run < BLOCK_GRAINS && at < text_size)
                        at += (size_t)snprintf(text + at, text_size - at, "x%u", run);
        }
}

static bool block_allowed(struct compare *compare, uint64_t block, const struct content *content)
{
        const struct model_root *root = compare->root;
        struct instants *instants = compare->instants;
        struct match match = {
            .content = content,
            .mask = inside(block, root->size_bytes),
            .first_will_do = instants == NULL,
        };
        char found[200], known[600];

        if (match.mask == 0 ||
            (is_unreadable(content) && model_is_damaged(compare->view->model, block)))
                return true;
        root_walk(compare->view, root, block, match_content, &match);
        print_content(content, found, sizeof(found));
        if (match.found && instants != NULL) {
                instants->from = match.from > instants->from ? match.from : instants->from;
                instants->to = match.to < instants->to ? match.to : instants->to;
        }
        if (match.found && (instants == NULL || instants->from < instants->to))
                return true;
        model_describe(compare->view->model, root, block, known, sizeof(known));
        snprintf(compare->text, compare->text_size, "%s block %llu holds %s, which %s; known: %s",
                 root->name, (unsigned long long)block, found,
                 match.found ? "was never so at one instant with the rest of the snapshot"
                             : "it must not",
                 known);
        return false;
}

static const struct content zeroes;

/* Blocks that the model knows of, and blocks that were found: both lists ascend. */
static bool root_allowed(struct compare *compare, const struct observed_root *observed)
{
        uint64_t *touched;
        size_t n = model_touched(compare->view->model, compare->root, &touched), t = 0, o = 0;
        bool allowed = true;

        while (allowed && (t < n || o < observed->n_blocks)) {
                uint64_t known = t < n ? touched[t] : UINT64_MAX;
                uint64_t found = o < observed->n_blocks ? observed->blocks[o].block : UINT64_MAX;
                uint64_t block = known < found ? known : found;

                allowed = block_allowed(compare, block,
                                        block == found ? &observed->blocks[o].content : &zeroes);
                t += block == known;
                o += block == found;
        }
        free(touched);
        return allowed;
}

static const struct observed_root *observed_find(const struct observed *observed, const char *name)
{
        for (size_t i = 0; i < observed->n_roots; i++)
                if (strcmp(observed->roots[i].name, name) == 0)
                        return &observed->roots[i];
        return NULL;
}

/* The same names, kinds and sizes? */
static bool catalog_equal(const struct model_roots *roots, const struct observed *observed,
                          char *text, size_t text_size)
{
        for (unsigned i = 0; i < roots->n; i++) {
                const struct model_root *root = &roots->root[i];
                const struct observed_root *other = observed_find(observed, root->name);

                if (other == NULL) {
                        snprintf(text, text_size, "%s is missing", root->name);
                        return false;
                }
                if (other->image != root->image) {
                        snprintf(text, text_size, "%s stands on image %u, not %u", root->name,
                                 other->image, root->image);
                        return false;
                }
                if (other->size_bytes != root->size_bytes ||
                    other->is_snapshot != root->is_snapshot) {
                        snprintf(text, text_size, "%s has %llu bytes, not %llu", root->name,
                                 (unsigned long long)other->size_bytes,
                                 (unsigned long long)root->size_bytes);
                        return false;
                }
        }
        for (size_t i = 0; i < observed->n_roots; i++)
                if (model_roots_find(roots, observed->roots[i].name) == NULL) {
                        snprintf(text, text_size, "%s should not be there",
                                 observed->roots[i].name);
                        return false;
                }
        return true;
}

/* Is every image known to be in the pool as a whole where that was answered, and none that was not
 * asked for? */
static bool images_allowed(const struct view *view, const struct observed *observed, char *text,
                           size_t text_size)
{
        for (size_t i = 0; i < observed->n_images; i++) {
                const struct observed_image *image = &observed->images[i];
                bool asked = false, answered = false;

                for (size_t k = 0; k < view->model->n_completions; k++) {
                        const struct completion *c = &view->model->completions[k];

                        asked = asked || (c->image == image->image && c->requested <= view->time);
                        answered =
                            answered || (c->image == image->image && c->answered <= view->time);
                }
                if (image->complete ? asked : !answered)
                        continue;
                snprintf(text, text_size, "image %u is %sin the pool as a whole", image->image,
                         image->complete ? "said too early to be " : "not known any more to be ");
                return false;
        }
        return true;
}

static bool contents_allowed(const struct view *view, const struct observed *observed, char *text,
                             size_t text_size)
{
        struct instants groups[MODEL_ROOTS_MAX];
        unsigned n_groups = 0;

        for (unsigned i = 0; i < view->roots.n; i++) {
                const struct model_root *root = &view->roots.root[i];
                struct compare compare = {
                    .view = view, .root = root, .text = text, .text_size = text_size};
                const struct cut *cut = root->is_snapshot ? &view->model->cuts[root->id] : NULL;

                if (cut != NULL && cut->operation != MODEL_NONE && cut_answered(view, cut)) {
                        unsigned g = 0;

                        while (g < n_groups && groups[g].operation != cut->operation)
                                g++;
                        if (g == n_groups) {
                                const struct operation *op =
                                    &view->model->operations[cut->operation];

                                groups[n_groups++] =
                                    (struct instants){cut->operation, op->requested, op->answered};
                        }
                        compare.instants = &groups[g];
                }
                if (!root_allowed(&compare, observed_find(observed, root->name)))
                        return false;
        }
        return true;
}

static bool view_allowed(struct view *view, const struct observed *observed, char *text,
                         size_t text_size)
{
        const struct model *model = view->model;
        struct model_roots before = model->initial;
        bool catalog_matched = false;

        if (!images_allowed(view, observed, text, text_size))
                return false;
        for (size_t i = 0; i < model->n_succeeded; i++) {
                const struct operation *op = &model->operations[model->succeeded[i]];

                if (op->answered <= view->time)
                        operation_apply(op, &before);
        }
        for (view->happened = 0; view->happened < 1u << view->n_flight; view->happened++) {
                char reason[1000];

                view->roots = before;
                for (unsigned i = 0; i < view->n_flight; i++)
                        if (view->happened >> i & 1)
                                operation_apply(&model->operations[view->flight[i]], &view->roots);
                if (!catalog_equal(&view->roots, observed, reason, sizeof(reason))) {
                        if (!catalog_matched)
                                snprintf(text, text_size, "%s", reason);
                        continue;
                }
                if (contents_allowed(view, observed, reason, sizeof(reason)))
                        return true;
                catalog_matched = true;
                snprintf(text, text_size, "%s", reason);
        }
        return false;
}

bool model_crash_allowed(const struct model *model, uint64_t time, const struct observed *observed,
                         char *text, size_t text_size)
{
        struct view view = {.model = model, .time = time};

        for (size_t i = 0; i < model->n_operations; i++) {
                const struct operation *op = &model->operations[i];

                if (op->requested > time || op->answered <= time)
                        continue;
                assert(view.n_flight < FLIGHT_MAX);
                view.flight[view.n_flight++] = (uint32_t)i;
        }
        return view_allowed(&view, observed, text, text_size);
}

bool model_live_allowed(const struct model *model, const struct observed *observed, char *text,
                        size_t text_size)
{
        struct view view = {.model = model, .time = model->clock + 1, .live = true};

        return view_allowed(&view, observed, text, text_size);
}

/* ---- messages ---- */

static int describe_time(char *text, size_t text_size, const char *what, uint64_t time)
{
        return time == MODEL_NEVER
                   ? snprintf(text, text_size, " not %s", what)
                   : snprintf(text, text_size, " %s %llu", what, (unsigned long long)time);
}

void model_describe(const struct model *model, const struct model_root *root, uint64_t block,
                    char *text, size_t text_size)
{
        uint32_t id = root->is_snapshot ? model->cuts[root->id].branch : root->id;
        size_t at = 0;

        text[0] = '\0';
        if (root->is_snapshot && model->cuts[root->id].operation != MODEL_NONE) {
                const struct operation *op = &model->operations[model->cuts[root->id].operation];

                at += (size_t)snprintf(text, text_size, "snapshot requested %llu",
                                       (unsigned long long)op->requested);
                at += (size_t)describe_time(text + at, text_size - at, "answered", op->answered);
        }
        while (id != MODEL_NONE && at < text_size) {
                const struct branch *branch = &model->branches[id];
                const struct block_history *history = branch_block(branch, block);

                for (size_t i = 0; history != NULL && i < history->n_versions && at < text_size;
                     i++) {
                        const struct version *v = model_version(model, history->versions[i]);

                        at += (size_t)snprintf(
                            text + at, text_size - at, "%s%u%s mask %04x requested %llu",
                            at > 0 ? "; " : "", history->versions[i], v->zeroes ? " (zeroes)" : "",
                            v->mask, (unsigned long long)v->requested);
                        if (at < text_size)
                                at += (size_t)describe_time(text + at, text_size - at, "answered",
                                                            v->answered);
                        if (at < text_size)
                                at += (size_t)describe_time(text + at, text_size - at, "durable",
                                                            v->durable);
                }
                id = branch->parent == MODEL_NONE ? MODEL_NONE : model->cuts[branch->parent].branch;
                if (id != MODEL_NONE && at < text_size)
                        at += (size_t)snprintf(text + at, text_size - at, "; above:");
        }
}
