/* table.c - tables: a struct cli_table is a libsmartcols table, a cli_line its line. */
#include <libsmartcols.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "server/json_memory.h"

struct cli_table *cli_table_new(const struct cli_column *columns, size_t n_columns)
{
        struct libscols_table *t = scols_new_table();

        if (!t)
                cli_no_memory();
        for (size_t i = 0; i < n_columns; i++) {
                int flags = columns[i].kind == CLI_RIGHT  ? SCOLS_FL_RIGHT
                            : columns[i].kind == CLI_TREE ? SCOLS_FL_TREE
                                                          : 0;

                if (!scols_table_new_column(t, columns[i].name, 0, flags))
                        cli_no_memory();
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
                cli_no_memory();
        return (struct cli_line *)line;
}

void cli_table_cell(struct cli_line *line, size_t column, const char *text)
{
        if (scols_line_set_data((struct libscols_line *)line, column, text) < 0)
                cli_no_memory();
}

void cli_table_finish(struct cli_table *table)
{
        struct libscols_table *t = (struct libscols_table *)table;

        if (json_memory_failures() > 0 || (scols_print_table(t) < 0 && !ferror(stdout)))
                cli_no_memory();
        scols_unref_table(t);
}
