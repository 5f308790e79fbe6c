/* print.c - errors, notes, JSON, tables. */
#include <libsmartcols.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"

/* One line whatever names it quotes, and nothing that a terminal would obey. */
static void print_line(const char *label, const char *text)
{
        json_t *utf8 = json_string(text);

        fprintf(stderr, "%s: ", label);
        for (const char *p = text; *p; p++) {
                unsigned char c = (unsigned char)*p;

                if (c < 0x20 || c == 0x7f || (c >= 0x80 && !utf8))
                        fprintf(stderr, "\\x%02x", c);
                else
                        putc(c, stderr);
        }
        putc('\n', stderr);
        json_decref(utf8);
}

int cli_fail(const struct error *err)
{
        print_line("tarn", err->message);
        if (err->hint[0])
                print_line("hint", err->hint);
        return EXIT_FAILURE;
}

void cli_note(const char *format, ...)
{
        char text[1024];
        va_list ap;

        va_start(ap, format);
        vsnprintf(text, sizeof(text), format, ap);
        va_end(ap);
        print_line("note", text);
}

void cli_print_json(json_t *value)
{
        json_dumpf(value, stdout, JSON_INDENT(2));
        printf("\n");
}

const char *cli_text(const json_t *object, const char *key)
{
        const char *text = json_string_value(json_object_get(object, key));

        return text ? text : "";
}

uint64_t cli_number(const json_t *object, const char *key)
{
        json_int_t n = json_integer_value(json_object_get(object, key));

        return n > 0 ? (uint64_t)n : 0;
}

/* Texts that live until a table's line is filled. */
static char *slot(void)
{
        static char slots[16][32];
        static unsigned next;

        return slots[next++ % 16];
}

const char *cli_size(const json_t *object, const char *key)
{
        _Static_assert(SIZE_TEXT_MAX <= 32, "a slot holds a size");
        return size_format(cli_number(object, key), slot());
}

const char *cli_time(const json_t *object, const char *key)
{
        struct tm utc = {0}, local;
        char *text = slot();
        time_t seconds;

        if (!strptime(cli_text(object, key), "%Y-%m-%dT%H:%M:%SZ", &utc))
                return "";
        seconds = timegm(&utc);
        localtime_r(&seconds, &local);
        strftime(text, 32, "%Y-%m-%d %H:%M:%S", &local);
        return text;
}

/* ---- tables: a struct cli_table is a libsmartcols table, a cli_line its line ---- */

struct cli_table *cli_table_new(const struct cli_column *columns, size_t n_columns)
{
        struct libscols_table *t = scols_new_table();

        if (!t)
                abort();
        for (size_t i = 0; i < n_columns; i++) {
                int flags = columns[i].kind == CLI_RIGHT  ? SCOLS_FL_RIGHT
                            : columns[i].kind == CLI_TREE ? SCOLS_FL_TREE
                                                          : 0;

                if (!scols_table_new_column(t, columns[i].name, 0, flags))
                        abort();
        }
        /* A table that is piped is whole, however narrow the terminal would be. */
        if (!isatty(STDOUT_FILENO))
                scols_table_set_termforce(t, SCOLS_TERMFORCE_NEVER);
        return (struct cli_table *)t;
}

struct cli_line *cli_table_line(struct cli_table *table, struct cli_line *parent)
{
        struct libscols_line *line =
            scols_table_new_line((struct libscols_table *)table, (struct libscols_line *)parent);

        if (!line)
                abort();
        return (struct cli_line *)line;
}

void cli_table_cell(struct cli_line *line, size_t column, const char *text)
{
        if (scols_line_set_data((struct libscols_line *)line, column, text) < 0)
                abort();
}

void cli_table_finish(struct cli_table *table)
{
        struct libscols_table *t = (struct libscols_table *)table;

        scols_print_table(t);
        scols_unref_table(t);
}
