/* test_opener.c - which other files an image may have opened: what lies in its folder, and what the user
 * names; and nothing that only looks so. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include <cmocka.h>
#include "formats/opener.h"

/* A folder with images/{disk,base,sub/base}, secret/{file,deep/file}, and links. */
static char top[] = "/tmp/tarn-opener-XXXXXX";

static void make_file(const char *path)
{
        FILE *f = fopen(path, "w");

        assert_non_null(f);
        assert_true(fputs(path, f) >= 0);
        assert_int_equal(fclose(f), 0);
}

static int make_tree(void **state)
{
        static const char *const folders[] = {"images", "images/sub", "secret", "secret/deep",
                                              "secrets"};
        static const char *const files[] = {"images/disk", "images/base",      "images/sub/base",
                                            "secret/file", "secret/deep/file", "secrets/file"};

        if (!mkdtemp(top) || chdir(top) < 0)
                return -1;
        for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++)
                if (mkdir(folders[i], 0755) < 0)
                        return -1;
        for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
                make_file(files[i]);
        return symlink("../secret/file", "images/out") < 0 ||
               symlink("../secret", "images/up") < 0 || symlink("base", "images/in") < 0 ||
               symlink("images", "alias") < 0 || symlink("/proc/self/fd", "images/magic") < 0 ||
               symlink("loop", "images/loop") < 0 || mkfifo("images/pipe", 0600) < 0;
}

static int remove_tree(void **state)
{
        char command[64];

        snprintf(command, sizeof(command), "rm -rf '%s'", top);
        return system(command);
}

