/* file_check_network.c - the network cards of a VM file. */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vm/file_internal.h"

/* "52:54:00:12:34:56", and nothing that sscanf() would take besides. */
static int parse_mac(const char *text, uint8_t mac[6])
{
        if (strlen(text) != 17)
                return -EINVAL;
        for (size_t i = 0; i < 6; i++, text += 3) {
                if (!isxdigit((unsigned char)text[0]) || !isxdigit((unsigned char)text[1]) ||
                    (i < 5 && text[2] != ':'))
                        return -EINVAL;
                mac[i] = (uint8_t)strtoul(text, NULL, 16); /* ends at the colon */
        }
        return 0;
}

static int check_mac(const struct check *c, const char *text, struct vm_nic *nic)
{
        static const uint8_t none[6];

        if (!text)
                return 0;
        if (parse_mac(text, nic->mac) < 0) {
                check_failed(c, "mac", "'%.40s' is no MAC address", text);
                error_hint(c->err, "one is six bytes: 52:54:00:12:34:56");
                return -EINVAL;
        }
        if (nic->mac[0] & 1)
                return check_failed(c, "mac", "%s is for groups: the first byte is odd", text);
        if (memcmp(nic->mac, none, 6) == 0)
                return check_failed(c, "mac", "an address of zeroes belongs to nobody");
        nic->has_mac = true;
        return 0;
}

/* As Linux checks an interface's name. */
static int check_tap(const struct check *c, const struct raw_nic *raw, struct vm_nic *nic)
{
        if (nic->type != VM_NIC_TAP)
                return raw->tap ? check_failed(c, "tap", "this is for 'type: tap' only") : 0;
        if (!raw->tap) {
                vm_yaml_error(c->yaml, c->node, c->err, "'tap' is missing");
                error_hint(c->err, "name the interface: 'tap: tap0'");
                return -EINVAL;
        }
        if (strpbrk(raw->tap, "/: %") || strcmp(raw->tap, ".") == 0 || strcmp(raw->tap, "..") == 0)
                return check_failed(c, "tap", "'%s' is no name for an interface", raw->tap);
        memcpy(nic->tap, raw->tap, strlen(raw->tap) + 1); /* the schema has the length */
        return 0;
}

/* A port's number, which ends the text. */
static int take_port(const char *text, uint16_t *port)
{
        unsigned long number;

        if (!text[0] || text[strspn(text, "0123456789")] != '\0' || strlen(text) > 5)
                return -EINVAL;
        number = strtoul(text, NULL, 10);
        if (number == 0 || number > UINT16_MAX)
                return -EINVAL;
        *port = (uint16_t)number;
        return 0;
}

/* "127.0.0.1" or "[::1]" */
static int take_address(char *text, char address[INET6_ADDRSTRLEN])
{
        struct in6_addr parsed;
        size_t n = strlen(text);
        bool six = n > 2 && text[0] == '[' && text[n - 1] == ']';

        if (six) {
                text[n - 1] = '\0';
                text++;
        }
        if (inet_pton(six ? AF_INET6 : AF_INET, text, &parsed) != 1)
                return -EINVAL;
        /* In one form, so that the same are the same. */
        return inet_ntop(six ? AF_INET6 : AF_INET, &parsed, address, INET6_ADDRSTRLEN) ? 0
                                                                                       : -EINVAL;
}

/* tcp:[ADDRESS:]HOST-PORT:GUEST-PORT, taken apart from its end, as addresses may hold colons. */
static int parse_forward(const char *text, struct vm_forward *forward)
{
        char copy[128], *rest = copy, *colon;

        if (strlen(text) >= sizeof(copy))
                return -EINVAL;
        memcpy(copy, text, strlen(text) + 1);
        forward->udp = strncmp(copy, "udp:", 4) == 0;
        if (!forward->udp && strncmp(copy, "tcp:", 4) != 0)
                return -EINVAL;
        rest += 4;
        colon = strrchr(rest, ':');
        if (!colon || take_port(colon + 1, &forward->guest_port) < 0)
                return -EINVAL;
        *colon = '\0';
        colon = strrchr(rest, ':');
        if (take_port(colon ? colon + 1 : rest, &forward->host_port) < 0)
                return -EINVAL;
        if (!colon)
                return 0;
        *colon = '\0';
        return take_address(rest, forward->address);
}

