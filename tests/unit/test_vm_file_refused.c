/* test_vm_file_refused.c - VM files that are refused, with the place and what was meant: what is no YAML,
 * unknown keys, values of the machine itself, and what is too large. */
#include "tests/unit/vm_file_try.h"

static void what_is_not_yaml_is_refused(void **state)
{
        refused("", "web.yaml:1:1: the file is empty", NULL);
        refused("# only this\n", "web.yaml:1:1: the file is empty", NULL);
        refused("name: web\n\tcpus: 1\n", "web.yaml:2:1: this is not YAML: found a tab character",
                NULL);
        refused("name: web\ncpus 2\nmemory: 1G\n",
                "web.yaml:3:1: this is not YAML: could not find expected ':'", NULL);
        refused("name: [web\n", "web.yaml:2:1: this is not YAML: ", NULL);
        refused("name: \xff\n", "web.yaml:1:", NULL);
        refused("name: a\x01\n", "web.yaml:1:", NULL);
        refused("web\n", "web.yaml:1:1: the file: keys with values belong here", NULL);
        refused("- web\n", "web.yaml:1:1: the file: keys with values belong here", NULL);
        refused("[web]: a\n", "web.yaml:1:1: a key must be a word", NULL);
        refused("name: web\n? {a: b}\n: c\n", "web.yaml:2:3: a key must be a word", NULL);
        refused("name: web\n---\nname: b\n", "web.yaml:2:1: a second document", NULL);
}

static void what_makes_small_files_large_is_refused(void **state)
{
        refused("name: &a web\n", "web.yaml:1:7: anchors", NULL);
        refused("name: web\ndisks: &a\n  - volume: a/b\n", "web.yaml:2:8: anchors", NULL);
        refused("name: web\nseed: &a {}\n", "web.yaml:2:7: anchors", NULL);
        refused("name: *a\n", "web.yaml:1:7: aliases", NULL);
        refused("name: !!str web\n", "web.yaml:1:7: tags", NULL);
        refused("name: web\nseed: !x {}\n", "web.yaml:2:7: tags", NULL);
        refused("name: web\ndisks: !x []\n", "web.yaml:2:8: tags", NULL);
        refused("name: [[[[[[[[[[a]]]]]]]]]]\n", "web.yaml:1:14: the file is nested too deeply",
                NULL);
}

static void what_would_break_a_line_is_refused(void **state)
{
        refused("name: |\n  web\n", "web.yaml:1:7: the value holds the end of a line", "'>-'");
        refused("name: \"a\\0b\"\n", "web.yaml:1:7: the value holds a control character, 0x00",
                NULL);
        refused("name: \"a\\e\"\n", "web.yaml:1:7: the value holds a control character, 0x1b",
                NULL);
        refused("name: \"a\\x7f\"\n", "web.yaml:1:7: the value holds a control character, 0x7f",
                NULL);
        refused("name: web\n\"cpus\\n\": 1\n", "web.yaml:2:1: the value holds", "'>-'");
        vm_file_free(parse("name: >-\n  web\nkernel: k\ncmdline: >-\n  a\n  b\n"));
}

static void unknown_keys_are_named_with_what_was_meant(void **state)
{
        refused_line("memroy: 1G", "web.yaml:3:1: 'memroy' is no key of a VM file", "'memory'");
        refused_line("vcpus: 1", "web.yaml:3:1: 'vcpus' is no key", "'cpus'");
        refused_line("memory_max: 1", "web.yaml:3:1: 'memory_max' is no key", "'memory-max'");
        refused_line("mem: 1G", "web.yaml:3:1: 'mem' is no key", "'memory'");
        refused_line("graphics: spice", "web.yaml:3:1: 'graphics' is no key", "tarn-vm-file(5)");
        refused_line("<<: {}", "web.yaml:3:1: '<<' is no key", "tarn-vm-file(5)");
        refused_line("averyveryveryverylongkeythatnobodymeant: 1",
                     "web.yaml:3:1: 'averyveryveryverylongkeythatnobodymeant' is no key", "tarn");
        refused_line("disks:\n  - volume: a/b\n    read-only: true",
                     "web.yaml:5:5: 'read-only' is no key of a list's entry here", "'readonly'");
        refused_line("seed:\n  ssh_keys: []", "web.yaml:4:3: 'ssh_keys' is no key here",
                     "'ssh-keys'");
        refused_line("vsock: {id: 3}", "web.yaml:3:9: 'id' is no key here", "'cid'");
}

static void nothing_is_said_twice(void **state)
{
        refused_line("cpus: 1\ncpus: 2", "web.yaml:4:1: 'cpus' is said twice", "line 3");
        refused_line("disks: [{volume: a/b, boot: 1, boot: 2}]",
                     "web.yaml:3:32: 'boot' is said twice", "line 3");
}

