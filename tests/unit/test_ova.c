/* test_ova.c - OVA files: archives, descriptors, manifests, and disks in their place; written and read. */
#include <fcntl.h>
#include "common/offload.h"
#include "tests/unit/ova_fixture.h"

#define NS                                                                                         \
        "xmlns='http://schemas.dmtf.org/ovf/envelope/1' "                                          \
        "xmlns:ovf='http://schemas.dmtf.org/ovf/envelope/1' xmlns:rasd='urn:rasd'"

/* ---- descriptors ---- */

static int parse(const char *text, struct ovf_machine *m, struct error *e)
{
        *e = ERROR_INIT;
        return ovf_parse(text, strlen(text), "x.ovf", m, e);
}

/* As VirtualBox and VMware have it: disks before their controllers, other items between, sections that
 * nobody needs here. */
#define GOOD                                                                                       \
        "<?xml version='1.0'?>\n"                                                                  \
        "<ovf:Envelope " NS " xml:lang='en-US'>\n"                                                 \
        "<References><File ovf:id='f1' ovf:href='a b.vmdk' ovf:size='7'/>\n"                       \
        "<File ovf:id='f2' ovf:href='z.vmdk.gz' ovf:compression='gzip'/>\n"                        \
        "<File ovf:id='f3' ovf:href='c.vmdk' ovf:chunkSize='5'/></References>\n"                   \
        "<DiskSection><Info>x</Info>\n"                                                            \
        "<Disk ovf:diskId='d1' ovf:fileRef='f1' ovf:capacity='8' "                                 \
        "ovf:capacityAllocationUnits='byte * 2^30' ovf:format='urn:vmdk'/>\n"                      \
        "<Disk ovf:diskId='d2' ovf:fileRef='f2' ovf:capacity='1048576'/>\n"                        \
        "<Disk ovf:diskId='d3' ovf:capacity='3' ovf:capacityAllocationUnits='GigaBytes'/>\n"       \
        "<Disk ovf:diskId='d4' ovf:fileRef='f3'/>\n"                                               \
        "</DiskSection><vbox:Thing xmlns:vbox='urn:v'/>\n"                                         \
        "<VirtualSystem ovf:id='vm1'><Info/><Name> my &amp; machine </Name>\n"                     \
        "<VirtualHardwareSection><Info/>\n"                                                        \
        "<Item><rasd:InstanceID>9</rasd:InstanceID><rasd:ResourceType>17</rasd:ResourceType>\n"    \
        "<rasd:HostResource>/disk/d2</rasd:HostResource><rasd:Parent>4</rasd:Parent>\n"            \
        "<rasd:AddressOnParent>1</rasd:AddressOnParent></Item>\n"                                  \
        "<Item><rasd:ResourceType>3</rasd:ResourceType>\n"                                         \
        "<rasd:VirtualQuantity>6</rasd:VirtualQuantity></Item>\n"                                  \
        "<Item><rasd:AllocationUnits>MegaBytes</rasd:AllocationUnits>\n"                           \
        "<rasd:ResourceType>4</rasd:ResourceType>\n"                                               \
        "<rasd:VirtualQuantity>1536</rasd:VirtualQuantity></Item>\n"                               \
        "<Item><rasd:InstanceID>3</rasd:InstanceID><rasd:ResourceType>5</rasd:ResourceType>\n"     \
        "</Item><Item><rasd:InstanceID>4</rasd:InstanceID>\n"                                      \
        "<rasd:ResourceSubType>AHCI</rasd:ResourceSubType>\n"                                      \
        "<rasd:ResourceType>20</rasd:ResourceType></Item>\n"                                       \
        "<StorageItem><rasd:HostResource>ovf:/disk/d1</rasd:HostResource>\n"                       \
        "<rasd:AddressOnParent>0</rasd:AddressOnParent><rasd:Parent>4</rasd:Parent>\n"             \
        "<rasd:ResourceType>17</rasd:ResourceType></StorageItem>\n"                                \
        "<Item><rasd:HostResource>ovf:/disk/d3</rasd:HostResource>\n"                              \
        "<rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>\n"           \
        "<Item><rasd:HostResource>ovf:/disk/d4</rasd:HostResource>\n"                              \
        "<rasd:ResourceType>17</rasd:ResourceType></Item>\n"                                       \
        "<Item><rasd:Address>00:11:22:33:44:55</rasd:Address>\n"                                   \
        "<rasd:Connection>LAN</rasd:Connection><rasd:ResourceType>10</rasd:ResourceType>\n"        \
        "<rasd:ResourceSubType>VmxNet3</rasd:ResourceSubType></Item>\n"                            \
        "<vmw:Config xmlns:vmw='urn:w' vmw:key='firmware' vmw:value='efi'/>\n"                     \
        "</VirtualHardwareSection></VirtualSystem></ovf:Envelope>"

