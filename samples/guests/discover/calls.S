// void call_all(u64 x[18], u64 how): X0..X17 from x, the call, X0..X17 back into x. how: see discover.c.
    .section .text.call_all,"ax"
    .globl call_all
call_all:
    stp x29, x30, [sp, #-32]!
    stp x19, x20, [sp, #16]
    mov x19, x0
    mov x20, x1
    ldp x2, x3, [x19, #16]
    ldp x4, x5, [x19, #32]
    ldp x6, x7, [x19, #48]
    ldp x8, x9, [x19, #64]
    ldp x10, x11, [x19, #80]
    ldp x12, x13, [x19, #96]
    ldp x14, x15, [x19, #112]
    ldp x16, x17, [x19, #128]
    ldp x0, x1, [x19]
    tbnz x20, #1, 2f
    tbnz x20, #0, 1f
    hvc #0
    b 4f
1:  hvc #1
    b 4f
2:  tbnz x20, #0, 3f
    smc #0
    b 4f
3:  smc #1
4:  stp x0, x1, [x19]
    stp x2, x3, [x19, #16]
    stp x4, x5, [x19, #32]
    stp x6, x7, [x19, #48]
    stp x8, x9, [x19, #64]
    stp x10, x11, [x19, #80]
    stp x12, x13, [x19, #96]
    stp x14, x15, [x19, #112]
    stp x16, x17, [x19, #128]
    ldp x19, x20, [sp, #16]
    ldp x29, x30, [sp], #32
    ret
