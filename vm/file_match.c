/* file_match.c - a tree held against the schema: unknown keys, with the one that was meant; values
 * of another kind; what is missing, too long, or too many. */
#include <errno.h>
#include <string.h>

#include "vm/file_internal.h"

#define KEY_MAX  31u /* of a key worth comparing */
#define FAR_AWAY 99u

static unsigned least(unsigned a, unsigned b)
{
        return a < b ? a : b;
}

/* Levenshtein's distance: the letters to put in, take out or change. */
static unsigned distance(const char *a, const char *b)
{
        size_t length_a = strlen(a), length_b = strlen(b);
        unsigned row[KEY_MAX + 1];

        if (length_a > KEY_MAX || length_b > KEY_MAX)
                return FAR_AWAY;
        for (unsigned j = 0; j <= length_b; j++)
                row[j] = j;
        for (size_t i = 1; i <= length_a; i++) {
                unsigned diagonal = row[0];

                row[0] = (unsigned)i;
                for (size_t j = 1; j <= length_b; j++) {
                        unsigned change = diagonal + (a[i - 1] != b[j - 1]);

                        diagonal = row[j];
                        row[j] = least(change, least(row[j], row[j - 1]) + 1);
                }
        }
        return row[length_b];
}

/* The key that was probably meant: a third of it may be wrong, or its end missing. NULL: none. */
static const char *nearest(const cyaml_schema_field_t *fields, const char *key)
{
        const char *best = NULL;
        unsigned best_distance = FAR_AWAY;

        for (; fields->key; fields++) {
                unsigned d = distance(fields->key, key), allowed = (unsigned)strlen(fields->key);

                if (strlen(key) >= 3 && strncmp(fields->key, key, strlen(key)) == 0)
                        d = 1;
                if (d < best_distance && d * 3 <= allowed) {
                        best_distance = d;
                        best = fields->key;
                }
        }
        return best;
}

static int unknown_key(const struct vm_yaml *yaml, const struct vm_yaml_node *mapping,
                       const struct vm_yaml_node *child, const cyaml_schema_field_t *fields,
                       struct error *err)
{
        const char *meant = nearest(fields, child->key), *what = "of a VM file";

        if (mapping->key)
                what = "here";
        else if (mapping->parent)
                what = "of a list's entry here";
        vm_yaml_key_error(yaml, child, err, "'%.40s' is no key %s", child->key, what);
        if (meant)
                error_hint(err, "did you mean '%s'?", meant);
        else
                error_hint(err, "tarn-vm-file(5) describes all keys");
        return -EINVAL;
}

static const cyaml_schema_field_t *find(const cyaml_schema_field_t *fields, const char *key)
{
        while (fields->key && strcmp(fields->key, key) != 0)
                fields++;
        return fields->key ? fields : NULL;
}

/* What an error calls a node: its key, or that of the list that it is in. */
static const char *name_of(const struct vm_yaml_node *node)
{
        if (node->key)
                return node->key;
        return node->parent && node->parent->key ? node->parent->key : "the file";
}

static int match_mapping(const struct vm_yaml *yaml, const struct vm_yaml_node *node,
                         struct error *err)
{
        const cyaml_schema_field_t *fields = node->schema->mapping.fields;

        if (node->kind != VM_YAML_MAPPING)
                return vm_yaml_error(yaml, node, err,
                                     "%s: keys with values belong here ('key: "
                                     "value')",
                                     name_of(node));
        for (struct vm_yaml_node *child = node->children; child; child = child->next) {
                const cyaml_schema_field_t *field = find(fields, child->key);

                if (!field)
                        return unknown_key(yaml, node, child, fields, err);
                child->schema = &field->value;
        }
        for (const cyaml_schema_field_t *field = fields; field->key; field++)
                if (!(field->value.flags & CYAML_FLAG_OPTIONAL) && !vm_yaml_child(node, field->key))
                        return vm_yaml_error(yaml, node, err, "'%s' is missing", field->key);
        return 0;
}

static int match_list(const struct vm_yaml *yaml, const struct vm_yaml_node *node,
                      struct error *err)
{
        uint32_t n = 0, max = node->schema->sequence.max;

        if (node->kind != VM_YAML_LIST)
                return vm_yaml_error(yaml, node, err,
                                     "%s: a list belongs here ('- ' in front of each entry)",
                                     name_of(node));
        for (struct vm_yaml_node *child = node->children; child; child = child->next) {
                if (++n > max)
                        return vm_yaml_error(yaml, child, err, "%s: there are more than %u entries",
                                             name_of(node), max);
                child->schema = node->schema->sequence.entry;
        }
        return 0;
}

static int match_text(const struct vm_yaml *yaml, const struct vm_yaml_node *node,
                      struct error *err)
{
        uint32_t max = node->schema->string.max;

        if (node->kind != VM_YAML_TEXT)
                return vm_yaml_error(yaml, node, err, "%s: a single value belongs here",
                                     name_of(node));
        if (!node->text[0] || strcmp(node->text, "~") == 0) {
                vm_yaml_key_error(yaml, node, err, "%s: there is no value", name_of(node));
                error_hint(err, "leave the line away for the default");
                return -EINVAL;
        }
        if (strlen(node->text) > max)
                return vm_yaml_error(yaml, node, err,
                                     "%s: the value has %zu bytes, at most %u are taken",
                                     name_of(node), strlen(node->text), max);
        return 0;
}

/* Judge a node by its schema, and give its children theirs. */
static int match_one(const struct vm_yaml *yaml, const struct vm_yaml_node *node, struct error *err)
{
        switch (node->schema->type) {
        case CYAML_MAPPING:
                return match_mapping(yaml, node, err);
        case CYAML_SEQUENCE:
                return match_list(yaml, node, err);
        default:
                return match_text(yaml, node, err);
        }
}

/* In the file's order: the first child, or what follows the node, or what follows one above it. */
static struct vm_yaml_node *next_node(struct vm_yaml_node *node)
{
        if (node->children)
                return node->children;
        while (node && !node->next)
                node = node->parent;
        return node ? node->next : NULL;
}

int vm_yaml_match(const struct vm_yaml *yaml, struct error *err)
{
        int r = 0;

        yaml->root->schema = &vm_file_schema;
        for (struct vm_yaml_node *node = yaml->root; node && r == 0; node = next_node(node))
                r = match_one(yaml, node, err);
        return r;
}
