/* history.c - see history.h. */
#include "tests/linear/history.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

int history_add(struct history *h, const struct history_op *op, size_t *ret_index,
                struct error *err)
{
        if (h->n == h->max) {
                size_t max = h->max ? 2 * h->max : 1024;
                struct history_op *ops = realloc(h->ops, max * sizeof(*ops));

                if (!ops)
                        return error_set(err, -ENOMEM, "out of memory for %zu operations", max);
                h->ops = ops;
                h->max = max;
        }
        if (ret_index)
                *ret_index = h->n;
        h->ops[h->n++] = *op;
        return 0;
}

int history_append(struct history *h, const struct history *other, struct error *err)
{
        int r = 0;

        for (size_t i = 0; r == 0 && i < other->n; i++)
                r = history_add(h, &other->ops[i], NULL, err);
        return r;
}

void history_free(struct history *h)
{
        free(h->ops);
        *h = (struct history){0};
}

/* ---- as text ---- */

static const char kinds[] = "rwf";

int history_write(const struct history *h, FILE *file, struct error *err)
{
        for (size_t i = 0; i < h->n; i++) {
                const struct history_op *op = &h->ops[i];

                fprintf(file, "%c %u ", kinds[op->kind], op->volume);
                if (op->unit == HISTORY_ALL)
                        fprintf(file, "* %u %u", op->client, op->first_life);
                else
                        fprintf(file, "%" PRIu32 " %u %u", op->unit, op->client, op->first_life);
                if (op->last_life != op->first_life)
                        fprintf(file, "-%u", op->last_life);
                fprintf(file, " %c %" PRIu64 " ", op->durable ? 'd' : '-', op->begin_ns);
                if (op->end_ns == HISTORY_NEVER)
                        fputs("-", file);
                else
                        fprintf(file, "%" PRIu64, op->end_ns);
                fprintf(file, " %" PRIu64 "\n", op->value);
        }
        if (fflush(file) != 0 || ferror(file))
                return error_set(err, -EIO, "cannot write the history: %s", strerror(errno));
        return 0;
}

/* A number that all of @word is. */
static bool number(const char *word, uint64_t max, uint64_t *ret_number)
{
        char *end;

        errno = 0;
        *ret_number = strtoull(word, &end, 10);
        return *word >= '0' && *word <= '9' && *end == 0 && errno == 0 && *ret_number <= max;
}

static bool read_lives(char *word, struct history_op *op)
{
        char *dash = strchr(word, '-');
        uint64_t first, last;

        if (dash)
                *dash = 0;
        if (!number(word, HISTORY_LIVES - 1, &first) ||
            !number(dash ? dash + 1 : word, HISTORY_LIVES - 1, &last) || last < first)
                return false;
        op->first_life = (uint16_t)first;
        op->last_life = (uint16_t)last;
        return true;
}

static bool read_line(char *line, struct history_op *op)
{
        char *words[9], *rest = line;
        uint64_t volume, client, unit = HISTORY_ALL;

        for (unsigned i = 0; i < 9; i++) {
                words[i] = strtok_r(i == 0 ? line : NULL, " \n", &rest);
                if (!words[i])
                        return false;
        }
        const char *kind = strchr(kinds, words[0][0]);
        if (strtok_r(NULL, " \n", &rest) || !kind || words[0][0] == 0 || words[0][1])
                return false;
        *op = (struct history_op){.kind = (uint8_t)(kind - kinds), .end_ns = HISTORY_NEVER};
        bool is_flush = op->kind == HISTORY_FLUSH;
        bool good = number(words[1], UINT16_MAX, &volume) && number(words[3], UINT16_MAX, &client);
        good = good &&
               (is_flush ? strcmp(words[2], "*") == 0 : number(words[2], HISTORY_ALL - 1, &unit));
        good = good && read_lives(words[4], op) && strlen(words[5]) == 1 && strchr("d-", *words[5]);
        good = good && number(words[6], HISTORY_NEVER - 1, &op->begin_ns);
        good = good &&
               (strcmp(words[7], "-") == 0 || number(words[7], HISTORY_NEVER - 1, &op->end_ns));
        good = good && number(words[8], HISTORY_RUBBISH, &op->value);
        if (!good || op->end_ns < op->begin_ns)
                return false;
        op->volume = (uint16_t)volume;
        op->client = (uint16_t)client;
        op->unit = (uint32_t)unit;
        op->durable = *words[5] == 'd';
        return true;
}

int history_read(FILE *file, struct history *ret_history, struct error *err)
{
        struct history h = {0};
        struct history_op op;
        char line[256];
        int r = 0;

        for (unsigned i = 1; r == 0 && fgets(line, sizeof(line), file); i++) {
                if (line[0] == '#' || line[0] == '\n')
                        continue;
                if (read_line(line, &op))
                        r = history_add(&h, &op, NULL, err);
                else
                        r = error_set(err, -EINVAL, "line %u is no operation", i);
        }
        if (r == 0 && ferror(file))
                r = error_set(err, -EIO, "cannot read the history: %s", strerror(errno));
        if (r < 0) {
                history_free(&h);
                return r;
        }
        *ret_history = h;
        return 0;
}
