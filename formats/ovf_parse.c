/* ovf_parse.c - OVF descriptors, read. Elements and attributes are known by their local names: the name
 * spaces differ between versions, the names do not. */
#include <errno.h>
#include <libxml/hash.h>
#include <libxml/parser.h>
#include <libxml/tree.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "formats/image.h"
#include "formats/ovf.h"

#define BLANKS " \t\r\n"

/* CIM_ResourceAllocationSettingData.ResourceType */
enum {
        TYPE_PROCESSOR = 3,
        TYPE_MEMORY = 4,
        TYPE_IDE = 5,
        TYPE_SCSI = 6,
        TYPE_ETHERNET = 10,
        TYPE_DISK = 17,
        TYPE_OTHER_STORAGE = 20,
};

struct controller {
        char id[64];
        enum ovf_controller kind;
        bool has_address;
        uint64_t address; /* among those of its kind */
};

struct parser {
        const char *path;
        struct ovf_machine *m;
        xmlNode *references, *disks;
        char *configuration;    /* NULL: there are none */
        xmlHashTable *replaced; /* InstanceIDs of items of the configuration */
        struct controller *controllers;
        size_t n_controllers;
};

/* ---- the tree ---- */

static bool is_named(const xmlNode *node, const char *name)
{
        return node->type == XML_ELEMENT_NODE && strcmp((const char *)node->name, name) == 0;
}

static xmlNode *child(const xmlNode *parent, const char *name)
{
        for (xmlNode *n = parent ? parent->children : NULL; n; n = n->next)
                if (is_named(n, name))
                        return n;
        return NULL;
}

/* The text of @node without blanks around it, malloc'ed; NULL: none, or no memory. */
static char *text_of(const xmlNode *node)
{
        xmlChar *content = node ? xmlNodeGetContent(node) : NULL;
        const char *begin = (const char *)content;
        char *text = NULL;
        size_t n;

        if (!content)
                return NULL;
        begin += strspn(begin, BLANKS);
        n = strlen(begin);
        while (n > 0 && strchr(BLANKS, begin[n - 1]))
                n--;
        if (n > 0)
                text = strndup(begin, n);
        xmlFree(content);
        return text;
}

static char *child_text(const xmlNode *parent, const char *name)
{
        return text_of(child(parent, name));
}

static char *attribute(const xmlNode *node, const char *name)
{
        for (const xmlAttr *a = node->properties; a; a = a->next)
                if (strcmp((const char *)a->name, name) == 0)
                        return text_of((const xmlNode *)a);
        return NULL;
}

/* ---- numbers ---- */

static int bad(const struct parser *p, const xmlNode *node, const char *what, struct error *err)
{
        return error_set(err, -EBADMSG, "'%s': the element %s in line %ld %s", p->path,
                         (const char *)node->name, xmlGetLineNo(node), what);
}

/* "byte * 2^20", "MegaBytes", "KB" ...: how often to double; -1: unknown. */
static int unit_shift(const char *unit)
{
        static const struct {
                const char *name;
                int shift;
        } words[] = {{"byte", 0},       {"bytes", 0},      {"KB", 10},
                     {"KiloBytes", 10}, {"MB", 20},        {"MegaBytes", 20},
                     {"GB", 30},        {"GigaBytes", 30}, {"TeraBytes", 40}};
        const char *power = strchr(unit, '^');

        for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
                if (strcasecmp(unit, words[i].name) == 0)
                        return words[i].shift;
        if (strncasecmp(unit, "byte", 4) == 0 && power) {
                const char *factor = power - 1;
                int n = 0;

                for (power++; *power == ' ';)
                        power++;
                while (factor > unit && *factor == ' ')
                        factor--;
                while (*power >= '0' && *power <= '9' && n < 100)
                        n = n * 10 + (*power++ - '0');
                if (*factor == '2' && !*power && n <= 50)
                        return n;
        }
        return -1;
}

static bool parse_number(const char *text, int shift, uint64_t *ret)
{
        char *end;

        if (!text || text[0] < '0' || text[0] > '9')
                return false;
        errno = 0;
        *ret = strtoull(text, &end, 10);
        if (errno || *end || (shift && *ret >> (63 - shift)))
                return false;
        *ret <<= shift;
        return true;
}

