/* child.c - the process in which a virtual machine runs. */
#include "vm/child.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "common/confine.h"
#include "common/log.h"
#include "vm/channel.h"

/* channel, serial, six files, vsock; a card has two */
#define KEPT_MAX (9 + 2 * VM_NICS_MAX + 3)

struct child {
        const struct child_parts *parts;
        struct loop *loop;
        struct vmm *vmm; /* NULL where it could not be made: */
        struct error no_vmm;
        bool started;
        struct vmm_config config;
        struct vmm_disk disks[VM_DISKS_MAX]; /* fd -1: not connected yet */
        char ids[VM_DISKS_MAX][CHILD_DISK_ID_SIZE];
        int memory; /* the file that the memory is written to; -1: none */
        struct loop_io channel_io;
        int status; /* of the process */
};

void child_disk_id(unsigned number, char id[CHILD_DISK_ID_SIZE])
{
        snprintf(id, CHILD_DISK_ID_SIZE, "disk%u", number);
}

void child_nic_id(size_t i, char id[CHILD_NIC_ID_SIZE])
{
        snprintf(id, CHILD_NIC_ID_SIZE, "nic%zu", i);
}

/* ---- to the supervisor ---- */

static void tell(struct child *c, enum channel_kind kind, uint32_t number, int result,
                 const char *id, const struct error *e)
{
        struct channel_message m = {.kind = kind, .number = number, .result = result};

        snprintf(m.id, sizeof(m.id), "%s", id);
        if (e) {
                snprintf(m.text, sizeof(m.text), "%s", e->message);
                snprintf(m.hint, sizeof(m.hint), "%s", e->hint);
        }
        /* Where nobody is there the process is about to end. */
        (void)channel_send(c->parts->channel, &m, -1, true);
}

static void on_ended(void *arg, enum vmm_end how, const char *sentence)
{
        struct child *c = arg;
        struct error e = ERROR_INIT;

        if (how != VMM_END_POWER_OFF)
                error_set(&e, -EIO, "%s", sentence);
        c->status = e.code == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
        tell(c, CHANNEL_ENDED, 0, e.code, "", &e);
        loop_stop(c->loop);
}

static void on_reset(void *arg)
{
        tell(arg, CHANNEL_WAS_RESET, 0, 0, "", NULL);
}

static void on_panicked(void *arg)
{
        tell(arg, CHANNEL_PANICKED, 0, 0, "", NULL);
}

static void on_disk_lost(void *arg, const char *id)
{
        tell(arg, CHANNEL_DISK_LOST, 0, 0, id, NULL);
}

static void on_disk_removed(void *arg, const char *id)
{
        tell(arg, CHANNEL_DISK_REMOVED, 0, 0, id, NULL);
}

static void on_nic_lost(void *arg, const char *id)
{
        tell(arg, CHANNEL_NIC_LOST, 0, 0, id, NULL);
}

/* [a vCPU's thread] It needs less than the others. */
static void on_vcpu_began(void *arg, unsigned index)
{
        struct error e = ERROR_INIT;

        if (confine_vcpu(&e) < 0)
                log_warning("vCPU %u keeps more rights than it needs: %s", index, e.message);
}

/* ---- orders ---- */

static const struct confine_profile profile = {.socket_group = (gid_t)-1, .vmm = true};

/* Nothing is opened, connected or run from here on. A kernel that refuses a part of it, as in a
 * container, keeps nobody from running his machine: the rest holds, and the log says so. */
static void give_up_rights(void)
{
        struct error e = ERROR_INIT;

        if (confine(&profile, &e) < 0)
                log_warning("the machine's process keeps more rights than it needs: %s", e.message);
}

/* As far as that goes without its disks, which the supervisor asks for meanwhile. What fails is told
 * when it is to start. */
static void make_machine(struct child *c)
{
        static const struct vmm_events events = {.ended = on_ended,
                                                 .reset = on_reset,
                                                 .panicked = on_panicked,
                                                 .disk_lost = on_disk_lost,
                                                 .disk_removed = on_disk_removed,
                                                 .nic_lost = on_nic_lost,
                                                 .vcpu_began = on_vcpu_began};
        const struct child_parts *p = c->parts;
        const struct vm_file *file = p->known->file;

        for (size_t i = 0; i < file->n_disks; i++) {
                child_disk_id(known_disk_number(p->known, i), c->ids[i]);
                c->disks[i] = (struct vmm_disk){.id = c->ids[i],
                                                .fd = -1,
                                                .readonly = file->disks[i].readonly,
                                                .queues = file->disks[i].n_queues,
                                                .boot_order = (int)file->disks[i].boot};
        }
        c->config = (struct vmm_config){.name = file->name,
                                        .cpus = file->n_cpus,
                                        .memory = file->memory_bytes,
                                        .memory_max = file->memory_max_bytes,
                                        .huge_pages = file->hugepages,
                                        .kernel = p->kernel,
                                        .initrd = p->initrd,
                                        .firmware = p->firmware,
                                        .cmdline = file->cmdline,
                                        .serial = p->serial,
                                        .disks = c->disks,
                                        .n_disks = file->n_disks,
                                        .nics = p->nics,
                                        .n_nics = p->n_nics,
                                        .seed = p->seed,
                                        .rng = file->rng,
                                        .balloon = file->balloon,
                                        .vsock_cid = file->vsock_cid,
                                        .vsock_fd = p->vsock};
        memcpy(c->config.uuid, file->uuid, sizeof(c->config.uuid));
        (void)vmm_new(c->loop, &c->config, &events, c, &c->vmm, &c->no_vmm);
}

