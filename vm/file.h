/* file.h - VM files: what a virtual machine is, as its owner wrote it down in YAML.
 *
 * tarn-vm-file(5) describes every key. A file is read whole: what it says is checked here, so that
 * whoever gets a struct vm_file need not doubt it; whether volumes, images and interfaces exist is
 * seen at start. Every error of a file begins with its place: "web.yaml:7:3: ...", line and column
 * from 1.
 *
 * Units      bytes; percent of one CPU.
 * Threads    [any thread]; a struct vm_file belongs to one of them at a time.
 * Errors     0 or -errno. On failure *err (may be NULL) holds a sentence, and often a hint.
 * Ownership  a struct vm_file is malloc'ed with all it points to; release with vm_file_free().
 *            Whoever changes one puts malloc'ed memory in. ret_* is set only on success.
 * Source     YAML 1.1 as libyaml reads it, without anchors, aliases and tags.
 */
#pragma once
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "pool/pool.h"

/* Ceilings on what a file may ask for, or make us hold. */
#define VM_FILE_MAX            (64u << 10) /* bytes; with 64 SSH keys of the usual length it has a fifth */
#define VM_CPUS_MAX            64u
#define VM_MEMORY_MIN          (UINT64_C(32) << 20) /* less than any kernel with an initrd boots in */
#define VM_MEMORY_MAX          (UINT64_C(1) << 40) /* the bitmap of its pages is 32 MiB then */
#define VM_MEMORY_UNIT         (UINT64_C(2) << 20) /* a huge page; virtio-mem's block */
#define VM_MEMORY_DEFAULT      (UINT64_C(512) << 20)
#define VM_CMDLINE_MAX         2047u /* Linux on x86 has 2048 with the NUL */
#define VM_DISKS_MAX           16u   /* with all else they fit the 32 slots of one PCI bus */
#define VM_DISK_QUEUES_MAX     16u   /* of the pool's server */
#define VM_SERIAL_MAX          20u   /* virtio 1.2, 5.2.6: VIRTIO_BLK_T_GET_ID */
#define VM_NICS_MAX            8u
#define VM_FORWARDS_MAX        64u /* of one network card */
#define VM_TAP_MAX             15u /* IFNAMSIZ with the NUL is 16 */
#define VM_CID_MIN             3u  /* below: hypervisor, local, host */
#define VM_CID_MAX             0xfffffffeu
#define VM_CPU_WEIGHT_MAX      10000u /* as cgroup v2's cpu.weight */
#define VM_CPU_MAX_PERCENT_MAX (100u * VM_CPUS_MAX)
#define VM_HOSTNAME_MAX        253u /* RFC 1035's 255 octets as text */
#define VM_SSH_KEYS_MAX        64u
#define VM_SSH_KEY_MAX         8191u /* an RSA key of 16384 bits has 2,800; certificates more */

enum vm_on_crash {
        VM_ON_CRASH_POWEROFF, /* the default: it stays off, and says so */
        VM_ON_CRASH_REBOOT,
};

struct vm_disk {
        /* The volume, or its snapshot where @snapshot is not empty. No two disks have the same. */
        char pool[POOL_NAME_MAX + 1];
        char volume[POOL_NAME_MAX + 1];
        char snapshot[POOL_NAME_MAX + 1];
        bool readonly;                  /* true with a snapshot */
        char serial[VM_SERIAL_MAX + 1]; /* printable ASCII; empty: to be derived from the volume */
        unsigned n_queues;              /* 0: a queue per vCPU, as far as the server goes */
        unsigned boot;                  /* 1 is tried first; 0: after those that have a number */
        /* A volume that does not exist yet is made on the first start: as a copy of the image, or
         * as a clone of the snapshot (of the same pool), then grown to @size_bytes; with a size
         * alone it is empty. At most one of the two is set, neither with @snapshot. */
        char *from_image;                      /* absolute path, or NULL */
        char from_volume[POOL_NAME_MAX + 1];   /* empty: from no snapshot */
        char from_snapshot[POOL_NAME_MAX + 1]; /* set with from_volume */
        uint64_t size_bytes;                   /* 0: the size of what it is made from */
};