static void a_descriptor_says_what_the_machine_is(void **state)
{
        struct ovf_machine m;
        struct error e;

        if (parse(GOOD, &m, &e) < 0)
                fail_msg("%s", e.message);
        assert_string_equal(m.name, "my & machine");
        assert_int_equal(m.n_cpus, 6);
        assert_int_equal(m.memory_bytes, UINT64_C(1536) << 20);
        assert_true(m.is_efi);
        assert_int_equal(m.n_disks, 4);
        assert_string_equal(m.disks[0].id, "d3"); /* IDE comes first */
        assert_int_equal(m.disks[0].controller, OVF_IDE);
        assert_null(m.disks[0].file);
        assert_int_equal(m.disks[0].capacity_bytes, UINT64_C(3) << 30);
        assert_string_equal(m.disks[1].id, "d1");
        assert_string_equal(m.disks[1].file, "a b.vmdk");
        assert_string_equal(m.disks[1].format, "urn:vmdk");
        assert_int_equal(m.disks[1].controller, OVF_SATA);
        assert_int_equal(m.disks[1].capacity_bytes, UINT64_C(8) << 30);
        assert_string_equal(m.disks[2].id, "d2");
        assert_true(m.disks[2].is_compressed);
        assert_int_equal(m.disks[2].capacity_bytes, 1 << 20);
        assert_string_equal(m.disks[3].id, "d4"); /* of no controller */
        assert_true(m.disks[3].is_chunked);
        assert_int_equal(m.n_nics, 1);
        assert_string_equal(m.nics[0].network, "LAN");
        assert_string_equal(m.nics[0].type, "VmxNet3");
        assert_string_equal(m.nics[0].mac, "00:11:22:33:44:55");
        ovf_machine_clear(&m);
}

static void virtualbox_says_elsewhere_that_it_is_efi(void **state)
{
        static const char *const types[] = {"EFI", "EFI64", "BIOS"};

        for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
                struct ovf_machine m;
                struct error e;
                char text[512];

                snprintf(text, sizeof(text),
                         "<Envelope xmlns:vbox='urn:v'><VirtualSystem id='a'>"
                         "<VirtualHardwareSection/><vbox:Machine><Hardware>"
                         "<Firmware type='%s'/></Hardware></vbox:Machine></VirtualSystem>"
                         "</Envelope>",
                         types[i]);
                assert_int_equal(parse(text, &m, &e), 0);
                assert_int_equal(m.is_efi, i < 2);
                ovf_machine_clear(&m);
        }
}

#define IS(type)             "<ResourceType>" type "</ResourceType></Item>"
#define ITEM(type, id, more) "<Item><InstanceID>" id "</InstanceID>" more IS(type)
#define DISK_ON(controller, address, disk)                                                         \
        ITEM("17", "9" disk,                                                                       \
             "<Parent>" controller "</Parent><AddressOnParent>" address "</AddressOnParent>"       \
             "<HostResource>ovf:/disk/" disk "</HostResource>")
#define DISKS                                                                                      \
        "<DiskSection><Disk diskId='a' capacity='1'/><Disk diskId='b' capacity='1'/>"              \
        "<Disk diskId='c' capacity='1'/><Disk diskId='d' capacity='1'/></DiskSection>"
#define HARDWARE     "<VirtualSystem id='a'><VirtualHardwareSection>"
#define HARDWARE_END "</VirtualHardwareSection></VirtualSystem></Envelope>"

static void disks_are(const struct ovf_machine *m, const char *ids)
{
        assert_int_equal(m->n_disks, strlen(ids));
        for (size_t i = 0; ids[i]; i++)
                assert_true(m->disks[i].id[0] == ids[i] && !m->disks[i].id[1]);
}

