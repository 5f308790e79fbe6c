/* file_yaml.c - YAML as a tree whose nodes know their lines and columns. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "vm/file_internal.h"

struct reader {
        struct vm_yaml *yaml;
        struct vm_yaml_node *at; /* the mapping or list that is being filled */
        unsigned depth;
        char *key; /* read, and waiting for its value */
        unsigned key_line, key_column;
        struct error *err;
};

static unsigned from_one(size_t index)
{
        return (unsigned)index + 1; /* libyaml counts from 0; VM_FILE_MAX fits */
}

static void place_error(const struct vm_yaml *yaml, unsigned line, unsigned column,
                        struct error *err, const char *format, va_list args)
{
        char message[sizeof(err->message)];

        vsnprintf(message, sizeof(message), format, args);
        error_set(err, -EINVAL, "%s:%u:%u: %s", yaml->name, line, column, message);
}

int vm_yaml_error(const struct vm_yaml *yaml, const struct vm_yaml_node *node, struct error *err,
                  const char *format, ...)
{
        va_list args;

        va_start(args, format);
        place_error(yaml, node->line, node->column, err, format, args);
        va_end(args);
        return -EINVAL;
}

int vm_yaml_key_error(const struct vm_yaml *yaml, const struct vm_yaml_node *node,
                      struct error *err, const char *format, ...)
{
        va_list args;

        va_start(args, format);
        place_error(yaml, node->key ? node->key_line : node->line,
                    node->key ? node->key_column : node->column, err, format, args);
        va_end(args);
        return -EINVAL;
}

static int __attribute__((format(printf, 3, 4)))
mark_error(const struct reader *reader, const yaml_mark_t *mark, const char *format, ...)
{
        va_list args;

        va_start(args, format);
        place_error(reader->yaml, from_one(mark->line), from_one(mark->column), reader->err, format,
                    args);
        va_end(args);
        return -EINVAL;
}

struct vm_yaml_node *vm_yaml_child(const struct vm_yaml_node *mapping, const char *key)
{
        struct vm_yaml_node *child = mapping->children;

        while (child && (!child->key || strcmp(child->key, key) != 0))
                child = child->next;
        return child;
}

struct vm_yaml_node *vm_yaml_item(const struct vm_yaml_node *list, size_t i)
{
        struct vm_yaml_node *child = list->children;

        while (child && i-- > 0)
                child = child->next;
        return child;
}

static void node_free(struct vm_yaml_node *node)
{
        free(node->key);
        free(node->text);
        free(node);
}

/* Without recursion: children of a node that goes are put in front of what follows it. */
void vm_yaml_release(struct vm_yaml *yaml)
{
        struct vm_yaml_node *node = yaml->root;

        while (node) {
                struct vm_yaml_node *next = node->next;

                if (node->children) {
                        node->last->next = next;
                        next = node->children;
                }
                node_free(node);
                node = next;
        }
        *yaml = (struct vm_yaml){0};
}

/* Make a node for the event's value and hang it into the tree. It takes the waiting key. NULL: out
 * of memory. */
static struct vm_yaml_node *node_add(struct reader *reader, enum vm_yaml_kind kind,
                                     const yaml_event_t *event)
{
        struct vm_yaml_node *node = calloc(1, sizeof(*node)), *parent = reader->at;

        if (!node)
                return NULL;
        node->kind = kind;
        node->parent = parent;
        node->line = from_one(event->start_mark.line);
        node->column = from_one(event->start_mark.column);
        node->key = reader->key;
        node->key_line = reader->key_line;
        node->key_column = reader->key_column;
        reader->key = NULL;
        reader->yaml->n_nodes++;
        if (!parent)
                reader->yaml->root = node;
        else if (parent->last)
                parent->last->next = node;
        else
                parent->children = node;
        if (parent)
                parent->last = node;
        return node;
}

static bool awaits_key(const struct reader *reader)
{
        return reader->at && reader->at->kind == VM_YAML_MAPPING && !reader->key;
}

/* What no value of a VM file needs, and what would end a C string or a line elsewhere. */
static int check_characters(const struct reader *reader, const yaml_event_t *event)
{
        const unsigned char *text = event->data.scalar.value;
        size_t length = event->data.scalar.length;

        for (size_t i = 0; i < length; i++) {
                if (text[i] >= ' ' && text[i] != 0x7f)
                        continue;
                mark_error(reader, &event->start_mark,
                           text[i] == '\n' ? "the value holds the end of a line"
                                           : "the value holds a control character, 0x%02x",
                           text[i]);
                if (text[i] == '\n')
                        error_hint(reader->err, "a value is one line; '>-' folds several into one");
                return -EINVAL;
        }
        return 0;
}

static int read_key(struct reader *reader, const yaml_event_t *event)
{
        const struct vm_yaml_node *before;

        before = vm_yaml_child(reader->at, (const char *)event->data.scalar.value);
        if (before) {
                mark_error(reader, &event->start_mark, "'%.40s' is said twice", before->key);
                error_hint(reader->err, "the first one is in line %u", before->key_line);
                return -EINVAL;
        }
        reader->key = strdup((const char *)event->data.scalar.value);
        if (!reader->key)
                return error_set(reader->err, -ENOMEM, "out of memory");
        reader->key_line = from_one(event->start_mark.line);
        reader->key_column = from_one(event->start_mark.column);
        return 0;
}

