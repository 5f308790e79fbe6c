/* vmm_run.c - a machine alone, without what 'tarn vm' has around it: for tests and figures of the VMM.
 *
 * usage: vmm_run [--kernel FILE] [--initrd FILE] [--cmdline TEXT] [--firmware FILE] [--memory MIB]
 *                [--cpus N] [--disk SOCKET]... [--once] [--tap NAME [--vhost]] [--stream SOCKET]
 *                [--vsock CID] [--balloon] [--memory-max MIB] [--set-memory MIB]...
 *
 * Each SIGUSR1 says how much memory the guest has, and asks for the next --set-memory.
 *
 * The guest's console is on the standard streams. Exit status: 0 when the guest has switched itself
 * off, 3 when it was reset with --once, 1 else. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "vmm-glue/vmm/vmm.h"

#define SIZES_MAX 16u

static struct {
        struct loop *loop;
        struct vmm *vmm;
        bool once;
        int status;
        const char *sockets[VMM_DISKS_MAX];
        struct vmm_disk disks[VMM_DISKS_MAX];
        char ids[VMM_DISKS_MAX][16];
        struct loop_timer retry;
        bool lost[VMM_DISKS_MAX];
        struct vmm_nic nics[VMM_NICS_MAX];
        char nic_ids[VMM_NICS_MAX][16];
        uint64_t sizes[SIZES_MAX]; /* --set-memory */
        unsigned n_sizes, at_size;
        struct loop_io signal; /* a poll */
} run = {.status = EXIT_FAILURE};

static int open_file(const char *path)
{
        int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;

        if (path && fd < 0) {
                fprintf(stderr, "vmm_run: %s: %s\n", path, strerror(errno));
                exit(EXIT_FAILURE);
        }
        return fd;
}

/* -1: nobody is there. */
static int connect_to(const char *path)
{
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
        if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
                close(fd);
                fd = -1;
        }
        return fd;
}

static void ended(void *arg, enum vmm_end how, const char *sentence)
{
        run.status = how == VMM_END_POWER_OFF ? EXIT_SUCCESS : EXIT_FAILURE;
        if (sentence)
                fprintf(stderr, "vmm_run: %s\n", sentence);
        loop_stop(run.loop);
}

static void was_reset(void *arg)
{
        fprintf(stderr, "vmm_run: reset\n");
        if (run.once) {
                run.status = 3;
                loop_stop(run.loop);
        }
}

static void panicked(void *arg)
{
        fprintf(stderr, "vmm_run: panicked\n");
}

static void connect_again(struct loop_timer *timer)
{
        struct error e = ERROR_INIT;

        for (unsigned i = 0; i < VMM_DISKS_MAX; i++) {
                int fd;

                if (!run.lost[i])
                        continue;
                fd = connect_to(run.sockets[i]);
                if (fd >= 0 && vmm_disk_connect(run.vmm, run.ids[i], fd, &e) == 0) {
                        run.lost[i] = false;
                        fprintf(stderr, "vmm_run: %s is back\n", run.ids[i]);
                } else {
                        loop_timer_set(run.loop, timer, loop_now_ns(run.loop) + 100000000);
                }
        }
}

static void disk_lost(void *arg, const char *id)
{
        fprintf(stderr, "vmm_run: %s is lost\n", id);
        for (unsigned i = 0; i < VMM_DISKS_MAX; i++)
                if (strcmp(run.ids[i], id) == 0)
                        run.lost[i] = true;
        loop_timer_set(run.loop, &run.retry, loop_now_ns(run.loop) + 100000000);
}

struct copy {
        int from, to;
};

static void *copy_thread(void *arg)
{
        const struct copy *copy = arg;
        char data[4096];
        ssize_t n;

        while ((n = read(copy->from, data, sizeof(data))) > 0)
                for (ssize_t at = 0; at < n;) {
                        ssize_t done = write(copy->to, data + at, (size_t)(n - at));

                        if (done <= 0)
                                return NULL;
                        at += done;
                }
        return NULL;
}

