/* fake_vmm.c - a VMM without a guest, and so without KVM: stands in for vmm-glue/vmm in a 'tarn' whose
 * life cycle of machines is tested (cli_vm.sh). Its "guest" says what happens to it on the serial port,
 * and does what is typed there:
 *
 *     poweroff, reboot, panic   as a guest does
 *     crash                     its process dies
 *     lie                       its process tells the supervisor nonsense
 *     deaf                      the power button does nothing from now on
 *     sticky                    disks are not let go of from now on
 *     drop ID                   that disk is let go of, asked for or not
 *     fragile                   the next disk that is connected is lost at once
 *     confined                  say what its process may still do
 *     keep WORD, tell           have WORD in memory, and say it; "slow N" takes N seconds to read back
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vm/machine.h"
#include "vmm-glue/vmm/vmm.h"

#define ID_SIZE 32

/* So that no test waits for a minute. */
const struct machine_limits machine_limits = {.stop_ns = 6 * MACHINE_SECOND_NS,
                                              .answer_ns = 12 * MACHINE_SECOND_NS,
                                              .memory_ns = 600 * MACHINE_SECOND_NS};

struct fake_disk {
        struct vmm *vmm;
        char id[ID_SIZE];
        int fd; /* -1: there is none */
        bool used, watching;
        struct loop_io io;
};

struct fake_nic {
        struct vmm *vmm;
        const char *id;
        int fd;
        struct loop_io io;
};

struct vmm {
        struct loop *loop;
        const struct vmm_events *events;
        void *arg;
        int serial;
        const struct vmm_config *config;
        bool paused, deaf, sticky, fragile;
        char memory[64];
        int copy; /* the file that it is written to; -1: none */
        void (*copied)(void *arg, int result, const char *sentence);
        void *copied_arg;
        struct loop_task copy_task;
        struct loop_io serial_io;
        char line[128];
        size_t length;
        struct fake_disk disks[VMM_DISKS_MAX];
        struct fake_nic nics[VMM_NICS_MAX];
};

__attribute__((format(printf, 2, 3))) static void say(struct vmm *v, const char *format, ...)
{
        char text[256];
        va_list ap;

        va_start(ap, format);
        vsnprintf(text, sizeof(text), format, ap);
        va_end(ap);
        (void)!write(v->serial, text, strlen(text));
}

/* ---- disks ---- */

static void lose(struct fake_disk *d)
{
        shutdown(d->fd, SHUT_RDWR); /* the look at it holds it open */
        close(d->fd);
        d->fd = -1;
        say(d->vmm, "lost %s\n", d->id);
        d->vmm->events->disk_lost(d->vmm->arg, d->id);
}

static void hung_up(struct loop_io *io, int result)
{
        struct fake_disk *d = container_of(io, struct fake_disk, io);

        d->watching = false;
        if (d->fd >= 0)
                lose(d);
}

/* A first message, VHOST_USER_GET_FEATURES, so that the back end takes us for a front end. */
static void connect_disk(struct fake_disk *d, int fd)
{
        static const uint32_t hello[3] = {1, 1, 0};
        uint32_t answer[5];

        d->fd = fd;
        if (send(fd, hello, sizeof(hello), MSG_NOSIGNAL) != (ssize_t)sizeof(hello) ||
            recv(fd, answer, sizeof(answer), MSG_WAITALL) != (ssize_t)sizeof(answer))
                say(d->vmm, "no answer from the back end of %s\n", d->id);
        d->io = (struct loop_io){.op = LOOP_POLL, .fd = fd, .flags = POLLRDHUP, .done = hung_up};
        d->watching = true;
        loop_submit(d->vmm->loop, &d->io);
        say(d->vmm, "connected %s\n", d->id);
}

static struct fake_disk *find(struct vmm *v, const char *id)
{
        for (size_t i = 0; i < VMM_DISKS_MAX; i++)
                if (v->disks[i].used && strcmp(v->disks[i].id, id) == 0)
                        return &v->disks[i];
        return NULL;
}

int vmm_disk_connect(struct vmm *v, const char *id, int fd, struct error *err)
{
        struct fake_disk *d = find(v, id);

        if (d) {
                connect_disk(d, fd);
                if (v->fragile)
                        lose(d); /* told before the answer is: who asked hears of both at once */
                v->fragile = false;
                return 0;
        }
        close(fd);
        return error_set(err, -ENOENT, "there is no disk '%s'", id);
}

int vmm_disk_add(struct vmm *v, const struct vmm_disk *disk, struct error *err)
{
        for (size_t i = 0; i < VMM_DISKS_MAX; i++) {
                struct fake_disk *d = &v->disks[i];

                if (d->used)
                        continue;
                d->used = true;
                d->vmm = v;
                d->fd = -1;
                snprintf(d->id, sizeof(d->id), "%s", disk->id);
                if (disk->fd >= 0)
                        connect_disk(d, disk->fd);
                return 0;
        }
        return error_set(err, -ENOSPC, "there is no slot left");
}

