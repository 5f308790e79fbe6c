/* command_pool.c - status, add, check. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pool/disk.h"
#include "server/attach.h"
#include "server/command.h"

#define ADD_LOCK_WAIT_MS 1000u
/* A pool that is broken all over has no use for more; the count goes on. */
#define FINDINGS_MAX 1000u

static void put(json_t *object, const char *key, uint64_t value)
{
        json_object_set_new(object, key, json_integer((json_int_t)value));
}

static json_t *member_json(const struct pool_member_info *m)
{
        uint64_t room = m->data_bytes + m->unassigned_bytes + m->metadata_bytes;
        const struct meter_line *line = m->meter->line;
        json_t *j = json_pack("{s:s, s:o}", "path", m->path, "uuid", json_uuid(m->uuid));

        put(j, "size", m->size_bytes);
        put(j, "used", m->used_bytes);
        put(j, "free", room > m->used_bytes ? room - m->used_bytes : 0);
        put(j, "data", m->data_bytes);
        put(j, "metadata", m->metadata_bytes);
        put(j, "unassigned", m->unassigned_bytes);
        put(j, "reads", line[METER_READ].requests);
        put(j, "writes", line[METER_WRITE].requests);
        put(j, "flushes", line[METER_FLUSH].requests);
        put(j, "discards", line[METER_DISCARD].requests);
        put(j, "read_bytes", line[METER_READ].bytes);
        put(j, "write_bytes", line[METER_WRITE].bytes);
        put(j, "discard_bytes", line[METER_DISCARD].bytes);
        put(j, "errors", meter_errors(m->meter));
        return j;
}

static void client_json(const struct nbd_client_info *info, void *arg)
{
        json_array_append_new(
            arg, json_pack("{s:s, s:s?, s:b, s:I, s:I, s:I, s:I, s:I}", "peer", info->peer,
                           "export", info->export_name, "readonly", info->readonly, "reads",
                           (json_int_t)info->reads, "writes", (json_int_t)info->writes, "flushes",
                           (json_int_t)info->flushes, "read_bytes", (json_int_t)info->read_bytes,
                           "write_bytes", (json_int_t)info->write_bytes));
}

static json_t *co_server_json(struct host_pool *hp)
{
        const struct host *host = hp->host;
        json_t *nbd = json_array(), *clients = json_array(), *machines = attach_machines_json(hp);
        struct loop *from = co_move(host->loop);

        for (size_t i = 0; i < host->n_nbd_addresses; i++)
                json_array_append_new(nbd, json_string(host->nbd_addresses[i]));
        if (host->nbd)
                nbd_server_each_client(host->nbd, client_json, clients);
        co_move(from);
        return json_pack("{s:i, s:s, s:o, s:o, s:o}", "pid", (int)getpid(), "control",
                         host->control_path, "nbd", nbd, "clients", clients, "machines", machines);
}

static int add_size(const struct root_info *info, void *arg)
{
        if (info->kind == ROOT_VOLUME)
                *(uint64_t *)arg += info->size_bytes;
        return 0;
}