static void values_of_another_kind_are_refused(void **state)
{
        refused_line("cpus: [1]", "web.yaml:3:7: cpus: a single value belongs here", NULL);
        refused_line("cpus:\n  a: 1", "web.yaml:4:3: cpus: a single value belongs here", NULL);
        refused_line("cpus:", "web.yaml:3:1: cpus: there is no value", "default");
        refused_line("cpus: ~", "web.yaml:3:1: cpus: there is no value", "default");
        refused_line("cmdline: ''", "web.yaml:3:1: cmdline: there is no value", "default");
        refused_line("disks: a/b", "web.yaml:3:8: disks: a list belongs here", NULL);
        refused_line("disks:\n  volume: a/b", "web.yaml:4:3: disks: a list belongs here", NULL);
        refused_line("disks:\n  - a/b", "web.yaml:4:5: disks: keys with values belong here", NULL);
        refused_line("seed: yes", "web.yaml:3:7: seed: keys with values belong here", NULL);
        refused_line("seed: {ssh-keys: [[a]]}", "web.yaml:3:19: ssh-keys: a single value", NULL);
        refused_line("seed:\n  ssh-keys:\n    -\n", "web.yaml:5:6: ssh-keys: there is no value",
                     "default");
}

static void what_is_missing_is_named(void **state)
{
        refused("kernel: a\n", "web.yaml:1:1: 'name' is missing", NULL);
        refused("name: web\n", "web.yaml:1:1: there is nothing to boot", "disk or a kernel");
        refused("name: web\ndisks: []\n", "web.yaml:1:1: there is nothing to boot", "disk");
        refused_line("disks:\n  - boot: 1", "web.yaml:4:5: 'volume' is missing", NULL);
        refused_line("network:\n  - mac: 52:54:00:00:00:01", "web.yaml:4:5: 'type' is missing",
                     NULL);
        refused_line("network:\n  - type: tap", "web.yaml:4:5: 'tap' is missing", "tap0");
        refused_line("vsock: {}", "web.yaml:3:8: 'cid' is missing", NULL);
}

static void the_machine_is_checked(void **state)
{
        refused("name: ../web\nkernel: a\n", "web.yaml:1:7: name: '../web' is no name for a VM",
                "letter");
        refused_line("uuid: 1234", "web.yaml:3:7: uuid: '1234' is no UUID", NULL);
        refused_line("uuid: +1 20304-0506-0708-090a-0b0c0d0e0f00",
                     "web.yaml:3:7: uuid: '+1 20304-0506-0708-090a-0b0c0d0e0f00' is no UUID", NULL);
        refused_line("uuid: 00000000-0000-0000-0000-000000000000",
                     "web.yaml:3:7: uuid: a UUID of zeroes", NULL);
        refused_line("cpus: 0", "web.yaml:3:7: cpus: 0 is not between 1 and 64", NULL);
        refused_line("cpus: 65", "web.yaml:3:7: cpus: 65 is not between 1 and 64", NULL);
        refused_line("cpus: 99999999999999999999999", "web.yaml:3:7: cpus: 9999", NULL);
        refused_line("cpus: 2x", "web.yaml:3:7: cpus: '2x' is not a number", NULL);
        refused_line("cpus: -1", "web.yaml:3:7: cpus: '-1' is not a number", NULL);
        refused_line("cpu-weight: 10001",
                     "web.yaml:3:13: cpu-weight: 10001 is not between 1 and 10000", NULL);
        refused_line("cpu-max: 6401", "web.yaml:3:10: cpu-max: 6401 is not between 1 and 6400",
                     NULL);
        refused_line("cpu-max: '%'", "web.yaml:3:10: cpu-max: '%' is not a number", NULL);
        refused_line("cpu-max: 5%%", "web.yaml:3:10: cpu-max: '5%' is not a number", NULL);
        refused_line("memory: much", "web.yaml:3:9: memory: 'much' is not a size", "64M");
        refused_line("memory: 99999999T", "web.yaml:3:9: memory: '99999999T' ", NULL);
        refused_line("memory: 31M", "web.yaml:3:9: memory: 31M is not between 32M and 1T", NULL);
        refused_line("memory: 1025G", "web.yaml:3:9: memory: 1025G is not between", NULL);
        refused_line("memory: 33M", "web.yaml:3:9: memory: 33M is not a multiple of 2M", NULL);
        refused_line("memory: 1G\nmemory-max: 512M", "web.yaml:4:13: memory-max: 512M is less",
                     NULL);
        refused_line("memory-max: 2T", "web.yaml:3:13: memory-max: 2T is not between", NULL);
        refused_line("hugepages: maybe",
                     "web.yaml:3:12: hugepages: 'maybe' is neither true nor false", NULL);
        refused_line("rng: 1", "web.yaml:3:6: rng: '1' is neither", NULL);
        refused_line("balloon: x", "web.yaml:3:10: balloon: 'x' is neither", NULL);
        refused_line("autostart: x", "web.yaml:3:12: autostart: 'x' is neither", NULL);
        refused_line("on-crash: destroy",
                     "web.yaml:3:11: on-crash: 'destroy' is neither poweroff nor reboot", NULL);
        refused_line("vsock: {cid: 2}", "web.yaml:3:14: cid: 2 is not between 3 and 4294967294",
                     NULL);
        refused_line("vsock: {cid: 4294967295}", "web.yaml:3:14: cid: 4294967295 is not", NULL);
        refused_line("firmware: seabios", "web.yaml:3:11: firmware: with a kernel", "other");
        refused("name: a\ninitrd: i\ndisks: [{volume: a/b}]",
                "web.yaml:2:9: initrd: there is no "
                "kernel",
                NULL);
        refused("name: a\ncmdline: i\ndisks: [{volume: a/b}]",
                "web.yaml:2:10: cmdline: there is "
                "no kernel",
                NULL);
}

