/* acpi_pm.h - the reset register, for who owns the ports around it (pci.c): a byte at PORT_RESET.
 *
 * Units      bits: 1 asks for a reset of the whole system, 2 does it when it becomes 1.
 * Threads    under the machine's lock.
 * Errors     none.
 * Ownership  none.
 * Source     Intel, I/O Controller Hub 9 data sheet, RST_CNT.
 */
#pragma once
#include <stdint.h>

struct machine;

uint8_t acpi_pm_reset_read(struct machine *machine);
void acpi_pm_reset_write(struct machine *machine, uint8_t value);

/* The type of _S5 in PM1_CNT's SLP_TYP: any, but the tables say the same. */
#define ACPI_PM_SLEEP_S5 5u
