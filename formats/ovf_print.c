/* ovf_print.c - OVF descriptors, written: version 1.x, as VMware and VirtualBox take them. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/ovf.h"

#define VMDK_STREAM_URI "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"

/* Text among tags and in quotes; what XML cannot have becomes a question mark. */
static void put_text(FILE *f, const char *text)
{
        for (; *text; text++)
                switch (*text) {
                case '<':
                        fputs("&lt;", f);
                        break;
                case '>':
                        fputs("&gt;", f);
                        break;
                case '&':
                        fputs("&amp;", f);
                        break;
                case '"':
                        fputs("&quot;", f);
                        break;
                default:
                        fputc((unsigned char)*text < ' ' ? '?' : *text, f);
                }
}

static void put_element(FILE *f, const char *name, const char *text)
{
        fprintf(f, "        <rasd:%s>", name);
        put_text(f, text);
        fprintf(f, "</rasd:%s>\n", name);
}

static void put_number(FILE *f, const char *name, uint64_t n)
{
        fprintf(f, "        <rasd:%s>%" PRIu64 "</rasd:%s>\n", name, n, name);
}

static void put_files(FILE *f, const struct ovf_machine *m, const uint64_t *file_bytes)
{
        fputs("  <References>\n", f);
        for (size_t i = 0; i < m->n_disks; i++) {
                fputs("    <File ovf:href=\"", f);
                put_text(f, m->disks[i].file);
                fprintf(f, "\" ovf:id=\"file%zu\" ovf:size=\"%" PRIu64 "\"/>\n", i + 1,
                        file_bytes[i]);
        }
        fputs("  </References>\n"
              "  <DiskSection>\n"
              "    <Info>Virtual disks</Info>\n",
              f);
        for (size_t i = 0; i < m->n_disks; i++)
                fprintf(f,
                        "    <Disk ovf:capacity=\"%" PRIu64
                        "\" ovf:capacityAllocationUnits=\"byte\" ovf:diskId=\"vmdisk%zu\" "
                        "ovf:fileRef=\"file%zu\" ovf:format=\"" VMDK_STREAM_URI "\"/>\n",
                        m->disks[i].capacity_bytes, i + 1, i + 1);
        fputs("  </DiskSection>\n", f);
}

static const char *network_of(const struct ovf_nic *nic)
{
        return nic->network ? nic->network : "VM Network";
}

/* Each network once. */
static void put_networks(FILE *f, const struct ovf_machine *m)
{
        fputs("  <NetworkSection>\n"
              "    <Info>Networks</Info>\n",
              f);
        for (size_t i = 0; i < m->n_nics; i++) {
                size_t k = 0;

                while (strcmp(network_of(&m->nics[k]), network_of(&m->nics[i])) != 0)
                        k++;
                if (k < i)
                        continue;
                fputs("    <Network ovf:name=\"", f);
                put_text(f, network_of(&m->nics[i]));
                fputs("\">\n      <Description/>\n    </Network>\n", f);
        }
        fputs("  </NetworkSection>\n", f);
}

/* The elements of an Item are a sequence in alphabetic order, by the schema. */
static void put_processors(FILE *f, const struct ovf_machine *m)
{
        fputs("      <Item>\n", f);
        put_element(f, "AllocationUnits", "hertz * 10^6");
        put_element(f, "Description", "Number of Virtual CPUs");
        fprintf(f, "        <rasd:ElementName>%" PRIu64 " virtual CPU(s)</rasd:ElementName>\n",
                m->n_cpus);
        put_number(f, "InstanceID", 1);
        put_number(f, "ResourceType", 3);
        put_number(f, "VirtualQuantity", m->n_cpus);
        fputs("      </Item>\n      <Item>\n", f);
        put_element(f, "AllocationUnits", "byte * 2^20");
        put_element(f, "Description", "Memory Size");
        fprintf(f, "        <rasd:ElementName>%" PRIu64 " MB of memory</rasd:ElementName>\n",
                m->memory_bytes >> 20);
        put_number(f, "InstanceID", 2);
        put_number(f, "ResourceType", 4);
        put_number(f, "VirtualQuantity", m->memory_bytes >> 20);
        fputs("      </Item>\n", f);
}

static bool all_on_scsi(const struct ovf_machine *m)
{
        for (size_t i = 0; i < m->n_disks; i++)
                if (m->disks[i].controller != OVF_SCSI)
                        return false;
        return m->n_disks > 0;
}

