/* protocol.h - the numbers and messages of the NBD protocol, under the names that its document
 * gives them. The numbers that begin the comments of members are their offsets.
 *
 * Units      bytes. Integers on the wire are big-endian.
 * Threads    [any thread]
 * Errors     none.
 * Source     doc/proto.md of NetworkBlockDevice/nbd, master and branch extension-ext-header; of the
 *            names in the namespace qemu: docs/interop/nbd.txt of QEMU.
 */
#pragma once
#include <assert.h>
#include <stdint.h>
#include "common/be.h"

/* ---- handshake ---- */

#define NBD_MAGIC            UINT64_C(0x4e42444d41474943) /* "NBDMAGIC" */
#define NBD_OPTION_MAGIC     UINT64_C(0x49484156454f5054) /* "IHAVEOPT" */
#define NBD_OPTION_REP_MAGIC UINT64_C(0x0003e889045565a9)

enum { /* handshake flags, and the client's answer to them */
       NBD_FLAG_FIXED_NEWSTYLE = 1,
       NBD_FLAG_NO_ZEROES = 2,
};

enum { /* options */
       NBD_OPT_EXPORT_NAME = 1,
       NBD_OPT_ABORT = 2,
       NBD_OPT_LIST = 3,
       NBD_OPT_PEEK_EXPORT = 4,
       NBD_OPT_STARTTLS = 5,
       NBD_OPT_INFO = 6,
       NBD_OPT_GO = 7,
       NBD_OPT_STRUCTURED_REPLY = 8,
       NBD_OPT_LIST_META_CONTEXT = 9,
       NBD_OPT_SET_META_CONTEXT = 10,
       NBD_OPT_EXTENDED_HEADERS = 11,
};

#define NBD_REP_ERR(n)              (UINT32_C(0x80000000) + (n))
#define NBD_REP_ACK                 1u
#define NBD_REP_SERVER              2u
#define NBD_REP_INFO                3u
#define NBD_REP_META_CONTEXT        4u
#define NBD_REP_ERR_UNSUP           NBD_REP_ERR(1)
#define NBD_REP_ERR_POLICY          NBD_REP_ERR(2)
#define NBD_REP_ERR_INVALID         NBD_REP_ERR(3)
#define NBD_REP_ERR_TLS_REQD        NBD_REP_ERR(5)
#define NBD_REP_ERR_UNKNOWN         NBD_REP_ERR(6)
#define NBD_REP_ERR_SHUTDOWN        NBD_REP_ERR(7)
#define NBD_REP_ERR_TOO_BIG         NBD_REP_ERR(9)
#define NBD_REP_ERR_EXT_HEADER_REQD NBD_REP_ERR(10)

enum { NBD_INFO_EXPORT = 0, NBD_INFO_NAME = 1, NBD_INFO_DESCRIPTION = 2, NBD_INFO_BLOCK_SIZE = 3 };

#define NBD_STRING_MAX 4096u /* "Values ... Strings": names, queries, messages */

struct nbd_greeting {
        be64 magic;        /*  0  NBD_MAGIC */
        be64 option_magic; /*  8  NBD_OPTION_MAGIC */
        be16 flags;        /* 16  handshake flags */
};
static_assert(sizeof(struct nbd_greeting) == 18, "proto.md, newstyle negotiation");

struct nbd_option {
        be64 magic;  /*  0  NBD_OPTION_MAGIC */
        be32 option; /*  8 */
        be32 length; /* 12  of the data that follows */
};
static_assert(sizeof(struct nbd_option) == 16, "proto.md, newstyle negotiation");

struct nbd_option_reply {
        be64 magic;  /*  0  NBD_OPTION_REP_MAGIC */
        be32 option; /*  8  the option answered */
        be32 type;   /* 12  NBD_REP_* */
        be32 length; /* 16  of the data that follows */
};
static_assert(sizeof(struct nbd_option_reply) == 20, "proto.md, fixed newstyle negotiation");

