/* state.h - the saved state of a machine: a sequence of sections, one a device.
 *
 * A section has the device's id, a version, its length and a CRC; numbers are little-endian. Who reads
 * gets a reader of its section alone: what is missing reads as zero and fails the section at its end,
 * so a restore() reads all its fields and checks each against its limits, without looking for the end.
 *
 * Units      bytes.
 * Threads    a writer and a reader belong to whoever made them.
 * Errors     a writer that finds no memory, or would have more than STATE_SIZE_MAX bytes, remembers it;
 *            so does a reader that finds no more bytes.
 * Ownership  a writer's bytes are its own; a reader borrows what it reads.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/error.h"

#define STATE_ID_MAX   48u
#define STATE_SIZE_MAX (UINT64_C(64) << 20)

struct state_writer {
        uint8_t *data;
        size_t size, room, section; /* section: where the open one's head lies */
        bool failed, open;
};

struct state_reader {
        const uint8_t *data;
        size_t left;
        uint32_t version; /* of the section, at most the one that was asked for */
        bool failed;
};

/* A zeroed writer is empty. The end, and a new beginning. */
void state_writer_free(struct state_writer *w);

void state_begin(struct state_writer *w, const char *id, uint32_t version);
void state_end(struct state_writer *w);

void state_put(struct state_writer *w, const void *data, size_t size);
void state_put8(struct state_writer *w, uint8_t value);
void state_put16(struct state_writer *w, uint16_t value);
void state_put32(struct state_writer *w, uint32_t value);
void state_put64(struct state_writer *w, uint64_t value);

/* The section of @id in all that was written, of a version from 1 to @version; checked by its CRC.
 *
 * -ENOENT   there is none
 * -EINVAL   the state is damaged, or of a later version */
int state_find(const void *data, size_t size, const char *id, uint32_t version,
               struct state_reader *ret_reader, struct error *err);
/* Was all of the section read, and nothing behind it? -EINVAL */
int state_finish(const struct state_reader *r, const char *id, struct error *err);

void state_get(struct state_reader *r, void *data, size_t size);
uint8_t state_get8(struct state_reader *r);
uint16_t state_get16(struct state_reader *r);
uint32_t state_get32(struct state_reader *r);
uint64_t state_get64(struct state_reader *r);
