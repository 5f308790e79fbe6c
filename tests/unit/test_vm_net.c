/* The host's side of networks: tap devices by name, passt, addresses. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "vm/net.h"

#define WAIT_MS 10000

/* ---- addresses ---- */

static void gives_each_card_its_address(void **state)
{
        static const uint8_t known[6] = {0x72, 0x15, 0x93, 0x5b, 0x6a, 0xfa};
        uint8_t uuid[16] = {1, 2, 3}, first[6], second[6], other[6], again[6];

        vm_net_mac(uuid, 0, first);
        vm_net_mac(uuid, 1, second);
        vm_net_mac(uuid, 0, again);
        assert_memory_equal(first, again, 6);
        assert_memory_not_equal(first, second, 6);
        /* The same in every version: guests name their cards by it. */
        assert_memory_equal(first, known, 6);
        uuid[15] = 1;
        vm_net_mac(uuid, 0, other);
        assert_memory_not_equal(first, other, 6);
        for (unsigned i = 0; i < 8; i++) {
                vm_net_mac(uuid, i, other);
                assert_int_equal(other[0] & 3, 2);
        }
}

/* ---- tap ---- */

/* One that stays until it is removed; false: we may not. */
static bool make_tap(char name[IFNAMSIZ], int mtu)
{
        struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
        int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC), control;
        bool ok;

        if (fd < 0)
                return false;
        snprintf(request.ifr_name, IFNAMSIZ, "tarn%%d");
        ok = ioctl(fd, TUNSETIFF, &request) == 0 && ioctl(fd, TUNSETPERSIST, 1) == 0;
        close(fd);
        if (!ok)
                return false;
        memcpy(name, request.ifr_name, IFNAMSIZ);
        control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        request.ifr_mtu = mtu;
        ok = control >= 0 && ioctl(control, SIOCSIFMTU, &request) == 0;
        close(control);
        return ok;
}

static void remove_tap(const char *name)
{
        struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
        int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

        memcpy(request.ifr_name, name, IFNAMSIZ);
        assert_int_equal(ioctl(fd, TUNSETIFF, &request), 0);
        assert_int_equal(ioctl(fd, TUNSETPERSIST, 0), 0);
        close(fd);
}

static void opens_a_tap_device_once(void **state)
{
        struct vm_nic nic = {.type = VM_NIC_TAP};
        struct vm_net net, second;
        struct error err = ERROR_INIT;
        char name[IFNAMSIZ] = "";
        unsigned flags = 0;

        if (!make_tap(name, 1420))
                skip();
        memcpy(nic.tap, name, sizeof(nic.tap));
        assert_int_equal(vm_net_open(&nic, &net, &err), 0);
        assert_int_equal(net.mtu, 1420);
        /* What the VMM asks of it. */
        assert_int_equal(ioctl(net.fd, TUNSETVNETHDRSZ, &(int){12}), 0);
        assert_int_equal(ioctl(net.fd, TUNGETFEATURES, &flags), 0);
        assert_true(fcntl(net.fd, F_GETFD) & FD_CLOEXEC);
        assert_int_equal(vm_net_open(&nic, &second, &err), -EBUSY);
        assert_non_null(strstr(err.message, name));
        close(net.fd);
        if (net.vhost_fd >= 0)
                close(net.vhost_fd);
        remove_tap(name);
}

static void refuses_interfaces_that_are_no_tap_device(void **state)
{
        struct vm_nic nic = {.type = VM_NIC_TAP, .tap = "tarn-nowhere"};
        struct error err = ERROR_INIT;
        struct vm_net net;

        assert_int_equal(vm_net_open(&nic, &net, &err), -ENODEV);
        assert_string_equal(err.message, "there is no interface 'tarn-nowhere'");
        assert_true(err.hint[0] != 0);
        if (access("/dev/net/tun", R_OK | W_OK) < 0)
                skip();
        strcpy(nic.tap, "lo");
        assert_true(vm_net_open(&nic, &net, &err) < 0);
        assert_non_null(strstr(err.message, "'lo'"));
}

/* ---- passt ---- */

static bool have_passt(void)
{
        return system("command -v passt >/dev/null 2>&1") == 0;
}

/* Without one it does not begin: it gives its guests the host's network. */
static bool have_route(void)
{
        return system(
                   "awk '$2 == \"00000000\" { found = 1 } END { exit !found }' /proc/net/route") ==
               0;
}

static bool read_exactly(int fd, void *data, size_t size)
{
        for (uint8_t *at = data; size > 0;) {
                struct pollfd wait = {.fd = fd, .events = POLLIN};
                ssize_t n;

                if (poll(&wait, 1, WAIT_MS) <= 0)
                        return false;
                n = read(fd, at, size);
                if (n <= 0)
                        return false;
                at += n;
                size -= (size_t)n;
        }
        return true;
}