/* One that was saved is as it was then, and paused. */
static int go_on_from_saved(struct child *c, struct error *err)
{
        int r;

        if (c->parts->state < 0)
                return 0;
        r = vmm_memory_load(c->vmm, c->parts->memory, err);
        if (r == 0)
                r = vmm_restore(c->vmm, c->parts->state, err);
        close(c->parts->memory);
        close(c->parts->state);
        return r;
}

static int start(struct child *c, struct error *err)
{
        int r;

        if (c->started)
                return error_set(err, -EALREADY, "the machine runs already");
        if (!c->vmm) {
                *err = c->no_vmm;
                return err->code;
        }
        r = vmm_complete(c->vmm, err);
        if (r < 0) {
                c->no_vmm = *err;
                vmm_free(c->vmm);
                c->vmm = NULL;
                return r;
        }
        c->started = true;
        /* Before anything saved is read: another VMM's process wrote it, and its guest may have had that. */
        give_up_rights();
        r = go_on_from_saved(c, err);
        if (r < 0)
                return r;
        r = vmm_start(c->vmm, err);
        if (r == 0 && c->parts->state >= 0)
                vmm_resume(c->vmm);
        return r;
}

/* ---- saving it ---- */

static void forget_memory(struct child *c)
{
        if (c->memory >= 0)
                close(c->memory);
        c->memory = -1;
}

static void on_memory_copied(void *arg, int result, const char *sentence)
{
        struct child *c = arg;
        struct error e = ERROR_INIT;

        if (result < 0) {
                error_set(&e, result, "%s", sentence);
                forget_memory(c);
        }
        tell(c, CHANNEL_MEMORY_COPIED, 0, result, "", &e);
}

static int copy_memory(struct child *c, int fd, struct error *err)
{
        int r = vmm_memory_copy(c->vmm, fd, on_memory_copied, c, err);

        if (r < 0)
                close(fd);
        else
                c->memory = fd;
        return r;
}

static void cancel_copy(struct child *c)
{
        vmm_memory_copy_cancel(c->vmm);
        forget_memory(c);
}

static int save(struct child *c, int fd, struct error *err)
{
        uint64_t bytes;
        int r;

        if (!vmm_is_paused(c->vmm) || c->memory < 0)
                r = error_set(err, -EAGAIN, "the machine is not paused, or its memory not written");
        else
                r = vmm_memory_copy_finish(c->vmm, &bytes, err);
        if (r == 0)
                r = vmm_save(c->vmm, fd, err);
        forget_memory(c);
        close(fd);
        return r;
}

/* The first time is before the machine is complete, which asks the back end what the disk is. */
static int connect_disk(struct child *c, const char *id, int fd, struct error *err)
{
        if (c->started)
                return vmm_disk_connect(c->vmm, id, fd, err);
        for (size_t i = 0; i < c->config.n_disks; i++) {
                if (strcmp(c->ids[i], id) != 0 || c->disks[i].fd >= 0)
                        continue;
                c->disks[i].fd = fd;
                return 0;
        }
        close(fd);
        return error_set(err, -ENOENT, "the machine has no disk '%s'", id);
}

static int add_disk(struct child *c, const struct channel_message *m, int fd, struct error *err)
{
        const struct vmm_disk disk = {
            .id = m->id, .fd = fd, .readonly = m->readonly, .queues = (unsigned)m->value};

        return vmm_disk_add(c->vmm, &disk, err);
}

/* @fd is taken over by what needs one. */
static int obey(struct child *c, const struct channel_message *m, int fd, struct error *err)
{
        switch (m->kind) {
        case CHANNEL_DISK_CONNECT:
                return connect_disk(c, m->id, fd, err);
        case CHANNEL_DISK_ADD:
                if (c->started)
                        return add_disk(c, m, fd, err);
                break;
        case CHANNEL_NIC_CONNECT:
                if (c->started && fd >= 0)
                        return vmm_nic_connect(c->vmm, m->id, fd, err);
                break;
        case CHANNEL_MEMORY_COPY:
                if (c->started && fd >= 0)
                        return copy_memory(c, fd, err);
                break;
        case CHANNEL_SAVE:
                if (c->started && fd >= 0)
                        return save(c, fd, err);
                break;
        default:
                break;
        }
        if (fd >= 0)
                close(fd);
        if (!c->started && m->kind != CHANNEL_START && m->kind != CHANNEL_STOP)
                return error_set(err, -EAGAIN, "the machine does not run yet");
        switch (m->kind) {
        case CHANNEL_START:
                return start(c, err);
        case CHANNEL_PAUSE:
                vmm_pause(c->vmm);
                return 0;
        case CHANNEL_RESUME:
                vmm_resume(c->vmm);
                return 0;
        case CHANNEL_RESET:
                vmm_reset(c->vmm);
                return 0;
        case CHANNEL_POWER_BUTTON:
                vmm_power_button(c->vmm);
                return 0;
        case CHANNEL_DISK_REMOVE:
                return vmm_disk_remove(c->vmm, m->id, err);
        case CHANNEL_MEMORY:
                return vmm_memory_set(c->vmm, m->value, err);
        case CHANNEL_MEMORY_CANCEL:
                cancel_copy(c);
                return 0;
        case CHANNEL_STOP:
                loop_stop(c->loop);
                return 0;
        default:
                return error_set(err, -EOPNOTSUPP, "there is no order %u", m->kind);
        }
}

