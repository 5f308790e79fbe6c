/* run.c - a machine's life, from its file to its end. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"
#include "common/service_manager.h"
#include "server/control.h"
#include "server/session.h"
#include "vm/cgroup.h"
#include "vm/machine.h"
#include "vm/net.h"
#include "vm/saved.h"
#include "vm/seed.h"
#include "vm/terminal.h"
#include "vm/vm.h"

/* Debian's package seabios; any other is named in the file. */
#define FIRMWARE_DEFAULT "/usr/share/seabios/bios-microvm.bin"
#define VSOCK_DEVICE     "/dev/vhost-vsock"
/* To make a machine: its memory may have to be put together of huge pages. */
#define READY_WAIT_NS (60 * MACHINE_SECOND_NS)
/* Between what the guest has said last and the end of the VMM nothing is lost: it is read first. */
#define TYPE_WAIT_NS (5 * MACHINE_SECOND_NS)
/* The same for who has it end at once. */
#define QUIT_CONSOLE_NS (MACHINE_SECOND_NS / 4)

struct runner {
        const struct vm_run *run;
        struct machine m;
        struct child_parts parts;
        int serial; /* our end */
        int signals;
        bool signalled; /* to end */
        struct cgroup cgroup;
        int result;
        struct error *err;
};

/* ---- what the VMM gets ---- */

static int open_file(const char *path, int *ret_fd, struct error *err)
{
        if (!path)
                return 0;
        *ret_fd = open(path, O_RDONLY | O_CLOEXEC);
        return *ret_fd < 0 ? error_set(err, -errno, "cannot open '%s': %s", path, strerror(errno))
                           : 0;
}

static int open_firmware(const struct vm_file *file, int *ret_fd, struct error *err)
{
        int r;

        if (file->kernel)
                return 0;
        r = open_file(file->firmware ? file->firmware : FIRMWARE_DEFAULT, ret_fd, err);
        if (r == -ENOENT && !file->firmware)
                error_hint(err, "it is in the package 'seabios'; 'kernel:' or 'firmware:' in the "
                                "file do without");
        return r;
}

static int open_nics(const struct vm_file *file, struct child_parts *parts, struct error *err)
{
        static char ids[VM_NICS_MAX][CHILD_NIC_ID_SIZE];
        int r = 0;

        for (size_t i = 0; r == 0 && i < file->n_nics; i++) {
                struct vmm_nic *nic = &parts->nics[i];
                struct vm_net net;

                r = vm_net_open(&file->nics[i], &net, err);
                if (r < 0)
                        return r;
                child_nic_id(i, ids[i]);
                *nic = (struct vmm_nic){.id = ids[i],
                                        .kind = file->nics[i].type == VM_NIC_TAP ? VMM_NIC_TAP
                                                                                 : VMM_NIC_STREAM,
                                        .fd = net.fd,
                                        .vhost_fd = net.vhost_fd,
                                        .mtu = net.mtu};
                parts->n_nics++;
                if (file->nics[i].has_mac)
                        memcpy(nic->mac, file->nics[i].mac, sizeof(nic->mac));
                else
                        vm_net_mac(file->uuid, (unsigned)i, nic->mac);
        }
        return r;
}

static int open_seed(const struct vm_file *file, int *ret_fd, struct error *err)
{
        char uuid[UUID_TEXT_SIZE];
        uint64_t size;

        if (!file->seed)
                return 0;
        uuid_format(file->uuid, uuid);
        return vm_seed_make(file, uuid, ret_fd, &size, err);
}

static int open_saved(const struct known *k, const char *name, int *ret_fd, struct error *err)
{
        char path[PATH_MAX];
        int r = saved_path(k->name, k->resume, name, path, sizeof(path), err);

        return r < 0 ? r : open_file(path, ret_fd, err);
}

