/* stamp.h - contents that say what they are, and the book of what each unit of the volume may hold.
 *
 * The range is cut into units (4096 bytes, less for smaller blocks). Version N of a unit begins
 * with a stamp {magic, seed, unit, version} and is filled from these four; version 0 is zeroes, as
 * a new volume reads, and so is one that was begun by stamp_begin_zero(). For each unit the book knows three versions: the last one submitted, the last
 * one answered, and the last one that a completed flush (or FUA) covers. While the server lives a
 * read must give exactly the answered one; after a crash any from the flushed to the submitted one.
 * Lies in a file if asked, so that it outlives the client; a range has at most one write in flight
 * for each unit (stamp_is_busy()).
 *
 * Units      bytes.
 * Threads    a book belongs to one thread.
 * Errors     0 or -errno with a sentence; -EILSEQ for a volume that holds what it must not.
 * Ownership  release a book with stamp_close().
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/error.h"

#define STAMP_UNIT_MAX 4096u
#define STAMP_UNIT_MIN 512u

/* The bytes of a unit that say what they are, for who keeps a book of another kind; and which version
 * of the unit they say they are, if any. What they say is true if all are as stamp_fill() makes them.
 * @bytes: up to STAMP_UNIT_MAX, a multiple of 8. [any thread] */
void stamp_fill(uint64_t seed, uint64_t unit, uint64_t version, void *buffer, uint32_t bytes);
bool stamp_claims(uint64_t seed, uint64_t unit, const void *bytes, uint64_t *ret_version);

struct stamp_book;

/* @path may be NULL: then the book is kept in memory only. A book that exists is taken up again and
 * must be of the same range, unit and seed. Release with stamp_close(). */
int stamp_open(const char *path, uint64_t range_offset, uint64_t range_bytes, uint32_t unit_bytes,
               uint64_t seed, struct stamp_book **ret_book, struct error *err);
void stamp_close(struct stamp_book *b);

/* A write or read of the range overlaps a request in flight. Offsets are the volume's. */
bool stamp_is_busy(const struct stamp_book *b, uint64_t offset, uint64_t length);

/* Begin a write: mark it in flight and fill @buffer with the next versions. */
void stamp_begin_write(struct stamp_book *b, uint64_t offset, uint64_t length, void *buffer);
/* The same for a request after which the range is to read as zeroes. */
void stamp_begin_zero(struct stamp_book *b, uint64_t offset, uint64_t length);
/* The write was answered with success; @fua: it is durable. */
int stamp_end_write(struct stamp_book *b, uint64_t offset, uint64_t length, bool fua);

/* What may be there since the book was last written in: what was answered; after a crash of the server any
 * version from the flushed to the submitted one; after the end of a client that had requests in flight, of which
 * none is any more, any from the answered to the submitted one. */
enum stamp_since { STAMP_SINCE_ANSWERED, STAMP_SINCE_CRASH, STAMP_SINCE_CLIENT_END };

/* Begin and end a read; the end checks what arrived. What is found after a crash or a client's end is
 * written down as the unit's content from now on. */
void stamp_begin_read(struct stamp_book *b, uint64_t offset, uint64_t length);
int stamp_end_read(struct stamp_book *b, uint64_t offset, uint64_t length, const void *buffer,
                   enum stamp_since since, struct error *err);

/* A flush is about to be sent: returns a ticket that stands for the writes answered until now. */
uint64_t stamp_flush_ticket(const struct stamp_book *b);
/* The flush with this ticket was answered with success. */
void stamp_flushed(struct stamp_book *b, uint64_t ticket);
