/* test_vm_shortage.c - VM files and seeds where memory runs out: at each allocation in turn, those of
 * libyaml and libcyaml included. The allocator's functions are this program's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <unistd.h>
#include <cmocka.h>
#include "vm/seed.h"

/* glibc's, under the names that it keeps for such programs. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *old, size_t size);
void __libc_free(void *old);

/* Allocations until one fails, once; negative: none does. */
static long countdown = -1;
static long live; /* pieces that nobody has released */

static int fails(void)
{
        if (countdown < 0 || countdown-- > 0)
                return 0;
        errno = ENOMEM;
        return 1;
}

static void *counted(void *new, const void *old)
{
        live += new && !old;
        return new;
}

void *malloc(size_t size)
{
        return fails() ? NULL : counted(__libc_malloc(size), NULL);
}

void *calloc(size_t n, size_t size)
{
        return fails() ? NULL : counted(__libc_calloc(n, size), NULL);
}

/* Nobody here releases by a size of 0. */
void *realloc(void *old, size_t size)
{
        return fails() ? NULL : counted(__libc_realloc(old, size), old);
}

void free(void *old)
{
        live -= old != NULL;
        __libc_free(old);
}

static const char text[] = "name: web\n"
                           "uuid: deadbeef-0304-0506-0708-090a0b0c0d0e\n"
                           "kernel: k\n"
                           "initrd: i\n"
                           "cmdline: root=/dev/vda\n"
                           "disks:\n"
                           "  - volume: t/v\n"
                           "    serial: s\n"
                           "    from: image\n"
                           "network:\n"
                           "  - type: user\n"
                           "    forward: ['tcp:80:80', 'tcp:81:81']\n"
                           "vsock: {cid: 3}\n"
                           "seed:\n"
                           "  ssh-keys: [ssh-rsa AAAA, ssh-rsa AAAAB]\n"
                           "  hostname: h\n"
                           "console-log: l\n";

/* Until @work gets by without the failure; each failure is -ENOMEM with a sentence, and leaves as
 * much allocated as there was. */
static void at_each_allocation(int (*work)(struct error *err))
{
        struct error e = ERROR_INIT;
        long n = 0;
        int r;

        assert_int_equal(work(&e), 0);
        do {
                long before = live;

                countdown = n++;
                e = ERROR_INIT;
                r = work(&e);
                countdown = r == 0 && countdown >= 0 ? -2 : -1;
                if (countdown == -2)
                        break;
                if (r != 0 && (r != -ENOMEM || e.code != r || !e.message[0]))
                        fail_msg("%d of allocation %ld: %s", r, n - 1, e.message);
                assert_int_equal(live, before);
        } while (n < 100000);
        countdown = -1;
        assert_in_range(n, 3, 99999);
}

static int parse(struct error *err)
{
        struct vm_file *file;
        int r = vm_file_parse(text, strlen(text), "web.yaml", "/srv", &file, err);

        if (r == 0)
                vm_file_free(file);
        return r;
}

static struct vm_file *parsed;

static int write_text(struct error *err)
{
        char *written;
        int r = vm_file_write(parsed, &written, err);

        if (r == 0)
                free(written);
        return r;
}

static int make_seed(struct error *err)
{
        uint64_t size;
        int fd, r = vm_seed_make(parsed, "1", &fd, &size, err);

        if (r == 0)
                close(fd);
        return r;
}

static void a_file_is_not_read(void **state)
{
        at_each_allocation(parse);
}

static void a_file_is_not_written(void **state)
{
        at_each_allocation(write_text);
}

static void a_seed_is_not_made(void **state)
{
        at_each_allocation(make_seed);
}

static int setup(void **state)
{
        struct error e = ERROR_INIT;
        int r = vm_file_parse(text, strlen(text), "web.yaml", "/srv", &parsed, &e);

        if (r < 0)
                print_error("%s\n", e.message);
        return r;
}

static int teardown(void **state)
{
        vm_file_free(parsed);
        return 0;
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(a_file_is_not_read),
            cmocka_unit_test(a_file_is_not_written),
            cmocka_unit_test(a_seed_is_not_made),
        };

        return cmocka_run_group_tests_name("vm_shortage", tests, setup, teardown);
}
