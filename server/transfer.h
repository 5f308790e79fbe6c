/* transfer.h - copying between an image and a volume, several pieces in flight, zeroes left out.
 *
 * Units      bytes; progress as well.
 * Threads    coroutines of the loop of both.
 * Errors     0 or -errno; the first failure ends the copy, and what was copied stays.
 * Ownership  image and volume stay the caller's.
 */
#pragma once
#include "formats/image.h"
#include "server/command.h"

/* Everything in @image that is not zero goes into @volume, which is new, at least as large, and
 * reads as zeroes; durable on return. */
int co_transfer_import(const struct command *c, struct image *image, struct volume *volume,
                       struct error *err);
/* All of @volume goes into @image, which is as large. */
int co_transfer_export(const struct command *c, struct volume *volume, struct image *image,
                       struct error *err);
