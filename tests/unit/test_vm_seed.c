/* test_vm_seed.c - the disk for cloud-init: what others read in it, and that it is always the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>
#include <blkid.h>
#include <cmocka.h>
#include "vm/seed.h"

static char folder[64];

static int setup(void **state)
{
        snprintf(folder, sizeof(folder), "/tmp/tarn-seed-XXXXXX");
        return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
        char command[128];

        snprintf(command, sizeof(command), "rm -rf '%s'", folder);
        return system(command);
}

/* In the test's folder; data may hold any bytes. */
static void write_file(const char *name, const void *data, size_t length)
{
        char path[128];
        FILE *f;

        snprintf(path, sizeof(path), "%s/%s", folder, name);
        f = fopen(path, "w");
        assert_non_null(f);
        assert_int_equal(fwrite(data, 1, length, f), length);
        assert_int_equal(fclose(f), 0);
}

/* A VM by the name and the lines of its seed. */
static struct vm_file *vm(const char *name, const char *seed)
{
        struct vm_file *file;
        struct error e = ERROR_INIT;
        char text[4096];

        snprintf(text, sizeof(text), "name: %s\nkernel: k\nseed:%s\n", name, seed);
        if (vm_file_parse(text, strlen(text), "web.yaml", folder, &file, &e) < 0)
                fail_msg("%s", e.message);
        return file;
}

/* The disk of that VM, as a file "seed.iso" as well. */
static int make(const char *name, const char *seed, uint64_t *ret_size)
{
        struct vm_file *file = vm(name, seed);
        struct error e = ERROR_INIT;
        int fd = -1;
        void *data;

        if (vm_seed_make(file, "id-\"1\"", &fd, ret_size, &e) < 0)
                fail_msg("%s", e.message);
        vm_file_free(file);
        data = malloc(*ret_size);
        assert_non_null(data);
        assert_int_equal(pread(fd, data, *ret_size, 0), *ret_size);
        write_file("seed.iso", data, *ret_size);
        free(data);
        return fd;
}

/* What bsdtar, told to look at one kind of names only, finds in seed.iso under @name. */
static char *extract(const char *options, const char *name)
{
        static char text[2u << 20];
        char command[256];
        FILE *pipe;

        snprintf(command, sizeof(command), "bsdtar -x -O --options '%s' -f '%s/seed.iso' '%s'",
                 options, folder, name);
        pipe = popen(command, "r");
        assert_non_null(pipe);
        size_t n = fread(text, 1, sizeof(text) - 1, pipe);
        text[n] = '\0';
        assert_int_equal(pclose(pipe), 0);
        return text;
}

static void holds(const char *name, const char *text)
{
        assert_string_equal(extract("iso9660:!joliet", name), text);
        assert_string_equal(extract("iso9660:!rockridge", name), text);
}

static void names_are(const char *options, const char *names)
{
        char command[256], text[256];
        FILE *pipe;

        snprintf(command, sizeof(command),
                 "bsdtar -t --options '%s' -f '%s/seed.iso' | sort | tr '\\n' ' '", options,
                 folder);
        pipe = popen(command, "r");
        assert_non_null(pipe);
        size_t n = fread(text, 1, sizeof(text) - 1, pipe);
        text[n] = '\0';
        assert_int_equal(pclose(pipe), 0);
        assert_string_equal(text, names);
}

static void a_seed_without_files_tells_host_name_and_keys(void **state)
{
        uint64_t size;
        int fd = make("web_1",
                      "\n  ssh-keys:\n"
                      "    - 'ssh-rsa AAAAx \"me\" \\ \xc3\xa4'\n"
                      "    - ssh-ed25519 AAAAy",
                      &size);

        holds("user-data", "#cloud-config\n"
                           "hostname: \"web-1\"\n"
                           "ssh_authorized_keys:\n"
                           "  - \"ssh-rsa AAAAx \\\"me\\\" \\\\ \xc3\xa4\"\n"
                           "  - \"ssh-ed25519 AAAAy\"\n");
        holds("meta-data", "instance-id: \"id-\\\"1\\\"\"\n"
                           "local-hostname: \"web-1\"\n");
        names_are("iso9660:!joliet", ". meta-data user-data ");
        names_are("iso9660:!rockridge", ". meta-data user-data ");
        close(fd);
}

static void keys_go_where_user_data_leaves_them(void **state)
{
        uint64_t size;
        int fd;

        write_file("user.yaml", "#cloud-config\nx: 1\n", 19);
        fd = make("web",
                  "\n  hostname: web.example.org\n"
                  "  ssh-keys: [ssh-rsa AAAAx]\n"
                  "  user-data: user.yaml",
                  &size);
        holds("user-data", "#cloud-config\nx: 1\n");
        holds("meta-data", "instance-id: \"id-\\\"1\\\"\"\n"
                           "local-hostname: \"web.example.org\"\n"
                           "public-keys:\n"
                           "  - \"ssh-rsa AAAAx\"\n");
        close(fd);
}

