/* net.c - tap devices by name, and passt. */
#include "vm/net.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

/* ---- tap ---- */

static uint16_t interface_mtu(const char *name)
{
        struct ifreq request = {0};
        int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        bool known;

        if (fd < 0)
                return 0;
        memcpy(request.ifr_name, name, strlen(name) + 1);
        known = ioctl(fd, SIOCGIFMTU, &request) == 0;
        close(fd);
        /* VIRTIO 1.2, section 5.1.4.1: at least 68. */
        return known && request.ifr_mtu >= 68 && request.ifr_mtu <= UINT16_MAX
                   ? (uint16_t)request.ifr_mtu
                   : 0;
}

static int refused(const char *name, int r, struct error *err)
{
        switch (r) {
        case -EBUSY:
                return error_set(err, r, "the tap device '%s' is in use", name);
        case -EPERM:
                error_set(err, r, "the tap device '%s' belongs to another user", name);
                error_hint(err, "'ip tuntap add %s mode tap user NAME' makes one for NAME", name);
                return r;
        case -EINVAL:
                return error_set(err, -ENODEV, "'%s' is no tap device", name);
        default:
                return error_set(err, r, "cannot open the tap device '%s': %s", name, strerror(-r));
        }
}

static int open_tap(const char *name, struct vm_net *ret_net, struct error *err)
{
        struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
        int fd;

        /* Root would make a new one, which leads nowhere and goes with us. */
        if (if_nametoindex(name) == 0) {
                error_set(err, -ENODEV, "there is no interface '%s'", name);
                error_hint(err, "'ip tuntap add %s mode tap user NAME' makes one for NAME", name);
                return -ENODEV;
        }
        fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
        if (fd < 0)
                return error_set(err, -errno, "cannot open /dev/net/tun: %s", strerror(errno));
        memcpy(request.ifr_name, name, strlen(name) + 1);
        if (ioctl(fd, TUNSETIFF, &request) < 0) {
                int r = -errno;

                close(fd);
                return refused(name, r, err);
        }
        *ret_net = (struct vm_net){
            .fd = fd,
            .vhost_fd = open("/dev/vhost-net", O_RDWR | O_CLOEXEC),
            .mtu = interface_mtu(name),
        };
        return 0;
}

/* ---- passt ---- */

#define ARGV_FIXED  5u /* passt --quiet --fd N, and NULL */
#define FORWARD_MAX (INET6_ADDRSTRLEN + sizeof("/65535:65535"))
#define PASST_FD    3

struct forward_text {
        char text[FORWARD_MAX];
};

static void forward_text(const struct vm_forward *f, struct forward_text *ret)
{
        snprintf(ret->text, sizeof(ret->text), "%s%s%u:%u", f->address, f->address[0] ? "/" : "",
                 f->host_port, f->guest_port);
}

/* Its end of the socket is descriptor 3 there, and what it complains of comes to @says. */
static int spawn(char *const argv[], int peer, int says, pid_t *ret_pid)
{
        posix_spawn_file_actions_t actions;
        posix_spawnattr_t attributes;
        sigset_t none, all;
        int r = posix_spawn_file_actions_init(&actions);

        if (r != 0)
                return -r;
        r = posix_spawnattr_init(&attributes);
        if (r != 0) {
                posix_spawn_file_actions_destroy(&actions);
                return -r;
        }
        sigemptyset(&none);
        sigfillset(&all);
        posix_spawnattr_setsigmask(&attributes, &none);
        posix_spawnattr_setsigdefault(&attributes, &all);
        r = posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                                      POSIX_SPAWN_SETSID);
        /* Standard input and output are no terminal, so that it goes to the background. */
        if (r == 0)
                r = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDWR,
                                                     0);
        if (r == 0)
                r = posix_spawn_file_actions_adddup2(&actions, STDIN_FILENO, STDOUT_FILENO);
        if (r == 0)
                r = posix_spawn_file_actions_adddup2(&actions, says, STDERR_FILENO);
        if (r == 0)
                r = posix_spawn_file_actions_adddup2(&actions, peer, PASST_FD);
        if (r == 0)
                r = posix_spawnp(ret_pid, "passt", &actions, &attributes, argv, environ);
        posix_spawnattr_destroy(&attributes);
        posix_spawn_file_actions_destroy(&actions);
        return -r;
}