static int open_parts(const struct known *k, struct child_parts *parts, struct error *err)
{
        const struct vm_file *file = k->file;
        int r = open_file(file->kernel, &parts->kernel, err);

        parts->known = k;
        if (r == 0)
                r = open_file(file->initrd, &parts->initrd, err);
        if (r == 0)
                r = open_firmware(file, &parts->firmware, err);
        if (r == 0)
                r = open_seed(file, &parts->seed, err);
        if (r == 0 && k->resume[0])
                r = open_saved(k, "memory", &parts->memory, err);
        if (r == 0 && k->resume[0])
                r = open_saved(k, "state", &parts->state, err);
        if (r == 0 && file->vsock_cid) {
                parts->vsock = open(VSOCK_DEVICE, O_RDWR | O_CLOEXEC);
                if (parts->vsock < 0)
                        r = error_set(err, -errno, "cannot open '%s': %s", VSOCK_DEVICE,
                                      strerror(errno));
        }
        return r == 0 ? open_nics(file, parts, err) : r;
}

static void close_parts(struct child_parts *p)
{
        const int fds[] = {p->channel, p->serial, p->kernel, p->initrd, p->firmware,
                           p->seed,    p->vsock,  p->memory, p->state};

        for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
                if (fds[i] >= 0)
                        close(fds[i]);
        for (size_t i = 0; i < p->n_nics; i++) {
                close(p->nics[i].fd);
                if (p->nics[i].vhost_fd >= 0)
                        close(p->nics[i].vhost_fd);
        }
}

/* The VMM's process, and what there is between it and us. */
static int start_child(struct runner *run, struct error *err)
{
        struct child_parts *parts = &run->parts;
        int channel[2] = {-1, -1}, serial[2];
        int r = open_parts(run->m.known, parts, err);

        if (r == 0)
                r = channel_open(channel, err);
        if (r < 0)
                return r;
        run->m.channel = channel[0];
        parts->channel = channel[1];
        parts->log = run->run->log;
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, serial) < 0)
                return error_set(err, -errno, "cannot make a console: %s", strerror(errno));
        run->serial = serial[0];
        parts->serial = serial[1];
        r = child_fork(parts, &run->m.vmm_pid, err);
        run->m.channel_open = r == 0;
        return r;
}

/* ---- the console ---- */

int co_machine_type(struct machine *m, const void *data, size_t n)
{
        const uint8_t *at = data;

        while (n > 0) {
                ssize_t sent = send(m->console.serial, at, n, MSG_DONTWAIT | MSG_NOSIGNAL);
                int r = 0;

                if (sent < 0 && errno == EAGAIN)
                        r = co_machine_poll(m, m->console.serial, POLLOUT, TYPE_WAIT_NS);
                else if (sent < 0 && errno != EINTR)
                        r = -errno;
                if (r == -ETIMEDOUT)
                        return 0; /* a guest that does not read loses keys, as a serial line does */
                if (r < 0)
                        return r;
                at += sent > 0 ? sent : 0;
                n -= sent > 0 ? (size_t)sent : 0;
        }
        return 0;
}

/* 0 at the end, else what has come. */
static ssize_t co_receive(struct machine *m, uint8_t *place, size_t room)
{
        for (;;) {
                ssize_t n = recv(m->console.serial, place, room, MSG_DONTWAIT);

                if (n >= 0)
                        return n;
                if (errno != EAGAIN && errno != EINTR)
                        return 0;
                if (errno == EAGAIN && co_machine_poll(m, m->console.serial, POLLIN, 0) < 0)
                        return 0;
        }
}

static void co_console(void *machine)
{
        struct machine *m = machine;

        for (;;) {
                uint8_t *place;
                size_t room = console_room(&m->console, &place);
                ssize_t n;

                if (room == 0 && m->ending)
                        break;
                if (room == 0) {
                        co_wait(&m->console.more);
                        continue;
                }
                n = co_receive(m, place, room);
                if (n <= 0)
                        break;
                console_add(&m->console, (size_t)n);
        }
        console_end(&m->console);
        co_wake_all(&m->changed);
        machine_left(m);
}

/* ---- signals ---- */

static void co_signals(void *runner)
{
        struct runner *run = runner;
        struct machine *m = &run->m;
        struct signalfd_siginfo info;

        while (co_machine_poll(m, run->signals, POLLIN, 0) >= 0) {
                if (read(run->signals, &info, sizeof(info)) != (ssize_t)sizeof(info))
                        break;
                m->quit = m->quit || run->signalled;
                run->signalled = m->stopping = true;
                co_wake_all(&m->changed);
        }
        machine_left(m);
}