/* Ours is blocking, the machine's is not. */
static int console(pthread_t *ret_out, int *ret_ours)
{
        static struct copy out, in;
        pthread_t thread;
        int pair[2];

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
                abort();
        fcntl(pair[1], F_SETFL, O_NONBLOCK);
        out = (struct copy){pair[0], STDOUT_FILENO};
        in = (struct copy){STDIN_FILENO, pair[0]};
        if (pthread_create(ret_out, NULL, copy_thread, &out) != 0 ||
            pthread_create(&thread, NULL, copy_thread, &in) != 0)
                abort();
        *ret_ours = pair[0];
        return pair[1];
}

static void add_disk(struct vmm_config *config, const char *path)
{
        size_t n = config->n_disks++;
        struct vmm_disk *disk = &run.disks[n];
        int fd;

        snprintf(run.ids[n], sizeof(run.ids[n]), "disk%zu", n);
        run.sockets[n] = path;
        fd = connect_to(path);
        if (fd < 0) {
                fprintf(stderr, "vmm_run: nobody is at %s\n", path);
                exit(EXIT_FAILURE);
        }
        *disk = (struct vmm_disk){.id = run.ids[n], .fd = fd, .boot_order = (int)n + 1};
}

static void must(bool true_, const char *what)
{
        if (true_)
                return;
        fprintf(stderr, "vmm_run: %s: %s\n", what, strerror(errno));
        exit(EXIT_FAILURE);
}

static int open_device(const char *path)
{
        int fd = open(path, O_RDWR | O_CLOEXEC);

        must(fd >= 0, path);
        return fd;
}

static struct vmm_nic *add_nic(struct vmm_config *config)
{
        size_t n = config->n_nics++;

        snprintf(run.nic_ids[n], sizeof(run.nic_ids[n]), "net%zu", n);
        run.nics[n] = (struct vmm_nic){
            .id = run.nic_ids[n], .vhost_fd = -1, .mac = {2, 0, 0, 0, 0, (uint8_t)(n + 1)}};
        config->nics = run.nics;
        return &run.nics[n];
}

static void add_tap(struct vmm_config *config, const char *name)
{
        struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
        struct vmm_nic *nic = add_nic(config);

        nic->kind = VMM_NIC_TAP;
        nic->fd = open_device("/dev/net/tun");
        snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
        must(ioctl(nic->fd, TUNSETIFF, &request) == 0, name);
}

static void add_stream(struct vmm_config *config, const char *path)
{
        struct vmm_nic *nic = add_nic(config);

        nic->kind = VMM_NIC_STREAM;
        nic->fd = connect_to(path);
        must(nic->fd >= 0, path);
}

/* ---- memory ---- */

static void signalled(struct loop_io *io, int result)
{
        struct signalfd_siginfo info;
        struct error e = ERROR_INIT;

        must(read(io->fd, &info, sizeof(info)) == sizeof(info), "signalfd");
        fprintf(stderr, "vmm_run: %llu MiB\n",
                (unsigned long long)(vmm_memory_size(run.vmm) >> 20));
        if (run.at_size < run.n_sizes && vmm_memory_set(run.vmm, run.sizes[run.at_size++], &e) < 0)
                fprintf(stderr, "vmm_run: %s\n", e.message);
        loop_submit(run.loop, io);
}

/* Before there are threads, none of which is to have it. */
static int block_signal(void)
{
        sigset_t set;
        int fd;

        sigemptyset(&set);
        sigaddset(&set, SIGUSR1);
        sigprocmask(SIG_BLOCK, &set, NULL);
        fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        must(fd >= 0, "signalfd");
        return fd;
}

static void wait_for_signal(int fd)
{
        run.signal =
            (struct loop_io){.op = LOOP_POLL, .fd = fd, .flags = POLLIN, .done = signalled};
        loop_submit(run.loop, &run.signal);
}

/* ---- */