static int check_room(const struct reader *reader, const yaml_event_t *event)
{
        if (reader->yaml->n_nodes < VM_YAML_NODES_MAX)
                return 0;
        return mark_error(reader, &event->start_mark, "the file has more than %u values",
                          VM_YAML_NODES_MAX);
}

static int read_scalar(struct reader *reader, const yaml_event_t *event)
{
        struct vm_yaml_node *node;
        int r = check_characters(reader, event);

        if (r == 0 && awaits_key(reader))
                return read_key(reader, event);
        if (r == 0)
                r = check_room(reader, event);
        if (r < 0)
                return r;
        node = node_add(reader, VM_YAML_TEXT, event);
        if (node)
                node->text = strdup((const char *)event->data.scalar.value);
        return node && node->text ? 0 : error_set(reader->err, -ENOMEM, "out of memory");
}

static int read_start(struct reader *reader, enum vm_yaml_kind kind, const yaml_event_t *event)
{
        int r;

        if (awaits_key(reader))
                return mark_error(reader, &event->start_mark, "a key must be a word");
        if (++reader->depth > VM_YAML_DEPTH_MAX)
                return mark_error(reader, &event->start_mark, "the file is nested too deeply");
        r = check_room(reader, event);
        if (r < 0)
                return r;
        reader->at = node_add(reader, kind, event);
        return reader->at ? 0 : error_set(reader->err, -ENOMEM, "out of memory");
}

/* Anchors make a small file a large one, tags choose types: nothing here needs either. */
static int check_plain(const struct reader *reader, const yaml_event_t *event)
{
        const unsigned char *anchor = NULL, *tag = NULL;

        switch (event->type) {
        case YAML_ALIAS_EVENT:
                return mark_error(reader, &event->start_mark, "aliases (*name) are not taken here");
        case YAML_SCALAR_EVENT:
                anchor = event->data.scalar.anchor;
                tag = event->data.scalar.tag;
                break;
        case YAML_SEQUENCE_START_EVENT:
                anchor = event->data.sequence_start.anchor;
                tag = event->data.sequence_start.tag;
                break;
        case YAML_MAPPING_START_EVENT:
                anchor = event->data.mapping_start.anchor;
                tag = event->data.mapping_start.tag;
                break;
        default:
                break;
        }
        if (anchor)
                return mark_error(reader, &event->start_mark, "anchors (&name) are not taken here");
        return tag ? mark_error(reader, &event->start_mark, "tags (!name) are not taken here") : 0;
}

static int read_event(struct reader *reader, const yaml_event_t *event)
{
        int r = check_plain(reader, event);

        if (r < 0)
                return r;
        switch (event->type) {
        case YAML_DOCUMENT_START_EVENT:
                if (!reader->yaml->root)
                        return 0;
                return mark_error(reader, &event->start_mark,
                                  "a second document begins here; a VM file has one");
        case YAML_SCALAR_EVENT:
                return read_scalar(reader, event);
        case YAML_SEQUENCE_START_EVENT:
                return read_start(reader, VM_YAML_LIST, event);
        case YAML_MAPPING_START_EVENT:
                return read_start(reader, VM_YAML_MAPPING, event);
        case YAML_SEQUENCE_END_EVENT:
        case YAML_MAPPING_END_EVENT:
                assert(reader->at); /* libyaml's ends have beginnings */
                reader->depth--;
                reader->at = reader->at->parent;
                return 0;
        default:
                return 0;
        }
}

/* libyaml's sentences are fragments: "did not find expected key" "while parsing a block mapping" */
static int parser_error(const struct reader *reader, const yaml_parser_t *parser)
{
        yaml_mark_t mark = parser->problem_mark;

        if (parser->error == YAML_MEMORY_ERROR)
                return error_set(reader->err, -ENOMEM, "out of memory");
        if (parser->error == YAML_READER_ERROR) /* which gives an offset only */
                mark = parser->mark;
        return mark_error(reader, &mark, "this is not YAML: %s%s%s",
                          parser->problem ? parser->problem : "it cannot be parsed",
                          parser->context ? " " : "", parser->context ? parser->context : "");
}

static int read_events(struct reader *reader, yaml_parser_t *parser)
{
        yaml_event_t event;
        bool end = false;
        int r = 0;

        /* Each event but a few consumes a part of the text: they end. */
        while (!end && r == 0) {
                if (!yaml_parser_parse(parser, &event))
                        return parser_error(reader, parser);
                end = event.type == YAML_STREAM_END_EVENT;
                r = read_event(reader, &event);
                yaml_event_delete(&event);
        }
        return r;
}

int vm_yaml_read(struct vm_yaml *yaml, const void *text, size_t length, struct error *err)
{
        struct reader reader = {.yaml = yaml, .err = err};
        yaml_parser_t parser;

        if (!yaml_parser_initialize(&parser))
                return error_set(err, -ENOMEM, "out of memory");
        yaml_parser_set_input_string(&parser, text, length);
        int r = read_events(&reader, &parser);
        yaml_parser_delete(&parser);
        free(reader.key);
        if (r < 0)
                return r;
        if (!yaml->root)
                return error_set(err, -EINVAL, "%s:1:1: the file is empty", yaml->name);
        return 0;
}