int vmm_disk_remove(struct vmm *v, const char *id, struct error *err)
{
        struct fake_disk *d = find(v, id);

        if (!d)
                return error_set(err, -ENOENT, "there is no disk '%s'", id);
        if (v->sticky)
                return 0;
        if (d->fd >= 0)
                shutdown(d->fd, SHUT_RDWR);
        close(d->fd);
        d->fd = -1;
        d->used = false;
        say(v, "removed %s\n", id);
        v->events->disk_removed(v->arg, id);
        return 0;
}

/* ---- networks ---- */

static void cable_pulled(struct loop_io *io, int result)
{
        struct fake_nic *n = container_of(io, struct fake_nic, io);

        close(n->fd);
        n->fd = -1;
        say(n->vmm, "lost %s\n", n->id);
        n->vmm->events->nic_lost(n->vmm->arg, n->id);
}

static void watch_nic(struct fake_nic *n, int fd)
{
        n->fd = fd;
        n->io =
            (struct loop_io){.op = LOOP_POLL, .fd = fd, .flags = POLLRDHUP, .done = cable_pulled};
        loop_submit(n->vmm->loop, &n->io);
}

int vmm_nic_connect(struct vmm *v, const char *id, int fd, struct error *err)
{
        for (size_t i = 0; i < v->config->n_nics; i++) {
                struct fake_nic *n = &v->nics[i];

                if (strcmp(n->id, id) != 0 || n->fd >= 0)
                        continue;
                watch_nic(n, fd);
                say(v, "connected %s\n", id);
                return 0;
        }
        close(fd);
        return error_set(err, -ENOENT, "there is no network card '%s' to connect", id);
}

/* ---- the guest ---- */

static void say_what_is_left(struct vmm *v)
{
        int file = open("/dev/null", O_RDONLY | O_CLOEXEC);
        int open_error = errno, s = socket(AF_INET, SOCK_STREAM, 0);

        say(v, "open %s, socket %s\n", file < 0 ? strerrorname_np(open_error) : "works",
            s < 0 ? strerrorname_np(errno) : "works");
}

/* The channel is the one descriptor of its kind. */
static void lie(struct vmm *v)
{
        for (int fd = 3; fd < 64; fd++) {
                int type;
                socklen_t length = sizeof(type);

                if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) == 0 &&
                    type == SOCK_SEQPACKET)
                        (void)!write(fd, "nonsense", 8);
        }
}

static void keep(struct vmm *v, const char *word)
{
        snprintf(v->memory, sizeof(v->memory), "%s", word);
        say(v, "kept %s\n", v->memory);
}

static void obey(struct vmm *v, const char *word)
{
        if (strcmp(word, "poweroff") == 0)
                v->events->ended(v->arg, VMM_END_POWER_OFF, "");
        else if (strcmp(word, "fail") == 0)
                v->events->ended(v->arg, VMM_END_FAILED, "the guest does what nobody can");
        else if (strcmp(word, "reboot") == 0)
                vmm_reset(v);
        else if (strcmp(word, "panic") == 0)
                v->events->panicked(v->arg);
        else if (strcmp(word, "crash") == 0)
                raise(SIGKILL);
        else if (strcmp(word, "lie") == 0)
                lie(v);
        else if (strcmp(word, "deaf") == 0)
                v->deaf = true;
        else if (strcmp(word, "sticky") == 0)
                v->sticky = true;
        else if (strcmp(word, "fragile") == 0)
                v->fragile = true;
        else if (strncmp(word, "drop ", 5) == 0)
                vmm_disk_remove(v, word + 5, NULL);
        else if (strncmp(word, "keep ", 5) == 0)
                keep(v, word + 5);
        else if (strcmp(word, "tell") == 0)
                say(v, "memory has %s\n", v->memory);
        else if (strcmp(word, "confined") == 0)
                say_what_is_left(v);
        else
                say(v, "typed %s\n", word);
}

static void typed(struct loop_io *io, int result)
{
        struct vmm *v = container_of(io, struct vmm, serial_io);
        char c;
        ssize_t n;

        while ((n = read(v->serial, &c, 1)) == 1) {
                if (c != '\n' && c != '\r') {
                        v->line[v->length] = c;
                        v->length += v->length + 1 < sizeof(v->line);
                        continue;
                }
                v->line[v->length] = '\0';
                v->length = 0;
                obey(v, v->line);
        }
        if (n < 0 && errno == EAGAIN)
                loop_submit(v->loop, io);
}

/* ---- the machine ---- */

int vmm_memory_set(struct vmm *v, uint64_t bytes, struct error *err)
{
        if (bytes > UINT64_C(128) << 20)
                return error_set(err, -EINVAL, "that is more than memory-max");
        say(v, "memory %llu\n", (unsigned long long)bytes >> 20);
        return 0;
}

static void copy_ends(struct loop_task *task)
{
        struct vmm *v = container_of(task, struct vmm, copy_task);

        v->copied(v->copied_arg, 0, NULL);
}

