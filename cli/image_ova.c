/* image_ova.c - tarn image import of a machine: an OVA, or an OVF with its disks beside it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/image.h"
#include "cli/image_ova.h"
#include "common/coroutine.h"
#include "common/offload.h"
#include "formats/ova.h"
#include "pool/pool.h"
#include "server/session.h"
#include "vm/known.h"
#include "vm/ovf.h"

struct disk {
        struct ova_place place; /* no path: an empty disk */
        uint64_t bytes;         /* of its volume; 0: as its image says */
        bool guessed;
        const char *flaw;
};

struct importing {
        const struct cli_args *args;
        const char *path;
        int fd;
        struct files files;
        struct session_work work;
        struct cli_progress progress;
        struct ova *ova;
        struct disk *disks;
        char *pool;                   /* as the user says it: a name, or a member's path */
        char base[POOL_NAME_MAX + 1]; /* of its volumes' names */
        struct vm_file *file;
        char vm_path[PATH_MAX];
        struct output vm_output;
        size_t n_made; /* volumes */
};

/* ---- recognising ---- */

struct probe_work {
        struct session_work work;
        const char *path;
        int fd;
        bool is_machine;
};

static int co_probe(struct loop *loop, struct session_work *work, struct error *err)
{
        struct probe_work *w = container_of(work, struct probe_work, work);
        const struct image_driver *driver;
        bool guessed;
        int r = co_image_probe(w->fd, w->path, &driver, &guessed, err);

        w->is_machine = r == 0 && ova_is_probed(driver);
        return r;
}

bool image_is_machine(const char *path)
{
        struct probe_work w = {.work = {.co_run = co_probe}, .path = path};
        int r;

        w.fd = image_open_input(path, NULL);
        if (w.fd < 0)
                return false;
        r = session_do(&w.work, NULL);
        close(w.fd);
        return r == 0 && w.is_machine;
}

/* ---- what is in it ---- */

static int co_look_at_disk(struct importing *m, size_t i, struct error *err)
{
        const struct ovf_disk *d = &m->ova->machine.disks[i];
        struct disk *disk = &m->disks[i];
        struct image *image;
        int r;

        if (!d->file) {
                disk->bytes = d->capacity_bytes;
                return disk->bytes ? 0
                                   : error_set(err, -EBADMSG,
                                               "'%s': disk '%s' has neither a file nor a size",
                                               m->path, d->id);
        }
        r = co_ova_open_disk(m->ova, i, &image, err);
        if (r < 0)
                return r;
        disk->guessed = image->guessed;
        disk->flaw = image_flaw(image);
        if (d->capacity_bytes > image->virtual_bytes)
                disk->bytes = d->capacity_bytes;
        image_close(image);
        return ova_disk_place(m->ova, i, &disk->place, err);
}

static int co_look(struct loop *loop, struct session_work *work, struct error *err)
{
        struct importing *m = container_of(work, struct importing, work);
        int r = co_ova_open(m->fd, m->path, NULL, &m->files.opener, &m->ova, err);

        if (r < 0)
                return r;
        m->disks = calloc(m->ova->machine.n_disks + 1, sizeof(*m->disks));
        if (!m->disks)
                return error_set(err, -ENOMEM, "out of memory");
        for (size_t i = 0; r == 0 && i < m->ova->machine.n_disks; i++)
                r = co_look_at_disk(m, i, err);
        return r;
}

static int co_verify(struct loop *loop, struct session_work *work, struct error *err)
{
        struct importing *m = container_of(work, struct importing, work);
        struct ova_watch watch = {
            .progress = cli_progress_show, .arg = &m->progress, .cancelled = &m->work.cancelled};
        int r;

        m->ova->offload = offload_new(0);
        r = co_ova_verify(m->ova, &watch, err);
        offload_free(m->ova->offload);
        m->ova->offload = NULL;
        return r;
}

/* Nothing of a file that is damaged gets into the pool. */
static int verify(struct importing *m, struct error *err)
{
        int r;

        if (!m->ova->manifest) {
                cli_note("'%s' has no manifest: nothing tells whether it is damaged", m->path);
                return 0;
        }
        m->work = (struct session_work){.co_run = co_verify};
        cli_progress_begin(&m->progress, "verifying", false);
        r = session_do(&m->work, err);
        cli_progress_end(&m->progress);
        return r;
}

/* ---- where it goes ---- */

/* POOL, or POOL/PREFIX. */
static int take_place(struct importing *m, struct error *err)
{
        const char *word = m->args->words[1], *prefix = "";
        int r;

        if (!strchr(word, '/') || cli_is_member_path(word)) {
                m->pool = strdup(word);
                return m->pool ? 0 : error_set(err, -ENOMEM, "out of memory");
        }
        r = cli_split(word, &m->pool, &prefix, err);
        if (r == 0)
                r = pool_name_check(prefix, "volume", err);
        if (r == 0)
                snprintf(m->base, sizeof(m->base), "%s", prefix);
        return r;
}

