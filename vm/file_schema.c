/* file_schema.c - the keys of a VM file, as libcyaml reads and writes them: all are texts here, as
 * what they mean is checked where an error can name its place. */
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "vm/file_internal.h"

#define WORD_MAX      63u /* numbers, sizes, switches, names */
#define TARGET_MAX    (VM_DISK_TEXT_SIZE - 1)
#define PATH_TEXT_MAX (PATH_MAX - 1)
#define FORWARD_MAX   79u /* udp:[an IPv6 address of 45]:65535:65535 */

/* min and max are bytes. A key that may be left away is a NULL pointer then. */
#define TEXT(key, type, member, max)                                                               \
        CYAML_FIELD_STRING_PTR(key, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, type, member, 1, max)
#define REQUIRED(key, type, member, max)                                                           \
        CYAML_FIELD_STRING_PTR(key, CYAML_FLAG_POINTER, type, member, 1, max)
#define LIST(key, type, member, entry, max)                                                        \
        CYAML_FIELD_SEQUENCE(key, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, type, member, entry,   \
                             0, max)

static const cyaml_schema_field_t disk_fields[] = {
    REQUIRED("volume", struct raw_disk, volume, TARGET_MAX),
    TEXT("readonly", struct raw_disk, readonly, WORD_MAX),
    TEXT("serial", struct raw_disk, serial, VM_SERIAL_MAX),
    TEXT("queues", struct raw_disk, queues, WORD_MAX),
    TEXT("boot", struct raw_disk, boot, WORD_MAX),
    TEXT("from", struct raw_disk, from, PATH_TEXT_MAX),
    TEXT("size", struct raw_disk, size, WORD_MAX),
    CYAML_FIELD_END,
};

static const cyaml_schema_value_t disk_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct raw_disk, disk_fields),
};

static const cyaml_schema_value_t forward_schema = {
    CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char, 1, FORWARD_MAX),
};

static const cyaml_schema_field_t nic_fields[] = {
    REQUIRED("type", struct raw_nic, type, WORD_MAX),
    TEXT("tap", struct raw_nic, tap, VM_TAP_MAX),
    TEXT("mac", struct raw_nic, mac, WORD_MAX),
    LIST("forward", struct raw_nic, forward, &forward_schema, VM_FORWARDS_MAX),
    CYAML_FIELD_END,
};

static const cyaml_schema_value_t nic_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct raw_nic, nic_fields),
};

static const cyaml_schema_field_t vsock_fields[] = {
    REQUIRED("cid", struct raw_vsock, cid, WORD_MAX),
    CYAML_FIELD_END,
};

static const cyaml_schema_value_t ssh_key_schema = {
    CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char, 1, VM_SSH_KEY_MAX),
};

static const cyaml_schema_field_t seed_fields[] = {
    TEXT("hostname", struct raw_seed, hostname, VM_HOSTNAME_MAX),
    LIST("ssh-keys", struct raw_seed, ssh_keys, &ssh_key_schema, VM_SSH_KEYS_MAX),
    TEXT("user-data", struct raw_seed, user_data, PATH_TEXT_MAX),
    TEXT("meta-data", struct raw_seed, meta_data, PATH_TEXT_MAX),
    TEXT("network-config", struct raw_seed, network_config, PATH_TEXT_MAX),
    CYAML_FIELD_END,
};

/* In the order in which they are written. */
static const cyaml_schema_field_t file_fields[] = {
    REQUIRED("name", struct raw_file, name, POOL_NAME_MAX),
    TEXT("uuid", struct raw_file, uuid, WORD_MAX),
    TEXT("cpus", struct raw_file, cpus, WORD_MAX),
    TEXT("cpu-weight", struct raw_file, cpu_weight, WORD_MAX),
    TEXT("cpu-max", struct raw_file, cpu_max, WORD_MAX),
    TEXT("memory", struct raw_file, memory, WORD_MAX),
    TEXT("memory-max", struct raw_file, memory_max, WORD_MAX),
    TEXT("hugepages", struct raw_file, hugepages, WORD_MAX),
    TEXT("firmware", struct raw_file, firmware, PATH_TEXT_MAX),
    TEXT("kernel", struct raw_file, kernel, PATH_TEXT_MAX),
    TEXT("initrd", struct raw_file, initrd, PATH_TEXT_MAX),
    TEXT("cmdline", struct raw_file, cmdline, VM_CMDLINE_MAX),
    LIST("disks", struct raw_file, disks, &disk_schema, VM_DISKS_MAX),
    LIST("network", struct raw_file, network, &nic_schema, VM_NICS_MAX),
    CYAML_FIELD_MAPPING_PTR("vsock", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct raw_file,
                            vsock, vsock_fields),
    TEXT("rng", struct raw_file, rng, WORD_MAX),
    TEXT("balloon", struct raw_file, balloon, WORD_MAX),
    CYAML_FIELD_MAPPING_PTR("seed", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct raw_file, seed,
                            seed_fields),
    TEXT("console-log", struct raw_file, console_log, PATH_TEXT_MAX),
    TEXT("autostart", struct raw_file, autostart, WORD_MAX),
    TEXT("on-crash", struct raw_file, on_crash, WORD_MAX),
    CYAML_FIELD_END,
};

const cyaml_schema_value_t vm_file_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct raw_file, file_fields),
};

static const cyaml_config_t config = {
    .mem_fn = cyaml_mem, /* realloc() and free() */
    .flags = (cyaml_cfg_flags_t)((unsigned)CYAML_CFG_NO_ALIAS | (unsigned)CYAML_CFG_STYLE_BLOCK),
};

/* libyaml's failures come without their reason, which is memory mostly: errno, which was 0 before,
 * has it then. */
static int cyaml_error(cyaml_err_t e, const char *name, struct error *err)
{
        if (e == CYAML_ERR_OOM || errno == ENOMEM)
                return error_set(err, -ENOMEM, "out of memory");
        return error_set(err, -EINVAL, "%s: %s", name, cyaml_strerror(e));
}

int raw_load(const void *text, size_t length, const char *name, struct raw_file **ret_raw,
             struct error *err)
{
        cyaml_data_t *data = NULL;
        cyaml_err_t e;

        errno = 0;
        e = cyaml_load_data(text, length, &config, &vm_file_schema, &data, NULL);
        if (e != CYAML_OK)
                return cyaml_error(e, name, err);
        *ret_raw = data;
        return 0;
}

int raw_save(const struct raw_file *raw, char **ret_text, struct error *err)
{
        char *data = NULL, *text;
        size_t length = 0;
        cyaml_err_t e;

        errno = 0;
        e = cyaml_save_data(&data, &length, &config, &vm_file_schema, raw, 0);
        if (e != CYAML_OK)
                return cyaml_error(e, "the VM cannot be written", err);
        text = strndup(data, length); /* which ends it with a NUL */
        cyaml_mem(NULL, data, 0);
        if (!text)
                return error_set(err, -ENOMEM, "out of memory");
        *ret_text = text;
        return 0;
}

void raw_free(struct raw_file *raw)
{
        /* Fails only where the configuration does. */
        (void)cyaml_free(&config, &vm_file_schema, raw, 0);
}
