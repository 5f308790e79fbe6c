/* property.c - the properties a volume may carry. */
#include "server/property.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/size.h"

static const struct property {
        const char *key;
        const char *values[4]; /* the values it takes; none: a size or a number */
        const char *initial;
        const char *in_force; /* the only value that this version acts upon; NULL: all are */
} properties[] = {
    {"iops", {NULL}, "0", "0"},
    {"bandwidth", {NULL}, "0", "0"},
    {"on-full", {"wait", "enospc"}, "enospc", "enospc"},
    {"discard", {"on", "off"}, "on", NULL},
    {"compression", {"off", "zstd"}, "off", "off"},
};
#define N_PROPERTIES (sizeof(properties) / sizeof(properties[0]))

static int unknown(const char *key, struct error *err)
{
        error_set(err, -EINVAL, "there is no property '%.64s'", key);
        return error_hint(err, "properties are iops, bandwidth, on-full, discard and compression");
}

static int check_value(const struct property *p, const char *value, struct error *err)
{
        uint64_t number;

        if (!p->values[0]) {
                int r = size_parse(value, &number, err);

                return r < 0 ? error_prefix(err, "property '%s'", p->key) : 0;
        }
        for (size_t i = 0; p->values[i]; i++)
                if (strcmp(p->values[i], value) == 0)
                        return 0;
        return error_set(err, -EINVAL, "property '%s' takes '%s' or '%s', not '%.64s'", p->key,
                         p->values[0], p->values[1], value);
}

int property_check(const char *key, const char *value, char *ret_note, size_t size,
                   struct error *err)
{
        for (size_t i = 0; i < N_PROPERTIES; i++) {
                const struct property *p = &properties[i];
                int r;

                if (strcmp(p->key, key) != 0)
                        continue;
                if (value[0] == '\0')
                        return 0;
                r = check_value(p, value, err);
                if (r == 0 && p->in_force && strcmp(value, p->in_force) != 0)
                        snprintf(ret_note, size,
                                 "'%s=%s' is remembered with the volume; this version of tarn does "
                                 "not act on it yet",
                                 key, value);
                return r;
        }
        return unknown(key, err);
}

json_t *property_defaults(void)
{
        json_t *defaults = json_object();

        for (size_t i = 0; i < N_PROPERTIES; i++)
                json_object_set_new(defaults, properties[i].key,
                                    json_string(properties[i].initial));
        return defaults;
}
