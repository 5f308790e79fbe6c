/* commands.c - what a machine's control socket is asked for. docs/control.md has the fields. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "server/state.h"
#include "vm/change.h"
#include "vm/machine.h"
#include "vm/saved.h"

#define STOP_WAIT_S     60
#define STOP_WAIT_S_MAX 86400

typedef int co_vm_command(struct machine *m, json_t *request, json_t *reply, struct error *err);

/* ---- looking ---- */

static const char *state_word(const struct machine *m)
{
        static const char *const words[] = {[MACHINE_STARTING] = "starting",
                                            [MACHINE_RUNNING] = "running",
                                            [MACHINE_PAUSED] = "paused",
                                            [MACHINE_ENDED] = "ended"};

        return m->stopping && m->state != MACHINE_ENDED ? "stopping" : words[m->state];
}

static int co_show(struct machine *m, json_t *request, json_t *reply, struct error *err)
{
        const struct vm_file *file = m->known->file;
        char uuid[UUID_TEXT_SIZE];
        json_t *more, *snapshots;
        int r = saved_list(file->name, &snapshots, err);

        if (r < 0)
                return r;
        uuid_format(file->uuid, uuid);
        more = json_pack("{s:s, s:s, s:s, s:i, s:i, s:i, s:I, s:b, s:b, s:I, s:o, s:o}", "name",
                         file->name, "uuid", uuid, "state", state_word(m), "pid", (int)getpid(),
                         "vmm_pid", (int)m->vmm_pid, "cpus", (int)file->n_cpus, "memory",
                         (json_int_t)file->memory_bytes, "autostart", (int)file->autostart,
                         "panicked", (int)m->panicked, "resets", (json_int_t)m->n_resets, "disks",
                         machine_disks_json(m), "snapshots", snapshots);
        if (!more || json_object_update(reply, more) < 0) {
                json_decref(more);
                return error_set(err, -ENOMEM, "out of memory");
        }
        json_decref(more);
        return 0;
}

/* ---- the machine ---- */

static int check_runs(const struct machine *m, struct error *err)
{
        if (m->state == MACHINE_RUNNING || m->state == MACHINE_PAUSED)
                return 0;
        return error_set(err, -EAGAIN, "machine '%s' is %s", m->known->name, state_word(m));
}

static int co_stop(struct machine *m, json_t *request, json_t *reply, struct error *err)
{
        const json_t *timeout = json_object_get(request, "timeout");
        json_int_t seconds = timeout ? json_integer_value(timeout) : STOP_WAIT_S;
        bool forced;

        if ((timeout && !json_is_integer(timeout)) || seconds < 0 || seconds > STOP_WAIT_S_MAX)
                return error_set(err, -EINVAL, "the time to wait is 0 to %d seconds",
                                 STOP_WAIT_S_MAX);
        if (json_is_true(json_object_get(request, "force")))
                seconds = 0;
        forced = co_machine_stop(m, (uint64_t)seconds * MACHINE_SECOND_NS);
        json_object_set_new(reply, "forced", json_boolean(forced));
        return 0;
}

static int co_turn(struct machine *m, enum channel_kind kind, struct error *err)
{
        int r = check_runs(m, err);

        return r < 0 ? r : co_machine_turn(m, kind, err);
}

static int co_reset(struct machine *m, json_t *request, json_t *reply, struct error *err)
{
        return co_turn(m, CHANNEL_RESET, err);
}

static int co_power_button(struct machine *m, json_t *request, json_t *reply, struct error *err)
{
        int r = check_runs(m, err);

        return r < 0 ? r : co_machine_say(m, CHANNEL_POWER_BUTTON, err);
}

static int co_pause(struct machine *m, json_t *request, json_t *reply, struct error *err)
{
        return co_turn(m, CHANNEL_PAUSE, err);
}

static int co_resume(struct machine *m, json_t *request, json_t *reply, struct error *err)
{
        return co_turn(m, CHANNEL_RESUME, err);
}

/* ---- its disks, now and at the next start ---- */

static int read_disk(const json_t *request, struct vm_disk *disk, struct error *err)
{
        const char *word = json_string_value(json_object_get(request, "volume"));

        if (!word)
                return error_set(err, -EINVAL, "the request lacks the text 'volume'");
        return change_parse_disk(word, json_is_true(json_object_get(request, "readonly")), disk,
                                 err);
}