/* ---- the life ---- */

/* One that was saved answers when all of its memory has been read. */
static int co_begin(struct machine *m, struct error *err)
{
        const struct machine_order order = {.kind = CHANNEL_START,
                                            .fd = -1,
                                            .wait_ns =
                                                m->known->resume[0] ? machine_limits.memory_ns : 0};

        return co_machine_order(m, &order, err);
}

/* All is in place for the guest's first instruction. */
static int co_start(struct runner *run, struct error *err)
{
        struct machine *m = &run->m;
        int r = co_machine_disks_connect(m, err);

        if (r == 0)
                r = co_begin(m, err);
        if (r < 0)
                return r;
        if (m->state == MACHINE_ENDED) /* right behind its answer */
                return 0;
        m->state = MACHINE_RUNNING;
        if (run->run->foreground)
                r = machine_terminal_start(m, err);
        if (r == 0 && run->run->running)
                run->run->running(run->run->arg);
        service_notify("READY=1\nSTATUS=machine %s runs", m->known->name);
        return r;
}

static int spawn_all(struct runner *run, struct error *err)
{
        struct machine *m = &run->m;

        /* Who listens says when the machine has ended. */
        if (machine_spawn(m, co_machine_listen, m) < 0) {
                m->state = MACHINE_ENDED;
                return error_set(err, -ENOMEM, "out of memory");
        }
        if (machine_spawn(m, co_console, m) < 0 || machine_spawn(m, co_machine_control, m) < 0 ||
            machine_spawn(m, co_signals, run) < 0)
                return error_set(err, -ENOMEM, "out of memory");
        return 0;
}

/* What the guest has said last is shown before the end. Who wants that at once waits for no terminal that
 * stands still, but for what is there to be read. */
static void co_drain_console(struct machine *m)
{
        bool at_once = m->quit;
        uint64_t deadline_ns = loop_now_ns(m->loop) + (at_once ? QUIT_CONSOLE_NS : TYPE_WAIT_NS);

        while (!m->console.ended && m->quit == at_once && loop_now_ns(m->loop) < deadline_ns)
                co_machine_wait(m, deadline_ns);
}

static void co_run_machine(void *runner)
{
        struct runner *run = runner;
        struct machine *m = &run->m;
        int r = spawn_all(run, run->err);

        if (r == 0 && m->state != MACHINE_ENDED && !m->stopping)
                r = co_start(run, run->err);
        /* Who stops it for a client sees to that alone: it has a time of its own. */
        while (r == 0 && m->state != MACHINE_ENDED && !run->signalled && !m->quit)
                co_machine_wait(m, loop_now_ns(m->loop) + 60 * MACHINE_SECOND_NS);
        service_notify("STOPPING=1");
        if (m->state != MACHINE_ENDED)
                co_machine_stop(m, r == 0 && !m->quit ? machine_limits.stop_ns : 0);
        co_drain_console(m);
        co_machine_end(m);
        run->result = r;
        if (r == 0 && m->end.code < 0 && run->err)
                *run->err = m->end;
        if (r == 0)
                run->result = m->end.code;
}

static int run_loop(struct runner *run, struct error *err)
{
        int r = loop_new(LOOP_BACKEND_AUTO, &run->m.loop, err);

        if (r < 0)
                return r;
        run->err = err;
        r = co_run(run->m.loop, co_run_machine, run);
        if (r < 0)
                error_set(err, r, "cannot start: %s", strerror(-r));
        else
                r = run->result;
        loop_free(run->m.loop);
        return r;
}