enum vm_nic_type {
        VM_NIC_USER, /* passt: needs no privilege */
        VM_NIC_TAP,
};

/* A port of the host that leads to one of the guest. */
struct vm_forward {
        bool udp;                       /* else TCP */
        char address[INET6_ADDRSTRLEN]; /* of the host, without brackets; empty: all */
        uint16_t host_port, guest_port; /* not 0 */
};

struct vm_nic {
        enum vm_nic_type type;
        char tap[VM_TAP_MAX + 1];    /* the interface; of VM_NIC_TAP only */
        bool has_mac;                /* else one is to be made and kept */
        uint8_t mac[6];              /* unicast, not zero */
        struct vm_forward *forwards; /* of VM_NIC_USER only */
        size_t n_forwards;
};

/* For cloud-init: seed.h makes the disk. */
struct vm_seed {
        char hostname[VM_HOSTNAME_MAX + 1]; /* empty: from the VM's name */
        char **ssh_keys;                    /* lines as in authorized_keys */
        size_t n_ssh_keys;
        char *user_data, *meta_data, *network_config; /* absolute paths, or NULL */
};

struct vm_file {
        char name[POOL_NAME_MAX + 1];
        uint8_t uuid[16]; /* all zero: to be made and kept */
        unsigned n_cpus;  /* 1 to VM_CPUS_MAX */
        /* Multiples of VM_MEMORY_UNIT, VM_MEMORY_MIN to VM_MEMORY_MAX. What lies between the two
         * can be added while it runs. */
        uint64_t memory_bytes, memory_max_bytes;
        bool hugepages;
        /* Direct boot where @kernel is set, and otherwise by @firmware: NULL is SeaBIOS. Paths are
         * absolute. */
        char *kernel, *initrd, *cmdline; /* the latter two NULL where there are none */
        char *firmware;                  /* NULL with a kernel */
        struct vm_disk *disks;
        size_t n_disks; /* at most VM_DISKS_MAX; at least one without a kernel */
        struct vm_nic *nics;
        size_t n_nics; /* at most VM_NICS_MAX */
        bool rng, balloon;
        uint32_t vsock_cid;       /* 0: no vsock */
        unsigned cpu_weight;      /* 1 to VM_CPU_WEIGHT_MAX as cgroup v2 has it; 0: not said */
        unsigned cpu_max_percent; /* of one CPU's time, all vCPUs together; 0: no limit */
        struct vm_seed *seed;     /* NULL: none */
        char *console_log;        /* absolute path, what the guest's console says; or NULL */
        bool autostart;
        enum vm_on_crash on_crash;
};

/* Read the file at @path. Paths in it are relative to its folder; where @path is a link, to the
 * folder of what it leads to.
 *
 * -EINVAL  it is not a VM file, or asks for what cannot be
 * -EFBIG   it is larger than VM_FILE_MAX
 * -ENOMEM, and what opening and reading give */
int vm_file_load(const char *path, struct vm_file **ret_file, struct error *err);

/* The same of a text. @name goes in front of errors; @folder is the absolute path that relative
 * paths are taken from. */
int vm_file_parse(const void *text, size_t length, const char *name, const char *folder,
                  struct vm_file **ret_file, struct error *err);

/* As a text that vm_file_parse() makes the same struct of, whatever the folder. Comments are not
 * kept, and paths are absolute. Nothing is checked: whoever has changed a field parses the text
 * again before it counts. Release with free(). -ENOMEM */
int vm_file_write(const struct vm_file *file, char **ret_text, struct error *err);

void vm_file_free(struct vm_file *file); /* NULL is fine */

/* "POOL/VOLUME" or "POOL/VOLUME@SNAPSHOT", as commands name it. Returns buffer. */
#define VM_DISK_TEXT_SIZE ((size_t)3 * (POOL_NAME_MAX + 1))
char *vm_disk_text(const struct vm_disk *disk, char buffer[VM_DISK_TEXT_SIZE]);
/* The same volume, or the same snapshot; whatever else is said of it. */
bool vm_disk_is_same(const struct vm_disk *a, const struct vm_disk *b);
