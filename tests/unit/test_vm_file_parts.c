/* test_vm_file_parts.c - VM files: disks, networks and seeds that are refused, and those beside them that
 * are not. */
#include "tests/unit/vm_file_try.h"

static void disk_refused(const char *fields, const char *message, const char *hint)
{
        char line[1024];

        snprintf(line, sizeof(line), "disks:\n  - %s", fields);
        refused_line(line, message, hint);
}

static void disks_are_checked(void **state)
{
        disk_refused("volume: web", "web.yaml:4:13: volume: 'web' is not POOL/VOLUME or", NULL);
        disk_refused("volume: a@b/c", "web.yaml:4:13: volume: 'a@b/c' is not POOL/VOLUME", NULL);
        disk_refused("volume: a/", "web.yaml:4:13: volume: the name of the volume is empty", NULL);
        disk_refused("volume: /b", "web.yaml:4:13: volume: the name of the pool is empty", NULL);
        disk_refused("volume: a/b@", "web.yaml:4:13: volume: the name of the snapshot is", NULL);
        disk_refused("volume: a/b@c@d", "web.yaml:4:13: volume: 'c@d' is no name", "letter");
        disk_refused("volume: a/b/c", "web.yaml:4:13: volume: 'b/c' is no name", "letter");
        disk_refused("volume: a/b1234567890123456789012345678901234567890123456789012345678901234",
                     "web.yaml:4:13: volume: the name of the volume has 65 characters", NULL);
        disk_refused("volume: a/b@c\n    readonly: false",
                     "web.yaml:5:15: readonly: nobody can write to a snapshot", "from: a/b@c");
        disk_refused("volume: a/b@c\n    from: x", "web.yaml:5:11: from: a snapshot", NULL);
        disk_refused("volume: a/b@c\n    size: 1G", "web.yaml:5:11: size: a snapshot", NULL);
        disk_refused("volume: a/b\n    from: c/d@e",
                     "web.yaml:5:11: from: a volume of pool 'a' cannot be a clone of a snapshot of "
                     "pool 'c'",
                     "./");
        disk_refused("volume: a/b\n    size: 0", "web.yaml:5:11: size: 0 is not between", NULL);
        disk_refused("volume: a/b\n    size: 513", "web.yaml:5:11: size: 513 is not a multiple",
                     NULL);
        disk_refused("volume: a/b\n    size: 5P", "web.yaml:5:11: size: 5P is not between", NULL);
        disk_refused("volume: a/b\n    size: big", "web.yaml:5:11: size: 'big' is not a size",
                     "64M");
        disk_refused("volume: a/b\n    serial: 123456789012345678901",
                     "web.yaml:5:13: serial: the value has 21 bytes, at most 20", NULL);
        disk_refused("volume: a/b\n    serial: \xc3\xa4",
                     "web.yaml:5:13: serial: '\xc3\xa4' is not printable ASCII", NULL);
        disk_refused("volume: a/b\n    queues: 17",
                     "web.yaml:5:13: queues: 17 is not between 1 "
                     "and 16",
                     NULL);
        disk_refused("volume: a/b\n    boot: 0", "web.yaml:5:11: boot: 0 is not between", NULL);
}

static void disks_differ(void **state)
{
        disk_refused("volume: a/b\n  - volume: a/b",
                     "web.yaml:5:13: volume: another disk has this volume already", NULL);
        disk_refused("volume: a/b@c\n  - volume: a/b@c", "web.yaml:5:13: volume: another", NULL);
        disk_refused("{volume: a/b, serial: x}\n  - {volume: a/c, serial: x}",
                     "web.yaml:5:27: serial: another disk has 'x' already", NULL);
        disk_refused("{volume: a/b, boot: 1}\n  - {volume: a/c, boot: 1}",
                     "web.yaml:5:25: boot: another disk has 1 already", NULL);
        vm_file_free(parse("name: a\ndisks: [{volume: a/b}, {volume: a/b@c}, {volume: b/b}]"));
}

static void nic_refused(const char *fields, const char *message, const char *hint)
{
        char line[1024];

        snprintf(line, sizeof(line), "network:\n  - %s", fields);
        refused_line(line, message, hint);
}

