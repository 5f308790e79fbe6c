/* members.c - see members.h */
#include <stdlib.h>
#include <string.h>
#include "tests/crash/members.h"
#include "tests/crash/run.h"

struct labels {
        struct pool_label label[DISKS_MAX];
        bool there[DISKS_MAX];
        unsigned newest;
};

static void co_read_labels(struct member **members, unsigned n, struct labels *labels)
{
        labels->newest = 0;
        for (unsigned i = 0; i < n; i++) {
                labels->there[i] = co_pool_read_label(members[i], &labels->label[i], NULL) == 0;
                if (labels->there[i] &&
                    (!labels->there[labels->newest] ||
                     labels->label[i].generation > labels->label[labels->newest].generation))
                        labels->newest = i;
        }
}

static bool is_named(const struct pool_label *label, uint8_t (*uuids)[16], size_t n_uuids)
{
        for (size_t i = 0; i < n_uuids; i++)
                if (memcmp(uuids[i], label->member_uuid, 16) == 0)
                        return true;
        return false;
}

int co_members_open(struct loop *loop, struct sim_disk *const *disks, unsigned n_disks,
                    struct member **members, unsigned *ret_n, unsigned *kept, struct error *err)
{
        struct member *all[DISKS_MAX];
        struct labels labels;
        uint8_t(*uuids)[16];
        size_t n_uuids;
        unsigned n = 0;
        int r = 0;

        while (r == 0 && n < n_disks) {
                r = sim_disk_open(disks[n], loop, &all[n]);
                n += r == 0;
        }
        if (r == 0) {
                co_read_labels(all, n, &labels);
                r = co_pool_read_membership(all[labels.newest], &uuids, &n_uuids, err);
        }
        if (r < 0) {
                while (n-- > 0)
                        member_close(all[n]);
                return r;
        }
        *ret_n = *kept = 0;
        for (unsigned i = 0; i < n; i++)
                if (labels.there[i] && is_named(&labels.label[i], uuids, n_uuids)) {
                        members[(*ret_n)++] = all[i];
                        *kept |= 1u << i;
                } else {
                        member_close(all[i]);
                }
        free(uuids);
        return 0;
}
