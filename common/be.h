/* be.h - big-endian integers as they lie on disk; as le.h.
 *
 * Units      be16_get(), be16_make(): uint16_t; likewise for 32 and 64.
 * Threads    [any thread]
 * Errors     none.
 */
#pragma once
#include <endian.h>
#include <stdint.h>
#include <string.h>

typedef struct {
        uint8_t b[2];
} be16;
typedef struct {
        uint8_t b[4];
} be32;
typedef struct {
        uint8_t b[8];
} be64;

#define BE_DEFINE(bits)                                                                            \
        static inline uint##bits##_t be##bits##_get(be##bits x)                                    \
        {                                                                                          \
                uint##bits##_t v;                                                                  \
                memcpy(&v, x.b, sizeof(v));                                                        \
                return be##bits##toh(v);                                                           \
        }                                                                                          \
        static inline be##bits be##bits##_make(uint##bits##_t v)                                   \
        {                                                                                          \
                be##bits x;                                                                        \
                v = htobe##bits(v);                                                                \
                memcpy(x.b, &v, sizeof(v));                                                        \
                return x;                                                                          \
        }
BE_DEFINE(16)
BE_DEFINE(32)
BE_DEFINE(64)
#undef BE_DEFINE
