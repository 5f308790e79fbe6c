/* test_vm_cgroup.c - a machine's control group, in folders that look like the kernel's: what is written
 * where, that nobody else's processes are moved, and that no group is divided that has processes. The
 * kernel's refusal to do so is played, and that a process that is moved leaves its group. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <cmocka.h>
#include "vm/cgroup.h"

#define GROUP "sys/fs/cgroup/tarn.slice"

static char root[] = "/tmp/test_vm_cgroup.XXXXXX";
static unsigned n_busy; /* so often is "+cpu" refused */
static unsigned n_born; /* so many that are moved are followed by another */
static unsigned n_gone; /* so many have ended by the time that they are moved */

static const char *at(const char *path)
{
        static char full[256];

        snprintf(full, sizeof(full), "%s/%s", root, path);
        return full;
}

static bool is_empty(const char *path)
{
        struct stat st;

        return stat(at(path), &st) == 0 && st.st_size == 0;
}

ssize_t __real_write(int fd, const void *data, size_t n);
ssize_t __wrap_write(int fd, const void *data, size_t n);
ssize_t __wrap_write(int fd, const void *data, size_t n)
{
        if (n_busy > 0 && n == 4 && memcmp(data, "+cpu", 4) == 0) {
                n_busy--;
                errno = EBUSY;
                return -1;
        }
        if (n == 4 && memcmp(data, "+cpu", 4) == 0 && access(at(GROUP "/cgroup.type"), F_OK) == 0)
                assert_true(is_empty(GROUP "/cgroup.procs"));
        if (isdigit(*(const char *)data) && !is_empty(GROUP "/cgroup.procs")) {
                if (n_gone > 0) {
                        n_gone--;
                        errno = ESRCH;
                        return -1;
                }
                if (n_born > 0)
                        n_born--;
                else
                        assert_int_equal(truncate(at(GROUP "/cgroup.procs"), 0), 0);
        }
        return __real_write(fd, data, n);
}

static void folder(const char *path)
{
        assert_int_equal(mkdir(at(path), 0700), 0);
}

static void put(const char *path, const char *text)
{
        FILE *file = fopen(at(path), "w");

        assert_non_null(file);
        assert_true(fputs(text, file) >= 0);
        assert_int_equal(fclose(file), 0);
}

static void read_all(const char *path, char text[256])
{
        FILE *file = fopen(at(path), "r");

        assert_non_null(file);
        text[fread(text, 1, 255, file)] = '\0';
        fclose(file);
}

static void assert_begins(const char *path, const char *want)
{
        char text[256];

        read_all(path, text);
        assert_memory_equal(text, want, strlen(want));
}

static void assert_has(const char *path, const char *want)
{
        char text[256];

        read_all(path, text);
        assert_string_equal(text, want);
}

static int set_up(void **state)
{
        static const char *const folders[] = {
            "proc",           "proc/self",     "proc/4242", "sys",
            "sys/fs",         "sys/fs/cgroup", GROUP,       GROUP "/tarn-supervisor",
            GROUP "/tarn-web"};

        strcpy(root + strlen(root) - 6, "XXXXXX");
        assert_non_null(mkdtemp(root));
        for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++)
                folder(folders[i]);
        put("proc/self/cgroup", "1:cpu:/other\n0::/tarn.slice\n");
        put(GROUP "/cgroup.controllers", "cpuset cpu io\n");
        put(GROUP "/cgroup.type", "domain\n");
        put(GROUP "/cgroup.procs", "");
        put(GROUP "/cgroup.subtree_control", "");
        put(GROUP "/tarn-supervisor/cgroup.procs", "");
        put(GROUP "/tarn-web/cgroup.procs", "");
        put(GROUP "/tarn-web/cpu.weight", "");
        put(GROUP "/tarn-web/cpu.max", "");
        n_busy = n_born = n_gone = 0;
        return 0;
}

static int tear_down(void **state)
{
        char command[300];

        snprintf(command, sizeof(command), "rm -r '%s'", root);
        return system(command);
}