/* Machine and volumes are called as the user says, else as the machine itself. */
static int take_names(struct importing *m, char name[POOL_NAME_MAX + 1], struct error *err)
{
        const struct ovf_machine *machine = &m->ova->machine;
        int r = m->args->name ? pool_name_check(m->args->name, "machine", err) : 0;

        if (r < 0)
                return r;
        if (m->args->name)
                snprintf(name, POOL_NAME_MAX + 1, "%s", m->args->name);
        else if (m->base[0])
                snprintf(name, POOL_NAME_MAX + 1, "%s", m->base);
        else
                vm_ovf_name(machine->name ? machine->name : "", name);
        if (!name[0]) {
                error_set(err, -EINVAL, "the machine in '%s' has no name that can be one here",
                          m->path);
                return error_hint(err, "--name gives it one");
        }
        if (!m->base[0])
                snprintf(m->base, sizeof(m->base), "%s", name);
        return 0;
}

static int make_file(struct importing *m, struct error *err)
{
        char name[POOL_NAME_MAX + 1];
        struct pool_state *state;
        int r = take_names(m, name, err);

        if (r == 0)
                r = session_resolve(m->pool, &state, err);
        if (r < 0)
                return r;
        r = vm_file_from_ovf(&m->ova->machine, name, state->name, m->base, &m->file, err);
        state_free(state);
        if (r < 0)
                return r;
        if ((size_t)snprintf(m->vm_path, sizeof(m->vm_path), "%s%s",
                             m->args->vm_file ? m->args->vm_file : name,
                             m->args->vm_file ? "" : ".yaml") >= sizeof(m->vm_path))
                return error_set(err, -ENAMETOOLONG, "the name of the VM file is too long");
        return 0;
}

/* Takes @request over. */
static int ask(const struct importing *m, json_t *request, struct error *err)
{
        json_t *reply = NULL;
        int r = cli_try(&(struct cli_call){.pool = m->pool, .request = request}, &reply, err);

        json_decref(reply);
        return r;
}

static json_t *about_volume(const char *command, const struct importing *m, size_t i)
{
        return json_pack("{s:s, s:s}", "command", command, "volume", m->file->disks[i].volume);
}

static int refuse_existing(const struct importing *m, struct error *err)
{
        for (size_t i = 0; i < m->file->n_disks; i++) {
                struct error e = ERROR_INIT;
                int r = ask(m, about_volume("volume-show", m, i), &e);

                if (r == 0) {
                        error_set(err, -EEXIST, "volume '%s/%s' exists", m->file->disks[i].pool,
                                  m->file->disks[i].volume);
                        return error_hint(err, "POOL/PREFIX gives the volumes other names");
                }
                if (r != -ENOENT) {
                        if (err)
                                *err = e;
                        return r;
                }
        }
        return 0;
}

/* ---- doing it ---- */

static int import_disk(struct importing *m, size_t i, struct error *err)
{
        const struct disk *disk = &m->disks[i];
        json_t *request = about_volume(disk->place.path ? "image-import" : "volume-create", m, i),
               *reply = NULL;
        struct cli_call call = {.pool = m->pool};
        uint64_t size = (disk->bytes + VOLUME_SECTOR - 1) / VOLUME_SECTOR * VOLUME_SECTOR;
        int r;

        if (size)
                cli_put(&request, "size", json_integer((json_int_t)size));
        if (disk->place.path) {
                cli_put(&request, "path", image_text(disk->place.path));
                cli_put(&request, "offset", json_integer((json_int_t)disk->place.offset));
                cli_put(&request, "length", json_integer((json_int_t)disk->place.length));
                if (m->args->given & CLI_VERIFY)
                        cli_put(&request, "verify", json_true());
                call.fds = &disk->place.fd;
                call.n_fds = 1;
                call.progress = "importing";
        }
        call.request = request;
        r = cli_try(&call, &reply, err);
        if (r == 0)
                m->n_made++;
        if (r == 0 && disk->place.path)
                r = image_check_verified(m->args, reply, err);
        json_decref(reply);
        return r;
}

