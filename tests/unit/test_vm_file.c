/* test_vm_file.c - VM files: what each key says, and that what is written says the same. */
#include <sys/stat.h>
#include <unistd.h>
#include "tests/unit/vm_file_try.h"

static void a_machine_with_a_kernel_has_defaults(void **state)
{
        static const uint8_t none[16];
        struct vm_file *f = parse(MINIMAL);

        assert_string_equal(f->name, "web");
        assert_memory_equal(f->uuid, none, 16);
        assert_int_equal(f->n_cpus, 1);
        assert_int_equal(f->memory_bytes, 512u << 20);
        assert_int_equal(f->memory_max_bytes, 512u << 20);
        assert_false(f->hugepages);
        assert_string_equal(f->kernel, "/srv/vms/vmlinuz");
        assert_null(f->initrd);
        assert_null(f->cmdline);
        assert_null(f->firmware);
        assert_int_equal(f->n_disks, 0);
        assert_int_equal(f->n_nics, 0);
        assert_true(f->rng);
        assert_true(f->balloon);
        assert_int_equal(f->vsock_cid, 0);
        assert_int_equal(f->cpu_weight, 0);
        assert_int_equal(f->cpu_max_percent, 0);
        assert_null(f->seed);
        assert_null(f->console_log);
        assert_false(f->autostart);
        assert_int_equal(f->on_crash, VM_ON_CRASH_POWEROFF);
        vm_file_free(f);
        vm_file_free(NULL);
}

static const char everything[] = "# what can be said\n"
                                 "---\n"
                                 "name: web-1.example_x\n"
                                 "uuid: DEADBEEF-0304-0506-0708-090a0b0c0d0e\n"
                                 "cpus: 64\n"
                                 "cpu-weight: 10000\n"
                                 "cpu-max: 250%\n"
                                 "memory: 1.5G\n"
                                 "memory-max: 4G\n"
                                 "hugepages: yes\n"
                                 "kernel: boot/vmlinuz\n"
                                 "initrd: /boot/initrd.img\n"
                                 "cmdline: \"root=/dev/vda1 console=ttyS0: #'x'  quiet\"\n"
                                 "disks:\n"
                                 "  - volume: tank/web\n"
                                 "    serial: 'ROOT 1'\n"
                                 "    queues: 4\n"
                                 "    boot: 2\n"
                                 "    from: images/debian.qcow2\n"
                                 "    size: 20G\n"
                                 "  - {volume: tank/data, from: tank/base@v1, boot: 1}\n"
                                 "  - volume: tank/base@v1\n"
                                 "  - volume: tank/logs\n"
                                 "    readonly: TRUE\n"
                                 "    from: ./tank/base@v1\n"
                                 "  - {volume: tank/new, size: 1536}\n"
                                 "network:\n"
                                 "  - type: user\n"
                                 "    mac: 52:54:00:aB:cd:0f\n"
                                 "    forward:\n"
                                 "      - tcp:8080:80\n"
                                 "      - udp:127.0.0.1:53:5353\n"
                                 "      - tcp:[::1]:2222:22\n"
                                 "  - type: tap\n"
                                 "    tap: tap-web.0\n"
                                 "vsock:\n"
                                 "  cid: 4294967294\n"
                                 "rng: off\n"
                                 "balloon: No\n"
                                 "seed:\n"
                                 "  hostname: web-1.example.org\n"
                                 "  ssh-keys:\n"
                                 "    - ssh-ed25519 AAAAC3NzaC1 \xc3\xa4 # me: \"x\"\n"
                                 "    - restrict ssh-rsa AAAAB3\n"
                                 "  user-data: user.yaml\n"
                                 "  network-config: /etc/net.yaml\n"
                                 "console-log: web.log\n"
                                 "autostart: true\n"
                                 "on-crash: reboot\n"
                                 "...\n";