/* A number in the child @name; not there: 0. */
static int child_number(const struct parser *p, const xmlNode *node, const char *name,
                        uint64_t *ret, struct error *err)
{
        char *text = child_text(node, name);
        bool is_right = !text || parse_number(text, 0, ret);

        if (!text)
                *ret = 0;
        free(text);
        return is_right ? 0 : bad(p, node, "has no number where one must be", err);
}

/* ---- disks ---- */

static xmlNode *find_by(xmlNode *parent, const char *name, const char *key, const char *value)
{
        for (xmlNode *n = parent ? parent->children : NULL; n; n = n->next) {
                char *is;
                bool found;

                if (!is_named(n, name))
                        continue;
                is = attribute(n, key);
                found = is && strcmp(is, value) == 0;
                free(is);
                if (found)
                        return n;
        }
        return NULL;
}

static int take_file(const struct parser *p, const char *id, struct ovf_disk *d, struct error *err)
{
        xmlNode *file = find_by(p->references, "File", "id", id);
        char *compression, *chunk;

        if (!file)
                return error_set(err, -EBADMSG, "'%s' has no file '%s'", p->path, id);
        d->file = attribute(file, "href");
        if (!d->file)
                return bad(p, file, "names no file", err);
        compression = attribute(file, "compression");
        chunk = attribute(file, "chunkSize");
        d->is_compressed = compression && strcmp(compression, "identity") != 0;
        d->is_chunked = chunk != NULL;
        free(compression);
        free(chunk);
        return 0;
}

static int take_capacity(const struct parser *p, const xmlNode *disk, struct ovf_disk *d,
                         struct error *err)
{
        char *capacity = attribute(disk, "capacity");
        char *unit = attribute(disk, "capacityAllocationUnits");
        int shift = unit ? unit_shift(unit) : 0;
        bool is_right =
            !capacity || (shift >= 0 && parse_number(capacity, shift, &d->capacity_bytes) &&
                          d->capacity_bytes <= IMAGE_SIZE_MAX);

        free(capacity);
        free(unit);
        return is_right ? 0 : bad(p, disk, "has a capacity that is no size", err);
}

static int take_disk(const struct parser *p, const char *id, struct ovf_disk *d, struct error *err)
{
        xmlNode *disk = find_by(p->disks, "Disk", "diskId", id);
        char *reference, *parent;
        bool is_difference;
        int r;

        if (!disk)
                return error_set(err, -EBADMSG, "'%s' has no disk '%s'", p->path, id);
        parent = attribute(disk, "parentRef");
        is_difference = parent != NULL;
        free(parent);
        if (is_difference)
                return error_set(err, -ENOTSUP,
                                 "'%s': disk '%s' is a difference from another one, which is not "
                                 "read here",
                                 p->path, id);
        d->id = strdup(id);
        d->format = attribute(disk, "format");
        r = d->id ? take_capacity(p, disk, d, err) : error_set(err, -ENOMEM, "out of memory");
        if (r < 0)
                return r;
        reference = attribute(disk, "fileRef");
        if (reference)
                r = take_file(p, reference, d, err);
        free(reference);
        return r;
}

/* "ovf:/disk/ID", or "ovf:/file/ID" of a file that needs no more to be said. */
static int take_host_resource(const struct parser *p, const xmlNode *item, struct ovf_disk *d,
                              struct error *err)
{
        char *resource = child_text(item, "HostResource");
        const char *slash = resource ? strrchr(resource, '/') : NULL;
        int r;

        if (!slash || !slash[1])
                r = bad(p, item, "is a disk without content", err);
        else if (strstr(resource, "/file/"))
                r = take_file(p, slash + 1, d, err);
        else
                r = take_disk(p, slash + 1, d, err);
        free(resource);
        return r;
}

static int add_disk(const struct parser *p, const xmlNode *item, struct error *err)
{
        struct ovf_machine *m = p->m;
        struct ovf_disk *d = &m->disks[m->n_disks];
        char *parent;
        int r;

        if (m->n_disks == OVF_ITEMS_MAX)
                return error_set(err, -EBADMSG, "'%s' has more than %u disks", p->path,
                                 OVF_ITEMS_MAX);
        m->n_disks++;
        d->controller = OVF_OTHER;
        d->bus = p->n_controllers;
        parent = child_text(item, "Parent");
        for (size_t i = 0; parent && i < p->n_controllers; i++)
                if (strcmp(p->controllers[i].id, parent) == 0) {
                        d->controller = p->controllers[i].kind;
                        d->bus = i;
                }
        free(parent);
        r = child_number(p, item, "AddressOnParent", &d->address, err);
        return r < 0 ? r : take_host_resource(p, item, d, err);
}

