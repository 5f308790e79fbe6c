/* attach_passing.c - attachments for virtual machines, which end with their front end: a VMM that is
 * killed leaves nothing behind. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "server/attach_internal.h"

/* For who has asked for it to connect; and again where there is no memory for a coroutine. */
#define CONNECT_WAIT_NS UINT64_C(10000000000)
#define RETRY_NS        UINT64_C(100000000)
#define SETTLE_LOOK_NS  UINT64_C(1000000)

static void count_client(const struct vhost_client_info *info, void *arg)
{
        ++*(unsigned *)arg;
}

static unsigned n_clients(const struct attachment *a)
{
        unsigned n = 0;

        vhost_device_each_client(a->device, count_client, &n);
        return n;
}

struct attachment *passing_find(const struct host_pool *hp, const char *target)
{
        list_for_each (it, &hp->attachments) {
                struct attachment *a = container_of(it, struct attachment, link);

                if (a->passing && strcmp(a->target, target) == 0)
                        return a;
        }
        return NULL;
}

void passing_user_text(const struct attachment *a, pid_t pid, char text[PASSING_USER_SIZE])
{
        if (a->machine[0])
                snprintf(text, PASSING_USER_SIZE, "machine '%s' (pid %d)", a->machine, (int)pid);
        else
                snprintf(text, PASSING_USER_SIZE, "vhost-user front end pid %d", (int)pid);
}

/* ---- the end ---- */

static void co_end(void *arg)
{
        struct attachment *a = arg;
        struct host_pool *hp = a->hp;

        hp->n_attachments_ending++;
        co_attachment_free(a);
        hp->n_attachments_ending--;
}

static void end(struct loop_timer *timer)
{
        struct attachment *a = container_of(timer, struct attachment, end);
        struct loop *loop = a->hp->loop;

        /* It is connecting, or has connected. Its end is told only where it came to have the volume. */
        if (!a->has_had_client && n_clients(a) > 0) {
                loop_timer_set(loop, timer, loop_now_ns(loop) + CONNECT_WAIT_NS);
                return;
        }
        if (co_spawn(loop, co_end, a) < 0)
                loop_timer_set(loop, timer, loop_now_ns(loop) + RETRY_NS);
}

void passing_start(struct attachment *a, const char *serial, const char *machine,
                   const char *identity)
{
        struct loop *loop = a->hp->loop;

        a->passing = true;
        snprintf(a->serial, sizeof(a->serial), "%s", serial);
        snprintf(a->machine, sizeof(a->machine), "%s", machine);
        snprintf(a->identity, sizeof(a->identity), "%s", identity);
        a->end.fire = end;
        loop_timer_set(loop, &a->end, loop_now_ns(loop) + CONNECT_WAIT_NS);
}

void passing_left(struct attachment *a)
{
        struct loop *loop = a->hp->loop;

        if (!a->passing || a->kept)
                return;
        a->has_had_client = true;
        loop_timer_set(loop, &a->end, loop_now_ns(loop));
}

bool passing_is_ending(const struct attachment *a)
{
        return a->passing && !a->kept && a->has_had_client;
}

void co_passing_settle(struct host_pool *hp)
{
        while (hp->n_attachments_ending > 0)
                co_sleep_ns(SETTLE_LOOK_NS);
}

/* ---- what it is ---- */

#define UUID_DIGITS 32

void attach_identity(const struct root_info *info, char identity[ATTACH_IDENTITY_SIZE])
{
        for (size_t i = 0; i < sizeof(info->uuid); i++)
                snprintf(identity + 2 * i, 3, "%02x", info->uuid[i]);
        snprintf(identity + UUID_DIGITS, ATTACH_IDENTITY_SIZE - UUID_DIGITS, "-%llu",
                 (unsigned long long)info->id);
}

int attach_check_identity(const struct host_pool *hp, const char *target, const char *wanted,
                          const char *is, struct error *err)
{
        if (!wanted[0] || strcmp(wanted, is) == 0)
                return 0;
        if (strncmp(wanted, is, UUID_DIGITS) == 0)
                return error_set(err, -ESTALE,
                                 "'%s/%s' was taken back to a snapshot: it does not hold any more "
                                 "what it held",
                                 hp->name, target);
        return error_set(err, -ESTALE, "'%s/%s' is the name of another %s by now", hp->name, target,
                         strchr(target, '@') ? "snapshot" : "volume");
}

int attach_check_rename(const struct host_pool *hp, const char *volume, struct error *err)
{
        list_for_each (it, &hp->attachments) {
                const struct attachment *a = container_of(it, struct attachment, link);

                if (!a->passing || !host_name_is_of(a->target, volume))
                        continue;
                error_set(err, -EBUSY, "'%s/%s' is a disk of %s%s%s, which finds it by that name",
                          hp->name, a->target, a->machine[0] ? "machine '" : "a virtual machine",
                          a->machine, a->machine[0] ? "'" : "");
                return error_hint(err, "stop the machine first, or take the disk away from it by "
                                       "'tarn vm detach'");
        }
        return 0;
}

/* ---- the beginning ---- */

static const struct attachment *who_is_to_write(const struct host_pool *hp, const char *target)
{
        list_for_each (it, &hp->attachments) {
                const struct attachment *a = container_of(it, struct attachment, link);

                if (a->passing && !a->readonly && strcmp(a->target, target) == 0)
                        return a;
        }
        return NULL;
}

/* Two machines that write to one file system destroy it. */
static int refuse_used(struct host_pool *hp, const char *target, struct error *err)
{
        char users[256] = "";

        if (host_writers(hp, target, users, sizeof(users)) == 0) {
                const struct attachment *starting = who_is_to_write(hp, target);

                if (!starting)
                        return 0;
                if (starting->machine[0])
                        snprintf(users, sizeof(users), "machine '%s', which is starting",
                                 starting->machine);
                else
                        snprintf(users, sizeof(users), "a virtual machine that is starting");
        }
        error_set(err, -EBUSY, "'%s/%s' is in use by %s", hp->name, target, users);
        return error_hint(err, "several may use it where it is read-only for this one");
}

int co_attach_passing(struct host_pool *hp, struct attach_passing *passing, int fd,
                      struct error *err)
{
        const struct state_attachment *wanted = &passing->wanted;
        char identity[ATTACH_IDENTITY_SIZE];
        struct attachment *a;
        int own, r;

        if (!wanted->readonly)
                co_host_await_leavers(hp, wanted->target);
        r = co_attach_check(hp, wanted->target, identity, err);
        if (r == 0)
                r = attach_check_identity(hp, wanted->target, passing->identity, identity, err);
        if (r == 0 && !wanted->readonly && !strchr(wanted->target, '@'))
                r = refuse_used(hp, wanted->target, err);
        if (r < 0)
                return r;
        own = dup(fd);
        if (own < 0)
                return error_set(err, -errno, "cannot keep the socket: %s", strerror(errno));
        r = attachment_new(hp, wanted, own, false, false, &a, err);
        if (r < 0)
                return r;
        passing_start(a, passing->serial, passing->machine, identity);
        memcpy(passing->identity, identity, sizeof(identity));
        return 0;
}

bool attach_is_used(struct host_pool *hp)
{
        list_for_each (it, &hp->attachments) {
                const struct attachment *a = container_of(it, struct attachment, link);

                if (a->passing || n_clients(a) > 0)
                        return true;
        }
        return false;
}