static bool same_door(const struct vm_forward *a, const struct vm_forward *b)
{
        return a->udp == b->udp && a->host_port == b->host_port &&
               strcmp(a->address, b->address) == 0;
}

/* A port of the host leads to one place; @file holds the cards before this one. */
static bool door_is_taken(const struct vm_file *file, const struct vm_forward *forward)
{
        for (size_t i = 0; i < file->n_nics; i++)
                for (size_t k = 0; k < file->nics[i].n_forwards; k++)
                        if (&file->nics[i].forwards[k] != forward &&
                            same_door(&file->nics[i].forwards[k], forward))
                                return true;
        return false;
}

static int check_forwards(const struct check *c, const struct raw_nic *raw, struct vm_nic *nic,
                          const struct vm_file *file)
{
        const struct vm_yaml_node *list = vm_yaml_child(c->node, "forward");

        if (raw->forward_count == 0)
                return 0;
        if (nic->type != VM_NIC_USER)
                return check_failed(c, "forward", "this is for 'type: user' only");
        nic->forwards = calloc(raw->forward_count, sizeof(*nic->forwards));
        if (!nic->forwards)
                return error_set(c->err, -ENOMEM, "out of memory");
        for (unsigned i = 0; i < raw->forward_count; i++) {
                const struct vm_yaml_node *item = vm_yaml_item(list, i);

                if (parse_forward(raw->forward[i], &nic->forwards[i]) < 0) {
                        vm_yaml_error(c->yaml, item, c->err,
                                      "forward: '%.80s' does not say which port leads where",
                                      raw->forward[i]);
                        error_hint(c->err, "tcp:[ADDRESS:]HOST-PORT:GUEST-PORT, or udp:...");
                        return -EINVAL;
                }
                nic->n_forwards++;
                if (door_is_taken(file, &nic->forwards[i]))
                        return vm_yaml_error(c->yaml, item, c->err,
                                             "forward: this port of the host leads elsewhere "
                                             "already");
        }
        return 0;
}

static int check_nic(const struct check *c, const struct raw_nic *raw, struct vm_nic *nic,
                     const struct vm_file *file)
{
        int r;

        if (strcmp(raw->type, "tap") == 0)
                nic->type = VM_NIC_TAP;
        else if (strcmp(raw->type, "user") != 0)
                return check_failed(c, "type", "'%.40s' is neither user nor tap", raw->type);
        r = check_tap(c, raw, nic);
        if (r == 0)
                r = check_mac(c, raw->mac, nic);
        if (r == 0)
                r = check_forwards(c, raw, nic, file);
        return r;
}

/* What no two cards may have in common. */
static int check_others(const struct check *c, const struct vm_nic *nics, size_t i)
{
        for (size_t k = 0; k < i; k++) {
                if (nics[i].has_mac && nics[k].has_mac && memcmp(nics[i].mac, nics[k].mac, 6) == 0)
                        return check_failed(c, "mac", "another card has this address already");
                if (nics[i].tap[0] && strcmp(nics[i].tap, nics[k].tap) == 0)
                        return check_failed(c, "tap", "another card has '%s' already", nics[i].tap);
        }
        return 0;
}

int check_network(const struct check *c, const struct raw_file *raw, struct vm_file *file)
{
        const struct vm_yaml_node *list = vm_yaml_child(c->node, "network");
        struct check inner = *c;
        int r = 0;

        if (raw->network_count == 0)
                return 0;
        file->nics = calloc(raw->network_count, sizeof(*file->nics));
        if (!file->nics)
                return error_set(c->err, -ENOMEM, "out of memory");
        for (unsigned i = 0; i < raw->network_count && r == 0; i++) {
                inner.node = vm_yaml_item(list, i);
                file->n_nics++;
                r = check_nic(&inner, &raw->network[i], &file->nics[i], file);
                if (r == 0)
                        r = check_others(&inner, file->nics, i);
        }
        return r;
}
