// Stores of every shape into the buffer at x0 (4 KiB aligned, 8 KiB long). Gives the number of failed STXR in x0.
    .text
    .globl stores
stores:
    mov x1, #0x1111
    movk x1, #0x2222, lsl #16
    movk x1, #0x3333, lsl #32
    movk x1, #0x4444, lsl #48
    mvn x2, x1
    str x1, [x0]
    stp x1, x2, [x0, #16]
    stp w1, w2, [x0, #32]
    strb w1, [x0, #41]
    strh w1, [x0, #43]
    stur x1, [x0, #51]              // unaligned inside a line
    dup v0.2d, x1
    ins v0.d[1], x2
    str q0, [x0, #64]
    stp q0, q0, [x0, #80]
    st1 {v0.4s}, [x0]
    str s0, [x0, #116]
    str d0, [x0, #120]
    add x3, x0, #1020
    str x1, [x3]                    // over a 1 KiB boundary
    add x3, x0, #4092
    str x1, [x3]                    // over a 4 KiB boundary
    add x3, x0, #2048
    str x1, [x3]
    dc zva, x3                      // 64 bytes of zeros over it
    str w1, [x3, #72]
    add x3, x0, #192
    ldxr x4, [x3]
    add x4, x4, x1
    stxr w5, x4, [x3]               // succeeds
    clrex
    stxr w6, x2, [x3]               // fails: no store
    ldaxp x7, x8, [x3]
    stlxp w9, x1, x2, [x3]          // a pair, succeeds
    stlr x1, [x0, #0]
    add w0, w6, #0
    add w5, w5, w9
    lsl w5, w5, #8
    orr w0, w0, w5
    ret

    .balign 64
    .globl template_a, template_b
template_a: mov w0, #1
    ret
template_b: mov w0, #2
    ret
