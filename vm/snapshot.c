/* snapshot.c - a snapshot of a machine that runs: its memory, its devices and all its disks at one
 * instant.
 *
 * The memory is written while the guest runs, until little is left. Then the guest is paused; what is
 * left of its memory follows, and its devices' state, and its volumes' snapshots are taken, one for all
 * volumes of a pool; and it goes on. What fails leaves nothing behind but a pause. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "vm/machine.h"
#include "vm/saved.h"

#define SAVE_WAIT_ANSWERS 10u /* times as long as for any other answer */

struct snapshot {
        struct machine *m;
        const char *name;
        /* What the snapshot is of: with memory the machine as it runs, without as it starts next; and
         * as a text. */
        struct vm_file *file;
        char *text;
        unsigned numbers[VM_DISKS_MAX]; /* of its disks, with memory */
        struct saving saving;
        bool copying; /* the VMM writes memory, or has written it but for the rest */
        bool locked;  /* its disks, by us */
        bool held;    /* the guest, by us */
        bool paused;  /* by us */
        size_t n_cut; /* of the file's disks: the pools of those before were cut */
        uint64_t paused_ns, pause_ns;
};

/* ---- disks ---- */

static int keep_file(struct snapshot *s, bool memory, struct error *err)
{
        int r = memory ? machine_disks_write(s->m, &s->text, s->numbers, err)
                       : vm_file_write(s->m->known->file, &s->text, err);

        return r < 0
                   ? r
                   : vm_file_parse(s->text, strlen(s->text), s->m->known->name, "/", &s->file, err);
}

static int co_ask_pool(struct snapshot *s, const char *pool, json_t *request, struct error *err)
{
        int r = request ? co_machine_ask_server(s->m, pool, request, -1, err)
                        : error_set(err, -ENOMEM, "out of memory");

        json_decref(request);
        return r;
}

static int co_cut_disks(struct snapshot *s, struct error *err)
{
        int r = 0;

        for (; r == 0 && s->n_cut < s->file->n_disks; s->n_cut++) {
                const char *pool = s->file->disks[s->n_cut].pool;

                if (saved_disk_leads(s->file, s->n_cut))
                        r = co_ask_pool(s, pool,
                                        json_pack("{s:s, s:s, s:o}", "command", "snapshot-create",
                                                  "pool", pool, "names",
                                                  saved_disks(s->file, pool, s->name)),
                                        err);
                /* Deleting what may be another's of this name would be worse than what is left. */
                if (r == -ETIMEDOUT || r == -ECONNRESET)
                        error_hint(err,
                                   "pool '%s' may have taken its snapshots '@%s': 'tarn snapshot "
                                   "list %s' tells",
                                   pool, s->name, pool);
                if (r < 0)
                        break;
        }
        return r;
}

/* Of the pools that were cut already, when another one fails. */
static void co_uncut_disks(struct snapshot *s)
{
        for (size_t i = 0; i < s->n_cut; i++) {
                const char *pool = s->file->disks[i].pool;
                json_t *names =
                    saved_disk_leads(s->file, i) ? saved_disks(s->file, pool, s->name) : NULL;
                json_t *name;
                size_t j;

                json_array_foreach (names, j, name) {
                        struct error e = ERROR_INIT;

                        if (co_ask_pool(s, pool,
                                        json_pack("{s:s, s:s, s:O}", "command", "snapshot-delete",
                                                  "pool", pool, "snapshot", name),
                                        &e) < 0)
                                log_warning("a snapshot that is not needed is left: %s", e.message);
                }
                json_decref(names);
        }
}

/* ---- the guest ---- */

