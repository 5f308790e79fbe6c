/* file_check.c - from texts to a struct vm_file: the machine itself, and what all conversions
 * share. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/size.h"
#include "server/state.h"
#include "vm/file_internal.h"

static const struct vm_yaml_node *value_of(const struct check *c, const char *key)
{
        const struct vm_yaml_node *value = vm_yaml_child(c->node, key);

        return value ? value : c->node;
}

int check_failed(const struct check *c, const char *key, const char *format, ...)
{
        char message[sizeof(c->err->message)];
        va_list args;

        va_start(args, format);
        vsnprintf(message, sizeof(message), format, args);
        va_end(args);
        vm_yaml_error(c->yaml, value_of(c, key), c->err, "%s: %s", key, message);
        return -EINVAL;
}

int check_place(const struct check *c, const char *key)
{
        const struct vm_yaml_node *value = value_of(c, key);

        if (!c->err)
                return -EINVAL;
        error_prefix(c->err, "%s:%u:%u: %s", c->yaml->name, value->line, value->column, key);
        c->err->code = -EINVAL; /* also where a number was too large */
        return -EINVAL;
}

static int no_memory(const struct check *c)
{
        return error_set(c->err, -ENOMEM, "out of memory");
}

int check_bool(const struct check *c, const char *key, const char *text, bool *value)
{
        static const struct {
                const char *word;
                bool value;
        } words[] = {{"true", true},   {"yes", true}, {"on", true},
                     {"false", false}, {"no", false}, {"off", false}};

        if (!text)
                return 0;
        for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
                if (strcasecmp(text, words[i].word) == 0) {
                        *value = words[i].value;
                        return 0;
                }
        return check_failed(c, key, "'%.40s' is neither true nor false", text);
}

int check_number(const struct check *c, const char *key, const char *text, unsigned min,
                 unsigned max, unsigned *value)
{
        unsigned long long number;

        if (!text)
                return 0;
        if (text[strspn(text, "0123456789")] != '\0')
                return check_failed(c, key, "'%.40s' is not a number", text);
        number = strtoull(text, NULL, 10); /* ULLONG_MAX where it does not fit */
        if (number < min || number > max)
                return check_failed(c, key, "%.40s is not between %u and %u", text, min, max);
        *value = (unsigned)number;
        return 0;
}

int check_copy(const struct check *c, const char *text, char **value)
{
        if (!text)
                return 0;
        *value = strdup(text);
        return *value ? 0 : no_memory(c);
}

int check_path(const struct check *c, const char *key, const char *text, char **value)
{
        char *path;

        if (!text || text[0] == '/')
                return check_copy(c, text, value);
        if (asprintf(&path, "%s/%s", strcmp(c->folder, "/") == 0 ? "" : c->folder, text) < 0)
                return no_memory(c);
        if (strlen(path) >= PATH_MAX) {
                free(path);
                return check_failed(c, key, "the path is too long in the file's folder");
        }
        *value = path;
        return 0;
}

static int check_uuid(const struct check *c, const char *text, uint8_t uuid[16])
{
        static const uint8_t none[16];

        if (!text)
                return 0;
        /* The parser of state files is content with blanks and signs, too. */
        if (text[strspn(text, "0123456789abcdefABCDEF-")] != '\0' ||
            uuid_parse_text(text, uuid) < 0)
                return check_failed(c, "uuid", "'%.60s' is no UUID", text);
        if (memcmp(uuid, none, 16) == 0)
                return check_failed(c, "uuid", "a UUID of zeroes belongs to nobody");
        return 0;
}

static int check_memory_size(const struct check *c, const char *key, const char *text,
                             uint64_t *value)
{
        uint64_t bytes;

        if (!text)
                return 0;
        if (size_parse(text, &bytes, c->err) < 0)
                return check_place(c, key);
        if (bytes < VM_MEMORY_MIN || bytes > VM_MEMORY_MAX)
                return check_failed(c, key, "%s is not between 32M and 1T", text);
        if (bytes % VM_MEMORY_UNIT != 0)
                return check_failed(c, key, "%s is not a multiple of 2M", text);
        *value = bytes;
        return 0;
}

