/* nbd_wire.h - the numbers of the NBD protocol that the benchmarks need.
 *
 * Apart from nbd-server/ on purpose: a client that shared the server's constants would agree with
 * its mistakes.
 *
 * Units      bytes. Everything on the wire is big-endian.
 * Threads    [any thread]
 * Errors     none.
 * Source     doc/proto.md of NetworkBlockDevice/nbd.
 */
#pragma once
#include <endian.h>
#include <stdint.h>
#include <string.h>

/* Newstyle negotiation. */
#define NBD_MAGIC               UINT64_C(0x4e42444d41474943) /* "NBDMAGIC" */
#define NBD_OPTION_MAGIC        UINT64_C(0x49484156454f5054) /* "IHAVEOPT" */
#define NBD_OPTION_REPLY_MAGIC  UINT64_C(0x0003e889045565a9)
#define NBD_FLAG_FIXED_NEWSTYLE 0x0001u
#define NBD_FLAG_NO_ZEROES      0x0002u

#define NBD_OPT_EXPORT_NAME      1u
#define NBD_OPT_ABORT            2u
#define NBD_OPT_LIST             3u
#define NBD_OPT_INFO             6u
#define NBD_OPT_GO               7u
#define NBD_OPT_STRUCTURED_REPLY 8u

#define NBD_REP_ACK       1u
#define NBD_REP_INFO      3u
#define NBD_REP_FLAG_ERR  0x80000000u
#define NBD_REP_ERR_UNSUP 0x80000001u
#define NBD_INFO_EXPORT   0u

/* Transmission flags. */
#define NBD_FLAG_HAS_FLAGS      0x0001u
#define NBD_FLAG_READ_ONLY      0x0002u
#define NBD_FLAG_SEND_FLUSH     0x0004u
#define NBD_FLAG_SEND_FUA       0x0008u
#define NBD_FLAG_CAN_MULTI_CONN 0x0100u

/* Transmission. */
#define NBD_REQUEST_MAGIC          0x25609513u
#define NBD_SIMPLE_REPLY_MAGIC     0x67446698u
#define NBD_STRUCTURED_REPLY_MAGIC 0x668e33efu

#define NBD_CMD_READ         0u
#define NBD_CMD_WRITE        1u
#define NBD_CMD_DISC         2u
#define NBD_CMD_FLUSH        3u
#define NBD_CMD_TRIM         4u
#define NBD_CMD_WRITE_ZEROES 6u

#define NBD_CMD_FLAG_FUA 0x0001u

#define NBD_REPLY_FLAG_DONE         0x0001u
#define NBD_REPLY_TYPE_NONE         0u
#define NBD_REPLY_TYPE_OFFSET_DATA  1u
#define NBD_REPLY_TYPE_OFFSET_HOLE  2u
#define NBD_REPLY_TYPE_ERROR        0x8001u
#define NBD_REPLY_TYPE_ERROR_OFFSET 0x8002u

#define NBD_EINVAL 22u

#define NBD_REQUEST_BYTES          28u /* magic 4, flags 2, type 2, cookie 8, offset 8, length 4 */
#define NBD_SIMPLE_REPLY_BYTES     16u /* magic 4, error 4, cookie 8 */
#define NBD_STRUCTURED_REPLY_BYTES 20u /* magic 4, flags 2, type 2, cookie 8, length 4 */

#define NBD_LENGTH_MAX (UINT32_C(32) << 20) /* what every server must take without asking */

static inline uint16_t wire_get16(const void *p)
{
        uint16_t v;
        memcpy(&v, p, sizeof(v));
        return be16toh(v);
}

static inline uint32_t wire_get32(const void *p)
{
        uint32_t v;
        memcpy(&v, p, sizeof(v));
        return be32toh(v);
}

static inline uint64_t wire_get64(const void *p)
{
        uint64_t v;
        memcpy(&v, p, sizeof(v));
        return be64toh(v);
}

static inline void wire_put16(void *p, uint16_t v)
{
        v = htobe16(v);
        memcpy(p, &v, sizeof(v));
}

static inline void wire_put32(void *p, uint32_t v)
{
        v = htobe32(v);
        memcpy(p, &v, sizeof(v));
}

static inline void wire_put64(void *p, uint64_t v)
{
        v = htobe64(v);
        memcpy(p, &v, sizeof(v));
}
