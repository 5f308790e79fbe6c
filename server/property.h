/* property.h - the properties a volume may carry: their names, values and defaults.
 *
 * Units      values are texts as the user writes them; numbers as in common/size.h.
 * Threads    [any thread]
 * Errors     0 or -errno with a sentence.
 * Ownership  property_defaults() gives a new reference; NULL when out of memory.
 */
#pragma once
#include <jansson.h>
#include <stddef.h>

#include "common/error.h"

/* An empty value takes the property back to its default. Limits take "0" and "none" for none.
 * ret_note: a sentence where this version remembers the value without acting on it; else untouched.
 *
 * -EINVAL  no such property, or a value that it does not take
 * -ERANGE  a number that is too small or too large */
int property_check(const char *key, const char *value, char *ret_note, size_t size,
                   struct error *err);

/* An object with each property's value where nothing was set. */
json_t *property_defaults(void);
