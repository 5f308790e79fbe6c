/* fuzz_ova.c - OVA files: archives of any headers, with right checksums, descriptors of words, manifests;
 * such descriptors alone; opened, verified, their disks read. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "formats/ova.h"
#include "tests/fuzz/fuzz_loop.h"
#include "tests/fuzz/input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct scene {
        struct image_opener opener;
        struct loop *loop;
        struct input *in;
        int fd;
};

static const char *const words[] = {"<Envelope xmlns:o='u'>",
                                    "</Envelope>",
                                    "<References>",
                                    "</References>",
                                    "<File o:id='f' o:href='d.img'",
                                    " compression='gzip'",
                                    " chunkSize='1'",
                                    "/>",
                                    "<DiskSection>",
                                    "</DiskSection>",
                                    "<Disk diskId='d' fileRef='f'",
                                    " capacity='1'",
                                    " capacityAllocationUnits='byte * 2^30'",
                                    "<VirtualSystem id='v'><VirtualHardwareSection>",
                                    "</VirtualHardwareSection></VirtualSystem>",
                                    "<Item>",
                                    "</Item>",
                                    "<ResourceType>17</ResourceType>",
                                    "<ResourceType>4</ResourceType>",
                                    "<ResourceType>6</ResourceType>",
                                    "<ResourceType>10</ResourceType>",
                                    "<VirtualQuantity>64</VirtualQuantity>",
                                    "<HostResource>ovf:/disk/d</HostResource>",
                                    "<AllocationUnits>byte * 2^20</AllocationUnits>",
                                    "<!DOCTYPE a [<!ENTITY b 'c'>]>",
                                    "<![CDATA[",
                                    "&amp;",
                                    "SHA256(",
                                    "SHA1(d.img)= ",
                                    ")= ",
                                    "0123456789abcdef0123456789abcdef01234567\n"};

static const char *const names[] = {"a.ovf", "a.mf", "d.img", "./d.img", "x"};

/* Extended headers' records, or content. */
static size_t content(struct scene *s, char type, struct output *out)
{
        char record[64];

        out->n = 0;
        if (type == 'x')
                for (unsigned n = input_u8(s->in) % 3; n > 0; n--) {
                        snprintf(record, sizeof(record), "%u %s\n", input_u8(s->in) % 32,
                                 input_u8(s->in) & 1 ? "path=d.img" : "size=12345");
                        output_put(out, record, strlen(record));
                }
        for (unsigned n = input_u8(s->in) % 40; n > 0; n--)
                input_words(s->in, words, sizeof(words) / sizeof(words[0]), out);
        return out->n < 65536 ? out->n : 65536;
}

static void put_member(struct scene *s, uint64_t *at)
{
        static const char types[] = {'0', '0', '0', 'x', 'L', 'g', 'S', '5'};
        static struct output out;
        uint8_t header[TAR_BLOCK];
        char type = types[input_u8(s->in) % sizeof(types)];
        size_t length = content(s, type, &out);
        uint64_t said = input_u8(s->in) & 7 ? length : input_number(s->in, length);
        unsigned sum = 0;

        tar_header(header, names[input_u8(s->in) % 5], said, 0);
        header[156] = (uint8_t)type;
        if ((input_u8(s->in) & 15) == 0)
                header[input_u16(s->in) % TAR_BLOCK] = input_u8(s->in);
        memset(header + 148, ' ', 8);
        for (size_t i = 0; i < sizeof(header); i++)
                sum += header[i];
        snprintf((char *)header + 148, 8, "%06o", sum);
        if (pwrite(s->fd, header, sizeof(header), (off_t)*at) != sizeof(header) ||
            pwrite(s->fd, out.bytes, length, (off_t)*at + 512) != (ssize_t)length)
                abort();
        *at += 512 + (length + 511) / 512 * 512;
}

static void co_disks(struct ova *ova)
{
        static uint8_t data[64 << 10];

        for (size_t i = 0; i < ova->machine.n_disks && i < 4; i++) {
                struct error err = ERROR_INIT;
                struct image *image;
                int r = co_ova_open_disk(ova, i, &image, &err);

                assert(r == 0 || err.message[0]);
                if (r < 0)
                        continue;
                size_t n =
                    image->virtual_bytes < sizeof(data) ? image->virtual_bytes : sizeof(data);
                r = image->driver->co_read(image, data, n, 0, &err);
                assert(r == 0 || err.message[0]);
                image_close(image);
        }
}

/* An OVF: all that it names is this file itself. */
static int open_itself(struct image_opener *opener, const char *from, const char *name,
                       enum image_use use, int *ret_fd, char **ret_path, struct error *err)
{
        struct scene *s = container_of(opener, struct scene, opener);

        if (strcmp(name, "d.img") != 0)
                return error_set(err, -ENOENT, "'%s' is not there", name);
        *ret_fd = dup(s->fd);
        *ret_path = strdup(name);
        return 0;
}

#define XML "<?xml version='1.0'?>"

static uint64_t put_descriptor(struct scene *s)
{
        static struct output out;
        size_t n = content(s, '0', &out);

        if (pwrite(s->fd, XML, sizeof(XML) - 1, 0) != sizeof(XML) - 1 ||
            pwrite(s->fd, out.bytes, n, sizeof(XML) - 1) != (ssize_t)n)
                abort();
        return n + sizeof(XML) - 1;
}

static void co_play(void *arg)
{
        struct scene *s = arg;
        struct error err = ERROR_INIT;
        struct ova *ova;
        uint64_t at = 0;
        unsigned n = input_u8(s->in);
        int r;

        if (n >= 192)
                at = put_descriptor(s);
        else
                for (n %= 8; n > 0; n--)
                        put_member(s, &at);
        if (ftruncate(s->fd, (off_t)(at + (input_u8(s->in) & 1 ? 1024 : 0))) < 0)
                abort();
        r = co_ova_open(s->fd, "x.ova", NULL, &s->opener, &ova, &err);
        assert(r == 0 || err.message[0]);
        if (r < 0)
                return;
        r = co_ova_verify(ova, NULL, &err);
        assert(r == 0 || err.message[0]);
        co_disks(ova);
        ova_close(ova);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static struct scene scene; /* one at a time */
        struct scene *s = &scene;
        struct input in = {data, size};

        if (!s->loop) {
                fuzz_quiet();
                s->loop = fuzz_loop_new();
                s->fd = memfd_create("ova", MFD_CLOEXEC);
                s->opener.open = open_itself;
        }
        fuzz_loop_reset(s->loop);
        s->in = &in;
        if (ftruncate(s->fd, 0) < 0)
                abort();
        fuzz_loop_co_run(s->loop, co_play, s, UINT64_C(1000000000));
        fuzz_loop_reset(s->loop);
        return 0;
}
