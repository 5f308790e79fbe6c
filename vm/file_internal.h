/* file_internal.h - the rooms of file.h: a text becomes a tree that knows its places (file_yaml.c);
 * the tree is held against libcyaml's schema (file_match.c), so that libcyaml then loads the text
 * without complaint into strings (file_schema.c); and these are checked and converted
 * (file_check*.c). file_write.c goes the other way.
 *
 * Why not libcyaml alone: of errors it tells neither the column nor the key that was meant; it
 * takes "8x" for 8, any word for true, and follows aliases.
 *
 * Units      lines and columns count from 1.
 * Threads    as file.h.
 * Errors     as file.h: sentences begin with the place.
 * Ownership  nodes belong to their tree.
 */
#pragma once
#include <cyaml/cyaml.h>
#include <sys/types.h>

#include "vm/file.h"

/* ---- The tree: file_yaml.c ---- */

#define VM_YAML_NODES_MAX 2048u /* values; a file that uses every key to its limits has some 800 */
#define VM_YAML_DEPTH_MAX 8u    /* network, a card, forward, a port: 5 */

enum vm_yaml_kind { VM_YAML_TEXT, VM_YAML_MAPPING, VM_YAML_LIST };

struct vm_yaml_node {
        enum vm_yaml_kind kind;
        struct vm_yaml_node *parent;   /* NULL: the root */
        struct vm_yaml_node *children; /* the first; in the file's order */
        struct vm_yaml_node *last, *next;
        char *key; /* in a mapping; NULL elsewhere */
        unsigned key_line, key_column;
        char *text; /* of VM_YAML_TEXT: no control characters */
        unsigned line, column;
        const cyaml_schema_value_t *schema; /* what belongs here: file_match.c */
};

struct vm_yaml {
        const char *name; /* of the file; the caller's */
        struct vm_yaml_node *root;
        size_t n_nodes;
};

/* Read one document: a mapping whose keys are plain, and different. Release with
 * vm_yaml_release(), also after a failure. */
int vm_yaml_read(struct vm_yaml *yaml, const void *text, size_t length, struct error *err);
void vm_yaml_release(struct vm_yaml *yaml);
struct vm_yaml_node *vm_yaml_child(const struct vm_yaml_node *mapping, const char *key);
struct vm_yaml_node *vm_yaml_item(const struct vm_yaml_node *list, size_t i);

/* -EINVAL, and a sentence that begins with the place of @node, or of its key. */
int vm_yaml_error(const struct vm_yaml *yaml, const struct vm_yaml_node *node, struct error *err,
                  const char *format, ...) __attribute__((format(printf, 4, 5)));
int vm_yaml_key_error(const struct vm_yaml *yaml, const struct vm_yaml_node *node,
                      struct error *err, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* ---- What libcyaml loads: file_schema.c ---- */

/* A key that is not there is NULL. */
struct raw_disk {
        char *volume, *readonly, *serial, *queues, *boot, *from, *size;
};

struct raw_nic {
        char *type, *tap, *mac;
        char **forward;
        unsigned forward_count;
};

struct raw_vsock {
        char *cid;
};

struct raw_seed {
        char *hostname;
        char **ssh_keys;
        unsigned ssh_keys_count;
        char *user_data, *meta_data, *network_config;
};

struct raw_file {
        char *name, *uuid, *cpus, *cpu_weight, *cpu_max, *memory, *memory_max, *hugepages;
        char *firmware, *kernel, *initrd, *cmdline;
        struct raw_disk *disks;
        unsigned disks_count;
        struct raw_nic *network;
        unsigned network_count;
        struct raw_vsock *vsock;
        char *rng, *balloon;
        struct raw_seed *seed;
        char *console_log, *autostart, *on_crash;
};

extern const cyaml_schema_value_t vm_file_schema;
int raw_load(const void *text, size_t length, const char *name, struct raw_file **ret_raw,
             struct error *err);
int raw_save(const struct raw_file *raw, char **ret_text, struct error *err);
void raw_free(struct raw_file *raw); /* NULL is fine */

/* ---- file_match.c ---- */

/* Only what the schema has is there, in its place, and no more of it. */
int vm_yaml_match(const struct vm_yaml *yaml, struct error *err);

/* ---- file_check.c, file_check_disk.c, file_check_network.c ---- */

/* One conversion: @node is the mapping whose keys are looked at. */
struct check {
        const struct vm_yaml *yaml;
        const struct vm_yaml_node *node;
        const char *folder;
        struct error *err;
};

int vm_file_check(const struct vm_yaml *yaml, const struct raw_file *raw, const char *folder,
                  struct vm_file **ret_file, struct error *err);
int check_disks(const struct check *c, const struct raw_file *raw, struct vm_file *file);
int check_network(const struct check *c, const struct raw_file *raw, struct vm_file *file);

/* -EINVAL, and "PLACE: KEY: ..." with the place of the key's value. */
int check_failed(const struct check *c, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* A sentence is there; put the place of the key's value in front. */
int check_place(const struct check *c, const char *key);
/* A key's text to a value; without a text (NULL) nothing is changed. */
int check_bool(const struct check *c, const char *key, const char *text, bool *value);
int check_number(const struct check *c, const char *key, const char *text, unsigned min,
                 unsigned max, unsigned *value);
int check_path(const struct check *c, const char *key, const char *text, char **value);
int check_copy(const struct check *c, const char *text, char **value);

/* ---- file.c ---- */

/* All that there is to read, or @size bytes of it: how many, or -errno. */
ssize_t vm_read_all(int fd, char *text, size_t size);