static void controllers_of_a_kind_are_ordered_by_their_addresses(void **state)
{
        static const struct {
                const char *controllers, *ids;
        } cases[] = {
            /* VMware's: IDE 1 in front of IDE 0, SCSI in front of both */
            {ITEM("6", "3", "<Address>0</Address>") ITEM("5", "1", "<Address>1</Address>")
                 ITEM("5", "2", "<Address>0</Address>"),
             "dbca"},
            /* the same, with another kind between them */
            {ITEM("5", "1", "<Address>1</Address>") ITEM("6", "3", "<Address>0</Address>")
                 ITEM("5", "2", "<Address>0</Address>"),
             "bcda"},
            /* as they stand there */
            {ITEM("5", "1", "") ITEM("5", "2", "<Address>0</Address>") ITEM("6", "3", ""), "abcd"},
            {ITEM("5", "1", "<Address>x</Address>") ITEM("5", "2", "<Address>0</Address>")
                 ITEM("6", "3", ""),
             "abcd"},
            {ITEM("5", "1", "<Address>0</Address>") ITEM("5", "2", "<Address>0</Address>")
                 ITEM("6", "3", ""),
             "abcd"},
        };

        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                struct ovf_machine m;
                struct error e;
                char text[4096];

                snprintf(text, sizeof(text), "%s%s%s", "<Envelope>" DISKS HARDWARE,
                         cases[i].controllers,
                         DISK_ON("1", "0", "a") DISK_ON("2", "1", "c") DISK_ON("2", "0", "b")
                             DISK_ON("3", "0", "d") HARDWARE_END);
                if (parse(text, &m, &e) < 0)
                        fail_msg("%s", e.message);
                disks_are(&m, cases[i].ids);
                ovf_machine_clear(&m);
        }
}

#define IN(configuration, type, id, more)                                                          \
        "<Item configuration='" configuration "'><InstanceID>" id "</InstanceID>" more IS(type)
#define BOUND(bound, type, id, more)                                                               \
        "<Item bound='" bound "'><InstanceID>" id "</InstanceID>" more IS(type)
#define N(quantity)      "<VirtualQuantity>" quantity "</VirtualQuantity>"
#define DISK_IN(c, disk) IN(c, "17", "9" disk, "<HostResource>ovf:/disk/" disk "</HostResource>")
#define OPTIONS(list)    "<DeploymentOptionSection>" list "</DeploymentOptionSection>"
#define OPTION(id, more) "<Configuration id='" id "' " more "/>"

static void one_configuration_is_read(void **state)
{
        static const struct {
                const char *options, *disks;
                unsigned n_cpus, mib;
        } cases[] = {
            {OPTIONS(OPTION("small", "") OPTION("large", "default='true'")), "abc", 8, 4096},
            {OPTIONS(OPTION("small", "default='false'") OPTION("large", "default='1'")), "abc", 8,
             4096},
            {OPTIONS(OPTION("small", "") OPTION("large", "")), "ac", 1, 512},
            {OPTIONS(OPTION("other", "")), "a", 2, 512},
            {"", "a", 2, 512},
        };

        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                struct ovf_machine m;
                struct error e;
                char text[4096];

                snprintf(text, sizeof(text), "%s%s%s", "<Envelope>", cases[i].options,
                         DISKS HARDWARE);
                strcat(text, BOUND("min", "3", "1", N("16")) ITEM("3", "1", N("2")));
                strcat(text, IN("small", "3", "1", N("1")) IN(" large\thuge ", "3", "1", N("8")));
                strcat(text, BOUND("normal", "4", "2", N("512")) IN("large", "4", "2", N("4096")));
                strcat(text, IN("smaller", "4", "2", N("1")) BOUND("max", "4", "2", N("9999")));
                strcat(text, ITEM("17", "9a", "<HostResource>ovf:/disk/a</HostResource>"));
                strcat(text, DISK_IN("large", "b") DISK_IN("small large", "c") DISK_IN("x", "d"));
                strcat(text, HARDWARE_END);
                if (parse(text, &m, &e) < 0)
                        fail_msg("%s", e.message);
                assert_int_equal(m.n_cpus, cases[i].n_cpus);
                assert_int_equal(m.memory_bytes, (uint64_t)cases[i].mib << 20);
                disks_are(&m, cases[i].disks);
                ovf_machine_clear(&m);
        }
}

#define SYSTEM(items)                                                                              \
        "<Envelope " NS "><References/><DiskSection>"                                              \
        "<Disk ovf:diskId='d1' ovf:fileRef='f9'/><Disk ovf:diskId='d2' ovf:capacity='${x}'/>"      \
        "<Disk ovf:diskId='d3' ovf:parentRef='d1'/>"                                               \
        "<Disk ovf:diskId='d4' ovf:capacity='1' ovf:capacityAllocationUnits='byte * 3^4'/>"        \
        "<Disk ovf:diskId='d5' ovf:capacity='9' ovf:capacityAllocationUnits='byte * 2^50'/>"       \
        "</DiskSection><VirtualSystem ovf:id='a'><VirtualHardwareSection>" items                   \
        "</VirtualHardwareSection></VirtualSystem></Envelope>"
