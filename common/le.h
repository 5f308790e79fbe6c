/* le.h - little-endian integers as they lie on disk.
 *
 * Byte arrays: arithmetic on them by accident does not compile, and they need no packed attribute.
 *
 * Units      le16_get(), le16_make(): uint16_t; likewise for 32 and 64.
 * Threads    [any thread]
 * Errors     none.
 */
#pragma once
#include <endian.h>
#include <stdint.h>
#include <string.h>

typedef struct {
        uint8_t b[2];
} le16;
typedef struct {
        uint8_t b[4];
} le32;
typedef struct {
        uint8_t b[8];
} le64;

#define LE_DEFINE(bits)                                                                            \
        static inline uint##bits##_t le##bits##_get(le##bits x)                                    \
        {                                                                                          \
                uint##bits##_t v;                                                                  \
                memcpy(&v, x.b, sizeof(v));                                                        \
                return le##bits##toh(v);                                                           \
        }                                                                                          \
        static inline le##bits le##bits##_make(uint##bits##_t v)                                   \
        {                                                                                          \
                le##bits x;                                                                        \
                v = htole##bits(v);                                                                \
                memcpy(x.b, &v, sizeof(v));                                                        \
                return x;                                                                          \
        }
LE_DEFINE(16)
LE_DEFINE(32)
LE_DEFINE(64)
#undef LE_DEFINE