/* ---- the rest of the hardware ---- */

static int add_controller(struct parser *p, const xmlNode *item, uint64_t type, struct error *err)
{
        struct controller *c = &p->controllers[p->n_controllers];
        char *id = child_text(item, "InstanceID"), *sub, *address;

        if (p->n_controllers == OVF_ITEMS_MAX) {
                free(id);
                return error_set(err, -EBADMSG, "'%s' has more than %u controllers", p->path,
                                 OVF_ITEMS_MAX);
        }
        strncpy(c->id, id ? id : "", sizeof(c->id) - 1);
        free(id);
        sub = child_text(item, "ResourceSubType");
        c->kind = type == TYPE_IDE                                              ? OVF_IDE
                  : type == TYPE_SCSI                                           ? OVF_SCSI
                  : sub && (strcasestr(sub, "ahci") || strcasestr(sub, "sata")) ? OVF_SATA
                                                                                : OVF_OTHER;
        free(sub);
        address = child_text(item, "Address");
        c->has_address = parse_number(address, 0, &c->address);
        free(address);
        p->n_controllers++;
        return 0;
}

static bool comes_before(const struct controller *a, const struct controller *b)
{
        return a->has_address && b->has_address && a->address < b->address;
}

/* VMware writes IDE's second controller first. Those of a kind change places among each other by their
 * addresses; where there is none, the file's order counts. */
static void sort_controllers(struct parser *p)
{
        struct controller *c = p->controllers;

        for (size_t i = 0; i < p->n_controllers; i++) {
                size_t at = i;

                for (size_t k = i; k-- > 0;) {
                        struct controller before = c[k];

                        if (before.kind != c[at].kind)
                                continue;
                        if (!comes_before(&c[at], &before))
                                break;
                        c[k] = c[at];
                        c[at] = before;
                        at = k;
                }
        }
}

static int add_nic(const struct parser *p, const xmlNode *item, struct error *err)
{
        struct ovf_machine *m = p->m;

        if (m->n_nics == OVF_ITEMS_MAX)
                return error_set(err, -EBADMSG, "'%s' has more than %u network cards", p->path,
                                 OVF_ITEMS_MAX);
        m->nics[m->n_nics++] = (struct ovf_nic){.network = child_text(item, "Connection"),
                                                .type = child_text(item, "ResourceSubType"),
                                                .mac = child_text(item, "Address")};
        return 0;
}

static int take_memory(const struct parser *p, const xmlNode *item, struct error *err)
{
        char *unit = child_text(item, "AllocationUnits"), *text;
        int shift = unit ? unit_shift(unit) : 20;
        bool is_right;

        free(unit);
        text = child_text(item, "VirtualQuantity");
        is_right = shift >= 0 && parse_number(text, shift, &p->m->memory_bytes);
        free(text);
        return is_right ? 0 : bad(p, item, "has a memory that is no size", err);
}

static bool is_item(const xmlNode *n)
{
        return is_named(n, "Item") || is_named(n, "StorageItem") || is_named(n, "EthernetPortItem");
}

/* ---- items of one configuration: DeploymentOptionSection, and ranges on elements ---- */

static char *default_configuration(const xmlNode *root)
{
        xmlNode *section = child(root, "DeploymentOptionSection");
        xmlNode *chosen = find_by(section, "Configuration", "default", "true");

        if (!chosen)
                chosen = find_by(section, "Configuration", "default", "1");
        if (!chosen)
                chosen = child(section, "Configuration");
        return chosen ? attribute(chosen, "id") : NULL;
}

static bool has_word(const char *list, const char *word)
{
        for (const char *at = list + strspn(list, BLANKS); *at; at += strspn(at, BLANKS)) {
                size_t n = strcspn(at, BLANKS);

                if (n == strlen(word) && memcmp(at, word, n) == 0)
                        return true;
                at += n;
        }
        return false;
}

/* The smallest and the largest quantity have items of their own, with the same InstanceID. */
static bool is_bound(const xmlNode *item)
{
        char *bound = attribute(item, "bound");
        bool is = bound && (strcmp(bound, "min") == 0 || strcmp(bound, "max") == 0);

        free(bound);
        return is;
}