#define DISK(id)                                                                                   \
        SYSTEM("<Item><rasd:HostResource>ovf:/disk/" id "</rasd:HostResource>"                     \
               "<rasd:ResourceType>17</rasd:ResourceType></Item>")

static void damaged_descriptors_are_sentences(void **state)
{
        static const struct {
                const char *text, *words;
                int code;
        } bad[] = {
            {"", "is no XML", -EBADMSG},
            {"<Envelope>", "is no XML", -EBADMSG},
            {"<a/>", "no OVF envelope", -EBADMSG},
            {"<Envelope/>", "no virtual machine", -EBADMSG},
            {"<Envelope><VirtualSystem/></Envelope>", "without hardware", -EBADMSG},
            {"<Envelope><VirtualSystemCollection/></Envelope>", "collection", -ENOTSUP},
            {"<!DOCTYPE Envelope [<!ENTITY a 'b'>]><Envelope>&a;</Envelope>", "document type",
             -EBADMSG},
            {"<!DOCTYPE Envelope SYSTEM 'http://127.0.0.1/x'><Envelope/>", "document type",
             -EBADMSG},
            {DISK("d0"), "no disk 'd0'", -EBADMSG},
            {DISK("d1"), "no file 'f9'", -EBADMSG},
            {DISK("d2"), "capacity", -EBADMSG},
            {DISK("d3"), "difference", -ENOTSUP},
            {DISK("d4"), "capacity", -EBADMSG},
            {DISK("d5"), "capacity", -EBADMSG},
            {DISK(""), "without content", -EBADMSG},
            {SYSTEM("<Item><rasd:ResourceType>x</rasd:ResourceType></Item>"), "no number",
             -EBADMSG},
            {SYSTEM("<Item><rasd:ResourceType>4</rasd:ResourceType></Item>"), "memory", -EBADMSG},
            {SYSTEM("<Item><rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>"
                    "99999999999999999</rasd:VirtualQuantity></Item>"),
             "memory", -EBADMSG},
        };
        struct ovf_machine m;
        struct error e;

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                int r = parse(bad[i].text, &m, &e);

                if (r != bad[i].code || !strstr(e.message, bad[i].words))
                        fail_msg("%s: %d, %s", bad[i].text, r, e.message);
                ovf_machine_clear(&m);
        }
}

static void too_many_of_anything_is_refused(void **state)
{
        static const char *const kinds[] = {"10", "6", "17"};

        for (unsigned i = 0; i < 3; i++) {
                char *text = calloc(1, 64 * KIB), *at = text;
                struct ovf_machine m;
                struct error e;

                at += sprintf(at, "<Envelope><DiskSection><Disk diskId='d'/></DiskSection>"
                                  "<VirtualSystem id='a'><VirtualHardwareSection>");
                for (unsigned k = 0; k <= OVF_ITEMS_MAX; k++)
                        at += sprintf(at,
                                      "<Item><ResourceType>%s</ResourceType><HostResource>/disk/d"
                                      "</HostResource></Item>",
                                      kinds[i]);
                sprintf(at, "</VirtualHardwareSection></VirtualSystem></Envelope>");
                assert_int_equal(parse(text, &m, &e), -EBADMSG);
                assert_non_null(strstr(e.message, "more than 256"));
                ovf_machine_clear(&m);
                free(text);
        }
}

/* ---- archives ---- */

static void co_open_raw(struct fixture *f)
{
        struct archive a = {.fd = f->fd};
        struct ova *ova;
        struct image *image;
        struct image_extent extent;
        char data[5000];

        add_text(&a, "./x.ovf", ONE_DISK);
        memset(data, 'd', sizeof(data));
        add(&a, "./x.img", data, sizeof(data));
        add_text(&a, "behind", "behind");
        assert_int_equal(co_ova_open(f->fd, "x.ova", NULL, NULL, &ova, NULL), 0);
        assert_string_equal(ova->machine.name, "a");
        assert_int_equal(co_ova_open_disk(ova, 0, &image, NULL), 0);
        assert_int_equal(image->virtual_bytes, sizeof(data));
        memset(data, 0, sizeof(data));
        assert_int_equal(image->driver->co_read(image, data, sizeof(data), 0, NULL), 0);
        assert_true(data[0] == 'd' && data[4999] == 'd');
        /* not a byte of what lies behind */
        assert_int_equal(image->driver->co_read(image, data, sizeof(data), 1, NULL), -EIO);
        assert_int_equal(image->driver->co_extent(image, 4999, &extent, NULL), 0);
        assert_int_equal(extent.length, 1);
        image_close(image);
        assert_int_equal(co_ova_verify(ova, NULL, NULL), -ENOENT);
        ova_close(ova);
}

