/* ovf.h - OVF descriptors: the XML that says what a virtual machine in an OVA is.
 *
 * Sources: DMTF DSP0243 (Open Virtualization Format Specification) 1.1.1 and 2.1.1; the resource types
 * are DSP1033's and CIM_ResourceAllocationSettingData's. Written as VMware's and VirtualBox's exporters
 * write it.
 *
 * Units      bytes.
 * Threads    [any thread]
 * Errors     0 or -errno with a sentence that names the file.
 * Ownership  release a machine with ovf_machine_clear(), also after a failure.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/error.h"

#define OVF_BYTES_MAX ((size_t)4 << 20)
#define OVF_ITEMS_MAX 256u /* disks, cards, controllers, each */

enum ovf_controller { OVF_IDE, OVF_SCSI, OVF_SATA, OVF_OTHER };

struct ovf_disk {
        char *id;                /* the descriptor's */
        char *file;              /* name of the image's file; NULL: an empty disk */
        char *format;            /* the image's, a URI; may be NULL */
        uint64_t capacity_bytes; /* 0: not stated */
        bool is_compressed;      /* the file, by gzip */
        bool is_chunked;         /* in several files */
        enum ovf_controller controller;
        uint64_t bus, address; /* its controller's place among all, its own on that */
};

struct ovf_nic {
        char *network; /* a name; may be NULL */
        char *type;    /* "E1000", "VmxNet3"; NULL: any */
        char *mac;     /* NULL: any */
};

struct ovf_machine {
        char *name;
        uint64_t n_cpus, memory_bytes; /* 0: not stated */
        bool is_efi;
        struct ovf_disk *disks; /* in the order of controllers and addresses */
        size_t n_disks;
        struct ovf_nic *nics;
        size_t n_nics;
};

/* Read @length bytes of XML; @path is for messages. Nothing else is read: no network, no files; a DTD
 * is refused. Of several configurations the default one is read, or else the first.
 *
 * -EBADMSG  it is not well-formed, or breaks the specification's rules
 * -ENOTSUP  it uses something that tarn does not read: named */
int ovf_parse(const char *text, size_t length, const char *path, struct ovf_machine *machine,
              struct error *err);
void ovf_machine_clear(struct ovf_machine *machine);

/* The descriptor of a machine, malloc'ed. Of its disks, @file_bytes[i] is the length of each one's
 * file, a stream-optimized VMDK. Disks are on one controller: SATA, or SCSI (LSI Logic) where all of
 * them say so. */
int ovf_print(const struct ovf_machine *machine, const uint64_t *file_bytes, char **ret_text,
              size_t *ret_length, struct error *err);
