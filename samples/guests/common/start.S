// Entry of every guest: vCPU 0 comes from the loader, the others from PSCI CPU_ON with X0 = their number.
    .section .text.start,"ax"
    .globl _start, secondary_start
_start:
    mov x0, #0
secondary_start:
    mov x19, x0
    adrp x1, __stacks
    add x1, x1, :lo12:__stacks
    add x2, x0, #1
    add x1, x1, x2, lsl #14         // 16 KiB of stack for each vCPU
    mov sp, x1
    adrp x1, vectors
    add x1, x1, :lo12:vectors
    msr vbar_el1, x1
    mov x1, #(3 << 20)
    msr cpacr_el1, x1
    isb
    cbnz x19, 1f
    bl main
    bl power_off
1:  mov x0, x19
    bl secondary_main
2:  bl cpu_off
    b 2b

// Exception frame: x0..x30, elr, spsr, esr, far, vector number. exception(frame) may change elr and spsr.
    .macro entry number
    .balign 128
    sub sp, sp, #304
    stp x0, x1, [sp]
    mov x0, #\number
    b common_entry
    .endm
    .section .text.vectors,"ax"
    .balign 2048
    .globl vectors
vectors:
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    entry \n
    .endr
common_entry:
    stp x2, x3, [sp, #16]
    stp x4, x5, [sp, #32]
    stp x6, x7, [sp, #48]
    stp x8, x9, [sp, #64]
    stp x10, x11, [sp, #80]
    stp x12, x13, [sp, #96]
    stp x14, x15, [sp, #112]
    stp x16, x17, [sp, #128]
    stp x18, x19, [sp, #144]
    stp x20, x21, [sp, #160]
    stp x22, x23, [sp, #176]
    stp x24, x25, [sp, #192]
    stp x26, x27, [sp, #208]
    stp x28, x29, [sp, #224]
    mrs x1, elr_el1
    stp x30, x1, [sp, #240]
    mrs x1, spsr_el1
    mrs x2, esr_el1
    stp x1, x2, [sp, #256]
    mrs x1, far_el1
    stp x1, x0, [sp, #272]
    mov x0, sp
    bl exception
    ldp x30, x1, [sp, #240]
    msr elr_el1, x1
    ldr x1, [sp, #256]
    msr spsr_el1, x1
    ldp x2, x3, [sp, #16]
    ldp x4, x5, [sp, #32]
    ldp x6, x7, [sp, #48]
    ldp x8, x9, [sp, #64]
    ldp x10, x11, [sp, #80]
    ldp x12, x13, [sp, #96]
    ldp x14, x15, [sp, #112]
    ldp x16, x17, [sp, #128]
    ldp x18, x19, [sp, #144]
    ldp x20, x21, [sp, #160]
    ldp x22, x23, [sp, #176]
    ldp x24, x25, [sp, #192]
    ldp x26, x27, [sp, #208]
    ldp x28, x29, [sp, #224]
    ldp x0, x1, [sp]
    add sp, sp, #304
    eret