int vmm_memory_copy(struct vmm *v, int fd,
                    void (*copied)(void *arg, int result, const char *sentence), void *arg,
                    struct error *err)
{
        if (strcmp(v->memory, "poison") == 0)
                return error_set(err, -EIO, "the memory cannot be read");
        v->copy = fd;
        v->copied = copied;
        v->copied_arg = arg;
        v->copy_task.run = copy_ends;
        loop_post(v->loop, &v->copy_task);
        return 0;
}

int vmm_memory_copy_finish(struct vmm *v, uint64_t *ret_bytes, struct error *err)
{
        if (pwrite(v->copy, v->memory, sizeof(v->memory), 0) != (ssize_t)sizeof(v->memory))
                return error_set(err, -errno, "cannot write memory");
        v->copy = -1;
        *ret_bytes = sizeof(v->memory);
        return 0;
}

void vmm_memory_copy_cancel(struct vmm *v)
{
        v->copy = -1;
}

int vmm_memory_load(struct vmm *v, int fd, struct error *err)
{
        if (pread(fd, v->memory, sizeof(v->memory), 0) != (ssize_t)sizeof(v->memory))
                return error_set(err, -EINVAL, "the saved memory is too short");
        say(v, "loading: ");
        say_what_is_left(v);
        if (strncmp(v->memory, "slow ", 5) == 0)
                sleep((unsigned)atoi(v->memory + 5));
        return 0;
}

/* "state", and of each disk its id and a space. */
int vmm_save(struct vmm *v, int fd, struct error *err)
{
        if (dprintf(fd, "state ") < 0)
                return error_set(err, -errno, "cannot write state");
        for (size_t i = 0; i < VMM_DISKS_MAX; i++)
                if (v->disks[i].used && dprintf(fd, "%s ", v->disks[i].id) < 0)
                        return error_set(err, -errno, "cannot write state");
        say(v, "saved\n");
        return 0;
}

int vmm_restore(struct vmm *v, int fd, struct error *err)
{
        char state[VMM_DISKS_MAX * ID_SIZE] = "";

        v->paused = true;
        if (pread(fd, state, sizeof(state) - 1, 0) < 6 || memcmp(state, "state ", 6) != 0)
                return error_set(err, -EINVAL, "the saved state is damaged");
        for (size_t i = 0; i < VMM_DISKS_MAX; i++) {
                char word[ID_SIZE + 3];

                snprintf(word, sizeof(word), " %s ", v->disks[i].id);
                if (v->disks[i].used && !strstr(state, word))
                        return error_set(err, -ENOENT, "the saved state has nothing of '%s'",
                                         v->disks[i].id);
        }
        return 0;
}

int vmm_check(struct error *err)
{
        return getenv("FAKE_VMM_NO_KVM") ? error_set(err, -ENOENT, "there is no /dev/kvm") : 0;
}

int vmm_new(struct loop *loop, const struct vmm_config *config, const struct vmm_events *events,
            void *arg, struct vmm **ret_vmm, struct error *err)
{
        struct vmm *v;

        v = calloc(1, sizeof(*v));
        if (!v)
                return error_set(err, -ENOMEM, "out of memory");
        v->loop = loop;
        v->events = events;
        v->arg = arg;
        v->serial = config->serial;
        v->config = config;
        *ret_vmm = v;
        return 0;
}

int vmm_complete(struct vmm *v, struct error *err)
{
        for (size_t i = 0; i < v->config->n_disks; i++)
                vmm_disk_add(v, &v->config->disks[i], NULL);
        return 0;
}

int vmm_start(struct vmm *v, struct error *err)
{
        say(v, "started\n");
        v->serial_io =
            (struct loop_io){.op = LOOP_POLL, .fd = v->serial, .flags = POLLIN, .done = typed};
        loop_submit(v->loop, &v->serial_io);
        for (size_t i = 0; i < v->config->n_nics; i++) {
                const struct vmm_nic *nic = &v->config->nics[i];
                const uint8_t *mac = nic->mac;

                v->nics[i] = (struct fake_nic){.vmm = v, .id = nic->id};
                say(v, "%s is %02x:%02x:%02x:%02x:%02x:%02x\n", nic->id, mac[0], mac[1], mac[2],
                    mac[3], mac[4], mac[5]);
                watch_nic(&v->nics[i], nic->fd);
        }
        return 0;
}

void vmm_free(struct vmm *v) /* the process ends */
{
        say(v, "freed\n");
}

void vmm_pause(struct vmm *v)
{
        v->paused = true;
        say(v, "paused\n");
}

void vmm_resume(struct vmm *v)
{
        v->paused = false;
        say(v, "resumed\n");
}

bool vmm_is_paused(const struct vmm *v)
{
        return v->paused;
}

void vmm_reset(struct vmm *v)
{
        say(v, "reset\n");
        v->events->reset(v->arg);
}

void vmm_power_button(struct vmm *v)
{
        say(v, "power button\n");
        if (!v->deaf)
                v->events->ended(v->arg, VMM_END_POWER_OFF, "");
}