struct nbd_export_name_reply {
        be64 size;           /*  0 */
        be16 flags;          /*  8  transmission flags */
        uint8_t zeroes[124]; /* 10  left out where NO_ZEROES was agreed */
};
static_assert(sizeof(struct nbd_export_name_reply) == 134, "proto.md, newstyle negotiation");

struct nbd_info_export {
        be16 type;  /*  0  NBD_INFO_EXPORT */
        be64 size;  /*  2 */
        be16 flags; /* 10  transmission flags */
};
static_assert(sizeof(struct nbd_info_export) == 12, "proto.md, NBD_INFO_EXPORT");

struct nbd_info_block_size {
        be16 type;      /*  0  NBD_INFO_BLOCK_SIZE */
        be32 minimum;   /*  2 */
        be32 preferred; /*  6 */
        be32 maximum;   /* 10  payload */
};
static_assert(sizeof(struct nbd_info_block_size) == 14, "proto.md, NBD_INFO_BLOCK_SIZE");

/* ---- transmission ---- */

enum { /* transmission flags */
       NBD_FLAG_HAS_FLAGS = 1 << 0,
       NBD_FLAG_READ_ONLY = 1 << 1,
       NBD_FLAG_SEND_FLUSH = 1 << 2,
       NBD_FLAG_SEND_FUA = 1 << 3,
       NBD_FLAG_SEND_TRIM = 1 << 5,
       NBD_FLAG_SEND_WRITE_ZEROES = 1 << 6,
       NBD_FLAG_SEND_DF = 1 << 7,
       NBD_FLAG_CAN_MULTI_CONN = 1 << 8,
       NBD_FLAG_SEND_CACHE = 1 << 10,
       NBD_FLAG_SEND_FAST_ZERO = 1 << 11,
       NBD_FLAG_BLOCK_STATUS_PAYLOAD = 1 << 12,
};

enum { /* request types */
       NBD_CMD_READ = 0,
       NBD_CMD_WRITE = 1,
       NBD_CMD_DISC = 2,
       NBD_CMD_FLUSH = 3,
       NBD_CMD_TRIM = 4,
       NBD_CMD_CACHE = 5,
       NBD_CMD_WRITE_ZEROES = 6,
       NBD_CMD_BLOCK_STATUS = 7,
};

enum { /* command flags */
       NBD_CMD_FLAG_FUA = 1 << 0,
       NBD_CMD_FLAG_NO_HOLE = 1 << 1,
       NBD_CMD_FLAG_DF = 1 << 2,
       NBD_CMD_FLAG_REQ_ONE = 1 << 3,
       NBD_CMD_FLAG_FAST_ZERO = 1 << 4,
       NBD_CMD_FLAG_PAYLOAD_LEN = 1 << 5, /* extended headers only */
};

enum { /* structured and extended replies: flag, chunk types */
       NBD_REPLY_FLAG_DONE = 1,
       NBD_REPLY_TYPE_NONE = 0,
       NBD_REPLY_TYPE_OFFSET_DATA = 1,
       NBD_REPLY_TYPE_OFFSET_HOLE = 2,
       NBD_REPLY_TYPE_BLOCK_STATUS = 5,
       NBD_REPLY_TYPE_BLOCK_STATUS_EXT = 6,
       NBD_REPLY_TYPE_ERROR = (1 << 15) + 1,
       NBD_REPLY_TYPE_ERROR_OFFSET = (1 << 15) + 2,
};

enum { NBD_STATE_HOLE = 1, NBD_STATE_ZERO = 2 }; /* base:allocation */
enum { NBD_STATE_DIRTY = 1 };                    /* qemu:dirty-bitmap:... */

enum { /* error values */
       NBD_SUCCESS = 0,
       NBD_EPERM = 1,
       NBD_EIO = 5,
       NBD_ENOMEM = 12,
       NBD_EINVAL = 22,
       NBD_ENOSPC = 28,
       NBD_EOVERFLOW = 75,
       NBD_ENOTSUP = 95,
       NBD_ESHUTDOWN = 108,
};