static int open_as(const char *from, const char *name, const char *allowed, struct error *err)
{
        char content[64] = "";
        char *path;
        int fd,
            r = opener_open(from, name, IMAGE_BACKING, &allowed, allowed ? 1 : 0, &fd, &path, err);

        if (r < 0)
                return r;
        assert_true(read(fd, content, sizeof(content) - 1) >= 0);
        assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
        assert_int_equal(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
        close(fd);
        /* What that file names in turn is relative to where it is. */
        assert_int_equal(access(path, R_OK), 0);
        free(path);
        return content[0] ? 0 : 1;
}

static void permitted(const char *from, const char *name, const char *allowed)
{
        struct error e = ERROR_INIT;
        int r = open_as(from, name, allowed, &e);

        if (r < 0)
                fail_msg("'%s' may not open '%s': %s", from, name, e.message);
}

static void refused(const char *from, const char *name, const char *allowed, int code,
                    const char *words)
{
        struct error e = ERROR_INIT;

        assert_int_equal(open_as(from, name, allowed, &e), code);
        if (!strstr(e.message, words))
                fail_msg("'%s' lacks '%s'", e.message, words);
        assert_non_null(strstr(e.message, from));
        if (code == -EPERM)
                assert_non_null(strstr(e.hint, "--allow"));
}

static char *absolute(const char *path)
{
        static char text[PATH_MAX];

        snprintf(text, sizeof(text), "%s/%s", top, path);
        return text;
}

static void its_own_folder_and_below(void **state)
{
        permitted("images/disk", "base", NULL);
        permitted("images/disk", "sub/base", NULL);
        permitted("images/disk", "./sub/../base", NULL);
        permitted("images/disk", "../images/base", NULL);
        permitted("images/disk", "in", NULL);
        permitted("alias/disk", "base", NULL);
        permitted("images/disk", absolute("images/base"), NULL);
        permitted(absolute("images/disk"), "base", NULL);
        assert_int_equal(chdir("images"), 0);
        permitted("disk", "base", NULL);
        refused("disk", "../secret/file", NULL, -EPERM, "lies outside");
        assert_int_equal(chdir(top), 0);
}

static void nothing_that_leads_out(void **state)
{
        refused("images/disk", "../secret/file", NULL, -EPERM, "lies outside");
        refused("images/disk", absolute("secret/file"), NULL, -EPERM, "lies outside");
        refused("images/disk", "out", NULL, -EPERM, "lies outside");
        refused("images/disk", "up/deep/file", NULL, -EPERM, "lies outside");
        refused("images/sub/base", "../base", NULL, -EPERM, "lies outside");
        refused("images/disk", "/etc/passwd", NULL, -EPERM, "lies outside");
        /* A folder whose name begins alike. */
        refused("secret/file", "../secrets/file", NULL, -EPERM, "lies outside");
}

static void no_magic_links(void **state)
{
        int fd = open("secret/file", O_RDONLY);
        char name[32];

        assert_true(fd >= 0);
        snprintf(name, sizeof(name), "magic/%d", fd);
        refused("images/disk", name, NULL, -EPERM, "lies outside");
        refused("images/disk", name, "images", -EPERM, "lies outside");
        close(fd);
}

static void what_the_user_names(void **state)
{
        permitted("images/disk", "../secret/file", "secret");
        permitted("images/disk", "../secret/deep/file", "secret");
        permitted("images/disk", "out", "secret");
        permitted("images/disk", "out", "secret/file");
        permitted("images/disk", "out", "images/out");
        permitted("images/disk", "../secret/file", "/");
        permitted("images/disk", "base", "secret");
        refused("images/disk", "../secret/deep/file", "secret/file", -EPERM, "lies outside");
        refused("images/disk", "../secret/file", "secret/deep", -EPERM, "lies outside");
        refused("images/disk", "../secrets/file", "secret", -EPERM, "lies outside");
}

static void not_all_that_has_a_name_is_a_file(void **state)
{
        refused("images/disk", "", NULL, -EINVAL, "does not name");
        refused("images/disk", "nbd:localhost:10809", "/", -EINVAL, "protocol's address");
        refused("images/disk", "nbd://localhost", "/", -EINVAL, "protocol's address");
        refused("images/disk", "json:{\"driver\":\"file\"}", "/", -EINVAL, "protocol's address");
        refused("images/disk", "file:base", "/", -EINVAL, "protocol's address");
        refused("images/disk", "sub", NULL, -EINVAL, "neither a regular file");
        refused("images/disk", ".", NULL, -EINVAL, "neither a regular file");
        refused("images/disk", "pipe", NULL, -EINVAL, "neither a regular file");
        refused("images/disk", "/dev/zero", "/", -EINVAL, "neither a regular file");
        refused("images/disk", "none", NULL, -ENOENT, "No such file");
        refused("images/disk", "loop", NULL, -ELOOP, "cannot open 'loop'");
        refused("images/disk", "base/below", NULL, -ENOTDIR, "cannot open");
}

static void a_place_that_is_allowed_has_to_be_there(void **state)
{
        struct error e = ERROR_INIT;

        assert_int_equal(open_as("images/disk", "../secret/file", "nowhere", &e), -ENOENT);
        assert_non_null(strstr(e.message, "'nowhere', which is allowed"));
}

static void names_that_are_too_long(void **state)
{
        static char name[3 * PATH_MAX];

        memset(name, 'x', sizeof(name) - 1);
        refused("images/disk", name, NULL, -ENAMETOOLONG, "cannot open");
        name[PATH_MAX - 4] = '\0';
        refused("images/disk", name, NULL, -ENAMETOOLONG, "cannot open");
        name[300] = '\0';
        refused("images/disk", name, NULL, -ENAMETOOLONG, "cannot open");
}

/* A device does things by being opened: only where it is named. */
static void devices(void **state)
{
        const char *allowed = "images/device";
        struct error e = ERROR_INIT;
        char *path;
        int fd, r;

        if (mknod("images/device", S_IFBLK | 0600, makedev(7, 1000)) < 0)
                skip();
        refused("images/disk", "device", NULL, -EPERM, "is a device");
        r = opener_open("images/disk", "device", IMAGE_BACKING, &allowed, 1, &fd, &path, &e);
        if (r == 0) {
                close(fd);
                free(path);
        } else {
                assert_int_not_equal(r, -EPERM);
        }
}

/* An export is not a file: only what the user says, and by "nbd://HOST/" no keys, sockets or other hosts. */
static void exports_that_the_user_names(void **state)
{
        static const struct {
                const char *allowed, *name;
                bool permitted;
        } cases[] = {
            {"nbd://host/x", "nbd://host/x", true},
            {"nbd://host/x", "nbd://host/xy", false},
            {"nbd://host/x", "nbd://host/", false},
            {"nbd://host", "nbd://host/x", false},
            {"nbd://host/", "nbd://host/x", true},
            {"nbd://host/", "nbd://host/", true},
            {"nbd://host/a/", "nbd://host/a/b", true},
            {"nbd://host/a/", "nbd://host/b", false},
            {"nbd://host/", "nbd://host.example/x", false},
            {"nbd://host/", "nbd://host@example/x", false},
            {"nbd://host/", "nbd://host:10810/x", false},
            {"nbd://host/", "nbds://host/x", false},
            {"nbds://host/", "nbds://host/x?tls-psk-file=/etc/shadow", false},
            {"nbds://host/", "nbds://host/x&tls-certificates=/etc", false},
            {"nbds://host/x?tls-psk-file=/keys", "nbds://host/x?tls-psk-file=/keys", true},
            {"nbd+unix:///", "nbd+unix:///x?socket=/run/x", false},
            {"nbd+unix:///x?socket=/run/x", "nbd+unix:///x?socket=/run/x", true},
            {"nbd+unix:///x?socket=/", "nbd+unix:///x?socket=/run/x", true},
            {"nbd://", "nbd://host/x", false},
            {"nbd:", "nbd://host/x", false},
            {"/", "nbd://host/x", false},
            {".", "nbd://host/x", false},
            {"", "nbd://host/x", false},
        };

        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                const char *both[] = {"images", cases[i].allowed};
                struct error e = ERROR_INIT;
                int r = opener_export("images/disk", cases[i].name, both, 2, &e);

                if (r != (cases[i].permitted ? 0 : -EPERM))
                        fail_msg("'%s' with '%s' allowed: %d", cases[i].name, cases[i].allowed, r);
                if (r < 0)
                        assert_true(strstr(e.message, cases[i].name) && strstr(e.hint, "--allow"));
        }
        assert_int_equal(opener_export("images/disk", "nbd://host/x", NULL, 0, NULL), -EPERM);
        /* Nor does such a word make a file's name one that is allowed, or wrong. */
        permitted("images/disk", "base", "nbd://host/");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(its_own_folder_and_below),
            cmocka_unit_test(nothing_that_leads_out),
            cmocka_unit_test(no_magic_links),
            cmocka_unit_test(what_the_user_names),
            cmocka_unit_test(not_all_that_has_a_name_is_a_file),
            cmocka_unit_test(a_place_that_is_allowed_has_to_be_there),
            cmocka_unit_test(names_that_are_too_long),
            cmocka_unit_test(devices),
            cmocka_unit_test(exports_that_the_user_names),
        };

        return cmocka_run_group_tests(tests, make_tree, remove_tree);
}