static void a_disk_is_opened_in_its_place(void **state)
{
        run(*state, co_open_raw);
}

static void co_holes(struct fixture *f)
{
        struct archive a = {.fd = f->fd};
        struct ova *ova;
        struct image *image;
        struct image_extent extent;
        static char data[8 * MIB];

        add_text(&a, "x.ovf", ONE_DISK);
        data[0] = data[8 * MIB - 1] = 1;
        add(&a, "x.img", data, sizeof(data));
        assert_int_equal(
            fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2 * MIB, 4 * MIB), 0);
        assert_int_equal(co_ova_open(f->fd, "x.ova", NULL, NULL, &ova, NULL), 0);
        assert_int_equal(co_ova_open_disk(ova, 0, &image, NULL), 0);
        assert_int_equal(image->driver->co_extent(image, 0, &extent, NULL), 0);
        assert_int_equal(extent.file_offset, 0);
        if (!extent.zero && extent.length < 8 * MIB) { /* the file system tells holes */
                assert_int_equal(extent.length, 2 * MIB - ova->files.members[1].offset);
                assert_int_equal(image->driver->co_extent(image, extent.length, &extent, NULL), 0);
                assert_true(extent.zero && extent.length == 4 * MIB);
        }
        image_close(image);
        ova_close(ova);
}

static void holes_are_told_from_a_disks_beginning(void **state)
{
        run(*state, co_holes);
}

static void co_manifests(struct fixture *f)
{
        static const struct {
                const char *manifest, *words;
                int open, verify;
        } cases[] = {
            {"SHA1(x.img)= 040f06fd774092478d450774f5ba30c5da78acc8\n", "", 0, 0},
            {"SHA256 (x.img) = "
             "43ce47d5ccfda4d3ec90c78da1117cdcfc0d1b6a4dde21e8eaf4ce08f3f0c19a\r\n\r\n",
             "'x.ova(x.img)' is damaged", 0, -EBADMSG},
            {"SHA1(x.ovf)= ecda1c74ff6ec4cca89cbbcd8b2427dbf3e13fae\n", "'x.ova(x.ovf)' is damaged",
             -EBADMSG, 0},
            {"SHA1(y.img)= ecda1c74ff6ec4cca89cbbcd8b2427dbf3e13fae\n", "which is not there", 0,
             -EBADMSG},
            {"SHA1(x.img)= ecda1c74\n", "line 1 of the manifest", -EBADMSG, 0},
            {"SHA1(x.img)= ecda1c74ff6ec4cca89cbbcd8b2427dbf3e13fae x\n", "line 1", -EBADMSG, 0},
            {"\nMD5(x.img)= 00\n", "line 2", -EBADMSG, 0},
            {"hello", "line 1", -EBADMSG, 0},
        };

        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                struct archive a = {.fd = f->fd};
                struct ova *ova = NULL;
                struct error e = ERROR_INIT;

                assert_int_equal(ftruncate(f->fd, 0), 0);
                add_text(&a, "x.ovf", ONE_DISK);
                add_text(&a, "x.mf", cases[i].manifest);
                add_text(&a, "x.img", "content");
                assert_int_equal(co_ova_open(f->fd, "x.ova", NULL, NULL, &ova, &e), cases[i].open);
                if (ova)
                        assert_int_equal(co_ova_verify(ova, NULL, &e), cases[i].verify);
                if (!strstr(e.message, cases[i].words))
                        fail_msg("%s: %s", cases[i].manifest, e.message);
                ova_close(ova);
        }
}

static void digests_of_a_manifest_are_compared(void **state)
{
        run(*state, co_manifests);
}

