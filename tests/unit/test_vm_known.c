/* test_vm_known.c - machines that were started before: who locks one sees what others did with it until
 * then. They do it between the reading of its file and the lock. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <sys/file.h>
#include <cmocka.h>
#include "vm/known.h"

static char folder[64];
static void (*meanwhile)(void); /* once, before the next lock */

int __real_flock(int fd, int operation);
int __wrap_flock(int fd, int operation);

int __wrap_flock(int fd, int operation)
{
        void (*act)(void) = meanwhile;

        meanwhile = NULL;
        if (act)
                act();
        return __real_flock(fd, operation);
}

static int setup(void **state)
{
        snprintf(folder, sizeof(folder), "/tmp/tarn-known-XXXXXX");
        if (!mkdtemp(folder))
                return -1;
        return setenv("TARN_STATE_DIR", folder, 1);
}

static int teardown(void **state)
{
        char command[128];

        snprintf(command, sizeof(command), "rm -rf '%s'", folder);
        return system(command);
}

static void make(void)
{
        static const char text[] = "name: web\ncpus: 1\nkernel: k\n";
        struct vm_file *file;
        struct known *k;

        assert_int_equal(vm_file_parse(text, strlen(text), "web", "/", &file, NULL), 0);
        assert_int_equal(known_take(file, &k, NULL), 0);
        known_free(k);
}

static void change(void)
{
        struct known *k;

        assert_int_equal(known_lock("web", &k, NULL), 0);
        k->file->n_cpus = 4;
        assert_int_equal(known_save(k, NULL), 0);
        known_free(k);
}

static void delete (void)
{
        struct known *k;

        assert_int_equal(known_lock("web", &k, NULL), 0);
        assert_int_equal(known_remove(k, NULL), 0);
        known_free(k);
}

static void delete_and_make(void)
{
        delete ();
        make();
}

static void who_locks_one_has_what_others_have_changed(void **state)
{
        struct known *k;

        make();
        meanwhile = change;
        assert_int_equal(known_lock("web", &k, NULL), 0);
        assert_int_equal(k->file->n_cpus, 4);
        known_free(k);
}

static void assert_deleted(void)
{
        struct error e = ERROR_INIT;
        struct known *k = NULL;

        assert_int_equal(known_lock("web", &k, &e), -ENOENT);
        assert_string_equal(e.message, "machine 'web' was deleted meanwhile");
        assert_null(k);
}

static void one_that_is_deleted_is_not_locked(void **state)
{
        make();
        meanwhile = delete;
        assert_deleted();
}

static void another_one_of_its_name_has_another_lock(void **state)
{
        struct known *k;

        make();
        meanwhile = delete_and_make;
        assert_deleted();
        assert_int_equal(known_lock("web", &k, NULL), 0);
        known_free(k);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test_setup_teardown(who_locks_one_has_what_others_have_changed, setup,
                                            teardown),
            cmocka_unit_test_setup_teardown(one_that_is_deleted_is_not_locked, setup, teardown),
            cmocka_unit_test_setup_teardown(another_one_of_its_name_has_another_lock, setup,
                                            teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
