/* aml.h - write ACPI Machine Language: the code in a DSDT.
 *
 * Things are written in the order in which they stand. What contains others is opened, and closed by the
 * mark that this gave. A name that wants a value (aml_name()) is followed by it.
 *
 * Units      bytes.
 * Threads    an aml belongs to whoever made it.
 * Errors     what does not fit into the room is not written, and aml->full says so at the end.
 * Ownership  the bytes are the caller's.
 * Source     ACPI 6.5, sections 20.2 (AML) and 6.4 (resource descriptors).
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct aml {
        uint8_t *data;
        size_t size, room;
        bool full;
};

/* Opcodes without anything to encode in them. */
#define AML_LOCAL0 0x60u
#define AML_LOCAL1 0x61u
#define AML_ARG0   0x68u
#define AML_STORE  0x70u /* what, where */
#define AML_AND    0x7bu /* one, other, where (AML_NOWHERE) */
#define AML_NOTIFY 0x86u /* whom, of what */
#define AML_RETURN 0xa4u /* what */

#define AML_NOWHERE 0x00u

void aml_op(struct aml *aml, uint8_t op);
/* "\_SB.PCI0", "S01": segments are filled up to four characters. */
void aml_path(struct aml *aml, const char *path);
void aml_integer(struct aml *aml, uint64_t value);
void aml_string(struct aml *aml, const char *text);
void aml_eisa_id(struct aml *aml, const char *id); /* "PNP0501" */
void aml_name(struct aml *aml, const char *path);

size_t aml_open_scope(struct aml *aml, const char *path);
size_t aml_open_device(struct aml *aml, const char *path);
size_t aml_open_method(struct aml *aml, const char *path, unsigned n_args);
size_t aml_open_if(struct aml *aml); /* followed by what decides */
size_t aml_open_package(struct aml *aml, uint8_t n);
void aml_close(struct aml *aml, size_t mark);

/* Registers of 32 bits at I/O ports from @port on, one after the other. */
void aml_port_registers(struct aml *aml, const char *region, uint16_t port,
                        const char *const *names, unsigned n);

/* A resource template, as the value of _CRS. */
size_t aml_open_resources(struct aml *aml);
void aml_ports(struct aml *aml, uint16_t port, uint8_t n);
void aml_irq(struct aml *aml, unsigned irq); /* edge, active high */
void aml_fixed_memory(struct aml *aml, uint32_t start, uint32_t size);
/* What a bridge hands on; @end is the last one. */
void aml_window_buses(struct aml *aml, uint16_t start, uint16_t end);
void aml_window_ports(struct aml *aml, uint16_t start, uint16_t end);
void aml_window_memory(struct aml *aml, uint32_t start, uint32_t end);
void aml_close_resources(struct aml *aml, size_t mark);
