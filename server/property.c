/* property.c - the properties a volume may carry. */
#include "server/property.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/size.h"
#include "pool/throttle.h"

static const struct property {
        const char *key;
        const char *values[4]; /* the values it takes; none: a number */
        const char *initial;
        const char *in_force; /* the only value that this version acts upon; NULL: all */
        uint64_t min, max;    /* of a number that is not 0 */
        bool is_size;
} properties[] = {
    {"iops", {NULL}, "0", NULL, 1, THROTTLE_IOPS_MAX, false},
    {"iops-burst", {NULL}, "0", NULL, 1, THROTTLE_BURST_MAX, false},
    {"bandwidth", {NULL}, "0", NULL, THROTTLE_BANDWIDTH_MIN, THROTTLE_BANDWIDTH_MAX, true},
    {"bandwidth-burst", {NULL}, "0", NULL, 1, THROTTLE_BURST_MAX, true},
    {"on-full", {"wait", "enospc", "auto"}, "auto", NULL},
    {"discard", {"on", "off"}, "on", NULL},
    {"compression", {"off", "zstd"}, "off", "off"},
};
#define N_PROPERTIES (sizeof(properties) / sizeof(properties[0]))

static int unknown(const char *key, struct error *err)
{
        char names[256] = "";

        for (size_t i = 0; i < N_PROPERTIES; i++)
                snprintf(names + strlen(names), sizeof(names) - strlen(names), "%s%s",
                         i == 0                  ? ""
                         : i == N_PROPERTIES - 1 ? " and "
                                                 : ", ",
                         properties[i].key);
        error_set(err, -EINVAL, "there is no property '%.64s'", key);
        return error_hint(err, "properties are %s", names);
}

static int out_of_range(const struct property *p, const char *value, struct error *err)
{
        char min[SIZE_TEXT_MAX], max[SIZE_TEXT_MAX];

        if (p->is_size)
                error_set(err, -ERANGE,
                          "property '%s' is from %s to %s, or 0 for none, not '%.64s'", p->key,
                          size_format(p->min, min), size_format(p->max, max), value);
        else
                error_set(err, -ERANGE,
                          "property '%s' is from %llu to %llu, or 0 for none, not '%.64s'", p->key,
                          (unsigned long long)p->min, (unsigned long long)p->max, value);
        return err ? err->code : -ERANGE;
}

static int check_number(const struct property *p, const char *value, struct error *err)
{
        uint64_t number;
        int r;

        if (strcmp(value, "none") == 0)
                return 0;
        r = size_parse(value, &number, err);
        if (r < 0)
                return error_prefix(err, "property '%s'", p->key);
        return number != 0 && (number < p->min || number > p->max) ? out_of_range(p, value, err)
                                                                   : 0;
}

static int check_value(const struct property *p, const char *value, struct error *err)
{
        if (!p->values[0])
                return check_number(p, value, err);
        char words[128] = "";

        for (size_t i = 0; p->values[i]; i++) {
                if (strcmp(p->values[i], value) == 0)
                        return 0;
                snprintf(words + strlen(words), sizeof(words) - strlen(words), "%s'%s'",
                         i == 0             ? ""
                         : p->values[i + 1] ? ", "
                                            : " or ",
                         p->values[i]);
        }
        return error_set(err, -EINVAL, "property '%s' takes %s, not '%.64s'", p->key, words, value);
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
