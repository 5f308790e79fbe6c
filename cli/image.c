/* image.c - tarn image ... */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/image.h"
#include "formats/nbd.h"

/* VHDX has the largest blocks: 256 MiB. */
#define IMAGE_CLUSTER_MAX (UINT64_C(256) << 20)

int image_open_input(const char *path, struct error *err)
{
        /* O_NONBLOCK: a named pipe is refused later, not waited for. */
        int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

        if (fd < 0)
                return error_set(err, -errno, "cannot open '%s': %s", path, strerror(errno));
        return fd;
}

json_t *image_text(const char *bytes)
{
        json_t *text = bytes ? json_string(bytes) : NULL;
        char latin1[2 * 1024 + 1];
        size_t n = 0;

        if (text || !bytes)
                return text ? text : json_null();
        for (const char *p = bytes; *p && n + 2 < sizeof(latin1); p++) {
                unsigned char c = (unsigned char)*p;

                if (c < 0x80) {
                        latin1[n++] = (char)c;
                } else {
                        latin1[n++] = (char)(0xc0 | c >> 6);
                        latin1[n++] = (char)(0x80 | (c & 0x3f));
                }
        }
        latin1[n] = '\0';
        return json_string(latin1);
}

static int check_format(const char *format, struct error *err)
{
        const struct image_driver *driver = image_driver_find(format);

        if (!driver || driver->is_not_image) {
                error_set(err, -EINVAL, "there is no image format '%s'", format);
                return error_hint(err, "formats are %s", image_formats());
        }
        return 0;
}

static int check_nbd(const struct cli_args *args, struct error *err)
{
        const char *uri = args->words[1];

        if (args->format && strcmp(args->format, "raw") != 0)
                return error_set(err, -EINVAL, "'%s' is an NBD export, and cannot be %s", uri,
                                 args->format);
        if (args->variant || args->compression || args->cluster_size)
                return error_set(err, -EINVAL,
                                 "'%s' is an NBD export, and has no variants, compression or "
                                 "cluster size",
                                 uri);
        if (args->given & CLI_FORCE)
                return 0;
        error_set(err, -EEXIST, "'%s' is an export that exists", uri);
        return error_hint(err, "--force overwrites what it holds");
}

int image_check_verified(const struct cli_args *args, const json_t *reply, struct error *err)
{
        if (!(args->given & CLI_VERIFY) || json_is_true(json_object_get(reply, "verified")))
                return 0;
        error_set(err, -ENOTSUP,
                  "'%s' was not verified: the pool's server is of a version that does not do that",
                  args->words[1]);
        return error_hint(err, "'tarn serve --takeover' lets this version serve the pool");
}

int image_check_output(const struct cli_args *args, struct error *err)
{
        if (nbd_is_uri(args->words[1]))
                return check_nbd(args, err);
        return check_format(args->format ? args->format : "raw", err);
}

int image_check_export(const struct cli_args *args, const char *uri, struct error *err)
{
        const char *option = args->format && strcmp(args->format, "raw") != 0 ? "--format"
                             : args->snapshot                                 ? "--snapshot"
                             : args->backing_format                           ? "--backing-format"
                             : args->given & CLI_SNAPSHOTS                    ? "--snapshots"
                             : args->n_allow > 0                              ? "--allow"
                                                                              : NULL;

        return option ? error_set(err, -EINVAL,
                                  "'%s' is an NBD export, which is a raw disk: '%s' means nothing "
                                  "there",
                                  uri, option)
                      : 0;
}

int image_open_place(const struct cli_args *args, const char *path, int *ret_fd, struct error *err)
{
        *ret_fd = -1;
        if (nbd_is_uri(path))
                return image_check_export(args, path, err);
        *ret_fd = image_open_input(path, err);
        return *ret_fd < 0 ? *ret_fd : 0;
}

int co_image_open_place(int fd, const char *path, const struct image_options *options,
                        const atomic_bool *cancelled, struct image **ret_image, struct error *err)
{
        const struct nbd_target target = {.uri = path, .fd = -1, .cancelled = cancelled};

        return fd < 0 ? co_nbd_open(&target, false, ret_image, err)
                      : co_image_open(fd, path, options, ret_image, err);
}

