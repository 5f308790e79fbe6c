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

/* Who is a member, by the newest superblock of the first @n. */
static int co_membership(struct member **members, unsigned n, struct labels *labels,
                         uint8_t (**ret_uuids)[16], size_t *ret_n_uuids, struct error *err)
{
        co_read_labels(members, n, labels);
        return co_pool_read_membership(members[labels->newest], ret_uuids, ret_n_uuids, err);
}

bool co_members_agree(struct loop *loop, struct sim_disk *const *disks, unsigned n_disks)
{
        struct member *members[DISKS_MAX];
        bool named[2] = {false, false};
        struct labels labels;
        unsigned n = 0;

        while (n < n_disks && sim_disk_open(disks[n], loop, &members[n]) == 0)
                n++;
        for (unsigned without = 0; n == n_disks && without < 2; without++) {
                struct pool_label last;
                struct error err = ERROR_INIT;
                uint8_t(*uuids)[16];
                size_t n_uuids;

                if (co_pool_read_label(members[n - 1], &last, NULL) < 0 ||
                    co_membership(members, n - without, &labels, &uuids, &n_uuids, &err) < 0)
                        continue;
                named[without] = is_named(&last, uuids, n_uuids);
                free(uuids);
        }
        while (n-- > 0)
                member_close(members[n]);
        return named[0] == named[1];
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
        if (r == 0)
                r = co_membership(all, n, &labels, &uuids, &n_uuids, err);
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