static void files_are_taken_as_they_are(void **state)
{
        uint64_t size;
        char *big = malloc(VM_SEED_FILE_MAX);
        int fd;

        assert_non_null(big);
        for (size_t i = 0; i < VM_SEED_FILE_MAX; i++)
                big[i] = (char)('a' + i * 31 / 7 % 26);
        write_file("user.bin", big, VM_SEED_FILE_MAX);
        write_file("meta.yaml", "", 0);
        big[4095] = '\0';
        write_file("net.yaml", big, 4095);
        fd = make("web",
                  "\n  user-data: user.bin\n  meta-data: meta.yaml\n"
                  "  network-config: net.yaml",
                  &size);
        assert_int_equal(size, 25 * 2048 + VM_SEED_FILE_MAX + 4096);
        holds("network-config", big);
        holds("meta-data", "");
        big[4095] = (char)('a' + 4095 * 31 / 7 % 26);
        assert_memory_equal(extract("iso9660:!joliet", "user-data"), big, VM_SEED_FILE_MAX);
        names_are("iso9660:!joliet", ". meta-data network-config user-data ");
        names_are("iso9660:!rockridge", ". meta-data network-config user-data ");
        names_are("iso9660:!rockridge,!joliet", ". META_DATA NETWORK_CONFIG USER_DATA ");
        close(fd);
        free(big);
}

static void blkid_knows_the_label(void **state)
{
        uint64_t size;
        int fd = make("web", " {}", &size);
        blkid_probe probe = blkid_new_probe();
        const char *value;

        assert_non_null(probe);
        assert_int_equal(blkid_probe_set_device(probe, fd, 0, (blkid_loff_t)size), 0);
        assert_int_equal(blkid_do_safeprobe(probe), 0);
        assert_int_equal(blkid_probe_lookup_value(probe, "LABEL", &value, NULL), 0);
        assert_string_equal(value, "cidata");
        assert_int_equal(blkid_probe_lookup_value(probe, "TYPE", &value, NULL), 0);
        assert_string_equal(value, "iso9660");
        blkid_free_probe(probe);
        close(fd);
}

static void the_same_gives_the_same_bytes_at_any_time(void **state)
{
        uint64_t size[2];
        int fd[2];
        char *a, *b;

        fd[0] = make("web", " {hostname: a}", &size[0]);
        sleep(1);
        assert_int_equal(setenv("TZ", "Asia/Tokyo", 1), 0);
        fd[1] = make("web", " {hostname: a}", &size[1]);
        assert_int_equal(unsetenv("TZ"), 0);
        assert_int_equal(size[0], size[1]);
        a = malloc(size[0]);
        b = malloc(size[0]);
        assert_true(a && b);
        assert_int_equal(pread(fd[0], a, size[0], 0), size[0]);
        assert_int_equal(pread(fd[1], b, size[0], 0), size[0]);
        assert_memory_equal(a, b, size[0]);
        free(a);
        free(b);
        close(fd[0]);
        close(fd[1]);
}

static void nobody_changes_it(void **state)
{
        uint64_t size;
        int fd = make("web", " {}", &size);

        assert_int_equal(size % 512, 0);
        assert_int_equal(lseek(fd, 0, SEEK_END), size);
        assert_int_equal(pwrite(fd, "x", 1, 0), -1);
        assert_int_equal(errno, EPERM);
        assert_int_equal(ftruncate(fd, 0), -1);
        assert_int_equal(ftruncate(fd, (off_t)size + 1), -1);
        assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
        close(fd);
}

static void names_of_vms_become_host_names(void **state)
{
        static const char *const names[][2] = {
            {"a", "a"},      {"a_b", "a-b"},  {"a.", "a"},     {"a-", "a"},      {"a_.-", "a"},
            {"a..b", "a.b"}, {"a-.b", "a.b"}, {"a.-b", "a.b"}, {"A--b", "A--b"},
        };
        char seed[64], expected[128];

        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
                uint64_t size;
                int fd = make(names[i][0], " {}", &size);

                snprintf(expected, sizeof(expected), "#cloud-config\nhostname: \"%s\"\n",
                         names[i][1]);
                holds("user-data", expected);
                close(fd);
                /* It is one that may be asked for. */
                snprintf(seed, sizeof(seed), " {hostname: '%s'}", names[i][1]);
                vm_file_free(vm("web", seed));
        }
}

static void refused(const char *seed, int code, const char *message)
{
        struct vm_file *file = vm("web", seed);
        struct error e = ERROR_INIT;
        uint64_t size = 0;
        int fd = -1, lowest = dup(0);

        assert_int_equal(vm_seed_make(file, "1", &fd, &size, &e), code);
        assert_non_null(strstr(e.message, message));
        assert_int_equal(fd, -1);
        close(lowest);
        fd = dup(0);
        assert_int_equal(fd, lowest); /* no descriptor is left open */
        close(fd);
        vm_file_free(file);
}

static void files_that_cannot_be_taken_are_named(void **state)
{
        char *big = calloc(1, VM_SEED_FILE_MAX + 1);

        assert_non_null(big);
        write_file("big", big, VM_SEED_FILE_MAX + 1);
        refused(" {user-data: big}", -EFBIG, "/big' is larger than 1 MiB");
        refused(" {user-data: none}", -ENOENT, "cannot read user-data '");
        refused(" {meta-data: none}", -ENOENT, "cannot read meta-data '");
        refused(" {network-config: none}", -ENOENT, "cannot read network-config '");
        refused(" {user-data: .}", -EISDIR, "Is a directory");
        free(big);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(a_seed_without_files_tells_host_name_and_keys),
            cmocka_unit_test(keys_go_where_user_data_leaves_them),
            cmocka_unit_test(files_are_taken_as_they_are),
            cmocka_unit_test(blkid_knows_the_label),
            cmocka_unit_test(the_same_gives_the_same_bytes_at_any_time),
            cmocka_unit_test(nobody_changes_it),
            cmocka_unit_test(names_of_vms_become_host_names),
            cmocka_unit_test(files_that_cannot_be_taken_are_named),
        };

        return cmocka_run_group_tests_name("vm_seed", tests, setup, teardown);
}