static void check_machine(const struct vm_file *f)
{
        static const uint8_t uuid[16] = {0xde, 0xad, 0xbe, 0xef, 3,  4,  5,  6,
                                         7,    8,    9,    10,   11, 12, 13, 14};

        assert_string_equal(f->name, "web-1.example_x");
        assert_memory_equal(f->uuid, uuid, 16);
        assert_int_equal(f->n_cpus, 64);
        assert_int_equal(f->cpu_weight, 10000);
        assert_int_equal(f->cpu_max_percent, 250);
        assert_int_equal(f->memory_bytes, UINT64_C(1536) << 20);
        assert_int_equal(f->memory_max_bytes, UINT64_C(4) << 30);
        assert_true(f->hugepages);
        assert_string_equal(f->kernel, "/srv/vms/boot/vmlinuz");
        assert_string_equal(f->initrd, "/boot/initrd.img");
        assert_string_equal(f->cmdline, "root=/dev/vda1 console=ttyS0: #'x'  quiet");
        assert_int_equal(f->vsock_cid, 4294967294u);
        assert_false(f->rng);
        assert_false(f->balloon);
        assert_string_equal(f->console_log, "/srv/vms/web.log");
        assert_true(f->autostart);
        assert_int_equal(f->on_crash, VM_ON_CRASH_REBOOT);
}

static void check_disks(const struct vm_file *f)
{
        const struct vm_disk *d = f->disks;
        char text[VM_DISK_TEXT_SIZE];

        assert_int_equal(f->n_disks, 5);
        assert_string_equal(d[0].pool, "tank");
        assert_string_equal(d[0].volume, "web");
        assert_string_equal(d[0].snapshot, "");
        assert_false(d[0].readonly);
        assert_string_equal(d[0].serial, "ROOT 1");
        assert_int_equal(d[0].n_queues, 4);
        assert_int_equal(d[0].boot, 2);
        assert_string_equal(d[0].from_image, "/srv/vms/images/debian.qcow2");
        assert_string_equal(d[0].from_volume, "");
        assert_int_equal(d[0].size_bytes, UINT64_C(20) << 30);
        assert_string_equal(vm_disk_text(&d[0], text), "tank/web");
        assert_null(d[1].from_image);
        assert_string_equal(d[1].from_volume, "base");
        assert_string_equal(d[1].from_snapshot, "v1");
        assert_int_equal(d[1].n_queues, 0);
        assert_int_equal(d[1].boot, 1);
        assert_string_equal(d[2].snapshot, "v1");
        assert_true(d[2].readonly);
        assert_string_equal(d[2].serial, "");
        assert_int_equal(d[2].boot, 0);
        assert_string_equal(vm_disk_text(&d[2], text), "tank/base@v1");
        assert_true(d[3].readonly);
        assert_string_equal(d[3].from_image, "/srv/vms/./tank/base@v1");
        assert_null(d[4].from_image);
        assert_int_equal(d[4].size_bytes, 1536);
}

static void check_network(const struct vm_file *f)
{
        static const uint8_t mac[6] = {0x52, 0x54, 0, 0xab, 0xcd, 0x0f};
        const struct vm_nic *n = f->nics;

        assert_int_equal(f->n_nics, 2);
        assert_int_equal(n[0].type, VM_NIC_USER);
        assert_string_equal(n[0].tap, "");
        assert_true(n[0].has_mac);
        assert_memory_equal(n[0].mac, mac, 6);
        assert_int_equal(n[0].n_forwards, 3);
        assert_false(n[0].forwards[0].udp);
        assert_string_equal(n[0].forwards[0].address, "");
        assert_int_equal(n[0].forwards[0].host_port, 8080);
        assert_int_equal(n[0].forwards[0].guest_port, 80);
        assert_true(n[0].forwards[1].udp);
        assert_string_equal(n[0].forwards[1].address, "127.0.0.1");
        assert_int_equal(n[0].forwards[1].guest_port, 5353);
        assert_string_equal(n[0].forwards[2].address, "::1");
        assert_int_equal(n[0].forwards[2].host_port, 2222);
        assert_int_equal(n[1].type, VM_NIC_TAP);
        assert_string_equal(n[1].tap, "tap-web.0");
        assert_false(n[1].has_mac);
        assert_int_equal(n[1].n_forwards, 0);
}

