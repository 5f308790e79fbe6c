/* json.c - values of which replies are made. */
#include <string.h>
#include <time.h>

#include "server/command.h"

json_t *json_time(int64_t time_ns)
{
        time_t seconds = (time_t)(time_ns / 1000000000);
        char text[32];
        struct tm tm;

        if (!gmtime_r(&seconds, &tm) ||
            strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
                return json_null();
        return json_string(text);
}

json_t *json_uuid(const uint8_t uuid[16])
{
        char text[UUID_TEXT_SIZE];

        uuid_format(uuid, text);
        return json_string(text);
}

bool json_lists(const json_t *texts, const char *text)
{
        const json_t *one;
        size_t i;

        json_array_foreach (texts, i, one)
                if (json_is_string(one) && strcmp(json_string_value(one), text) == 0)
                        return true;
        return false;
}
