/* vm_export.c - tarn vm export: a machine and its disks as an OVA.
 *
 * The disks are of one instant: that of a snapshot of the machine's disks, deleted afterwards. Each is
 * written as a stream-optimized VMDK into a file without a name, of which the archive is made. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli/output.h"
#include "cli/vm.h"
#include "common/coroutine.h"
#include "common/offload.h"
#include "formats/ova.h"
#include "server/session.h"
#include "vm/ovf.h"
#include "vm/restore.h"
#include "vm/vm.h"

struct exporting {
        const char *name, *path;
        struct session_work work;
        struct cli_progress progress;
        struct vm_file *file; /* its disks are those at the snapshot's instant */
        struct ovf_machine machine;
        char snapshot[POOL_NAME_MAX + 1]; /* empty: none is taken */
        struct output output;
        int disks[VM_DISKS_MAX]; /* their images */
        size_t n_disks;          /* so many are written */
};

/* ---- one instant ---- */

static bool has_written_disks(const struct vm_file *file)
{
        for (size_t i = 0; i < file->n_disks; i++)
                if (saved_disk_leads(file, i))
                        return true;
        return false;
}

static int take_stopped(const struct exporting *x, const char *snapshot, struct error *err)
{
        struct known *k;
        int r = known_lock(x->name, &k, err);

        if (r < 0)
                return r;
        r = restore_take_disks(k, snapshot, err);
        known_free(k);
        return r;
}

/* By its supervisor where it runs, which pauses it for that; else here. */
static int take_snapshot(struct exporting *x, struct error *err)
{
        char name[sizeof(x->snapshot)];
        json_t *reply = NULL;
        int r;

        snprintf(name, sizeof(name), "export-%lld-%d", (long long)time(NULL), (int)getpid());
        r = vm_ask(
            x->name,
            json_pack("{s:s, s:s, s:b}", "command", "snapshot", "snapshot", name, "disks_only", 1),
            &reply, err);
        json_decref(reply);
        if (r == -ENOTCONN)
                r = take_stopped(x, name, err);
        if (r == 0)
                memcpy(x->snapshot, name, sizeof(name));
        return r;
}

/* The file as the snapshot has it: who runs the machine may have given it another disk meanwhile. */
static int take_instant(struct exporting *x, struct error *err)
{
        struct vm_file *file;
        int r;

        if (!has_written_disks(x->file))
                return 0;
        r = take_snapshot(x, err);
        if (r == 0)
                r = saved_load(x->name, x->snapshot, &file, err);
        if (r < 0)
                return r;
        vm_file_free(x->file);
        x->file = file;
        return 0;
}

static void drop_instant(const struct exporting *x)
{
        struct error e = ERROR_INIT;

        if (x->snapshot[0] && restore_delete(x->name, x->snapshot, &e) < 0)
                cli_note("snapshot '%s@%s', made for the export, is left: %s", x->name, x->snapshot,
                         e.message);
}

/* ---- disks ---- */

/* What the machine only reads is not in its snapshot. */
static json_t *disk_request(const struct exporting *x, size_t i)
{
        const struct vm_disk *disk = &x->file->disks[i];
        const char *snapshot = disk->snapshot[0] ? disk->snapshot
                               : disk->readonly  ? ""
                                                 : x->snapshot;

        return json_pack("{s:s, s:s, s:s, s:o, s:o}", "command", "image-export", "format", "vmdk",
                         "variant", "streamOptimized", "name",
                         json_sprintf("%s%s%s", disk->volume, snapshot[0] ? "@" : "", snapshot),
                         "path", json_sprintf("%s-disk%zu.vmdk", x->file->name, i + 1));
}

static int export_disk(struct exporting *x, size_t i, struct error *err)
{
        json_t *reply = NULL;
        int fd = output_scratch(&x->output, err), r;

        if (fd < 0)
                return fd;
        x->disks[x->n_disks++] = fd;
        r = cli_try(&(struct cli_call){.pool = x->file->disks[i].pool,
                                       .request = disk_request(x, i),
                                       .fds = &fd,
                                       .n_fds = 1,
                                       .progress = "exporting"},
                    &reply, err);
        json_decref(reply);
        return r;
}

/* ---- the archive ---- */

static int co_write(struct loop *loop, struct session_work *work, struct error *err)
{
        struct exporting *x = container_of(work, struct exporting, work);
        struct ova_watch watch = {
            .progress = cli_progress_show, .arg = &x->progress, .cancelled = &x->work.cancelled};
        struct offload *offload = offload_new(0);
        int r;

        r = co_ova_write(x->output.fd, x->path, &x->machine, x->disks, offload, &watch, err);
        offload_free(offload);
        return r;
}

static int write_archive(struct exporting *x, struct error *err)
{
        int r = vm_file_to_ovf(x->file, &x->machine, err);

        if (r < 0)
                return r;
        x->work = (struct session_work){.co_run = co_write};
        cli_progress_begin(&x->progress, "packing", false);
        r = session_do(&x->work, err);
        cli_progress_end(&x->progress);
        return r;
}

static int export_all(struct exporting *x, struct error *err)
{
        int r = take_instant(x, err);

        for (size_t i = 0; r == 0 && i < x->file->n_disks; i++) {
                r = signals_check(err);
                if (r == 0)
                        r = export_disk(x, i, err);
        }
        if (r == 0)
                r = signals_check(err);
        if (r == 0)
                r = write_archive(x, err);
        if (r == 0)
                r = output_finish(&x->output, err);
        drop_instant(x);
        return r;
}

static int prepare(struct exporting *x, bool force, struct error *err)
{
        struct known *k;
        int r = known_open(x->name, &k, err);

        if (r < 0)
                return r;
        x->file = k->file;
        k->file = NULL;
        known_free(k);
        if (x->file->n_disks == 0)
                return error_set(err, -EINVAL, "machine '%s' has no disks", x->name);
        r = output_open(&x->output, x->path, force, err);
        if (r == 0 && x->output.folder_fd < 0)
                r = error_set(err, -EINVAL, "'%s' is a block device, and an OVA is a file",
                              x->path);
        return r;
}

static void release(struct exporting *x)
{
        for (size_t i = 0; i < x->n_disks; i++)
                close(x->disks[i]);
        output_close(&x->output);
        ovf_machine_clear(&x->machine);
        vm_file_free(x->file);
}

int cli_run_vm_export(const struct cli_verb *verb, const struct cli_args *args)
{
        struct exporting x = {
            .name = args->words[0], .path = args->words[1], .output = {.fd = -1, .folder_fd = -1}};
        struct error e = ERROR_INIT;
        char size[SIZE_TEXT_MAX];
        struct stat st = {0};
        int r;

        signals_hold();
        r = prepare(&x, args->given & CLI_FORCE, &e);
        if (r == 0)
                r = export_all(&x, &e);
        if (r == 0 && x.file->kernel)
                cli_note("'%s' boots a kernel that is none of its disks': an OVA boots from a disk",
                         x.name);
        if (r == 0) {
                fstat(x.output.fd, &st);
                cli_say("exported '%s' to '%s', %zu disk%s, %s", x.name, x.path, x.file->n_disks,
                        x.file->n_disks == 1 ? "" : "s", size_format((uint64_t)st.st_size, size));
        }
        release(&x);
        return r < 0 ? cli_fail(&e) : EXIT_SUCCESS;
}
