/* observed.c - what was read back from a pool, compared: see model.h */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/crash/model.h"

void observed_free(struct observed *observed)
{
        for (size_t i = 0; i < observed->n_roots; i++)
                free(observed->roots[i].blocks);
        free(observed->roots);
        free(observed->images);
        *observed = (struct observed){0};
}

bool observed_equal(const struct observed *a, const struct observed *b, char *text,
                    size_t text_size)
{
        if (a->n_roots != b->n_roots) {
                snprintf(text, text_size, "%zu roots, then %zu", a->n_roots, b->n_roots);
                return false;
        }
        for (size_t i = 0; i < a->n_roots; i++) {
                const struct observed_root *x = &a->roots[i], *y = &b->roots[i];

                if (strcmp(x->name, y->name) != 0 || x->size_bytes != y->size_bytes ||
                    x->is_snapshot != y->is_snapshot || x->n_blocks != y->n_blocks ||
                    x->image != y->image) {
                        snprintf(text, text_size, "%s (%zu blocks), then %s (%zu blocks)", x->name,
                                 x->n_blocks, y->name, y->n_blocks);
                        return false;
                }
                for (size_t k = 0; k < x->n_blocks; k++)
                        if (memcmp(&x->blocks[k], &y->blocks[k], sizeof(x->blocks[k])) != 0) {
                                snprintf(text, text_size, "%s differs at block %llu", x->name,
                                         (unsigned long long)x->blocks[k].block);
                                return false;
                        }
        }
        return true;
}
