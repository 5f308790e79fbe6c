/* open_fds.h - for tests that no descriptor leaks.
 *
 * Errors     what fails fails the running cmocka test.
 */
#pragma once
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

/* Of this process, and some that are always there. */
static inline unsigned count_open_fds(void)
{
        DIR *folder = opendir("/proc/self/fd");
        unsigned n = 0;

        assert_non_null(folder);
        while (readdir(folder))
                n++;
        closedir(folder);
        return n;
}
