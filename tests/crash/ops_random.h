/* ops_random.h - lists of operations from a seed: plan->seed and n_members are set. @roomy: never
 * on small disks. @images: with volumes on images. */
#pragma once
#include "tests/crash/model.h"
#include "tests/crash/ops.h"
#include "tests/sim/sim_random.h"

/* One operation on what is there @now; false: its kind is not possible. @next_image: an image that no
 * volume stands on yet, for one that is made; 0: there are no images. @io: a read, write, discard or
 * write of zeroes. */
bool op_make_random(const struct model_roots *now, struct sim_random *random, bool greedy,
                    uint32_t next_image, bool io, struct op *ret_op);

void plan_make_random(struct plan *plan, unsigned n_ops, bool roomy, bool images);
