/* fake_exports.c - see fake_exports.h. */
#include "tests/protocol/fake_exports.h"
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "common/coroutine.h"

static int co_export_open(void *arg, const char *name, bool to_use, struct nbd_client *client,
                          struct nbd_export *ret, struct error *err)
{
        struct fake_exports *e = arg;

        e->n_asked++;
        memset(e->identities, 0, sizeof(e->identities));
        for (unsigned i = 0; i < 8 && nbd_client_identity(client, i); i++)
                snprintf(e->identities[i], sizeof(e->identities[i]), "%s",
                         nbd_client_identity(client, i));
        co_yield_loop(); /* as one that has to read */
        if (strcmp(name, "") == 0 || strcmp(name, "vol") == 0 || strcmp(name, "pool/vol") == 0) {
                *ret = (struct nbd_export){.volume = e->volume, .name = "pool/vol"};
                snprintf(ret->description, sizeof(ret->description), "%s", e->description);
        } else if (strcmp(name, "pool/vol@snap") == 0) {
                *ret = (struct nbd_export){
                    .volume = e->snapshot, .name = "pool/vol@snap", .readonly = true};
        } else if (strcmp(name, "pool/big") == 0) {
                *ret = (struct nbd_export){.volume = e->big, .name = "pool/big"};
        } else if (strcmp(name, "secret") == 0) {
                return error_set(err, -EPERM, "'secret' is not for you");
        } else {
                return error_set(err, -ENOENT, "there is no export '%s'", name);
        }
        e->n_open++;
        return 0;
}

static void co_export_close(void *arg, struct nbd_export *export)
{
        struct fake_exports *e = arg;

        co_yield_loop();
        assert(e->n_open > 0);
        e->n_open--;
}

static int co_export_list(void *arg, struct nbd_client *client,
                          int (*each)(const char *name, const char *description, void *each_arg),
                          void *each_arg, struct error *err)
{
        struct fake_exports *e = arg;
        int r = each("pool/vol", e->description, each_arg);

        if (r == 0)
                r = each("pool/vol@snap", "", each_arg);
        if (r == 0)
                r = each("pool/big", NULL, each_arg);
        for (unsigned i = 0; r == 0 && i < e->n_extra; i++) {
                char name[64];
                snprintf(name, sizeof(name), "pool/extra-%u", i);
                r = each(name, "one more, so that the list is long", each_arg);
        }
        return r;
}

static int co_snapshot_open(void *arg, const struct nbd_export *export, const char *snapshot,
                            struct volume **ret_volume, struct error *err)
{
        struct fake_exports *e = arg;
        unsigned i;
        char end;

        co_yield_loop();
        if (strcmp(snapshot, "locked") == 0)
                return error_set(err, -EPERM, "'locked' is not for you");
        bool is_there = strcmp(snapshot, "snap") == 0 ||
                        (sscanf(snapshot, "s%u%c", &i, &end) == 1 && i < e->n_snapshots);
        if (!is_there || export->volume == e->big)
                return error_set(err, -ENOENT, "there is no snapshot '%s'", snapshot);
        e->n_held++;
        *ret_volume = e->snapshot;
        return 0;
}

static void co_snapshot_close(void *arg, struct volume *snapshot)
{
        struct fake_exports *e = arg;

        co_yield_loop();
        assert(snapshot == e->snapshot && e->n_held > 0);
        e->n_held--;
}

static int co_snapshot_list(void *arg, const struct nbd_export *export,
                            int (*each)(const char *snapshot, void *each_arg), void *each_arg,
                            struct error *err)
{
        struct fake_exports *e = arg;
        int r = export->volume == e->big ? 0 : each("snap", each_arg);

        for (unsigned i = 0; r == 0 && i < e->n_snapshots && export->volume != e->big; i++) {
                char name[16];
                snprintf(name, sizeof(name), "s%u", i);
                r = each(name, each_arg);
        }
        return r;
}

struct nbd_exports fake_exports_calls(struct fake_exports *exports)
{
        return (struct nbd_exports){
            .co_open = co_export_open,
            .co_close = co_export_close,
            .co_list = co_export_list,
            .co_snapshot_open = co_snapshot_open,
            .co_snapshot_close = co_snapshot_close,
            .co_snapshot_list = co_snapshot_list,
            .arg = exports,
        };
}