static void test_limits_are_set(void **state)
{
        struct cgroup cgroup = {0};

        assert_int_equal(cgroup_enter(root, "web", 77, 200, 150, &cgroup, NULL), 0);
        assert_string_equal(cgroup.path, at(GROUP "/tarn-web"));
        assert_has(GROUP "/cgroup.subtree_control", "+cpu");
        assert_has(GROUP "/tarn-web/cpu.weight", "200");
        assert_has(GROUP "/tarn-web/cpu.max", "150000 100000");
        assert_has(GROUP "/tarn-web/cgroup.procs", "77");
        assert_has(GROUP "/tarn-supervisor/cgroup.procs", "");
}

/* The second machine of a service finds itself where the first one's supervisor has put all. */
static void test_a_group_is_divided_once(void **state)
{
        struct cgroup cgroup = {0};

        put("proc/self/cgroup", "0::/tarn.slice/tarn-supervisor\n");
        assert_int_equal(cgroup_enter(root, "web", 77, 200, 0, &cgroup, NULL), 0);
        assert_string_equal(cgroup.path, at(GROUP "/tarn-web"));
        assert_has(GROUP "/tarn-web/cpu.weight", "200");
        assert_has(GROUP "/tarn-web/cgroup.procs", "77");
}

static void test_what_is_not_said_is_not_set(void **state)
{
        struct cgroup cgroup = {0};

        assert_int_equal(cgroup_enter(root, "web", 77, 0, 1, &cgroup, NULL), 0);
        assert_has(GROUP "/tarn-web/cpu.weight", "");
        assert_has(GROUP "/tarn-web/cpu.max", "1000 100000");
}

static void test_it_is_removed(void **state)
{
        struct cgroup cgroup = {0};

        cgroup_remove(&cgroup);
        assert_int_equal(cgroup_enter(root, "web", 77, 1, 0, &cgroup, NULL), 0);
        /* The kernel's files do not keep a group; these do. */
        assert_int_equal(unlink(at(GROUP "/tarn-web/cgroup.procs")), 0);
        assert_int_equal(unlink(at(GROUP "/tarn-web/cpu.weight")), 0);
        assert_int_equal(unlink(at(GROUP "/tarn-web/cpu.max")), 0);
        cgroup_remove(&cgroup);
        assert_int_equal(access(at(GROUP "/tarn-web"), F_OK), -1);
        assert_int_equal(cgroup.path[0], '\0');
}

static void test_ours_make_room(void **state)
{
        struct cgroup cgroup = {0};
        char text[64];

        snprintf(text, sizeof(text), "4242 (a) R 1) S %ld 1", (long)getpid());
        put("proc/4242/stat", text);
        snprintf(text, sizeof(text), "%ld\n4242\n", (long)getpid());
        put(GROUP "/cgroup.procs", text);
        n_gone = 1; /* and the next one is moved all the same */
        n_born = 3;
        assert_int_equal(cgroup_enter(root, "web", 77, 200, 0, &cgroup, NULL), 0);
        assert_int_equal(n_born, 0);
        /* The last one that went there: these files keep what is longer of the one before. */
        assert_begins(GROUP "/tarn-supervisor/cgroup.procs", "4242");
        assert_has(GROUP "/cgroup.subtree_control", "+cpu");
        assert_has(GROUP "/tarn-web/cgroup.procs", "77");
}

static void test_others_are_left_alone(void **state)
{
        struct cgroup cgroup = {0};
        struct error err = ERROR_INIT;
        char text[64];

        put("proc/4242/stat", "4242 (shell) S 1 1");
        snprintf(text, sizeof(text), "%ld\n4242\n", (long)getpid());
        put(GROUP "/cgroup.procs", text);
        assert_int_equal(cgroup_enter(root, "web", 77, 200, 0, &cgroup, &err), -EBUSY);
        assert_non_null(strstr(err.message, "others' processes are in the control group"));
        assert_has(GROUP "/tarn-supervisor/cgroup.procs", "");
        assert_has(GROUP "/tarn-web/cgroup.procs", "");
        assert_int_equal(cgroup.path[0], '\0');
        /* But of a group that was left to us all move. */
        if (setxattr(at(GROUP), "user.delegate", "1", 1, 0) < 0)
                return;
        assert_int_equal(cgroup_enter(root, "web", 77, 200, 0, &cgroup, &err), 0);
        assert_has(GROUP "/tarn-web/cgroup.procs", "77");
}