enum belongs { TO_ALL, TO_CHOSEN, TO_OTHERS };

static enum belongs item_belongs(const struct parser *p, const xmlNode *item)
{
        char *list = attribute(item, "configuration");
        enum belongs belongs = !list                                                  ? TO_ALL
                               : p->configuration && has_word(list, p->configuration) ? TO_CHOSEN
                                                                                      : TO_OTHERS;

        free(list);
        return belongs;
}

static int find_replaced(struct parser *p, const xmlNode *hardware, struct error *err)
{
        int r = 0;

        for (const xmlNode *n = hardware->children; r == 0 && n; n = n->next) {
                char *id;

                if (!is_item(n) || is_bound(n) || item_belongs(p, n) != TO_CHOSEN)
                        continue;
                id = child_text(n, "InstanceID");
                if (id && xmlHashUpdateEntry(p->replaced, (const xmlChar *)id, p, NULL) < 0)
                        r = error_set(err, -ENOMEM, "out of memory");
                free(id);
        }
        return r;
}

/* An item of the configuration stands in for that of all with the same InstanceID. */
static bool item_counts(const struct parser *p, const xmlNode *item)
{
        enum belongs belongs = item_belongs(p, item);
        char *id;
        bool counts;

        if (is_bound(item))
                return false;
        if (belongs != TO_ALL)
                return belongs == TO_CHOSEN;
        id = child_text(item, "InstanceID");
        counts = !id || !xmlHashLookup(p->replaced, (const xmlChar *)id);
        free(id);
        return counts;
}

/* Disks come after all controllers, whatever the order in the file. */
static int take_item(struct parser *p, const xmlNode *item, bool second, struct error *err)
{
        uint64_t type;
        int r = child_number(p, item, "ResourceType", &type, err);

        if (r < 0 || second != (type == TYPE_DISK))
                return r;
        switch (type) {
        case TYPE_PROCESSOR:
                return child_number(p, item, "VirtualQuantity", &p->m->n_cpus, err);
        case TYPE_MEMORY:
                return take_memory(p, item, err);
        case TYPE_IDE:
        case TYPE_SCSI:
        case TYPE_OTHER_STORAGE:
                return add_controller(p, item, type, err);
        case TYPE_ETHERNET:
                return add_nic(p, item, err);
        case TYPE_DISK:
                return add_disk(p, item, err);
        default:
                return 0;
        }
}

static int take_items(struct parser *p, const xmlNode *hardware, bool second, struct error *err)
{
        int r = 0;

        for (xmlNode *n = hardware->children; r == 0 && n; n = n->next)
                if (is_item(n) && item_counts(p, n))
                        r = take_item(p, n, second, err);
        return r;
}

/* VMware says so in a Config element of its own, VirtualBox in its copy of all settings. */
static void take_firmware(struct parser *p, const xmlNode *system, const xmlNode *hardware)
{
        const xmlNode *firmware = child(child(child(system, "Machine"), "Hardware"), "Firmware");
        char *type = firmware ? attribute(firmware, "type") : NULL;

        p->m->is_efi = type && strncmp(type, "EFI", 3) == 0;
        free(type);
        for (const xmlNode *n = hardware->children; n; n = n->next) {
                char *key, *value;

                if (!is_named(n, "Config"))
                        continue;
                key = attribute(n, "key");
                value = attribute(n, "value");
                if (key && value && strcmp(key, "firmware") == 0)
                        p->m->is_efi = strcmp(value, "efi") == 0;
                free(key);
                free(value);
        }
}

static int by_place(const void *a, const void *b)
{
        const struct ovf_disk *x = a, *y = b;

        if (x->bus != y->bus)
                return x->bus < y->bus ? -1 : 1;
        return x->address < y->address ? -1 : x->address > y->address;
}

static int take_system(struct parser *p, const xmlNode *system, struct error *err)
{
        xmlNode *hardware = child(system, "VirtualHardwareSection");
        int r;

        p->m->name = child_text(system, "Name");
        if (!p->m->name)
                p->m->name = attribute(system, "id");
        if (!hardware)
                return error_set(err, -EBADMSG, "'%s' has a machine without hardware", p->path);
        r = find_replaced(p, hardware, err);
        if (r == 0)
                r = take_items(p, hardware, false, err);
        sort_controllers(p);
        if (r == 0)
                r = take_items(p, hardware, true, err);
        take_firmware(p, system, hardware);
        qsort(p->m->disks, p->m->n_disks, sizeof(*p->m->disks), by_place);
        return r;
}

