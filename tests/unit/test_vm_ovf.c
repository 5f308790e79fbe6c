/* test_vm_ovf.c - VM files of OVF descriptors, and the other way. */
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "vm/ovf.h"

static void names_are_made_of_what_letters_there_are(void **state)
{
        static const struct {
                const char *text, *name;
        } cases[] = {
            {"web", "web"},
            {"My VM (2)", "My-VM-2"},
            {"..web_1.0", "web_1.0"},
            {"\xc3\xa4\xc3\xa4", ""},
            {"a\xc3\xa4/../b", "a-..-b"},
            {"-- a --", "a"},
            {"", ""},
        };
        char name[POOL_NAME_MAX + 1], longest[200];

        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                vm_ovf_name(cases[i].text, name);
                assert_string_equal(name, cases[i].name);
                if (name[0])
                        assert_int_equal(pool_name_check(name, "machine", NULL), 0);
        }
        memset(longest, 'x', sizeof(longest) - 1);
        longest[sizeof(longest) - 1] = '\0';
        vm_ovf_name(longest, name);
        assert_int_equal(strlen(name), POOL_NAME_MAX - 3); /* "-16" */
        assert_int_equal(vm_ovf_volume(name, VM_DISKS_MAX - 1, VM_DISKS_MAX, longest, NULL), 0);
        assert_string_equal(longest + POOL_NAME_MAX - 3, "-16");
}

static void volumes_are_numbered_where_there_are_several(void **state)
{
        char volume[POOL_NAME_MAX + 1], base[POOL_NAME_MAX + 1];

        assert_int_equal(vm_ovf_volume("web", 0, 1, volume, NULL), 0);
        assert_string_equal(volume, "web");
        assert_int_equal(vm_ovf_volume("web", 1, 2, volume, NULL), 0);
        assert_string_equal(volume, "web-2");
        memset(base, 'x', POOL_NAME_MAX);
        base[POOL_NAME_MAX] = '\0';
        assert_int_equal(vm_ovf_volume(base, 0, 1, volume, NULL), 0);
        assert_int_equal(vm_ovf_volume(base, 0, 2, volume, NULL), -EINVAL);
}

static struct ovf_disk disks[OVF_ITEMS_MAX];

/* As a text that its owner finds. */
static char *text_of(const struct ovf_machine *m)
{
        struct vm_file *file, *again;
        struct error e = ERROR_INIT;
        char *text;

        if (vm_file_from_ovf(m, "web", "tank", "base", &file, &e) < 0)
                fail_msg("%s", e.message);
        assert_int_equal(vm_file_write(file, &text, NULL), 0);
        if (vm_file_parse(text, strlen(text), "web.yaml", "/", &again, &e) < 0)
                fail_msg("%s", e.message);
        assert_int_equal(again->n_disks, m->n_disks);
        assert_int_equal(again->memory_bytes, file->memory_bytes);
        vm_file_free(again);
        vm_file_free(file);
        return text;
}

static void says(const struct ovf_machine *m, const char *words, bool does)
{
        char *text = text_of(m);

        if ((strstr(text, words) != NULL) != does)
                fail_msg("'%s' in: %s", words, text);
        free(text);
}

static void a_descriptor_becomes_a_vm_file(void **state)
{
        struct ovf_nic nics[] = {{.mac = (char *)"08:00:27:A1:b2:C3"},
                                 {.mac = (char *)"080027A1B2C3"}, /* the same once more */
                                 {.mac = (char *)"01-00-5e-00-00-01"},
                                 {.mac = (char *)"00:00:00:00:00:00"},
                                 {.mac = (char *)"08:00:27:A1:b2:C3:00"},
                                 {.mac = (char *)"08-00-27-00-00-0x"},
                                 {.network = (char *)"LAN"}};
        struct ovf_machine m = {.disks = disks, .n_disks = 1, .nics = nics, .n_nics = 7};
        struct vm_file *file;

        says(&m, "tank/base", true);
        says(&m, "tank/base-1", false);
        m.n_disks = 2;
        says(&m, "tank/base-2", true);
        assert_int_equal(vm_file_from_ovf(&m, "web", "tank", "base", &file, NULL), 0);
        assert_int_equal(file->n_cpus, 1);
        assert_int_equal(file->memory_bytes, VM_MEMORY_DEFAULT);
        assert_int_equal(file->n_nics, 7);
        assert_true(file->nics[0].has_mac && file->nics[0].type == VM_NIC_USER);
        assert_memory_equal(file->nics[0].mac, "\x08\x00\x27\xa1\xb2\xc3", 6);
        for (size_t i = 1; i < 7; i++)
                assert_false(file->nics[i].has_mac);
        vm_file_free(file);
}