static void co_damaged_archives(struct fixture *f)
{
        struct archive a = {.fd = f->fd};

        co_refused(f, -EBADMSG, "no .ovf in it");
        add_text(&a, "x.img", "content");
        co_refused(f, -EBADMSG, "no .ovf in it");
        add_text(&a, "x.ovf", "<a/>");
        co_refused(f, -EBADMSG, "x.ova(x.ovf)");
        put_at(f->fd, "9", 1, 124); /* a size that is none, and the checksum */
        co_refused(f, -EBADMSG, "offset 0 has a wrong checksum");
        a.at = 0;
        add_text(&a, "x.ovf", ONE_DISK);
        co_refused(f, -EBADMSG, "disk in 'x.img', which is not in the archive");
        assert_int_equal(ftruncate(f->fd, 600), 0);
        co_refused(f, -EBADMSG, "not whole");
}

static void damaged_archives_are_sentences(void **state)
{
        run(*state, co_damaged_archives);
}

static void co_unread_disks(struct fixture *f)
{
        struct archive a = {.fd = f->fd};
        struct ova *ova;
        struct image *image;
        struct error e = ERROR_INIT;

        add_text(&a, "x.ovf", GOOD);
        add_text(&a, "a b.vmdk", "KDMV");
        add_text(&a, "z.vmdk.gz", "x");
        add_text(&a, "c.vmdk.000000000", "KDMV"); /* a piece; the whole is not there */
        assert_int_equal(co_ova_open(f->fd, "x.ova", NULL, NULL, &ova, NULL), 0);
        assert_int_equal(co_ova_open_disk(ova, 3, &image, &e), -ENOTSUP);
        assert_non_null(strstr(e.message, "'c.vmdk' is in several pieces"));
        ova_close(ova);
        add_text(&a, "c.vmdk", "# Disk DescriptorFile\nCID=1\nRW 1 FLAT \"/etc/passwd\"\n");
        assert_int_equal(co_ova_open(f->fd, "x.ova", NULL, NULL, &ova, NULL), 0);
        assert_int_equal(co_ova_open_disk(ova, 0, &image, &e), -ENOENT);
        assert_int_equal(co_ova_open_disk(ova, 1, &image, &e), -EBADMSG);
        assert_non_null(strstr(e.message, "'x.ova(a b.vmdk)' is shorter than a header"));
        assert_int_equal(co_ova_open_disk(ova, 2, &image, &e), -ENOTSUP);
        assert_non_null(strstr(e.message, "'z.vmdk.gz' is compressed"));
        assert_int_equal(co_ova_open_disk(ova, 3, &image, &e), -ENOTSUP);
        ova->machine.disks[3].is_chunked = false;
        assert_int_equal(co_ova_open_disk(ova, 3, &image, &e), -EPERM); /* names open nothing */
        ova_close(ova);
}

static void disks_that_are_not_read_are_named(void **state)
{
        run(*state, co_unread_disks);
}

/* A header of another kind, with its checksum. */
static void add_kind(struct archive *a, char type, const char *name, const char *text,
                     uint64_t length)
{
        uint8_t h[TAR_BLOCK];
        unsigned sum = 0;

        tar_header(h, name, length, 0);
        h[156] = (uint8_t)type;
        memset(h + 148, ' ', 8);
        for (size_t i = 0; i < sizeof(h); i++)
                sum += h[i];
        snprintf((char *)h + 148, 8, "%06o", sum);
        put_at(a->fd, h, sizeof(h), a->at);
        put_at(a->fd, text, strlen(text), a->at + TAR_BLOCK);
        a->at += TAR_BLOCK + (strlen(text) + TAR_BLOCK - 1) / TAR_BLOCK * TAR_BLOCK;
        assert_int_equal(ftruncate(a->fd, (off_t)a->at + 1024), 0);
}

/* What GNU tar, bsdtar and Python put in front of a member, each in its own way. */
static void co_other_headers(struct fixture *f)
{
        static const struct {
                char type;
                const char *text;
        } cases[] = {
            {'L', "x.img"},
            {'x', "14 path=x.img\n"},
            {'x', "19 mtime=1234567.8\n14 path=x.img\n13 size=0007\n"},
        };

        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                struct archive a = {.fd = f->fd};
                struct ova *ova;
                char data[7];

                assert_int_equal(ftruncate(f->fd, 0), 0);
                add_kind(&a, 'g', "global", "13 comment=x\n", 13);
                add_kind(&a, '5', "folder/", "", 0);
                add_text(&a, "x.ovf", ONE_DISK);
                add_kind(&a, cases[i].type, "ext", cases[i].text, strlen(cases[i].text));
                add_kind(&a, i == 0 ? 0 : '0', "shortened", "content", 7);
                add_text(&a, "y.img", "other");
                assert_int_equal(co_ova_open(f->fd, "x.ova", NULL, NULL, &ova, NULL), 0);
                assert_int_equal(ova->files.n, 3);
                assert_int_equal(ova->files.members[1].length, 7);
                assert_int_equal(pread(f->fd, data, 7, (off_t)ova->files.members[1].offset), 7);
                assert_memory_equal(data, "content", 7);
                assert_string_equal(ova->files.members[2].name, "y.img");
                ova_close(ova);
        }
}

