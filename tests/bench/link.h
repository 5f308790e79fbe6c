/* link.h - one NBD connection of the load client, up to the transmission phase.
 *
 * Units      bytes.
 * Threads    none of its own; calls block.
 * Errors     0 or -errno with a sentence.
 * Ownership  a struct link is the caller's memory; release what it holds with link_close().
 * Source     doc/proto.md of NetworkBlockDevice/nbd; doc/uri.md of the same for URIs.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "common/error.h"

#define LINK_NAME_MAX 4096u

/* Where to go: nbd+unix:///EXPORT?socket=PATH or nbd://HOST[:PORT]/EXPORT. */
struct link_target {
        char socket_path[108]; /* empty for TCP */
        char host[256], port[8];
        char export_name[LINK_NAME_MAX + 1];
};

struct link {
        int fd;
        uint64_t size_bytes;
        uint16_t flags;  /* NBD_FLAG_* of the export */
        bool structured; /* structured replies were agreed */
};

/* -EINVAL  not such a URI */
int link_parse_uri(const char *uri, struct link_target *ret_target, struct error *err);

/* Connect and negotiate with NBD_OPT_GO.
 *
 * -ENOENT  no such host, or the server refuses the export
 * -EPROTO  the peer speaks something else */
int link_open(const struct link_target *target, bool want_structured, struct link *ret_link,
              struct error *err);

/* Say goodbye and close. */
void link_close(struct link *l);