static void what_no_vm_file_can_have_is_rounded_or_refused(void **state)
{
        struct ovf_machine m = {.disks = disks, .n_disks = 1, .n_cpus = 96, .memory_bytes = 1};
        struct ovf_nic nics[VM_NICS_MAX + 1] = {0};
        struct vm_file *file = NULL;
        struct error e = ERROR_INIT;

        says(&m, "cpus: 64", true);
        says(&m, "memory: 32M", true);
        m.memory_bytes = (UINT64_C(129) << 20) + 1;
        says(&m, "memory: 130M", true);
        m.memory_bytes = VM_MEMORY_MAX + 1;
        assert_int_equal(vm_file_from_ovf(&m, "web", "tank", "b", &file, &e), -EINVAL);
        assert_non_null(strstr(e.message, "1 TiB"));
        m.memory_bytes = UINT64_MAX;
        assert_int_equal(vm_file_from_ovf(&m, "web", "tank", "b", &file, &e), -EINVAL);
        m.memory_bytes = VM_MEMORY_MAX;
        says(&m, "memory: 1T", true);
        m.n_disks = VM_DISKS_MAX;
        says(&m, "tank/base-16", true);
        m.n_disks++;
        assert_int_equal(vm_file_from_ovf(&m, "web", "tank", "b", &file, &e), -EINVAL);
        assert_non_null(strstr(e.message, "17 disks"));
        m.n_disks = 0;
        assert_int_equal(vm_file_from_ovf(&m, "web", "tank", "b", &file, &e), -EINVAL);
        m.n_disks = 1;
        m.nics = nics;
        m.n_nics = VM_NICS_MAX + 1;
        assert_int_equal(vm_file_from_ovf(&m, "web", "tank", "b", &file, &e), -EINVAL);
        m.n_nics = 0;
        assert_int_equal(vm_file_from_ovf(&m, "../web", "tank", "b", &file, &e), -EINVAL);
        assert_int_equal(vm_file_from_ovf(&m, "web", "tank", "a/b", &file, &e), -EINVAL);
        assert_null(file);
}

#define VM_FILE                                                                                    \
        "name: web\ncpus: 3\nmemory: 130M\nfirmware: %s\n"                                         \
        "disks:\n  - {volume: tank/web}\n  - {volume: tank/data@s}\n"                              \
        "network:\n  - {type: user}\n  - {type: tap, tap: tap0, mac: \"52:54:00:00:00:01\"}\n"

/* The firmware is a file that holds this. */
static void describe(const void *firmware, size_t length, struct ovf_machine *ret)
{
        char path[] = "tarn-firmware.XXXXXX", text[512], folder[PATH_MAX];
        struct vm_file *file;
        struct error e = ERROR_INIT;
        int fd = mkstemp(path);

        assert_non_null(getcwd(folder, sizeof(folder)));
        assert_true(fd >= 0 && write(fd, firmware, length) == (ssize_t)length);
        close(fd);
        snprintf(text, sizeof(text), VM_FILE, path);
        if (vm_file_parse(text, strlen(text), "web.yaml", folder, &file, &e) < 0)
                fail_msg("%s", e.message);
        assert_int_equal(vm_file_to_ovf(file, ret, NULL), 0);
        vm_file_free(file);
        unlink(path);
}

static void a_vm_file_becomes_a_descriptor(void **state)
{
        char volume[64] = "";
        struct ovf_machine m;

        describe(volume, sizeof(volume), &m);
        assert_string_equal(m.name, "web");
        assert_int_equal(m.n_cpus, 3);
        assert_int_equal(m.memory_bytes, UINT64_C(130) << 20);
        assert_false(m.is_efi);
        assert_int_equal(m.n_disks, 2);
        assert_int_equal(m.disks[1].controller, OVF_SATA);
        assert_int_equal(m.n_nics, 2);
        assert_string_equal(m.nics[0].network, "NAT");
        assert_null(m.nics[0].mac);
        assert_string_equal(m.nics[1].network, "Bridged");
        assert_string_equal(m.nics[1].mac, "52:54:00:00:00:01");
        ovf_machine_clear(&m);
        memcpy(volume + 40, "_FVH", 4);
        describe(volume, sizeof(volume), &m);
        assert_true(m.is_efi);
        ovf_machine_clear(&m);
        describe(volume, 43, &m);
        assert_false(m.is_efi);
        ovf_machine_clear(&m);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(names_are_made_of_what_letters_there_are),
            cmocka_unit_test(volumes_are_numbered_where_there_are_several),
            cmocka_unit_test(a_descriptor_becomes_a_vm_file),
            cmocka_unit_test(what_no_vm_file_can_have_is_rounded_or_refused),
            cmocka_unit_test(a_vm_file_becomes_a_descriptor),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