/* A list of @n entries under @key. */
static char *list(const char *key, unsigned n, const char *format)
{
        size_t size = 128 + n * 64, at;
        char *text = malloc(size);

        assert_non_null(text);
        at = (size_t)snprintf(text, size, MINIMAL "%s:\n", key);
        for (unsigned i = 0; i < n; i++) {
                at += (size_t)snprintf(text + at, size - at, format, i + 1);
                at += (size_t)snprintf(text + at, size - at, "\n");
        }
        return text;
}

static void list_limit(const char *key, unsigned max, const char *format, const char *message)
{
        char *text = list(key, max, format);

        vm_file_free(parse(text));
        free(text);
        text = list(key, max + 1, format);
        refused(text, message, NULL);
        free(text);
}

static void lists_end(void **state)
{
        list_limit("disks", VM_DISKS_MAX, " - volume: a/b%u",
                   "web.yaml:20:4: disks: there are more than 16 entries");
        list_limit("network", VM_NICS_MAX, " - {type: tap, tap: t%u}",
                   "web.yaml:12:4: network: there are more than 8 entries");
        list_limit("network:\n - type: user\n   forward", VM_FORWARDS_MAX, "   - tcp:%u:1",
                   "web.yaml:70:6: forward: there are more than 64 entries");
        list_limit("seed:\n ssh-keys", VM_SSH_KEYS_MAX, "   - ssh-rsa AAAA%u",
                   "web.yaml:69:6: ssh-keys: there are more than 64 entries");
}

static void a_file_has_an_end(void **state)
{
        char *text = malloc(VM_FILE_MAX + 2);
        struct vm_file *f = NULL;
        struct error e = ERROR_INIT;

        assert_non_null(text);
        memset(text, '#', VM_FILE_MAX + 1);
        memcpy(text, MINIMAL, strlen(MINIMAL));
        assert_int_equal(vm_file_parse(text, VM_FILE_MAX + 1, "web.yaml", "/", &f, &e), -EFBIG);
        assert_string_equal(e.message, "web.yaml: the file is larger than 64 KiB");
        assert_int_equal(vm_file_parse(text, VM_FILE_MAX, "web.yaml", "/", &f, &e), 0);
        assert_string_equal(f->kernel, "/vmlinuz");
        vm_file_free(f);
        free(text);
}

static void there_is_an_end_to_values_and_their_length(void **state)
{
        char *text = malloc(VM_FILE_MAX + 1), message[128];
        int at = snprintf(text, VM_FILE_MAX, "name: [");

        for (unsigned i = 0; i < 2047; i++)
                at += snprintf(text + at, VM_FILE_MAX - (size_t)at, "a,\n");
        snprintf(text + at, VM_FILE_MAX - (size_t)at, "]");
        refused(text, "web.yaml:2047:1: the file has more than 2048 values", NULL);

        snprintf(text, VM_FILE_MAX, MINIMAL "cmdline: %02047d", 1);
        vm_file_free(parse(text));
        snprintf(text, VM_FILE_MAX, MINIMAL "cmdline: %02048d", 1);
        snprintf(message, sizeof(message),
                 "web.yaml:3:10: cmdline: the value has 2048 bytes, at most 2047 are taken");
        refused(text, message, NULL);
        snprintf(text, VM_FILE_MAX, MINIMAL "initrd: %04090d", 1);
        refused(text, "web.yaml:3:9: initrd: the path is too long in the file's folder", NULL);
        free(text);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(what_is_not_yaml_is_refused),
            cmocka_unit_test(what_makes_small_files_large_is_refused),
            cmocka_unit_test(what_would_break_a_line_is_refused),
            cmocka_unit_test(unknown_keys_are_named_with_what_was_meant),
            cmocka_unit_test(nothing_is_said_twice),
            cmocka_unit_test(values_of_another_kind_are_refused),
            cmocka_unit_test(what_is_missing_is_named),
            cmocka_unit_test(the_machine_is_checked),
            cmocka_unit_test(lists_end),
            cmocka_unit_test(a_file_has_an_end),
            cmocka_unit_test(there_is_an_end_to_values_and_their_length),
        };

        return cmocka_run_group_tests_name("vm_file_refused", tests, NULL, NULL);
}