static int co_attach(struct machine *m, json_t *request, json_t *reply, struct error *err)
{
        struct vm_disk disk;
        int r = check_runs(m, err);

        if (r == 0)
                r = read_disk(request, &disk, err);
        if (r == 0)
                r = co_machine_disks_lock(m, err);
        if (r < 0)
                return r;
        r = co_machine_disk_add(m, &disk, err);
        if (r == 0)
                r = change_add_disk(m->known, &disk, err);
        machine_disks_unlock(m);
        return r;
}

/* What the guest has let go of when nobody waited for it any more. */
static bool is_in_file_alone(const struct machine *m, const struct vm_disk *disk)
{
        const struct vm_file *file = m->known->file;
        bool in_file = false;

        for (size_t i = 0; i < file->n_disks; i++)
                in_file |= vm_disk_is_same(&file->disks[i], disk);
        list_for_each (it, &m->disks)
                if (vm_disk_is_same(container_of(it, struct machine_disk, link)->disk, disk))
                        return false;
        return in_file;
}

static int co_detach(struct machine *m, json_t *request, json_t *reply, struct error *err)
{
        char target[2 * (POOL_NAME_MAX + 1)];
        struct vm_disk disk;
        int r = check_runs(m, err);

        if (r == 0)
                r = read_disk(request, &disk, err);
        if (r == 0)
                r = co_machine_disks_lock(m, err);
        if (r < 0)
                return r;
        snprintf(target, sizeof(target), "%s%s%s", disk.volume, disk.snapshot[0] ? "@" : "",
                 disk.snapshot);
        if (!is_in_file_alone(m, &disk))
                r = co_machine_disk_remove(m, disk.pool, target, err);
        if (r == 0)
                r = change_drop_disk(m->known, &disk, err);
        machine_disks_unlock(m);
        return r;
}

/* As far as the machine can, at once: by memory that it can be given, or its balloon. The next start has
 * it in any case. */
static int co_set_memory(struct machine *m, struct error *err)
{
        const struct machine_order order = {
            .kind = CHANNEL_MEMORY, .fd = -1, .value = m->known->file->memory_bytes};
        int r = check_runs(m, err);

        if (r == 0)
                r = co_machine_order(m, &order, err);
        if (r == 0)
                return 0;
        return error_hint(err, "it counts when the machine is started next%s",
                          order.value > m->started->memory_max_bytes
                              ? "; memory-max says how much it can be given while it runs"
                              : "");
}

/* What counts at the next start; of memory also now. */
static int co_set(struct machine *m, json_t *request, json_t *reply, struct error *err)
{
        const json_t *words = json_object_get(request, "properties");
        bool later = false;

        for (size_t i = 0; i < json_array_size(words); i++) {
                const char *word = json_string_value(json_array_get(words, i));
                int r = word ? change_set(m->known, word, err) : -EINVAL;

                if (r < 0)
                        return word ? r : error_set(err, r, "a property is a text: KEY=VALUE");
                if (strncmp(word, "memory=", 7) != 0)
                        later = true;
                else
                        r = co_set_memory(m, err);
                if (r < 0)
                        return r;
        }
        json_object_set_new(reply, "later", json_boolean(later));
        return 0;
}

static int co_snapshot(struct machine *m, json_t *request, json_t *reply, struct error *err)
{
        const char *name = json_string_value(json_object_get(request, "snapshot"));
        uint64_t pause_ns = 0;
        int r = check_runs(m, err);

        if (r == 0 && !name)
                r = error_set(err, -EINVAL, "the request lacks the text 'snapshot'");
        if (r == 0)
                r = co_machine_snapshot(
                    m, name, !json_is_true(json_object_get(request, "disks_only")), &pause_ns, err);
        json_object_set_new(reply, "pause_ms", json_integer((json_int_t)(pause_ns / 1000000)));
        return r;
}

static const struct {
        const char *name;
        co_vm_command *co_run;
} commands[] = {
    {"snapshot", co_snapshot},
    {"show", co_show},
    {"stop", co_stop},
    {"reset", co_reset},
    {"power-button", co_power_button},
    {"pause", co_pause},
    {"resume", co_resume},
    {"attach", co_attach},
    {"detach", co_detach},
    {"set", co_set},
};

int co_machine_command(struct machine *m, json_t *request, json_t **ret_reply, struct error *err)
{
        const char *name = json_string_value(json_object_get(request, "command"));
        json_t *reply;
        int r;

        for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
                if (strcmp(commands[i].name, name) != 0)
                        continue;
                reply = json_object();
                r = reply ? commands[i].co_run(m, request, reply, err)
                          : error_set(err, -ENOMEM, "out of memory");
                if (r < 0)
                        json_decref(reply);
                else
                        *ret_reply = reply;
                return r;
        }
        return error_set(err, -EOPNOTSUPP, "there is no command '%.64s'", name);
}
