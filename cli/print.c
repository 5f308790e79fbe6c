/* print.c - errors, notes, JSON. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "server/json_memory.h"

/* One line whatever names it quotes, and nothing that a terminal would obey: neither what is a control
 * character as a byte, nor U+0080 to U+009F, which are the same for terminals that take UTF-8. */
static void put_line(FILE *to, const char *text)
{
        bool utf8 = cli_is_text(text);

        for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
                bool c1 = utf8 && *p == 0xc2 && p[1] < 0xa0;

                if (*p < 0x20 || *p == 0x7f || (*p >= 0x80 && !utf8) || c1)
                        fprintf(to, "\\x%02x", *p);
                else
                        putc(*p, to);
                if (c1)
                        fprintf(to, "\\x%02x", *++p);
        }
        putc('\n', to);
}

static void print_line(const char *label, const char *text)
{
        fprintf(stderr, "%s: ", label);
        put_line(stderr, text);
}

/* What was done is told without memory, too, if shortened. */
void cli_say(const char *format, ...)
{
        char cut[1024], *whole;
        va_list ap;
        int n;

        va_start(ap, format);
        n = vasprintf(&whole, format, ap);
        va_end(ap);
        if (n < 0) {
                va_start(ap, format);
                vsnprintf(cut, sizeof(cut), format, ap);
                va_end(ap);
                put_line(stdout, cut);
                return;
        }
        put_line(stdout, whole);
        free(whole);
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

/* What lacks something is not begun to be printed. */
static void print_json(json_t *value, size_t flags)
{
        if (!value || json_memory_failures() > 0 ||
            (json_dumpf(value, stdout, flags) < 0 && !ferror(stdout)))
                cli_no_memory();
        printf("\n");
}

void cli_print_json(json_t *value)
{
        print_json(value, JSON_INDENT(2));
}

void cli_print_json_line(json_t *value)
{
        print_json(value, JSON_COMPACT);
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

const char *cli_count(const json_t *object, const char *key)
{
        char *text = slot();

        snprintf(text, 32, "%llu", (unsigned long long)cli_number(object, key));
        return text;
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
