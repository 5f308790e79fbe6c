/* image_ova_info.c - tarn image info of a machine. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/image_ova.h"
#include "formats/ova.h"

static json_t *text_or_null(const char *text)
{
        return text ? json_string(text) : json_null();
}

static json_t *disks_of(const struct ovf_machine *m)
{
        static const char *const controllers[] = {
            [OVF_IDE] = "ide", [OVF_SCSI] = "scsi", [OVF_SATA] = "sata", [OVF_OTHER] = "other"};
        json_t *list = json_array();

        for (size_t i = 0; list && i < m->n_disks; i++) {
                const struct ovf_disk *d = &m->disks[i];

                json_array_append_new(
                    list,
                    json_pack("{s:o, s:o, s:o, s:s}", "file", text_or_null(d->file), "capacity",
                              d->capacity_bytes ? json_integer((json_int_t)d->capacity_bytes)
                                                : json_null(),
                              "format", text_or_null(d->format), "controller",
                              controllers[d->controller]));
        }
        return list;
}

static json_t *networks_of(const struct ovf_machine *m)
{
        json_t *list = json_array();

        for (size_t i = 0; list && i < m->n_nics; i++)
                json_array_append_new(list, json_pack("{s:o, s:o, s:o}", "network",
                                                      text_or_null(m->nics[i].network), "type",
                                                      text_or_null(m->nics[i].type), "mac",
                                                      text_or_null(m->nics[i].mac)));
        return list;
}

static json_t *number_or_null(uint64_t n)
{
        return n ? json_integer((json_int_t)n) : json_null();
}

static json_t *describe(const struct ova *ova, const struct stat *st)
{
        const struct ovf_machine *m = &ova->machine;

        return json_pack("{s:s, s:s, s:b, s:b, s:n, s:I, s:I, s:o}", "file", ova->path, "format",
                         ova->is_archive ? "ova" : "ovf", "guessed", 0, "supported", 1,
                         "virtual_size", "file_size", (json_int_t)st->st_size, "allocated",
                         (json_int_t)st->st_blocks * 512, "machine",
                         json_pack("{s:o, s:o, s:o, s:s, s:o, s:o}", "name", text_or_null(m->name),
                                   "cpus", number_or_null(m->n_cpus), "memory",
                                   number_or_null(m->memory_bytes), "firmware",
                                   m->is_efi ? "efi" : "bios", "disks", disks_of(m), "networks",
                                   networks_of(m)));
}

int co_image_describe_machine(int fd, const char *path, json_t **ret_info, struct error *err)
{
        struct stat st;
        struct ova *ova;
        int r = co_ova_open(fd, path, NULL, NULL, &ova, err);

        if (r < 0)
                return r;
        if (fstat(fd, &st) < 0) {
                r = error_set(err, -errno, "cannot look at '%s': %s", path, strerror(errno));
        } else {
                *ret_info = describe(ova, &st);
                r = *ret_info ? 0 : error_set(err, -ENOMEM, "out of memory");
        }
        ova_close(ova);
        return r;
}

static void print_disks(const json_t *list)
{
        static const struct cli_column columns[] = {
            {"DISK", CLI_RIGHT}, {"SIZE", CLI_RIGHT}, {"CONTROLLER", CLI_LEFT}, {"FILE", CLI_LEFT}};
        struct cli_table *table;
        json_t *d;
        size_t i;

        if (json_array_size(list) == 0)
                return;
        table = cli_table_new(columns, 4);
        json_array_foreach (list, i, d) {
                struct cli_line *line = cli_table_line(table, NULL);
                char number[24];

                snprintf(number, sizeof(number), "%zu", i + 1);
                cli_table_cell(line, 0, number);
                cli_table_cell(
                    line, 1,
                    json_is_integer(json_object_get(d, "capacity")) ? cli_size(d, "capacity") : "");
                cli_table_cell(line, 2, cli_text(d, "controller"));
                cli_table_cell(line, 3, cli_text(d, "file"));
        }
        printf("\n");
        cli_table_finish(table);
}

static void print_networks(const json_t *list)
{
        static const struct cli_column columns[] = {
            {"NETWORK", CLI_LEFT}, {"CARD", CLI_LEFT}, {"MAC", CLI_LEFT}};
        struct cli_table *table;
        json_t *n;
        size_t i;

        if (json_array_size(list) == 0)
                return;
        table = cli_table_new(columns, 3);
        json_array_foreach (list, i, n) {
                struct cli_line *line = cli_table_line(table, NULL);

                cli_table_cell(line, 0, cli_text(n, "network"));
                cli_table_cell(line, 1, cli_text(n, "type"));
                cli_table_cell(line, 2, cli_text(n, "mac"));
        }
        printf("\n");
        cli_table_finish(table);
}

void image_print_machine(const json_t *info)
{
        const json_t *machine = json_object_get(info, "machine");
        bool is_archive = strcmp(cli_text(info, "format"), "ova") == 0;

        cli_say("file          %s", cli_text(info, "file"));
        printf("format        %s\n", is_archive ? "ova (a machine and its disks)"
                                                : "ovf (a machine; its disks are other files)");
        printf("file size     %s, takes %s\n", cli_size(info, "file_size"),
               cli_size(info, "allocated"));
        cli_say("machine       %s", cli_text(machine, "name"));
        if (json_is_integer(json_object_get(machine, "cpus")))
                printf("processors    %s\n", cli_count(machine, "cpus"));
        if (json_is_integer(json_object_get(machine, "memory")))
                printf("memory        %s\n", cli_size(machine, "memory"));
        printf("firmware      %s\n",
               strcmp(cli_text(machine, "firmware"), "efi") == 0 ? "EFI" : "BIOS");
        print_disks(json_object_get(machine, "disks"));
        print_networks(json_object_get(machine, "networks"));
}