static int check_memory(const struct check *c, const struct raw_file *raw, struct vm_file *file)
{
        int r = check_memory_size(c, "memory", raw->memory, &file->memory_bytes);

        file->memory_max_bytes = file->memory_bytes;
        if (r == 0)
                r = check_memory_size(c, "memory-max", raw->memory_max, &file->memory_max_bytes);
        if (r < 0)
                return r;
        if (file->memory_max_bytes < file->memory_bytes)
                return check_failed(c, "memory-max", "%s is less than the memory", raw->memory_max);
        return check_bool(c, "hugepages", raw->hugepages, &file->hugepages);
}

static int check_cpus(const struct check *c, const struct raw_file *raw, struct vm_file *file)
{
        char percent[64];
        int r = check_number(c, "cpus", raw->cpus, 1, VM_CPUS_MAX, &file->n_cpus);

        if (r == 0)
                r = check_number(c, "cpu-weight", raw->cpu_weight, 1, VM_CPU_WEIGHT_MAX,
                                 &file->cpu_weight);
        if (r < 0 || !raw->cpu_max)
                return r;
        snprintf(percent, sizeof(percent), "%s", raw->cpu_max);
        if (percent[0] && percent[strlen(percent) - 1] == '%')
                percent[strlen(percent) - 1] = '\0';
        if (!percent[0])
                return check_failed(c, "cpu-max", "'%s' is not a number", raw->cpu_max);
        return check_number(c, "cpu-max", percent, 1, VM_CPU_MAX_PERCENT_MAX,
                            &file->cpu_max_percent);
}

static int check_boot(const struct check *c, const struct raw_file *raw, struct vm_file *file)
{
        bool seabios = raw->firmware && strcmp(raw->firmware, "seabios") == 0;
        int r;

        if (raw->kernel && raw->firmware) {
                check_failed(c, "firmware", "with a kernel there is no firmware");
                error_hint(c->err, "name the one or the other");
                return -EINVAL;
        }
        if (!raw->kernel && (raw->initrd || raw->cmdline))
                return check_failed(c, raw->initrd ? "initrd" : "cmdline",
                                    "there is no kernel to give it to");
        if (!raw->kernel && raw->disks_count == 0) {
                vm_yaml_error(c->yaml, c->node, c->err, "there is nothing to boot");
                error_hint(c->err, "name a disk or a kernel");
                return -EINVAL;
        }
        r = check_path(c, "kernel", raw->kernel, &file->kernel);
        if (r == 0)
                r = check_path(c, "initrd", raw->initrd, &file->initrd);
        if (r == 0)
                r = check_copy(c, raw->cmdline, &file->cmdline);
        if (r == 0 && !seabios)
                r = check_path(c, "firmware", raw->firmware, &file->firmware);
        return r;
}