static void order_came(struct loop_io *io, int result)
{
        struct child *c = container_of(io, struct child, channel_io);
        struct error e = ERROR_INIT;
        struct channel_message m;
        int fd, r;

        r = channel_receive_order(c->parts->channel, &m, &fd);
        if (r == 1) {
                r = obey(c, &m, fd, &e);
                tell(c, CHANNEL_ANSWER, m.number, r, m.id, &e);
        } else if (r != -EAGAIN) {
                c->status = EXIT_FAILURE;
                loop_stop(c->loop); /* the supervisor has gone */
                return;
        }
        loop_submit(c->loop, io);
}

/* ---- the process ---- */

static int compare(const void *a, const void *b)
{
        return *(const int *)a - *(const int *)b;
}

/* What the supervisor has open is not the guest's business. */
static void close_others(const struct child_parts *p)
{
        int kept[KEPT_MAX] = {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO, p->channel,
                              p->serial,    p->kernel,     p->initrd,     p->firmware,
                              p->seed,      p->vsock,      p->memory,     p->state};
        size_t n = 12;
        unsigned next = 0;

        for (size_t i = 0; i < p->n_nics; i++) {
                kept[n++] = p->nics[i].fd;
                kept[n++] = p->nics[i].vhost_fd;
        }
        qsort(kept, n, sizeof(kept[0]), compare);
        for (size_t i = 0; i < n; i++) {
                if (kept[i] < 0)
                        continue;
                if ((unsigned)kept[i] > next)
                        close_range(next, (unsigned)kept[i] - 1, 0);
                next = (unsigned)kept[i] + 1;
        }
        close_range(next, ~0u, 0);
}

/* It ends with its parent, whatever ends that, and is told to end by nobody else. */
static void become_child(const struct child_parts *p, pid_t parent)
{
        /* A limit on the size of files is an error of what is written to them, and no end. */
        static const int ignored[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGPIPE, SIGXFSZ};
        sigset_t none;
        int null_fd;

        prctl(PR_SET_NAME, "tarn-vmm");
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
                _exit(EXIT_FAILURE);
        /* vCPUs' threads allocate little and seldom: a heap for each would be for nothing. */
        mallopt(M_ARENA_MAX, 1);
        for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
                signal(ignored[i], SIG_IGN);
        sigemptyset(&none);
        pthread_sigmask(SIG_SETMASK, &none, NULL);
        null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (null_fd >= 0) {
                dup2(null_fd, STDIN_FILENO);
                dup2(null_fd, STDOUT_FILENO);
        }
        if (p->log >= 0)
                dup2(p->log, STDERR_FILENO);
        close_others(p);
}

static int run(const struct child_parts *parts)
{
        struct child c = {
            .parts = parts, .no_vmm = ERROR_INIT, .status = EXIT_FAILURE, .memory = -1};
        struct error e = ERROR_INIT;
        int r = loop_new(LOOP_BACKEND_AUTO, &c.loop, &e);

        if (r == 0)
                r = vmm_check(&e);
        if (r < 0) {
                tell(&c, CHANNEL_ENDED, 0, r, "", &e);
                return EXIT_FAILURE;
        }
        c.channel_io = (struct loop_io){
            .op = LOOP_POLL, .fd = parts->channel, .flags = POLLIN, .done = order_came};
        loop_submit(c.loop, &c.channel_io);
        tell(&c, CHANNEL_READY, 0, 0, "", NULL);
        make_machine(&c); /* while the supervisor sees to the disks */
        loop_run(c.loop);
        vmm_free(c.vmm);
        return c.status;
}

int child_fork(const struct child_parts *parts, pid_t *ret_pid, struct error *err)
{
        pid_t parent = getpid(), pid = fork();

        if (pid < 0)
                return error_set(err, -errno, "cannot start a process for the machine: %s",
                                 strerror(errno));
        if (pid == 0) {
                become_child(parts, parent);
                /* The loop still waits for the channel: it ends with the process. */
                _exit(run(parts));
        }
        *ret_pid = pid;
        return 0;
}
