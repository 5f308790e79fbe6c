/* layout.h - every address, size and number of the machine that a guest sees.
 *
 * Units      guest-physical addresses and sizes in bytes; I/O ports; GSIs.
 * Threads    [any thread]
 * Errors     none.
 * Ownership  none.
 *
 * Memory                                    I/O ports
 *   00000000  RAM (640 KiB, then from 1 MiB)   020,0a0  PIC (KVM's)
 *   000c0000  firmware's low copy or RAM       040      PIT (KVM's), 061
 *   b0000000  ECAM, one bus                    064      reset by 0xfe
 *   c0000000  BARs of 32 bits                  070      RTC and CMOS
 *   fec00000  IOAPIC (KVM's)                   3f8      COM1
 *   fee00000  LAPICs (KVM's)                   505      pvpanic
 *   feffc000  KVM's own pages (Intel)          510      fw_cfg
 *   ff000000  firmware, up to 4 GiB            600      ACPI registers
 *   1_00000000  RAM, the rest                  ae00     PCI hotplug
 *                                              cf8      PCI configuration, cf9 reset
 */
#pragma once
#include <stdint.h>

#define KIB(n) (UINT64_C(n) << 10)
#define MIB(n) (UINT64_C(n) << 20)
#define GIB(n) (UINT64_C(n) << 30)

/* ---- memory ---- */
#define LAYOUT_RAM_LOW_MAX UINT64_C(0xb0000000) /* RAM below 4 GiB ends here at the latest */
#define LAYOUT_RAM_HIGH    GIB(4)               /* what does not fit there begins here */
#define LAYOUT_RAM_MIN     MIB(32)
#define LAYOUT_RAM_MAX     GIB(1024)
#define LAYOUT_RAM_UNIT    MIB(2)   /* sizes are multiples: a huge page */
#define LAYOUT_EBDA        0x9fc00u /* usable RAM below 640 KiB ends here */
#define LAYOUT_BIOS_AREA   0xe0000u /* RSDP of a direct boot */
#define LAYOUT_SMBIOS      0xf0000u /* of a direct boot: kernels look from here to the end */
#define LAYOUT_BIOS_END    0x100000u

#define LAYOUT_ECAM         UINT64_C(0xb0000000)
#define LAYOUT_ECAM_SIZE    MIB(1) /* bus 0 alone: 256 functions of 4 KiB */
#define LAYOUT_PCI32        UINT64_C(0xc0000000)
#define LAYOUT_PCI32_END    UINT64_C(0xfec00000) /* SeaBIOS places BARs downwards from here */
#define LAYOUT_IOAPIC       UINT64_C(0xfec00000)
#define LAYOUT_LAPIC        UINT64_C(0xfee00000)
#define LAYOUT_IDENTITY_MAP UINT64_C(0xfeffc000) /* one page, then */
#define LAYOUT_TSS          UINT64_C(0xfeffd000) /* three */
#define LAYOUT_FIRMWARE_MAX MIB(16)              /* ends at 4 GiB */
#define LAYOUT_FIRMWARE_LOW KIB(256) /* at most so much of its end is copied below 1 MiB */

/* ACPI tables lie in the last bytes of low RAM, reserved in e820. */
#define LAYOUT_ACPI_SIZE KIB(64)

/* ---- a direct boot's own data, in low RAM ---- */
#define BOOT_GDT         0x500u
#define BOOT_ZERO_PAGE   0x7000u
#define BOOT_STACK       0x8ff0u
#define BOOT_PAGE_TABLE  0x9000u /* six pages: PML4, PDPT, four of 2 MiB entries */
#define BOOT_PVH_INFO    0x6000u
#define BOOT_CMDLINE     0x20000u
#define BOOT_CMDLINE_MAX 0x10000u
#define BOOT_KERNEL_MIN  0x100000u

/* ---- I/O ports ---- */
#define PORT_KEYBOARD    0x64u /* only its reset */
#define PORT_RTC         0x70u /* index; data is 0x71 */
#define PORT_COM1        0x3f8u
#define PORT_PVPANIC     0x505u
#define PORT_FW_CFG      0x510u /* selector, 0x511 data, 0x514 DMA (8 bytes, big-endian) */
#define PORT_PM1_EVENT   0x600u /* status 2, enable 2 */
#define PORT_PM1_CONTROL 0x604u
#define PORT_PM_TIMER    0x608u
#define PORT_GPE0        0x620u /* status 2, enable 2 */
#define PORT_GPE0_SIZE   4u
#define PORT_PCI_HOTPLUG 0xae00u /* up 4, down 4, eject 4 */
#define PORT_PCI_ADDRESS 0xcf8u
#define PORT_RESET       0xcf9u
#define PORT_PCI_DATA    0xcfcu

/* ---- interrupts ---- */
#define GSI_COM1      4u
#define GSI_RTC       8u
#define GSI_SCI       9u  /* level, active high */
#define GSI_PCI_FIRST 16u /* INTA# to INTD# of slot n: GSI_PCI_FIRST + (n + pin) % 4 */
#define GSI_PCI_COUNT 4u
/* By PIC, where ACPI's APIC mode is not used: all on 10 and 11, as in _PRT. */
#define IRQ_PCI_PIC_A 10u
#define IRQ_PCI_PIC_B 11u
#define GSI_MSI_FIRST 24u /* routes of MSI vectors */
#define GSI_MSI_MAX   2048u

#define GPE_PCI_HOTPLUG 1u /* bit of GPE0 */

/* ---- processors and slots ---- */
#define VCPUS_MAX 64u
#define PCI_SLOTS 32u /* 0 is the host bridge */
#define IOAPIC_ID 0xf0u

/* PM timer: 3.579545 MHz, 24 bits used of 32 (TMR_VAL_EXT says 32). */
#define PM_TIMER_HZ 3579545u
