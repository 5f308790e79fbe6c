/* test_vmm_given.c - the descriptors of a machine's configuration are the VMM's, also where the machine
 * cannot be made: each is closed, and nobody else's. Here it fails before there is any device, with a
 * KVM or without. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>
#include <cmocka.h>
#include "tests/unit/open_fds.h"
#include "vmm-glue/vmm/vmm.h"

static struct loop *loop;

static int some_fd(void)
{
        int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

        assert_true(fd >= 0);
        return fd;
}

static void refused(const struct vmm_config *config)
{
        static const struct vmm_events no_events;
        struct vmm *vmm = NULL;
        struct error err = ERROR_INIT;

        assert_true(vmm_new(loop, config, &no_events, NULL, &vmm, &err) < 0);
        assert_null(vmm);
        assert_true(err.message[0] != '\0');
}

static void test_all_are_closed(void **state)
{
        const unsigned before = count_open_fds();
        const struct vmm_disk disks[] = {{.id = "a", .fd = some_fd()},
                                         {.id = "b", .fd = some_fd()}};
        const struct vmm_nic nics[] = {
            {.id = "c", .fd = some_fd(), .vhost_fd = some_fd()},
            {.id = "d", .kind = VMM_NIC_STREAM, .fd = some_fd(), .vhost_fd = -1}};
        const struct vmm_config config = {.name = "none", /* as it has no processor */
                                          .kernel = some_fd(),
                                          .initrd = some_fd(),
                                          .firmware = some_fd(),
                                          .serial = some_fd(),
                                          .seed = some_fd(),
                                          .vsock_cid = 3,
                                          .vsock_fd = some_fd(),
                                          .disks = disks,
                                          .n_disks = 2,
                                          .nics = nics,
                                          .n_nics = 2};

        refused(&config);
        assert_int_equal(count_open_fds(), before);
}

static void test_what_is_not_given_is_not_closed(void **state)
{
        const unsigned before = count_open_fds();
        /* Without a CID vsock_fd says nothing. */
        const struct vmm_config config = {.name = "none",
                                          .kernel = -1,
                                          .initrd = -1,
                                          .firmware = -1,
                                          .serial = -1,
                                          .seed = -1,
                                          .vsock_fd = STDIN_FILENO};

        refused(&config);
        assert_int_equal(count_open_fds(), before);
        assert_true(fcntl(STDIN_FILENO, F_GETFD) >= 0);
}

static int make_loop(void **state)
{
        return loop_new(LOOP_BACKEND_AUTO, &loop, NULL);
}

static int free_loop(void **state)
{
        loop_free(loop);
        return 0;
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(test_all_are_closed),
            cmocka_unit_test(test_what_is_not_given_is_not_closed),
        };

        return cmocka_run_group_tests(tests, make_loop, free_loop);
}