static void put_disks(FILE *f, const struct ovf_machine *m)
{
        bool scsi = all_on_scsi(m);

        fputs("      <Item>\n", f);
        put_number(f, "Address", 0);
        put_element(f, "Description", scsi ? "SCSI Controller" : "SATA Controller");
        put_element(f, "ElementName", scsi ? "SCSI Controller 0" : "SATA Controller 0");
        put_number(f, "InstanceID", 3);
        put_element(f, "ResourceSubType", scsi ? "lsilogic" : "vmware.sata.ahci");
        put_number(f, "ResourceType", scsi ? 6 : 20);
        fputs("      </Item>\n", f);
        for (size_t i = 0; i < m->n_disks; i++) {
                fputs("      <Item>\n", f);
                put_number(f, "AddressOnParent",
                           scsi && i >= 7 ? i + 1 : i); /* 7: the controller */
                fprintf(f, "        <rasd:ElementName>Hard Disk %zu</rasd:ElementName>\n", i + 1);
                fprintf(f, "        <rasd:HostResource>ovf:/disk/vmdisk%zu</rasd:HostResource>\n",
                        i + 1);
                put_number(f, "InstanceID", 10 + i);
                put_number(f, "Parent", 3);
                put_number(f, "ResourceType", 17);
                fputs("      </Item>\n", f);
        }
}

static void put_nics(FILE *f, const struct ovf_machine *m)
{
        for (size_t i = 0; i < m->n_nics; i++) {
                const struct ovf_nic *nic = &m->nics[i];

                fputs("      <Item>\n", f);
                if (nic->mac)
                        put_element(f, "Address", nic->mac);
                put_number(f, "AddressOnParent", 7 + i);
                put_element(f, "AutomaticAllocation", "true");
                put_element(f, "Connection", network_of(nic));
                fprintf(f, "        <rasd:ElementName>Network adapter %zu</rasd:ElementName>\n",
                        i + 1);
                put_number(f, "InstanceID", 1000 + i);
                put_element(f, "ResourceSubType", nic->type ? nic->type : "E1000");
                put_number(f, "ResourceType", 10);
                fputs("      </Item>\n", f);
        }
}

static void put_all(FILE *f, const struct ovf_machine *m, const uint64_t *file_bytes)
{
        fputs("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
              "<Envelope xmlns=\"http://schemas.dmtf.org/ovf/envelope/1\" "
              "xmlns:ovf=\"http://schemas.dmtf.org/ovf/envelope/1\" "
              "xmlns:rasd=\"http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/"
              "CIM_ResourceAllocationSettingData\" "
              "xmlns:vmw=\"http://www.vmware.com/schema/ovf\" "
              "xmlns:vssd=\"http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/"
              "CIM_VirtualSystemSettingData\" "
              "xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\">\n",
              f);
        put_files(f, m, file_bytes);
        put_networks(f, m);
        fputs("  <VirtualSystem ovf:id=\"", f);
        put_text(f, m->name);
        fputs("\">\n    <Info>A virtual machine</Info>\n    <Name>", f);
        put_text(f, m->name);
        fputs("</Name>\n"
              "    <OperatingSystemSection ovf:id=\"101\" vmw:osType=\"otherLinux64Guest\">\n"
              "      <Info>The kind of installed guest operating system</Info>\n"
              "      <Description>Linux 64-Bit</Description>\n"
              "    </OperatingSystemSection>\n"
              "    <VirtualHardwareSection>\n"
              "      <Info>Virtual hardware requirements</Info>\n"
              "      <System>\n"
              "        <vssd:ElementName>Virtual Hardware Family</vssd:ElementName>\n"
              "        <vssd:InstanceID>0</vssd:InstanceID>\n"
              "        <vssd:VirtualSystemIdentifier>",
              f);
        put_text(f, m->name);
        fputs("</vssd:VirtualSystemIdentifier>\n"
              "        <vssd:VirtualSystemType>vmx-10</vssd:VirtualSystemType>\n"
              "      </System>\n",
              f);
        put_processors(f, m);
        put_disks(f, m);
        put_nics(f, m);
        if (m->is_efi)
                fputs("      <vmw:Config ovf:required=\"false\" vmw:key=\"firmware\" "
                      "vmw:value=\"efi\"/>\n",
                      f);
        fputs("    </VirtualHardwareSection>\n"
              "  </VirtualSystem>\n"
              "</Envelope>\n",
              f);
}

int ovf_print(const struct ovf_machine *machine, const uint64_t *file_bytes, char **ret_text,
              size_t *ret_length, struct error *err)
{
        FILE *f = open_memstream(ret_text, ret_length);

        if (!f)
                return error_set(err, -ENOMEM, "out of memory");
        put_all(f, machine, file_bytes);
        if (fclose(f) != 0) {
                free(*ret_text);
                *ret_text = NULL;
                return error_set(err, -ENOMEM, "out of memory");
        }
        return 0;
}
