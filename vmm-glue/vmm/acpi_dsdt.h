/* acpi_dsdt.h - the code of the DSDT: what the machine has beside what the fixed tables say.
 *
 * Units      none.
 * Threads    the loop's.
 * Errors     aml->full, where it does not fit.
 * Ownership  none.
 * Source     ACPI 6.5, chapters 5 to 7 and 9; PCI Firmware Specification 3.0, section 4.
 */
#pragma once

struct aml;
struct machine;

void acpi_dsdt_write(const struct machine *machine, struct aml *aml);