static int64_t now_ms(void)
{
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* What is beyond the room is read and forgotten. When it closes that, it is in the background, or has
 * ended. */
int vm_passt_listen(struct vm_passt *p)
{
        for (;;) {
                char beyond[256];
                bool room = p->n + 1 < sizeof(p->text);
                ssize_t got = read(p->says, room ? p->text + p->n : beyond,
                                   room ? sizeof(p->text) - 1 - p->n : sizeof(beyond));

                if (got < 0 && errno != EINTR)
                        return -errno;
                if (got == 0)
                        return 0;
                if (got > 0 && room)
                        p->n += (size_t)got;
        }
}

/* -ETIMEDOUT */
static int wait_for(struct vm_passt *p)
{
        int64_t end = now_ms() + VM_NET_WAIT_MS;
        int r;

        while ((r = vm_passt_listen(p)) == -EAGAIN) {
                struct pollfd wait = {.fd = p->says, .events = POLLIN};
                int64_t left = end - now_ms();

                if (left <= 0)
                        return -ETIMEDOUT;
                (void)poll(&wait, 1, (int)left);
        }
        return r;
}

/* The last line that it said of itself: where there is no syslog it says that, too. */
static const char *last_line(char *text)
{
        const char *last = "it does not say why";
        char *rest = NULL;

        for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
                if (strncmp(line, "Failed to send ", 15) != 0)
                        last = line;
        return last;
}

static int reap(struct vm_passt *p, int r, struct error *err)
{
        int status;

        if (r < 0)
                kill(p->pid, SIGKILL);
        while (waitpid(p->pid, &status, 0) < 0)
                if (errno != EINTR)
                        return error_set(err, -errno, "cannot wait for passt: %s", strerror(errno));
        if (r < 0)
                return error_set(err, r, "passt does not begin: %s", strerror(-r));
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
                return error_set(err, -EIO, "passt does not begin: %s", last_line(p->text));
        return 0;
}

int vm_passt_end(struct vm_passt *p, int r, int *ret_fd, struct error *err)
{
        r = reap(p, r, err);
        close(p->says);
        if (r < 0)
                close(p->fd);
        else
                *ret_fd = p->fd;
        return r;
}

static int run_passt(const struct vm_nic *nic, int peer, struct vm_passt *p, struct error *err)
{
        static char name[] = "passt", quiet[] = "--quiet", fd[] = "--fd", three[] = "3";
        static char tcp[] = "--tcp-ports", udp[] = "--udp-ports";
        struct forward_text forwards[VM_FORWARDS_MAX];
        char *argv[ARGV_FIXED + 2 * VM_FORWARDS_MAX] = {name, quiet, fd, three};
        unsigned n = ARGV_FIXED - 1;
        int says[2], r;

        for (size_t i = 0; i < nic->n_forwards; i++) {
                forward_text(&nic->forwards[i], &forwards[i]);
                argv[n++] = nic->forwards[i].udp ? udp : tcp;
                argv[n++] = forwards[i].text;
        }
        if (pipe2(says, O_CLOEXEC) < 0)
                return error_set(err, -errno, "cannot make a pipe: %s", strerror(errno));
        r = fcntl(says[0], F_SETFL, O_NONBLOCK) < 0 ? -errno : spawn(argv, peer, says[1], &p->pid);
        close(says[1]);
        if (r == 0) {
                p->says = says[0];
                return 0;
        }
        close(says[0]);
        error_set(err, r, "cannot run passt: %s", strerror(-r));
        if (r == -ENOENT)
                error_hint(err, "it is in the package passt");
        return r;
}

int vm_passt_begin(const struct vm_nic *nic, struct vm_passt *ret, struct error *err)
{
        int ends[2], r;

        if (nic->n_forwards > VM_FORWARDS_MAX)
                return error_set(err, -EINVAL, "more than %u ports are forwarded", VM_FORWARDS_MAX);
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
                return error_set(err, -errno, "cannot make a socket: %s", strerror(errno));
        *ret = (struct vm_passt){.fd = ends[0]};
        r = run_passt(nic, ends[1], ret, err);
        close(ends[1]);
        if (r < 0)
                close(ends[0]);
        return r;
}

static int open_user(const struct vm_nic *nic, struct vm_net *ret_net, struct error *err)
{
        struct vm_passt passt;
        int fd, r = vm_passt_begin(nic, &passt, err);

        if (r == 0)
                r = vm_passt_end(&passt, wait_for(&passt), &fd, err);
        if (r == 0)
                *ret_net = (struct vm_net){.fd = fd, .vhost_fd = -1};
        return r;
}

int vm_net_open(const struct vm_nic *nic, struct vm_net *ret_net, struct error *err)
{
        return nic->type == VM_NIC_TAP ? open_tap(nic->tap, ret_net, err)
                                       : open_user(nic, ret_net, err);
}

/* ---- addresses ---- */

/* FNV-1a: any hash that stays the same for ever. */
static uint64_t hash(uint64_t h, const uint8_t *data, size_t size)
{
        for (size_t i = 0; i < size; i++)
                h = (h ^ data[i]) * UINT64_C(0x100000001b3);
        return h;
}

void vm_net_mac(const uint8_t uuid[16], unsigned index, uint8_t ret_mac[6])
{
        const uint8_t last = (uint8_t)index;
        uint64_t h = hash(hash(UINT64_C(0xcbf29ce484222325), uuid, 16), &last, 1);

        for (unsigned i = 0; i < 6; i++)
                ret_mac[i] = (uint8_t)(h >> (8 * i));
        ret_mac[0] = (uint8_t)((ret_mac[0] & ~1u) | 2u);
}