static int check_hostname(const struct check *c, const char *text, struct vm_seed *seed)
{
        size_t n = text ? strlen(text) : 0;

        if (!text)
                return 0;
        for (size_t i = 0; i < n; i++) {
                const char letter = text[i], before = (char)(i ? text[i - 1] : '.');
                bool separator = letter == '-' || letter == '.';

                /* A label neither begins nor ends with a hyphen, nor is it empty. */
                if ((letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z') ||
                    (letter >= '0' && letter <= '9') ||
                    (separator && i + 1 < n && before != '.' && !(letter == '.' && before == '-')))
                        continue;
                return check_failed(c, "hostname", "'%.80s' is no host name", text);
        }
        memcpy(seed->hostname, text, n + 1);
        return 0;
}

/* Host name and keys go into whichever of the two files is not given. */
static int check_seed_files(const struct check *c, const struct raw_seed *raw)
{
        const char *key = raw->ssh_keys_count > 0 ? "ssh-keys" : "hostname";

        if (!raw->user_data || !raw->meta_data || (!raw->hostname && raw->ssh_keys_count == 0))
                return 0;
        check_failed(c, key, "with files for user-data and meta-data this goes nowhere");
        error_hint(c->err, "write it in one of them, or leave one of them away");
        return -EINVAL;
}

/* A line as in authorized_keys: options, a type, and what base64 makes of the type's length. */
static int check_ssh_key(const struct check *c, const struct vm_yaml_node *list, size_t i,
                         const char *text)
{
        if (strstr(text, " AAAA"))
                return 0;
        vm_yaml_error(c->yaml, vm_yaml_item(list, i), c->err, "ssh-keys: '%.40s' is no public key",
                      text);
        error_hint(c->err, "a key is the line of a .pub file: 'ssh-ed25519 AAAA... name'");
        return -EINVAL;
}

static int check_seed(const struct check *c, const struct raw_seed *raw, struct vm_file *file)
{
        struct vm_seed *seed;
        int r;

        seed = file->seed = calloc(1, sizeof(*seed));
        if (!seed)
                return no_memory(c);
        r = check_seed_files(c, raw);
        if (r == 0)
                r = check_hostname(c, raw->hostname, seed);
        if (r == 0)
                r = check_path(c, "user-data", raw->user_data, &seed->user_data);
        if (r == 0)
                r = check_path(c, "meta-data", raw->meta_data, &seed->meta_data);
        if (r == 0)
                r = check_path(c, "network-config", raw->network_config, &seed->network_config);
        if (r < 0 || raw->ssh_keys_count == 0)
                return r;
        seed->ssh_keys = calloc(raw->ssh_keys_count, sizeof(char *));
        if (!seed->ssh_keys)
                return no_memory(c);
        for (unsigned i = 0; i < raw->ssh_keys_count && r == 0; i++) {
                r = check_ssh_key(c, vm_yaml_child(c->node, "ssh-keys"), i, raw->ssh_keys[i]);
                if (r == 0)
                        r = check_copy(c, raw->ssh_keys[i], &seed->ssh_keys[i]);
                seed->n_ssh_keys++;
        }
        return r;
}

static int check_parts(const struct check *c, const struct raw_file *raw, struct vm_file *file)
{
        struct check inner = *c;
        int r = 0;

        if (raw->vsock) {
                inner.node = vm_yaml_child(c->node, "vsock");
                r = check_number(&inner, "cid", raw->vsock->cid, VM_CID_MIN, VM_CID_MAX,
                                 &file->vsock_cid);
        }
        if (r == 0 && raw->seed) {
                inner.node = vm_yaml_child(c->node, "seed");
                r = check_seed(&inner, raw->seed, file);
        }
        if (r == 0)
                r = check_bool(c, "rng", raw->rng, &file->rng);
        if (r == 0)
                r = check_bool(c, "balloon", raw->balloon, &file->balloon);
        if (r == 0)
                r = check_bool(c, "autostart", raw->autostart, &file->autostart);
        if (r == 0)
                r = check_path(c, "console-log", raw->console_log, &file->console_log);
        return r;
}

static int check_on_crash(const struct check *c, const char *text, enum vm_on_crash *value)
{
        if (!text || strcmp(text, "poweroff") == 0)
                return 0;
        if (strcmp(text, "reboot") != 0)
                return check_failed(c, "on-crash", "'%.40s' is neither poweroff nor reboot", text);
        *value = VM_ON_CRASH_REBOOT;
        return 0;
}

static int check_all(const struct check *c, const struct raw_file *raw, struct vm_file *file)
{
        int r;

        if (pool_name_check(raw->name, "VM", c->err) < 0)
                return check_place(c, "name");
        memcpy(file->name, raw->name, strlen(raw->name) + 1);
        r = check_uuid(c, raw->uuid, file->uuid);
        if (r == 0)
                r = check_cpus(c, raw, file);
        if (r == 0)
                r = check_memory(c, raw, file);
        if (r == 0)
                r = check_boot(c, raw, file);
        if (r == 0)
                r = check_disks(c, raw, file);
        if (r == 0)
                r = check_network(c, raw, file);
        if (r == 0)
                r = check_parts(c, raw, file);
        if (r == 0)
                r = check_on_crash(c, raw->on_crash, &file->on_crash);
        return r;
}

int vm_file_check(const struct vm_yaml *yaml, const struct raw_file *raw, const char *folder,
                  struct vm_file **ret_file, struct error *err)
{
        struct check c = {.yaml = yaml, .node = yaml->root, .folder = folder, .err = err};
        struct vm_file *file = calloc(1, sizeof(*file));
        int r;

        if (!file)
                return no_memory(&c);
        file->n_cpus = 1;
        file->memory_bytes = VM_MEMORY_DEFAULT;
        file->rng = file->balloon = true;
        r = check_all(&c, raw, file);
        if (r < 0) {
                vm_file_free(file);
                return r;
        }
        *ret_file = file;
        return 0;
}