static void check_seed(const struct vm_file *f)
{
        const struct vm_seed *s = f->seed;

        assert_non_null(s);
        assert_string_equal(s->hostname, "web-1.example.org");
        assert_int_equal(s->n_ssh_keys, 2);
        assert_string_equal(s->ssh_keys[0], "ssh-ed25519 AAAAC3NzaC1 \xc3\xa4");
        assert_string_equal(s->ssh_keys[1], "restrict ssh-rsa AAAAB3");
        assert_string_equal(s->user_data, "/srv/vms/user.yaml");
        assert_null(s->meta_data);
        assert_string_equal(s->network_config, "/etc/net.yaml");
}

static void every_key_says_what_it_says(void **state)
{
        struct vm_file *f = parse(everything);

        check_machine(f);
        check_disks(f);
        check_network(f);
        check_seed(f);
        vm_file_free(f);
}

/* Write @f, read that, and write it again. */
static struct vm_file *through_text(const struct vm_file *f)
{
        struct vm_file *back;
        char *text, *again;

        assert_int_equal(vm_file_write(f, &text, NULL), 0);
        back = parse(text);
        assert_int_equal(vm_file_write(back, &again, NULL), 0);
        assert_string_equal(text, again);
        free(text);
        free(again);
        return back;
}

static void what_is_written_says_the_same(void **state)
{
        struct vm_file *f = parse(everything), *back = through_text(f);

        check_machine(back);
        check_disks(back);
        check_network(back);
        check_seed(back);
        vm_file_free(f);
        vm_file_free(back);
}

static void what_is_by_default_is_not_written(void **state)
{
        struct vm_file *f = parse(MINIMAL "seed: {}\n");
        char *text;

        assert_non_null(f->seed);
        assert_int_equal(vm_file_write(f, &text, NULL), 0);
        assert_string_equal(text, "name: web\ncpus: 1\nmemory: 512M\n"
                                  "kernel: /srv/vms/vmlinuz\nseed: {}\n");
        free(text);
        vm_file_free(f);
}

/* Words that other readers of YAML take for something else, and letters with a meaning. */
static void any_text_survives_being_written(void **state)
{
        /* Longer than a line of the writer's. */
        static const char long_cmdline[] =
            "1234567890123456789012345678901234567890123456789012345678901234567890123456789 x "
            "console=ttyS0  root=UUID=12345678-1234-1234-1234-123456789012 ro quiet   panic=-1";
        static const char *const cmdlines[] = {
            "null",
            "true",
            "0x10",
            "a: b",
            "- a",
            "#a",
            "a #b",
            "'",
            "\"",
            "\\",
            "'\"\\",
            "{a}",
            "[a",
            "*a",
            "&a",
            "!a",
            "%a",
            "@a",
            "`a",
            "|",
            ">",
            "? a",
            " a ",
            "a  b   c",
            "\xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80",
            "\xef\xbb\xbf",
            "...",
            "---",
            long_cmdline,
        };

        for (size_t i = 0; i < sizeof(cmdlines) / sizeof(cmdlines[0]); i++) {
                struct vm_file *f = parse(MINIMAL), *back;

                f->cmdline = strdup(cmdlines[i]);
                assert_non_null(f->cmdline);
                back = through_text(f);
                assert_string_equal(back->cmdline, cmdlines[i]);
                vm_file_free(f);
                vm_file_free(back);
        }
}

static void what_is_no_text_is_not_written(void **state)
{
        struct vm_file *f = parse(MINIMAL);
        struct error e = ERROR_INIT;
        char *text = NULL;

        f->cmdline = strdup("\xff");
        assert_int_equal(vm_file_write(f, &text, &e), -EINVAL);
        assert_null(text);
        assert_non_null(strstr(e.message, "the VM cannot be written: "));
        vm_file_free(f);
}

static void sizes_are_written_whole(void **state)
{
        static const uint64_t sizes[] = {512, 1536, 1u << 20, UINT64_C(3) << 40, VOLUME_SIZE_MAX};
        struct vm_file *f = parse("name: a\ndisks: [{volume: t/v, size: 1K}]"), *back;

        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
                f->disks[0].size_bytes = sizes[i];
                back = through_text(f);
                assert_int_equal(back->disks[0].size_bytes, sizes[i]);
                vm_file_free(back);
        }
        vm_file_free(f);
}

