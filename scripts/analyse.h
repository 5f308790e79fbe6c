/* analyse.h - what analysers are told that see one source file at a time; included before each.
 *
 * Each line states what the function's own file asserts or what its header promises. Compilers
 * never see it: nothing may come to depend on it.
 */
#pragma once

#ifdef __cppcheck__

/* Of included libraries cppcheck sees no header, and a loop made by a macro that it does not know
 * is a syntax error to it: it then leaves the whole file out. */
#define json_array_foreach(array, index, value)                                                    \
        for (index = 0; index < json_array_size(array) && (value = json_array_get(array, index));  \
             index++)
#define json_object_foreach(object, key, value)                                                    \
        for (void *at_ = json_object_iter(object);                                                 \
             (key = json_object_iter_key(at_)) && (value = json_object_iter_value(at_));           \
             at_ = json_object_iter_next(object, at_))

#else
#include <string.h>
#include "common/error.h"
#include "common/list.h"

/* These return a negative number, always: error.c asserts it. Without that every `return
 * error_set(...)` is a path on which the caller goes on with a ret_* that was not set. */
#define ANALYSE_NEGATIVE(call)                                                                     \
        __extension__({                                                                            \
                const int code_ = (call);                                                          \
                if (code_ >= 0)                                                                    \
                        __builtin_unreachable();                                                   \
                code_;                                                                             \
        })
#define error_set(...)     ANALYSE_NEGATIVE((error_set)(__VA_ARGS__))
#define error_prefix(...)  ANALYSE_NEGATIVE((error_prefix)(__VA_ARGS__))
#define error_hint(...)    ANALYSE_NEGATIVE((error_hint)(__VA_ARGS__))

/* Safe for threads since glibc 2.32; clang-tidy has the older list. */
char *analyse_strerror(int number);
#define strerror           analyse_strerror

/* A struct that was put into a list is reached through its node from then on. Analysers that look
 * for the struct's own address take it for leaked; a function that they cannot see into may keep
 * what it was given. */
void analyse_list_insert(struct list *at, struct list *node);
#define list_insert_before analyse_list_insert
#define list_append        analyse_list_insert
#define list_prepend       analyse_list_insert

#endif
