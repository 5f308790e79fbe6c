/* dirty.c - the log of pages that the device has written, for live migration: one bit for each 4096
 * bytes of guest-physical addresses, set after the write, so that whoever clears it and copies the
 * page afterwards copies what was written. Source: vhost-user.rst, section "Migration". */
#include "vmm-glue/vhost-user/internal.h"

#define DIRTY_PAGE 4096u

void dirty_guest(struct vhost_client *client, uint64_t guest, uint64_t length)
{
        uint64_t page = guest / DIRTY_PAGE, last;

        if (!dirty_logging(client) || length == 0 || guest + length - 1 < guest)
                return;
        last = (guest + length - 1) / DIRTY_PAGE;
        for (; page <= last && page / 8 < client->log_bytes; page++)
                __atomic_fetch_or(client->log.start + page / 8, (uint8_t)(1u << page % 8),
                                  __ATOMIC_SEQ_CST);
}

void dirty_host(struct vhost_client *client, const struct memory *memory, const void *host,
                uint64_t length)
{
        uint64_t guest;

        if (dirty_logging(client) && memory_guest_address(memory, host, &guest))
                dirty_guest(client, guest, length);
}