static void network_cards_are_checked(void **state)
{
        nic_refused("type: bridge", "web.yaml:4:11: type: 'bridge' is neither user nor tap", NULL);
        nic_refused("{type: user, tap: t}", "web.yaml:4:23: tap: this is for 'type: tap' only",
                    NULL);
        nic_refused("{type: tap, tap: a/b}", "web.yaml:4:22: tap: 'a/b' is no name", NULL);
        nic_refused("{type: tap, tap: ..}", "web.yaml:4:22: tap: '..' is no name", NULL);
        nic_refused("{type: tap, tap: a%d}", "web.yaml:4:22: tap: 'a%d' is no name", NULL);
        nic_refused("{type: tap, tap: a234567890123456}", "web.yaml:4:22: tap: the value has 16",
                    NULL);
        nic_refused("{type: tap, tap: t, forward: [tcp:1:1]}",
                    "web.yaml:4:34: forward: this is for 'type: user' only", NULL);
        nic_refused("{type: user, mac: 52:54}", "web.yaml:4:23: mac: '52:54' is no MAC", "52:54:");
        nic_refused("{type: user, mac: 52-54-00-00-00-01}", "web.yaml:4:23: mac: ", "52:54:");
        nic_refused("{type: user, mac: 5g:54:00:00:00:01}", "web.yaml:4:23: mac: ", "52:54:");
        nic_refused("{type: user, mac: 01:54:00:00:00:01}",
                    "web.yaml:4:23: mac: 01:54:00:00:00:01 is for groups", NULL);
        nic_refused("{type: user, mac: 00:00:00:00:00:00}",
                    "web.yaml:4:23: mac: an address of zeroes", NULL);
        nic_refused("{type: user, mac: 52:54:00:00:00:01}\n"
                    "  - {type: user, mac: 52:54:00:00:00:01}",
                    "web.yaml:5:23: mac: another card has this address", NULL);
        nic_refused("{type: tap, tap: t}\n  - {type: tap, tap: t}",
                    "web.yaml:5:22: tap: another card has 't' already", NULL);
}

static void forwards_are_checked(void **state)
{
        static const char *const bad[] = {
            "8080:80",
            "tcp",
            "'tcp:'",
            "tcp:80",
            "sctp:80:80",
            "tcp:0:80",
            "tcp:80:0",
            "tcp:65536:80",
            "tcp:80:65536",
            "tcp:80:+80",
            "tcp:80:' 80'",
            "tcp:1.2.3:80:80",
            "tcp:::1:80:80",
            "tcp:[]:80:80",
            "tcp:[1.2.3.4]:80:80",
            "tcp:localhost:80:80",
            "tcp:80:",
            "tcp:000080:80",
        };
        char line[256];

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                snprintf(line, sizeof(line), "type: user\n    forward:\n      - \"%s\"", bad[i]);
                nic_refused(line, "web.yaml:6:9: forward: '", "GUEST-PORT");
        }
        nic_refused("type: user\n    forward: ['tcp:80:80', 'tcp:80:81']",
                    "web.yaml:5:28: forward: this port of the host leads elsewhere", NULL);
        nic_refused("{type: user, forward: ['tcp:[::1]:80:80']}\n"
                    "  - {type: user, forward: ['tcp:[0:0::1]:80:81']}",
                    "web.yaml:5:28: forward: this port of the host leads elsewhere", NULL);
        vm_file_free(parse(MINIMAL "network: [{type: user, forward: ['tcp:80:80', 'udp:80:80', "
                                   "'tcp:127.0.0.1:80:80', 'tcp:81:80']}]"));
}

static void the_seed_is_checked(void **state)
{
        static const char *const bad[] = {"-a",   "a-",   ".a",  "a.",       "a..b",
                                          "a.-b", "a-.b", "a_b", "\xc3\xa4", "a b"};
        char line[128], message[128];

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                snprintf(line, sizeof(line), "seed:\n  hostname: %s", bad[i]);
                snprintf(message, sizeof(message), "web.yaml:4:13: hostname: '%s' is no host name",
                         bad[i]);
                refused_line(line, message, NULL);
        }
        refused_line("seed: {user-data: u, meta-data: m, hostname: h}",
                     "web.yaml:3:46: hostname: with files for user-data and meta-data this goes "
                     "nowhere",
                     "leave one");
        refused_line("seed: {user-data: u, meta-data: m, ssh-keys: [ssh-rsa AAAA]}",
                     "web.yaml:3:46: ssh-keys: with files for", "leave one");
        vm_file_free(parse(MINIMAL "seed: {user-data: u, meta-data: m, network-config: n}"));
        refused_line("seed:\n  ssh-keys:\n    - ssh-rsa AAAAx\n    - ~/.ssh/id_rsa.pub",
                     "web.yaml:6:7: ssh-keys: '~/.ssh/id_rsa.pub' is no public key", ".pub");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(disks_are_checked),         cmocka_unit_test(disks_differ),
            cmocka_unit_test(network_cards_are_checked), cmocka_unit_test(forwards_are_checked),
            cmocka_unit_test(the_seed_is_checked),
        };

        return cmocka_run_group_tests_name("vm_file_parts", tests, NULL, NULL);
}