/* What a machine has beside what every one has. */
static void parse_device(int option, struct vmm_config *config)
{
        switch (option) {
        case 't':
                add_tap(config, optarg);
                break;
        case 'v':
                must(config->n_nics > 0, "--vhost is behind --tap");
                run.nics[config->n_nics - 1].vhost_fd = open_device("/dev/vhost-net");
                break;
        case 's':
                add_stream(config, optarg);
                break;
        case 'V':
                config->vsock_cid = (uint32_t)strtoul(optarg, NULL, 10);
                config->vsock_fd = open_device("/dev/vhost-vsock");
                break;
        case 'b':
                config->balloon = true;
                break;
        case 'M':
                config->memory_max = strtoull(optarg, NULL, 10) << 20;
                break;
        case 'S':
                if (run.n_sizes < SIZES_MAX)
                        run.sizes[run.n_sizes++] = strtoull(optarg, NULL, 10) << 20;
                break;
        default:
                exit(2);
        }
}

static void parse(int argc, char **argv, struct vmm_config *config)
{
        static const struct option options[] = {
            {"kernel", 1, NULL, 'k'},   {"initrd", 1, NULL, 'i'},     {"cmdline", 1, NULL, 'c'},
            {"firmware", 1, NULL, 'f'}, {"memory", 1, NULL, 'm'},     {"cpus", 1, NULL, 'n'},
            {"disk", 1, NULL, 'd'},     {"once", 0, NULL, 'o'},       {"tap", 1, NULL, 't'},
            {"vhost", 0, NULL, 'v'},    {"stream", 1, NULL, 's'},     {"vsock", 1, NULL, 'V'},
            {"balloon", 0, NULL, 'b'},  {"memory-max", 1, NULL, 'M'}, {"set-memory", 1, NULL, 'S'},
            {NULL, 0, NULL, 0}};
        int option;

        while ((option = getopt_long(argc, argv, "", options, NULL)) >= 0) {
                switch (option) {
                case 'k':
                        config->kernel = open_file(optarg);
                        break;
                case 'i':
                        config->initrd = open_file(optarg);
                        break;
                case 'c':
                        config->cmdline = optarg;
                        break;
                case 'f':
                        config->firmware = open_file(optarg);
                        break;
                case 'm':
                        config->memory = config->memory_max = strtoull(optarg, NULL, 10) << 20;
                        break;
                case 'n':
                        config->cpus = (unsigned)strtoul(optarg, NULL, 10);
                        break;
                case 'd':
                        add_disk(config, optarg);
                        break;
                case 'o':
                        run.once = true;
                        break;
                default:
                        parse_device(option, config);
                        break;
                }
        }
}

int main(int argc, char **argv)
{
        struct vmm_config config = {.name = "test",
                                    .cpus = 1,
                                    .memory = UINT64_C(256) << 20,
                                    .memory_max = UINT64_C(256) << 20,
                                    .kernel = -1,
                                    .initrd = -1,
                                    .firmware = -1,
                                    .serial = -1,
                                    .seed = -1,
                                    .vsock_fd = -1,
                                    .rng = true};
        const struct vmm_events events = {
            .ended = ended, .reset = was_reset, .panicked = panicked, .disk_lost = disk_lost};
        struct error e = ERROR_INIT;
        pthread_t out;
        int ours, signal_fd = block_signal();

        parse(argc, argv, &config);
        config.disks = run.disks;
        config.serial = console(&out, &ours);
        run.retry.fire = connect_again;
        if (loop_new(LOOP_BACKEND_AUTO, &run.loop, &e) < 0 ||
            vmm_new(run.loop, &config, &events, NULL, &run.vmm, &e) < 0 ||
            vmm_complete(run.vmm, &e) < 0 || vmm_start(run.vmm, &e) < 0) {
                fprintf(stderr, "vmm_run: %s\n", e.message);
                if (e.hint[0])
                        fprintf(stderr, "hint: %s\n", e.hint);
                return EXIT_FAILURE;
        }
        wait_for_signal(signal_fd);
        loop_run(run.loop);
        vmm_free(run.vmm);
        /* The loop goes with the process: what was cancelled would have to end first, and until then it
         * holds the console's other end. What the guest has said is said in full. */
        shutdown(ours, SHUT_RD);
        pthread_join(out, NULL);
        return run.status;
}
