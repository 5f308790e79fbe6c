/* text.c - what can be a name. */
#include "cli/cli.h"

bool cli_is_text(const char *word)
{
        json_t *text = json_string(word);
        bool is = text != NULL;

        json_decref(text);
        return is;
}