int image_cluster_size(const struct cli_args *args, uint32_t *ret_bytes, struct error *err)
{
        uint64_t bytes;

        *ret_bytes = 0;
        if (!args->cluster_size)
                return 0;
        if (size_parse(args->cluster_size, &bytes, err) < 0)
                return error_prefix(err, "--cluster-size");
        if (bytes == 0 || bytes > IMAGE_CLUSTER_MAX || (bytes & (bytes - 1)) != 0)
                return error_set(err, -EINVAL,
                                 "--cluster-size: '%s' is not a power of two up to 256 MiB",
                                 args->cluster_size);
        *ret_bytes = (uint32_t)bytes;
        return 0;
}

#define FORMATS "raw|qcow2|vmdk|vdi|vhd|vhdx"

const struct cli_verb image_verbs[] = {
    {"image", "info", "FILE [--format F] [--json]", "what an image file is, and how large",
     "A backing file is named, and not looked at. FILE may be an NBD export, by its URI: then it "
     "is\n"
     "said what its server offers.\n\n"
     "  --format " FORMATS "  what the file is, whatever it looks like\n"
     "  --json  {\"file\", \"format\", \"guessed\", \"supported\", \"variant\", \"version\",\n"
     "          \"virtual_size\", \"file_size\", \"allocated\", \"cluster_size\", "
     "\"compression\",\n"
     "          \"backing_file\", \"backing_format\", \"data_file\", \"dirty\", \"corrupt\",\n"
     "          \"snapshots\": [{\"id\", \"name\", \"virtual_size\", \"vm_state_size\", "
     "\"created\"}],\n"
     "          \"bitmaps\": [{\"name\", \"granularity\", \"in_use\", \"automatic\"}]}\n"
     "          of an OVA or OVF: {\"file\", \"format\", \"guessed\", \"supported\", "
     "\"virtual_size\",\n"
     "          \"file_size\", \"allocated\", \"machine\": {\"name\", \"cpus\", \"memory\",\n"
     "          \"firmware\", \"disks\": [{\"file\", \"capacity\", \"format\", "
     "\"controller\"}],\n"
     "          \"networks\": [{\"network\", \"type\", \"mac\"}]}}\n"
     "          and of an NBD export \"export\": {\"read_only\", \"trim\", \"write_zeroes\", "
     "\"flush\",\n"
     "          \"fua\", \"multi_conn\", \"block_status\", \"tls\", \"block_min\", "
     "\"block_preferred\",\n"
     "          \"block_max\"}\n",
     CLI_FORMAT | CLI_JSON, 1, 1, cli_image_info},
    {"image", "import",
     "FILE POOL/VOLUME [--size SIZE] [--format F] [--snapshots] [--snapshot NAME] "
     "[--backing-format F] [--allow PATH]... [--verify] [--name NAME] [--vm-file PATH]",
     "make a volume of an image file, or a machine of an OVA",
     "FILE is an image, a block device or an NBD export: nbd://HOST[:PORT]/NAME, or\n"
     "nbd+unix:///NAME?socket=PATH, or nbds: by TLS. Zeroes and holes take no space. The volume "
     "must not exist;\n"
     "it has its name only once all of it is there.\n\n"
     "Of an OVA, or an OVF with its disks beside it, each disk becomes a volume, and the machine "
     "a\n"
     "VM file. POOL alone will do then: with one disk the volume is called as the machine, or\n"
     "VOLUME, with several NAME-1, NAME-2 and so on. Digests of a manifest are compared first.\n\n"
     "  --size SIZE    make the volume larger than the image\n"
     "  --format " FORMATS "  what the file is, whatever it looks like\n"
     "  --snapshots    with those that are inside of the image, each as one of the volume\n"
     "  --snapshot NAME  a snapshot inside of the image, not its current state\n"
     "  --allow PATH   a file, or a folder with what is below it, where the image may have others\n"
     "                 that it needs: without it only its own folder and what is below; the URI "
     "of\n"
     "                 an NBD export that may be one, nbd://HOST/ for all of a server\n"
     "  --backing-format " FORMATS "  of a backing file, where the image does not say it\n"
     "  --verify       read FILE and the volume again, and compare them\n"
     "  --name NAME    of an OVA: what the machine is called, not as the OVA has it\n"
     "  --vm-file PATH  of an OVA: where the VM file is written (./NAME.yaml)\n",
     CLI_SIZE | CLI_FORMAT | CLI_SNAPSHOTS | CLI_SNAPSHOT | CLI_BACKING_FORMAT | CLI_ALLOW |
         CLI_VERIFY | CLI_NAME | CLI_VM_FILE,
     2, 2, cli_image_import},
    {"image", "export",
     "POOL/VOLUME[@SNAPSHOT] FILE [--format F] [--variant V] [--compression C] "
     "[--cluster-size SIZE] [--verify] [--force]",
     "make an image file of a volume or a snapshot",
     "The file is sparse: zeroes take no space in it. A volume that is in use is exported as it\n"
     "was at one instant. The file has its name only once all of it is there; until then one\n"
     "that it replaces stays as it is, and takes its space. FILE may be an NBD export.\n\n"
     "  --format " FORMATS "  what to write (raw)\n"
     "  --variant V            a kind of the format\n"
     "  --compression zlib|zstd  compress, where the format has that\n"
     "  --cluster-size SIZE    the format's unit of space, where that can be chosen\n"
     "  --verify               read the volume and FILE again, and compare them\n"
     "  --force                overwrite a file that exists, a block device, or an export\n",
     CLI_FORMAT | CLI_VARIANT | CLI_COMPRESSION | CLI_CLUSTER_SIZE | CLI_VERIFY | CLI_FORCE, 2, 2,
     cli_image_export},
    {"image", "convert",
     "IN OUT [--format F] [--from-format F] [--variant V] [--compression C] "
     "[--cluster-size SIZE] [--snapshot NAME] [--backing-format F] [--allow PATH]... [--verify] "
     "[--force]",
     "make another format of an image",
     "No pool takes part. OUT has its name only once all of it is there. Either may be an NBD\n"
     "export, by its URI; with nbds:// by TLS.\n\n"
     "  --format " FORMATS "       what to write (raw)\n"
     "  --from-format " FORMATS "  what IN is, whatever it looks like\n"
     "  --variant V            a kind of the format\n"
     "  --compression zlib|zstd  compress, where the format has that\n"
     "  --cluster-size SIZE    the format's unit of space, where that can be chosen\n"
     "  --snapshot NAME        a snapshot inside of IN, not its current state\n"
     "  --backing-format " FORMATS "  of a backing file, where IN does not say it\n"
     "  --allow PATH           a file, or a folder with what is below it, where IN may have "
     "others\n"
     "                         that it needs: without it only its own folder and what is below;\n"
     "                         the URI of an NBD export that may be one, nbd://HOST/ for all of a\n"
     "                         server\n"
     "  --verify               read IN and OUT again, and compare them\n"
     "  --force                overwrite a file that exists, a block device, or an export\n",
     CLI_FORMAT | CLI_FROM_FORMAT | CLI_VARIANT | CLI_COMPRESSION | CLI_CLUSTER_SIZE |
         CLI_SNAPSHOT | CLI_BACKING_FORMAT | CLI_ALLOW | CLI_VERIFY | CLI_FORCE,
     2, 2, cli_image_convert},
    {"image", "map",
     "FILE [--format F] [--snapshot NAME] [--backing-format F] [--allow PATH]... [--json]",
     "which parts of an image hold data",
     "FILE may be an NBD export, by its URI.\n\n"
     "  --format " FORMATS "  what the file is, whatever it looks like\n"
     "  --snapshot NAME  a snapshot inside of the image\n"
     "  --allow PATH   a file, or a folder with what is below it, where the image may have others\n"
     "                 that it needs: without it only its own folder and what is below; the URI "
     "of\n"
     "                 an NBD export that may be one, nbd://HOST/ for all of a server\n"
     "  --backing-format " FORMATS "  of a backing file, where the image does not say it\n"
     "  --json  as 'qemu-img map' says it: [{\"start\", \"length\", \"depth\", \"present\", "
     "\"zero\",\n"
     "          \"data\", \"compressed\", \"offset\"}]\n",
     CLI_FORMAT | CLI_SNAPSHOT | CLI_BACKING_FORMAT | CLI_ALLOW | CLI_JSON, 1, 1, cli_image_map},
    {"image", "check", "FILE [--format F] [--allow PATH]... [--json]",
     "look for damage in an image",
     "Nothing is changed. Of a VMDK in several files all are looked at; backing files are not.\n\n"
     "  --format " FORMATS "  what the file is, whatever it looks like\n"
     "  --allow PATH   a file, or a folder with what is below it, where the image may have others\n"
     "                 that it needs: without it only its own folder and what is below\n"
     "  --json  {\"file\", \"format\", \"errors\", \"leaks\", \"leaked\", \"allocated\", \"end\",\n"
     "          \"findings\": [SENTENCE]}\n\n"
     "Exit status: 0 clean, 1 findings, 3 it could not be checked.\n",
     CLI_FORMAT | CLI_ALLOW | CLI_JSON, 1, 1, cli_image_check},
    {0},
};
