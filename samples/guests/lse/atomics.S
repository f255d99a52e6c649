// Large System Extensions: needs a CPU model that has them (--cpu max). x0: buffer. Gives a checksum of results in x0.
    .arch armv8.1-a+lse
    .text
    .globl atomics
atomics:
    mov x10, x0
    mov x1, #7
    mov x2, #5
    str x1, [x10]
    ldadd x2, x3, [x10]             // 12, x3 = 7
    swpal x1, x4, [x10]             // 7, x4 = 12
    mov x5, #7
    mov x6, #99
    cas x5, x6, [x10]               // succeeds: 99
    mov x7, #1
    mov x8, #1000
    casal x7, x8, [x10]             // fails, x7 = 99
    add x9, x10, #8
    ldset w2, w11, [x9]
    ldclrb w2, w12, [x9]
    ldeorh w1, w13, [x9]
    ldsmax x1, x14, [x9]
    stadd x1, [x9]
    add x9, x10, #32
    mov x16, #0
    mov x17, #0
    mov x18, #11
    stp x19, x20, [sp, #-32]!
    str x21, [sp, #16]
    mov x20, #21
    mov x21, #22
    stp xzr, xzr, [x9]
    casp x16, x17, x20, x21, [x9]   // succeeds: 21, 22
    mov x16, #5
    mov x17, #6
    casp x16, x17, x18, x19, [x9]   // fails
    mov w16, #3
    casb w16, w18, [x10]            // fails
    mov w16, #99
    casb w16, w18, [x10]            // succeeds: 11
    ldr x21, [sp, #16]
    ldp x19, x20, [sp], #32
    ldr x0, [x10]
    add x0, x0, x3, lsl #8
    add x0, x0, x4, lsl #16
    add x0, x0, x7, lsl #24
    ldr x1, [x9]
    add x0, x0, x1, lsl #32
    ldr x1, [x9, #8]
    add x0, x0, x1, lsl #40
    ret
