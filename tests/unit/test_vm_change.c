/* test_vm_change.c - changes to a machine's file: paths. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <unistd.h>
#include <cmocka.h>
#include "vm/change.h"

static void assert_absolute(const char *word, const char *expected)
{
        char *is = NULL;

        assert_int_equal(change_absolute(word, &is, NULL), 0);
        assert_string_equal(is, expected);
        free(is);
}

static void a_relative_path_is_taken_from_the_working_folder(void **state)
{
        assert_int_equal(chdir("/usr"), 0);
        assert_absolute("kernel=vmlinuz", "kernel=/usr/vmlinuz");
        assert_absolute("initrd=a/b", "initrd=/usr/a/b");
        assert_absolute("console-log=../log", "console-log=/usr/../log");
        assert_absolute("firmware=bios", "firmware=/usr/bios");
        assert_int_equal(chdir("/"), 0);
        assert_absolute("kernel=vmlinuz", "kernel=/vmlinuz");
}

static void all_else_stays_as_it_is(void **state)
{
        static const char *const words[] = {"kernel=/boot/vmlinuz", "kernel=", "firmware=seabios",
                                            "cmdline=a=b",          "cpus=4",  "kernel"};

        for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
                assert_absolute(words[i], words[i]);
}

static void a_relative_path_is_not_set(void **state)
{
        struct known k = {.lock = -1};
        struct error e = ERROR_INIT;

        assert_int_equal(change_set(&k, "kernel=vmlinuz", &e), -EINVAL);
        assert_string_equal(e.message, "'kernel=vmlinuz' does not name an absolute path");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(a_relative_path_is_taken_from_the_working_folder),
            cmocka_unit_test(all_else_stays_as_it_is),
            cmocka_unit_test(a_relative_path_is_not_set),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