static int write_vm_file(struct importing *m, struct error *err)
{
        char *yaml = NULL, *text = NULL;
        int r = vm_file_write(m->file, &yaml, err);

        if (r < 0)
                return r;
        if (asprintf(&text, "%s%s",
                     m->ova->machine.is_efi
                         ? "# It had EFI: 'firmware: PATH' names an image of such a firmware.\n"
                         : "",
                     yaml) < 0)
                text = NULL;
        free(yaml);
        r = text ? known_write(m->vm_output.fd, text) : -ENOMEM;
        free(text);
        if (r < 0)
                return error_set(err, r, "cannot write '%s': %s", m->vm_path, strerror(-r));
        return output_finish(&m->vm_output, err);
}

static void undo(const struct importing *m)
{
        for (size_t i = 0; i < m->n_made; i++) {
                struct error e = ERROR_INIT;

                if (ask(m, about_volume("volume-delete", m, i), &e) < 0)
                        cli_note("volume '%s/%s' is left: %s", m->file->disks[i].pool,
                                 m->file->disks[i].volume, e.message);
        }
}

static int import_all(struct importing *m, struct error *err)
{
        int r = verify(m, err);

        while (r == 0 && m->n_made < m->file->n_disks) {
                r = signals_check(err);
                if (r == 0)
                        r = import_disk(m, m->n_made, err);
        }
        if (r == 0)
                r = signals_check(err);
        if (r == 0)
                r = write_vm_file(m, err);
        if (r < 0)
                undo(m);
        return r;
}

static int prepare(struct importing *m, struct error *err)
{
        int r = take_place(m, err);

        if (r < 0)
                return r;
        m->fd = image_open_input(m->path, err);
        if (m->fd < 0)
                return m->fd;
        m->work = (struct session_work){.co_run = co_look};
        r = session_do(&m->work, err);
        if (r == 0)
                r = make_file(m, err);
        return r < 0 ? r : refuse_existing(m, err);
}

static void release(struct importing *m)
{
        for (size_t i = 0; m->disks && i < m->ova->machine.n_disks; i++)
                ova_place_clear(&m->disks[i].place);
        free(m->disks);
        vm_file_free(m->file);
        ova_close(m->ova);
        files_close(&m->files);
        free(m->pool);
        if (m->fd >= 0)
                close(m->fd);
}

static void tell(const struct importing *m)
{
        const struct ovf_machine *machine = &m->ova->machine;
        char *volumes;
        size_t length;
        FILE *list = open_memstream(&volumes, &length);

        if (!list)
                cli_no_memory();
        for (size_t i = 0; i < machine->n_disks; i++) {
                if (m->disks[i].guessed)
                        cli_note("'%s' is taken as raw: nothing else was recognised",
                                 m->disks[i].place.path);
                image_tell_flaw(m->disks[i].place.path, m->disks[i].flaw);
        }
        if (machine->n_cpus > VM_CPUS_MAX)
                cli_note("it had %llu processors, and has %u now",
                         (unsigned long long)machine->n_cpus, VM_CPUS_MAX);
        if (machine->is_efi)
                cli_note("it had EFI: 'firmware:' in '%s' has to name an image of such a firmware",
                         m->vm_path);
        for (size_t i = 0; i < m->file->n_disks; i++)
                fprintf(list, " %s/%s", m->file->disks[i].pool, m->file->disks[i].volume);
        fclose(list);
        cli_say("imported '%s' as machine '%s', with %zu volume%s:%s", m->path, m->file->name,
                m->file->n_disks, m->file->n_disks == 1 ? "" : "s", volumes);
        cli_say("'tarn vm run %s' runs it", m->vm_path);
        free(volumes);
}

/* ---- the command ---- */

static int refuse_options(const struct cli_args *args, struct error *err)
{
        static const struct {
                uint64_t option;
                const char *name;
        } of_images[] = {{CLI_SIZE, "size"},
                         {CLI_SNAPSHOTS, "snapshots"},
                         {CLI_SNAPSHOT, "snapshot"},
                         {CLI_BACKING_FORMAT, "backing-format"}};

        for (size_t i = 0; i < sizeof(of_images) / sizeof(of_images[0]); i++)
                if (args->given & of_images[i].option)
                        return error_set(err, -EINVAL, "'%s' is a machine, which --%s is not for",
                                         args->words[0], of_images[i].name);
        return 0;
}

int image_import_machine(const struct cli_args *args)
{
        struct importing m = {.args = args, .path = args->words[0], .fd = -1};
        struct error e = ERROR_INIT;
        int r = refuse_options(args, &e);

        signals_hold();
        files_init(&m.files, args);
        if (r == 0)
                r = prepare(&m, &e);
        if (r == 0)
                r = output_open(&m.vm_output, m.vm_path, false, &e);
        if (r == 0) {
                r = import_all(&m, &e);
                output_close(&m.vm_output);
        }
        if (r == 0)
                tell(&m);
        release(&m);
        return r < 0 ? cli_fail(&e) : EXIT_SUCCESS;
}