static int take_envelope(struct parser *p, const xmlNode *root, struct error *err)
{
        xmlNode *system;

        if (!root || !is_named(root, "Envelope"))
                return error_set(err, -EBADMSG, "'%s' is no OVF envelope", p->path);
        if (child(root, "VirtualSystemCollection"))
                return error_set(err, -ENOTSUP,
                                 "'%s' is a collection of machines, which is not read here",
                                 p->path);
        system = child(root, "VirtualSystem");
        if (!system)
                system = child(root, "Content"); /* before 1.0 */
        if (!system)
                return error_set(err, -EBADMSG, "'%s' has no virtual machine in it", p->path);
        p->configuration = default_configuration(root);
        p->references = child(root, "References");
        p->disks = child(root, "DiskSection");
        return take_system(p, system, err);
}

/* ---- XML ---- */

static void refuse_dtd(void *ctx, const xmlChar *name, const xmlChar *external,
                       const xmlChar *system)
{
        xmlParserCtxt *c = ctx;

        c->_private = c; /* told below */
        xmlStopParser(c);
}

static int read_tree(const char *text, size_t length, const char *path, xmlDoc **ret_doc,
                     struct error *err)
{
        xmlParserCtxt *c = xmlNewParserCtxt();
        const xmlError *e;
        bool has_dtd;
        int r = 0;

        if (!c)
                return error_set(err, -ENOMEM, "out of memory");
        c->sax->internalSubset = refuse_dtd;
        *ret_doc = xmlCtxtReadMemory(c, text, (int)length, NULL, NULL,
                                     XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING |
                                         XML_PARSE_NOCDATA);
        has_dtd = c->_private != NULL;
        e = xmlCtxtGetLastError(c);
        if (has_dtd)
                r = error_set(err, -EBADMSG, "'%s' has a document type, which OVF has not", path);
        else if (!*ret_doc)
                r = error_set(err, -EBADMSG, "'%s' is no XML: line %d: %.*s", path, e ? e->line : 0,
                              e && e->message ? (int)strcspn(e->message, "\n") : 0,
                              e && e->message ? e->message : "");
        if (r < 0) {
                xmlFreeDoc(*ret_doc);
                *ret_doc = NULL;
        }
        xmlFreeParserCtxt(c);
        return r;
}

int ovf_parse(const char *text, size_t length, const char *path, struct ovf_machine *machine,
              struct error *err)
{
        struct parser p = {.path = path, .m = machine};
        xmlDoc *doc = NULL;
        int r;

        *machine = (struct ovf_machine){0};
        if (length > OVF_BYTES_MAX)
                return error_set(err, -EBADMSG, "'%s' is an OVF descriptor of more than 4 MiB",
                                 path);
        machine->disks = calloc(OVF_ITEMS_MAX + 1, sizeof(*machine->disks));
        machine->nics = calloc(OVF_ITEMS_MAX + 1, sizeof(*machine->nics));
        p.controllers = calloc(OVF_ITEMS_MAX + 1, sizeof(*p.controllers));
        p.replaced = xmlHashCreate(0);
        if (!machine->disks || !machine->nics || !p.controllers || !p.replaced)
                r = error_set(err, -ENOMEM, "out of memory");
        else
                r = read_tree(text, length, path, &doc, err);
        if (r == 0)
                r = take_envelope(&p, xmlDocGetRootElement(doc), err);
        xmlFreeDoc(doc);
        xmlHashFree(p.replaced, NULL);
        free(p.configuration);
        free(p.controllers);
        return r;
}

void ovf_machine_clear(struct ovf_machine *m)
{
        for (size_t i = 0; i < m->n_disks; i++) {
                free(m->disks[i].id);
                free(m->disks[i].file);
                free(m->disks[i].format);
        }
        for (size_t i = 0; i < m->n_nics; i++) {
                free(m->nics[i].network);
                free(m->nics[i].type);
                free(m->nics[i].mac);
        }
        free(m->name);
        free(m->disks);
        free(m->nics);
        *m = (struct ovf_machine){0};
}