static void other_programs_headers_are_read(void **state)
{
        run(*state, co_other_headers);
}

static void co_bad_headers(struct fixture *f)
{
        static const struct {
                char type;
                const char *text, *words;
                uint64_t length;
                int code;
        } bad[] = {
            {'S', "", "sparse file", 0, -ENOTSUP},
            {'x', "30 GNU.sparse.major=1\n", "breaks the rules", 22, -EBADMSG},
            {'x', "22 GNU.sparse.major=1\n", "sparse file", 22, -ENOTSUP},
            {'x', "14 path=x.imgX", "breaks the rules", 14, -EBADMSG},
            {'x', "3 \n", "breaks the rules", 3, -EBADMSG},
            {'x', "0 path=x\n", "breaks the rules", 9, -EBADMSG},
            {'x', "-5 path=x\n", "breaks the rules", 10, -EBADMSG},
            {'x', "10 size=x\n", "no number", 10, -EBADMSG},
            {'x', "", "not whole", 70000, -EBADMSG},
            {'0', "", "not whole", UINT64_MAX >> 1, -EBADMSG}, /* in base 256 */
        };

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                struct archive a = {.fd = f->fd};

                assert_int_equal(ftruncate(f->fd, 0), 0);
                add_kind(&a, bad[i].type, "x", bad[i].text, bad[i].length);
                co_refused(f, bad[i].code, bad[i].words);
        }
}

static void headers_that_break_the_rules_are_sentences(void **state)
{
        run(*state, co_bad_headers);
}

static void co_many_members(struct fixture *f)
{
        struct archive a = {.fd = f->fd};

        for (unsigned i = 0; i <= TAR_MEMBERS_MAX; i++)
                add_text(&a, "x", "");
        co_refused(f, -EBADMSG, "more than 4096 members");
}

static void too_many_members_are_refused(void **state)
{
        run(*state, co_many_members);
}

static void sizes_over_8_gib_are_in_base_256(void **state)
{
        uint8_t h[TAR_BLOCK];

        tar_header(h, "x", (UINT64_C(8) << 30) - 1, 0);
        assert_memory_equal(h + 124, "77777777777", 12);
        tar_header(h, "x", UINT64_C(8) << 30, 0);
        assert_memory_equal(h + 124, "\x80\0\0\0\0\0\0\2\0\0\0\0", 12);
}

/* ---- written ---- */

