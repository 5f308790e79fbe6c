/* hostile_entry.S - from a PVH entry to C in 64 bits: flat segments, the first 4 GiB and a window behind
 * them mapped, a handler for each exception.
 *
 * Source: Xen, docs/misc/pvh.pandoc. */
#define CR0_PG (1 << 31)
#define CR0_MP 2
#define CR4    0x620 /* PAE, OSFXSR, OSXMMEXCPT */
#define EFER   0xc0000080
#define LME    0x100

        .section .note, "a", @note
        .balign 4
        .long 4, 4, 18 /* XEN_ELFNOTE_PHYS32_ENTRY */
        .asciz "Xen"
        .long entry

        .text
        .code32
        .global entry
entry:
        cli
        movl $stack_end, %esp
        movl %ebx, start_info
        /* Tables are zero: PML4, PDPT, and five directories of 2 MiB pages, of which the last is the
         * window's and stays empty. */
        movl $tables + 0x1003, tables
        movl $5, %ecx
        movl $tables + 0x2003, %eax
        movl $tables + 0x1000, %edi
1:      movl %eax, (%edi)
        addl $0x1000, %eax
        addl $8, %edi
        loop 1b
        movl $2048, %ecx
        movl $0x83, %eax
        movl $tables + 0x2000, %edi
2:      movl %eax, (%edi)
        addl $0x200000, %eax
        addl $8, %edi
        loop 2b

        movl $CR4, %eax
        movl %eax, %cr4
        movl $tables, %eax
        movl %eax, %cr3
        movl $EFER, %ecx
        rdmsr
        orl $LME, %eax
        wrmsr
        movl %cr0, %eax
        orl $CR0_PG | CR0_MP, %eax
        movl %eax, %cr0
        lgdt gdt_register
        ljmp $8, $long_mode

        .code64
long_mode:
        movl $16, %eax
        movl %eax, %ds
        movl %eax, %es
        movl %eax, %ss
        movl %eax, %fs
        movl %eax, %gs
        movl $stack_end, %esp
        call hostile_main
        ud2

/* An exception: its number, and where. Those with an error code have it on the stack. */
        .macro handler number, error=0
        .balign 16
        .if \error == 0
        pushq $0
        .endif
        pushq $\number
        jmp exception
        .endm

        .balign 16
        .global handlers
handlers:
        handler 0
        handler 1
        /* NMI: somebody has sent himself one. */
        .balign 16
        iretq
        handler 3
        handler 4
        handler 5
        handler 6
        handler 7
        handler 8, 1
        handler 9
        handler 10, 1
        handler 11, 1
        handler 12, 1
        handler 13, 1
        handler 14, 1
        handler 15
        handler 16
        handler 17, 1
        handler 18
        handler 19
        handler 20
        handler 21, 1
        handler 22
        handler 23
        handler 24
        handler 25
        handler 26
        handler 27
        handler 28
        handler 29
        handler 30
        handler 31

exception:
        popq %rdi
        movq 8(%rsp), %rsi
        andq $-16, %rsp
        call hostile_exception
        ud2

        .section .rodata
        .balign 8
gdt:    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
gdt_register:
        .word gdt_register - gdt - 1
        .long gdt

        .bss
        .balign 4096
        .global window_directory
tables: .skip 0x6000
window_directory:
        .skip 0x1000
        .balign 16
        .skip 0x8000
stack_end:
        .global start_info
start_info:
        .skip 4

        .section .note.GNU-stack, "", @progbits
