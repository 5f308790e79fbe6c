/* qcow2_check_uses.c - counting what refers to the clusters of a qcow2 file. */
#include "formats/qcow2_checker.h"

#define SECTOR_BYTES 512u

int qcow2_check_uses_init(struct qcow2_checker *c, struct error *err)
{
        uint64_t cluster = c->q->cluster_bytes;
        unsigned bits = 1u << c->q->refcount_order;

        c->file_bytes = (c->image->file_bytes + SECTOR_BYTES - 1) / SECTOR_BYTES * SECTOR_BYTES;
        c->n_clusters = (c->file_bytes + cluster - 1) / cluster;
        c->count_saturates = bits > 16;
        c->count_max = bits >= 16 ? UINT16_MAX : (1u << bits) - 1;
        /* A reference may reach into the cluster after the last. */
        c->n_groups = (c->n_clusters + 1) / QCOW2_GROUP + 1;
        c->groups = qcow2_check_alloc(c, c->n_groups, sizeof(*c->groups), err);
        return c->groups ? 0 : qcow2_check_no_memory(c);
}

/* @n more references to one cluster. */
static int add(struct qcow2_checker *c, uint64_t cluster, unsigned use, uint32_t n,
               struct error *err)
{
        struct qcow2_group **group = &c->groups[cluster / QCOW2_GROUP];
        uint64_t i = cluster % QCOW2_GROUP, offset = cluster << c->q->cluster_bits, count;

        if (!*group)
                *group = qcow2_check_alloc(c, 1, sizeof(**group), err);
        if (!*group)
                return qcow2_check_no_memory(c);
        if (cluster >= c->n_clusters)
                c->n_clusters = cluster + 1;
        (*group)->use[i] |= (uint8_t)use;
        count = (uint64_t)(*group)->count[i] + n;
        if (count > c->count_max && !c->count_saturates)
                qcow2_check_found(c, count - c->count_max,
                                  "the cluster at %llu has more references than can be counted",
                                  (unsigned long long)offset);
        (*group)->count[i] = (uint16_t)(count > c->count_max ? c->count_max : count);
        return 0;
}

int qcow2_check_use(struct qcow2_checker *c, unsigned use, const char *what, uint64_t offset,
                    uint64_t length, uint32_t n, struct error *err)
{
        uint64_t end = offset + length;
        int r = 0;

        if (length == 0)
                return 0;
        /* The last cluster need not be there as a whole. */
        if (end < offset || end >= c->file_bytes + c->q->cluster_bytes) {
                qcow2_check_found(c, n, "%s at %llu lies beyond the file's end", what,
                                  (unsigned long long)offset);
                return 0;
        }
        for (uint64_t i = offset >> c->q->cluster_bits;
             r == 0 && i <= (end - 1) >> c->q->cluster_bits; i++)
                r = add(c, i, use, n, err);
        return r;
}

uint32_t qcow2_check_count(const struct qcow2_checker *c, uint64_t cluster, unsigned *ret_use)
{
        const struct qcow2_group *group = c->groups[cluster / QCOW2_GROUP];

        *ret_use = group ? group->use[cluster % QCOW2_GROUP] : 0;
        return group ? group->count[cluster % QCOW2_GROUP] : 0;
}