static void co_round_trip(struct fixture *f)
{
        static uint8_t data[2][MIB], back[MIB];
        struct offload *offload = offload_new(2);
        struct ovf_nic nics[2] = {{.network = (char *)"a&b", .mac = (char *)"52:54:00:00:00:01"},
                                  {.network = NULL, .type = (char *)"VmxNet3"}};
        struct ovf_disk disks[2] = {{.controller = OVF_SCSI}, {.controller = OVF_SCSI}};
        struct ovf_machine m = a_machine(disks, nics);
        struct ova *ova;
        struct image *image;
        struct error e = ERROR_INIT;
        int fds[2];

        for (unsigned i = 0; i < 2; i++) {
                for (size_t k = 0; k < MIB; k++)
                        data[i][k] = (uint8_t)(k * (i + 3) / 100);
                fds[i] = co_make_disk(MIB - 512 * i, data[i], "streamOptimized");
        }
        put_at(f->fd, "rubbish", 7, 9 * MIB);
        if (co_ova_write(f->fd, "x.ova", &m, fds, offload, NULL, &e) < 0)
                fail_msg("%s", e.message);
        if (co_ova_open(f->fd, "x.ova", offload, NULL, &ova, &e) < 0 ||
            co_ova_verify(ova, NULL, &e) < 0)
                fail_msg("%s", e.message);
        assert_string_equal(ova->files.members[0].name, "web__1_____.ovf");
        assert_string_equal(ova->files.members[1].name, "web__1_____.mf");
        assert_string_equal(ova->files.members[2].name, "web__1_____-disk1.vmdk");
        assert_int_equal(ova->files.n, 4);
        assert_string_equal(ova->machine.name, m.name);
        assert_int_equal(ova->machine.n_cpus, 3);
        assert_int_equal(ova->machine.memory_bytes, m.memory_bytes);
        assert_true(ova->machine.is_efi);
        assert_int_equal(ova->machine.n_disks, 2);
        assert_int_equal(ova->machine.n_nics, 2);
        assert_string_equal(ova->machine.nics[0].network, "a&b");
        assert_string_equal(ova->machine.nics[0].mac, "52:54:00:00:00:01");
        assert_string_equal(ova->machine.nics[1].type, "VmxNet3");
        for (unsigned i = 0; i < 2; i++) {
                assert_int_equal(ova->machine.disks[i].controller, OVF_SCSI);
                assert_int_equal(ova->machine.disks[i].capacity_bytes, MIB - 512 * i);
                assert_int_equal(co_ova_open_disk(ova, i, &image, NULL), 0);
                assert_string_equal(image->driver->name, "vmdk");
                assert_int_equal(image->virtual_bytes, MIB - 512 * i);
                assert_int_equal(image->driver->co_read(image, back, MIB - 512, 0, NULL), 0);
                assert_memory_equal(back, data[i], MIB - 512);
                image_close(image);
                close(fds[i]);
        }
        /* One byte of a disk, and the manifest says so. */
        put_at(f->fd, "!", 1, ova->files.members[3].offset + 70000);
        assert_int_equal(co_ova_verify(ova, NULL, &e), -EBADMSG);
        assert_non_null(strstr(e.message, "disk2.vmdk)' is damaged"));
        ova_close(ova);
        offload_free(offload);
}

static void what_was_written_is_read_back(void **state)
{
        run(*state, co_round_trip);
}

static void co_refused_writes(struct fixture *f)
{
        static uint8_t data[64 * KIB] = {1};
        static struct ovf_disk disks[40];
        static struct ovf_nic nics[16];
        struct ovf_machine m = a_machine(disks, nics);
        struct error e = ERROR_INIT;
        int fds[40], fd = co_make_disk(sizeof(data), data, "monolithicSparse");

        for (unsigned i = 0; i < 40; i++)
                fds[i] = fd;
        assert_int_equal(co_ova_write(f->fd, "x", &m, fds, NULL, NULL, &e), -EINVAL);
        assert_non_null(strstr(e.message, "not a stream-optimized VMDK"));
        co_refused(f, -EBADMSG, "no .ovf");
        m.n_disks = 31;
        assert_int_equal(co_ova_write(f->fd, "x", &m, fds, NULL, NULL, &e), -EINVAL);
        assert_non_null(strstr(e.message, "at most 30 disks"));
        m.n_disks = 0;
        m.n_nics = 9;
        assert_int_equal(co_ova_write(f->fd, "x", &m, fds, NULL, NULL, &e), -EINVAL);
        m.n_nics = 0;
        m.n_cpus = 0;
        assert_int_equal(co_ova_write(f->fd, "x", &m, fds, NULL, NULL, &e), -EINVAL);
        m.n_cpus = 1;
        m.name = (char *)"";
        assert_int_equal(co_ova_write(f->fd, "x", &m, fds, NULL, NULL, &e), -EINVAL);
        close(fd);
}

static void what_makes_no_ova_is_refused(void **state)
{
        run(*state, co_refused_writes);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            cmocka_unit_test(a_descriptor_says_what_the_machine_is),
            cmocka_unit_test(virtualbox_says_elsewhere_that_it_is_efi),
            cmocka_unit_test(controllers_of_a_kind_are_ordered_by_their_addresses),
            cmocka_unit_test(one_configuration_is_read),
            cmocka_unit_test(damaged_descriptors_are_sentences),
            cmocka_unit_test(too_many_of_anything_is_refused),
            ova_test(a_disk_is_opened_in_its_place),
            ova_test(holes_are_told_from_a_disks_beginning),
            ova_test(digests_of_a_manifest_are_compared),
            ova_test(damaged_archives_are_sentences),
            ova_test(disks_that_are_not_read_are_named),
            ova_test(other_programs_headers_are_read),
            ova_test(headers_that_break_the_rules_are_sentences),
            ova_test(too_many_members_are_refused),
            cmocka_unit_test(sizes_over_8_gib_are_in_base_256),
            ova_test(what_was_written_is_read_back),
            ova_test(what_makes_no_ova_is_refused),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