int co_pool_status(struct command *c, struct error *err)
{
        json_t *members = json_array(), *log = json_object(), *r = c->reply;
        struct pool_info info;
        uint64_t provisioned = 0;
        int result;

        /* The engine counts the roots that it has loaded; here all are asked for. */
        result = co_pool_list(c->hp->pool, add_size, &provisioned, err);
        if (result < 0) {
                json_decref(members);
                json_decref(log);
                return result;
        }
        pool_get_info(c->hp->pool, &info);
        for (size_t i = 0; i < info.n_members; i++) {
                struct pool_member_info m;

                pool_get_member_info(c->hp->pool, i, &m);
                json_array_append_new(members, member_json(&m));
        }
        json_object_set_new(r, "name", json_string(info.name));
        json_object_set_new(r, "uuid", json_uuid(info.uuid));
        json_object_set_new(r, "layout",
                            json_string(info.layout == POOL_LAYOUT_CONCAT ? "concat" : "stripe"));
        put(r, "stripe", info.stripe_bytes);
        put(r, "slab", info.slab_bytes);
        put(r, "size", info.size_bytes);
        put(r, "used", info.used_bytes);
        put(r, "free", info.free_bytes);
        put(r, "provisioned", provisioned);
        put(r, "metadata_used", info.metadata_used_bytes);
        put(r, "freeing", info.freeing_bytes);
        put(r, "volumes", info.n_volumes);
        put(r, "snapshots", info.n_snapshots);
        put(r, "generation", info.generation);
        put(r, "epoch", info.epoch);
        put(r, "checksum_errors", info.checksum_errors);
        put(r, "repaired_errors", info.repaired_errors);
        put(log, "used", info.log_used_bytes);
        put(log, "size", info.log_size_bytes);
        json_object_set_new(r, "log", log);
        json_object_set_new(r, "failed", info.failed ? json_string(info.failed) : json_null());
        /* A one-shot's own way of opening is nobody's business: only damage is told. */
        json_object_set_new(r, "readonly",
                            json_boolean(info.readonly && (c->host->control_path || info.failed)));
        json_object_set_new(r, "members", members);
        json_object_set_new(r, "server",
                            c->host->control_path ? co_server_json(c->hp) : json_null());
        return 0;
}

/* Descriptors and "paths" go in pairs. */
int co_pool_add_members(struct command *c, struct error *err)
{
        json_t *paths = json_object_get(c->request, "paths");
        struct member **members;
        size_t n = 0;
        int r = 0;

        if (!json_is_array(paths) || json_array_size(paths) != c->n_fds || c->n_fds == 0)
                return error_set(err, -EINVAL,
                                 "the request lacks 'paths', one for each descriptor");
        members = calloc(c->n_fds, sizeof(*members));
        if (!members)
                return error_set(err, -ENOMEM, "out of memory");
        for (; r == 0 && n < c->n_fds; n++) {
                const struct disk_options options = {.lock_wait_ms = ADD_LOCK_WAIT_MS};
                const char *path = json_string_value(json_array_get(paths, n));
                int fd = fcntl(c->fds[n], F_DUPFD_CLOEXEC, 0);

                if (fd < 0)
                        r = error_set(err, -errno, "cannot open member %zu: %s", n,
                                      strerror(errno));
                else
                        r = co_disk_open_fd(c->hp->loop, fd, path ? path : "?", &options,
                                            &members[n], err);
                if (r == 0)
                        r = co_disk_format(members[n], err);
        }
        if (r == 0)
                r = co_pool_add(c->hp->pool, members, n, err);
        if (r < 0)
                for (size_t i = 0; i < n; i++)
                        member_close(members[i]);
        else
                host_pool_save(c->hp);
        free(members);
        return r;
}

struct checking {
        struct command *c;
        json_t *findings;
};

static void keep_finding(void *arg, const char *sentence)
{
        struct checking *checking = arg;

        if (json_array_size(checking->findings) < FINDINGS_MAX)
                json_array_append_new(checking->findings, json_string(sentence));
}

static void pass_progress(void *arg, uint64_t done, uint64_t total)
{
        struct checking *checking = arg;

        command_progress(checking->c, done, total, NULL);
}

int co_pool_check_all(struct command *c, struct error *err)
{
        struct checking checking = {.c = c, .findings = json_array()};
        const struct pool_check_callbacks callbacks = {.finding = keep_finding,
                                                       .progress = pass_progress,
                                                       .arg = &checking,
                                                       .cancelled = c->caller->cancelled};
        uint64_t n = 0;
        int r = co_pool_check(c->hp->pool, command_flag(c, "data"), &callbacks, &n, err);

        json_object_set_new(c->reply, "findings", checking.findings);
        put(c->reply, "n_findings", n);
        return r;
}