/* Who has 10.9.8.7? passt answers for all addresses but the guest's. */
static void assert_answers(int fd)
{
        static const uint8_t question[] = {
            0,    0,    0,    42,                                        /* its length */
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2,  0, 0, 0, 0, 1, 8, 6, /* to all, ARP */
            0,    1,    8,    0,    6,    4,    0,  1,       /* IPv4 over Ethernet, ask */
            2,    0,    0,    0,    0,    1,    10, 9, 8, 6, /* we are */
            0,    0,    0,    0,    0,    0,    10, 9, 8, 7,
        };
        uint8_t frame[1500];
        uint32_t length;

        assert_int_equal(write(fd, question, sizeof(question)), sizeof(question));
        do {
                assert_true(read_exactly(fd, &length, sizeof(length)));
                length = ntohl(length);
                assert_true(length <= sizeof(frame));
                assert_true(read_exactly(fd, frame, length));
        } while (length < 42 || frame[12] != 8 || frame[13] != 6);
        assert_int_equal(frame[21], 2); /* an answer */
}

/* A port that nobody has; bound where @ret_fd is not NULL. */
static uint16_t free_port(int *ret_fd)
{
        struct sockaddr_in address = {.sin_family = AF_INET,
                                      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t length = sizeof(address);
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
        assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
        if (ret_fd) {
                assert_int_equal(listen(fd, 1), 0);
                *ret_fd = fd;
        } else {
                close(fd);
        }
        return ntohs(address.sin_port);
}

static bool is_listened_on(uint16_t port)
{
        const struct sockaddr_in address = {.sin_family = AF_INET,
                                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                            .sin_port = htons(port)};
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        bool yes = connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0;

        close(fd);
        return yes;
}

static void runs_passt_as_long_as_the_socket(void **state)
{
        struct vm_forward forwards[] = {
            {.address = "127.0.0.1", .host_port = free_port(NULL), .guest_port = 22},
            {.udp = true, .host_port = free_port(NULL), .guest_port = 53},
        };
        const struct vm_nic nic = {.type = VM_NIC_USER, .forwards = forwards, .n_forwards = 2};
        struct error err = ERROR_INIT;
        struct vm_net net;
        unsigned waited_ms = 0;

        if (have_passt() && !have_route())
                print_message("SKIP: passt wants a default route, and this host has none\n");
        if (!have_passt() || !have_route())
                skip();
        if (vm_net_open(&nic, &net, &err) < 0)
                fail_msg("%s", err.message);
        assert_int_equal(net.vhost_fd, -1);
        assert_true(fcntl(net.fd, F_GETFD) & FD_CLOEXEC);
        assert_answers(net.fd);
        assert_true(is_listened_on(forwards[0].host_port));
        close(net.fd);
        for (; is_listened_on(forwards[0].host_port) && waited_ms < WAIT_MS; waited_ms += 10)
                usleep(10000);
        assert_true(waited_ms < WAIT_MS);
}

static void says_why_passt_does_not_begin(void **state)
{
        int taken = -1;
        struct vm_forward forward = {
            .address = "127.0.0.1", .host_port = free_port(&taken), .guest_port = 22};
        const struct vm_nic nic = {.type = VM_NIC_USER, .forwards = &forward, .n_forwards = 1};
        struct error err = ERROR_INIT;
        struct vm_net net = {.fd = -5};

        if (!have_passt())
                skip();
        assert_int_equal(vm_net_open(&nic, &net, &err), -EIO);
        print_message("%s\n", err.message);
        assert_non_null(strstr(err.message, "passt does not begin: "));
        assert_null(strstr(err.message, "syslog"));
        assert_int_equal(net.fd, -5);
        close(taken);
}

static void says_that_there_is_no_passt(void **state)
{
        const struct vm_nic nic = {.type = VM_NIC_USER};
        char *path = strdup(getenv("PATH") ? getenv("PATH") : "/usr/bin");
        struct error err = ERROR_INIT;
        struct vm_net net;

        setenv("PATH", "/nonexistent", 1);
        assert_int_equal(vm_net_open(&nic, &net, &err), -ENOENT);
        assert_string_equal(err.hint, "it is in the package passt");
        setenv("PATH", path, 1);
        free(path);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(gives_each_card_its_address),
            cmocka_unit_test(opens_a_tap_device_once),
            cmocka_unit_test(refuses_interfaces_that_are_no_tap_device),
            cmocka_unit_test(runs_passt_as_long_as_the_socket),
            cmocka_unit_test(says_why_passt_does_not_begin),
            cmocka_unit_test(says_that_there_is_no_passt),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
