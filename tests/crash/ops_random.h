/* ops_random.h - lists of operations from a seed: plan->seed and n_members are set. @roomy: never
 * on small disks. */
#pragma once
#include "tests/crash/ops.h"

void plan_make_random(struct plan *plan, unsigned n_ops, bool roomy);