#define NBD_REQUEST_MAGIC          UINT32_C(0x25609513)
#define NBD_EXTENDED_REQUEST_MAGIC UINT32_C(0x21e41c71)
#define NBD_SIMPLE_REPLY_MAGIC     UINT32_C(0x67446698)
#define NBD_STRUCTURED_REPLY_MAGIC UINT32_C(0x668e33ef)
#define NBD_EXTENDED_REPLY_MAGIC   UINT32_C(0x6e8a278c)

struct nbd_request_header {
        be32 magic;  /*  0  NBD_REQUEST_MAGIC */
        be16 flags;  /*  4 */
        be16 type;   /*  6 */
        be64 cookie; /*  8  opaque */
        be64 offset; /* 16 */
        be32 length; /* 24 */
};
static_assert(sizeof(struct nbd_request_header) == 28, "proto.md, request message");

struct nbd_extended_request {
        be32 magic;  /*  0  NBD_EXTENDED_REQUEST_MAGIC */
        be16 flags;  /*  4 */
        be16 type;   /*  6 */
        be64 cookie; /*  8  opaque */
        be64 offset; /* 16 */
        be64 length; /* 24  of the payload that follows with PAYLOAD_LEN, else of the effect */
};
static_assert(sizeof(struct nbd_extended_request) == 32, "proto.md, request message");

struct nbd_status_payload { /* of BLOCK_STATUS with PAYLOAD_LEN; 32 bits for each context follow */
        be64 length;        /*  0  of the effect */
};

struct nbd_simple_reply {
        be32 magic;  /*  0  NBD_SIMPLE_REPLY_MAGIC */
        be32 error;  /*  4 */
        be64 cookie; /*  8 */
};
static_assert(sizeof(struct nbd_simple_reply) == 16, "proto.md, simple reply message");

struct nbd_chunk {
        be32 magic;  /*  0  NBD_STRUCTURED_REPLY_MAGIC */
        be16 flags;  /*  4 */
        be16 type;   /*  6 */
        be64 cookie; /*  8 */
        be32 length; /* 16  of the payload that follows */
};
static_assert(sizeof(struct nbd_chunk) == 20, "proto.md, structured reply chunk message");

struct nbd_extended_chunk {
        be32 magic;  /*  0  NBD_EXTENDED_REPLY_MAGIC */
        be16 flags;  /*  4 */
        be16 type;   /*  6 */
        be64 cookie; /*  8 */
        be64 offset; /* 16  the request's */
        be64 length; /* 24  of the payload that follows */
};
static_assert(sizeof(struct nbd_extended_chunk) == 32, "proto.md, extended reply chunk message");

/* Payloads of chunks, behind the head of either kind. */
struct nbd_payload_data { /* NBD_REPLY_TYPE_OFFSET_DATA; the data follow */
        be64 offset;
};
struct nbd_payload_status { /* NBD_REPLY_TYPE_BLOCK_STATUS; nbd_status_descriptors follow */
        be32 context;
};
struct nbd_status_descriptor {
        be32 length;
        be32 flags;
};
struct nbd_payload_status_ext { /* NBD_REPLY_TYPE_BLOCK_STATUS_EXT; nbd_status_extents follow */
        be32 context;
        be32 n;
};
struct nbd_status_extent {
        be64 length;
        be64 flags;
};
struct nbd_payload_error { /* NBD_REPLY_TYPE_ERROR; the message follows */
        be32 error;
        be16 message_length;
};
static_assert(sizeof(struct nbd_status_descriptor) == 8, "proto.md, NBD_REPLY_TYPE_BLOCK_STATUS");
static_assert(sizeof(struct nbd_status_extent) == 16, "proto.md, NBD_REPLY_TYPE_BLOCK_STATUS_EXT");
static_assert(sizeof(struct nbd_payload_error) == 6, "proto.md, NBD_REPLY_TYPE_ERROR");