static void firmware_is_seabios_or_a_path(void **state)
{
        struct vm_file *f = parse("name: a\nfirmware: seabios\ndisks: [{volume: a/b}]"), *back;

        assert_null(f->firmware);
        assert_null(f->kernel);
        vm_file_free(f);
        f = parse("name: a\nfirmware: ./seabios\ndisks: [{volume: a/b}]");
        assert_string_equal(f->firmware, "/srv/vms/./seabios");
        back = through_text(f);
        assert_string_equal(back->firmware, "/srv/vms/./seabios");
        vm_file_free(f);
        vm_file_free(back);
}

static void a_path_is_taken_from_where_the_file_lies(void **state)
{
        char folder[] = "/tmp/tarn-vm-XXXXXX", path[64], link_path[64], real[64];
        struct vm_file *f = NULL;
        struct error e = ERROR_INIT;
        FILE *out;

        assert_non_null(mkdtemp(folder));
        snprintf(path, sizeof(path), "%s/d", folder);
        assert_int_equal(mkdir(path, 0700), 0);
        snprintf(path, sizeof(path), "%s/d/web.yaml", folder);
        snprintf(link_path, sizeof(link_path), "%s/link.yaml", folder);
        snprintf(real, sizeof(real), "%s/d/vmlinuz", folder);
        out = fopen(path, "w");
        assert_non_null(out);
        assert_true(fputs(MINIMAL, out) >= 0);
        assert_int_equal(fclose(out), 0);
        assert_int_equal(symlink("d/web.yaml", link_path), 0);
        assert_int_equal(vm_file_load(path, &f, &e), 0);
        assert_string_equal(f->kernel, real);
        vm_file_free(f);
        assert_int_equal(vm_file_load(link_path, &f, &e), 0);
        assert_string_equal(f->kernel, real);
        vm_file_free(f);
        assert_int_equal(truncate(path, 9), 0);
        assert_int_equal(vm_file_load(path, &f, &e), -EINVAL);
        assert_int_equal(strncmp(e.message, path, strlen(path)), 0);
        assert_non_null(strstr(e.message, "yaml:1:1: there is nothing to boot"));
        assert_int_equal(truncate(path, VM_FILE_MAX + 1), 0);
        assert_int_equal(vm_file_load(path, &f, &e), -EFBIG);
        assert_int_equal(unlink(path), 0);
        assert_int_equal(vm_file_load(path, &f, &e), -ENOENT);
        assert_non_null(strstr(e.message, "cannot open '"));
        assert_int_equal(unlink(link_path), 0);
        snprintf(path, sizeof(path), "%s/d", folder);
        assert_int_equal(vm_file_load(path, &f, &e), -EISDIR);
        assert_int_equal(rmdir(path), 0);
        assert_int_equal(rmdir(folder), 0);
}

/* The pieces of the page that look like code begin with what is described: a name. */
static void the_manual_has_good_examples(void **state)
{
        const char *path = getenv("MANUAL");
        char line[256], example[4096];
        unsigned n_examples = 0;
        FILE *in;

        if (!path)
                skip();
        in = fopen(path, "r");
        assert_non_null(in);
        while (fgets(line, sizeof(line), in)) {
                size_t n = 0;

                if (strcmp(line, "```\n") != 0)
                        continue;
                while (fgets(line, sizeof(line), in) && strcmp(line, "```\n") != 0)
                        n += (size_t)snprintf(example + n, sizeof(example) - n, "%s", line);
                vm_file_free(parse(example));
                n_examples++;
        }
        assert_int_equal(fclose(in), 0);
        assert_in_range(n_examples, 3, 100);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(a_machine_with_a_kernel_has_defaults),
            cmocka_unit_test(every_key_says_what_it_says),
            cmocka_unit_test(what_is_written_says_the_same),
            cmocka_unit_test(what_is_by_default_is_not_written),
            cmocka_unit_test(any_text_survives_being_written),
            cmocka_unit_test(what_is_no_text_is_not_written),
            cmocka_unit_test(sizes_are_written_whole),
            cmocka_unit_test(firmware_is_seabios_or_a_path),
            cmocka_unit_test(a_path_is_taken_from_where_the_file_lies),
            cmocka_unit_test(the_manual_has_good_examples),
        };

        return cmocka_run_group_tests_name("vm_file", tests, NULL, NULL);
}