static int open_log(const struct vm_file *file, int *ret_fd, struct error *err)
{
        if (!file->console_log)
                return 0;
        *ret_fd = open(file->console_log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        return *ret_fd < 0 ? error_set(err, -errno, "cannot open '%s': %s", file->console_log,
                                       strerror(errno))
                           : 0;
}

static int prepare(struct runner *run, struct error *err)
{
        int r = prepare_servers(run->m.known->file, err);

        if (r == 0)
                r = signals_check(err);
        if (r == 0)
                r = prepare_volumes(run->m.known->file, &run->run->progress, err);
        return r == 0 ? signals_check(err) : r;
}

/* The machine's own may change while it runs. */
static int copy_file(struct machine *m, struct error *err)
{
        char *text = NULL;
        int r = vm_file_write(m->known->file, &text, err);

        if (r == 0)
                r = vm_file_parse(text, strlen(text), m->known->name, "/", &m->started, err);
        free(text);
        return r;
}

static int run_child(struct runner *run, const char *socket, struct error *err)
{
        struct machine *m = &run->m;
        int log = -1, r = open_log(m->known->file, &log, err);

        if (r < 0)
                return r;
        console_init(&m->console, run->serial, log);
        r = copy_file(m, err);
        if (r == 0)
                r = machine_disks_init(m, err);
        if (r == 0)
                r = prepare(run, err);
        if (r == 0)
                r = socket_listen_unix(socket, (gid_t)-1, &m->control, err);
        if (r == 0) {
                run->signals = signals_open(err);
                r = run->signals < 0 ? run->signals : run_loop(run, err);
        }
        machine_disks_free(m);
        vm_file_free(m->started);
        if (m->console.log >= 0)
                close(m->console.log);
        if (m->control >= 0)
                unlink(socket);
        return r;
}

static void machine_init(struct machine *m, struct known *known)
{
        m->known = known;
        m->channel = m->control = -1;
        list_init(&m->waits);
        list_init(&m->orders);
        list_init(&m->disks);
        co_queue_init(&m->changed);
}

/* Whether there is a KVM is seen before anything is made or started. */
static int await_child(struct runner *run, struct error *err)
{
        struct pollfd p = {.fd = run->m.channel, .events = POLLIN};
        struct channel_message message;
        int r = poll(&p, 1, (int)(READY_WAIT_NS / 1000000));

        r = r == 1 ? channel_receive_event(run->m.channel, &message) : -ETIMEDOUT;
        if (r == 1 && message.kind == CHANNEL_READY) {
                run->m.ready = true;
                return 0;
        }
        if (r == 1 && message.kind == CHANNEL_ENDED && message.result < 0)
                return channel_error(&message, err);
        return error_set(err, r < 0 ? r : -EIO, "the process of machine '%s' does not start",
                         run->m.known->name);
}

/* A machine without the limits is better than none. */
static void limit_cpu_time(struct runner *run)
{
        const struct vm_file *file = run->m.known->file;
        struct error e = ERROR_INIT;

        if (file->cpu_weight == 0 && file->cpu_max_percent == 0)
                return;
        if (cgroup_enter("", file->name, run->m.vmm_pid, file->cpu_weight, file->cpu_max_percent,
                         &run->cgroup, &e) < 0)
                log_warning("machine '%s' runs without cpu-weight and cpu-max: %s%s%s%s",
                            file->name, e.message, e.hint[0] ? " (" : "", e.hint,
                            e.hint[0] ? ")" : "");
}

int vm_run(const struct vm_run *options, struct error *err)
{
        struct runner *run = calloc(1, sizeof(*run));
        char socket[PATH_MAX];
        int r;

        if (!run)
                return error_set(err, -ENOMEM, "out of memory");
        *run =
            (struct runner){.run = options, .parts = CHILD_PARTS_INIT, .serial = -1, .signals = -1};
        machine_init(&run->m, options->known);
        /* Whoever hangs up, and a limit on the size of files, are errors where they are met. */
        signal(SIGPIPE, SIG_IGN);
        signal(SIGXFSZ, SIG_IGN);
        r = known_socket(options->known->name, socket, sizeof(socket), err);
        if (r == 0)
                r = start_child(run, err);
        close_parts(&run->parts);
        if (r == 0)
                r = await_child(run, err);
        if (r == 0) {
                limit_cpu_time(run);
                r = run_child(run, socket, err);
        }
        terminal_restore();
        if (run->m.vmm_pid > 0) {
                kill(run->m.vmm_pid, SIGKILL);
                (void)waitpid(run->m.vmm_pid, NULL, 0);
        }
        cgroup_remove(&run->cgroup);
        const int fds[] = {run->m.channel, run->m.control, run->serial, run->signals};
        for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
                if (fds[i] >= 0)
                        close(fds[i]);
        free(run);
        return r;
}