static int co_copy_memory(struct snapshot *s, struct error *err)
{
        struct machine *m = s->m;
        const struct machine_order order = {.kind = CHANNEL_MEMORY_COPY, .fd = s->saving.memory};
        uint64_t deadline_ns = loop_now_ns(m->loop) + machine_limits.memory_ns;
        int r;

        m->copied = false;
        r = co_machine_order(m, &order, err);
        s->copying = r == 0 || r == -ETIMEDOUT; /* it may begin yet */
        while (r == 0 && !m->copied) {
                if (m->state == MACHINE_ENDED || m->ending)
                        return error_set(err, -ESRCH, "machine '%s' has ended", m->known->name);
                if (loop_now_ns(m->loop) >= deadline_ns)
                        return error_set(
                            err, -ETIMEDOUT,
                            "the memory of machine '%s' is not written after %d minutes",
                            m->known->name,
                            (int)(machine_limits.memory_ns / MACHINE_SECOND_NS / 60));
                co_machine_wait(m, deadline_ns);
        }
        if (r == 0 && m->copy_error.code < 0) {
                s->copying = false;
                if (err)
                        *err = m->copy_error;
                r = m->copy_error.code;
        }
        return r;
}

static int co_pause(struct snapshot *s, struct error *err)
{
        int r = co_machine_hold(s->m, loop_now_ns(s->m->loop) + MACHINE_HOLD_WAIT_NS, err);

        s->held = r == 0;
        s->paused_ns = loop_now_ns(s->m->loop);
        if (r < 0)
                return r;
        r = co_machine_say(s->m, CHANNEL_PAUSE, err);
        /* What is not answered in time may be obeyed later. */
        s->paused = (r == 0 || r == -ETIMEDOUT) && s->m->state != MACHINE_PAUSED;
        return r;
}

static int co_save(struct snapshot *s, struct error *err)
{
        /* What was written to since the copy is written once more: with much of it, or a slow disk,
         * that is not quick. A stop that comes meanwhile waits for it. */
        const struct machine_order order = {.kind = CHANNEL_SAVE,
                                            .fd = s->saving.state,
                                            .wait_ns = SAVE_WAIT_ANSWERS * machine_limits.answer_ns,
                                            .past_stop = true};

        s->copying = false;
        return co_machine_order(s->m, &order, err);
}

static int co_go_on(struct snapshot *s, struct error *err)
{
        int r = s->paused ? co_machine_say(s->m, CHANNEL_RESUME, err) : 0;

        if (s->held)
                machine_let_go(s->m);
        s->held = s->paused = false;
        s->pause_ns = loop_now_ns(s->m->loop) - s->paused_ns;
        return r;
}

static int co_take(struct snapshot *s, bool memory, struct error *err)
{
        int r = memory ? saving_open_memory(&s->saving, err) : 0;

        if (r == 0 && memory)
                r = co_copy_memory(s, err);
        /* A guest that is paused takes no disk, and lets go of none. */
        if (r == 0) {
                r = co_machine_disks_lock(s->m, err);
                s->locked = r == 0;
        }
        /* The disks of a guest that runs on are as after a power cut: all at the same instant only
         * where it is paused. */
        if (r == 0)
                r = co_pause(s, err);
        if (r == 0 && memory)
                r = co_save(s, err);
        if (r == 0)
                r = machine_disks_check(s->m, err);
        if (r == 0)
                r = keep_file(s, memory, err);
        if (r == 0)
                r = co_cut_disks(s, err);
        return r;
}

int co_machine_snapshot(struct machine *m, const char *name, bool memory, uint64_t *ret_pause_ns,
                        struct error *err)
{
        struct snapshot s = {.m = m, .name = name};
        struct error second = ERROR_INIT;
        int r;

        if (m->saving)
                return error_set(err, -EBUSY, "another snapshot of machine '%s' is being taken",
                                 m->known->name);
        m->saving = true;
        r = saving_begin(&s.saving, m->known->name, name, err);
        if (r == 0)
                r = co_take(&s, memory, err);
        if (co_go_on(&s, &second) < 0 && r == 0) {
                r = second.code;
                if (err)
                        *err = second;
        }
        if (s.locked)
                machine_disks_unlock(m);
        if (s.copying)
                (void)co_machine_say(m, CHANNEL_MEMORY_CANCEL, NULL);
        if (r == 0)
                r = saving_commit(&s.saving, s.text, memory ? s.numbers : NULL, s.file->n_disks,
                                  err);
        if (r < 0)
                co_uncut_disks(&s);
        saving_abandon(&s.saving);
        vm_file_free(s.file);
        free(s.text);
        m->saving = false;
        co_wake_all(&m->changed);
        if (r == 0)
                *ret_pause_ns = s.pause_ns;
        return r;
}