/* The root of all groups keeps what it has. */
static void test_the_root_is_divided_as_it_is(void **state)
{
        struct cgroup cgroup = {0};

        put("proc/4242/stat", "4242 (shell) S 1 1");
        put(GROUP "/cgroup.procs", "4242\n");
        assert_int_equal(unlink(at(GROUP "/cgroup.type")), 0);
        assert_int_equal(cgroup_enter(root, "web", 77, 200, 0, &cgroup, NULL), 0);
        assert_has(GROUP "/tarn-supervisor/cgroup.procs", "");
        assert_has(GROUP "/tarn-web/cgroup.procs", "77");
}

static void test_a_refusal_may_pass(void **state)
{
        struct cgroup cgroup = {0};

        n_busy = 2;
        assert_int_equal(cgroup_enter(root, "web", 77, 200, 0, &cgroup, NULL), 0);
        assert_has(GROUP "/tarn-web/cgroup.procs", "77");
}

/* Others are born as fast as they are moved. */
static void test_it_does_not_try_for_ever(void **state)
{
        struct cgroup cgroup = {0};
        struct error err = ERROR_INIT;

        n_busy = 1000000;
        assert_int_equal(cgroup_enter(root, "web", 77, 200, 0, &cgroup, &err), -EBUSY);
        assert_non_null(strstr(err.message, "cannot divide the control group"));
        assert_true(n_busy > 999900);
        n_busy = 0;
        n_born = 1000000;
        char text[64];
        snprintf(text, sizeof(text), "%ld\n", (long)getpid());
        put(GROUP "/cgroup.procs", text);
        assert_int_equal(cgroup_enter(root, "web", 77, 200, 0, &cgroup, &err), -EBUSY);
        assert_true(n_born > 999900);
        assert_has(GROUP "/cgroup.subtree_control", "");
}

static void test_where_there_is_none(void **state)
{
        struct cgroup cgroup = {0};
        struct error err = ERROR_INIT;

        put(GROUP "/cgroup.controllers", "cpuset io\n");
        assert_int_equal(cgroup_enter(root, "web", 77, 200, 0, &cgroup, &err), -EOPNOTSUPP);
        assert_non_null(strstr(err.message, "has no CPU controller"));
        assert_int_equal(unlink(at(GROUP "/cgroup.controllers")), 0);
        assert_int_equal(cgroup_enter(root, "web", 77, 200, 0, &cgroup, &err), -EOPNOTSUPP);
        assert_non_null(strstr(err.message, "no cgroup v2 at"));
        put("proc/self/cgroup", "1:cpu:/other\n");
        assert_int_equal(cgroup_enter(root, "web", 77, 200, 0, &cgroup, &err), -EOPNOTSUPP);
        assert_string_equal(err.message, "this system has no cgroup v2");
        assert_int_equal(unlink(at("proc/self/cgroup")), 0);
        assert_int_equal(cgroup_enter(root, "web", 77, 200, 0, &cgroup, &err), -EOPNOTSUPP);
        assert_int_equal(cgroup.path[0], '\0');
}

static void test_a_limit_that_cannot_be_set(void **state)
{
        struct cgroup cgroup = {0};
        struct error err = ERROR_INIT;

        assert_int_equal(unlink(at(GROUP "/tarn-web/cpu.weight")), 0);
        assert_int_equal(cgroup_enter(root, "web", 77, 200, 0, &cgroup, &err), -ENOENT);
        assert_has(GROUP "/tarn-web/cgroup.procs", "");
        assert_int_equal(cgroup.path[0], '\0');
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
        const struct CMUnitTest tests[] = {
            TEST(test_limits_are_set),          TEST(test_what_is_not_said_is_not_set),
            TEST(test_it_is_removed),           TEST(test_ours_make_room),
            TEST(test_others_are_left_alone),   TEST(test_it_does_not_try_for_ever),
            TEST(test_where_there_is_none),     TEST(test_a_limit_that_cannot_be_set),
            TEST(test_a_group_is_divided_once), TEST(test_the_root_is_divided_as_it_is),
            TEST(test_a_refusal_may_pass),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
